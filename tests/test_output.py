"""What the predictor's command reads and writes where things are odd: links, devices, full disks, arrays, NaN."""

import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import PREDICTOR
from ernie_predictor import ErniePredictor, Predictor, PredictorError
from ernie_predictor.commandline import open_output
from ernie_predictor.cpu import installed_backends
from ernie_predictor.derived_models import derive
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
    assert [name for name in os.listdir(cache) if "int8" in name] == []
    assert infer(*arguments).stdout == expected


def test_what_a_killed_start_left_is_removed_by_the_next(model, tmp_path):
    cache = tmp_path / "cache"
    leftover = cache / ".model.int8-dynamic-0.onnx.abc.part"
    leftover.mkdir(parents=True)
    (leftover / ".ernie-work").write_text("")
    (leftover / "half.onnx").write_text("half")
    ErniePredictor(model, precision_mode="int8", cache_dir=str(cache))
    assert not leftover.exists() and len(list(cache.glob("*.onnx"))) == 1


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


def test_files_made_of_a_model_do_not_grow_for_ever(tmp_path):
    """Of many calibrations the newest stay, and what was made of those."""
    model = tmp_path / "model.onnx"
    model.write_text("model")
    for number in range(7):
        made = derive(model, "int8-static", None, copied(model), key=f"{number:012x}")
        derive(made, "openvino-fp32", None, copied(model))
        for path in tmp_path.glob(f"*{number:012x}*"):
            os.utime(path, (1e9 + number,) * 2)
    derive(model, "int8-dynamic", None, copied(model))
    left = [len(list(tmp_path.glob(f"*{number:012x}*"))) for number in range(7)]
    assert left == [0, 0, 0, 2, 2, 2, 2]
    assert len(list(tmp_path.glob("model.int8-dynamic-*"))) == 1


def test_two_models_at_one_path_share_a_cache(tmp_path, monkeypatch):
    """/model in two containers: neither removes the other's file; a machine removes its own, and those a month old."""
    model, cache, made = tmp_path / "model.onnx", tmp_path / "cache", []

    def start(machine, content):
        monkeypatch.setattr("socket.gethostname", lambda: machine)
        model.write_text(content)
        before = set(os.listdir(cache)) if cache.exists() else set()
        path = derive(model, "int8-dynamic", cache, copied(model))
        made.append(os.path.basename(path))
        with open(path) as f:
            assert f.read() == content
        return len({*os.listdir(cache)} - before), len(before - {*os.listdir(cache)})

    assert [start("a", "1"), start("b", "2"), start("a", "1"), start("b", "2")] == [(1, 0), (1, 0), (0, 0), (0, 0)]
    assert start("c", "1") == (0, 0) and made[-1] == made[0]  # a container that starts again has another name
    assert start("a", "3") == (1, 1) and made[0] not in os.listdir(cache)
    os.utime(cache / made[1], (1e9, 1e9))
    assert start("a", "4") == (1, 2) and os.listdir(cache) == [made[-1]]


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
