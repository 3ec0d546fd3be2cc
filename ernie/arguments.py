"""Arguments: the command line over the YAML file over the defaults."""

import argparse
import dataclasses
import os
import sys

import paddle
from ernie_predictor.gpu import too_new_or_old_for_paddle
from ernie_predictor.machine import usable_cores
from paddlenlp.trainer import TrainingArguments, set_seed
from paddlenlp.trainer.integrations import is_visualdl_available

from ernie import console
from ernie.argument_checks import check_compression, check_training, check_values
from ernie.argument_parser import ArgumentParser
from ernie.argument_table import CompressionArguments, DataArguments, ModelArguments
from ernie.config_file import dataset_name, read_config
from ernie.models import own_lengths
from ernie.settings import complete_compression, complete_training


def parse_arguments(task, arguments_class=TrainingArguments, argv=None, about=""):
    """Arguments of one script: the command line over the YAML file over the defaults.

    Args:
        task: a row of `TASKS`.
        arguments_class: `TrainingArguments` or `CompressionArguments`.
        argv: the command line; None: this process's own.
        about: what --help says first, the script's docstring.

    Returns:
        (ModelArguments, DataArguments, an `arguments_class`).

    Raises:
        UsageError: an argument or a key that does not exist, or a value that does not fit.
    """
    compress = arguments_class is CompressionArguments
    dataclass_types = (ModelArguments, DataArguments, arguments_class)
    device, device_why = default_device()
    parser = ArgumentParser(
        *(task, task.compress_script if compress else task.script, dataclass_types, about),
        {"device": device, "report_to": ["visualdl"] if is_visualdl_available() else ["none"]},
    )
    said = parser.read(sys.argv[1:] if argv is None else argv)
    if said.get("config"):
        said = {**read_config(parser, said["config"], task, said.get("dataset"), said.get("data_dir")), **said}
    values = {**parser.defaults, **said}
    parser.check_required(values)
    # A fine-tuned model is scored, exported and compressed as it was trained.
    own = {} if values.get("do_train") else own_lengths(task, values["model_name_or_path"])
    values = argparse.Namespace(**{**parser.defaults, **own, **said})
    values.dataset = dataset_name(values.dataset)
    console.show_paddlenlp(values.verbose)
    if values.wandb_api_key:
        # From there wandb takes it, too; PaddleNLP would write it to checkpoints and to VisualDL's log.
        os.environ["WANDB_API_KEY"], values.wandb_api_key = values.wandb_api_key, None
    check_values(values, task, compress)
    if compress:
        check_compression(values)
        complete_compression(values, task)
    else:
        check_training(values, task)
        complete_training(values, task)

    if values.device == "cpu":
        # What several processes talk through, under paddle.distributed.launch; Paddle's own choice needs GPUs.
        os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")

    try:
        arguments = fill(dataclass_types, values)
    except (ValueError, AssertionError) as e:
        parser.error(str(e))
    if values.device.startswith("gpu") and device == "cpu" and paddle.is_compiled_with_cuda():
        parser.error(f"--device {values.device}: {device_why}")
    try:
        paddle.set_device(values.device)
    except ValueError as e:
        parser.error(f"--device {values.device}: {str(e).splitlines()[0]} (leave --device out to run on {device})")
    if values.bf16 and values.device.startswith("gpu") and not paddle.amp.is_bfloat16_supported():
        parser.error("--bf16: this GPU does not compute in bfloat16 (from NVIDIA Ampere on); use --fp16")
    why = f" ({device_why})" if values.device == device else ""
    console.row("device", f"{values.device}{why}, {usable_cores()} CPU cores")
    # PaddleNLP's Trainer sets the seed as well, but the weights of a new head are drawn before there is a Trainer.
    set_seed(values.seed)
    return arguments


def fill(dataclass_types, values):
    """An object of each dataclass; fields that are no argument of the script keep their defaults."""
    arguments = []
    for dataclass_type in dataclass_types:
        names = [f.name for f in dataclasses.fields(dataclass_type) if f.init and hasattr(values, f.name)]
        inputs = {name: getattr(values, name) for name in names}
        if inputs.get("evaluation_strategy") == "no":
            inputs["do_eval"] = False  # or PaddleNLP would turn "no" to "steps"
        arguments.append(dataclass_type(**inputs))
    if hasattr(values, "do_eval"):
        arguments[-1].do_eval = values.do_eval
    return arguments


def default_device():
    """("gpu" or "cpu", why)."""
    if not paddle.is_compiled_with_cuda():
        return "cpu", "this Paddle is built without GPU support"
    if paddle.device.cuda.device_count() == 0:
        return "cpu", "Paddle sees no GPU"
    reason = too_new_or_old_for_paddle(paddle.device.cuda.get_device_capability(), paddle.version.cuda())
    if reason:
        return "cpu", reason
    return "gpu", "Paddle sees a GPU"
