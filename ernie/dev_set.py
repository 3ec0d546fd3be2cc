"""The dev set as compression uses it: scored through ONNX Runtime, OpenVINO or Paddle, and timed."""

import numpy as np
from ernie_predictor.machine import usable_cores
from ernie_predictor.runtimes import open_onnx

from ernie import console
from ernie.static_model import run_static_model
from ernie.tasks import IGNORED


class DevSet:
    """The dev set in batches, and what a model computes for it.

    Args:
        split: a `Split`, with labels.
    """

    def __init__(self, split, collator, batch_size):
        self.features, self.collator = split.sorted_features, collator
        self.batches, labels = [], []
        for begin in range(0, len(self.features), batch_size):
            batch = collator(self.features[begin : begin + batch_size])
            labels.append([batch.pop(name) for name in split.task.label_names])
            self.batches.append(batch)
        self.labels = concatenate(labels)

    def onnx_logits(self, onnx_file, engine):
        """A tuple of each output's logits over the whole dev set."""
        model = open_onnx(onnx_file, engine, usable_cores())
        return concatenate(model(batch) for batch in console.progress(self.batches, desc="dev set"))

    def paddle_logits(self, prefix, input_dtype):
        """The same of a static Paddle model, `prefix`.pdmodel."""
        batches = ({name: array.astype(input_dtype) for name, array in batch.items()} for batch in self.batches)
        outputs = run_static_model(prefix, batches)
        return concatenate(console.progress(outputs, desc="dev set, Paddle", total=len(self.batches)))

    def agreement(self, logits, others):
        """The share of predictions that two models have in common: classes, tags, or answers' ends."""
        same = [a.argmax(axis=-1) == b.argmax(axis=-1) for a, b in zip(logits, others)]
        if same[0].ndim == 2:  # tags
            return float(same[0][self.labels[0] != IGNORED].mean())
        return float(np.logical_and.reduce(same).mean())

    def timed_inputs(self, count):
        """(a batch of `count` texts, spread evenly from the shortest to the longest; the length of each)."""
        order = np.argsort([len(f["input_ids"]) for f in self.features], kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
        chosen = [self.features[i] for i in chosen]
        batch = self.collator(chosen)
        return {name: batch[name] for name in self.batches[0]}, [len(f["input_ids"]) for f in chosen]


def concatenate(batches):
    """An array for each of a batch's arrays, over all batches; different lengths are padded with `IGNORED`."""
    joined = []
    for arrays in zip(*batches):
        shape = np.max([a.shape[1:] for a in arrays], axis=0)
        pads = ([(0, 0), *((0, most - size) for most, size in zip(shape, a.shape[1:]))] for a in arrays)
        joined.append(np.concatenate([np.pad(a, pad, constant_values=IGNORED) for a, pad in zip(arrays, pads)]))
    return tuple(joined)
