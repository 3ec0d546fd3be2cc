"""The data files people have: what is read as what it is, and what is refused, with its line."""

import gzip
import itertools
import json
import random
import types

import pytest
from conftest import SAMPLE_DATA
from ernie_predictor.data_files import read_file
from ernie_predictor.tasks import join_tokens

from ernie import data
from ernie.arguments import DataArguments
from ernie.errors import UserError
from ernie.results import write_predictions
from ernie.tasks import QA, SEQ_CLS, TOKEN_CLS


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=True) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    return str(path)


def load(task, folder, split="train", dataset="own"):
    return data.load_examples(task, DataArguments(dataset=dataset, data_dir=str(folder)), split)


def refused(says, function, *args, **kwargs):
    """The function must raise a UserError that says all of these, in one line."""
    with pytest.raises(UserError) as error:
        function(*args, **kwargs)
    message = str(error.value)
    for part in [says] if isinstance(says, str) else says:
        assert part in message
    assert "\n" not in message and len(message) < 600


# ------------------------------------------------------------------------------------------------ files


def test_what_is_not_utf8_is_told(tmp_path):
    path = tmp_path / "x.json"
    row = '{"sentence": "好的北京", "label": "1"}\n'
    for content, says in (
        (row.encode() + b'{"sentence": "\xff", "label": "1"}\n', "line 2 is not UTF-8: invalid start byte"),
        (row.encode("utf-16"), "line 1 is not UTF-8: it is UTF-16"),
        (("\ufeff" + row).encode("utf-16-be"), "it is UTF-16"),
        (row.encode("gb18030"), "GBK"),
        (gzip.compress(row.encode()), "gzip"),
    ):
        path.write_bytes(content)
        refused([str(path), says], SEQ_CLS.read_file, str(path), labelled=True)
        refused([str(path), says], TOKEN_CLS.read_file, str(path), labelled=True)
        refused([str(path), says], QA.read_file, str(path), labelled=True)
    refused("Is a directory", SEQ_CLS.read_file, str(tmp_path), labelled=True)


def test_byte_order_marks_inside_concatenated_files(tmp_path):
    path = tmp_path / "x"
    path.write_text(
        '\ufeff{"sentence": "一", "label": 1}\r\n\ufeff{"sentence": "二", "label": 1}\r\n', encoding="utf-8"
    )
    assert [e["text"] for e in SEQ_CLS.read_file(str(path), labelled=True)] == ["一", "二"]
    path.write_text("\ufeff北\tB-X\n京\tI-X\n\n\ufeff东\tB-X\n京\tI-X\n", encoding="utf-8")
    assert [e["tokens"] for e in TOKEN_CLS.read_file(str(path), labelled=True)] == [["北", "京"], ["东", "京"]]


def test_ner_files_may_be_called_txt_or_conll(tmp_path):
    write(tmp_path / "own/train.txt", "北 B-X", "京 I-X", "")
    write(tmp_path / "own/test.conll", "东", "京", "")
    assert load(TOKEN_CLS, tmp_path)[0]["tokens"] == ["北", "京"]
    assert load(TOKEN_CLS, tmp_path, "test")[0]["tokens"] == ["东", "京"]
    refused(["train.json", "holds test.conll, train.txt"], load, SEQ_CLS, tmp_path)


def test_two_files_of_a_split_are_refused(tmp_path):
    for name in ("train.txt", "train.tsv", "dev.tsv", "test.txt", "test.conll"):
        write(tmp_path / "own" / name, "北 B-X", "京 I-X", "")
    refused(["own has train.tsv and train.txt", "one split"], load, TOKEN_CLS, tmp_path)
    refused("own has test.txt and test.conll", load, TOKEN_CLS, tmp_path, "test")
    assert load(TOKEN_CLS, tmp_path, "dev")[0]["where"].endswith("dev.tsv line 1")


# ------------------------------------------------------------------------------------------------ classification


def read_rows(tmp_path, *rows, labelled=True, dataset="own"):
    return read_file("seq_cls", write(tmp_path / "x.json", *rows), dataset, labelled)


