"""Raw text in, answers out: `ErniePredictor("best_models/tnews/export").predict([...])`.

Three parts: the task turns texts into features and logits into answers (tasks/), the model turns a batch into
logits (runtimes.py, or any function of a batch), and `Predictor` batches features of similar length.
"""

import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .errors import PredictorError, UsageError
from .machine import instruction_set
from .onnx_files import quantized_form
from .runtimes import Model
from .tasks import load_task
from .tasks.base import Answer, Feature, Pair, Task

logger = logging.getLogger("ernie_predictor")

# One chunk is tokenized, sorted by length and answered before the next is read: with a larger one, batches are more
# even in length, and answers come later. Also limited in characters, since a million characters take about half a
# gigabyte while being tokenized.
CHUNK_BATCHES = 32
CHUNK_CHARACTERS = 2**20
CALIBRATION_TEXTS = 512


def open_folder(
    model_dir: str | os.PathLike[str],
    task_name: str | None = None,
    backend: str = "auto",
    precision_mode: str = "auto",
    num_threads: int | None = None,
    batch_size: int = 32,
    max_seq_length: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    calibration: Iterable | Callable[[Task], Iterable] | None = None,
    device: str = "cpu",
    device_id: int = 0,
    tokenizer: str = "tokenizers",
    doc_stride: int | None = None,
) -> tuple[Task, Model]:
    """Opens a model folder.

    Args:
        model_dir: a folder that run_*.py --do_export or compress_*.py wrote.
        task_name: a key of `TASKS`; None: told from the folder's config.json.
        backend: "onnxruntime", "openvino" or "paddle", on a GPU "tensorrt", "cuda" or "paddle", or "auto": the
            fastest that is installed.
        precision_mode: "auto": what the folder holds, INT8 or FP32; "fp32", "int8", on the CPU also "bf16", on a GPU
            "fp16". int8 takes the folder's INT8 model, else, on the CPU, quantizes the FP32 one, once.
        num_threads: for the model and for tokenizing; None: the cores that this process may use.
        batch_size: texts (windows of contexts) per batch.
        max_seq_length: maximum tokens per text, special tokens included; None: as the model was trained.
        cache_dir: where files are kept that are made here, quantized, for a GPU, or to start faster; None: the user's
            cache ($XDG_CACHE_HOME or ~/.cache, ernie_predictor).
        calibration: for int8 of an FP32 model on the CPU: typical texts, items as `predict` takes them, or a function
            of the task that returns such; the first CALIBRATION_TEXTS tell the scales of its activations. None:
            they are measured in every batch that runs, which is slower.
        device: "cpu", "gpu", "xpu" or "npu". On a GPU, fp32 sets NVIDIA_TF32_OVERRIDE=0 for the whole process and its
            children, unless it is set. A process that has used the GPU cannot be forked to use it in the child.
        device_id: which of several GPUs, XPUs or NPUs.
        tokenizer: "tokenizers", or "fast_tokenizer" (FastTokenizer, no longer maintained); the ids are the same.
        doc_stride: of a task that reads windows, tokens between the beginnings of two; None: as the model was trained.

    Returns:
        (task, model): a task of tasks/, and a model of runtimes.py, whose `precision_mode` is the one it has.

    Raises:
        PredictorError: a part of the folder or a package is missing or broken; the message names it.
        UsageError: an argument does not fit this model.
    """
    model_dir = str(model_dir)
    check_exported(model_dir)
    task = load_task(model_dir, task_name, max_seq_length, num_threads, tokenizer, doc_stride)
    if precision_mode == "auto":
        precision_mode = precision_of(model_dir)
    if calibration is not None and (precision_mode, device) != ("int8", "cpu"):
        raise UsageError("--calibration is for --precision_mode int8 on the CPU")
    if device == "cpu":
        from . import cpu

        batches = None if calibration is None else calibration_batches(task, calibration)
        model = cpu.open_model(model_dir, backend, precision_mode, num_threads, cache_dir, batches)
    else:
        from . import gpu

        lengths = (task.usual_length, task.max_seq_length)
        model = gpu.open_model(
            model_dir, device, device_id, backend, precision_mode, batch_size, lengths, num_threads, cache_dir
        )
    model.precision_mode = precision_mode
    model.instructions = instruction_set(model.computes_in or precision_mode) if device == "cpu" else None
    check_outputs(task, model, model_dir)
    return task, model


