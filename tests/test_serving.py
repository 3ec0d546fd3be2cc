"""The servers over real HTTP on loopback: published requests, answers, errors, and how they start and stop."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import psutil
import pytest
import requests
from conftest import ROOT, assert_same
from ernie_predictor.machine import usable_cores
from prometheus_client.parser import text_string_to_metric_families

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = iter(range(20_000 + 4_000 * (WORKER % 3) + random.SystemRandom().randrange(2_000), 32_000))
SERVING = ROOT / "deploy" / "simple_serving"
SERVERS = {
    "tnews": ("server_seq_cls", "ernie_cls"),
    "afqmc": ("server_seq_cls", "ernie_cls"),
    "msra_ner": ("server_token_cls", "ernie_ner"),
    "cmrc2018": ("server_qa", "ernie_qa"),
}


def free_port():
    """One that no other test of this run gets.

    Nor is it one of those that Linux gives to connections (32768 on), or Ray to its workers (10002 to 19999).
    """
    for port in PORTS:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


class Running:
    """A server's process, and where it is asked."""

    def __init__(self, dataset, model, *flags, how="python", script=None, **environment):
        """model: a folder, or a list of NAME=FOLDER."""
        default_script, name = SERVERS[dataset]
        script = script or default_script
        models = list(map(str, model)) if isinstance(model, list) else [str(model)]
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.route = f"{self.url}/models/{name}"
        arguments = ["--model_path", *models, "--port", str(self.port), *map(str, flags)]
        command = [sys.executable, str(SERVING / f"{script}.py"), *arguments]
        if how == "uvicorn":
            command = [sys.executable, "-m", "uvicorn", f"{script}:app", "--port", str(self.port)]
            command += ["--http", "ernie_serving.connections:Connection"]
            environment["MODEL_PATH"] = ",".join(models)
        elif how == "paddlenlp":
            command = [sys.executable, "-m", "paddlenlp.cli.main", "server", f"{script}:app", "--port", str(self.port)]
            environment["MODEL_PATH"] = ",".join(models)
        # Not a pipe, which nobody reads before the end: full after some 500 lines, it would stop the server.
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command, cwd=SERVING, env={**os.environ, **environment}, stdout=self.log, stderr=subprocess.STDOUT
        )

    def wait(self):
        """Until it is ready; a server that ends before fails the test."""
        while True:
            if self.process.poll() is not None:
                raise AssertionError(self.output()[-3000:])
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{self.url}/ready", timeout=60).status_code == 200:
                    return self
            time.sleep(0.05)

    def ask(self, body, **kwargs):
        return requests.post(self.route, json=body, timeout=60, **kwargs)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def output(self):
        """What it printed, of a server that ends."""
        self.process.wait(timeout=120)
        self.log.seek(0)
        return self.log.read().decode()


@pytest.fixture(scope="module")
def servers(exported):
    running = {}

    def get(dataset):
        if dataset not in running:
            running[dataset] = Running(dataset, exported(dataset)[0]).wait()
        return running[dataset]

    yield get
    assert [server.stop() for server in running.values()] == [0] * len(running)


def data_of(dataset, inputs):
    if dataset == "cmrc2018":
        return {"question": [q for q, _ in inputs], "context": [c for _, c in inputs]}
    if dataset == "afqmc":
        return {"text": [a for a, _ in inputs], "text_pair": [b for _, b in inputs]}
    return {"text": list(inputs)}


def answers_of(dataset, result):
    """A result in the predictor's form."""
    if dataset == "msra_ner":
        return [[{**{k: e[k] for k in ("entity", "label", "confidence")}, "start": e["pos"][0], "end": e["pos"][1]}
                 for e in entities] for entities in result["value"]]  # fmt: skip
    if dataset == "cmrc2018":
        keys = ("answer", "start", "end", "confidence", "n_best")
        return [dict(zip(keys, row)) for row in zip(*(result[key] for key in keys))]
    return [{"label": n, "confidence": c} for n, c in zip(result["label_name"], result["confidence"])]