def test_a_further_column_beside_sentence_changes_nothing(tmp_path):
    more = {"keyword": "好吃", "target": "店", "abst": "文", "sentence1": "一", "sentence2": None, "text": ""}
    for row in ({**more, "sentence": "好", "label": "1"}, {"sentence": "好", "label": "1", **more}):
        (example,) = read_rows(tmp_path, row)
        assert (example["text"], example["text_pair"]) == ("好", None)
    (pair,) = read_rows(tmp_path, {"keyword": ["a"], "target": 1, "sentence1": "一", "sentence2": "二", "label": "1"})
    assert (pair["text"], pair["text_pair"]) == ("一", "二")
    (pair,) = read_rows(tmp_path, {"keyword": ["a"], "target": 1, "text": "x", "abst": "摘要", "label": "1"})
    assert (pair["text"], pair["text_pair"]) == ("a", "摘要")


def test_fields_of_prediction_are_those_of_training_too(tmp_path):
    text, pair = {"text": "好", "label": "1"}, {"text": "一", "text_pair": "二", "label": "1"}
    for row in (text, {**text, "text_pair": None}, {**text, "keyword": "好", "target": 1}):
        (example,) = read_rows(tmp_path, row)
        assert (example["text"], example["text_pair"], example["label"]) == ("好", None, "1")
    (example,) = read_rows(tmp_path, pair)
    assert (example["text"], example["text_pair"]) == ("一", "二")
    refused(["line 2", "`text_pair` is null"], read_rows, tmp_path, pair, {**text, "text_pair": None})
    refused(["line 2", "no field `text_pair`"], read_rows, tmp_path, pair, text)
    refused(["line 2: has a `text_pair`, the first row has none"], read_rows, tmp_path, text, pair)


def test_labels_that_look_alike_are_told(tmp_path, caplog):
    rows = [{"text": "好", "label": label} for label in (True, "True", "好", "好\u200b", "é", "e\u0301", "a", "b")]
    assert len(data.find_labels(SEQ_CLS, DataArguments(dataset="own"), read_rows(tmp_path, *rows), None)) == 8
    (message,) = (record.getMessage() for record in caplog.records)
    for part in ("'True' and 'true'", "\\u200b", "\\xe9", "e\\u0301"):
        assert part in message
    assert "'a'" not in message
    caplog.clear()
    for rows in (PARIS, [(["李"], ["B-PER"]), (["明"], ["B-per"])]):
        examples = [{"tokens": tokens, "tags": tags} for tokens, tags in rows]
        data.find_labels(TOKEN_CLS, DataArguments(dataset="own"), examples, None)
        assert bool(caplog.records) == (rows is not PARIS)


def test_rows_of_one_file_are_of_one_format(tmp_path):
    single, pair = {"sentence": "好", "label": "1"}, {"sentence1": "一", "sentence2": "二", "label": "1"}
    refused(["line 2", "no field `sentence`"], read_rows, tmp_path, single, pair)
    refused(["line 2", "no field `sentence1`"], read_rows, tmp_path, pair, single)
    write(tmp_path / "own/train.json", single)
    write(tmp_path / "own/dev.json", pair)
    steps = types.SimpleNamespace(do_train=True, do_eval=True, do_predict=False)
    args = DataArguments(dataset="own", data_dir=str(tmp_path))
    refused(["train.json line 1", "dev.json line 1"], data.load_splits, SEQ_CLS, args, steps)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"sentence": "好", "label": ', "is not JSON"),
        ('["好"]', "expected one JSON object per line"),
        ("[" * 100_000, "nested too deeply"),
        ('{"sentence": "好", "label": "1", "label": "2"}', "`label` twice"),
        ({"label": "1"}, "no field `sentence`; it has label"),
        ({"text": "好", "label": "1"}, "no field `sentence`; it has text, label"),
        ({"sentence": None, "label": "1"}, "`sentence` is null"),
        ('{"sentence": NaN, "label": "1"}', "`sentence` is NaN"),
        ({"sentence": " \u3000", "label": "1"}, "expected a text"),
        ({"sentence": "今天\ud83d", "label": "1"}, "half of a surrogate pair"),
        ({"sentence": "好", "label": "今天\ud83d"}, "half of a surrogate pair"),
        ({"sentence": "好"}, "no field `label`; it has sentence"),
        ({"sentence": "好", "label": None}, "`label` is null"),
        ({"sentence": "好", "label": " \u3000"}, "expected a label's name"),
        ({"sentence": "好", "label": 1.0}, "`label` is 1.0"),
        ({"sentence": "好", "label": ["1"]}, '`label` is ["1"], expected one label\'s name; several labels per text'),
        ('{"sentence": "好", "label": NaN}', "`label` is NaN"),
    ],
)
def test_a_broken_row_is_named(tmp_path, row, says):
    good = {"sentence": "好", "label": "1"}
    refused([f"{tmp_path / 'x.json'} line 3", says], read_rows, tmp_path, good, "", row)


