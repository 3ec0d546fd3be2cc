"""Whether a server's memory stays flat: its resident size over 100,000 requests of every length.

python benchmarks/serving_soak.py --model_path best_models/tnews/export
python benchmarks/serving_soak.py --model_path best_models/cmrc2018/export --requests 20000 --data_dir DIR
python benchmarks/serving_soak.py --model_path best_models/tnews/export --triton      after `make triton`

The server is the one of the model's task; with --triton, it is Triton, and the sizes of all its processes are added up.
Most requests hold one text of 5 to 500 tokens, cut out of real texts of --data_dir; one in ten holds up to 8 texts, and
one in ten a text that is longer than the model takes. The exit status is 1 if the memory grows by more than 10% from
the second row of the table to the last, or if a request fails.
"""

import harness  # isort: skip  makes the project's packages importable

import asyncio
import collections
import random
import sys
import tempfile
import time
from pathlib import Path

from ernie_predictor import load_task
from harness import servers
from harness.servers import SERVERS, SERVING, TRITON_PYTHON, Connection, ServerProcess, Triton, mix_of, task_request

GROWTH = 0.10


def request_of(task, texts, generator, triton):
    """One request to the task's server or to its model in Triton, as bytes."""
    kind = generator.random()
    chosen = [generator.choice(texts) for _ in range(generator.randint(2, 8) if kind < 0.1 else 1)]
    if kind > 0.9:
        chosen = ["".join(generator.choice(texts) for _ in range(generator.randint(4, 16)))]
    questions = [["这是什么？"] * len(chosen)] if task == "qa" else []
    return task_request(task, *questions, chosen, triton=triton)


async def send(port, requests, clients):
    """{status or error: number} of requests, from several clients."""
    counts = collections.Counter()

    async def client():
        connection = Connection(port)
        for request in requests:
            try:
                status, _ = await connection.ask(request)
            except (OSError, EOFError) as e:
                status = type(e).__name__
            counts[status] += 1
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return counts


def main():
    parser = harness.parser(__doc__, "data_dir", "seed", clients=16)
    add = parser.add_argument
    add("--model_path", metavar="DIR", required=True, help="folder that run_*.py --do_export or compress_*.py wrote")
    add("--requests", metavar="N", type=int, default=100_000, help="in all")
    add("--every", metavar="N", type=int, default=10_000, help="requests per row of the table")
    add("--triton", action="store_true", help="the server is Triton, with the model that prepare_models.py makes")
    add("--python", metavar="FILE", default=TRITON_PYTHON, help="of the environment that `make triton` made")
    add("flags", nargs="*", help="of the server, or of prepare_models.py, after --: -- --precision_mode int8")
    args = parser.parse_args()
    if args.triton:
        servers.check_triton(parser, args.python)

    task = load_task(args.model_path)
    texts = mix_of(args.data_dir, task.tokenizer, 2000, seed=args.seed)
    generator = random.Random(args.seed)
    script, _ = SERVERS[task.name]
    name = "Triton" if args.triton else script
    print(f"{name}, {args.model_path}, {args.clients} clients; {harness.machine()}\n")
    print(harness.markdown(["requests", "resident, MB", "requests/s", "answers"], []))
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        if args.triton:
            servers.make_repository(args.python, args.model_path, Path(folder, "models"), args.flags)
            process = Triton(args.python, Path(folder, "models"), log)
        else:
            process = ServerProcess(
                [sys.executable, SERVING / script, "--model_path", args.model_path, *args.flags], log
            )
        with process as server:
            for begin in range(0, args.requests, args.every):
                number = min(args.every, args.requests - begin)
                requests = (request_of(task.name, texts, generator, args.triton) for _ in range(number))
                start = time.perf_counter()
                counts = asyncio.run(send(server.port, requests, args.clients))
                seconds = time.perf_counter() - start
                rows.append(server.memory() / 2**20)
                failed += sum(count for status, count in counts.items() if status != 200)
                answers = ", ".join(f"{count:,} x {status}" for status, count in counts.items())
                print(f"| {begin + number:,} | {rows[-1]:.1f} | {number / seconds:.0f} | {answers} |", flush=True)
    growth = rows[-1] / rows[min(1, len(rows) - 1)] - 1
    print(f"\nfrom the second row to the last: {100 * growth:+.1f}%; {failed:,} requests failed")
    sys.exit(growth > GROWTH or failed > 0)


if __name__ == "__main__":
    main()
