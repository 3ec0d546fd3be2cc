"""The formats of the data files: a reader per task. Errors name file and line.

Each reader tells from a file's content which of its task's formats it is; what fits none is refused.
"""

import json
import logging
import re

from .answers import check_tags
from .errors import PredictorError

logger = logging.getLogger("ernie_predictor")

_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair is valid in JSON, but is no character

# ------------------------------------------------------------------------------------------------- text and JSON

# What a file that is not UTF-8 may be instead, by its first bytes.
FILE_STARTS = {
    b"\xff\xfe": "it is UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is UTF-16; save it as UTF-8",
    b"\x1f\x8b": "it is compressed with gzip; decompress it",
    b"PK\x03\x04": "it is a zip archive; extract it",
}


def read_text(path):
    """The text of a UTF-8 file, without its byte order mark."""
    try:
        with open(path, "rb") as f:
            content = f.read()
    except OSError as e:
        raise PredictorError(f"{path}: {e.strerror}") from e
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        line = content.count(b"\n", 0, e.start) + 1
        reason = file_kind(content) or f"{e.reason} at byte {e.start} of the file{encoding_hint(content)}"
        raise PredictorError(f"{path} line {line} is not UTF-8: {reason}") from e


def file_kind(content):
    """What a file is instead of UTF-8, by its first bytes, and what to do; None where they do not tell."""
    return next((text for start, text in FILE_STARTS.items() if content.startswith(start)), None)


def encoding_hint(content, do="save"):
    """What may be done about bytes that are not UTF-8, to be added to a message; "" if nothing is known, or they are.

    Args:
        do: "save" a file, or "send" a request.
    """
    is_gb18030 = _decodes(content, "gb18030") and not _decodes(content, "utf-8")
    return f"; if it is GBK or GB18030, {do} it as UTF-8" if is_gb18030 else ""


def _decodes(content, encoding):
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def read_lines(path):
    """Yields (line number, text) of every line, blank ones included.

    Lines end at \\n alone: U+2028 and U+0085 occur inside real texts.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()  # what follows the last line end is no line
    for number, line in enumerate(lines, start=1):
        # Concatenated files keep the byte order marks of their parts.
        yield number, line.removeprefix("\ufeff").rstrip("\r")


def parse_json(text, path, line, expected):
    """A JSON value that begins at a line of a file, or an error that says what was expected there."""
    try:
        return json.loads(text, object_pairs_hook=unique_fields)
    except json.JSONDecodeError as e:
        line, reason = line + e.lineno - 1, f"is not JSON: {e.msg} (column {e.colno})"
    except ValueError as e:
        reason = f"can't be read: {e}"
    except RecursionError:
        reason = "can't be read: it is nested too deeply"
    raise PredictorError(f"{path} line {line} {reason}; expected {expected}")


def unique_fields(pairs):
    """A JSON object; of a field that it has twice, Python would silently take the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"an object has the field `{name:.60}` twice")
            seen.add(name)
    return fields


def shown(value):
    """A JSON value as it appears in a message."""
    try:
        return f"{json.dumps(value, ensure_ascii=False):.60}"
    except RecursionError:
        return "a deeply nested value"


def text_of(row, key, where, may_be_empty=False):
    """A row's text, or an error that says what is there instead."""
    if key not in row:
        raise PredictorError(f"{where}: no field `{key}`; it has {', '.join(row) or 'none'}")
    text = row[key]
    if not isinstance(text, str) or not (text.strip() or may_be_empty):
        raise PredictorError(f"{where}: `{key}` is {shown(text)}, expected a text")
    check_characters(text, key, where)
    return text


def check_characters(text, key, where):
    """Refuses what could not be written to a file, after hours of training."""
    if _SURROGATE.search(text):
        # Escaped, since the message could not be printed either.
        raise PredictorError(f"{where}: `{key}` has half of a surrogate pair, which is no character: {text!a:.60}")


# ------------------------------------------------------------------------------------------------- classification

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


def read_seq_cls(path, labelled, no_agreement=None):
    """Reads JSON lines of CLUE's classification tasks; the fields of the first row tell which one.

    Args:
        no_agreement: label of rows to leave out, which the annotators did not agree on (OCNLI, CMNLI).
    """
    examples, left_out, fields = [], 0, None
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        row = parse_json(line, path, number, ROW)
        if not isinstance(row, dict):
            raise PredictorError(f"{where}: expected {ROW}; got {line[:40]!r}")
        fields = fields or row_format(row)
        row_id = row.get("idx") if row.get("id") is None else row["id"]
        example = {"id": row_id, "where": where, **row_texts(row, fields, where)}
        if labelled:
            example["label"] = label_of(row, where)
            if example["label"] == no_agreement:
                left_out += 1
                continue
        examples.append(example)
    if left_out:
        logger.warning(f"{path}: {left_out:,} rows left out, labelled {no_agreement!r} (the annotators did not agree)")
    return examples


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


