"""Makes a model repository for Triton from a model folder, or adds a model to one.

python prepare_models.py --model_path best_models/tnews/export --output models_tnews
python prepare_models.py --model_path best_models/msra_ner/export --output models_all --name ner
python prepare_models.py --model_path best_models/tnews/export --output models_gpu --device gpu --precision fp16

Each model is a folder with everything it needs: the model's files, its Python code and the predictor's package.
"""

import argparse
import json
import os
import re
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PREDICTOR = os.path.join(HERE, "..", "predictor")
sys.path.insert(0, PREDICTOR)

try:
    from ernie_predictor import TASKS, UsageError, load_task, open_folder
    from ernie_predictor.commandline import HelpFormatter, positive, run, stop
except ImportError as e:
    sys.exit(f"prepare_models.py: error: {e}; copy deploy/predictor, too, and pip install -r requirements.txt")
from ernie_predictor.cpu import find_onnx
from ernie_predictor.files import file_hash, new_folder
from ernie_predictor.gpu_models import prepare
from ernie_predictor.onnx_files import quantized_form

NAMES = {name: f"ernie_{name.replace('_', '')}" for name in TASKS}  # as published: ernie_seqcls, ...
TYPES = {str: "TYPE_STRING", int: "TYPE_INT64", float: "TYPE_FP32", bool: "TYPE_BOOL"}
# (the default first)
PRECISIONS = {"cpu": ("fp32", "bf16", "int8"), "gpu": ("fp16", "fp32", "int8")}
BACKENDS = {"cpu": ("auto", "openvino", "onnxruntime"), "gpu": ("tensorrt", "cuda")}
TOKENS = {"cpu": 4096, "gpu": 16384}
MAX_BATCH_SIZE = 64  # as in config.pbtxt
MAX_CHARACTERS = 100_000  # per text; longer ones are refused


