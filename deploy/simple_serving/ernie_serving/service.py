"""One model behind a queue: items and parameters in, answers out. Knows no HTTP."""

import asyncio
import concurrent.futures
import copy
import os
import time
from dataclasses import dataclass

from ernie_predictor import PredictorError, open_folder
from ernie_predictor.derived_models import quantized_form
from ernie_predictor.machine import usable_cores

from .batcher import Batcher, Closed, ModelFailed, QueueFull, TimedOut
from .errors import ApiError, too_large, wrong_field

# What a request may set: the names of PaddleNLP's clients, with the least value and what they set in the task.
PARAMETERS = {
    "max_seq_len": 8,
    "batch_size": 1,
    "doc_stride": 1,
    "max_answer_length": 1,
    "n_best_size": 1,
}


@dataclass
class Answers:
    """Answers of a request, and where its time went (seconds)."""

    answers: list
    tokens: int
    tokenize_seconds: float
    queue_seconds: float
    model_seconds: float


class Service:
    """A model folder that answers requests.

    Args:
        name: of the model.
        settings: `Settings`.
        metrics: `Metrics`, or None.
    """

    def __init__(self, name, settings, metrics=None):
        self.name, self.settings = name, settings
        precision = settings.precision_mode or _precision_of(settings.model_path)
        threads = settings.num_threads or usable_cores()
        self.task, self.model = open_folder(
            settings.model_path,
            backend=settings.backend,
            precision_mode=precision,
            num_threads=threads,
            batch_size=settings.max_batch_size,
            max_seq_length=settings.max_seq_length,
            cache_dir=settings.cache_dir,
        )
        self.precision_mode, self.threads = precision, threads
        self.batcher = Batcher(
            self.model,
            self.task.tokenizer.pad,
            max_batch_tokens=settings.max_batch_tokens,
            max_batch_size=settings.max_batch_size,
            max_wait=settings.max_wait_ms / 1000,
            max_queue_tokens=settings.max_queue_tokens,
            sort=settings.sort_by_length,
            on_batch=metrics and metrics.for_batches(name),
        )
        # Tokenizing and reading answers: on threads of their own, so that the event loop does neither.
        self.workers = concurrent.futures.ThreadPoolExecutor(max(2, threads), "ernie_service")
        self.numbers = {label: number for number, label in self.task.id2label.items()}

    def warm_up(self):
        """Runs a few lengths once, so that the first request does not wait for kernels to be made."""
        longest = self.task.max_seq_length
        for length in sorted({16, 32, 64, longest}):
            ids = [self.task.tokenizer.cls_id] * min(length, longest)
            self.batcher.submit([(ids, [0] * len(ids))]).future.result(timeout=600)

    def check(self, items):
        """`task.check` of each item, and the limits of their sizes.

        Raises:
            ApiError: says which item, and why.
        """
        if len(items) > self.settings.max_texts:
            raise too_large("texts of a request", self.settings.max_texts, len(items))
        pairs = []
        for index, item in enumerate(items):
            try:
                pair = self.task.check(item)
            except PredictorError as e:
                raise wrong_field(f"item {index}: {e}") from None
            longest = max(len(pair.first), len(pair.second or ""))
            if longest > self.settings.max_characters:
                raise too_large(f"characters of item {index}", self.settings.max_characters, longest)
            pairs.append(pair)
        return pairs

    def task_with(self, parameters):
        """The task with a request's parameters; (task, batch_size or None).

        Raises:
            ApiError: a parameter is unknown, or its value does not fit.
        """
        values = {}
        for name, value in (parameters or {}).items():
            if value is None or name in ("is_split_into_words", "return_attention_mask"):
                continue  # sent by published clients; the first is told from the text itself
            if name not in PARAMETERS:
                raise wrong_field(f"parameters: unknown {name!r:.60}; known are {', '.join(PARAMETERS)}")
            if not isinstance(value, int) or isinstance(value, bool) or value < PARAMETERS[name]:
                raise wrong_field(
                    f"parameters.{name} is {value!r:.40}, expected a whole number, {PARAMETERS[name]} or more"
                )
            values[name] = value
        batch_size = values.pop("batch_size", None)
        if not values:
            return self.task, batch_size
        task = copy.copy(self.task)
        # Beyond what the model was trained with, or opened for, nothing is gained.
        task.max_seq_length = min(values.pop("max_seq_len", task.max_seq_length), task.max_seq_length)
        task.params = {name: values.get(name, value) for name, value in task.params.items()}
        return task, batch_size

    async def answer(self, items, parameters=None):
        """Answers to a request's items, as the predictor gives them.

        Raises:
            ApiError: 413, 422, 429, 503 or 504; or 500, where the model fails.
        """
        deadline = time.monotonic() + self.settings.timeout_s
        task, batch_size = self.task_with(parameters)
        loop = asyncio.get_running_loop()
        begin = time.monotonic()
        pairs = await loop.run_in_executor(self.workers, self.check, items)
        features, notes = await loop.run_in_executor(self.workers, task.tokenize, pairs)
        tokenized = time.monotonic()
        try:
            job = self.batcher.submit(features, batch_size, deadline)
        except QueueFull as e:
            raise ApiError(429, "overloaded", str(e), e.retry_after) from None
        except Closed as e:
            raise ApiError(503, "unavailable", str(e), 5) from None
        try:
            # A client that goes away cancels this, and with it what has not run yet.
            outputs = await asyncio.wait_for(
                asyncio.wrap_future(job.future), max(0.0, deadline - time.monotonic()) + 1.0
            )
        except (TimedOut, asyncio.TimeoutError):
            raise ApiError(504, "timeout", f"the request waited for more than {self.settings.timeout_s:g} s") from None
        except ModelFailed as e:
            raise ApiError(500, "model_failed", str(e)) from None
        answers = await loop.run_in_executor(self.workers, task.read, pairs, notes, outputs)
        return Answers(answers, job.tokens, tokenized - begin, job.queue_seconds or 0.0, job.model_seconds)

    def close(self, timeout):
        """Answers what is queued; returns whether all of it was."""
        return self.batcher.close(timeout)


def _precision_of(model_path):
    """int8 for a folder whose model is, else fp32."""
    path = os.path.join(model_path, "model.onnx")
    return "int8" if os.path.isfile(path) and quantized_form(path) else "fp32"
