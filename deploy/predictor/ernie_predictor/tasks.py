"""The three tasks: texts to features, and logits to answers. No runtime: the model runs elsewhere.

`load_task` tells from a model folder which task it is, and its labels. A task then has

- `check(item)`: what a caller passed, as a `Pair` of texts;
- `tokenize(pairs)`: features for the model, and what `read` needs to know about them;
- `read(pairs, notes, logits)`: the answers.

Training, the predictor and the servers all use these, so that a text gets the same answer by every route.
"""

import itertools
import json
import os
import re
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .answers import check_tags, read_answers, read_class, read_entities
from .errors import PredictorError, UsageError
from .formats import unique_fields
from .labels import read_labels
from .tokenizer import ErnieTokenizer, vocab_crc32

# What the command line calls a task, and how PaddleNLP and Hugging Face end the name of its model.
ARCHITECTURES = {
    "seq_cls": "SequenceClassification",
    "token_cls": "TokenClassification",
    "qa": "QuestionAnswering",
}
# Where config.json keeps what `Task.params` holds, in `task_specific_params`; for seq_cls it holds `text_pair`.
PARAMS_NAMES = {"seq_cls": "text-classification", "token_cls": "token-classification", "qa": "question-answering"}
SHORTEST = 8  # tokens that --max_seq_length must allow, as in training

# What the model reads: input_ids and token_type_ids, of equal length.
Feature = tuple[list[int], list[int]]
# {"label", "confidence"}, a list of entities, or {"answer", "start", "end", "confidence", "n_best"}.
Answer = dict[str, Any] | list[dict[str, Any]]

BEGINNING = 16  # characters per token of the beginning of a long text, which mostly holds more tokens than are read

_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD_END = re.compile("[ \n\u4e00-\u9fa5]")  # after any of these, a word begins


class Pair(NamedTuple):
    """What one answer is asked about, checked: a text, or two."""

    first: str
    second: str | None


class Task:
    """What the tasks share.

    Args:
        tokenizer: an `ErnieTokenizer`.
        max_seq_length: maximum length of a feature in tokens, special tokens included.
        id2label: {class index: label}; empty for reading comprehension.
        params: how long texts are cut into windows and answers are chosen; `defaults` has their names.

    Attributes:
        name: a key of `ARCHITECTURES`.
        usual_length: the length that a runtime should optimize for, if it builds for one.
        truncated: number of texts (questions, for reading comprehension) that `tokenize` has truncated so far.
    """

    name: str
    first: str = "text"  # names of the texts
    second: str | None = None
    second_required = False
    second_refused = False
    expected = "a text"
    # As in `DataArguments`, for models whose config.json does not say.
    defaults: ClassVar[dict[str, int]] = {}

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
        self.params = {name: (params or {}).get(name, value) for name, value in self.defaults.items()}
        self.truncated = 0

    def limit(self) -> tuple[str, int]:
        """(what is truncated: "text" or "question", at how many tokens)."""
        return "text", self.max_seq_length

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
        if _SURROGATE.search(text):
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


class SequenceClassification(Task):
    """Answers: {"label": str, "confidence": float}.

    Attributes:
        text_pair: whether the model was fine-tuned on pairs of texts, and so takes nothing else; None: not known.
    """

    name = "seq_cls"
    second = "text_pair"
    expected = 'a text, a pair of texts, or {"text": ..., "text_pair": ...}'

    def __init__(self, tokenizer, max_seq_length, id2label=None, params=None):
        super().__init__(tokenizer, max_seq_length, id2label, params)
        self.set_text_pair((params or {}).get("text_pair"))

    def set_text_pair(self, text_pair: bool | None) -> None:
        self.text_pair, self.second_required, self.second_refused = text_pair, text_pair is True, text_pair is False
        if text_pair is False:
            self.expected = 'a text or {"text": ...}, since the model was fine-tuned on single texts'
        elif text_pair:
            self.expected = (
                'a pair of texts or {"text": ..., "text_pair": ...}, since the model was fine-tuned on pairs'
            )

    def tokenize(self, pairs):
        encodings = self._encode([text for text, _ in pairs])
        seconds = iter(self._encode([second for _, second in pairs if second is not None]))
        features = []
        for encoding, (_, second) in zip(encodings, pairs):
            second_ids = None if second is None else next(seconds).ids
            features.append(self.tokenizer.build_inputs(encoding.ids, second_ids, self.max_seq_length))
            needed = len(encoding.ids) + 2 + (0 if second is None else len(second_ids) + 1)
            self.truncated += needed > len(features[-1][0])
        return features, [None] * len(pairs)

    def _encode(self, texts):
        """Encodings of texts; of a very long one, the beginning alone, which has more tokens than are read: all of 6 MB
        would take a gigabyte."""
        begins = [_beginning(text, BEGINNING * self.max_seq_length) for text in texts]
        encodings = self.tokenizer.encode(begins, offsets=False)
        for index, (text, begin, encoding) in enumerate(zip(texts, begins, encodings)):
            if len(begin) < len(text) and len(encoding.ids) < self.max_seq_length:
                (encodings[index],) = self.tokenizer.encode([text], offsets=False)
        return encodings

    def read(self, pairs, notes, logits):
        return [read_class(outputs[0], self.id2label) for _, outputs in zip(pairs, logits)]


