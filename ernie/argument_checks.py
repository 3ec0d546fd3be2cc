"""What arguments of the six scripts mean for one another, before anything is loaded: checks, and what one decides for
another that nobody said.

Whatever would fail hours later, or would silently do nothing or something else, is refused here; what is wrong with
one value by itself, in argument_table.py.
"""

import os
import re

from paddlenlp.trainer.integrations import INTEGRATION_TO_CALLBACK

from ernie.console import logger
from ernie.errors import UsageError, UserError, nearest
from ernie.files import width_name
from ernie.tasks import DATA_SETS

STEPS = ("do_train", "do_eval", "do_predict", "do_export")
# The packages that --report_to needs.
REPORTERS = {"visualdl": "visualdl", "wandb": "wandb", "tensorboard": "tensorboardX"}


def settle(values, task, compress):
    """Checks the values of a script's arguments, and completes them.

    Args:
        values: {argument: value} as a namespace, which is changed.
        task: a row of `TASKS`.
        compress: the script is a compress_*.py.

    Raises:
        UsageError: values that do not fit one another.
    """
    if values.dynamic_max_length and max(values.dynamic_max_length) < values.max_seq_length:
        raise UsageError(
            f"--dynamic_max_length {max(values.dynamic_max_length)}: the last of these lengths must hold "
            f"--max_seq_length {values.max_seq_length}"
        )
    known = DATA_SETS.get(values.dataset)
    if known and known.task is not task:
        script = known.task.compress_script if compress else known.task.script
        raise UsageError(f"--dataset {values.dataset} is of another task: use {script}")
    if values.data_dir is None and known is None:
        names = [name for name, row in DATA_SETS.items() if row.task is task]
        raise UsageError(
            f"--dataset {values.dataset}: none of {', '.join(names)}{nearest(values.dataset, names)} "
            "For a data set of your own add --data_dir"
        )
    if values.max_steps == 0:
        raise UsageError("--max_steps 0: would set no limit; leave it out for that, or --do_train for no training")
    if values.lr_scheduler_type == "polynomial" and not values.learning_rate > values.lr_end:
        raise UsageError(f"--lr_end {values.lr_end:g}: must be below --learning_rate {values.learning_rate:g}")
    for name in ("fp16", "bf16"):
        if getattr(values, name) and values.device.partition(":")[0] == "cpu":
            raise UsageError(f"--{name} needs a GPU, XPU or NPU; on the CPU (--device {values.device}) leave it out")
    for name in values.report_to:
        if name in ("all", "none"):
            if len(values.report_to) > 1:
                raise UsageError(f"--report_to {' '.join(values.report_to)}: {name} stands alone")
        elif not _can_report(name):
            raise UserError(
                f"--report_to {name}: its package is not installed, or can't be imported; pip install "
                f"{REPORTERS[name]}, or leave it out"
            )
    values.label_names = list(task.label_names)
    if compress:
        _settle_compression(values, task)
    else:
        _settle_training(values, task)
    if values.do_train and values.max_steps <= 0 and values.num_train_epochs == 0:
        why = f", but --strategy {values.strategy} trains" if compress else ": leave --do_train out for that"
        raise UsageError(f"--num_train_epochs 0 would train nothing{why}")


def _can_report(name):
    try:
        callback = INTEGRATION_TO_CALLBACK[name]()
    except (ImportError, RuntimeError):
        return False
    # TensorBoard's without a writer would silently log nothing.
    return getattr(callback, "_SummaryWriter", True) is not None


def _settle_training(values, task):
    """Of run_*.py: folders, where to resume, when to score, which checkpoint is the best."""
    if values.evaluation_strategy not in (None, "no"):
        values.do_eval = True  # as PaddleNLP has it
    if not any(getattr(values, name) for name in STEPS):
        raise UsageError(f"nothing to do: add one or more of {', '.join(f'--{name}' for name in STEPS)}")
    metrics = [*task.scores, "loss"]
    metric = values.metric_for_best_model
    name = (metric or task.score).removeprefix("eval_")
    if name not in metrics:
        raise UsageError(f"--metric_for_best_model {metric}: none of {', '.join(metrics)}{nearest(name, metrics)}")

    # One folder a data set; the scripts' --output_dir is the folder of all of them.
    values.export_model_dir = os.path.expanduser(values.export_model_dir or values.output_dir)
    # Without "./", since PaddleNLP compares the paths of checkpoints as texts.
    values.output_dir = os.path.normpath(os.path.join(os.path.expanduser(values.output_dir), values.dataset))
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
        values.metric_for_best_model = metric or task.score


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


def _settle_compression(values, task):
    """Of compress_*.py, whose trainings are scored, saved and resumed in one way."""
    for name in ("algo_list", "batch_size_list", "batch_num_list"):
        given = getattr(values, name)
        twice = [value for index, value in enumerate(given) if value in given[:index]]
        if twice:
            raise UsageError(f"--{name} {twice[0]}: named twice")
    if values.output_dir is None:
        if not os.path.isdir(values.model_name_or_path):
            raise UserError(f"--model_name_or_path {values.model_name_or_path}: no such folder; expected one that "
                            f"{task.script} fine-tuned")  # fmt: skip
        values.output_dir = values.model_name_or_path
    values.output_dir = os.path.normpath(os.path.expanduser(values.output_dir))
    values.width_mult_list = read_widths(values.width_mult_list)
    values.do_train, values.do_eval = "dynabert" in values.strategy or "qat" in values.strategy, False
    values.metric_for_best_model = task.score


def read_widths(texts):
    """The numbers of --width_mult_list."""
    widths = {}
    for text in texts:
        width = read_width(text)
        if width_name(width) in widths:
            raise UsageError(f"--width_mult_list {text}: the folder {width_name(width)} is named twice")
        widths[width_name(width)] = width
    return list(widths.values())


def read_width(text):
    """A share of 1 as a float, from a decimal ("0.75") or a fraction ("2/3"): PaddleNLP would eval() it."""
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*(?:/\s*(\d*\.?\d+)\s*)?", str(text))
    width = float(match[1]) / float(match[2] or 1) if match and float(match[2] or 1) else 0.0
    if not 0.0001 <= width <= 1:
        raise UsageError(f"--width_mult_list {text}: expected a number above 0 and up to 1, such as 0.75 or 2/3")
    return width
