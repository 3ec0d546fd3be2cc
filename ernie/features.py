"""Features: examples to input ids and labels, and features to batches.

Texts are tokenized, and answers read, by the predictor's own tasks (ernie_predictor/tasks.py), so that a text gets the
same answer in training and in deployment. Training adds labels and batches.
"""

import bisect
import re
from functools import cached_property

import numpy as np
from ernie_predictor.answers import entity_spans, find_words, tags_of_spans
from ernie_predictor.tasks import join_tokens

from ernie import console
from ernie.console import logger
from ernie.data import check_kinds, label_ids
from ernie.errors import UserError

IGNORED = -100  # the label that paddle's cross entropy leaves out


class Split:
    """The examples of one split as features for a model, and what reads answers from their logits.

    Attributes:
        examples: as `load_examples` returns them.
        features: dicts of "input_ids", "token_type_ids" (lists of int) and, for training, labels.
        sorted_features: the same from the longest to the shortest, for batches with little padding.
    """

    def __init__(self, processor, examples, pairs, labels=None):
        """
        Args:
            processor: a task of ernie_predictor/tasks.py.
            pairs: for each example a `Pair` of texts.
            labels: the names of the classes, if the features carry labels.
        """
        self.processor, self.examples, self.pairs, self.labels = processor, examples, pairs, labels
        inputs, self.notes = tokenize(processor, pairs)
        self.features = [{"input_ids": ids, "token_type_ids": types} for ids, types in inputs]

    @cached_property
    def order(self):
        return np.argsort([-len(f["input_ids"]) for f in self.features], kind="stable")

    @cached_property
    def sorted_features(self):
        return [self.features[i] for i in self.order]

    def answers(self, outputs):
        """One answer per example, as the predictor gives it.

        Args:
            outputs: the model's output array or tuple of arrays [features, ...], in the order of `sorted_features`.
        """
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        logits = [None] * len(self.features)
        for index, *arrays in zip(self.order, *outputs):
            logits[index] = tuple(arrays)
        answers, logits = [], iter(logits)
        pairs = console.progress(self.pairs, desc="reading answers", disable=len(self.pairs) < 2000 or None)
        for pair, note in zip(pairs, self.notes):
            answers += self.processor.read([pair], [note], logits)
        return answers


def tokenize(processor, pairs):
    """Tokenizes many texts with a progress bar; (features, notes) as `processor.tokenize` returns them."""
    features, notes = [], []
    with console.progress(total=len(pairs), desc="tokenizing", disable=len(pairs) < 2000 or None) as bar:
        for begin in range(0, len(pairs), 1024):
            chunk = pairs[begin : begin + 1024]
            more_features, more_notes = processor.tokenize(chunk)
            features += more_features
            notes += more_notes
            bar.update(len(chunk))
    return features, notes


def checked(processor, example, item):
    """`processor.check`, with errors that name the example's file and line."""
    try:
        return processor.check(item)
    except UserError as e:
        raise UserError(f"{example['where']}: {e}") from None


def _warn_of_truncation(processor, truncated, number):
    if truncated:
        what, limit = processor.limit()
        logger.warning(f"{truncated:,} of {number:,} {what}s are truncated at {limit} tokens")


def seq_cls_features(processor, examples, labels=None):
    """Classification: a `Split`, with "labels" (int) if the names of the classes are given; None for None.

    From then on the processor takes what the examples are: single texts, or pairs of texts.
    """
    if examples is None:
        return None
    processor.set_text_pair(examples[0]["text_pair"] is not None)
    pairs = [checked(processor, e, (e["text"], e["text_pair"])) for e in examples]
    truncated = processor.truncated
    split = Split(processor, examples, pairs, labels)
    _warn_of_truncation(processor, processor.truncated - truncated, len(examples))
    if labels is not None:
        for feature, label in zip(split.features, label_ids(examples, labels)):
            feature["labels"] = label
    return split


def token_cls_features(processor, examples, labels=None):
    """NER: a `Split` with one feature per window of a text; None for None.

    If the names of the tags are given, features carry "labels" (list of int), and the split `gold`: for each example
    its entities, (label, start, end), as the predictor gives them.

    The predictor reads one tag a word, from the word's first piece, in the window in which that has most context: there
    stands the word's label. All else is labelled `IGNORED`, hence left out of the loss.
    """
    if examples is None:
        return None
    joined = [join_tokens(e["tokens"]) for e in examples]
    pairs = [checked(processor, e, text) for e, (text, _) in zip(examples, joined)]
    split = Split(processor, examples, pairs, labels)
    long = sum(len(windows) > 1 for _, windows in split.notes)
    if long:
        console.row(
            "windows",
            f"{long:,} of {len(examples):,} sentences are longer than --max_seq_length {processor.max_seq_length}: "
            "read in overlapping windows",
        )
    if labels is not None:
        check_kinds(examples, labels)
        _add_tags(split, joined, labels)
    return split


