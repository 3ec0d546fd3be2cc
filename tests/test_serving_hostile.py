"""The servers under attack and under load: malformed requests, clients that go away or are slow, time-outs."""

import asyncio
import concurrent.futures
import contextlib
import gzip
import http.client
import importlib
import json
import logging
import os
import re
import socket
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
import uvicorn
from conftest import ROOT, Counted, assert_same

sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "deploy" / "simple_serving"))

from ernie_predictor import UsageError
from ernie_predictor.formats import unique_fields
from ernie_serving import Settings, create_app
from ernie_serving.connections import Connection as ServerConnection
from ernie_serving.process import _LogThread
from ernie_serving.settings import load_settings, read_flags
from harness.servers import SERVERS, SERVING, Connection, ServerProcess
from serving_fuzz import FAMILIES, Fuzz, Target, cases, describe, post, read_answer

TASKS = {"tnews": "seq_cls", "msra_ner": "token_cls", "cmrc2018": "qa"}
LONG = "今天的比赛，北京队在上海赢了。" * 8


@pytest.fixture
def serve(exported, tmp_path):
    """A function of (data set, flags) that starts a server, which ends with the test."""
    running = []

    def start(dataset, *flags):
        script, _ = SERVERS[TASKS[dataset]]
        command = [sys.executable, SERVING / script, "--model_path", exported(dataset)[0], *flags]
        running.append(ServerProcess(command, tmp_path / f"{len(running)}.log").__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__()


def metric(server, name):
    _, text = server.ask("GET", "/metrics")
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("dataset", TASKS)
def test_hostile_requests_harm_nobody(dataset, serve):
    """300 of serving_fuzz.py, of every family one at least."""
    target = Target(TASKS[dataset], SERVERS[TASKS[dataset]][1])
    attack = Fuzz(serve(dataset), target)
    some = list(cases(target, 300, seed=1))
    for family in FAMILIES:
        some += cases(target, 1, seed=2, only=family.__name__)
    attack.run(some)
    attack.finish()
    assert not attack.faults, "\n".join(describe(attack.faults))
    answered = {status for counts in attack.statuses.values() for status in counts}
    assert answered >= {200, 400, 404, 405, 413, 422}


def test_the_fuzz_sees_a_fault():
    """Else it would prove nothing."""
    from serving_fuzz import fault_of

    kind = {"content-type": "application/json"}
    assert fault_of((422, kind, b'{"error": "a", "error_type": "b"}')) is None
    for answer in (
        (500, kind, b'{"error": "a", "error_type": "b"}'),
        (422, kind, b'{"detail": "a"}'),
        (422, kind, b'{"error": "a", "error_type": "b", "more": 1}'),
        (400, {}, b'Traceback (most recent call last)\n  File "a.py"'),
        (400, kind, b'{"error": "' + str(ROOT).encode() + b'", "error_type": "b"}'),
        (200, kind, b"{"),
    ):
        assert fault_of(answer) is not None


def test_clients_that_go_away_leave_the_queue(serve):
    server = serve("tnews", "--max_batch_size", 1, "--max_queue_tokens", 1_000_000)
    request = post("/models/ernie_cls", {"data": {"text": [LONG] * 1000}})

    async def send_and_leave():
        connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
        for _, writer in connections:
            writer.write(request)
            await writer.drain()
        await asyncio.to_thread(wait_for, lambda: metric(server, "ernie_queue_texts") > 3000)
        for _, writer in connections:
            writer.close()

    asyncio.run(send_and_leave())
    wait_for(lambda: metric(server, "ernie_queue_texts") == 0 and metric(server, "ernie_requests_in_flight") == 1)
    # One text is a batch here, and for a second the clients might have closed only their own side: of the 4,000, many
    # were never run.
    assert metric(server, "ernie_batch_texts_count") < 3000
    assert server.ask("POST", "/models/ernie_cls", {"data": {"text": "足球"}})[0] == 200


def test_a_slow_body_blocks_nobody_and_a_stalled_one_ends(serve):
    server = serve("tnews", "--timeout_s", 2)
    request = post("/models/ernie_cls", {"data": {"text": "足球"}})

    async def ask():
        slow, stalled = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        for _, writer in (slow, stalled):
            writer.write(request[:-5])
        others = [Connection(server.port) for _ in range(8)]
        answers = await asyncio.gather(*(other.ask(request) for other in others))
        slow[1].write(request[-5:])
        found = [await read_answer(reader) for reader, _ in (slow, stalled)]
        for connection in others:
            connection.close()
        return [status for status, _ in answers], [status for status, _, _ in found]

    others, (slow, stalled) = asyncio.run(asyncio.wait_for(ask(), 60))
    assert others == [200] * 8 and slow == 200 and stalled == 408


def test_a_wait_that_is_too_long_gets_504(serve):
    """What waits behind a long queue is told so in time; afterwards the server answers as before."""
    server = serve("tnews", "--max_batch_size", 1, "--timeout_s", 1, "--max_queue_tokens", 10_000_000)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        begin = time.monotonic()
        bodies = [{"data": {"text": [LONG] * 1024}}] * 8
        answers = list(pool.map(lambda body: server.ask("POST", "/models/ernie_cls", body), bodies))
        seconds = time.monotonic() - begin
    late = [answer for status, answer in answers if status == 504]
    assert late and {status for status, _ in answers} <= {200, 504} and seconds < 30
    assert late[0]["error_type"] == "timeout"
    wait_for(lambda: metric(server, "ernie_queue_texts") == 0)
    assert server.ask("POST", "/models/ernie_cls", {"data": {"text": "足球"}})[0] == 200


def test_health_answers_while_a_long_batch_runs(serve):
    server = serve("cmrc2018", "--max_batch_tokens", 1_000_000, "--max_batch_size", 5000)
    body = {"data": {"question": ["谁赢了？"] * 6, "context": [LONG * 20] * 6}}
    times = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.ask, "POST", "/models/ernie_qa", body)
        while not asked.done():
            begin = time.monotonic()
            assert server.ask("GET", "/health")[0] == 200
            times.append(time.monotonic() - begin)
    assert asked.result()[0] == 200
    assert len(times) > 10 and statistics.median(times) < 0.1


