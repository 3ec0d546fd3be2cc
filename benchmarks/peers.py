"""How fast one batch is in other programs on the same work: the peers of this project, in one run with it.

make peers                                         their environment, .venv-peers, once
python benchmarks/peers.py                         ERNIE 3.0-Medium's architecture, random weights, a classifier
python benchmarks/peers.py --arch nano --shapes 1x32 --no_compile

All have the same weights. Paddle Inference and this project run in this process, the peers in processes of their own,
started with --peers_python. They take turns: one computes at a time. "Export" is this project's FP32 model.onnx, which
computes the last layer for the first token only; Paddle, PyTorch and Optimum's files compute it for all tokens. Times
are medians over rounds, ratios are of the same round. Peers that are not installed are named and skipped.
"""

import sys

CHILD = sys.argv[1:2] == ["--child"]  # the peers' process, where there is no Paddle, and nothing of this project
if not CHILD:
    import harness  # isort: skip  makes the project's packages importable
    from harness import markdown, speed_up

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

PACKAGES = ("torch", "transformers", "optimum", "optimum-onnx", "optimum-intel", "onnxruntime", "openvino", "nncf")
PADDLE = "Paddle Inference (published)"
OURS = "This project"
LIMITS = {"FP32": 1e-4, "BF16": 0.05, "INT8": 0.15}  # of errors, as a share of the largest logit

# PaddleNLP's names of weights, and those of Hugging Face's BERT; in this order.
BERT_NAMES = {
    "ernie.": "bert.",
    "embeddings.layer_norm.": "embeddings.LayerNorm.",
    "encoder.layers.": "encoder.layer.",
    "self_attn.q_proj.": "attention.self.query.",
    "self_attn.k_proj.": "attention.self.key.",
    "self_attn.v_proj.": "attention.self.value.",
    "self_attn.out_proj.": "attention.output.dense.",
    "linear1.": "intermediate.dense.",
    "linear2.": "output.dense.",
    "norm1.": "attention.output.LayerNorm.",
    "norm2.": "output.LayerNorm.",
}


def measure(run, batch, calls):
    """Seconds of each call, after one that does not count."""
    time.sleep(0.1)  # the threads of the engine before spin for a while
    run(batch)
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - start)
    return times


# ------------------------------------------------------------------------------------ the peers, in their processes
# Each function yields (name, precision, run) of peers that share a process; run takes a batch and returns logits.


def session_of(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    types = {value.name: np.int32 if "int32" in value.type else np.int64 for value in session.get_inputs()}
    return lambda batch: session.run(None, {name: batch[name].astype(types[name]) for name in names})[0]


def optimize(source, target, folder):
    """ONNX Runtime's optimizer for BERT."""
    from onnxruntime.transformers.optimizer import optimize_model

    config = json.loads((folder / "bert.json").read_text())
    model = optimize_model(str(source), "bert", config["num_attention_heads"], config["hidden_size"])
    model.save_model_to_file(str(target))


def plain_and_quantized(name, path, threads):
    from onnx import TensorProto
    from onnxruntime.quantization import quantize_dynamic

    quantized = path.with_stem(f"{path.stem}_int8")
    # The type of what the optimizer's operators return, which the quantizer does not know.
    quantize_dynamic(path, quantized, extra_options={"DefaultTensorType": TensorProto.FLOAT})
    yield f"ONNX Runtime, {name}", "FP32", session_of(path, threads)
    yield f"ONNX Runtime, {name}, quantize_dynamic", "INT8", session_of(quantized, threads)


def open_onnxruntime(folder, threads, **_):
    yield from plain_and_quantized("export", folder / "export.onnx", threads)


def open_bert_optimizer(folder, threads, **_):
    optimize(folder / "export.onnx", folder / "optimized.onnx", folder)
    yield from plain_and_quantized("export, BERT optimizer", folder / "optimized.onnx", threads)


def open_transformers(folder, threads, no_compile, **_):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(threads)
    model = BertForSequenceClassification(BertConfig(**json.loads((folder / "bert.json").read_text()))).eval()
    with np.load(folder / "bert.npz") as weights:
        model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files}, strict=True)
    model.save_pretrained(folder / "bert")  # for Optimum

    def runner(model):
        @torch.inference_mode()
        def run(batch):
            return model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()

        return run

    yield "transformers on PyTorch, eager", "FP32", runner(model)
    if not no_compile:
        yield "transformers on PyTorch, torch.compile", "FP32", runner(torch.compile(model, dynamic=True))


