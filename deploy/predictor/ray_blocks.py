"""Large inputs in blocks, for infer_ray.py: finding files, splitting them, reading a block's rows, writing its answers.

A block is a part of one input file: whole lines of a text or JSON lines file, or rows of a Parquet file. Each makes one
output file. Files are local, or in a store that pyarrow has a file system for (s3://, gs://, hdfs://, abfs://).
"""

import bisect
import hashlib
import itertools
import json
import os
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import date, time, timedelta
from decimal import Decimal
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from ernie_predictor.commandline import to_json
from ernie_predictor.errors import PredictorError, UsageError, one_line
from ernie_predictor.formats import encoding_hint, file_kind
from ernie_predictor.inputs import DELIMITERS, SPREADSHEETS, line_item

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".snappy", ".zip")
# A file under its final name is complete in these: an upload shows when it ends. Elsewhere it is written and renamed.
OBJECT_STORES = ("s3", "gcs", "abfs")
PARALLEL = 16  # requests to a file system

TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}


class Block(NamedTuple):
    path: str
    begin: int  # bytes of a text file, rows of a Parquet file
    end: int
    name: str  # of the output file, without its ending
    state: str  # of the input file, as it was when it was split


class Columns(NamedTuple):
    """The columns of the input (of a JSON line, the fields) that hold a task's texts, in the task's order."""

    names: list[str]
    required: int  # so many of them, from the first, must be there


class RowError(PredictorError):
    """A row of a block that does not fit the output."""

    def __init__(self, message, index):
        super().__init__(message)
        self.index = index


# --------------------------------------------------------------------------------------------------------- files


def open_path(name):
    """(file system, path in it) of a path or a URI.

    Raises:
        PredictorError: there is no such file system, or it cannot be reached.
    """
    try:
        return pa.fs.FileSystem.from_uri(name if "://" in name else os.path.abspath(name))
    except (pa.ArrowException, OSError) as e:
        raise PredictorError(f"{name}: {one_line(e)}") from None


def find_files(names):
    """The input files.

    Args:
        names: files, folders (with what they hold, at any depth, except names that begin with _ or .), and patterns in
            which * stands for any characters but /.

    Returns:
        (file system, a list of `pyarrow.fs.FileInfo`, sorted by path).

    Raises:
        PredictorError: a name fits no file; or the files cannot be read together.
    """
    found, filesystem = {}, None
    for name in names:
        opened, path = open_path(name)
        if filesystem is not None and filesystem != opened:
            raise PredictorError(f"--input {name}: all input files must be in one file system")
        filesystem = opened
        info = filesystem.get_file_info(path)
        if info.type == pa.fs.FileType.File:
            fits = [info]
        elif info.type == pa.fs.FileType.Directory:
            fits = list_files(filesystem, path)
        else:
            pattern = re.compile(re.escape(path).replace(r"\*", "[^/]*"))
            folder = path.partition("*")[0].rpartition("/")[0]
            fits = list_files(filesystem, folder) if "*" in path else []
            fits = [info for info in fits if pattern.fullmatch(info.path)]
        if not fits:
            raise PredictorError(f"--input {name}: there is no such file")
        found.update((info.path, info) for info in fits)
    for path in found:
        if path.endswith(COMPRESSED):
            raise PredictorError(f"{path} is compressed, and cannot be split: decompress it, or convert it to Parquet")
        if path.lower().endswith((*DELIMITERS, *SPREADSHEETS)):
            raise PredictorError(f"{path} is a table, and would be read as lines of text: convert it to Parquet")
    if len({path.endswith(".parquet") for path in found}) > 1:
        raise PredictorError("--input: Parquet files and others are mixed; read them in two jobs")
    return filesystem, [found[path] for path in sorted(found)]