class Small:
    """A server in this process with small limits, of three models. `host` and `connections` are its own objects."""

    TIMEOUT = 3

    def __init__(self, exported):
        routes = [importlib.import_module(script.removesuffix(".py")).ROUTE for script, _ in SERVERS.values()]
        folders = ",".join(f"{task}={exported(dataset)[0]}" for dataset, task in TASKS.items())
        limits = {"timeout_s": self.TIMEOUT, "max_connections": 30, "max_batch_tokens": 256, "max_batch_size": 8}
        app = create_app(routes, Settings(model_path=folders, open_first=True, **limits))
        self.host, self.listener = app.state.host, socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        config = uvicorn.Config(app, http=ServerConnection, ws="none", access_log=False, log_config=None)
        self.server = uvicorn.Server(config)
        self.connections = self.server.server_state.connections
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))

    def __enter__(self):
        self.thread.start()
        wait_for(lambda: self.server.started)
        return self

    def __exit__(self, *arguments):
        self.server.should_exit = True
        self.thread.join(timeout=60)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """(status, headers, what was answered)."""
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
        return response.status, response.headers, json.loads(content) if content[:1] == b"{" else content

    def send(self, *parts, end=False):
        """A connection on which so much was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        for part in parts:
            connection.sendall(part)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return connection


def answer_of(connection):
    """(status, body) of the first answer of a connection; (None, "") of one that was closed without."""
    with contextlib.closing(connection):
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
        except (http.client.BadStatusLine, ConnectionResetError):
            return None, ""
        return response.status, response.read().decode()


@pytest.fixture(scope="module")
def small(exported):
    with Small(exported) as server:
        yield server


HEAD = b"POST /models/seq_cls HTTP/1.1\r\nHost: a\r\n"
BODY = b'{"data": {"text": "a"}}'
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    "parts, status",
    [
        # curl --http2 and Java's HttpClient offer HTTP/2; the body may come later than the head.
        ((HEAD + UPGRADE + LENGTH, BODY), 200),
        ((HEAD + UPGRADE + LENGTH + BODY,), 200),
        ((HEAD + UPGRADE + CHUNKED, b"\r\n"), 200),
        ((b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",), 405),
        ((b"\x16\x03\x01 HTTP/1.1\r\n\r\n",), 400),
        ((HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(90)) + LENGTH + BODY,), 200),
        ((HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(100_000)),), 431),
        ((HEAD + b"X: ", *[b"a" * 2**20] * 2), 431),
        ((b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 500,), 429),
        ((b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",), 431),
        ((HEAD + CHUNKED + b"X: ", *[b"a" * 2**20] * 2), 431),  # after the body
    ],
    ids=lambda value: "" if isinstance(value, tuple) else str(value),
)
def test_heads(parts, status, small):
    found, content = answer_of(small.send(*parts))
    assert found == status, content
    if status >= 400:
        assert set(json.loads(content)) == {"error", "error_type"}


def test_who_sends_or_reads_too_slowly_is_cut_off(small):
    """Silent, with half a head or body, with a body that never ends and nobody reads, and a client that does not read
    its answers: none stays, and each that can be told is told."""
    dripping = small.send(HEAD.replace(b"seq_cls", b"none") + b"Transfer-Encoding: chunked\r\n\r\n")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", small.port))
    deaf.setblocking(False)
    deaf.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
    slow = [small.send(), small.send(HEAD[:20]), small.send(b"\r\n"), small.send(HEAD + LENGTH + BODY[:5])]
    end = time.monotonic() + 60
    with pytest.raises(ConnectionError):
        while time.monotonic() < end:
            dripping.send(b"1\r\na\r\n")
            time.sleep(0.1)
    assert [answer_of(connection)[0] for connection in slow] == [None, 408, 408, 408]
    wait_for(lambda: not small.connections)
    deaf.close()
    assert metric_of(small, "ernie_requests_in_flight") == 1


def metric_of(small, name):
    content = small.ask("GET", "/metrics")[2].decode()
    return float(re.search(rf"^{name} (\S+)$", content, re.M)[1])


def test_idle_connections_keep_nobody_out(small):
    """As many as may be are open: the oldest silent one is closed for a new one, before any that has asked."""
    good = http.client.HTTPConnection("127.0.0.1", small.port, timeout=60)
    assert small.ask("GET", "/health", connection=good)[0] == 200
    idle = [small.send(*([HEAD] if n % 2 else [])) for n in range(60)]
    assert small.ask("GET", "/health")[0] == 200
    wait_for(lambda: len(small.connections) <= 31)
    assert small.ask("GET", "/health", connection=good)[0] == 200
    for connection in (*idle, good):
        connection.close()
    wait_for(lambda: not small.connections)


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked"}], ids=["length", "chunked"])
def test_the_refusal_of_a_large_body_can_be_read(headers, small):
    """urllib says Connection: close, and sends all of it before it reads."""
    body = iter([b"a" * 2**20] * 30) if headers else b"a" * 30_000_000
    request = urllib.request.Request(f"http://127.0.0.1:{small.port}/models/seq_cls", body, headers)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=60)
    assert error.value.code == 413 and "the limit is 8,388,608" in error.value.read().decode()


def test_a_client_that_sends_no_more_gets_its_answer(small):
    """Also the last of several requests; as `printf ... | nc -N` asks."""
    connection = small.send(*[HEAD + LENGTH + BODY] * 3, end=True)
    with contextlib.closing(connection):
        assert connection.makefile("rb").read().count(b"HTTP/1.1 200 OK") == 3


def test_a_compressed_body_is_refused(small):
    content = gzip.compress(BODY)
    for path in ("/models/seq_cls", "/v2/models/seq_cls/infer"):
        status, _, body = small.ask("POST", path, content, {"content-encoding": "gzip"})
        assert status == 415 and "gzip" in body["error"]
    assert small.ask("POST", "/models/seq_cls", BODY, {"content-encoding": "identity"})[0] == 200


def test_routes_with_the_version_of_the_protocol(small):
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}
    with_version, without = "/v2/models/seq_cls/versions/1", "/v2/models/seq_cls"
    for method, path, body in (("GET", "", None), ("GET", "/ready", None), ("POST", "/infer", {"inputs": [tensor]})):
        found = [small.ask(method, prefix + path, body) for prefix in (with_version, without)]
        assert found[0][0] == 200
        assert_same(found[0][2], found[1][2])
    assert small.ask("GET", "/v2/models/seq_cls/versions/2")[0] == 404


def test_a_client_cannot_write_log_lines(small, caplog):
    with caplog.at_level("INFO", "ernie_serving"):
        small.send(b"GET /a%0A2026-01-01%20status=200%1b[31m HTTP/1.1\r\nHost: a\r\n\r\n").recv(100)
        found = small.ask("GET", "/b", headers={"x-request-id": "1 status=500 path=/admin"})[1]
        small.ask("GET", "/c", headers={"x-request-id": "my-own~id"})
        wait_for(lambda: "my-own~id" in caplog.text)
    lines = [record.getMessage() for record in caplog.records]
    assert all(line.isprintable() and len(line.split()) == 5 for line in lines if line.startswith("method=")), lines
    assert any("path=/a%0A2026-01-01%20status%3D200%1B%5B31m" in line for line in lines)
    assert "/admin" not in caplog.text and " " not in found["x-request-id"]


def test_no_parameter_makes_a_request_larger_than_the_limits(small):
    """Windows that overlap by more than three quarters, and more or longer answers than anybody reads."""
    qa, ner = {"question": "谁", "context": LONG * 20}, {"text": LONG}
    for task, data, parameters, message in (
        ("qa", qa, {"doc_stride": 1}, "parameters.doc_stride is 1, expected"),
        ("qa", qa, {"doc_stride": 15, "max_seq_len": 64}, "expected 16 or more: a quarter of max_seq_len"),
        ("token_cls", ner, {"doc_stride": 1, "max_seq_len": 8, "n_best_size": 5}, "expected 2 or more"),
        ("qa", qa, {"n_best_size": 10**9}, "expected a whole number, 1 to 100"),
        ("qa", qa, {"max_answer_length": 257}, "expected a whole number, 1 to 256"),
        ("qa", {"question": ["谁"] * 400, "context": ["球"] * 400}, {"n_best_size": 100}, "it can be 51 at most"),
    ):
        status, _, body = small.ask("POST", f"/models/{task}", {"data": data, "parameters": parameters})
        assert status == 422 and message in body["error"], body
    status, _, body = small.ask("POST", "/models/qa", {"data": qa, "parameters": {"max_seq_len": 10**4000}})
    assert status == 200 and len(body["warnings"][0]) < 200
    parameters = {"doc_stride": 16, "max_seq_len": 64, "n_best_size": 100, "max_answer_length": 256}
    qa["context"] = LONG * 3  # few windows: a slow machine has `TIMEOUT` for them, too
    status, _, body = small.ask("POST", "/models/qa", {"data": qa, "parameters": parameters})
    assert status == 200 and 20 < len(body["result"]["n_best"][0]) <= 100


def test_a_large_request_is_answered_in_parts(small, exported):
    """And the parts' answers are those of the whole; one bad text among them refuses it before anything runs."""
    _, texts, expected = exported("tnews")
    texts, expected = texts * 6, expected * 6
    service = small.host.services["seq_cls"]
    assert len(service.parts(service.task, texts)) > 5
    status, headers, body = small.ask("POST", "/models/seq_cls", {"data": {"text": texts}})
    assert status == 200 and body["result"]["label_name"] == [answer["label"] for answer in expected]
    assert int(headers["x-compute-tokens"]) > len(texts)
    before = metric_of(small, 'ernie_texts_total{model="seq_cls"}')
    status, _, body = small.ask("POST", "/models/seq_cls", {"data": {"text": [*texts, " "]}})
    assert status == 422 and f"item {len(texts)}: " in body["error"]
    assert metric_of(small, 'ernie_texts_total{model="seq_cls"}') == before and service.batcher.queued_texts == 0


