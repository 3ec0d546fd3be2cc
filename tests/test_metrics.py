"""Scores and answers against independent definitions: CMRC2018's scorer written out, and brute force."""

import random
import re

import numpy as np
import pytest
from ernie_predictor import answers as answers_module
from ernie_predictor.answers import read_answers, read_class, read_entities, softmax
from ernie_predictor.scores import cmrc_scores, cmrc_units

from ernie.tasks import QA, SEQ_CLS

LABELS = ["B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "O"]


def test_accuracy():
    assert SEQ_CLS.score_answers([{"label": x} for x in "aab"], ["a", "b", "b"]) == {"accuracy": 2 / 3}
    assert SEQ_CLS.baseline([{"label": x} for x in "aab"]) == {"majority_class": 2 / 3}


# ------------------------------------------------------------------- CMRC2018's scorer, from its definition


def official_f1(answers, prediction):
    """Longest common run of units by dynamic programming, as the scorer's definition has it."""
    scores = []
    for answer in answers:
        a, b = official_units(answer), official_units(prediction)
        table, longest = [[0] * (len(b) + 1) for _ in range(len(a) + 1)], 0
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                if x == y:
                    table[i + 1][j + 1] = table[i][j] + 1
                    longest = max(longest, table[i + 1][j + 1])
        if longest == 0:
            scores.append(0)
            continue
        precision, recall = longest / len(b), longest / len(a)
        scores.append(2 * precision * recall / (precision + recall))
    return max(scores)


LEFT_OUT = ["-", ":", "_", "*", "^", "/", "\\", "~", "`", "+", "=", "，", "。", "：", "？", "！", "“", "”", "；", "’"]
LEFT_OUT += ["《", "》", "……", "·", "、", "「", "」", "（", "）", "－", "～", "『", "』"]


def official_units(text):
    """Chinese characters one by one; of other runs the words, here of letters and digits alone."""
    text = "".join(c for c in text.lower().strip() if c not in LEFT_OUT)
    return re.findall(r"[\u4e00-\u9fa5]|[a-z0-9]+", text)


def official_exact(answers, prediction):
    def clean(text):
        return "".join(c for c in text.lower().strip() if c not in LEFT_OUT)

    return any(clean(answer) == clean(prediction) for answer in answers)


def test_cmrc_scores_are_the_official_scorers():
    generator = random.Random(2)
    parts = ["北京", "大学", "1999", " ", "NBA", "，", "《红楼梦》", "的", "windows xp", "、", "李明", "-"]
    for _ in range(300):
        prediction, *answers = (
            "".join(generator.choice(parts) for _ in range(generator.randrange(1, 7))) + "京" for _ in range(4)
        )
        scores = cmrc_scores([prediction], [answers])
        assert scores["exact_match"] == official_exact(answers, prediction)
        assert scores["f1"] == pytest.approx(official_f1(answers, prediction)), (prediction, answers)


def test_cmrc_scores_by_hand():
    assert cmrc_scores(["《红楼梦》"], [["红楼梦。"]]) == {"exact_match": 1, "f1": 1}
    # 3 of the prediction's 4 characters in a run, of the answer's 5: precision 3/4, recall 3/5.
    assert cmrc_scores(["甲乙丙丁"], [["乙丙丁戊己"]])["f1"] == pytest.approx(2 / 3)
    assert cmrc_scores(["", "甲"], [["甲"], ["乙", "甲"]]) == {"exact_match": 0.5, "f1": 0.5}
    # "3.5" is one word to the scorer's tokenizer, "don't" two, and a single ellipsis stays.
    assert cmrc_units("3.5 don't go…") == ["3.5", "do", "n't", "go…"]


def test_question_blind_share_is_the_best_single_answer_a_context():
    examples = [
        {"context": "甲", "answers": [{"text": "一"}]},
        {"context": "甲", "answers": [{"text": "二"}, {"text": "一。"}]},
        {"context": "甲", "answers": [{"text": "三"}]},
        {"context": "乙", "answers": [{"text": "四"}]},
    ]
    assert QA.baseline(examples) == {"question_blind": 3 / 4}


# ---------------------------------------------------------------------------------------- reading of logits


def test_softmax_and_classes():
    logits = np.array([[1000.0, 0.0], [0.0, np.log(3)]], dtype=np.float32)
    np.testing.assert_allclose(softmax(logits), [[1, 0], [0.25, 0.75]], atol=1e-6)
    assert [read_class(row, {0: "no", 1: "yes"})["label"] for row in logits] == ["no", "yes"]


def test_entities_are_spans_of_the_text():
    text = "😀 李明用iPhone13在New York。"
    # Pieces as the tokenizer makes them: an emoji, 李, 明, 用, ip, ##hone, ##13, 在, new, york, 。
    offsets = [(0, 1), (2, 3), (3, 4), (4, 5), (5, 7), (7, 11), (11, 13), (13, 14), (14, 17), (18, 22), (22, 23)]
    tags = ["O", "B-PER", "I-PER", "O", "B-ORG", "O", "O", "O", "B-LOC", "I-LOC", "O"]
    logits = np.zeros([len(tags), len(LABELS)])
    logits[np.arange(len(tags)), [LABELS.index(t) for t in tags]] = 5
    found = read_entities(logits, dict(enumerate(LABELS)), text, offsets)
    assert [(e["entity"], e["label"]) for e in found] == [("李明", "PER"), ("iPhone", "ORG"), ("New York", "LOC")]
    assert all(text[e["start"] : e["end"]] == e["entity"] for e in found)
    assert all(e["confidence"] == pytest.approx(np.exp(5) / (np.exp(5) + 6)) for e in found)


def brute_force_answers(windows, context, offsets, longest):
    spans = {}
    for start, end, first in windows:
        for i, a in enumerate(start):
            for j in range(i, min(i + longest, len(end))):
                span = (offsets[first + i][0], offsets[first + j][1])
                spans[span] = max(spans.get(span, -1e9), a + end[j])
    return sorted(spans.items(), key=lambda item: -item[1])


def test_answers_are_the_best_spans_of_all_windows():
    generator = np.random.default_rng(0)
    context = "".join(chr(0x4E00 + i) for i in range(40))
    offsets = [(i, i + 1) for i in range(40)]
    for _ in range(50):
        windows = [(generator.normal(size=25), generator.normal(size=25), first) for first in (0, 15)]
        answers = read_answers(windows, context, offsets, n_best_size=25, max_answer_length=6)
        expected = brute_force_answers(windows, context, offsets, 6)
        for answer, (span, _) in zip(answers[:10], expected[:10]):
            assert (answer["start"], answer["end"]) == span
            assert answer["answer"] == context[span[0] : span[1]]
        assert sum(a["confidence"] for a in answers) == pytest.approx(1)


def test_answers_of_a_context_with_hundreds_of_windows(monkeypatch):
    """What is dropped on the way changes no answer; many spans have equal texts and scores."""
    generator = np.random.default_rng(2)
    context = "".join(generator.choice([*"北京上海"], 900))
    offsets = [(i, i + 1) for i in range(900)]
    windows = [(*generator.normal(size=[2, 40]).round(1), first) for first in range(0, 860, 4)]
    expected = read_answers(windows, context, offsets, n_best_size=50)
    monkeypatch.setattr(answers_module, "MOST_SPANS", 200)
    assert read_answers(windows, context, offsets, n_best_size=50) == expected


def test_answers_where_no_pair_of_the_best_fits():
    """The best starts all stand behind the best ends: still an answer, the best span that there is."""
    start, end = np.arange(60.0), -np.arange(60.0)
    (best, *_) = read_answers([(start, end, 0)], "字" * 60, [(i, i + 1) for i in range(60)], n_best_size=2)
    assert best["end"] - best["start"] == 1
    assert read_answers([(np.zeros(0), np.zeros(0), 0)], " ", [])[0]["answer"] == ""


def test_confidences_do_not_depend_on_how_many_answers_are_returned():
    generator = np.random.default_rng(1)
    context, offsets = "".join(chr(0x4E00 + i) for i in range(40)), [(i, i + 1) for i in range(40)]
    windows = [(generator.normal(size=25), generator.normal(size=25), first) for first in (0, 15)]
    twenty = read_answers(windows, context, offsets)
    assert len(twenty) == 20 and sum(a["confidence"] for a in twenty) == pytest.approx(1)
    for n_best_size in (1, 5, 19):
        assert read_answers(windows, context, offsets, n_best_size) == twenty[:n_best_size]
    thirty = read_answers(windows, context, offsets, 30)
    assert len(thirty) == 30 and sum(a["confidence"] for a in thirty) == pytest.approx(1)
    # Where the best starts all lie behind the best ends, too.
    start, end = np.arange(60.0), -np.arange(60.0)
    apart = [(start, end, 0)], "".join(chr(0x4E00 + i) for i in range(60)), [(i, i + 1) for i in range(60)]
    assert read_answers(*apart, 1) == read_answers(*apart)[:1] and read_answers(*apart)[0]["confidence"] < 0.06
