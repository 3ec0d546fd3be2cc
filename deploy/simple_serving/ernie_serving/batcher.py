"""A queue for one model: the texts of all requests, in batches of similar length.

Texts are taken in the order in which they came, a few batches' worth at once, sorted by length, and cut by a budget of
tokens, so that a long text never pads thirty short ones. All that was taken runs before more is taken, so no text
is overtaken for longer than that. What a large request has beyond its first batch waits in a second queue, which
gives way to the first after each batch: a small request waits for one batch of the large ones, not for all of them,
and the large ones get on by one batch, at least, each time. Knows no HTTP: `Batcher` serves any program with a task
and a model.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import logging
import threading
import time

import numpy as np
from ernie_predictor.batching import token_batches

logger = logging.getLogger("ernie_serving")


class QueueFull(Exception):
    """There is no room for a request now.

    Attributes:
        retry_after: seconds after which there should be.
    """

    def __init__(self, message, retry_after):
        super().__init__(message)
        self.retry_after = retry_after


class TimedOut(Exception):
    """A request waited for longer than it may."""


class Closed(Exception):
    """The queue takes no more requests: the server is about to stop."""


class ModelFailed(Exception):
    """The model could not run a text; the reason is in the log."""


class Place:
    """What a request is going to queue: it counts as waiting before it is tokenized.

    Attributes:
        texts, tokens: what has not been submitted; of tokens, the caller's estimate.
        early: tokens that it may still put into the first queue.
        later: of `tokens`, those beyond.
    """

    def __init__(self, early):
        self.texts = self.tokens = self.later = 0
        self.early = early


class Job:
    """The features of one request on their way through the model.

    Attributes:
        future: of the outputs, a list with a tuple of arrays for each feature, in order. Cancelled, what has not run
            yet leaves the queue.
        tokens: of all features, without padding.
        queue_seconds: from its arrival to its first batch.
        model_seconds: of the batches in which it was.
    """

    def __init__(self, features, batch_size, deadline):
        self.features, self.batch_size, self.deadline = features, batch_size, deadline
        self.future = concurrent.futures.Future()
        self.tokens = sum(len(ids) for ids, _ in features)
        self.arrived = time.monotonic()
        self.queue_seconds = None
        self.model_seconds = 0.0
        self._outputs = [None] * len(features)
        self._missing = len(features)

    def is_over(self):
        """Whether nobody waits for the rest of it."""
        if self.future.done():
            return True
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.fail(TimedOut("the request waited too long for its turn"))
            return True
        return False

    def begin(self):
        if self.queue_seconds is None:
            self.queue_seconds = time.monotonic() - self.arrived

    def give(self, index, outputs):
        self._outputs[index] = outputs
        self._missing -= 1
        if self._missing == 0:
            self._end(lambda: self.future.set_result(self._outputs))

    def fail(self, error):
        self._end(lambda: self.future.set_exception(error))

    def _end(self, end):
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # cancelled in this moment
            end()


class Batcher:
    """Runs jobs through a model, in a thread of its own.

    Args:
        model: a function of a batch {"input_ids", "token_type_ids"}, int64 [batch, length] each, that returns the
            outputs, float arrays [batch, ...].
        pad: a function of a list of features, (input_ids, token_type_ids), that returns such a batch.
        max_batch_tokens: maximum tokens per batch, padding included; a longer text runs alone.
        max_batch_size: maximum texts per batch.
        max_wait: seconds that the first text waits for others when the model is free.
        max_queue_tokens: maximum tokens that wait; beyond, `admit` raises `QueueFull`.
        sort: whether what waits is sorted by length.
        lookahead: how many batches' worth is taken and sorted at once.
        on_batch: a function of (texts, tokens, padding, seconds), called after each batch.
        on_queue: a function of (texts, tokens), called when what waits has changed.
    """

    def __init__(
        self,
        model,
        pad,
        max_batch_tokens=4096,
        max_batch_size=64,
        max_wait=0.0,
        max_queue_tokens=262_144,
        sort=True,
        lookahead=4,
        on_batch=None,
        on_queue=None,
    ):
        self.model, self.pad = model, pad
        self.max_batch_tokens, self.max_batch_size = max_batch_tokens, max_batch_size
        self.max_wait, self.max_queue_tokens = max_wait, max_queue_tokens
        self.sort, self.lookahead, self.on_batch = sort, lookahead, on_batch
        self.on_queue = on_queue or (lambda texts, tokens: None)
        self.queued_tokens = self.queued_texts = 0
        self._tokens_per_second = None
        # (job, index of the feature, its tokens): the first batch of each request, and what large ones have beyond.
        self._first, self._later = collections.deque(), collections.deque()
        self._later_tokens = 0  # of `queued_tokens`
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ernie_batcher", daemon=True)
        self._thread.start()

    def admit(self, texts, tokens):
        """A `Place` for a request, which ends with `leave`.

        A request of any size fits an empty queue. One of a few batches has to wait only for the first batches of
        others, so what large ones have beyond does not keep it out.

        Raises:
            QueueFull: so many tokens do not fit in now.
            Closed: `close` was called.
        """
        with self._changed:
            if self._closed:
                raise Closed("the server is stopping")
            small = tokens <= self.lookahead * self.max_batch_tokens
            waiting = self.queued_tokens - (self._later_tokens if small else 0)
            if self.queued_texts and waiting + tokens > self.max_queue_tokens:
                raise QueueFull(
                    f"the queue is full: {waiting:,} of {self.max_queue_tokens:,} tokens wait, the request has "
                    f"{tokens:,} or more",
                    self._retry_after(),
                )
            place = Place(self.max_batch_tokens)
            self._change(place, texts, tokens)
            self._tell()
        return place

    def leave(self, place):
        """Gives back what a request did not submit."""
        if place.texts or place.tokens:
            with self._changed:
                self._change(place, -place.texts, -place.tokens)
                self._tell()

    def _change(self, place, texts, tokens):
        before = place.later
        place.texts += texts
        place.tokens += tokens
        place.later = max(place.tokens - max(place.early, 0), 0)
        self._count(texts, tokens, place.later - before)

    def _count(self, texts, tokens, later=0):
        self.queued_texts += texts
        self.queued_tokens += tokens
        self._later_tokens += later

    def _tell(self):
        self.on_queue(self.queued_texts, self.queued_tokens)

    def submit(self, features, batch_size=None, deadline=None, place=None, texts=0, tokens=0):
        """Queues the features of a request, or of a part of it.

        Args:
            features: [(input_ids, token_type_ids)], as a task's `tokenize` returns them.
            batch_size: maximum number of them per batch.
            deadline: `time.monotonic()` after which nobody waits for them.
            place: the request's; None: it gets one, for these features.
            texts, tokens: what these features were in the place's estimate.

        Returns:
            A `Job`.

        Raises:
            QueueFull: they do not fit in now.
            Closed: `close` was called.
        """
        job = Job(features, batch_size, deadline)
        if place is None:
            place, texts, tokens = self.admit(len(features), job.tokens), len(features), job.tokens
        with self._changed:
            if self._closed:
                raise Closed("the server is stopping")
            later = 0
            for index, (ids, _) in enumerate(features):
                early = place.early > 0
                (self._first if early else self._later).append((job, index, len(ids)))
                if early:
                    place.early -= len(ids)
                else:
                    later += len(ids)
            self._change(place, -texts, -tokens)
            self._count(len(features), job.tokens, later)
            self._tell()
            self._changed.notify_all()
        if not features:
            job.future.set_result([])
        return job

    def close(self, timeout=None):
        """Takes no more jobs, and waits until those that are queued have run. Returns whether they have."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def is_alive(self):
        return self._thread.is_alive()

    def _retry_after(self):
        """Whole seconds in which half of what waits should have run."""
        rate = self._tokens_per_second or self.max_queue_tokens
        return max(1, round(self.queued_tokens / 2 / rate))

    def _work(self):
        while (taken := self._take()) is not None:
            first, later = map(self._batches, taken)
            for batch in first:
                self._run(batch)
            for batch in later:
                self._run(batch)
                if self._first:
                    self._put_back(itertools.chain.from_iterable(later))

    def _take(self):
        """The texts that run next, of both queues, each in order of arrival; None when all is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._first or self._later or self._closed)
            if self.max_wait and not self._closed:
                first = (self._first or self._later)[0][0].arrived
                self._changed.wait_for(
                    lambda: self._closed or self.queued_tokens >= self.max_batch_tokens,
                    max(0.0, first + self.max_wait - time.monotonic()),
                )
            if not self._first and not self._later:
                return None
            taken = self._take_of(self._first), self._take_of(self._later)
            self._tell()
            return taken

    def _take_of(self, queue):
        taken, texts, tokens, over = [], 0, 0, 0
        while queue and (not taken or tokens < self.lookahead * self.max_batch_tokens):
            piece = queue.popleft()
            texts += 1
            if piece[0].is_over():
                over += piece[2]
            else:
                taken.append(piece)
                tokens += piece[2]
        self._count(-texts, -tokens - over, 0 if queue is self._first else -tokens - over)
        return taken

    def _put_back(self, pieces):
        """What was taken of the second queue, and has to wait longer."""
        with self._changed:
            pieces = list(pieces)
            self._later.extendleft(reversed(pieces))
            tokens = sum(length for _, _, length in pieces)
            self._count(len(pieces), tokens, tokens)
            self._tell()

    def _batches(self, pieces):
        """Cuts texts into batches by the budget of tokens; yields lists of (job, index, length)."""
        lengths = [length for _, _, length in pieces]
        limits = [(job, job.batch_size) for job, _, _ in pieces]
        for rows in token_batches(lengths, self.max_batch_tokens, self.max_batch_size, self.sort, limits):
            yield [pieces[row] for row in rows]

    def _run(self, batch):
        batch = [piece for piece in batch if not piece[0].is_over()]
        if not batch:
            return
        for job, _, _ in batch:
            job.begin()
        begin = time.monotonic()
        try:
            outputs = self._call(batch)
        except Exception:
            logger.exception("a batch of %d texts failed", len(batch))
            self._run_alone(batch)
            return
        seconds = time.monotonic() - begin
        tokens = sum(length for _, _, length in batch)
        padding = max(length for _, _, length in batch) * len(batch) - tokens
        rate = tokens / max(seconds, 1e-6)
        before = self._tokens_per_second
        self._tokens_per_second = rate if before is None else 0.9 * before + 0.1 * rate
        for job in {id(job): job for job, _, _ in batch}.values():
            job.model_seconds += seconds
        for (job, index, _), *row in zip(batch, *outputs):
            job.give(index, tuple(row))
        if self.on_batch is not None:
            self.on_batch(len(batch), tokens, padding, seconds)

    def _call(self, batch):
        outputs = self.model(self.pad([job.features[index] for job, index, _ in batch]))
        if not all(np.isfinite(array).all() for array in outputs):
            raise ValueError("the model gave outputs that are not a number, or infinite")
        return outputs

    def _run_alone(self, batch):
        """Runs each text of a failed batch alone, so that only the one that causes the failure gets an error."""
        for job, index, length in batch:
            if job.is_over():
                continue
            if len(batch) == 1:
                job.fail(ModelFailed("the model could not run this text"))
                continue
            try:
                outputs = self._call([(job, index, length)])
            except Exception:
                job.fail(ModelFailed("the model could not run this text"))
            else:
                job.give(index, tuple(array[0] for array in outputs))
