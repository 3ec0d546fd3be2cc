"""Classification: a text, or a pair of texts, has one label."""

import re
from typing import ClassVar

from ..answers import read_class
from ..errors import PredictorError
from ..formats import check_characters, is_whole_number, parse_json, read_lines, shown, text_of
from .base import Task

BEGINNING = 16  # characters per token of the beginning of a long text, which mostly holds more tokens than are read

_WORD_END = re.compile("[ \n\u4e00-\u9fa5]")  # after any of these, a word begins


class SequenceClassification(Task):
    """Answers: {"label": str, "confidence": float}.

    Attributes:
        text_pair: whether the model was fine-tuned on pairs of texts, and so takes nothing else; None: not known.
    """

    name, head, params_name = "seq_cls", "SequenceClassification", "text-classification"
    second = "text_pair"
    expected = 'a text, a pair of texts, or {"text": ..., "text_pair": ...}'
    columns = (("sentence",), ("sentence1", "sentence2"), ("text", "text_pair"), ("text",))
    examples: ClassVar = ["今年的苹果又大又甜，果农的收入增加了", "女排打破全国纪录，主教练赛后落泪"]
    pair_examples: ClassVar = [("怎么开通信用卡", "我要办理信用卡"), ("花呗怎么还款", "借呗的利息怎么算")]
    per_token = False
    answer_columns: ClassVar = {"label": str, "confidence": float}
    tensors: ClassVar = {"label": int, "label_name": str, "confidence": float}
    triton_tensors: ClassVar = {**tensors, "truncated": bool}
    facts = ("text_pair",)
    classes_in = staticmethod(lambda gold: [gold])
    scores, score = ("accuracy",), "accuracy"

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

    @classmethod
    def read_params(cls, found, path):
        text_pair = found.get("text_pair")
        if not isinstance(text_pair, bool | None):
            raise PredictorError(f"{path}: `text_pair` is {text_pair!r:.60}, expected true or false")
        return {**super().read_params(found, path), "text_pair": text_pair}

    def params_to_save(self):
        params = super().params_to_save()
        return params if self.text_pair is None else {**params, "text_pair": self.text_pair}

    @staticmethod
    def read_file(path, labelled):
        """JSON lines of CLUE's classification tasks; the fields of the first row tell which one. Examples have "text",
        "text_pair" (str or None) and, if labelled, "label" (str)."""
        examples, fields = [], None
        for number, line in read_lines(path):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            row = parse_json(line, path, number, ROW)
            if not isinstance(row, dict):
                raise PredictorError(f"{where}: expected {ROW}; got {line[:40]!r}")
            fields = fields or row_format(row)
            row_id = row.get("idx") if row.get("id") is None else row["id"]
            examples.append({"id": row_id, "where": where, **row_texts(row, fields, where)})
            if labelled:
                examples[-1]["label"] = label_of(row, where)
        return examples

    @staticmethod
    def item(example):
        return example["text"] if example["text_pair"] is None else (example["text"], example["text_pair"])

    @staticmethod
    def gold(example):
        return example["label"]

    @staticmethod
    def score_answers(answers, gold):
        return {"accuracy": sum(answer["label"] == label for answer, label in zip(answers, gold)) / len(gold)}

    @staticmethod
    def named_texts(row):
        fields = row_format(row)
        if fields[0] == "text" or not all(field in row for field in fields):
            return row
        if "text" in row and "text" not in fields:
            raise PredictorError(f"it has `text` and `{fields[0]}`: --text_column says which is meant")
        return row_texts(row, fields, "this row")

    @staticmethod
    def lines(answer):
        return [f"{answer['label']}    confidence {answer['confidence']:.3f}"]

    def to_tensors(self, answer):
        return {**answer, "label": self.numbers[answer["label"]], "label_name": answer["label"]}

    @classmethod
    def from_tensors(cls, values):
        return super().from_tensors({**values, "label": values["label_name"]})


