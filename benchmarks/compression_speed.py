"""How fast a compressed model is: every engine against Paddle Inference FP32 with oneDNN, in one run.

python benchmarks/compression_speed.py                          ERNIE 3.0-Medium's architecture, random weights
python benchmarks/compression_speed.py --arch nano --task token_cls --shapes 32x64 1x32

The models are made as the compress scripts make them: exported, cut to a width, calibrated on random ids. Every
engine runs each shape in turns with the others; the figures are medians of milliseconds, and how many times faster
than Paddle Inference that is.
"""

import harness  # isort: skip  makes the project's packages importable

import os
import statistics
import tempfile
from functools import partial

from ernie_predictor.runtimes import ENGINE_NAMES, installed_engines, open_onnx

PADDLE = "Paddle Inference, FP32"


def main():
    parser = harness.parser(__doc__, "arch", "vocab_file", "width_mult", "threads", "output", rounds=5,
                            shapes=["32x64", "32x128", "1x32"])  # fmt: skip
    parser.add_argument("--task", choices=("seq_cls", "token_cls", "qa"), default="seq_cls", help="head of the model")
    args = parser.parse_args()
    from harness.models import check_logits, make_folders, paddle_inference, random_batch  # with Paddle: not for --help

    times = {}
    with tempfile.TemporaryDirectory() as folder:
        folders, vocab_size = make_folders(args.task, args.arch, args.vocab_file, folder, args.width_mult)
        files = {name: os.path.join(path, "model.onnx") for name, path in folders.items()}
        sizes = ", ".join(f"{name} {os.path.getsize(path) / 2**20:.0f} MB" for name, path in files.items())
        models = {PADDLE: paddle_inference(folders["FP32"], args.threads)}
        for engine in installed_engines():
            for name, path in files.items():
                models[f"{ENGINE_NAMES[engine]}, {name}"] = open_onnx(path, engine, args.threads)
        for shape in args.shapes:
            batch = random_batch(vocab_size, *map(int, shape.split("x")), seed=7)
            expected = models[PADDLE](batch)
            for name, model in models.items():
                if "width" not in name:  # the narrow ones are other models
                    check_logits(name, model(batch), expected, 0.15 if "INT8" in name else 1e-4)
            calls = 1 if batch["input_ids"].size > 512 else 10
            runs = {name: partial(model, batch) for name, model in models.items()}
            times[shape] = harness.in_turns(runs, args.rounds, calls)

    rows = []
    for name in models:
        pairs = [(statistics.median(found[name]), statistics.median(found[PADDLE])) for found in times.values()]
        rows.append([name, *(f"{1e3 * median:.1f} ({base / median:.2f}x)" for median, base in pairs)])
    about = f"ERNIE 3.0-{args.arch}, {args.task}, {harness.machine(args.threads)}; {sizes}"
    header = ["engine, model, ms", *(f"batch {shape.replace('x', ' × ')}" for shape in args.shapes)]
    figures = {"about": about, "seconds of each call": times}
    harness.write_results(args.output, figures, about, harness.markdown(header, rows))


if __name__ == "__main__":
    main()
