"""infer_ray.py on a cluster of several nodes on this machine, against infer_cpu.py on the same cores: speed and kills.

python benchmarks/ray_speed.py --model_path best_models/tnews/export --output benchmarks/results/ray_speed.json
python benchmarks/ray_speed.py --model_path best_models/tnews/export --texts 20000 --block_size 64      a quick look

Both predict the same texts, from files to files, with the same packages: infer_cpu.py in one process per actor, each
with its part of the texts, and infer_ray.py on a cluster of --nodes raylets that run before the clock starts. Loading
the model counts in both. Then the job runs once more: one worker is killed with SIGKILL after a quarter of the blocks,
the driver after half of them, and the same command is started again. The exit status is 1 if a row is lost, doubled or
out of order, if a label differs from infer_cpu.py's, or if the memory grows by more than 10% from the second quarter of
the blocks to the last.
"""

import harness  # isort: skip  makes the project's packages importable

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from ernie_predictor import load_task
from ernie_predictor.data_files import read_dev_set
from ernie_predictor.machine import processor_kind, usable_cores
from harness import positive
from tqdm import tqdm

PREDICTOR = harness.ROOT / "deploy" / "predictor"

CLUSTER = """
import importlib.metadata, json, platform, ray, sys
from ray.cluster_utils import Cluster
nodes, cores = map(int, sys.argv[1:])
cluster = Cluster()
for _ in range(nodes):
    cluster.add_node(num_cpus=cores, object_store_memory=2**27, include_dashboard=False)
cluster.wait_for_nodes()
versions = {name: importlib.metadata.version(name) for name in ("ray", "pyarrow", "onnxruntime", "openvino")}
print(json.dumps({"address": cluster.gcs_address, "python": platform.python_version(), **versions}), flush=True)
sys.stdin.read()
cluster.shutdown()
"""
# The last keeps Ray on 127.0.0.1.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
GROWTH = 0.10
SAMPLE = 5  # seconds between two looks at the memory


