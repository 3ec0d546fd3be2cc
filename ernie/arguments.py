"""Arguments: the command line over the YAML file over the defaults."""

import argparse
import dataclasses
import difflib
import os
import re
import sys
from dataclasses import dataclass, field

import paddle
import yaml
from paddlenlp.trainer import CompressionArguments as PaddleCompressionArguments
from paddlenlp.trainer import PdArgumentParser, TrainingArguments, set_seed
from paddlenlp.utils.log import logger

from ernie.errors import UsageError, UserError
from ernie.tasks import DATA_SETS, QA, TASKS


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


class ArgumentParser(PdArgumentParser):
    """PaddleNLP's parser, whose errors are one message in place of two hundred lines of usage."""

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
    dataclass_types = (ModelArguments, DataArguments, arguments_class)
    parser = ArgumentParser(dataclass_types, allow_abbrev=False)
    device, device_why = default_device()
    parser.set_defaults(device=device, report_to="visualdl", load_best_model_at_end=None)

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "dataset", "data_dir"):
        early.add_argument(f"--{name}", nargs="?")
    early = early.parse_known_args(argv)[0]
    if early.config:
        apply_config(parser, early.config, task, early.dataset, early.data_dir)

    values, unknown = parser.parse_known_args(argv)
    if unknown:
        names = [option for action in parser._actions for option in action.option_strings]
        parser.error(f"unknown argument {unknown[0]}{_nearest(unknown[0].split('=')[0], names)}")
    check_values(values, task, compress=arguments_class is CompressionArguments)
    if arguments_class is CompressionArguments:
        check_compression_values(values)
        values.output_dir = os.path.normpath(values.output_dir)
        values.metric_for_best_model = task.score
    else:
        # One folder a data set; the scripts' --output_dir is the folder of all of them.
        values.export_model_dir = values.export_model_dir or values.output_dir
        # Without "./", since PaddleNLP compares the paths of checkpoints as texts.
        values.output_dir = os.path.normpath(os.path.join(values.output_dir, values.dataset))
        if values.load_best_model_at_end is None:
            values.load_best_model_at_end = values.do_train and values.do_eval and values.save_strategy != "no"
        if values.load_best_model_at_end:
            values.metric_for_best_model = values.metric_for_best_model or task.score
    if values.do_eval and not values.eval_steps:
        values.eval_steps = values.save_steps
        if values.evaluation_strategy == "no":
            values.evaluation_strategy = values.save_strategy
    if task is QA:
        values.label_names = ["start_positions", "end_positions"]

    if values.device == "cpu":
        # What several processes talk through, under paddle.distributed.launch; Paddle's own choice needs GPUs.
        os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")

    arguments = []
    for dataclass_type in dataclass_types:
        names = [f.name for f in dataclasses.fields(dataclass_type) if f.init]
        try:
            arguments.append(dataclass_type(**{name: getattr(values, name) for name in names}))
        except (ValueError, AssertionError) as e:
            parser.error(str(e))
    try:
        paddle.set_device(values.device)
    except ValueError as e:
        parser.error(f"--device {values.device}: {str(e).splitlines()[0]} (leave --device out to run on {device})")
    logger.info(f"device: {values.device}" + (f" ({device_why})" if values.device == device else ""))
    # PaddleNLP's Trainer sets the seed as well, but the weights of a new head are drawn before there is a Trainer.
    set_seed(values.seed)
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
            try:
                values = [parser._get_value(action, str(v)) for v in (value if isinstance(value, list) else [value])]
            except argparse.ArgumentError:
                raise UsageError(f"--config {path}, {where}: {key}: {value!r:.60} does not fit") from None
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


def check_values(values, task, compress=False):
    """Raises UsageError for values that would fail later, or silently train something else.

    Args:
        compress: the script is a compress_*.py.
    """
    minimum = {
        "max_seq_length": 8,
        "doc_stride": 1,
        "max_query_length": 1,
        "n_best_size": 1,
        "max_answer_length": 1,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "logging_steps": 1,
        "save_steps": 1,
        "learning_rate": 0,
        "num_train_epochs": 0,
    }
    for name, least in minimum.items():
        if not getattr(values, name) >= least:
            raise UsageError(f"--{name} {getattr(values, name)}: must be {least} or more")
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
