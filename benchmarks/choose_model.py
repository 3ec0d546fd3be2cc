"""Which model to take on this machine: latency of each published Chinese model, measured here, against its CLUE score.

python benchmarks/choose_model.py                        measures all models: benchmarks/results/choose_model.json, .md
python benchmarks/choose_model.py --max_latency_ms 10    names the model to take for one text in at most 10 ms
python benchmarks/choose_model.py --max_latency_ms 500 --batch_size 32 --threads 1 --precision int8

The scores and names are those of the table in the README of PaddleNLP's ERNIE 3.0. Latency is that of one batch of
texts of 128 tokens, to which most of IFLYTEK's are truncated, without tokenizing. Models have the architectures of the
published ones with random weights, which changes no speed. What was measured is kept: a killed run resumes, and a
second one on the same machine answers at once. Models that are certainly too slow are not measured.

The scores are of FP32 models. What compression costs was published for ERNIE 3.0 Medium only: 0.77 points in INT8,
0.43 pruned to 75% of the width and in INT8.
"""

import harness  # isort: skip  makes the project's packages importable

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ernie_predictor.files import work_folder
from ernie_predictor.machine import has_vnni, processor, processor_id, processor_kind, usable_cores
from ernie_predictor.runtimes import engine_versions, fastest_engine, open_onnx
from harness import positive, stop, write_text
from tqdm import tqdm

LENGTH, VOCAB_SIZE = 128, 2000
SLOW_MS = 10_000  # of a model whose calls took as long, no more are made
# With its version. Only without VNNI are there two: FP32 runs in the first, INT8 in the second.
ENGINE = engine_versions().split(", ")[0] if has_vnni() else engine_versions()
RESULTS = harness.ROOT / "benchmarks" / "results" / "choose_model.json"

PRECISIONS = {"fp32": "FP32", "int8": "INT8", "pruned_int8": "pruned to 75%, INT8"}
# Published averages of ERNIE 3.0 Medium, over nine tasks: the only model whose compressed forms were published.
MEDIUM = {"fp32": 74.87, "int8": 74.10, "pruned_int8": 74.44}

# Layers, width, heads, inner width; from small to large. Two models have another inner width than others of their size.
ARCHITECTURES = {
    "2L128H": (2, 128, 2, 512),
    "4L256H": (4, 256, 4, 1024),
    "4L312H1200": (4, 312, 12, 1200),
    "4L312H": (4, 312, 12, 1248),
    "4L384H": (4, 384, 12, 1536),
    "6L384H": (6, 384, 12, 1536),
    "4L512H": (4, 512, 8, 2048),
    "3L768H": (3, 768, 12, 3072),
    "8L512H": (8, 512, 8, 2048),
    "4L768H": (4, 768, 12, 3072),
    "3L1024H": (3, 1024, 16, 4096),
    "6L768H": (6, 768, 12, 3072),
    "12L768H": (12, 768, 12, 3072),
    "20L1024H": (20, 1024, 16, 4096),
    "24L1024H3072": (24, 1024, 16, 3072),
    "24L1024H": (24, 1024, 16, 4096),
}


KEYS = ("architecture", "precision", "batch_size", "threads")


class Model(NamedTuple):
    name: str  # of the hub
    family: str
    architecture: str
    parameters: int  # millions, from the configuration in PaddleNLP 2.8.1, without the task's head
    average: float  # published, over the ten tasks of CLUE, in FP32


