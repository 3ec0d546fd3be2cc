"""What the clients of servers share: the texts that a command line names, and a dev set with requests in flight."""

import collections
import contextlib
import importlib
import queue
import sys
import threading
import time

from tqdm import tqdm

from .data_files import check_labels, read_dev_set, score
from .errors import PredictorError
from .tasks import TASKS


def check_texts(parser, args, task):
    """Ends with a usage error where a command line names neither, or both, of one item and a dev set.

    Args:
        parser: an `argparse.ArgumentParser`.
        args: its result, with `dataset`, `data_dir`, and a value or None for each text of the task.
        task: a class of `tasks.TASKS`.
    """
    fields = task.text_names()
    if bool(args.dataset) != bool(args.data_dir):
        parser.error("--dataset and --data_dir belong together: DATA_DIR/<dataset>/ holds the dev set")
    named = [field for field in fields if getattr(args, field) is not None]
    if args.dataset and named:
        parser.error(f"--dataset sends a dev set, --{named[0]} one text: leave one of them out")
    missing = [field for field in fields if field not in named and (field == task.first or task.second_required)]
    if named and missing:
        parser.error(f"--{named[0]} needs --{missing[0]}")


def score_dev_set(task_name, args, ask, check):
    """Sends a dev set, prints score and speed, and returns the answers.

    Args:
        task_name: a key of `TASKS`.
        args: `dataset`, `data_dir`, `batch_size` and `concurrency` of the command line.
        ask: a function of a list of items that returns their answers, as the predictor gives them; called by several
            threads at once.
        check: a function that raises PredictorError where the server cannot be asked, else returns the model's labels,
            or None where they are not known.

    Raises:
        PredictorError: a request failed; says which texts it held.
    """
    for package in TASKS[task_name].packages_to_score:  # if one is missing, that is said before anything is sent
        importlib.import_module(package)
    items, gold = read_dev_set(task_name, args.data_dir, args.dataset)
    if labels := check():
        check_labels(task_name, gold, labels)
    elif TASKS[task_name].has_labels:
        print("the server does not name the model's labels: those it does not know count as errors", file=sys.stderr)
    batches = [items[begin : begin + args.batch_size] for begin in range(0, len(items), args.batch_size)]
    answers = [None] * len(batches)
    start = time.perf_counter()
    with tqdm(total=len(items), unit=" texts", disable=None) as bar:
        for number, part in _in_flight(ask, batches, args.concurrency):
            answers[number] = part
            bar.update(len(part))
    seconds = time.perf_counter() - start
    answers = [answer for part in answers for answer in part]
    print(f"{args.dataset}: {len(items):,} texts in {len(batches):,} requests, {args.concurrency} in flight")
    for name, value in score(task_name, answers, gold).items():
        print(f"{name}: {value}")
    print(f"{len(items) / seconds:.1f} texts/s, {len(batches) / seconds:.1f} requests/s", flush=True)
    return answers


def _in_flight(ask, batches, concurrency):
    """Yields (number of a batch, its answers) as they come, with several requests in flight.

    Raises:
        PredictorError: a request failed; says which texts it held.
    """
    waiting, done = collections.deque(enumerate(batches)), queue.SimpleQueue()

    def work():
        with contextlib.suppress(IndexError):
            while True:
                number, batch = waiting.popleft()
                try:
                    done.put((number, ask(batch)))
                except Exception as e:
                    done.put((number, e))

    # Daemons, so that neither an error nor Ctrl-C waits for what is in flight.
    for _ in range(min(concurrency, len(batches))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in batches:
            number, answers = done.get()
            if isinstance(answers, PredictorError):
                first = sum(map(len, batches[:number])) + 1
                raise PredictorError(f"texts {first:,} to {first + len(batches[number]) - 1:,}: {answers}")
            if isinstance(answers, Exception):
                raise answers
            yield number, answers
    finally:
        waiting.clear()
