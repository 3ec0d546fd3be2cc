"""What Prometheus sees: requests, texts, batches and where time goes. Seconds and tokens are histograms.

With several workers, each process writes its values to a file of PROMETHEUS_MULTIPROC_DIR, and whichever worker is
scraped shows the sum of all (prometheus_client's multiprocess mode).
"""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """The metrics of one server process."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self):
        self.registry = CollectorRegistry()
        one = {"registry": self.registry}
        more = {**one, "labelnames": ["model"]}
        times = {"buckets": SECONDS, **more}
        now = {"multiprocess_mode": "livesum"}  # of the workers that are alive
        self.requests = Counter("ernie_requests", "Requests by route and status.", ["route", "status"], **one)
        self.failures = Counter("ernie_failures", "Requests that failed, by reason.", ["reason"], **one)
        self.texts = Counter("ernie_texts", "Texts answered.", **more)
        self.truncated = Counter("ernie_truncated_texts", "Texts that were truncated.", **more)
        self.in_flight = Gauge("ernie_requests_in_flight", "Requests that are being answered.", **now, **one)
        self.queue_texts = Gauge("ernie_queue_texts", "Texts that wait.", **now, **more)
        self.queue_tokens = Gauge("ernie_queue_tokens", "Tokens that wait.", **now, **more)
        self.total = Histogram("ernie_request_seconds", "From request to answer.", **times)
        self.queued = Histogram("ernie_queue_seconds", "From a request's arrival to its first batch.", **times)
        self.tokenized = Histogram("ernie_tokenize_seconds", "Tokenizing a request.", **times)
        self.computed = Histogram("ernie_model_seconds", "The model's part of a request.", **times)
        self.batch_texts = Histogram("ernie_batch_texts", "Texts per batch.", buckets=SIZES, **more)
        self.batch_tokens = Histogram("ernie_batch_tokens", "Tokens per batch, unpadded.", buckets=TOKENS, **more)
        self.padding = Counter("ernie_padding_tokens", "Padding of all batches.", **more)

    def for_batches(self, model):
        """What `Batcher` calls after each batch."""
        texts, tokens, padding = (m.labels(model) for m in (self.batch_texts, self.batch_tokens, self.padding))

        def on_batch(batch_texts, batch_tokens, batch_padding, seconds):
            texts.observe(batch_texts)
            tokens.observe(batch_tokens)
            padding.inc(batch_padding)

        return on_batch

    def for_queue(self, model):
        """What `Batcher` calls when what waits has changed."""
        texts, tokens = self.queue_texts.labels(model), self.queue_tokens.labels(model)

        def on_queue(waiting_texts, waiting_tokens):
            texts.set(waiting_texts)
            tokens.set(waiting_tokens)

        on_queue(0, 0)
        return on_queue

    def answered(self, model, answers, seconds):
        self.texts.labels(model).inc(len(answers.answers))
        self.truncated.labels(model).inc(answers.truncated)
        self.total.labels(model).observe(seconds)
        self.queued.labels(model).observe(answers.queue_seconds)
        self.tokenized.labels(model).observe(answers.tokenize_seconds)
        self.computed.labels(model).observe(answers.model_seconds)

    def text(self):
        """The metrics of all workers, in Prometheus' text format."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)
