"""What runs a model: a batch of arrays goes in, the model's outputs come out. Nothing here knows of texts.

A model is called with {"input_ids", "token_type_ids"}, int64 [batch, length] each, and returns a list of float32
arrays that begin with [batch, ...]. Several threads may call one model at once. After a fork, the child's first call
opens the model anew; on a GPU, which no forked child can use, it raises PredictorError.
"""

import collections
import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import threading
import weakref

import numpy as np

from .errors import PredictorError, cannot_load, one_line
from .machine import has_vnni
from .onnx_files import pairs_fit, quantized_form

ENGINE_NAMES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}  # of those that run an ONNX file on the CPU


def installed_engines():
    """The engines of `ENGINE_NAMES` that are installed."""
    return [name for name in ENGINE_NAMES if is_importable(name)]


def fastest_engine(onnx_file, engines=None):
    """Which engine, of those that are installed, computes a file fastest on this processor; None where there is none.

    OpenVINO does, except INT8 where only ONNX Runtime has fast kernels for it: products that are quantized while they
    run, and all of them on a processor without VNNI (benchmarks/README.md has the figures).
    """
    form = quantized_form(onnx_file)
    if form == "dynamic" or (form == "static" and not has_vnni()):
        order = ("onnxruntime", "openvino")
    else:
        order = ("openvino", "onnxruntime")
    engines = installed_engines() if engines is None else engines
    return next((name for name in order if name in engines), None)


def is_importable(module):
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None  # a mere folder of that name has no origin


def engine_versions():
    """The installed engines and their versions: "OpenVINO 2026.4.1, ONNX Runtime 1.23.2"."""
    found = []
    packages = {"openvino": ["openvino"], "onnxruntime": ["onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"]}
    for engine, name in ENGINE_NAMES.items():
        for package in packages[engine]:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                # OpenVINO's package adds the number of its build.
                found.append(f"{name} {importlib.metadata.version(package).split('-')[0]}")
                break
    return ", ".join(found)


