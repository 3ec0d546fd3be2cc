"""Models made of a folder's model.onnx, once: quantized, or in a form that opens faster."""

import contextlib
import hashlib
import importlib.util
import logging
import mmap
import os
import shutil
import sys
import tempfile

from tqdm import tqdm

from .errors import CacheError, PredictorError
from .int8 import calibrate, quantize_onnx
from .runtimes import cannot_load


def quantized_form(onnx_file):
    """How an ONNX file is quantized: "static" (with scales of its own), "dynamic" (scales while it runs), or None."""
    if has_node(onnx_file, "QuantizeLinear"):
        return "static"
    return "dynamic" if has_node(onnx_file, "DynamicQuantizeLinear") else None


def has_node(onnx_file, op_type):
    """Whether an ONNX file has a node of a type.

    Looks for the type as it stands in the file (ONNX's NodeProto.op_type is field 4: byte 0x22, length, name), so that
    no package for reading ONNX is needed.
    """
    if os.path.getsize(onnx_file) == 0:
        return False
    with open(onnx_file, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"\x22" + bytes([len(op_type)]) + op_type.encode()) >= 0


def derive(onnx_file, kind, cache_dir, write, key=""):
    """A model made of another, once: made by the first who needs it, found by all later ones.

    What was made of the same file before it changed is removed.

    Args:
        kind: a part of its name; the rest is the size and time of its source.
        cache_dir: where it is kept; None: beside its source, or in the user's cache where that is read-only.
        write: a function of a path; writes the model there, and may write files beside it that the model reads.
        key: what else it was made of, as a part of its name.

    Returns:
        The path of the model. Files get their names when they are whole, the model's last.

    Raises:
        CacheError: no place can be written to.
    """
    places = _places(onnx_file, kind, cache_dir)
    key = f"-{key}" if key else ""
    for folder, _, name in places:
        path = os.path.join(folder, f"{name}{key}.onnx")
        if os.path.isfile(path):
            return path
    for folder, prefix, name in places:
        file = f"{name}{key}.onnx"
        try:
            os.makedirs(folder, exist_ok=True)
            work = tempfile.TemporaryDirectory(prefix=".making.", dir=folder)
        except OSError as e:
            reason = f"{folder}: {e.strerror}"
            continue
        with work:
            try:
                write(os.path.join(work.name, file))
            except PredictorError:
                raise
            except Exception as e:
                raise PredictorError(cannot_load(onnx_file, e)) from e
            for part in sorted(os.listdir(work.name), key=lambda part: part == file):
                os.replace(os.path.join(work.name, part), os.path.join(folder, part))
        _remove_outdated(folder, prefix, name)
        return os.path.join(folder, file)
    raise CacheError(f"there is no place for a model made of {onnx_file} ({reason}); name one with --cache_dir")


def derived_folder(onnx_file, kind, cache_dir):
    """A folder for what a runtime itself keeps of a model, named and placed as `derive` does it.

    Raises:
        CacheError: no place can be written to.
    """
    for folder, prefix, name in _places(onnx_file, kind, cache_dir):
        path = os.path.join(folder, name)
        try:
            os.makedirs(path, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()  # a folder can be there and yet be read-only
        except OSError as e:
            reason = f"{path}: {e.strerror}"
            continue
        _remove_outdated(folder, prefix, name)
        return path
    raise CacheError(f"there is no place for files made of {onnx_file} ({reason}); name one with --cache_dir")


def _places(onnx_file, kind, cache_dir):
    """Where something made of a model may lie, best first: (folder, how the names of all of this kind made of this
    file begin, the name for the file as it is now without an ending).
    """
    source = os.path.realpath(onnx_file)
    stat = os.stat(source)
    stem = os.path.splitext(os.path.basename(onnx_file))[0]
    version = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    # A cache holds what was made of many folders.
    elsewhere = f"{hashlib.sha256(source.encode()).hexdigest()[:12]}.{stem}.{kind}-"
    if cache_dir is not None:
        return [(cache_dir, elsewhere, elsewhere + version)]
    beside = f"{stem}.{kind}-"
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [
        (os.path.dirname(os.path.abspath(onnx_file)), beside, beside + version),
        (os.path.join(user_cache, "ernie_predictor"), elsewhere, elsewhere + version),
    ]


def _remove_outdated(folder, prefix, name):
    """Removes what was made of a file that has changed since. Whoever has it open keeps it."""
    for entry in os.listdir(folder):
        if entry.startswith(prefix) and not entry.startswith(name):
            path = os.path.join(folder, entry)
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.remove(path)


def quantize(onnx_file, cache_dir=None, batches=None):
    """Quantizes an FP32 model; see `derive`.

    Args:
        batches: {"input_ids", "token_type_ids"}: int64 [batch, length], to measure the activations' scales on. Left
            out, they are measured anew in every batch that runs, which is slower, and attention stays in float32.
    """
    batches = list(batches or ())
    digest = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            digest.update(f"{batch[name].shape}".encode() + batch[name].tobytes())

    def write(target):
        if not importlib.util.find_spec("onnx"):
            raise PredictorError(
                f"{onnx_file} is an FP32 model, and to quantize it the package onnx is needed: pip install onnx, or "
                "name a folder that compress_*.py wrote"
            )
        # ONNX Runtime advises, on the root logger, to preprocess the model: nothing that a user could act on.
        logging.disable(logging.WARNING)
        try:
            if batches:
                products = calibrate(onnx_file, tqdm(batches, "Calibrating", disable=not sys.stderr.isatty()))
                quantize_onnx(onnx_file, target, products)
            else:
                quantize_dynamically(onnx_file, target)
        finally:
            logging.disable(logging.NOTSET)

    if batches:
        return derive(onnx_file, "int8-static", cache_dir, write, key=digest.hexdigest()[:12])
    return derive(onnx_file, "int8-dynamic", cache_dir, write)


def quantize_dynamically(source, target):
    """Writes an ONNX model whose weights are INT8 with a scale a column, and whose activations are quantized while it
    runs.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Given a file's name, it would write another beside it, which a read-only folder forbids.
    quantize_dynamic(
        onnx.load(source), target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
    )


def set_weights_apart(onnx_file, cache_dir=None):
    """Writes a model anew with its weights in a file of their own; see `derive`.

    OpenVINO's provider hands a model on as one serialized piece, weights and all, several times over: 2.8 s and 1.5 GB
    for ERNIE 3.0-Medium. Weights in a file of their own it leaves there: 0.4 s. Its own cache of compiled models
    (`cache_dir` of the provider) comes behind all that and saved no time (ONNX Runtime 1.23).
    """

    def write(target):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # it warns that such a file depends on the machine, which this form does not
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = target
        prefix = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{prefix}file_name", f"{os.path.basename(target)}.data")
        options.add_session_config_entry(f"{prefix}min_size_in_bytes", "1024")
        onnxruntime.InferenceSession(onnx_file, options, providers=["CPUExecutionProvider"])

    return derive(onnx_file, "openvino", cache_dir, write)
