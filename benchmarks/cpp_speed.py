"""How fast the C++ predictor is against infer_cpu.py: whole jobs, single texts, the first answer, memory, in one run.

python benchmarks/cpp_speed.py                                   the sample data, ERNIE 3.0-Medium's architecture
python benchmarks/cpp_speed.py --data_dir DIR --datasets tnews --texts 1000

Both are processes that read JSON lines from a pipe and run the same folder in OpenVINO, with the same batches; they
take turns, a few rounds, and the figures are medians. Weights are random, which changes no speed. Before, both answer
all texts once, so that the compiled model is kept, and the answers must be the same. Needs cmake, a C++ compiler and
ICU (libicu-dev), with which the C++ predictor is built.
"""

import harness  # isort: skip  makes the project's packages importable

import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ernie_predictor.commandline import percentiles
from ernie_predictor.data_files import read_dev_set
from harness.servers import same_answer

SOURCE = harness.ROOT / "deploy" / "predictor" / "cpp"
PYTHON, CPP = "infer_cpu.py", "ernie_infer"
WARM_UP = 10  # single texts before the first that counts
COLUMNS = {
    "job": "Whole process, s",
    "rate": "Texts/s after the first batch",
    "first": "First answer, s",
    "p50": "p50, one text, ms",
    "memory": "Memory, MB",
}


def build(folder):
    """Builds ernie_infer; returns its path."""
    for command in (
        ["cmake", "-S", str(SOURCE), "-B", folder, f"-DPython3_EXECUTABLE={sys.executable}"],
        ["cmake", "--build", folder, "-j", str(os.cpu_count())],
    ):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
    return os.path.join(folder, "ernie_infer")


def as_lines(dataset, items):
    names = ("question", "context") if dataset == "cmrc2018" else ("text", "text_pair")
    rows = (dict(zip(names, [item] if isinstance(item, str) else item)) for item in items)
    return [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]


def megabytes(process):
    """The most memory that a process had so far; 0 where it has ended."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return int(peak[1]) / 1024 if peak else 0


def run_job(command, lines, batch_size):
    """({column: figure} of a whole job, its answers)."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def write():
        with process.stdin:
            process.stdin.writelines(lines)

    threading.Thread(target=write).start()
    answers, arrivals, memory = [], [], 0
    for answer in process.stdout:
        arrivals.append(time.perf_counter())
        answers.append(answer)
        memory = max(memory, megabytes(process))
    if process.wait() != 0 or len(answers) != len(lines):
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}, after {len(answers)} answers")
    rate = (len(lines) - batch_size) / (arrivals[-1] - arrivals[0])
    return {"job": time.perf_counter() - begin, "rate": rate, "memory": memory}, answers


def run_singles(command, lines):
    """{column: figure} of texts that are sent one by one, each after the answer to the one before."""
    times = []
    with subprocess.Popen([*command, "--batch_size", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        begin = time.perf_counter()
        for line in lines:
            start = time.perf_counter()
            process.stdin.write(line)
            process.stdin.flush()
            process.stdout.readline()
            times.append(time.perf_counter() - start)
            if len(times) == 1:
                first = time.perf_counter() - begin
        libraries = {m[1] for m in re.finditer(r" (/\S+\.so\S*)$", Path(f"/proc/{process.pid}/maps").read_text(), re.M)}
        process.stdin.close()
    return {"first": first, "p50": 1000 * percentiles(times[WARM_UP:])[0]}, libraries


def measure(args, program, dataset, folder):
    """({model: {who: {column: figure}}}, what the C++ program loads), of one data set."""
    task = {"msra_ner": "token_cls", "cmrc2018": "qa"}.get(dataset, "seq_cls")
    folders = harness.make_models(args.arch, args.vocab_file, folder, task, args.width_mult)
    items, _ = read_dev_set(task, args.data_dir, dataset)
    number = args.questions if task == "qa" else args.texts
    lines = as_lines(dataset, itertools.islice(itertools.cycle(items), number))
    flags = ["--input", "-", "--num_threads", str(args.threads), "--max_seq_length", str(harness.LENGTHS[dataset])]
    python = [sys.executable, str(harness.ROOT / "deploy" / "predictor" / PYTHON), "--backend", "openvino"]
    results = {}
    for name, model in folders.items():
        commands = {PYTHON: [*python, *flags, "--model_path", model], CPP: [program, *flags, "--model_path", model]}
        answers = {who: run_job(command, lines, args.batch_size)[1] for who, command in commands.items()}
        wrong = sum(not same_answer(json.loads(a), json.loads(b)) for a, b in zip(*answers.values()))
        if wrong:
            sys.exit(f"{dataset}, {name}: {wrong} of {len(lines)} answers differ")
        print(f"{dataset}, {name}: all {len(lines)} answers are the same", file=sys.stderr)
        rounds = {who: [] for who in commands}
        for _ in range(args.rounds):
            for who, command in commands.items():
                figures, _ = run_job([*command, "--batch_size", str(args.batch_size)], lines, args.batch_size)
                singles, libraries = run_singles(command, lines[: args.singles])
                rounds[who].append(figures | singles)
        results[name] = {
            who: {column: statistics.median(figures[column] for figures in found) for column in COLUMNS}
            for who, found in rounds.items()
        }
    return results, libraries


def main():
    parser = harness.parser(__doc__, *harness.JOBS, texts=1000, questions=96)
    parser.add_argument("--singles", metavar="N", type=int, default=60, help="texts that are sent one by one")
    args = parser.parse_args()
    if min(args.texts, args.questions) <= args.batch_size or args.singles <= WARM_UP:
        parser.error(f"more texts and questions than --batch_size are needed, and --singles above {WARM_UP}")

    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        program = build(os.path.join(folder, "build"))
        size = os.path.getsize(program)
        for dataset in args.datasets:
            with tempfile.TemporaryDirectory() as models:
                tables[dataset], libraries = measure(args, program, dataset, models)
    machine = harness.machine(args.threads)
    needs = {os.path.basename(path): os.path.getsize(path) for path in sorted(libraries) if os.path.exists(path)}
    figures = {"architecture": args.arch, "batch_size": args.batch_size, "machine": machine, "figures": tables}
    figures |= {"program, bytes": size, "libraries, bytes": needs}
    rows = []
    for dataset, results in tables.items():
        for name, found in results.items():
            for who, label in ((PYTHON, f"{dataset}, {name}"), (CPP, "")):
                rows.append([label, f"`{who}`", *(f"{found[who][column]:.4g}" for column in COLUMNS)])
            ratios = {column: found[PYTHON][column] / found[CPP][column] for column in COLUMNS}
            ratios["rate"] = 1 / ratios["rate"]  # the more the better
            rows.append(["", "times better", *(f"{ratio:.2f}" for ratio in ratios.values())])
    large = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in needs.items() if size > 1e6)
    small = ", ".join(name for name, size in needs.items() if size <= 1e6)
    harness.write_results(
        args.output,
        figures,
        f"ERNIE 3.0-{args.arch}, batch size {args.batch_size}, {machine}",
        harness.markdown(["Data set, model", "", *COLUMNS.values()], rows),
        f"The program: {size / 1e6:.2f} MB. It loads: {large}; smaller ones: {small}",
    )


if __name__ == "__main__":
    main()
