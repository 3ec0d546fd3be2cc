"""Fixtures: the sample data and model, the real data where it is there, and ways to run the scripts."""

import contextlib
import fcntl
import functools
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PREDICTOR = ROOT / "deploy" / "predictor"
sys.path.insert(0, str(ROOT))

# The workers of pytest-xdist share the cores. Two threads each would wait for one another most of the time.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("MKL_NUM_THREADS", str(max(len(os.sched_getaffinity(0)) // workers, 1)))

import workarounds  # noqa: F401  before Paddle, whatever a test imports first; makes the predictor's package importable

from ernie.tasks import DATA_SETS

SAMPLE_DATA = ROOT / "examples" / "data"
# Real CLUE texts, laid beside the project where it is developed: they hold what sample text does not.
REAL_DATA = ROOT.parent / "shared" / "data"

# Enough to learn and to keep what was learnt: fewer epochs than examples/quickstart.yml's, for time. The third command,
# the predictor's, is a process and runs with tnews.
EPOCHS = {"cmrc2018": (("--num_train_epochs", "2"), ("--num_train_epochs", "1"))}

SCRIPT_OF = {name: row.task.script.removesuffix(".py") for name, row in DATA_SETS.items()}


# Two processes take one file each, in this order: the longest first, then those that do not need its models, then those
# that do; the short ones are last, so that both end at the same time.
LONGEST = ("test_compress",)
LATER = ("test_documents", "test_train", "test_console")
SHORT = ("test_arguments", "test_data", "test_data_files", "test_examples", "test_files", "test_formats", "test_labels",
         "test_metrics", "test_ner", "test_output", "test_make", "test_container", "test_help")  # fmt: skip


def pytest_collection_modifyitems(items):
    rank = {name: rank for names, rank in ((LONGEST, 0), (LATER, 2), (SHORT, 3)) for name in names}
    items.sort(key=lambda item: rank.get(item.path.stem, 1))


