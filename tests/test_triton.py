"""The models of deploy/triton_serving in a real Triton (nvidia-pytriton's): answers, errors, queues, how it stops."""

import collections
import concurrent.futures
import contextlib
import importlib.util
import io
import json
import os
import random
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
import tritonclient.grpc as grpcclient
import yaml
from conftest import ROOT, SAMPLE_DATA, assert_same, read
from ernie_predictor import ErniePredictor
from ernie_predictor.data_files import read_dev_set, score
from ernie_predictor.files import file_hash
from ernie_predictor.gpu_models import fuses_layer_norms
from google.protobuf import text_format
from test_container import HADOLINT
from test_serving import free_port
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as inference
from tritonclient.utils import InferenceServerException

TRITON = ROOT / "deploy" / "triton_serving"
PYTHON = Path(os.environ.get("TRITON_PYTHON", ROOT / ".venv-triton" / "bin" / "python"))
MODELS = {
    "tnews": ("ernie_seqcls", ("TEXT",)),
    "afqmc": ("pairs", ("TEXT", "TEXT_PAIR")),
    "msra_ner": ("ernie_tokencls", ("TEXT",)),
    "cmrc2018": ("ernie_qa", ("QUESTION", "CONTEXT")),
}
TASK_OF = {"tnews": "seq_cls", "msra_ner": "token_cls", "cmrc2018": "qa"}
ON_GPU = tuple(TASK_OF)  # data sets whose models are also prepared for a GPU

# What the source of Triton's ONNX Runtime backend takes for the accelerator "tensorrt"; it refuses others.
TENSORRT_OPTIONS = re.findall(
    r"\w+",
    """precision_mode max_workspace_size_bytes trt_max_partition_iterations trt_min_subgraph_size
    int8_calibration_table_name int8_use_native_calibration_table trt_dla_enable trt_dla_core trt_engine_cache_enable
    trt_engine_cache_path trt_engine_cache_prefix trt_dump_subgraphs trt_force_sequential_engine_build
    trt_context_memory_sharing_enable trt_layer_norm_fp32_fallback trt_timing_cache_enable trt_timing_cache_path
    trt_force_timing_cache trt_detailed_build_log trt_build_heuristics_enable trt_sparsity_enable
    trt_builder_optimization_level trt_auxiliary_streams trt_tactic_sources trt_extra_plugin_lib_paths
    trt_profile_min_shapes trt_profile_max_shapes trt_profile_opt_shapes trt_cuda_graph_enable""",
)

HOSTILE = 600  # requests
PAUSE = 25  # seconds; Python processes of models used to end after 20
STARTED = []  # processes of this module's servers

# The network of a GPU's variant, in place of Triton's ONNX Runtime backend, which no package has: the same ONNX file.
STAND_IN = """
import json
import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.outputs = [output["name"] for output in json.loads(args["model_config"])["output"]]

    def execute(self, requests):
        responses = []
        for request in requests:
            names = ("input_ids", "token_type_ids")
            feed = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names}
            assert feed["input_ids"].shape[1] % 32 == 0, "a length of no bucket"
            found = self.session.run(self.outputs, feed)
            tensors = [pb_utils.Tensor(name, value) for name, value in zip(self.outputs, found)]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
"""


def load(path):
    """A module of the folder, which is none of Python's path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(*arguments):
    """Runs prepare_models.py in this process; returns its exit status."""
    module = load(TRITON / "prepare_models.py")
    argv, sys.argv = sys.argv, ["prepare_models.py", *map(str, arguments)]
    try:
        module.run(module.main, "requirements.txt")
    except SystemExit as e:
        return e.code
    finally:
        sys.argv = argv
    return 0


def edit(path, *pairs):
    text = path.read_text(encoding="utf-8")
    for old, new in pairs:
        assert len(re.findall(old, text, re.DOTALL)) == 1, (path, old)
        text = re.sub(old, new, text, flags=re.DOTALL)
    path.write_text(text, encoding="utf-8")


class Triton:
    """A tritonserver on a repository."""

    def __init__(self, repository, *flags, ports=None, **environment):
        if not PYTHON.exists() or not list(PYTHON.parent.parent.glob("ready-*")):
            pytest.skip(f"there is no environment for Triton at {PYTHON.parent.parent}; `make triton` says why")
        self.ports = http, grpc, metrics = ports or tuple(free_port() for _ in range(3))
        self.http, self.grpc, self.metrics = f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", metrics
        ports = ["--http_port", http, "--grpc_port", grpc, "--metrics_port", metrics]
        self.log = open(repository / ".log", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(PYTHON), "run_triton.py", str(repository), *map(str, [*ports, *flags])],
            cwd=TRITON, stdout=self.log, stderr=subprocess.STDOUT, env={**os.environ, **environment},
        )  # fmt: skip
        self.client = grpcclient.InferenceServerClient(self.grpc)
        STARTED.append(self.process)

    def wait(self):
        while True:
            if self.process.poll() is not None:
                raise AssertionError(self.output()[-5000:])
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{self.http}/v2/health/ready", timeout=60).status_code == 200:
                    return self
            time.sleep(0.05)

    def output(self):
        return Path(self.log.name).read_text(encoding="utf-8", errors="replace")

    def ask(self, model, names, items, **kwargs):
        """{output: its values} for items, texts or tuples of texts, over gRPC."""
        return columns_of(self.client.infer(model, inputs_of(names, items), **kwargs))

    def post(self, model, body):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return requests.post(f"{self.http}/v2/models/{model}/infer", data=content, timeout=60)

    def statistics(self, model):
        return self.client.get_inference_statistics(model).model_stats[0]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=60)
        if status > 0:
            print(self.output()[-5000:])
        for left in Path("/dev/shm").glob(f"triton_{self.process.pid}_*"):  # of a server that was killed
            left.unlink()
        self.client.close()
        self.log.close()
        return status


def inputs_of(names, items):
    rows = [(item,) if isinstance(item, (str, bytes)) else item for item in items]
    tensors = []
    for name, column in zip(names, zip(*rows)):
        values = [[text.encode() if isinstance(text, str) else text] for text in column]
        tensors.append(grpcclient.InferInput(name, [len(values), 1], "BYTES"))
        tensors[-1].set_data_from_numpy(np.array(values, dtype=np.object_))
    return tensors


def body_of(names, items):
    """The same as JSON for HTTP."""
    rows = [(item,) if isinstance(item, str) else item for item in items]
    return {
        "inputs": [
            {"name": name, "datatype": "BYTES", "shape": [len(column), 1], "data": column}
            for name, column in zip(names, zip(*rows))
        ]
    }


def columns_of(result):
    names = [output.name for output in result.get_response().outputs]
    return {name: [v.decode() if isinstance(v, bytes) else v for v in result.as_numpy(name).tolist()] for name in names}


def answers_of(columns):
    """A response in the predictor's form."""
    columns.pop("truncated", None)
    if "entities" in columns:
        return [json.loads(value) for value in columns["entities"]]
    if "answer" in columns:
        columns["n_best"] = [json.loads(value) for value in columns["n_best"]]
        return [dict(zip(columns, row)) for row in zip(*columns.values())]
    return [{"label": n, "confidence": c} for n, c in zip(columns["label_name"], columns["confidence"])]


