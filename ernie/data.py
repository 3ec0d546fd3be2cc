"""Data: reads CLUE's files, from the hub or from a local folder; errors name the line."""

import json
import os
import re

from ernie_predictor.answers import split_tag
from paddlenlp.utils.log import logger

from ernie.errors import UserError
from ernie.models import read_labels
from ernie.tasks import DATA_SETS, QA, SEQ_CLS, TOKEN_CLS


def load_splits(task, data_args, training_args):
    """(train, dev, test) examples, each None where no --do_... needs it; see `load_examples`."""
    needed = {"train": training_args.do_train, "dev": training_args.do_eval, "test": training_args.do_predict}
    return [load_examples(task, data_args, split) if use else None for split, use in needed.items()]


def load_examples(task, data_args, split):
    """Reads one split of a data set.

    Args:
        task: a row of `TASKS`.
        split: "train", "dev" or "test".

    Returns:
        A list of examples. Each holds "id", "where" (file and line), and
        - seq_cls: "text", "text_pair" (str or None), "label" (str; none in a test split);
        - token_cls: "tokens", "tags" (lists of str; no tags in an unlabelled file);
        - qa: "question", "context", "answers": [{"text", "answer_start"}].

    Raises:
        UserError: a file is missing or empty, or a row is broken; names file and line.
    """
    path = find_split(task, data_args, split)
    labelled = split != "test"
    if task is SEQ_CLS:
        data_set = DATA_SETS.get(data_args.dataset)
        examples = read_seq_cls(path, labelled, data_set and data_set.no_agreement)
    else:
        examples = {TOKEN_CLS: read_token_cls, QA: read_qa}[task](path, labelled)
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
    names = [f"{split}.{task.suffix}"]
    if task is TOKEN_CLS and split == "dev":
        names.append("test.tsv")  # MSRA_NER has two splits only and is scored on test
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise UserError(f"no file {' or '.join(names)} in {folder}")


def fetch_split(dataset, split):
    """Has PaddleNLP's data set builder download a split (once, to its cache); returns the file's path."""
    from paddlenlp.datasets.dataset import import_main_class

    row = DATA_SETS[dataset]
    builder = import_main_class(row.hub)(lazy=False, name=dataset if row.hub != dataset else None)
    try:
        return builder._get_data(row.hub_splits.get(split, split))
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


def read_seq_cls(path, labelled, no_agreement=None):
    """Reads JSON lines of CLUE's classification tasks; the fields tell which one.

    Args:
        no_agreement: label of rows to leave out, which the annotators did not agree on (OCNLI, CMNLI).
    """
    examples, left_out = [], 0
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
            if no_agreement is not None and label == no_agreement:
                left_out += 1
                continue
            example["label"] = str(label)
        examples.append(example)
    if left_out:
        logger.warning(f"{path}: {left_out:,} rows left out, labelled {no_agreement!r} (the annotators did not agree)")
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


def find_labels(task, data_args, train_examples, model_args):
    """The labels, in the order of the model's classes; none for reading comprehension.

    A published data set has its own; one's own takes its labels from the training file, or, where nothing is
    trained, from the fine-tuned model.
    """
    if data_args.dataset in DATA_SETS:
        return list(DATA_SETS[data_args.dataset].labels)
    if task is QA:
        return []
    if train_examples is None:
        return read_labels(model_args.model_name_or_path)
    if task is SEQ_CLS:
        return sorted({e["label"] for e in train_examples})
    return sorted({"O"}.union(*(e["tags"] for e in train_examples)))


def label_ids(examples, labels):
    """The class index of each example's label.

    Raises:
        UserError: an example has a label that is not in `labels`; names file and line.
    """
    ids = {label: index for index, label in enumerate(labels)}
    for example in examples:
        if example["label"] not in ids:
            raise _unknown_label(example, example["label"], labels)
    return [ids[e["label"]] for e in examples]


def check_kinds(examples, labels):
    """Raises UserError where a sentence has an entity of a kind that is not in `labels`; names file and line."""
    kinds = {split_tag(label)[1] for label in labels}
    for example in examples:
        for tag in example["tags"]:
            if tag != "O" and split_tag(tag)[1] not in kinds:
                raise _unknown_label(example, tag, labels)


def _unknown_label(example, label, labels):
    names = ", ".join(labels[:20]) + (" ..." if len(labels) > 20 else "")
    return UserError(f"{example['where']}: unknown label {label!r}; known are {names}")
