"""What --input may hold: lines, JSON lines, tables and the files of training; and what a classifier takes: texts or
pairs."""

import csv
import json
import random
import types

import pytest
from conftest import ROOT, SAMPLE_DATA
from ernie_predictor import PredictorError, UsageError, load_task
from ernie_predictor.data_files import read_dev_set
from ernie_predictor.inputs import columns_of, line_item, read_items
from ernie_predictor.tasks import TASKS, Pair, QuestionAnswering, SequenceClassification, TokenClassification
from ernie_predictor.tokenizer import ErnieTokenizer, load_vocab

from ernie.errors import UserError
from ernie.models import read_model_config
from ernie.tasks import SEQ_CLS

NER, QA = TokenClassification(None, 64, {0: "O", 1: "B-PER", 2: "I-PER"}), QuestionAnswering(None, 64)


def classifier(text_pair=None):
    return SequenceClassification(None, 64, {0: "0", 1: "1"}, {"text_pair": text_pair})


ANY, SINGLE, PAIRS = classifier(), classifier(False), classifier(True)


def items(path, task, on_error="stop", **columns):
    args = types.SimpleNamespace(**{"text_column": None, "text_pair_column": None, **columns})
    with open(path, "rb") as source:
        return [tuple(pair) for pair in read_items(source, str(path), task, on_error, columns_of(args, task))]


def read(tmp_path, name, content, task, **kwargs):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return items(path, task, **kwargs)


def refused(says, function, *args, error=PredictorError, **kwargs):
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for part in [says] if isinstance(says, str) else says:
        assert part in message, message


# ------------------------------------------------------------------------------------------ single texts or pairs


def test_a_classifier_takes_what_it_was_fine_tuned_on(tmp_path):
    line = "今天，\t大家都在问"
    assert read(tmp_path, "x.txt", line, SINGLE) == [(line, None)]  # white space in a text, as in training
    assert read(tmp_path, "x.txt", line, PAIRS) == read(tmp_path, "x.txt", line, ANY) == [("今天，", "大家都在问")]
    assert read(tmp_path, "x.txt", '{"text": "好", "text_pair": null}', SINGLE) == [("好", None)]
    for item in ({"text": "好", "text_pair": "坏"}, ("好", "坏")):
        refused("fine-tuned on single texts; got two texts", SINGLE.check, item)
        assert PAIRS.check(item) == ANY.check(item) == ("好", "坏")
    for item in ({"text": "好"}, "好", ("好", None)):
        refused("fine-tuned on pairs; there is no text_pair", PAIRS.check, item)
        assert SINGLE.check(item) == ANY.check(item) == ("好", None)
    refused("line 1: expected a pair", read, tmp_path, "x.txt", "好", PAIRS)
    assert NER.check({"text": "好", "text_pair": "坏"}) == ("好", None)  # another field, which is ignored


def test_training_writes_down_which_it_is():
    def saved(found, **params):
        """What is saved with a model whose config.json says `params`; `found`: whether the data are pairs."""
        task = SEQ_CLS(None, 64, params={"text_pair": found})
        task.keep_params(params, "m", "mood")
        return task.params_to_save()

    assert saved(False) == {"task": "seq_cls", "text_pair": False}
    assert saved(None, text_pair=True) == saved(True, text_pair=True) == {"task": "seq_cls", "text_pair": True}
    assert saved(None) == {"task": "seq_cls"}  # --do_export alone reads no data
    says = "--model_name_or_path m was fine-tuned on pairs of texts, but mood has single texts"
    refused(says, saved, False, text_pair=True, error=UserError)
    assert QA.params_to_save() == {"task": "qa", **QA.defaults}


# ------------------------------------------------------------------------------------------ config.json


