"""Metrics: accuracy, what trivial answers score, and metrics.json. Entities and answers are scored by the predictor's
package, since clients of servers score them, too.
"""

import collections
import json
import os

from ernie_predictor.scores import cmrc_scores, cmrc_units, entity_scores, without_punctuation

from ernie.errors import UserError
from ernie.files import write_json

__all__ = ["cmrc_scores", "cmrc_units", "entity_scores"]

METRICS = "metrics.json"  # of a model folder


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


def dev_metrics(data_args, num_examples, scores, baseline):
    """What metrics.json holds first: one model's scores on the dev set, as shares of 1, and a trivial baseline's."""
    return {"dataset": data_args.dataset, "split": "dev", "num_examples": num_examples, **scores, "baseline": baseline}


def write_metrics(folder, metrics):
    write_json(os.path.join(folder, METRICS), metrics)


def read_metrics(folder):
    """metrics.json of a model folder if the model was scored, else None.

    Raises:
        UserError: it is not JSON.
    """
    path = os.path.join(folder, METRICS)
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except ValueError as e:
        raise UserError(f"{path} is not JSON ({e}): remove it, and what it says is measured again") from e
