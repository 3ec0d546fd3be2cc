"""How cost grows: time and memory against the number of texts, their length, and clients of a server.

python benchmarks/growth.py --data_dir DIR --vocab_file FILE --output benchmarks/results/growth.json
python benchmarks/growth.py --quick                    a look in two or three minutes, on the sample data
python benchmarks/growth.py --parts clients            one of the three

- texts: infer_cpu.py, a file in and a file out, 100 to 1,000,000 headlines of TNEWS; --small_arch in INT8.
- lengths: infer_cpu.py on texts of exactly 16 to 512 tokens; --arch in INT8.
- clients: server_seq_cls.py, 1 to 256 clients that each send one headline, wait for the answer and send the next.

Weights are random, which changes no speed. Seconds are those of whole processes, with their start; memory is the most
that a process held. Parts take turns, --rounds times; the figures are medians. The program fits a straight line and
says how far the figures are from it. --output is written after every measurement: the same command resumes.
training_growth.py does the same for the processes of a training.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "predictor"))
# No Paddle in this process: what it starts is measured, and this shares the cores.

import argparse
import itertools
import json
import os
import statistics
import subprocess
import tempfile
import time

import numpy as np
from ernie_predictor.commandline import HelpFormatter, existing_file, positive, run
from ernie_predictor.errors import PredictorError
from ernie_predictor.tokenizer import ErnieTokenizer
from serving_load import ROUTE, SERVING, ServerProcess, child, http_request, machine, mix_of, pool, read_texts
from tqdm import tqdm

# What is varied in each part; and with --quick.
SIZES = {
    "texts": [100, 1_000, 10_000, 100_000, 1_000_000],
    "lengths": [16, 32, 64, 128, 256, 384, 512],
    "clients": [1, 2, 4, 8, 16, 32, 64, 128, 256],
}
QUICK = {"texts": [100, 1_000, 10_000], "lengths": [16, 64, 256], "clients": [1, 4, 16]}
UNITS = {"texts": "texts", "lengths": "tokens", "clients": "clients"}
STRAIGHT = 0.10  # of the measured value: the largest deviation from a straight line that is called one
FLAT = 0.10  # growth of memory over the upper half of the sizes that is called none


def fit(sizes, values, degree):
    """The polynomial nearest to the values, relative to each: they span decades.

    Returns:
        {"coefficients": of size ** 0, size ** 1, ..., "deviation": the largest, a share of the value, "at": its size}.
    """
    sizes, values = np.array(sizes, float), np.array(values, float)
    powers = np.stack([sizes**power for power in range(degree + 1)], axis=1)
    coefficients = np.linalg.lstsq(powers / values[:, None], np.ones(len(values)), rcond=None)[0]
    deviations = np.abs(powers @ coefficients / values - 1)
    worst = int(deviations.argmax())
    return {"coefficients": coefficients.tolist(), "deviation": float(deviations[worst]), "at": int(sizes[worst])}


class Bench:
    """What is measured, and what has been."""

    def __init__(self, args, folder):
        self.args, self.folder, self.measured, self.folders = args, Path(folder), {}, {}
        # What the figures depend on. The rest may be other where the program goes on.
        self.about = {"machine": machine(), "headlines": len(self.headlines())}
        self.about["vocabulary"] = len(Path(args.vocab_file).read_bytes().splitlines())
        self.about |= {
            name: vars(args)[name] for name in ("arch", "small_arch", "threads", "seconds", "rounds", "quick")
        }
        if args.output and os.path.exists(args.output):
            try:
                found = json.loads(Path(args.output).read_text(encoding="utf-8"))
                changed = [name for name, value in self.about.items() if found["about"].get(name) != value]
            except (ValueError, KeyError, TypeError):
                raise PredictorError(f"--output {args.output} is no file of growth.py: name another") from None
            if changed:
                raise PredictorError(
                    f"--output {args.output} has figures of another {', '.join(changed)}: remove it, or name another"
                )
            self.measured = found["measured"]

    def measure(self):
        """Takes the measurements that are missing, in rounds."""
        todo = [
            (part, size, turn)
            for turn in range(self.args.rounds)
            for part in self.args.parts
            for size in self.sizes(part)
            if f"{part} {size} {turn}" not in self.measured
        ]
        with tqdm(todo, unit=" measurements", disable=None) as bar:
            for part, size, turn in bar:
                bar.set_description(f"{size:,} {UNITS[part]}")
                self.measured[f"{part} {size} {turn}"] = getattr(self, part)(size)
                self.save()

    def sizes(self, part):
        return (QUICK if self.args.quick else SIZES)[part]

    def save(self):
        if self.args.output:
            part = Path(f"{self.args.output}.part")
            content = {"about": self.about, "measured": self.measured, "parts": summaries(self)}
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            os.replace(part, self.args.output)

    def model(self, arch):
        """The folders of a classifier with random weights, made when it is first needed."""
        if arch not in self.folders:
            tqdm.write(f"making models of ERNIE 3.0-{arch}: some minutes", file=sys.stderr)
            folder = self.folder / arch
            folder.mkdir()
            self.folders[arch] = child("make_models", arch=arch, vocab_file=self.args.vocab_file, folder=str(folder))
            self.infer(arch, ["一"], 64)  # OpenVINO compiles a large model once and keeps it
        return self.folders[arch]

    def run(self, command):
        """{"seconds", "cpu_seconds", "megabytes"} of a process from its start to its end."""
        with open(self.folder / "log", "w+b") as log:
            start = time.perf_counter()
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=self.folder,
                env={name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            # The most memory that it or one of its children held, by the kernel's count. That begins with what this
            # process held when it started it, which is why this one imports little and holds few texts.
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                log.seek(0)
                sys.exit(f"{' '.join(map(str, command))}\n{log.read().decode(errors='replace')[-3000:]}")
        cpu_seconds = usage.ru_utime + usage.ru_stime
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "megabytes": usage.ru_maxrss / 1024}

    def infer(self, arch, texts, max_seq_length):
        source = self.folder / "texts.txt"
        with open(source, "w", encoding="utf-8") as f:
            f.writelines(text + "\n" for text in texts)
        command = [sys.executable, ROOT / "deploy" / "predictor" / "infer_cpu.py", "--precision_mode", "int8"]
        command += ["--model_path", self.model(arch)["int8"], "--max_seq_length", max_seq_length]
        command += ["--num_threads", self.args.threads, "--input", source, "--output", self.folder / "answers.jsonl"]
        return self.run(command)

    def headlines(self):
        return [" ".join(text.split()) for text in read_texts(self.args.data_dir, "tnews")]  # a line each

    def texts(self, number):
        return self.infer(self.args.small_arch, itertools.islice(itertools.cycle(self.headlines()), number), 128)

    def lengths(self, length):
        tokenizer = ErnieTokenizer.from_pretrained(self.model(self.args.arch)["int8"], backend="tokenizers")
        number = 128 if self.args.quick else 1024  # a chunk of the predictor
        texts = mix_of(self.args.data_dir, tokenizer, 64, shortest=length, longest=length)
        texts = [text.replace("\n", " ") for text in texts]  # no token either way
        found = self.infer(self.args.arch, itertools.islice(itertools.cycle(texts), number), length)
        return {**found, "texts": number}

    def clients(self, number):
        command = [sys.executable, SERVING / "server_seq_cls.py", "--model_path", self.model(self.args.arch)["int8"]]
        command += ["--max_seq_length", 128, "--num_threads", self.args.threads]
        requests = [http_request("POST", ROUTE, {"data": {"text": text}}).decode() for text in self.headlines()]
        with ServerProcess(command, self.folder / "server.log") as server:
            found = child("generate", port=server.port, requests=requests, clients=number,
                          seconds=1 if self.args.quick else self.args.seconds, warm_up=1)  # fmt: skip
            megabytes = server.memory() / 2**20
        found = pool([found])
        if found["errors"] or "200" not in found["milliseconds"]:
            sys.exit(f"{number} clients: answers other than 200, or none: {found['errors']}")
        times = found["milliseconds"]["200"]
        return {
            "seconds": times["p50"] / 1000,
            "p99_seconds": times["p99"] / 1000,
            "requests_per_second": found["requests_per_second"],
            "megabytes": megabytes,
        }


def summaries(bench):
    """{part: its rows, medians of the rounds, and what they say of growth}, for the parts that are complete."""
    parts = {}
    for part in SIZES:
        rows = []
        for size in bench.sizes(part):
            found = [bench.measured.get(f"{part} {size} {turn}") for turn in range(bench.args.rounds)]
            if None not in found:
                medians = {name: statistics.median(row[name] for row in found) for name in found[0]}
                seconds = [row["seconds"] for row in found]
                rows.append({"size": size, **medians, "seconds_least": min(seconds), "seconds_most": max(seconds)})
        if len(rows) == len(bench.sizes(part)):
            parts[part] = {"rows": rows, "growth": growth(rows)}
    return parts


def growth(rows):
    sizes, seconds, megabytes = ([row[name] for row in rows] for name in ("size", "seconds", "megabytes"))
    found = {"memory_growth": megabytes[-1] / megabytes[len(rows) // 2] - 1, "memory_since": sizes[len(rows) // 2]}
    if len(rows) > 2:  # through two points there is a line always
        found["line"] = fit(sizes, seconds, 1)
        found["is_straight"] = found["line"]["deviation"] <= STRAIGHT
    if len(rows) > 3:
        found["square"] = fit(sizes, seconds, 2)
        found["square_share"] = found["square"]["coefficients"][2] * sizes[-1] ** 2 / seconds[-1]
    return found


def verdict(part, summary):
    """In a sentence or two, for the documents."""
    rows, found = summary["rows"], summary["growth"]
    unit, text = UNITS[part], []
    if "line" in found:
        start, slope = found["line"]["coefficients"]
        line = f"{start:.3g} s + {1000 * slope:.3g} ms x {unit}"
        off = f"{100 * found['line']['deviation']:.0f}% off at {found['line']['at']:,}"
        if found["is_straight"]:
            text.append(f"Time is a straight line, {line}: at most {off}")
        else:
            text.append(f"Time is no straight line: the nearest ({line}) is {off}")
            if "square" in found:
                text.append(f"With a square term it is {100 * found['square']['deviation']:.0f}% off at "
                            f"{found['square']['at']:,}; the square is {100 * found['square_share']:.0f}% of the time "
                            f"at {rows[-1]['size']:,}")  # fmt: skip
    if part in ("texts", "clients"):
        flat = "does not grow" if found["memory_growth"] <= FLAT else "grows"
        text.append(f"Memory {flat} from {found['memory_since']:,} to {rows[-1]['size']:,} {unit} "
                    f"({100 * found['memory_growth']:+.1f}%)")  # fmt: skip
    return ". ".join(text) + "."


COLUMNS = {
    "texts": {
        "Texts": lambda row: f"{row['size']:,}",
        "Seconds (least to most)": lambda row: seconds_of(row),
        "Texts/s": lambda row: f"{row['size'] / row['seconds']:,.0f}",
        "Peak memory, MB": lambda row: f"{row['megabytes']:.0f}",
    },
    "lengths": {
        "Tokens per text": lambda row: row["size"],
        "Seconds (least to most)": lambda row: seconds_of(row),
        "Tokens/s": lambda row: f"{row['size'] * row['texts'] / row['seconds']:,.0f}",
        "Peak memory, MB": lambda row: f"{row['megabytes']:.0f}",
    },
    "clients": {
        "Clients": lambda row: row["size"],
        "Requests/s": lambda row: f"{row['requests_per_second']:.0f}",
        "p50, ms": lambda row: f"{1000 * row['seconds']:.1f}",
        "p99, ms": lambda row: f"{1000 * row['p99_seconds']:.1f}",
        "Memory, MB": lambda row: f"{row['megabytes']:.0f}",
    },
}


def seconds_of(row):
    return f"{row['seconds']:.2f} ({row['seconds_least']:.2f} to {row['seconds_most']:.2f})"


def tables(args, about, parts):
    """The figures in Markdown."""
    found = about["machine"]
    packages = ", ".join(f"{name} {found[name]}" for name in ("onnxruntime", "openvino", "fastapi") if name in found)
    yield f"{args.threads} threads, {found['cores']} cores of {found['processor']}; {packages}; "
    yield f"Python {found['python']}; medians of {args.rounds} rounds\n"
    for part, summary in parts.items():
        arch = args.small_arch if part == "texts" else args.arch
        more = f", {summary['rows'][0]['texts']:,.0f} texts" if part == "lengths" else ""
        yield f"\n{part}, ERNIE 3.0-{arch}, INT8{more}\n\n"
        yield f"| {' | '.join(COLUMNS[part])} |\n{'|---' * len(COLUMNS[part])}|\n"
        for row in summary["rows"]:
            yield f"| {' | '.join(str(cell(row)) for cell in COLUMNS[part].values())} |\n"
        yield f"\n{verdict(part, summary)}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add(
        "--parts",
        nargs="+",
        metavar="PART",
        choices=SIZES,
        default=list(SIZES),
        help="texts, lengths, clients (default: all)",
    )
    add("--data_dir", metavar="DIR", default=str(ROOT / "examples" / "data"), help="has tnews/ and iflytek/dev.json")
    vocab = str(ROOT / "examples" / "model" / "vocab.txt")
    add("--vocab_file", metavar="FILE", type=existing_file, default=vocab, help="vocabulary")
    add("--arch", help="of examples/make_model.py, for lengths and clients (default: medium, with --quick sample)")
    add("--small_arch", default="sample", help="for texts")
    add("--threads", metavar="N", type=positive, default=2, help="of the predictor and the server")
    add("--seconds", metavar="N", type=positive, default=10, help="of each measurement of a server")
    add("--rounds", metavar="N", type=positive, help="turns of each measurement (default: 3, with --quick 1)")
    add("--quick", action="store_true", help="small sizes and a small model: shows that it works")
    add("--output", metavar="FILE", help="for the figures as JSON, which pictures.py draws; the tables are written "
        "beside it, as .md")  # fmt: skip
    args = parser.parse_args()
    args.arch = args.arch or ("sample" if args.quick else "medium")
    args.rounds = args.rounds or (1 if args.quick else 3)

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, folder)
        bench.measure()
    table = "".join(tables(args, bench.about, summaries(bench)))
    if args.output:
        Path(args.output).with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    run(main, "../requirements.txt")
