"""Models and tokenizers, from the hub or from a local folder."""

import contextlib
import copy
import json
import os
import re

import paddle
import paddlenlp.transformers
from ernie_predictor import labels as model_labels
from ernie_predictor import tokenizer as fast_tokenizers
from ernie_predictor.tasks import SHORTEST, check_vocabulary, read_config, task_in
from paddlenlp.transformers import AutoTokenizer
from paddlenlp.transformers import ErnieTokenizer as PaddleNLPTokenizer
from paddlenlp.utils.log import logger as paddlenlp_logger

from ernie import console
from ernie.errors import UsageError, UserError


def local_folder(name):
    """The absolute path of a local model folder, or None for a name of the hub.

    Absolute, since PaddleNLP asks the hub for a bare name even where a folder is called so.
    """
    if os.path.isdir(name):
        return os.path.abspath(name)
    if os.path.exists(name):
        raise UserError(f"--model_name_or_path {name} is a file; expected a model folder or a name of the hub")
    parent = name.partition("/")[0]
    if name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or os.path.isdir(parent):
        raise UserError(f"--model_name_or_path {name}: no such folder")
    return None


def check_model(task, model_args, data_args, fine_tuned):
    """Checks the model's folder, or the hub, before anything else is downloaded.

    Args:
        task: a row of `TASKS`.
        fine_tuned: nothing will be trained, so the folder must hold a model for this very task.

    Raises:
        UserError: a folder without its parts, a hub that can't be reached, another task's model.
    """
    name = model_args.model_name_or_path
    folder = local_folder(name)
    if fine_tuned:
        _check_fine_tuned(task, model_args, data_args)
    if folder is None:
        load_tokenizer(name, data_args)
        return
    read_model_config(name)
    if not _has_weights(folder):
        parent = os.path.dirname(folder)
        near = f"; did you mean {os.path.dirname(os.path.normpath(name))}?" if _has_weights(parent) else ""
        raise UserError(f"--model_name_or_path {name} has no weights (model_state.pdparams){near}")


def _check_fine_tuned(task, model_args, data_args, labels=()):
    """Raises UserError if a model is not one for this task and, if they are given, these labels."""
    name = model_args.model_name_or_path
    advice = f"Fine-tune it first ({task.script} --do_train), and name the folder that this wrote"
    if local_folder(name) is None:
        raise UserError(
            f"--model_name_or_path {name}: there is no such folder, and a model of the hub was not fine-tuned for "
            f"{data_args.dataset}. {advice}"
        )
    config, found = read_model_config(name), read_labels(name)
    architecture = (config.get("architectures") or ["?"])[0]
    if not is_of(task, config) or (labels and found != labels):
        raise UserError(
            f"--model_name_or_path {name} was not fine-tuned for {data_args.dataset}: it is a {architecture}"
            + (f" with the labels {', '.join(found[:8])}" if found else "")
            + f". {advice}"
        )


def is_of(task, config):
    """Whether a model is one of this task, by its config.json."""
    return getattr(task_in(config), "name", None) == task.name


def own_lengths(task, name):
    """How a fine-tuned model's folder says that texts are cut and answers are chosen.

    Returns:
        {argument: value} of max_seq_length, and of those that the task reads with (doc_stride ...); without those that
        the folder does not say. What is wrong with it, `check_model` tells.
    """
    try:
        config = read_model_config(name)
        with open(os.path.join(name, "tokenizer_config.json"), encoding="utf-8") as f:
            length = json.load(f).get("model_max_length")
    except (OSError, ValueError):
        return {}
    if not is_of(task, config):
        return {}
    params = (config.get("task_specific_params") or {}).get(task.params_name) or {}
    params = {key: params[key] for key in task.defaults if key in params}
    longest = config.get("max_position_embeddings")
    if isinstance(length, int) and isinstance(longest, int) and length >= SHORTEST:
        params["max_seq_length"] = min(length, longest)
    return params


def _has_weights(folder):
    return any(name.endswith((".pdparams", ".safetensors")) for name in os.listdir(folder))


def read_model_config(name):
    """config.json of a model folder as a dict; {} for a name of the hub."""
    folder = local_folder(name)
    if folder is None:
        return {}
    older = os.path.isfile(os.path.join(folder, "model_config.json"))
    how = "PaddleNLP 2.5 or later converts such a folder with AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    hint = f". PaddleNLP before 2.5 wrote model_config.json: {how}" if older else ""
    return read_config(name, "--model_name_or_path", hint)


def read_labels(name):
    """The labels of a fine-tuned model folder, in the order of its classes."""
    return model_labels.read_labels(read_model_config(name), os.path.join(name, "config.json"))


def load_tokenizer(name, data_args):
    """PaddleNLP's tokenizer of a folder or of the hub.

    Raises:
        UserError: it can't be had, or is not ERNIE's.
    """
    folder = local_folder(name)
    if folder is not None:
        fast_tokenizers.load_vocab(os.path.join(folder, "vocab.txt"))  # its errors name the file
    try:
        tokenizer = PaddleNLPTokenizer.from_pretrained(folder) if folder else AutoTokenizer.from_pretrained(name)
    except Exception as e:
        message = _cannot_load("tokenizer", name, folder, e)
        if folder is None and data_args.data_dir is None:
            data = data_args.dataset
            message += f". The data set would be downloaded, too: put its files into DIR/{data}/ and add --data_dir DIR"
        raise UserError(message) from e
    if not isinstance(tokenizer, PaddleNLPTokenizer):
        raise UserError(f"--model_name_or_path {name} has a {type(tokenizer).__name__}; expected an ERNIE model")
    return tokenizer