def open_optimum_onnxruntime(folder, threads, **_):
    from onnxruntime import SessionOptions
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    options = SessionOptions()
    options.intra_op_num_threads = threads
    model = ORTModelForSequenceClassification.from_pretrained(folder / "bert", export=True, session_options=options)
    model.save_pretrained(folder / "optimum")
    yield "Optimum, ONNX Runtime", "FP32", lambda batch: model(**batch).logits
    ORTQuantizer.from_pretrained(folder / "optimum").quantize(
        save_dir=folder / "optimum_int8",
        quantization_config=AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False),
    )
    int8 = ORTModelForSequenceClassification.from_pretrained(
        folder / "optimum_int8", file_name="model_quantized.onnx", session_options=options
    )
    yield "Optimum, ONNX Runtime, dynamic quantization", "INT8", lambda batch: int8(**batch).logits
    optimize(folder / "optimum" / "model.onnx", folder / "optimum_optimized.onnx", folder)
    yield from plain_and_quantized("Optimum's file, BERT optimizer", folder / "optimum_optimized.onnx", threads)


def open_optimum_openvino(folder, threads, bf16, **_):
    import nncf
    from optimum.intel import OVConfig, OVModelForSequenceClassification, OVQuantizationConfig, OVQuantizer

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}

    def opened(path, **more):
        model = OVModelForSequenceClassification.from_pretrained(path, ov_config={**settings, **more})
        return lambda batch: model(**batch).logits

    exported = OVModelForSequenceClassification.from_pretrained(folder / "bert", export=True, ov_config=settings)
    exported.save_pretrained(folder / "openvino")
    yield "Optimum, OpenVINO", "FP32", opened(folder / "openvino", INFERENCE_PRECISION_HINT="f32")
    if bf16:  # which it takes for FP32 models where it is not told otherwise
        yield "Optimum, OpenVINO, its default", "BF16", opened(folder / "openvino")
    calibration = [dict(np.load(path)) for path in sorted(folder.glob("calibration_*.npz"))]
    OVQuantizer.from_pretrained(exported).quantize(
        calibration_dataset=nncf.Dataset(calibration),
        ov_config=OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(calibration))),
        save_directory=folder / "openvino_int8",
    )
    yield "Optimum, OpenVINO, NNCF", "INT8", opened(folder / "openvino_int8")


# Those with PyTorch come before Optimum's, which read the model that they save.
OPENERS = {
    "ONNX Runtime": open_onnxruntime,
    "ONNX Runtime's BERT optimizer": open_bert_optimizer,
    "transformers on PyTorch": open_transformers,
    "Optimum, ONNX Runtime": open_optimum_onnxruntime,
    "Optimum, OpenVINO": open_optimum_openvino,
}