def test_waiting_for_the_tokenizer_is_waiting(small):
    """It counts in the queue and in the time-out."""
    service, gate = small.host.services["seq_cls"], threading.Event()
    for _ in range(service.workers._max_workers):
        service.workers.submit(gate.wait)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(small.ask, "POST", "/models/seq_cls", {"data": {"text": ["球", "足球"]}})
        wait_for(lambda: service.batcher.queued_texts == 2)
        status, _, body = asked.result()
        gate.set()
    assert status == 504 and body["error_type"] == "timeout"
    wait_for(lambda: service.batcher.queued_texts == service.batcher.queued_tokens == 0)
    assert small.ask("POST", "/models/seq_cls", BODY)[0] == 200


def test_windows_that_overlap_count_as_often_as_they_read(small):
    """Or two contexts of 100,000 characters and a short stride would be 800,000 tokens in a queue for 262,144."""
    service = small.host.services["qa"]
    items, size = [("谁", LONG * 10)], len(LONG * 10) + 1
    for length, stride, times in ((64, 16, 4), (64, 64, 1), (64, 40, 2), (128, 1000, 1)):
        task, _, _ = service.task_with({"max_seq_len": length, "doc_stride": stride})
        assert service.parts(task, items) == [(items, times * size)]
        assert service.parts(task, [("谁", "球")]) == [([("谁", "球")], 2)]
    task, _, _ = small.host.services["seq_cls"].task_with({"max_seq_len": 16})
    assert small.host.services["seq_cls"].parts(task, [LONG]) == [([LONG], len(LONG))]
    service = small.host.services["token_cls"]
    for length, stride in ((66, 128), (66, 32), (66, 8)):
        task, _, _ = service.task_with({"max_seq_len": length})
        task.params = {"doc_stride": stride}
        features, _ = task.tokenize([task.check(LONG * 10)])
        (_, tokens), *_ = service.parts(task, [LONG * 10])
        # Windows of entities begin half a window apart, or less; the last ones are shorter.
        assert 0.9 * tokens <= sum(len(ids) for ids, _ in features) <= 1.1 * tokens


