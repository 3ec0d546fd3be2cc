"""Report: every variant through ONNX Runtime on the dev set, timed in one run, as a table and as files."""

import workarounds

import hashlib
import os
import shutil
import statistics
import time

import numpy as np
from paddlenlp.trainer.trainer_utils import EvalPrediction
from paddlenlp.utils.log import logger
from tqdm import tqdm

from ernie_predictor.machine import processor, usable_cores
from ernie_predictor.runtimes import installed_engines, onnxruntime_version, open_onnx
from ernie.export import new_folder, read_metrics, write_json, write_text
from ernie.features import IGNORED

ENGINE_NAMES = {"openvino": "ONNX Runtime, OpenVINO", "onnxruntime": "ONNX Runtime, default"}


class DevSet:
    """The dev set in batches, and what a model scores on it."""

    def __init__(self, features, collator, batch_size, label_names, compute_metrics):
        self.features, self.collator, self.compute_metrics = features, collator, compute_metrics
        self.batches, labels = [], []
        for begin in range(0, len(features), batch_size):
            batch = {k: v.numpy() for k, v in collator(features[begin : begin + batch_size]).items()}
            labels.append([batch.pop(name) for name in label_names])
            self.batches.append(batch)
        self.labels = [concatenate(arrays) for arrays in zip(*labels)]
        digest = hashlib.sha256()
        for array in [batch["input_ids"] for batch in self.batches] + self.labels:
            digest.update(np.ascontiguousarray(array))
        self.fingerprint = digest.hexdigest()[:16]

    def onnx_logits(self, onnx_file, engine):
        """Each output's logits over the whole dev set."""
        session = open_onnx(onnx_file, engine, usable_cores())
        outputs = [session(batch) for batch in tqdm(self.batches, desc="Dev set")]
        return [concatenate(arrays) for arrays in zip(*outputs)]

    def paddle_logits(self, prefix, input_dtype):
        batches = ({name: array.astype(input_dtype) for name, array in batch.items()} for batch in self.batches)
        outputs = workarounds.run_static_model(prefix, batches)
        return [concatenate(arrays) for arrays in zip(*tqdm(outputs, desc="Dev set, Paddle", total=len(self.batches)))]

    def scores(self, logits):
        predictions = logits[0] if len(logits) == 1 else tuple(logits)
        labels = self.labels[0] if len(self.labels) == 1 else tuple(self.labels)
        return self.compute_metrics(EvalPrediction(predictions=predictions, label_ids=labels))

    def agreement(self, logits, others):
        """The share of predictions that two models have in common: classes, tags, or answers' ends."""
        same = [a.argmax(axis=-1) == b.argmax(axis=-1) for a, b in zip(logits, others)]
        if same[0].ndim == 2:  # tags
            return float(same[0][self.labels[0] != IGNORED].mean())
        return float(np.logical_and.reduce(same).mean())

    def timed_inputs(self, count):
        """(a batch of so many texts, evenly from the shortest to the longest; the length of each)."""
        order = np.argsort([len(f["input_ids"]) for f in self.features], kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
        chosen = [self.features[i] for i in chosen]
        batch = self.collator(chosen)
        return {name: batch[name].numpy() for name in self.batches[0]}, [len(f["input_ids"]) for f in chosen]


def concatenate(arrays):
    """Stacks batches of different lengths, padded with `IGNORED`."""
    arrays = list(arrays)
    if arrays[0].ndim == 1:
        return np.concatenate(arrays)
    longest = max(a.shape[1] for a in arrays)
    pads = [[(0, 0), (0, longest - a.shape[1])] + [(0, 0)] * (a.ndim - 2) for a in arrays]
    return np.concatenate([np.pad(a, pad, constant_values=IGNORED) for a, pad in zip(arrays, pads)])


def measure_speed(folders, dev_set, engines, rounds=7, singles=8):
    """Times models in turns, in one run.

    Args:
        folders: {name: model folder}.

    Returns:
        {engine: {name: {"latency_ms": the median over single texts, "texts_per_second": in batches of 32}}}; the
        texts are of the dev set, from its shortest to its longest.
    """
    batch, _ = dev_set.timed_inputs(32)
    spread, lengths = dev_set.timed_inputs(singles)
    texts = [{name: array[i : i + 1, :n] for name, array in spread.items()} for i, n in enumerate(lengths)]
    speeds = {}
    for engine in engines:  # one engine's threads after the other's
        times = {name: ([], []) for name in folders}
        sessions = {
            name: open_onnx(os.path.join(folder, "model.onnx"), engine, usable_cores())
            for name, folder in folders.items()
        }
        begin = time.perf_counter()
        for done in tqdm(range(rounds), desc=f"Timing, {engine}"):
            if done >= 3 and time.perf_counter() - begin > 60:
                break  # long texts on a large model
            for name, session in sessions.items():
                # The threads of the session before spin for a while.
                time.sleep(0.02)
                _seconds(session, texts[0])
                times[name][0].extend(_seconds(session, inputs) for inputs in texts)
                warm = _seconds(session, batch)
                # Small models: more calls, for one of some milliseconds says little on a busy machine.
                calls = min(max(int(0.1 / warm), 1), 10)
                times[name][1].extend(_seconds(session, batch) for _ in range(calls))
        speeds[engine] = {
            name: {
                "latency_ms": 1e3 * statistics.median(alone),
                "texts_per_second": len(batch["input_ids"]) / statistics.median(together),
            }
            for name, (alone, together) in times.items()
        }
    return speeds


def _seconds(session, inputs):
    start = time.perf_counter()
    session(inputs)
    return time.perf_counter() - start


def write_report(output_dir, dataset, score_name, names, dev_set):
    """Measures every variant and the original, and writes compression_report.json and .md.

    Args:
        names: variants as folders below output_dir, the FP32 original first; each holds metrics.json.

    Returns:
        (the rows of compression_report.json, the engine that is the fastest).
    """
    engines = installed_engines()
    folders = {name: os.path.join(output_dir, name) for name in names}
    speeds = measure_speed(folders, dev_set, engines)
    fastest = engines[0]
    metrics = {name: read_metrics(folder) for name, folder in folders.items()}
    original = metrics[names[0]][score_name]
    rows = []
    for name in names:
        rows.append(
            {
                "variant": name,
                "score": metrics[name][score_name],
                "change": 100 * (metrics[name][score_name] - original),
                "megabytes": os.path.getsize(os.path.join(folders[name], "model.onnx")) / 2**20,
                "paddle_int8": metrics[name].get("paddle_int8"),
                "speed": {
                    engine: {
                        **speeds[engine][name],
                        "latency_speed_up": speeds[engine][names[0]]["latency_ms"] / speeds[engine][name]["latency_ms"],
                        "speed_up": speeds[engine][name]["texts_per_second"]
                        / speeds[engine][names[0]]["texts_per_second"],
                    }
                    for engine in engines
                },
            }
        )
    report = {
        "dataset": dataset,
        "score": score_name,
        "num_examples": metrics[names[0]]["num_examples"],
        "machine": f"{processor()}, {usable_cores()} cores",
        "onnxruntime": onnxruntime_version(),
        "engines": engines,
        "variants": rows,
    }
    write_json(os.path.join(output_dir, "compression_report.json"), report)
    text = report_table(report)
    write_text(os.path.join(output_dir, "compression_report.md"), text)
    print("\n" + text, flush=True)
    logger.info(f"the report is in {output_dir}/compression_report.md and .json")
    return rows, fastest


def report_table(report):
    lines = [
        f"# {report['dataset']}: what compression costs and gains",
        "",
        f"{report['num_examples']} dev examples, {report['score'].replace('_', ' ')}; {report['machine']}; "
        f"{report['onnxruntime']}. Latency is the median of single texts, throughput that of batches of 32, "
        "both with texts of the dev set from the shortest to the longest, without tokenizing. Times (x) are faster "
        "than the first row's.",
    ]
    for engine in report["engines"]:
        lines += [
            "",
            f"{ENGINE_NAMES[engine]}:",
            "",
            "| model | score | change | MB | latency, ms | texts/s |",
            "|---|---|---|---|---|---|",
        ]
        for row in report["variants"]:
            speed = row["speed"][engine]
            lines.append(
                f"| {row['variant']} | {100 * row['score']:.2f} | {row['change']:+.2f} | {row['megabytes']:.1f} "
                f"| {speed['latency_ms']:.2f} ({speed['latency_speed_up']:.2f}x) "
                f"| {speed['texts_per_second']:.0f} ({speed['speed_up']:.2f}x) |"
            )
    return "\n".join(lines) + "\n"


def pick_best(output_dir, rows, engine, max_drop):
    """Copies the fastest variant that lost no more than `max_drop` points to `<output_dir>/best`.

    Returns:
        The variant's name, or None where none qualifies: the log names the closest, and an older best goes.
    """
    best = os.path.join(output_dir, "best")
    variants = rows[1:]
    good = [row for row in variants if row["change"] >= -max_drop - 1e-9]
    if not good:
        shutil.rmtree(best, ignore_errors=True)
        closest = max(variants, key=lambda row: row["change"])
        logger.warning(
            f"no variant is within {max_drop:g} points of the original; the closest is {closest['variant']} "
            f"({closest['change']:+.2f}). There is no {best}"
        )
        return None
    row = max(good, key=lambda row: row["speed"][engine]["texts_per_second"])
    source = os.path.join(output_dir, row["variant"])
    with new_folder(best) as folder:
        for name in os.listdir(source):
            path = os.path.join(source, name)
            # A folder is another variant; the predictor keeps files of its own as model.<engine>-<id>.
            if os.path.isfile(path) and not name.startswith(("model.openvino-", "model.int8-")):
                shutil.copy2(path, folder)
        write_json(os.path.join(folder, "metrics.json"), {**read_metrics(source), "variant": row["variant"]})
    logger.info(
        f"{best}: {row['variant']}, {row['change']:+.2f} points, {row['speed'][engine]['speed_up']:.2f}x as fast"
    )
    return row["variant"]