def test_a_broken_row_of_csl_or_cluewsc_is_named(tmp_path):
    refused("no field `sentence2`", read_rows, tmp_path, {"sentence1": "好", "label": "1"})
    refused("`keyword` is", read_rows, tmp_path, {"abst": "好", "keyword": "词", "label": "1"})
    refused("`target` needs", read_rows, tmp_path, {"text": "他好", "target": {"span1_text": "他"}, "label": "true"})
    for start in (1, -2, True, "0", 0.0, None):
        target = {"span1_text": "他", "span1_index": start, "span2_text": "好", "span2_index": 1}
        refused("`span1_index`", read_rows, tmp_path, {"text": "他好", "target": target, "label": "true"})


def test_labels_are_stripped(tmp_path):
    rows = [{"sentence": "好", "label": label} for label in ("pos", "pos ", "\u3000neg", "neg\t", 1, "1 ", True)]
    assert [e["label"] for e in read_rows(tmp_path, *rows)] == ["pos", "pos", "neg", "neg", "1", "1", "true"]
    rows = [{"sentence": "好", "label": label} for label in ("- ", "a")]
    assert [e["label"] for e in read_rows(tmp_path, *rows, dataset="ocnli")] == ["a"]


# ------------------------------------------------------------------------------------------------ ids


def test_rows_without_ids_are_numbered(tmp_path):
    write(tmp_path / "own/test.json", {"sentence": "一"}, {"sentence": "二", "id": None})
    assert [e["id"] for e in load(SEQ_CLS, tmp_path, "test")] == [0, 1]
    write(tmp_path / "own/test.json", {"sentence": "一", "idx": 7}, {"sentence": "二", "id": "x", "idx": 7})
    assert [e["id"] for e in load(SEQ_CLS, tmp_path, "test")] == [7, "x"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"id": 1}, {}], ["line 2 has no id", "line 1 has one"]),
        ([{}, {"id": 1}], ["line 1 has no id", "line 2 has one"]),
        ([{"id": 1}, {"id": None}], ["line 2 has no id", "line 1 has one"]),
        ([{"id": 5}, {"id": 1}, {"id": 5}], ["line 3: the id 5", "line 1"]),
        ([{"id": 5}, {"id": "5"}], ["line 2", "line 1"]),
        ([{"id": 5}, {"idx": 5}], ["line 2", "line 1"]),
        ([{"id": "a"}, {"id": 1.0}], ["line 2", "1.0"]),
        ([{"id": True}], ["line 1", "true"]),
        ([{"id": [1]}], ["line 1", "[1]"]),
        ([{"id": " "}], ["line 1", "expected a whole number or a text"]),
        ([{"id": "\ud83d"}], ["line 1", "half of a surrogate pair"]),
    ],
)
def test_predictions_can_be_told_apart(tmp_path, rows, says):
    write(tmp_path / "own/test.json", *({"sentence": "好", **row} for row in rows))
    refused(says, load, SEQ_CLS, tmp_path, "test")
    # No prediction is made for a training row: its id does not matter. Published files repeat theirs.
    write(tmp_path / "own/train.json", *({"sentence": "好", "label": "1", **row} for row in rows))
    assert len(load(SEQ_CLS, tmp_path)) == len(rows)


def squad(*qas, context="上官刚在1936年出生。"):
    return {"data": [{"paragraphs": [{"context": context, "qas": list(qas)}]}]}


def test_every_question_gets_a_prediction_in_both_files(tmp_path):
    questions = [{"question": "哪年？"}, {"question": "哪年？"}, {"question": "谁？"}]
    path = tmp_path / "own/test.json"
    for ids, says in (
        (["a", "b", "a"], ["qas[2]", "qas[0]"]),
        ([1, "b", "1"], ["qas[2]", "qas[0]"]),
        (["a", None, "c"], ["qas[1]", "qas[0]"]),
    ):
        write(path, squad(*({**q, "id": name} for q, name in zip(questions, ids))))
        refused(says, load, QA, tmp_path, "test")
    for ids in ([None] * 3, ["a", 7, "c"]):
        write(path, squad(*({**q, "id": name} for q, name in zip(questions, ids))))
        split = types.SimpleNamespace(task=QA(None, 64), examples=load(QA, tmp_path, "test"), pairs=[None] * 3)
        answers = [{"answer": text} for text in ("一", "二", "三")]
        write_predictions(DataArguments(dataset="own"), str(tmp_path), split, answers)
        answers = json.loads((tmp_path / "own_predict.json").read_text(encoding="utf-8"))
        rows = json.loads((tmp_path / "test_results.json").read_text(encoding="utf-8"))
        assert list(answers.values()) == ["一", "二", "三"] == [row["answer"] for row in rows]
        assert list(answers) == [str(row["id"]) for row in rows]