def test_the_task_is_named_where_two_share_an_architecture(tmp_path, monkeypatch):
    class OfIntents(SequenceClassification):
        name = "intents"

    (tmp_path / "vocab.txt").symlink_to(ROOT / "examples/model/vocab.txt")

    def opened(**params):
        config = {"architectures": ["ErnieForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}
        config["task_specific_params"] = {"text-classification": params}
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return type(load_task(tmp_path))

    assert opened() is opened(task="seq_cls") is SequenceClassification
    refused(["config.json: ", "names a task for ErnieForSequenceClassification"], opened, task="intents")
    monkeypatch.setitem(TASKS, "intents", OfIntents)
    assert opened() is opened(task="seq_cls") is SequenceClassification
    assert opened(task="intents", text_pair=True) is OfIntents


@pytest.mark.parametrize(
    ("architecture", "field", "value", "says"),
    [
        ("QuestionAnswering", "doc_stride", 0, "`doc_stride` is 0, expected a whole number, 1 or more"),
        ("TokenClassification", "doc_stride", -1, "`doc_stride` is -1"),
        ("QuestionAnswering", "n_best_size", "20", "`n_best_size` is '20'"),
        ("QuestionAnswering", "max_answer_length", True, "`max_answer_length` is True"),
        ("QuestionAnswering", "max_query_length", 1.5, "`max_query_length` is 1.5"),
        ("SequenceClassification", "text_pair", 1, "`text_pair` is 1, expected true or false"),
        ("SequenceClassification", "vocab_size", "x", "`vocab_size` is 'x'"),
        ("SequenceClassification", "max_position_embeddings", 0, "`max_position_embeddings` is 0"),
        ("SequenceClassification", "architectures", 3, "`architectures` names ?, expected one of"),
    ],
)
def test_impossible_values_are_refused_at_opening(architecture, field, value, says, tmp_path):
    kind = {"Q": "question-answering", "T": "token-classification", "S": "text-classification"}[architecture[0]]
    config = {"architectures": [f"ErnieFor{architecture}"], "id2label": {"0": "O", "1": "B-PER"}}
    more = {field: value} if field in ("vocab_size", "max_position_embeddings", "architectures") else {}
    (tmp_path / "vocab.txt").symlink_to(ROOT / "examples/model/vocab.txt")
    for params in ({kind: {} if more else {field: value}}, {kind: {field: None}}, {kind: 3}, 3, None):
        content = {**config, **more, "task_specific_params": params}
        (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
        if more or (isinstance(params, dict) and params[kind] == {field: value}):
            refused(["config.json: ", says], load_task, tmp_path)
        else:
            assert load_task(tmp_path).params == load_task(tmp_path).defaults


def test_a_folder_of_an_older_paddlenlp_is_told(tmp_path):
    (tmp_path / "model_config.json").write_text("{}")
    says = ["has no config.json", "PaddleNLP before 2.5 wrote model_config.json", "save_pretrained(FOLDER)"]
    refused(says, read_model_config, str(tmp_path), error=UserError)


# ------------------------------------------------------------------------------------------ files of training


@pytest.mark.parametrize("dataset", ["tnews", "afqmc", "csl", "cluewsc2020", "msra_ner", "cmrc2018"])
def test_files_of_training_are_taken_as_they_are(dataset):
    """With the texts that training reads in them."""
    task = {"msra_ner": NER, "cmrc2018": QA}.get(dataset, ANY)
    name = {"msra_ner": "test.tsv"}.get(dataset, "dev.json")
    expected, _ = read_dev_set(task.name, SAMPLE_DATA, dataset)
    assert items(SAMPLE_DATA / dataset / name, task) == [tuple(task.check(item)) for item in expected]


def test_a_field_that_is_there_twice_is_refused(tmp_path):
    """Python would silently take the last. Also in an object within another, and in the files of a model."""
    for row, field in (('{"text": "一", "text": "二"}', "text"), ('{"text": "一", "n": {"b": 1, "b": 2}}', "b")):
        says = f"begins with {{ but is not JSON: an object has the field `{field}` twice"
        refused(["x.json line 2: ", says], read, tmp_path, "x.json", f'{{"text": "好"}}\n{row}\n', ANY)
        refused(says, line_item, row.encode(), ANY)  # as infer_ray.py reads it
    (tmp_path / "vocab.txt").symlink_to(ROOT / "examples/model/vocab.txt")
    config = '{"architectures": ["ErnieForSequenceClassification"], "id2label": {"0": "一", "1": "二"}}'
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / "config.json").write_text(config)
        assert load_task(tmp_path).id2label == {0: "一", 1: "二"}
        (tmp_path / name).write_text(config.replace('"1"', '"0"'))
        refused(f"{name} is not JSON: an object has the field `0` twice", load_task, tmp_path)


def test_conll_and_indented_json_are_taken_as_they_are(tmp_path):
    assert read(tmp_path, "x.conll", "李\tB-PER\n在\tO\n\n巴\tO\n黎\tO\n", NER) == [("李在", None), ("巴黎", None)]
    content = '\ufeff{\n"data": [{"paragraphs": [{"context": "文", "qas": [{"question": "问"}]}]}]}'
    assert read(tmp_path, "x.json", content, QA) == [("问", "文")]  # as an editor may indent it


def test_rows_of_training_that_are_not_clear(tmp_path):
    says = ["line 1: it has `text` and `sentence`", "--text_column"]
    row = '{"text": "一", "sentence": "二"}\n'
    refused(says, read, tmp_path, "x.json", row, ANY)
    assert read(tmp_path, "x.json", row, ANY, text_column="sentence") == [("二", None)]
    assert read(tmp_path, "x.json", '{"text": "一", "target": 1, "keyword": 2}\n', ANY) == [("一", None)]
    refused("line 1: this row: `sentence` is null", read, tmp_path, "x.json", '{"sentence": null}\n', ANY)
    refused("got the fields sentence1", read, tmp_path, "x.json", '{"sentence1": "一"}\n', ANY)
    refused("got two texts", read, tmp_path, "x.json", '{"sentence1": "一", "sentence2": "二"}\n', SINGLE)


# ------------------------------------------------------------------------------------------ tables


def test_csv_and_tsv_are_read_by_column(tmp_path):
    rows = [["text", "label"], ['他说"好, 好"', "1"], ["两\n行\t字", "0"], ["好", "1"]]
    for name, dialect in (("x.csv", "excel"), ("x.TSV", "excel-tab")):
        with open(tmp_path / name, "w", encoding="utf-8-sig", newline="") as f:
            csv.writer(f, dialect).writerows(rows)
        for task in (ANY, SINGLE, NER):
            assert [text for text, _ in items(tmp_path / name, task)] == [text for text, _ in rows[1:]]
        assert items(tmp_path / name, ANY, text_column="label")[1] == ("0", None)
    assert read(tmp_path, "x.csv", "sentence2,sentence1\n二,一\n\n", PAIRS) == [("一", "二")]
    assert read(tmp_path, "x.csv", "a,b\n一,二\n", PAIRS, text_column="b", text_pair_column="a") == [("二", "一")]
    assert read(tmp_path, "x.csv", "context,question\n文,问\n", QA) == [("问", "文")]
    assert read(tmp_path, "x.csv", "context,q\n文,问\n", QA, text_column="q") == [("问", "文")]
    assert read(tmp_path, "x.csv", "text\n" + "长" * 200_000 + "\n", SINGLE)[0][0] == "长" * 200_000


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "x.csv",
            "108,今天\n109,明天\n",
            ["line 1: no column of a known name; the columns are 108, 今天", "--text_column"],
        ),
        ("x.tsv", "今天\n明天\n", ["line 1", "--text_column"]),
        ("x.csv", "text,text\n一,二\n", "line 1: there are two columns `text`"),
        ("x.csv", "text,label\n一,1\n今天,好,1\n", "line 3: 3 columns, the header has 2"),
        ("x.csv", "text,label\n一\n", "line 2: 1 columns, the header has 2"),
        ("x.csv", "text,label\n ,1\n", "line 2: `text` is empty"),
        ("x.csv", 'text,label\n"一" 二,1\n', ["line 2: ", "must be in quotes"]),
        ("x.csv", 'text,label\n"一,1\n二,1\n', ["line 2: ", "must be in quotes"]),
        ("x.csv", 'text,"label\n', "line 1: "),
        ("x.csv", "text,label\n今天,1\n".encode("gb18030"), "line 2: not UTF-8; if it is GBK or GB18030"),
        ("x.csv", "文本,标签\n".encode("gb18030"), "line 1: not UTF-8; if it is GBK or GB18030"),
        ("x.csv", "text,label\n今天,1\n".encode("utf-16"), "is not UTF-8: it is UTF-16; save it as UTF-8"),
        ("x.txt", "今天\n".encode("utf-16"), "is not UTF-8: it is UTF-16; save it as UTF-8"),
        ("x.txt", "text\n今天\n".encode("gb18030"), "byte 1; if it is GBK or GB18030"),
        ("x.txt", b"\x1f\x8b\x08\n", "gzip"),
        ("x.xlsx", b"PK\x03\x04", "x.xlsx: a spreadsheet is not read; save it as CSV"),
    ],
)
def test_what_is_no_table_is_refused(name, content, says, tmp_path):
    refused(says, read, tmp_path, name, content, SINGLE)


