"""What GPUs run of a folder's model.onnx: in float16, or with the INT8 that TensorRT takes. Made once, see `derive`."""

import os
import tempfile

import numpy as np

from .derived_models import derive
from .errors import PredictorError
from .int8 import quiet_loggers
from .onnx_files import has_node
from .runtimes import is_importable

LAYER_NORM_OPSET = 17  # the first of ONNX's that has layer normalization as one node


def prepare(onnx_file, backend, precision_mode, cache_dir=None):
    """The file that a GPU runs for a model: itself, or one made of it.

    Args:
        backend: "tensorrt" or "cuda"; a file that is made suits both.
        precision_mode: "fp32", "fp16", or "int8", whose model must be quantized with scales of its own.
        cache_dir: see `derive`.

    Raises:
        PredictorError: the package onnx is missing, ONNX Runtime is too old, or the model's layer normalizations are
            not recognized.
        CacheError: no place can be written to.
    """
    # A model of floats dequantizes nothing but embedding tables.
    if backend == "cuda" and precision_mode == "fp32" and not has_node(onnx_file, "DequantizeLinear"):
        return onnx_file

    def write(target):
        if not is_importable("onnx"):
            raise PredictorError(f"to prepare {onnx_file} for a GPU the package onnx is needed: pip install onnx")
        import onnx
        import onnxruntime

        model = onnx.load(onnx_file)
        dequantize_tables(model.graph)
        simplify_positions(model.graph)
        if precision_mode == "int8":
            make_symmetric(model.graph)
        model = fuse_layer_norms(model)
        kinds = {node.op_type for node in model.graph.node}
        if precision_mode != "fp32" and ("LayerNormalization" not in kinds or "Sqrt" in kinds):
            if not fuses_layer_norms():
                raise PredictorError(
                    f"--precision_mode {precision_mode} on a GPU needs ONNX Runtime 1.20 or newer; installed here: "
                    f"{onnxruntime.__version__}. Install requirements_gpu.txt in an environment of its own"
                )
            raise PredictorError(
                f"{onnx_file} has layer normalizations of no known form, which float16 needs to stay accurate; export "
                "it anew with run_*.py --do_export, or take --precision_mode fp32"
            )
        if precision_mode == "fp16":
            model = to_float16(model)
        onnx.checker.check_model(model)
        onnx.save(model, target)

    return derive(onnx_file, f"gpu-{precision_mode}", cache_dir, write)


