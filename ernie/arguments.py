"""Arguments: the command line over the YAML file over the defaults."""

import argparse
import dataclasses
import difflib
import os
import sys
from dataclasses import dataclass, field

import paddle
import yaml
from ernie_predictor.gpu import too_new_or_old_for_paddle
from ernie_predictor.machine import usable_cores
from paddlenlp.trainer import CompressionArguments as PaddleCompressionArguments
from paddlenlp.trainer import TrainingArguments, set_seed
from paddlenlp.trainer.integrations import is_visualdl_available

from ernie import console
from ernie.argument_checks import (
    ALGORITHMS,
    CHECKPOINTING,
    check_compression_values,
    check_trainer_values,
    check_values,
    nearest,
    settle_compression,
    settle_training,
)
from ernie.argument_parser import READING, ArgumentParser
from ernie.console import logger
from ernie.errors import UsageError, UserError
from ernie.models import own_lengths
from ernie.tasks import DATA_SETS, TASKS

LENGTHS = ("max_seq_length", *READING)  # what a fine-tuned model's folder says, too


@dataclass
class ModelArguments:
    model_name_or_path: str = field(metadata={"help": "such as ernie-3.0-nano-zh, or a folder"})
    config: str = field(default=None, metadata={"help": "hyperparameters in YAML; the command line wins"})
    export_model_dir: str = field(default=None, metadata={"help": "for DIR/<dataset>/export (default: --output_dir)"})
    verbose: bool = field(default=False, metadata={"help": "also show PaddleNLP's own messages"})


@dataclass
class DataArguments:
    # Three help texts depend on the task: ernie/argument_parser.py has them.
    dataset: str = field()
    data_dir: str = field(default=None)
    max_seq_length: int = field(default=128)
    dynamic_max_length: list[int] = field(
        default=None,
        metadata={"help": "pad to the first of these that holds a batch"},
    )
    doc_stride: int = field(default=128, metadata={"help": "tokens from window to window"})
    max_query_length: int = field(default=64, metadata={"help": "longer questions are truncated"})
    n_best_size: int = field(default=20, metadata={"help": "answers per question"})
    max_answer_length: int = field(default=50, metadata={"help": "at most N tokens per answer"})
    use_fast_tokenizer: bool = field(default=True, metadata={"help": "one in C++ or Rust, with PaddleNLP's ids"})
    group_by_length: bool = field(
        default=True, metadata={"help": "train on batches of texts of similar length: less padding"}
    )


@dataclass
class CompressionArguments(PaddleCompressionArguments):
    """PaddleNLP's arguments, with exact help texts, and a limit for the drop of the score."""

    strategy: str = field(
        default="dynabert+ptq",
        metadata={
            "help": "dynabert (narrower layers, trained), ptq (INT8 by calibration), qat (INT8 by training), "
            "embeddings (INT8 tables), or several joined by +"
        },
    )
    width_mult_list: list[str] = field(
        default_factory=lambda: ["0.75"], metadata={"help": "dynabert: share of the width, e.g. 0.75 2/3"}
    )
    algo_list: list[str] = field(
        default_factory=lambda: ["mse", "KL"],
        metadata={"help": f"ptq: how scales follow from the texts: {', '.join(ALGORITHMS)}"},
    )
    batch_size_list: list[int] = field(
        default_factory=lambda: [4, 8, 16], metadata={"help": "ptq: texts per calibration batch"}
    )
    batch_num_list: list[int] = field(default_factory=lambda: [1], metadata={"help": "ptq: calibration batches"})
    max_drop: float = field(default=0.5, metadata={"help": "best/ is the fastest variant that lost at most N points"})


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
    argv = sys.argv[1:] if argv is None else argv
    compress = arguments_class is CompressionArguments
    dataclass_types = (ModelArguments, DataArguments, arguments_class)
    parser = ArgumentParser(dataclass_types, task, compress, about)
    device, device_why = default_device()
    parser.set_defaults(device=device, report_to="visualdl" if is_visualdl_available() else "none")
    parser.set_defaults(**dict.fromkeys(CHECKPOINTING))  # None: neither the command line nor the YAML file says it

    # Names first: a mistyped --dataset is not a missing one. And the YAML file may give what the command line does not.
    early, unknown = parser.parse_known_args(argv)
    if unknown:
        names = [option for action in parser._actions for option in action.option_strings]
        parser.error(f"unknown argument {unknown[0]}{nearest(unknown[0].split('=')[0], names)}")
    in_file = set()
    if early.config:
        in_file = apply_config(parser, early.config, task, early.dataset, early.data_dir)
    # None: the command line does not say it.
    values = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(LENGTHS)))
    parser.check_required(values)
    values.dataset = dataset_name(values.dataset)
    # A fine-tuned model is scored, exported and compressed as it was trained.
    own = {} if values.do_train and not compress else own_lengths(task, values.model_name_or_path)
    for name in LENGTHS:
        if getattr(values, name) is None:
            default = parser.get_default(name)
            setattr(values, name, default if name in in_file else own.get(name, default))
    console.show_paddlenlp(values.verbose)
    if values.no_cuda:
        values.device = "cpu"
    if values.wandb_api_key:
        # From there wandb takes it, too; PaddleNLP would write it to checkpoints and to VisualDL's log.
        os.environ["WANDB_API_KEY"], values.wandb_api_key = values.wandb_api_key, None
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
    reason = too_new_or_old_for_paddle(paddle.device.cuda.get_device_capability(), paddle.version.cuda())
    if reason:
        return "cpu", reason
    return "gpu", "Paddle sees a GPU"