# The table of PaddleNLP's model_zoo/ernie-3.0/README.md without RoFormerV2 Small: its architecture is another one.
MODELS = [
    Model(*row)
    for row in (
        ("ernie-1.0-large-zh-cw", "ERNIE", "24L1024H3072", 272, 79.03),
        ("ernie-2.0-large-zh", "ERNIE", "24L1024H", 317, 76.90),
        ("hfl/roberta-wwm-ext-large", "HFL", "24L1024H", 326, 76.61),
        ("ernie-3.0-xbase-zh", "ERNIE 3.0", "20L1024H", 296, 78.39),
        ("ernie-3.0-base-zh", "ERNIE 3.0", "12L768H", 118, 76.05),
        ("ernie-1.0-base-zh-cw", "ERNIE", "12L768H", 117, 76.47),
        ("ernie-gram-zh", "ERNIE", "12L768H", 100, 75.72),
        ("Langboat/mengzi-bert-base", "BERT, Mengzi", "12L768H", 102, 74.69),
        ("ernie-2.0-base-zh", "ERNIE", "12L768H", 100, 74.32),
        ("ernie-1.0-base-zh", "ERNIE", "12L768H", 100, 74.17),
        ("hfl/roberta-wwm-ext", "HFL", "12L768H", 102, 74.11),
        ("bert-base-chinese", "BERT, Mengzi", "12L768H", 102, 72.57),
        ("uer/chinese-roberta-base", "UER", "12L768H", 102, 71.78),
        ("uer/chinese-roberta-medium", "UER", "8L512H", 37, 67.06),
        ("ernie-3.0-medium-zh", "ERNIE 3.0", "6L768H", 75, 72.49),
        ("hfl/rbt6", "HFL", "6L768H", 60, 70.06),
        ("tinybert-6l-768d-zh", "TinyBERT", "6L768H", 60, 69.62),
        ("uer/chinese-roberta-6l-768h", "UER", "6L768H", 60, 67.09),
        ("ernie-3.0-mini-zh", "ERNIE 3.0", "6L384H", 27, 66.90),
        ("hfl/rbt4", "HFL", "4L768H", 46, 67.42),
        ("uer/chinese-roberta-small", "UER", "4L512H", 24, 63.25),
        ("ernie-3.0-micro-zh", "ERNIE 3.0", "4L384H", 23, 64.21),
        ("ernie-3.0-nano-zh", "ERNIE 3.0", "4L312H", 18, 62.97),
        ("tinybert-4l-312d-zh", "TinyBERT", "4L312H1200", 11, 60.82),
        ("uer/chinese-roberta-mini", "UER", "4L256H", 9, 53.40),
        ("hfl/rbtl3", "HFL", "3L1024H", 61, 66.63),
        ("hfl/rbt3", "HFL", "3L768H", 39, 65.72),
        ("uer/chinese-roberta-tiny", "UER", "2L128H", 3, 44.45),
    )
]


def make_models(architecture, precisions, folder):
    """Writes classifiers of an architecture with random weights, as the scripts export and compress them.

    Their INT8 scales are of random ids, and their vocabulary is small: neither changes the speed.

    Returns:
        {precision: ONNX file}.
    """
    import workarounds  # noqa: F401, I001  before Paddle
    from ernie_predictor.int8 import calibrate, quantize_onnx
    from paddlenlp.transformers import ErnieConfig, ErnieForSequenceClassification

    from ernie.onnx_graph import write_onnx
    from ernie.pruning import narrow
    from ernie.static_model import save_static_model

    layers, width, heads, inner = ARCHITECTURES[architecture]
    config = ErnieConfig(
        vocab_size=VOCAB_SIZE,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
        use_task_id=True,
        num_labels=119,  # IFLYTEK's
    )
    model = ErnieForSequenceClassification(config)
    files = {}
    for pruned in (False, True):
        wanted = [name for name in precisions if name.startswith("pruned") == pruned]
        if not wanted:
            continue
        if pruned:
            narrow(model, 0.75)
        part = os.path.join(folder, "pruned" if pruned else "full")
        os.mkdir(part)
        save_static_model(model, part)
        write_onnx(part, ["logits"], first_token_only=True)
        plain = os.path.join(part, "model.onnx")
        for name in wanted:
            files[name] = plain
            if name.endswith("int8"):
                files[name] = os.path.join(part, "int8.onnx")
                quantize_onnx(plain, files[name], calibrate(plain, [random_batch(1)]))
    return files


def random_batch(batch_size):
    input_ids = np.random.default_rng(0).integers(1, VOCAB_SIZE, [batch_size, LENGTH])
    return {"input_ids": input_ids, "token_type_ids": np.zeros_like(input_ids)}


def time_models(models, batch_sizes, rounds, step):
    """Runs models in turns.

    Args:
        models: {precision: model}.
        step: is called after each turn.

    Returns:
        {(precision, batch size): milliseconds of each call}.
    """
    batches = {size: random_batch(size) for size in batch_sizes}
    times, calls = {}, {}
    for turn in range(rounds + 1):
        for size, batch in batches.items():
            for precision, model in models.items():
                taken = times.setdefault((precision, size), [])
                if len(taken) > 1 and sum(taken) > SLOW_MS:
                    continue
                time.sleep(0.02)  # the threads of the model before spin for a while
                for _ in range(calls.get((precision, size), 1)):
                    start = time.perf_counter()
                    model(batch)
                    taken.append(1e3 * (time.perf_counter() - start))
                if turn == 0:  # kernels are made for the batch; small models are called more often
                    calls[precision, size] = min(max(int(300 / taken.pop()), 1), 20)
        step()
    return times


