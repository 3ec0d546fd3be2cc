"""From a static Paddle model to a clean ONNX graph: conversion, and the passes over what the converter writes."""

import collections
import os

import onnx
import paddle2onnx
from onnx import helper, numpy_helper


def write_onnx(folder, output_names, first_token_only=False):
    """Converts `folder/model.pdmodel` to `folder/model.onnx`.

    Opset 13 is the first with per-channel QuantizeLinear, and every runtime in use reads it.

    paddle2onnx 1.3.1 writes weights as Constant nodes, so that ONNX Runtime fuses and quantizes nothing without saying
    so, and writes an embedding with a padding_idx together with a mask as large, which turns a 301 MB model into one
    of 425 MB (PaddlePaddle/PaddleNLP#2831). It does not name outputs and dimensions. Ends with paddle2onnx 2.1, which
    needs Paddle 3.

    Args:
        output_names: names of the graph's outputs, in order.
        first_token_only: the model reads the first token's output alone; see `compute_first_token_only`.
    """
    files = (os.path.join(folder, name) for name in ("model.pdmodel", "model.pdiparams"))
    # Checked below, after the passes.
    converted = paddle2onnx.export(*files, opset_version=13, verbose=False, enable_onnx_checker=False)
    model = onnx.load_from_string(converted)
    constants_to_initializers(model.graph)
    fold_masked_embeddings(model.graph)
    drop_unused_and_equal_initializers(model.graph)
    name_inputs_and_outputs(model.graph, output_names)
    if first_token_only:
        compute_first_token_only(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, os.path.join(folder, "model.onnx"))


def constants_to_initializers(graph):
    """Turns every Constant node that holds a tensor into an initializer of the same name."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def fold_masked_embeddings(graph):
    """Multiplies two initializers now instead of at every run: the converter writes an embedding with a padding_idx as
    the product of the table and a mask of the same size, which is 1 except in the padding's row."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Mul" and all(name in tensors for name in node.input):
            left, right = (numpy_helper.to_array(tensors[name]) for name in node.input)
            graph.initializer.append(numpy_helper.from_array(left * right, node.output[0]))
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def drop_unused_and_equal_initializers(graph):
    """Keeps one of several equal tensors, and only tensors that a node uses."""
    first_with, renamed = {}, {}
    used = {name for node in graph.node for name in node.input}
    kept = []
    for tensor in graph.initializer:
        if tensor.name not in used:
            continue
        content = (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
        if content in first_with:
            renamed[tensor.name] = first_with[content]
        else:
            first_with[content] = tensor.name
            kept.append(tensor)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def name_inputs_and_outputs(graph, output_names):
    """Names the outputs, and the dimensions of inputs and outputs: `batch`, `length`."""
    renamed = dict(zip((o.name for o in graph.output), output_names))
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
    for value in graph.output:
        value.name = renamed[value.name]
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim, name in zip(dims, ("batch", "length")):
            if not dim.HasField("dim_value"):
                dim.dim_param = name
    graph.name = "ernie"
    # Shapes of intermediate values carry the converter's own dimension names.
    del graph.value_info[:]


def compute_first_token_only(graph):
    """Makes the last layer compute its output for the first token alone, which is all that the pooler reads.

    Everything after the keys and values works token by token: queries, attention output, feed-forward and norms of the
    other tokens are never read. That is 10 of the 12 parts of a layer's weights: a seventh of the work of 6 layers, a
    fifth of that of 4, and the logits are the same.

    Returns:
        Whether the graph has the expected form; otherwise it is left unchanged.
    """
    weights = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    takers = collections.defaultdict(list)
    for node in graph.node:
        for name in node.input:
            takers[name].append(node)
    between = [n for n in graph.node if n.op_type == "MatMul" and not weights & set(n.input)]
    if not between or [node.op_type for node in takers[graph.output[0].name]]:
        return False
    # From the last query-key product back to the queries' linear layer.
    node = between[-2]
    while not (node.op_type == "MatMul" and node.input[1] in weights):
        node = makers.get(node.input[0])
        if node is None or node.op_type not in ("Mul", "Transpose", "Reshape", "Add", "MatMul"):
            return False
    queries, layer_input = node, node.input[0]
    linears = [n for n in takers[layer_input] if n.op_type == "MatMul"]
    residuals = [n for n in takers[layer_input] if n.op_type == "Add"]
    if len(linears) != 3 or len(residuals) != 1 or len(takers[layer_input]) != 4:
        return False
    pooled = [n for n in graph.node if n.op_type == "Slice" and makers[n.input[0]].op_type == "Add"]
    if not pooled or list(graph.node).index(pooled[-1]) < list(graph.node).index(residuals[0]):
        return False
    # The slice that the pooler takes, moved to where the layer begins.
    first = helper.make_node("Slice", [layer_input, *pooled[-1].input[1:]], ["first_token"], "first_token")
    for taker in (queries, residuals[0]):
        for index, name in enumerate(taker.input):
            if name == layer_input:
                taker.input[index] = "first_token"
    graph.node.insert(list(graph.node).index(queries), first)
    return True
