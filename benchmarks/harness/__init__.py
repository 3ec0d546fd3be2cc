"""What the benchmarks share: flags, processes, turns, medians and spread, the machine, tables, files of figures.

`models` makes models with random weights, `servers` starts servers and sends requests. `import harness` comes first in
each program: it makes the project's packages importable. It imports no Paddle, and nothing that sets up its
surroundings, for what is measured beside it.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from pathlib import Path

ENVIRONMENT = dict(os.environ)  # as the user has it; imports of the project set the number of threads for one process
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "deploy" / "predictor")]

from ernie_predictor.commandline import HelpFormatter, existing_file, positive, run, stop  # noqa: F401
from ernie_predictor.files import write_text
from ernie_predictor.machine import processor_kind, usable_cores
from ernie_predictor.runtimes import engine_versions

SAMPLE_DATA = str(ROOT / "examples" / "data")
VOCAB = str(ROOT / "examples" / "model" / "vocab.txt")
ARCHITECTURES = ("base", "medium", "mini", "micro", "nano", "sample")  # of examples/make_model.py, which needs Paddle
LENGTHS = {"tnews": 128, "msra_ner": 128, "cmrc2018": 512}  # tokens per text, as configs/default.yml trains


# ------------------------------------------------------------------------------------------------------------- flags


def json_file(text):
    if not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"{text}: expected a name that ends in .json")
    if not Path(text).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no folder {Path(text).parent}")
    return Path(text)


def shape(text):
    batch, _, length = text.partition("x")
    if not (batch.isdecimal() and length.isdecimal() and int(batch) and 1 <= int(length) <= 512):
        raise argparse.ArgumentTypeError(f"{text}: expected BATCHxLENGTH, as 32x64, of at most 512 tokens")
    return text


FLAGS = {
    "data_dir": {"metavar": "DIR", "default": SAMPLE_DATA, "help": "has a folder for each data set"},
    "datasets": {"metavar": "NAME", "nargs": "+", "choices": LENGTHS, "default": list(LENGTHS), "help": "to read"},
    "arch": {"choices": ARCHITECTURES, "default": "medium", "help": "of ERNIE 3.0, or the sample's; random weights"},
    "vocab_file": {"metavar": "FILE", "type": existing_file, "default": VOCAB, "help": "vocabulary"},
    "width_mult": {"metavar": "N", "type": float, "default": 0.75, "help": "share of the width of the narrow models"},
    "shapes": {"metavar": "SHAPE", "type": shape, "nargs": "+", "help": "batch x length"},
    "texts": {"metavar": "N", "type": positive, "help": "of the dev set, from its beginning, again and again"},
    "questions": {"metavar": "N", "type": positive, "help": "of cmrc2018, whose contexts are long"},
    "batch_size": {"metavar": "N", "type": positive, "default": 32, "help": "texts per batch"},
    "threads": {"metavar": "N", "type": positive, "default": 2, "help": "for one batch"},
    "clients": {"metavar": "N", "type": positive, "help": "that ask at the same time"},
    "seed": {"metavar": "N", "type": int, "default": 0, "help": "of what is random"},
    "rounds": {"metavar": "N", "type": positive, "default": 3, "help": "turns of each"},
    "output": {"metavar": "FILE.json", "type": json_file, "help": "for the figures; the tables go to FILE.md"},
}
# The flags of a program that measures whole jobs, from texts to answers.
JOBS = ("datasets", "data_dir", "vocab_file", "arch", "width_mult", "batch_size", "threads", "rounds", "output")


def parser(doc, *names, **defaults):
    """A parser with the flags of FLAGS that are named; `defaults` names those with another default."""
    made = argparse.ArgumentParser(description=doc, formatter_class=HelpFormatter)
    for name in (*names, *defaults):
        flag = FLAGS[name] | ({"default": defaults[name]} if name in defaults else {})
        made.add_argument(f"--{name}", **flag)
    return made


# --------------------------------------------------------------------------------------------------------- processes


def apart(function, *arguments):
    """Calls a function in a process of its own, whose memory and threads end with it."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def make_models(arch, vocab_file, folder, task="seq_cls", width_mult=0.75):
    """`models.make_folders` in a process of its own: {"FP32": folder, "INT8": folder, and both narrower}."""
    print(f"making models of ERNIE 3.0-{arch}: some minutes", file=sys.stderr)
    return apart(_make_models, task, arch, vocab_file, folder, width_mult)


def _make_models(*arguments):
    from harness.models import make_folders

    return make_folders(*arguments)[0]


# ------------------------------------------------------------------------------------------------- turns and figures


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def in_turns(runs, rounds, calls=None):
    """Calls functions in turns, so that a slow minute hits all of them.

    Args:
        runs: {name: function without arguments}.
        calls: of each per turn, after one that does not count; left out: one, and the first turn does not count, in
            which engines make kernels for every length.

    Returns:
        {name: seconds of each call}.
    """
    times = {name: [] for name in runs}
    for turn in range(rounds + (calls is None)):
        for name, function in runs.items():
            time.sleep(0.1)  # the threads of the engine before spin for a while
            first = seconds(function)
            if calls is not None:
                times[name] += [seconds(function) for _ in range(calls)]
            elif turn > 0:
                times[name].append(first)
    return times


def speed_up(times, reference):
    """How many times as fast, of each round: (the median, the smallest, the largest)."""
    ratios = [b / a for a, b in zip(times, reference)]
    return statistics.median(ratios), min(ratios), max(ratios)


def machine(threads=None):
    """The machine in a line: cores, processor, engines and Python."""
    cores = f"{threads} threads" if threads else f"{usable_cores()} cores"
    return f"{cores} of {processor_kind()}; {engine_versions()}; Python {platform.python_version()}"


# -------------------------------------------------------------------------------------------------- tables and files


def markdown(header, rows):
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows))


def write_json(path, content):
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def write_results(output, figures, *parts):
    """Prints parts of Markdown; writes figures to `output`, where it is named, and the parts beside, as FILE.md."""
    text = "\n\n".join(parts) + "\n"
    print(f"\n{text}", end="", flush=True)
    if output:
        write_json(output, figures)
        write_text(output.with_suffix(".md"), text)
