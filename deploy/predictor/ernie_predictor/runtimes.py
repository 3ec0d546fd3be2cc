"""What runs a model: a batch of arrays goes in, the model's outputs come out. Nothing here knows of texts.

A model is called with {"input_ids", "token_type_ids"}, int64 [batch, length] each, and returns a list of float32
arrays that begin with [batch, ...].
"""

import importlib.metadata
import importlib.util
import json
import os

import numpy as np

from .errors import PredictorError

# Fastest first. The name that users know, and ONNX Runtime's execution provider.
CPU_ENGINES = {"openvino": "OpenVINOExecutionProvider", "onnxruntime": "CPUExecutionProvider"}


def installed_engines():
    """The engines of `CPU_ENGINES` that the installed ONNX Runtime has, fastest first."""
    if not importlib.util.find_spec("onnxruntime"):
        return []
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return [name for name, provider in CPU_ENGINES.items() if provider in available]


def open_onnx(onnx_file, engine, num_threads, bf16=False):
    """Opens an ONNX file on the CPU.

    Args:
        engine: "openvino" or "onnxruntime" (its default CPU execution provider).
        num_threads: threads for one call; as many as there are cores is the fastest.
        bf16: compute the products of an FP32 model in bfloat16; OpenVINO's provider alone does that.

    Returns:
        A model; see the top of this file.

    Raises:
        PredictorError: the file cannot be loaded.
    """
    import onnxruntime

    provider = CPU_ENGINES[engine]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    provider_options = {}
    if engine == "openvino":
        # OpenVINO fuses for itself, and better where ONNX Runtime has not fused before.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        provider_options = {"device_type": "CPU", "num_of_threads": str(num_threads)}
        if bf16:
            provider_options["load_config"] = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}})
    else:
        options.intra_op_num_threads = num_threads
        # Without VNNI instructions its products of uint8 and int8 are summed in 16 bits, in pairs, and overflow: a
        # pruned INT8 model's logits moved by 0.8 of 10. This lets such processors take a kernel that does not.
        options.add_session_config_entry("session.x64quantprecision", "1")

    def open_session(path):
        session = onnxruntime.InferenceSession(path, options, providers=[provider], provider_options=[provider_options])
        if session.get_providers()[0] != provider:  # ONNX Runtime would silently take another
            raise RuntimeError(f"ONNX Runtime {onnxruntime.__version__} cannot start {provider}")
        return session

    return OnnxModel(onnx_file, engine, open_session)


def onnxruntime_version():
    for name in ("onnxruntime-openvino", "onnxruntime", "onnxruntime-gpu"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "onnxruntime"


class OnnxModel:
    """An ONNX file in ONNX Runtime.

    Args:
        backend: what runs it, for those who ask.
        open_session: a function of the path; returns an `onnxruntime.InferenceSession`.

    Attributes:
        widths: the last dimension of each output: classes, tags, or None where it is the length.
    """

    def __init__(self, path, backend, open_session):
        self.path, self.backend = str(path), backend
        try:
            self.session = open_session(self.path)
        except PredictorError:
            raise
        except Exception as e:
            raise PredictorError(cannot_load(path, e)) from e
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
    """A static Paddle model in Paddle Inference: `model.pdmodel`, or `int8.pdmodel`.

    Args:
        use_device: a function of a `paddle.inference.Config` and of the module `paddle.inference`, which tells the
            first what to run on.
    """

    backend = "paddle"

    def __init__(self, model_dir, precision_mode, use_device):
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
        config.enable_memory_optim()
        use_device(config, inference)
        try:
            self.predictor = inference.create_predictor(config)
        except Exception as e:
            raise PredictorError(cannot_load(self.path, e)) from e
        self.widths = [None] * len(self.predictor.get_output_names())

    def __call__(self, batch):
        """As `OnnxModel.__call__`."""
        for name in self.predictor.get_input_names():
            self.predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(batch[name]))
        self.predictor.run()
        return [self.predictor.get_output_handle(name).copy_to_cpu() for name in self.predictor.get_output_names()]


def cannot_load(path, error):
    """The message for a model file that a runtime refuses."""
    reason = " ".join(str(error).split())
    return f"{path} cannot be loaded; is the file complete? ({reason[:200]})"
