"""Checks of the arguments of the six scripts, before anything is loaded; and what follows from one for another.

Whatever would fail hours later, or would silently do nothing or something else, is refused here.
"""

import dataclasses
import difflib
import math
import os
import re

import paddle
from paddlenlp.trainer import TrainingArguments
from paddlenlp.trainer.integrations import INTEGRATION_TO_CALLBACK

from ernie.console import logger
from ernie.errors import UsageError, UserError
from ernie.tasks import DATA_SETS
from ernie.training import LAST


def nearest(name, names):
    """`; did you mean ...?` where one of the names is near."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], n=1)
    return f"; did you mean {close[0]}?" if close else ""


# What decides when a training is scored and saved, and which checkpoint it ends with.
CHECKPOINTING = (
    *("save_strategy", "evaluation_strategy", "eval_steps"),
    *("load_best_model_at_end", "metric_for_best_model"),
)

STRATEGIES = (
    "dynabert",
    "ptq",
    "qat",
    "embeddings",
    "dynabert+ptq",
    "dynabert+qat",
    "dynabert+embeddings",
    "ptq+embeddings",
    "qat+embeddings",
    "dynabert+ptq+embeddings",
    "dynabert+qat+embeddings",
)
ALGORITHMS = ("mse", "KL", "hist", "avg", "abs_max", "min_max", "emd")
STEPS = ("do_train", "do_eval", "do_predict", "do_export")
AT_LEAST_ONE = (
    *("doc_stride", "max_query_length", "n_best_size", "max_answer_length"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("logging_steps", "save_steps", "eval_steps", "eval_accumulation_steps", "save_total_limit"),
)
AT_LEAST_ZERO = (
    *("learning_rate", "weight_decay", "warmup_steps", "num_train_epochs", "seed", "dataloader_num_workers"),
    *("adam_beta1", "adam_beta2", "adam_epsilon"),
)


def check_values(values, task, compress=False):
    """Raises UsageError for values that would fail later, or silently train something else.

    Args:
        compress: the script is a compress_*.py.
    """
    least = {"max_seq_length": 8, "max_steps": -1, **dict.fromkeys(AT_LEAST_ONE, 1), **dict.fromkeys(AT_LEAST_ZERO, 0)}
    for name, minimum in least.items():
        value = getattr(values, name)
        if value is not None and not minimum <= value < math.inf:
            raise UsageError(f"--{name} {value}: must be {minimum} or more" + (", and finite" if value > 0 else ""))
    if values.seed >= 2**32:
        raise UsageError(f"--seed {values.seed}: must be below 2**32")
    if values.max_steps == 0:
        raise UsageError("--max_steps 0 would set no limit: leave it out for that, or --do_train for no training")
    if not compress:
        if values.evaluation_strategy not in (None, "no"):
            values.do_eval = True  # as PaddleNLP has it
        if not any(getattr(values, name) for name in STEPS):
            raise UsageError(f"nothing to do: add one or more of {', '.join(f'--{name}' for name in STEPS)}")
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


# Arguments of PaddleNLP's Trainer that would silently do nothing here, or fail hours later.
WITHOUT_EFFECT = {
    "past_index": "ERNIE has no past states",
    "prediction_loss_only": "scores and predictions need the logits",
    "max_evaluate_steps": "scores and predictions are of all texts",
    "minimum_eval_times": "give --eval_steps",
    "fp16_full_eval": "PaddleNLP does not read it; --fp16 evaluates in mixed precision, too",
    "bf16_full_eval": "PaddleNLP does not read it; --bf16 evaluates in mixed precision, too",
    "ignore_save_lr_and_optim": "a training is resumed with its optimizer; --save_strategy no saves no checkpoints",
    "ignore_load_lr_and_optim": "a training is resumed with its optimizer",
    "enable_auto_parallel": "these scripts train with data parallelism",
    "use_expert_parallel": "ERNIE has no experts",
}
CHOICES = {
    "optim": ("adamw",),
    "fp16_opt_level": ("O0", "O1", "O2"),
    "hybrid_parallel_topo_order": (None, "pp_first", "sharding_first"),
}


def check_trainer_values(values, task):
    """Raises what PaddleNLP's Trainer would fail of after the model is loaded, or ignore."""
    defaults = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
    for name, why in WITHOUT_EFFECT.items():
        if getattr(values, name) != defaults[name]:
            raise UsageError(f"--{name} has no use here: {why}")
    for name in ("tensor_parallel_degree", "pipeline_parallel_degree", "sep_parallel_degree"):
        if getattr(values, name) > 1:
            raise UsageError(f"--{name} {getattr(values, name)}: ERNIE's layers can't be split; leave it out")
    if paddle.distributed.get_world_size() == 1:
        values.local_rank = -1  # any other is taken for a process of several
        if values.sharding:
            raise UsageError(f"--sharding {values.sharding} needs several processes (paddle.distributed.launch)")
    for name, choices in CHOICES.items():
        if getattr(values, name) not in choices:
            raise UsageError(f"--{name} {getattr(values, name)}: expected {' or '.join(filter(None, choices))}")
    if values.lr_scheduler_type == "polynomial" and not values.learning_rate > values.lr_end:
        raise UsageError(f"--lr_end {values.lr_end:g}: must be below --learning_rate {values.learning_rate:g}")
    label_names = list(task.label_names)
    if values.label_names not in (None, label_names):
        raise UsageError(f"--label_names {' '.join(values.label_names)}: the task's are {' '.join(label_names)}")
    values.label_names = label_names
    for name in ("fp16", "bf16"):
        if getattr(values, name) and values.device.partition(":")[0] == "cpu":
            raise UsageError(f"--{name} needs a GPU, XPU or NPU; on the CPU (--device {values.device}) leave it out")
    metrics = [*task.scores, "loss"]
    metric = values.metric_for_best_model
    name = (metric or task.score).removeprefix("eval_")
    if name not in metrics:
        raise UsageError(f"--metric_for_best_model {metric}: none of {', '.join(metrics)}{nearest(name, metrics)}")
    if values.greater_is_better is not None and values.greater_is_better == (name == "loss"):
        raise UsageError(
            f"--greater_is_better {values.greater_is_better} would take the worst checkpoint by {name} for the best: "
            "leave it out"
        )
    check_reporters(values)