def list_files(filesystem, folder):
    """The files of a folder at any depth, without those that begin with _ or ., as Spark and pyarrow read a folder."""
    selector = pa.fs.FileSelector(folder, allow_not_found=True, recursive=True)
    infos = filesystem.get_file_info(selector)
    parts = [info.path.removeprefix(folder).split("/") for info in infos]
    return [i for i, p in zip(infos, parts) if i.is_file and not any(part.startswith(("_", ".")) for part in p)]


def state_of(info):
    """What tells a file from what it was before: its size, and when it was written."""
    return [info.size, info.mtime_ns]


def check_unchanged(filesystem, block):
    """Raises PredictorError where a block's file is not the one that was split."""
    if str(state_of(filesystem.get_file_info(block.path))) != block.state:
        raise PredictorError(f"{block.path} has changed or is gone since the job began; predict it to another --output")


def split_files(filesystem, infos, size, columns):
    """The blocks of files, of about `size` bytes of text each.

    Raises:
        PredictorError: a Parquet file is broken, or lacks a column.
    """
    with ThreadPoolExecutor(PARALLEL) as pool:
        blocks = pool.map(lambda info: split_file(filesystem, info, size, columns), infos)
        return list(itertools.chain.from_iterable(blocks))


def split_file(filesystem, info, size, columns):
    length, step = info.size, size
    if info.path.endswith(".parquet"):
        try:
            metadata = pq.read_metadata(info.path, filesystem=filesystem)
        except pa.ArrowException as e:
            raise PredictorError(f"{info.path} is not a Parquet file: {one_line(e)}") from None
        names = metadata.schema.to_arrow_schema().names
        for name in columns.names[: columns.required]:
            if name not in names:
                raise PredictorError(f"{info.path} has no column `{name}`, but {', '.join(names)}; see --text_column")
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        chunks = (group.column(j) for group in groups for j in range(metadata.num_columns))
        text = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns.names)
        length = metadata.num_rows
        step = max(1, length * size // max(text, 1))
    # Files of the same name in different folders must not meet in the output folder, whose readers pass over names that
    # begin with _ or a dot.
    stem = os.path.splitext(os.path.basename(info.path))[0].lstrip("_.") or "input"
    stem = f"{stem}-{hashlib.sha256(info.path.encode()).hexdigest()[:8]}"
    return [
        Block(info.path, begin, min(begin + step, length), f"{stem}-{number:06d}", str(state_of(info)))
        for number, begin in enumerate(range(0, length, step))
    ]


def write_file(filesystem, path, content):
    """Writes a file atomically."""
    if filesystem.type_name in OBJECT_STORES:
        part = path
    else:
        folder, _, name = path.rpartition("/")
        part = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}.part"
    with filesystem.open_output_stream(part) as f:
        f.write(content)
    if part != path:
        filesystem.move(part, path)