@pytest.fixture(scope="module")
def repository(tmp_path_factory, exported):
    """All models of these tests, prepared as users do it, and the few things that stand in for what is not here."""
    folder = tmp_path_factory.mktemp("models")
    for dataset, (name, _) in MODELS.items():
        assert prepare("--model_path", exported(dataset)[0], "--output", folder, "--name", name) == 0
    for dataset in ON_GPU:
        arguments = ["--device", "gpu", "--precision", "fp32", "--name", f"gpu_{dataset}", "--instances", "1"]
        assert prepare("--model_path", exported(dataset)[0], "--output", folder, *arguments) == 0
        network = folder / f"gpu_{dataset}_network"
        (network / "1" / "model.py").write_text(STAND_IN)
        edit(
            network / "config.pbtxt",
            ('backend: "onnxruntime"', 'backend: "python"'),
            ("KIND_GPU", "KIND_CPU"),
            ("optimization {.*", ""),
        )
    # A queue of one request, in front of a model that takes its time.
    assert (
        prepare("--model_path", exported("cmrc2018")[0], "--output", folder, "--name", "narrow", "--instances", 1) == 0
    )
    edit(folder / "narrow" / "config.pbtxt", ("max_queue_size: 1024", "max_queue_size: 1"))
    # A model that gives no numbers for one character.
    broken = tmp_path_factory.mktemp("broken") / "export"
    shutil.copytree(exported("tnews")[0], broken)
    spoil(broken, "书")
    assert (
        prepare(
            "--model_path", broken, "--output", folder, "--name", "broken", "--backend", "onnxruntime", "--instances", 1
        )
        == 0
    )
    yield folder
    for process in STARTED:  # those that a failed test has left
        process.kill()


def spoil(folder, character):
    import onnx

    model = onnx.load(folder / "model.onnx")
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = next(t for t in model.graph.initializer if t.dims[:1] == [read(folder / "config.json")["vocab_size"]])
    values = onnx.numpy_helper.to_array(words).copy()
    values[vocabulary.index(character)] = np.nan
    words.CopyFrom(onnx.numpy_helper.from_array(values, words.name))
    onnx.save(model, folder / "model.onnx")


@pytest.fixture(scope="module")
def triton(repository):
    server = Triton(repository).wait()
    yield server
    assert server.stop() == 0
    assert "was killed" not in Path(server.log.name).read_text(encoding="utf-8")  # its processes ended as they should


@pytest.fixture(scope="module")
def orphans():
    """Processes of a killed Triton, which would leave them; they end by themselves, beside other tests."""
    processes = []
    yield processes
    assert not psutil.wait_procs(processes, timeout=120)[1]


class Paused:
    """A Triton that is paused with all its processes, as `docker pause` does, for a time that no test waits for."""

    def __init__(self, folder):
        self.server = Triton(folder, "--exit-timeout-secs=2", ADMIN_KEY="secret").wait()
        self.begin = None

    def processes(self):
        server = psutil.Process(self.server.process.pid)
        return [server, *server.children(recursive=True)]

    def pause(self):
        self.begin = time.monotonic()
        for process in self.processes():
            process.suspend()

    def resume(self):
        if self.begin is None:
            self.pause()
        time.sleep(max(0, self.begin + PAUSE - time.monotonic()))
        for process in self.processes():
            process.resume()


