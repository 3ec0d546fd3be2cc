"""metrics.json of a model folder."""

import json
import os

from ernie.errors import UserError
from ernie.files import write_json

METRICS = "metrics.json"


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
