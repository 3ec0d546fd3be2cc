"""What the predictor's command reads and writes where things are odd: links, devices, full disks, arrays, NaN."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from conftest import PREDICTOR
from ernie_predictor import ErniePredictor, Predictor, PredictorError, derived_models, files
from ernie_predictor.commandline import open_output
from ernie_predictor.cpu import installed_backends
from ernie_predictor.derived_models import Derived, derive, known_hash
from onnx import numpy_helper

ENGINES = [name for name in installed_backends() if name != "paddle"]


def infer(*arguments, limit=None, **kwargs):
    """Runs infer_cpu.py; `limit` is the size in bytes at which its files meet a full disk."""
    return subprocess.run(
        [sys.executable, str(PREDICTOR / "infer_cpu.py"), *map(str, arguments)],
        capture_output=True,
        preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))),
        **kwargs,
    )


def message(done, status):
    text = done.stderr.decode()
    assert done.returncode == status, text
    assert len(text.strip().splitlines()) == 1 and text.startswith("infer_cpu.py: error: "), text
    return text


@pytest.fixture(scope="module")
def model(exported):
    return exported("tnews")[0]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("足球比赛\n股票大涨\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["to a file", "to a file elsewhere", "dangling", "chain", "relative"])
def test_a_link_is_written_through(kind, model, texts, tmp_path):
    target, link = tmp_path / "elsewhere" / "target.jsonl", tmp_path / "link.jsonl"
    target.parent.mkdir()
    if kind != "dangling":
        target.write_text("old\n")
    if kind == "chain":
        (tmp_path / "between").symlink_to(target)
        link.symlink_to(tmp_path / "between")
    else:
        link.symlink_to("elsewhere/target.jsonl" if kind == "relative" else target)
    done = infer("--model_path", model, "--input", texts, "--output", link)
    assert done.returncode == 0, done.stderr
    assert link.is_symlink() and len(target.read_text(encoding="utf-8").splitlines()) == 2
    assert sorted(os.listdir(target.parent)) == ["target.jsonl"]


def test_standard_output_by_name_and_a_pipe(model, texts, tmp_path):
    done = infer("--model_path", model, "--input", texts, "--output", "/dev/stdout")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    assert infer("--model_path", model, "--input", texts, "--output", pipe).returncode == 0
    assert len(reader.communicate(timeout=60)[0].splitlines()) == 2


@pytest.mark.parametrize("name", ["folder", "none/answers.jsonl", "/dev/full", "loop"])
def test_answers_that_can_go_nowhere_are_no_success(name, model, texts, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    message(infer("--model_path", model, "--input", texts, "--output", tmp_path / name), 1)


@pytest.mark.parametrize(
    "line",
    ['[{"text": "足球"},', '[{"text": "足球"}, {"text": "股票"}]', ' ["足球", "股票"]', "[", '["足球"]', "[[1]]"],
)
def test_an_array_is_refused_with_what_to_do(line, model):
    done = infer("--model_path", model, "--input", "-", input=f"足球\n{line}\n".encode())
    assert "line 2" in message(done, 1) and "one object per line" in message(done, 1)
    assert len(done.stdout.splitlines()) == 1


def test_text_in_brackets_is_text_and_indented_json_is_json(model):
    lines = [
        "[转载]今天股市大涨",
        "[1] 参考文献",
        "[CLS] 足球",
        '["足球"真好看]',
        "[2024]",
        '  {"text": "足球"}',
        "足球",
    ]
    done = infer("--model_path", model, "--input", "-", input="\n".join(lines).encode())
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(answers) == len(lines), done.stderr
    assert answers[-2] == answers[-1]


def test_truncated_texts_are_counted_at_the_end(exported, model):
    texts = ["足" * 100, "球", "比" * 50]
    done = infer("--model_path", model, "--input", "-", "--max_seq_length", 16, input="\n".join(texts).encode())
    last = done.stderr.decode().splitlines()[-1]
    assert done.returncode == 0 and last.startswith("infer_cpu.py: 2 texts are longer than 16 tokens"), done.stderr
    done = infer("--model_path", exported("cmrc2018")[0], "--input", "-", input=("问" * 100 + "\t答案").encode())
    assert "infer_cpu.py: 1 question is longer than" in done.stderr.decode()
    done = infer("--model_path", exported("msra_ner")[0], "--input", "-", input=("李明" * 900).encode())
    assert (done.returncode, done.stderr) == (0, b"")  # read whole


def test_a_full_disk(exported, model, texts, tmp_path):
    """OpenVINO starts without a compiled copy, INT8 names the place and the space that it needs."""
    cache, source = tmp_path / "cache", tmp_path / "model"
    shutil.copytree(model, source)
    arguments = ["--model_path", source, "--input", texts, "--cache_dir", cache]
    cache.mkdir()
    expected = infer(*arguments).stdout
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from ernie_predictor import ErniePredictor, cpu\n"
        "cpu.LARGE = 0\n"
        "for answer in ErniePredictor(sys.argv[1], backend='openvino', cache_dir=sys.argv[2]).predict(['足球比赛']):\n"
        "    print(answer)"
    )
    if "openvino" in ENGINES:
        done = subprocess.run(
            [sys.executable, "-c", program, PREDICTOR, source, cache],
            capture_output=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        )
        assert done.returncode == 0 and b"label" in done.stdout, done.stderr
    says = message(infer(*arguments, "--precision_mode", "int8", limit=100_000), 1)
    assert str(cache) in says and "MB" in says
    assert not list(cache.glob("*int8*"))
    assert infer(*arguments).stdout == expected


def test_what_a_killed_start_left_is_removed_by_the_next(model, tmp_path):
    cache = tmp_path / "cache"
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from ernie_predictor import derived_models\n"
        "derived_models.derive(sys.argv[2], 'int8-dynamic', sys.argv[3], lambda path: os.kill(os.getpid(), 9))"
    )
    assert subprocess.run([sys.executable, "-c", program, PREDICTOR, model / "model.onnx", cache]).returncode == -9
    (leftover,) = cache.iterdir()
    ErniePredictor(model, precision_mode="int8", cache_dir=str(cache))
    assert not leftover.exists() and len(list(cache.glob("*/*.onnx"))) == len(os.listdir(cache)) == 1


def test_two_runs_with_one_output(tmp_path):
    """The one that ends first does not get the other's lines, which ends later and has all of its own."""
    output = tmp_path / "answers"
    with open_output(str(output)) as slow:
        slow.write("slow\n")
        slow.flush()
        with open_output(str(output)) as quick:
            quick.write("quick\n")
        slow.write("slow\n")
        slow.flush()
        assert output.read_text() == "quick\n"
    assert output.read_text() == "slow\nslow\n" and os.listdir(tmp_path) == ["answers"]
    with pytest.raises(ZeroDivisionError), open_output(str(output)) as sink:
        sink.write("some\n")
        1 / 0  # noqa: B018
    assert output.read_text() == "slow\nslow\n" and (tmp_path / "answers.part").read_text() == "some\n"
    assert len(os.listdir(tmp_path)) == 2


