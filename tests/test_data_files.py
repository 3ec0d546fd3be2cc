"""Dev sets as clients score them: without a tokenizer, and with the scores that training writes to metrics.json."""

import random
import subprocess
import sys

import numpy as np
import pytest
from conftest import PREDICTOR, ROOT, SAMPLE_DATA
from ernie_predictor import PredictorError, data_files
from ernie_predictor.answers import tags_of_spans
from ernie_predictor.scores import entity_scores
from ernie_predictor.tasks.token_cls import _has_no_piece
from ernie_predictor.tokenizer import ErnieTokenizer, load_vocab

from ernie.arguments import DataArguments
from ernie.data import load_examples
from ernie.features import make_features
from ernie.tasks import DATA_SETS, TOKEN_CLS

KINDS = ("PER", "LOC", "ORG")
TAGS = ["O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BI")]


@pytest.fixture(scope="module")
def tokenizer():
    return ErnieTokenizer(load_vocab(ROOT / "examples" / "model" / "vocab.txt"), backend="tokenizers")


@pytest.mark.parametrize("dataset", DATA_SETS)
def test_right_answers_score_1_and_none_is_left_out(dataset):
    task = DATA_SETS[dataset].task
    items, gold = data_files.read_dev_set(task.name, SAMPLE_DATA, dataset)
    examples = load_examples(task, DataArguments(dataset=dataset, data_dir=str(SAMPLE_DATA)), "dev")
    assert len(items) == len(gold) == len(examples) > 100
    if task.name == "seq_cls":
        answers = [{"label": label} for label in gold]
    elif task.name == "qa":
        answers = [{"answer": texts[-1]} for texts in gold]
    else:
        answers = [
            [{"label": kind, "start": a, "end": b, "entity": text[a:b]} for kind, a, b in entities]
            for text, entities in zip(items, gold)
        ]
    assert data_files.score(task.name, answers, gold) == dict.fromkeys(task.scores, 1.0)
    data_files.check_labels(task.name, gold, DATA_SETS[dataset].labels)
    answers[0] = [] if task.name == "token_cls" else {"label": "?", "answer": "?"}
    assert 0.9 < data_files.score(task.name, answers, gold)[task.score] < 1


# A word of several tokens, tokens that the tokenizer drops, splits or joins, and white space.
PIECES = ["北", "京", "New", "York", "iPhone", "13", "e", "\u0301", "é", "\u200b", "\ufffd", "\u3000", " ", "x-x", "İ"]


def test_entities_score_however_the_tokenizer_bounds_them(tokenizer):
    """A file may count as part of an entity what makes up no wordpiece: the same entities are right."""
    generator = random.Random(6)
    examples = []
    for number in range(300):
        tokens = [*generator.choices(PIECES, k=generator.randrange(1, 9)), "在"]
        spans, at = [], 0
        while at < len(tokens):
            end = min(at + generator.randrange(1, 4), len(tokens))
            if generator.random() < 0.6:
                spans.append((generator.choice(KINDS), at, end))
            at = end
        examples.append({"tokens": tokens, "tags": tags_of_spans(spans, len(tokens), TAGS), "where": f"line {number}"})
    split = make_features(TOKEN_CLS(tokenizer, 64, dict(enumerate(TAGS))), examples)
    rows = [np.array([TAGS.index("O") if i < 0 else i for i in f["labels"]]) for f in split.sorted_features]
    logits = np.zeros([len(rows), max(map(len, rows)), len(TAGS)])
    for row, values in enumerate(rows):
        logits[row, np.arange(len(values)), values] = 2
    # The same as the tokenizer bounds them; those that begin or end inside a word, no model finds.
    found = [[(e["label"], e["start"], e["end"]) for e in answer] for answer in split.answers(logits)]
    gold = [row + [None] * (len(all_of) - len(row)) for row, all_of in zip(found, split.gold)]
    for noise in (0, 1, 3):
        noisy = logits + noise * np.random.default_rng(0).normal(size=logits.shape)
        scores = split.scores(noisy)
        assert scores == entity_scores(split.answers(noisy), gold)
        assert noise or scores["precision"] == 1
        assert scores["recall"] > (0.5, 0.3, 0.05)[(0, 1, 3).index(noise)]


def test_what_makes_up_no_wordpiece_is_what_the_tokenizer_drops(tokenizer):
    """Every character there is."""
    wrong = [
        char
        for char in map(chr, range(sys.maxunicode + 1))
        if _has_no_piece(char) == bool(tokenizer._plain[char].strip())
    ]
    assert not wrong


def test_labels_that_the_model_does_not_know(tmp_path):
    for task_name, dataset, labels, says in (
        ("seq_cls", "tnews", ["0", "1"], "does not know; it knows 0, 1"),
        ("token_cls", "msra_ner", ["O", "B-PER", "I-PER"], "does not know; it knows PER"),
    ):
        _, gold = data_files.read_dev_set(task_name, SAMPLE_DATA, dataset)
        with pytest.raises(PredictorError, match=says):
            data_files.check_labels(task_name, gold, labels)
    with pytest.raises(PredictorError, match="holds afqmc"):
        data_files.read_dev_set("qa", SAMPLE_DATA, "cmrc")


def test_a_client_needs_no_runtime_no_tokenizer_and_no_paddle(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(PREDICTOR)!r})\n"
        "from ernie_predictor.data_files import read_dev_set, score\n"
        f"items, gold = read_dev_set('qa', {str(SAMPLE_DATA)!r}, 'cmrc2018')\n"
        "score('qa', [{'answer': texts[0]} for texts in gold], gold)\n"
        "assert not {'paddle', 'paddlenlp', 'ernie', 'onnxruntime', 'openvino', 'tokenizers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
