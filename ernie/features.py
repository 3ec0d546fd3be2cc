"""Features: examples to input ids and labels, and features to batches."""

from functools import cached_property

import numpy as np

from ernie import console
from ernie.errors import UserError
from ernie.tasks import IGNORED


def make_features(task, examples, labelled=True):
    """A `Split` of examples; None for None."""
    return None if examples is None else Split(task, examples, labelled)


class Split:
    """The examples of one split as features for a model, and what reads answers from their logits.

    Args:
        task: of `load_task`. From then on it takes what the examples are, such as single texts.
        labelled: whether the features carry labels.

    Attributes:
        examples: as `load_examples` returns them.
        pairs: for each example a `Pair` of texts.
        features: dicts of "input_ids", "token_type_ids" (lists of int) and labels; one or more per example, in order.
        sorted_features: the same from the longest to the shortest, for batches with little padding.
    """

    def __init__(self, task, examples, labelled=True):
        self.task, self.examples, self.labels = task, examples, [*task.numbers] if labelled else None
        task.begin(examples)
        self.pairs, self.features, self.notes = [], [], []
        for example in examples:
            try:
                self.pairs.append(task.check(task.item(example)))
            except UserError as e:
                raise UserError(f"{example['where']}: {e}") from None
        truncated, count = task.truncated, len(examples)
        with console.progress(total=count, desc="tokenizing", disable=count < 2000 or None) as bar:
            for begin in range(0, count, 1024):
                inputs, notes = task.tokenize(self.pairs[begin : begin + 1024])
                self.features += [{"input_ids": ids, "token_type_ids": types} for ids, types in inputs]
                self.notes += notes
                bar.update(len(notes))
        self.order = np.argsort([-len(f["input_ids"]) for f in self.features], kind="stable")
        self.sorted_features = [self.features[i] for i in self.order]
        task.say_what_is_cut(self, task.truncated - truncated)
        if labelled:
            task.label(self)

    @cached_property
    def gold(self):
        return [self.task.gold(example) for example in self.examples]

    def answers(self, outputs):
        """One answer per example, as the predictor gives it.

        Args:
            outputs: the model's output array or tuple of arrays [features, ...], in the order of `sorted_features`.
        """
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        answers = []
        logits = (tuple(output[place] for output in outputs) for place in np.argsort(self.order))
        pairs = console.progress(self.pairs, desc="reading answers", disable=len(self.pairs) < 2000 or None)
        for pair, note in zip(pairs, self.notes):
            answers += self.task.read([pair], [note], logits)
        return answers

    def scores(self, outputs):
        """What the answers of `outputs` score, {score: share of 1}."""
        return self.task.score_answers(self.answers(outputs), self.gold)


class Collator:
    """Features to a batch: pads to the longest, or to the first of `dynamic_max_length` that holds it.

    Returns:
        {name: int64 NumPy array}, [batch] or [batch, length] up to [batch, max_seq_length]. NumPy, since the data
        loader's worker processes (--dataloader_num_workers) can't make Paddle tensors.
    """

    def __init__(self, tokenizer, dynamic_max_length=None):
        self.tokenizer = tokenizer
        self.lengths = sorted(dynamic_max_length or [])

    def __call__(self, features):
        longest = max(len(f["input_ids"]) for f in features)
        length = next((n for n in self.lengths if n >= longest), longest)
        batch = self.tokenizer.pad([(f["input_ids"], f["token_type_ids"]) for f in features], length)
        for key in [key for key in features[0] if key not in batch]:  # labels
            values = [f[key] for f in features]
            if isinstance(values[0], list):
                values = [v + [IGNORED] * (length - len(v)) for v in values]
            batch[key] = np.array(values, dtype=np.int64)
        return batch
