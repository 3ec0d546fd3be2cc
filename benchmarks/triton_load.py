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

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRITON = ROOT / "deploy" / "triton_serving"
sys.path.insert(0, str(ROOT / "deploy" / "predictor"))

import argparse
import itertools
import os
import re
import socket
import statistics
import subprocess

from ernie_predictor.commandline import HelpFormatter
from ernie_predictor.machine import usable_cores
from ernie_predictor.runtimes import engine_versions
from ernie_predictor.tokenizer import ErnieTokenizer
from serving_load import (
    ROUTE,
    SERVING,
    ServerProcess,
    add_flags,
    http_request,
    latency_cells,
    machine,
    measure_alone,
    measure_load,
    mix_of,
    pool,
    ratio_cell,
    ratios,
    run_bench,
    say,
    summary,
)

MODEL = "ernie_seqcls"
LONGEST = 128
BATCHING, OFF, HTTP = "Triton", "Triton, dynamic batching off", "server_seq_cls.py"


def add_python_flag(add):
    python = str(ROOT / ".venv-triton" / "bin" / "python")
    add("--python", metavar="FILE", default=python, help="of the environment that `make triton` made")


def infer_request(model, columns):
    """A request over HTTP, as bytes: {name of an input: its texts}."""
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [len(texts), 1], "data": texts} for name, texts in columns.items()
    ]
    return http_request("POST", f"/v2/models/{model}/infer", {"inputs": inputs})


def make_repository(python, model, target, flags=(), batching=True):
    command = [python, TRITON / "prepare_models.py", "--model_path", model, "--output", target, *flags]
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
    if not batching:
        path = target / MODEL / "config.pbtxt"
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\ndynamic_batching \{.*?\n\}\n", "\n", text, flags=re.DOTALL), encoding="utf-8")


class Triton(ServerProcess):
    """A tritonserver on a repository."""

    def __init__(self, python, repository, log):
        self.log, self.ready = Path(log), "/v2/health/ready"
        ports = []
        for name in ("http", "grpc", "metrics"):
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                ports += [f"--{name}_port", str(s.getsockname()[1])]
        self.port = int(ports[1])
        with open(log, "wb") as output:
            command = [str(python), str(TRITON / "run_triton.py"), str(repository), *ports]
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def counts(self):
        """(texts, executions) so far."""
        _, found = self.ask("GET", f"/v2/models/{MODEL}/stats")
        (model,) = found["model_stats"]
        return model["inference_count"], model["execution_count"]


class Bench:
    """What is measured, and on what."""

    def __init__(self, args, folders, folder):
        self.args, self.model, self.log = args, folders["int8"], folder / "server.log"
        tokenizer = ErnieTokenizer.from_pretrained(self.model)
        self.texts = mix_of(args.data_dir, tokenizer, args.texts, longest=LONGEST)
        # {name: (repository, numbers of clients)}
        self.servers = {BATCHING: (folder / "on", args.clients), OFF: (folder / "off", args.clients)}
        make_repository(args.python, self.model, folder / "on")
        make_repository(args.python, self.model, folder / "off", batching=False)
        self.grid = {}  # {(instances, threads): name of a server}
        for instances, threads in itertools.product(args.instances, args.threads):
            if (instances, threads) == (2, usable_cores()):
                self.grid[instances, threads] = BATCHING
                continue
            name = f"Triton, instances x threads: {instances} x {threads}"
            self.grid[instances, threads] = name
            self.servers[name] = (folder / f"{instances}x{threads}", [max(args.clients)])
            flags = ["--instances", instances, "--num_threads", threads]
            make_repository(args.python, self.model, self.servers[name][0], flags)
        self.loads = {}  # {(server, clients): rounds}
        self.batches = {}  # {(server, clients): [texts, executions]}
        self.alone = []

    def round(self):
        requests = [infer_request(MODEL, {"TEXT": [text]}) for text in self.texts]
        for name, (repository, numbers) in self.servers.items():
            say(name)
            with Triton(self.args.python, repository, self.log) as server:
                for clients in numbers:
                    before = server.counts()
                    found = measure_load(self.args, server.port, requests, clients)
                    self.loads.setdefault((name, clients), []).append(found)
                    total = self.batches.setdefault((name, clients), [0, 0])
                    for place, (a, b) in enumerate(zip(before, server.counts())):
                        total[place] += b - a
        say(HTTP)
        command = [sys.executable, SERVING / "server_seq_cls.py", "--model_path", self.model]
        requests = [http_request("POST", ROUTE, {"data": {"text": text}}) for text in self.texts]
        with ServerProcess(command, self.log) as server:
            for clients in self.args.clients:
                found = measure_load(self.args, server.port, requests, clients)
                self.loads.setdefault((HTTP, clients), []).append(found)
        say("predictor")
        self.alone += measure_alone(self.args, self.model, "int8", self.texts, LONGEST)

    def results(self):
        """As JSON."""
        loads = []
        for (name, clients), rounds in self.loads.items():
            row = {"server": name, "clients": clients, **pool(rounds)}
            if (name, clients) in self.batches:
                texts, executions = self.batches[name, clients]
                row["mean_batch"] = texts / executions if executions else 0.0  # within the time nothing ran
            for key, reference in (("times_off", OFF), ("times_http", HTTP)):
                if name == BATCHING:
                    row[key] = ratios(rounds, self.loads[reference, clients])
            loads.append(row)
        grid = [
            {
                "instances": instances,
                "threads": threads,
                "clients": max(self.args.clients),
                "requests_per_second_rounds": [
                    pool([found])["requests_per_second"] for found in self.loads[name, max(self.args.clients)]
                ],
            }
            for (instances, threads), name in self.grid.items()
        ]
        return {"machine": machine(), "predictor_milliseconds": summary(self.alone), "loads": loads, "instances": grid}