@pytest.fixture(scope="module")
def paused(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paused")
    shutil.copytree(repository / "ernie_seqcls", folder / "ernie_seqcls")
    found = Paused(folder)
    yield found
    if found.server.process.poll() is None:  # a test failed
        for process in found.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    found.server.stop()


ADMINISTRATION = [  # (path, body for POST or None for GET) over HTTP
    ("systemsharedmemory/region/x/register", {"key": "/x", "offset": 0, "byte_size": 1}),
    ("systemsharedmemory/status", None),
    ("cudasharedmemory/status", None),
    ("logging", {"log_verbose_level": 1}),
    ("logging", None),
    ("trace/setting", None),
    ("models/ernie_seqcls/trace/setting", None),
    ("repository/index", {}),
    ("repository/models/ernie_seqcls/unload", {}),
]


def test_administration_needs_the_key(paused, triton):
    """Anybody could register the shared memory of the models, and have it read as a tensor."""

    def statuses(server, **headers):
        found = []
        for path, body in ADMINISTRATION:
            method = "GET" if body is None else "POST"
            response = requests.request(method, f"{server.http}/v2/{path}", json=body, headers=headers, timeout=60)
            found.append(response.status_code)
        return found

    assert statuses(triton) == statuses(paused.server) == [403] * len(ADMINISTRATION)
    assert statuses(paused.server, **{"admin-key": ""}) == [403] * len(ADMINISTRATION)
    assert 403 not in statuses(paused.server, **{"admin-key": "secret"})
    client, headers = paused.server.client, {"triton-grpc-protocol-admin-key": "secret"}
    for ask in (client.get_system_shared_memory_status, client.get_cuda_shared_memory_status, client.get_log_settings,
                client.get_trace_settings, client.get_model_repository_index):  # fmt: skip
        with pytest.raises(InferenceServerException, match="is restricted"):
            ask()
        with contextlib.suppress(InferenceServerException):  # this build of Triton has no CUDA
            ask(headers=headers)
    client.get_log_settings(headers=headers)
    assert "secret" not in paused.server.output()
    paused.pause()  # until test_a_paused_server


def test_a_replica_is_killed_behind_nginx(repository, tmp_path, exported, orphans):
    """Two real Tritons behind a real nginx with the shipped configuration: no answer is lost.

    Over HTTP nginx itself asks the other one; over gRPC the client does.
    """
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    replicas = []
    for number in range(2):
        shutil.copytree(repository / "ernie_seqcls", tmp_path / str(number) / "ernie_seqcls")
        replicas.append(Triton(tmp_path / str(number)))
    http, grpc = free_port(), free_port()
    text = (TRITON / "nginx.conf").read_text(encoding="utf-8")
    for number, replica in enumerate(replicas, start=1):
        replica.wait()
        text = text.replace(f"triton-{number}:8000", replica.http.removeprefix("http://"))
        text = text.replace(f"triton-{number}:8001", replica.grpc)
    text = text.replace("listen 8000", f"listen 127.0.0.1:{http}").replace("listen 8001", f"listen 127.0.0.1:{grpc}")
    # Debian's nginx keeps its files where only root may.
    paths = [f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    text = text.replace("http {", f"http {{ access_log access.log; {' '.join(paths)}", 1)
    (tmp_path / "nginx.conf").write_text(f"daemon off; pid nginx.pid; error_log error.log; {text}", encoding="utf-8")
    nginx = subprocess.Popen(["nginx", "-p", tmp_path, "-c", "nginx.conf", "-e", "error.log"], cwd=tmp_path)
    try:
        _, texts, expected = exported("tnews")
        client = load(TRITON / "grpc_client.py").Client(f"127.0.0.1:{grpc}", "ernie_seqcls", "seq_cls")
        while True:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"http://127.0.0.1:{http}/v2/health/ready", timeout=60).status_code == 200:
                    assert requests.get(f"http://127.0.0.1:{http}/v2/logging", timeout=60).status_code == 403
                    break
            assert nginx.poll() is None, (tmp_path / "error.log").read_text()
            time.sleep(0.05)
        url = f"http://127.0.0.1:{http}/v2/models/ernie_seqcls/infer"
        with concurrent.futures.ThreadPoolExecutor(16) as pool, concurrent.futures.ThreadPoolExecutor(8) as other:
            asked = [pool.submit(client.ask, [text]) for text in texts * 4]
            posted = [
                other.submit(requests.post, url, json=body_of(("TEXT",), [text]), timeout=60) for text in texts * 2
            ]
            while sum(future.done() for future in asked) < len(texts):
                time.sleep(0.01)
            assert not asked[-1].done() and not posted[-1].done()
            orphans += psutil.Process(replicas[0].process.pid).children(recursive=True)
            replicas[0].process.kill()
            answers = [future.result()[0] for future in asked]
            statuses = [future.result().status_code for future in posted]
        assert_same(answers, expected * 4)
        assert statuses == [200] * len(posted)
        assert replicas[1].statistics("ernie_seqcls").inference_count > 0
        assert orphans
        # nginx still holds connections to it.
        assert replicas[1].stop() == 0
    except BaseException:
        print((tmp_path / "error.log").read_text(encoding="utf-8"), replicas[1].output()[-5000:], sep="\n")
        raise
    finally:
        nginx.terminate()
        nginx.wait(timeout=60)
        replicas[0].stop()
        replicas[1].stop()


# ------------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize("dataset", MODELS)
def test_answers_are_the_predictors(dataset, triton, exported):
    """32 texts a request, and one text a request from 16 clients at once."""
    _, inputs, expected = exported(dataset)
    inputs, expected = inputs[:120], expected[:120]
    name, tensors = MODELS[dataset]
    before = triton.statistics(name)
    for begin in range(0, len(inputs), 32):
        columns = triton.ask(name, tensors, inputs[begin : begin + 32])
        assert_same(answers_of(columns), expected[begin : begin + 32])
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda item: answers_of(triton.ask(name, tensors, [item]))[0], inputs)
        assert_same(list(found), expected)
    # Texts of any length run together. Triton counts a request after it has sent the response.
    deadline = time.monotonic() + 60
    while (after := triton.statistics(name)).inference_count < before.inference_count + 2 * len(inputs):
        assert time.monotonic() < deadline, after
        time.sleep(0.01)
    assert after.inference_count == before.inference_count + 2 * len(inputs)
    assert after.execution_count - before.execution_count < len(inputs) / 2


def test_no_request_is_overlooked(triton):
    """With one instance, Triton's batcher found one in eight of these only after half a second."""

    def seconds(text):
        begin = time.perf_counter()
        triton.ask("ernie_seqcls", ("TEXT",), [text])
        return time.perf_counter() - begin

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waits = list(pool.map(seconds, ["北京大学"] * 400))
    assert sum(wait > 0.45 for wait in waits) < 10, sorted(waits)[-20:]


