"""How much load the HTTP servers take, on loopback: requests per second and latency, against PaddleNLP's SimpleServing.

python benchmarks/serving_load.py                              ERNIE 3.0-Medium's architecture, texts of the sample data
python benchmarks/serving_load.py --data_dir DIR --output load.json
python benchmarks/serving_load.py --model_fp32 best_models/tnews/export --model_int8 best_models/tnews/mse16_1

Without --model_fp32 and --model_int8 both folders are made as the scripts write them, with random weights, which
changes no speed. Each client sends one text, waits for the answer and sends the next. Clients are a process of their
own; the servers run one after another, in rounds, and --seconds is the sum of a measurement over all rounds. The texts
are TNEWS's (128 tokens at most), and a mix of 5 to 500 tokens, evenly spread, cut out of TNEWS's and IFLYTEK's.

SimpleServing is PaddleNLP's SimpleServer with its CustomModelHandler and MultiClassificationPostHandler on the FP32
folder, as it comes: it computes on half of the machine's cores, and cuts texts at 128 tokens whatever it is asked for,
so that it takes no part in the mix. "Predictor" is `ErniePredictor.predict` on one text after another, in a process
without HTTP. Beyond the limits the queue is small (--max_queue_tokens), and clients that are refused come back after a
tenth of a second, sooner than Retry-After allows.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SERVING = ROOT / "deploy" / "simple_serving"
sys.path.insert(0, str(ROOT / "deploy" / "predictor"))
# No Paddle in this process, and nothing that sets up its surroundings for SimpleServing.

import argparse
import asyncio
import collections
import contextlib
import importlib.metadata
import io
import itertools
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import types

import psutil
from ernie_predictor.commandline import HelpFormatter, existing_file, percentiles
from ernie_predictor.machine import processor_kind, usable_cores
from ernie_predictor.tokenizer import ErnieTokenizer

SIMPLE, FP32, INT8 = "SimpleServing, FP32", "server_seq_cls.py, FP32", "server_seq_cls.py, INT8"
UNSORTED = {FP32: f"{FP32}, not sorted", INT8: f"{INT8}, not sorted"}
TNEWS, MIX = "TNEWS", "5 to 500 tokens"
LENGTHS = {TNEWS: 128, MIX: 512}
ROUTE = "/models/ernie_cls"
PATHS = ("model", "model_fp32", "model_int8", "vocab_file", "data_dir", "python", "output")  # not for the results
BACK_AFTER = 0.1  # seconds, of a client that was refused


class ServerProcess:
    """A server in a process of its own, on a free port of loopback; its output goes to a file.

    Args:
        command: that starts it, without --port.
        log: file.
        ready: path that answers 200 when it is ready.
    """

    def __init__(self, command, log, ready="/ready", **environment):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log, self.ready = Path(log), ready
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [*map(str, command), "--port", str(self.port)],
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


def http_request(method, path, body=None, headers=()):
    content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def generate(port, requests, clients, seconds, warm_up=0.0, health_every=None):
    """Clients that send one request after another for a while.

    Args:
        requests: bytes each; every client begins at another one.
        warm_up: seconds before the count begins.
        health_every: seconds between two requests to /health, from one more connection; left out, there are none.

    Returns:
        {"seconds": of the count, "times": {status or error: seconds of each request}, "health": seconds of each}.
    """
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
    return {"seconds": seconds, "times": times, "health": health}


def predict_alone(folder, precision, texts, max_seq_length, seconds, warm_up):
    """Seconds of each text, one after another."""
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


def serve_simple(folder, port):
    """PaddleNLP's SimpleServing as its documentation starts it."""
    import zlib  # noqa: F401  without it Paddle 2.6 may crash on import; it costs and gains no time

    import uvicorn
    from paddlenlp import SimpleServer
    from paddlenlp.server import CustomModelHandler, MultiClassificationPostHandler

    app = SimpleServer()
    app.register(
        ROUTE.strip("/"),
        model_path=folder,
        tokenizer_name=folder,
        model_handler=CustomModelHandler,
        post_handler=MultiClassificationPostHandler,
    )
    uvicorn.run(app, host="127.0.0.1", port=port, timeout_keep_alive=15)  # as `paddlenlp server` does


