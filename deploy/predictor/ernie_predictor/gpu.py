"""What runs a model folder on a GPU or another accelerator: ONNX Runtime with TensorRT or CUDA, or Paddle Inference.

Nothing here falls back to the CPU: what is missing is an error that names the package.
"""

import contextlib
import ctypes
import glob
import importlib.metadata
import importlib.util
import io
import os
import re
import sys

from .cpu import find_onnx
from .derived_models import derived_folder
from .errors import CacheError, PredictorError, UsageError
from .gpu_models import prepare
from .machine import usable_cores
from .runtimes import OnnxModel, PaddleModel, is_importable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DEVICES = ("gpu", "xpu", "npu")
BACKENDS = ("tensorrt", "cuda", "paddle")
PRECISIONS = ("fp32", "fp16", "int8")

# ONNX Runtime's execution providers: TensorRT leaves to CUDA what it does not take.
PROVIDERS = {"tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"], "cuda": ["CUDAExecutionProvider"]}
PADDLE_PACKAGES = {
    "gpu": "paddlepaddle-gpu",
    "xpu": "paddlepaddle-xpu",
    "npu": "paddle-custom-npu (beside paddlepaddle of the same version)",
}
INSTALL_TENSORRT = 'pip install "tensorrt-cu12-libs==10.9.*"'


def open_model(
    model_dir,
    device="gpu",
    device_id=0,
    backend="auto",
    precision_mode="fp32",
    batch_size=32,
    lengths=(64, 128),
    num_threads=None,
    cache_dir=None,
):
    """Opens the model of a folder on an accelerator; the arguments are those of `predictor.open_folder`.

    Args:
        device: xpu (Kunlun) and npu (Ascend) run through Paddle Inference.
        backend: with "auto" TensorRT where it is installed, else CUDA, else Paddle.
        precision_mode: fp16 is made of the folder's FP32 model; int8 is the folder's calibrated INT8 model.
        batch_size, lengths: maximum texts per batch, and tokens per text (usual, longest): TensorRT builds for them.

    Returns:
        An `OnnxModel` or a `PaddleModel`.

    Raises:
        PredictorError: a file, a package or the device is missing, or the model is of another precision.
        UsageError: the arguments do not go together.
    """
    for name, value, known in (
        ("device", device, DEVICES),
        ("backend", backend, ("auto", *BACKENDS)),
        ("precision_mode", precision_mode, PRECISIONS),
    ):
        if value not in known:
            raise ValueError(f"{name} {value!r}: choose {', '.join(known)}")
    if device != "gpu" and backend not in ("auto", "paddle"):
        raise UsageError(f"--backend {backend} runs on --device gpu alone; {device} runs through --backend paddle")
    if backend == "cuda" and precision_mode == "int8":
        raise UsageError("--backend cuda has no INT8 products: take --backend tensorrt, or --precision_mode fp16")
    if device == "gpu" and precision_mode == "fp32":
        # Otherwise, products of float32 are computed in TF32 from Ampere on, which has no more digits than float16:
        # confidences would not agree to 1e-3. Read by cuBLAS and TensorRT when they start; neither TensorRT's
        # provider nor Paddle has an option for it.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    if device != "gpu" or backend == "paddle":
        return open_paddle(model_dir, device, device_id, precision_mode)
    path, form = find_onnx(model_dir, precision_mode)
    if precision_mode == "int8" and form != "static":
        raise PredictorError(
            f"{path} is no calibrated INT8 model, and TensorRT takes no other; compress_*.py writes one (what "
            "infer_cpu.py quantizes by itself is for the CPU)"
        )
    backend = choose_backend(backend, precision_mode)
    if backend == "paddle":
        return open_paddle(model_dir, device, device_id, precision_mode)
    check_driver(device_id, backend)
    if backend == "tensorrt":
        load_tensorrt()
    path = prepare(path, backend, precision_mode, cache_dir)
    engines = None
    if backend == "tensorrt":
        # No place to write to: it starts all the same, later.
        with contextlib.suppress(CacheError):
            kind = f"tensorrt-{precision_mode}-{batch_size}x{lengths[1]}"
            engines = derived_folder(path, kind, cache_dir)
    options = provider_options(backend, device_id, precision_mode, batch_size, lengths, engines)
    num_threads = num_threads or usable_cores()

    def open_once(path):
        check_driver(device_id, backend)  # it is also opened after a fork
        with contextlib.nullcontext() if engines is None else one_at_a_time(engines):
            return open_session(path, backend, options, num_threads)

    return OnnxModel(path, backend, open_once)


