"""Paired comparisons: how much better or worse one model scores than another on the same texts, with an interval.

Scores that are 0 or 1 for each text get an exact interval (of the texts on which the two differ, as in McNemar's test:
Clopper and Pearson's of the share that got better); others the bootstrap's. All intervals are of 95%.
"""

import numpy as np
from scipy.stats import binomtest

DRAWS = 2000


def count(task, answers, gold):
    """What each text adds to a task's score: float [texts, 1], a score whose mean it is, or [texts, 3], entities that
    are right, found, and there, of which it is F1.

    Args:
        task: the predictor's.
        answers: the predictor's, one a text.
        gold: of `read_dev_set`.
    """
    if isinstance(answers[0], list):
        found = [{(e["label"], e["start"], e["end"]) for e in answer} for answer in answers]
        rows = [(len(a.intersection(b)), len(a), len(b)) for a, b in zip(found, gold)]
    else:
        rows = [(task.score_answers([answer], [right])[task.score],) for answer, right in zip(answers, gold)]
    return np.array(rows, float)


def score(counts):
    """The score of texts: of [..., texts, 1 or 3] the last but one axis goes."""
    if counts.shape[-1] == 1:
        return counts[..., 0].mean(axis=-1)
    right, found, total = np.moveaxis(counts.sum(axis=-2), -1, 0)
    return 2 * right / np.maximum(found + total, 1)


def draws(ours, theirs, seed=0):
    """Changes of the score, in points, over `DRAWS` random choices of as many texts."""
    generator = np.random.default_rng(seed)
    chosen = (generator.integers(0, len(ours), len(ours)) for _ in range(DRAWS))
    return np.array([100 * (score(ours[rows]) - score(theirs[rows])) for rows in chosen])


def compare(ours, theirs):
    """One model against another on the same texts.

    Args:
        ours, theirs: of `count`.

    Returns:
        {"change": points, "low", "high": its interval, "better", "worse": texts}.
    """
    own, other = (_of_each(counts) for counts in (ours, theirs))
    better, worse = int((own > other).sum()), int((own < other).sum())
    if set(np.unique(np.concatenate([ours, theirs]))) <= {0, 1} and ours.shape[1] == 1:
        low, high = 0.0, 0.0
        if better + worse:
            share = binomtest(better, better + worse).proportion_ci(0.95, "exact")
            low, high = (100 * (2 * end - 1) * (better + worse) / len(own) for end in (share.low, share.high))
    else:
        low, high = np.percentile(draws(ours, theirs), [2.5, 97.5])
    change = 100 * (score(ours) - score(theirs))
    return {"change": float(change), "low": float(low), "high": float(high), "better": better, "worse": worse}


def _of_each(counts):
    """The score of each text alone; 1 where there is nothing to find and nothing is found."""
    if counts.shape[1] == 1:
        return counts[:, 0]
    return np.where(counts[:, 1:].sum(axis=1) == 0, 1.0, score(counts[:, None]))