@pytest.mark.parametrize("dataset", SERVERS)
def test_answers_are_the_predictors(dataset, servers, exported):
    """All in one request, and one by one from 16 clients at once."""
    _, inputs, expected = exported(dataset)
    inputs, expected = inputs[:120], expected[:120]
    server = servers(dataset)
    response = server.ask({"data": data_of(dataset, inputs)})
    assert response.status_code == 200, response.text
    assert_same(answers_of(dataset, response.json()["result"]), expected)

    def one(item):
        return answers_of(dataset, server.ask({"data": data_of(dataset, [item])}).json()["result"])[0]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert_same(list(pool.map(one, inputs)), expected)
    for name in ("x-total-time", "x-queue-time", "x-tokenization-time", "x-inference-time", "x-compute-tokens"):
        assert float(response.headers[name]) >= 0
    assert response.headers["x-request-id"]


def test_published_clients_get_what_they_expect(servers):
    """The bodies of PaddleNLP's own clients: class numbers, entities of lists of characters, answers."""
    parameters = {"max_seq_len": 128, "batch_size": 2}
    result = (
        servers("tnews").ask({"data": {"text": ["足球"], "text_pair": None}, "parameters": parameters}).json()["result"]
    )
    assert isinstance(result["label"][0], int) and 0 <= result["confidence"][0] <= 1
    text = [list("李明在北京工作。"), list("今天天气很好。"), ["New", "York", "很", "好"]]
    body = {"data": {"text": text}, "parameters": {**parameters, "is_split_into_words": True}}
    value = servers("msra_ner").ask(body).json()["result"]["value"]
    assert len(value) == 3
    # Words are joined as in training.
    assert_same(value[2], servers("msra_ner").ask({"data": {"text": "New York很好"}}).json()["result"]["value"][0])
    for entity in value[0]:
        assert "李明在北京工作。"[slice(*entity["pos"])] == entity["entity"] and entity["label"] in (
            "PER",
            "LOC",
            "ORG",
        )
    body = {"data": {"context": ["李明在北京工作。"] * 2, "question": ["谁？", "在哪？"]},
            "parameters": {"max_seq_len": 512, "batch_size": 1, "doc_stride": 128}}  # fmt: skip
    result = servers("cmrc2018").ask(body).json()["result"]
    assert result["context"] == body["data"]["context"] and result["question"] == body["data"]["question"]
    assert all(answer in "李明在北京工作。" for answer in result["answer"])


def test_parameters_are_obeyed(servers, exported):
    _, inputs, _ = exported("cmrc2018")
    server, data = servers("cmrc2018"), data_of("cmrc2018", inputs[:3])
    parameters = {"max_seq_len": 64, "doc_stride": 16, "max_answer_length": 2, "n_best_size": 3, "batch_size": 1}
    response = server.ask({"data": data, "parameters": parameters})
    result = response.json()["result"]
    assert all(1 <= len(n_best) <= 3 for n_best in result["n_best"])
    assert all(len(answer) <= 20 for answer in result["answer"])
    assert int(response.headers["x-compute-tokens"]) > int(server.ask({"data": data}).headers["x-compute-tokens"])


BAD = [
    (b"{", 400),
    (b"", 400),
    (b"\xff\xfe", 400),
    (b'{"data": {"text": []}}', 400),
    (b'{"data": {"text": [NaN]}}', 400),
    (b"[" * 100_000, 400),
    (b'{"data": {"text": "a", "text": "b"}}', 400),
    (b"[]", 422),
    (b"null", 422),
    (b"{}", 422),
    (b'{"data": []}', 422),
    (b'{"data": {}}', 422),
    (b'{"data": {"text": null}}', 422),
    (b'{"data": {"text": 3}}', 422),
    (b'{"data": {"text": [3]}}', 422),
    (b'{"data": {"text": ["a", ""]}}', 422),
    (b'{"data": {"text": "  "}}', 422),
    (b'{"data": {"text": "\\ud83d"}}', 422),
    (b'{"data": {"text": ["a", "b"], "text_pair": ["c"]}}', 422),
    (b'{"data": {"text": "a", "texts": "b"}}', 422),
    (b'{"data": {"text": "a"}, "extra": 1}', 422),
    (b'{"data": {"text": "a"}, "parameters": []}', 422),
    (b'{"data": {"text": "a"}, "parameters": 3}', 422),
    (b'{"data": {"text": "a"}, "parameters": {"max_seq_len": "x"}}', 422),
    (b'{"data": {"text": "a"}, "parameters": {"max_seq_len": 0}}', 422),
    (b'{"data": {"text": "a"}, "parameters": {"batch_size": true}}', 422),
    (b'{"data": {"text": "a"}, "parameters": {"unknown": 1}}', 422),
    (b'{"data": {"text": "\\u0000"}}', 200),
]


