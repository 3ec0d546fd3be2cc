"""Static quantization of an ONNX model: scales measured on texts, and products computed in INT8.

For deployment (--calibration) and for the compress scripts, which bring scales of their own.
"""

import contextlib
import logging
import os
import tempfile
import threading

import numpy as np

from .onnx_files import PAIRS_FIT

# Two products of uint8 and int8, added in 16 bits: 255 * 128 fits, 255 * 129 does not.
LARGEST_PAIR = 128


@contextlib.contextmanager
def quiet_loggers(*names):
    """Drops warnings that this thread writes to the root logger, and to the loggers named; other threads' are kept.

    ONNX Runtime's tools write to the root logger, with functions that give it a handler where it has none. The
    program that uses this package finds its logging as it was.
    """
    thread = threading.get_ident()

    def keep(record):
        return record.thread != thread or record.levelno >= logging.ERROR

    loggers = [logging.getLogger(name) for name in (None, *names)]
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(keep)
        logging.getLogger().removeHandler(handler)


def calibrate(onnx_file, batches):
    """Measures on batches which scale each matrix product needs.

    Args:
        onnx_file: an FP32 model.
        batches: an iterable of {"input_ids", "token_type_ids"}: int64 [batch, length].

    Returns:
        `products` for `quantize_onnx`: weights with one scale per column, activations with one scale each, symmetric.
    """
    import onnx
    from onnx import numpy_helper
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Batches(CalibrationDataReader):
        def __init__(self):
            self.left = iter(batches)

        def get_next(self):
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            onnx_file,
            op_types_to_calibrate=["MatMul"],
            augmented_model_path=os.path.join(folder, "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"symmetric": True},
        )
        calibrator.collect_data(Batches())
        ranges = calibrator.compute_data().data
        del calibrator  # it holds the file open
    graph = onnx.load(onnx_file).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    products = []
    for node in graph.node:
        if node.op_type != "MatMul":
            continue
        product = []
        for name in node.input:
            if name in weights:
                weight = numpy_helper.to_array(weights[name])
                scale = np.maximum(np.abs(weight).max(axis=0), 1e-8).astype(np.float32) / 127
                product.append((scale, np.round(weight / scale).astype(np.int8)))
            else:
                largest = max(abs(float(np.asarray(value).item())) for value in ranges[name].range_value)
                product.append((np.float32(max(largest, 1e-8) / 127), None))
        products.append(tuple(product))
    return products


def quantize_onnx(source, target, products, quantize_tables=False):
    """Writes an ONNX model whose matrix products are computed in INT8, with QuantizeLinear and DequantizeLinear.

    Where a weight is multiplied, its input is quantized to uint8 with the zero point 128: the same steps as Paddle's
    int8, and the only form for which ONNX Runtime's default provider has a fast kernel on x86-64, while OpenVINO
    runs both alike. The two inputs of attention's products are int8, the softmax uint8 from 0 up, since OpenVINO
    fuses attention only without zero points.

    Args:
        source, target: ONNX files.
        products: for each of the graph's MatMul nodes, in order, (input, weight or second input): each None where it
            stays in float32, else (scale, values): scale float32, the step of one integer, a scalar or one per column;
            values int8 for a weight, None for an activation. None leaves all products in float32.
        quantize_tables: also keep the embedding tables as int8, one scale per table.

    Scales of weights are widened where a processor could saturate; see `widen_scales`.

    Raises:
        ValueError: the products are of another graph.
    """
    import onnx

    model = onnx.load(source)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    matmuls = [node for node in model.graph.node if node.op_type == "MatMul"]
    products = [(None, None)] * len(matmuls) if products is None else products
    if len(matmuls) != len(products):
        raise ValueError(f"{source} has {len(matmuls)} MatMul nodes, but there are scales for {len(products)}")
    graph = QuantizedGraph(model.graph)
    for node, (activation, other) in zip(matmuls, products):
        if activation is None or other is None:
            continue
        weight = other[1]
        if weight is None:
            node.input[0] = graph.activation(node.input[0], activation[0], node, signed=True)
            node.input[1] = graph.activation(node.input[1], other[0], node, signed=True)
        else:
            node.input[0] = graph.activation(node.input[0], activation[0], node, signed=False)
            node.input[1] = graph.weight(node.input[1], other[0], weight, node)
    if quantize_tables:
        for node in [n for n in model.graph.node if n.op_type == "Gather"]:
            graph.table(node)
    graph.finish()
    widen_scales(model, weights)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def safe_scale(weight, scale):
    """Widens a weight's scale until no pair of its integers can saturate, however they are rounded.

    Processors without VNNI multiply uint8 by int8 in pairs and add the two products in 16 bits, with saturation
    (x86's vpmaddubsw; rows 0 and 1 of a weight meet, 2 and 3, and so on). Where the integers of a pair that have one
    sign add up to at most `LARGEST_PAIR`, they cannot. This takes a step that is some 1.3 times as wide, where 7 bits
    (NNCF's overflow_fix, ONNX Runtime's reduce_range) take one of 2 times for all columns alike.

    Args:
        weight: float32 [in, out].
        scale: float32, the step of one integer, a scalar or [out].
    """
    # Rounding up both moves a pair by less than 2.
    return np.maximum(scale, _largest_pair(weight, np.ndim(scale)) / np.float32(LARGEST_PAIR - 2))


