"""Each workaround does what its entry says, and the sampler that training stands on."""

import workarounds

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper

from ernie.training import LengthGroupedBatchSampler

AVX512 = "avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("vendor", "flags", "user", "expected"),
    [
        ("AuthenticAMD", "sse avx avx2 fma", None, "5"),
        ("AuthenticAMD", f"sse avx avx2 fma {AVX512}", None, "7"),
        ("AuthenticAMD", "sse avx avx2 fma avx512f", None, "5"),
        ("AuthenticAMD", "sse avx", None, None),
        ("GenuineIntel", f"sse avx avx2 fma {AVX512}", None, None),
        ("AuthenticAMD", "sse avx avx2 fma", "1", "1"),
    ],
)
def test_the_fast_matrix_products_of_mkl(monkeypatch, vendor, flags, user, expected):
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)
    if user:
        monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", user)
    workarounds.open_fast_matmul(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == expected


def test_mkl_uses_the_cores_that_it_may(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    for processes, user, expected in (("1", None, cores), ("2", None, max(cores // 2, 1)), ("1", "3", 3)):
        monkeypatch.setenv("PADDLE_LOCAL_SIZE", processes)
        monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
        if user:
            monkeypatch.setenv("MKL_NUM_THREADS", user)
        workarounds.use_all_cores()
        assert os.environ["MKL_NUM_THREADS"] == str(expected)


@pytest.mark.parametrize("first", ["ernie.features", "run_qa"])
def test_whatever_is_imported_first_zlib_stands_before_paddle(first):
    code = f"import sys; sys.path.insert(0, '.'); import {first}; names = list(sys.modules); "
    code += "assert names.index('zlib') < names.index('paddle')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def converted_graph():
    """A graph as paddle2onnx writes it: constants as nodes, an embedding times a mask, equal tensors twice."""
    rng = np.random.default_rng(0)
    table, mask = rng.normal(size=[50, 4]).astype(np.float32), np.ones([50, 4], np.float32)
    mask[0] = 0
    weight = rng.normal(size=[4, 4]).astype(np.float32)
    tensors = {"table": table, "mask": mask, "w1": weight, "w2": weight.copy(), "unused": weight + 1}
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
        for name, value in tensors.items()
    ]
    nodes += [
        helper.make_node("Mul", ["table", "mask"], ["masked"]),
        helper.make_node("Gather", ["masked", "input_ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "w1"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w2"], ["linear_9.tmp_0"]),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["D.0", "D.1"])]
    outputs = [helper.make_tensor_value_info("linear_9.tmp_0", TensorProto.FLOAT, ["D.2", "D.3", 4])]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )


def answer(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": np.array([[0, 3, 49], [7, 7, 0]])})[0]


def test_a_converted_graph_is_cleaned_and_answers_as_before():
    model = converted_graph()
    expected = answer(model)
    workarounds.constants_to_initializers(model.graph)
    workarounds.fold_masked_embeddings(model.graph)
    workarounds.drop_unused_and_equal_initializers(model.graph)
    workarounds.name_inputs_and_outputs(model.graph, ["logits"])
    onnx.checker.check_model(model)
    np.testing.assert_allclose(answer(model), expected, rtol=1e-6)
    assert [node.op_type for node in model.graph.node] == ["Gather", "MatMul", "MatMul"]
    assert sorted(tuple(t.dims) for t in model.graph.initializer) == [(4, 4), (50, 4)]
    (output,) = model.graph.output
    assert output.name == "logits"
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", "length", 4]


@pytest.mark.slow
def test_ernie_medium_weighs_in_onnx_what_it_weighs_in_paddle(tmp_path):
    """ERNIE 3.0-Medium's real sizes: 40,000 entries, 6 layers, 768 wide."""
    from paddlenlp.transformers import ErnieConfig, ErnieForSequenceClassification

    from ernie.export import onnx_error

    config = ErnieConfig(
        vocab_size=40_000, num_hidden_layers=6, type_vocab_size=4, max_position_embeddings=2048, use_task_id=True
    )
    model = ErnieForSequenceClassification(config)
    workarounds.save_static_model(model, str(tmp_path))
    workarounds.static_to_onnx(str(tmp_path), ["logits"])
    sizes = {name: (tmp_path / name).stat().st_size for name in ("model.pdiparams", "model.onnx")}
    assert sizes["model.pdiparams"] > 290e6
    assert sizes["model.onnx"] == pytest.approx(sizes["model.pdiparams"], rel=0.02)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert not [node for node in graph.node if node.op_type == "Constant"]
    embeddings = [t for t in graph.initializer if list(t.dims) == [40_000, 768]]
    assert len(embeddings) == 1
    assert onnx_error(model, str(tmp_path / "model.onnx")) < 1e-4


# ------------------------------------------------------------------------------------------------- sampler


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("count", [1, 7, 64, 1000])
def test_batches_by_length_hold_every_text_once_an_epoch(count, replicas):
    lengths = np.random.default_rng(0).integers(3, 100, count)
    ranks = []
    for rank in range(replicas):
        sampler = LengthGroupedBatchSampler(lengths, 8, seed=1, num_replicas=replicas, rank=rank)
        sampler.set_epoch(2)
        ranks.append(list(sampler))
        assert len(ranks[-1]) == len(sampler)
        assert list(sampler) == ranks[-1], "seed and epoch alone make the order"
        sampler.set_epoch(3)
        assert count < 8 or list(sampler) != ranks[-1]
    assert len({tuple(len(batch) for batch in batches) for batches in ranks}) == 1
    indices = [i for batches in ranks for batch in batches for i in batch]
    assert set(indices) == set(range(count))
    assert len(indices) == -(-count // replicas) * replicas


def test_batches_by_length_need_less_padding():
    lengths = np.random.default_rng(0).integers(3, 128, 2000)
    grouped = sum(max(lengths[b]) * len(b) for b in LengthGroupedBatchSampler(lengths, 32, seed=0))
    order = np.random.default_rng(1).permutation(2000)
    shuffled = sum(max(lengths[order[i : i + 32]]) * len(order[i : i + 32]) for i in range(0, 2000, 32))
    assert grouped < 1.1 * lengths.sum()
    assert shuffled > 1.7 * lengths.sum()