# ------------------------------------------------------------------------------------------------ named entities

PARIS = [(["李", "明", "在"], ["B-PER", "I-PER", "O"]), (["巴", "黎", "。"], ["B-LOC", "I-LOC", "O"])]

COLUMNS = {
    "tabs": "李\tB-PER\n明\tI-PER\n在\tO\n\n巴\tB-LOC\n黎\tI-LOC\n。\tO\n",
    "spaces": "李 B-PER\n明   I-PER\n在 O\n\n巴 B-LOC\n黎 I-LOC\n。 O",
    "line ends of Windows": "李 B-PER\r\n明 I-PER\r\n在 O\r\n\r\n巴 B-LOC\r\n黎 I-LOC\r\n。 O\r\n\r\n",
    "blank lines at both ends": "\n\n李\tB-PER\n明\tI-PER\n在\tO\n \t\n\n巴\tB-LOC\n黎\tI-LOC\n。\tO\n\n\n\n",
    "white space at line ends": "李\tB-PER \n明\tI-PER\t\n在\tO\u3000\n\n巴 \tB-LOC\n黎\t I-LOC\n。\tO\n",
    "more columns": "李 NR x B-PER\n明 NR x I-PER\n在 P x O\n\n巴 NR x B-LOC\n黎 NR x I-LOC\n。 PU x O\n",
    "documents": "-DOCSTART- -X- -X- O\n\n李 NR x B-PER\n明 NR x I-PER\n在 P x O\n-DOCSTART- -X- O O\n"
    "巴 NR x B-LOC\n黎 NR x I-LOC\n。 PU x O\n",
}


def read_ner(tmp_path, content, labelled=True):
    path = tmp_path / "x.tsv"
    path.write_bytes(content.encode())
    return TOKEN_CLS.read_file(str(path), labelled)


@pytest.mark.parametrize("layout", COLUMNS)
def test_conll_columns(tmp_path, layout):
    examples = read_ner(tmp_path, COLUMNS[layout])
    assert [(e["tokens"], e["tags"]) for e in examples] == PARIS


def test_conll_columns_are_the_same_data_as_msra_ner(tmp_path):
    """The sample's sentences, full-width spaces among them, in columns."""
    expected = TOKEN_CLS.read_file(str(SAMPLE_DATA / "msra_ner/test.tsv"), labelled=True)
    for separator in ("\t", " "):
        rows = ("".join(f"{t}{separator}{tag}\n" for t, tag in zip(e["tokens"], e["tags"])) + "\n" for e in expected)
        examples = read_ner(tmp_path, "".join(rows))
        assert [(e["tokens"], e["tags"]) for e in examples] == [(e["tokens"], e["tags"]) for e in expected]


def test_a_blank_token_is_a_token(tmp_path):
    for content in (
        "New\tB-LOC\n \tO\nYork\tI-LOC\n\n",
        "New\tB-LOC\n\tO\nYork\tI-LOC\n\n",
        "New B-LOC\n O\nYork I-LOC\n\n",
        "New B-LOC\n  O\nYork I-LOC\n\n",
        "New NNP B-LOC\n  SP O\nYork NNP I-LOC\n\n",
    ):
        (example,) = read_ner(tmp_path, content)
        assert example["tokens"] == ["New", " ", "York"] and example["tags"] == ["B-LOC", "O", "I-LOC"]
    (example,) = read_ner(tmp_path, "北\tB-LOC\n\u3000\tO\n京\tB-LOC\n\n")
    assert example["tokens"] == ["北", "\u3000", "京"]
    assert join_tokens(example["tokens"])[0] == "北\u3000京"


def test_where_a_sentence_is(tmp_path):
    examples = read_ner(tmp_path, "\n" + COLUMNS["tabs"])
    assert [e["where"].rpartition("x.tsv ")[2] for e in examples] == ["line 2", "line 6"]


