"""The C++ predictor gives the Python predictor's answers and messages. It is built once, with sanitizers, which
watch all tests."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import PREDICTOR, SAMPLE_DATA, assert_same
from ernie_predictor import ErniePredictor

HOSTILE = [
    b"",
    b"   \t",
    b"\xe3\x80\x80",
    b"\xef\xbb\xbftext",
    b"bad \xff byte",
    b"cut \xe4\xbd",
    b"surrogate \xed\xa0\x80",
    b"overlong \xc0\x80 \xe0\x80\x80",
    b"[",
    b'["text", "text"]',
    b'[{"text": "a"}]',
    "[转载]今天".encode(),
    b"[1]",
    b"[CLS] a [SEP]",
    b"a\tb",
    b"a\t",
    b"a\tb\tc",
    b"{",
    b'{"text": "a"',
    b'{"text": "a",}',
    b'{"text" "a"}',
    b'{"text": a}',
    b'{"text": "a} ',
    b'{"text": "\\x"}',
    b'{"text": "\\u12"}',
    b'{"text": "\\u00zz0"}',
    b'{"text": "a\x01"}',
    b'{"text": "a"} b',
    b'{"text": "a", "n": 01}',
    b'{"text": "a", "n": [1, ]}',
    b'{"text": "a", "n": [NaN, -Infinity, 1e999, -0.0, 12.5E-3, null, true]}',
    b'{"text": "\\ud83d\\ude00 \\ud83d"}',
    b'{"text": "\\ud83d\\ude00 a"}',
    b'{"text": "\\ude00\\ud83d"}',
    b'{"text": "first", "text": "last"}',
    b'{"text": "a", "n": {"\\u0062": 1, "c": 2, "b": 3, "c": 4}}',
    b'{"text": "a", "n": {"b": 1, "b": 2}, ',
    b'{"text": "a", "n": {"b": 1, "b": 2',
    b'[{"text": "a", "text": "b"}]',
    b'{"x": 1, "\\ud800 \\udfff": 2}',
    b'{"text": "a\\u0000b\\n\\t\\"\\\\"}',
    b'{"text": ["a", {"b": "it\'s"}, 1, 1.50, -0, 1e22, null, false]}',
    b'{"text": 5}',
    b'{"text": ""}',
    b'{"text": " \\u3000"}',
    b'{"txt": "a", "": 1}',
    b"{}",
    b'{"text": "a", "text_pair": null}',
    b'{"text": "a", "text_pair": "b"}',
    b'{"text": "a", "text_pair": 1}',
    b'{"sentence": "a", "sentence2": "b", "label": 3}',
    b'{"sentence1": "a", "sentence2": "b"}',
    b'{"sentence1": "a", "target": 1}',
    b'{"question": "a"}',
    b'{"question": "", "context": "b"}',
    b'{"question": " ", "context": "b"}',
    b'{"question": "a", "context": []}',
    b'{"question": "a", "context": "b"}',
    b'  {"text": "a", "question": "q", "context": "c\\u0301 d"}  ',
    "é e\u0301 ﬁ İ ǆ ㎏ 10kg Huawei 3.14 \u0085 \u2028 \U0001f600\U000e0001".encode(),
]


@pytest.fixture(scope="session")
def programs(once):
    """The folder of the built programs, and the environment in which the sanitizers let OpenVINO run."""
    if not (shutil.which("cmake") and shutil.which("c++") and importlib.util.find_spec("openvino")):
        pytest.skip("the C++ predictor needs cmake, a C++ compiler, and the package openvino")
    headers = subprocess.run(
        ["c++", "-E", "-x", "c++", "-"], input="#include <unicode/uchar.h>", capture_output=True, text=True
    )
    if headers.returncode != 0:
        pytest.skip("the C++ predictor needs ICU's headers (libicu-dev)")

    def build(folder):
        options = ["-DBUILD_TESTING=ON", "-DSANITIZE=ON", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O0"]
        source = ["-S", str(PREDICTOR / "cpp"), "-B", str(folder), f"-DPython3_EXECUTABLE={sys.executable}"]
        for command in (["cmake", *source, *options], ["cmake", "--build", str(folder), "-j2"]):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return ""

    return once("cpp_programs", build)[0]


@pytest.fixture(scope="session")
def model_of(exported):
    """A function of a data set: its exported folder, and what the predictor is given."""
    return lambda dataset: exported(dataset)[:2]


@pytest.fixture(scope="module", autouse=True)
def cache_of_all_tests(tmp_path_factory):
    """In place of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def run(programs, *command, **kwargs):
    # OpenVINO's libraries leave memory to the end of the process; fuzz.cpp, which ends normally, looks for ours.
    environment = {**os.environ, "TBB_ENABLE_SANITIZERS": "1", "ASAN_OPTIONS": "detect_leaks=0"}
    program, *arguments = map(str, command)
    return subprocess.run([programs / program, *arguments], capture_output=True, env=environment, timeout=300, **kwargs)