@pytest.mark.parametrize("body, status", BAD)
def test_a_bad_request_is_told_why_and_costs_nothing(body, status, servers):
    server = servers("tnews")
    response = requests.post(server.route, data=body, timeout=60, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    if status != 200:
        assert set(response.json()) == {"error", "error_type"} and "Traceback" not in response.text
        assert str(ROOT) not in response.text
    assert server.ask({"data": {"text": "足球"}}).status_code == 200


def test_routes_and_methods_that_are_not_there(servers):
    server = servers("tnews")
    for response, status in (
        (requests.post(f"{server.url}/models/other", json={}, timeout=60), 404),
        (requests.get(server.route, timeout=60), 405),
    ):
        assert response.status_code == status and set(response.json()) == {"error", "error_type"}


def test_limits(exported):
    limits = ["--max_texts", 3, "--max_characters", 50, "--max_body_bytes", 2000]
    server = Running("tnews", exported("tnews")[0], *limits, MAX_BATCH_TOKENS="256", API_KEY="secret")
    key = {"authorization": "Bearer secret"}
    server.wait()  # probes have no key
    assert server.ask({"data": {"text": "球"}}).status_code == 401
    for path in ("/health", "/v2/health/live", "/v2/health/ready"):
        assert requests.get(server.url + path, timeout=60).status_code == 200
    assert requests.get(f"{server.url}/info", timeout=60, headers=key).json()["limits"]["max_batch_tokens"] == 256
    for body in ({"text": ["球"] * 4}, {"text": "球" * 51}, {"text": "a" * 3000}):
        response = server.ask({"data": body}, headers=key)
        assert response.status_code == 413 and response.json()["error_type"] == "too_large", response.text
    assert server.ask({"data": {"text": ["球"] * 3}}, headers=key).status_code == 200
    assert server.stop() == 0


def test_metrics_and_info(servers, exported):
    server = servers("tnews")
    server.ask({"data": {"text": "足球"}})
    text = requests.get(f"{server.url}/metrics", timeout=60).text
    for name in ("ernie_requests_total", "ernie_texts_total", "ernie_queue_tokens", "ernie_batch_texts_bucket",
                 "ernie_request_seconds_sum", "ernie_requests_in_flight"):  # fmt: skip
        assert name in text
    assert 'route="/models/ernie_cls",status="200"' in text
    (info,) = requests.get(f"{server.url}/info", timeout=60).json()["models"]
    assert info["task"] == "seq_cls" and info["precision"] == "fp32" and info["state"] == "ready"
    assert requests.get(f"{server.url}/openapi.json", timeout=60).status_code == 200


def test_a_folder_that_is_none_ends_the_server_with_one_message(tmp_path):
    server = Running("tnews", tmp_path / "none")
    output = server.output()
    assert server.process.returncode == 1
    assert f"error: --model_path {tmp_path / 'none'}: no such folder" in output and "Traceback" not in output


def test_whatever_keeps_a_model_from_opening_ends_the_server(exported, tmp_path):
    """Not only what the predictor refuses: it would say "being opened" for ever. uvicorn's workers know status 3."""
    shutil.copytree(exported("tnews")[0], tmp_path / "model")
    (tmp_path / "model" / "model.onnx").write_bytes(b"broken")
    for how, status in (("python", 1), ("uvicorn", 3)):
        server = Running("tnews", tmp_path / "model", how=how)
        output = server.output()
        assert server.process.returncode == status and "error: " in output and "model.onnx" in output, output
        assert "Traceback" not in output


def test_usage(exported, tmp_path):
    """What does not fit ends a server before it listens."""
    folder = exported("tnews")[0]
    for flags, environment, message in (
        (["--port", "x"], {}, "--port x: "),
        ([], {"MAX_TEXTS": "0"}, "MAX_TEXTS 0: "),
        (["--workers", 10_000], {}, "--workers 10000: there are"),
        (["--model_path", folder, folder], {}, "needs a name"),
        (["--model_path", f"a={folder}", f"a={folder}"], {}, "two models are called a"),
    ):
        server = Running("tnews", folder, *flags, **environment)
        output = server.output()
        assert server.process.returncode in (1, 2) and message in output and "Traceback" not in output, output
    assert "holds a qa model, which server_qa.py serves" in Running("tnews", exported("cmrc2018")[0]).output()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Running("tnews", folder, "--port", taken.getsockname()[1])
        assert "Address already in use" in server.output()


def test_several_models_in_one_server(exported):
    """Each at its own route, in JSON and in the Open Inference Protocol; PaddleNLP's server mixed them up."""
    both = {name: exported(name) for name in ("tnews", "afqmc")}
    server = Running("tnews", [f"{name}={folder}" for name, (folder, _, _) in both.items()]).wait()
    info = requests.get(f"{server.url}/info", timeout=60).json()["models"]
    assert [model["name"] for model in info] == ["tnews", "afqmc"]

    def ask(name):
        _, inputs, expected = both[name]
        body = {"data": data_of(name, inputs[:20])}
        result = requests.post(f"{server.url}/models/{name}", json=body, timeout=60).json()["result"]
        assert_same(answers_of(name, result), expected[:20])
        tensors = [
            {"name": k, "datatype": "BYTES", "shape": [len(v)], "data": v} for k, v in data_of(name, inputs[:5]).items()
        ]
        found = requests.post(f"{server.url}/v2/models/{name}/infer", json={"inputs": tensors}, timeout=60).json()
        assert found["outputs"][1]["data"] == [answer["label"] for answer in expected[:5]]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, ["tnews", "afqmc"] * 8))
    response = requests.post(f"{server.url}/models/ernie_cls", json={"data": {"text": "a"}}, timeout=60)
    assert response.status_code == 404 and "/models/tnews, /models/afqmc" in response.json()["error"]
    assert server.stop() == 0


