"""The servers under attack and under load: malformed requests, clients that go away or are slow, time-outs."""

import asyncio
import concurrent.futures
import re
import statistics
import sys
import time

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from serving_fuzz import FAMILIES, Fuzz, Target, cases, describe, post, read_answer
from serving_load import SERVING, Connection, ServerProcess
from serving_soak import SERVERS

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
    """300 of benchmarks/serving_fuzz.py, of every family one at least."""
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
    server = serve("tnews", "--max_batch_size", 1)
    request = post("/models/ernie_cls", {"data": {"text": [LONG] * 1000}})

    async def send_and_leave():
        connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        for _, writer in connections:
            writer.write(request)
            await writer.drain()
        await asyncio.to_thread(wait_for, lambda: metric(server, "ernie_queue_texts") > 1000)
        for _, writer in connections:
            writer.close()

    asyncio.run(send_and_leave())
    wait_for(lambda: metric(server, "ernie_queue_texts") == 0 and metric(server, "ernie_requests_in_flight") == 1)
    # One text is a batch here: most of the 2,000 were never run.
    assert metric(server, "ernie_batch_texts_count") < 1000
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