def run_child(peers, folder, **options):
    """Opens peers, says which there are, and answers a request per line until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what packages print
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package).split("-")[0]

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    try:
        runs = {(name, precision): run for name, precision, run in OPENERS[peers](Path(folder), **options)}
    except ImportError as e:
        return answer({"missing": str(e)})
    answer({"names": list(runs), "versions": versions})
    for line in sys.stdin:
        request = json.loads(line)
        run, batch = runs[tuple(request["key"])], dict(np.load(request["batch"]))
        answer(measure(run, batch, request["calls"]) if request["calls"] else np.asarray(run(batch)).tolist())


# ------------------------------------------------------------------------------------------- this project's process


class Peers:
    """A process of peers, at the other end of a pipe.

    Attributes:
        about: {"names", "versions"}, or {"missing": why they cannot be opened}.
    """

    def __init__(self, python, folder, **options):
        self.log = folder / "peers.log"
        with open(self.log, "wb") as errors:
            self.process = subprocess.Popen(
                [python, __file__, "--child", json.dumps({"folder": str(folder), **options})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
                text=True,
            )
        self.about = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            text = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
            sys.exit(f"a process of peers ended with status {self.process.wait()}:\n{text}")
        return json.loads(line)

    def ask(self, key, batch, calls):
        """Seconds of each call; or logits, where calls are 0."""
        print(json.dumps({"key": key, "batch": str(batch), "calls": calls}), file=self.process.stdin, flush=True)
        return self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def write_bert(source, folder):
    """The weights of a PaddleNLP classifier as Hugging Face's BERT has them, and its sizes."""
    from paddlenlp.transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(source)
    weights = {}
    for name, value in model.state_dict().items():
        array = value.numpy()
        linear = array.ndim == 2 and "embeddings" not in name
        for ours, theirs in BERT_NAMES.items():
            name = name.replace(ours, theirs)
        weights[name] = np.ascontiguousarray(array.T) if linear else array
    # BERT has no embedding of the task, which is the same one for all tokens.
    task = weights.pop("bert.embeddings.task_type_embeddings.weight")[0]
    weights["bert.embeddings.token_type_embeddings.weight"] += task
    np.savez(folder / "bert.npz", **weights)
    config = model.config
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = {name: getattr(config, name) for name in (*names, "max_position_embeddings", "type_vocab_size")}
    sizes |= {"num_labels": config.num_labels, "layer_norm_eps": model.ernie.embeddings.layer_norm._epsilon}
    (folder / "bert.json").write_text(json.dumps(sizes), encoding="utf-8")


def tables_of(args, times, errors, about):
    """Markdown: milliseconds, ratios to Paddle Inference, and this project against the fastest peer.

    Args:
        times: {shape: {(name, precision): seconds of each round}}.
        errors: {(name, precision): largest error of a logit, as a share of the largest logit}.
    """
    keys = list(errors)
    columns = [s.replace("x", " × ") for s in args.shapes]
    medians = {s: {key: statistics.median(of_shape[key]) for key in keys} for s, of_shape in times.items()}
    full = [key for key in keys if "width" not in key[0]]

    def milliseconds(key):
        for s in args.shapes:
            low, high = (1e3 * f(times[s][key]) for f in (min, max))
            fastest = key in full and medians[s][key] == min(medians[s][k] for k in full if k[1] == key[1])
            mark = "**" if fastest else ""
            yield f"{mark}{1e3 * medians[s][key]:.1f}{mark} ({low:.1f} to {high:.1f})"

    def against_paddle(key):
        for s in args.shapes:
            yield "{:.2f}x ({:.2f} to {:.2f})".format(*speed_up(times[s][key], times[s][PADDLE, "FP32"]))

    def against_peers(key):
        for s in args.shapes:
            peers = [k for k in keys if not k[0].startswith(OURS) and k[1] == key[1]]
            if not peers:
                yield "no peer measured"
                continue
            peer = min(peers, key=medians[s].get)
            middle, low, high = speed_up(times[s][key], times[s][peer])
            verdict = "" if low > 1 else ", **peer ahead**" if high < 1 else ", no clear difference"
            yield f"{middle:.2f}x ({low:.2f} to {high:.2f}){verdict}: {peer[0]}"

    return [
        f"{about}. Medians over {args.rounds} rounds, from the smallest to the largest.",
        "The fastest of each precision is bold, the pruned model aside. Error: of the logits against Paddle "
        "Inference's, as a share of the largest logit.",
        markdown(["ms per batch", "precision", *columns, "error"],
                 [[*key, *milliseconds(key), "another model" if "width" in key[0] else f"{100 * errors[key]:.3f}%"]
                  for key in keys]),
        "Times as fast as Paddle Inference in the same round:",
        markdown(["times as fast", "precision", *columns], [[*key, *against_paddle(key)] for key in keys]),
        "This project against the fastest peer of the same precision, in the same round:",
        markdown(["times as fast", "precision", *columns],
                 [[*key, *against_peers(key)] for key in keys if key[0].startswith(OURS)]),
    ]  # fmt: skip