# The packages that --report_to needs.
REPORTERS = {"visualdl": "visualdl", "wandb": "wandb", "tensorboard": "tensorboardX", "autonlp": "'ray[tune]<2.8'"}


def check_reporters(values):
    """Raises UserError where what --report_to names is not installed."""
    names = [values.report_to] if isinstance(values.report_to, str) else values.report_to
    for name in names:
        if name in ("all", "none"):
            if len(names) > 1:
                raise UsageError(f"--report_to {' '.join(names)}: {name} stands alone")
        elif name not in REPORTERS:
            known = [*REPORTERS, "all", "none"]
            raise UsageError(f"--report_to {name}: none of {', '.join(known)}{nearest(name, known)}")
        elif not _can_report(name):
            raise UserError(
                f"--report_to {name}: its package is not installed, or can't be imported; pip install "
                f"{REPORTERS[name]}, or leave it out"
            )


def _can_report(name):
    try:
        callback = INTEGRATION_TO_CALLBACK[name]()
    except (ImportError, RuntimeError):
        return False
    # TensorBoard's without a writer would silently log nothing.
    return getattr(callback, "_SummaryWriter", True) is not None


def settle_training(values, task):
    """Completes the arguments of run_*.py: folders, where to resume, when to score, which checkpoint is the best."""
    if values.do_train and values.max_steps <= 0 and values.num_train_epochs == 0:
        raise UsageError("--num_train_epochs 0 would train nothing: leave --do_train out for that")
    # One folder a data set; the scripts' --output_dir is the folder of all of them.
    values.export_model_dir = os.path.expanduser(values.export_model_dir or values.output_dir)
    # Without "./", since PaddleNLP compares the paths of checkpoints as texts.
    values.output_dir = os.path.normpath(os.path.join(os.path.expanduser(values.output_dir), values.dataset))
    resume = (values.resume_from_checkpoint or "").capitalize()
    if resume in ("", "False"):
        values.resume_from_checkpoint = None
    elif resume == LAST:
        values.resume_from_checkpoint = LAST
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