def test_several_tasks_in_one_server(exported, tmp_path):
    """The README's own program."""
    readme = (SERVING / "README.md").read_text(encoding="utf-8")
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "create_app" in block)
    (tmp_path / "my_server.py").write_text(program, encoding="utf-8")
    names = ("tnews", "msra_ner", "cmrc2018")
    models = [f"{name}={exported(name)[0]}" for name in names]
    server = Running("tnews", models, how="uvicorn", script="my_server", PYTHONPATH=f"{SERVING}:{tmp_path}").wait()
    for name in names:
        _, inputs, expected = exported(name)
        body = {"data": data_of(name, inputs[:5])}
        result = requests.post(f"{server.url}/models/{name}", json=body, timeout=60).json()["result"]
        assert_same(answers_of(name, result), expected[:5])
    server.stop()


def metric(server, name, **labels):
    """A metric's value, as Prometheus would read it."""
    text = requests.get(f"{server.url}/metrics", timeout=60).text
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found)


@pytest.mark.skipif(usable_cores() < 2, reason="each worker needs a core")
def test_workers(exported):
    """Cores are divided, metrics are of all workers, and one that is killed is replaced while the others answer."""
    folder, inputs, expected = exported("tnews")
    server = Running("tnews", folder, "--workers", 2).wait()
    while True:  # the other worker may still be opening its model
        (info,) = requests.get(f"{server.url}/info", timeout=60).json()["models"]
        if info["state"] == "ready":
            break
    assert info["threads"] == usable_cores() // 2

    def ask(text):
        for _ in range(100):  # as clients do: a worker that still opens its model says 503, a killed one nothing
            with contextlib.suppress(requests.ConnectionError):
                response = server.ask({"data": {"text": text}})
                if response.status_code == 200:
                    return answers_of("tnews", response.json()["result"])[0]
            time.sleep(0.1)
        raise AssertionError("no answer")

    def running_workers():
        children = psutil.Process(server.process.pid).children()
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    workers = running_workers()
    assert len(workers) == 2
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert_same(list(pool.map(ask, inputs[:60])), expected[:60])
        before = metric(server, "ernie_texts_total", model="ernie_cls")
        assert before >= 60 and [metric(server, "ernie_texts_total") for _ in range(10)] == [before] * 10
        asked = pool.map(ask, inputs[:60])
        workers[0].kill()
        assert_same(list(asked), expected[:60])
    while not set(running_workers() or ()) - set(workers):
        time.sleep(0.05)
    assert metric(server, "ernie_queue_tokens") == 0 and metric(server, "ernie_requests_in_flight") == 1
    server.process.send_signal(signal.SIGTERM)
    output = server.output()
    assert server.process.returncode == 0 and "ended with status -9; a new one starts" in output, output[-3000:]


