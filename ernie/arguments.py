"""Arguments: the command line over the YAML file over the defaults."""

import argparse
import dataclasses
import difflib
import math
import os
import re
import sys
from dataclasses import dataclass, field

import paddle
import yaml
from paddlenlp.trainer import CompressionArguments as PaddleCompressionArguments
from paddlenlp.trainer import PdArgumentParser, TrainingArguments, set_seed
from paddlenlp.trainer.integrations import INTEGRATION_TO_CALLBACK, is_visualdl_available
from paddlenlp.utils.log import logger

from ernie.errors import UsageError, UserError
from ernie.tasks import DATA_SETS, QA, TASKS
from ernie.training import LAST


@dataclass
class ModelArguments:
    model_name_or_path: str = field(
        metadata={
            "help": "A model of the hub (ernie-3.0-{base,medium,mini,micro,nano}-zh) or the path of a model folder."
        },
    )
    config: str = field(
        default=None, metadata={"help": "YAML file of hyperparameters; the command line wins over what stands there."}
    )
    export_model_dir: str = field(
        default=None,
        metadata={"help": "--do_export writes to <this>/<dataset>/export. Left out: as --output_dir."},
    )


@dataclass
class DataArguments:
    dataset: str = field(
        metadata={
            "help": "afqmc, tnews, iflytek, ocnli, cmnli, cluewsc2020, csl (run_seq_cls.py), msra_ner "
            "(run_token_cls.py), cmrc2018 (run_qa.py), or with --data_dir a folder name of your own."
        }
    )
    data_dir: str = field(
        default=None,
        metadata={
            "help": "Read <this>/<dataset>/{train,dev,test}.json (NER: .tsv, .txt) in CLUE's formats in place of "
            "downloading the data set."
        },
    )
    max_seq_length: int = field(
        default=128,
        metadata={
            "help": "Longest input in tokens, special tokens included; longer texts are cut (NER, QA: windowed)."
        },
    )
    dynamic_max_length: list[int] = field(
        default=None,
        metadata={
            "help": "Pad a batch to the first of these lengths that holds it, e.g. 16 32 64 128: few shapes for "
            "devices that compile each. Left out: to the batch's own longest text."
        },
    )
    doc_stride: int = field(
        default=128,
        metadata={"help": "QA, NER: tokens from the beginning of one window to the next (NER: up to half a window)."},
    )
    max_query_length: int = field(default=64, metadata={"help": "QA: a question is cut behind so many tokens."})
    n_best_size: int = field(default=20, metadata={"help": "QA: candidates a window, and answers a question."})
    max_answer_length: int = field(default=50, metadata={"help": "QA: longest answer in tokens."})
    use_fast_tokenizer: bool = field(
        default=True,
        metadata={
            "help": "FastTokenizer where it is installed, else Hugging Face tokenizers. Off: PaddleNLP's own in "
            "Python, about ten times slower. The ids are the same."
        },
    )
    group_by_length: bool = field(
        default=True,
        metadata={"help": "Train on batches of texts of about one length: less padding. Off: a plain shuffle."},
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


@dataclass
class CompressionArguments(PaddleCompressionArguments):
    """PaddleNLP's arguments, with the help texts made exact, and a budget."""

    strategy: str = field(
        default="dynabert+ptq",
        metadata={
            "help": f"{', '.join(STRATEGIES)}. dynabert: narrower layers, trained with the fine-tuned model as "
            "teacher; ptq: INT8 by calibration on training texts; qat: INT8 by further training; embeddings: "
            "INT8 embedding tables."
        },
    )
    width_mult_list: list[str] = field(
        default_factory=lambda: ["0.75"],
        metadata={"help": "dynabert: widths as shares of 1, decimal or fraction, e.g. 0.75 2/3 0.5."},
    )
    algo_list: list[str] = field(
        default_factory=lambda: ["mse", "KL"],
        metadata={
            "help": "ptq: how the range of an activation follows from calibration texts, one model each. abs_max, "
            "min_max: its largest value; avg: the mean of the texts' largest; hist: the 99.99%% quantile; mse, emd: "
            "the least squared error, or distance of distributions; KL: the least divergence of histograms (slow)."
        },
    )
    batch_size_list: list[int] = field(
        default_factory=lambda: [4, 8, 16], metadata={"help": "ptq: texts in a calibration batch, one model each."}
    )
    batch_num_list: list[int] = field(
        default_factory=lambda: [1], metadata={"help": "ptq: calibration batches, one model each."}
    )
    max_drop: float = field(
        default=None,
        metadata={
            "help": "Copy the fastest variant whose dev score fell by no more than so many points (0.5: from 90.0 "
            "to 89.5) to <output_dir>/best."
        },
    )


# What decides when a training is scored and saved, and which checkpoint it ends with.
CHECKPOINTING = (
    *("save_strategy", "evaluation_strategy", "eval_steps"),
    *("load_best_model_at_end", "metric_for_best_model"),
)


class ArgumentParser(PdArgumentParser):
    """PaddleNLP's parser, whose errors are one message in place of two hundred lines of usage.

    As there, an abbreviation stands for the one argument that begins so.
    """

    def error(self, message):
        raise UsageError(f"{message}\n  python {self.prog} --help lists the arguments")


def parse_arguments(task, arguments_class=TrainingArguments, argv=None):
    """Arguments of one script: the command line over the YAML file over the defaults.

    Args:
        task: a row of `TASKS`.
        arguments_class: `TrainingArguments` or `CompressionArguments`.
        argv: the command line; left out, this process's own.

    Returns:
        (ModelArguments, DataArguments, an `arguments_class`).

    Raises:
        UsageError: an argument or a key that does not exist, or a value that does not fit.
    """
    argv = sys.argv[1:] if argv is None else argv
    compress = arguments_class is CompressionArguments
    dataclass_types = (ModelArguments, DataArguments, arguments_class)
    parser = ArgumentParser(dataclass_types)
    device, device_why = default_device()
    parser.set_defaults(device=device, report_to="visualdl" if is_visualdl_available() else "none")
    parser.set_defaults(**dict.fromkeys(CHECKPOINTING))  # None: neither the command line nor the YAML file says it

    # By a parser of all arguments, so that an abbreviation means the same here.
    early = ArgumentParser(dataclass_types, add_help=False)
    for action in early._actions:
        action.required = False
    early = early.parse_known_args(argv)[0]
    if early.config:
        apply_config(parser, early.config, task, early.dataset, early.data_dir)

    values, unknown = parser.parse_known_args(argv)
    if unknown:
        names = [option for action in parser._actions for option in action.option_strings]
        parser.error(f"unknown argument {unknown[0]}{_nearest(unknown[0].split('=')[0], names)}")
    if values.no_cuda:
        values.device = "cpu"
    check_values(values, task, compress)
    check_trainer_values(values, task)
    if compress:
        check_compression_values(values)
        settle_compression(values, task)
    else:
        settle_training(values, task)

    if values.device == "cpu":
        # What several processes talk through, under paddle.distributed.launch; Paddle's own choice needs GPUs.
        os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")

    try:
        arguments = fill(dataclass_types, values)
    except (ValueError, AssertionError) as e:
        parser.error(str(e))
    try:
        paddle.set_device(values.device)
    except ValueError as e:
        parser.error(f"--device {values.device}: {str(e).splitlines()[0]} (leave --device out to run on {device})")
    if values.bf16 and values.device.startswith("gpu") and not paddle.amp.is_bfloat16_supported():
        parser.error("--bf16: this GPU does not compute in bfloat16 (from NVIDIA Ampere on); use --fp16")
    logger.info(f"device: {values.device}" + (f" ({device_why})" if values.device == device else ""))
    # PaddleNLP's Trainer sets the seed as well, but the weights of a new head are drawn before there is a Trainer.
    set_seed(values.seed)
    return arguments


def fill(dataclass_types, values):
    """An object of each dataclass with the values of its fields."""
    arguments = []
    for dataclass_type in dataclass_types:
        inputs = {f.name: getattr(values, f.name) for f in dataclasses.fields(dataclass_type) if f.init}
        if inputs.get("evaluation_strategy") == "no":
            inputs["do_eval"] = False  # or PaddleNLP would turn "no" to "steps"
        arguments.append(dataclass_type(**inputs))
    arguments[-1].do_eval = values.do_eval
    return arguments


def default_device():
    """("gpu" or "cpu", why)."""
    if not paddle.is_compiled_with_cuda():
        return "cpu", "this Paddle is built without GPU support"
    if paddle.device.cuda.device_count() == 0:
        return "cpu", "Paddle sees no GPU"
    return "gpu", "Paddle sees a GPU"


def apply_config(parser, path, task, dataset, data_dir=None):
    """Makes a YAML file's DefaultArgs, and its block for a data set over them, the parser's defaults.

    Args:
        dataset, data_dir: of the command line, or None; the file may name them in DefaultArgs.
    """
    try:
        with open(path, encoding="utf-8") as f:
            config = yaml.safe_load(f) or {}
    except OSError as e:
        raise UserError(f"--config {path}: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UsageError(f"--config {path} is not YAML: {' '.join(str(e).split())}") from e
    heads = [row.head for row in TASKS.values()]
    sections = ("DefaultArgs", *heads)
    if not isinstance(config, dict):
        raise UsageError(f"--config {path}: expected the blocks {', '.join(sections)}")
    for name, block in config.items():
        if name not in sections:
            raise UsageError(f"--config {path}: unknown block {name!r}{_nearest(name, sections)}")
        if not isinstance(block or {}, dict):
            expected = "`argument: value` lines" if name == "DefaultArgs" else "a block for each data set"
            raise UsageError(f"--config {path}, {name}: expected {expected}, got {block!r:.60}")
    blocks = {"DefaultArgs": config.get("DefaultArgs") or {}}
    for head in heads:
        for name, block in (config.get(head) or {}).items():
            blocks[f"{head}: {name}"] = block or {}
    # The compress scripts read the same file: their arguments are known here, too.
    types = (ModelArguments, DataArguments, TrainingArguments, CompressionArguments)
    known = {f.name for t in types for f in dataclasses.fields(t)}
    for where, block in blocks.items():
        if not isinstance(block, dict):
            raise UsageError(f"--config {path}, {where}: expected `argument: value` lines, got {block!r:.60}")
        for key in block:
            if key not in known:
                raise UsageError(f"--config {path}, {where}: unknown key {key!r}{_nearest(key, known)}")
            if key == "dataset" and where != "DefaultArgs":
                raise UsageError(f"--config {path}, {where}: `dataset` decides which block is read; it may be in "
                                 "DefaultArgs or on the command line")  # fmt: skip
    dataset = dataset or blocks["DefaultArgs"].get("dataset")
    _warn_of_misspelt_blocks(path, blocks, data_dir or blocks["DefaultArgs"].get("data_dir"))
    actions = {action.dest: action for action in parser._actions}
    for where in ("DefaultArgs", f"{task.head}: {dataset}"):
        for key, value in blocks.get(where, {}).items():
            if key not in actions or value is None:
                continue
            action = actions[key]
            many = action.nargs == "+"
            if isinstance(value, dict) or (isinstance(value, list) and (not many or not value)):
                expected = "a list of values" if many else "one value"
                raise UsageError(f"--config {path}, {where}: {key}: {value!r:.60} does not fit, expected {expected}")
            if value is False and "no" in (action.choices or ()):
                value = "no"  # YAML reads it as a truth value
            try:
                values = [parser._get_value(action, str(v)) for v in (value if isinstance(value, list) else [value])]
                for v in values:
                    parser._check_value(action, v)
            except argparse.ArgumentError:
                expected = f", expected one of {', '.join(action.choices)}" if action.choices else ""
                raise UsageError(f"--config {path}, {where}: {key}: {value!r:.60} does not fit{expected}") from None
            action.required = False
            parser.set_defaults(**{key: values if many else values[0]})


def _warn_of_misspelt_blocks(path, blocks, data_dir):
    """A data set's block whose name is neither a published data set's nor a folder of --data_dir is never read."""
    folders = os.listdir(data_dir) if data_dir and os.path.isdir(str(data_dir)) else []
    for where in blocks:
        head, _, name = where.partition(": ")
        if not name or name in folders:
            continue
        row = DATA_SETS.get(name)
        if row and row.task.head != head:
            logger.warning(f"--config {path}: the block {where} is never read: {name} belongs under {row.task.head}")
        elif not row and (data_dir or difflib.get_close_matches(name, DATA_SETS, n=1)):
            near = _nearest(name, [*DATA_SETS, *folders])
            logger.warning(f"--config {path}: no data set is called as the block {where}{near}")


def _nearest(name, names):
    """`; did you mean ...?` where one of the names is near."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], n=1)
    return f"; did you mean {close[0]}?" if close else ""


STEPS = ("do_train", "do_eval", "do_predict", "do_export")
AT_LEAST_ONE = (
    *("doc_stride", "max_query_length", "n_best_size", "max_answer_length"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("logging_steps", "save_steps", "eval_steps", "eval_accumulation_steps"),
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
        raise UsageError(f"--dataset {values.dataset} is of another scenario: use {script}")
    if values.data_dir is None and known is None:
        names = [name for name, row in DATA_SETS.items() if row.task is task]
        raise UsageError(
            f"--dataset {values.dataset}: none of {', '.join(names)}{_nearest(values.dataset, names)} "
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
    label_names = ["start_positions", "end_positions"] if task is QA else ["labels"]
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
        raise UsageError(f"--metric_for_best_model {metric}: none of {', '.join(metrics)}{_nearest(name, metrics)}")
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
            raise UsageError(f"--report_to {name}: none of {', '.join(known)}{_nearest(name, known)}")
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
            f"--strategy {values.strategy}: none of {', '.join(STRATEGIES)}{_nearest(values.strategy, STRATEGIES)}"
        )
    for algorithm in values.algo_list:
        if algorithm not in ALGORITHMS:
            raise UsageError(
                f"--algo_list {algorithm}: none of {', '.join(ALGORITHMS)}{_nearest(algorithm, ALGORITHMS)}"
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
    if values.max_drop is not None and not values.max_drop >= 0:
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
