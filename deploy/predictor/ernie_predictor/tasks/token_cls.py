"""Named entities: spans of a text with a label each."""

import itertools
import re
import unicodedata
from typing import ClassVar

import numpy as np

from ..answers import check_tags, entity_spans, read_entities, split_tag
from ..errors import PredictorError
from ..formats import read_lines
from ..scores import entity_scores
from ..unicode_13 import is_accent, is_assigned
from .base import Task

ENTITY = {"entity": str, "label": str, "start": int, "end": int, "confidence": float}


class TokenClassification(Task):
    """Answers: a list of {"entity": str, "label": str, "start": int, "end": int, "confidence": float}.

    A text that is too long is cut into overlapping windows, a feature each; a wordpiece takes its tag from the window
    in which it has most context.

    Raises:
        PredictorError: the labels are of no tag scheme that can be read.
    """

    name, head, params_name = "token_cls", "TokenClassification", "token-classification"
    suffixes = ("tsv", "txt", "conll")  # the others are what people call CoNLL's format
    dev_splits = ("dev", "test")  # MSRA_NER has two splits only and is scored on test
    expected = 'a text or {"text": ...}'
    examples: ClassVar = [
        "校长宋婷说，宁岭市人民医院的学生已经超过292人。",
        "宋刚勇、谢杰强等18名队员参加了在长泉县举行的比赛。",
    ]
    defaults: ClassVar = {"doc_stride": 128}
    answer_columns: ClassVar = {"entities": [ENTITY]}
    tensors: ClassVar = {"entities": str}
    triton_tensors: ClassVar = {"entities": str, "OUTPUT": str}
    classes_in = staticmethod(lambda gold: [kind for kind, *_ in gold])
    class_of = staticmethod(lambda tag: split_tag(tag)[1])
    scores, score = ("precision", "recall", "f1"), "f1"

    def __init__(self, tokenizer, max_seq_length, id2label=None, params=None):
        super().__init__(tokenizer, max_seq_length, id2label, params)
        check_tags(self.id2label.values())

    def _room_and_step(self):
        """Wordpieces per window, and from the beginning of one to that of the next."""
        room = self.max_seq_length - 2
        # Half a window at most, so that each piece has a quarter of a window on both sides.
        return room, min(self.params["doc_stride"], max(room // 2, 1))

    def overlap(self):
        room, step = self._room_and_step()
        return -(-room // step)

    def tokenize(self, pairs):
        """As `Task.tokenize`; a note is (offsets of the text's wordpieces, windows), and a window, for each of the
        text's features, is (the text's piece at position 1, first and end of the pieces whose tags are read there)."""
        room, step = self._room_and_step()
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

    @staticmethod
    def read_file(path, labelled):
        """MSRA_NER's format or CoNLL's columns; `\\x02`, which joins MSRA_NER's tokens, tells which. Examples have
        "tokens" and "tags", lists of str (no tags in a file without)."""
        lines = list(read_lines(path))
        examples = (_read_joined if any("\x02" in line for _, line in lines) else _read_columns)(path, lines, labelled)
        _check_header(examples)
        for example in examples:
            if not any(token.strip() for token in example["tokens"]):
                raise PredictorError(f"{example['where']} has no tokens")
        if labelled:
            check_tags({tag: e["where"] for e in reversed(examples) for tag in e["tags"]})
        return examples

    @staticmethod
    def item(example):
        return join_tokens(example["tokens"])[0]

    @staticmethod
    def gold(example):
        """(kind, start, end) of each entity, in characters of the text that the tokens make up."""
        text, starts = join_tokens(example["tokens"])
        stops = [start + len(token) for start, token in zip(starts, example["tokens"])]
        spans = [(kind, starts[first], stops[end - 1]) for kind, first, end in entity_spans(example["tags"])]
        return [(kind, *_trimmed(text[start:end], start)) for kind, start, end in spans]

    @staticmethod
    def score_answers(answers, gold):
        return entity_scores([[_trimmed_entity(entity) for entity in answer] for answer in answers], gold)

    @staticmethod
    def is_data_file(ending, line):
        is_table = ending == ".tsv" and b"text" in line.strip().split(b"\t")
        return b"\x02" in line or (ending in (".tsv", ".conll") and not is_table)

    @staticmethod
    def lines(answer):
        found = ((f"{e['label']}  {e['entity']}  [{e['start']}:{e['end']}]", e["confidence"]) for e in answer)
        return [f"{text}    confidence {confidence:.3f}" for text, confidence in found] or ["no entities"]

    def to_tensors(self, answer):
        # The published form, OUTPUT: `pos` is the first and the last character.
        published = [{"pos": [e["start"], e["end"] - 1], "label": e["label"]} for e in answer]
        return super().to_tensors({"entities": answer, "OUTPUT": published})

    @classmethod
    def from_tensors(cls, values):
        return super().from_tensors(values)["entities"]


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


# The data files: a sentence, or a token, per line.

NER_FORMATS = (
    "either a sentence per line (tokens joined by \\x02, a tab, tags joined by \\x02: MSRA_NER's format), "
    "or a token and its tag per line with a blank line after each sentence (CoNLL's)"
)


def _read_joined(path, lines, labelled):
    """MSRA_NER's format, a sentence per line: tokens, a tab, tags; both joined by \\x02."""
    examples = []
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{path} line {number}"
        columns = line.split("\t")
        if len(columns) > 2 or (labelled and len(columns) < 2):
            raise PredictorError(f"{where}: expected tokens, a tab, tags; got {len(columns)} column(s)")
        example = {"id": None, "where": where, "tokens": columns[0].split("\x02")}
        if len(columns) == 2:
            example["tags"] = [_tag(tag, where) for tag in columns[1].split("\x02")]
            if len(example["tags"]) != len(example["tokens"]):
                raise PredictorError(f"{where}: {len(example['tokens'])} tokens, but {len(example['tags'])} tags")
        examples.append(example)
    return examples


def _read_columns(path, lines, labelled):
    """CoNLL's format, a token per line: the token in the first column, its tag in the last."""
    sentences = [[]]
    for row in _rows(path, lines, labelled):
        if row is not None:
            sentences[-1].append(row)
        elif sentences[-1]:
            sentences.append([])
    has_borders = len(sentences) > 1
    sentences = [sentence for sentence in sentences if sentence]
    rows = sum(map(len, sentences))
    if rows > 1 and (not has_borders or rows == len(sentences)):
        found = "every sentence is one token" if has_borders else "there is neither \\x02 nor a blank line between them"
        raise PredictorError(f"{sentences[0][0][0]}: can't tell where sentences end: {found}; expected {NER_FORMATS}")
    _check_columns(sentences)
    examples = []
    for sentence in sentences:
        tokens = [columns[0].strip(" ") or " " for _, columns in sentence]
        example = {"id": None, "where": sentence[0][0], "tokens": tokens}
        if len(sentence[0][1]) > 1:
            example["tags"] = [columns[-1] for _, columns in sentence]
        examples.append(example)
    return examples


def _rows(path, lines, labelled):
    """Yields (file and line, columns) of each line, and None for the end of a sentence."""
    count = first = None  # the number of columns, that of the first line for all
    for number, line in lines:
        if not line.strip(" \t") or line.startswith("-DOCSTART-"):
            yield None
            continue
        where = f"{path} line {number}"
        columns = _split_columns(line, count or 1 + labelled)
        if labelled and len(columns) < 2:
            raise PredictorError(f"{where}: expected a token and its tag, got one column; expected {NER_FORMATS}")
        count, first = count or len(columns), first or number
        if len(columns) != count:
            raise PredictorError(f"{where}: {len(columns)} columns; expected {count}, as in line {first}")
        yield where, [*columns[:-1], _tag(columns[-1], where)] if count > 1 else columns


def _split_columns(line, count):
    """The columns of a line, of which `count` are expected. A space can be a token, and so can U+3000."""
    line = line.rstrip(" \t")
    if "\t" in line:
        return line.split("\t")
    columns = [column for column in line.split(" ") if column]
    return [" ", *columns] if line[0] == " " and len(columns) == count - 1 else columns


def _check_columns(sentences):
    """Refuses files whose first column holds no tokens, which would train without complaint. Only sure signs count.

    Args:
        sentences: lists of (file and line, columns).
    """
    first = [[columns[0].strip() for _, columns in sentence] for sentence in sentences]
    long = [column for column in first if len(column) > 1]
    if not long:
        return
    tokens = [token for column in first for token in column]
    others = [columns[1] for sentence in sentences for _, columns in sentence if len(columns) > 2]
    advice = "the token first, its tag last"
    if all(re.fullmatch("[0-9]{1,9}", token) for token in tokens) and all(map(_counts_up, first)):
        found = "row numbers"
    elif all(re.fullmatch("O|[A-Z]-.+", token) for token in tokens):
        found = "tags"
    elif len(long) > 1 and len(set(others)) > 1 and all(len(set(column)) == 1 for column in first):
        found = f"the same in all rows of a sentence ({first[0][0]!r}), as numbers of sentences or documents are"
    elif all(re.fullmatch("(?s:.)[0-9]", token) for token in tokens) and all(column[0][1] == "0" for column in first):
        # Weibo NER's public files.
        found, advice = f"a digit after each character ({first[0][0]!r}), its place in a word", "the character alone"
    else:
        return
    raise PredictorError(f"{sentences[0][0][0]}: the first column has {found}; expected {advice}")


def _counts_up(column):
    numbers = [int(token) for token in column]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


# What people call the columns in a header, lower case.
TOKEN_NAMES = {"token", "tokens", "word", "words", "char", "character", "text", "text_a", "字", "词", "文本"}
TAG_NAMES = {"tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "标签", "标注"}


def _check_header(examples):
    """Refuses a header, which would become a token, and where tags have no prefix a kind of entity."""
    tags = [tag for example in examples for tag in example.get("tags", ())]
    if tags and tags[0].lower() in TAG_NAMES and tags.count(tags[0]) == 1:
        token, where = examples[0]["tokens"][0], examples[0]["where"]
        if token.lower() in TOKEN_NAMES:
            raise PredictorError(f"{where}: {token!r} and {tags[0]!r} look like a header; remove this line")


def _tag(tag, where):
    """A tag without white space around it."""
    name = tag.strip()
    if not name or name.split() != [name]:
        fault = "has white space in it" if name else "is empty"
        raise PredictorError(f"{where}: tag {tag!r} {fault}; expected {NER_FORMATS}")
    return name
