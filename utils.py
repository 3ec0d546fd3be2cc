"""What the six scripts share, in the order in which data passes through it:
arguments, data, features, metrics, training, saving and export, predictions.
"""

import workarounds  # isort: skip  before Paddle, whatever imports it

import argparse
import bisect
import collections
import contextlib
import dataclasses
import difflib
import json
import os
import re
import shutil
import sys
import tempfile
import unicodedata
from dataclasses import dataclass, field

import numpy as np
import paddle
import yaml
from paddlenlp.trainer import CompressionArguments, PdArgumentParser, Trainer, TrainerCallback, TrainingArguments
from paddlenlp.transformers import AutoTokenizer, ErnieTokenizer
from paddlenlp.utils.log import logger
from tqdm import tqdm

from deploy.predictor import ernie_tokenizer
from deploy.predictor.postprocess import entity_spans, read_answers, read_classes, read_entities

SCRIPTS = {
    "SequenceClassification": "run_seq_cls.py",
    "TokenClassification": "run_token_cls.py",
    "QuestionAnswering": "run_qa.py",
}

# The labels of the published data sets, in PaddleNLP's order (paddlenlp.datasets), which is the order of the
# classes in everybody's fine-tuned models.
LABELS = {
    "afqmc": ["0", "1"],
    "tnews": "100 101 102 103 104 106 107 108 109 110 112 113 114 115 116".split(),
    "iflytek": [str(i) for i in range(119)],
    "ocnli": ["entailment", "contradiction", "neutral"],
    "cmnli": ["contradiction", "entailment", "neutral"],
    "cluewsc2020": ["true", "false"],
    "csl": ["0", "1"],
    "msra_ner": ["B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "O"],
    "cmrc2018": [],
}
TASK_OF = dict.fromkeys(LABELS, "SequenceClassification")
TASK_OF.update(msra_ner="TokenClassification", cmrc2018="QuestionAnswering")

# Files that CLUE's leaderboard takes are <task>_predict.json; where a test set was renewed, the name says so
# (CLUE's submission rules, version 1.1).
LEADERBOARD_NAMES = {"tnews": "tnews11", "cluewsc2020": "cluewsc11", "ocnli": "ocnli_50k"}

IGNORED = -100  # the label that paddle's cross entropy leaves out


class UserError(Exception):
    """What a user can mend: printed as one message without a traceback, exit status 1."""


class UsageError(UserError):
    """A wrong argument, on the command line or in the YAML file: exit status 2."""


def run(main):
    """Runs a script's main() and turns what a user can mend into one message and an exit status."""
    try:
        main()
    except UserError as e:
        print(f"{os.path.basename(sys.argv[0])}: error: {e}", file=sys.stderr)
        sys.exit(2 if isinstance(e, UsageError) else 1)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


# ---------------------------------------------------------------------------------------------- arguments


@dataclass
class ModelArguments:
    model_name_or_path: str = field(
        metadata={
            "help": "A model of the hub (ernie-3.0-{base,medium,mini,micro,nano}-zh) or the path of a model folder."
        },
    )
    config: str = field(
        default=None, metadata={"help": "YAML file of hyperparameters; the command line wins over what stands there."}
    )
    export_model_dir: str = field(
        default=None,
        metadata={"help": "--do_export writes to <this>/<dataset>/export. Left out: as --output_dir."},
    )


@dataclass
class DataArguments:
    dataset: str = field(
        metadata={
            "help": "afqmc, tnews, iflytek, ocnli, cmnli, cluewsc2020, csl (run_seq_cls.py), msra_ner "
            "(run_token_cls.py), cmrc2018 (run_qa.py), or with --data_dir a folder name of your own."
        }
    )
    data_dir: str = field(
        default=None,
        metadata={
            "help": "Read <this>/<dataset>/{train,dev,test}.json (NER: .tsv) in CLUE's formats in place of "
            "downloading the data set."
        },
    )
    max_seq_length: int = field(
        default=128,
        metadata={"help": "Longest input in tokens, special tokens included; longer texts are cut (QA: windowed)."},
    )
    dynamic_max_length: list[int] = field(
        default=None,
        metadata={
            "help": "Pad a batch to the first of these lengths that holds it, e.g. 16 32 64 128: few shapes for "
            "devices that compile each. Left out: to the batch's own longest text."
        },
    )
    doc_stride: int = field(
        default=128, metadata={"help": "QA: tokens from the beginning of one window of a context to the next."}
    )
    max_query_length: int = field(default=64, metadata={"help": "QA: a question is cut behind so many tokens."})
    n_best_size: int = field(default=20, metadata={"help": "QA: candidates a window, and answers a question."})
    max_answer_length: int = field(default=50, metadata={"help": "QA: longest answer in tokens."})
    use_fast_tokenizer: bool = field(
        default=True,
        metadata={
            "help": "FastTokenizer where it is installed, else Hugging Face tokenizers. Off: PaddleNLP's own in "
            "Python, about ten times slower. The ids are the same."
        },
    )
    group_by_length: bool = field(
        default=True,
        metadata={"help": "Train on batches of texts of about one length: less padding. Off: a plain shuffle."},
    )


class ArgumentParser(PdArgumentParser):
    """PaddleNLP's parser, whose errors are one message in place of two hundred lines of usage."""

    def error(self, message):
        raise UsageError(f"{message}\n  python {self.prog} --help lists the arguments")


def parse_arguments(task, arguments_class=TrainingArguments, argv=None):
    """Arguments of one script: the command line over the YAML file over the defaults.

    Args:
        task: a block of the YAML file, as in `SCRIPTS`.
        arguments_class: `TrainingArguments` or `CompressionArguments`.
        argv: the command line; left out, this process's own.

    Returns:
        (ModelArguments, DataArguments, an `arguments_class`).

    Raises:
        UsageError: an argument or a key that does not exist, or a value that does not fit.
    """
    argv = sys.argv[1:] if argv is None else argv
    dataclass_types = (ModelArguments, DataArguments, arguments_class)
    parser = ArgumentParser(dataclass_types, allow_abbrev=False)
    device, device_why = default_device()
    parser.set_defaults(device=device, report_to="visualdl")

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "dataset"):
        early.add_argument(f"--{name}", nargs="?")
    early = early.parse_known_args(argv)[0]
    if early.config:
        apply_config(parser, early.config, task, early.dataset)

    values, unknown = parser.parse_known_args(argv)
    if unknown:
        names = [option for action in parser._actions for option in action.option_strings]
        parser.error(f"unknown argument {unknown[0]}{_nearest(unknown[0].split('=')[0], names)}")
    check_values(values, task)
    if arguments_class is TrainingArguments:
        # One folder a data set; the scripts' --output_dir is the folder of all of them.
        values.export_model_dir = values.export_model_dir or values.output_dir
        values.output_dir = os.path.join(values.output_dir, values.dataset)
        if values.do_train and values.do_eval:
            values.load_best_model_at_end = True
            values.metric_for_best_model = values.metric_for_best_model or MAIN_SCORE[task]
    if values.do_eval and not values.eval_steps:
        values.eval_steps = values.save_steps
        if values.evaluation_strategy == "no":
            values.evaluation_strategy = values.save_strategy
    if task == "QuestionAnswering":
        values.label_names = ["start_positions", "end_positions"]

    arguments = []
    for dataclass_type in dataclass_types:
        names = [f.name for f in dataclasses.fields(dataclass_type) if f.init]
        try:
            arguments.append(dataclass_type(**{name: getattr(values, name) for name in names}))
        except (ValueError, AssertionError) as e:
            parser.error(str(e))
    try:
        paddle.set_device(values.device)
    except ValueError as e:
        parser.error(f"--device {values.device}: {str(e).splitlines()[0]} (leave --device out to run on {device})")
    logger.info(f"device: {values.device}" + (f" ({device_why})" if values.device == device else ""))
    return arguments