def check_exported(model_dir: str) -> None:
    """Raises PredictorError for the folder above the exported one."""
    export = os.path.join(model_dir, "export")
    if os.path.isdir(export) and not any(name.endswith((".onnx", ".pdmodel")) for name in os.listdir(model_dir)):
        raise PredictorError(f"--model_path {model_dir} holds no exported model; did you mean {export}?")


def precision_of(model_dir: str | os.PathLike[str]) -> str:
    """ "int8" for a folder with an INT8 model, else "fp32"."""
    onnx_file = os.path.join(model_dir, "model.onnx")
    if os.path.isfile(onnx_file):
        return "int8" if quantized_form(onnx_file) else "fp32"
    names = ("int8.pdmodel", "model.pdmodel")
    int8, fp32 = (os.path.isfile(os.path.join(model_dir, name)) for name in names)
    return "int8" if int8 and not fp32 else "fp32"


def calibration_batches(task, texts):
    """Batches of typical texts, for a model that measures its scales on them.

    Args:
        texts: items as `Predictor.predict` takes them, or a function of the task that returns such.
    """
    items = texts(task) if callable(texts) else texts
    pairs = list(itertools.islice(check_all(task, items), CALIBRATION_TEXTS))
    if not pairs:
        raise PredictorError("--calibration: there are no texts")
    features, _ = task.tokenize(pairs)
    return [task.tokenizer.pad([features[i] for i in rows]) for rows in similar_lengths(features, 32)]


def check_outputs(task, model, model_dir):
    """Raises PredictorError where a model is not of the task and labels that config.json names."""
    widths = model.widths
    if len(widths) != len(task.outputs):
        raise PredictorError(
            f"{model.path} has {len(widths)} output(s), so it is not a {task.name} model as config.json says"
        )
    if not task.has_labels:
        return
    classes = widths[0]
    if classes is None:  # Paddle's files do not say; its outputs do
        ids = [task.tokenizer.cls_id, task.tokenizer.sep_id]
        classes = model(task.tokenizer.pad([(ids, [0, 0])]))[0].shape[-1]
    if classes != len(task.id2label):
        raise PredictorError(
            f"{model_dir}: config.json names {len(task.id2label)} labels, but the model has {classes} classes; "
            "the files belong to different models"
        )


def check_all(task, items):
    """Yields `task.check` of each item; an error names the item."""
    for index, item in enumerate(items):
        try:
            yield task.check(item)
        except PredictorError as e:
            raise PredictorError(f"item {index}: {e}") from None


def similar_lengths(features, batch_size):
    """Yields the indices of features of similar length, the longest first, which need the most memory."""
    order = sorted(range(len(features)), key=lambda i: -len(features[i][0]))
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]