def _beginning(text, length):
    """A text's first characters, `length` or more, up to the end of a word."""
    end = _WORD_END.search(text, length) if len(text) > length else None
    return text[: end.end()] if end else text


# The data files: JSON lines.

ROW = 'one JSON object per line, such as {"sentence": "...", "label": "..."}'

# The fields with a row's texts. A file is of the first of these formats that its first row has, so that a further
# column (`keyword`, `target`) beside `sentence` changes nothing. The last two are those of prediction.
ROW_FORMATS = (
    ("sentence",),
    ("sentence1", "sentence2"),
    ("keyword", "abst"),
    ("target", "text"),
    ("text", "text_pair"),
    ("text",),
)


def row_format(row):
    """The one of `ROW_FORMATS` that a row has, or that it has in part."""
    for fields in ROW_FORMATS:
        if all(field in row for field in fields):
            # Elsewhere a `target` is something else, and `text_pair` is null where there is none.
            if fields == ("target", "text") and not isinstance(row["target"], dict):
                continue
            if fields == ("text", "text_pair") and row["text_pair"] is None:
                continue
            return fields
    return next((fields for fields in ROW_FORMATS if any(f in row for f in fields)), ROW_FORMATS[0])


def row_texts(row, fields, where):
    """{"text": str, "text_pair": str or None} of a row."""
    if "target" in fields:
        return {"text": mark_spans(row, where), "text_pair": None}
    if "keyword" in fields:
        keywords = row.get("keyword")
        if not isinstance(keywords, list) or not all(isinstance(k, str) for k in keywords):
            raise PredictorError(f"{where}: `keyword` is {shown(keywords)}, expected a list of texts")
        text = " ".join(keywords)
        check_characters(text, "keyword", where)
        return {"text": text, "text_pair": text_of(row, "abst", where)}
    texts = [text_of(row, field, where) for field in fields]
    if fields == ("text",) and row.get("text_pair") is not None:
        raise PredictorError(f"{where}: has a `text_pair`, the first row has none: a data set has one or the other")
    return {"text": texts[0], "text_pair": texts[1] if len(texts) > 1 else None}


def label_of(row, where):
    """A row's label as text: `1` and "1 " are one label."""
    if "label" not in row:
        raise PredictorError(f"{where}: no field `label`; it has {', '.join(row) or 'none'}")
    label = row["label"]
    if isinstance(label, list):
        raise PredictorError(
            f"{where}: `label` is {shown(label)}, expected one label's name; several labels per text are not supported"
        )
    if not isinstance(label, (str, int)) or not str(label).strip():
        raise PredictorError(f"{where}: `label` is {shown(label)}, expected a label's name")
    name = str(label).lower() if isinstance(label, bool) else str(label).strip()
    check_characters(name, "label", where)
    return name


def mark_spans(row, where):
    """CLUEWSC's text with its noun as `_noun_` and its pronoun as `[pronoun]`, whichever comes first."""
    text = text_of(row, "text", where)
    marks = []
    for key, opening, closing in (("span1", "_", "_"), ("span2", "[", "]")):
        try:
            start, span = row["target"][f"{key}_index"], row["target"][f"{key}_text"]
        except (KeyError, TypeError):
            raise PredictorError(f"{where}: `target` needs {key}_index and {key}_text") from None
        known = is_whole_number(start) and start >= 0 and isinstance(span, str) and span
        if not known or text[start : start + len(span)] != span:
            raise PredictorError(
                f"{where}: `{key}_text` {shown(span)} is not at `{key}_index` {shown(start)} of the text"
            )
        marks += [(start + len(span), 0, closing), (start, 1, opening)]
    # From the back, so that no mark moves another; where one span ends as the other begins, the end comes first.
    for position, _, mark in sorted(marks, key=lambda m: (m[0], m[1]), reverse=True):
        text = text[:position] + mark + text[position:]
    return text
