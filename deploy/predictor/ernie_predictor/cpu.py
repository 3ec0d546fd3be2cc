"""Opens the model of a folder on the CPU: which file, which backend, which precision."""

import importlib.metadata
import os

from .derived_models import LARGE, Derived, quantize
from .errors import PredictorError, UsageError
from .machine import has_bf16, processor, processor_id, usable_cores
from .onnx_files import quantized_form
from .runtimes import PaddleModel, fastest_engine, installed_engines, is_importable, open_onnx

BACKENDS = ("onnxruntime", "openvino", "paddle")
PRECISIONS = ("fp32", "bf16", "int8")


def installed_backends():
    """The backends that can be opened here, in the order of BACKENDS."""
    engines = installed_engines()
    paddle = is_importable("paddle")
    return [name for name in BACKENDS if name in engines or (name == "paddle" and paddle)]


def choose_backend(backend, onnx_file=None):
    """The backend to open: the one asked for, or with "auto" the fastest that is installed, for `onnx_file`.

    Raises:
        PredictorError: it is not installed; the message names the package.
    """
    installed = installed_backends()
    if backend == "auto":
        backend = fastest_engine(onnx_file, installed) or next(iter(installed), None)
        if backend is None:
            raise PredictorError("nothing that runs a model is installed: pip install -r requirements_cpu.txt")
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: choose auto, {', '.join(BACKENDS)}")
    if backend not in installed:
        package = "paddlepaddle" if backend == "paddle" else backend
        raise PredictorError(
            f"--backend {backend} needs the package {package}; installed here: {', '.join(installed) or 'none'}"
        )
    return backend


def open_model(
    model_dir, backend="auto", precision_mode="fp32", num_threads=None, cache_dir=None, calibration_batches=None
):
    """Opens the model of a folder; the arguments are those of `predictor.open_folder`.

    Args:
        calibration_batches: for int8 of an FP32 model, see `quantize`.

    Returns:
        A model of runtimes.py.

    Raises:
        PredictorError: a file or package is missing, a file is broken, or the model is of another precision.
    """
    if precision_mode not in PRECISIONS:
        raise ValueError(f"precision_mode {precision_mode!r}: choose one of {', '.join(PRECISIONS)}")
    if precision_mode == "bf16":
        check_bf16(backend)
    num_threads = num_threads or usable_cores()

    def use_cpu(config, inference):
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(num_threads)
        # Not enable_mkldnn_int8(): its logits are off by half their size (Paddle 2.6.2, a PTQ model of the sample
        # data), where the scales computed in float32 give ONNX Runtime's to three digits.
        config.enable_mkldnn()
        # Shapes whose kernels it keeps: without a limit every further length of 32 texts takes up to 800 MB for good.
        # A single text of another length takes longer for it.
        config.set_mkldnn_cache_capacity(10)
        if precision_mode == "bf16":
            config.enable_mkldnn_bfloat16()

    has_onnx = os.path.isfile(os.path.join(model_dir, "model.onnx"))
    has_paddle = any(os.path.isfile(os.path.join(model_dir, f"{name}.pdmodel")) for name in ("model", "int8"))
    if backend == "auto" and has_paddle and not has_onnx and "paddle" in installed_backends():
        backend = "paddle"
    if backend == "paddle":
        choose_backend(backend)
        if calibration_batches is not None:
            raise UsageError("--backend paddle takes the INT8 model that compress_*.py wrote: leave --calibration out")
        return PaddleModel(model_dir, precision_mode, use_cpu)
    path, form = find_onnx(model_dir, precision_mode)
    if calibration_batches is not None and form is not None:
        raise UsageError(f"{path} is an INT8 model, with scales of its own: leave --calibration out")
    engine = choose_backend("openvino" if precision_mode == "bf16" else backend, path)  # before any work
    if precision_mode == "int8" and form is None:
        path = quantize(path, cache_dir, calibration_batches)
        engine = choose_backend(backend, path)
    bf16, blob = precision_mode == "bf16", None
    if engine == "openvino" and os.path.getsize(path) >= LARGE:
        # It does not depend on the number of threads.
        made_for = f"{importlib.metadata.version('openvino')} {processor_id()}"
        blob = Derived(path, f"openvino-{'bf16' if bf16 else 'fp32'}", cache_dir, made_for, ending=".blob")
    return open_onnx(path, engine, num_threads, bf16, blob)


def check_bf16(backend):
    """Raises PredictorError where bfloat16 would be no faster, or is not supported by a backend."""
    if backend == "onnxruntime":
        raise UsageError("--precision_mode bf16: --backend onnxruntime has no kernels for it; openvino and paddle do")
    if not has_bf16():
        raise PredictorError(
            f"--precision_mode bf16: this processor ({processor()}) has no bfloat16 instructions "
            "(AVX512_BF16 or AMX); take int8 or fp32"
        )


def find_onnx(model_dir, precision_mode):
    """A folder's model.onnx, and how it is quantized: see `quantized_form`.

    Raises:
        PredictorError: there is none, or it is an INT8 model and another precision is asked for.
    """
    path = os.path.join(model_dir, "model.onnx")
    if not os.path.isfile(path):
        raise PredictorError(f"{model_dir} has no model.onnx; run_*.py --do_export and compress_*.py write it")
    form = quantized_form(path)
    if precision_mode != "int8" and form is not None:
        raise PredictorError(f"{path} is an INT8 model: leave --precision_mode out, or name a folder with an FP32 one")
    return path, form
