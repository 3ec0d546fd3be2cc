"""What today's releases break, mended in one place. Import this before Paddle: `import workarounds`.

Each entry says what breaks, where it was reported, and what would end it, so that it can be deleted the day
the release is mended. What depends on Paddle's major version (static export, ONNX conversion) stands here too:
moving to Paddle 3 is a change of this file.
"""

# Paddle 2.6's libpaddle.so exports zlib symbols of its own; a zlib that is loaded behind it crashes in
# inflateReset2 when any module inflates at import (PaddlePaddle/Paddle#70538). Ends with Paddle 3.
import zlib  # noqa: F401  isort: skip

import contextlib
import ctypes
import os
import platform
import sys
import warnings

# The predictor's package is used by path, as users run it: this is the one place that says where it is.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "deploy", "predictor"))

from ernie_predictor.machine import usable_cores

# paddlenlp 2.8.1 imports setuptools behind distutils, and Paddle warns of its own `to_static` defaults: nothing
# that a user could act on.
warnings.filterwarnings("ignore", message="Setuptools is replacing distutils")
warnings.filterwarnings("ignore", message="full_graph=False don't support input_spec")


def open_fast_matmul(cpuinfo=None):
    """Paddle's bundled MKL looks at the vendor, not at the instruction set, and takes its slowest path on AMD.

    MKL_DEBUG_CPU_TYPE tells it what the processor can do: 5 is AVX2, 7 is AVX-512. A training step of ERNIE
    3.0-Nano takes less than half the time with it. A value beyond the processor would crash, so it is set from the
    processor's own flags, never over the user's value. Ends when Paddle links a newer MKL or oneDNN there.
    """
    if cpuinfo is None:
        if platform.machine() != "x86_64" or not os.path.exists("/proc/cpuinfo"):
            return
        with open("/proc/cpuinfo") as f:
            cpuinfo = f.read()
    fields = dict(line.split(":", 1) for line in cpuinfo.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.split() for key, value in fields.items()}
    if fields.get("vendor_id") != ["AuthenticAMD"]:
        return
    flags = set(fields.get("flags", ()))
    if flags >= {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "7")
    elif flags >= {"avx2", "fma"}:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


open_fast_matmul()