def test_names_of_columns(tmp_path):
    refused("no column `b`; the columns are text", read, tmp_path, "x.csv", "text\n一\n", ANY, text_column="b")
    refused("no field `b`; it has text", read, tmp_path, "x.json", '{"text": "一"}\n', ANY, text_column="b")
    refused("line 1: expected a JSON object", read, tmp_path, "x.txt", "一\n", ANY, text_column="b")
    for task in (SINGLE, NER):
        args = ("x.csv", "text\n一\n", task)
        refused("--text_pair_column: expected a text", read, tmp_path, *args, text_pair_column="b", error=UsageError)


def test_broken_rows_are_left_out(tmp_path, capsys):
    content = 'text,label\n一,1\n"二" x,1\n三,1,1\n,1\n'.encode() + "四,1\n".encode("gb18030") + "五,1\n".encode()
    assert read(tmp_path, "x.csv", content, SINGLE, on_error="skip") == [("一", None), ("五", None)]
    left_out = capsys.readouterr().err.splitlines()
    assert [line.split(" is left out: ")[0].rpartition(" ")[2] for line in left_out] == ["3", "4", "5", "6"]


# ------------------------------------------------------------------------------------------ long texts


def test_of_a_long_text_a_classifier_tokenizes_the_beginning_alone():
    """And reads what it would read of the whole; counted are the characters that the tokenizer gets."""
    seen = 0

    class Tokenizer(ErnieTokenizer):
        def encode(self, texts, offsets=True):
            nonlocal seen
            seen += sum(map(len, texts))
            return super().encode(texts, offsets)

    tokenizer = Tokenizer(load_vocab(ROOT / "examples" / "model" / "vocab.txt"), backend="tokenizers")
    task, generator = SequenceClassification(tokenizer, 16, {0: "0"}), random.Random(3)
    pieces = [
        "北",
        "京",
        "New",
        "York",
        "x" * 120,
        "e\u0301",
        "\u0301",
        " ",
        " " * 300,
        "\n",
        "\u3000",
        "10kg",
        "[CLS]",
        "。",
    ]
    for _ in range(300):
        texts = ["".join(generator.choices(pieces, k=generator.choice((1, 5, 60)))) + "好" for _ in range(2)]
        ids, more = (encoding.ids for encoding in ErnieTokenizer.encode(tokenizer, texts, offsets=False))
        before = task.truncated
        features, _ = task.tokenize([Pair(texts[0], None), Pair(*texts)])
        assert features == [tokenizer.build_inputs(ids, None, 16), tokenizer.build_inputs(ids, more, 16)]
        assert task.truncated - before == (len(ids) + 2 > 16) + (len(ids) + len(more) + 3 > 16)
    seen = 0
    task.tokenize([Pair("今天天气很好。" * 100_000, None), Pair("it is " * 100_000, "好")])
    assert seen < 1000
