"""How much load Triton takes with the project's models, on loopback: batching on and off, instances, the HTTP server.

python benchmarks/triton_load.py                               ERNIE 3.0-Medium's architecture in INT8
python benchmarks/triton_load.py --data_dir DIR --vocab_file vocab.txt --output triton_load.json
python benchmarks/triton_load.py --model best_models/tnews/mse16_1 --seconds 30

Without --model a folder is made as compress_seq_cls.py writes it, with random weights, which changes no speed. Texts of
5 to 128 tokens, evenly spread, are cut out of TNEWS's and IFLYTEK's. Each client sends one text as JSON over HTTP, to
Triton and to server_seq_cls.py alike, waits for its answer and sends the next. Clients are a process of their own; the
servers run one after another, in rounds, and --seconds is the sum of a measurement over all rounds. The mean batch is
that of Triton's own statistics: texts over executions. "Predictor" is `ErniePredictor.predict` on one text at a time.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRITON = ROOT / "deploy" / "triton_serving"
sys.path.insert(0, str(ROOT / "deploy" / "predictor"))

import argparse
import json
import os
import re
import socket
import subprocess
import tempfile
import time

from ernie_predictor.machine import usable_cores
from ernie_predictor.runtimes import onnxruntime_version
from ernie_predictor.tokenizer import ErnieTokenizer
from serving_load import (
    ROUTE,
    SERVING,
    ServerProcess,
    child,
    http_request,
    machine,
    mix_of,
    pool,
    summary,
)

MODEL = "ernie_seqcls"
LONGEST = 128
BATCHING, HTTP = "Triton", "server_seq_cls.py"


def variants(cores):
    """{what a repository is called: (flags of prepare_models.py, whether Triton batches)}."""
    found = {BATCHING: ([], True), "Triton, dynamic batching off": ([], False)}
    if cores > 1:
        found[f"Triton, {cores} instances of 1 thread"] = (["--instances", cores, "--num_threads", 1], True)
    return found


def add_python_flag(add):
    add("--python", metavar="FILE", default=str(ROOT / ".venv-triton" / "bin" / "python"), help="that has Triton: `make "
        "triton`")  # fmt: skip


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

    def __init__(self, args, model, folder):
        self.args, self.model, self.log = args, str(model), folder / "server.log"
        self.texts = mix_of(args.data_dir, ErnieTokenizer.from_pretrained(model), args.texts, longest=LONGEST)
        self.repositories = {}
        for number, (name, (flags, batching)) in enumerate(variants(usable_cores()).items()):
            self.repositories[name] = folder / f"models_{number}"
            make_repository(args.python, model, self.repositories[name], flags, batching)
        self.loads = {}  # {(server, clients): rounds}
        self.batches = {}  # {(server, clients): [texts, executions]}
        self.alone = []

    def generate(self, server, requests, clients):
        seconds = self.args.seconds / self.args.rounds
        return child("generate", port=server.port, requests=[r.decode() for r in requests], clients=clients,
                     seconds=seconds, warm_up=self.args.warm_up)  # fmt: skip

    def round(self):
        def say(what):
            print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)

        requests = [infer_request(MODEL, {"TEXT": [text]}) for text in self.texts]
        for name, repository in self.repositories.items():
            say(name)
            with Triton(self.args.python, repository, self.log) as server:
                for clients in self.args.clients:
                    before = server.counts()
                    self.loads.setdefault((name, clients), []).append(self.generate(server, requests, clients))
                    total = self.batches.setdefault((name, clients), [0, 0])
                    for place, (a, b) in enumerate(zip(before, server.counts())):
                        total[place] += b - a
        say(HTTP)
        command = [sys.executable, SERVING / "server_seq_cls.py", "--model_path", self.model]
        requests = [http_request("POST", ROUTE, {"data": {"text": text}}) for text in self.texts]
        with ServerProcess(command, self.log) as server:
            for clients in self.args.clients:
                self.loads.setdefault((HTTP, clients), []).append(self.generate(server, requests, clients))
        say("predictor")
        self.alone += child("predict_alone", folder=self.model, precision="int8", texts=self.texts,
                            max_seq_length=LONGEST, seconds=self.args.seconds / self.args.rounds,
                            warm_up=self.args.warm_up)  # fmt: skip

    def results(self):
        """As JSON."""
        loads = []
        for (name, clients), rounds in self.loads.items():
            row = {"server": name, "clients": clients, **pool(rounds)}
            if (name, clients) in self.batches:
                texts, executions = self.batches[name, clients]
                row["mean_batch"] = texts / executions
            loads.append(row)
        return {"machine": machine(), "predictor_milliseconds": summary(self.alone), "loads": loads}


def print_tables(args, results):
    about = results["machine"]
    model = f"ERNIE 3.0-{args.arch}, INT8" if args.model is None else args.model
    print(f"\n{model}; {about['cores']} cores of {about['processor']}, which clients and server share")
    print(f"{onnxruntime_version()}; Python {about['python']}; {args.seconds:g} s each, {args.rounds} rounds")
    print("\n| texts of 5 to 128 tokens | clients | requests/s | mean batch | p50, ms | p99, ms | errors |")
    print("|---|---|---|---|---|---|---|")
    alone = results["predictor_milliseconds"]
    print(f"| predictor, no server | 1 | – | 1 | {alone['p50']:.1f} | {alone['p99']:.1f} | none |")
    for row in results["loads"]:
        times = row["milliseconds"].get("200")
        p50, p99 = (f"{times[key]:.1f}" if times else "–" for key in ("p50", "p99"))
        errors = ", ".join(f"{number:,} x {status}" for status, number in row["errors"].items()) or "none"
        batch = f"{row['mean_batch']:.1f}" if "mean_batch" in row else "–"
        cells = (row["server"], row["clients"], f"{row['requests_per_second']:.1f}", batch, p50, p99, errors)
        print(f"| {' | '.join(map(str, cells))} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", help="folder that compress_seq_cls.py wrote (default: one of --arch is made)")
    add("--arch", default="medium", help="of examples/make_model.py, where the model is made")
    add("--vocab_file", default=str(ROOT / "examples" / "model" / "vocab.txt"))
    add("--data_dir", default=str(ROOT / "examples" / "data"), help="has tnews/dev.json and iflytek/dev.json")
    add_python_flag(add)
    add("--texts", type=int, default=1000)
    add("--clients", type=int, nargs="+", default=[1, 16, 64])
    add("--seconds", type=float, default=60, help="of each measurement, over all rounds")
    add("--rounds", type=int, default=3)
    add("--warm_up", type=float, default=3, help="seconds before each measurement of a round")
    add("--output", help="file for all figures, as JSON")
    args = parser.parse_args()
    if not os.path.exists(args.python):
        parser.error(f"--python {args.python}: no such file; `make triton` makes the environment")

    with tempfile.TemporaryDirectory() as folder:
        model = args.model
        if model is None:
            print(f"making a model of ERNIE 3.0-{args.arch}: some minutes", file=sys.stderr)
            model = child("make_models", arch=args.arch, vocab_file=args.vocab_file, folder=folder)["int8"]
        bench = Bench(args, os.path.abspath(model), Path(folder))
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            bench.round()
        results = bench.results()
    if args.output:
        Path(args.output).write_text(json.dumps({"arguments": vars(args), **results}, indent=2), encoding="utf-8")
    print_tables(args, results)


if __name__ == "__main__":
    main()