def open_onnx(path, engine, num_threads, bf16=False, blob=None):
    """Opens an ONNX file on the CPU.

    Args:
        engine: one of `ENGINE_NAMES`.
        num_threads: threads for one call; the number of cores is the fastest.
        bf16: compute the products of an FP32 model in bfloat16; OpenVINO only.
        blob: for OpenVINO, a `derived_models.Derived` that keeps the compiled model; None: it is compiled each time.

    Returns:
        A model; see the top of this file.

    Raises:
        PredictorError: the file cannot be loaded.
    """
    if engine == "openvino":
        return OpenVinoModel(path, num_threads, bf16, blob)

    def open_session(path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = num_threads
        # Without VNNI its products of uint8 and int8 saturate: a pruned INT8 model's logits moved by 0.8 of 10. For
        # files whose weights do not rule that out, this lets such processors take a kernel that does not; it takes 1.4
        # times as long.
        could_saturate = quantized_form(path) is not None and not pairs_fit(path)
        options.add_session_config_entry("session.x64quantprecision", "1" if could_saturate else "0")
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    return OnnxModel(path, engine, open_session)


# ------------------------------------------------------------------------------------------------ forks and errors

_models: weakref.WeakSet = weakref.WeakSet()


class Model:
    """What the models share: what a runtime opened, opened anew in a forked child, and one kind of error.

    Attributes:
        path: of the file that it was opened from.
        backend: what runs it.
        widths: the last dimension of each output: classes, tags, or None where it is the length, or not known.
        precision_mode: as `open_folder` was asked, or found.
        computes_in: the precision of its products: "fp32" for an INT8 model where INT8 is not exact; None: the model's.
        instructions: of the processor that it is computed with, as far as `open_folder` knows.

    A child has none of its parent's threads. ONNX Runtime then crashes, and OpenVINO waits forever, when Python ends
    or deletes what the parent opened. So the child never deletes it.
    """

    backend: str
    widths: list[int | None]
    precision_mode: str
    computes_in: str | None = None
    instructions: str | None = None

    def __str__(self):
        """What computes it: "int8 with onnxruntime, AVX2"."""
        precision = self.precision_mode + (f" (computed in {self.computes_in})" if self.computes_in else "")
        return f"{precision} with {self.backend}" + (f", {self.instructions}" if self.instructions else "")

    def __init__(self, path):
        self.path = str(path)
        self._lock = threading.Lock()
        self._runtime = self._load()
        _models.add(self)

    @property
    def runtime(self):
        if self._runtime is None:
            with self._lock:
                if self._runtime is None:
                    self._runtime = self._load()
        return self._runtime

    def _load(self):
        try:
            return self.open()
        except PredictorError:
            raise
        except Exception as e:
            raise PredictorError(cannot_load(self.path, e)) from e

    def _leave_to_parent(self):
        if self._runtime is not None:
            _keep(self._runtime)
        self._runtime, self._lock = None, threading.Lock()

    def open(self):
        """What the runtime runs."""
        raise NotImplementedError

    def run(self, batch):
        raise NotImplementedError

    def __call__(self, batch):
        """Runs a batch.

        Args:
            batch: {"input_ids", "token_type_ids"}: int64 [batch, length].

        Returns:
            The model's outputs, float32 arrays that begin with [batch, ...].

        Raises:
            PredictorError: the runtime failed; the message names the model's file.
        """
        try:
            return self.run(batch)
        except PredictorError:
            raise
        except Exception as e:
            shape = "x".join(map(str, np.shape(batch["input_ids"])))
            raise PredictorError(f"{self.path} failed on a batch of {shape} tokens: {one_line(e)}") from e


def _keep(value):
    """Lets Python never delete a value, not even when it ends."""
    if hasattr(ctypes, "pythonapi"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _after_fork():
    for model in list(_models):
        model._leave_to_parent()
        PaddleModel.parent_ran |= isinstance(model, PaddleModel)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _check_inputs(path, names):
    if set(names) != {"input_ids", "token_type_ids"}:
        raise PredictorError(f"{path} takes {', '.join(names)}; expected a model of input_ids and token_type_ids")


# ---------------------------------------------------------------------------------------------------- the runtimes


class OnnxModel(Model):
    """An ONNX file in ONNX Runtime.

    Args:
        backend: what runs it, for those who ask.
        open_session: a function of the path; returns an `onnxruntime.InferenceSession`.
    """

    def __init__(self, path, backend, open_session):
        self.backend, self._open_session = backend, open_session
        super().__init__(path)
        types = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
        inputs = self.session.get_inputs()
        _check_inputs(path, [value.name for value in inputs])
        self._types = {value.name: types[value.type] for value in inputs}
        shapes = [value.shape for value in self.session.get_outputs()]
        self.widths = [shape[-1] if shape and isinstance(shape[-1], int) else None for shape in shapes]

    def open(self):
        return self._open_session(self.path)

    @property
    def session(self):
        return self.runtime

    def run(self, batch):
        return self.session.run(
            None, {name: batch[name].astype(dtype, copy=False) for name, dtype in self._types.items()}
        )


class OpenVinoModel(Model):
    """An ONNX file in OpenVINO, on the CPU.

    Args:
        blob: a `derived_models.Derived` for the compiled model, which opens several times faster; or None.

    Attributes:
        from_blob: whether it was opened from the compiled model.
    """

    backend = "openvino"

    def __init__(self, path, num_threads, bf16=False, blob=None):
        self._blob = blob
        self._config = {
            # By default, it computes an FP32 model in bfloat16 if the processor can.
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": num_threads,
            # Pinned threads of several processes share the same cores, while others are idle: two processes with a
            # thread each took twice the time (115 ms against 56 ms a batch of 32 texts, OpenVINO 2026.4, two cores).
            "ENABLE_CPU_PINNING": False,
            # It keeps the kernels of every shape (texts x length) that has run, up to this number of them: about 140
            # shapes. With its default of 5000, each further shape of ERNIE 3.0-Medium in INT8 took 2.4 MB more.
            "CPU_RUNTIME_CACHE_CAPACITY": 1000,
        }
        if not has_vnni() and quantized_form(path) is not None:
            # There its INT8 products saturate: 61 of 1,398 headlines got another label, and those of attention do so
            # whatever the weights are. This computes the same file in float32, which takes no longer.
            self._config["LP_TRANSFORMS_MODE"] = False
            self.computes_in = "fp32"
        super().__init__(path)
        compiled = self.runtime.compiled
        _check_inputs(path, [value.any_name for value in compiled.inputs])
        self._types = {value.any_name: value.element_type.to_dtype() for value in compiled.inputs}
        shapes = [value.partial_shape for value in compiled.outputs]
        self.widths = [shape[-1].get_length() if len(shape) and shape[-1].is_static else None for shape in shapes]

    def open(self):
        import openvino

        core = _openvino_core(os.getpid())
        self.from_blob = False
        if self._blob is not None:
            path = self._blob.find()
            # What cannot be imported (damaged, or not of this OpenVINO after all) is made anew.
            with contextlib.suppress(Exception):
                if path is not None:
                    # Mapped into memory, so that several processes share it. OpenVINO reads on from there for as long
                    # as the model is open, and does not itself keep the array.
                    content = np.memmap(path, np.uint8, "c")
                    tensor = openvino.Tensor(np.asarray(content), shared_memory=True)
                    compiled = core.import_model(tensor, "CPU", self._config)
                    self.from_blob = True
                    return _Compiled(compiled, (core, content, tensor))
        compiled = core.compile_model(self.path, "CPU", self._config)
        if self._blob is not None:

            def write(target):
                with open(target, "wb") as f:
                    f.write(compiled.export_model().getbuffer())

            # No place to write to, a full disk, no memory: the model is compiled at the next start, too.
            with contextlib.suppress(PredictorError):
                self._blob.make(write)
        return _Compiled(compiled, core)

    def run(self, batch):
        runtime = self.runtime
        inputs = {
            name: np.ascontiguousarray(batch[name].astype(dtype, copy=False)) for name, dtype in self._types.items()
        }
        # A request serves one caller at a time. There are as many as there were calls at once.
        try:
            request = runtime.requests.pop()
        except IndexError:
            request = runtime.compiled.create_infer_request()
        try:
            results = request.infer(inputs, share_inputs=True, share_outputs=False)
            return [np.array(results[output]) for output in runtime.compiled.outputs]
        finally:
            runtime.requests.append(request)


@functools.cache
def _openvino_core(process):
    """OpenVINO's runtime, one for all models of a process, and never deleted.

    On processors with AMX each has signal handlers of the thread run on a stack of its own, and frees that when it is
    deleted: with two of them, the first deleted first, the next signal that has a handler (SIGTERM, SIGCHLD) ended the
    process with SIGSEGV (OpenVINO 2026.4, SigAltStackSetup of openvinotoolkit/openvino#11894).

    Args:
        process: its id; a forked child has a runtime of its own.
    """
    import openvino

    # oneDNN, inside OpenVINO, keeps 1024 kernels of its own beside those that a model's configuration limits.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")
    core = openvino.Core()
    _keep(core)
    return core


class _Compiled:
    """A compiled model, its free infer requests, and what must live as long as it does."""

    def __init__(self, compiled, kept):
        self.compiled, self.kept, self.requests = compiled, kept, collections.deque()


class PaddleModel(Model):
    """A static Paddle model in Paddle Inference: `model.pdmodel`, or `int8.pdmodel`.

    Args:
        use_device: a function of a `paddle.inference.Config` and of the module `paddle.inference`, which tells the
            first what to run on.
    """

    backend = "paddle"
    parent_ran = False  # whether this process was forked from one that had Paddle run, whose threads it waits for

    def __init__(self, model_dir, precision_mode, use_device):
        prefix = os.path.join(model_dir, "int8" if precision_mode == "int8" else "model")
        self._weights, self._use_device = prefix + ".pdiparams", use_device
        for path in (prefix + ".pdmodel", self._weights):
            if not os.path.isfile(path):
                writer = "compress_*.py writes" if precision_mode == "int8" else "run_*.py --do_export writes"
                raise PredictorError(
                    f"{model_dir} has no {os.path.basename(path)}, which --backend paddle takes; {writer} it"
                )
        super().__init__(prefix + ".pdmodel")
        self.widths = [None] * len(self.runtime.predictor.get_output_names())

    def open(self):
        if PaddleModel.parent_ran:
            raise PredictorError(
                "Paddle does not run in a process that was forked after it ran: open the predictor after the fork, "
                "start processes by spawn, or take --backend onnxruntime or openvino"
            )
        # Paddle 2.6 brings a zlib of its own, which crashes whatever first loads Python's after it
        # (PaddlePaddle/Paddle#70538).
        import zlib  # noqa: F401  isort: skip
        from paddle import inference

        config = inference.Config(self.path, self._weights)
        config.disable_glog_info()
        config.enable_memory_optim()
        self._use_device(config, inference)
        return _PaddlePredictor(inference.create_predictor(config))

    def run(self, batch):
        runtime = self.runtime
        predictor = runtime.predictor
        with runtime.lock:
            for name in predictor.get_input_names():
                predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(batch[name]))
            predictor.run()
            return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]


class _PaddlePredictor:
    """A predictor of Paddle Inference, whose inputs and outputs are its own: one call at a time."""

    def __init__(self, predictor):
        self.predictor, self.lock = predictor, threading.Lock()