def measure(args, cells, save):
    """Measures what is not in `cells` yet, from the smallest architecture to the largest.

    Args:
        cells: {(architecture, precision, batch size, threads): figures}; is filled.
        save: is called after each architecture.
    """
    wanted = list(itertools.product(args.precision, args.batch_size, args.threads))
    todo = [
        name for name in ARCHITECTURES if name in args.architectures and any((name, *w) not in cells for w in wanted)
    ]
    bar = tqdm(
        total=sum(map(work_of, todo)),
        desc="measuring",
        disable=None,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}",
    )
    skipped = []
    for name in todo:
        bar.set_postfix_str(name)
        if too_slow(args, cells, name):
            skipped.append(name)
            bar.update(work_of(name))
            continue
        with work_folder(tempfile.gettempdir(), "choose_model") as folder:
            # A process for each, which gives Paddle's memory back before anything is timed.
            try:
                files = harness.apart(make_models, name, args.precision, folder)
            except BrokenProcessPool:
                bar.close()
                stop(f"the process that makes {name} was killed: is there enough memory? What was measured is "
                     "kept; --models measures only those that you name", 1)  # fmt: skip
            bar.update(work_of(name) / 2)
            part = work_of(name) / 2 / len(args.threads) / (args.rounds + 1)
            for threads in args.threads:
                models = {p: open_onnx(path, fastest_engine(path), threads) for p, path in files.items()}
                times = time_models(models, args.batch_size, args.rounds, lambda part=part: bar.update(part))
                del models
                for (precision, batch_size), taken in times.items():
                    cells[name, precision, batch_size, threads] = {
                        "median": statistics.median(taken),
                        "min": min(taken),
                        "max": max(taken),
                        "calls": len(taken),
                    }
        save()
        found = latencies(args, cells, name)
        figures = ", ".join(f"{PRECISIONS[p]} {show(found[p])} ms" for p in args.precision)
        shape = f"batch size {args.batch_size[0]}, {args.threads[0]} threads"
        tqdm.write(f"{name}: {figures} ({shape})", sys.stderr)
    bar.close()
    if skipped:
        print(f"not measured, since smaller ones take longer: {', '.join(skipped)}\n", file=sys.stderr)


def work_of(architecture):
    """How long an architecture takes to make and to measure, in no unit: by its weights, and a part for all alike."""
    layers, width, _, inner = ARCHITECTURES[architecture]
    return layers * width * (4 * width + 2 * inner) + 1e7


def too_slow(args, cells, name):
    """Whether an architecture that is in nothing larger than this one takes longer than the limit."""
    if not args.max_latency_ms:
        return False
    for other, sizes in ARCHITECTURES.items():
        found = latencies(args, cells, other)
        no_larger = all(a <= b for a, b in zip(sizes, ARCHITECTURES[name]))
        if no_larger and len(found) == len(args.precision) and min(found.values()) > args.max_latency_ms:
            return True
    return False


def latencies(args, cells, architecture):
    """{precision: milliseconds} of what was measured, at the first batch size and number of threads."""
    keys = {p: (architecture, p, args.batch_size[0], args.threads[0]) for p in args.precision}
    return {p: cells[key]["median"] for p, key in keys.items() if key in cells}


def candidates(models):
    """The best model of each architecture, from the lowest score to the highest."""
    best = {model.architecture: model for model in sorted(models, key=lambda model: model.average)}
    return sorted(best.values(), key=lambda model: model.average)


def answer(args, cells, models):
    """Prints which model to take; returns the exit status."""
    found = {model: latencies(args, cells, model.architecture) for model in candidates(models)}
    fastest = {model: min(found[model].values(), default=math.inf) for model in found}
    # Without those that are both worse and slower than another.
    rows = [m for m in found if not any(n.average > m.average and fastest[n] < fastest[m] for n in found)]
    fitting = [place for place, model in enumerate(rows) if fastest[model] <= args.max_latency_ms]
    limit = f"{args.max_latency_ms:g} ms"
    if fitting:
        place = fitting[-1]
        model, shown = rows[place], rows[max(place - 2, 0) : place + 3][::-1]
        fits = [precision for precision in args.precision if found[model][precision] <= args.max_latency_ms]
        precision = max(fits, key=MEDIUM.get)  # the one that loses least
        print(f"Take {model.name} ({PRECISIONS[precision]}): {show(found[model][precision])} ms, limit {limit}.")
        if precision != "fp32":
            loss = MEDIUM["fp32"] - MEDIUM[precision]
            print(f"compress_*.py makes this form. On ERNIE 3.0 Medium it cost {loss:.2f} points (published).")
    else:
        shown = sorted(rows, key=fastest.get)[:3]
        print(f"No model fits into {limit}. The fastest is {shown[0].name}: {show(fastest[shown[0]])} ms.")
        print("Shorter texts, a smaller batch or more threads take less time.")
    columns = [(precision, args.batch_size[0], args.threads[0]) for precision in args.precision]
    print("\n" + table(shown, columns, cells, f"over {args.max_latency_ms:g}"))
    print(setup(args.batch_size[0]))
    return 0 if fitting else 1