def load_task(task, model_args, data_args, labels):
    """What turns texts into features and logits into answers, as in deployment, with PaddleNLP's ids.

    Returns:
        (PaddleNLP's tokenizer, which saves itself beside a model; an object of the class `task`).
    """
    pretrained = load_tokenizer(model_args.model_name_or_path, data_args)
    pretrained.model_max_length = data_args.max_seq_length
    pretrained.init_kwargs["model_max_length"] = data_args.max_seq_length
    pretrained.init_kwargs.pop("special_tokens_map_file", None)  # a path of this machine, which would be saved
    if data_args.use_fast_tokenizer:
        vocab = dict(pretrained.vocab.token_to_idx)
        tokenizer = fast_tokenizers.ErnieTokenizer(vocab, do_lower_case=pretrained.do_lower_case)
    else:
        tokenizer = PythonTokenizer(pretrained)
    params = {key: getattr(data_args, key) for key in task.defaults}
    return pretrained, task(tokenizer, data_args.max_seq_length, dict(enumerate(labels)), params)


class PythonTokenizer(fast_tokenizers.ErnieTokenizer):
    """PaddleNLP's own tokenizer in Python with the interface of the fast ones, for --use_fast_tokenizer off."""

    def __init__(self, pretrained):
        super().__init__(dict(pretrained.vocab.token_to_idx), pretrained.do_lower_case, backend="tokenizers")
        self.pretrained = pretrained

    def encode(self, texts, offsets=True):
        # PaddleNLP's own offsets are of the normalized text; those of `tokenizers` are exact, and the pieces the same.
        offsets = [e.offsets for e in super().encode(texts)]
        ids = [self.pretrained.convert_tokens_to_ids(self.pretrained.tokenize(text)) for text in texts]
        return [fast_tokenizers.Encoding(*pair) for pair in zip(ids, offsets)]


def load_model(task, model_args, data_args, fine_tuned):
    """Loads a model with a head for a task's labels.

    Args:
        task: of `load_task`.
        fine_tuned: nothing will be trained, so the folder must hold a model for this very task and these labels.

    Raises:
        UserError: a folder without its parts, a hub that can't be reached, another task's model.
    """
    name, labels = model_args.model_name_or_path, [*task.numbers]
    folder = local_folder(name)
    if fine_tuned:
        _check_fine_tuned(task, model_args, data_args, labels)
    auto_class = getattr(paddlenlp.transformers, f"AutoModelFor{task.head}")
    arguments = {"num_labels": len(labels)} if labels else {}
    try:
        with contextlib.nullcontext(()) if fine_tuned else _new_head_expected() as new_weights:
            model = auto_class.from_pretrained(folder or name, ignore_mismatched_sizes=not fine_tuned, **arguments)
    except Exception as e:
        raise UserError(_cannot_load("model", name, folder, e)) from e
    model.new_weights = new_weights
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = dict(task.numbers)
    if fine_tuned:
        params = (model.config.task_specific_params or {}).get(task.params_name) or {}
        task.keep_params(params, name, data_args.dataset)
    # What the model is, how long texts are cut and answers are chosen belongs to it: deployment reads it here.
    model.config.task_specific_params = {task.params_name: task.params_to_save()}
    known = getattr(model.config, "vocab_crc32", None) if fine_tuned else None
    model.config.vocab_crc32 = check_vocabulary(name, task.tokenizer.vocab, model.config.vocab_size, known)
    longest = model.config.max_position_embeddings
    if data_args.max_seq_length > longest:
        raise UsageError(f"--max_seq_length {data_args.max_seq_length}: {name} takes up to {longest} tokens")
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    weights = sum(int(p.size) for p in model.parameters()) / 1e6
    labelled = f"; {len(labels)} labels" if labels else ""
    console.row("model", f"{name}: {layers} layers, {width} wide, {weights:.3g} million weights{labelled}")
    return model


@contextlib.contextmanager
def _new_head_expected():
    """Drops PaddleNLP's warnings that a pretrained model lacks the task's head, and has one of pretraining.

    Where weights of the encoder are missing, the warning stays. Yields a set that gets the names of the new weights.
    """
    new_weights = set()

    def keep(record):
        text = record.getMessage()
        if "newly initialized" not in text:
            return "were not used when" not in text
        missing = re.findall(r"(?:'|^- )([\w.]+)(?:'|: found shape)", text, re.MULTILINE)
        new_weights.update(missing)
        return not (missing and all(key.startswith("classifier.") for key in missing))

    paddlenlp_logger.logger.addFilter(keep)
    try:
        yield new_weights
    finally:
        paddlenlp_logger.logger.removeFilter(keep)


def _cannot_load(what, name, folder, error):
    # Its first sentence; PaddleNLP goes on for 600 characters.
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
    if folder is None:
        return (
            f"--model_name_or_path {name}: no folder of that name, and the hub gave no {what} ({reason}). "
            "Check the name and the network, or give the path of a model folder"
        )
    return f"the {what} in {name} can't be loaded: {reason}"


@contextlib.contextmanager
def on_cpu(model):
    """Yields a model in evaluation mode on the CPU: itself, or a copy of one that is on another device."""
    device = paddle.get_device()
    was_training = model.training
    try:
        if device != "cpu":
            paddle.set_device("cpu")
            model = copy.deepcopy(model).to(device="cpu")
        model.eval()
        yield model
    finally:
        paddle.set_device(device)
        if was_training:
            model.train()
