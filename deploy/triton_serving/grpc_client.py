"""What the three clients share: requests over gRPC with retries, a dev set with several requests in flight, flags."""

import argparse
import contextlib
import json
import os
import sys
import threading
import time

import numpy as np
import tritonclient.grpc as grpcclient
from tqdm import tqdm
from tritonclient.utils import InferenceServerException

# deploy/ is copied as a whole, or these two folders of it: the predictor's package is used by path.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "predictor"))

from ernie_predictor import PredictorError
from ernie_predictor.client import check_texts, score_dev_set
from ernie_predictor.commandline import HelpFormatter, open_output, positive, run, stop, whole_number
from ernie_predictor.tasks import TASKS


class Client:
    """Asks one model of a Triton server; may be shared by threads.

    Args:
        url: of the server's gRPC, such as 127.0.0.1:8001.
        model: its name.
        task_name: of the predictor.
        timeout: seconds to wait for an answer.
        retries: how often a request is sent again after a full queue, a lost connection, or to a server that stops.

    Attributes:
        truncated: number of texts that the server has truncated so far.
    """

    def __init__(self, url, model, task_name, timeout=60.0, retries=10):
        self.url, self.model, self.timeout, self.retries = url, model, timeout, retries
        self.truncated = 0
        self.task = TASKS[task_name]
        self.inputs = [name.upper() for name in self.task.text_names()]
        self._said, self._lock = False, threading.Lock()
        self._client = grpcclient.InferenceServerClient(url)

    def check(self):
        """What prepare_models.py wrote down of the model for clients, of a server that is ready.

        Returns:
            {"labels": list, "text_pair": whether a classifier takes pairs}, without those that it did not.

        Raises:
            PredictorError: the server or the model is not ready, or the model is not one of the task.
        """
        try:
            ready = self._client.is_server_ready(client_timeout=self.timeout)
            if not ready or not self._client.is_model_ready(self.model):
                # Its metadata says whether there is such a model; the list of all is for administrators only.
                self._client.get_model_metadata(self.model)
                raise PredictorError(f"{self.url}: {self.model} is not ready")
            found = [tensor.name for tensor in self._client.get_model_metadata(self.model).inputs]
            parameters = self._client.get_model_config(self.model).config.parameters
        except InferenceServerException as e:
            if "has no available versions" in e.message():
                raise PredictorError(f"{self.url}: {self.model} is not ready") from None
            if "NOT_FOUND" in str(e.status()):
                raise PredictorError(f"no model {self.model} at {self.url}; name another one with --model") from None
            raise PredictorError(
                f"no Triton server answers gRPC at {self.url} ({e.message()}); start one with: python run_triton.py "
                "MODEL_REPOSITORY"
            ) from None
        if found != self.inputs:
            raise PredictorError(f"{self.model} takes {', '.join(found)}; this client sends {', '.join(self.inputs)}")
        return {
            name: json.loads(parameters[name].string_value) for name in ("labels", "text_pair") if name in parameters
        }

    def ask(self, items):
        """The answers to items, texts or tuples of texts, as the predictor gives them.

        Raises:
            PredictorError: there are none; says why.
        """
        columns = zip(*((item,) if isinstance(item, str) else item for item in items))
        tensors = []
        for name, column in zip(self.inputs, columns):
            values = np.array([[text.encode("utf-8")] for text in column], dtype=np.object_)
            tensors.append(grpcclient.InferInput(name, list(values.shape), "BYTES"))
            tensors[-1].set_data_from_numpy(values)
        for attempt in range(self.retries + 1):
            try:
                result = self._client.infer(self.model, tensors, client_timeout=self.timeout)
            except InferenceServerException as e:
                failure = f"{self.url}: {e.message()}"
                # The second is what a server says that has stopped its models and not yet its ports.
                if "UNAVAILABLE" not in str(e.status()) and "has no available versions" not in e.message():
                    raise PredictorError(failure) from None
            else:
                truncated = result.as_numpy("truncated")  # None: named entities are found in texts of any length
                with self._lock:
                    self.truncated += 0 if truncated is None else int(truncated.sum())
                return self._answers(result)
            if attempt < self.retries:
                self.say(f"{failure}; trying again")
                time.sleep(min(0.25 * 2**attempt, 5))
        raise PredictorError(f"{failure} (tried {self.retries + 1} times)")

    def _answers(self, result):
        """A response in the predictor's form."""
        names = [name for name in self.task.triton_tensors if name != "truncated"]
        rows = zip(*(result.as_numpy(name).tolist() for name in names))
        rows = ([value.decode("utf-8") if isinstance(value, bytes) else value for value in row] for row in rows)
        return [self.task.from_tensors(dict(zip(names, row))) for row in rows]

    def say(self, message):
        """Prints the first of the warnings on standard error."""
        with self._lock:
            first, self._said = not self._said, True
        if first:
            tqdm.write(f"warning: {message}", file=sys.stderr)


