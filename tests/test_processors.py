"""INT8 on processors without VNNI gives the same answers: on this one, or in an emulated one (qemu-user)."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PREDICTOR, SAMPLE_DATA, assert_same
from ernie_predictor import machine
from ernie_predictor.int8 import safe_scale
from ernie_predictor.machine import has_vnni

CPUINFO = Path("/proc/cpuinfo")


@pytest.fixture(scope="session")
def old_processor(tmp_path_factory):
    """The beginning of a command that runs on a processor with AVX2 and without AVX-512 and VNNI."""
    if not CPUINFO.exists() or "avx2" not in CPUINFO.read_text():
        pytest.skip("this is not Linux on x86-64 with AVX2")
    if not has_vnni():
        return []
    if not shutil.which("qemu-x86_64"):
        pytest.skip("this processor has VNNI, and qemu-x86_64 (qemu-user), which emulates one without, is not here")
    # QEMU looks for files here first.
    folder = tmp_path_factory.mktemp("old_processor")
    (folder / "proc").mkdir()
    text = re.sub(r" (avx512\w*|avx_vnni\w*|amx_\w+)", "", CPUINFO.read_text())
    (folder / "proc" / "cpuinfo").write_text(text)
    return ["qemu-x86_64", "-cpu", "Haswell", "-L", str(folder)]


def run(command, **kwargs):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, **kwargs)
    errors = [line for line in done.stderr.splitlines() if "TCG doesn't support" not in line]
    assert done.returncode == 0, "\n".join(errors)[-3000:]
    return done.stdout


PRODUCTS = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, onnx, onnxruntime, openvino
from onnx import TensorProto, helper, numpy_helper
from ernie_predictor.int8 import calibrate, quantize_onnx
from ernie_predictor.runtimes import open_onnx
from ernie_predictor.derived_models import quantize_dynamically

# The largest weights, of one sign in a column, and the largest inputs: all pairs saturate. Exact in float32.
generator = np.random.default_rng(0)
weight = np.tile(generator.choice([-127, 127], 96), (64, 1)).astype(np.float32)
names = ("input_ids", "token_type_ids")
inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [None, None]) for name in names]
output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, None, 96])
table = np.where(np.arange(64) % 2, -127, 127).astype(np.float32).repeat(64).reshape(64, 64)
nodes = [
    helper.make_node("Add", names, ["ids"]),
    helper.make_node("Gather", ["table", "ids"], ["x"]),
    helper.make_node("MatMul", ["x", "weight"], ["logits"]),
]
constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")]
model = helper.make_model(helper.make_graph(nodes, "g", inputs, [output], constants),
                          opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
onnx.save(model, "fp32.onnx")
ids = generator.integers(0, 64, [4, 9])
batch = {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}
exact = table[ids].astype(np.float64) @ weight
largest = np.abs(exact).max()

quantize_onnx("fp32.onnx", "static.onnx", calibrate("fp32.onnx", [batch]))
quantize_dynamically("fp32.onnx", "dynamic.onnx")
# As earlier versions and other programs write it: 8 bits, and nothing in the metadata.
other = onnx.load("static.onnx")
del other.metadata_props[:]
tensors = {tensor.name: tensor for tensor in other.graph.initializer}
tensors["weight_quantized"].CopyFrom(numpy_helper.from_array(weight.astype(np.int8), "weight_quantized"))
tensors["weight_scale"].CopyFrom(numpy_helper.from_array(np.ones(96, np.float32), "weight_scale"))
onnx.save(other, "other.onnx")

def error(logits):
    return np.abs(logits - exact).max() / largest

for name in ("static", "dynamic", "other"):
    for engine in ("onnxruntime", "openvino"):
        print(name, engine, error(open_onnx(f"{name}.onnx", engine, 2)(batch)[0]))
bare = onnxruntime.InferenceSession("other.onnx", providers=["CPUExecutionProvider"])
print("bare", "onnxruntime", error(bare.run(None, batch)[0]))
bare = openvino.Core().compile_model("other.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
print("bare", "openvino", error(bare(batch)[0]))
"""


def errors_of_products(command, folder):
    lines = run([*command, sys.executable, "-c", PRODUCTS, PREDICTOR], cwd=folder).split("\n")[:-1]
    return {tuple(line.split()[:2]): float(line.split()[2]) for line in lines}


def test_no_engine_saturates(old_processor, tmp_path):
    found = errors_of_products(old_processor, tmp_path)
    # Such a processor does saturate: what this test is about can happen.
    assert found.pop(("bare", "onnxruntime")) > 0.3 and found.pop(("bare", "openvino")) > 0.3
    assert len(found) == 6 and max(found.values()) < 0.005, found  # scales of each batch are off by 1 in 255


@pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI")
def test_nor_with_vnni(tmp_path):
    found = errors_of_products([], tmp_path)
    assert len(found) == 8 and max(found.values()) < 0.005, found


ANSWERS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ernie_predictor import ErniePredictor

texts = json.load(sys.stdin)
for backend in sys.argv[3:]:
    predictor = ErniePredictor(sys.argv[2], backend=backend, num_threads=2)
    print(json.dumps([str(predictor.model), predictor.predict(texts)]))
"""


@pytest.mark.slow
def test_a_compressed_model_gives_the_same_answers(old_processor, run_quickstart):
    """With the engine that is taken there, and with the other one."""
    _, folder, _ = run_quickstart("tnews")
    model = folder / "tnews" / "width_mult_0.75" / "mse16_1"
    rows = map(json.loads, (SAMPLE_DATA / "tnews" / "dev.json").read_text(encoding="utf-8").splitlines())
    texts = json.dumps([row["sentence"] for row in rows][::4])
    command = [sys.executable, "-c", ANSWERS, PREDICTOR, model]
    (_, here) = json.loads(run([*command, "onnxruntime"], input=texts))
    done = run([*old_processor, *command, "auto", "openvino"], input=texts)
    (name, there), (other_name, other) = map(json.loads, done.splitlines())
    assert (name, other_name) == ("int8 with onnxruntime, AVX2", "int8 (computed in fp32) with openvino, AVX2")
    assert len(here) == 53
    assert_same(there, here)
    assert sum(a["label"] != b["label"] for a, b in zip(here, other)) <= 1


@pytest.mark.parametrize("rows", [1, 6, 7])
@pytest.mark.parametrize("per_column", [True, False])
def test_no_pair_of_weights_is_too_large(rows, per_column):
    """Whichever way each weight is rounded; and a column is widened no more than its largest pair asks for."""
    weight = np.random.default_rng(rows).normal(size=(rows, 50)).astype(np.float32)
    weight[:, 0] = 1  # all of one sign: 126 / 2 each
    weight[1::2, 1] = 0  # nothing to pair with
    scale = np.abs(weight).max(axis=0 if per_column else None) / np.float32(127)
    safe = safe_scale(weight, scale)
    assert safe.shape == scale.shape and safe.dtype == np.float32 and (safe >= scale).all()
    for rounded in (np.floor, np.ceil, np.round, lambda x: np.copysign(np.ceil(np.abs(x)), x)):
        integers = np.pad(rounded(weight / safe), ((0, rows % 2), (0, 0))).astype(int)
        for sign in (1, -1):
            part = np.maximum(sign * integers, 0)
            assert (part[0::2] + part[1::2]).max() <= 128
        assert np.abs(integers).max() <= 127
    if per_column:
        assert safe[0] == pytest.approx(2 / 126 if rows > 1 else 1 / 126)
        assert safe[1] == pytest.approx(127 / 126 * scale[1])


@pytest.mark.parametrize(
    ("flags", "vnni", "int8", "bf16", "fp32"),
    [
        ("flags : fpu avx2", False, "AVX2", None, "AVX2"),
        ("flags : fpu avx2 avx_vnni", True, "AVX-VNNI", None, "AVX2"),
        ("flags : avx2 avx512f", False, "AVX-512", None, "AVX-512"),
        ("flags : avx2 avx512f avx512_vnni avx512_bf16", True, "AVX-512 VNNI", "AVX-512 BF16", "AVX-512"),
        ("flags : avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8", True, "AMX", "AMX", "AVX-512"),
        ("Features : fp asimd", False, "NEON", None, "NEON"),
        ("Features : asimd asimddp i8mm bf16", False, "I8MM", "BF16", "NEON"),
    ],
)
def test_what_the_processor_can_do(flags, vnni, int8, bf16, fp32, monkeypatch):
    monkeypatch.setattr(machine, "_read", lambda *path: f"model name : Some\n{flags}\nbugs : none\n")
    assert machine.has_vnni() == vnni and machine.has_bf16() == bool(bf16)
    assert machine.instruction_set("int8") == int8 and machine.instruction_set("fp32") == fp32
    assert bf16 is None or machine.instruction_set("bf16") == bf16
    assert machine.processor_kind() == f"Some ({int8})"


def test_a_processor_that_does_not_tell(monkeypatch):
    """Windows and macOS: INT8 is exact all the same, and nothing is refused."""
    monkeypatch.setattr(machine, "_read", lambda *path: "")
    assert not machine.has_vnni() and machine.has_bf16()
    assert machine.instruction_set("int8") == os.uname().machine