@pytest.mark.parametrize("dataset", MODELS)
def test_answers_over_http_are_the_predictors(dataset, triton, exported):
    _, inputs, expected = exported(dataset)
    name, tensors = MODELS[dataset]
    response = triton.post(name, body_of(tensors, inputs[:32]))
    assert response.status_code == 200, response.text
    columns = {output["name"]: output["data"] for output in response.json()["outputs"]}
    assert_same(answers_of(columns), expected[:32])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_readmes_request_over_http(triton):
    readme = (TRITON / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^curl [^`]+", readme, re.MULTILINE)
    command = command.replace("http://127.0.0.1:8000", triton.http)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert json.loads(done.stdout)["model_name"] == "ernie_seqcls", done.stderr


def test_truncated_texts_are_reported(triton, exported):
    """The client is told which texts were truncated, also if requests are merged; and counts them."""
    limit = read(exported("tnews")[0] / "tokenizer_config.json")["model_max_length"]
    long, fits = "好" * (limit - 1), "好" * (limit - 2)  # [CLS] and [SEP] are added
    assert triton.ask("ernie_seqcls", ("TEXT",), [fits, long, "好", long])["truncated"] == [False, True, False, True]
    pairs = [(fits, "好"), ("好", "好")]
    assert triton.ask("pairs", ("TEXT", "TEXT_PAIR"), pairs)["truncated"] == [True, False]
    questions = [
        ("好" * 500, "王芳在腾讯公司工作。"),
        ("谁？", "王芳在腾讯公司工作。" * 500),
    ]  # a context is not truncated
    assert triton.ask("ernie_qa", ("QUESTION", "CONTEXT"), questions)["truncated"] == [True, False]
    status, _, err = ask("seq_cls", triton.grpc, "--text", long)
    assert (status, err) == (0, "1 of 1 texts were truncated\n")


@pytest.mark.parametrize("dataset", ON_GPU)
def test_a_gpus_variant_answers_as_the_predictor(dataset, triton, exported):
    """Its Python steps around a network of the same ONNX file."""
    _, inputs, expected = exported(dataset)
    name, tensors = f"gpu_{dataset}", MODELS[dataset][1]
    for begin in range(0, 64, 32):
        columns = triton.ask(name, tensors, inputs[begin : begin + 32])
        assert_same(answers_of(columns), expected[begin : begin + 32])
    with pytest.raises(InferenceServerException, match="is empty"):
        triton.ask(name, tensors, [("", "") if len(tensors) == 2 else ""])


def test_positions_are_characters_of_the_text(triton):
    """Of emoji, of what is wider than a byte, and with white space around."""
    text = "  😀王芳在腾讯公司工作，家住深圳。\t"
    columns = triton.ask("ernie_tokencls", ("TEXT",), [text])
    entities = json.loads(columns["entities"][0])
    assert entities
    assert all(text[e["start"] : e["end"]] == e["entity"] for e in entities)
    published = json.loads(columns["OUTPUT"][0])
    assert [text[first : last + 1] for first, last in (e["pos"] for e in published)] == [e["entity"] for e in entities]
    (answer,) = answers_of(triton.ask("ernie_qa", ("QUESTION", "CONTEXT"), [("谁在工作？", text)]))
    assert text[answer["start"] : answer["end"]] == answer["answer"]


def test_published_clients_get_what_they_expect(triton, exported):
    """PaddleNLP's clients take the first input and all outputs of the metadata, and a value by one index."""
    for name in ("ernie_seqcls", "ernie_tokencls"):
        metadata = triton.client.get_model_metadata(name, "1")
        assert metadata.inputs[0].name == "TEXT"
        texts = ["北京的涮肉，重庆的火锅", "原产玛雅故国的玉米"]
        wanted = [grpcclient.InferRequestedOutput(output.name) for output in metadata.outputs]
        result = triton.client.infer(name, inputs_of(["TEXT"], texts), model_version="1", outputs=wanted)
        if name == "ernie_seqcls":
            classes = len(read(exported("tnews")[0] / "config.json")["id2label"])
            assert result.as_numpy("label").shape == (2,)
            assert all(0 <= label < classes for label in result.as_numpy("label"))
            assert all(0 < confidence <= 1 for confidence in result.as_numpy("confidence"))
        else:
            for entities in result.as_numpy("OUTPUT"):
                assert all({"pos", "label"} == entity.keys() for entity in json.loads(entities.decode("utf-8")))


@pytest.mark.parametrize("dataset", ON_GPU)
def test_clients_score_a_dev_set(dataset, triton, exported, tmp_path):
    """By the commands of the README: every answer is the predictor's, and so is the score."""
    folder, task = exported(dataset)[0], TASK_OF[dataset]
    readme = (TRITON / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"^python ({task}_grpc_client\.py --dataset {dataset} .*)$", readme, re.MULTILINE)
    more = ["--url", triton.grpc, "--output", str(tmp_path / "answers")]
    items, gold = read_dev_set(task, SAMPLE_DATA, dataset)
    expected = ErniePredictor(folder).predict(items)
    done = subprocess.run(
        [sys.executable, *shlex.split(command), *more], cwd=TRITON, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (tmp_path / "answers").read_text(encoding="utf-8").splitlines()]
    assert_same(found, expected)
    for name, value in score(task, expected, gold).items():
        assert f"{name}: {value}\n" in done.stdout
    assert done.stdout.startswith(f"{dataset}: {len(items)} texts in")


def test_clients_say_what_is_wrong(triton, tmp_path):
    for model, is_of_pairs in (("ernie_seqcls", False), ("pairs", True)):  # two built-in examples, of the model's kind
        status, out, err = ask("seq_cls", triton.grpc, "--model", model)
        assert (status, out.count("confidence"), err) == (0, 2, "") and (" | " in out) == is_of_pairs

    def fails(message, *arguments, status=1, url=triton.grpc):
        *found, err = ask(*arguments[:1], url, *arguments[1:])
        assert found == [status, ""] and message in err and err.count("\n") == 1

    (tmp_path / "tnews").mkdir()
    (tmp_path / "tnews" / "dev.json").write_text('{"sentence": "好", "label": "no such"}\n')
    fails("the dev set has the label 'no such'", "seq_cls", "--dataset", "tnews", "--data_dir", tmp_path)
    fails("no model x at", "qa", "--model", "x")
    fails("ernie_qa takes QUESTION, CONTEXT; this client sends TEXT", "token_cls", "--model", "ernie_qa")
    fails("`text` is empty", "seq_cls", "--text", " ")
    fails("--question needs --context", "qa", "--question", "谁？", status=2)
    fails("expected host:port", "qa", url="http://127.0.0.1", status=2)
    fails("--retries: -1: expected a whole number, 0 or more", "seq_cls", "--retries=-1", status=2)
    fails("no Triton server answers gRPC at", "qa", url=f"127.0.0.1:{free_port()}")


def ask(task, url, *arguments):
    """Runs a client in this process: (exit status, standard output, standard error)."""
    program = TRITON / f"{task}_grpc_client.py"
    status, out, err = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", [program.name, *map(str, ["--url", url, *arguments])])
        patch.syspath_prepend(TRITON)
        try:
            runpy.run_path(str(program), run_name="__main__")
        except SystemExit as e:
            status = e.code
    return status, out.getvalue(), err.getvalue()


# ------------------------------------------------------------------------------------------------------- errors

BAD = {
    "empty": ([("TEXT", [b"\xe5\xa5\xbd", b""])], "item 1: `text` is empty"),
    "white space": ([("TEXT", [b" \n"])], "item 0: `text` is empty"),
    "not UTF-8": ([("TEXT", [b"\xff\xfe"])], "item 0: TEXT is not UTF-8: invalid start byte at byte 0"),
    "GBK": ([("TEXT", ["今天".encode("gbk")])], "at byte 0; if it is GBK or GB18030, send it as UTF-8"),
    "huge": ([("TEXT", ["好".encode() * 100_001])], "item 0 has 100,001 characters; the limit is 100,000"),
    "no text": ([("TEXT_PAIR", [b"a"])], "there is no input TEXT"),
    "uneven": ([("TEXT", [b"a", b"b"]), ("TEXT_PAIR", [b"a"])], "batch size does not match"),
    "unknown input": ([("TEXT", [b"a"]), ("QUESTION", [b"a"])], "unexpected inference input"),
    "too many": ([("TEXT", [b"a"] * 65)], "batch-size must be <= 64"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_spoils_no_other(what, triton, exported):
    tensors, message = BAD[what]
    inputs = [tensor for name, texts in tensors for tensor in inputs_of([name], texts)]
    good, expected = exported("tnews")[1][0], exported("tnews")[2][0]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(triton.ask, "ernie_seqcls", ("TEXT",), [good]) for _ in range(8)]
        failed = [pool.submit(triton.client.infer, "ernie_seqcls", inputs) for _ in range(8)]
        for future in failed:
            with pytest.raises(InferenceServerException, match=re.escape(message)) as error:
                future.result()
            assert "INVALID_ARGUMENT" in error.value.status()
            assert "/" not in error.value.message() and "Traceback" not in error.value.message()
        for future in asked:
            assert_same(answers_of(future.result()), [expected])


def test_bad_requests_over_http(triton):
    def tensor(texts, shape, datatype="BYTES", name="TEXT"):
        return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": texts}]}

    for body in (
        tensor([""], [1, 1]),
        tensor([1], [1, 1], "INT64"),
        tensor(["a", "b"], [1, 2]),
        tensor(["a"], [1]),
        tensor([], [0, 1]),
        tensor(["a"], [1, 1], name="X"),
        {"inputs": []},
    ):
        response = triton.post("ernie_seqcls", body)
        assert response.status_code == 400, (body, response.text)
        assert response.json()["error"]
    assert triton.post("ernie_seqcls", tensor(["a\0b"], [1, 1])).status_code == 200
    assert triton.post("nothing", tensor(["a"], [1, 1])).status_code == 404
    # Triton's own answer to what is no JSON.
    assert triton.post("ernie_seqcls", b"{").status_code == 500
    assert triton.post("ernie_seqcls", tensor(["a"], [1, 1])).status_code == 200


def hostile(generator):
    """A request over HTTP as (headers, body), such that no good answer is expected, or none is needed."""

    def tensor(texts, **more):
        return {"name": "TEXT", "datatype": "BYTES", "shape": [len(texts), 1], "data": texts, **more}

    def binary(content, length=None, **more):
        """The binary form: its JSON, then texts with their lengths before them."""
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "TEXT",
                        "datatype": "BYTES",
                        "shape": [1, 1],
                        "parameters": {"binary_data_size": len(content)},
                        **more,
                    }
                ]
            }
        ).encode()
        return {"Inference-Header-Content-Length": str(len(head) if length is None else length)}, head + content

    text = "".join(
        chr(generator.choice((generator.randrange(1, 0xD800), generator.randrange(0xE000, 0x110000))))
        for _ in range(generator.randrange(1, 600))
    )
    cut = json.dumps({"inputs": [tensor([text])]}).encode()
    kinds = [
        lambda: {"inputs": [tensor([""])]},
        lambda: {"inputs": [tensor([" \n\t\u3000"])]},
        lambda: {"inputs": [tensor(["\0" * generator.randrange(1, 99)])]},
        lambda: {"inputs": [tensor([text])]},
        lambda: {"inputs": [tensor([text, ""])]},
        lambda: {"inputs": [tensor([text * 400])]},
        lambda: {"inputs": [tensor([text], shape=[generator.choice((-1, 0, 2, 2**31, 2**62)), 1])]},
        lambda: {"inputs": [tensor([text], shape=[1])]},
        lambda: {"inputs": [tensor([text] * 65)]},
        lambda: {"inputs": [tensor([generator.random()], datatype="FP32")]},
        lambda: {"inputs": [tensor([text], datatype="NONE")]},
        lambda: {"inputs": [tensor([text], name=text)]},
        lambda: {"inputs": [tensor([text], name="TEXT_PAIR")]},
        lambda: {"inputs": [tensor([text]), tensor([text])]},
        lambda: {"inputs": [tensor([text])], "outputs": [{"name": text}]},
        lambda: {"inputs": []},
        lambda: {"inputs": {text: text}},
        lambda: [],
        lambda: cut[: generator.randrange(len(cut))],
        lambda: b"[" * 100_000,
        lambda: generator.randbytes(generator.randrange(2000)),
        lambda: binary((5).to_bytes(4, "little") + b"\xff\xfe\xed\xa0\x80"),
        lambda: binary((2**31).to_bytes(4, "little") + b"abc"),
        lambda: binary(b"\1"),
        lambda: binary(generator.randbytes(generator.randrange(300))),
        lambda: binary(b"\1\0\0\0a", length=generator.choice((0, 1, 10**9, -1, 2**70))),
        lambda: binary(b"\1\0\0\0a", parameters={"binary_data_size": generator.choice((-1, 2**40, 0))}),
    ]  # fmt: skip
    found = generator.choice(kinds)()
    headers, body = found if isinstance(found, tuple) else ({}, found)
    return headers, body if isinstance(body, bytes) else json.dumps(body).encode()


def test_hostile_requests(triton, exported):
    """Over HTTP and gRPC, with good requests beside them: each is answered, none takes memory for good."""
    generator = random.Random(0)
    good, expected = exported("tnews")[1][:8], exported("tnews")[2][:8]
    url = f"{triton.http}/v2/models/ernie_seqcls/infer"
    statuses = collections.Counter()
    session = requests.Session()
    memory = []
    for number in range(HOSTILE):
        headers, body = hostile(generator)
        status = session.post(url, data=body, headers=headers, timeout=60).status_code
        statuses[status] += 1
        assert status in (200, 400, 500), (status, headers, body[:200])
        if number % 3 == 0:
            text = generator.randbytes(generator.randrange(200))
            with contextlib.suppress(InferenceServerException):
                triton.ask("ernie_seqcls", ("TEXT",), [text])
                statuses["answered over gRPC"] += 1
        if number % 50 == 0:
            assert_same(answers_of(triton.ask("ernie_seqcls", ("TEXT",), good)), expected)
        if number % (HOSTILE // 10) == HOSTILE // 10 - 1:
            processes = [psutil.Process(triton.process.pid)]
            processes += processes[0].children(recursive=True)
            memory.append(sum(process.memory_info().rss for process in processes) / 2**20)
    print(statuses, [round(value) for value in memory])
    assert requests.get(f"{triton.http}/v2/health/ready", timeout=60).status_code == 200
    assert memory[-1] < 1.1 * memory[4]


def test_a_text_that_the_model_fails_on_fails_alone(triton):
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        good = [pool.submit(triton.ask, "broken", ("TEXT",), ["好" * n]) for n in range(1, 13)]
        bad = [pool.submit(triton.ask, "broken", ("TEXT",), ["好", "书" * n]) for n in range(1, 5)]
        for future in bad:
            with pytest.raises(InferenceServerException, match="the model could not run this text") as error:
                future.result()
            assert "INTERNAL" in error.value.status()
        assert all(future.result()["label"] for future in good)
    assert "not a number" in triton.output()


def test_a_full_queue_refuses_and_recovers(triton):
    tensors, item = ("QUESTION", "CONTEXT"), ("谁？", "王芳在腾讯公司工作，家住深圳。" * 400)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(timed, triton.ask, "narrow", tensors, [item]) for _ in range(16)]
        refused = []
        for future in asked:
            with contextlib.suppress(InferenceServerException):
                _, error = future.result()
                if error is not None:
                    refused.append(error)
    assert 0 < len(refused) < 16
    assert all("UNAVAILABLE" in e.status() and "Exceeds maximum queue size" in e.message() for e in refused), refused
    assert triton.ask("narrow", tensors, [("谁？", "王芳")])["answer"]
    # A request that may wait for a microsecond only is refused behind one that runs.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = pool.submit(triton.ask, "ernie_qa", tensors, [item] * 8)
        statuses = []
        while not running.done():
            _, error = timed(triton.ask, "ernie_qa", tensors, [("谁？", "王芳")], timeout=1)
            statuses.append(error and error.message())
        assert any("timeout" in (message or "").lower() for message in statuses), statuses
        assert len(running.result()["answer"]) == 8


def timed(function, *arguments, **kwargs):
    """(seconds, the error or None)."""
    begin = time.monotonic()
    try:
        function(*arguments, **kwargs)
    except InferenceServerException as e:
        return time.monotonic() - begin, e
    return time.monotonic() - begin, None


def test_metrics_that_the_rules_are_written_for(triton):
    text = requests.get(f"http://127.0.0.1:{triton.metrics}/metrics", timeout=60).text
    names = set(re.findall(r"^(nv_\w+){", text, re.MULTILINE))
    for file in ("prometheus/rules.yml", "kubernetes/triton.yaml", "kubernetes/prometheus-adapter.yaml"):
        used = set(re.findall(r"nv_\w+", (TRITON / file).read_text(encoding="utf-8")))
        assert used and used <= names, file


# ------------------------------------------------------------------------------------------------ starting, stopping


def test_sigterm_under_load(repository, tmp_path, exported):
    """Requests in flight are answered, new ones refused, exit status 0; a client that sends again loses no answer.

    A second server on the same machine goes on.
    """
    for number in range(2):
        shutil.copytree(repository / "ernie_seqcls", tmp_path / str(number) / "ernie_seqcls")
    first, second = (Triton(tmp_path / str(number)) for number in range(2))
    first.wait()
    second.wait()
    texts, expected = exported("tnews")[1][:32], exported("tnews")[2][:32]
    patient = load(TRITON / "grpc_client.py").Client(first.grpc, "ernie_seqcls", "seq_cls", retries=20)
    answered, restarted = [], threading.Event()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:

        def ask_until_refused():
            while True:
                try:
                    answered.append(answers_of(first.ask("ernie_seqcls", ("TEXT",), texts)))
                except InferenceServerException as e:
                    return e

        def ask_until_restarted():
            while not restarted.is_set():
                answered.append(patient.ask(texts))
            answered.append(patient.ask(texts))

        patients = [pool.submit(ask_until_restarted) for _ in range(2)]
        asking = [pool.submit(ask_until_refused) for _ in range(4)]
        while len(answered) < 20:
            time.sleep(0.01)
        first.process.send_signal(signal.SIGTERM)
        errors = [future.result(timeout=60) for future in asking]
        assert first.process.wait(timeout=60) == 0
        restarted.set()
        third = Triton(tmp_path / "0", ports=first.ports).wait()
        for future in patients:
            future.result()
    for answers in answered:
        assert_same(answers, expected)
    # Triton first refuses requests, then it takes the models away.
    for error in errors:
        assert "UNAVAILABLE" in error.status() or "has no available versions" in error.message(), str(error)
    assert_same(answers_of(second.ask("ernie_seqcls", ("TEXT",), texts)), expected)
    first.stop()
    assert second.stop() == third.stop() == 0


def test_run_triton_says_what_is_missing(tmp_path):
    done = subprocess.run(
        [sys.executable, TRITON / "run_triton.py", tmp_path / "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "nothing: no such folder" in done.stderr
    done = subprocess.run([sys.executable, TRITON / "run_triton.py", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "nvidia-pytriton is not installed" in done.stderr


def test_a_paused_server(paused, exported):
    """It goes on; and when one of its Python processes is killed, which Triton does not replace, all of it ends."""
    server, (_, texts, expected) = paused.server, exported("tnews")
    paused.resume()
    for _ in range(4):
        assert_same(answers_of(server.ask("ernie_seqcls", ("TEXT",), texts[:8])), expected[:8])
    processes = paused.processes()
    model = next(process for process in processes if process.ppid() == server.process.pid)
    model.kill()
    assert server.process.wait(timeout=120) != 0
    assert not psutil.wait_procs(processes[1:], timeout=120)[1]
    assert f"the Python process {model.pid} of a model was killed; ending Triton" in server.output()


# ---------------------------------------------------------------------------------------------------- containers


def test_the_containers_command(tmp_path):
    """What Dockerfile and Kubernetes start: it listens on all addresses, and no stranger is its administrator."""
    dockerfile = (TRITON / "Dockerfile").read_text(encoding="utf-8")
    (command,) = (json.loads(line) for line in re.findall(r"^CMD (.*)", dockerfile, re.MULTILINE))
    deployment = next(yaml.safe_load_all((TRITON / "kubernetes" / "triton.yaml").read_text(encoding="utf-8")))
    assert deployment["spec"]["template"]["spec"]["containers"][0]["args"] == command
    (copied,) = re.findall(r"^COPY triton_serving/run_triton.py (\S+)$", dockerfile, re.MULTILINE)
    assert command[:3] == ["python3", f"{copied}run_triton.py", "/models"]
    # The container's tritonserver is on PATH.
    (tmp_path / "tritonserver").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "tritonserver").chmod(0o755)

    def flags(**environment):
        environment["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        started = [sys.executable, TRITON / "run_triton.py", tmp_path, *command[3:]]
        done = subprocess.run(started, capture_output=True, text=True, env=environment)
        return done.stdout.split() or done.stderr

    found = dict(flag.split("=", 1) for flag in flags())
    assert [found[f"--{name}-address"] for name in ("http", "grpc", "metrics")] == ["0.0.0.0"] * 3
    apis, _, key = found["--http-restricted-api"].partition(":admin-key=")
    assert found["--grpc-restricted-protocol"] == f"{apis}:admin-key={key}" and len(key) == 64
    assert set(apis.split(",")) == {"shared-memory", "model-repository", "trace", "logging"}
    assert key not in flags() and any(flag.endswith(":admin-key=a.b") for flag in flags(ADMIN_KEY="a.b"))
    assert flags(ADMIN_KEY="a,b=c").startswith("run_triton.py: error: ADMIN_KEY: expected letters")


def test_the_containers_folder_for_engines(repository):
    """It is there and belongs to the user, whose named volume takes over the owner."""
    dockerfile = (TRITON / "Dockerfile").read_text(encoding="utf-8")
    made = dockerfile.index("RUN mkdir /tensorrt_cache && chown 1000:1000 /tensorrt_cache\n")
    assert made < dockerfile.index("\nUSER 1000\n")
    done = subprocess.run([HADOLINT, TRITON / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nginx_passes_on_what_clients_need(scheme):
    text = (TRITON / "nginx.conf").read_text(encoding="utf-8")
    (pattern,) = re.findall(rf"location ~ (\S+) \{{\s+{'proxy' if scheme == 'http' else 'grpc'}_pass", text)
    assert re.findall(r"location (\S+) \{\s+(\S+ \S+);", text) == [("/", "return 403")] * 2
    if scheme == "http":
        model = "/v2/models/ernie_seqcls"
        needed = ["/v2", "/v2/health/ready", "/v2/health/live", model, "/v2/models/stats"]
        needed += [
            f"{m}/{what}" for m in (model, f"{model}/versions/1") for what in ("infer", "ready", "config", "stats")
        ]
        others = [f"/v2/{path}" for path, _ in ADMINISTRATION] + ["/", "/metrics", f"{model}/../../logging"]
    else:
        service = inference.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        methods = [f"/{service.full_name}/{method.name}" for method in service.methods]
        others = [m for m in methods if re.search("SharedMemory|Repository|Trace|Log", m)]
        needed = [m for m in methods if m not in others]
        assert len(needed) == 9 and len(others) == 11
    assert all(re.search(pattern, path) for path in needed)
    assert not any(re.search(pattern, path) for path in others)


# ---------------------------------------------------------------------------------------------------- preparing


def config_of(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("dataset", ON_GPU)
def test_a_networks_config_fits_its_onnx_file(dataset, repository, exported):
    import onnx

    folder = repository / f"gpu_{dataset}_network"
    config, graph = config_of(folder), onnx.load(folder / "1" / "model.onnx").graph
    kinds = {onnx.TensorProto.INT64: model_config_pb2.TYPE_INT64, onnx.TensorProto.FLOAT: model_config_pb2.TYPE_FP32}
    for declared, found in ((config.input, graph.input), (config.output, graph.output)):
        assert [tensor.name for tensor in declared] == [value.name for value in found]
        for tensor, value in zip(declared, found):
            shape = [d.dim_value or -1 for d in value.type.tensor_type.shape.dim]
            assert tensor.data_type == kinds[value.type.tensor_type.elem_type]
            assert [-1, *tensor.dims] == shape
    labels = read(exported(dataset)[0] / "config.json").get("id2label", {})
    if dataset != "cmrc2018":
        assert config.output[0].dims[-1] == len(labels)
    asked = config_of(repository / f"gpu_{dataset}").parameters
    assert asked["network"].string_value == folder.name
    assert asked["network_outputs"].string_value.split(",") == [tensor.name for tensor in config.output]


def test_every_shipped_config(tmp_path, exported):
    """As shipped, but for what prepare_models.py adds at the end: valid, batched, with a queue that refuses."""
    shipped = sorted(path.parent for path in (TRITON / "models").glob("*/config.pbtxt"))
    assert [path.name for path in shipped] == ["network", "text"]
    for folder in shipped:
        config = config_of(folder)
        assert config.max_batch_size == 64 and config.HasField("dynamic_batching")
        if folder.name != "network":
            policy = config.dynamic_batching.default_queue_policy
            assert policy.max_queue_size and policy.default_timeout_microseconds
            assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT
    confidence, truncated = ("confidence", "FP32"), ("truncated", "BOOL")
    for dataset, name, inputs, outputs in (
        ("tnews", "ernie_seqcls", ["TEXT", "TEXT_PAIR"],
         [("label", "INT64"), ("label_name", "STRING"), confidence, truncated]),
        ("msra_ner", "ernie_tokencls", ["TEXT"], [("entities", "STRING"), ("OUTPUT", "STRING")]),
        ("cmrc2018", "ernie_qa", ["QUESTION", "CONTEXT"],
         [("answer", "STRING"), ("start", "INT64"), ("end", "INT64"), confidence, ("n_best", "STRING"), truncated]),
    ):  # fmt: skip
        assert prepare("--model_path", exported(dataset)[0], "--output", tmp_path, "--instances", 2) == 0
        made, shipped = tmp_path / name, (TRITON / "models" / "text" / "config.pbtxt").read_text(encoding="utf-8")
        assert (made / "config.pbtxt").read_text(encoding="utf-8").startswith(shipped)
        assert (made / "1" / "model.py").read_bytes() == (TRITON / "text_model.py").read_bytes()
        config = config_of(made)
        assert config.instance_group[0].count == 2
        assert [(tensor.name, list(tensor.dims)) for tensor in config.input] == [(name, [1]) for name in inputs]
        assert [tensor.name for tensor in config.input if tensor.optional] == inputs[1:] * (name == "ernie_seqcls")
        types = [(tensor.name, model_config_pb2.DataType.Name(tensor.data_type)) for tensor in config.output]
        assert types == [(name, f"TYPE_{kind}") for name, kind in outputs]


@pytest.mark.skipif(not fuses_layer_norms(), reason="ONNX Runtime is older than 1.20")
def test_a_network_in_float16_and_int8(tmp_path, exported, quantized):
    import onnx

    folder = exported("tnews")[0]
    assert prepare("--model_path", folder, "--output", tmp_path, "--device", "gpu") == 0
    config = config_of(tmp_path / "ernie_seqcls_network")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt" and accelerator.parameters["precision_mode"] == "FP16"
    assert accelerator.parameters.keys() <= set(TENSORRT_OPTIONS)
    network = tmp_path / "ernie_seqcls_network" / "1" / "model.onnx"
    assert accelerator.parameters["trt_engine_cache_prefix"] == file_hash(network)
    assert accelerator.parameters["trt_engine_cache_path"] == "/tensorrt_cache"
    longest = read(folder / "tokenizer_config.json")["model_max_length"]
    assert accelerator.parameters["trt_profile_max_shapes"] == f"input_ids:64x{longest},token_type_ids:64x{longest}"
    model = onnx.load(network)
    assert {t.data_type for t in model.graph.initializer} >= {onnx.TensorProto.FLOAT16}
    assert not list((tmp_path / "ernie_seqcls" / "1").glob("*.onnx"))
    assert prepare("--model_path", quantized, "--output", tmp_path, "--device", "gpu", "--name", "small") == 0
    (other,) = config_of(tmp_path / "small_network").optimization.execution_accelerators.gpu_execution_accelerator
    assert other.parameters["precision_mode"] == "INT8" and other.parameters.keys() <= set(TENSORRT_OPTIONS)
    assert other.parameters["trt_engine_cache_prefix"] != accelerator.parameters["trt_engine_cache_prefix"]
    assert prepare("--model_path", quantized, "--output", tmp_path, "--name", "cpu") == 0
    assert config_of(tmp_path / "cpu").parameters["precision_mode"].string_value == "int8"


def test_what_does_not_fit_is_refused_and_nothing_changes(tmp_path, exported, capsys):
    folder, repository = tmp_path / "export", tmp_path / "repository"
    shutil.copytree(exported("tnews")[0], folder)
    assert prepare("--model_path", folder, "--output", repository) == 0
    before = sorted(repository.rglob("*"))

    def refused(message, *arguments, status=1):
        assert prepare("--model_path", folder, "--output", repository, *arguments) == status
        assert message in capsys.readouterr().err
        assert sorted(repository.rglob("*")) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "repository"]

    # While a model is made, the repository holds none but complete ones: Triton would take it for a model.
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "copy", lambda *a, copy=shutil.copy: (seen.append(os.listdir(repository)), copy(*a))[1])
        assert prepare("--model_path", folder, "--output", repository, "--name", "second", "--device", "gpu") == 0
    assert all(set(names) <= {"ernie_seqcls", "second_network"} for names in seen) and seen
    before = sorted(repository.rglob("*"))

    refused("--precision fp16: --device cpu takes fp32, bf16, int8", "--precision", "fp16", status=2)
    refused("--name a/b: expected letters", "--name", "a/b", status=2)
    refused("no calibrated INT8 model", "--device", "gpu", "--precision", "int8", status=2)
    onnx_file, config_file = folder / "model.onnx", folder / "config.json"
    content, config = onnx_file.read_bytes(), config_file.read_text(encoding="utf-8")
    onnx_file.write_bytes(content[: len(content) // 2])
    for device in ("cpu", "gpu"):
        refused("cannot be loaded; is the file complete?", "--device", device)
    onnx_file.write_bytes(content)
    config_file.write_text(json.dumps({**json.loads(config), "id2label": {"0": "a", "1": "b"}, "label2id": None}))
    refused("config.json names 2 labels, but the model has")
    config_file.write_text(config.replace("SequenceClassification", "QuestionAnswering"))
    refused("has 1 output(s), so it is not a qa model")
    config_file.unlink()
    refused("no model folder: it has no config.json")
