"""The predictor on GPUs; without one, as far as that goes.

The files that a GPU would run are made and run on the CPU; what ONNX Runtime is told is checked against its own library
where it is installed; and without a GPU each way to ask for one ends with a message, never on the CPU. Where there is a
GPU, its predictions are compared with the CPU's.
"""

import ast
import fcntl
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import PREDICTOR, ROOT, assert_same
from ernie_predictor import ErniePredictor, PredictorError, UsageError, gpu, gpu_models
from ernie_predictor.derived_models import derived_folder, quantize
from ernie_predictor.errors import CacheError
from ernie_predictor.int8 import quantize_onnx
from ernie_predictor.runtimes import open_onnx
from onnx import numpy_helper
from packaging.requirements import Requirement

TASKS = ["tnews", "msra_ner", "cmrc2018"]
HAS_CUDA = "CUDAExecutionProvider" in gpu.available_providers()
# Not where Paddle for GPUs is, whose CUDA needs an older one.
fuses = pytest.mark.skipif(not gpu_models.fuses_layer_norms(), reason="ONNX Runtime is older than 1.20")


def on_cpu(path):
    return open_onnx(path, "onnxruntime", 2)


def logits(predictor, inputs):
    features, _ = predictor.task.tokenize([predictor.task.check(item) for item in inputs])
    return np.concatenate([np.ravel(array) for outputs in predictor.run(features) for array in outputs])


def predictor_of(folder, path):
    """A predictor on the CPU that runs another file."""
    predictor = ErniePredictor(folder, backend="onnxruntime", precision_mode="fp32")
    predictor.model = on_cpu(path)
    return predictor


def op_types(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def assert_nearly_all_same(found, expected):
    """Predictions in lower precision. The models have learnt nothing, so there are ties, where either answer is right:
    at most one in fifty.
    """
    differ = []
    for answer, other in zip(found, expected, strict=True):
        if isinstance(other, dict) and "answer" in other:
            answer, other = answer["answer"], other["answer"]
        try:
            assert_same(answer, other, tolerance=0.01)
        except AssertionError:
            differ.append((answer, other))
    assert len(differ) <= 0.02 * len(expected), differ


@pytest.fixture(scope="module")
def prepared(exported, tmp_path_factory):
    """A function of (data set, precision): the file that TensorRT would run for its model."""

    def make(dataset, precision_mode):
        if precision_mode != "fp32" and not gpu_models.fuses_layer_norms():
            pytest.skip(fuses.kwargs["reason"])
        folder, inputs, _ = exported(dataset)
        path, cache = str(folder / "model.onnx"), str(tmp_path_factory.mktemp("prepared"))
        if precision_mode == "int8":
            task = ErniePredictor(folder, backend="onnxruntime").task
            features = task.tokenize([task.check(item) for item in inputs[:16]])[0][:16]
            path = quantize(path, cache, [task.tokenizer.pad(features)])
        return gpu_models.prepare(path, "tensorrt", precision_mode, cache)

    return functools.cache(make)


# ------------------------------------------------------------------------------------------- the files


@fuses
@pytest.mark.parametrize("dataset", TASKS)
def test_float16_answers_as_float32(dataset, exported, tmp_path):
    folder, inputs, expected = exported(dataset)
    path = gpu_models.prepare(str(folder / "model.onnx"), "tensorrt", "fp16", str(tmp_path))
    written = os.stat(path).st_mtime_ns
    assert gpu_models.prepare(str(folder / "model.onnx"), "cuda", "fp16", str(tmp_path)) == path  # one for both, once
    assert os.stat(path).st_mtime_ns == written and list(map(str, tmp_path.glob("*/*"))) == [path]
    assert os.path.getsize(path) < 0.55 * (folder / "model.onnx").stat().st_size

    float32, float16 = ErniePredictor(folder, backend="onnxruntime"), predictor_of(folder, path)
    types = [value.type for value in float16.model.session.get_inputs() + float16.model.session.get_outputs()]
    assert types == ["tensor(int64)"] * 2 + ["tensor(float)"] * len(float32.model.widths)
    a, b = logits(float32, inputs[:50]), logits(float16, inputs[:50])
    assert 0 < np.abs(a - b).max() < 0.005 * max(np.abs(a).max(), 1)
    assert_nearly_all_same(float16.predict(inputs), expected)


@fuses
def test_what_loses_accuracy_is_in_float32(exported, tmp_path):
    """Layer normalization: one node, whose sums the standard asks for in float32 (stash_type 1)."""
    folder, _, _ = exported("tnews")
    model = onnx.load(gpu_models.prepare(str(folder / "model.onnx"), "cuda", "fp16", str(tmp_path)))
    onnx.checker.check_model(model, full_check=True)
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert len(norms) == 2 * 2 + 1  # two layers, and the embeddings
    for node in norms:
        assert {a.name: a.i for a in node.attribute if a.type == onnx.AttributeProto.INT}["stash_type"] == 1
    assert not {"Pow", "ReduceMean", "Sqrt"} & {node.op_type for node in model.graph.node}
    assert {node.domain for node in model.graph.node} == {""}  # nothing that ONNX Runtime alone knows
    large = [t for t in model.graph.initializer if np.prod(t.dims) > 1000]
    assert {t.data_type for t in large} == {onnx.TensorProto.FLOAT16}


@fuses
def test_layer_norms_of_another_form_are_refused(exported, tmp_path):
    folder, _, _ = exported("tnews")
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            node.op_type = "ReduceSum"
            node.input.append("axes")
            del node.attribute[:]
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "axes"))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(PredictorError, match="layer normalizations of no known form"):
        gpu_models.prepare(str(tmp_path / "model.onnx"), "cuda", "fp16", str(tmp_path / "cache"))
    assert os.listdir(tmp_path / "cache") == []