def make_models(arch, vocab_file, folder, task="seq_cls"):
    """Folders as the scripts write them; prints where the FP32 and the INT8 one are."""
    sys.path.insert(0, str(ROOT))
    from compression_speed import make_folders

    args = types.SimpleNamespace(task=task, arch=arch, vocab_file=vocab_file, width_mult=0.75)
    folders, _ = make_folders(args, folder)
    return {"fp32": folders["FP32"], "int8": folders["INT8"]}


def child(what, *arguments, environment=None, **values):
    """Calls a function of this file in a process of its own; returns what it returns."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", what, *arguments],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        sys.exit(f"{what}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_child(what, *arguments):
    if what == "serve_simple":  # started as a server: FOLDER --port PORT
        return serve_simple(arguments[0], int(arguments[2]))
    values = json.load(sys.stdin)
    if what == "generate":
        values["requests"] = [request.encode() for request in values["requests"]]
        print(json.dumps(asyncio.run(generate(**values))))
    else:
        print(json.dumps({"predict_alone": predict_alone, "make_models": make_models}[what](**values)))


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
    """The rounds of a measurement as one."""
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


def latency_cells(row):
    """p50, p99 and errors of a row that `pool` made."""
    times = row["milliseconds"].get("200")
    errors = ", ".join(f"{number:,} x {status}" for status, number in row["errors"].items()) or "none"
    return [*(f"{times[key]:.1f}" if times else "–" for key in ("p50", "p99")), errors]


def say(what):
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def measure_load(args, port, requests, clients, health_every=None):
    """One round of a measurement: see `generate`, which runs in a process of its own."""
    return child("generate", port=port, requests=[request.decode() for request in requests], clients=clients,
                 seconds=args.seconds / args.rounds, warm_up=args.warm_up, health_every=health_every)  # fmt: skip


def measure_alone(args, folder, precision, texts, max_seq_length):
    """One round of the predictor without a server: seconds of each text."""
    return child("predict_alone", folder=folder, precision=precision, texts=texts, max_seq_length=max_seq_length,
                 seconds=args.seconds / args.rounds, warm_up=args.warm_up)  # fmt: skip


class Bench:
    """What is measured, and on what."""

    def __init__(self, args, folders, logs):
        self.args, self.folders, self.logs = args, folders, logs
        tokenizer = ErnieTokenizer.from_pretrained(folders["fp32"])
        self.texts = {
            TNEWS: read_texts(args.data_dir, "tnews"),
            MIX: mix_of(args.data_dir, tokenizer, args.texts),
        }
        self.loads = {}  # {(texts, server, clients): rounds}
        self.alone = {}  # {(texts, server): rounds}
        self.overload = {}  # {limit of the queue: rounds}

    def server(self, name, *flags):
        if name == SIMPLE:
            command = [sys.executable, __file__, "--child", "serve_simple", self.folders["fp32"]]
            return ServerProcess(command, self.logs / "server.log", ready="/docs")
        precision = "int8" if name.startswith(INT8) else "fp32"
        command = [sys.executable, SERVING / "server_seq_cls.py", "--model_path", self.folders[precision]]
        command += ["--precision_mode", precision, "--max_seq_length", LENGTHS[MIX], *flags]
        if name in UNSORTED.values():
            command += ["--sort_by_length", "false"]
        return ServerProcess(command, self.logs / "server.log")

    def load(self, server, kind, clients, health_every=None):
        parameters = {"max_seq_len": LENGTHS[kind], "batch_size": 1}  # SimpleServing wants both
        requests = [
            http_request("POST", ROUTE, {"data": {"text": text}, "parameters": parameters}) for text in self.texts[kind]
        ]
        return measure_load(self.args, server.port, requests, clients, health_every)

    def round(self):
        for kind, names in ((TNEWS, (SIMPLE, FP32, INT8)), (MIX, (FP32, INT8, *UNSORTED.values()))):
            for name in names:
                say(f"{name}, {kind}")
                with self.server(name) as server:
                    for clients in self.args.clients:
                        # /health at full load only: it takes a little of the time.
                        every = 0.05 if clients == max(self.args.clients) and name != SIMPLE else None
                        found = self.load(server, kind, clients, every)
                        self.loads.setdefault((kind, name, clients), []).append(found)
                if name in (FP32, INT8):
                    precision = "int8" if name == INT8 else "fp32"
                    folder = self.folders[precision]
                    times = measure_alone(self.args, folder, precision, self.texts[kind], LENGTHS[kind])
                    self.alone.setdefault((kind, name), []).append(times)
        for limit in (self.args.max_queue_tokens, None):
            say(f"{FP32}, {'a full queue' if limit else 'the same without limit'}")
            flags = ["--max_batch_tokens", 512, *(["--max_queue_tokens", limit] if limit else [])]
            with self.server(FP32, *flags) as server:
                self.overload.setdefault(limit, []).append(self.load(server, TNEWS, max(self.args.clients), 0.05))

    def results(self):
        """As JSON."""
        loads = []
        for (kind, name, clients), measurements in self.loads.items():
            row = {"texts": kind, "server": name, "clients": clients, **pool(measurements)}
            reference = SIMPLE if kind == TNEWS else UNSORTED.get(name)
            if reference is not None and reference != name:
                found = ratios(measurements, self.loads[kind, reference, clients])
                row["times_reference"] = statistics.median(found) if found else None
                row["times_reference_rounds"] = found
            if clients == 1 and (kind, name) in self.alone:
                row["predictor_milliseconds"] = summary(list(itertools.chain(*self.alone[kind, name])))
            loads.append(row)
        overload = [{"max_queue_tokens": limit, **pool(rounds)} for limit, rounds in self.overload.items()]
        return {"machine": machine(), "loads": loads, "overload": overload}


def machine():
    packages = ("fastapi", "uvicorn", "onnxruntime", "openvino", "paddlepaddle", "paddlenlp")
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"processor": processor_kind(), "cores": usable_cores(), "python": platform.python_version(), **versions}


def print_tables(args, results):
    about = results["machine"]
    packages = "; ".join(f"{name} {version}" for name, version in list(about.items())[3:])
    model = f"ERNIE 3.0-{args.arch}" if args.model_fp32 is None else args.model_fp32
    print(f"\n{model}; {about['cores']} cores of {about['processor']}, which clients and server share")
    print(f"Python {about['python']}; {packages}; {args.seconds:g} s each, in {args.rounds} rounds")
    for kind, reference in ((TNEWS, "SimpleServing"), (MIX, "not sorted")):
        print(f"\n| {kind} | clients | requests/s | times {reference} (rounds) | p50, ms | p99, ms | errors |")
        print("|---|---|---|---|---|---|---|")
        for row in results["loads"]:
            if row["texts"] != kind:
                continue
            cells = [row["server"], row["clients"], f"{row['requests_per_second']:.1f}"]
            cells += [ratio_cell(row.get("times_reference_rounds")), *latency_cells(row)]
            print(f"| {' | '.join(map(str, cells))} |")
    print("\n| 1 client | texts | predictor, p50, ms | over HTTP, p50, ms | more, ms |\n|---|---|---|---|---|")
    for row in results["loads"]:
        if "predictor_milliseconds" in row and "200" in row["milliseconds"]:
            alone, served = row["predictor_milliseconds"]["p50"], row["milliseconds"]["200"]["p50"]
            print(f"| {row['server']} | {row['texts']} | {alone:.2f} | {served:.2f} | {served - alone:.2f} |")
    print(f"\n| {FP32}, {max(args.clients)} clients, batches of 512 tokens | answered/s | p50, ms | p99, ms | 429/s "
          "| p50, ms | p99, ms | max, ms | other errors |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for row in results["overload"]:
        limit = f"at most {row['max_queue_tokens']:,} tokens wait" if row["max_queue_tokens"] else "no limit"
        good, refused = (row["milliseconds"].get(status) for status in ("200", "429"))
        cells = [f"{row['requests_per_second']:.1f}"]
        cells += [f"{good[key]:.1f}" for key in ("p50", "p99")] if good else ["–", "–"]
        cells += [f"{refused['number'] / args.seconds:.1f}"] if refused else ["0"]
        cells += [f"{refused[key]:.1f}" for key in ("p50", "p99", "max")] if refused else ["–", "–", "–"]
        others = {status: number for status, number in row["errors"].items() if status != "429"}
        cells.append(", ".join(f"{number:,} x {status}" for status, number in others.items()) or "none")
        print(f"| {limit} | {' | '.join(cells)} |")
    print("\n| /health at full load | p50, ms | p99, ms | max, ms | requests |\n|---|---|---|---|---|")
    for row in results["loads"] + results["overload"]:
        if times := row["health_milliseconds"]:
            name = f"{row['server']}, {row['texts']}" if "server" in row else (
                f"{FP32}, {TNEWS}, " + ("full queue" if row["max_queue_tokens"] else "batches of 512 tokens")
            )  # fmt: skip
            print(f"| {name} | {times['p50']:.1f} | {times['p99']:.1f} | {times['max']:.1f} | {times['number']:,} |")


def add_flags(add, seconds, warm_up):
    """The flags of this program and of triton_load.py, with the defaults in which they differ."""
    add("--arch", default="medium", help="of examples/make_model.py, where models are made")
    vocab = str(ROOT / "examples" / "model" / "vocab.txt")
    add("--vocab_file", metavar="FILE", type=existing_file, default=vocab, help="vocabulary, where models are made")
    add("--data_dir", metavar="DIR", default=str(ROOT / "examples" / "data"), help="has tnews/dev.json and "
        "iflytek/dev.json")  # fmt: skip
    add("--texts", metavar="N", type=int, default=1000, help="of the mix")
    add("--clients", metavar="N", type=int, nargs="+", default=[1, 16, 64], help="that ask at the same time")
    add("--seconds", metavar="N", type=float, default=seconds, help="of each measurement, over all rounds")
    add("--rounds", metavar="N", type=int, default=3, help="turns of each server")
    add("--warm_up", metavar="N", type=float, default=warm_up, help="seconds before each measurement of a round")
    add("--output", metavar="FILE", help="for all figures, as JSON; the tables are written beside it, as .md")


def run_bench(args, folders, make_bench, print_tables):
    """Makes the models where none are named, measures in rounds, writes the figures and prints the tables.

    Args:
        folders: {"fp32": DIR, "int8": DIR}; None: of random weights, made here.
        make_bench: a function of (args, folders, a folder for its files) that returns a `Bench`.
        print_tables: a function of (args, what `Bench.results` returns).
    """
    with tempfile.TemporaryDirectory() as folder:
        if folders is None:
            print(f"making models of ERNIE 3.0-{args.arch}: some minutes", file=sys.stderr)
            folders = child("make_models", arch=args.arch, vocab_file=args.vocab_file, folder=folder)
        bench = make_bench(args, folders, Path(folder))
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            bench.round()
        results = bench.results()
    tables = io.StringIO()
    with contextlib.redirect_stdout(tables):
        print_tables(args, results)
    if args.output:
        arguments = {name: value for name, value in vars(args).items() if name not in PATHS}
        path = Path(args.output)
        path.write_text(json.dumps({"arguments": arguments, **results}, indent=2) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(tables.getvalue().lstrip(), encoding="utf-8")
    print(tables.getvalue(), end="")


def main():
    if sys.argv[1:2] == ["--child"]:
        return run_child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--model_fp32", metavar="DIR", help="of run_seq_cls.py --do_export (default: one of --arch is made)")
    add("--model_int8", metavar="DIR", help="of compress_seq_cls.py, or the FP32 one, which is then quantized")
    add_flags(add, seconds=60, warm_up=3)
    add("--max_queue_tokens", metavar="N", type=int, default=512, help="where the queue is to be full")
    args = parser.parse_args()
    if (args.model_fp32 is None) != (args.model_int8 is None):
        parser.error("name both --model_fp32 and --model_int8, or none")

    folders = None
    if args.model_fp32 is not None:
        folders = {"fp32": os.path.abspath(args.model_fp32), "int8": os.path.abspath(args.model_int8)}
    run_bench(args, folders, Bench, print_tables)


if __name__ == "__main__":
    main()