def _beginning(text, length):
    """A text's first characters, `length` or more, up to the end of a word."""
    end = _WORD_END.search(text, length) if len(text) > length else None
    return text[: end.end()] if end else text


class TokenClassification(Task):
    """Answers: a list of {"entity": str, "label": str, "start": int, "end": int, "confidence": float}.

    A text that is too long is cut into overlapping windows, a feature each; a wordpiece takes its tag from the window
    in which it has most context.

    Raises:
        PredictorError: the labels are of no tag scheme that can be read.
    """

    name = "token_cls"
    expected = 'a text or {"text": ...}'
    defaults: ClassVar = {"doc_stride": 128}

    def __init__(self, tokenizer, max_seq_length, id2label=None, params=None):
        super().__init__(tokenizer, max_seq_length, id2label, params)
        check_tags(self.id2label.values())

    def tokenize(self, pairs):
        """As `Task.tokenize`; a note is (offsets of the text's wordpieces, windows), and a window, for each of the
        text's features, is (the text's piece at position 1, first and end of the pieces whose tags are read there)."""
        room = self.max_seq_length - 2
        # Half a window at most, so that each piece has a quarter of a window on both sides.
        step = min(self.params["doc_stride"], max(room // 2, 1))
        features, notes = [], []
        for encoding in self.tokenizer.encode([text for text, _ in pairs]):
            length = len(encoding.ids)
            starts = window_starts(length, room, step)
            borders = [0, *((a + b + room) // 2 for a, b in itertools.pairwise(starts)), length]
            for start in starts:
                features.append(self.tokenizer.build_inputs(encoding.ids[start : start + room], None, room + 2))
            notes.append((encoding.offsets, list(zip(starts, borders, borders[1:]))))
        return features, notes

    def read(self, pairs, notes, logits):
        answers, logits = [], iter(logits)
        for (text, _), (offsets, windows) in zip(pairs, notes):
            parts = [tags[first - at + 1 : end - at + 1] for (at, first, end), (tags,) in zip(windows, logits)]
            tags = parts[0] if len(parts) == 1 else np.concatenate(parts)
            answers.append(read_entities(tags, self.id2label, text, offsets))
        return answers


def join_tokens(tokens):
    """The text that tokens make up, and where in it each begins.

    Words of an alphabet are separated by a space, as people write them; single characters are not, since MSRA_NER
    writes a word of an alphabet letter by letter.

    >>> join_tokens(["在", "New", "York", "3", "0", "天"])
    ('在New York30天', [0, 1, 5, 9, 10, 11])
    """
    text, starts = "", []
    for previous, token in zip(["", *tokens], tokens):
        if len(previous) > 1 and len(token) > 1 and _wordlike(previous[-1]) and _wordlike(token[0]):
            text += " "
        starts.append(len(text))
        text += token
    return text, starts


def _wordlike(char):
    return char.isascii() and char.isalnum()


def window_starts(length, room, step):
    """Where windows of `room` pieces begin, at most `step` apart; the last one ends where the text does.

    >>> window_starts(10, 10, 5), window_starts(23, 10, 5)
    ([0], [0, 5, 10, 13])
    """
    return [*range(0, length - room, step), max(length - room, 0)]


class QuestionAnswering(Task):
    """Answers: {"answer": str, "start": int, "end": int, "confidence": float, "n_best": the same four, best first}.

    A context that is too long is cut into overlapping windows, a feature each. A question is truncated: to
    `max_query_length` tokens, or to fewer, so that a quarter of each window is the context's.
    """

    name = "qa"
    first, second, second_required = "question", "context", True
    expected = 'a question and a context: a pair or {"question": ..., "context": ...}'
    defaults: ClassVar = {"doc_stride": 128, "max_query_length": 64, "n_best_size": 20, "max_answer_length": 50}

    def __init__(self, tokenizer, max_seq_length, id2label=None, params=None):
        super().__init__(tokenizer, max_seq_length, id2label, params)
        self.usual_length = max_seq_length  # the windows of a long context are full

    def limit(self):
        longest = self.tokenizer.longest_query(self.max_seq_length, self.params["max_query_length"])
        return "question", longest

    def _check_text(self, name, text):
        if name == "question" and text == "":
            return  # CMRC2018 itself has an empty question
        super()._check_text(name, text)

    def tokenize(self, pairs):
        """As `Task.tokenize`; a note is (offsets of the context's wordpieces, windows), and a window, for each of the
        pair's features, is (first context piece in it, slice of its context pieces in the feature)."""
        questions = self.tokenizer.encode([question for question, _ in pairs], offsets=False)
        # Many questions share a context: it is tokenized once.
        contexts = list(dict.fromkeys(context for _, context in pairs))
        encoded = dict(zip(contexts, self.tokenizer.encode(contexts)))
        features, notes = [], []
        for question, (_, context) in zip(questions, pairs):
            windows = []
            for input_ids, token_type_ids, first, begin in self.tokenizer.build_windows(
                question,
                encoded[context],
                self.max_seq_length,
                self.params["doc_stride"],
                self.params["max_query_length"],
            ):
                windows.append((first, slice(begin, len(input_ids) - 1)))
                query_length = begin - 2
                features.append((input_ids, token_type_ids))
            notes.append((encoded[context].offsets, windows))
            self.truncated += query_length < len(question.ids)
        return features, notes

    def read(self, pairs, notes, logits):
        answers, logits = [], iter(logits)
        for (_, context), (offsets, windows) in zip(pairs, notes):
            windows = [(start[inside], end[inside], first) for (first, inside), (start, end) in zip(windows, logits)]
            n_best = read_answers(
                windows, context, offsets, self.params["n_best_size"], self.params["max_answer_length"]
            )
            answers.append({**n_best[0], "n_best": n_best})
        return answers


TASKS = {task.name: task for task in (SequenceClassification, TokenClassification, QuestionAnswering)}


def load_task(
    model_dir: str | os.PathLike[str],
    task_name: str | None = None,
    max_seq_length: int | None = None,
    num_threads: int | None = None,
    tokenizer: str = "tokenizers",
    doc_stride: int | None = None,
) -> Task:
    """The task of a model folder, by its config.json, vocab.txt and tokenizer_config.json.

    Args:
        task_name: the task that it must be, a key of `ARCHITECTURES`; None: any.
        max_seq_length: maximum tokens per text; None: as the model was trained (`model_max_length`).
        num_threads: for tokenizing; None: the cores that this process may use.
        tokenizer: "tokenizers", or "fast_tokenizer" (FastTokenizer, no longer maintained); the ids are the same.
        doc_stride: for token_cls and qa: tokens between the beginnings of two windows; None: as the model was trained.

    Raises:
        PredictorError: a file is missing or broken, or the files do not fit together.
        UsageError: the folder is of another task, or the model takes no texts of that length, or reads no windows.
    """
    config = _read_config(model_dir)
    name, architecture = _architecture(config, model_dir)
    if task_name is not None and task_name != name:
        raise UsageError(f"--task_name {task_name}: {model_dir} holds a model for {name} ({architecture})")
    labels = [] if name == "qa" else read_labels(config, f"{model_dir}/config.json")
    if name != "qa" and not labels:
        raise PredictorError(f"{model_dir}/config.json has no `id2label`, the names of the labels")
    own = ErnieTokenizer.from_pretrained(model_dir, backend=tokenizer, num_threads=num_threads)
    words, rows = max(own.vocab.values()) + 1, _whole_number(config, "vocab_size", model_dir)
    if rows is not None and words > rows:
        raise PredictorError(
            f"{model_dir}: vocab.txt has {words:,} entries, but the model takes ids below {rows:,}; the files are of "
            "different models"
        )
    if config.get("vocab_crc32") not in (None, vocab_crc32(own.vocab)):
        raise PredictorError(f"{model_dir}: vocab.txt is not the one that the model was trained with")
    length = max_seq_length or own.model_max_length
    longest = _whole_number(config, "max_position_embeddings", model_dir) or length
    if not SHORTEST <= length <= longest:
        raise UsageError(f"--max_seq_length {length}: {model_dir} takes {SHORTEST} to {longest} tokens")
    params = _read_params(config, name, model_dir)
    if doc_stride is not None:
        if "doc_stride" not in TASKS[name].defaults:
            raise UsageError(f"--doc_stride: a {name} model reads no windows; longer texts are truncated")
        if not 1 <= doc_stride < length:
            raise UsageError(
                f"--doc_stride {doc_stride}: must be 1 or more, and less than the {length} tokens of a window"
            )
        params["doc_stride"] = doc_stride
    try:
        return TASKS[name](own, length, dict(enumerate(labels)), params)
    except PredictorError as e:
        raise PredictorError(f"{model_dir}/config.json, `id2label`: {e}") from None


def task_of(model_dir: str | os.PathLike[str]) -> str:
    """Which task a model folder is for, by its config.json: a key of `ARCHITECTURES`.

    Raises:
        PredictorError: the folder or its config.json is missing or broken, or names another architecture.
    """
    return _architecture(_read_config(model_dir), model_dir)[0]


def _architecture(config, model_dir):
    """(task, architecture) that config.json names."""
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else "?"
    name = next((name for name, end in ARCHITECTURES.items() if architecture.endswith(end)), None)
    if name is None:
        ends = ", ".join(f"...For{end}" for end in ARCHITECTURES.values())
        raise PredictorError(f"{model_dir}/config.json: `architectures` names {architecture}, expected one of {ends}")
    return name, architecture


def _read_params(config, task_name, model_dir):
    """What `task_specific_params` of config.json says of a task, {name: value}; unknown names are left out.

    Raises:
        PredictorError: a value is one that no training writes.
    """
    of_tasks = config.get("task_specific_params")
    found = of_tasks.get(PARAMS_NAMES[task_name]) if isinstance(of_tasks, dict) else None
    if not isinstance(found, dict):
        return {}
    params = {name: _whole_number(found, name, model_dir) for name in TASKS[task_name].defaults}
    if task_name == "seq_cls":
        text_pair = params["text_pair"] = found.get("text_pair")
        if not isinstance(text_pair, bool | None):
            raise PredictorError(f"{model_dir}/config.json: `text_pair` is {text_pair!r:.60}, expected true or false")
    return {name: value for name, value in params.items() if value is not None}


def _whole_number(values, name, model_dir):
    """A number of config.json, 1 or more; None where there is none."""
    value = values.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise PredictorError(f"{model_dir}/config.json: `{name}` is {value!r:.60}, expected a whole number, 1 or more")
    return value


def _read_config(model_dir):
    path = os.path.join(model_dir, "config.json")
    if not os.path.isdir(model_dir):
        raise PredictorError(f"--model_path {model_dir}: no such folder; expected one that run_*.py --do_export wrote")
    try:
        with open(path, encoding="utf-8") as f:
            config = json.load(f, object_pairs_hook=unique_fields)
    except FileNotFoundError:
        raise PredictorError(
            f"--model_path {model_dir} is no model folder: it has no config.json (it holds "
            f"{', '.join(sorted(os.listdir(model_dir))[:8]) or 'nothing'})"
        ) from None
    except OSError as e:
        raise PredictorError(f"{path}: {e.strerror}") from e
    except ValueError as e:
        raise PredictorError(f"{path} is not JSON: {e}") from e
    if not isinstance(config, dict):
        raise PredictorError(f"{path}: expected a JSON object")
    return config
