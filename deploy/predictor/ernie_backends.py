"""What runs a model folder on the CPU: ONNX Runtime with one of two execution providers, or Paddle Inference.

Each backend is opened by `open_model` and then called with a batch of arrays. Nothing here knows of texts.
"""

import contextlib
import hashlib
import importlib.util
import logging
import mmap
import os
import tempfile

import numpy as np
from ernie_tasks import PredictorError
from ernie_tokenizer import usable_cores

BACKENDS = ("onnxruntime", "openvino", "paddle")
PRECISIONS = ("fp32", "int8")
LARGE = 2**25  # bytes of a model that is worth a second file to start faster


class CacheError(PredictorError):
    """No place for a file that would be made once."""


def installed_backends():
    """The backends that can be opened here, in the order of BACKENDS."""
    engines = []
    if importlib.util.find_spec("onnxruntime"):
        from onnx_session import installed_engines

        engines = installed_engines()
    paddle = importlib.util.find_spec("paddle") is not None
    return [name for name in BACKENDS if name in engines or (name == "paddle" and paddle)]


def choose_backend(backend, quantized_dynamically):
    """The backend to open: the one asked for, or with "auto" the fastest that is installed.

    OpenVINO's provider is that, except on a dynamically quantized model: its matrix products it computes no faster
    than in FP32, while the default provider has kernels for them.

    Raises:
        PredictorError: it is not installed; the message names the package.
    """
    installed = installed_backends()
    if backend == "auto":
        order = ("onnxruntime", "openvino") if quantized_dynamically else ("openvino", "onnxruntime")
        backend = next((name for name in (*order, "paddle") if name in installed), None)
        if backend is None:
            raise PredictorError("nothing that runs a model is installed: pip install -r requirements_cpu.txt")
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: choose auto, {', '.join(BACKENDS)}")
    if backend not in installed:
        package = {"openvino": "onnxruntime-openvino", "onnxruntime": "onnxruntime", "paddle": "paddlepaddle"}[backend]
        raise PredictorError(
            f"--backend {backend} needs the package {package}; installed here: {', '.join(installed) or 'none'}"
        )
    return backend


def open_model(model_dir, backend="auto", precision_mode="fp32", num_threads=None, cache_dir=None):
    """Opens the model of a folder.

    Args:
        backend: one of BACKENDS, or "auto".
        precision_mode: "fp32" or "int8"; int8 takes the folder's INT8 model, else quantizes the FP32 one, once.
        num_threads: threads for one batch; left out, the cores that this process may use.
        cache_dir: where models are kept that are made here, quantized or for OpenVINO to start faster; left out,
            beside model.onnx, or in the user's cache where the folder is read-only.

    Returns:
        An `OnnxModel` or a `PaddleModel`.

    Raises:
        PredictorError: a file or package is missing, a file is broken, or the model is of another precision.
    """
    if precision_mode not in PRECISIONS:
        raise ValueError(f"precision_mode {precision_mode!r}: choose {' or '.join(PRECISIONS)}")
    num_threads = num_threads or usable_cores()
    if backend == "paddle":
        choose_backend(backend, False)
        return PaddleModel(model_dir, precision_mode, num_threads)
    path = os.path.join(model_dir, "model.onnx")
    if not os.path.isfile(path):
        if backend == "auto" and "paddle" in installed_backends():
            return PaddleModel(model_dir, precision_mode, num_threads)
        raise PredictorError(f"{model_dir} has no model.onnx; run_*.py --do_export and compress_*.py write it")
    form = quantized_form(path)
    if precision_mode == "fp32" and form is not None:
        raise PredictorError(f"{path} is an INT8 model: add --precision_mode int8, or name a folder with an FP32 one")
    engine = choose_backend(backend, form == "dynamic" or (form is None and precision_mode == "int8"))
    if precision_mode == "int8" and form is None:
        path = quantize(path, cache_dir)
    if engine == "openvino" and os.path.getsize(path) >= LARGE:
        # No place to write to: it starts all the same, later.
        with contextlib.suppress(CacheError):
            path = set_weights_apart(path, cache_dir)
    return OnnxModel(path, engine, num_threads)


def quantized_form(onnx_file):
    """How an ONNX file is quantized: "static" (with scales of its own), "dynamic" (scales while it runs), or None.

    Looks for the nodes' types as they stand in the file (ONNX's NodeProto.op_type is field 4: byte 0x22, length,
    name), so that no package for reading ONNX is needed.
    """
    with open(onnx_file, "rb") as f:
        if os.path.getsize(onnx_file) == 0:
            return None
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for op_type, form in ((b"QuantizeLinear", "static"), (b"DynamicQuantizeLinear", "dynamic")):
                if content.find(b"\x22" + bytes([len(op_type)]) + op_type) >= 0:
                    return form
    return None