def apply_config(parser, path, task, dataset, data_dir=None):
    """Makes a YAML file's DefaultArgs, and its block for a data set over them, the parser's defaults.

    Args:
        dataset, data_dir: of the command line, or None; the file may name them in DefaultArgs.

    Returns:
        The set of the arguments that it says.
    """
    try:
        with open(path, encoding="utf-8") as f:
            config = yaml.load(f, ConfigLoader) or {}
    except OSError as e:
        raise UserError(f"--config {path}: {e.strerror}") from e
    except UsageError as e:
        raise UsageError(f"--config {path}: {e}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UsageError(f"--config {path} is not YAML: {' '.join(str(e).split())}") from e
    heads = [row.head for row in TASKS.values()]
    sections = ("DefaultArgs", *heads)
    if not isinstance(config, dict):
        raise UsageError(f"--config {path}: expected the blocks {', '.join(sections)}")
    for name, block in config.items():
        if name not in sections:
            raise UsageError(f"--config {path}: unknown block {name!r}{nearest(name, sections)}")
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
                raise UsageError(f"--config {path}, {where}: unknown key {key!r}{nearest(key, known)}")
            if key == "dataset" and where != "DefaultArgs":
                raise UsageError(f"--config {path}, {where}: `dataset` decides which block is read; it may be in "
                                 "DefaultArgs or on the command line")  # fmt: skip
    dataset = dataset or blocks["DefaultArgs"].get("dataset")
    dataset = dataset and dataset_name(str(dataset))
    _warn_of_misspelt_blocks(path, blocks, data_dir or blocks["DefaultArgs"].get("data_dir"))
    actions = {action.dest: action for action in parser._actions}
    said = set()
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
            parser.set_defaults(**{key: values if many else values[0]})
            said.add(key)
    return said


class ConfigLoader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML takes the last one, and forgets what the first says."""

    def construct_mapping(self, node, deep=False):
        first = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            before = first.setdefault((key.tag, str(key.value)), line)
            if before != line:
                raise UsageError(f"`{key.value}` stands twice, in lines {before} and {line}; expected one of each")
        return super().construct_mapping(node, deep)


def dataset_name(name):
    """--dataset without the slash that a shell adds to a folder's name."""
    folder = os.path.normpath(name)
    if os.sep in folder or folder in (".", ".."):
        raise UsageError(f"--dataset {name}: expected the name of one folder; --data_dir is for those above it")
    return folder


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
            near = nearest(name, [*DATA_SETS, *folders])
            logger.warning(f"--config {path}: no data set is called as the block {where}{near}")
