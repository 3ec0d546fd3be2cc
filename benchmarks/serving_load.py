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

import harness  # isort: skip  makes the project's packages importable

import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from ernie_predictor.tokenizer import ErnieTokenizer
from harness import servers
from harness.servers import ROUTE, SERVING, ServerProcess, errors_cell, latency_cells, mix_of, pool, ratio_cell, ratios

SIMPLE, FP32, INT8 = "SimpleServing, FP32", "server_seq_cls.py, FP32", "server_seq_cls.py, INT8"
UNSORTED = {FP32: f"{FP32}, not sorted", INT8: f"{INT8}, not sorted"}
TNEWS, MIX = "TNEWS", "5 to 500 tokens"
LENGTHS = {TNEWS: 128, MIX: 512}
PATHS = ("model", "model_fp32", "model_int8", "vocab_file", "data_dir", "python", "output")  # not for the results


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


def say(what):
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def measure_load(args, port, requests, clients, health_every=None):
    """One round of a measurement: see `servers.load`."""
    return harness.apart(servers.load, port, requests, clients, args.seconds / args.rounds, args.warm_up, health_every)


def measure_alone(args, folder, precision, texts, max_seq_length):
    """One round of the predictor without a server: seconds of each text."""
    seconds = args.seconds / args.rounds
    return harness.apart(servers.predict_alone, folder, precision, texts, max_seq_length, seconds, args.warm_up)


class Bench:
    """What is measured, and on what."""

    def __init__(self, args, folders, logs):
        self.args, self.folders, self.logs = args, folders, logs
        tokenizer = ErnieTokenizer.from_pretrained(folders["FP32"])
        self.texts = {
            TNEWS: servers.read_texts(args.data_dir, "tnews"),
            MIX: mix_of(args.data_dir, tokenizer, args.texts),
        }
        self.loads = {}  # {(texts, server, clients): rounds}
        self.alone = {}  # {(texts, server): rounds}
        self.overload = {}  # {limit of the queue: rounds}

    def server(self, name, *flags):
        if name == SIMPLE:
            command = [sys.executable, __file__, "--serve_simple", self.folders["FP32"]]
            return ServerProcess(command, self.logs / "server.log", ready="/docs")
        precision = "INT8" if name.startswith(INT8) else "FP32"
        command = [sys.executable, SERVING / "server_seq_cls.py", "--model_path", self.folders[precision]]
        command += ["--precision_mode", precision.lower(), "--max_seq_length", LENGTHS[MIX], *flags]
        if name in UNSORTED.values():
            command += ["--sort_by_length", "false"]
        return ServerProcess(command, self.logs / "server.log")

    def load(self, server, kind, clients, health_every=None):
        parameters = {"max_seq_len": LENGTHS[kind], "batch_size": 1}  # SimpleServing wants both, and a text, no list
        requests = [servers.task_request("seq_cls", text, **parameters) for text in self.texts[kind]]
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
                    precision = "INT8" if name == INT8 else "FP32"
                    times = measure_alone(
                        self.args, self.folders[precision], precision.lower(), self.texts[kind], LENGTHS[kind]
                    )
                    self.alone.setdefault((kind, name), []).extend(times)
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
                row["predictor_milliseconds"] = servers.summary(self.alone[kind, name])
            loads.append(row)
        overload = [{"max_queue_tokens": limit, **pool(rounds)} for limit, rounds in self.overload.items()]
        return {"machine": servers.machine(), "loads": loads, "overload": overload}