class OutputFolder:
    """Where blocks become files, and what tells which of them are complete.

    A block is done when both its file and its mark in `_done/` are there. `_job.json` says what the files were made
    with; `_SUCCESS`, that all blocks are done. Programs that read such a folder pass over names that begin with _.

    Args:
        name: a path or URI.
        ending: of the blocks' files.
    """

    COUNTS = ("texts", "errors", "truncated")

    def __init__(self, name, ending):
        self.filesystem, self.path = open_path(name)
        self.name, self.ending = name, ending

    def start(self, job):
        """Writes what the job is, or compares it with what an earlier run has written.

        Args:
            job: {"settings": {name: value}, "files": {input file: its state}}.

        Raises:
            PredictorError: the folder holds files of another job, or of something else.
        """
        if self.filesystem.type_name not in OBJECT_STORES:  # which have no folders
            self.filesystem.create_dir(f"{self.path}/_done", recursive=True)
        path = f"{self.path}/_job.json"
        if list_files(self.filesystem, self.path):
            if not self.filesystem.get_file_info(path).is_file:
                raise PredictorError(f"--output {self.name} holds other files; name another folder")
            old = json.loads(self.read("_job.json"))
            for name, value in job["settings"].items():
                if (was := old["settings"].get(name)) != value:
                    raise PredictorError(
                        f"{path} is of another job, with {name} {was!r}, not {value!r}; name another --output"
                    )
            for name, state in old["files"].items():
                if job["files"].get(name) != state:
                    raise PredictorError(
                        f"{name} has changed or is gone since {path} was written; name another --output"
                    )
        write_file(self.filesystem, path, json.dumps(job, ensure_ascii=False, indent=1).encode())
        if self.filesystem.get_file_info(f"{self.path}/_SUCCESS").is_file:
            self.filesystem.delete_file(f"{self.path}/_SUCCESS")

    def read(self, name):
        with self.filesystem.open_input_file(f"{self.path}/{name}") as f:
            return f.read()

    def write(self, block, content, counts):
        """Writes a block's file, in bytes, then its mark: `counts` are the values of COUNTS."""
        write_file(self.filesystem, f"{self.path}/{block.name}.{self.ending}", content)
        mark = json.dumps(dict(zip(self.COUNTS, counts))).encode()
        write_file(self.filesystem, f"{self.path}/_done/{block.name}.json", mark)

    def missing(self, blocks):
        """The blocks that are not done."""
        files, marks = (
            {os.path.splitext(info.base_name)[0] for info in list_files(self.filesystem, folder)}
            for folder in (self.path, f"{self.path}/_done")
        )
        return [block for block in blocks if block.name not in files & marks]

    def finish(self, blocks):
        """Writes `_SUCCESS`; returns the sums of COUNTS over all blocks."""
        for info in self.filesystem.get_file_info(pa.fs.FileSelector(self.path, recursive=True)):
            if info.base_name.startswith(".") and info.base_name.endswith(".part"):  # of a worker that was killed
                self.filesystem.delete_file(info.path)
        with ThreadPoolExecutor(PARALLEL) as pool:
            marks = [json.loads(mark) for mark in pool.map(lambda b: self.read(f"_done/{b.name}.json"), blocks)]
        write_file(self.filesystem, f"{self.path}/_SUCCESS", b"")
        return [sum(mark[name] for mark in marks) for name in self.COUNTS]


# ---------------------------------------------------------------------------------------------------------- rows


def read_lines(filesystem, block):
    """The lines that begin in a block, as bytes."""
    with filesystem.open_input_file(block.path) as f:
        # From the byte before: if that is a line's end, a line begins with the block.
        before = min(block.begin, 1)
        f.seek(block.begin - before)
        data = f.read(block.end - block.begin + before)
        if before:
            _, newline, data = data.partition(b"\n")
            if not newline:
                return []
        while data and not data.endswith(b"\n") and (more := f.read(2**16)):
            data += more[: more.find(b"\n") + 1] or more
    return data.removesuffix(b"\n").split(b"\n") if data else []


def read_parquet(filesystem, block):
    """The rows of a block, as a table. No more of a row group is held in memory than the block."""
    with pq.ParquetFile(filesystem.open_input_file(block.path)) as f:
        sizes = [f.metadata.row_group(i).num_rows for i in range(f.num_row_groups)]
        starts = [0, *itertools.accumulate(sizes)]
        groups = [i for i in range(len(sizes)) if starts[i] < block.end and starts[i + 1] > block.begin]
        at, batches = starts[groups[0]], []
        for batch in f.iter_batches(batch_size=8192, row_groups=groups):
            first, end = max(block.begin - at, 0), min(block.end - at, batch.num_rows)
            if first < end:
                batches.append(batch.slice(first, end - first))
            at += batch.num_rows
            if at >= block.end:
                break
        return pa.Table.from_batches(batches, f.schema_arrow)


