"""Files of data sets, and what answers to a dev set score, as in training. Needs no model and no tokenizer, so that a
client can score what a server answers:

    items, gold = read_dev_set("seq_cls", "examples/data", "afqmc")
    score("seq_cls", predictor.predict(items), gold)        {"accuracy": ...}
"""

import itertools
import os
import unicodedata

from .answers import entity_spans, split_tag
from .errors import PredictorError
from .formats import read_qa, read_seq_cls, read_token_cls
from .scores import cmrc_scores, entity_scores
from .tasks import join_tokens
from .unicode_13 import is_accent, is_assigned

# How a task's files end. The first is the published data sets' own; the others are what people call CoNLL's format.
SUFFIXES = {"seq_cls": ("json",), "token_cls": ("tsv", "txt", "conll"), "qa": ("json",)}
# The label of rows on which the annotators did not agree: they are left out. Other data sets may have such a label.
NO_AGREEMENT = {"ocnli": "-", "cmnli": "-"}


def read_dev_set(task_name, data_dir, dataset):
    """The dev set of DATA_DIR/<dataset>/; NER without a dev file is scored on test, as MSRA_NER is.

    Args:
        task_name: "seq_cls", "token_cls" or "qa".
        dataset: a published name, or that of your own files in the same format.

    Returns:
        (items, gold): the items as the predictor takes them, and for each what `score` compares its answer with.

    Raises:
        PredictorError: a file is missing or empty, or a row is broken; names file and line.
    """
    _, examples = read_split(task_name, data_dir, dataset, "dev")
    if task_name == "seq_cls":
        items = [e["text"] if e["text_pair"] is None else (e["text"], e["text_pair"]) for e in examples]
        return items, [e["label"] for e in examples]
    if task_name == "token_cls":
        return [join_tokens(e["tokens"])[0] for e in examples], [_entities(e["tokens"], e["tags"]) for e in examples]
    items = [(e["question"], e["context"]) for e in examples]
    return items, [[answer["text"] for answer in e["answers"]] for e in examples]


def score(task_name, answers, gold):
    """What the answers to a dev set score, under the names of metrics.json, as shares of 1.

    Args:
        answers: for each item of `read_dev_set` the predictor's answer.
        gold: of `read_dev_set`.
    """
    if task_name == "seq_cls":
        return {"accuracy": sum(answer["label"] == label for answer, label in zip(answers, gold)) / len(gold)}
    if task_name == "token_cls":
        return entity_scores([[_trimmed_entity(entity) for entity in answer] for answer in answers], gold)
    return cmrc_scores([answer["answer"] for answer in answers], gold)


def check_labels(task_name, gold, labels):
    """Raises PredictorError where a dev set has a label, or a kind of entity, that a model does not know.

    Args:
        gold: of `read_dev_set`.
        labels: names of the model's classes or tags.
    """
    if task_name == "qa":
        return
    known = list(dict.fromkeys(labels if task_name == "seq_cls" else (split_tag(tag)[1] for tag in labels)))
    found = gold if task_name == "seq_cls" else [kind for entities in gold for kind, *_ in entities]
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
            suffix = SUFFIXES[task_name][0]
            raise PredictorError(f"there is no dev.{suffix}, and test.{suffix} can't take its place: {e}") from None
        raise


def is_test_file(path):
    return os.path.basename(path).startswith("test.")


def read_file(task_name, path, dataset, labelled):
    """The examples of a file; `formats` says what each holds.

    Raises:
        PredictorError: the file is empty, or a row is broken; names file and line.
    """
    if task_name == "seq_cls":
        examples = read_seq_cls(path, labelled, NO_AGREEMENT.get(dataset))
    else:
        examples = {"token_cls": read_token_cls, "qa": read_qa}[task_name](path, labelled)
    if not examples:
        raise PredictorError(f"{path} has no examples")
    return examples


def _find_file(task_name, data_dir, dataset, split):
    folder = os.path.join(data_dir, dataset)
    if not os.path.isdir(folder):
        found = _contents(data_dir) if os.path.isdir(data_dir) else "does not exist"
        raise PredictorError(f"no folder {folder}: --data_dir {data_dir} {found}")
    # MSRA_NER has two splits only and is scored on test.
    splits = [split, "test"] if task_name == "token_cls" and split == "dev" else [split]
    names = [[f"{name}.{suffix}" for suffix in SUFFIXES[task_name]] for name in splits]
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


def _entities(tokens, tags):
    """(kind, start, end) of each entity of a sentence, in characters of the text that the tokens make up."""
    text, starts = join_tokens(tokens)
    spans = [(kind, starts[first], starts[end - 1] + len(tokens[end - 1])) for kind, first, end in entity_spans(tags)]
    return [(kind, *_trimmed(text[start:end], start)) for kind, start, end in spans]


def _trimmed_entity(entity):
    start, end = _trimmed(entity["entity"], entity["start"])
    return {**entity, "start": start, "end": end}


def _trimmed(text, start):
    """(start, end) of a span of text without the characters at its ends that make up no wordpiece. A file may count
    them as part of an entity, and the tokenizer as part of none or of the word before.
    """
    places = [place for place, char in enumerate(text, start) if not _has_no_piece(char)]
    return (places[0], places[-1] + 1) if places else (start, start)


def _has_no_piece(char):
    """White space, and what `ErnieTokenizer` drops: control characters and the like, accents that stand alone."""
    dropped = unicodedata.category(char)[0] == "C" or not is_assigned(char) or char == "\ufffd"
    return char.isspace() or dropped or is_accent(char)