def ernie_infer(programs, model, lines, *flags):
    """(answers, standard error, exit status)."""
    done = run(programs, "ernie_infer", "--model_path", model, "--input", "-", *flags, input=lines)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode(), done.returncode


def as_lines(dataset, items):
    names = ("question", "context") if dataset == "cmrc2018" else ("text", "text_pair")
    rows = [dict(zip(names, [item] if isinstance(item, str) else item)) for item in items]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize("dataset", ["tnews", "afqmc", "msra_ner", "cmrc2018"])
def test_same_answers(programs, model_of, dataset):
    model, inputs = model_of(dataset)
    # Also long ones, which are truncated or cut into windows.
    if dataset == "cmrc2018":
        inputs = [*inputs[:20], (inputs[0][0] * 20, "".join(context for _, context in inputs[:20]))]
    elif dataset == "afqmc":
        inputs = [*inputs[:60], ("".join(a for a, _ in inputs[:9]), inputs[0][1]), (inputs[0][0], inputs[1][1] * 9)]
    else:
        inputs = [*inputs[:60], "".join(inputs[:20])]
    python = ErniePredictor(model, max_seq_length=48)
    expected = list(python.predict_stream(inputs))

    answers, errors, status = ernie_infer(programs, model, as_lines(dataset, inputs), "--max_seq_length", 48)

    assert_same(answers, expected, 1e-6)
    summary = python.task.truncation_summary()
    assert status == 0 and (summary is None) == (dataset == "msra_ner")
    assert errors.splitlines() == ([f"ernie_infer: {summary}"] if summary else [])


def test_int8_folder(programs, quantized, model_of, tmp_path):
    model, inputs = shutil.copytree(quantized, tmp_path / "int8"), model_of("tnews")[1]

    answers, _, _ = ernie_infer(programs, model, as_lines("tnews", inputs))

    assert_same(answers, list(ErniePredictor(model, backend="openvino").predict_stream(inputs)), 1e-6)


@pytest.mark.parametrize("dataset", ["tnews", "msra_ner", "cmrc2018"])
def test_hostile_lines(programs, model_of, tmp_path, dataset):
    model, file = model_of(dataset)[0], tmp_path / "lines.txt"
    file.write_bytes(b"\n".join(HOSTILE))
    flags = ["--model_path", model, "--input", file, "--on_error", "skip"]

    found = run(programs, "ernie_infer", *flags)

    expected = subprocess.run([sys.executable, PREDICTOR / "infer_cpu.py", *flags], capture_output=True)
    assert found.stderr.decode().splitlines() == expected.stderr.decode().splitlines()
    assert found.returncode == expected.returncode == 0
    answers, others = ([json.loads(line) for line in done.stdout.splitlines()] for done in (found, expected))
    assert answers, "no line was answered"
    assert_same(answers, others, 1e-6)


@pytest.fixture
def infer_cpu(capfd, monkeypatch):
    """A function of flags: (standard output, standard error, exit status) of infer_cpu.py under the other's name."""
    import infer_cpu
    from ernie_predictor.commandline import run as run_python

    def call(*flags):
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["ernie_infer", *map(str, flags)])
        status = 0
        try:
            run_python(infer_cpu.main, "requirements_cpu.txt")
        except SystemExit as e:
            status = e.code
        return *capfd.readouterr(), status

    return call


