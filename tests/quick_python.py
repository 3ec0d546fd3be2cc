"""`python` for the commands of the documents, in tests/test_documents.py: the same programs, with less to do.

Trainings start from the sample model, on the sample data, and end after two steps; one INT8 variant is made in place of
six. Environments are not made.
"""

import os
import re
import sys


def shorter(script, arguments):
    """Arguments that do the same in seconds."""
    name = os.path.basename(script)
    if not name.startswith(("run_", "compress_")):
        return arguments
    arguments = [re.sub(r"^((?:--\w+=)?)ernie-3\.0-\w+-zh$", rf"\1{os.environ['TEST_MODEL']}", a) for a in arguments]
    if not any(argument.startswith("--data_dir") for argument in arguments):
        arguments += ["--data_dir", "examples/data"]
    if name.startswith("compress_"):
        arguments += ["--algo_list", "mse", "--batch_size_list", "4"]
    return [*arguments, "--max_steps", "2", "--max_seq_length", "128"]


def main():
    arguments = sys.argv[1:]
    if arguments[:2] == ["-m", "venv"]:
        os.makedirs(os.path.join(arguments[2], "bin"), exist_ok=True)
        open(os.path.join(arguments[2], "bin", "activate"), "w").close()
        return
    if arguments[0] != "-c":
        arguments = [arguments[0], *shorter(arguments[0], arguments[1:])]
    os.environ["PATH"] = os.environ["TEST_PATH"]
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    main()
