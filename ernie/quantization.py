"""Quantization: Paddle's scales, calibrated or trained, and an ONNX model that really computes with them in INT8."""

import workarounds

import copy
import os
import tempfile

import numpy as np

from ernie.export import save_config_and_tokenizer, write_model_folder
from ernie.training import ErnieTrainer


def calibration_batches(dataset, collator, batch_size, batch_num, seed, dtype="int64"):
    """Random texts of the training set in batches, {"input_ids", "token_type_ids"}: arrays [batch, length]."""
    count = min(batch_size * batch_num, len(dataset))
    chosen = np.random.default_rng(seed).choice(len(dataset), count, replace=False)
    batches = []
    for begin in range(0, count, batch_size):
        batch = collator([dataset[i] for i in chosen[begin : begin + batch_size]])
        batches.append({name: batch[name].numpy().astype(dtype) for name in ("input_ids", "token_type_ids")})
    return batches


def adaptive_rounding(weight, scale, inputs, steps=400, learning_rate=0.05, regularization=1.0):
    """Rounds each weight up or down so that the product's error on real inputs is least, not the weight's own.

    AdaRound (Nagel et al., arXiv:2004.10568): a soft rounding between 0 and 1 a weight, trained by Adam on the
    squared error of the output, and driven to its ends. A column that this does not better is rounded to the nearest.

    Args:
        weight: float32 [in, out].
        scale: the step of one integer, a scalar or [out].
        inputs: float32 [tokens, in], what the weight is multiplied with.

    Returns:
        Integers as float32 [in, out].
    """
    grid = weight / scale
    low = np.floor(grid)
    gram = inputs.T @ inputs / len(inputs)

    def errors(rounded):
        difference = (rounded - grid) * scale
        return (difference * (gram @ difference)).sum(axis=0)

    nearest = np.round(grid)
    before = errors(nearest) + 1e-20
    # The soft rounding is a sigmoid stretched to [-0.1, 1.1] and cut at 0 and 1.
    soft = -np.log(1.2 / (np.clip(grid - low, 0.01, 0.99) + 0.1) - 1)
    mean, square = np.zeros_like(soft), np.zeros_like(soft)
    for step in range(1, steps + 1):
        sigmoid = 1 / (1 + np.exp(-soft))
        up = np.clip(1.2 * sigmoid - 0.1, 0, 1)
        gradient = 2 * (gram @ ((low + up - grid) * scale)) * scale / before * len(weight)
        if step > 0.2 * steps:
            progress = (step - 0.2 * steps) / (0.8 * steps)
            beta = 2 + 9 * (1 + np.cos(progress * np.pi))  # from 20 to 2
            centred = 2 * up - 1
            gradient -= regularization * 2 * beta * np.abs(centred) ** (beta - 1) * np.sign(centred)
        gradient *= np.where((up > 0) & (up < 1), 1.2 * sigmoid * (1 - sigmoid), 0)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        soft -= learning_rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    rounded = low + (soft >= 0)
    return np.where(errors(rounded) < before, rounded, nearest)


def quantize_onnx(source, target, products, quantize_tables=False):
    """Writes an ONNX model whose matrix products are computed in INT8, with QuantizeLinear and DequantizeLinear.

    Where a weight is multiplied, its input is quantized to uint8 with the zero point 128: the same steps as Paddle's
    int8, and the only form for which ONNX Runtime's default provider has a fast kernel on x86-64, while OpenVINO
    runs both alike. The two inputs of attention's products are int8, the softmax uint8 from 0 up, since OpenVINO
    fuses attention only without zero points.

    Args:
        source, target: ONNX files.
        products: of `workarounds.read_matmul_scales`, in the order of the graph's MatMul nodes; None leaves these.
        quantize_tables: also keep the embedding tables as int8, one scale a table.

    Raises:
        ValueError: the products are of another graph.
    """
    import onnx

    model = onnx.load(source)
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
    onnx.checker.check_model(model)
    onnx.save(model, target)


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
        """Puts int8 values [in, out] and their scales, one or one a column, in a weight's place."""
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
        scale = np.float32(np.abs(table).max() / 127)
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


class QuantizationAwareTrainer(ErnieTrainer):
    """Trains a model with fake quantization before its linear layers."""

    def __init__(self, *args, model, compression_args, **kwargs):
        # What the trained weights go back to: a model without fake quantization.
        self.float_model = copy.deepcopy(model)
        self.compression_args = compression_args
        self.quantizer = workarounds.prepare_qat(model, compression_args)
        super().__init__(*args, model=model, **kwargs)

    def write_int8(self, task, tokenizer, folder, dataset, collator):
        """int8.pdmodel with the trained scales, and model.onnx with the same.

        Training knows no scales for attention's products of two activations; for these they are calibrated.
        """
        args = self.compression_args
        state = self.model.state_dict()
        self.float_model.set_state_dict({name: state[name] for name in self.float_model.state_dict()})
        with tempfile.TemporaryDirectory() as part:
            write_model_folder(task, self.float_model, tokenizer, part, args.input_dtype)
            batches = calibration_batches(dataset, collator, 16, 1, args.seed, args.input_dtype)
            calibrated = os.path.join(part, "calibrated")
            workarounds.post_training_quantization(os.path.join(part, "model"), calibrated, batches, "mse", args)
            if not args.onnx_format:  # the scales are read from a model in this format
                scales = os.path.join(part, "trained")
                workarounds.save_qat_model(self.quantizer, self.model, scales, args.input_dtype, onnx_format=True)
            workarounds.save_qat_model(self.quantizer, self.model, os.path.join(folder, "int8"), args.input_dtype)
            trained = workarounds.read_matmul_scales(os.path.join(folder, "int8") if args.onnx_format else scales)
            products = [
                other if product[0] is None else product
                for product, other in zip(trained, workarounds.read_matmul_scales(calibrated))
            ]
            quantize_onnx(os.path.join(part, "model.onnx"), os.path.join(folder, "model.onnx"), products)
        save_config_and_tokenizer(self.float_model, tokenizer, folder)
