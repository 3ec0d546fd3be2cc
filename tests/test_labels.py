"""config.json's names of classes, in every form that is met."""

import json
import shutil

import pytest
from conftest import Counted
from ernie_predictor import ErniePredictor, PredictorError
from ernie_predictor.labels import read_labels

from ernie import models


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": {"0": "a", "1": "b", "2": "c"}},
        {"id2label": {"2": "c", "0": "a", "1": "b"}},
        {"id2label": {"1": "a", "2": "b", "3": "c"}},
        {"id2label": ["a", "b", "c"]},
        {"id2label": {"a": 0, "c": 2, "b": 1}},
        {"id2label": {"a": "1", "c": "3", "b": "2"}},
        {"label2id": {"a": 0, "c": 2, "b": 1}},
        {"id2label": {}, "label2id": {"a": 0, "c": 2, "b": 1}},
        {"id2label": ["a", "b", "c"], "label2id": {"a": 0, "b": 1, "c": 2}},
        {"id2label": {"1": "a", "2": "b", "3": "c"}, "label2id": {"a": 1, "b": 2, "c": 3}},
        {"id2label": ["a", "b", "c"], "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}},  # nobody's names
    ],
)
def test_labels_that_are_clear(config):
    assert read_labels(config, "config.json") == ["a", "b", "c"]


@pytest.mark.parametrize(
    "id2label, labels",
    [
        ({"0": 100, "1": 101}, ["100", "101"]),
        ({"0": "1", "1": "0"}, ["1", "0"]),
        ({"0": 1, "1": 0}, ["1", "0"]),
        ({"0": False, "1": True}, ["false", "true"]),
        ([0.5, "x"], ["0.5", "x"]),
        ({str(i): str(i) for i in range(12)}, [str(i) for i in range(12)]),
        ({}, []),
        (None, []),
    ],
)
def test_numbers_are_names_too(id2label, labels):
    assert read_labels({"id2label": id2label}, "config.json") == labels


def test_names_that_look_like_numbers_of_classes():
    config = {"id2label": {"0": "100", "1": "2"}, "label2id": {"100": 0, "2": 1}}
    assert read_labels(config, "config.json") == ["100", "2"]


UNCLEAR = [
    {"id2label": {"0": "a", "2": "b"}},
    {"id2label": {"2": "a", "3": "b"}},
    {"id2label": {"0": "a", "x": "b"}},
    {"id2label": {"-1": "a", "0": "b"}},
    {"id2label": {"a": 0, "b": 0}},
    {"id2label": {"a": 0, "b": None}},
    {"id2label": {"0": "a", "1": "a"}},
    {"id2label": {"0": "a", "1": None}},
    {"id2label": {"0": "a", "1": ""}},
    {"id2label": ["a", ["b"]]},
    {"id2label": "a b"},
    {"id2label": 3},
    {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0}},
]


@pytest.mark.parametrize("config", UNCLEAR)
def test_labels_that_are_not_clear(config):
    with pytest.raises(PredictorError, match=r"config\.json"):
        read_labels(config, "config.json")


def test_many_labels_are_read_in_linear_time():
    """A name is compared with few others: each comparison is counted."""
    names, before = [Counted(number) for number in range(2000)], Counted.compared
    assert read_labels({"id2label": names}, "config.json") == [str(number) for number in range(2000)]
    assert Counted.compared - before < 10 * len(names)
    with pytest.raises(PredictorError, match="calls two classes '7'"):
        read_labels({"id2label": [*names, Counted(7)]}, "config.json")


def test_a_folder_is_refused_when_it_is_opened(exported, tmp_path):
    """The predictor and the training scripts read one way."""
    source, inputs, expected = exported("afqmc")
    folder = tmp_path / "model"
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"1": 0, "2": 1}}), encoding="utf-8")
    assert [a["label"] for a in ErniePredictor(folder).predict(inputs[:9])] == [a["label"] for a in expected[:9]]
    assert models.read_labels(str(folder)) == ["0", "1"]
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "0", "2": "1"}}), encoding="utf-8")
    with pytest.raises(PredictorError, match=r"config\.json.*no class 1"):
        ErniePredictor(folder)
    with pytest.raises(PredictorError, match=r"config\.json.*no class 1"):
        models.read_labels(str(folder))
