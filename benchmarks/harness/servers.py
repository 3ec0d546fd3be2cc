"""Servers in processes of their own, requests over loopback, and texts of any length to send."""

import asyncio
import collections
import contextlib
import importlib.metadata
import itertools
import json
import os
import platform
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
from ernie_predictor.commandline import percentiles
from ernie_predictor.machine import processor_kind, usable_cores

from harness import ROOT

SERVING = ROOT / "deploy" / "simple_serving"
ROUTE = "/models/ernie_cls"
# The server of each task, and its route.
SERVERS = {
    "seq_cls": ("server_seq_cls.py", ROUTE),
    "token_cls": ("server_token_cls.py", "/models/ernie_ner"),
    "qa": ("server_qa.py", "/models/ernie_qa"),
}
TRITON = ROOT / "deploy" / "triton_serving"
# The model of each task in Triton, and its inputs.
TRITON_MODELS = {
    "seq_cls": ("ernie_seqcls", ("TEXT",)),
    "token_cls": ("ernie_tokencls", ("TEXT",)),
    "qa": ("ernie_qa", ("QUESTION", "CONTEXT")),
}
TRITON_PYTHON = str(ROOT / ".venv-triton" / "bin" / "python")
BACK_AFTER = 0.1  # seconds, of a client that was refused


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class ServerProcess:
    """A server in a process of its own, on a free port of loopback; its output goes to a file.

    Args:
        command: that starts it, without --port.
        log: file.
        ready: path that answers 200 when it is ready.
    """

    def __init__(self, command, log, ready="/ready", **environment):
        self.port = free_port()
        self.start([*command, "--port", self.port], log, ready, environment)

    def start(self, command, log, ready, environment):
        self.log, self.ready = Path(log), ready
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                list(map(str, command)),
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        request = http_request("GET", self.ready)
        while True:
            if self.process.poll() is not None:
                sys.exit(f"a server did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            with contextlib.suppress(OSError, EOFError):
                if asyncio.run(self._ask_once(request))[0] == 200:
                    return self
            time.sleep(0.05)

    def __exit__(self, *arguments):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)

    async def _ask_once(self, request):
        connection = Connection(self.port)
        try:
            return await connection.ask(request)
        finally:
            connection.close()

    def ask(self, method, path, body=None):
        """(status, what was answered, as JSON where it is JSON)."""
        status, content = asyncio.run(self._ask_once(http_request(method, path, body)))
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode()

    def memory(self):
        """Resident bytes of the server and its workers."""
        process = psutil.Process(self.process.pid)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))


class Triton(ServerProcess):
    """A tritonserver on a repository of models."""

    def __init__(self, python, repository, log):
        self.port = free_port()
        command = [python, TRITON / "run_triton.py", repository, "--http_port", self.port]
        command += ["--grpc_port", free_port(), "--metrics_port", free_port()]
        self.start(command, log, "/v2/health/ready", {})

    def counts(self, model):
        """(texts, executions) of a model so far."""
        _, found = self.ask("GET", f"/v2/models/{model}/stats")
        (model,) = found["model_stats"]
        return model["inference_count"], model["execution_count"]


def make_repository(python, model, target, flags=(), batching=True):
    """A repository of Triton's for a model folder, as prepare_models.py makes it."""
    command = [python, TRITON / "prepare_models.py", "--model_path", model, "--output", target, *flags]
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
    if not batching:
        (path,) = target.glob("*/config.pbtxt")
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\ndynamic_batching \{.*?\n\}\n", "\n", text, flags=re.DOTALL), encoding="utf-8")


def check_triton(parser, python):
    if not os.path.exists(python):
        parser.error(f"--python {python}: no such file; `make triton` makes the environment")


class Connection:
    """A connection that is kept open, the cheapest client that there is: it reads status, length and body."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def ask(self, request):
        """(status, body) of a request, bytes.

        Raises:
            OSError, EOFError: the server does not listen, or closed the connection.
        """
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        try:
            self.writer.write(request)
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            _, _, rest = head.partition(b"content-length: ")
            body = await self.reader.readexactly(int(rest.partition(b"\r\n")[0]))
        except BaseException:
            self.close()
            raise
        if b"connection: close" in head:
            self.close()
        return int(head[9:12]), body

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def http_request(method, path, body=None):
    content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "Content-Type: application/json"]).encode() + b"\r\n\r\n" + content


def task_request(task, *columns, triton=False, **parameters):
    """A request to a task's server, or to its model in Triton, as bytes; of texts, or questions and contexts."""
    if triton:
        model, names = TRITON_MODELS[task]
        inputs = [
            {"name": name, "datatype": "BYTES", "shape": [len(texts), 1], "data": texts}
            for name, texts in zip(names, columns)
        ]
        return http_request("POST", f"/v2/models/{model}/infer", {"inputs": inputs})
    data = dict(zip(("question", "context") if task == "qa" else ("text",), columns))
    return http_request("POST", SERVERS[task][1], {"data": data, **({"parameters": parameters} if parameters else {})})


