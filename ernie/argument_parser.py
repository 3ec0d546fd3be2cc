"""The parser of the six scripts: PaddleNLP's, for the rows of argument_table.py that a script takes.

It reads the command line, and the YAML file of --config: DefaultArgs for all data sets, and a block for each below the
head of its task.
"""

import argparse
import dataclasses
import difflib
import enum
import os
import textwrap
import typing

import yaml
from ernie_predictor import commandline
from paddlenlp.trainer import PdArgumentParser

from ernie.argument_table import INHERITED, NAMES, TABLE, refusal
from ernie.console import logger
from ernie.errors import UsageError, UserError, nearest
from ernie.tasks import DATA_SETS, TASKS

HEADS = tuple(task.head for task in TASKS.values())


class ArgumentParser(PdArgumentParser):
    """PaddleNLP's parser, whose errors are one message in place of two hundred lines of usage, and --help one page.

    As there, an abbreviation stands for the one argument that begins so.

    Args:
        task: a row of `TASKS`.
        script: such as run_qa.py.
        dataclass_types: what the arguments are read into.
        about: the script's docstring, which --help begins with.
        defaults: {argument: its default}, where this machine decides.
    """

    def __init__(self, task, script, dataclass_types, about, defaults):
        self.sections = {title: [row for row in rows if row.taken_by(script)] for title, rows in TABLE.items()}
        self.rows = {row.name: row for rows in self.sections.values() for row in rows}
        fields = {field.name: field for cls in dataclass_types for field in dataclasses.fields(cls)}
        hints = {name: hint for cls in dataclass_types for name, hint in typing.get_type_hints(cls).items()}
        offered = [parsed_as(fields[name], hints[name]) for name in self.rows]
        super().__init__(
            dataclasses.make_dataclass("Offered", offered),
            formatter_class=HelpFormatter,
            description=about,
            usage="%(prog)s --model_name_or_path MODEL --dataset NAME "
            + ("--output_dir DIR --do_train [...]" if "do_train" in self.rows else "[...]"),
        )
        self.task, self.dataclass_types = task, dataclass_types  # which `parse_dict` fills
        self.set_defaults(**{row.name: row.default for row in self.rows.values() if row.default is not INHERITED})
        self.set_defaults(**defaults)
        self.defaults = {name: self.get_default(name) for name in self.rows}
        texts = {
            "names": ", ".join(name for name, row in DATA_SETS.items() if row.task is task),
            "suffix": task.suffixes[0],
            "part": "window" if "doc_stride" in self.rows else "text",
        }
        self.shown = {}  # {argument: what --help shows for it}
        for action in self._actions:
            row = self.rows.get(action.dest)
            if row:
                self.shown[row.name] = action  # the last one: --no_x where --x is the default
                action.help = row.help.format(**texts)
                kind = "N" if action.type in (int, float) else "VALUE"
                action.metavar = row.metavar or ("DIR" if row.name.endswith("_dir") else kind)

    def read(self, argv):
        """{argument: value} of what a command line says.

        Raises:
            UsageError: an argument that the script does not take, or a value that does not fit.
        """
        values, unknown = self.parse_known_args(argv, argparse.Namespace(**dict.fromkeys(self.rows)))
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            self.error(refusal(unknown[0].split("=")[0], flags))
        given = {name: value for name, value in vars(values).items() if value is not None}
        for name, value in given.items():
            for each in value if isinstance(value, list) else [value]:
                problem = self.rows[name].problem(each)
                if problem:
                    raise UsageError(f"--{name} {each}: {problem}")
        return given

    def read_config(self, path, dataset, data_dir):
        """{argument: value} of a YAML file: of DefaultArgs, and of a data set's block over it. What only other scripts
        take is left out.

        Args:
            dataset, data_dir: of the command line, or None; the file may name them in DefaultArgs.
        """
        said, dataset = {}, dataset and dataset_name(dataset)
        try:
            blocks = read_blocks(path)
            default = blocks["DefaultArgs"]
            if not dataset and default.get("dataset"):
                dataset = dataset_name(str(default["dataset"]))
            _warn_of_misspelt_blocks(blocks, data_dir or default.get("data_dir"), path)
            for where in ("DefaultArgs", f"{self.task.head}: {dataset}"):
                block = {key: value for key, value in blocks.get(where, {}).items() if key in self.rows}
                try:
                    said |= self.read([word for item in block.items() for word in self._as_typed(*item)])
                except UsageError as e:
                    raise UsageError(f"{where}: {e}") from None
        except UsageError as e:
            raise UsageError(f"--config {path}: {e}") from None
        return said

    def _as_typed(self, key, value):
        """A key of the YAML file and its value as they are typed on the command line; nothing where it has no value."""
        many = self.shown[key].nargs == "+"
        if isinstance(value, dict) or (isinstance(value, list) and (not many or not value)):
            expected = "a list of values" if many else "one value"
            raise UsageError(f"{key}: {value!r:.60} does not fit, expected {expected}")
        if value is False and "no" in self.rows[key].choices:
            value = "no"  # YAML reads it as a truth value
        if value is None:
            return []
        return [f"--{key}", *map(str, value)] if isinstance(value, list) else [f"--{key}={value}"]

    def check_required(self, said):
        """Raises UsageError where neither the command line nor the YAML file says what has no default."""
        names = ("model_name_or_path", "dataset", *(("output_dir",) if "do_train" in self.rows else ()))
        missing = [f"--{name}" for name in names if said.get(name) is None]
        if missing:
            example = self.description.partition("\n\n")[2].partition("\npython ")[0]
            self.error(f"the following arguments are required: {', '.join(missing)}, as in\n  {example}")

    def error(self, message):
        raise UsageError(f"{message}\n  python {self.prog} --help lists the arguments")

    def format_help(self):
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        for title, rows in self.sections.items():
            formatter.start_section(title)
            formatter.add_arguments([self.shown[row.name] for row in rows if row.help])
            formatter.end_section()
        named = [self.shown[row.name].option_strings[0] for row in self.rows.values() if not row.help]
        text = f"Less used (see configs/README.md, docs/compression.md): {', '.join(named)}"
        formatter.add_text(textwrap.fill(text, formatter._width, break_on_hyphens=False))
        return formatter.format_help()


