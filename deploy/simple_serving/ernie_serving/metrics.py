"""What Prometheus sees: requests, texts, batches and where time goes. Seconds and tokens are histograms."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """The metrics of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self):
        self.registry = CollectorRegistry()
        more = {"registry": self.registry, "labelnames": ["model"]}
        one = {"registry": self.registry}
        times = {"buckets": SECONDS, **more}
        self.requests = Counter("ernie_requests", "Requests by route and status.", ["route", "status"], **one)
        self.failures = Counter("ernie_failures", "Requests that failed, by reason.", ["reason"], **one)
        self.texts = Counter("ernie_texts", "Texts answered.", **more)
        self.in_flight = Gauge("ernie_requests_in_flight", "Requests that are being answered.", **one)
        self.total = Histogram("ernie_request_seconds", "From request to answer.", **times)
        self.queued = Histogram("ernie_queue_seconds", "From a request's arrival to its first batch.", **times)
        self.tokenized = Histogram("ernie_tokenize_seconds", "Tokenizing a request.", **times)
        self.computed = Histogram("ernie_model_seconds", "The model's part of a request.", **times)
        self.batch_texts = Histogram("ernie_batch_texts", "Texts of a batch.", buckets=SIZES, **more)
        self.batch_tokens = Histogram("ernie_batch_tokens", "Tokens of a batch, unpadded.", buckets=TOKENS, **more)
        self.padding = Counter("ernie_padding_tokens", "Padding of all batches.", **more)

    def for_batches(self, model):
        """What `Batcher` calls after each batch."""

        def on_batch(texts, tokens, padding, seconds):
            self.batch_texts.labels(model).observe(texts)
            self.batch_tokens.labels(model).observe(tokens)
            self.padding.labels(model).inc(padding)

        return on_batch

    def watch(self, model, batcher):
        """Shows how much waits for a model."""
        for name, about, value in (
            ("ernie_queue_texts", "Texts that wait.", lambda: batcher.queued_texts),
            ("ernie_queue_tokens", "Tokens that wait.", lambda: batcher.queued_tokens),
        ):
            Gauge(name, about, ["model"], registry=self.registry).labels(model).set_function(value)

    def answered(self, model, answers, seconds):
        self.texts.labels(model).inc(len(answers.answers))
        self.total.labels(model).observe(seconds)
        self.queued.labels(model).observe(answers.queue_seconds)
        self.tokenized.labels(model).observe(answers.tokenize_seconds)
        self.computed.labels(model).observe(answers.model_seconds)

    def text(self):
        return generate_latest(self.registry)
