"""The package in other people's programs: imported from anywhere, in threads, after a fork, pickled, quiet."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import PREDICTOR, assert_same
from ernie_predictor import ErniePredictor, Predictor, PredictorError, load_task
from ernie_predictor.cpu import installed_backends
from ernie_predictor.machine import usable_cores

BACKENDS = installed_backends()


def test_it_is_imported_from_anywhere_and_brings_neither_paddle_nor_the_project(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(PREDICTOR)!r}); import ernie_predictor; "
        "assert not {'paddle', 'ernie', 'utils', 'tasks', 'answers', 'commandline', 'postprocess'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_a_model_of_ones_own(exported):
    """The seam: a task, and any function of a batch."""
    folder, inputs, _ = exported("tnews")
    batches = []

    def model(batch):
        batches.append(batch["input_ids"].shape)
        logits = np.zeros([len(batch["input_ids"]), 15], np.float32)
        logits[:, 3] = 1
        return [logits]

    answers = Predictor(load_task(folder), model, batch_size=4).predict(inputs[:6])
    assert {answer["label"] for answer in answers} == {"103"} and [shape[0] for shape in batches] == [4, 2]
    broken = Predictor(load_task(folder), lambda batch: [np.full([len(batch["input_ids"]), 15], np.nan)])
    with pytest.raises(PredictorError, match="not a number"):
        broken.predict(inputs[:1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dataset", ["tnews", "msra_ner", "cmrc2018"])
def test_eight_threads_get_their_own_answers(dataset, backend, exported):
    folder, inputs, expected = exported(dataset)
    predictor = ErniePredictor(folder, backend=backend, batch_size=4)
    wrong = []

    def work(number):
        for index in range(number, min(len(inputs), 48), 8):
            try:
                assert_same(predictor.predict([inputs[index]]), [expected[index]])
            except BaseException as e:
                wrong.append(repr(e))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]


FORKS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from ernie_predictor import ErniePredictor, PredictorError
predictor = ErniePredictor(sys.argv[2], backend=sys.argv[3], num_threads=2)
texts = ["今年的苹果又大又甜，果农的收入增加了" * 9] * 64
expected = predictor.predict(texts)
child = os.fork()
if child == 0:
    if sys.argv[3] == "paddle":  # its threads can't be had back: refused, not waited for
        try:
            predictor.predict(texts)
        except PredictorError as e:
            os._exit(0 if "forked" in str(e) else 4)
        os._exit(5)
    os._exit(0 if predictor.predict(texts) == expected else 3)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert predictor.predict(texts) == expected
sys.exit(status)
"""


SIGNALS = """
import signal, subprocess, sys
sys.path.insert(0, sys.argv[1])
from ernie_predictor import ErniePredictor
signal.signal(signal.SIGCHLD, lambda *arguments: None)
one, two = (ErniePredictor(sys.argv[2], precision_mode="int8", backend=sys.argv[3]) for _ in range(2))
assert one.predict(["足球"]) == two.predict(["足球"])
del one
del two
subprocess.run(["true"])
print("alive")
"""


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "paddle"])
def test_a_signal_after_models_are_closed_ends_nothing(backend, quantized):
    """OpenVINO left a freed stack to signal handlers, on processors with AMX."""
    command = [sys.executable, "-c", SIGNALS, str(PREDICTOR), str(quantized), backend]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_child_answers(backend, exported):
    command = [sys.executable, "-c", FORKS, str(PREDICTOR), str(exported("tnews")[0]), backend]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.time() + 120
    while process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == 0


def test_a_runtime_that_fails_while_it_answers_is_one_message(exported):
    """Here because ids are beyond the vocabulary, as with a tokenizer of another model."""
    model = ErniePredictor(exported("tnews")[0], backend="onnxruntime").model
    batch = {name: np.full([2, 7], 10**6) for name in ("input_ids", "token_type_ids")}
    with pytest.raises(PredictorError, match=r"model\.onnx failed on a batch of 2x7 tokens: "):
        model(batch)


def test_each_predictor_has_its_own_threads(exported):
    folder = exported("tnews")[0]
    texts = ["今年的苹果又大又甜" * 20] * 64

    def count():
        return sum(thread.name.startswith("ernie_tokenizer") for thread in threading.enumerate())

    before = count()
    one = ErniePredictor(folder, num_threads=1)
    one.predict(texts)
    assert count() == before
    three = ErniePredictor(folder, num_threads=3)
    assert three.predict(texts) == one.predict(texts) and 1 <= count() - before <= 3


def test_a_predictor_is_pickled(exported):
    folder, inputs, _ = exported("tnews")
    predictor = ErniePredictor(folder, batch_size=3)
    copy = pickle.loads(pickle.dumps(predictor))
    assert copy.batch_size == 3 and copy.predict(inputs[:5]) == predictor.predict(inputs[:5])
    with pytest.raises(PredictorError, match="cannot be pickled"):
        pickle.dumps(Predictor(predictor.task, predictor.model))


def test_the_host_programs_logging_stays_as_it_was(exported, tmp_path):
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters), root.level, logging.root.manager.disable)
    ErniePredictor(exported("tnews")[0], precision_mode="int8", cache_dir=str(tmp_path))
    assert (list(root.handlers), list(root.filters), root.level, logging.root.manager.disable) == before


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        ({}, None),
    ],
)
def test_cores_are_those_of_the_containers_quota(files, cores, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cores(str(tmp_path)) == (cores or len(os.sched_getaffinity(0)))
