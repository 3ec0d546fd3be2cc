"""Data: finds the files of a data set, on the hub or in a local folder, reads them, and finds its labels."""

import os
import unicodedata

from ernie_predictor.data_files import is_test_file, read_file, read_split
from ernie_predictor.errors import one_line
from ernie_predictor.formats import check_characters, shown
from paddlenlp.trainer import CompressionArguments

from ernie import console
from ernie.console import logger
from ernie.errors import UserError
from ernie.models import read_labels
from ernie.tasks import DATA_SETS


def load_splits(task, data_args, args):
    """(train, dev, test) examples, each None where no --do_... needs it; see `load_examples`.

    Compression needs train and dev: it calibrates and trains on the one, and scores every variant on the other.
    """
    needed = {"train": args.do_train, "dev": args.do_eval, "test": args.do_predict}
    if isinstance(args, CompressionArguments):
        needed = {"train": True, "dev": True, "test": False}
    splits = [load_examples(task, data_args, split) if use else None for split, use in needed.items()]
    loaded = {split: examples for split, examples in zip(needed, splits) if examples}
    if loaded:
        folder = os.path.dirname(next(iter(loaded.values()))[0]["file"])
        counts = ", ".join(f"{len(examples):,} {split}" for split, examples in loaded.items())
        console.row("data", f"{counts} from {folder}")
    task.check_splits(loaded.values())
    return splits


def load_examples(task, data_args, split):
    """Reads one split of a data set.

    Args:
        task: a row of `TASKS`.
        split: "train", "dev" or "test".

    Returns:
        A list of examples: dicts with "id" (in a test split, unique), "where" (file and line), "file", and what the
        task's `read_file` says.

    Raises:
        UserError: a file is missing or empty, or a row is broken; names file and line.
    """
    if data_args.data_dir is None:
        path = fetch_split(data_args.dataset, split)
        examples = read_file(task.name, path, data_args.dataset, labelled=split != "test")
    else:
        path, examples = read_split(task.name, data_args.data_dir, data_args.dataset, split)
        if split == "dev" and is_test_file(path) and data_args.dataset not in DATA_SETS:
            logger.warning(f"there is no dev.{task.suffixes[0]}: models are scored, and the best is chosen, on {path}")
    set_ids(examples, task, check=split == "test")
    return [{**example, "file": path} for example in examples]


def fetch_split(dataset, split):
    """Has PaddleNLP's data set builder download a split (once, to its cache); returns the file's path."""
    from paddlenlp.datasets.dataset import import_main_class

    row = DATA_SETS[dataset]
    builder = import_main_class(row.hub)(lazy=False, name=dataset if row.hub != dataset else None)
    try:
        return builder._get_data(row.hub_splits.get(split, split))
    except Exception as e:
        raise UserError(
            f"{dataset} could not be downloaded ({one_line(e)}). Without network, put its files into DIR/{dataset}/ "
            "and add --data_dir DIR"
        ) from e


def set_ids(examples, task, check):
    """Numbers the examples of a file without ids from 0.

    Args:
        check: whether predictions will be told apart by the ids. The ids of published training files do repeat.

    Raises:
        UserError: some examples have no id, an id is no whole number or text, or one repeats; names both lines.
    """
    missing = [e for e in examples if e["id"] is None]
    if len(missing) == len(examples):
        for number, example in enumerate(examples):
            example["id"] = task.id_type(number)
        return
    if not check:
        return
    if missing:
        other = next(e for e in examples if e["id"] is not None)
        raise UserError(f"{missing[0]['where']} has no id, {other['where']} has one: give every row an id, or none")
    first = {}
    for example in examples:
        name, where = example["id"], example["where"]
        if isinstance(name, bool) or not isinstance(name, (int, str)) or not str(name).strip():
            raise UserError(f"{where}: the id is {shown(name)}, expected a whole number or a text")
        check_characters(str(name), "id", where)
        # 1 and "1" are one key in the JSON file of answers.
        if first.setdefault(str(name), where) != where:
            raise UserError(f"{where}: the id {shown(name)} is that of {first[str(name)]}, too; ids must be unique")


def find_labels(task, data_args, train_examples, model_args):
    """The labels, in the order of the model's classes; none for a task that has none.

    A published data set has its own; one's own takes its labels from the training file, or, where nothing is
    trained, from the fine-tuned model.
    """
    if not task.has_labels:
        return []
    if data_args.dataset in DATA_SETS:
        return list(DATA_SETS[data_args.dataset].labels)
    if train_examples is None:
        return read_labels(model_args.model_name_or_path)
    labels = task.labels_of(train_examples)
    _warn_of_twins(labels)
    return labels


def _warn_of_twins(labels):
    """Warns of labels that people take for one: they differ in upper case, in a zero-width character or in how Unicode
    composes a character."""
    alike = {}
    for label in labels:
        visible = "".join(c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) != "Cf")
        alike.setdefault(visible.casefold(), []).append(label)
    # What can't be seen is escaped.
    shown_as = {label: repr(label) if label.isascii() else f"{label!r} ({label!a})" for label in labels}
    twins = [" and ".join(shown_as[label] for label in group) for group in alike.values() if len(group) > 1]
    if twins:
        logger.warning(f"labels that look alike are different classes: {'; '.join(twins[:5])}")