def row_of(line, task, columns, first=False):
    """A line as (row, item, error): its fields, what `task.check` is to check, and what is wrong with it, or None.

    Args:
        first: whether it is the first line of a file, which may begin with a byte order mark.
    """
    raw = {columns.names[0]: line.decode("utf-8", "replace").rstrip("\r")}
    if first and (kind := file_kind(line)):
        return raw, None, f"the file is not UTF-8: {kind}"
    try:
        item = line_item(line, task, first)
    except PredictorError as e:
        return raw, None, f"{e}{encoding_hint(line)}"
    if isinstance(item, dict):
        return item, *item_of(item, task, columns)
    texts = [item] if isinstance(item, str) else item
    return (dict(zip(columns.names, texts)) if len(texts) <= len(columns.names) else raw), item, None


def item_of(row, task, columns):
    """A row's texts under the task's names for them, as (item, error), see `row_of`."""
    for name in columns.names[: columns.required]:
        if name not in row:
            return None, f"there is no `{name}`; the fields are {', '.join(map(str, row)) or 'none'}"
    return {name: row[column] for name, column in zip((task.first, task.second), columns.names) if column in row}, None


def read_block(filesystem, block, task, columns, output_format):
    """A block's rows.

    Returns:
        (table, rows): the table, from Parquet to Parquet, else None; and a list of (fields, what `task.check` is to
        check, what is wrong with it or None). The fields of a table's rows are only those in `columns`.

    Raises:
        PredictorError: the file is damaged, or not the one that was split, or JSON has no form for a column's type.
    """
    table = None
    try:
        if block.path.endswith(".parquet"):
            found = table = read_parquet(filesystem, block)
            if output_format == "parquet":
                found = table.select([name for name in columns.names if name in table.column_names])
            rows = [(row, *item_of(row, task, columns)) for row in found.to_pylist()]
        else:
            lines = read_lines(filesystem, block)
            rows = [row_of(line, task, columns, block.begin + n == 0) for n, line in enumerate(lines)]
    except pa.ArrowException as e:
        raise PredictorError(f"{block.path} cannot be read: {one_line(e)}") from None
    finally:  # whatever went wrong may come of that
        check_unchanged(filesystem, block)
    if output_format == "parquet":
        return table, rows
    try:
        return None, [check_json(*row) for row in rows]
    except TypeError as e:
        raise PredictorError(f"{block.path} holds {e}, for which JSON has no form: --output_format parquet") from None


def check_json(row, item, error):
    """A row, see `row_of`, as JSON can hold it: other values become null, and the row's error names one.

    Raises:
        TypeError: a value is of a type that JSON does not know.
    """
    try:
        to_json_line(row)
    except (ValueError, RecursionError):
        wrong = [name for name in row if not _has_json({name: row[name]})]
        fault = f"`{wrong[0]}` is {_shown(row[wrong[0]])}, for which JSON has no form; --output_format parquet keeps it"
        return {**row, **dict.fromkeys(wrong)}, item, error or fault
    return row, item, error


def _has_json(row):
    try:
        to_json_line(row)
    except (ValueError, RecursionError):
        return False
    return True


def _shown(value):
    try:
        return f"{value!r:.60}"
    except RecursionError:
        return "a deeply nested value"


def place_of(filesystem, block, index):
    """The file and the number, counted from 1, of a block's row."""
    if block.path.endswith(".parquet"):
        return f"{block.path} row {block.begin + index + 1}"
    number = index + 1
    if block.begin:
        number += 1  # its first line comes after a newline, that at begin - 1 or a later one
        left = block.begin - 1
        with filesystem.open_input_stream(block.path) as f:
            while left and (data := f.read(min(left, 2**20))):
                number += data.count(b"\n")
                left -= len(data)
    return f"{block.path} line {number}"


# ------------------------------------------------------------------------------------------------------- answers


def answer_fields(task, with_error, prefix):
    """The columns that predictions are written to: {column: (the answer's name for it, type)}."""
    fields = {**task.answer_columns, **({"error": str} if with_error else {})}
    return {prefix + name: (name, _type(kind)) for name, kind in fields.items()}