@pytest.mark.skipif(usable_cores() < 2, reason="each worker needs a core")
def test_workers_end_with_their_supervisor(exported, tmp_path):
    """And leave nothing in the temporary folder."""
    server = Running("tnews", exported("tnews")[0], "--workers", 2, "--drain_s", 0, TMPDIR=str(tmp_path)).wait()
    assert list(tmp_path.glob("ernie_metrics_*"))
    workers = psutil.Process(server.process.pid).children()
    server.process.kill()
    server.process.wait(timeout=60)
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert not list(tmp_path.glob("ernie_metrics_*"))


def test_an_answer_over_a_kept_connection_is_not_held_back(servers):
    """With Nagle's algorithm on, the server's second packet waited 40 ms for the client's acknowledgement."""
    server, outside = servers("tnews"), []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as connection:
        for _ in range(20):
            begin = time.perf_counter()
            connection.request("POST", "/models/ernie_cls", b'{"data": {"text": "a"}}')
            response = connection.getresponse()
            response.read()
            outside.append(1000 * (time.perf_counter() - begin) - float(response.headers["x-total-time"]))
    assert statistics.median(outside) < 30


def test_what_is_cut_is_said(servers, exported):
    server = servers("tnews")
    long = {"text": ["足球" * 300, "足球"]}
    response = server.ask({"data": long, "parameters": {"max_seq_len": 1000, "doc_stride": 8}})
    assert response.headers["x-truncated-texts"] == "1"
    cut, unused, longer = sorted(response.json()["warnings"])
    assert cut.startswith("1 text is longer than 128 tokens") and "doc_stride: not used" in unused
    assert "max_seq_len 1000 is more than this model takes; 128 is used" in longer
    before = metric(server, "ernie_truncated_texts_total")
    response = server.ask({"data": {"text": "一个不太长的句子"}, "parameters": {"max_seq_len": 8}})
    assert response.json()["warnings"] == ["1 text is longer than 8 tokens; the rest was not read"]
    assert metric(server, "ernie_truncated_texts_total") == before + 1
    response = server.ask({"data": {"text": "足球"}})
    assert "warnings" not in response.json() and response.headers["x-truncated-texts"] == "0"
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["一个不太长的句子"]}]}
    for parameters, truncated in (({}, "0"), ({"max_seq_len": 8}, "1")):
        response = requests.post(
            f"{server.url}/v2/models/ernie_cls/infer", json={**body, "parameters": parameters}, timeout=60
        )
        assert response.status_code == 200 and response.headers["x-truncated-texts"] == truncated


@pytest.mark.parametrize("how", ["uvicorn", "paddlenlp"])
def test_other_ways_to_start(how, exported):
    folder, inputs, expected = exported("tnews")
    server = Running("tnews", folder, how=how).wait()
    result = server.ask({"data": {"text": inputs[:3]}}).json()["result"]
    assert_same(answers_of("tnews", result), expected[:3])
    assert server.stop() in (0, -signal.SIGTERM)


