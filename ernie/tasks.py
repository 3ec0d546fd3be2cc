"""The tasks as training sees them, and the published data sets: a row each.

Each task is the predictor's own class (ernie_predictor/tasks/), so that a text gets the same answer in training and in
deployment; here it learns to label features, to name a trivial baseline, and to write predictions.

A data set of your own, in the format of one of these, needs no row (`--data_dir`); a further published one is one.
"""

import bisect
import collections
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from ernie_predictor import tasks
from ernie_predictor.answers import entity_spans, find_words, split_tag, tags_of_spans
from ernie_predictor.scores import without_punctuation
from ernie_predictor.tasks import join_tokens

from ernie import console
from ernie.console import logger
from ernie.errors import UserError

IGNORED = -100  # the label that paddle's cross entropy leaves out


class TrainingTask:
    """What training adds to a task of the predictor."""

    script: ClassVar[str]
    compress_script: ClassVar[str]
    id_type: ClassVar[type] = int  # of the numbers that examples without ids get
    label_names: ClassVar[tuple[str, ...]] = ("labels",)  # keys of a feature that are labels
    labels_of: ClassVar[Callable] = staticmethod(lambda examples: [])  # training examples -> labels, in their order
    one_label: ClassVar[Callable] = staticmethod(lambda label: f"has one class, {label!r}")  # what is wrong with that
    baseline: ClassVar[Callable]  # labelled examples -> {name, of `BASELINES`: score} of a trivial answer
    # Split -> None: adds `label_names` to its features; raises UserError, with its place, for an unknown label.
    label: ClassVar[Callable]
    result: ClassVar[Callable]  # (example, pair, answer) -> what a row of test_results.json holds beside the id
    # (Split, rows of test_results.json, path) -> the text of the file, at the path, that the leaderboard takes.
    leaderboard: ClassVar[Callable]

    @classmethod
    def check_splits(cls, splits):
        """Raises UserError where splits, lists of examples, do not belong together."""

    def begin(self, examples):
        """Prepares for the examples of one split."""

    def say_what_is_cut(self, split, truncated):
        """Says how many examples of a `Split` are longer than a feature."""
        if truncated:
            what, limit = self.limit()
            logger.warning(f"{truncated:,} of {len(split.examples):,} {what}s are truncated at {limit} tokens")

    def keep_params(self, params, model, dataset):
        """Takes what a fine-tuned model's config.json says and the data do not; raises UserError where they differ."""


def _unknown_label(example, label, labels):
    names = ", ".join(labels[:20]) + (" ..." if len(labels) > 20 else "")
    return UserError(f"{example['where']}: unknown label {label!r}; known are {names}")