@contextlib.contextmanager
def one_at_a_time(folder):
    """Waits while another process opens a model with this folder for its engines.

    ONNX Runtime writes an engine in place, so a second process could read an incomplete one. Having waited, it
    finds the engine, which opens in seconds; building one takes minutes.
    """
    with open(os.path.join(folder, ".lock"), "w") as lock:
        with contextlib.suppress(AttributeError, OSError):  # no module, a file system without it: nobody waits
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def choose_backend(backend, precision_mode):
    """The backend to open on a GPU: the one asked for, or with "auto" the fastest that is installed.

    Raises:
        PredictorError: it is not installed; the message names the package.
    """
    providers = available_providers()
    if "CUDAExecutionProvider" not in providers:
        if backend == "auto" and precision_mode != "int8" and version_of(PADDLE_PACKAGES["gpu"]):
            return "paddle"
        raise PredictorError(
            f"{'--device gpu' if backend == 'auto' else '--backend ' + backend} needs the package onnxruntime-gpu; "
            f"installed here: {installed_packages()}. {install()}; infer_cpu.py runs on the processor"
        )
    if backend == "auto":
        backend = "tensorrt"
        if precision_mode != "int8":
            try:
                load_tensorrt()
            except PredictorError:
                backend = "cuda"
    if PROVIDERS[backend][0] not in providers:
        raise PredictorError(f"this build of ONNX Runtime ({installed_packages()}) has no {PROVIDERS[backend][0]}")
    return backend


def available_providers():
    if not is_importable("onnxruntime"):
        return []
    import onnxruntime

    return onnxruntime.get_available_providers()


def version_of(package):
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_packages():
    """What is installed of ONNX Runtime and Paddle, for a message."""
    names = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "paddlepaddle", "paddlepaddle-gpu",
             "paddlepaddle-xpu")  # fmt: skip
    found = [f"{name} {version_of(name)}" for name in names if version_of(name)]
    return ", ".join(found) or "neither ONNX Runtime nor Paddle"


def install():
    """How to install ONNX Runtime for GPUs: its packages share a folder, and overwrite each other there.

    Beside Paddle for GPUs it is an older one, for another CUDA.
    """
    requirements = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "requirements_gpu.txt")
    if not any(version_of(name) for name in ("onnxruntime", "onnxruntime-openvino", "paddlepaddle-gpu")):
        return f"pip install -r {requirements}"
    return (
        f"It needs an environment of its own: python -m venv .venv-infer-gpu; .venv-infer-gpu/bin/python -m pip "
        f"install -r {requirements}; then run this with .venv-infer-gpu/bin/python"
    )


FORKED = (
    "this process was forked from one that had used the GPU, and so cannot use it: start it with multiprocessing's "
    '"spawn", or open the model only after the fork'
)
_used_by = None  # the process id of this process, or of the one that it was forked from, once it has used the driver


def check_driver(device_id, backend="cuda"):
    """Asks NVIDIA's driver for a GPU, before files are made and libraries loaded.

    Raises:
        PredictorError: there is no driver, or no GPU, or the backend does not run on it, or this process was forked
            from one that has used it.
        UsageError: there is no GPU of this number.
    """
    global _used_by
    if _used_by not in (None, os.getpid()):
        raise PredictorError(FORKED)
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError as e:
        raise PredictorError(
            f"there is no NVIDIA driver here, and so no GPU to run on ({e}); infer_cpu.py runs on the processor"
        ) from None
    count = ctypes.c_int()
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code == 3:  # CUDA_ERROR_NOT_INITIALIZED: some other library had used it before the fork
        raise PredictorError(FORKED)
    if code:
        raise PredictorError(f"NVIDIA's driver is installed but finds no GPU that it can use (CUDA error {code})")
    _used_by = os.getpid()
    if device_id >= count.value:
        raise UsageError(f"--device_id {device_id}: there are {count.value} GPU(s) here, counted from 0")
    number, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    # 75 and 76: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
    if not (
        driver.cuDeviceGet(ctypes.byref(number), device_id)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, number)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, number)
    ):
        check_capability((major.value, minor.value), backend, version_of("nvidia-cudnn-cu12"))