def test_sigterm_answers_what_is_in_flight(exported):
    """And says at once that it is not ready; what comes a moment later is still taken, and each client is told not to
    come again on its connection. Half a request does not keep it from ending."""
    folder, inputs, _ = exported("msra_ner")
    server = Running("msra_ner", folder, "--max_batch_size", 1, "--drain_s", 2).wait()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.ask, {"data": {"text": inputs[:100]}}) for _ in range(4)]
        while "ernie_requests_in_flight 5.0" not in requests.get(f"{server.url}/metrics", timeout=60).text and not all(
            a.done() for a in asked
        ):
            pass
        half = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        half.sendall(b"POST /models/ernie_ner HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        server.process.send_signal(signal.SIGTERM)
        while requests.get(f"{server.url}/ready", timeout=60).status_code != 503:
            pass
        response = server.ask({"data": {"text": inputs[:2]}})
        assert response.status_code == 200 and response.headers["connection"] == "close"
        assert [a.result().status_code for a in asked] == [200] * 4
        with half:
            assert half.makefile("rb").read().startswith(b"HTTP/1.1 503 ")
    output = server.output()
    assert server.process.returncode == 0 and "Traceback" not in output, output[-3000:]
    with pytest.raises(requests.ConnectionError):
        server.ask({"data": {"text": inputs[:2]}})


def test_a_log_line_is_json(exported):
    server = Running("tnews", exported("tnews")[0], "--log_json", "true").wait()
    server.ask({"data": {"text": "足球"}}, headers={"x-request-id": "my-id"})
    server.process.send_signal(signal.SIGTERM)
    lines = server.output().splitlines()
    rows = [json.loads(line) for line in lines if line.startswith('{"method"')]
    assert any(row["request_id"] == "my-id" and row["status"] == 200 for row in rows)


@pytest.mark.parametrize("dataset", ["tnews", "afqmc", "msra_ner", "cmrc2018"])
def test_the_open_inference_protocol(dataset, servers, exported):
    """In JSON, and in the binary form of Triton's clients, which is written out here by its definition."""
    _, inputs, expected = exported(dataset)
    inputs, expected = inputs[:7], expected[:7]
    server = servers(dataset)
    name = server.route.rpartition("/")[2]
    url = f"{server.url}/v2/models/{name}"
    columns = data_of(dataset, inputs)
    tensors = [{"name": k, "datatype": "BYTES", "shape": [len(v)], "data": v} for k, v in columns.items()]
    found = requests.post(f"{url}/infer", json={"id": "7", "inputs": tensors}, timeout=60)
    assert found.status_code == 200 and found.json()["id"] == "7", found.text
    outputs = {o["name"]: o["data"] for o in found.json()["outputs"]}
    check = {"tnews": "label_name", "afqmc": "label_name", "cmrc2018": "answer"}
    if dataset == "msra_ner":
        assert_same([json.loads(text) for text in outputs["entities"]], expected)
    else:
        assert outputs[check[dataset]] == [answer[check[dataset].removesuffix("_name")] for answer in expected]

    def pack(texts):
        return b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)

    parts = {name: pack(texts) for name, texts in columns.items()}
    for tensor in tensors:
        del tensor["data"]
        tensor["parameters"] = {"binary_data_size": len(parts[tensor["name"]])}
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    found = requests.post(
        f"{url}/infer",
        data=head + b"".join(parts.values()),
        headers={"inference-header-content-length": str(len(head))},
        timeout=60,
    )
    length = int(found.headers["inference-header-content-length"])
    rows, place = json.loads(found.content[:length])["outputs"], length
    forms = {"INT64": "<%dq", "FP32": "<%df"}
    for row in rows:
        content = found.content[place : place + row["parameters"]["binary_data_size"]]
        place += len(content)
        values, kind = outputs[row["name"]], row["datatype"]
        assert content == (pack(values) if kind == "BYTES" else struct.pack(forms[kind] % len(values), *values))
    assert place == len(found.content)
    assert requests.get(url, timeout=60).json()["outputs"][0]["name"] in outputs
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{name}/ready"):
        assert requests.get(server.url + path, timeout=60).status_code == 200
    assert requests.get(f"{server.url}/v2/models/other", timeout=60).status_code == 404


BAD_V2 = [
    ({}, 422),
    ([], 422),
    ({"inputs": [3]}, 422),
    ({"inputs": []}, 422),
    ({"inputs": [{"name": "text", "datatype": "INT64", "shape": [1], "data": [1]}]}, 422),
    ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a"]}]}, 422),
    ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [1]}]}, 422),
    ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": "x", "data": ["a"]}]}, 422),
    ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [0], "data": []}]}, 400),
    ({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}, 422),
    ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}}]}, 400),
    ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}], "outputs": [{"name": "x"}]}, 422),
]


@pytest.mark.parametrize("body, status", BAD_V2)
def test_a_bad_request_of_the_open_inference_protocol(body, status, servers):
    server = servers("tnews")
    response = requests.post(f"{server.url}/v2/models/ernie_cls/infer", json=body, timeout=60)
    assert response.status_code == status and set(response.json()) == {"error", "error_type"}, response.text