def copied(path):
    """What makes a file of another, for `derive`."""
    return lambda target: shutil.copy(path, target)


def test_a_cache_does_not_grow_for_ever(tmp_path, monkeypatch):
    """What nobody has used for a month goes, and the oldest above the limit; what others keep there stays."""
    model, cache = tmp_path / "model.onnx", tmp_path / "cache"
    model.write_bytes(bytes(1000))
    monkeypatch.setattr(derived_models, "LARGE", 0)  # hashes are entries, too

    def make(key):
        return derive(model, "int8-static", cache, copied(model), key)

    def are_there(*keys):
        return [Derived(model, "int8-static", cache, key).find() is not None for key in keys]

    made = [make(key) for key in "abcde"]
    theirs = cache / "theirs.onnx"
    theirs.write_text("")
    folders = [os.path.dirname(path) for path in made]
    for days, path in ((31, folders[0]), (29, folders[1]), (31, folders[2]), (31, theirs)):
        then = time.time() - days * files.DAY
        os.utime(path, (then, then))
    assert make("c") == made[2]  # a hit
    make("f")
    assert are_there(*"abcdef") == [False, True, True, True, True, True] and theirs.exists()
    for age, key in enumerate("fdecb"):
        then = time.time() - age - 10
        os.utime(Derived(model, "int8-static", cache, key).folder, (then, then))
    monkeypatch.setattr(derived_models, "LIMIT", 3500)
    make("g")
    assert are_there(*"bcdefg") == [False, False, True, False, True, True] and theirs.exists()