def main():
    if CHILD:
        return run_child(**json.loads(sys.argv[2]))
    parser = harness.parser(__doc__, "arch", "vocab_file", "threads", "output", rounds=5,
                            shapes=["32x24", "32x64", "32x128", "1x32"])  # fmt: skip
    add = parser.add_argument
    python = str(harness.ROOT / ".venv-peers" / "bin" / "python")
    add("--peers_python", metavar="FILE", default=python, help="Python of the peers' environment (default: "
        ".venv-peers/bin/python)")  # fmt: skip
    add("--no_compile", action="store_true", help="without torch.compile, which compiles for minutes")
    args = parser.parse_args()
    if not shutil.which(args.peers_python):
        parser.error(f"{args.peers_python}: no such program; `make peers` installs the peers")
    from ernie_predictor.machine import has_bf16
    from ernie_predictor.runtimes import ENGINE_NAMES, fastest_engine, open_onnx
    from harness.models import check_logits, make_folders, paddle_inference, random_batch

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        print("making models: a minute or two", file=sys.stderr)
        folders, vocab_size = make_folders("seq_cls", args.arch, args.vocab_file, name)
        shutil.copy(Path(folders["FP32"], "model.onnx"), folder / "export.onnx")
        write_bert(folder / "pretrained", folder)

        def save_batch(path, *arguments):
            batch = random_batch(vocab_size, *arguments)
            np.savez(path, **batch, attention_mask=np.ones_like(batch["input_ids"]))
            return batch

        for seed in range(2):  # as this project's own INT8 model is calibrated
            save_batch(folder / f"calibration_{seed}.npz", 16, 64, seed)
        batches = {s: save_batch(folder / f"{s}.npz", *map(int, s.split("x")), 7) for s in args.shapes}

        theirs, versions = {}, {}
        for name_of_peers in OPENERS:
            print(f"opening {name_of_peers}", file=sys.stderr)
            peers = stack.enter_context(Peers(args.peers_python, folder, peers=name_of_peers, threads=args.threads,
                                              no_compile=args.no_compile, bf16=has_bf16()))  # fmt: skip
            if "missing" in peers.about:
                print(f"not measured: {name_of_peers} ({peers.about['missing']})", file=sys.stderr)
            else:
                versions = peers.about["versions"]
                theirs |= {tuple(key): peers for key in peers.about["names"]}

        paddle, ours = paddle_inference(folders["FP32"], args.threads), {}
        for model, path in folders.items():
            width, _, precision = model.rpartition(", ")
            engine = fastest_engine(f"{path}/model.onnx")
            model = f"{OURS}, {ENGINE_NAMES[engine]}{width and ', ' + width}"
            ours[model, precision] = open_onnx(f"{path}/model.onnx", engine, args.threads)
            if precision == "FP32" and engine == "openvino" and has_bf16():
                ours[model, "BF16"] = open_onnx(f"{path}/model.onnx", engine, args.threads, bf16=True)

        here = {(PADDLE, "FP32"): paddle, **ours}
        keys = [(PADDLE, "FP32"), *theirs, *ours]
        times, errors = {s: {key: [] for key in keys} for s in args.shapes}, dict.fromkeys(keys, 0.0)
        for s, batch in batches.items():
            expected = paddle(batch)[0]
            for key in keys:
                logits = here[key](batch)[0] if key in here else theirs[key].ask(key, folder / f"{s}.npz", 0)
                if "width" not in key[0]:
                    error = check_logits(", ".join(key), [logits], [expected], LIMITS[key[1]])
                    errors[key] = max(errors[key], error)
            calls = 1 if batch["input_ids"].size > 512 else 10
            for number in range(args.rounds):
                print(f"{s}, round {number + 1} of {args.rounds}", file=sys.stderr)
                for key in keys:
                    taken = (measure(here[key], batch, calls) if key in here
                             else theirs[key].ask(key, folder / f"{s}.npz", calls))  # fmt: skip
                    times[s][key].append(statistics.median(taken))

    packages = ", ".join(f"{package} {version}" for package, version in versions.items())
    about = (f"ERNIE 3.0-{args.arch.capitalize()}'s architecture, a classifier of 15 classes, random weights, "
             f"{harness.machine(args.threads)}; peers with {packages or 'none'}")  # fmt: skip
    figures = {
        "about": about,
        "seconds of each round": [
            {"name": name, "precision": precision, "error": errors[name, precision],
             **{s: times[s][name, precision] for s in args.shapes}}
            for name, precision in keys
        ],
    }  # fmt: skip
    harness.write_results(args.output, figures, *tables_of(args, times, errors, about))


if __name__ == "__main__":
    main()