def use_all_cores():
    """Paddle sets OMP_NUM_THREADS to 1 on import, and so computes on one core whatever the machine has.

    MKL_NUM_THREADS comes before it: a training step of ERNIE 3.0-Nano is 1.2 times faster on 2 cores. Processes
    of one machine under paddle.distributed.launch share its cores. Never over the user's value.
    """
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))
    os.environ.setdefault("MKL_NUM_THREADS", str(max(usable_cores() // processes, 1)))


use_all_cores()


def keep_freed_memory():
    """Paddle takes every tensor on the CPU anew from malloc, and glibc gives large blocks back at once: each
    operator then faults its pages in again, an eighth of the time of a training step at length 512. These
    thresholds let the process keep up to 1 GB for the next operator. Ends when Paddle pools memory on CPUs, too.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    libc = ctypes.CDLL(None)
    libc.mallopt(m_trim_threshold, 2**30)
    libc.mallopt(m_mmap_threshold, 2**25)  # glibc's maximum


keep_freed_memory()


def save_static_model(model, folder, input_dtype="int64"):
    """Writes a Paddle model as a static graph: `folder/model.pdmodel`, `model.pdiparams`.

    Args:
        model: a paddlenlp model that takes (input_ids, token_type_ids), [batch, length] each.
        input_dtype: of these, "int64" or "int32".
    """
    import paddle

    inputs = _input_spec(input_dtype)
    was_training = model.training
    model.eval()
    static = paddle.jit.to_static(model, input_spec=inputs, full_graph=True)
    paddle.jit.save(static, os.path.join(folder, "model"))
    model.forward.rollback()  # the model goes on as a dynamic one
    if was_training:
        model.train()
    # Names of variables for debuggers only; no runtime reads it.
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, "model.pdiparams.info"))


def _input_spec(dtype="int64"):
    import paddle

    return [paddle.static.InputSpec([None, None], dtype, name) for name in ("input_ids", "token_type_ids")]


def static_to_onnx(folder, output_names, opset_version=13):
    """Converts `folder/model.pdmodel` to `folder/model.onnx`.

    Opset 13 is the first with per-channel QuantizeLinear, and every runtime in use reads it.

    paddle2onnx 1.3.1 writes weights as Constant nodes, so that ONNX Runtime fuses and quantizes nothing and says
    nothing, and writes an embedding with a padding_idx and a mask as large, which makes a 301 MB model one of
    425 MB (PaddlePaddle/PaddleNLP#2831). It gives no names to outputs and dimensions. Ends with paddle2onnx 2.1, which
    wants Paddle 3.

    Args:
        output_names: names of the graph's outputs, in order.
    """
    import onnx
    import paddle2onnx

    target = os.path.join(folder, "model.onnx")
    with _silence_stdout():
        paddle2onnx.export(
            os.path.join(folder, "model.pdmodel"),
            os.path.join(folder, "model.pdiparams"),
            target,
            opset_version=opset_version,
            enable_onnx_checker=False,  # checked below, when it is clean
        )
    model = onnx.load(target)
    constants_to_initializers(model.graph)
    fold_masked_embeddings(model.graph)
    drop_unused_and_equal_initializers(model.graph)
    name_inputs_and_outputs(model.graph, output_names)
    onnx.checker.check_model(model)
    onnx.save(model, target)


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
    """Multiplies initializers at once where a node would do so at every run: the converter writes an embedding
    with a padding_idx as the product of the table and a mask of the same size, ones but for the padding's row."""
    from onnx import numpy_helper

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
    """Keeps one of each tensor, and only those that a node takes."""
    first_with, renamed = {}, {}
    used = {name for node in graph.node for name in node.input}
    kept = []
    for tensor in graph.initializer:
        if tensor.name not in used:
            continue
        content = (tensor.data_type, tuple(tensor.dims), _tensor_bytes(tensor))
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


def _tensor_bytes(tensor):
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor).tobytes()


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
    # Shapes that the converter noted in between carry its own dimension names.
    del graph.value_info[:]


@contextlib.contextmanager
def _silence_stdout():
    """The converter prints from C++ straight to file descriptor 1."""
    import sys

    sys.stdout.flush()
    saved = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)


@contextlib.contextmanager
def static_mode():
    """Paddle's static graph mode, with variables of its own that are gone behind it."""
    import paddle

    paddle.enable_static()
    try:
        with paddle.static.scope_guard(paddle.static.Scope()):
            yield paddle.static.Executor(paddle.set_device(paddle.get_device()))
    finally:
        paddle.disable_static()


def run_static_model(prefix, batches):
    """Runs `prefix.pdmodel` on batches, {input name: array} each; yields lists of arrays."""
    import paddle

    with static_mode() as executor:
        program, _, outputs = paddle.static.load_inference_model(prefix, executor)
        for batch in batches:
            yield executor.run(program, feed=batch, fetch_list=outputs)


def post_training_quantization(source, target, batches, algo, args, onnx_format=True, rounding=None):
    """Calibrates `source.pdmodel` and writes the INT8 model `target.pdmodel`, `target.pdiparams`.

    paddlenlp 2.8.1 passes Paddle 2.6 a batch_generator, which Paddle no longer takes (PaddlePaddle/PaddleNLP#9497):
    `data_loader cannot be None`. Paddle itself samples every tensor of the graph, whether it is quantized or not
    (minutes with KL), writes an FP32 model for min_max, and drops bias_correction where onnx_format is on. It inserts
    observers that the saved model takes for real quantization.
    Ends with `paddle.quantization` on Paddle 3.

    Args:
        source, target: paths without extension.
        batches: a list of {"input_ids", "token_type_ids"}, arrays [batch, length].
        algo: one of `ALGORITHMS`.
        args: CompressionArguments.
        rounding: (weight, scale, inputs) -> integers, in place of Paddle's adaround, which does not run: it feeds a
            number where a matrix is declared, and its loss does not depend on the rounding. None: to the nearest.
    """
    import functools

    import numpy as np
    import paddle
    from paddle.static import quantization
    from paddle.static.quantization import post_training_quantization as paddle_ptq

    class MatMulCalibration(quantization.PostTrainingQuantization):
        def _collect_target_varnames(self):
            super()._collect_target_varnames()
            taken = {name for op in _matmuls(self._program) for name in op.input_arg_names}
            self._quantized_act_var_name &= taken

        def _adaround_apply(self):
            inputs = {}  # of one variable for the products that share it
            for op in _matmuls(self._program):
                weight_name, input_name = op.input("Y")[0], op.input("X")[0]
                if weight_name not in self._quantized_weight_var_name:
                    continue
                if input_name not in inputs:
                    fetched = [
                        self._executor.run(self._program, feed=batch, fetch_list=[input_name])[0] for batch in batches
                    ]
                    inputs = {input_name: np.concatenate([x.reshape(-1, x.shape[-1]) for x in fetched])}
                tensor = self._scope.find_var(weight_name).get_tensor()
                weight = np.array(tensor)
                scale = self._weight_scale(weight)
                integers = rounding(weight, scale, inputs[input_name])
                tensor.set((np.clip(integers, -127, 127) * scale).astype(np.float32), self._place)

        def _weight_scale(self, weight):
            by_column = args.weight_quantize_type == "channel_wise_abs_max"
            return np.float32(np.abs(weight).max(axis=0 if by_column else None) / 127)

        def _save_input_threhold(self):  # sic; where min_max ends
            highest = self._quantized_var_max
            for name, low in self._quantized_var_min.items():
                self._quantized_threshold[name] = np.maximum(np.abs(low), np.abs(highest[name])).tolist()
            self._update_program()

        def _save_output_threshold(self):
            pass  # outputs are not sampled

    class NoObservers:
        def __init__(self, **_):
            pass

        def apply(self, graph):
            return graph

    class Batches(paddle.io.IterableDataset):
        def __iter__(self):
            return iter(batches)

    mended = {
        "AddQuantDequantForInferencePass": NoObservers,
        "QuantWeightPass": functools.partial(paddle_ptq.QuantWeightPass, bias_correction=args.bias_correction),
    }
    with (
        static_mode() as executor,
        _replaced(paddle_ptq, **mended),
        _quiet_loggers("paddle.static"),
    ):
        calibration = MatMulCalibration(
            executor=executor,
            data_loader=paddle.io.DataLoader(Batches(), batch_size=None),
            model_dir=os.path.dirname(source),
            model_filename=os.path.basename(source) + ".pdmodel",
            params_filename=os.path.basename(source) + ".pdiparams",
            batch_nums=len(batches),
            algo=algo,
            hist_percent=0.9999,
            round_type="round" if rounding is None else "adaround",
            bias_correction=args.bias_correction,
            quantizable_op_type=["matmul", "matmul_v2"],
            activation_quantize_type=args.activation_quantize_type or "range_abs_max",
            weight_quantize_type=args.weight_quantize_type,
            onnx_format=onnx_format,
        )
        calibration.quantize()
        calibration.save_quantized_model(os.path.dirname(target), os.path.basename(target))


def prepare_qat(model, args):
    """Puts fake quantization before every linear layer of a Paddle model; returns what `save_qat_model` takes.

    paddleslim 2.6 also wraps each linear layer to watch its output's range; Paddle 2.6 then writes the watchers as
    real quantization, which was not there in training (a trained model's logits moved by 0.3 of 4.8). The wrapper
    also hides the weight that ErnieModel.forward asks the pooler for. Without the wrappers neither happens.
    """
    from paddle.nn.quant.quant_layers import FakeQuantMAOutputScaleLayer, MAOutputScaleLayer
    from paddleslim import QAT

    quantizer = QAT(
        {
            "activation_preprocess_type": "PACT" if args.use_pact else None,
            "weight_preprocess_type": "PACT" if args.use_pact else None,
            "weight_quantize_type": args.weight_quantize_type,
            "activation_quantize_type": args.activation_quantize_type or "moving_average_abs_max",
            "weight_bits": 8,
            "activation_bits": 8,
            "dtype": "int8",
            "quantizable_layer_type": ["Linear"],
            "moving_rate": args.moving_rate,
            "onnx_format": args.onnx_format,
        }
    )
    quantizer.quantize(model)
    for parent in model.sublayers(include_self=True):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, (FakeQuantMAOutputScaleLayer, MAOutputScaleLayer)):
                setattr(parent, name, layer._layer)
    return quantizer


def save_qat_model(quantizer, model, target, input_dtype="int64"):
    """Writes the INT8 model `target.pdmodel`, `target.pdiparams` of a model trained behind `prepare_qat`.

    The model serves nothing else afterwards: PACT's clipping is taken out, as paddleslim does, whose own way wraps
    the layers anew.
    """
    from paddle.nn.quant.quant_layers import QuantizedLinear

    model.eval()
    for layer in model.sublayers():
        if isinstance(layer, QuantizedLinear):
            layer._act_preprocess = layer._weight_preprocess = None
    with _quiet_loggers("paddle.static"):
        quantizer.imperative_qat.save_quantized_model(model, target, input_spec=_input_spec(input_dtype))
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{target}.pdiparams.info")


def quantize_embeddings(source, target):
    """Writes `target.pdmodel` with the embedding tables of `source.pdmodel` in INT8, one scale a table.

    paddlenlp 2.8.1 passes names where Paddle 2.6 wants variables: `'feed_vars' should be a Variable`.
    """
    import paddle
    from paddleslim.quant import quant_embedding

    with static_mode() as executor, _quiet_loggers("paddleslim"):
        program, inputs, outputs = paddle.static.load_inference_model(source, executor)
        config = {"quantize_op_types": ["lookup_table_v2"], "lookup_table_v2": {"quantize_type": "abs_max"}}
        names = [output.name for output in outputs]
        program = quant_embedding(program, executor.place, config)
        block = program.global_block()
        paddle.static.save_inference_model(
            target, [block.var(n) for n in inputs], [block.var(n) for n in names], executor, program=program
        )


def read_matmul_scales(prefix):
    """The quantization of every matrix product of `prefix.pdmodel` (an INT8 model in onnx_format), in order.

    Returns:
        A list of (input, weight) a product; each None where it is not quantized, else (scale, values): scale
        float32, the step of one integer, scalar or one a column; values int8 for a weight, None for an activation.
    """
    import numpy as np
    import paddle

    with static_mode() as executor:
        program, _, _ = paddle.static.load_inference_model(prefix, executor)
        scope = paddle.static.global_scope()

        def value(name):
            return np.array(scope.find_var(name).get_tensor())

        makers = {name: op for op in program.global_block().ops for name in op.output_arg_names}

        def quantization_of(name):
            dequantize = makers.get(name)
            if dequantize is None or dequantize.type != "dequantize_linear":
                return None
            scale = value(dequantize.input("Scale")[0]).astype(np.float32) / 127
            source = dequantize.input("X")[0]
            if source in makers:  # a quantize_linear's output: an activation
                return scale.reshape(-1)[0], None
            return (scale.reshape(-1) if scale.size > 1 else scale.reshape(-1)[0]), value(source).astype(np.int8)

        return [(quantization_of(op.input("X")[0]), quantization_of(op.input("Y")[0])) for op in _matmuls(program)]


def _matmuls(program):
    return [op for op in program.global_block().ops if op.type in ("matmul", "matmul_v2")]


@contextlib.contextmanager
def _replaced(module, **attributes):
    saved = {name: getattr(module, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in saved.items():
            setattr(module, name, value)


@contextlib.contextmanager
def _quiet_loggers(name):
    """Only errors from a package's loggers, each of which has a level of its own."""
    import logging

    loggers = [logging.getLogger(n) for n in list(logging.root.manager.loggerDict) if n.startswith(name)]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