def test_models_are_told_apart_by_their_content(tmp_path):
    """/model in two containers with one cache; and a model that is elsewhere now, or has another name, is the same."""
    model, cache = tmp_path / "model.onnx", tmp_path / "cache"
    made = []
    for content in "1213":
        model.write_text(content)
        made.append(derive(model, "int8-dynamic", cache, copied(model)))
        with open(made[-1]) as f:
            assert f.read() == content
    assert made[0] == made[2] and len(set(made)) == len(os.listdir(cache)) == 3
    other = tmp_path / "other.onnx"
    other.write_text("2")
    assert derive(other, "int8-dynamic", cache, None) == made[1]
    assert derive(other, "int8-static", cache, copied(other)) != made[1]


def test_a_damaged_file_is_made_again(tmp_path):
    model, cache = tmp_path / "model.onnx", tmp_path / "cache"
    model.write_text("model")
    path = derive(model, "int8-dynamic", cache, copied(model))
    for damaged in ("", "mod", "mOdel"):
        with open(path, "w") as f:
            f.write(damaged)
        assert derive(model, "int8-dynamic", cache, copied(model)) == path
        with open(path) as f:
            assert f.read() == "model"
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_what_was_made_of_another_model_is_not_kept(tmp_path):
    """A model that is replaced while it is compiled, or since a server was started, which forks now."""
    model, cache = tmp_path / "model.onnx", tmp_path / "cache"
    model.write_text("old")
    derived = Derived(model, "openvino-fp32", cache)
    model.write_text("new")
    with pytest.raises(PredictorError, match=r"model\.onnx was replaced"):
        derived.make(copied(model))
    assert os.listdir(cache) == []


def test_who_comes_second_takes_what_the_first_has_made(tmp_path):
    """Two processes that start at once: the first may have opened its file already."""
    model, cache = tmp_path / "model.onnx", tmp_path / "cache"
    model.write_text("model")
    made = []

    def slow(target):
        made.append(derive(model, "int8-dynamic", cache, copied(model)))
        with open(target, "w") as f:
            f.write("the same, in other bytes")

    assert derive(model, "int8-dynamic", cache, slow) == made[0]
    assert os.listdir(os.path.dirname(made[0])) == [os.path.basename(made[0])]


def test_the_hash_of_a_large_file_is_kept_until_it_changes(tmp_path, monkeypatch):
    model, cache = tmp_path / "model.onnx", tmp_path / "cache"
    monkeypatch.setattr(derived_models, "LARGE", 0)
    model.write_text("1")
    first = known_hash(model, cache)
    with monkeypatch.context() as patch:
        patch.setattr(derived_models, "file_hash", None)
        assert known_hash(model, cache) == first
    before = model.stat()
    model.write_text("2")
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known_hash(model, cache) != first
    for damaged in ("", "\0" * 16):
        for record in cache.glob("hash-*"):
            record.write_text(damaged)
        assert known_hash(model, cache) != first and len(known_hash(model, cache)) == 16
    assert known_hash(model, tmp_path / "model.onnx" / "no folder") == known_hash(model, cache)


def test_two_files_of_one_inode_and_time_have_each_their_hash(tmp_path, monkeypatch):
    """As models in two images of disks that were made by one command, with one cache."""
    monkeypatch.setattr(derived_models, "LARGE", 0)
    stat = {"size": 1, "device": 7, "inode": 12, "mtime_ns": 10**18, "ctime_ns": 10**18}
    monkeypatch.setattr(derived_models, "stat_of", lambda path: stat)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text(name)
    hashes = [known_hash(tmp_path / name / "model.onnx", tmp_path / "cache") for name in ("first", "second")]
    assert hashes == [derived_models.file_hash(tmp_path / name / "model.onnx") for name in ("first", "second")]


@pytest.fixture(scope="module")
def damaged(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "model"
    shutil.copytree(model, folder)
    graph = onnx.load(folder / "model.onnx")
    weights = max(graph.graph.initializer, key=lambda w: w.dims[0] * w.dims[1] if len(w.dims) == 2 else 0)
    values = numpy_helper.to_array(weights).copy()
    values[:] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(graph, folder / "model.onnx")
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_that_gives_no_numbers_is_named(engine, damaged, texts):
    with pytest.raises(PredictorError, match=r"model\.onnx gives logits that are not a number"):
        ErniePredictor(damaged, backend=engine).predict(["足球"])
    done = infer("--model_path", damaged, "--input", texts, "--backend", engine)
    assert "model.onnx" in message(done, 1) and done.stdout == b""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_of_ones_own_that_gives_no_numbers(value, model):
    task = ErniePredictor(model).task
    predictor = Predictor(task, lambda batch: [np.full([len(batch["input_ids"]), len(task.id2label)], value)])
    with pytest.raises(PredictorError, match="not a number"):
        predictor.predict(["足球"])
