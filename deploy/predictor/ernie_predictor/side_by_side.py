"""infer_cpu.py --benchmark FILE: every engine and precision of a model here, speed and score side by side."""

import os
import statistics
import sys
import time

from .cpu import installed_backends
from .data_files import check_labels, read_file
from .errors import PredictorError
from .machine import has_bf16, processor_kind, usable_cores
from .predictor import ErniePredictor, precision_of
from .tasks import load_task

SINGLES = 100  # texts that are answered one by one
HEADER = ("engine", "precision", "MB", "texts/s", "p50, ms", "score", "as the first")


def side_by_side(model_dir, dev_file, backend="auto", precision_mode="auto", **options):
    """Prints a table: a row for each engine that is installed and each precision that it can run the folder in.

    Texts per second are those of the whole file, from text to answer, in batches; p50 that of single texts; the last
    column is the share of texts that get the first row's answer, whatever its confidence.

    Args:
        dev_file: texts with labels, in the format of training's dev file.
        backend, precision_mode: "auto" for all.
        options: further arguments of `ErniePredictor`.

    Raises:
        PredictorError: the file is missing or broken, or has labels that the model does not know.
    """
    task = load_task(model_dir, options.get("task_name"))
    path = os.path.abspath(dev_file)
    examples = read_file(task.name, path, os.path.basename(os.path.dirname(path)), labelled=True)
    items, gold = [task.item(e) for e in examples], [task.gold(e) for e in examples]
    check_labels(task.name, gold, task.id2label.values())
    precisions = ("int8",) if precision_of(model_dir) == "int8" else ("fp32", *(["bf16"] if has_bf16() else []), "int8")
    installed = installed_backends()
    backends = [name for name in ("openvino", "onnxruntime", "paddle") if name in installed]
    wanted = [
        (engine, precision)
        for precision in (precisions if precision_mode == "auto" else [precision_mode])
        for engine in (backends if backend == "auto" else [backend])
        if (engine, precision) != ("onnxruntime", "bf16")  # it has no kernels for it
    ]
    print(f"{len(items):,} texts of {dev_file}; {usable_cores()} cores of {processor_kind()}")
    rows, first = [HEADER], None
    for engine, precision in wanted:
        try:
            predictor = ErniePredictor(model_dir, backend=engine, precision_mode=precision, **options)
        except PredictorError as e:
            print(f"not measured: {engine}, {precision}: {e}", file=sys.stderr)
            continue
        answers, seconds, milliseconds = _measure(predictor, items)
        first = answers if first is None else first
        score = task.score_answers(answers, gold)[task.score]
        same = sum(map(same_prediction, answers, first)) / len(items)
        files = (predictor.model.path, predictor.model.path.replace(".pdmodel", ".pdiparams"))
        size = sum(map(os.path.getsize, set(files))) / 2**20
        figures = (f"{size:.1f}", f"{len(items) / seconds:.1f}", f"{milliseconds:.2f}", f"{100 * score:.2f}")
        rows.append((engine, precision, *figures, f"{100 * same:.1f}%"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print(
            "  ".join(
                cell.ljust(width) if n < 2 else cell.rjust(width) for n, (cell, width) in enumerate(zip(row, widths))
            )
        )
    print(f"score: {task.score.replace('_', ' ')}")


def _measure(predictor, items):
    """(answers, seconds of all of them, milliseconds of a single text)."""
    predictor.warned = True  # of texts that are truncated the dev score tells
    predictor.predict(items[: 4 * predictor.batch_size])  # threads, memory, kernels for each length
    begin = time.perf_counter()
    answers = predictor.predict(items)
    seconds = time.perf_counter() - begin
    singles = items[:: max(len(items) // SINGLES, 1)][:SINGLES]
    times = []
    for item in singles[:10] + singles:
        begin = time.perf_counter()
        predictor.predict([item])
        times.append(1000 * (time.perf_counter() - begin))
    return answers, seconds, statistics.median(times[10:])


def same_prediction(answer, other):
    """Whether two answers to a text are the same but for their confidence."""
    if isinstance(answer, list):
        return [(e["label"], e["start"], e["end"]) for e in answer] == [
            (e["label"], e["start"], e["end"]) for e in other
        ]
    return all(answer[key] == other[key] for key in ("label", "answer") if key in answer)
