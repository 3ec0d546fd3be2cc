"""One model behind a queue: items and parameters in, answers out. Knows no HTTP."""

import asyncio
import concurrent.futures
import copy
import time
from dataclasses import dataclass

from ernie_predictor import PredictorError, open_folder

from .batcher import Batcher, Closed, ModelFailed, QueueFull, TimedOut
from .errors import ApiError, timed_out, too_large, unavailable, wrong_field

# What a request may set: the names of PaddleNLP's clients, with the least and the largest value.
PARAMETERS = {
    "max_seq_len": (8, None),
    "batch_size": (1, None),
    "doc_stride": (1, None),  # and at least a quarter of max_seq_len
    "max_answer_length": (1, 256),
    "n_best_size": (1, 100),
}
MOST_ANSWERS = 20_480  # n_best_size times questions of a request: the default of 20 for 1,024 questions
LOOKAHEAD = 4  # batches that are taken from the queue and sorted at once


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
            task_name=model.route.task.name,
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
            lookahead=LOOKAHEAD,
            on_batch=metrics.for_batches(model.name),
            on_queue=metrics.for_queue(model.name),
        )
        # Tokenizing and reading answers: on threads of their own, so that the event loop does neither.
        self.workers = concurrent.futures.ThreadPoolExecutor(max(2, threads), "ernie_service")
        self._n_best_size = self.task.params.get("n_best_size", 0)

    def warm_up(self):
        """Runs a few lengths once, so that the first request does not wait for kernels to be made."""
        longest = self.task.max_seq_length
        for length in sorted({16, 32, 64, longest}):
            ids = [self.task.tokenizer.cls_id] * min(length, longest)
            self.batcher.submit([(ids, [0] * len(ids))]).future.result(timeout=600)

    def check(self, items):
        """`task.check` of each item.

        Raises:
            ApiError: says which item, and why.
        """
        pairs = []
        for index, item in enumerate(items):
            try:
                pairs.append(self.task.check(item))
            except PredictorError as e:
                raise wrong_field(f"item {index}: {e}") from None
        return pairs

    def check_sizes(self, items):
        """Raises ApiError, 413, where there are too many items, or one is too long."""
        if len(items) > self.settings.max_texts:
            raise too_large("texts of a request", self.settings.max_texts, len(items))
        for index, item in enumerate(items):
            longest = max(map(len, _texts(item)))
            if longest > self.settings.max_characters:
                raise too_large(f"characters of item {index}", self.settings.max_characters, longest)

    def tokenize(self, task, items):
        """(pairs, features, notes) of items."""
        pairs = self.check(items)
        return pairs, *task.tokenize(pairs)

    def parts(self, task, items):
        """[(items, estimated tokens)]: what is tokenized and queued at once, as much as the queue takes at once.

        So large requests take turns, and none needs memory for more than a part. A character is taken for a token,
        which is in as many windows of a long text as overlap.
        """
        overlap = task.overlap()
        tokens = LOOKAHEAD * self.settings.max_batch_tokens
        texts = LOOKAHEAD * self.settings.max_batch_size
        parts, part, size = [], [], 0
        for item in items:
            length = sum(map(len, _texts(item)))
            length *= overlap if length > task.max_seq_length else 1
            if part and (size + length > tokens or len(part) == texts):
                parts.append((part, size))
                part, size = [], 0
            part.append(item)
            size += length
        parts.append((part, size))
        return parts

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
            least, most = PARAMETERS[name]
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < least or (most is not None and value > most):
                expected = f"{least} or more" if most is None else f"{least} to {most}"
                raise wrong_field(f"parameters.{name} is {value!r:.40}, expected a whole number, {expected}")
            values[name] = value
        batch_size = values.pop("batch_size", None)
        task, warnings = copy.copy(self.task), []
        task.truncated = 0
        length = values.pop("max_seq_len", task.max_seq_length)
        if length > task.max_seq_length:
            warnings.append(f"max_seq_len {length!r:.40} is more than this model takes; {task.max_seq_length} is used")
            length = task.max_seq_length
        task.max_seq_length = length
        if unused := values.keys() - task.params.keys():
            warnings.append(f"{', '.join(sorted(unused))}: not used by a {task.name} model")
        if "doc_stride" in values and "doc_stride" in task.params:
            # With a shorter one, windows would hold each token many times.
            least = min(-(-length // 4), self.task.params["doc_stride"])
            if (stride := values["doc_stride"]) < least:
                raise wrong_field(
                    f"parameters.doc_stride is {stride}, expected {least} or more: a quarter of max_seq_len"
                )
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
            **{name: getattr(self.task, name) for name in self.task.facts},
        }

    async def answer(self, items, parameters=None):
        """Answers to a request's items, as the predictor gives them.

        Raises:
            ApiError: 413, 422, 429, 503 or 504; or 500, where the model fails.
        """
        self.check_sizes(items)
        deadline = time.monotonic() + self.settings.timeout_s
        task, batch_size, warnings = self.task_with(parameters)
        if len(items) * task.params.get("n_best_size", 0) > max(MOST_ANSWERS, len(items) * self._n_best_size):
            most = MOST_ANSWERS // len(items)
            raise wrong_field(f"parameters.n_best_size: for {len(items):,} questions it can be {most} at most")
        parts = self.parts(task, items)
        # Before the work of tokenizing: who is refused hears it soon, and who waits for that is counted.
        place = self._submit(self.batcher.admit, len(items), sum(size for _, size in parts))
        try:
            if len(parts) > 1:
                # One bad text refuses its whole request, before the first part is computed.
                pairs = await self._run(self.check, items)
                parts = self.parts(task, pairs)
                answers = await self._answer_parts(task, parts, place, batch_size, deadline)
            else:
                answers = await self._answer_part(task, *parts[0], place, batch_size, deadline)
        except TimedOut:
            raise timed_out(self.settings.timeout_s) from None
        except ModelFailed as e:
            raise ApiError(500, "model_failed", str(e)) from None
        finally:
            self.batcher.leave(place)
        task.truncated = answers.truncated
        if summary := task.truncation_summary():
            warnings.append(summary)
        answers.warnings = warnings
        return answers

    async def _answer_parts(self, task, parts, place, batch_size, deadline):
        """The `Answers` of a request's parts, one after another: a request needs memory for one of them."""
        all_of = None
        for items, size in parts:
            found = await self._answer_part(task, items, size, place, batch_size, deadline)
            if all_of is None:
                all_of = found
            else:
                all_of.answers += found.answers
                all_of.tokens += found.tokens
                all_of.tokenize_seconds += found.tokenize_seconds
                all_of.model_seconds += found.model_seconds
        all_of.truncated = task.truncated
        return all_of

    async def _answer_part(self, task, items, size, place, batch_size, deadline):
        """The `Answers` of a part."""
        begin = time.monotonic()
        pairs, features, notes = await self._run(self.tokenize, task, items)
        seconds = time.monotonic() - begin
        job = self._submit(self.batcher.submit, features, batch_size, deadline, place, len(items), size)
        # A client that goes away cancels this, and with it what has not run yet.
        outputs = await asyncio.wrap_future(job.future)
        answers = await self._run(task.read, pairs, notes, outputs)
        return Answers(answers, [], task.truncated, job.tokens, seconds, job.queue_seconds or 0.0, job.model_seconds)

    def _run(self, function, *arguments):
        return asyncio.get_running_loop().run_in_executor(self.workers, function, *arguments)

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


def _texts(item):
    """The texts of an item, as `Route.read_data` gives it, or a `Pair`."""
    return (item,) if isinstance(item, str) else [text for text in item if text is not None]