def settle_compression(values, task):
    """Completes the arguments of compress_*.py, whose trainings are scored, saved and resumed in one way."""
    if values.output_dir is None:
        if not os.path.isdir(values.model_name_or_path):
            raise UserError(f"--model_name_or_path {values.model_name_or_path}: no such folder; expected one that "
                            f"{task.script} fine-tuned")  # fmt: skip
        values.output_dir = values.model_name_or_path
    values.output_dir = os.path.normpath(os.path.expanduser(values.output_dir))
    values.do_train = "dynabert" in values.strategy or "qat" in values.strategy
    if values.do_train and values.max_steps <= 0 and values.num_train_epochs == 0:
        raise UsageError(f"--num_train_epochs 0 would train nothing, but --strategy {values.strategy} trains")
    if values.resume_from_checkpoint and values.resume_from_checkpoint.capitalize() not in (LAST, "False"):
        raise UsageError(
            f"--resume_from_checkpoint {values.resume_from_checkpoint}: leave it out; each training of a compression "
            "is resumed from its own last checkpoint"
        )
    values.resume_from_checkpoint = None
    ignored = [f"--{name}" for name in CHECKPOINTING if getattr(values, name) is not None]
    if ignored:
        logger.warning(
            f"{', '.join(ignored)}: not used by compression, which scores and saves every --save_steps, and takes the "
            f"best by {task.score}"
        )
    values.evaluation_strategy, values.save_strategy, values.load_best_model_at_end = "no", "steps", False
    values.metric_for_best_model = task.score


def check_compression_values(values):
    """Checks the arguments of compression; turns widths to numbers.

    PaddleNLP gives them to eval() (paddlenlp 2.8.1, trainer_compress.py), and finds the rest after hours of training.
    """
    if values.strategy not in STRATEGIES:
        raise UsageError(
            f"--strategy {values.strategy}: none of {', '.join(STRATEGIES)}{nearest(values.strategy, STRATEGIES)}"
        )
    for algorithm in values.algo_list:
        if algorithm not in ALGORITHMS:
            raise UsageError(
                f"--algo_list {algorithm}: none of {', '.join(ALGORITHMS)}{nearest(algorithm, ALGORITHMS)}"
            )
    widths = {}
    for text in values.width_mult_list:
        width = read_width(text)
        if width_name(width) in widths:
            raise UsageError(f"--width_mult_list {text}: the folder {width_name(width)} is named twice")
        widths[width_name(width)] = width
    values.width_mult_list = list(widths.values())
    for name in ("batch_size_list", "batch_num_list"):
        if min(getattr(values, name)) < 1:
            raise UsageError(f"--{name} {min(getattr(values, name))}: must be 1 or more")
    for name in ("algo_list", "batch_size_list", "batch_num_list"):
        given = getattr(values, name)
        twice = [value for index, value in enumerate(given) if value in given[:index]]
        if twice:
            raise UsageError(f"--{name} {twice[0]}: named twice")
    if not values.max_drop >= 0:
        raise UsageError(f"--max_drop {values.max_drop:g}: expected points of the score, 0 or more")
    choices = {
        "weight_quantize_type": ("channel_wise_abs_max", "abs_max"),
        "activation_quantize_type": (None, "abs_max", "range_abs_max", "moving_average_abs_max"),
        "round_type": ("round", "adaround"),
        "input_dtype": ("int64", "int32"),
    }
    for name, possible in choices.items():
        if getattr(values, name) not in possible:
            raise UsageError(f"--{name} {getattr(values, name)}: none of {', '.join(filter(None, possible))}")
    if values.prune_embeddings:
        raise UsageError(
            "--prune_embeddings drops words before fine-tuning; here the model is fine-tuned already. To make its "
            "tables smaller, add embeddings to --strategy"
        )
    if values.input_infer_model_path and values.strategy not in ("ptq", "ptq+embeddings"):
        raise UsageError("--input_infer_model_path is for --strategy ptq and ptq+embeddings: the rest trains the model")


def read_width(text):
    """A share of 1 as a float, from a decimal ("0.75") or a fraction ("2/3")."""
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*(?:/\s*(\d*\.?\d+)\s*)?", str(text))
    width = float(match[1]) / float(match[2] or 1) if match and float(match[2] or 1) else 0.0
    if not 0.0001 <= width <= 1:
        raise UsageError(f"--width_mult_list {text}: expected a number above 0 and up to 1, such as 0.75 or 2/3")
    return width


def width_name(width_mult):
    """The folder of a width: width_mult_0.75 as in PaddleNLP, but with four digits, width_mult_0.6667."""
    return f"width_mult_{round(width_mult, 4)}"