def test_a_test_split_without_tags(tmp_path):
    for content in ("李\n明\n\n巴\n黎\n", "李\t\n明\t\n \n巴\t\n黎\n\n", "李\x02明\n巴\x02黎\n"):
        examples = read_ner(tmp_path, content, labelled=False)
        assert [e["tokens"] for e in examples] == [["李", "明"], ["巴", "黎"]]
        assert not any("tags" in e for e in examples)
    # A single sentence of a single token is the same in either format.
    assert [e["tokens"] for e in read_ner(tmp_path, "北京\n", labelled=False)] == [["北京"]]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("李\tB-PER\n明\tI-PER\n在\tO\n", ["line 1", "blank line"]),  # or sentences of one token, of MSRA_NER's format
        ("李\tB-PER\n\n明\tB-PER\n\n在\tO\n", ["line 1", "one token"]),
        ("李明 在\tB-PER O\n李明 在\tB-PER O\n", ["line 1", "white space"]),
        ("李\tB-PER\n明\tI-PER O\n\n在\tO\n", ["line 2", "white space"]),
        ("李\x02明\tB-PER\x02I-PER\n李\x02明\tB-PER\x02I PER\n", ["line 2", "white space"]),
        ("李\x02明\tB-PER\x02I-PER\n李\x02明\tB-PER\x02 \n", ["line 2", "is empty"]),
        ("李\tB-PER\n明\n\n在\tO\n", ["line 2", "one column"]),
        ("李 NR B-PER\n明 I-PER\n\n在 P O\n", ["line 2", "expected 3, as in line 1"]),
        ("李 B-PER\n明 NR I-PER\n\n在 O\n", ["line 2", "expected 2, as in line 1"]),
        ("1\t李\tB-PER\n2\t明\tI-PER\n\n1\t在\tO\n", ["line 1", "row numbers"]),
        ("1 李 B-PER\n2 明 I-PER\n\n3 在 O\n4 巴 O\n", ["line 1", "row numbers"]),
        ("0\t李\tB-PER\n1\t明\tI-PER\n\n0\t在\tO\n", ["line 1", "row numbers"]),
        ("B-PER\t李\nI-PER\t明\n\nO\t在\n", ["line 1", "tags"]),
        ("s1\t李\tB-PER\ns1\t明\tI-PER\n\ns2\t在\tO\ns2\t巴\tO\n", ["line 1", "same in all rows", "'s1'"]),
        ("7, 李, B-PER\n7, 明, I-PER\n\n8, 在, O\n8, 巴, O\n", ["line 1", "same in all rows", "'7,'"]),
        ("科0 O\n技1 O\n张0 B-PER\n\n北0 O\n京1 O\n", ["line 1", "digit after each character ('科0')"]),
        (
            "token\tlabel\n张\tPER\n三\tPER\n好\tO\n\n李\tPER\n的\tO\n",
            ["line 1", "'token' and 'label' look like a header"],
        ),
        ("Word POS Tag\n张 NR B-PER\n三 NR I-PER\n\n李 NR O\n", ["line 1", "look like a header"]),
        ("text_a\tlabel\n李\x02明\tPER\x02PER\n在\tO\n", ["line 1", "look like a header"]),
        ("\u3000\tO\n\u3000\tO\n\n在\tO\n", ["line 1", "no tokens"]),
        ('{"tokens": ["李", "明"], "ner_tags": [1, 2]}\n', ["line 1"]),
        ('{"text": "李明", "label": {"name": 1}}\n{"text": "在", "label": {}}\n', ["line 1"]),
    ],
)
def test_another_layout_is_refused(tmp_path, content, says, end):
    refused([str(tmp_path / "x.tsv"), *says], read_ner, tmp_path, content.replace("\n", end))


def test_what_is_no_sure_sign_of_another_layout_is_read(tmp_path):
    for content in (
        "哈 VV O\n哈 VV O\n\n好 VA O\n",  # the same token in a sentence, as in the other one
        "哈 VV O\n哈 UJ O\n\n好 VA O\n的 DE O\n",
        "A0 O\nB1 O\n\nC0 O\n在 O\n",
        "label O\ntoken O\n\n好 O\n",
        "text label\nlabel label\n\n好 O\n",
        "1 O\n2 O\n\n7 O\n年 O\n",
    ):
        assert len(read_ner(tmp_path, content)) == 2