@pytest.mark.parametrize("text_pair", [True, False])
def test_single_texts_or_pairs(programs, model_of, infer_cpu, tmp_path, text_pair):
    """A model that was fine-tuned on one kind refuses the other, and a tab in a single text is white space."""
    model, file = shutil.copytree(model_of("tnews")[0], tmp_path / "model"), tmp_path / "lines.txt"
    config = json.loads((model / "config.json").read_text())
    config["task_specific_params"] = {"text-classification": {"text_pair": text_pair}}
    (model / "config.json").write_text(json.dumps(config))
    lines = [line for line in HOSTILE if b"ud800" not in line]  # pytest prints another sign for it
    file.write_bytes(b"\n".join(lines))
    flags = ["--model_path", model, "--input", file, "--on_error", "skip"]

    found = run(programs, "ernie_infer", *flags)

    answers, errors, status = infer_cpu(*flags)
    assert found.stderr.decode().splitlines() == errors.splitlines()
    assert found.returncode == status == 0
    assert_same(*([json.loads(line) for line in text.splitlines()] for text in (found.stdout, answers)))
    assert ("there is no text_pair" in errors) == text_pair != ("got two texts" in errors)
    number = lines.index(b"a\tb\tc") + 1
    assert (f"line {number} is left out" in errors) == text_pair
    # The built-in examples are of the model's kind.
    examples = run(programs, "ernie_infer", "--model_path", model).stdout.decode(), infer_cpu("--model_path", model)[0]
    assert len({tuple(line.partition(" -> ")[0] for line in text.splitlines()) for text in examples}) == 1
    assert (" | " in examples[0]) == text_pair


def test_confidence_does_not_depend_on_the_number_of_answers(programs, model_of, tmp_path):
    folder, inputs = model_of("cmrc2018")
    for number in (1, 30):
        model = shutil.copytree(folder, tmp_path / str(number))
        config = json.loads((model / "config.json").read_text())
        config["task_specific_params"] = {"question-answering": {"n_best_size": number}}
        (model / "config.json").write_text(json.dumps(config))
        answers, _, _ = ernie_infer(programs, model, as_lines("cmrc2018", inputs[:4]))
        assert_same(answers, ErniePredictor(model).predict(inputs[:4]), 1e-6)
        assert all(len(answer["n_best"]) == number and answer["confidence"] < 1 for answer in answers)


def test_bad_input(programs, model_of, infer_cpu, tmp_path):
    model = model_of("tnews")[0]
    config = json.loads((model / "config.json").read_text())
    params = {
        "stride": ("TokenClassification", "token-classification", {"doc_stride": 0}),
        "answers": ("QuestionAnswering", "question-answering", {"n_best_size": -1}),
        "query": ("QuestionAnswering", "question-answering", {"max_query_length": "64"}),
        "pair": ("SequenceClassification", "text-classification", {"text_pair": "yes"}),
        "task": ("SequenceClassification", "text-classification", {"task": "intents"}),
    }
    for name, (architecture, task, values) in params.items():
        text = json.dumps(
            {**config, "architectures": [f"ErnieFor{architecture}"], "task_specific_params": {task: values}}
        )
        shutil.copytree(model, tmp_path / name)
        (tmp_path / name / "config.json").write_text(text)
    for name in ("labels", "weights", "config", "vocabulary", "words"):
        shutil.copytree(model, tmp_path / name)
    (tmp_path / "labels" / "config.json").write_text(json.dumps({**config, "id2label": ["a", "b"], "label2id": None}))
    for file in ("model.onnx", "model.pdmodel"):
        (tmp_path / "weights" / file).unlink()
    (tmp_path / "config" / "config.json").write_text("{")
    with open(tmp_path / "vocabulary" / "vocab.txt", "a") as f:
        f.write("".join(f"more{number}\n" for number in range(2000)))
    words = (model / "vocab.txt").read_bytes().splitlines()
    (tmp_path / "words" / "vocab.txt").write_bytes(b"\n".join([*words[:-2], words[-1], words[-2]]))
    (tmp_path / "run" / "export").mkdir(parents=True)
    (tmp_path / "text.txt").write_text("text\n\n")
    for encoding, text in (("gbk", "今天"), ("utf-16", "今天"), ("latin-1", "café")):
        (tmp_path / encoding).write_bytes(f"text\n{text}\n".encode(encoding))
    for flags in (
        [],
        ["--model_path"],
        ["--model_path", model, "--num_threads", 0],
        ["--model_path", model, "--batch_size", "x"],
        ["--model_path", model, "--task_name", "ner"],
        ["--model_path", model, "--task_name", "qa"],
        ["--model_path", model, "--max_seq_length", 7],
        ["--model_path", model, "--max_seq_length", 10**6],
        ["--model_path", model, "--colour", "red", "--num_threads", "1"],
        ["--model_path", model, "more"],
        ["--model_path", model, "--input", tmp_path / "none"],
        ["--model_path", model, "--input", tmp_path],
        ["--model_path", model, "--input", tmp_path / "text.txt", "--output", tmp_path / "none" / "answers"],
        ["--model_path", model, "--input", tmp_path / "text.txt", "--output", tmp_path / "text.txt"],
        *(["--model_path", model, "--input", tmp_path / name] for name in ("text.txt", "gbk", "utf-16", "latin-1")),
        ["--model_path", tmp_path / "none"],
        ["--model_path", tmp_path],
        ["--model_path", tmp_path / "run"],
        *(
            ["--model_path", tmp_path / name]
            for name in ("labels", "weights", "config", "vocabulary", "words", *params)
        ),
    ):
        found = run(programs, "ernie_infer", *flags)

        _, errors, status = infer_cpu(*flags)
        assert found.stderr.decode() == errors
        assert found.returncode == status != 0