def print_tables(args, results):
    about, alone = results["machine"], results["predictor_milliseconds"]
    model = f"ERNIE 3.0-{args.arch}'s architecture, INT8" if args.model is None else args.model
    print(f"\n{model}; {about['cores']} cores of {about['processor']}, shared by clients and server")
    print(f"{engine_versions()}; Python {about['python']}; {args.seconds:g} s each, in {args.rounds} rounds\n")
    print("| Texts of 5 to 128 tokens | Clients | Requests/s | Times batching off (rounds) | Times server_seq_cls.py "
          "(rounds) | Mean batch | p50, ms | p99, ms | Errors |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    print(f"| predictor, no server | 1 | – | – | – | 1.0 | {alone['p50']:.1f} | {alone['p99']:.1f} | none |")
    for row in results["loads"]:
        cells = [row["server"], row["clients"], f"{row['requests_per_second']:.1f}"]
        cells += [ratio_cell(row.get(key)) for key in ("times_off", "times_http")]
        cells += [f"{row['mean_batch']:.1f}" if "mean_batch" in row else "–", *latency_cells(row)]
        print(f"| {' | '.join(map(str, cells))} |")
    for row in results["loads"]:
        if (row["server"], row["clients"]) == (BATCHING, 1) and "200" in row["milliseconds"]:
            more = row["milliseconds"]["200"]["p50"] - alone["p50"]
            print(f"\nOne client, p50: Triton adds {more:.1f} ms to the predictor.")
    threads = [f"{number} thread{'s' if number > 1 else ''} per instance" for number in args.threads]
    print(f"\n| Requests/s, {max(args.clients)} clients (rounds) | {' | '.join(threads)} |")
    print("|---" * (1 + len(threads)) + "|")
    for instances, rows in itertools.groupby(results["instances"], key=lambda row: row["instances"]):
        print(f"| {instances} instance{'s' if instances > 1 else ''} |", end="")
        for row in rows:
            rounds = row["requests_per_second_rounds"]
            print(f" {statistics.median(rounds):.1f} ({', '.join(f'{value:.1f}' for value in rounds)}) |", end="")
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--model", metavar="DIR", help="of compress_seq_cls.py (default: one of --arch is made)")
    add_flags(add, seconds=30, warm_up=2)
    add("--instances", metavar="N", type=int, nargs="+", default=[1, 2], help="of the model")
    add("--threads", metavar="N", type=int, nargs="+", default=[1, 2], help="per instance")
    add_python_flag(add)
    args = parser.parse_args()
    if not os.path.exists(args.python):
        parser.error(f"--python {args.python}: no such file; `make triton` makes the environment")
    run_bench(args, None if args.model is None else {"int8": os.path.abspath(args.model)}, Bench, print_tables)


if __name__ == "__main__":
    main()
