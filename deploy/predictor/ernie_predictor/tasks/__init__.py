"""The tasks: `TASKS` has the class of each, and `load_task` opens that of a model folder. A task has

- `check(item)`: what a caller passed, as a `Pair` of texts;
- `tokenize(pairs)`: features for the model, and what `read` needs to know about them;
- `read(pairs, notes, logits)`: the answers.

Training, the predictor and the servers all use these, so that a text gets the same answer by every route.
"""

import json
import os
from typing import Any

from ..errors import PredictorError, UsageError
from ..formats import unique_fields
from ..labels import read_labels
from ..tokenizer import ErnieTokenizer, vocab_crc32
from .base import SHORTEST, Pair, Task, whole_number
from .qa import QuestionAnswering
from .seq_cls import SequenceClassification
from .token_cls import TokenClassification, join_tokens

__all__ = ["SHORTEST", "TASKS", "Pair", "check_vocabulary", "join_tokens", "load_task", "read_config", "task_in"]

TASKS: dict[str, type[Task]] = {
    task.name: task for task in (SequenceClassification, TokenClassification, QuestionAnswering)
}


def load_task(
    model_dir: str | os.PathLike[str],
    task_name: str | None = None,
    max_seq_length: int | None = None,
    num_threads: int | None = None,
    tokenizer: str = "tokenizers",
    doc_stride: int | None = None,
) -> Task:
    """The task of a model folder, by its config.json, vocab.txt and tokenizer_config.json.

    Args:
        task_name: the task that it must be, a key of `TASKS`; None: any.
        max_seq_length: maximum tokens per text; None: as the model was trained (`model_max_length`).
        num_threads: for tokenizing; None: the cores that this process may use.
        tokenizer: "tokenizers", or "fast_tokenizer" (FastTokenizer, no longer maintained); the ids are the same.
        doc_stride: of a task that reads windows, tokens between the beginnings of two; None: as the model was trained.

    Raises:
        PredictorError: a file is missing or broken, or the files do not fit together.
        UsageError: the folder is of another task, or the model takes no texts of that length, or reads no windows.
    """
    path = f"{model_dir}/config.json"
    config = read_config(model_dir)
    task = _task_of(config, path)
    if task_name not in (None, task.name):
        found = f"{task.name} ({_architecture(config)})"
        raise UsageError(f"--task_name {task_name}: {model_dir} holds a model for {found}")
    labels = read_labels(config, path) if task.has_labels else []
    if task.has_labels and not labels:
        raise PredictorError(f"{path} has no `id2label`, the names of the labels")
    own = ErnieTokenizer.from_pretrained(model_dir, backend=tokenizer, num_threads=num_threads)
    check_vocabulary(model_dir, own.vocab, whole_number(config, "vocab_size", path), config.get("vocab_crc32"))
    length = max_seq_length or own.model_max_length
    longest = whole_number(config, "max_position_embeddings", path) or length
    if not SHORTEST <= length <= longest:
        raise UsageError(f"--max_seq_length {length}: {model_dir} takes {SHORTEST} to {longest} tokens")
    params = task.read_params(_params_in(config, task), path)
    if doc_stride is not None:
        if "doc_stride" not in task.defaults:
            raise UsageError(f"--doc_stride: a {task.name} model reads no windows; longer texts are truncated")
        if not 1 <= doc_stride < length:
            raise UsageError(
                f"--doc_stride {doc_stride}: must be 1 or more, and less than the {length} tokens of a window"
            )
        params["doc_stride"] = doc_stride
    try:
        return task(own, length, dict(enumerate(labels)), params)
    except PredictorError as e:
        raise PredictorError(f"{path}, `id2label`: {e}") from None


def task_of(model_dir: str | os.PathLike[str]) -> str:
    """Which task a model folder is for, by its config.json: a key of `TASKS`.

    Raises:
        PredictorError: the folder or its config.json is missing or broken, or names no task that there is.
    """
    return _task_of(read_config(model_dir), f"{model_dir}/config.json").name


def task_in(config: dict[str, Any]) -> type[Task] | None:
    """The task that config.json names in `task_specific_params`. Where it names none, as in folders made elsewhere, the
    first task of its architecture. None: there is no such task.
    """
    fitting = [task for task in TASKS.values() if _architecture(config).endswith(task.head)]
    for params in (_params_in(config, task) for task in fitting):
        if "task" in params:
            return next((task for task in fitting if task.name == params["task"]), None)
    return fitting[0] if fitting else None


def _task_of(config, path):
    task = task_in(config)
    if task is None:
        architecture, heads = _architecture(config), tuple(dict.fromkeys(task.head for task in TASKS.values()))
        if architecture.endswith(heads):
            raise PredictorError(f"{path}: `task_specific_params` names a task for {architecture} that is unknown here")
        ends = ", ".join(f"...For{head}" for head in heads)
        raise PredictorError(f"{path}: `architectures` names {architecture}, expected one of {ends}")
    return task


def _architecture(config):
    architectures = config.get("architectures")
    return str(architectures[0]) if isinstance(architectures, list) and architectures else "?"


def _params_in(config, task):
    """What `task_specific_params` of config.json says of a task."""
    of_tasks = config.get("task_specific_params")
    params = of_tasks.get(task.params_name) if isinstance(of_tasks, dict) else None
    return params if isinstance(params, dict) else {}


def check_vocabulary(model_dir, vocab, rows, known=None):
    """The checksum of a vocabulary, as `vocab_crc32` in config.json has it.

    Raises PredictorError where it has an id for which the model has no row, or is not the `known` one of the training.
    """
    entries = max(vocab.values()) + 1
    if rows is not None and entries > rows:
        raise PredictorError(
            f"{model_dir}: vocab.txt has {entries:,} entries, but the model takes ids below {rows:,}; the files are of "
            "different models"
        )
    checksum = vocab_crc32(vocab)
    if known not in (None, checksum):
        raise PredictorError(f"{model_dir}: its vocab.txt is not the one that the model was trained with")
    return checksum


def read_config(model_dir, flag="--model_path", hint=""):
    """config.json of a model folder, a dict; `hint` ends the message where there is none."""
    path = os.path.join(model_dir, "config.json")
    if not os.path.isdir(model_dir):
        raise PredictorError(f"{flag} {model_dir}: no such folder; expected one that run_*.py --do_export wrote")
    try:
        with open(path, encoding="utf-8") as f:
            config = json.load(f, object_pairs_hook=unique_fields)
    except FileNotFoundError:
        raise PredictorError(
            f"{flag} {model_dir} is no model folder: it has no config.json (it holds "
            f"{', '.join(sorted(os.listdir(model_dir))[:8]) or 'nothing'}){hint}"
        ) from None
    except OSError as e:
        raise PredictorError(f"{path}: {e.strerror}") from e
    except ValueError as e:
        raise PredictorError(f"{path} is not JSON: {e}") from e
    if not isinstance(config, dict):
        raise PredictorError(f"{path}: expected a JSON object")
    return config