def test_a_field_that_is_there_twice_is_found_in_one_pass():
    """Among 40,000 it took half a minute, and the time grew with the square of their number."""
    pairs, before = [(Counted(f"k{n}"), 0) for n in range(10_000)], Counted.compared
    with pytest.raises(ValueError, match="has the field `k9999` twice"):
        unique_fields([*pairs, (Counted("k9999"), 0)])
    assert Counted.compared - before < 100_000


def test_a_body_in_gbk_is_told(small):
    status, _, answer = small.ask("POST", "/models/seq_cls", '{"data": {"text": "今天"}}'.encode("gbk"))
    assert status == 400
    assert answer["error"] == (
        "the body is not UTF-8: invalid start byte at byte 19; if it is GBK or GB18030, send it as UTF-8"
    )
    assert small.ask("POST", "/models/seq_cls", b'{"data": {"text": "\xff"}}')[2]["error"].endswith("at byte 19")
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}
    head, text = json.dumps({"inputs": [tensor]}).encode(), b"\4\0\0\0" + "今天".encode("gbk")
    header = {"inference-header-content-length": str(len(head))}
    status, _, answer = small.ask("POST", "/v2/models/seq_cls/infer", head + text, header)
    assert (
        status == 400 and "text 0 is not UTF-8: invalid start byte; if it is GBK or GB18030, send it" in answer["error"]
    )