class SequenceClassification(TrainingTask, tasks.SequenceClassification):
    script, compress_script = "run_seq_cls.py", "compress_seq_cls.py"
    labels_of = staticmethod(lambda examples: sorted({e["label"] for e in examples}))

    @classmethod
    def check_splits(cls, splits):
        first = {examples[0]["text_pair"] is None: examples[0]["where"] for examples in splits}
        if len(first) > 1:
            raise UserError(f"{first[True]} has one text, {first[False]} has two: a data set has one or the other")

    @staticmethod
    def baseline(examples):
        counts = collections.Counter(e["label"] for e in examples)
        return {"majority_class": max(counts.values()) / len(examples)}

    def begin(self, examples):
        self.set_text_pair(examples[0]["text_pair"] is not None)

    def label(self, split):
        for example, feature in zip(split.examples, split.features):
            if example["label"] not in self.numbers:
                raise _unknown_label(example, example["label"], [*self.numbers])
            feature["labels"] = self.numbers[example["label"]]

    def keep_params(self, params, model, dataset):
        known = params.get("text_pair")
        if self.text_pair is None:
            self.set_text_pair(known)
        elif known not in (None, self.text_pair):
            kinds = {True: "pairs of texts", False: "single texts"}
            raise UserError(
                f"--model_name_or_path {model} was fine-tuned on {kinds[known]}, but {dataset} has "
                f"{kinds[self.text_pair]}"
            )

    def result(self, example, pair, answer):
        return {key: example[key] for key in ("text", "text_pair") if example[key] is not None} | answer

    def leaderboard(self, split, results, path):
        rows = ({"id": result["id"], "label": result["label"]} for result in results)
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class TokenClassification(TrainingTask, tasks.TokenClassification):
    script, compress_script = "run_token_cls.py", "compress_token_cls.py"
    labels_of = staticmethod(lambda examples: sorted({"O"}.union(*(e["tags"] for e in examples))))
    one_label = staticmethod(lambda label: "has no entity")
    baseline = staticmethod(lambda examples: {"f1_of_all_O": 0.0})

    def say_what_is_cut(self, split, truncated):
        long = sum(len(windows) > 1 for _, windows in split.notes)
        if long:
            console.row(
                "windows",
                f"{long:,} of {len(split.examples):,} sentences are longer than --max_seq_length "
                f"{self.max_seq_length}: read in overlapping windows",
            )

    def label(self, split):
        """The predictor reads one tag per word, from its first piece, in the window in which that piece has most
        context: there the word's label stands. All else is `IGNORED`, and so left out of the loss.
        """
        labels = [*self.numbers]
        ids, kinds = self.numbers | {None: IGNORED}, {split_tag(label)[1] for label in labels}
        torn, features = [], iter(split.features)
        for example, pair, (offsets, windows) in zip(split.examples, split.pairs, split.notes):
            tokens = example["tokens"]
            for tag in example["tags"]:
                if tag != "O" and split_tag(tag)[1] not in kinds:
                    raise _unknown_label(example, tag, labels)
            text, (_, starts), words = pair.first, join_tokens(tokens), find_words(pair.first, offsets)
            word_starts, word_stops = [start for start, *_ in words], [stop for _, stop, _, _ in words]
            spans, ignored = [], []
            for kind, begin, end in entity_spans(example["tags"]):
                begin, end = starts[begin], starts[end - 1] + len(tokens[end - 1])
                # The words that the entity touches, last exclusive.
                first, last = bisect.bisect_right(word_stops, begin), bisect.bisect_left(word_starts, end)
                if first < last and begin <= word_starts[first] and word_stops[last - 1] <= end:
                    spans.append((kind, first, last))
                else:
                    ignored += range(first, last)
                    torn.append(f"{text[begin:end]!r}, {example['where']}")
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
                "digits, which gets one tag as a whole, so that no model can find them: the loss leaves them out, and "
                f"the score counts them as missed (the first: {torn[0]})"
            )

    def result(self, example, pair, answer):
        return {"text": pair.first, "entities": answer}

    def leaderboard(self, split, results, path):
        """MSRA_NER's format with the tags of entities, in the labels' scheme."""
        lines, covered = [], 0
        for example, result in zip(split.examples, results):
            tokens, (_, starts) = example["tokens"], join_tokens(example["tokens"])
            spans = [  # in tokens, of which an entity's may begin or end in the middle
                (e["label"], bisect.bisect_right(starts, e["start"]) - 1, bisect.bisect_left(starts, e["end"]))
                for e in result["entities"]
            ]
            covered += sum(later[1] < earlier[2] for earlier, later in itertools.pairwise(spans))
            tags = tags_of_spans(spans, len(tokens), self.numbers)
            lines.append("\x02".join(tokens) + "\t" + "\x02".join(tags) + "\n")
        if covered:
            logger.warning(
                f"{covered:,} entities share a token with the one before, and a token has one tag: {path} has the "
                "later of them, test_results.json all"
            )
        return "".join(lines)