def parsed_as(field, hint):
    """(name, type, field) from which PaddleNLP's parser makes the argument of a dataclass's field."""
    default = None if field.default is dataclasses.MISSING else field.default
    if hint == typing.Optional[bool]:  # noqa: UP045  as PaddleNLP writes it; a flag as any other
        hint, default = bool, bool(default)
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):  # the table has its values
        hint = str
    if field.default_factory is not dataclasses.MISSING:
        return field.name, hint, dataclasses.field(default_factory=field.default_factory)
    return field.name, hint, dataclasses.field(default=default)


class HelpFormatter(commandline.HelpFormatter):
    """Shows flags without the value that they may take."""

    def _format_args(self, action, default_metavar):
        if action.nargs == "?":
            return ""
        return f"{action.metavar} ..." if action.nargs == "+" else super()._format_args(action, default_metavar)

    def _format_action_invocation(self, action):
        return super()._format_action_invocation(action).rstrip()


def read_blocks(path):
    """{"DefaultArgs" or "<head>: <data set>": its keys and values}, with names that are known, of a YAML file."""
    try:
        with open(path, encoding="utf-8") as f:
            config = yaml.load(f, ConfigLoader) or {}
    except OSError as e:
        raise UserError(f"--config {path}: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UsageError(f"the file is not YAML: {' '.join(str(e).split())}") from e
    sections = ("DefaultArgs", *HEADS)
    if not isinstance(config, dict):
        raise UsageError(f"expected the blocks {', '.join(sections)}")
    blocks = {"DefaultArgs": config.pop("DefaultArgs", None) or {}}
    for head, of_head in config.items():
        if head not in HEADS:
            raise UsageError(f"unknown block {head!r}{nearest(head, sections)}")
        if not isinstance(of_head or {}, dict):
            raise UsageError(f"{head}: expected a block for each data set, got {of_head!r:.60}")
        blocks |= {f"{head}: {name}": block or {} for name, block in (of_head or {}).items()}
    for where, block in blocks.items():
        if not isinstance(block, dict):
            raise UsageError(f"{where}: expected `argument: value` lines, got {block!r:.60}")
        for key in block:
            if key not in NAMES:
                raise UsageError(f"{where}: {refusal(str(key), NAMES)}")
            if key == "dataset" and where != "DefaultArgs":
                how = "it may be in DefaultArgs or on the command line"
                raise UsageError(f"{where}: `dataset` decides which block is read; {how}")
    return blocks


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


def _warn_of_misspelt_blocks(blocks, data_dir, path):
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


def dataset_name(name):
    """--dataset without the slash that a shell adds to a folder's name."""
    folder = os.path.normpath(name)
    if os.sep in folder or folder in (".", ".."):
        raise UsageError(f"--dataset {name}: expected the name of one folder; --data_dir is for those above it")
    return folder
