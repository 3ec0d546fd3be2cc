"""Report: variants on the dev set, what they compute and how fast, as a table, files and a picture; the fastest in a
budget."""

import os
import shutil
import statistics
import time

import numpy as np
from ernie_predictor.machine import processor_kind, usable_cores
from ernie_predictor.runtimes import ENGINE_NAMES, engine_versions, fastest_engine, installed_engines, open_onnx

from ernie import console
from ernie.console import logger
from ernie.files import new_folder, write_json, write_text
from ernie.results import read_metrics, write_metrics
from ernie.static_model import run_static_model
from ernie.tasks import BASELINES, IGNORED

TABLE_HEAD = ("| model | score | change | MB | latency, ms | texts/s |", "|---|---|---|---|---|---|")
ROUNDS = 7  # turns per model; fewer where texts are long and models large


class DevSet:
    """The dev set in batches, and what a model computes for it.

    Args:
        split: a `Split`, with labels.
    """

    def __init__(self, split, collator, batch_size):
        self.features, self.collator = split.sorted_features, collator
        self.batches, labels = [], []
        for begin in range(0, len(self.features), batch_size):
            batch = collator(self.features[begin : begin + batch_size])
            labels.append([batch.pop(name) for name in split.task.label_names])
            self.batches.append(batch)
        self.labels = concatenate(labels)

    def onnx_logits(self, onnx_file, engine):
        """A tuple of each output's logits over the whole dev set."""
        model = open_onnx(onnx_file, engine, usable_cores())
        return concatenate(model(batch) for batch in console.progress(self.batches, desc="dev set"))

    def paddle_logits(self, prefix, input_dtype):
        """The same of a static Paddle model, `prefix`.pdmodel."""
        batches = ({name: array.astype(input_dtype) for name, array in batch.items()} for batch in self.batches)
        outputs = run_static_model(prefix, batches)
        return concatenate(console.progress(outputs, desc="dev set, Paddle", total=len(self.batches)))

    def agreement(self, logits, others):
        """The share of predictions that two models have in common: classes, tags, or answers' ends."""
        same = [a.argmax(axis=-1) == b.argmax(axis=-1) for a, b in zip(logits, others)]
        if same[0].ndim == 2:  # tags
            return float(same[0][self.labels[0] != IGNORED].mean())
        return float(np.logical_and.reduce(same).mean())

    def timed_inputs(self, count):
        """(a batch of `count` texts, spread evenly from the shortest to the longest; the length of each)."""
        chosen = [self.features[i] for i in np.linspace(len(self.features) - 1, 0, count).round().astype(int)]
        batch = self.collator(chosen)
        return {name: batch[name] for name in self.batches[0]}, [len(f["input_ids"]) for f in chosen]


def concatenate(batches):
    """An array for each of a batch's arrays, over all batches; different lengths are padded with `IGNORED`."""
    joined = []
    for arrays in zip(*batches):
        shape = np.max([a.shape[1:] for a in arrays], axis=0)
        pads = ([(0, 0), *((0, most - size) for most, size in zip(shape, a.shape[1:]))] for a in arrays)
        joined.append(np.concatenate([np.pad(a, pad, constant_values=IGNORED) for a, pad in zip(arrays, pads)]))
    return tuple(joined)


