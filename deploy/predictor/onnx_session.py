"""ONNX Runtime sessions: which engines are installed, how each is opened, and what they run on."""

import importlib.metadata
import json
import platform
import re

import onnxruntime

# Fastest first. The name that users know, and ONNX Runtime's execution provider.
CPU_ENGINES = {"openvino": "OpenVINOExecutionProvider", "onnxruntime": "CPUExecutionProvider"}


def installed_engines():
    """The engines of `CPU_ENGINES` that the installed ONNX Runtime has, fastest first."""
    available = onnxruntime.get_available_providers()
    return [name for name, provider in CPU_ENGINES.items() if provider in available]


def open_session(onnx_file, engine, num_threads, bf16=False):
    """Opens an ONNX file.

    Args:
        engine: "openvino" or "onnxruntime" (its default CPU execution provider).
        num_threads: threads for one call; as many as there are cores is the fastest.
        bf16: compute the products of an FP32 model in bfloat16; OpenVINO's provider alone does that.

    Raises:
        RuntimeError: the engine is not installed or does not start; ONNX Runtime alone would silently take another.
    """
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
    session = onnxruntime.InferenceSession(
        str(onnx_file), options, providers=[provider], provider_options=[provider_options]
    )
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime {onnxruntime.__version__} can't start {provider} for {onnx_file}")
    return session


def has_bf16():
    """Whether the processor has instructions for bfloat16; True where that can't be told."""
    try:
        with open("/proc/cpuinfo") as f:
            return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", f.read()) is not None
    except OSError:
        return True


def processor():
    """The processor's name."""
    try:
        with open("/proc/cpuinfo") as f:
            return re.search(r"model name\s*: (.*)", f.read())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def onnxruntime_version():
    for name in ("onnxruntime-openvino", "onnxruntime", "onnxruntime-gpu"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "onnxruntime"
