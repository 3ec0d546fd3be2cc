"""Export: model folders are written atomically, and the ONNX model is held against Paddle's."""

import os

import numpy as np
import paddle
from ernie_predictor.machine import usable_cores
from ernie_predictor.runtimes import open_onnx

from ernie import console
from ernie.errors import UserError
from ernie.files import new_folder
from ernie.models import on_cpu
from ernie.onnx_graph import write_onnx
from ernie.results import write_metrics
from ernie.static_model import save_static_model

TOLERANCE = 1e-4  # between the logits of the ONNX model and Paddle's, both in float32 on the CPU


def export_model(task, model, tokenizer, folder, metrics):
    """Writes a self-contained model folder: Paddle static model, ONNX model, config, tokenizer, metrics.

    Raises:
        UserError: the ONNX model's logits are not Paddle's; nothing is written.
    """
    with new_folder(folder) as part:
        error = write_model_folder(task, model, tokenizer, part)
        write_metrics(part, metrics or {"note": "not scored: run with --do_eval"})
    size = os.path.getsize(os.path.join(folder, "model.onnx")) / 2**20
    console.row("exported", f"{folder}: model.onnx {size:.1f} MB; logits differ from Paddle's by at most {error:.1e}")


def write_model_folder(task, model, tokenizer, folder, input_dtype="int64"):
    """Writes everything except metrics.json, and returns `onnx_error`; see `export_model`."""
    save_static_model(model, folder, input_dtype)
    write_onnx(folder, task.outputs, first_token_only=not task.per_token)
    error = onnx_error(model, os.path.join(folder, "model.onnx"))
    if not error < TOLERANCE:
        raise UserError(
            f"the ONNX model's logits differ from Paddle's by {error:.2e} (allowed: {TOLERANCE:g}); nothing was "
            "exported. This is a fault of the conversion: please report it with the model's config.json"
        )
    save_config_and_tokenizer(model, tokenizer, folder)
    return error


def save_config_and_tokenizer(model, tokenizer, folder, quantization="none"):
    model.config.architectures, model.config.quantization = [type(model).__name__], quantization
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def onnx_error(model, onnx_file):
    """Largest difference between Paddle's logits and ONNX Runtime's on ragged batches of random ids.

    Both run on the CPU: GPUs from Ampere on multiply float32 in TF32, which alone moves logits by some 1e-3.
    Batches of 1 to 32 texts, 3 to 512 tokens (or as many as the model takes).
    """
    session = open_onnx(onnx_file, "onnxruntime", usable_cores())
    longest = min(512, model.config.max_position_embeddings)
    generator = np.random.default_rng(0)
    worst = 0.0
    with on_cpu(model) as model:
        for batch, length in ((1, 3), (32, 24), (4, 128), (2, longest)):
            length = min(length, longest)
            input_ids = generator.integers(1, model.config.vocab_size, [batch, length])
            token_type_ids = np.zeros_like(input_ids)
            for row, kept in enumerate(generator.integers(3, length + 1, batch)):
                input_ids[row, kept if row else length :] = model.config.pad_token_id
                token_type_ids[row, kept // 2 : kept] = 1
            with paddle.no_grad():
                expected = model(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids))
            expected = expected if isinstance(expected, (tuple, list)) else [expected]
            found = session({"input_ids": input_ids, "token_type_ids": token_type_ids})
            worst = max(worst, *(float(np.abs(a.numpy() - b).max()) for a, b in zip(expected, found)))
    return worst