def _type(kind):
    """Arrow's type for a kind of `Task.answer_columns`."""
    if isinstance(kind, list):
        return pa.list_(_type(kind[0]))
    return pa.struct([(n, _type(k)) for n, k in kind.items()]) if isinstance(kind, dict) else TYPES[kind]


def check_names(table, rows, fields):
    """Raises UsageError where a column of the input has the name of one of `fields`."""
    taken = set().union(*(row for row, _, _ in rows)) if table is None else table.column_names
    for column in fields:
        if column in taken:
            raise UsageError(f"the input has a column `{column}`, too: --answer_prefix predicted_ renames the new ones")


def render(output_format, table, rows, answers, columns, fields, schema):
    """The content of an output file, in bytes.

    Args:
        table, rows: of `read_block` for this format.
        answers: for each row the predictor's answer, or {"error": str}.
        fields: of `answer_fields`.
        schema: of `infer_schema`, for a Parquet file where there is no table.

    Raises:
        RowError: a row does not fit the schema.
        PredictorError: the rows have a column of an answer's name.
    """
    check_names(table, rows, fields)
    answers = [{"entities": answer} if isinstance(answer, list) else answer for answer in answers]
    new = {column: [answer.get(name) for answer in answers] for column, (name, _) in fields.items()}
    if output_format == "jsonl":
        lines = [to_json_line({**row, **dict(zip(new, values))}) for (row, _, _), *values in zip(rows, *new.values())]
        # Half of a surrogate pair has no UTF-8. This writes it as JSON does: \\ud800.
        return "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")
    if table is None:
        table = to_table([row for row, _, _ in rows], schema, columns)
    for column, (_, type_) in fields.items():
        table = table.append_column(column, pa.array(new[column], type_))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue()


def infer_schema(rows, columns):
    """The schema of rows of `read_block`, for `to_table`. What holds the texts is always a string.

    Raises:
        RowError: a field has values of different types.
    """
    rows = [row for row, _, _ in rows]
    return pa.schema(
        (name, pa.string() if name in columns.names else _array(name, [row.get(name) for row in rows]).type)
        for name in dict.fromkeys(itertools.chain.from_iterable(rows))
    )


def to_table(rows, schema, columns):
    """Rows, which are dicts, as a table.

    Raises:
        RowError: a row has a field that the schema has not, or a value of another type.
    """
    for index, row in enumerate(rows):
        if new := row.keys() - set(schema.names):
            raise RowError(f"the field `{min(new)}` is missing in the first block of the input; {_KEEP}", index)
    found = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if field.name in columns.names:  # where a row with an error may hold anything
            values = [value if value is None else _as_text(value) for value in values]
        found.append(_array(field.name, values, field.type))
    return pa.table(found, schema=schema)


_KEEP = "--output_format jsonl keeps each row as it is"
MISFITS = (pa.ArrowException, OverflowError, UnicodeError)  # of values and a column's type


def _as_text(value):
    text = value if isinstance(value, str) else to_json(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _array(name, values, type_=None):
    try:
        return pa.array(values, type_)
    except MISFITS as e:
        # The first row with which they are no array.
        index = bisect.bisect(range(len(values)), False, key=lambda n: not _fits(values[: n + 1], type_))
        message = f"the field `{name}` does not fit a Parquet column: {one_line(e)}; {_KEEP}"
        raise RowError(message, index) from None


def _fits(values, type_):
    try:
        pa.array(values, type_)
    except MISFITS:
        return False
    return True


def to_json_line(row):
    """A row, which is a dict, as a line of JSON.

    Raises:
        TypeError, ValueError, RecursionError: a value has no form in JSON.
    """
    return json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value):
    """A value of a Parquet column that JSON does not know."""
    if isinstance(value, (date, time, timedelta, Decimal)):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__}")