def main():
    args = parse()
    task = load_task(args.model_path)
    name = args.name or NAMES[task.name]
    target = os.path.join(args.output, name)
    # Models are written beside the repository and moved in when complete: Triton takes every folder in it for a model,
    # and does not start if one is incomplete. The network is moved in before the model that calls it.
    if args.device == "gpu":
        prepare_network(args, task, f"{target}_network")
    with new_folder(target, beside(args.output)) as folder:
        shutil.copytree(os.path.join(HERE, "models", "text"), folder, dirs_exist_ok=True)
        version = os.path.join(folder, "1")
        os.mkdir(version)
        shutil.copytree(
            os.path.join(PREDICTOR, "ernie_predictor"), os.path.join(version, "ernie_predictor"), ignore=_IGNORE
        )
        shutil.copy(os.path.join(HERE, "text_model.py"), os.path.join(version, "model.py"))
        copy_files(args.model_path, version, ["config.json", "vocab.txt", "tokenizer_config.json"])
        settings = {
            "num_threads": args.num_threads,
            "max_batch_tokens": args.max_batch_tokens,
            "max_characters": MAX_CHARACTERS,
        }
        if task.id2label:
            settings["labels"] = json.dumps(list(task.id2label.values()), ensure_ascii=False)  # for clients
        if task.name == "seq_cls" and task.text_pair is not None:
            settings["text_pair"] = json.dumps(task.text_pair)  # for clients
        if args.device == "cpu":
            copy_files(args.model_path, version, ["model.onnx"])
            # Opens the copy: a model that does not fit is refused now, and files derived from the model are made now.
            options = {"backend": args.backend, "precision_mode": args.precision, "batch_size": MAX_BATCH_SIZE}
            open_folder(version, cache_dir=os.path.join(version, "cache"), **options)
            settings |= {"backend": args.backend, "precision_mode": args.precision}
        else:
            settings |= {"network": f"{name}_network", "network_outputs": ",".join(task.outputs)}
        if args.execution_env:
            settings["EXECUTION_ENV_PATH"] = args.execution_env
        parameters = (parameter(*item) for item in settings.items())
        add_to_config(folder, *tensors(task), instances(args.instances, "KIND_CPU"), *parameters)
    print(f"{target}: {task.name}, {args.precision} on {args.device}, from {args.model_path}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.error = lambda message: stop(message, 2)
    add = parser.add_argument
    add("--model_path", metavar="DIR", required=True, help="folder that run_*.py --do_export or compress_*.py wrote")
    add(
        "--output", metavar="DIR", required=True, help="model repository: a new one, or one to which the model is added"
    )
    add("--name", help=f"of the model (default: {' or '.join(NAMES.values())}, by its task)")
    add("--device", choices=PRECISIONS, default="cpu")
    add("--precision", "--precision_mode", metavar="NAME", help="cpu: fp32 (default), bf16, int8; gpu: fp16 (default), "
        "fp32, int8; the default for an INT8 folder is int8")  # fmt: skip
    add("--backend", metavar="NAME", help="cpu: auto (default), openvino, onnxruntime; gpu: tensorrt (default), cuda")
    add("--instances", metavar="N", type=positive, default=2, help="processes that run the model in parallel "
        "(default: 2; with 1, Triton leaves some requests waiting for half a second)")  # fmt: skip
    add("--num_threads", metavar="N", type=int, default=0, help="threads per instance (default: the usable cores; "
        "from 4 instances on, two of them share the cores)")  # fmt: skip
    add("--max_batch_tokens", metavar="N", type=positive, help="maximum tokens per batch, padding included (default: "
        "4096; on GPUs 16384)")  # fmt: skip
    add("--execution_env", metavar="FILE", help="that pack_environment.sh wrote, by its path on the server")
    args = parser.parse_args()
    if args.name is not None and not re.fullmatch(r"\w[\w.-]*", args.name, re.ASCII):
        parser.error(f"--name {args.name}: expected letters, digits, _, - and .")
    if args.num_threads < 0:
        parser.error(f"--num_threads {args.num_threads}: must be 1 or more")
    for name, known in (("precision", PRECISIONS[args.device]), ("backend", BACKENDS[args.device])):
        if getattr(args, name) not in (None, *known):
            parser.error(f"--{name} {getattr(args, name)}: --device {args.device} takes {', '.join(known)}")
    if args.precision is None:
        path = os.path.join(args.model_path, "model.onnx")
        is_int8 = os.path.isfile(path) and quantized_form(path) is not None
        args.precision = "int8" if is_int8 else PRECISIONS[args.device][0]
    args.backend = args.backend or BACKENDS[args.device][0]
    args.max_batch_tokens = args.max_batch_tokens or TOKENS[args.device]
    return args


def prepare_network(args, task, target):
    """Writes the network as a model of its own, for Triton's ONNX Runtime backend on a GPU."""
    if args.backend == "cuda" and args.precision == "int8":
        raise UsageError("--backend cuda has no INT8 kernels: use --backend tensorrt, or --precision fp16")
    path, form = find_onnx(args.model_path, args.precision)
    if args.precision == "int8" and form != "static":
        raise UsageError(f"--precision int8: {path} is no calibrated INT8 model; compress_*.py writes one")
    # Opened on the CPU, to see that it fits its task.
    open_folder(args.model_path, precision_mode="fp32" if form is None else "int8")
    with new_folder(target, beside(args.output)) as folder:
        shutil.copytree(os.path.join(HERE, "models", "network"), folder, dirs_exist_ok=True)
        version = os.path.join(folder, "1")
        os.mkdir(version)
        made = prepare(path, args.backend, args.precision, os.path.join(folder, "made"))
        network = shutil.copy(made, os.path.join(version, "model.onnx"))
        shutil.rmtree(os.path.join(folder, "made"), ignore_errors=True)
        shape = [-1] * task.per_token + [len(task.id2label)] * task.has_labels
        add_to_config(
            folder,
            instances(2, "KIND_GPU"),  # see --instances
            *(f'output [ {{ name: "{name}" data_type: TYPE_FP32 dims: {shape} }} ]' for name in task.outputs),
            accelerator(args, task, network),
        )


def accelerator(args, task, network):
    """How ONNX Runtime runs the network, an ONNX file, on a GPU: the options of infer_gpu.py, under Triton's names.

    INT8 is not quite the same: Triton 24.10 has no option that also lets the layers in between run in float16.
    """
    if args.backend == "cuda":
        options = {"use_tf32": "0", "enable_skip_layer_norm_strict_mode": "1"}
    else:
        shapes = {
            "min": (1, 1),
            "opt": (MAX_BATCH_SIZE, task.usual_length),
            "max": (MAX_BATCH_SIZE, task.max_seq_length),
        }
        options = {
            "precision_mode": args.precision.upper(),
            # Building an engine takes minutes, so engines are kept in a folder that outlives the container. ONNX
            # Runtime names them after the network's form, not after its weights: without the prefix, a model that was
            # trained again, or one of another task, would run another model's engine.
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": "/tensorrt_cache",
            "trt_engine_cache_prefix": file_hash(network),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": "/tensorrt_cache",
            **{
                f"trt_profile_{kind}_shapes": f"input_ids:{batch}x{length},token_type_ids:{batch}x{length}"
                for kind, (batch, length) in shapes.items()
            },
        }
    lines = [f'      parameters {{ key: "{key}" value: "{value}" }}' for key, value in options.items()]
    return "\n".join(
        [
            "optimization {",
            "  execution_accelerators {",
            "    gpu_execution_accelerator {",
            f'      name: "{args.backend}"',
            *lines,
            "    }",
            "  }",
            "}",
        ]
    )


def beside(repository):
    return os.path.dirname(os.path.abspath(repository))


def tensors(task):
    """The inputs and outputs of a model of texts."""
    for name in task.text_names():
        optional = "" if name == task.first or type(task).second_required else " optional: true"
        yield f'input [ {{ name: "{name.upper()}" data_type: TYPE_STRING dims: [ 1 ]{optional} }} ]'
    for name, kind in task.triton_tensors.items():
        yield f'output [ {{ name: "{name}" data_type: {TYPES[kind]} dims: [ 1 ] }} ]'


def instances(count, kind):
    return f"instance_group [ {{ count: {count} kind: {kind} }} ]"


def parameter(name, value):
    # JSON escapes quotes, backslashes and control characters as protobuf's text format does.
    return f'parameters {{ key: "{name}" value {{ string_value: {json.dumps(str(value), ensure_ascii=False)} }} }}'


def add_to_config(folder, *lines):
    """Adds lines to a shipped config.pbtxt, which has none of these fields."""
    with open(os.path.join(folder, "config.pbtxt"), "a", encoding="utf-8", newline="\n") as f:
        f.write("\n# Written by prepare_models.py\n" + "\n".join(lines) + "\n")


def copy_files(source, target, names):
    for name in names:
        path = os.path.join(source, name)
        if os.path.exists(path):
            shutil.copy(path, target)


_IGNORE = shutil.ignore_patterns("__pycache__")


if __name__ == "__main__":
    run(main, "requirements.txt")
