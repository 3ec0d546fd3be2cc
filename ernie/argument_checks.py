"""Checks across several arguments of the six scripts, before anything is loaded.

Whatever would fail hours later, or would silently do nothing or something else, is refused here; what is wrong with
one value by itself, in argument_table.py.
"""

from paddlenlp.trainer.integrations import INTEGRATION_TO_CALLBACK

from ernie.errors import UsageError, UserError, nearest
from ernie.tasks import DATA_SETS

STEPS = ("do_train", "do_eval", "do_predict", "do_export")
# The packages that --report_to needs.
REPORTERS = {"visualdl": "visualdl", "wandb": "wandb", "tensorboard": "tensorboardX"}


def check_values(values, task, compress):
    """Raises UsageError for values that do not fit one another; of all six scripts.

    Args:
        compress: the script is a compress_*.py.
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


def _can_report(name):
    try:
        callback = INTEGRATION_TO_CALLBACK[name]()
    except (ImportError, RuntimeError):
        return False
    # TensorBoard's without a writer would silently log nothing.
    return getattr(callback, "_SummaryWriter", True) is not None


def check_training(values, task):
    """The same, of run_*.py."""
    if values.evaluation_strategy not in (None, "no"):
        values.do_eval = True  # as PaddleNLP has it
    if not any(getattr(values, name) for name in STEPS):
        raise UsageError(f"nothing to do: add one or more of {', '.join(f'--{name}' for name in STEPS)}")
    if values.do_train and values.max_steps <= 0 and values.num_train_epochs == 0:
        raise UsageError("--num_train_epochs 0 would train nothing: leave --do_train out for that")
    metrics = [*task.scores, "loss"]
    metric = values.metric_for_best_model
    name = (metric or task.score).removeprefix("eval_")
    if name not in metrics:
        raise UsageError(f"--metric_for_best_model {metric}: none of {', '.join(metrics)}{nearest(name, metrics)}")


def check_compression(values):
    """The same, of compress_*.py."""
    for name in ("algo_list", "batch_size_list", "batch_num_list"):
        given = getattr(values, name)
        twice = [value for index, value in enumerate(given) if value in given[:index]]
        if twice:
            raise UsageError(f"--{name} {twice[0]}: named twice")
    trains = "dynabert" in values.strategy or "qat" in values.strategy
    if trains and values.max_steps <= 0 and values.num_train_epochs == 0:
        raise UsageError(f"--num_train_epochs 0 would train nothing, but --strategy {values.strategy} trains")
