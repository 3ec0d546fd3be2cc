"""Arguments: the command line over the YAML file over the defaults."""

import argparse
import os
import sys

import paddle
from ernie_predictor.gpu import too_new_or_old_for_paddle
from ernie_predictor.machine import usable_cores
from paddlenlp.trainer import TrainingArguments, set_seed
from paddlenlp.trainer.integrations import is_visualdl_available
from paddlenlp.utils.log import logger as paddlenlp_logger

from ernie import console
from ernie.argument_checks import settle
from ernie.argument_parser import ArgumentParser, dataset_name
from ernie.argument_table import CompressionArguments, DataArguments, ModelArguments
from ernie.models import own_lengths


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
    script = task.compress_script if compress else task.script
    device, device_why = default_device()
    defaults = {"device": device, "report_to": ["visualdl"] if is_visualdl_available() else ["none"]}
    parser = ArgumentParser(task, script, (ModelArguments, DataArguments, arguments_class), about, defaults)
    said = parser.read(sys.argv[1:] if argv is None else argv)
    if said.get("config"):
        said = {**parser.read_config(said["config"], said.get("dataset"), said.get("data_dir")), **said}
    parser.check_required(said)
    # A fine-tuned model is scored, exported and compressed as it was trained.
    own = {} if said.get("do_train") else own_lengths(task, said["model_name_or_path"])
    values = argparse.Namespace(**{**parser.defaults, **own, **said})
    values.dataset = dataset_name(values.dataset)
    paddlenlp_logger.set_level("INFO" if values.verbose else "WARNING")  # at DEBUG it lists the arguments
    if values.wandb_api_key:
        # From there wandb takes it, too; PaddleNLP would write it to checkpoints and to VisualDL's log.
        os.environ["WANDB_API_KEY"], values.wandb_api_key = values.wandb_api_key, None
    settle(values, task, compress)

    if values.device == "cpu":
        # What several processes talk through, under paddle.distributed.launch; Paddle's own choice needs GPUs.
        os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")

    try:
        # For --do_eval PaddleNLP would turn the strategy "no" to "steps".
        arguments = parser.parse_dict({**vars(values), "do_eval": False})
    except (ValueError, AssertionError) as e:
        parser.error(str(e))
    arguments[-1].do_eval = values.do_eval
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


def default_device():
    """("gpu" or "cpu", why)."""
    if not paddle.is_compiled_with_cuda():
        return "cpu", "this Paddle is built without GPU support"
    if paddle.device.cuda.device_count() == 0:
        return "cpu", "Paddle sees no GPU"
    reason = too_new_or_old_for_paddle(paddle.device.cuda.get_device_capability(), paddle.version.cuda())
    return ("cpu", reason) if reason else ("gpu", "Paddle sees a GPU")
