"""How much load Triton takes with the project's models, on loopback: batching on and off, instances, the HTTP server.

python benchmarks/triton_load.py                               ERNIE 3.0-Medium's architecture in INT8
python benchmarks/triton_load.py --data_dir DIR --vocab_file vocab.txt --output triton_load.json
python benchmarks/triton_load.py --model best_models/tnews/mse16_1 --instances 1 4 8 --threads 1 4 8

Without --model a folder is made as compress_seq_cls.py writes it, with random weights, which changes no speed. Texts of
5 to 128 tokens, evenly spread, are cut out of TNEWS's and IFLYTEK's. Each client sends one text as JSON over HTTP, to
Triton and to server_seq_cls.py alike, waits for its answer and sends the next. Clients are a process of their own; the
servers run one after another, in rounds, and --seconds is the sum of a measurement over all rounds.

"Triton" is two instances that may both use all cores, the default of prepare_models.py. Each combination of
--instances and --threads is measured with the largest number of clients. The mean batch is that of Triton's own
statistics: texts per execution. "Predictor" is `ErniePredictor.predict` on one text at a time. With the defaults there
are 13 measurements of 30 seconds on two cores: about 12 minutes.
"""

import harness  # isort: skip  makes the project's packages importable

import itertools
import os
import statistics
import sys

from ernie_predictor.tokenizer import ErnieTokenizer
from harness import servers
from serving_load import measure_alone, measure_load, parser_of_loads, run_bench, say

MODEL, _ = servers.TRITON_MODELS["seq_cls"]
LONGEST = 128
BATCHING, OFF, HTTP = "Triton", "Triton, dynamic batching off", "server_seq_cls.py"


class Bench:
    """What is measured, and on what."""

    def __init__(self, args, folders, folder):
        self.args, self.model, self.log = args, folders["INT8"], folder / "server.log"
        tokenizer = ErnieTokenizer.from_pretrained(self.model)
        self.texts = servers.mix_of(args.data_dir, tokenizer, args.texts, longest=LONGEST)
        self.servers = {}  # {name: (repository, numbers of clients)}
        self.add_server(BATCHING, folder / "on", args.clients)
        self.add_server(OFF, folder / "off", args.clients, batching=False)
        self.grid = {}  # {(instances, threads): name of a server}
        for instances, threads in itertools.product(args.instances, args.threads):
            name = f"Triton, instances x threads: {instances} x {threads}"
            self.grid[instances, threads] = name
            flags = ["--instances", instances, "--num_threads", threads]
            if (instances, threads) == (2, harness.usable_cores()):
                self.grid[instances, threads] = BATCHING
            else:
                self.add_server(name, folder / f"{instances}x{threads}", [max(args.clients)], flags)
        self.loads = {}  # {(server, clients): rounds}
        self.batches = {}  # {(server, clients): [texts, executions]}
        self.alone = []

    def add_server(self, name, repository, clients, flags=(), batching=True):
        servers.make_repository(self.args.python, self.model, repository, flags, batching)
        self.servers[name] = repository, clients

    def round(self):
        requests = [servers.task_request("seq_cls", [text], triton=True) for text in self.texts]
        for name, (repository, numbers) in self.servers.items():
            say(name)
            with servers.Triton(self.args.python, repository, self.log) as server:
                for clients in numbers:
                    before = server.counts(MODEL)
                    found = measure_load(self.args, server.port, requests, clients)
                    self.loads.setdefault((name, clients), []).append(found)
                    total = self.batches.setdefault((name, clients), [0, 0])
                    for place, (a, b) in enumerate(zip(before, server.counts(MODEL))):
                        total[place] += b - a
        say(HTTP)
        command = [sys.executable, servers.SERVING / "server_seq_cls.py", "--model_path", self.model]
        requests = [servers.task_request("seq_cls", text) for text in self.texts]
        with servers.ServerProcess(command, self.log) as server:
            for clients in self.args.clients:
                found = measure_load(self.args, server.port, requests, clients)
                self.loads.setdefault((HTTP, clients), []).append(found)
        say("predictor")
        self.alone += measure_alone(self.args, self.model, "int8", self.texts, LONGEST)

    def results(self):
        """As JSON."""
        loads = []
        for (name, clients), rounds in self.loads.items():
            row = {"server": name, "clients": clients, **servers.pool(rounds)}
            if (name, clients) in self.batches:
                texts, executions = self.batches[name, clients]
                row["mean_batch"] = texts / executions if executions else 0.0  # within the time nothing ran
            for key, reference in (("times_off", OFF), ("times_http", HTTP)):
                if name == BATCHING:
                    row[key] = servers.ratios(rounds, self.loads[reference, clients])
            loads.append(row)
        clients = max(self.args.clients)
        grid = [
            {
                "instances": instances,
                "threads": threads,
                "clients": clients,
                "requests_per_second_rounds": [
                    servers.pool([f])["requests_per_second"] for f in self.loads[name, clients]
                ],
            }
            for (instances, threads), name in self.grid.items()
        ]
        return {
            "machine": servers.machine(),
            "predictor_milliseconds": servers.summary(self.alone),
            "loads": loads,
            "instances": grid,
        }


