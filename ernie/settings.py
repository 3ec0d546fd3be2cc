"""Settings: what one argument decides for another, and settings.json: with what a model was trained or compressed."""

import dataclasses
import enum
import os
import platform
import re
import sys

import paddle
import paddlenlp
from paddlenlp.trainer import CompressionArguments

from ernie.console import logger
from ernie.errors import UsageError, UserError
from ernie.files import write_json
from ernie.plan import read_widths


def complete_training(values, task):
    """Completes the arguments of run_*.py: folders, where to resume, when to score, which checkpoint is the best."""
    # One folder a data set; the scripts' --output_dir is the folder of all of them.
    values.export_model_dir = os.path.expanduser(values.export_model_dir or values.output_dir)
    # Without "./", since PaddleNLP compares the paths of checkpoints as texts.
    values.output_dir = os.path.normpath(os.path.join(os.path.expanduser(values.output_dir), values.dataset))
    values.label_names = list(task.label_names)
    resume = (values.resume_from_checkpoint or "").capitalize()
    if resume in ("", "False"):
        values.resume_from_checkpoint = None
    elif resume == "True":
        values.resume_from_checkpoint = resume
        if values.overwrite_output_dir:
            raise UsageError("--resume_from_checkpoint True resumes, --overwrite_output_dir starts again: choose one")

    values.save_strategy = values.save_strategy or "steps"
    if values.do_eval and values.evaluation_strategy is None:
        by_steps = values.eval_steps or values.save_strategy == "no"
        values.evaluation_strategy = "steps" if by_steps else values.save_strategy
    values.evaluation_strategy = values.evaluation_strategy or "no"
    values.eval_steps = values.eval_steps or values.save_steps
    obstacle = _obstacle_to_the_best(values)
    if values.do_train and obstacle and values.load_best_model_at_end:
        raise UsageError(f"--load_best_model_at_end: {obstacle}")
    if values.do_train and values.do_eval and obstacle and values.load_best_model_at_end is None:
        logger.warning(f"the last checkpoint is the result, not the best: {obstacle}")
    wanted = values.load_best_model_at_end is not False
    values.load_best_model_at_end = values.do_train and wanted and not obstacle
    if values.load_best_model_at_end:
        values.metric_for_best_model = values.metric_for_best_model or task.score


def _obstacle_to_the_best(values):
    """Why no checkpoint can be chosen by its dev score, or None."""
    save, evaluate = values.save_strategy, values.evaluation_strategy
    if not values.do_eval:
        return "without --do_eval no checkpoint is scored"
    if save == "no":
        return "with --save_strategy no there are no checkpoints"
    if evaluate == "no":
        return "with --evaluation_strategy no no checkpoint is scored"
    if save != evaluate:
        return f"--save_strategy {save} and --evaluation_strategy {evaluate} must be the same"
    if save == "steps" and values.save_steps % values.eval_steps:
        return f"--save_steps {values.save_steps} must be a multiple of --eval_steps {values.eval_steps}"
    return None


def complete_compression(values, task):
    """Completes the arguments of compress_*.py, whose trainings are scored, saved and resumed in one way."""
    if values.output_dir is None:
        if not os.path.isdir(values.model_name_or_path):
            raise UserError(f"--model_name_or_path {values.model_name_or_path}: no such folder; expected one that "
                            f"{task.script} fine-tuned")  # fmt: skip
        values.output_dir = values.model_name_or_path
    values.output_dir = os.path.normpath(os.path.expanduser(values.output_dir))
    values.width_mult_list = read_widths(values.width_mult_list)
    values.do_train = "dynabert" in values.strategy or "qat" in values.strategy
    values.label_names = list(task.label_names)
    values.metric_for_best_model = task.score


def write_settings(model_args, data_args, args, replace=True):
    """Writes every argument and the versions to settings.json; keys and tokens of accounts are left out.

    It lies in --output_dir, that of a compression in <output_dir>/compression.

    Args:
        replace: whether the model in the folder is of these settings; if not, a settings.json that is there stays.
    """
    compress = isinstance(args, CompressionArguments)
    path = os.path.join(args.output_dir, "compression" if compress else "", "settings.json")
    if not args.should_save or (not replace and os.path.exists(path)):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_json(
        path,
        {
            "script": os.path.basename(sys.argv[0]),
            "versions": {
                "python": platform.python_version(),
                "paddlepaddle": paddle.__version__,
                "paddlenlp": paddlenlp.__version__,
            },
            "model": values_of(model_args),
            "data": values_of(data_args),
            "training": values_of(args),
        },
    )


def values_of(arguments):
    """{argument: value} of a dataclass of arguments, as JSON can hold it; keys and tokens of accounts are left out."""
    names = (field.name for field in dataclasses.fields(arguments))
    secret = re.compile(r"(_key|_token|_secret|password)$")
    return {name: _plain(getattr(arguments, name)) for name in names if not secret.search(name)}


def _plain(value):
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, dict, type(None))) else str(value)
