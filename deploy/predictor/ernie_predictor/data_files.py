"""Files of data sets, and what answers to a dev set score, as in training. Needs no model and no tokenizer, so that a
client can score what a server answers:

    items, gold = read_dev_set("seq_cls", "examples/data", "afqmc")
    score("seq_cls", predictor.predict(items), gold)        {"accuracy": ...}
"""

import itertools
import logging
import os

from .errors import PredictorError
from .tasks import TASKS

logger = logging.getLogger("ernie_predictor")

# The label of rows on which the annotators did not agree: they are left out. Other data sets may have such a label.
NO_AGREEMENT = {"ocnli": "-", "cmnli": "-"}


def read_dev_set(task_name, data_dir, dataset):
    """The dev set of DATA_DIR/<dataset>/; NER without a dev file is scored on test, as MSRA_NER is.

    Args:
        task_name: a key of `TASKS`, as in the other functions.
        dataset: a published name, or that of your own files in the same format.

    Returns:
        (items, gold): the items as the predictor takes them, and for each what `score` compares its answer with.

    Raises:
        PredictorError: a file is missing or empty, or a row is broken; names file and line.
    """
    _, examples = read_split(task_name, data_dir, dataset, "dev")
    task = TASKS[task_name]
    return [task.item(e) for e in examples], [task.gold(e) for e in examples]


def score(task_name, answers, gold):
    """What the answers to a dev set score, under the names of metrics.json, as shares of 1.

    Args:
        answers: for each item of `read_dev_set` the predictor's answer.
        gold: of `read_dev_set`.
    """
    return TASKS[task_name].score_answers(answers, gold)


def check_labels(task_name, gold, labels):
    """Raises PredictorError where a dev set has a label, or a kind of entity, that a model does not know.

    Args:
        gold: of `read_dev_set`.
        labels: names of the model's classes or tags.
    """
    task = TASKS[task_name]
    known = list(dict.fromkeys(map(task.class_of, labels)))
    found = itertools.chain.from_iterable(map(task.classes_in, gold))
    unknown = next((label for label in found if label not in known), None)
    if unknown is not None:
        names = ", ".join(filter(None, known[:20])) + (" ..." if len(known) > 20 else "")
        raise PredictorError(f"the dev set has the label {unknown!r}, which the model does not know; it knows {names}")


def read_split(task_name, data_dir, dataset, split):
    """The file of a split ("train", "dev" or "test") in DATA_DIR/<dataset>/, and its examples, as `read_file` has them.

    Raises:
        PredictorError: a file is missing or empty, or a row is broken; names file and line.
    """
    path = _find_file(task_name, data_dir, dataset, split)
    try:
        return path, read_file(task_name, path, dataset, labelled=split != "test")
    except PredictorError as e:
        if split == "dev" and is_test_file(path):
            suffix = TASKS[task_name].suffixes[0]
            raise PredictorError(f"there is no dev.{suffix}, and test.{suffix} can't take its place: {e}") from None
        raise


def is_test_file(path):
    return os.path.basename(path).startswith("test.")


def read_file(task_name, path, dataset, labelled):
    """The examples of a file, as the task's own `read_file` has them.

    Raises:
        PredictorError: the file is empty, or a row is broken; names file and line.
    """
    examples = TASKS[task_name].read_file(path, labelled)
    if labelled and (label := NO_AGREEMENT.get(dataset)):
        read = len(examples)
        examples = [e for e in examples if e["label"] != label]
        if left_out := read - len(examples):
            logger.warning(f"{path}: {left_out:,} rows left out, labelled {label!r} (the annotators did not agree)")
    if not examples:
        raise PredictorError(f"{path} has no examples")
    return examples


def _find_file(task_name, data_dir, dataset, split):
    folder = os.path.join(data_dir, dataset)
    if not os.path.isdir(folder):
        found = _contents(data_dir) if os.path.isdir(data_dir) else "does not exist"
        raise PredictorError(f"no folder {folder}: --data_dir {data_dir} {found}")
    task = TASKS[task_name]
    splits = task.dev_splits if split == "dev" else [split]
    names = [[f"{name}.{suffix}" for suffix in task.suffixes] for name in splits]
    for of_split in names:
        found = [name for name in of_split if os.path.isfile(os.path.join(folder, name))]
        if len(found) > 1:
            raise PredictorError(f"{folder} has {' and '.join(found)}, which are one split: keep one of them")
        if found:
            return os.path.join(folder, found[0])
    names = " or ".join(itertools.chain.from_iterable(names))
    raise PredictorError(f"no file {names} in {folder}, which {_contents(folder)}")


def _contents(folder):
    """What a folder holds, for a message."""
    return f"holds {', '.join(sorted(os.listdir(folder))[:12]) or 'nothing'}"