def test_output_file_and_batches_of_one(programs, model_of, tmp_path):
    model, inputs = model_of("tnews")
    output = tmp_path / "answers.jsonl"

    done = run(programs, "ernie_infer", "--model_path", model, "--input", "-", "--output", output, input=b"a\nb\n\n")
    assert done.returncode == 1 and b"line 3" in done.stderr and not output.exists()
    part = tmp_path / "answers.jsonl.part"
    assert len(part.read_text().splitlines()) == 2
    part.unlink()
    done = run(programs, "ernie_infer", "--model_path", model, "--input", "-", "--output", output, input=b"a\nb\n")
    assert done.returncode == 0 and not done.stdout and os.listdir(tmp_path) == [output.name]

    command = [programs / "ernie_infer", "--model_path", model, "--input", "-", "--batch_size", "1"]
    environment = {**os.environ, "TBB_ENABLE_SANITIZERS": "1", "ASAN_OPTIONS": "detect_leaks=0"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for text in inputs[:3]:  # an answer comes before the next line is written
            process.stdin.write(text.encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["label"]
        process.stdin.close()
    assert process.returncode == 0

    # Two runs that write to one file: it is always of one of them.
    with subprocess.Popen([*command, "--output", output], env=environment, stdin=subprocess.PIPE) as process:
        process.stdin.write(b"a\n")
        process.stdin.flush()
        while not [path for path in tmp_path.glob("*.part") if path.stat().st_size]:
            assert process.poll() is None
            time.sleep(0.02)
        run(programs, "ernie_infer", "--model_path", model, "--input", "-", "--output", output, input=b"a\nb\nc\n")
        assert len(output.read_text().splitlines()) == 3
        process.stdin.write(b"b\n")
        process.stdin.close()
    assert process.returncode == 0 and len(output.read_text().splitlines()) == 2
    assert os.listdir(tmp_path) == [output.name]


@pytest.mark.parametrize("dataset", ["tnews", "afqmc"])
def test_rows_of_training_files(programs, model_of, infer_cpu, dataset):
    flags = ["--model_path", model_of(dataset)[0], "--input", SAMPLE_DATA / dataset / "dev.json"]

    found = run(programs, "ernie_infer", *flags)

    answers, errors, status = infer_cpu(*flags)
    assert (found.stderr.decode(), found.returncode) == (errors, status) and status == 0
    assert_same(*([json.loads(line) for line in text.splitlines()] for text in (found.stdout, answers)))


@pytest.mark.parametrize(
    ("dataset", "name", "content", "says"),
    [
        ("tnews", "a.CSV", "text,label\na,b\n", "tables and files of training are not read here"),
        ("tnews", "a.xlsx", "PK\x03\x04", "tables and files of training are not read here"),
        ("tnews", "a.json", '{"text": "a", "target": {}}', "line 1: rows of CSL and CLUEWSC2020 are not read here"),
        ("tnews", "a.json", '{"keyword": ["a"], "abst": "b"}', "line 1: rows of CSL and CLUEWSC2020 are not read here"),
        ("tnews", "a.json", '{"text": "a", "sentence": "b"}', "line 1: it has `text` and `sentence`"),
        ("tnews", "a.json", '{"sentence": null}', "line 1: `sentence` is None, expected a text"),
        ("afqmc", "a.json", '{"sentence1": "a", "sentence2": null}', "line 1: `sentence2` is None, expected a text"),
        ("msra_ner", "a.txt", "a\x02b\tO\x02O\n", "tables and files of training are not read here"),
        ("msra_ner", "a.conll", "a\tO\n", "tables and files of training are not read here"),
        ("cmrc2018", "a.json", '\ufeff{ "version" : 1, "data": []}', "tables and files of training are not read here"),
        ("cmrc2018", "a.json", '{\n"data": []}', "tables and files of training are not read here"),
    ],
)
def test_what_is_not_lines(programs, model_of, tmp_path, dataset, name, content, says):
    (tmp_path / name).write_text(content)
    done = run(programs, "ernie_infer", "--model_path", model_of(dataset)[0], "--input", tmp_path / name)
    assert done.returncode == 1 and not done.stdout and done.stderr.decode().count("\n") == 1
    assert f"{name}{':' if 'tables' in says else ''} {says}" in done.stderr.decode()


@pytest.mark.parametrize(("stream", "message"), [("<", "standard input is closed"), (">", "standard output is closed")])
def test_closed_streams(programs, model_of, stream, message):
    """What is opened next would get a closed stream's number, and the answers."""
    command = f"{programs / 'ernie_infer'} --model_path {model_of('tnews')[0]} --input - {stream}&-"
    done = subprocess.run(["sh", "-c", command], input=b"a\n", capture_output=True)
    assert done.returncode == 1 and f"ernie_infer: error: {message}: name a file with --" in done.stderr.decode()


def test_compiled_model_is_kept(programs, model_of, tmp_path):
    folder, inputs = model_of("tnews")
    model, lines = shutil.copytree(folder, tmp_path / "model"), as_lines("tnews", inputs[:9])
    cache = tmp_path / "cache"

    def answers():
        found, errors, status = ernie_infer(programs, model, lines, "--cache_dir", cache)
        assert status == 0 and not errors
        return found, max(cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)

    expected, file = answers()

    def written():
        status = file.stat()
        return status.st_ino, status.st_mtime_ns

    made = written()
    os.utime(file, ns=(0, made[1] - 10**9))
    assert answers()[0] == expected
    assert written()[0] == made[0] and written()[1] > made[1] - 10**9, "it was not opened from the file"
    assert os.listdir(cache) == [file.name]
    content = file.read_bytes()
    middle = len(content) // 2
    for damaged in (
        content[:-100],
        content[:100],
        content[-256:],  # what is written after it, alone
        content * 2,
        b"",
        bytes(len(content) - 256) + content[-256:],
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
    ):
        file.write_bytes(damaged)
        assert answers()[0] == expected and file.read_bytes() != damaged
    # Another model in the same place, of the same size.
    network = bytearray((model / "model.onnx").read_bytes())
    weights = network.rfind(b"classifier.weight") or len(network) // 2
    network[weights - 4000 : weights - 3000] = network[weights - 2000 : weights - 1000]
    (model / "model.onnx").write_bytes(network)
    month_old = cache / "month_old.ernie-cache"
    month_old.mkdir()
    (month_old / "file").touch()
    (cache / "theirs").touch()
    for path in (month_old, cache / "theirs"):
        os.utime(path, (time.time() - 31 * 24 * 3600,) * 2)
    others, second = answers()
    assert set(os.listdir(cache)) == {file.name, second.name, "theirs"} and second != file
    assert others == ernie_infer(programs, model, lines, "--cache_dir", tmp_path / "new")[0]
    # Without a place for it, the model is compiled at each start.
    (tmp_path / "file").touch()
    assert ernie_infer(programs, model, lines, "--cache_dir", tmp_path / "file" / "cache")[0] == others


def test_the_kept_file_may_be_overwritten_while_it_is_open(programs, model_of, tmp_path):
    """As `cp -r` over a model folder does."""
    flags = ["--model_path", model_of("tnews")[0], "--cache_dir", tmp_path, "--input", "-", "--batch_size", 1]
    assert run(programs, "ernie_infer", *flags, input=b"a\n").returncode == 0  # makes the file
    environment = {**os.environ, "TBB_ENABLE_SANITIZERS": "1", "ASAN_OPTIONS": "detect_leaks=0"}
    command, pipes = [programs / "ernie_infer", *map(str, flags)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        answers = []
        for _ in range(2):
            process.stdin.write(b"a\n")
            process.stdin.flush()
            answers.append(process.stdout.readline())
            (file,) = tmp_path.iterdir()
            file.write_bytes(b"")
        process.stdin.close()
    assert process.returncode == 0 and answers[0] and answers[0] == answers[1]


def test_c_api(programs, model_of):
    model, inputs = model_of("tnews")

    done = run(programs, "example", model, "\n".join(inputs[:5]))

    assert_same(
        [json.loads(line) for line in done.stdout.splitlines()], ErniePredictor(model).predict(inputs[:5]), 1e-6
    )
    done = run(programs, "example", model, "a\n\nb")
    assert done.returncode == 1 and not done.stdout and b"line 2: empty, expected a text" in done.stderr
    done = run(programs, "example", model / "none", "a")
    assert done.returncode == 1 and b"no such folder" in done.stderr


MISUSE = """
import ctypes, sys

library = ctypes.CDLL(sys.argv[1])
library.ernie_open.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
library.ernie_predict.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
library.ernie_truncated.argtypes = library.ernie_free.argtypes = library.ernie_close.argtypes = [ctypes.c_void_p]
library.ernie_open.restype = library.ernie_predict.restype = ctypes.c_void_p
library.ernie_last_error.restype = ctypes.c_char_p

def check(result, message):
    error = library.ernie_last_error().decode()  # which must be UTF-8
    assert result is None and message in error, (result, error)

model = sys.argv[2].encode()
check(library.ernie_open(None, 0, 0, 0), "model_path is NULL")
check(library.ernie_open(model, 0, -1, 0), "batch_size is -1, expected 0 or more")
check(library.ernie_open(b"\\xff", 0, 0, 0), "--model_path \\\\udcff: no such folder")
check(library.ernie_predict(None, b"a"), "predictor is NULL")
assert library.ernie_truncated(None) == 0
library.ernie_free(None)
library.ernie_close(None)
predictor = library.ernie_open(model, 1, 0, 0)
check(library.ernie_predict(predictor, None), "lines is NULL")
check(library.ernie_predict(predictor, b'{"\\\\ud800": 1}'), "got the fields \\\\ud800")
check(library.ernie_predict(predictor, b'{"text": "a", "id": ' + b"1" * 4301 + b"}"), "4301 digits")
deep = [b'{"text": "a", "id": ' + b"[" * number + b"]" * number + b"}" for number in (99, 100)]
assert library.ernie_predict(predictor, deep[0])
check(library.ernie_predict(predictor, deep[1]), "more than 100 levels of brackets")
"""


def test_c_api_misused(programs, model_of):
    # In a program that was built without them, the sanitizers must be loaded first, with the library that they watch.
    libraries = [
        subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "TBB_ENABLE_SANITIZERS": "1",
                   "LD_PRELOAD": " ".join(libraries)}  # fmt: skip
    command = [sys.executable, "-c", MISUSE, programs / "libernie.so", model_of("tnews")[0]]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("dataset", ["afqmc", "msra_ner", "cmrc2018"])
def test_fuzz(programs, model_of, dataset):
    done = subprocess.run([programs / "fuzz", model_of(dataset)[0], "500"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr[-3000:]
    assert "500 lines" in done.stdout