def _add_tags(split, joined, labels):
    """Adds `gold` to a split of NER, and labels to its features.

    Args:
        joined: `join_tokens` of each example.
    """
    ids = {label: index for index, label in enumerate(labels)} | {None: IGNORED}
    split.gold, torn, features = [], [], iter(split.features)
    for example, (text, starts), (offsets, windows) in zip(split.examples, joined, split.notes):
        words = find_words(text, offsets)
        word_starts, word_stops = [start for start, *_ in words], [stop for _, stop, _, _ in words]
        spans, gold, ignored = [], [], []
        for kind, begin, end in entity_spans(example["tags"]):
            begin, end = starts[begin], starts[end - 1] + len(example["tokens"][end - 1])
            # The words that the entity touches, last exclusive.
            first, last = bisect.bisect_right(word_stops, begin), bisect.bisect_left(word_starts, end)
            if first < last and begin <= word_starts[first] and word_stops[last - 1] <= end:
                spans.append((kind, first, last))
                begin, end = words[first][0], words[last - 1][2]  # with an accent behind it, as the predictor has it
            else:
                ignored += range(first, last)
                torn.append(f"{text[begin:end]!r}, {example['where']}")
            gold.append((kind, begin, end))
        split.gold.append(gold)
        tags = tags_of_spans(spans, len(words), labels)
        for word in ignored:
            tags[word] = None
        of_pieces = [IGNORED] * len(offsets)
        for (*_, piece), tag in zip(words, tags):
            of_pieces[piece] = ids[tag]
        for (at, first, end), feature in zip(windows, features):
            feature["labels"] = [IGNORED] * len(feature["input_ids"])
            feature["labels"][first - at + 1 : end - at + 1] = of_pieces[first:end]
    if torn:
        logger.warning(
            f"{len(torn):,} of {sum(map(len, split.gold)):,} entities begin or end inside a word of letters or of "
            "digits, which gets one tag as a whole, so that no model can find them: the loss leaves them out, and the "
            f"score counts them as missed (the first: {torn[0]})"
        )


def locate_answer(context, answer):
    """(start, end) of an answer in characters; None if its text is nowhere in the context.

    CMRC2018 has answers whose `answer_start` is wrong: the nearest occurrence is taken.
    """
    text, start = answer["text"], answer["answer_start"]
    if start < 0 or context[start : start + len(text)] != text:
        places = [m.start() for m in re.finditer(re.escape(text), context)]
        if not places:
            return None
        start = min(places, key=lambda place: abs(place - start))
    return start, start + len(text)


def qa_features(processor, examples, labelled=True):
    """Reading comprehension: a `Split` with one feature per window of a context; None for None.

    Args:
        labelled: whether to add "start_positions", "end_positions" (0, [CLS], where the window lacks the answer).
    """
    if examples is None:
        return None
    truncated = processor.truncated
    split = Split(processor, examples, [checked(processor, e, (e["question"], e["context"])) for e in examples])
    _warn_of_truncation(processor, processor.truncated - truncated, len(examples))
    if not labelled:
        return split
    features, lost, moved = iter(split.features), [], []
    for example, (offsets, windows) in zip(examples, split.notes):
        spans = (locate_answer(example["context"], answer) for answer in example["answers"])
        span = next((s for s in spans if s is not None), None)
        pieces = _pieces_of(span, offsets) if span else None
        if pieces is None:
            lost.append(example["where"])
        elif span[0] not in [answer["answer_start"] for answer in example["answers"]]:
            moved.append(example["where"])
        for (first, place), feature in zip(windows, features):
            inside = pieces is not None and first <= pieces[0] and pieces[1] < first + place.stop - place.start
            feature["start_positions"] = pieces[0] - first + place.start if inside else 0
            feature["end_positions"] = pieces[1] - first + place.start if inside else 0
    _warn_of_answers(len(examples), lost, moved)
    return split


def _warn_of_answers(total, lost, moved):
    """One warning of the questions whose answers are not where the file says; their places are given."""
    faults = []
    if lost:
        faults.append(
            f"{len(lost):,} have no answer that occurs in the context: trained as unanswerable ({lost[0]} ...)"
        )
    if moved:
        faults.append(f"{len(moved):,} have none at `answer_start`: the nearest occurrence is taken ({moved[0]} ...)")
    if faults:
        logger.warning(f"Of {total:,} questions, {', and '.join(faults)}")


def _pieces_of(span, offsets):
    """(first, last) piece of a span of characters, or None where there is no piece (white space)."""
    first = bisect.bisect_right([end for _, end in offsets], span[0])
    last = bisect.bisect_left([start for start, _ in offsets], span[1]) - 1
    return (first, last) if first <= last else None


class Collator:
    """Features to a batch: pads to the longest, or to the first of `dynamic_max_length` that holds it.

    Returns:
        {name: int64 NumPy array}, [batch] or [batch, length] up to [batch, max_seq_length]. NumPy, since the data
        loader's worker processes (--dataloader_num_workers) can't make Paddle tensors.
    """

    def __init__(self, tokenizer, dynamic_max_length=None):
        self.tokenizer = tokenizer
        self.lengths = sorted(dynamic_max_length or [])

    def __call__(self, features):
        longest = max(len(f["input_ids"]) for f in features)
        length = next((n for n in self.lengths if n >= longest), longest)
        batch = self.tokenizer.pad([(f["input_ids"], f["token_type_ids"]) for f in features], length)
        for key in ("labels", "start_positions", "end_positions"):
            if key not in features[0]:
                continue
            values = [f[key] for f in features]
            if isinstance(values[0], list):
                values = [v + [IGNORED] * (length - len(v)) for v in values]
            batch[key] = np.array(values, dtype=np.int64)
        return batch
