"""The servers' queue: right answers, order, budget, back-pressure, failures, and who went away."""

import contextlib
import random
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "deploy" / "simple_serving"))

from ernie_serving.batcher import Batcher, Closed, ModelFailed, QueueFull, TimedOut


def pad(features):
    longest = max(len(ids) for ids, _ in features)
    return {"input_ids": np.array([ids + [0] * (longest - len(ids)) for ids, _ in features])}


class Model:
    """Sums a text's ids; can be held, and fails at an id of 13."""

    def __init__(self):
        self.shapes, self.gate = [], threading.Event()
        self.gate.set()

    def __call__(self, batch):
        assert self.gate.wait(30)
        self.shapes.append(batch["input_ids"].shape)
        if (batch["input_ids"] == 13).any():
            raise RuntimeError("bad luck")
        return [batch["input_ids"].sum(axis=1).astype("float32")]


def feature(length, value=1):
    return [value] * length, [0] * length


@pytest.fixture
def model():
    return Model()


def outputs(job):
    return [float(row[0]) for row in job.future.result(timeout=30)]


def test_many_threads_get_their_own_answers(model):
    batcher = Batcher(model, pad, max_batch_tokens=64, max_batch_size=8)
    wrong = []

    def client(seed):
        generator = random.Random(seed)
        for _ in range(50):
            lengths = [generator.choice((1, 3, 10, 50, 100)) for _ in range(generator.randrange(1, 6))]
            value = generator.randrange(20, 90)
            found = outputs(batcher.submit([feature(n, value) for n in lengths]))
            wrong.extend([] if found == [n * value for n in lengths] else [(lengths, found)])

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and batcher.queued_tokens == batcher.queued_texts == 0
    assert all(rows * columns <= 64 or rows == 1 for rows, columns in model.shapes)
    assert batcher.close(timeout=10)


def hold(batcher, model):
    """Keeps the model busy, so that what comes now waits together."""
    model.gate.clear()
    job = batcher.submit([feature(1)])
    while batcher.queued_texts:
        time.sleep(0.001)
    return job


def test_a_long_text_pads_no_short_ones(model):
    batcher = Batcher(model, pad, max_batch_tokens=512, lookahead=4)
    hold(batcher, model)
    jobs = [batcher.submit([feature(500 if i % 10 == 0 else 8)]) for i in range(30)]
    model.gate.set()
    for i, job in enumerate(jobs):
        assert outputs(job) == [500 if i % 10 == 0 else 8]
    padding = sum(rows * columns for rows, columns in model.shapes[1:]) - sum(
        500 if i % 10 == 0 else 8 for i in range(30)
    )
    assert padding == 0


def test_padding_that_costs_more_than_a_run_is_not_computed(model):
    batcher = Batcher(model, pad, max_batch_tokens=4096)
    hold(batcher, model)
    job = batcher.submit([feature(n) for n in (300, 500, 20, 480, 290, 30)])
    model.gate.set()
    assert outputs(job) == [300, 500, 20, 480, 290, 30]
    assert model.shapes[1:] == [(2, 500), (2, 300), (2, 30)]


def test_nobody_is_overtaken_for_longer_than_the_lookahead(model):
    """Short texts that keep coming do not keep a long one waiting."""
    batcher = Batcher(model, pad, max_batch_tokens=100, lookahead=2)
    hold(batcher, model)
    early = [batcher.submit([feature(10)]) for _ in range(15)]
    long = batcher.submit([feature(90)])
    late = [batcher.submit([feature(10)]) for _ in range(200)]
    model.gate.set()
    assert outputs(long) == [90]
    assert [outputs(job) for job in early + late] == [[10.0]] * 215
    before = model.shapes[: model.shapes.index((1, 90))]
    assert sum(rows for rows, _ in before) <= 1 + 15 + 20


def test_a_full_queue_refuses_at_once_and_says_when(model):
    batcher = Batcher(model, pad, max_queue_tokens=100)
    hold(batcher, model)
    kept = batcher.submit([feature(90)])
    begin = time.monotonic()
    with pytest.raises(QueueFull) as error:
        batcher.submit([feature(20)])
    assert time.monotonic() - begin < 1 and error.value.retry_after >= 1
    assert batcher.submit([feature(10)])
    model.gate.set()
    assert outputs(kept) == [90]


def test_a_text_that_fails_spoils_no_other(model):
    batcher = Batcher(model, pad)
    hold(batcher, model)
    good = [batcher.submit([feature(5), feature(7)]) for _ in range(3)]
    bad = batcher.submit([feature(3), feature(2, 13)])
    more = batcher.submit([feature(4)])
    model.gate.set()
    assert [outputs(job) for job in good] == [[5, 7]] * 3 and outputs(more) == [4]
    with pytest.raises(ModelFailed):
        bad.future.result(timeout=30)
    assert batcher.is_alive()


