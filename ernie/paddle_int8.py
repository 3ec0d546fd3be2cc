"""INT8 by Paddle: calibration, quantization-aware training, embedding tables, and the scales that come out.

Everything here ends with `paddle.quantization` on Paddle 3.
"""

import contextlib
import functools
import logging
import os
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import paddle
from ernie_predictor.int8 import safe_scale
from paddle.static import quantization
from paddle.static.quantization import post_training_quantization as paddle_ptq
from paddle.static.quantization import quantization_pass
from tqdm import tqdm

from ernie.static_model import input_spec, static_mode

# In place of Paddle's bars, seven a model, some of which never end.
_no_bar = functools.partial(tqdm, disable=True)


def post_training_quantization(source, target, batches, algo, args, rounding=None):
    """Calibrates `source.pdmodel` and writes the INT8 model `target.pdmodel`, `target.pdiparams`.

    paddlenlp 2.8.1 passes Paddle 2.6 a batch_generator, which Paddle no longer takes (PaddlePaddle/PaddleNLP#9497):
    `data_loader cannot be None`. Paddle itself samples every tensor of the graph, whether it is quantized or not
    (minutes with KL), writes an FP32 model for min_max, and drops bias_correction where onnx_format is on, which means
    QuantizeLinear and DequantizeLinear as in ONNX. It inserts observers that the saved model takes for real
    quantization. Scales of weights are those of `safe_scale`, as in the ONNX model.
    Ends with `paddle.quantization` on Paddle 3.

    Args:
        source, target: paths without extension.
        batches: a list of {"input_ids", "token_type_ids"}, arrays [batch, length].
        algo: one of `ALGORITHMS`.
        args: CompressionArguments.
        rounding: (weight, scale, inputs) -> integers, in place of Paddle's adaround, which does not run: it feeds a
            number where a matrix is declared, and its loss does not depend on the rounding. None: to the nearest.
    """

    scales = {}  # of weights, by name

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
                    run = functools.partial(self._executor.run, self._program, fetch_list=[input_name])
                    fetched = (run(feed=batch)[0] for batch in batches)
                    inputs = {input_name: np.concatenate([x.reshape(-1, x.shape[-1]) for x in fetched])}
                scale = self._weight_scale(weight_name)
                tensor = self._scope.find_var(weight_name).get_tensor()
                integers = rounding(np.array(tensor), scale, inputs[input_name])
                tensor.set((np.clip(integers, -127, 127) * scale).astype(np.float32), self._place)

        def _weight_scale(self, name):
            if name not in scales:  # of the weight as it was before its rounding
                weight = np.array(self._scope.find_var(name).get_tensor())
                by_column = args.weight_quantize_type == "channel_wise_abs_max"
                scale = _above_zero(np.abs(weight).max(axis=0 if by_column else None) / 127)
                scales[name] = safe_scale(weight, scale)
            return scales[name]

        def _update_program(self):
            found = self._quantized_var_threshold if algo in ("KL", "hist") else self._quantized_threshold
            for name in self._quantized_weight_var_name:
                found[name] = 127 * self._weight_scale(name)
            super()._update_program()

        def _save_input_threhold(self):  # sic; where min_max ends
            highest = self._quantized_var_max
            for name, low in self._quantized_var_min.items():
                self._quantized_threshold[name] = np.maximum(np.abs(low), np.abs(highest[name])).tolist()
            self._update_program()

        def _save_output_threshold(self):
            pass  # outputs are not sampled

    fixed = {
        "tqdm": _no_bar,
        "AddQuantDequantForInferencePass": lambda **_: SimpleNamespace(apply=lambda graph: graph),  # no observers
        "QuantWeightPass": functools.partial(paddle_ptq.QuantWeightPass, bias_correction=args.bias_correction),
    }
    _quieten("paddle.static")
    with (
        static_mode() as executor,
        patch.multiple(paddle_ptq, **fixed),
        patch.object(quantization_pass, "tqdm", _no_bar),
    ):
        calibration = MatMulCalibration(
            executor=executor,
            data_loader=paddle.io.DataLoader(batches, batch_size=None),
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
            onnx_format=True,
        )
        calibration.quantize()
        calibration.save_quantized_model(os.path.dirname(target), os.path.basename(target))


def prepare_qat(model, args):
    """Puts fake quantization before every linear layer of a Paddle model; returns the quantizer for `save_qat_model`.

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
            "moving_rate": args.moving_rate,
        }
    )
    quantizer.quantize(model)
    for parent in model.sublayers(include_self=True):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, (FakeQuantMAOutputScaleLayer, MAOutputScaleLayer)):
                setattr(parent, name, layer._layer)
    return quantizer


def save_qat_model(quantizer, model, target, input_dtype="int64"):
    """Writes the INT8 model `target.pdmodel`, `target.pdiparams` of a model trained after `prepare_qat`.

    The model is of no other use afterwards: PACT's clipping is removed, as paddleslim does, whose own way wraps the
    layers again.
    """
    from paddle.nn.quant.quant_layers import QuantizedLinear

    model.eval()
    for layer in model.sublayers():
        if isinstance(layer, QuantizedLinear):
            layer._act_preprocess = layer._weight_preprocess = None
    _quieten("paddle.static")
    with patch.object(quantization_pass, "tqdm", _no_bar):
        quantizer.imperative_qat.save_quantized_model(model, target, input_spec=input_spec(input_dtype))
    with contextlib.suppress(FileNotFoundError):
        os.remove(f"{target}.pdiparams.info")


def quantize_embeddings(source, target):
    """Writes `target.pdmodel` with the embedding tables of `source.pdmodel` in INT8, one scale a table.

    paddlenlp 2.8.1 passes names where Paddle 2.6 wants variables: `'feed_vars' should be a Variable`.
    """
    from paddleslim.quant import quant_embedding

    _quieten("paddleslim")
    with static_mode() as executor:
        program, inputs, outputs = paddle.static.load_inference_model(source, executor)
        config = {"quantize_op_types": ["lookup_table_v2"], "lookup_table_v2": {"quantize_type": "abs_max"}}
        names = [output.name for output in outputs]
        program = quant_embedding(program, executor.place, config)
        ends = ([program.global_block().var(name) for name in part] for part in (inputs, names))
        paddle.static.save_inference_model(target, *ends, executor, program=program)


def read_matmul_scales(prefix):
    """The quantization of every matrix product of `prefix.pdmodel` (an INT8 model), in order.

    Returns:
        A list of (input, weight) a product; each None where it is not quantized, else (scale, values): scale
        float32, the step of one integer, scalar or one a column; values int8 for a weight, None for an activation.
    """
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
            scale = _above_zero(value(dequantize.input("Scale")[0]).astype(np.float32) / 127)
            source = dequantize.input("X")[0]
            if source in makers:  # a quantize_linear's output: an activation
                return scale.reshape(-1)[0], None
            return (scale.reshape(-1) if scale.size > 1 else scale.reshape(-1)[0]), value(source).astype(np.int8)

        return [(quantization_of(op.input("X")[0]), quantization_of(op.input("Y")[0])) for op in _matmuls(program)]


def _above_zero(scale):
    """Scales as float32; those of nothing but zeros, by which would be divided, become tiny ones."""
    return np.maximum(scale, 1e-10).astype(np.float32)


def _matmuls(program):
    return [op for op in program.global_block().ops if op.type in ("matmul", "matmul_v2")]


def _quieten(package):
    """Only errors from a package's loggers, each of which has a level of its own."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(package):
            logging.getLogger(name).setLevel(logging.ERROR)