def load(port, requests, clients, seconds, warm_up=0.0, health_every=None):
    """Clients that send one request after another for a while; call it by `harness.apart`.

    Args:
        requests: bytes each; every client begins at another one.
        warm_up: seconds before the count begins.
        health_every: seconds between two requests to /health, from one more connection; left out, there are none.

    Returns:
        {"seconds": of the count, "times": {status or error: seconds of each request}, "health": seconds of each}.
    """
    return asyncio.run(_load(port, requests, clients, seconds, warm_up, health_every))


async def _load(port, requests, clients, seconds, warm_up, health_every):
    begin = time.perf_counter() + warm_up
    end = begin + seconds
    times, health = collections.defaultdict(list), []

    async def client(number):
        connection = Connection(port)
        for request in itertools.islice(itertools.cycle(requests), number * len(requests) // clients, None):
            sent = time.perf_counter()
            try:
                status, _ = await connection.ask(request)
            except (OSError, EOFError) as e:
                status = type(e).__name__
            now = time.perf_counter()
            if begin <= now < end:
                times[str(status)].append(now - sent)
            if status != 200:
                await asyncio.sleep(BACK_AFTER)

    async def watch():
        connection, request = Connection(port), http_request("GET", "/health")
        while True:
            sent = time.perf_counter()
            status, _ = await connection.ask(request)
            now = time.perf_counter()
            if status != 200:
                raise RuntimeError(f"/health answered {status}")
            if begin <= now:
                health.append(now - sent)
            await asyncio.sleep(health_every)

    tasks = [asyncio.ensure_future(client(number)) for number in range(clients)]
    tasks += [asyncio.ensure_future(watch())] if health_every else []
    done, running = await asyncio.wait(tasks, timeout=end - time.perf_counter(), return_when=asyncio.FIRST_EXCEPTION)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for task in done:
        task.result()  # raises what ended it
    return {"seconds": seconds, "times": dict(times), "health": health}


def predict_alone(folder, precision, texts, max_seq_length, seconds, warm_up):
    """Seconds of each text, one after another, in the predictor without a server; call it by `harness.apart`."""
    from ernie_predictor import ErniePredictor

    predictor = ErniePredictor(folder, precision_mode=precision, max_seq_length=max_seq_length)
    begin = time.perf_counter() + warm_up
    times = []
    for text in itertools.cycle(texts):
        sent = time.perf_counter()
        if sent >= begin + seconds:
            return times
        predictor.predict([text])
        if sent >= begin:
            times.append(time.perf_counter() - sent)


def read_texts(data_dir, name):
    with open(Path(data_dir, name, "dev.json"), encoding="utf-8", newline="\n") as f:  # U+2028 ends no line
        return [row["sentence"] for row in map(json.loads, f)]


def mix_of(data_dir, tokenizer, number, shortest=5, longest=500, seed=0):
    """Texts of `shortest` to `longest` tokens, special tokens included, each length as likely; the same each time."""
    generator = random.Random(seed)
    sources = read_texts(data_dir, "tnews") + read_texts(data_dir, "iflytek")
    texts = []
    while len(texts) < number:
        length, text = generator.randint(shortest, longest), ""
        while True:
            (encoding,) = tokenizer.encode([text])
            if len(encoding.ids) >= length - 2:
                break
            text += generator.choice(sources)
        texts.append(text[: encoding.offsets[length - 3][1]])
    return texts


def pool(measurements):
    """The rounds of a measurement, as `load` returns them, as one."""
    times = collections.defaultdict(list)
    for measurement in measurements:
        for status, found in measurement["times"].items():
            times[status] += found
    good = times.get("200", [])
    return {
        "requests_per_second": len(good) / sum(m["seconds"] for m in measurements),
        "milliseconds": {status: summary(found) for status, found in times.items()},
        "errors": {status: len(found) for status, found in times.items() if status != "200"},
        "health_milliseconds": summary([t for m in measurements for t in m["health"]]),
    }


def summary(times):
    if not times:
        return None
    p50, _, p99 = (1000 * value for value in percentiles(times))
    return {"number": len(times), "p50": p50, "p99": p99, "max": 1000 * max(times)}


def ratios(rounds, reference):
    """Requests per second over the reference's, of each round in which the reference answered any."""
    speeds = [[pool([measurement])["requests_per_second"] for measurement in pair] for pair in zip(rounds, reference)]
    return [ours / theirs for ours, theirs in speeds if theirs]


def ratio_cell(found):
    """The median of such ratios, and each of them."""
    return f"{statistics.median(found):.2f} ({', '.join(f'{value:.2f}' for value in found)})" if found else "–"


def latency_cells(times, *names):
    """p50, p99 or others of what `summary` returned."""
    return [f"{times[name]:.1f}" if times else "–" for name in names]


def errors_cell(errors):
    return ", ".join(f"{number:,} x {status}" for status, number in errors.items()) or "none"


def machine():
    """The machine and the packages of servers, as JSON."""
    versions = {}
    for name in ("fastapi", "uvicorn", "onnxruntime", "openvino", "paddlepaddle", "paddlenlp"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"processor": processor_kind(), "cores": usable_cores(), "python": platform.python_version(), **versions}


def same_answer(found, expected):
    """Whether two answers are equal but for confidences, which depend a little on what else is in the batch."""
    if isinstance(expected, float):
        return isinstance(found, float) and abs(found - expected) < 1e-3
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(same_answer(found[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(same_answer, found, expected))
    return found == expected