def check_capability(capability, backend, cudnn):
    """Checks that a GPU is not too old for the libraries of a backend.

    Args:
        capability: the GPU's compute capability, such as (7, 5).
        cudnn: version of the installed package of cuDNN, or None: the system's is used, whose version is not known.

    Raises:
        PredictorError: it is; the message says what runs on it.
    """
    if capability >= (7, 5):  # Turing
        return
    is_new = cudnn is not None and tuple(map(int, cudnn.split(".")[:2])) >= (9, 11)
    if backend == "tensorrt" or is_new:
        needs = "TensorRT 10.9" if backend == "tensorrt" else f"cuDNN {cudnn}"
        raise PredictorError(
            f"--backend {backend}: this GPU has compute capability {capability[0]}.{capability[1]}, and {needs} needs "
            '7.5 (Turing) or newer; use --backend cuda after: pip install "nvidia-cudnn-cu12<9.11"'
        )


def too_new_or_old_for_paddle(capability, cuda):
    """Why Paddle 2.6 does not run on a GPU, or None if it does.

    Its packages hold compiled code for certain GPUs, and none that the driver could compile for others: for CUDA 11.8
    the architectures 6.1 to 8.6, which also run on 8.9; for CUDA 12.0 also 9.0 (PaddlePaddle/Paddle#54713).

    Args:
        capability: the GPU's compute capability, such as (9, 0).
        cuda: the version of CUDA that Paddle was built for, such as "11.8".
    """
    newest = (8, 9) if cuda.startswith("11.") else (9, 0)
    if (6, 1) <= capability <= newest:
        return None
    return (
        f"this GPU has compute capability {capability[0]}.{capability[1]}; this Paddle, built for CUDA {cuda}, runs on "
        f"6.1 to {newest[0]}.{newest[1]}"
    )


def load_tensorrt():
    """Loads TensorRT's libraries from its pip package, or else from where the system looks.

    ONNX Runtime finds them when they are loaded, but does not look into that package.

    Raises:
        PredictorError: they are not installed.
    """
    windows = sys.platform == "win32"
    names = ("nvinfer_10.dll", "nvonnxparser_10.dll") if windows else ("libnvinfer.so.10", "libnvonnxparser.so.10")
    spec = importlib.util.find_spec("tensorrt_libs")
    folder = spec.submodule_search_locations[0] if spec else ""
    for name in names:
        path = os.path.join(folder, name)
        try:
            ctypes.CDLL(path if os.path.exists(path) else name, mode=ctypes.RTLD_GLOBAL)
        except OSError as e:
            raise PredictorError(
                f"--backend tensorrt needs TensorRT 10 ({e}): {INSTALL_TENSORRT}; or take --backend cuda, which runs "
                "fp32 and fp16"
            ) from None
    # TensorRT itself looks for this one when it builds an engine, but not in that package either.
    for path in glob.glob(os.path.join(glob.escape(folder), "*nvinfer_builder_resource*")) if folder else ():
        with contextlib.suppress(OSError):
            ctypes.CDLL(path)


def provider_options(backend, device_id, precision_mode, batch_size, lengths, engines):
    """ONNX Runtime's options for each of `PROVIDERS[backend]`.

    Args:
        lengths: tokens of a text, (usual, longest).
        engines: folder for TensorRT's engines, or None.

    Returns:
        A list of {option: value}, both str; TensorRT's provider takes "True" and CUDA's "1" for yes, not the other's.
    """
    cuda = {
        "device_id": str(device_id),
        "use_tf32": "0",
        # Where ONNX Runtime fuses a layer normalization with the sum before it, that node sums squares in float16 if it
        # is not told otherwise (microsoft/onnxruntime#29034).
        "enable_skip_layer_norm_strict_mode": "1",
    }
    if backend == "cuda":
        return [cuda]

    def profile(batch, length):
        return ",".join(f"{name}:{batch}x{length}" for name in ("input_ids", "token_type_ids"))

    tensorrt = {
        "device_id": str(device_id),
        # INT8 too: what is not quantized would otherwise run in float32. Layer normalization is one node here, which
        # TensorRT sums in float32, so trt_layer_norm_fp32_fallback (for squares and means of their own) is not needed.
        "trt_fp16_enable": str(precision_mode != "fp32"),
        "trt_int8_enable": str(precision_mode == "int8"),
        # One engine for all shapes; without these, it is built anew for each batch that is larger than those before.
        "trt_profile_min_shapes": profile(1, 1),
        "trt_profile_opt_shapes": profile(batch_size, lengths[0]),
        "trt_profile_max_shapes": profile(batch_size, lengths[1]),
    }
    if engines is not None:
        tensorrt |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": engines,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": engines,
        }
    return [tensorrt, cuda]


