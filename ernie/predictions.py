"""Predictions: answers to test_results.json and to the file that CLUE's leaderboard takes."""

import os

from ernie import console
from ernie.files import write_json, write_text
from ernie.tasks import DATA_SETS


def write_predictions(data_args, folder, split, answers):
    """Writes test_results.json, and the leaderboard's file beside it (NER: a file in MSRA_NER's format).

    Args:
        split: the test set, a `Split`.
        answers: one per example, as the predictor gives them.
    """
    task = split.task
    results = [
        {"id": example["id"], **task.result(example, pair, answer)}
        for example, pair, answer in zip(split.examples, split.pairs, answers)
    ]
    write_json(os.path.join(folder, "test_results.json"), results)
    row = DATA_SETS.get(data_args.dataset)
    name = (row and row.leaderboard) or data_args.dataset
    path = os.path.join(folder, f"{name}_predict.{task.suffixes[0]}")
    write_text(path, task.leaderboard(split, results, path))
    console.row("predicted", f"{len(results):,} answers: {folder}/test_results.json, {os.path.basename(path)}")