def is_whole_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


# ------------------------------------------------------------------------------------------------- named entities

NER_FORMATS = (
    "either a sentence per line (tokens joined by \\x02, a tab, tags joined by \\x02: MSRA_NER's format), "
    "or a token and its tag per line with a blank line after each sentence (CoNLL's)"
)


def read_token_cls(path, labelled):
    """Reads MSRA_NER's format or CoNLL's columns. `\\x02`, which joins MSRA_NER's tokens, tells which."""
    lines = list(read_lines(path))
    examples = (_read_joined if any("\x02" in line for _, line in lines) else _read_columns)(path, lines, labelled)
    _check_header(examples)
    for example in examples:
        if not any(token.strip() for token in example["tokens"]):
            raise PredictorError(f"{example['where']} has no tokens")
    if labelled:
        check_tags({tag: e["where"] for e in reversed(examples) for tag in e["tags"]})
    return examples


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


# ------------------------------------------------------------------------------------------------- questions

ANSWERS = '[{"text": "...", "answer_start": 0}]'
SQUAD = (
    """one JSON object in SQuAD's format, {"data": [{"paragraphs": [{"context": "...", "qas": """
    f"""[{{"id": "...", "question": "...", "answers": {ANSWERS}}}]}}]}}]}}"""
)


def read_qa(path, labelled):
    """Reads SQuAD-style JSON as CMRC2018 has it; answers also as Hugging Face's datasets write them."""
    document = parse_json(read_text(path), path, 1, SQUAD)
    if not isinstance(document, dict):
        raise PredictorError(f"{path}: got {shown(document)}, expected {SQUAD}")
    examples = []
    for article, article_place in _objects(document, "data", path, ""):
        for paragraph, paragraph_place in _objects(article, "paragraphs", path, article_place):
            for qa, place in _objects(paragraph, "qas", path, paragraph_place):
                where = f"{path} {place}" + (f" (id {shown(qa['id'])})" if "id" in qa else "")
                examples.append(
                    {
                        "id": qa.get("id"),
                        "where": where,
                        # CMRC2018 itself has an empty question.
                        "question": text_of(qa, "question", where, may_be_empty=True),
                        "context": text_of(paragraph, "context", where),
                        "answers": answers_of(qa, where) if labelled else [],
                    }
                )
    return examples


def _objects(parent, key, path, place):
    """Yields (object, its place) of the list that a JSON object has under `key`."""
    prefix = f"{path} {place}".rstrip()
    if key not in parent:
        raise PredictorError(f"{prefix}: no field `{key}`; it has {', '.join(parent) or 'none'}; expected {SQUAD}")
    if not isinstance(parent[key], list):
        raise PredictorError(f"{prefix}: `{key}` is {shown(parent[key])}, expected a list: {SQUAD}")
    for index, child in enumerate(parent[key]):
        child_place = f"{place}.{key}[{index}]".lstrip(".")
        if not isinstance(child, dict):
            raise PredictorError(f"{path} {child_place} is {shown(child)}, expected an object: {SQUAD}")
        yield child, child_place


def answers_of(qa, where):
    """A question's answers, [{"text": str, "answer_start": int}], of which there must be one at least."""
    answers = qa.get("answers")
    if isinstance(answers, dict):
        # Hugging Face's datasets turn a list of objects into an object of lists.
        texts, starts = answers.get("text"), answers.get("answer_start")
        if isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts):
            answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
    if answers is None or answers == []:
        raise PredictorError(f"{where} has no answers; expected `answers` like {ANSWERS}")
    if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
        others = '{"text": ["..."], "answer_start": [0]}'
        raise PredictorError(f"{where}: `answers` is {shown(answers)}, expected {ANSWERS} or {others}")
    for answer in answers:
        text_of(answer, "text", where)
        if not is_whole_number(answer.get("answer_start")):
            raise PredictorError(
                f"{where}: `answer_start` is {shown(answer.get('answer_start'))}, expected a whole number, "
                "the position in `context` of the answer's first character"
            )
    return [{"text": answer["text"], "answer_start": answer["answer_start"]} for answer in answers]