def open_session(path, backend, options, num_threads=1):
    """Opens an ONNX file on a GPU.

    `session.disable_cpu_ep_fallback` is of no use here: it also forbids the few nodes that compute shapes, which CUDA's
    provider itself puts on the processor.

    Args:
        options: of `provider_options`.

    Raises:
        PredictorError: a library or the GPU is missing; ONNX Runtime alone would silently take the CPU.
    """
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        # From the packages nvidia-*. What it does not find it prints; the system may have it.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3  # errors
    session_options.intra_op_num_threads = num_threads
    providers = PROVIDERS[backend]
    try:
        # Without fallback: it would start, or while it runs start anew, on the CPU, and print that.
        session = onnxruntime.InferenceSession(
            str(path), session_options, providers=providers, provider_options=options, enable_fallback=0
        )
    except Exception as e:
        # Its message begins with long names of C++.
        known = r"\w+ failure \d+:[^;]*|(Please install |Invalid )?(?<!\w)TensorRT\b.*|Unknown provider option.*"
        reason = re.search(known, str(e))
        if reason is None:
            raise
        raise PredictorError(f"--backend {backend} can't start: {' '.join(reason[0].split())[:300]}") from e
    for provider in providers:
        if provider not in session.get_providers():
            raise PredictorError(
                f"--backend {backend}: ONNX Runtime can't start {provider} ({missing_library(provider)}); "
                f"{needed_libraries()}"
            )
    return session


def needed_libraries():
    """Which CUDA the installed ONNX Runtime was built for, and how to get it."""
    import onnxruntime

    try:
        from onnxruntime.capi.build_and_package_info import cuda_version
    except ImportError:  # the CPU's package, and older ones, do not say
        cuda_version = None
    cuda = cuda_version or "12"
    cudnn = 8 if cuda.startswith("11.") else 9
    return f"ONNX Runtime {onnxruntime.__version__} needs CUDA {cuda} and cuDNN {cudnn}: {install()}"


def missing_library(provider):
    """Why a provider's library does not load, in the system's words."""
    import onnxruntime

    name = "onnxruntime_providers_" + {"CUDAExecutionProvider": "cuda"}.get(provider, "tensorrt")
    name = f"{name}.dll" if sys.platform == "win32" else f"lib{name}.so"
    try:
        ctypes.CDLL(os.path.join(os.path.dirname(onnxruntime.__file__), "capi", name))
    except OSError as e:
        return str(e)
    return "no reason given"


def open_paddle(model_dir, device, device_id, precision_mode):
    """Opens a folder's model.pdmodel in Paddle Inference.

    Raises:
        PredictorError: Paddle is not built for the device, or does not see it.
        UsageError: Paddle Inference does not offer the precision there.
    """
    if precision_mode == "int8":
        raise UsageError("--backend paddle runs INT8 on the CPU alone: take --device gpu --backend tensorrt")
    if precision_mode == "fp16" and device == "xpu":
        raise UsageError("--precision_mode fp16: Paddle Inference has none for --device xpu")
    if importlib.util.find_spec("paddle") is None:
        raise PredictorError(f"--device {device} --backend paddle needs the package {PADDLE_PACKAGES[device]}")
    # Paddle 2.6 brings a zlib of its own, which crashes whatever first loads Python's after it
    # (PaddlePaddle/Paddle#70538).
    import zlib  # noqa: F401  isort: skip
    import paddle

    # Paddle itself only logs that it was not built for a GPU, and runs on the CPU.
    built = {
        "gpu": paddle.is_compiled_with_cuda,
        "xpu": paddle.is_compiled_with_xpu,
        "npu": lambda: "npu" in paddle.device.get_all_custom_device_type(),
    }[device]
    if not built():
        raise PredictorError(
            f"--device {device} --backend paddle needs the package {PADDLE_PACKAGES[device]}; installed here: "
            f"{installed_packages()}, which has no {device}"
        )
    if device == "gpu":
        if device_id >= paddle.device.cuda.device_count():
            raise UsageError(f"--device_id {device_id}: Paddle sees {paddle.device.cuda.device_count()} GPU(s) here")
        reason = too_new_or_old_for_paddle(paddle.device.cuda.get_device_capability(device_id), paddle.version.cuda())
        if reason:
            raise PredictorError(f"--backend paddle: {reason}; use --backend cuda")

    def use_device(config, inference):
        precision = inference.PrecisionType.Half if precision_mode == "fp16" else inference.PrecisionType.Float32
        if device == "gpu":
            config.enable_use_gpu(256, device_id, precision)  # MB at first; it takes more as it needs them
        elif device == "xpu":
            config.enable_xpu()
            config.set_xpu_device_id(device_id)
        else:
            config.enable_custom_device(device, device_id, precision)

    return PaddleModel(model_dir, precision_mode, use_device)