def measure_speed(folders, dev_set, engines):
    """Times each model with each engine, in turns with the original, which comes first and runs with the engine that
    the predictor takes for it: no more than two models are open at a time.

    Args:
        folders: {name: model folder}.
        engines: names of ernie_predictor/runtimes.py.

    Returns:
        {engine: {name: {"latency_ms": the median over single texts, "texts_per_second": in batches of 32,
        "latency_speed_up", "speed_up": the original's by this model's, of the same turns}}}; the texts are of the dev
        set, from its shortest to its longest.
    """
    batch, _ = dev_set.timed_inputs(32)
    spread, lengths = dev_set.timed_inputs(8)
    texts = [{name: array[i : i + 1, :n] for name, array in spread.items()} for i, n in enumerate(lengths)]
    files = {name: os.path.join(folder, "model.onnx") for name, folder in folders.items()}
    original = next(iter(files))
    first = (fastest_engine(files[original]), original)
    models = {first: open_onnx(files[original], first[0], usable_cores())}
    seconds = 120 / len(folders) / len(engines)  # of one model's turns; at least 3 of them all the same
    speeds = {engine: {} for engine in engines}
    for key in console.progress([(engine, name) for engine in engines for name in files], desc="timing"):
        engine, name = key
        if key != first:
            models[key] = open_onnx(files[name], engine, usable_cores())
        times = {key: ([], []) for key in models}
        begin = time.perf_counter()
        for done in range(ROUNDS):
            if done >= 3 and time.perf_counter() - begin > seconds:
                break
            for timed, model in models.items():
                time.sleep(0.02)  # the threads of the model before spin for a while
                _seconds(model, texts[0])
                times[timed][0].extend(_seconds(model, inputs) for inputs in texts)
                warm = _seconds(model, batch)
                # Small models: more calls, since one of a few milliseconds means little on a busy machine.
                calls = min(max(int(0.1 / warm), 1), 10)
                times[timed][1].extend(_seconds(model, batch) for _ in range(calls))
        alone, together, original_alone, original_together = map(statistics.median, (*times[key], *times[first]))
        speeds[engine][name] = {
            "latency_ms": 1e3 * alone,
            "latency_speed_up": original_alone / alone,
            "texts_per_second": 32 / together,
            "speed_up": original_together / together,
        }
        if key != first:
            del models[key], model
    return speeds


def _seconds(model, inputs):
    start = time.perf_counter()
    model(inputs)
    return time.perf_counter() - start


def write_report(output_dir, score_name, names, dev_set, max_drop):
    """Times every variant and the original, writes compression_report.json, .md and .png, and copies the best.

    Args:
        names: variants as folders below output_dir, the FP32 original first; each holds metrics.json.
        max_drop: see `choose_best`.
    """
    engines = installed_engines()
    folders = {name: os.path.join(output_dir, name) for name in names}
    timed = f"times {len(names)} models with {' and '.join(ENGINE_NAMES[engine] for engine in engines)}"
    console.row("report", f"{output_dir}/compression_report.md, .json and .png: {timed}")
    speeds = measure_speed(folders, dev_set, engines)
    rows, original = [], read_metrics(folders[names[0]])
    for name, folder in folders.items():
        found, onnx_file = read_metrics(folder), os.path.join(folder, "model.onnx")
        engine = fastest_engine(onnx_file)
        scores = {e: found[score_name] if e == found["engine"] else found[e][score_name] for e in engines}
        rows.append(
            {
                "variant": name,
                "engine": engine,
                "score": scores[engine],
                "change": 100 * (scores[engine] - (rows[0]["score"] if rows else scores[engine])),
                "scores": scores,
                "megabytes": os.path.getsize(onnx_file) / 2**20,
                "paddle_int8": found.get("paddle_int8"),
                "speed": {engine: speeds[engine][name] for engine in engines},
            }
        )
    report = {
        "dataset": original["dataset"],
        "score": score_name,
        "num_examples": original["num_examples"],
        "machine": f"{processor_kind()}, {usable_cores()} cores",
        "versions": engine_versions(),
        "engines": engines,
        "baseline": original["baseline"],
        "advice": advice(rows, original["baseline"], max_drop),
        "variants": rows,
    }
    write_json(os.path.join(output_dir, "compression_report.json"), report)
    text = report_table(report)
    write_text(os.path.join(output_dir, "compression_report.md"), text)
    try:
        from ernie.report_picture import draw_report  # here: matplotlib is optional
    except ImportError as e:
        logger.warning(f"no compression_report.png, which needs matplotlib: pip install matplotlib ({e})")
    else:
        draw_report(report, choose_best(rows, max_drop)[0], os.path.join(output_dir, "compression_report.png"))
    print("\n" + text, flush=True)
    pick_best(output_dir, rows, max_drop)


