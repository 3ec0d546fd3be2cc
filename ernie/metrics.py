"""Metrics: accuracy, and what trivial answers score. Entities and answers are scored by the predictor's package, since
clients of servers score them, too.
"""

import collections

from ernie_predictor.scores import cmrc_scores, cmrc_units, entity_scores, without_punctuation

__all__ = ["cmrc_scores", "cmrc_units", "entity_scores"]


def accuracy(predictions, labels):
    """{"accuracy"}: the share of right classes. predictions: logits [examples, classes]; labels: int [examples]."""
    return {"accuracy": float((predictions.argmax(axis=-1) == labels).mean())}


def majority_share(examples):
    """{"majority_class"}: the accuracy of always answering the commonest label."""
    counts = collections.Counter(e["label"] for e in examples)
    return {"majority_class": max(counts.values()) / len(examples)}


def question_blind_share(examples):
    """{"question_blind"}: the exact match that no model can exceed if it never reads the question.

    Such a model gives one answer a context; the best it can do is the answer that most of the context's
    questions share.
    """
    contexts = collections.defaultdict(list)
    for example in examples:
        contexts[example["context"]].append({without_punctuation(a["text"]) for a in example["answers"]})
    best = 0
    for answer_sets in contexts.values():
        counts = collections.Counter(answer for answers in answer_sets for answer in answers)
        best += max(counts.values())
    return {"question_blind": best / len(examples)}
