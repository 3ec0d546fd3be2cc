"""Results that are written beside a model: settings.json, metrics.json, and predictions for the leaderboard."""

import dataclasses
import json
import os
import platform
import re
import sys

import paddle
import paddlenlp
from paddlenlp.trainer import CompressionArguments

from ernie import console
from ernie.errors import UserError
from ernie.files import write_json, write_text
from ernie.tasks import DATA_SETS

METRICS = "metrics.json"


def write_settings(model_args, data_args, args, replace=True):
    """Writes every argument and the versions to settings.json; keys and tokens of accounts are left out.

    It lies in --output_dir, that of a compression in <output_dir>/compression.

    Args:
        replace: whether the model in the folder is of these settings; if not, a settings.json that is there stays.
    """
    compress = isinstance(args, CompressionArguments)
    path = os.path.join(args.output_dir, "compression" if compress else "", "settings.json")
    if not args.should_save or (not replace and os.path.exists(path)):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    packages = {"paddlepaddle": paddle.__version__, "paddlenlp": paddlenlp.__version__}
    content = {
        "script": os.path.basename(sys.argv[0]),
        "versions": {"python": platform.python_version(), **packages},
        "model": values_of(model_args),
        "data": values_of(data_args),
        "training": values_of(args),
    }
    write_json(path, content)


def values_of(arguments):
    """{argument: value} of a dataclass of arguments, as JSON can hold it; keys and tokens of accounts are left out."""
    names = (field.name for field in dataclasses.fields(arguments))
    secret = re.compile(r"(_key|_token|_secret|password)$")
    values = {name: getattr(arguments, name) for name in names if not secret.search(name)}
    return json.loads(json.dumps(values, default=lambda value: getattr(value, "value", str(value))))


def dev_metrics(data_args, split, scores):
    """What metrics.json holds first: one model's scores on the dev set, as shares of 1, and a trivial baseline's."""
    about = {"dataset": data_args.dataset, "split": "dev", "num_examples": len(split.examples)}
    return {**about, **scores, "baseline": split.task.baseline(split.examples)}


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