def tables_of(args, results):
    about = results["machine"]
    packages = "; ".join(f"{name} {version}" for name, version in itertools.islice(about.items(), 3, None))
    model = f"ERNIE 3.0-{args.arch}" if args.model_fp32 is None else args.model_fp32
    yield f"{model}; {about['cores']} cores of {about['processor']}, which clients and server share\n" \
          f"Python {about['python']}; {packages}; {args.seconds:g} s each, in {args.rounds} rounds"  # fmt: skip
    for kind, reference in ((TNEWS, "SimpleServing"), (MIX, "not sorted")):
        header = [kind, "clients", "requests/s", f"times {reference} (rounds)", "p50, ms", "p99, ms", "errors"]
        yield harness.markdown(header, [
            [row["server"], row["clients"], f"{row['requests_per_second']:.1f}",
             ratio_cell(row.get("times_reference_rounds")),
             *latency_cells(row["milliseconds"].get("200"), "p50", "p99"), errors_cell(row["errors"])]
            for row in results["loads"] if row["texts"] == kind
        ])  # fmt: skip
    rows = []
    for row in results["loads"]:
        if "predictor_milliseconds" in row and "200" in row["milliseconds"]:
            alone, served = row["predictor_milliseconds"]["p50"], row["milliseconds"]["200"]["p50"]
            rows.append([row["server"], row["texts"], *(f"{ms:.2f}" for ms in (alone, served, served - alone))])
    yield harness.markdown(["1 client", "texts", "predictor, p50, ms", "over HTTP, p50, ms", "more, ms"], rows)
    rows = []
    for row in results["overload"]:
        limit = f"at most {row['max_queue_tokens']:,} tokens wait" if row["max_queue_tokens"] else "no limit"
        good, refused = (row["milliseconds"].get(status) for status in ("200", "429"))
        rows.append([
            limit, f"{row['requests_per_second']:.1f}", *latency_cells(good, "p50", "p99"),
            f"{refused['number'] / args.seconds:.1f}" if refused else "0", *latency_cells(refused, "p50", "p99", "max"),
            errors_cell({status: number for status, number in row["errors"].items() if status != "429"}),
        ])  # fmt: skip
    header = [
        f"{FP32}, {max(args.clients)} clients, batches of 512 tokens",
        "answered/s",
        "p50, ms",
        "p99, ms",
        "429/s",
    ]
    yield harness.markdown([*header, "p50, ms", "p99, ms", "max, ms", "other errors"], rows)
    rows = []
    for row in results["loads"] + results["overload"]:
        if times := row["health_milliseconds"]:
            queue = "full queue" if row.get("max_queue_tokens") else "batches of 512 tokens"
            name = f"{row['server']}, {row['texts']}" if "server" in row else f"{FP32}, {TNEWS}, {queue}"
            rows.append([name, *latency_cells(times, "p50", "p99", "max"), f"{times['number']:,}"])
    yield harness.markdown(["/health at full load", "p50, ms", "p99, ms", "max, ms", "requests"], rows)


def parser_of_loads(doc, seconds, warm_up):
    """The flags of this program and of triton_load.py, with the defaults in which they differ."""
    parser = harness.parser(doc, "arch", "vocab_file", "data_dir", "rounds", "output", texts=1000)
    add = parser.add_argument
    add("--clients", **{**harness.FLAGS["clients"], "nargs": "+", "default": [1, 16, 64]})
    add("--seconds", metavar="N", type=float, default=seconds, help="of each measurement, over all rounds")
    add("--warm_up", metavar="N", type=float, default=warm_up, help="seconds before each measurement of a round")
    return parser


def run_bench(args, folders, make_bench, tables_of):
    """Makes the models where none are named, measures in rounds, writes the figures and prints the tables.

    Args:
        folders: {"FP32": DIR, "INT8": DIR}; None: of random weights, made here.
        make_bench: a function of (args, folders, a folder for its files) that returns a `Bench`.
        tables_of: a function of (args, what `Bench.results` returns) that yields parts of Markdown.
    """
    with tempfile.TemporaryDirectory() as folder:
        folders = folders or harness.make_models(args.arch, args.vocab_file, folder)
        bench = make_bench(args, folders, Path(folder))
        for number in range(args.rounds):
            say(f"round {number + 1} of {args.rounds}")
            bench.round()
        results = bench.results()
    arguments = {name: value for name, value in vars(args).items() if name not in PATHS}
    harness.write_results(args.output, {"arguments": arguments, **results}, *tables_of(args, results))


def main():
    if sys.argv[1:2] == ["--serve_simple"]:  # as a server: FOLDER --port PORT
        return serve_simple(sys.argv[2], int(sys.argv[4]))
    parser = parser_of_loads(__doc__, seconds=60, warm_up=3)
    add = parser.add_argument
    add("--model_fp32", metavar="DIR", help="of run_seq_cls.py --do_export (default: one of --arch is made)")
    add("--model_int8", metavar="DIR", help="of compress_seq_cls.py, or the FP32 one, which is then quantized")
    add("--max_queue_tokens", metavar="N", type=int, default=512, help="where the queue is to be full")
    args = parser.parse_args()
    if (args.model_fp32 is None) != (args.model_int8 is None):
        parser.error("name both --model_fp32 and --model_int8, or none")

    folders = None
    if args.model_fp32 is not None:
        folders = {"FP32": os.path.abspath(args.model_fp32), "INT8": os.path.abspath(args.model_int8)}
    run_bench(args, folders, Bench, tables_of)


if __name__ == "__main__":
    main()
