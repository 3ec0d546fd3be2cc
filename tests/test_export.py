"""The ONNX graph against Paddle's model: cleaned, as small, and with the same logits; refused where it is not."""

import numpy as np
import onnx
import onnxruntime
import paddle
import pytest
from conftest import arguments_for, call
from onnx import TensorProto, helper, numpy_helper

from ernie import export, onnx_graph
from ernie.export import onnx_error
from ernie.models import on_cpu
from ernie.onnx_graph import write_onnx
from ernie.static_model import save_static_model


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
    onnx_graph.constants_to_initializers(model.graph)
    onnx_graph.fold_masked_embeddings(model.graph)
    onnx_graph.drop_unused_and_equal_initializers(model.graph)
    onnx_graph.name_inputs_and_outputs(model.graph, ["logits"])
    onnx.checker.check_model(model)
    np.testing.assert_allclose(answer(model), expected, rtol=1e-6)
    assert [node.op_type for node in model.graph.node] == ["Gather", "MatMul", "MatMul"]
    assert sorted(tuple(t.dims) for t in model.graph.initializer) == [(4, 4), (50, 4)]
    (output,) = model.graph.output
    assert output.name == "logits"
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", "length", 4]


def test_ernie_medium_weighs_in_onnx_what_it_weighs_in_paddle(tmp_path):
    """Its real vocabulary and width, 40,000 x 768, and one of its layers."""
    from paddlenlp.transformers import ErnieConfig, ErnieForSequenceClassification

    config = ErnieConfig(
        vocab_size=40_000, num_hidden_layers=1, type_vocab_size=4, max_position_embeddings=2048, use_task_id=True
    )
    model = ErnieForSequenceClassification(config)
    save_static_model(model, str(tmp_path))
    write_onnx(str(tmp_path), ["logits"])
    sizes = {name: (tmp_path / name).stat().st_size for name in ("model.pdiparams", "model.onnx")}
    assert sizes["model.pdiparams"] > 150e6
    assert sizes["model.onnx"] == pytest.approx(sizes["model.pdiparams"], rel=0.02)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert not [node for node in graph.node if node.op_type == "Constant"]
    embeddings = [t for t in graph.initializer if list(t.dims) == [40_000, 768]]
    assert len(embeddings) == 1
    assert onnx_error(model, str(tmp_path / "model.onnx")) < 1e-4


def test_an_export_that_differs_is_refused_in_one_message(tmp_path, tiny_model, monkeypatch, capsys):
    """And leaves what was exported before."""
    arguments = arguments_for("tnews", tiny_model, tmp_path, "--do_train", "--do_export", "--max_steps", 1)
    call("run_seq_cls", *arguments)
    before = (tmp_path / "tnews/export/model.onnx").read_bytes()
    monkeypatch.setattr(export, "TOLERANCE", 0)
    with pytest.raises(SystemExit) as stopped:
        call("run_seq_cls", *arguments)
    assert stopped.value.code == 1
    assert "the ONNX model's logits differ from Paddle's by" in capsys.readouterr().err
    assert (tmp_path / "tnews/export/model.onnx").read_bytes() == before
    assert not list((tmp_path / "tnews").glob(".*"))


def test_the_comparison_runs_on_the_cpu(monkeypatch):
    """A model on another device is copied there, and that device is current again afterwards."""
    devices = ["gpu:0"]
    monkeypatch.setattr(paddle, "get_device", lambda: devices[-1])
    monkeypatch.setattr(paddle, "set_device", devices.append)
    model = paddle.nn.Linear(2, 2)
    with on_cpu(model) as copy:
        assert copy is not model and devices[-1] == "cpu" and not copy.training
        np.testing.assert_array_equal(copy.weight.numpy(), model.weight.numpy())
        assert copy.weight.place.is_cpu_place()
    assert devices[-1] == "gpu:0" and model.training
    devices.append("cpu")
    with on_cpu(model) as same:
        assert same is model and not model.training
    assert model.training