def tables_of(args, results):
    alone = results["predictor_milliseconds"]
    model = f"ERNIE 3.0-{args.arch}'s architecture, INT8" if args.model is None else args.model
    rounds = f"{args.seconds:g} s each, in {args.rounds} rounds"
    yield f"{model}; {harness.machine()}, shared by clients and server; {rounds}"
    rows = [["predictor, no server", 1, "–", "–", "–", "1.0", *servers.latency_cells(alone, "p50", "p99"), "none"]]
    more = None
    for row in results["loads"]:
        times = row["milliseconds"].get("200")
        rows.append([
            row["server"], row["clients"], f"{row['requests_per_second']:.1f}",
            *(servers.ratio_cell(row.get(key)) for key in ("times_off", "times_http")),
            f"{row['mean_batch']:.1f}" if "mean_batch" in row else "–",
            *servers.latency_cells(times, "p50", "p99"), servers.errors_cell(row["errors"]),
        ])  # fmt: skip
        if (row["server"], row["clients"]) == (BATCHING, 1) and times:
            more = times["p50"] - alone["p50"]
    header = ["Texts of 5 to 128 tokens", "Clients", "Requests/s", "Times batching off (rounds)"]
    yield harness.markdown([*header, f"Times {HTTP} (rounds)", "Mean batch", "p50, ms", "p99, ms", "Errors"], rows)
    if more is not None:
        yield f"One client, p50: Triton adds {more:.1f} ms to the predictor."
    threads = [f"{number} thread{'s' if number > 1 else ''} per instance" for number in args.threads]
    rows = []
    for instances, group in itertools.groupby(results["instances"], key=lambda row: row["instances"]):
        rows.append([f"{instances} instance{'s' if instances > 1 else ''}"])
        for rounds in (row["requests_per_second_rounds"] for row in group):
            rows[-1].append(f"{statistics.median(rounds):.1f} ({', '.join(f'{value:.1f}' for value in rounds)})")
    yield harness.markdown([f"Requests/s, {max(args.clients)} clients (rounds)", *threads], rows)


def main():
    parser = parser_of_loads(__doc__, seconds=30, warm_up=2)
    add = parser.add_argument
    add("--model", metavar="DIR", help="of compress_seq_cls.py (default: one of --arch is made)")
    add("--instances", metavar="N", type=int, nargs="+", default=[1, 2], help="of the model")
    add("--threads", metavar="N", type=int, nargs="+", default=[1, 2], help="per instance")
    add("--python", metavar="FILE", default=servers.TRITON_PYTHON, help="of the environment that `make triton` made")
    args = parser.parse_args()
    servers.check_triton(parser, args.python)
    run_bench(args, None if args.model is None else {"INT8": os.path.abspath(args.model)}, Bench, tables_of)


if __name__ == "__main__":
    main()