def test_another_layout_is_refused_in_a_test_split(tmp_path):
    for content in ("李明在。\n巴黎。\n", "李明在。\n\n巴黎。\n", "李 明 在\n巴 黎 。\n", "1 李\n2 明\n\n1 在\n2 巴\n"):
        refused("x.tsv line 1", read_ner, tmp_path, content, labelled=False)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("北\x02京\tB-LOC", "2 tokens, but 1 tags"),
        ("北\x02京", "got 1 column"),
        ("北\x02京\tB-LOC\x02+LOC", "'+LOC'"),
        (" \tO", "no tokens"),
        ("北\tO\tO", "got 3 column"),
    ],
)
def test_a_broken_row_of_msra_ner_is_named(tmp_path, line, says):
    refused(["x.tsv line 2", says], read_ner, tmp_path, f"北\x02京\tB-LOC\x02I-LOC\n{line}\n")


# ------------------------------------------------------------------------------------------------ questions

ANSWER = {"text": "1936年", "answer_start": 4}


def read_questions(tmp_path, document, labelled=True):
    return QA.read_file(write(tmp_path / "x.json", document), labelled)


def test_answers_as_hugging_face_writes_them(tmp_path):
    """The sample's file, rewritten so, gives the same examples."""
    path = SAMPLE_DATA / "cmrc2018/dev.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                qa["answers"] = {key: [answer[key] for answer in qa["answers"]] for key in ("text", "answer_start")}
    found, expected = read_questions(tmp_path, document), QA.read_file(str(path), labelled=True)
    assert [{**e, "where": ""} for e in found] == [{**e, "where": ""} for e in expected]


FLAT = {"id": "a", "context": "文", "question": "？", "answers": {"text": ["文"], "answer_start": [0]}}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ('{"data": [\n{"paragraphs": \n]}]}', "line 3 is not JSON"),
        (f"{json.dumps(FLAT)}\n{json.dumps(FLAT)}", ["line 2 is not JSON", "one JSON object in SQuAD's format"]),
        (FLAT, ["no field `data`; it has id, context, question, answers", "SQuAD"]),
        ([FLAT, FLAT], ["x.json", "SQuAD"]),
        ({"data": [FLAT]}, ["data[0]", "no field `paragraphs`; it has id"]),
        ({"data": FLAT}, ["`data` is {", "expected a list"]),
        ({"data": ["x"]}, 'data[0] is "x"'),
        (squad("哪年？"), ["data[0].paragraphs[0].qas[0] is", "哪年", "expected an object"]),
        (squad({"id": "q7", "question": "?", "answers": ["1936年"]}), ["qas[0]", "q7", "`answers` is", "answer_start"]),
        (squad({"id": "q7", "question": "?", "answers": "1936年"}), ["q7", "`answers` is"]),
        (squad({"id": "q7", "question": "?", "answers": {"text": ["1936年"]}}), ["q7", "`answers` is"]),
        (squad({"id": "q7", "question": "?", "answers": {"text": ["a", "b"], "answer_start": [1]}}), ["q7", "answers"]),
        (squad({"id": "q7", "question": "?", "answers": {"text": [], "answer_start": []}}), ["q7", "no answers"]),
        (squad({"id": "q7", "question": "?", "answers": []}), ["q7", "no answers"]),
        (squad({"id": "q7", "question": "?", "answers": [{"text": "a"}]}), ["q7", "`answer_start` is null", "whole"]),
        (squad({"id": "q7", "question": "?", "answers": [{**ANSWER, "answer_start": "4"}]}), ['`answer_start` is "4"']),
        (squad({"id": "q7", "question": "?", "answers": [{**ANSWER, "answer_start": True}]}), ["is true", "whole"]),
        (squad({"id": "q7", "question": "?", "answers": [{**ANSWER, "text": "年\ud83d"}]}), ["q7", "surrogate"]),
        (squad({"id": "q7", "answers": [ANSWER]}), ["q7", "no field `question`; it has id, answers"]),
        (squad({"id": "q7", "question": "?", "answers": [ANSWER]}, context=None), ["q7", "`context` is null"]),
    ],
)
def test_another_layout_of_questions_is_refused(tmp_path, document, says):
    refused(["x.json", *([says] if isinstance(says, str) else says)], read_questions, tmp_path, document)


