"""What --input may hold: lines of text, JSON lines, CSV and TSV with a header, and files of training.

A row's fields are those of prediction (`text`, `text_pair`, `question`, `context`), those of training (`sentence` and
others), or those that --text_column and --text_pair_column name.
"""

import csv
import itertools
import json
import os
import re
import sys

from tqdm import tqdm

from .errors import PredictorError, UsageError
from .formats import encoding_hint, file_kind, unique_fields

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SPREADSHEETS = (".xlsx", ".xls", ".ods")


def columns_of(args, task):
    """The names that --text_column and --text_pair_column give to the fields with the texts; () if they give none.

    Raises:
        UsageError: the task takes no second text.
    """
    if args.text_pair_column and (task.second is None or task.second_refused):
        raise UsageError(f"--text_pair_column: expected {task.expected}")
    if not (args.text_column or args.text_pair_column):
        return ()
    second = args.text_pair_column or (task.second if task.second_required else None)
    return (args.text_column or task.first, *([second] if second else []))


def read_items(source, name, task, on_error, columns=()):
    """Yields the text or texts of each line or row, as `task.check` returns them.

    Args:
        source: an iterable of bytes, the lines of a file.
        name: the file's, "-" for standard input. .csv and .tsv are tables with a header; of other files, a line that
            begins with {, after white space or not, is a JSON object; others are text, where a tab separates two texts
            if the task takes two.
        columns: of `columns_of`.

    Raises:
        PredictorError: the file can't be read; or a line is broken, and `on_error` is "stop"; names the line. With
            "skip" it is printed.
    """
    for where, item in _rows(source, name, task, columns, with_hints=on_error == "stop"):
        try:
            if isinstance(item, PredictorError):
                raise item
            yield task.check(item)
        except PredictorError as e:
            if on_error == "stop":
                raise PredictorError(f"{where}: {e} (--on_error skip skips such lines)") from None
            tqdm.write(f"{where} is left out: {e}", file=sys.stderr)


def _rows(source, name, task, columns, with_hints):
    """Yields (file and line, what `task.check` takes or a PredictorError) of each line or row."""
    where, ending = "standard input" if name == "-" else name, os.path.splitext(name)[1].lower()
    if ending in SPREADSHEETS:
        raise PredictorError(f"{name}: a spreadsheet is not read; save it as CSV in UTF-8")
    lines = iter(source)
    first = next(lines, b"")
    if kind := file_kind(first):
        raise PredictorError(f"{where} is not UTF-8: {kind}")
    lines = itertools.chain([first] if first else [], lines)
    is_file = not columns and name != "-" and os.path.isfile(name)
    if is_file and task.is_data_file(ending, first.removeprefix(b"\xef\xbb\xbf")):
        yield from ((e["where"], task.item(e)) for e in task.read_file(name, labelled=False))
        return
    if ending in DELIMITERS:
        yield from _table_rows(lines, where, DELIMITERS[ending], task, columns)
        return
    for number, line in enumerate(lines, start=1):
        try:
            item = _named_texts(line_item(line, task, first=number == 1), task, columns)
        except PredictorError as e:
            item = PredictorError(f"{e}{encoding_hint(line)}") if with_hints else e
        yield f"{where} line {number}", item


def _named_texts(item, task, columns):
    """The texts of a line under the task's names for them: of a JSON object, by `columns` or by training's names."""
    if not isinstance(item, dict):
        if columns:
            raise PredictorError("expected a JSON object; --text_column is for JSON lines, CSV and TSV")
        return item
    if columns:
        for column in columns:
            if column not in item:
                raise PredictorError(f"no field `{column}`; it has {', '.join(item) or 'none'}")
        return {name: item[column] for name, column in zip((task.first, task.second), columns)}
    return task.named_texts(item)


def _table_rows(lines, where, delimiter, task, columns):
    """As `_rows`, of CSV or TSV with a header."""
    csv.field_size_limit(2**31 - 1)  # a context may be long; more than a C long of Windows holds is an error
    # What is not UTF-8 becomes surrogates, which are found in the row that holds them.
    text = (line.decode("utf-8", "surrogateescape") for line in lines)
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header, indices = None, ()
    while True:
        place = f"{where} line {reader.line_num + 1}"
        try:
            row = next(reader, None)
            if row is None:
                return
            joined = "".join(row)
            if re.search("[\ud800-\udfff]", joined):
                raise PredictorError(f"not UTF-8{encoding_hint(joined.encode('utf-8', 'surrogateescape'))}")
            if header is not None and len(row) not in (0, len(header)):
                raise PredictorError(
                    f"{len(row)} columns, the header has {len(header)}; a text with a separator in it must be in quotes"
                )
        except (csv.Error, PredictorError) as e:
            advice = '; a text with " in it must be in quotes, with "" for each "' if isinstance(e, csv.Error) else ""
            error = PredictorError(f"{e}{advice}")
            if header is None:
                raise PredictorError(f"{place}: {error}") from None
            yield place, error
            continue
        if not row:
            continue
        if header is None:
            header = [name.removeprefix("\ufeff").strip() for name in row]
            indices = _indices(header, place, task, columns)
        else:
            yield place, dict(zip((task.first, task.second), (row[index] for index in indices)))


def _indices(header, place, task, columns):
    """Which columns of a table hold the texts."""
    names = columns or next((names for names in task.columns if set(names) <= set(header)), None)
    if names is None or not set(names) <= set(header):
        known = f"column `{next(name for name in names if name not in header)}`" if names else "column of a known name"
        flags = [f"--{name}_column" for name in task.text_names() if name == task.first or task.second_required]
        raise PredictorError(
            f"{place}: no {known}; the columns are {', '.join(header):.200} ({' and '.join(flags)} "
            f"{'name' if flags[1:] else 'names'} what to read; lines without a header belong into a .txt file)"
        )
    for name in names:
        if header.count(name) > 1:
            raise PredictorError(f"{place}: there are two columns `{name}`")
    return [header.index(name) for name in names]


def line_item(line, task, first=False):
    """What a line holds, not checked yet: a dict, a str, or a list where there are tabs and the task takes two texts.

    Raises:
        PredictorError: the line is not UTF-8, empty, or not JSON although it looks like it.
    """
    try:
        # \n alone ends a line: U+2028 and U+0085 occur in real texts.
        text = line.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as e:
        raise PredictorError(f"not UTF-8: {e.reason} at byte {e.start + 1}") from None
    if not text.strip():
        raise PredictorError("empty, expected " + task.expected)
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text.strip(), object_pairs_hook=unique_fields)
        except (ValueError, RecursionError) as e:
            raise PredictorError(f"begins with {{ but is not JSON: {e}") from None
    if _begins_array(text.strip()):
        raise PredictorError("a JSON array; write one object per line, without brackets and commas around them")
    if task.second is None or task.second_refused or "\t" not in text:
        return text
    return text.split("\t")


def _begins_array(text):
    """Whether a line is a JSON array of texts or objects, or its beginning; "[转载]", "[1]" and "[CLS]" are text."""
    if not text.startswith("["):
        return False
    rest = text[1:].lstrip()
    if not rest:
        return True
    try:
        item, end = json.JSONDecoder().raw_decode(rest)
    except (ValueError, RecursionError):
        return False
    return isinstance(item, (dict, list)) or (isinstance(item, str) and rest[end:].strip()[:1] in ("", ",", "]"))
