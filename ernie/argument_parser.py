"""The parser of the six scripts: PaddleNLP's, for the rows of argument_table.py that a script takes."""

import argparse
import dataclasses
import enum
import textwrap
import typing

from ernie_predictor import commandline
from paddlenlp.trainer import PdArgumentParser

from ernie.argument_table import INHERITED, TABLE, refusal
from ernie.errors import UsageError
from ernie.tasks import DATA_SETS


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
        self.dataclass_types = dataclass_types  # of `parse_dict`
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

    def check_required(self, values):
        """Raises UsageError where neither the command line nor the YAML file says what has no default."""
        names = ("model_name_or_path", "dataset", *(("output_dir",) if "do_train" in self.rows else ()))
        missing = [f"--{name}" for name in names if values[name] is None]
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