def test_tensorrt_is_spared_what_it_does_not_know(exported, tmp_path):
    """Positions are the same without CumSum, at every shape; CUDA runs the file as it is."""
    folder, _, _ = exported("tnews")
    source = str(folder / "model.onnx")
    assert gpu_models.prepare(source, "cuda", "fp32", str(tmp_path)) == source
    path = gpu_models.prepare(source, "tensorrt", "fp32", str(tmp_path))
    assert {"CumSum", "ConstantOfShape"} <= op_types(source) and not {"CumSum", "ConstantOfShape"} & op_types(path)
    before, after = on_cpu(source), on_cpu(path)
    for shape in ((1, 1), (1, 2), (3, 17), (2, 128)):
        batch = {name: np.ones(shape, np.int64) for name in ("input_ids", "token_type_ids")}
        batch["input_ids"] += np.arange(shape[1])
        batch["token_type_ids"][:, : shape[1] // 2] = 0
        for a, b in zip(before(batch), after(batch)):
            np.testing.assert_allclose(a, b, atol=1e-5)


@fuses
@pytest.mark.parametrize("precision_mode", ["fp32", "fp16"])
def test_int8_tables_are_floats_on_a_gpu(precision_mode, exported, tmp_path):
    """The folders of --strategy embeddings."""
    folder, inputs, _ = exported("tnews")
    quantize_onnx(str(folder / "model.onnx"), str(tmp_path / "model.onnx"), None, quantize_tables=True)
    assert "DequantizeLinear" in op_types(tmp_path / "model.onnx")
    path = gpu_models.prepare(str(tmp_path / "model.onnx"), "cuda", precision_mode, str(tmp_path))
    assert "DequantizeLinear" not in op_types(path)
    a, b = (logits(predictor_of(folder, p), inputs[:50]) for p in (tmp_path / "model.onnx", path))
    assert np.abs(a - b).max() < (1e-5 if precision_mode == "fp32" else 0.005)


@fuses
def test_int8_is_symmetric_for_tensorrt(exported, quantized, tmp_path):
    folder, inputs, _ = exported("tnews")
    path = gpu_models.prepare(str(quantized / "model.onnx"), "tensorrt", "int8", str(tmp_path))
    model = onnx.load(path)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    zero_points = [
        tensors[node.input[2]] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]
    assert len(zero_points) > 40 and all(zero.dtype == np.int8 and not zero.any() for zero in zero_points)
    float32, original, symmetric = (
        logits(predictor_of(folder, p), inputs) for p in (folder / "model.onnx", quantized / "model.onnx", path)
    )
    lost = np.abs(original - float32)
    assert np.abs(symmetric - original).mean() < 0.5 * lost.mean()
    assert np.abs(symmetric - float32).max() < 1.5 * lost.max()


@pytest.mark.parametrize("dataset", TASKS)
def test_float16_holds_every_number(dataset, prepared, exported):
    """No tensor comes near 65504, the largest number of float16: the mask of padding, -10000, is the largest."""
    model = onnx.shape_inference.infer_shapes(onnx.load(prepared(dataset, "fp16")))
    halves = [v for v in model.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16]
    assert len(halves) > 40
    model.graph.output.extend(halves)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folder, inputs, _ = exported(dataset)
    task = ErniePredictor(folder, backend="onnxruntime").task
    batch = task.tokenizer.pad(task.tokenize([task.check(item) for item in inputs[:8]])[0][:8])
    found = session.run([value.name for value in halves], dict(batch))
    largest = {value.name: np.abs(array.astype(np.float32)).max(initial=0) for value, array in zip(halves, found)}
    assert max(largest.values()) < 20000, sorted(largest.items(), key=lambda item: -item[1])[:5]


RAY_PYTHON = Path(os.environ.get("RAY_PYTHON", ROOT / ".venv-ray" / "bin" / "python"))
PREPARE = """
import importlib.metadata, json, sys
from ernie_predictor import gpu_models
packages = ("numpy", "onnx", "onnxruntime", "protobuf")
paths = [gpu_models.prepare(path, "tensorrt", precision, sys.argv[1]) for path, precision in json.loads(sys.argv[2])]
print(json.dumps([{name: importlib.metadata.version(name) for name in packages}, paths]))
"""


@fuses
def test_the_locked_packages_make_the_same_files(quantized, exported, tmp_path):
    """Those of requirements_gpu.lock.txt. Ray's environment has the same, but for ONNX Runtime's package, the CPU's."""
    if not RAY_PYTHON.exists() or not list(RAY_PYTHON.parent.parent.glob("ready-*")):
        pytest.skip(f"there is no environment for Ray at {RAY_PYTHON.parent.parent}; `make ray` says why")
    sources = [str(exported("tnews")[0] / "model.onnx")] * 2 + [str(quantized / "model.onnx")]
    precisions = ("fp32", "fp16", "int8")
    command = [str(RAY_PYTHON), "-c", PREPARE, str(tmp_path), json.dumps(list(zip(sources, precisions)))]
    done = subprocess.run(command, cwd=PREDICTOR, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    versions, paths = json.loads(done.stdout)
    lock = (PREDICTOR / "requirements_gpu.lock.txt").read_text(encoding="utf-8")
    for name, version in versions.items():
        assert re.search(rf"^{name}(-gpu)?=={re.escape(version)} ", lock, re.MULTILINE), (name, version)
    batch = {name: np.arange(2, 34, dtype=np.int64).reshape(2, 16) for name in ("input_ids", "token_type_ids")}
    batch["token_type_ids"] %= 2
    for path, source, precision in zip(paths, sources, precisions):
        other = gpu_models.prepare(source, "tensorrt", precision, str(tmp_path / "others"))
        assert op_types(path) == op_types(other)
        for found, expected in zip(on_cpu(path)(batch), on_cpu(other)(batch), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-4)


# Of what onnx-tensorrt's docs/operators.md lists, what the models have, and have in a type that it lists.
TENSORRT_OPERATORS = {"Add", "Cast", "Concat", "DequantizeLinear", "Div", "Equal", "Erf", "Gather", "Gemm", "Identity",
                      "LayerNormalization", "MatMul", "Mul", "QuantizeLinear", "Reshape", "Shape", "Slice", "Softmax",
                      "Split", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"}  # fmt: skip


@fuses
@pytest.mark.parametrize("precision_mode", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("dataset", TASKS)
def test_tensorrt_takes_every_node(dataset, precision_mode, prepared):
    """One that it does not take cuts the graph in two; and INT8 needs both inputs of a product quantized, around 0."""
    graph = onnx.load(prepared(dataset, precision_mode)).graph
    assert {node.op_type for node in graph.node} <= TENSORRT_OPERATORS
    if precision_mode != "int8":
        return
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    quantized = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in quantized:
        scale, zero_point = (tensors[name] for name in node.input[1:])  # both constant
        assert scale.size and np.all(scale > 0) and zero_point.dtype == np.int8 and not zero_point.any(), node.name
        assert scale.ndim == 0 or scale.size == 1 or node.input[0] in tensors, node.name  # by column: weights only
    in_int8 = 0
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            sources = [makers[name].op_type if name in makers else None for name in node.input[:2]]
            assert sources.count("DequantizeLinear") != 1, f"{node.name}: one of its inputs is quantized"
            in_int8 += sources.count("DequantizeLinear") == 2
    assert in_int8 >= 2 * 6  # of each layer at least the products with weights


def test_an_onnx_runtime_that_is_too_old(exported, monkeypatch, tmp_path):
    """Such as the one beside Paddle for GPUs. It fuses no layer normalization, and exporting anew changes nothing."""
    monkeypatch.setattr(onnxruntime, "__version__", "1.18.1")
    monkeypatch.setattr(gpu_models, "fuse_layer_norms", lambda model: model)
    says = r"fp16 on a GPU needs ONNX Runtime 1.20 or newer; installed here: 1.18.1. Install requirements_gpu.txt"
    with pytest.raises(PredictorError, match=says):
        gpu_models.prepare(str(exported("tnews")[0] / "model.onnx"), "cuda", "fp16", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_the_requirements_ask_for_what_is_used():
    """1.21 is the first with the extras and with preload_dlls; pip keeps any version that is there and allowed."""
    text = (PREDICTOR / "requirements_gpu.txt").read_text(encoding="utf-8")
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    bounds = {r.name: r for r in map(Requirement, filter(None, lines))}
    allowed = bounds["onnxruntime-gpu"].specifier
    assert [v in allowed for v in ("1.18.1", "1.20.2", "1.21.0", "1.23.2", "1.24.1")] == [
        False,
        False,
        True,
        True,
        False,
    ]
    lock = (PREDICTOR / "requirements_gpu.lock.txt").read_text(encoding="utf-8")
    locked = [Requirement(line.rstrip(" \\")) for line in lock.splitlines() if re.match(r"[\w-]+==", line)]
    for requirement in locked:
        if requirement.name in bounds:
            (version,) = requirement.specifier
            assert version.version in bounds[requirement.name].specifier, requirement
    assert bounds.keys() <= {requirement.name for requirement in locked}


# -------------------------------------------------------------------------------- what ONNX Runtime is told


@pytest.mark.parametrize(("dataset", "usual"), [("tnews", 64), ("msra_ner", 64), ("cmrc2018", 160)])
def test_profiles_are_of_the_task(dataset, usual, exported):
    folder, inputs, _ = exported(dataset)
    task = ErniePredictor(folder, backend="onnxruntime").task
    longest = task.max_seq_length
    assert task.usual_length == usual <= longest
    assert max(len(ids) for ids, _ in task.tokenize([task.check(item) for item in inputs])[0]) <= longest
    lengths = (task.usual_length, longest)
    tensorrt, cuda = gpu.provider_options("tensorrt", 1, "fp16", 8, lengths, "/cache")
    shapes = {key: value for key, value in tensorrt.items() if "shapes" in key}
    assert shapes == {
        "trt_profile_min_shapes": "input_ids:1x1,token_type_ids:1x1",
        "trt_profile_opt_shapes": f"input_ids:8x{usual},token_type_ids:8x{usual}",
        "trt_profile_max_shapes": f"input_ids:8x{longest},token_type_ids:8x{longest}",
    }
    assert tensorrt["device_id"] == cuda["device_id"] == "1" and tensorrt["trt_engine_cache_path"] == "/cache"


@pytest.mark.parametrize(("precision_mode", "enabled"), [("fp32", ""), ("fp16", "fp16"), ("int8", "fp16 int8")])
def test_precisions_are_enabled(precision_mode, enabled):
    tensorrt, _ = gpu.provider_options("tensorrt", 0, precision_mode, 1, (8, 8), None)
    assert [name for name in ("fp16", "int8") if tensorrt[f"trt_{name}_enable"] == "True"] == enabled.split()
    assert not [key for key in tensorrt if "cache" in key]


def test_options_are_known_to_onnxruntime():
    """Each key stands in the libraries that read it; ONNX Runtime refuses others."""
    try:
        importlib.metadata.version("onnxruntime-gpu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("onnxruntime-gpu is not installed")
    import onnxruntime

    capi = Path(onnxruntime.__file__).parent / "capi"
    libraries = [next(capi.glob(f"*onnxruntime_providers_{name}.*")).read_bytes() for name in ("tensorrt", "cuda")]
    options = gpu.provider_options("tensorrt", 0, "int8", 32, (64, 128), "/cache")
    for library, keys in zip(libraries, options):
        for key in keys:
            assert b"\0" + key.encode() + b"\0" in library, key
        assert b"trt_made_up" not in library


def test_engines_have_a_place_of_their_own(exported, tmp_path):
    """By model, and nowhere where nothing can be written."""
    path = str(exported("tnews")[0] / "model.onnx")
    place = derived_folder(path, "tensorrt-fp16-32x128", str(tmp_path))
    assert os.path.isdir(place) and derived_folder(path, "tensorrt-fp16-32x128", str(tmp_path)) == place
    assert derived_folder(path, "tensorrt-fp32-32x128", str(tmp_path)) != place
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="name one with --cache_dir"):
        derived_folder(path, "tensorrt-fp16-32x128", str(tmp_path / "file"))


def test_one_process_builds_an_engine(tmp_path):
    """The others wait for it, and read its engine then."""
    with gpu.one_at_a_time(str(tmp_path)), open(tmp_path / ".lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(tmp_path / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"backend": "cuda", "precision_mode": "int8"}, UsageError, "has no INT8 products: take --backend tensorrt"),
        ({"backend": "paddle", "precision_mode": "int8"}, UsageError, "INT8 on the CPU alone"),
        ({"device": "xpu", "backend": "cuda"}, UsageError, "--backend cuda runs on --device gpu alone"),
        ({"device": "xpu", "precision_mode": "fp16"}, UsageError, "none for --device xpu"),
        ({"precision_mode": "int8"}, PredictorError, r"no calibrated INT8 model.*compress_\*\.py writes one"),
        ({"device": "tpu"}, ValueError, "choose gpu, xpu, npu"),
        ({"precision_mode": "bf16"}, ValueError, "choose fp32, fp16, int8"),
    ],
)
def test_what_does_not_go_together(options, error, says, exported):
    with pytest.raises(error, match=says):
        ErniePredictor(exported("tnews")[0], **{"device": "gpu", **options})


@pytest.mark.parametrize("precision_mode", ["fp32", "fp16"])
def test_an_int8_folder_is_no_float_model(precision_mode, quantized):
    with pytest.raises(PredictorError, match="is an INT8 model: leave --precision_mode out"):
        ErniePredictor(quantized, device="gpu", precision_mode=precision_mode)


@pytest.mark.skipif(HAS_CUDA, reason="onnxruntime-gpu is installed")
@pytest.mark.parametrize("backend", ["auto", "cuda", "tensorrt"])
def test_without_onnxruntime_gpu(backend, exported):
    with pytest.raises(PredictorError, match=r"needs the package onnxruntime-gpu; installed here: onnxruntime.* \d"):
        ErniePredictor(exported("tnews")[0], device="gpu", backend=backend)


@pytest.mark.parametrize(
    ("device", "package"), [("gpu", "paddlepaddle-gpu"), ("xpu", "paddlepaddle-xpu"), ("npu", "paddle-custom-npu")]
)
def test_without_paddle_for_the_device(device, package, exported):
    import paddle

    if {"gpu": paddle.is_compiled_with_cuda(), "xpu": paddle.is_compiled_with_xpu(), "npu": False}[device]:
        pytest.skip(f"{package} is installed")
    with pytest.raises(PredictorError, match=f"--device {device} --backend paddle needs the package {package}"):
        ErniePredictor(exported("tnews")[0], device=device, backend="paddle")


def test_without_a_driver():
    try:
        gpu.check_driver(0)
    except PredictorError as e:
        assert "no NVIDIA driver here" in str(e) or "finds no GPU" in str(e)
    else:
        with pytest.raises(UsageError, match="--device_id 1000: there are "):
            gpu.check_driver(1000)


DRIVER = """
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
/* the first is a V100, the second a T4 */
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 7 : 5 * device; return 0; }
"""
WITH_DRIVER = """
import os
from ernie_predictor import PredictorError, gpu

def answer(*arguments):
    try:
        return gpu.check_driver(*arguments)
    except PredictorError as e:
        return f"{type(e).__name__}: {e}"

gpu.version_of = {"nvidia-cudnn-cu12": None}.get
print([answer(0, "tensorrt"), answer(0), answer(1, "tensorrt"), answer(2)], flush=True)
if os.fork() == 0:
    print([answer(1)], flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler, to make a stand-in for NVIDIA's driver")
def test_with_a_driver(tmp_path):
    """Which GPU there is, what runs on it, and that a forked child of a process that has used it cannot."""
    (tmp_path / "driver.c").write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-o", "libcuda.so.1", "driver.c"], cwd=tmp_path, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(PREDICTOR)}
    done = subprocess.run([sys.executable, "-c", WITH_DRIVER], env=environment, capture_output=True, text=True)
    first, second = map(ast.literal_eval, done.stdout.splitlines())
    assert first[1] is first[2] is None, done.stderr
    assert "this GPU has compute capability 7.0, and TensorRT 10.9 needs 7.5 (Turing) or newer" in first[0]
    assert first[3] == "UsageError: --device_id 2: there are 2 GPU(s) here, counted from 0"
    assert "was forked from one that had used the GPU" in second[0] and "spawn" in second[0]


@pytest.mark.parametrize(
    ("capability", "backend", "cudnn", "runs"),
    [
        ((7, 5), "tensorrt", "9.28.0.42", True),
        ((9, 0), "cuda", "9.28.0.42", True),
        ((7, 0), "cuda", "9.28.0.42", False),
        ((7, 0), "cuda", "9.10.2.21", True),
        ((6, 1), "cuda", None, True),  # the system's, whose version is not known
        ((7, 0), "tensorrt", "9.10.2.21", False),
    ],
)
def test_gpus_that_are_too_old(capability, backend, cudnn, runs):
    if runs:
        gpu.check_capability(capability, backend, cudnn)
    else:
        with pytest.raises(PredictorError, match=r'use --backend cuda after: pip install "nvidia-cudnn-cu12<9.11"'):
            gpu.check_capability(capability, backend, cudnn)


def test_gpus_that_paddle_has_no_code_for(monkeypatch):
    """Training takes the CPU there, and says why; --device gpu is an error that says the same."""
    import paddle

    from ernie.arguments import default_device

    runs = {c: gpu.too_new_or_old_for_paddle(c, "11.8") is None for c in [(6, 0), (6, 1), (8, 9), (9, 0), (10, 0)]}
    assert runs == {(6, 0): False, (6, 1): True, (8, 9): True, (9, 0): False, (10, 0): False}
    assert gpu.too_new_or_old_for_paddle((9, 0), "12.0") is None
    assert gpu.too_new_or_old_for_paddle((12, 0), "12.0")
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(paddle.version, "cuda", lambda: "11.8")
    for capability, device in (((9, 0), "cpu"), ((8, 6), "gpu")):
        monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda *a, found=capability: found)
        assert default_device()[0] == device
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda *a: (9, 0))
    says = "this GPU has compute capability 9.0; this Paddle, built for CUDA 11.8, runs on 6.1 to 8.9"
    assert default_device()[1] == says
    with pytest.raises(PredictorError, match=f"--backend paddle: {re.escape(says)}"):
        gpu.open_paddle("folder", "gpu", 0, "fp32")


def test_which_cuda_is_needed(monkeypatch):
    name = "onnxruntime.capi.build_and_package_info"
    for built, says in (("11.8", "CUDA 11.8 and cuDNN 8"), ("12.8", "CUDA 12.8 and cuDNN 9"), ("13.0", "CUDA 13.0")):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(cuda_version=built))
        assert f"needs {says}" in gpu.needed_libraries()
    monkeypatch.setitem(sys.modules, name, None)  # as in ONNX Runtime 1.18, which has no such module
    assert "needs CUDA 12 and cuDNN 9" in gpu.needed_libraries()


def test_without_tensorrt():
    if importlib.util.find_spec("tensorrt_libs"):
        pytest.skip("TensorRT is installed")
    with pytest.raises(PredictorError, match=r"needs TensorRT 10 .*: pip install .*; or take --backend cuda"):
        gpu.load_tensorrt()


@pytest.fixture
def without_gpu():
    """Skips a test of what is said where there is no GPU, where there is one."""
    try:
        gpu.check_driver(0)
    except PredictorError:
        return
    pytest.skip("there is a GPU")


@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
def test_a_session_is_never_the_cpu_s(backend, exported, without_gpu):
    """ONNX Runtime, asked for a provider that can't start, gives a session on the CPU."""
    options = gpu.provider_options(backend, 0, "fp32", 1, (8, 8), None)
    with pytest.raises(PredictorError, match=f"^--backend {backend}"):
        gpu.open_session(exported("tnews")[0] / "model.onnx", backend, options)


def test_the_command_line_says_what_is_missing(exported, tmp_path, without_gpu):
    command = [sys.executable, str(PREDICTOR / "infer_gpu.py"), "--model_path", str(exported("tnews")[0])]
    for flags, status in (([], 1), (["--device_id", "-1"], 2)):
        done = subprocess.run([*command, "--output", str(tmp_path / "out"), *flags], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith("infer_gpu.py: error: ") and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------------ where there is a GPU


@pytest.fixture
def with_gpu():
    """Skips a test that needs a GPU and ONNX Runtime for it; pass "tensorrt" for what also needs TensorRT."""

    def check(backend="cuda"):
        try:
            gpu.check_driver(0, backend)
            gpu.choose_backend(backend, "fp32")
            if backend == "tensorrt":
                gpu.load_tensorrt()
        except PredictorError as e:
            pytest.skip(str(e))

    return check


@pytest.mark.parametrize("precision_mode", ["fp32", "fp16"])
@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
@pytest.mark.parametrize("dataset", TASKS)
def test_a_gpu_predicts_as_the_cpu(dataset, backend, precision_mode, exported, tmp_path, with_gpu):
    with_gpu(backend)
    folder, inputs, expected = exported(dataset)
    options = {"device": "gpu", "backend": backend, "precision_mode": precision_mode, "cache_dir": str(tmp_path)}
    predictor = ErniePredictor(folder, **options)
    found = predictor.predict(inputs)
    if precision_mode == "fp32":
        assert_same(found, expected)
    else:
        assert_nearly_all_same(found, expected)
    shapes = [(1, 1), (1, predictor.task.max_seq_length), (32, predictor.task.max_seq_length)]
    on_the_cpu = on_cpu(folder / "model.onnx")
    for shape in shapes:  # the least and the most that TensorRT's engine is built for
        batch = {name: np.ones(shape, np.int64) for name in ("input_ids", "token_type_ids")}
        for a, b in zip(predictor.model(batch), on_the_cpu(batch), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3 if precision_mode == "fp32" else 0.1)
    if backend == "tensorrt":
        engines = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")}
        assert len(engines) == 1  # of the whole network
        ErniePredictor(folder, **options)
        assert engines == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")}


def test_a_gpu_predicts_int8_as_the_cpu(exported, quantized, tmp_path, with_gpu):
    with_gpu("tensorrt")
    _, inputs, _ = exported("tnews")
    expected = [answer["label"] for answer in ErniePredictor(quantized).predict(inputs)]
    found = ErniePredictor(quantized, device="gpu", precision_mode="int8", cache_dir=str(tmp_path)).predict(inputs)
    assert sum(a["label"] == b for a, b in zip(found, expected, strict=True)) >= 0.95 * len(expected)


@pytest.mark.parametrize("precision_mode", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("backend", ["cpu", "cuda", "tensorrt"])
def test_where_nodes_run(backend, precision_mode, prepared, tmp_path, with_gpu):
    """CUDA runs all that computes; TensorRT the whole graph at once. What they do not take, ONNX Runtime silently gives
    to the next: TensorRT's INT8 to CUDA, which computes it in float32. (The CPU shows that this test sees it.)
    """
    if (backend, precision_mode) == ("cuda", "int8"):
        pytest.skip("CUDA has no INT8 products")
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    if backend == "cpu":
        providers = [("CPUExecutionProvider", {})]
    else:
        with_gpu(backend)
        told = gpu.provider_options(backend, 0, precision_mode, 2, (16, 32), None)
        gpu.open_session(prepared("tnews", precision_mode), backend, told)  # loads the libraries
        providers = list(zip(gpu.PROVIDERS[backend], told, strict=True))
    session = onnxruntime.InferenceSession(prepared("tnews", precision_mode), options, providers=providers)
    session.run(None, {name: np.ones((2, 16), np.int64) for name in ("input_ids", "token_type_ids")})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = {(e["args"]["provider"], e["args"]["op_name"]) for e in events if e["name"].endswith("_kernel_time")}
    computing = {(provider, kind) for provider, kind in ran if re.search("MatMul|Gemm|Norm|Softmax|Gelu|Erf|TRT", kind)}
    assert computing
    expected = {"cpu": "CPUExecutionProvider", **{name: found[0] for name, found in gpu.PROVIDERS.items()}}[backend]
    assert {provider for provider, _ in computing} == {expected}, ran


def test_a_fork_of_a_process_with_a_gpu(exported, with_gpu):
    with_gpu()
    folder, inputs, _ = exported("tnews")
    predictor = ErniePredictor(folder, device="gpu", backend="cuda", precision_mode="fp32")
    predictor.predict(inputs[:1])
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            predictor.predict(inputs[:1])
        except PredictorError as e:
            os.write(write, str(e).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as f:
        assert "was forked from one that had used the GPU" in f.read()
    os.waitpid(child, 0)