class Predictor:
    """Answers texts with a task and any model of it.

    Args:
        task: a task of tasks/.
        model: a function of a batch {"input_ids", "token_type_ids"}, int64 [batch, length] each, that returns the
            outputs, float arrays that begin with [batch, ...].
        batch_size: maximum number of texts (for long contexts: windows) per batch.
    """

    def __init__(
        self, task: Task, model: Callable[[dict[str, np.ndarray]], list[np.ndarray]], batch_size: int = 32
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"--batch_size {batch_size}: must be 1 or more")
        self.task, self.model, self.batch_size = task, model, batch_size
        self.warned = False  # of a text that is truncated, once

    def __reduce__(self):
        raise PredictorError("a Predictor of a task and a model cannot be pickled; an ErniePredictor of a folder can")

    def predict(self, items: Iterable) -> list[Answer]:
        """Answers to texts, in their order.

        Args:
            items: an iterable of
                - seq_cls: str, (text, text_pair), or {"text", "text_pair"}; only single texts, or only pairs, if
                  config.json says what the model was fine-tuned on;
                - token_cls: str or {"text"};
                - qa: (question, context) or {"question", "context"}.

        Returns:
            A list with one answer per text; positions are characters of the original text, end exclusive:
                - seq_cls: {"label": str, "confidence": float};
                - token_cls: a list of {"entity", "label", "start", "end", "confidence"};
                - qa: {"answer", "start", "end", "confidence", "n_best"}; n_best holds the same four, best first.

        Raises:
            PredictorError: an item is no text, or empty; the message says which one.
        """
        return [answer for chunk in self.chunks(items) for answer in self._answer(chunk)]

    def predict_stream(self, items: Iterable) -> Iterator[Answer]:
        """As `predict`, but yields answers as they come; its memory does not grow with the number of items.

        Items are read in chunks: the first is one batch, so that answers begin early, and later ones are up to
        CHUNK_BATCHES batches. With a batch size of 1 every item is answered before the next is read. Where an item
        raises, the items before it are answered first.
        """
        for chunk in self.chunks(items, self.batch_size):
            yield from self._answer(chunk)

    def _largest_chunk(self):
        return CHUNK_BATCHES * self.batch_size if self.batch_size > 1 else 1

    def chunks(self, items: Iterable, first_chunk: int | None = None) -> Iterator[list[Pair]]:
        """Yields lists of `Pair`, what is tokenized at once; the first has `first_chunk` items, None: as the others."""
        limit = first_chunk or self._largest_chunk()
        chunk, characters, error = [], 0, None
        try:
            for pair in check_all(self.task, items):
                chunk.append(pair)
                characters += len(pair[0]) + len(pair[1] or "")
                if len(chunk) >= limit or characters >= CHUNK_CHARACTERS:
                    yield chunk
                    limit, chunk, characters = min(2 * limit, self._largest_chunk()), [], 0
        except PredictorError as e:
            error = e
        if chunk:
            yield chunk
        if error:
            raise error

    def _answer(self, pairs):
        truncated = self.task.truncated
        features, notes = self.task.tokenize(pairs)
        if self.task.truncated > truncated and not self.warned:
            self.warned = True
            what, limit = self.task.limit()
            logger.warning(f"a {what} is longer than {limit} tokens and is truncated, and so is every longer one")
        return self.task.read(pairs, notes, self.run(features))

    def run(self, features: list[Feature]) -> list[tuple[np.ndarray, ...]]:
        """Runs features in batches of similar length.

        Args:
            features: of `task.tokenize`.

        Returns:
            For each feature, in order, a tuple of the model's outputs.

        Raises:
            PredictorError: an output is not a number, or infinite; or the runtime failed.
        """
        logits: list[tuple[np.ndarray, ...]] = [()] * len(features)
        for rows in similar_lengths(features, self.batch_size):
            outputs = self.model(self.task.tokenizer.pad([features[i] for i in rows]))
            if not all(np.isfinite(array).all() for array in outputs):
                raise PredictorError(
                    f"{getattr(self.model, 'path', 'the model')} gives logits that are not a number (NaN) or infinite; "
                    "its weights are damaged, or too large for the precision"
                )
            for i, *arrays in zip(rows, *outputs):
                logits[i] = tuple(arrays)
        return logits


class ErniePredictor(Predictor):
    """Answers texts with the model of a folder. The arguments are those of `open_folder`.

    Raises:
        PredictorError: a part of the folder or a package is missing or broken; the message names it.
        UsageError: an argument does not fit this model.
    """

    def __init__(
        self, model_dir: str | os.PathLike[str], task_name: str | None = None, *, batch_size: int = 32, **options: Any
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"--batch_size {batch_size}: must be 1 or more")
        calibration = options.get("calibration")
        if calibration is not None and not callable(calibration):  # kept for a copy, and an iterator is read once
            options["calibration"] = list(itertools.islice(calibration, CALIBRATION_TEXTS))
        super().__init__(*open_folder(model_dir, task_name, batch_size=batch_size, **options), batch_size)
        if options.get("cache_dir") is not None:
            options["cache_dir"] = os.path.abspath(options["cache_dir"])
        # A pickled predictor opens its folder anew, in whatever working directory.
        self._reopen = functools.partial(
            type(self), os.path.abspath(model_dir), task_name, batch_size=batch_size, **options
        )

    def __reduce__(self):
        return self._reopen, ()