def default_device():
    """("gpu" or "cpu", why)."""
    if not paddle.is_compiled_with_cuda():
        return "cpu", "this Paddle is built without GPU support"
    if paddle.device.cuda.device_count() == 0:
        return "cpu", "Paddle sees no GPU"
    return "gpu", "Paddle sees a GPU"


def apply_config(parser, path, task, dataset):
    """Makes a YAML file's DefaultArgs, and over them its block for a data set, the parser's defaults."""
    try:
        with open(path, encoding="utf-8") as f:
            config = yaml.safe_load(f) or {}
    except OSError as e:
        raise UserError(f"--config {path}: {e.strerror}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UsageError(f"--config {path} is not YAML: {' '.join(str(e).split())}") from e
    sections = ("DefaultArgs", *SCRIPTS)
    if not isinstance(config, dict):
        raise UsageError(f"--config {path}: expected the blocks {', '.join(sections)}")
    for name in config:
        if name not in sections:
            raise UsageError(f"--config {path}: unknown block {name!r}{_nearest(name, sections)}")
    blocks = {"DefaultArgs": config.get("DefaultArgs") or {}}
    for section in SCRIPTS:
        for name, block in (config.get(section) or {}).items():
            blocks[f"{section}: {name}"] = block or {}
    # The compress scripts read the same file: their arguments are known here, too.
    types = (ModelArguments, DataArguments, TrainingArguments, CompressionArguments)
    known = {f.name for t in types for f in dataclasses.fields(t)}
    for where, block in blocks.items():
        if not isinstance(block, dict):
            raise UsageError(f"--config {path}, {where}: expected `argument: value` lines")
        for key in block:
            if key not in known:
                raise UsageError(f"--config {path}, {where}: unknown key {key!r}{_nearest(key, known)}")
    actions = {action.dest: action for action in parser._actions}
    for where in ("DefaultArgs", f"{task}: {dataset}"):
        for key, value in blocks.get(where, {}).items():
            if key not in actions or value is None:
                continue
            action = actions[key]
            try:
                many = isinstance(value, list)
                values = [parser._get_value(action, str(v)) for v in (value if many else [value])]
            except argparse.ArgumentError:
                raise UsageError(f"--config {path}, {where}: {key}: {value!r} does not fit") from None
            action.required = False
            parser.set_defaults(**{key: values if action.nargs == "+" else values[0]})


def _nearest(name, names):
    """`; did you mean ...?` where one of the names is near."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], n=1)
    return f"; did you mean {close[0]}?" if close else ""


def check_values(values, task):
    """Raises UsageError for values that would fail later, or silently train something else."""
    minimum = {
        "max_seq_length": 8,
        "doc_stride": 1,
        "max_query_length": 1,
        "n_best_size": 1,
        "max_answer_length": 1,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "logging_steps": 1,
        "save_steps": 1,
        "learning_rate": 0,
        "num_train_epochs": 0,
    }
    for name, least in minimum.items():
        if not getattr(values, name) >= least:
            raise UsageError(f"--{name} {getattr(values, name)}: must be {least} or more")
    if values.dynamic_max_length and max(values.dynamic_max_length) < values.max_seq_length:
        raise UsageError(
            f"--dynamic_max_length {max(values.dynamic_max_length)}: the last of these lengths must hold "
            f"--max_seq_length {values.max_seq_length}"
        )
    other = TASK_OF.get(values.dataset, task)
    if other != task:
        raise UsageError(f"--dataset {values.dataset} is of another scenario: use {SCRIPTS[other]}")
    if values.data_dir is None and values.dataset not in TASK_OF:
        names = [name for name in TASK_OF if TASK_OF[name] == task]
        raise UsageError(
            f"--dataset {values.dataset}: none of {', '.join(names)}{_nearest(values.dataset, names)} "
            "For a data set of your own add --data_dir"
        )


# --------------------------------------------------------------------------------------------------- data


def load_examples(task, data_args, split):
    """Reads one split of a data set.

    Args:
        task: as in `SCRIPTS`.
        split: "train", "dev" or "test".

    Returns:
        A list of examples. Each holds "id", "where" (file and line), and
        - SequenceClassification: "text", "text_pair" (str or None), "label" (str; none in a test split);
        - TokenClassification: "tokens", "tags" (lists of str; no tags in an unlabelled file);
        - QuestionAnswering: "question", "context", "answers": [{"text", "answer_start"}].

    Raises:
        UserError: a file is missing or empty, or a row is broken; names file and line.
    """
    path = find_split(task, data_args, split)
    reader = {
        "SequenceClassification": read_seq_cls,
        "TokenClassification": read_token_cls,
        "QuestionAnswering": read_qa,
    }[task]
    examples = reader(path, labelled=split != "test")
    if not examples:
        raise UserError(f"{path} has no examples")
    logger.info(f"{split}: {len(examples):,} examples from {path}")
    return examples


def find_split(task, data_args, split):
    """The file of a split: in --data_dir, or fetched by PaddleNLP."""
    if data_args.data_dir is None:
        return fetch_split(data_args.dataset, split)
    folder = os.path.join(data_args.data_dir, data_args.dataset)
    if not os.path.isdir(folder):
        inside = sorted(os.listdir(data_args.data_dir)) if os.path.isdir(data_args.data_dir) else None
        found = "does not exist" if inside is None else f"holds {', '.join(inside[:12]) or 'nothing'}"
        raise UserError(f"no folder {folder}: --data_dir {data_args.data_dir} {found}")
    names = [f"{split}.tsv" if task == "TokenClassification" else f"{split}.json"]
    if task == "TokenClassification" and split == "dev":
        names.append("test.tsv")  # MSRA_NER has two splits only and is scored on test
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise UserError(f"no file {' or '.join(names)} in {folder}")


def fetch_split(dataset, split):
    """Has PaddleNLP's data set builder download a split (once, to its cache); returns the file's path."""
    from paddlenlp.datasets.dataset import import_main_class

    clue = TASK_OF[dataset] == "SequenceClassification"
    builder = import_main_class("clue" if clue else dataset)(lazy=False, name=dataset if clue else None)
    # PaddleNLP's MSRA_NER has no dev split, and its CMRC2018 no test split but "trial".
    hub_split = {("msra_ner", "dev"): "test", ("cmrc2018", "test"): "trial"}.get((dataset, split), split)
    try:
        return builder._get_data(hub_split)
    except Exception as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise UserError(
            f"{dataset} could not be downloaded ({reason}). Without network, put its files into "
            f"DIR/{dataset}/ and add --data_dir DIR"
        ) from e


def read_lines(path):
    """Yields (line number, text) of the lines that are not blank.

    Lines end at \\n alone: U+2028 and U+0085 stand inside real texts.
    """
    try:
        with open(path, "rb") as f:
            for number, raw in enumerate(f, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as e:
                    raise UserError(f"{path} line {number} is not UTF-8: {e.reason} at byte {e.start}") from e
                if line.strip():
                    yield number, line
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from e


def read_seq_cls(path, labelled):
    """Reads JSON lines of CLUE's classification tasks; which one is told by the fields."""
    examples = []
    for number, line in read_lines(path):
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except ValueError as e:
            raise UserError(f"{where} is not JSON: {e}") from e
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object, got {line[:40]!r}")
        example = {"id": row.get("id", row.get("idx", len(examples))), "where": where}
        if "target" in row:
            example.update(text=mark_spans(row, where), text_pair=None)
        elif "keyword" in row or "abst" in row:
            keywords = row.get("keyword")
            if not isinstance(keywords, list) or not all(isinstance(k, str) for k in keywords):
                raise UserError(f"{where}: `keyword` must be a list of texts, got {keywords!r:.60}")
            example.update(text=" ".join(keywords), text_pair=text_of(row, "abst", where))
        elif "sentence1" in row or "sentence2" in row:
            example.update(text=text_of(row, "sentence1", where), text_pair=text_of(row, "sentence2", where))
        else:
            example.update(text=text_of(row, "sentence", where), text_pair=None)
        if labelled:
            label = row.get("label")
            if isinstance(label, bool):
                label = str(label).lower()
            if label is None or isinstance(label, (float, list, dict)) or str(label) == "":
                raise UserError(f"{where}: `label` is {json.dumps(label)}, expected a label's name")
            if label == "-":
                continue  # OCNLI, CMNLI: the annotators did not agree
            example["label"] = str(label)
        examples.append(example)
    return examples


def text_of(row, key, where, may_be_empty=False):
    """A row's text, or an error that says what stands there instead."""
    if key not in row:
        raise UserError(f"{where}: no field `{key}`; it has {', '.join(row) or 'none'}")
    text = row[key]
    if not isinstance(text, str) or not (text.strip() or may_be_empty):
        raise UserError(f"{where}: `{key}` is {json.dumps(text, ensure_ascii=False):.60}, expected a text")
    return text


def mark_spans(row, where):
    """CLUEWSC's text with its noun as `_noun_` and its pronoun as `[pronoun]`, whichever comes first."""
    text = text_of(row, "text", where)
    marks = []
    for key, opening, closing in (("span1", "_", "_"), ("span2", "[", "]")):
        try:
            start, span = row["target"][f"{key}_index"], row["target"][f"{key}_text"]
        except (KeyError, TypeError):
            raise UserError(f"{where}: `target` needs {key}_index and {key}_text") from None
        if not isinstance(start, int) or not isinstance(span, str) or text[start : start + len(span)] != span:
            raise UserError(f"{where}: `{key}_text` {span!r} does not stand at `{key}_index` {start!r} of the text")
        marks += [(start + len(span), 0, closing), (start, 1, opening)]
    # From the back, so that no mark moves another; where one span ends as the other begins, the end comes first.
    for position, _, mark in sorted(marks, key=lambda m: (m[0], m[1]), reverse=True):
        text = text[:position] + mark + text[position:]
    return text


def read_token_cls(path, labelled):
    """Reads MSRA_NER's format: tokens, a tab, tags; both joined by \\x02."""
    examples = []
    for number, line in read_lines(path):
        where = f"{path} line {number}"
        columns = line.split("\t")
        if len(columns) > 2 or (labelled and len(columns) < 2):
            raise UserError(f"{where}: expected tokens, a tab, tags; got {len(columns)} column(s)")
        example = {"id": len(examples), "where": where, "tokens": columns[0].split("\x02")}
        if not any(token.strip() for token in example["tokens"]):
            raise UserError(f"{where} has no tokens")
        if len(columns) == 2:
            example["tags"] = columns[1].split("\x02")
            if len(example["tags"]) != len(example["tokens"]):
                raise UserError(f"{where}: {len(example['tokens'])} tokens, but {len(example['tags'])} tags")
            for tag in example["tags"]:
                if tag != "O" and not re.fullmatch("[BI]-.+", tag):
                    raise UserError(f"{where}: tag {tag!r}; expected O, B-<kind> or I-<kind>")
        examples.append(example)
    return examples


def read_qa(path, labelled):
    """Reads SQuAD-style JSON as CMRC2018 has it."""
    try:
        with open(path, encoding="utf-8-sig") as f:
            articles = json.load(f)["data"]
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8: {e.reason} at byte {e.start}") from e
    except json.JSONDecodeError as e:
        raise UserError(f"{path} line {e.lineno} is not JSON: {e.msg} (column {e.colno})") from e
    except (KeyError, TypeError):
        raise UserError(f"{path}: expected SQuAD's format, a JSON object with a list `data`") from None
    examples = []
    for article_number, article in enumerate(articles):
        where = f"{path} data[{article_number}]"
        try:
            pairs = [(paragraph, qa) for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
        except (KeyError, TypeError) as e:
            raise UserError(f"{where}: needs `paragraphs`, each with `context` and `qas` ({e!r})") from None
        for paragraph, qa in pairs:
            example_where = f"{where}, question {qa.get('id', '?')}"
            answers = qa.get("answers") or []
            if labelled and not answers:
                raise UserError(f"{example_where} has no answers")
            for answer in answers:
                text_of(answer, "text", example_where)
                if not isinstance(answer.get("answer_start"), int):
                    raise UserError(f"{example_where}: `answer_start` is {answer.get('answer_start')!r}")
            examples.append(
                {
                    "id": qa.get("id", f"{len(examples)}"),
                    "where": example_where,
                    # CMRC2018 itself has an empty question.
                    "question": text_of(qa, "question", example_where, may_be_empty=True),
                    "context": text_of(paragraph, "context", example_where),
                    "answers": answers,
                }
            )
    return examples


def find_labels(task, dataset, train_examples, model_args):
    """The label list, in the order of the model's classes.

    A published data set has its own; one's own takes its labels from the training file, or, where nothing is
    trained, from the fine-tuned model.
    """
    if dataset in LABELS:
        return LABELS[dataset]
    if task == "QuestionAnswering":
        return []
    if train_examples is None:
        id2label = read_model_config(model_args.model_name_or_path).get("id2label") or {}
        return [id2label[key] for key in sorted(id2label, key=int)]
    key = "label" if task == "SequenceClassification" else "tags"
    labels = {label for e in train_examples for label in ([e[key]] if key == "label" else e[key])}
    return sorted(labels | ({"O"} if key == "tags" else set()))


def label_ids(examples, labels, key):
    """{label: class index}, once every example is known to carry known labels only."""
    ids = {label: index for index, label in enumerate(labels)}
    for example in examples:
        for label in [example[key]] if isinstance(example[key], str) else example[key]:
            if label not in ids:
                names = ", ".join(labels[:20]) + (" ..." if len(labels) > 20 else "")
                raise UserError(f"{example['where']}: unknown label {label!r}; known are {names}")
    return ids


# ----------------------------------------------------------------------------------- model and tokenizer


def local_folder(name):
    """The absolute path of a local model folder, or None for a name of the hub.

    Absolute, since PaddleNLP asks the hub for a bare name even where a folder is called so.
    """
    if os.path.isdir(name):
        return os.path.abspath(name)
    if os.path.exists(name):
        raise UserError(f"--model_name_or_path {name} is a file; expected a model folder or a name of the hub")
    if name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1:
        raise UserError(f"--model_name_or_path {name}: no such folder")
    return None


def read_model_config(name):
    """config.json of a model folder as a dict; {} for a name of the hub."""
    folder = local_folder(name)
    if folder is None:
        return {}
    path = os.path.join(folder, "config.json")
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except OSError:
        raise UserError(
            f"--model_name_or_path {name} is no model folder: it has no config.json (it holds "
            f"{', '.join(sorted(os.listdir(folder))[:8]) or 'nothing'})"
        ) from None
    except ValueError as e:
        raise UserError(f"{path} is not JSON: {e}") from e


def load_model(auto_class, model_args, data_args, tokenizer, labels, fine_tuned):
    """Loads a model with a head for these labels.

    Args:
        auto_class: AutoModelForSequenceClassification or another of paddlenlp.transformers.
        fine_tuned: nothing will be trained, so the folder must hold a model for this very task and labels.

    Raises:
        UserError: a folder without its parts, a hub that can't be reached, another task's model.
    """
    name = model_args.model_name_or_path
    folder, config = local_folder(name), read_model_config(name)
    head = auto_class.__name__.removeprefix("AutoModelFor")
    if fine_tuned:
        architecture = (config.get("architectures") or ["?"])[0]
        id2label = config.get("id2label") or {}
        found = [id2label[key] for key in sorted(id2label, key=int)]
        if not architecture.endswith(head) or (labels and found != labels):
            raise UserError(
                f"--model_name_or_path {name} was not fine-tuned for {data_args.dataset}: it is a {architecture}"
                + (f" with the labels {', '.join(found[:8])}" if found else "")
                + ". Add --do_train, or name the folder that --do_train wrote"
            )
    if folder is not None and not any(f.endswith((".pdparams", ".safetensors")) for f in os.listdir(folder)):
        raise UserError(f"--model_name_or_path {name} has no weights (model_state.pdparams)")
    arguments = {"num_labels": len(labels)} if labels else {}
    try:
        model = auto_class.from_pretrained(folder or name, ignore_mismatched_sizes=not fine_tuned, **arguments)
    except Exception as e:
        raise UserError(_cannot_load("model", name, folder, e)) from e
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: index for index, label in enumerate(labels)}
    if max(tokenizer.vocab.values()) >= model.config.vocab_size:
        raise UserError(
            f"{name}: its vocab.txt has {max(tokenizer.vocab.values()) + 1:,} entries, but its model takes ids below "
            f"{model.config.vocab_size:,}; the files are of different models"
        )
    longest = model.config.max_position_embeddings
    if data_args.max_seq_length > longest:
        raise UsageError(f"--max_seq_length {data_args.max_seq_length}: {name} takes up to {longest} tokens")
    return model


def _cannot_load(what, name, folder, error):
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if folder is None:
        return (
            f"--model_name_or_path {name}: no folder of that name, and the hub gave no {what} ({reason}). "
            "Check the name and the network, or give the path of a model folder"
        )
    return f"the {what} in {name} can't be loaded: {reason}"


class PythonErnieTokenizer(ernie_tokenizer.ErnieTokenizer):
    """PaddleNLP's own tokenizer in Python behind the interface of the fast ones, for --use_fast_tokenizer off."""

    def __init__(self, tokenizer):
        super().__init__(dict(tokenizer.vocab.token_to_idx), backend="tokenizers")
        self.reference = tokenizer

    def encode(self, texts):
        reference = self.reference
        # PaddleNLP's own offsets are of the normalized text; those of `tokenizers` are exact, and the pieces the same.
        offsets = [e.offsets for e in super().encode(texts)]
        ids = [reference.convert_tokens_to_ids(reference.tokenize(text)) for text in texts]
        return [ernie_tokenizer.Encoding(*pair) for pair in zip(ids, offsets)]


def load_tokenizer(model_args, data_args):
    """(PaddleNLP's tokenizer, which saves itself beside a model; the ErnieTokenizer that does the work)."""
    name = model_args.model_name_or_path
    folder = local_folder(name)
    try:
        if folder is not None:
            ernie_tokenizer.load_vocab(os.path.join(folder, "vocab.txt"))  # raises what a user can read
            reference = ErnieTokenizer.from_pretrained(folder)
        else:
            reference = AutoTokenizer.from_pretrained(name)
    except ernie_tokenizer.TokenizerError as e:
        raise UserError(str(e)) from e
    except Exception as e:
        raise UserError(_cannot_load("tokenizer", name, folder, e)) from e
    if not isinstance(reference, ErnieTokenizer):
        raise UserError(f"--model_name_or_path {name} has a {type(reference).__name__}; expected an ERNIE model")
    reference.model_max_length = data_args.max_seq_length
    reference.init_kwargs["model_max_length"] = data_args.max_seq_length
    if data_args.use_fast_tokenizer:
        vocab = dict(reference.vocab.token_to_idx)
        tokenizer = ernie_tokenizer.ErnieTokenizer(vocab, do_lower_case=reference.do_lower_case)
    else:
        tokenizer = PythonErnieTokenizer(reference)
    return reference, tokenizer


# ----------------------------------------------------------------------------------------------- features


def encode(tokenizer, texts, description):
    """Tokenizes many texts with a progress bar; a list of `Encoding`."""
    encodings = []
    with tqdm(total=len(texts), desc=description, disable=len(texts) < 2000) as bar:
        for begin in range(0, len(texts), 1024):
            chunk = texts[begin : begin + 1024]
            encodings += tokenizer.encode(chunk)
            bar.update(len(chunk))
    return encodings


def seq_cls_features(examples, tokenizer, data_args, label2id=None):
    """Classification features: "input_ids", "token_type_ids" (lists of int), "labels" (int) where there are."""
    encodings = encode(tokenizer, [e["text"] for e in examples], "Tokenizing")
    pairs = [e["text_pair"] for e in examples]
    pair_encodings = iter(encode(tokenizer, [p for p in pairs if p is not None], "Tokenizing pairs"))
    features = []
    for example, encoding, pair in zip(examples, encodings, pairs):
        pair_ids = None if pair is None else next(pair_encodings).ids
        input_ids, token_type_ids = tokenizer.build_inputs(encoding.ids, pair_ids, data_args.max_seq_length)
        feature = {"input_ids": input_ids, "token_type_ids": token_type_ids}
        if label2id is not None:
            feature["labels"] = label2id[example["label"]]
        features.append(feature)
    return features


def join_tokens(tokens):
    """The text that tokens stand for, and where in it each begins.

    Words of an alphabet are set apart by a space, as people write them; single characters are not, since
    MSRA_NER writes a word of an alphabet letter by letter.

    >>> join_tokens(["在", "New", "York", "3", "0", "天"])
    ('在New York30天', [0, 1, 5, 9, 10, 11])
    """
    text, starts = "", []
    for previous, token in zip(["", *tokens], tokens):
        if len(previous) > 1 and len(token) > 1 and _wordlike(previous[-1]) and _wordlike(token[0]):
            text += " "
        starts.append(len(text))
        text += token
    return text, starts


def _wordlike(char):
    return char.isascii() and char.isalnum()


def token_cls_features(examples, tokenizer, data_args, label2id=None):
    """NER features: "input_ids", "token_type_ids", "labels" (lists of int), and for reading answers "text",
    "offsets" ([(start, end)] of the kept pieces).

    A token's label stands on its first piece. Everything else ([CLS], [SEP], pieces that begin no token) is
    labelled `IGNORED`, hence out of the loss and of the score.
    """
    joined = [join_tokens(e["tokens"]) for e in examples]
    encodings = encode(tokenizer, [text for text, _ in joined], "Tokenizing")
    features, cut = [], 0
    for example, (text, starts), encoding in zip(examples, joined, encodings):
        input_ids, token_type_ids = tokenizer.build_inputs(encoding.ids, None, data_args.max_seq_length)
        offsets = encoding.offsets[: len(input_ids) - 2]
        cut += len(offsets) < len(encoding.offsets)
        feature = {"input_ids": input_ids, "token_type_ids": token_type_ids, "text": text, "offsets": offsets}
        if label2id is not None:
            labels, labelled = [IGNORED], -1
            for start, _ in offsets:
                token = bisect.bisect_right(starts, start) - 1
                labels.append(label2id[example["tags"][token]] if token > labelled else IGNORED)
                labelled = max(token, labelled)
            feature["labels"] = [*labels, IGNORED]
        features.append(feature)
    if cut:
        logger.warning(f"{cut:,} of {len(examples):,} sentences were cut at --max_seq_length {data_args.max_seq_length}")
    return features


def locate_answer(context, answer):
    """(start, end) of an answer in characters; None where its text is nowhere in the context.

    CMRC2018 has answers whose `answer_start` is off: the nearest occurrence is taken.
    """
    text, start = answer["text"], answer["answer_start"]
    if context[max(start, 0) : max(start, 0) + len(text)] != text:
        places = [m.start() for m in re.finditer(re.escape(text), context)]
        if not places:
            return None
        start = min(places, key=lambda place: abs(place - start))
    return start, start + len(text)


def qa_features(examples, tokenizer, data_args, labelled=False):
    """Reading comprehension features, one a window of a context: "input_ids", "token_type_ids", and for reading
    answers "example" (index), "first" (the window's first context piece), "begin" (its position in the input);
    with `labelled` also "start_positions", "end_positions" (0, [CLS], where the window lacks the answer).

    Returns:
        (features, offsets of every example's context pieces).
    """
    questions = encode(tokenizer, [e["question"] for e in examples], "Tokenizing questions")
    # The questions of one context follow each other: each context is tokenized once.
    contexts = list(dict.fromkeys(e["context"] for e in examples))
    encoded = dict(zip(contexts, encode(tokenizer, contexts, "Tokenizing contexts")))
    features, lost = [], 0
    for index, (example, question) in enumerate(zip(examples, questions)):
        context = encoded[example["context"]]
        pieces = None
        if labelled:
            spans = (locate_answer(example["context"], answer) for answer in example["answers"])
            span = next((s for s in spans if s is not None), None)
            if span is not None:
                pieces = _pieces_of(span, context.offsets)
            lost += pieces is None
        for input_ids, token_type_ids, first, begin in tokenizer.build_windows(
            question, context, data_args.max_seq_length, data_args.doc_stride, data_args.max_query_length
        ):
            feature = {"input_ids": input_ids, "token_type_ids": token_type_ids}
            feature.update(example=index, first=first, begin=begin)
            if labelled:
                inside = pieces is not None and first <= pieces[0] and pieces[1] < first + len(input_ids) - begin - 1
                feature["start_positions"] = pieces[0] - first + begin if inside else 0
                feature["end_positions"] = pieces[1] - first + begin if inside else 0
            features.append(feature)
    if lost:
        logger.warning(f"{lost:,} of {len(examples):,} questions have no answer that stands in the context")
    return features, [encoded[e["context"]].offsets for e in examples]


def _pieces_of(span, offsets):
    """(first, last) piece of a span of characters, or None where no piece lies there (white space)."""
    first = bisect.bisect_right([end for _, end in offsets], span[0])
    last = bisect.bisect_left([start for start, _ in offsets], span[1]) - 1
    return (first, last) if first <= last else None


class Collator:
    """Features to a batch: pads to the longest, or to the first of `dynamic_max_length` that holds it.

    The longest batch is [batch, max_seq_length], int64.
    """

    def __init__(self, tokenizer, dynamic_max_length=None):
        self.tokenizer = tokenizer
        self.lengths = sorted(dynamic_max_length or [])

    def __call__(self, features):
        longest = max(len(f["input_ids"]) for f in features)
        length = next((n for n in self.lengths if n >= longest), longest)
        batch = self.tokenizer.pad([(f["input_ids"], f["token_type_ids"]) for f in features], length)
        for key in ("labels", "start_positions", "end_positions"):
            if key not in features[0]:
                continue
            values = [f[key] for f in features]
            if isinstance(values[0], list):
                values = [v + [IGNORED] * (length - len(v)) for v in values]
            batch[key] = np.array(values, dtype=np.int64)
        return {key: paddle.to_tensor(value) for key, value in batch.items()}


def longest_first(features):
    """(features from the longest to the shortest, for batches with little padding; what restores the order)."""
    order = np.argsort([-len(f["input_ids"]) for f in features], kind="stable")
    return [features[i] for i in order], np.argsort(order)


# ------------------------------------------------------------------------------------------------ metrics

# The score by which the best checkpoint is chosen and models are compared.
MAIN_SCORE = {"SequenceClassification": "accuracy", "TokenClassification": "f1", "QuestionAnswering": "exact_match"}


def accuracy(predictions, labels):
    """{"accuracy"}: the share of right classes. predictions: logits [examples, classes]; labels: int [examples]."""
    return {"accuracy": float((predictions.argmax(axis=-1) == labels).mean())}


def majority_share(examples):
    """{"majority_class"}: the accuracy of always answering the commonest label."""
    counts = collections.Counter(e["label"] for e in examples)
    return {"majority_class": max(counts.values()) / len(examples)}


def entity_scores(predictions, labels, label_list):
    """Entity-level {"precision", "recall", "f1"} as seqeval counts them.

    Args:
        predictions: logits [sentences, length, tags].
        labels: int [sentences, length]; `IGNORED` positions do not count.
    """
    from seqeval.metrics import f1_score, precision_score, recall_score

    best = predictions.argmax(axis=-1)
    kept = [row != IGNORED for row in labels]
    true = [[label_list[i] for i in row[keep]] for row, keep in zip(labels, kept)]
    found = [[label_list[i] for i in row[keep]] for row, keep in zip(best, kept)]
    scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    return {name: float(score(true, found, zero_division=0)) for name, score in scores.items()}


# What CMRC2018's scorer (cmrc2018_evaluate.py) leaves out of an answer.
CMRC_PUNCTUATION = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def cmrc_units(text):
    """An answer as CMRC2018's scorer cuts it: Chinese characters one by one, other runs word by word."""
    from nltk.tokenize import NLTKWordTokenizer

    units, run_of_others = [], ""
    for char in text.lower().strip() + "\u4e00":  # a Chinese character to end the last run
        if char in CMRC_PUNCTUATION:
            continue
        if "\u4e00" <= char <= "\u9fa5":
            units += NLTKWordTokenizer().tokenize(run_of_others) if run_of_others else []
            units.append(char)
            run_of_others = ""
        else:
            run_of_others += char
    return units[:-1]


def cmrc_scores(predictions, references):
    """{"exact_match", "f1"} as CMRC2018's scorer defines them for Chinese, as shares of 1.

    Exact match leaves punctuation out. F1 is of the longest run of units that an answer and a reference have in
    common; of several references the best counts.

    Args:
        predictions: a list of str.
        references: for each a list of str.
    """
    exact = f1 = 0.0
    for prediction, answers in zip(predictions, references):
        exact += any(_without_punctuation(prediction) == _without_punctuation(answer) for answer in answers)
        f1 += max(_cmrc_f1(cmrc_units(prediction), cmrc_units(answer)) for answer in answers)
    return {"exact_match": exact / len(references), "f1": f1 / len(references)}


def _without_punctuation(text):
    return "".join(c for c in text.lower().strip() if c not in CMRC_PUNCTUATION)


def _cmrc_f1(units, answer_units):
    match = difflib.SequenceMatcher(None, units, answer_units, autojunk=False)
    common = match.find_longest_match(0, len(units), 0, len(answer_units)).size
    if common == 0:
        return 0.0
    precision, recall = common / len(units), common / len(answer_units)
    return 2 * precision * recall / (precision + recall)


def question_blind_share(examples):
    """{"question_blind"}: the exact match that no model can exceed if it never reads the question.

    Such a model gives one answer a context; the best it can do is the answer that most of the context's
    questions share.
    """
    contexts = collections.defaultdict(list)
    for example in examples:
        contexts[example["context"]].append({_without_punctuation(a["text"]) for a in example["answers"]})
    best = 0
    for answer_sets in contexts.values():
        counts = collections.Counter(answer for answers in answer_sets for answer in answers)
        best += max(counts.values())
    return {"question_blind": best / len(examples)}


# ----------------------------------------------------------------------------------------------- training


class LengthGroupedBatchSampler(paddle.io.DistributedBatchSampler):
    """Batches of texts of about one length, in random order: less padding, and no loss of chance.

    Each epoch shuffles, sorts by length within 50 batches, and shuffles the batches. The order follows from seed
    and epoch alone, so that a resumed training sees the same batches.
    """

    def __init__(self, lengths, batch_size, seed, num_replicas=1, rank=0, drop_last=False):
        super().__init__(lengths, batch_size, num_replicas, rank, shuffle=True, drop_last=drop_last)
        self.lengths = np.asarray(lengths)
        self.seed = seed

    def __iter__(self):
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        # Every replica gets as many texts: the first ones serve twice.
        order = np.resize(order, -(-len(order) // self.nranks) * self.nranks)
        step = self.batch_size * self.nranks
        group = step * max(min(len(order) // (step * 4), 50), 1)
        grouped = [order[i : i + group] for i in range(0, len(order), group)]
        order = np.concatenate([g[np.argsort(-self.lengths[g], kind="stable")] for g in grouped])
        batches = [order[i : i + step] for i in range(0, len(order), step)]
        last = [] if len(batches[-1]) == step else [batches.pop()]
        generator.shuffle(batches)
        for batch in batches + ([] if self.drop_last else last):
            yield batch[self.local_rank :: self.nranks].tolist()


class AtTheEnd(TrainerCallback):
    """Scores and saves the last step, too: PaddleNLP does so at multiples of save_steps alone, which a small data
    set never reaches."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step >= state.max_steps:
            control.should_evaluate = args.evaluation_strategy != "no"
            control.should_save = args.save_strategy != "no"
        return control


class ErnieTrainer(Trainer):
    """PaddleNLP's Trainer with batches grouped by length and checkpoints that are whole or not there."""

    def __init__(self, *args, data_args=None, settings=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.data_args, self.settings = data_args, settings or {}
        self.add_callback(AtTheEnd)

    def _get_train_sampler(self):
        if not self.data_args.group_by_length:
            return super()._get_train_sampler()
        args = self.args
        return LengthGroupedBatchSampler(
            [len(f["input_ids"]) for f in self.train_dataset],
            args.per_device_train_batch_size,
            args.seed,
            args.dataset_world_size,
            args.dataset_rank,
            args.dataloader_drop_last,
        )

    def _save_checkpoint(self, model, metrics=None):
        # PaddleNLP writes into the final folder, and deletes old checkpoints only where several processes run.
        # A checkpoint counts once complete.json stands in it, and only then may the older ones go.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, metrics)
        self.args.save_total_limit = limit
        if self.args.should_save:
            checkpoint = os.path.join(self.args.output_dir, f"checkpoint-{self.state.global_step}")
            finished = self.state.global_step >= self.state.max_steps
            write_json(os.path.join(checkpoint, "complete.json"), {**self.settings, "finished": finished})
            self._rotate_checkpoints(use_mtime=True, output_dir=self.args.output_dir)

    def _sorted_checkpoints(self, output_dir=None, checkpoint_prefix="checkpoint", use_mtime=False):
        """Oldest first, the best one last of all but the newest, as the rotation expects it."""
        found = super()._sorted_checkpoints(output_dir, checkpoint_prefix, use_mtime)
        best = self.state.best_model_checkpoint
        if best in found[:-2]:
            found.remove(best)
            found.insert(len(found) - 1, best)
        return found


def training_settings(model_args, data_args, training_args, num_examples):
    """What must be the same for a checkpoint to be gone on with."""
    names = (
        "learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps "
        "weight_decay warmup_ratio warmup_steps lr_scheduler_type seed world_size"
    )
    settings = {name: getattr(training_args, name) for name in names.split()}
    settings["lr_scheduler_type"] = str(getattr(training_args.lr_scheduler_type, "value", ""))
    names = "dataset max_seq_length doc_stride max_query_length group_by_length"
    settings.update({name: getattr(data_args, name) for name in names.split()})
    settings.update(model_name_or_path=model_args.model_name_or_path, num_examples=num_examples)
    return settings


def find_checkpoint(training_args, settings):
    """The checkpoint to go on from, or None.

    Checkpoints without complete.json (killed while writing) are removed. An unfinished training with other
    settings is never mixed with this one, nor thrown away unasked.
    """
    if training_args.resume_from_checkpoint:
        return training_args.resume_from_checkpoint
    folder = training_args.output_dir
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if not re.fullmatch(r"checkpoint-\d+", name) or not os.path.isdir(path):
            continue
        complete = os.path.join(path, "complete.json")
        if os.path.exists(complete) and not training_args.overwrite_output_dir:
            found.append((int(name.split("-")[1]), path, complete))
        elif training_args.should_save:
            shutil.rmtree(path)
    if not found:
        return None
    _, path, complete = max(found)
    with open(complete, encoding="utf-8") as f:
        before = json.load(f)
    changed = {key: before.get(key) for key in settings if before.get(key) != settings[key]}
    if not changed:
        logger.info(f"going on from {path}; --overwrite_output_dir begins anew")
        return path
    if not before.get("finished"):
        differences = ", ".join(f"{key} {value} (now {settings[key]})" for key, value in changed.items())
        raise UserError(
            f"{path} is of an unfinished training with {differences}. Run it with those settings to go on, add "
            "--overwrite_output_dir to begin anew, or choose another --output_dir"
        )
    if training_args.should_save:
        for _, path, _ in found:
            shutil.rmtree(path)
    return None


def check_writable(folder):
    """Raises UserError where a folder can't be written, before hours of work for nothing."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise UserError(f"--output_dir {folder} can't be written: {e.strerror}") from e


# -------------------------------------------------------------------------------------- saving and export


def write_json(path, content):
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_text(path, text):
    """Writes a text file whole or not at all."""
    with open(path + ".part", "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
    os.replace(path + ".part", path)


@contextlib.contextmanager
def new_folder(path):
    """Yields an empty folder beside `path` that takes its place when all went well."""
    parent = os.path.dirname(os.path.abspath(path))
    os.makedirs(parent, exist_ok=True)
    part = tempfile.mkdtemp(prefix=f".{os.path.basename(path)}.", suffix=".part", dir=parent)
    os.chmod(part, 0o755)
    try:
        yield part
        old = part + ".old"
        if os.path.isdir(path):
            os.rename(path, old)
        os.rename(part, path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def save_model(model, tokenizer, folder):
    """Saves weights, config.json and tokenizer into a folder, each file whole or not at all."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving.", dir=folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, "metrics.json"))  # of the weights that were here before
        # config.json last: a folder without it is no model yet.
        for name in sorted(os.listdir(part), key=lambda name: name == "config.json"):
            os.replace(os.path.join(part, name), os.path.join(folder, name))


OUTPUT_NAMES = {
    "SequenceClassification": ["logits"],
    "TokenClassification": ["logits"],
    "QuestionAnswering": ["start_logits", "end_logits"],
}


def export_model(task, model, tokenizer, folder, metrics):
    """Writes a folder that any runtime takes: Paddle static model, ONNX model, config, tokenizer, metrics.

    Raises:
        RuntimeError: the ONNX model's logits are not Paddle's.
    """
    with new_folder(folder) as part:
        workarounds.save_static_model(model, part)
        workarounds.static_to_onnx(part, OUTPUT_NAMES[task])
        error = onnx_error(model, os.path.join(part, "model.onnx"))
        if not error < 1e-4:
            raise RuntimeError(f"the ONNX model differs from Paddle's by {error:.2e}; nothing was exported")
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(part)
        tokenizer.save_pretrained(part)
        write_json(os.path.join(part, "metrics.json"), metrics or {"note": "not scored: run with --do_eval"})
    sizes = {name: os.path.getsize(os.path.join(folder, name)) / 2**20 for name in ("model.pdiparams", "model.onnx")}
    logger.info(f"exported {folder}: " + ", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))
    logger.info(f"ONNX Runtime's logits differ from Paddle's by {error:.1e} at most")


def onnx_error(model, onnx_file):
    """Largest difference between Paddle's logits and ONNX Runtime's on ragged batches of random ids.

    Batches of 1 to 32 texts, 3 to 512 tokens (or as many as the model takes).
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    longest = min(512, model.config.max_position_embeddings)
    generator = np.random.default_rng(0)
    was_training = model.training
    model.eval()
    worst = 0.0
    for batch, length in ((1, 3), (32, 24), (4, 128), (2, longest)):
        length = min(length, longest)
        input_ids = generator.integers(1, model.config.vocab_size, [batch, length])
        token_type_ids = np.zeros_like(input_ids)
        for row, kept in enumerate(generator.integers(3, length + 1, batch)):
            input_ids[row, kept if row else length :] = model.config.pad_token_id
            token_type_ids[row, kept // 2 : kept] = 1
        with paddle.no_grad():
            expected = model(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids))
        expected = expected if isinstance(expected, (tuple, list)) else [expected]
        found = session.run(None, {"input_ids": input_ids, "token_type_ids": token_type_ids})
        worst = max(worst, *(float(np.abs(a.numpy() - b).max()) for a, b in zip(expected, found)))
    if was_training:
        model.train()
    return worst


def dev_metrics(dataset, num_examples, scores, baseline):
    """What metrics.json holds: the dev scores of one model, as shares of 1, and a trivial baseline's."""
    return {"dataset": dataset, "split": "dev", "num_examples": num_examples, **scores, "baseline": baseline}


def read_metrics(folder):
    """metrics.json of a model folder, where the model was scored; else None."""
    path = os.path.join(folder, "metrics.json")
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        return json.load(f)


# -------------------------------------------------------------------------------------------- predictions


def classify(examples, logits, labels):
    """test_results.json of a classification: id, text, label and confidence of each example."""
    results = []
    for example, answer in zip(examples, read_classes(logits, labels)):
        texts = {key: example[key] for key in ("text", "text_pair") if example[key] is not None}
        results.append({"id": example["id"], **texts, **answer})
    return results


def find_entities(examples, features, logits, labels):
    """test_results.json of NER: id, text and entities of each example."""
    results = []
    for example, feature, row in zip(examples, features, logits):
        pieces = row[1 : len(feature["offsets"]) + 1]
        entities = read_entities(pieces, labels, feature["text"], feature["offsets"])
        results.append({"id": example["id"], "text": feature["text"], "entities": entities})
    return results


def find_answers(examples, features, offsets, start_logits, end_logits, data_args):
    """test_results.json of reading comprehension: id, question, the best answer, and the n best.

    Args:
        features, offsets: of `qa_features`; start_logits, end_logits: [features, length].
    """
    windows = collections.defaultdict(list)
    for feature, start, end in zip(features, start_logits, end_logits):
        inside = slice(feature["begin"], len(feature["input_ids"]) - 1)
        windows[feature["example"]].append((start[inside], end[inside], feature["first"]))
    results = []
    for index, example in enumerate(tqdm(examples, desc="Reading answers", disable=len(examples) < 2000)):
        n_best = read_answers(
            windows[index], example["context"], offsets[index], data_args.n_best_size, data_args.max_answer_length
        )
        results.append({"id": example["id"], "question": example["question"], **n_best[0], "n_best": n_best})
    return results


def write_predictions(task, data_args, folder, examples, results):
    """Writes test_results.json, and beside it the file that CLUE's leaderboard takes (NER: MSRA_NER's format)."""
    write_json(os.path.join(folder, "test_results.json"), results)
    name = LEADERBOARD_NAMES.get(data_args.dataset, data_args.dataset)
    if task == "SequenceClassification":
        path = os.path.join(folder, f"{name}_predict.json")
        text = "".join(json.dumps({"id": r["id"], "label": r["label"]}, ensure_ascii=False) + "\n" for r in results)
    elif task == "TokenClassification":
        path = os.path.join(folder, f"{name}_predict.tsv")
        text = "".join(_tagged_line(e["tokens"], r["entities"]) for e, r in zip(examples, results))
    else:
        path = os.path.join(folder, f"{name}_predict.json")
        text = json.dumps({r["id"]: r["answer"] for r in results}, ensure_ascii=False, indent=2) + "\n"
    write_text(path, text)
    logger.info(f"{len(results):,} predictions in {folder}/test_results.json and {path}")


def _tagged_line(tokens, entities):
    """A line of MSRA_NER's format with the tags of found entities."""
    _, starts = join_tokens(tokens)
    tags = ["O"] * len(tokens)
    for entity in entities:
        first = bisect.bisect_right(starts, entity["start"]) - 1
        last = bisect.bisect_left(starts, entity["end"])
        tags[first:last] = [f"B-{entity['label']}"] + [f"I-{entity['label']}"] * (last - first - 1)
    return "\x02".join(tokens) + "\t" + "\x02".join(tags) + "\n"
