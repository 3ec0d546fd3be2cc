"""How fast a compressed model is: every engine against Paddle Inference FP32 with oneDNN, in one run.

python benchmarks/compression_speed.py                          ERNIE 3.0-Medium's architecture, random weights
python benchmarks/compression_speed.py --arch nano --task token_cls --shapes 32x64 1x32

The models are made as the compress scripts make them: exported, cut to a width, calibrated on random ids. Every
engine runs each shape in turns with the others; the figures are medians of milliseconds, and how many times faster
than Paddle Inference that is.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import workarounds  # noqa: F401  before Paddle

import argparse
import os
import platform
import statistics
import tempfile
import time

import numpy as np
import paddlenlp.transformers
from ernie_predictor.commandline import HelpFormatter, existing_file
from ernie_predictor.int8 import quantize_onnx
from ernie_predictor.machine import processor_kind
from ernie_predictor.runtimes import ENGINE_NAMES, engine_versions, installed_engines, open_onnx
from paddlenlp.transformers import ErnieTokenizer

from ernie.arguments import CompressionArguments
from ernie.export import save_config_and_tokenizer, write_model_folder
from ernie.files import write_json, write_text
from ernie.paddle_int8 import post_training_quantization, read_matmul_scales
from ernie.pruning import narrow
from ernie.tasks import DATA_SETS, TASKS
from examples.make_model import ARCHITECTURES, VOCAB, make_model

LABELS = {"seq_cls": DATA_SETS["tnews"].labels, "token_cls": DATA_SETS["msra_ner"].labels, "qa": ()}


def random_batch(vocab_size, batch, length, seed=0):
    input_ids = np.random.default_rng(seed).integers(1, vocab_size, [batch, length])
    return {"input_ids": input_ids, "token_type_ids": np.zeros_like(input_ids)}


def make_folders(args, folder):
    """{what a model is called: its folder, as the scripts write it}: FP32, INT8, and both at --width_mult."""
    task, labels = TASKS[args.task], LABELS[args.task]
    auto_class = getattr(paddlenlp.transformers, f"AutoModelFor{task.head}")
    source = os.path.join(folder, "pretrained")
    make_model(args.arch, args.vocab_file, source)
    tokenizer = ErnieTokenizer.from_pretrained(source)
    compression_args = CompressionArguments(output_dir=folder)
    folders = {}
    for width_mult, prefix in ((1.0, ""), (args.width_mult, f"width {args.width_mult:g}, ")):
        model = auto_class.from_pretrained(source, **({"num_labels": len(labels)} if labels else {}))
        if labels:
            model.config.id2label = dict(enumerate(labels))
        if width_mult < 1:
            narrow(model, width_mult)
        else:
            model.save_pretrained(source)  # with its head, so that the narrow model has the same
        plain, int8 = (os.path.join(folder, f"{name}_{width_mult:g}") for name in ("fp32", "int8"))
        for path in (plain, int8):
            os.makedirs(path)
        write_model_folder(task, model, tokenizer, plain)
        batches = [random_batch(model.config.vocab_size, 16, 64, seed) for seed in range(2)]
        prefix_of_int8 = os.path.join(int8, "int8")
        post_training_quantization(os.path.join(plain, "model"), prefix_of_int8, batches, "mse", compression_args)
        scales = read_matmul_scales(prefix_of_int8)
        quantize_onnx(os.path.join(plain, "model.onnx"), os.path.join(int8, "model.onnx"), scales, quantize_tables=True)
        save_config_and_tokenizer(model, tokenizer, int8)
        folders[f"{prefix}FP32"], folders[f"{prefix}INT8"] = plain, int8
    return folders, model.config.vocab_size


def paddle_inference(folder, threads):
    """Paddle Inference FP32 with oneDNN, as the published figures were taken."""
    from paddle import inference

    config = inference.Config(os.path.join(folder, "model.pdmodel"), os.path.join(folder, "model.pdiparams"))
    config.disable_gpu()
    config.enable_mkldnn()
    # Neither changes the speed; without them 32 texts of 512 tokens take more than 10 GB.
    config.enable_memory_optim()
    config.set_mkldnn_cache_capacity(2)
    config.set_cpu_math_library_num_threads(threads)
    config.disable_glog_info()
    predictor = inference.create_predictor(config)

    def run(batch):
        for name in predictor.get_input_names():
            predictor.get_input_handle(name).copy_from_cpu(batch[name])
        predictor.run()
        return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]

    return run


def json_file(text):
    """The type of --output: write_results puts the tables beside it."""
    if not text.endswith(".json"):
        raise argparse.ArgumentTypeError(f"{text}: expected a name that ends in .json")
    if not Path(text).absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: no folder {Path(text).parent}")
    return Path(text)


def markdown(header, rows):
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def write_results(output, figures, tables):
    """Prints tables; writes figures to `output` and the tables to a file beside it, FILE.json and FILE.md."""
    print(f"\n{tables}", flush=True)
    if output:
        write_json(output, figures)
        write_text(output.with_suffix(".md"), tables)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--arch", choices=ARCHITECTURES, default="medium", help="of ERNIE 3.0, or the sample's")
    add("--task", choices=TASKS, default="seq_cls", help="head of the model")
    add("--vocab_file", metavar="FILE", type=existing_file, default=VOCAB, help="vocabulary")
    add("--width_mult", metavar="N", type=float, default=0.75, help="share of the width of the narrow models")
    add("--threads", metavar="N", type=int, default=2, help="for one batch")
    add("--shapes", metavar="SHAPE", nargs="+", default=["32x64", "32x128", "1x32"], help="batch x length")
    add("--rounds", metavar="N", type=int, default=5, help="turns of each engine")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        folders, vocab_size = make_folders(args, folder)
        sizes = {name: os.path.getsize(os.path.join(path, "model.onnx")) / 2**20 for name, path in folders.items()}
        reference = "Paddle Inference, FP32"
        runners = {reference: paddle_inference(folders["FP32"], args.threads)}
        for engine in installed_engines():
            for name, path in folders.items():
                runners[f"{ENGINE_NAMES[engine]}, {name}"] = open_onnx(
                    os.path.join(path, "model.onnx"), engine, args.threads
                )
        times = {}
        for shape in args.shapes:
            batch = random_batch(vocab_size, *map(int, shape.split("x")), seed=7)
            expected = runners[reference](batch)
            for name, run in runners.items():  # the same model's, but for the narrow ones
                error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(run(batch), expected))
                if "width" not in name and error > (0.15 if "INT8" in name else 1e-4):
                    sys.exit(f"{name}: the logits differ from Paddle's by {100 * error:.2f}% of the largest")
            for _ in range(args.rounds):
                for name, run in runners.items():
                    time.sleep(0.05)  # the threads of the engine before spin for a while
                    run(batch)
                    for _ in range(1 if batch["input_ids"].size > 512 else 10):
                        start = time.perf_counter()
                        run(batch)
                        times.setdefault((name, shape), []).append(time.perf_counter() - start)

    print(
        f"\nERNIE 3.0-{args.arch}, {args.task}, {args.threads} threads of {processor_kind()}; {engine_versions()}; "
        f"Python {platform.python_version()}; {', '.join(f'{n} {s:.0f} MB' for n, s in sizes.items())}\n"
    )
    print("| engine, model, ms | " + " | ".join(f"batch {shape.replace('x', ' × ')}" for shape in args.shapes) + " |")
    print("|---" * (len(args.shapes) + 1) + "|")
    for name in runners:
        cells = []
        for shape in args.shapes:
            median, base = (statistics.median(times[key, shape]) for key in (name, reference))
            cells.append(f"{1e3 * median:.1f} ({base / median:.2f}x)")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
