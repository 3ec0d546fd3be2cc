"""What INT8 computes on this processor: each engine against FP32, and against the same file computed exactly.

python benchmarks/int8_exactness.py --original DIR --compressed DIR --input FILE

The models are classifiers, for example best_models/tnews/export and best_models/tnews/mse16_1; FILE holds one text per
line. "Exactly" is ONNX Runtime without graph optimizations: it dequantizes and multiplies in float32. "Alone" is an
engine as it comes, without what the predictor sets for it. Speed is that of all texts in batches of 32, tokenized
before, in turns; medians.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "deploy" / "predictor"))

import argparse
import os
import statistics
import time

import numpy as np
from ernie_predictor import Predictor, load_task
from ernie_predictor.commandline import HelpFormatter, existing_file, open_input, positive, read_items, run
from ernie_predictor.machine import processor_kind
from ernie_predictor.runtimes import engine_versions, fastest_engine, installed_engines, open_onnx

NAMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}


def onnxruntime_alone(path, threads, optimized=True):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, batch)


def openvino_alone(path, threads):
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    model = openvino.Core().compile_model(path, "CPU", hints)
    return lambda batch: [np.array(model(batch)[0])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--original", metavar="DIR", required=True, help="folder of the FP32 model")
    add("--compressed", metavar="DIR", required=True, help="folder of its INT8 model")
    add("--input", metavar="FILE", type=existing_file, required=True, help="texts, one per line")
    add("--threads", metavar="N", type=positive, default=2, help="for one batch")
    add("--rounds", metavar="N", type=positive, default=3, help="turns of each engine")
    args = parser.parse_args()

    task = load_task(args.original, "seq_cls", num_threads=args.threads)
    with open_input("--input", args.input) as lines:
        pairs = list(read_items(lines, args.input, task, "stop"))
    features, _ = task.tokenize(pairs)
    original, compressed = (os.path.join(path, "model.onnx") for path in (args.original, args.compressed))
    models = {
        "ONNX Runtime, FP32": open_onnx(original, "onnxruntime", args.threads),
        "exactly": onnxruntime_alone(compressed, args.threads, optimized=False),
    }
    for engine in installed_engines():
        taken = " (taken by auto)" if engine == fastest_engine(compressed) else ""
        models[f"{NAMES[engine]}, INT8{taken}"] = open_onnx(compressed, engine, args.threads)
        alone = openvino_alone if engine == "openvino" else onnxruntime_alone
        models[f"{NAMES[engine]}, INT8, alone"] = alone(compressed, args.threads)
    logits, times = {}, {}
    for turn in range(args.rounds + 1):
        for name, model in models.items():
            time.sleep(0.1)  # the threads of the model before spin for a while
            start = time.perf_counter()
            found = Predictor(task, model).run(features)
            if turn > 0:  # at first kernels are made for every length
                times.setdefault(name, []).append(time.perf_counter() - start)
            logits[name] = np.array([row for (row,) in found])
    fp32, exact = logits["ONNX Runtime, FP32"], logits["exactly"]
    print(f"{len(pairs)} texts, {args.threads} threads of {processor_kind()}; {engine_versions()}\n")
    print("| | texts/s | error to FP32, RMS | largest error to exactly | other labels than FP32 | than exactly |")
    print("|---|---|---|---|---|---|")
    for name, found in logits.items():
        rms = np.sqrt(np.mean((found - fp32) ** 2) / np.mean(fp32**2))
        worst = np.abs(found - exact).max() / np.abs(exact).max()
        others = [int((found.argmax(1) != expected.argmax(1)).sum()) for expected in (fp32, exact)]
        speed = len(pairs) / statistics.median(times[name])
        print(f"| {name} | {speed:.0f} | {100 * rms:.1f}% | {100 * worst:.1f}% | {others[0]} | {others[1]} |")


if __name__ == "__main__":
    run(main, "../requirements.txt")
