"""Quantization: Paddle's scales, calibrated or trained, and an ONNX model that really computes with them in INT8."""

import copy
import os
import tempfile

import numpy as np
from ernie_predictor.int8 import quantize_onnx

from ernie import paddle_int8
from ernie.export import save_config_and_tokenizer, write_model_folder
from ernie.files import copy_config_and_tokenizer
from ernie.training import ErnieTrainer


def calibration_batches(features, collator, batch_size, batch_num, args):
    """Random texts of the training set in batches, {"input_ids", "token_type_ids"}: arrays [batch, length]."""
    count = min(batch_size * batch_num, len(features))
    chosen = np.random.default_rng(args.seed).choice(len(features), count, replace=False)
    texts, names = [features[i] for i in chosen], ("input_ids", "token_type_ids")
    batches = (collator(texts[i : i + batch_size]) for i in range(0, count, batch_size))
    return [{name: batch[name].astype(args.input_dtype) for name in names} for batch in batches]


def adaptive_rounding(weight, scale, inputs):
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
    steps, learning_rate = 400, 0.05
    scale = np.where(scale > 0, scale, 1).astype(np.float32)  # a column of zeros has none
    grid = weight / scale
    low = np.floor(grid)
    gram = inputs.T @ inputs / len(inputs)

    def errors(rounded):
        difference = (rounded - grid) * scale
        return (difference * (gram @ difference)).sum(axis=0)

    nearest = np.round(grid)
    before = errors(nearest)
    unit = np.where(before > 0, before, 1)
    # The soft rounding is a sigmoid stretched to [-0.1, 1.1] and cut at 0 and 1.
    soft = -np.log(1.2 / (np.clip(grid - low, 0.01, 0.99) + 0.1) - 1)
    mean, square = np.zeros_like(soft), np.zeros_like(soft)
    for step in range(1, steps + 1):
        sigmoid = 1 / (1 + np.exp(-soft))
        up = np.clip(1.2 * sigmoid - 0.1, 0, 1)
        gradient = 2 * (gram @ ((low + up - grid) * scale)) * scale / unit * len(weight)
        if step > 0.2 * steps:
            progress = (step - 0.2 * steps) / (0.8 * steps)
            beta = 2 + 9 * (1 + np.cos(progress * np.pi))  # from 20 to 2
            centred = 2 * up - 1
            gradient -= 2 * beta * np.abs(centred) ** (beta - 1) * np.sign(centred)
        gradient *= np.where((up > 0) & (up < 1), 1.2 * sigmoid * (1 - sigmoid), 0)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        soft -= learning_rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    rounded = low + (soft >= 0)
    return np.where(errors(rounded) < before, rounded, nearest)


def write_calibrated(source, folder, batches, algo, args):
    """Post-training quantization: a model folder with int8.pdmodel, and model.onnx with the same scales.

    Args:
        source: the folder of an FP32 variant.
        batches: of `calibration_batches`.
        algo: one of `ALGORITHMS`.
        args: CompressionArguments.
    """
    model, target = os.path.join(source, "model"), os.path.join(folder, "int8")
    rounding = adaptive_rounding if args.round_type == "adaround" else None
    paddle_int8.post_training_quantization(model, target, batches, algo, args, rounding)
    scales = paddle_int8.read_matmul_scales(target)
    quantize_onnx(model + ".onnx", os.path.join(folder, "model.onnx"), scales)
    copy_config_and_tokenizer(source, folder, "static")


def write_with_int8_tables(source, folder):
    """The model folder of a variant, with embedding tables in INT8, too."""
    static = os.path.exists(os.path.join(source, "int8.pdmodel"))
    paddle_int8.quantize_embeddings(os.path.join(source, "int8" if static else "model"), os.path.join(folder, "int8"))
    quantize_onnx(*(os.path.join(path, "model.onnx") for path in (source, folder)), None, quantize_tables=True)
    copy_config_and_tokenizer(source, folder, "static" if static else "embeddings")


class QuantizationAwareTrainer(ErnieTrainer):
    """Trains a model with fake quantization before its linear layers, as CompressionArguments say."""

    name = "qat"

    def __init__(self, task, model, args, *more):
        # Takes the trained weights in the end: a model without fake quantization.
        self.float_model = copy.deepcopy(model)
        self.quantizer = paddle_int8.prepare_qat(model, args)
        super().__init__(task, model, args, *more)

    def write_int8(self, folder):
        """A model folder with int8.pdmodel, with the trained scales, and model.onnx with the same.

        Training learns no scales for attention's products of two activations; these are calibrated.
        """
        args, model = self.args, self.model
        state = model.state_dict()
        self.float_model.set_state_dict({name: state[name] for name in self.float_model.state_dict()})
        with tempfile.TemporaryDirectory() as part:
            write_model_folder(self.task, self.float_model, self.tokenizer, part, args.input_dtype)
            float_model, calibrated = os.path.join(part, "model"), os.path.join(part, "calibrated")
            trained = os.path.join(folder, "int8")
            batches = calibration_batches(self.train_split.features, self.data_collator, 16, 1, args)
            paddle_int8.post_training_quantization(float_model, calibrated, batches, "mse", args)
            paddle_int8.save_qat_model(self.quantizer, model, trained, args.input_dtype)
            scales = zip(*map(paddle_int8.read_matmul_scales, (trained, calibrated)))
            products = [other if product[0] is None else product for product, other in scales]
            quantize_onnx(float_model + ".onnx", os.path.join(folder, "model.onnx"), products)
        save_config_and_tokenizer(self.float_model, self.tokenizer, folder, "static")