@pytest.fixture(scope="session")
def real_data():
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real data is not at {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def sample_model(tmp_path_factory):
    """A folder with the sample architecture at random weights."""
    from examples.make_model import make_model

    folder = tmp_path_factory.mktemp("sample_model")
    make_model("sample", ROOT / "examples" / "model" / "vocab.txt", folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """As sample_model, and so narrow that a step takes milliseconds: for what is not about learning."""
    from examples.make_model import ARCHITECTURES, make_model

    folder = tmp_path_factory.mktemp("tiny_model")
    ARCHITECTURES["tiny"] = (1, 16, 4, 32)
    make_model("tiny", ROOT / "examples" / "model" / "vocab.txt", folder)
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A function of (name, make): calls make(folder) once for all processes of pytest-xdist, of which one runs it while
    the others wait. Returns (folder, the text that `make` returned)."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def get(name, make):
        folder, done = shared / name, shared / f"{name}.done"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                done.write_text(make(folder), encoding="utf-8")
        return folder, done.read_text(encoding="utf-8")

    return get


@pytest.fixture(scope="session")
def run_quickstart(once):
    """A function of a data set: runs examples/quickstart.py's commands once; returns (data set, output folder, output).

    For tnews the program itself is run; for the others its commands, in this process."""
    from examples import make_model, quickstart

    def make_sample_model(folder):
        if not (ROOT / "examples/model/model_state.pdparams").exists():
            make_model.make_model("sample", ROOT / "examples/model/vocab.txt", ROOT / "examples/model")
        return ""

    def run(dataset, folder):
        if dataset == "tnews":
            command = [sys.executable, "examples/quickstart.py", "--dataset", dataset, "--output_dir", str(folder)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
            assert done.returncode == 0, done.stdout[-3000:]
            return done.stdout
        output = io.StringIO()
        steps = quickstart.commands(dataset, str(folder))
        with _chdir(ROOT), contextlib.redirect_stdout(output):
            for (script, *arguments), epochs in zip(steps.values(), EPOCHS.get(dataset, ((), ()))):
                call(script.removesuffix(".py"), *arguments, *epochs)
        print(quickstart.summary(dataset, str(folder)), file=output)
        return output.getvalue()

    def get(dataset):
        once("sample_model_of_examples", make_sample_model)
        return dataset, *once(f"quickstart_{dataset}", functools.partial(run, dataset))

    return get


@contextlib.contextmanager
def _chdir(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def tiny_fine_tuned(tmp_path_factory, tiny_model):
    """A function of a data set: the folder of a tiny model that run_*.py fine-tuned for a few steps."""

    @functools.cache
    def make(dataset):
        folder = tmp_path_factory.mktemp(f"tiny_{dataset}")
        call(
            SCRIPT_OF[dataset],
            *arguments_for(dataset, tiny_model, folder, "--do_train", "--max_steps", 20, "--save_strategy", "no"),
        )
        return folder / dataset

    return make


@pytest.fixture
def one_round(monkeypatch):
    """Compression times each variant once: for what is not about speed."""
    monkeypatch.setattr("ernie.report.ROUNDS", 1)


@pytest.fixture(scope="session")
def exported(tmp_path_factory, sample_model):
    """A function of a data set: (its exported folder, what the predictor is given, what --do_predict answered).

    The model has learnt nothing, and so gives several labels, broken entities and spans of any length: more to
    compare than a model of a few steps, which says "O" to everything.
    """

    @functools.cache
    def make(dataset):
        folder = tmp_path_factory.mktemp(f"exported_{dataset}")
        more = ["--do_train", "--do_predict", "--do_export", "--max_steps", 1, "--learning_rate", 1e-6]
        call(SCRIPT_OF[dataset], *arguments_for(dataset, sample_model, folder, *more))
        results = read(folder / dataset / "test_results.json")
        return folder / dataset / "export", inputs_of(dataset, results), [answer_of(r) for r in results]

    return make


@pytest.fixture(scope="session")
def quantized(exported, tmp_path_factory):
    """A folder with tnews's exported model in INT8, as compress_seq_cls.py writes it."""
    folder = tmp_path_factory.mktemp("quantized")
    more = ["--strategy", "ptq", "--algo_list", "mse", "--batch_size_list", 4]
    call("compress_seq_cls", *arguments_for("tnews", exported("tnews")[0].parent, folder, *more))
    return folder / "mse4_1"


def call(script, *arguments):
    """Runs a script's main() in this process, as `python script.py arguments` does."""
    import paddle

    import utils

    module = importlib.import_module(script)
    argv, sys.argv = sys.argv, [f"{script}.py", *map(str, arguments)]
    try:
        # Paddle numbers its parameters throughout a process, and finds an optimizer's state by that.
        with paddle.utils.unique_name.guard():
            utils.run(module.main)
    finally:
        sys.argv = argv


def start(script, *arguments, **kwargs):
    """Starts a script as a process of its own; a Popen with its output as text."""
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def arguments_for(dataset, model, output_dir, *more, data_dir=SAMPLE_DATA):
    """The usual arguments of a run on sample data, small and quick."""
    return [
        *("--model_name_or_path", model, "--dataset", dataset, "--data_dir", data_dir, "--output_dir", output_dir),
        *("--config", ROOT / "examples" / "quickstart.yml", *more),
    ]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def inputs_of(dataset, results, data_dir=SAMPLE_DATA):
    if dataset == "cmrc2018":
        articles = read(data_dir / "cmrc2018" / "test.json")["data"]
        return [(qa["question"], p["context"]) for a in articles for p in a["paragraphs"] for qa in p["qas"]]
    return [(r["text"], r["text_pair"]) if "text_pair" in r else r["text"] for r in results]


def answer_of(result):
    """A row of test_results.json as the predictor answers."""
    if "entities" in result:
        return result["entities"]
    return {key: value for key, value in result.items() if key not in ("id", "text", "text_pair", "question")}


class Counted(str):
    """A text of which each comparison with another is counted."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)


def assert_same(found, expected, tolerance=1e-3):
    """Equal but for confidences, which agree to a tolerance."""
    assert type(found) is type(expected)
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            assert_same(a, b, tolerance)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value, tolerance)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance)
    else:
        assert found == expected
