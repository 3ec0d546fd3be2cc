"""infer_ray.py on a Ray of its own, and its blocks: the same predictions, no row lost or doubled, whatever dies."""

import contextlib
import datetime
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
import ray_blocks as blocks
from conftest import PREDICTOR, ROOT, assert_same, read
from ernie_predictor import ErniePredictor, PredictorError, load_task

sys.path.insert(0, str(PREDICTOR))
import infer_ray

PYTHON = Path(os.environ.get("RAY_PYTHON", ROOT / ".venv-ray" / "bin" / "python"))
LOCAL = pa.fs.LocalFileSystem()
ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled",
               "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # fmt: skip
# The last of them keeps it on 127.0.0.1.
# A Ray that lives until its standard input is closed, as `ray start --head` makes one.
HEAD = """
import ray, sys
small = {"object_store_memory": 2**27, "include_dashboard": False}
print(ray.init("local", num_cpus=2, log_to_driver=False, **small).address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def ray():
    """A Ray with room for two actors: its address, and the process whose descendants it is."""
    if not PYTHON.exists() or not list(PYTHON.parent.parent.glob("ready-*")):
        pytest.skip(f"there is no environment for Ray at {PYTHON.parent.parent}; `make ray` says why")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(PYTHON), "-c", HEAD], env=ENVIRONMENT, text=True, **pipes) as head:
        yield types.SimpleNamespace(address=head.stdout.readline().strip(), process=psutil.Process(head.pid))


def start(ray, *arguments):
    return subprocess.Popen(
        [str(PYTHON), "infer_ray.py", *map(str, arguments), "--address", ray.address, "--num_threads", "1"],
        cwd=PREDICTOR,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def infer(ray, *arguments):
    """(exit status, what is printed) of infer_ray.py."""
    with start(ray, *arguments) as process:
        output, _ = process.communicate()
    return process.returncode, output


def rows_of(folder):
    """The rows of all output files, in the order of their names."""
    rows = []
    for path in sorted(folder.glob("[!_.]*")):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            rows += map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return rows


def write_lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def test_json_lines_and_text(ray, exported, tmp_path):
    """A folder and a pattern in, JSON lines out; broken rows are kept, with what is wrong with them."""
    model, texts, answers = exported("tnews")
    rows = [{"id": i, "text": text, "more": {"of": [i]}} for i, text in enumerate(texts)]
    broken = [{"id": -1}, {"text": 5}, {"text": " "}, {"text": "\ud800"}]
    write_lines(tmp_path / "in" / "a.jsonl", rows[:40])
    with open(tmp_path / "in" / "a.jsonl", "a") as f:
        f.writelines(f"{json.dumps(row)}\n" for row in broken)
        f.write('{"text": \n\n')
    (tmp_path / "b.txt").write_text("\n".join(texts[40:]) + "\n" + texts[0] * 99, encoding="utf-8")
    flags = ("--on_error", "column", "--block_size", "2", "--max_seq_length", "64")
    status, output = infer(ray, "--model_path", model, "--output", tmp_path / "out", *flags,
                           "--input", tmp_path / "in", tmp_path / "*.txt")  # fmt: skip
    assert status == 0, output
    assert f"{len(texts) + 7} texts (6 with an error)" in output
    assert "1 text is longer than 64 tokens" in output
    found = rows_of(tmp_path / "out")
    good = [{**row, **answer, "error": None} for row, answer in zip(rows, answers)]
    assert_same(found[:40], good[:40])
    assert_same([row["label"] for row in found[46:-1]], [row["label"] for row in good[40:]])
    assert [row["text"] for row in found[46:-1]] == texts[40:]
    for row, what in zip(found[40:46], ("no `text`", "5, expected", "empty", "surrogate", "not JSON", "empty")):
        assert what in row["error"] and row["label"] is row["confidence"] is None
    assert found[40]["id"] == -1 and found[41]["text"] == 5 and found[44]["text"] == '{"text": '
    assert (tmp_path / "out" / "_SUCCESS").exists()
    # All is done: nothing is left for Ray to do.
    argv = ["--model_path", str(model), "--output", str(tmp_path / "out"), *flags, "--input", str(tmp_path / "in")]
    argv.append(str(tmp_path / "*.txt"))
    assert "are done already" in call_here(argv)[1]


def call_here(arguments):
    """(exit status, standard error) of infer_ray.py in this process, which has no Ray."""
    argv, sys.argv, error = sys.argv, ["infer_ray.py", *map(str, arguments)], io.StringIO()
    status = 0
    try:
        with contextlib.redirect_stderr(error):
            infer_ray.run(infer_ray.main, "requirements_ray.txt")
    except SystemExit as e:
        status = e.code
    finally:
        sys.argv = argv
    return status, error.getvalue()


@pytest.fixture
def without_ray(monkeypatch):
    """`call_here`, where one actor in this process predicts all blocks."""

    def predict_blocks(args, todo, bar, *arguments):
        actor = infer_ray.BlockPredictor(args, *arguments)
        for block in todo:
            result = actor({name: [value] for name, value in block._asdict().items()})
            if fault := result["fault"][0]:
                raise PredictorError(fault)

    monkeypatch.setattr(infer_ray, "predict_blocks", predict_blocks)
    return call_here


@pytest.mark.parametrize("dataset", ["msra_ner", "cmrc2018"])
def test_parquet_from_json_lines(dataset, ray, exported, tmp_path):
    model, items, answers = exported(dataset)
    items, answers = items[:40], answers[:40]
    names = ("question", "context") if dataset == "cmrc2018" else ("text",)
    rows = [dict(zip(names, item if isinstance(item, tuple) else (item,))) | {"n": i} for i, item in enumerate(items)]
    write_lines(tmp_path / "in.jsonl", rows)
    status, output = infer(ray, "--model_path", model, "--output", tmp_path / "out", "--output_format", "parquet",
                           "--input", tmp_path / "in.jsonl", "--answer_prefix", "new_")  # fmt: skip
    assert status == 0, output
    answers = [{"entities": answer} if isinstance(answer, list) else answer for answer in answers]
    expected = [row | {f"new_{name}": value for name, value in a.items()} for row, a in zip(rows, answers)]
    assert_same(rows_of(tmp_path / "out"), expected)


def test_killed_worker_and_killed_driver(ray, exported, tmp_path):
    model, texts, answers = exported("tnews")
    number = 20_000
    rows = [{"id": i, "sentence": texts[i % len(texts)], "label": "mine"} for i in range(number)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=3000)
    out, marks = tmp_path / "out", tmp_path / "out" / "_done"
    # Dictionary encoding leaves little of texts that recur: a block of 1 KiB has some hundred rows.
    flags = ("--model_path", model, "--input", tmp_path / "in.parquet", "--output", out, "--text_column", "sentence",
             "--answer_prefix", "predicted_", "--block_size", 1)  # fmt: skip
    driver = start(ray, *flags)

    def wait_for_marks(count):
        while len(list(marks.glob("*.json"))) < count:
            assert driver.poll() is None, driver.stdout.read()
            time.sleep(0.01)

    def workers():
        lines = {p: p.as_dict(["cmdline"])["cmdline"] for p in ray.process.children(recursive=True)}
        return [p for p, line in lines.items() if "BlockPredictor" in " ".join(line or ())]  # None: it has just died

    wait_for_marks(3)
    workers()[0].kill()
    wait_for_marks(len(list(marks.glob("*.json"))) + 5)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    done = len(list(marks.glob("*.json")))
    assert not (out / "_SUCCESS").exists()
    (out / ".in-00000000-000000.parquet.1234.part").touch()  # of a worker that was killed while it wrote
    status, output = infer(ray, *flags)
    assert status == 0 and "blocks are done already" in output, output
    assert int(output.split(" of ")[0].split()[-1]) >= done - 2
    found = rows_of(out)
    assert [row["id"] for row in found] == list(range(number))
    for row, answer in zip(found, itertools.cycle(answers)):
        assert row["label"] == "mine" and row["predicted_label"] == answer["label"]
        assert row["predicted_confidence"] == pytest.approx(answer["confidence"], abs=1e-3)
    assert not list(out.glob(".*.part"))


def test_a_broken_row_stops_the_job(ray, exported, tmp_path):
    write_lines(tmp_path / "in.jsonl", [{"text": "书"}] * 200 + [{"text": ""}])
    status, output = infer(ray, "--model_path", exported("tnews")[0], "--input", tmp_path / "in.jsonl",
                           "--output", tmp_path / "out", "--block_size", 1)  # fmt: skip
    assert status == 1 and "Traceback" not in output
    assert f"infer_ray.py: error: {tmp_path}/in.jsonl line 201: `text` is empty (--on_error column keeps" in output
    assert not (tmp_path / "out" / "_SUCCESS").exists()


# --------------------------------------------------------------------------------------------------- without Ray


def test_what_is_wrong_is_said_before_ray_starts(exported, tmp_path):
    model = exported("tnews")[0]
    texts, table = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    write_lines(texts, [{"text": "书", "label": 1}])
    pq.write_table(pa.table({"sentence": ["书"]}), table)
    (tmp_path / "a.gz").touch()
    (tmp_path / "a.csv").touch()
    (tmp_path / "broken.parquet").write_bytes(b"no")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").touch()

    def check(status, message, source, *flags, output="out"):
        found = call_here(["--model_path", model, "--input", source, "--output", tmp_path / output, *flags])
        assert found[0] == status and message in found[1] and "Traceback" not in found[1], found

    check(1, "no such file", tmp_path / "none*")
    check(1, "is compressed", tmp_path / "a.gz")
    check(1, "is a table", tmp_path / "a.csv")
    check(1, "mixed", texts, "--input", texts, table)
    check(1, "broken.parquet is not a Parquet file", tmp_path / "broken.parquet")
    check(1, "a.parquet has no column `text`, but sentence; see --text_column", table)
    check(1, "nowhere://x: ", "nowhere://x")
    check(1, "holds other files", table, "--text_column", "sentence", output="full")
    check(
        2, "--context_column: this is a seq_cls model, which reads text and text_pair", texts, "--context_column", "x"
    )
    check(2, "has a column `label`, too: --answer_prefix", texts)
    check(2, "on a CPU choose auto, fp32, bf16, int8", texts, "--precision_mode", "fp16")
    check(2, "overlap", tmp_path / "full", output="full")
    check(2, "overlap", tmp_path / "full", output="full/out")
    check(1, "No module named 'ray'; pip install -r", texts, "--answer_prefix", "new_")
    # What the job was is kept; another one does not mix with it.
    (tmp_path / "out" / "a-00000000-000000.jsonl").touch()
    check(1, "of another job, with answer_prefix 'new_', not 'other_'", texts, "--answer_prefix", "other_")
    texts.write_text('{"text": "花"}\n', encoding="utf-8")
    check(1, "a.jsonl has changed or is gone", texts, "--answer_prefix", "new_")


def test_an_actor_refuses_another_model(exported, tmp_path, monkeypatch):
    """A deployment while the job runs, or a node with an older copy."""
    model = shutil.copytree(exported("tnews")[0], tmp_path / "model")
    config = {**read(model / "config.json"), "vocab_crc32": None}  # else another vocab.txt does not open at all
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["infer_ray.py", "--model_path", str(model), "--input", "a", "--output", "b"])
    args, hashes = infer_ray.parse_args(), infer_ray.hash_model(model)
    assert infer_ray.BlockPredictor(args, hashes, *[None] * 5).fault is None
    tokenizer = read(model / "tokenizer_config.json")
    labels = {number: f"new {label}" for number, label in config["id2label"].items()}
    for name, content in (
        ("tokenizer_config.json", json.dumps({**tokenizer, "do_lower_case": False})),
        ("config.json", json.dumps({**config, "id2label": labels, "label2id": None})),
        ("vocab.txt", (model / "vocab.txt").read_text(encoding="utf-8").replace("的\n", "之\n")),
        ("model.pdmodel", "another"),
    ):
        before = (model / name).read_bytes()
        (model / name).write_text(content, encoding="utf-8")
        fault = infer_ray.BlockPredictor(args, hashes, *[None] * 5).fault
        assert f"{model / name} on " in str(fault) and "not the file that this job began with" in str(fault)
        (model / name).write_bytes(before)


def test_what_decides_predictions_is_the_jobs(without_ray, exported, tmp_path):
    """Flags reach the actors, and neither they nor a file of the model may differ when a job resumes."""
    dataset, out = "msra_ner", tmp_path / "out"
    model, texts, _ = exported(dataset)
    model = shutil.copytree(model, tmp_path / "model")
    write_lines(tmp_path / "in.jsonl", [{"text": "".join(texts[:9])}])
    flags = ["--model_path", model, "--input", tmp_path / "in.jsonl", "--output", out, "--max_seq_length", 32]
    assert without_ray([*flags, "--doc_stride", 5])[0] == 0
    (found,) = rows_of(out)
    strides = [ErniePredictor(model, max_seq_length=32, doc_stride=n).predict(["".join(texts[:9])])[0] for n in (5, 15)]
    assert_same(found["entities"], strides[0], 1e-6)
    assert strides[0] != strides[1]
    status, error = without_ray([*flags, "--doc_stride", 6])
    assert status == 1 and "of another job, with doc_stride 5, not 6" in error
    tokenizer = read(model / "tokenizer_config.json")
    (model / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "do_lower_case": False}))
    status, error = without_ray([*flags, "--doc_stride", 5])
    assert status == 1 and "of another job, with tokenizer_config.json '" in error


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_input_that_changes_while_the_job_runs(ending, exported, tmp_path):
    task, columns, path = load_task(exported("tnews")[0]), blocks.Columns(["text"], 1), tmp_path / f"in.{ending}"

    def write(rows):
        new = tmp_path / "new"
        if ending == "jsonl":
            write_lines(new, rows)
        else:
            pq.write_table(pa.Table.from_pylist(rows), new)
        new.replace(path)

    rows = [{"text": f"书{n}"} for n in range(100)]
    for changed in (rows[::-1], rows[:9]):
        write(rows)
        first, *others = blocks.split_files(LOCAL, blocks.find_files([str(path)])[1], 200, columns)
        assert others and blocks.read_block(LOCAL, first, task, columns, ending)[1][0][0] == rows[0]
        write(changed)
        for block in (first, others[-1]):
            with pytest.raises(PredictorError, match=f"{path.name} has changed or is gone since the job began"):
                blocks.read_block(LOCAL, block, task, columns, ending)


def test_names_that_are_passed_over_and_rows_that_do_not_fit(without_ray, exported, tmp_path):
    """An input that is named has predictions, whatever its name; and a row that has none is named."""
    model = exported("tnews")[0]

    def infer(source, *flags):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        status, error = without_ray(["--model_path", model, "--input", source, "--output", out, *flags])
        return status, error, rows_of(out)

    def infer_text(text, encoding="utf-8"):
        (tmp_path / "d.txt").write_bytes(text.encode(encoding))
        return infer(tmp_path / "d.txt")[1]

    for name in ("_a.jsonl", ".a.jsonl", "__.jsonl"):
        write_lines(tmp_path / name, [{"text": "书"}] * 3)
        status, error, rows = infer(tmp_path / name)
        assert status == 0 and len(rows) == 3 and all(row["label"] for row in rows), error
    # JSON has no NaN. Python reads it, and makes infinity of 1e999.
    bad = [{"text": "书", "n": 1, "more": {"x": [1.5]}}, {"text": "书", "n": 2, "more": {"x": [float("nan")]}}]
    write_lines(tmp_path / "a.jsonl", bad)
    pq.write_table(pa.Table.from_pylist(bad), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": 1e999}\n')
    for source, place in (("a.jsonl", "a.jsonl line 2"), ("a.parquet", "a.parquet row 2")):
        status, error, _ = infer(tmp_path / source, "--output_format", "jsonl")
        assert status == 1 and f"{place}: `more` is {{'x': [nan]}}, for which JSON has no form" in error
        status, error, rows = infer(tmp_path / source, "--output_format", "jsonl", "--on_error", "column")
        assert status == 0 and "2 texts (1 with an error)" in error
        assert rows[0]["label"] and rows[0]["error"] is None
        assert rows[1]["n"] == 2 and rows[1]["more"] is rows[1]["label"] is None and "[nan]" in rows[1]["error"]
    assert "`text` is inf" in infer(tmp_path / "b.jsonl", "--on_error", "column")[2][0]["error"]
    assert "is not JSON: an object has the field `text` twice" in infer_text('{"text": "a", "text": "b"}')
    assert "d.txt line 1: not UTF-8: invalid start byte at byte 1; if it is GBK or GB18030" in infer_text("今天", "gbk")
    assert "d.txt line 1: the file is not UTF-8: it is UTF-16; save it as UTF-8" in infer_text("今天", "utf-16")
    # What does not fit Parquet, in the first block and in a later one.
    write_lines(tmp_path / "c.jsonl", [{"text": "书" * 200, "n": n} for n in (1, 2, "three", 4)])
    for size in (100, 1):
        status, error, _ = infer(tmp_path / "c.jsonl", "--output_format", "parquet", "--block_size", size)
        assert status == 1 and "c.jsonl line 3: the field `n` does not fit" in error


def test_blocks_of_lines_hold_each_line_once(tmp_path):
    columns = blocks.Columns(["text", "text_pair"], 1)
    rng = random.Random(0)
    path = tmp_path / "lines.txt"
    for end in ("", "\n", "\n\n"):
        lines = ["书" * rng.choice((0, 1, 2, 30)) + rng.choice(("", "\u2028", "\r", "\x85")) for _ in range(40)]
        path.write_bytes(("\n".join(lines) + end).encode())
        (info,) = blocks.find_files([str(path)])[1]
        with open(path, "rb") as f:  # as infer_cpu.py reads it
            expected = [line.removesuffix(b"\n") for line in f]
        for size in (1, 2, 3, 7, 100, 10**6):
            parts = blocks.split_files(LOCAL, [info], size, columns)
            read = [blocks.read_lines(LOCAL, block) for block in parts]
            assert list(itertools.chain(*read)) == expected
            places = [blocks.place_of(LOCAL, b, i) for b, found in zip(parts, read) for i in range(len(found))]
            assert places == [f"{path} line {number + 1}" for number in range(len(expected))]


@pytest.mark.parametrize("row_group_size", [1, 7, 1000])
def test_blocks_of_parquet_hold_each_row_once(row_group_size, tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"书{i}" for i in range(100)], "n": range(100)})
    pq.write_table(table, path, row_group_size=row_group_size)
    (info,) = blocks.find_files([str(path)])[1]
    for size in (1, 20, 100, 10**6):
        parts = blocks.split_files(LOCAL, [info], size, blocks.Columns(["text"], 1))
        assert pa.concat_tables(blocks.read_parquet(LOCAL, block) for block in parts) == table


def test_values_that_do_not_fit_the_output(exported, tmp_path):
    task, columns = load_task(exported("tnews")[0]), blocks.Columns(["text", "text_pair"], 1)
    fields = blocks.answer_fields(task, True, "")

    def rows(*lines):
        return [blocks.row_of(json.dumps(line).encode(), task, columns) for line in lines]

    def render(output_format, first, found, table=None):
        schema = blocks.infer_schema(rows(*first), columns)
        return blocks.render(output_format, table, found, [{"error": "x"}] * len(found), columns, fields, schema)

    first = [{"text": "书", "n": 1}]
    for wrong in ({"text": "书", "n": "one"}, {"text": "书", "n": 2**70}, {"text": "书", "new": 1}):
        with pytest.raises(PredictorError, match="--output_format jsonl keeps each row as it is"):
            render("parquet", first, rows(wrong))
    with pytest.raises(PredictorError, match="field `n` does not fit"):
        render("parquet", [{"n": 1}, {"n": "one"}], [])
    # In the columns of texts anything may be, where the row has an error.
    table = pq.read_table(pa.BufferReader(render("parquet", first, rows({"text": {"a": 1}}, {"text": None}, {}))))
    assert table["text"].to_pylist() == ['{"a": 1}', None, None]
    # JSON knows no bytes; a date is written as Parquet's readers print it.
    path = tmp_path / "a.parquet"
    for value, expected in ((b"x", None), (datetime.datetime(1970, 1, 1), "1970-01-01 00:00:00")):
        pq.write_table(pa.table({"text": ["书"], "x": [value]}), path)
        (block,) = blocks.split_files(LOCAL, blocks.find_files([str(path)])[1], 100, columns)
        if expected is None:
            with pytest.raises(PredictorError, match="holds a value of type bytes, for which JSON has no form"):
                blocks.read_block(LOCAL, block, task, columns, "jsonl")
        else:
            found = blocks.read_block(LOCAL, block, task, columns, "jsonl")[1]
            assert json.loads(render("jsonl", first, found))["x"] == expected