def table(models, columns, cells, missing="–"):
    """Markdown: a row per model, a column per (precision, batch size, threads)."""
    head = [f"{PRECISIONS[p]}, {t} thread{'s' if t > 1 else ''}, ms" for p, _, t in columns]
    rows = []
    for model in models:
        found = (cells.get((model.architecture, *column)) for column in columns)
        about = [f"`{model.name}`", model.architecture, f"{model.parameters} M", f"{model.average:.2f}"]
        rows.append([*about, *(show(figure["median"]) if figure else missing for figure in found)])
    return harness.markdown(["Model", "Architecture", "Parameters", "CLUE average", *head], rows) + "\n"


def show(number):
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def setup(batch_size):
    return (
        f"Milliseconds per batch of {batch_size}, {LENGTH} tokens each, without tokenizing; {processor_kind()}, "
        f"{ENGINE}. The average is the published one, of the FP32 model."
    )


def report(args, cells):
    """All that was asked for, as Markdown."""
    parts = ["# Latency and published score of each model\n\n`python benchmarks/choose_model.py`\n"]
    for size in args.batch_size:
        columns = [(p, size, t) for t in args.threads for p in args.precision]
        parts.append(f"## Batch size {size}\n\n{setup(size)}\n\n{table(args.models, columns, cells)}")
    return "\n".join(parts)


def machine():
    return {"processor": processor(), "processor_id": processor_id(), "cores": usable_cores(), "engine": ENGINE}


def read_cells(path):
    """What was measured on this machine before; nothing if it was another one."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        cells = {tuple(row[key] for key in KEYS): row["milliseconds"] for row in kept["latencies"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        stop(f"{path} is not what this program writes: remove it, or name another with --results", 1)
    if kept["machine"] != machine():
        was = ", ".join(map(str, kept["machine"].values()))
        print(f"{path} is of another machine or another engine ({was}): all is measured anew", file=sys.stderr)
        return {}
    return cells


def write_cells(path, cells):
    content = {
        "machine": machine(),
        "length": LENGTH,
        "loss": {name: round(MEDIUM["fp32"] - average, 2) for name, average in MEDIUM.items()},
        "models": [model._asdict() for model in MODELS],
        "latencies": [{**dict(zip(KEYS, key)), "milliseconds": figures} for key, figures in cells.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    harness.write_json(path, content)


def model_named(text):
    for model in MODELS:
        if model.name == text:
            return model
    raise argparse.ArgumentTypeError(f"{text}: expected one of {', '.join(model.name for model in MODELS)}")


def milliseconds(text):
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number of milliseconds above 0")
    return number


def main():
    parser = harness.parser(__doc__, "rounds")
    add = parser.add_argument
    add("--max_latency_ms", metavar="N", type=milliseconds, help="name the model to take for this latency of a batch")
    add("--batch_size", metavar="N", type=positive, nargs="+", help="texts per batch (default: 1 and 32; with "
        "--max_latency_ms 1)")  # fmt: skip
    add("--threads", metavar="N", type=positive, nargs="+", help="for one batch (default: 1 and all cores; with "
        "--max_latency_ms all cores)")  # fmt: skip
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="forms of each model")
    add("--models", metavar="NAME", type=model_named, nargs="+", help="of the published table (default: all; with "
        "--max_latency_ms those that run_*.py takes)")  # fmt: skip
    add("--results", metavar="FILE", type=Path, default=RESULTS, help="what was measured, as JSON")
    args = parser.parse_args()
    limited = args.max_latency_ms is not None
    args.batch_size = args.batch_size or ([1] if limited else [1, 32])
    args.threads = args.threads or ([usable_cores()] if limited else sorted({1, usable_cores()}))
    if limited and len(args.batch_size) + len(args.threads) > 2:
        parser.error("--max_latency_ms takes one --batch_size and one number of --threads")
    models = args.models or [model for model in MODELS if not limited or model.family.startswith("ERNIE")]
    args.models, args.architectures = models, {model.architecture for model in models}

    cells = read_cells(args.results)
    measure(args, cells, lambda: write_cells(args.results, cells))
    if limited:
        sys.exit(answer(args, cells, models))
    text = report(args, cells)
    write_text(args.results.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    harness.run(main, "../requirements.txt")