def report_table(report):
    first = report["variants"][0]
    lines = [
        f"# {report['dataset']}: accuracy and speed after compression",
        "",
        f"{report['num_examples']} dev examples, {report['score'].replace('_', ' ')}; {report['machine']}; "
        f"{report['versions']}. Latency is the median over single texts, throughput that of batches of 32, "
        "both on texts of the dev set from the shortest to the longest, without tokenizing. In brackets: times as fast "
        f"as {first['variant']} with {ENGINE_NAMES[first['engine']]}, measured in turns with it. `*`: the engine that "
        "the predictor takes on this processor.",
        "",
        f"{report['advice']} Baseline: "
        + ", ".join(f"{BASELINES[name]}, {100 * score:.2f}" for name, score in report["baseline"].items())
        + ".",
    ]
    for engine in report["engines"]:
        lines += ["", f"{ENGINE_NAMES[engine]}:", "", *TABLE_HEAD]
        for row in report["variants"]:
            speed, score = row["speed"][engine], row["scores"][engine]
            lines.append(
                f"| {row['variant']}{' *' if engine == row['engine'] else ''} | {100 * score:.2f} "
                f"| {100 * (score - first['score']):+.2f} | {row['megabytes']:.1f} "
                f"| {speed['latency_ms']:.2f} ({speed['latency_speed_up']:.2f}x) "
                f"| {speed['texts_per_second']:.0f} ({speed['speed_up']:.2f}x) |"
            )
    return "\n".join(lines) + "\n"


def speed_of(row):
    """The speed of a row with the engine that the predictor takes."""
    return row["speed"][row["engine"]]


def choose_best(rows, max_drop):
    """The row of the fastest variant that lost at most `max_drop` points and is faster than the original, or None; and
    what it gains, or why there is none, in half a sentence. Score and speed are those with the engine that the
    predictor takes on this processor.

    Speed is compared as speed-up, since each variant is timed in turns with the original, at another time than others.
    """
    near = [row for row in rows[1:] if row["change"] >= -max_drop - 1e-9]
    row = max(near, key=lambda row: speed_of(row)["speed_up"], default=None)
    if row is not None and speed_of(row)["speed_up"] > 1:
        speed = f"{speed_of(row)['speed_up']:.2f}x as fast with {ENGINE_NAMES[row['engine']]}"
        return row, f"{row['variant']}: {row['change']:+.2f} points, {speed}"
    if near:
        return None, f"no variant within {max_drop:g} points is faster than {rows[0]['variant']} on this processor"
    closest = max(rows[1:], key=lambda row: row["change"])
    closest = f"{closest['variant']} is closest ({closest['change']:+.2f})"
    return None, f"every variant lost more than {max_drop:g} points; {closest}"


def advice(rows, baseline, max_drop):
    """Which variant to take, in a sentence."""
    if rows[0]["score"] <= max(baseline.values()):
        return "The original scores no better than the baseline, so there is nothing to compare: train it first."
    row, why = choose_best(rows, max_drop)
    return f"Take {why}; it is copied to best/." if row else f"Take {rows[0]['variant']}: {why}."


def pick_best(output_dir, rows, max_drop):
    """Copies the row of `choose_best` to `<output_dir>/best`.

    Returns:
        The variant's name, or None where none qualifies: the log says why, and an older best is removed.
    """
    best = os.path.join(output_dir, "best")
    ours = (read_metrics(best) or {}).get("variant")  # one of these copies
    linked = os.path.islink(best) and not (os.path.isdir(best) and os.listdir(best))  # to an empty folder, or to none
    row, why = choose_best(rows, max_drop)
    if row is None:
        if ours:
            shutil.rmtree(os.path.realpath(best), ignore_errors=True)
        logger.warning(f"{why}. There is no {best}")
        return None
    if os.path.exists(best) and not ours and not linked:
        logger.warning(f"{best} was not made by compression and stays as it is; the best variant is {row['variant']}")
        return row["variant"]
    source = os.path.join(output_dir, row["variant"])
    with new_folder(best) as folder:
        for name in os.listdir(source):
            path = os.path.join(source, name)
            # A folder is another variant; the predictor's own files are model.<kind>-<id>.
            if os.path.isfile(path) and (name == "model.onnx" or not name.startswith("model.") or "-" not in name):
                shutil.copy2(path, folder)
        write_metrics(folder, {**read_metrics(source), "variant": row["variant"]})
    console.row("best", f"{best}: {why}")
    return row["variant"]