def test_json_that_is_no_texts_is_refused_before_it_is_read(small):
    """Python reads millions of lists in a second, in which no other request is answered, and into 200 MB."""
    for values in ("[]," * 100_000 + "[]", "{}," * 6000 + "{}", "1," * 100_000 + "1"):
        body = f'{{"data": {{"text": [{values}], "\\"[": ""}}}}{" " * 65_536}'.encode()
        status, _, answer = small.ask("POST", "/models/seq_cls", body)
        assert status == 400 and "more than 5,096 lists, fields and numbers" in answer["error"]
    text = "[1, 2]\\" * 5000  # in a text they are no values
    status, _, answer = small.ask("POST", "/models/seq_cls", {"data": {"text": [text, text, '"']}})
    assert status == 200, answer


def test_an_api_key_that_could_not_work_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        read_flags("", ["--api_key", "", "--workers", "2"])
    assert end.value.code == 2 and "--api_key: it is empty" in capsys.readouterr().err
    for key in ("", " \n", "密钥", "a\nb"):
        monkeypatch.setenv("API_KEY", key)
        with pytest.raises(UsageError, match=r"^API_KEY: ") as error:
            load_settings()
        assert "密钥" not in str(error.value) and "a\nb" not in str(error.value)
        with pytest.raises(UsageError, match=r"^--api_key: "):
            load_settings(api_key=key)
    monkeypatch.setenv("API_KEY", "of the environment\n")
    assert load_settings().api_key == "of the environment" and load_settings(api_key=" own ").api_key == "own"
    monkeypatch.delenv("API_KEY")
    assert load_settings().api_key is None


def test_a_log_that_nobody_reads_stops_nobody():
    read, write = os.pipe()
    handler = _LogThread(write)
    record = logging.makeLogRecord({"msg": "x" * 200})

    def log():
        for _ in range(30_000):
            handler.emit(record)

    logging_thread = threading.Thread(target=log, daemon=True)
    logging_thread.start()
    logging_thread.join(timeout=60)
    assert not logging_thread.is_alive()
    found = b""
    while b"log lines were left out" not in found:
        found = found[-1000:] + os.read(read, 65536)
    while handler._waiting.qsize() >= handler.LONGEST:  # or the last line would be left out, too
        found = found[-1000:] + os.read(read, 65536)
    handler.emit(logging.makeLogRecord({"msg": "the last line"}))
    handler.flush()
    while b"the last line" not in found:
        found = found[-1000:] + os.read(read, 65536)
