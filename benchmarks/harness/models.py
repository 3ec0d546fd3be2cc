"""Models with random weights, as the scripts export and compress them, and Paddle Inference as it was published."""

import workarounds  # noqa: F401  before Paddle

import os

import numpy as np
import paddlenlp.transformers
from ernie_predictor.int8 import quantize_onnx
from paddlenlp.transformers import ErnieTokenizer

from ernie.arguments import CompressionArguments
from ernie.export import save_config_and_tokenizer, write_model_folder
from ernie.paddle_int8 import post_training_quantization, read_matmul_scales
from ernie.pruning import narrow
from ernie.tasks import DATA_SETS, TASKS
from examples.make_model import make_model

LABELS = {"seq_cls": DATA_SETS["tnews"].labels, "token_cls": DATA_SETS["msra_ner"].labels, "qa": ()}


def random_batch(vocab_size, batch, length, seed=0):
    input_ids = np.random.default_rng(seed).integers(1, vocab_size, [batch, length])
    return {"input_ids": input_ids, "token_type_ids": np.zeros_like(input_ids)}


def make_folders(task, arch, vocab_file, folder, width_mult=0.75):
    """Makes models of a task: FP32, INT8 (calibrated on random ids), and both at `width_mult`.

    Returns:
        ({what a model is called: its folder, as the scripts write it}, size of the vocabulary).
    """
    labels, task = LABELS[task], TASKS[task]
    auto_class = getattr(paddlenlp.transformers, f"AutoModelFor{task.head}")
    source = os.path.join(folder, "pretrained")
    make_model(arch, vocab_file, source)
    tokenizer = ErnieTokenizer.from_pretrained(source)
    compression_args = CompressionArguments(output_dir=folder)
    folders = {}
    for width, prefix in ((1.0, ""), (width_mult, f"width {width_mult:g}, ")):
        model = auto_class.from_pretrained(source, **({"num_labels": len(labels)} if labels else {}))
        if labels:
            model.config.id2label = dict(enumerate(labels))
        if width < 1:
            narrow(model, width)
        else:
            model.save_pretrained(source)  # with its head, so that the narrow model has the same
        plain, int8 = (os.path.join(folder, f"{name}_{width:g}") for name in ("fp32", "int8"))
        for path in (plain, int8):
            os.makedirs(path)
        write_model_folder(task, model, tokenizer, plain)
        batches = [random_batch(model.config.vocab_size, 16, 64, seed) for seed in range(2)]
        prefix_of_int8 = os.path.join(int8, "int8")
        post_training_quantization(os.path.join(plain, "model"), prefix_of_int8, batches, "mse", compression_args)
        scales = read_matmul_scales(prefix_of_int8)
        quantize_onnx(os.path.join(plain, "model.onnx"), os.path.join(int8, "model.onnx"), scales, quantize_tables=True)
        save_config_and_tokenizer(model, tokenizer, int8)
        folders[f"{prefix}FP32"], folders[f"{prefix}INT8"] = plain, int8
    return folders, model.config.vocab_size


def paddle_inference(folder, threads):
    """Paddle Inference FP32 with oneDNN, as the published figures were taken."""
    from paddle import inference

    config = inference.Config(os.path.join(folder, "model.pdmodel"), os.path.join(folder, "model.pdiparams"))
    config.disable_gpu()
    config.enable_mkldnn()
    # Neither changes the speed; without them 32 texts of 512 tokens take more than 10 GB.
    config.enable_memory_optim()
    config.set_mkldnn_cache_capacity(2)
    config.set_cpu_math_library_num_threads(threads)
    config.disable_glog_info()
    predictor = inference.create_predictor(config)

    def run(batch):
        for name in predictor.get_input_names():
            predictor.get_input_handle(name).copy_from_cpu(batch[name])
        predictor.run()
        return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]

    return run


def check_logits(name, logits, expected, limit):
    """The largest error of a logit against Paddle's, as a share of the largest one; ends the program above `limit`."""
    error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(logits, expected))
    if not error < limit:
        raise SystemExit(f"{name}: the logits differ from Paddle's by {100 * error:.2f}% of the largest")
    return error