def main(*arguments):
    """Runs a client; the arguments are those of `ask_server`. What a user can fix ends in one message."""
    run(lambda: ask_server(*arguments), "requirements_client.txt")


def ask_server(task_name, model, about):
    """Sends what the command line says, and prints answers or a score.

    Args:
        task_name: a key of `TASKS`.
        model: the default of --model.
        about: what --help says first.
    """
    task = TASKS[task_name]
    fields = task.text_names()
    args = parse(task, model, fields, about)
    client = Client(args.url, args.model, task_name, args.timeout, args.retries)
    with contextlib.nullcontext() if args.output is None else open_output(args.output) as sink:
        if args.dataset:
            answers = score_dev_set(task_name, args, client.ask, lambda: client.check().get("labels"))
        else:
            examples = task.pair_examples if client.check().get("text_pair") else task.examples
            named = tuple(text for text in (getattr(args, field) for field in fields) if text is not None)
            answers = []
            for item in [named] if named else examples:
                answers += client.ask([item])
                texts = (item,) if isinstance(item, str) else item
                print(" | ".join(texts), *task.lines(answers[-1]), sep="\n    ", flush=True)
        if sink:
            sink.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    if client.truncated:
        print(f"{client.truncated:,} of {len(answers):,} texts were truncated", file=sys.stderr)


def parse(task, model, fields, about):
    parser = argparse.ArgumentParser(description=about, formatter_class=HelpFormatter)
    parser.error = lambda message: stop(message, 2)  # one message, without the list of all flags
    add = parser.add_argument
    add("--url", metavar="HOST:PORT", default="127.0.0.1:8001", help="the server's gRPC address")
    add("--model", metavar="NAME", default=model, help="name of the model")
    for field in fields:
        add(f"--{field}", metavar="TEXT", help="(default: built-in examples)" if field == fields[0] else None)
    add("--dataset", metavar="NAME", help="send the dev set of this name and print its score")
    add("--data_dir", metavar="DIR", help="has <dataset>/dev.json, for NER dev.tsv or test.tsv")
    add("--output", metavar="FILE", help="for the answers as JSON lines, written when all have arrived")
    add("--batch_size", metavar="N", type=positive, default=32, help="texts per request, at most 64")
    add("--concurrency", metavar="N", type=positive, default=8, help="requests in flight")
    add("--timeout", metavar="N", type=positive, default=60, help="seconds to wait for an answer")
    add("--retries", metavar="N", type=whole_number, default=10, help="how often a request is sent again: the queue is "
        "full, the server stops, or the connection is lost")  # fmt: skip
    args = parser.parse_args()
    if "://" in args.url or ":" not in args.url:
        parser.error(f"--url {args.url}: expected host:port of gRPC, such as 127.0.0.1:8001")
    check_texts(parser, args, task)
    return args
