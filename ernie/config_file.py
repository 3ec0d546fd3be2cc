"""The YAML file of --config: DefaultArgs for all data sets, and a block for each below the head of its task."""

import difflib
import os

import yaml

from ernie.argument_table import NAMES, refusal
from ernie.console import logger
from ernie.errors import UsageError, UserError, nearest
from ernie.tasks import DATA_SETS, TASKS

HEADS = tuple(task.head for task in TASKS.values())


def read_config(parser, path, task, dataset, data_dir):
    """{argument: value} of DefaultArgs, and of a data set's block over it.

    Args:
        parser: an `ArgumentParser`; what only other scripts take is left out.
        dataset, data_dir: of the command line, or None; the file may name them in DefaultArgs.
    """
    blocks = read_blocks(path)
    default = blocks["DefaultArgs"]
    dataset = dataset or default.get("dataset")
    _warn_of_misspelt_blocks(path, blocks, data_dir or default.get("data_dir"))
    said = {}
    for where in ("DefaultArgs", f"{task.head}: {dataset and dataset_name(str(dataset))}"):
        block = {key: value for key, value in blocks.get(where, {}).items() if key in parser.rows and value is not None}
        try:
            said |= parser.read([word for key, value in block.items() for word in as_typed(parser, key, value)])
        except UsageError as e:
            raise UsageError(f"--config {path}, {where}: {e}") from None
    return said


def as_typed(parser, key, value):
    """A key and its value as they are typed on the command line."""
    many = parser.shown[key].nargs == "+"
    if isinstance(value, dict) or (isinstance(value, list) and (not many or not value)):
        expected = "a list of values" if many else "one value"
        raise UsageError(f"{key}: {value!r:.60} does not fit, expected {expected}")
    if value is False and "no" in parser.rows[key].choices:
        value = "no"  # YAML reads it as a truth value
    return [f"--{key}", *map(str, value)] if isinstance(value, list) else [f"--{key}={value}"]


def read_blocks(path):
    """{"DefaultArgs" or "<head>: <data set>": its keys and values}, with names that are known."""
    try:
        with open(path, encoding="utf-8") as f:
            config = yaml.load(f, ConfigLoader) or {}
    except OSError as e:
        raise UserError(f"--config {path}: {e.strerror}") from e
    except UsageError as e:
        raise UsageError(f"--config {path}: {e}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UsageError(f"--config {path} is not YAML: {' '.join(str(e).split())}") from e
    sections = ("DefaultArgs", *HEADS)
    if not isinstance(config, dict):
        raise UsageError(f"--config {path}: expected the blocks {', '.join(sections)}")
    blocks = {"DefaultArgs": config.pop("DefaultArgs", None) or {}}
    for head, of_head in config.items():
        if head not in HEADS:
            raise UsageError(f"--config {path}: unknown block {head!r}{nearest(head, sections)}")
        if not isinstance(of_head or {}, dict):
            raise UsageError(f"--config {path}, {head}: expected a block for each data set, got {of_head!r:.60}")
        blocks |= {f"{head}: {name}": block or {} for name, block in (of_head or {}).items()}
    for where, block in blocks.items():
        if not isinstance(block, dict):
            raise UsageError(f"--config {path}, {where}: expected `argument: value` lines, got {block!r:.60}")
        for key in block:
            if key not in NAMES:
                raise UsageError(f"--config {path}, {where}: {refusal(str(key), NAMES)}")
            if key == "dataset" and where != "DefaultArgs":
                raise UsageError(f"--config {path}, {where}: `dataset` decides which block is read; it may be in "
                                 "DefaultArgs or on the command line")  # fmt: skip
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
