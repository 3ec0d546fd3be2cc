"""How training speed and memory grow with the number of processes on one machine, whose cores they share.

python benchmarks/training_growth.py --output benchmarks/results/training_growth.json

Every row trains on the same texts in the same batches: two processes take half of each batch and half of the cores.
The first row is one process on its share of the cores, as the last one's processes have. Each round trains all rows in
turns. Speed is that of the training loop, without loading and tokenizing. Memory is the largest process's peak.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ENVIRONMENT = dict(os.environ)  # of the trainings; the imports below set the number of threads for a single process

from ernie.tasks import DATA_SETS  # isort: skip  makes the predictor's package importable
from ernie_predictor.commandline import HelpFormatter, existing_file, positive
from ernie_predictor.machine import processor_kind, usable_cores

from ernie.files import write_json


def run(command, **environment):
    """Runs a Python program; returns the peak memory in MiB of the largest process that it or its children were."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=ROOT, env=ENVIRONMENT | environment, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            sys.exit(log.read()[-4000:])
    return usage.ru_maxrss / 1024


def train(args, model, processes, cores):
    """Trains once; returns (samples per second, MiB)."""
    with tempfile.TemporaryDirectory() as folder:
        launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", processes, "--log_dir", f"{folder}/log"]
        command = launch if processes > 1 else []
        command += [DATA_SETS[args.dataset].task.script, "--model_name_or_path", model, "--dataset", args.dataset]
        command += ["--data_dir", args.data_dir, "--config", "configs/default.yml", "--output_dir", folder]
        command += ["--do_train", "--max_steps", args.steps, "--save_strategy", "no"]
        command += ["--per_device_train_batch_size", args.batch_size // processes]
        memory = run(command, MKL_NUM_THREADS=str(cores))
        results = json.loads((Path(folder) / args.dataset / "train_results.json").read_text())
        return results["train_samples_per_second"], memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--processes", metavar="N", type=positive, nargs="+", default=[1, 2], help="numbers of processes")
    add("--dataset", metavar="NAME", choices=DATA_SETS, default="tnews", help="whose training texts are taken")
    add("--data_dir", metavar="DIR", default=str(ROOT / "examples" / "data"), help="has a folder for each data set")
    add("--arch", default="nano", help="of ERNIE 3.0, with random weights")
    add("--vocab_file", metavar="FILE", type=existing_file, default=str(ROOT / "examples" / "model" / "vocab.txt"),
        help="vocabulary")  # fmt: skip
    add("--batch_size", metavar="N", type=positive, default=32, help="texts per step, of all processes together")
    add("--steps", metavar="N", type=positive, default=40, help="per training")
    add("--rounds", metavar="N", type=positive, default=3, help="trainings per row")
    add("--output", metavar="FILE", help="also writes the figures as JSON, and the table beside it as Markdown")
    args = parser.parse_args()
    cores = usable_cores()
    for processes in args.processes:
        if args.batch_size % processes:
            parser.error(f"--batch_size {args.batch_size} can't be divided among {processes} processes")
        if cores < processes:
            parser.error(f"--processes {processes}: this machine has {cores} usable cores")

    rows = [(1, cores // max(args.processes)), *((processes, cores // processes) for processes in args.processes)]
    runs = {row: [] for row in dict.fromkeys(rows)}
    with tempfile.TemporaryDirectory() as model:
        run(["examples/make_model.py", "--arch", args.arch, "--vocab_file", args.vocab_file, "--output_dir", model])
        for done in range(args.rounds):
            for processes, each in runs:
                what = f"round {done + 1} of {args.rounds}: {processes} x {each} cores"
                print(what, file=sys.stderr, flush=True)
                runs[processes, each].append(train(args, model, processes, each))

    machine = f"{cores} cores of {processor_kind()}; Python {platform.python_version()}"
    title = f"ERNIE 3.0-{args.arch}, {args.dataset}, {args.batch_size} texts per step, {args.steps} steps; {machine}"
    lines = ["| Processes | Cores each | Samples/s (range) | Times the first row | Peak memory per process, MiB |"]
    lines.append("|---" * 5 + "|")
    figures = []
    for (processes, each), found in runs.items():
        speeds, memory = zip(*found)
        speed, first = (statistics.median(s for s, _ in row) for row in (found, next(iter(runs.values()))))
        figures.append(
            {"processes": processes, "cores_each": each, "samples_per_second": speeds, "peak_mib_per_process": memory}
        )
        lines.append(
            f"| {processes} | {each} | {speed:.1f} ({min(speeds):.1f} to {max(speeds):.1f}) | {speed / first:.2f} "
            f"| {statistics.median(memory):,.0f} |"
        )
    print(f"\n{title}\n")
    print("\n".join(lines))
    if args.output:
        write_json(args.output, {"title": title, "rows": figures})
        Path(args.output).with_suffix(".md").write_text("\n".join([title, "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