def test_outputs_that_are_no_numbers_are_a_failure():
    batcher = Batcher(lambda batch: [np.full([len(batch["input_ids"])], np.nan)], pad)
    with pytest.raises(ModelFailed):
        batcher.submit([feature(3)]).future.result(timeout=30)


def test_who_went_away_or_waits_too_long_costs_nothing(model):
    batcher = Batcher(model, pad)
    hold(batcher, model)
    gone = batcher.submit([feature(50)])
    late = batcher.submit([feature(60)], deadline=time.monotonic() - 1)
    kept = batcher.submit([feature(7)])
    assert gone.future.cancel()
    model.gate.set()
    assert outputs(kept) == [7]
    with pytest.raises(TimedOut):
        late.future.result(timeout=30)
    assert model.shapes[1:] == [(1, 7)]


def test_a_requests_own_batch_size_is_obeyed(model):
    batcher = Batcher(model, pad)
    hold(batcher, model)
    job = batcher.submit([feature(n) for n in range(1, 8)], batch_size=2)
    model.gate.set()
    assert outputs(job) == list(range(1, 8))
    assert [rows for rows, _ in model.shapes[1:]] == [2, 2, 2, 1]


def test_closing_answers_what_is_queued(model):
    batcher = Batcher(model, pad)
    hold(batcher, model)
    jobs = [batcher.submit([feature(n)]) for n in range(1, 20)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while not batcher._closed:
        time.sleep(0.001)
    with pytest.raises(Closed):
        batcher.submit([feature(1)])
    model.gate.set()
    closing.join(timeout=30)
    assert [outputs(job) for job in jobs] == [[n] for n in range(1, 20)] and not batcher.is_alive()
    assert outputs(Batcher(model, pad).submit([])) == []


def test_a_large_request_gives_way_to_small_ones_and_gets_on(model):
    """A small one waits for a batch of a large one, not for all of it; small ones that keep coming do not stop it."""
    batcher = Batcher(model, pad, max_batch_tokens=100)
    hold(batcher, model)
    large = [batcher.submit([feature(10, value)] * 100) for value in (2, 3)]
    small = batcher.submit([feature(7)])
    model.gate.set()
    assert outputs(small) == [7]
    assert outputs(large[0]) == [20] * 100 and outputs(large[1]) == [30] * 100
    # The first batches of the two, with what runs when the model becomes free.
    assert (1, 7) in model.shapes[:5] and batcher.queued_tokens == batcher.queued_texts == 0

    def ask_again(_):
        asked.append(1)
        with contextlib.suppress(Closed):
            batcher.submit([feature(7)]).future.add_done_callback(ask_again)

    asked = []
    hold(batcher, model)
    large, small = batcher.submit([feature(10)] * 100), batcher.submit([feature(7)])
    small.future.add_done_callback(ask_again)
    model.gate.set()
    assert outputs(large) == [10] * 100 and len(asked) >= 5
    assert batcher.close(timeout=30)


def test_what_is_not_yet_tokenized_counts(model):
    """As waiting; what a large one has beyond a batch keeps only large ones out, of more batches than `lookahead`."""
    batcher = Batcher(model, pad, max_batch_tokens=100, max_queue_tokens=1000, lookahead=2)
    hold(batcher, model)
    large = batcher.admit(60, 950)
    assert (batcher.queued_texts, batcher.queued_tokens) == (60, 950)
    with pytest.raises(QueueFull):
        batcher.admit(1, 201)
    small = batcher.admit(1, 200)
    job = batcher.submit([feature(20)] * 20, place=large, texts=40, tokens=600)
    assert batcher.queued_texts == 60 - 40 + 20 + 1 and batcher.queued_tokens == 950 - 600 + 400 + 200
    batcher.leave(large)
    batcher.leave(small)
    model.gate.set()
    assert outputs(job) == [20] * 20
    assert batcher.queued_tokens == batcher.queued_texts == batcher._later_tokens == 0


def test_waiting_for_company_is_bounded(model):
    batcher = Batcher(model, pad, max_wait=0.05, max_batch_tokens=1000)
    begin = time.monotonic()
    jobs = [batcher.submit([feature(5)]) for _ in range(3)]
    assert [outputs(job) for job in jobs] == [[5]] * 3
    assert model.shapes == [(3, 5)] and 0.04 < time.monotonic() - begin < 5
