"""The clients' command line: one text, built-in examples, or a dev set and its score."""

import argparse
import contextlib
import json
import os
import sys
from urllib.parse import urlsplit

from ernie_predictor.client import check_texts, score_dev_set
from ernie_predictor.commandline import HelpFormatter, open_output, positive, run, stop, whole_number
from ernie_predictor.tasks import TASKS

from .client import Client

PARAMETERS = {
    "max_seq_len": "at most N tokens per text",
    "doc_stride": "tokens from window to window",
    "max_answer_length": "at most N tokens per answer",
    "n_best_size": "at most N answers in `n_best`",
}


def main(*arguments):
    """Runs a client; the arguments are those of `ask_server`. What a user can fix ends in one message."""
    run(lambda: ask_server(*arguments), "requirements_client.txt")


def ask_server(task_name, model, read_answers, about):
    """Sends what the command line says, and prints answers or a score.

    Args:
        task_name: a key of `TASKS`.
        model: the default of --model.
        read_answers: a function of `result` that returns the answers as the predictor gives them.
        about: what --help says first.
    """
    task = TASKS[task_name]
    fields = task.text_names()
    parameters = [name for name in PARAMETERS if name == "max_seq_len" or name in task.defaults]
    args = _parse(task, model, parameters, fields, about)
    client = Client(
        args.url, args.model, f"server_{task_name}.py", args.timeout, args.retries, args.api_key, args.concurrency
    )
    given = {name: getattr(args, name) for name in parameters if getattr(args, name) is not None}

    def ask(items):
        """Answers of one request."""
        data = dict(zip(fields, map(list, zip(*map(_texts, items)))))
        result = client.ask(data, given)
        try:
            answers = read_answers(result)
        except (KeyError, TypeError, ValueError):
            raise client.unlike() from None
        if len(answers) != len(items):
            raise client.unlike()
        return answers

    with contextlib.nullcontext() if args.output is None else open_output(args.output) as sink:
        if args.dataset:
            # No labels while the model is being opened.
            answers = score_dev_set(task_name, args, ask, lambda: client.info().get("labels"))
        else:
            named = tuple(text for text in (getattr(args, field) for field in fields) if text is not None)
            examples = task.examples
            if task.pair_examples and not named and client.info_when_open().get("text_pair") is not False:
                examples = task.pair_examples
            answers = []
            for item in [named] if named else examples:
                answers += ask([item])
                print(" | ".join(_texts(item)), *task.lines(answers[-1]), sep="\n    ", flush=True)
        if sink:
            sink.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    if client.truncated:
        print(f"{client.truncated:,} of {len(answers):,} texts were truncated", file=sys.stderr)


def _texts(item):
    """The texts of an item, which is a text or a tuple of texts."""
    return item if isinstance(item, tuple) else (item,)


def _parse(task, model, parameters, fields, about):
    parser = argparse.ArgumentParser(description=about, usage="python %(prog)s [...]", formatter_class=HelpFormatter)
    parser.error = lambda message: stop(message, 2)  # one message, without the list of all flags
    add = parser.add_argument_group("Server").add_argument
    add("--url", default="http://127.0.0.1:8189", help="its address")
    add("--model", metavar="NAME", default=model, help="of its route, /models/NAME")
    add("--api_key", metavar="KEY", default=os.environ.get("API_KEY"), help="(default: API_KEY in the environment)")
    add("--timeout", metavar="N", type=_seconds, default=60.0, help="seconds to wait for an answer")
    add("--retries", metavar="N", type=whole_number, default=10, help="how often a request is sent again to a full or "
        "starting server, or after a lost connection")  # fmt: skip
    add = parser.add_argument_group("Texts and answers").add_argument
    for field in fields:
        add(f"--{field}", metavar="TEXT", help="(default: built-in examples)" if field == fields[0] else None)
    add("--dataset", metavar="NAME", help="send its dev set and print the score")
    add("--data_dir", metavar="DIR", help="has <dataset>/dev.json, for NER dev.tsv or test.tsv")
    add("--output", metavar="FILE", help="for the answers as JSON lines, written when all have arrived")
    for name in parameters:
        add(f"--{name}", metavar="N", type=positive, help=f"{PARAMETERS[name]} (default: the server's)")
    add = parser.add_argument_group("Speed").add_argument
    add("--batch_size", metavar="N", type=positive, default=32, help="texts per request")
    add("--concurrency", metavar="N", type=positive, default=8, help="requests in flight")
    args = parser.parse_args()
    try:
        parts = urlsplit(args.url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good:
        parser.error(f"--url {args.url}: expected an address such as http://127.0.0.1:8189")
    check_texts(parser, args, task)
    return args


def _seconds(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds, more than 0")
    return seconds