class QuestionAnswering(TrainingTask, tasks.QuestionAnswering):
    script, compress_script = "run_qa.py", "compress_qa.py"
    id_type = str
    label_names = ("start_positions", "end_positions")

    @staticmethod
    def baseline(examples):
        """The exact match that no model can exceed if it never reads the question: it gives one answer a context, at
        best the answer that most of the context's questions share."""
        contexts = collections.defaultdict(collections.Counter)
        for example in examples:
            contexts[example["context"]].update({without_punctuation(a["text"]) for a in example["answers"]})
        return {"question_blind": sum(max(counts.values()) for counts in contexts.values()) / len(examples)}

    def label(self, split):
        """Positions are 0, [CLS], where the window lacks the answer."""
        features, lost, moved = iter(split.features), [], []
        for example, (offsets, windows) in zip(split.examples, split.notes):
            spans = (locate_answer(example["context"], answer) for answer in example["answers"])
            span = next((s for s in spans if s is not None), None)
            pieces = None  # the first and the last; none where there is white space alone
            if span:
                begin = bisect.bisect_right([end for _, end in offsets], span[0])
                last = bisect.bisect_left([start for start, _ in offsets], span[1]) - 1
                pieces = (begin, last) if begin <= last else None
            if pieces is None:
                lost.append(example["where"])
            elif span[0] not in [answer["answer_start"] for answer in example["answers"]]:
                moved.append(example["where"])
            for (first, place), feature in zip(windows, features):
                inside = pieces is not None and first <= pieces[0] and pieces[1] < first + place.stop - place.start
                feature["start_positions"] = pieces[0] - first + place.start if inside else 0
                feature["end_positions"] = pieces[1] - first + place.start if inside else 0
        kinds = (
            (lost, "have no answer that occurs in the context: trained as unanswerable"),
            (moved, "have none at `answer_start`: the nearest occurrence is taken"),
        )
        faults = [f"{len(places):,} {what} ({places[0]} ...)" for places, what in kinds if places]
        if faults:
            logger.warning(f"Of {len(split.examples):,} questions, {', and '.join(faults)}")

    def result(self, example, pair, answer):
        return {"question": example["question"], **answer}

    def leaderboard(self, split, results, path):
        return json.dumps({r["id"]: r["answer"] for r in results}, ensure_ascii=False, indent=2) + "\n"


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


SEQ_CLS, TOKEN_CLS, QA = SequenceClassification, TokenClassification, QuestionAnswering
TASKS = {task.name: task for task in (SEQ_CLS, TOKEN_CLS, QA)}

# The trivial baselines that metrics.json puts beside a score.
BASELINES = {
    "majority_class": "always the commonest label",
    "f1_of_all_O": "no entity anywhere",
    "question_blind": "the best that ignores the question",
}


@dataclass(frozen=True)
class DataSet:
    name: str
    task: type[TrainingTask]
    # In PaddleNLP's order (paddlenlp.datasets), which is the order of the classes in everybody's fine-tuned models.
    labels: tuple = ()
    # CLUE's leaderboard takes <this>_predict.json; a renewed test set has a name of its own (submission rules, 1.1).
    leaderboard: str = None
    hub: str = "clue"  # PaddleNLP's data set builder
    hub_splits: dict = field(default_factory=dict)  # the builder's name for a split, where it is another


TNEWS_LABELS = "100 101 102 103 104 106 107 108 109 110 112 113 114 115 116"
MSRA_LABELS = "B-PER I-PER B-ORG I-ORG B-LOC I-LOC O"

DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet("afqmc", SEQ_CLS, ("0", "1")),
        DataSet("tnews", SEQ_CLS, tuple(TNEWS_LABELS.split()), leaderboard="tnews11"),
        DataSet("iflytek", SEQ_CLS, tuple(map(str, range(119)))),
        DataSet("ocnli", SEQ_CLS, ("entailment", "contradiction", "neutral"), leaderboard="ocnli_50k"),
        DataSet("cmnli", SEQ_CLS, ("contradiction", "entailment", "neutral")),
        DataSet("cluewsc2020", SEQ_CLS, ("true", "false"), leaderboard="cluewsc11"),
        DataSet("csl", SEQ_CLS, ("0", "1")),
        # PaddleNLP's MSRA_NER has no dev split, and its CMRC2018 calls the test split "trial".
        DataSet("msra_ner", TOKEN_CLS, tuple(MSRA_LABELS.split()), hub="msra_ner", hub_splits={"dev": "test"}),
        DataSet("cmrc2018", QA, hub="cmrc2018", hub_splits={"test": "trial"}),
    )
}
