"""Text and JSON of data files, for the tasks' readers (tasks/). Errors name file and line."""

import json
import re

from .errors import PredictorError

SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair is valid in JSON, but is no character

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
    if SURROGATE.search(text):
        # Escaped, since the message could not be printed either.
        raise PredictorError(f"{where}: `{key}` has half of a surrogate pair, which is no character: {text!a:.60}")


def is_whole_number(value):
    return isinstance(value, int) and not isinstance(value, bool)