def derive(onnx_file, kind, cache_dir, write):
    """A model made of another, once: made by the first who needs it, found by all later ones.

    Args:
        kind: a part of its name; the rest is the place, size and time of its source.
        cache_dir: where it is kept; None: beside its source, or in the user's cache where that is read-only.
        write: a function of a path; writes the model there, and may write files beside it that the model reads.

    Returns:
        The path of the model. Files get their names when they are whole, the model's last.

    Raises:
        CacheError: no place can be written to.
    """
    if cache_dir is not None:
        folders = [cache_dir]
    else:
        user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        folders = [os.path.dirname(os.path.abspath(onnx_file)), os.path.join(user_cache, "ernie_predictor")]
    stat = os.stat(onnx_file)
    source = f"{os.path.realpath(onnx_file)} {stat.st_size} {stat.st_mtime_ns}"
    name = f"model.{kind}-{hashlib.sha256(source.encode()).hexdigest()[:12]}.onnx"
    for folder in folders:
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    for folder in folders:
        try:
            os.makedirs(folder, exist_ok=True)
            work = tempfile.TemporaryDirectory(prefix=".making.", dir=folder)
        except OSError as e:
            reason = f"{folder}: {e.strerror}"
            continue
        with work:
            try:
                write(os.path.join(work.name, name))
            except PredictorError:
                raise
            except Exception as e:
                raise PredictorError(_cannot_load(onnx_file, e)) from e
            for part in sorted(os.listdir(work.name), key=lambda part: part == name):
                os.replace(os.path.join(work.name, part), os.path.join(folder, part))
        return os.path.join(folder, name)
    raise CacheError(f"there is no place for a model made of {onnx_file} ({reason}); name one with --cache_dir")


def quantize(onnx_file, cache_dir=None):
    """Quantizes the linear layers of an FP32 model dynamically; see `derive`.

    Weights become INT8 with a scale a column, activations are quantized while the model runs.
    """

    def write(target):
        if not importlib.util.find_spec("onnx"):
            raise PredictorError(
                f"{onnx_file} is an FP32 model, and to quantize it the package onnx is needed: pip install onnx, or "
                "name a folder that compress_*.py wrote"
            )
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Given a file's name, it would write another beside it, which a read-only folder forbids.
        model = onnx.load(onnx_file)
        # It advises, on the root logger, to preprocess the model: nothing that a user could act on.
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(
                model, target, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
            )
        finally:
            logging.disable(logging.NOTSET)

    return derive(onnx_file, "int8", cache_dir, write)


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


def _cannot_load(path, error):
    reason = " ".join(str(error).split())
    return f"{path} can't be loaded; is it whole? ({reason[:200]})"


class OnnxModel:
    """An ONNX file in ONNX Runtime.

    Attributes:
        backend: "onnxruntime" or "openvino".
        widths: the last dimension of each output: classes, tags, or None where it is the length.
    """

    def __init__(self, path, backend, num_threads):
        from onnx_session import open_session

        self.path, self.backend = path, backend
        try:
            self.session = open_session(path, backend, num_threads)
        except Exception as e:
            raise PredictorError(_cannot_load(path, e)) from e
        self.inputs = {value.name: value.type for value in self.session.get_inputs()}
        if set(self.inputs) != {"input_ids", "token_type_ids"}:
            raise PredictorError(
                f"{path} takes {', '.join(self.inputs)}; expected a model of input_ids and token_type_ids"
            )
        shapes = [value.shape for value in self.session.get_outputs()]
        self.widths = [shape[-1] if shape and isinstance(shape[-1], int) else None for shape in shapes]

    def __call__(self, batch):
        """Runs a batch.

        Args:
            batch: {"input_ids", "token_type_ids"}: int64 [batch, length].

        Returns:
            The model's outputs, float32 arrays that begin with [batch, ...].
        """
        types = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
        return self.session.run(
            None, {name: batch[name].astype(types[kind], copy=False) for name, kind in self.inputs.items()}
        )


class PaddleModel:
    """A static Paddle model in Paddle Inference, with oneDNN: `model.pdmodel`, or `int8.pdmodel`."""

    backend = "paddle"

    def __init__(self, model_dir, precision_mode, num_threads):
        # Paddle 2.6 brings a zlib of its own, which crashes whatever first loads Python's behind it
        # (PaddlePaddle/Paddle#70538).
        import zlib  # noqa: F401  isort: skip
        from paddle import inference

        prefix = os.path.join(model_dir, "int8" if precision_mode == "int8" else "model")
        self.path = prefix + ".pdmodel"
        for path in (self.path, prefix + ".pdiparams"):
            if not os.path.isfile(path):
                writer = "compress_*.py writes" if precision_mode == "int8" else "run_*.py --do_export writes"
                raise PredictorError(
                    f"{model_dir} has no {os.path.basename(path)}, which --backend paddle takes; {writer} it"
                )
        config = inference.Config(self.path, prefix + ".pdiparams")
        config.disable_glog_info()
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(num_threads)
        # Not enable_mkldnn_int8(): its logits are off by half their size (Paddle 2.6.2, a PTQ model of the sample
        # data), where the scales computed in float32 give ONNX Runtime's to three digits.
        config.enable_mkldnn()
        try:
            self.predictor = inference.create_predictor(config)
        except Exception as e:
            raise PredictorError(_cannot_load(self.path, e)) from e
        self.widths = [None] * len(self.predictor.get_output_names())

    def __call__(self, batch):
        """As `OnnxModel.__call__`."""
        for name in self.predictor.get_input_names():
            self.predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(batch[name]))
        self.predictor.run()
        return [self.predictor.get_output_handle(name).copy_to_cpu() for name in self.predictor.get_output_names()]
