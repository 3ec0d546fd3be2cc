"""Fixtures: the sample data and model, the real data where it is there, and ways to run the scripts."""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("PADDLENLP_DEFAULT_LOG_LEVEL", "INFO")

import workarounds  # noqa: F401  before Paddle, whatever a test imports first

SAMPLE_DATA = ROOT / "examples" / "data"
# Real CLUE texts, laid beside the project where it is developed: they hold what sample text does not.
REAL_DATA = ROOT.parent / "shared" / "data"

SCRIPT_OF = {"msra_ner": "run_token_cls", "cmrc2018": "run_qa"}


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
def run_quickstart(tmp_path_factory):
    """A function of a data set: runs examples/quickstart.py, once a session, and returns (data set, output folder,
    what it printed)."""

    @functools.cache
    def run(dataset):
        folder = tmp_path_factory.mktemp(dataset)
        command = [sys.executable, "examples/quickstart.py", "--dataset", dataset, "--output_dir", str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return dataset, folder, done.stdout

    return run


@pytest.fixture(scope="session")
def tiny_fine_tuned(tmp_path_factory, tiny_model):
    """A function of a data set: the folder of a tiny model that run_*.py fine-tuned for a few steps."""

    @functools.cache
    def make(dataset):
        folder = tmp_path_factory.mktemp(f"tiny_{dataset}")
        call(
            SCRIPT_OF.get(dataset, "run_seq_cls"),
            *arguments_for(dataset, tiny_model, folder, "--do_train", "--max_steps", 20, "--save_strategy", "no"),
        )
        return folder / dataset

    return make


def call(script, *arguments):
    """Runs a script's main() in this process, as `python script.py arguments` does."""
    import utils

    module = importlib.import_module(script)
    argv, sys.argv = sys.argv, [f"{script}.py", *map(str, arguments)]
    try:
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
