"""What INT8 computes on this processor: each engine against FP32, and against the same file computed exactly.

python benchmarks/int8_exactness.py --original DIR --compressed DIR --dataset tnews --data_dir DIR

"Exactly" is ONNX Runtime without graph optimizations: it dequantizes and multiplies in float32. "Alone" is an engine as
it comes, without what the predictor sets for it. The dev set is answered with each in turns. Speed is that of the model
alone, in batches of 32; medians.
"""

import harness  # isort: skip  makes the project's packages importable

import os
import statistics
from functools import partial

import numpy as np
from ernie_predictor import Predictor, load_task
from ernie_predictor.data_files import read_dev_set, score
from ernie_predictor.runtimes import ENGINE_NAMES, fastest_engine, installed_engines, open_onnx
from ernie_predictor.side_by_side import same_prediction


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

    def run_model(batch):
        results = model(batch)
        return [np.array(results[output]) for output in model.outputs]

    return run_model


def main():
    parser = harness.parser(__doc__, "data_dir", "threads", "rounds")
    add = parser.add_argument
    add("--original", metavar="DIR", required=True, help="folder of the FP32 model")
    add("--compressed", metavar="DIR", required=True, help="folder of its INT8 model")
    add("--dataset", metavar="NAME", required=True, help="whose dev set is answered")
    args = parser.parse_args()

    task = load_task(args.original, num_threads=args.threads)
    items, gold = read_dev_set(task.name, args.data_dir, args.dataset)
    pairs = [task.check(item) for item in items]
    features, notes = task.tokenize(pairs)
    original, compressed = (os.path.join(path, "model.onnx") for path in (args.original, args.compressed))
    models = {
        "ONNX Runtime, FP32": open_onnx(original, "onnxruntime", args.threads),
        "exactly": onnxruntime_alone(compressed, args.threads, optimized=False),
    }
    for engine in installed_engines():
        taken = ", taken by auto" if engine == fastest_engine(compressed) else ""
        models[f"{ENGINE_NAMES[engine]}, INT8{taken}"] = open_onnx(compressed, engine, args.threads)
        alone = openvino_alone if engine == "openvino" else onnxruntime_alone
        models[f"{ENGINE_NAMES[engine]}, INT8, alone"] = alone(compressed, args.threads)
    found = {}

    def answer(name):
        found[name] = Predictor(task, models[name]).run(features)

    times = harness.in_turns({name: partial(answer, name) for name in models}, args.rounds)
    logits = {name: np.concatenate([np.ravel(a) for row in rows for a in row]) for name, rows in found.items()}
    answers = {name: task.read(pairs, notes, rows) for name, rows in found.items()}
    fp32, exact = "ONNX Runtime, FP32", "exactly"
    print(f"{args.dataset}, {len(items)} items; {harness.machine(args.threads)}\n")
    rows = []
    for name in models:
        errors = [np.sqrt(np.mean((logits[name] - logits[a]) ** 2) / np.mean(logits[a] ** 2)) for a in (fp32, exact)]
        others = [sum(not same for same in map(same_prediction, answers[name], answers[a])) for a in (fp32, exact)]
        speed, found_score = len(items) / statistics.median(times[name]), score(task.name, answers[name], gold)
        cells = [name, f"{speed:.0f}", f"{100 * list(found_score.values())[-1]:.2f}"]
        rows.append([*cells, *(f"{100 * error:.1f}%" for error in errors), *others])
    header = ["", "items/s", "dev score", "logits' error to FP32, RMS", "to exactly", "other answers than FP32"]
    print(harness.markdown([*header, "than exactly"], rows))


if __name__ == "__main__":
    harness.run(main, "../requirements.txt")
