"""One model behind a queue: items and parameters in, answers out. Knows no HTTP."""

import asyncio
import concurrent.futures
import copy
import time
from dataclasses import dataclass

from ernie_predictor import PredictorError, open_folder

from .batcher import Batcher, Closed, ModelFailed, QueueFull, TimedOut
from .errors import ApiError, too_large, unavailable, wrong_field

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
    """Answers of a request, how many of its texts were truncated, and where its time went (seconds).

    Attributes:
        warnings: sentences for the client.
        truncated: number of texts that were truncated.
        tokens: of all texts, without padding.
    """

    answers: list
    warnings: list
    truncated: int
    tokens: int
    tokenize_seconds: float
    queue_seconds: float
    model_seconds: float


class Service:
    """A model folder that answers requests.

    Args:
        model: a `ModelFolder`.
        settings: `Settings`.
        metrics: `Metrics`.
        turn: a lock held while a batch runs, shared by the models that share the cores.
    """

    def __init__(self, model, settings, metrics, turn):
        self.name, self.settings = model.name, settings
        threads = settings.threads
        self.task, self.model = open_folder(
            model.folder,
            task_name=model.route.task,
            backend=settings.backend,
            precision_mode=settings.precision_mode,
            num_threads=threads,
            batch_size=settings.max_batch_size,
            max_seq_length=settings.max_seq_length,
            cache_dir=settings.cache_dir,
        )
        self.threads = threads

        def run(batch):
            with turn:
                return self.model(batch)

        self.batcher = Batcher(
            run,
            self.task.tokenizer.pad,
            max_batch_tokens=settings.max_batch_tokens,
            max_batch_size=settings.max_batch_size,
            max_wait=settings.max_wait_ms / 1000,
            max_queue_tokens=settings.max_queue_tokens,
            sort=settings.sort_by_length,
            on_batch=metrics.for_batches(model.name),
            on_queue=metrics.for_queue(model.name),
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

    def tokenize(self, task, items):
        """(pairs, features, notes) of items that fit."""
        pairs = self.check(items)
        return pairs, *task.tokenize(pairs)

    def task_with(self, parameters):
        """The task with a request's parameters.

        Returns:
            (task, batch_size or None, warnings). The task is a copy, which counts what it truncates.

        Raises:
            ApiError: a parameter is unknown, or its value does not fit.
        """
        values = {}
        for name, value in (parameters or {}).items():
            if value is None or name in ("is_split_into_words", "return_attention_mask"):
                continue  # sent by published clients; the first is told from the text itself
            if name not in PARAMETERS:
                raise wrong_field(f"parameters: unknown {name!r:.60}; known are {', '.join(PARAMETERS)}")
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # JSON has one kind of number
            if not isinstance(value, int) or isinstance(value, bool) or value < PARAMETERS[name]:
                raise wrong_field(
                    f"parameters.{name} is {value!r:.40}, expected a whole number, {PARAMETERS[name]} or more"
                )
            values[name] = value
        batch_size = values.pop("batch_size", None)
        task, warnings = copy.copy(self.task), []
        task.truncated = 0
        length = values.pop("max_seq_len", task.max_seq_length)
        if length > task.max_seq_length:
            warnings.append(f"max_seq_len {length} is more than this model takes; {task.max_seq_length} is used")
            length = task.max_seq_length
        task.max_seq_length = length
        if unused := values.keys() - task.params.keys():
            warnings.append(f"{', '.join(sorted(unused))}: not used by a {task.name} model")
        task.params = {name: values.get(name, value) for name, value in task.params.items()}
        return task, batch_size, warnings

    def info(self):
        """What `/info` shows of an open model."""
        return {
            "labels": list(self.task.id2label.values()),
            "engine": self.model.backend,
            "precision": self.model.precision_mode,
            "threads": self.threads,
            "max_seq_length": self.task.max_seq_length,
            **({"text_pair": self.task.text_pair} if self.task.name == "seq_cls" else {}),  # null: not known
        }

    async def answer(self, items, parameters=None):
        """Answers to a request's items, as the predictor gives them.

        Raises:
            ApiError: 413, 422, 429, 503 or 504; or 500, where the model fails.
        """
        deadline = time.monotonic() + self.settings.timeout_s
        task, batch_size, warnings = self.task_with(parameters)
        loop = asyncio.get_running_loop()
        begin = time.monotonic()
        self._submit(self.batcher.check_room)  # before the work of tokenizing: who is refused hears it soon
        pairs, features, notes = await loop.run_in_executor(self.workers, self.tokenize, task, items)
        tokenized = time.monotonic()
        job = self._submit(self.batcher.submit, features, batch_size, deadline)
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
        if summary := task.truncation_summary():
            warnings.append(summary)
        return Answers(
            answers,
            warnings,
            task.truncated,
            job.tokens,
            tokenized - begin,
            job.queue_seconds or 0.0,
            job.model_seconds,
        )

    def _submit(self, function, *arguments):
        """Calls a function of the queue; what it raises becomes an ApiError."""
        try:
            return function(*arguments)
        except QueueFull as e:
            raise ApiError(429, "overloaded", str(e), e.retry_after) from None
        except Closed as e:
            raise unavailable(str(e), 5) from None

    def close(self, timeout):
        """Answers what is queued; returns whether all of it was."""
        return self.batcher.close(timeout)