def dequantize_tables(graph):
    """Turns embedding tables that are kept as int8 back into floats: the same numbers.

    They save memory, no time, and TensorRT dequantizes only what was quantized in the graph or is a weight, not what
    a Gather took.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    gathers = {node.output[0]: node for node in graph.node if node.op_type == "Gather"}
    for node in [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in gathers]:
        gather = gathers[node.input[0]]
        table = tensors[gather.input[0]]
        values, scale, zero_point = (
            numpy_helper.to_array(tensor).astype(np.float32)
            for tensor in (table, tensors[node.input[1]], tensors[node.input[2]])
        )
        table.CopyFrom(numpy_helper.from_array((values - zero_point) * scale, table.name))
        gather.output[0] = node.output[0]
        graph.node.remove(node)


def simplify_positions(graph):
    """Position ids without a sum over ones, and task ids, all 0, without an array of them: the same embeddings.

    The export counts 1, 2, 3, ... with CumSum on int64, which TensorRT's list of ONNX's nodes does not name, as it does
    not name ConstantOfShape on int64. A part of the graph that TensorRT leaves out cuts it in two, and the second would
    need shapes of its own.
    """
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}

    def same_everywhere(name):
        """The number that each element of a tensor is, or None."""
        node = makers.get(name)
        if name in tensors:
            values = numpy_helper.to_array(tensors[name])
            return values.item() if values.size == 1 else None
        if node is None:
            return None
        if node.op_type == "ConstantOfShape":
            return numpy_helper.to_array(node.attribute[0].t).item() if node.attribute else 0
        if node.op_type == "Cast":
            return same_everywhere(node.input[0])
        if node.op_type == "Mul":
            factors = [same_everywhere(factor) for factor in node.input]
            return None if None in factors else factors[0] * factors[1]
        return None

    def counts(name):
        """Whether a tensor is 0, 1, 2, ... in each row."""
        node = makers.get(name)
        total = makers.get(node.input[0]) if node is not None and node.op_type == "Sub" else None
        return (
            total is not None
            and total.op_type == "CumSum"
            and not total.attribute
            and [same_everywhere(x) for x in (total.input[0], total.input[1], node.input[1])] == [1, 1, 1]
        )

    for gather in [node for node in graph.node if node.op_type == "Gather" and node.input[0] in tensors]:
        name, ids = gather.input[:2]
        table = tensors[name]
        if counts(ids):
            prefix = gather.output[0]
            for part, value in (("positions", np.arange(table.dims[0])[None]), ("0", [0]), ("1", [1]), ("2", [2])):
                graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), f"{prefix}_{part}"))
            first, second, third = (f"{prefix}_{number}" for number in "012")
            made = [
                helper.make_node("Shape", ["input_ids"], [f"{prefix}_shape"]),
                helper.make_node("Slice", [f"{prefix}_shape", second, third, first], [f"{prefix}_length"]),
                helper.make_node(
                    "Slice", [f"{prefix}_positions", first, f"{prefix}_length", second], [f"{prefix}_ids"]
                ),
            ]
            gather.input[1] = f"{prefix}_ids"
            place = list(graph.node).index(gather)
            for node in reversed(made):
                node.name = node.output[0]
                graph.node.insert(place, node)
        elif same_everywhere(ids) is not None and ids not in tensors:
            row = numpy_helper.to_array(table)[int(same_everywhere(ids))]
            graph.initializer.append(numpy_helper.from_array(row[None, None], gather.output[0]))
            graph.node.remove(gather)
    unused = True
    while unused:
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unused = [node for node in graph.node if used.isdisjoint(node.output)]
        for node in unused:
            graph.node.remove(node)


def make_symmetric(graph):
    """Turns every zero point into the int8 zero, which is all that TensorRT takes.

    A tensor in uint8 around 128 keeps its scale and so its numbers: -128 to 127 in place of 0 to 255. Softmax in uint8
    from 0 up has only 0 to 127 left; its scale stays too, since it was calibrated for 127 steps, as Paddle's own INT8
    model has them. On models of the sample data this is nearest to the original: logits moved by 0.004 to 0.012 on
    average, where INT8 itself moves them by 0.04 to 0.09. A scale of 1/127, which cuts off nothing, moves them by 0.03
    to 0.06, and 255/127 of the scale by 0.04 to 0.17.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            tensor = tensors[node.input[2]]
            zero_point = numpy_helper.to_array(tensor)
            if zero_point.dtype == np.uint8:
                if np.any((zero_point != 0) & (zero_point != 128)):
                    raise PredictorError(f"{node.name} has the zero point {zero_point}; TensorRT takes none but 0")
                tensor.CopyFrom(numpy_helper.from_array(np.zeros(zero_point.shape, np.int8), tensor.name))
            elif np.any(zero_point):
                raise PredictorError(f"{node.name} has the zero point {zero_point}; TensorRT takes none but 0")


def fuses_layer_norms():
    """Whether the installed ONNX Runtime does so at `fuse_layer_norms`'s level of optimization."""
    import onnxruntime

    return tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 20)


def fuse_layer_norms(model):
    """Layer normalizations of nine nodes become ONNX's one node, whose sums are float32 whatever its input.

    Needed for float16: a value of 300 squared is infinite there, and encoders have such values. Keeping the nine nodes
    in float32 does not help, since the converter goes back to float16 between each two of them. The work is done by
    ONNX Runtime's optimizer, which at this level leaves no nodes of its own.
    """
    import onnx
    import onnxruntime

    (opset,) = [opset for opset in model.opset_import if not opset.domain]
    # From 13 to 17 no node that these models have changed its meaning.
    opset.version = max(opset.version, LAYER_NORM_OPSET)
    model.ir_version = max(model.ir_version, 8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "model.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        fused = onnx.load(options.optimized_model_filepath)
    # It names every set of nodes that it knows.
    used = {node.domain for node in fused.graph.node}
    kept = [opset for opset in fused.opset_import if opset.domain in used]
    del fused.opset_import[:]
    fused.opset_import.extend(kept)
    return fused


def to_float16(model):
    """Weights and products in float16; inputs, outputs and the sums of layer normalization as they are.

    Nothing else is kept in float32, for nothing else was found to gain by it. With every float16 tensor rounded as on
    a GPU, logits of the three tasks' sample models (9 to 12 large) differ from float32's by 0.016 to 0.027; with
    softmax in float32 too by the same, with GELU by 0.018 to 0.026, with the sums of embeddings, residuals and the
    mask by 0.016 to 0.034, with all but the matrix products by 0.011 to 0.030. The mask of padding, -10000, is a
    float16 number.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    # It reports each weight that is too small for float16; a user cannot act on that.
    with quiet_loggers("onnxruntime.transformers.float16"):
        model = convert_float_to_float16(model, keep_io_types=True)
    OnnxModel.graph_topological_sort(model.graph)
    return model
