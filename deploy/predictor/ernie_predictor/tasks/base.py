"""What the tasks have in common. Each task is a class in a file of its own, which has all that sets it apart: data
files, texts, features, logits, answers and scores."""

import json
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..errors import PredictorError
from ..formats import SURROGATE, is_whole_number
from ..tokenizer import ErnieTokenizer

SHORTEST = 8  # tokens that --max_seq_length must allow, as in training

# What the model reads: input_ids and token_type_ids, of equal length.
Feature = tuple[list[int], list[int]]
# {"label", "confidence"}, a list of entities, or {"answer", "start", "end", "confidence", "n_best"}.
Answer = dict[str, Any] | list[dict[str, Any]]
# The fields of an answer or a table, and what each holds: str, int, float, bool, such a table, or [what a list holds].
Fields = dict[str, Any]


class Pair(NamedTuple):
    """What one answer is asked about, checked: a text, or two."""

    first: str
    second: str | None


class Task:
    """A task: texts to features, and logits to answers. No runtime: the model runs elsewhere.

    Args:
        tokenizer: an `ErnieTokenizer`.
        max_seq_length: maximum length of a feature in tokens, special tokens included.
        id2label: {class index: label}; empty for a task without labels.
        params: how long texts are cut into windows and answers are chosen; `defaults` has their names.

    Attributes:
        usual_length: the length that a runtime should optimize for, if it builds for one.
        truncated: number of texts (questions, for reading comprehension) that `tokenize` has truncated so far.
        numbers: {label: class index}.
    """

    name: ClassVar[str]  # of --task_name
    head: ClassVar[str]  # the end of the model's class in PaddleNLP and Hugging Face; tasks may share one
    params_name: ClassVar[str]  # what config.json calls it in `task_specific_params`, as Hugging Face's pipelines do

    # An item: names of its texts, columns of a table that hold them (the first of these that it has), built-in items.
    first: ClassVar[str] = "text"
    second: ClassVar[str | None] = None
    second_required = False
    second_refused = False
    expected = "a text"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (("text",),)
    examples: ClassVar[list]
    pair_examples: ClassVar[list] = []  # of a task that takes single texts or pairs

    # The model's outputs: each is [batch, length if `per_token`, labels if `has_labels`].
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    per_token = True
    has_labels = True
    # As in `DataArguments`, for models whose config.json does not say.
    defaults: ClassVar[dict[str, int]] = {}

    # An answer: as columns of a table, as tensors of servers (Triton's models have more), as lines for people.
    answer_columns: ClassVar[Fields]
    tensors: ClassVar[Fields]
    triton_tensors: ClassVar[Fields]
    lines: ClassVar[Callable]  # answer -> list of str
    facts: ClassVar[tuple[str, ...]] = ()  # attributes that a server's `/info` shows, too

    # A data set: how its files end (the first is the published ones' ending), and which of them is the dev split.
    suffixes: ClassVar[tuple[str, ...]] = ("json",)
    dev_splits: ClassVar[tuple[str, ...]] = ("dev",)
    # (path, labelled) -> examples, dicts with "id" (None where there is none) and "where" (file and line). Its content
    # tells which of the task's formats a file has; it raises PredictorError with file and line.
    read_file: ClassVar[Callable]
    item: ClassVar[Callable]  # example -> its text or texts, as `check` takes them
    gold: ClassVar[Callable]  # labelled example -> what an answer is scored against
    classes_in: ClassVar[Callable] = staticmethod(lambda gold: [])  # one example's gold -> the classes that it names
    class_of: ClassVar[Callable] = staticmethod(str)  # a model's label -> the class, as `classes_in` calls it
    # What metrics.json holds, and the one by which models are compared.
    scores: ClassVar[tuple[str, ...]]
    score: ClassVar[str]
    score_answers: ClassVar[Callable]  # (answers, gold) of a dev set -> {score: share of 1}
    packages_to_score: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        tokenizer: ErnieTokenizer,
        max_seq_length: int,
        id2label: dict[int, str] | None = None,
        params: dict[str, int] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length
        self.usual_length = max(max_seq_length // 2, SHORTEST)
        self.id2label = id2label or {}
        self.numbers = {label: number for number, label in self.id2label.items()}
        self.params = {name: (params or {}).get(name, value) for name, value in self.defaults.items()}
        self.truncated = 0

    def limit(self) -> tuple[str, int]:
        """(what is truncated: "text" or "question", at how many tokens)."""
        return "text", self.max_seq_length

    def overlap(self) -> int:
        """In how many windows a token of a long text is, at most."""
        return 1

    def truncation_summary(self) -> str | None:
        """How many texts were truncated so far, in a sentence; None where none was."""
        what, limit = self.limit()
        if not self.truncated:
            return None
        many = f"1 {what} is" if self.truncated == 1 else f"{self.truncated:,} {what}s are"
        return f"{many} longer than {limit} tokens; the rest was not read"

    def check(self, item: Any) -> Pair:
        """Turns what a caller passed (a str, a pair or a dict) into a `Pair`; other fields of a dict are ignored.

        Raises:
            PredictorError: a text is missing, empty or not a text.
        """
        if isinstance(item, Pair):
            return item
        if isinstance(item, dict):
            if self.first not in item:
                raise PredictorError(f"expected {self.expected}; got the fields {', '.join(map(str, item)) or 'none'}")
            item = (item[self.first], item.get(self.second))
        elif isinstance(item, str):
            item = (item, None)
        elif not isinstance(item, (tuple, list)) or len(item) != 2:
            raise PredictorError(f"expected {self.expected}; got {item!r:.60}")
        text, second = item
        if second is not None and (self.second is None or self.second_refused):
            raise PredictorError(f"expected {self.expected}; got two texts")
        if second is None and self.second_required:
            raise PredictorError(f"expected {self.expected}; there is no {self.second}")
        self._check_text(self.first, text)
        if second is not None:
            self._check_text(self.second, second)
        return Pair(text, second)

    def _check_text(self, name, text):
        if not isinstance(text, str):
            raise PredictorError(f"`{name}` is {text!r:.60}, expected a text")
        if not text.strip():
            raise PredictorError(f"`{name}` is empty")
        if SURROGATE.search(text):
            raise PredictorError(f"`{name}` holds half of a surrogate pair, which is no character")

    def tokenize(self, pairs: list[Pair]) -> tuple[list[Feature], list]:
        """Features of texts.

        Args:
            pairs: a list of `Pair`.

        Returns:
            (features, notes): features are (input_ids, token_type_ids), lists of int of equal length up to
            `max_seq_length`, one or more per pair, in order; notes are for `read`, one per pair. Features and notes
            of several calls can be concatenated.
        """
        raise NotImplementedError

    def read(self, pairs: list[Pair], notes: list, logits: Iterable[tuple[np.ndarray, ...]]) -> list[Answer]:
        """Answers from the model's outputs.

        Args:
            pairs, notes: as given to and returned by `tokenize`.
            logits: for each feature a tuple of the model's outputs, float arrays: [classes], or [length, tags], or
                start and end, [length] each; the length is the feature's or, with padding, greater. An iterator is
                taken as far as these pairs need it.

        Returns:
            One answer per pair.
        """
        raise NotImplementedError

    def to_tensors(self, answer: Any) -> dict[str, Any]:
        """The values of `triton_tensors` for an answer, but "truncated"; lists are JSON."""
        return {
            name: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
            for name, value in answer.items()
        }

    @classmethod
    def from_tensors(cls, values: dict[str, Any]) -> Any:
        """The answer of `to_tensors`."""
        kinds = cls.answer_columns.items()
        return {name: json.loads(values[name]) if isinstance(kind, list) else values[name] for name, kind in kinds}

    @classmethod
    def text_names(cls) -> tuple[str, ...]:
        return (cls.first,) if cls.second is None else (cls.first, cls.second)

    @staticmethod
    def is_data_file(ending: str, line: bytes) -> bool:
        """Whether the input of a prediction is one for `read_file`, by its ending and its first line."""
        return False

    @staticmethod
    def named_texts(row: dict[str, Any]) -> dict[str, Any]:
        """A row of training files with its texts under their names for prediction; of others, the row."""
        return row

    @classmethod
    def read_params(cls, found: dict[str, Any], path: str) -> dict[str, Any]:
        """What `task_specific_params` of config.json says of how the task reads; other fields are left out.

        Raises:
            PredictorError: a value is one that no training writes.
        """
        params = {name: whole_number(found, name, path) for name in cls.defaults}
        return {name: value for name, value in params.items() if value is not None}

    def params_to_save(self) -> dict[str, Any]:
        """What training writes there."""
        return {"task": self.name, **self.params}


def whole_number(values: dict[str, Any], name: str, path: str) -> int | None:
    """A number of config.json, 1 or more; None where there is none."""
    value = values.get(name)
    if value is not None and (not is_whole_number(value) or value < 1):
        raise PredictorError(f"{path}: `{name}` is {value!r:.60}, expected a whole number, 1 or more")
    return value