class Bench:
    """What is measured, and on what."""

    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.environment = {**os.environ, **RAY_ENVIRONMENT}
        self.actors = args.nodes * (args.cores // args.num_threads)
        items, _ = read_dev_set("seq_cls", args.data_dir, "tnews")
        lines = (
            json.dumps({"id": i, "text": text}, ensure_ascii=False) + "\n"
            for i, text in zip(range(args.texts), itertools.cycle(items))
        )
        # The whole for infer_ray.py, and equal parts for the processes of infer_cpu.py.
        self.input = folder / "texts.jsonl"
        self.parts = [folder / f"part_{number}.jsonl" for number in range(self.actors)]
        with open(self.input, "w", encoding="utf-8") as whole:
            for number, path in enumerate(self.parts):
                share = args.texts * (number + 1) // self.actors - args.texts * number // self.actors
                with open(path, "w", encoding="utf-8") as part:
                    for line in itertools.islice(lines, share):
                        whole.write(line)
                        part.write(line)

    def start(self, script, *arguments, log):
        options = ["--model_path", self.args.model_path, "--num_threads", self.args.num_threads]
        command = [self.args.python, PREDICTOR / script, *options, *arguments]
        with open(self.folder / log, "ab") as f:
            return subprocess.Popen(list(map(str, command)), env=self.environment, stdout=f, stderr=f)

    def finish(self, process, log):
        if process.wait():
            sys.exit(f"{log}: {(self.folder / log).read_text(encoding='utf-8')[-3000:]}")

    def direct(self):
        """Seconds of infer_cpu.py in processes."""
        start = time.perf_counter()
        processes = [
            self.start("infer_cpu.py", "--input", path, "--output", path.with_suffix(".out"), log="infer_cpu.log")
            for path in self.parts
        ]
        for process in processes:
            self.finish(process, "infer_cpu.log")
        return time.perf_counter() - start

    def ray(self, address, cluster, output, kills=()):
        """(seconds, samples of the memory) of infer_ray.py.

        Args:
            cluster: the process whose children are Ray's.
            kills: () or ("worker", "driver"): killed after a quarter and after half of the blocks.
        """
        arguments = ["--input", self.input, "--output", self.folder / output, "--address", address]
        arguments += ["--actors", self.actors, "--block_size", self.args.block_size]
        kills, samples, start = list(kills), [], time.perf_counter()
        total = -(-self.input.stat().st_size // (self.args.block_size * 2**10))
        driver = self.start("infer_ray.py", *arguments, log="infer_ray.log")
        with tqdm(total=total, desc=output, unit=" blocks", disable=None) as bar:
            while driver.poll() is None:
                done = len(list(self.folder.glob(f"{output}/_done/*.json")))
                bar.update(done - bar.n)
                seconds = time.perf_counter() - start
                if seconds >= SAMPLE * len(samples):  # seldom, since it takes milliseconds per process
                    samples.append({"seconds": seconds, "done": done / total, "MB": memory_of(cluster, driver)})
                if kills == ["driver"] and done >= total / 2:
                    driver.kill()
                    driver.wait()
                    driver = self.start("infer_ray.py", *arguments, log="infer_ray.log")
                    kills = []
                elif len(kills) == 2 and done >= total / 4 and (workers := workers_of(cluster)):
                    workers[0].kill()
                    kills = ["driver"]
                time.sleep(0.5)
        self.finish(driver, "infer_ray.log")
        if kills:
            sys.exit(f"the job ended before a {kills[0]} was killed: take more --texts or a smaller --block_size")
        return time.perf_counter() - start, samples

    def compare(self, output):
        """{what is wrong: number of rows} in the output of infer_ray.py, and the largest difference of confidences."""
        wrong, difference = {"out of order, lost or doubled": 0, "label differs": 0}, 0.0
        found = lines_of(sorted(self.folder.glob(f"{output}/[!_]*")))
        expected = lines_of([path.with_suffix(".out") for path in self.parts])
        for number, (row, answer) in enumerate(itertools.zip_longest(found, expected)):
            if row is None or answer is None or row["id"] != number:
                wrong["out of order, lost or doubled"] += 1
            elif row["label"] != answer["label"]:
                wrong["label differs"] += 1
            else:
                difference = max(difference, abs(row["confidence"] - answer["confidence"]))
        return {**wrong, "largest difference of confidences": difference}


def lines_of(paths):
    for path in paths:
        with open(path, encoding="utf-8") as f:
            yield from map(json.loads, f)


def workers_of(cluster):
    """The processes of Ray's actors."""
    found = []
    for process in psutil.Process(cluster.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "BlockPredictor" in " ".join(process.cmdline()):
                found.append(process)
    return found


def memory_of(cluster, driver):
    """Proportional set size of the driver and of all processes of the cluster, in MB."""
    total = 0
    for process in [psutil.Process(driver.pid), *psutil.Process(cluster.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 10**6


def growth_of(samples):
    """Memory in the last quarter of the blocks against that in the second, medians."""
    second, last = (
        statistics.median([s["MB"] for s in samples if low <= s["done"] < low + 0.25] or [0]) for low in (0.25, 0.75)
    )
    return last / second - 1 if second and last else None


def main():
    parser = harness.parser(__doc__, "data_dir", "output", texts=1_000_000, rounds=1)
    add = parser.add_argument
    add("--model_path", metavar="DIR", required=True, help="a classifier, as run_*.py or compress_*.py write it")
    python = str(harness.ROOT / ".venv-ray" / "bin" / "python")
    add("--python", metavar="FILE", default=python, help="of the environment that `make ray` makes (default: "
        ".venv-ray/bin/python)")  # fmt: skip
    add("--nodes", metavar="N", type=positive, default=2, help="raylets of the cluster")
    add("--cores", metavar="N", type=positive, help="per node (default: the usable cores, shared out)")
    add("--num_threads", metavar="N", type=positive, default=1, help="cores per actor, and per process of infer_cpu.py")
    add("--block_size", metavar="KIB", type=positive, default=1024, help="of infer_ray.py")
    args = parser.parse_args()
    args.cores = args.cores or max(usable_cores() // args.nodes, 1)
    args.model_path = os.path.abspath(args.model_path)
    load_task(args.model_path, "seq_cls")

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        command = [args.python, "-c", CLUSTER, str(args.nodes), str(args.cores)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=bench.environment, text=True, **pipes) as cluster:
            about = json.loads(cluster.stdout.readline())
            address = about.pop("address")
            times = {"infer_cpu.py": [], "infer_ray.py": []}
            for number in range(args.rounds):
                times["infer_cpu.py"].append(bench.direct())
                seconds, samples = bench.ray(address, cluster, f"round_{number}")
                times["infer_ray.py"].append(seconds)
            killed, killed_samples = bench.ray(address, cluster, "killed", ("worker", "driver"))
        checks = {name: bench.compare(name) for name in (f"round_{args.rounds - 1}", "killed")}

    speeds = {name: args.texts / statistics.median(found) for name, found in times.items()}
    ratio, growth = speeds["infer_ray.py"] / speeds["infer_cpu.py"], growth_of(samples)
    machine = {"processor": processor_kind(), "cores": usable_cores(), **about}
    settings = {
        name: getattr(args, name) for name in ("texts", "nodes", "cores", "num_threads", "block_size", "rounds")
    }
    results = {
        "settings": settings, "machine": machine, "seconds": times, "texts/s": speeds, "ratio": ratio,
        "seconds with kills": killed, "checks": checks, "growth of memory": growth,
        "memory": samples, "memory with kills": killed_samples,
    }  # fmt: skip
    harness.write_results(args.output, results, *tables_of(results))
    rows_wrong = sum(
        found[name] for found in checks.values() for name in ("out of order, lost or doubled", "label differs")
    )
    sys.exit(rows_wrong > 0 or (growth or 0) > GROWTH)


def tables_of(results):
    settings, machine = results["settings"], results["machine"]
    nodes = f"{settings['nodes']} nodes of {settings['cores']} cores, {settings['num_threads']} threads per process"
    here = f"{machine['cores']} cores of {machine['processor']}; Ray {machine['ray']}, Python {machine['python']}"
    yield f"{settings['texts']:,} texts, {nodes}, blocks of {settings['block_size']:,} KiB; {here}"
    clean, killed = results["checks"].values()
    direct = results["texts/s"]["infer_cpu.py"]
    speed_with_kills = settings["texts"] / results["seconds with kills"]
    rows = []
    for name, speed, check in (
        ("`infer_cpu.py` in processes", direct, {}),
        ("`infer_ray.py`", results["texts/s"]["infer_ray.py"], clean),
        ("`infer_ray.py`, a worker and the driver killed", speed_with_kills, killed),
    ):
        *counts, difference = [*check.values()] or ["", "", ""]
        rows.append([name, f"{speed:,.0f}", f"{speed / direct:.2f}", *counts, difference and f"{difference:.1e}"])
    header = ["", "Texts/s", "Times infer_cpu.py", "Rows lost, doubled or out of order", "Labels that differ"]
    yield harness.markdown([*header, "Confidences differ by at most"], rows)
    rows = []
    for done in (0.1, 0.25, 0.5, 0.75, 0.9):
        rows.append([f"{100 * done:.0f}%"])
        for name in ("memory", "memory with kills"):
            later = [sample["MB"] for sample in results[name] if sample["done"] >= done]
            rows[-1].append(f"{later[0]:,.0f}" if later else "")
    yield harness.markdown(["Blocks done", "Memory of the driver and the cluster, MB", "The same, with kills"], rows)
    if results["growth of memory"] is not None:
        yield f"memory from the second quarter to the last: {100 * results['growth of memory']:+.1f}%"


if __name__ == "__main__":
    main()