def test_a_test_split_needs_no_answers(tmp_path):
    for more in ({}, {"answers": []}, {"answers": None}, {"answers": [{"text": "", "answer_start": -1}]}):
        (example,) = read_questions(tmp_path, squad({"id": "a", "question": "哪年？", **more}), labelled=False)
        assert example["answers"] == []


# ------------------------------------------------------------------------------------------------ anything else


def mutations(node):
    """Copies of a JSON value with one node replaced by a value of each type, or deleted."""
    yield from (
        None,
        3,
        -1,
        1.5,
        True,
        "",
        " ",
        "文",
        "\ud83d",
        [],
        [None],
        ["文"],
        [[]],
        {},
        {"文": None},
        {"text": []},
    )
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        copy = node.copy()
        del copy[key]
        yield copy
        for changed in mutations(child):
            copy = node.copy()
            copy[key] = changed
            yield copy


ROWS = [
    {"id": 3, "sentence": "好", "label": "1"},
    {"id": 3, "text": "一", "text_pair": "二", "label": "1"},
    {"idx": "a", "sentence1": "一", "sentence2": "二", "label": 1},
    {"id": 3, "keyword": ["词", "语"], "abst": "摘要", "label": "1"},
    {
        "id": 3,
        "text": "他好",
        "target": {"span1_text": "他", "span1_index": 0, "span2_text": "好", "span2_index": 1},
        "label": True,
    },
]
QUESTION = {"id": "a", "question": "哪年？", "answers": [ANSWER]}
DOCUMENTS = [squad(QUESTION), squad({**QUESTION, "answers": {"text": ["1936年"], "answer_start": [4]}})]


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_json_gives_a_traceback(tmp_path, split):
    """Every node of valid data replaced by values of every type: it is read, or refused with the file's name."""
    path = tmp_path / "own" / f"{split}.json"
    path.parent.mkdir()
    counts = {True: 0, False: 0}
    for task, values in ((SEQ_CLS, ROWS), (QA, DOCUMENTS)):
        for value in itertools.chain.from_iterable(map(mutations, values)):
            path.write_text(json.dumps(value), encoding="utf-8")
            try:
                examples = load(task, tmp_path, split)
            except UserError as e:
                assert str(path) in str(e)
                counts[False] += 1
                continue
            counts[True] += 1
            for e in examples:
                texts = [e["text"], e["text_pair"]] if task is SEQ_CLS else [e["question"], e["context"]]
                texts += [e["label"]] if "label" in e else [a["text"] for a in e.get("answers", [])]
                assert all(text is None or isinstance(text, str) for text in texts)
                # What is written to files, can be.
                json.dumps(texts + [e["id"]] * (split == "test"), ensure_ascii=False).encode()
    assert counts[True] > 50 and counts[False] > 300


@pytest.mark.parametrize("labelled", [True, False])
def test_no_ner_file_gives_a_traceback(tmp_path, labelled):
    """Valid files with a few characters replaced, inserted or deleted: as many tags as tokens, or refused."""
    rng = random.Random(7)
    valid = [*COLUMNS.values(), "李\x02明\tB-PER\x02I-PER\n巴\x02黎\tB-LOC\x02I-LOC\n"]
    read = 0
    for _ in range(1500):
        content = list(rng.choice(valid))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(content))
            content[place : place + rng.randint(0, 1)] = rng.choice(
                ["", "\t", " ", "\n", "\x02", "O", "李", "\ufeff", "\0"]
            )
        try:
            examples = read_ner(tmp_path, "".join(content), labelled)
        except UserError as e:
            assert f"{tmp_path / 'x.tsv'}" in str(e)
            continue
        read += 1
        assert examples and all(len(e["tokens"]) == len(e.get("tags", e["tokens"])) for e in examples)
    assert read > 300


def test_a_missing_dev_file_is_named(tmp_path, caplog):
    """MSRA_NER is scored on its test file; another data set may be, aloud, if that has tags."""
    write(tmp_path / "own/test.tsv", "北\x02京\tB-LOC\x02I-LOC")
    args = DataArguments(dataset="own", data_dir=str(tmp_path))
    assert len(data.load_examples(TOKEN_CLS, args, "dev")) == 1
    assert "there is no dev.tsv" in caplog.text
    write(tmp_path / "own/test.tsv", "北\x02京")
    refused(["no dev.tsv", "test.tsv line 1"], data.load_examples, TOKEN_CLS, args, "dev")