def _largest_pair(weight, per_column):
    """The largest sum of two neighbours in a column, of those of one sign; [out], or one number."""
    pairs = np.pad(weight, ((0, len(weight) % 2), (0, 0))).reshape(-1, 2, weight.shape[1])
    if pairs.dtype == np.int8:
        pairs = pairs.astype(np.int16)
    sums = np.maximum(np.maximum(pairs, 0).sum(axis=1), np.maximum(-pairs, 0).sum(axis=1))
    return sums.max(axis=0 if per_column else None)


def widen_scales(model, weights):
    """Quantizes weights anew, with `safe_scale`, that a processor without VNNI could saturate with, and says so in the
    file's metadata. So an engine computes the same on every processor.

    Args:
        model: an `onnx.ModelProto` of `quantize_onnx` or of ONNX Runtime's quantize_dynamic; is changed.
        weights: {name: `onnx.TensorProto`} of the model that it was made of.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "MatMul":
            dequantize = makers.get(node.input[1])
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            name = dequantize.input[0]
        elif node.op_type == "MatMulInteger":
            name = node.input[1]
        else:
            continue
        if name not in tensors:  # attention's products of two activations, for which kernels do not need it
            continue
        if _largest_pair(numpy_helper.to_array(tensors[name]), False) > LARGEST_PAIR:
            source = name.removesuffix("_quantized")
            scale = numpy_helper.to_array(tensors[f"{source}_scale"])
            if source in weights:
                weight = numpy_helper.to_array(weights[source])
            else:  # of a model that was quantized already
                weight = numpy_helper.to_array(tensors[name]) * scale
            scale = safe_scale(weight, scale)
            values = np.round(weight / scale).astype(np.int8)
            tensors[f"{source}_scale"].CopyFrom(numpy_helper.from_array(scale, f"{source}_scale"))
            tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    if PAIRS_FIT not in [(entry.key, entry.value) for entry in model.metadata_props]:
        model.metadata_props.add(key=PAIRS_FIT[0], value=PAIRS_FIT[1])


class QuantizedGraph:
    """An ONNX graph to which quantization is added node by node."""

    def __init__(self, graph):
        from onnx import TensorProto

        self.graph = graph
        self.tensors = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.before = {}  # {id of a node: nodes that go before it}
        self.made = {}  # {(tensor, form): its dequantized twin}
        self.new = []
        self.replaced = set()

    def _constant(self, name, value):
        from onnx import numpy_helper

        self.new.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add(self, op_type, inputs, output, before, **attributes):
        from onnx import helper

        self.before.setdefault(id(before), []).append(helper.make_node(op_type, inputs, [output], output, **attributes))
        return output

    def activation(self, name, scale, node, signed):
        """Quantizes and dequantizes a tensor before a node; once for all that take it in this form."""
        if signed and self.makers[name].op_type == "Softmax":
            form, zero_point = "unsigned", np.uint8(0)
        else:
            form, zero_point = ("signed", np.int8(0)) if signed else ("shifted", np.uint8(128))
        # Two products of one input have the same scale, but for training's moving averages.
        key = (name, form, float(scale))
        if key not in self.made:
            prefix = f"{name}_{form}" + ("" if (name, form) not in self.made else f"_{len(self.made)}")
            constants = [
                self._constant(f"{prefix}_scale", np.float32(scale)),
                self._constant(f"{prefix}_zero_point", zero_point),
            ]
            quantized = self._add("QuantizeLinear", [name, *constants], f"{prefix}_quantized", node)
            self.made[key] = self._add("DequantizeLinear", [quantized, *constants], f"{prefix}_dequantized", node)
            self.made[name, form] = True
        return self.made[key]

    def weight(self, name, scale, values, node):
        """Puts int8 values [in, out] and their scales, one or one per column, in a weight's place."""
        if tuple(self.tensors[name].dims) != values.shape:
            raise ValueError(f"{name} is {tuple(self.tensors[name].dims)}, but its scales are of {values.shape}")
        inputs = [
            self._constant(f"{name}_quantized", values),
            self._constant(f"{name}_scale", scale),
            self._constant(f"{name}_zero_point", np.zeros(np.shape(scale), np.int8)),
        ]
        self.replaced.add(name)
        axis = {"axis": 1} if np.ndim(scale) else {}
        return self._add("DequantizeLinear", inputs, f"{name}_dequantized", node, **axis)

    def table(self, node):
        """Lets a Gather take from an int8 table, and dequantizes what it took."""
        from onnx import numpy_helper

        name, output = node.input[0], node.output[0]
        if name not in self.tensors or len(self.tensors[name].dims) != 2:
            return
        table = numpy_helper.to_array(self.tensors[name])
        scale = np.float32(max(np.abs(table).max(), 1e-8) / 127)
        constants = [self._constant(f"{name}_scale", scale), self._constant(f"{name}_zero_point", np.int8(0))]
        values = np.clip(np.round(table / scale), -127, 127).astype(np.int8)
        quantized = self._constant(f"{name}_quantized", values)
        self._add("Gather", [quantized, node.input[1]], f"{output}_quantized", node)
        self._add("DequantizeLinear", [f"{output}_quantized", *constants], output, node)
        self.replaced.add(name)
        self.before[id(node)].append(None)  # the Gather itself goes

    def finish(self):
        nodes = []
        for node in self.graph.node:
            before = self.before.get(id(node), [])
            nodes += [n for n in before if n is not None]
            if None not in before:
                nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        kept = [t for t in self.graph.initializer if t.name not in self.replaced]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept + self.new)
