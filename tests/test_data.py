"""CLUE's formats to examples and features: what is read, left out, marked, aligned and cut."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT, SAMPLE_DATA
from ernie_predictor.data_files import NO_AGREEMENT, read_file
from ernie_predictor.tasks.seq_cls import mark_spans
from ernie_predictor.tokenizer import ErnieTokenizer, load_vocab

from ernie import data, features
from ernie.arguments import DataArguments
from ernie.errors import UserError
from ernie.tasks import DATA_SETS, IGNORED, QA, SEQ_CLS, TOKEN_CLS, locate_answer

TOKENIZER = ErnieTokenizer(load_vocab(ROOT / "examples" / "model" / "vocab.txt"), backend="tokenizers")


def arguments(dataset="own", data_dir=None, **kwargs):
    return DataArguments(dataset=dataset, data_dir=data_dir and str(data_dir), **kwargs)


def make(task, examples, labels=(), **kwargs):
    """A `Split` of a task as `load_task` makes it of these DataArguments."""
    args = arguments(**kwargs)
    params = {name: getattr(args, name) for name in task.defaults}
    task = task(TOKENIZER, args.max_seq_length, dict(enumerate(labels)), params)
    return features.make_features(task, examples, labelled=bool(labels) or not task.has_labels)


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    return str(path)


@pytest.mark.parametrize("dataset", DATA_SETS)
@pytest.mark.parametrize("folder", ["sample", "real"])
def test_every_split_is_read_whole(dataset, folder, request):
    """As many examples as PaddleNLP's own reading of the formats gives, none lost to odd line ends."""
    root = SAMPLE_DATA if folder == "sample" else request.getfixturevalue("real_data")
    for split in ("train", "dev", "test"):
        examples = data.load_examples(DATA_SETS[dataset].task, arguments(dataset, root), split)
        path = root / dataset / f"{split}.json"
        if dataset == "cmrc2018":
            articles = json.loads(path.read_text(encoding="utf-8"))["data"]
            expected = sum(len(p["qas"]) for a in articles for p in a["paragraphs"])
        elif dataset == "msra_ner":
            name = "train.tsv" if split == "train" else "test.tsv"
            expected = (root / dataset / name).read_bytes().count(b"\n")
        else:
            rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
            expected = sum(split == "test" or row["label"] != NO_AGREEMENT.get(dataset) for row in rows)
        assert len(examples) == expected


@pytest.mark.parametrize("dataset", ["tnews", "msra_ner", "cmrc2018"])
def test_a_folder_may_be_called_as_a_place_in_a_file(dataset, tmp_path):
    """By its place, an example's file was cut off at the folder's name."""
    folder = shutil.copytree(SAMPLE_DATA, tmp_path / "my data[1] line 2")
    task = DATA_SETS[dataset].task
    suffix = task.suffixes[0]
    examples = data.load_examples(task, arguments(dataset, folder), "train")
    assert examples[0]["file"] == str(folder / dataset / f"train.{suffix}")


def test_lines_end_at_newlines_alone(tmp_path):
    path = write(
        tmp_path / "x.json", {"sentence": "一\u2028二\x85三", "label": "1"}, "", {"sentence": "四", "label": 2}
    )
    examples = SEQ_CLS.read_file(path, labelled=True)
    assert [e["text"] for e in examples] == ["一\u2028二\x85三", "四"]
    assert examples[1]["label"] == "2" and examples[1]["where"].endswith("line 3")


def test_rows_without_agreement_are_left_out_aloud(tmp_path, caplog):
    row = {"sentence1": "一", "sentence2": "二"}
    path = write(tmp_path / "x.json", {**row, "label": "-"}, {**row, "label": "neutral"})
    assert [e["label"] for e in read_file("seq_cls", path, "ocnli", labelled=True)] == ["neutral"]
    assert f"{path}: 1 rows left out, labelled '-'" in caplog.text
    # Where a data set does not use it so, it is a label like any other.
    assert [e["label"] for e in read_file("seq_cls", path, "own", labelled=True)] == ["-", "neutral"]
    # In a test split the label is not looked at, and every row gets a prediction.
    assert len(read_file("seq_cls", path, "ocnli", labelled=False)) == 2


def published_marks(example):
    """CLUEWSC's marks as the published scripts insert them, one character at a time."""
    target, text = example["target"], list(example["text"])
    pronoun, pronoun_at, noun, noun_at = (
        *(target["span2_text"], target["span2_index"]),
        *(target["span1_text"], target["span1_index"]),
    )
    first, second = ("_", noun, noun_at, "_"), ("[", pronoun, pronoun_at, "]")
    if pronoun_at < noun_at:
        first, second = second, first
    text.insert(first[2], first[0])
    text.insert(first[2] + len(first[1]) + 1, first[3])
    text.insert(second[2] + 2, second[0])
    text.insert(second[2] + len(second[1]) + 3, second[3])
    return "".join(text)


@pytest.mark.parametrize("folder", ["sample", "real"])
def test_cluewsc_marks_both_spans_whichever_comes_first(folder, request):
    root = SAMPLE_DATA if folder == "sample" else request.getfixturevalue("real_data")
    rows = [json.loads(line) for line in (root / "cluewsc2020/train.json").read_bytes().split(b"\n") if line]
    if folder == "sample":  # in the real rows the noun always comes first
        assert {row["target"]["span1_index"] < row["target"]["span2_index"] for row in rows} == {True, False}
    for row in rows:
        assert mark_spans(row, "here") == published_marks(row)


def test_csl_is_keywords_and_abstract(tmp_path):
    path = write(tmp_path / "x.json", {"abst": "摘要", "keyword": ["甲", "", "乙"], "label": "1"})
    (example,) = SEQ_CLS.read_file(path, labelled=True)
    assert (example["text"], example["text_pair"]) == ("甲  乙", "摘要")


def test_an_own_data_set_takes_its_labels_from_the_training_file(tmp_path):
    write(tmp_path / "own/train.json", *({"sentence": "文", "label": label} for label in ("乙", "甲", "乙")))
    examples = data.load_examples(SEQ_CLS, arguments("own", tmp_path), "train")
    assert data.find_labels(SEQ_CLS, arguments("own"), examples, None) == sorted(["甲", "乙"])
    write(tmp_path / "own_ner/train.tsv", "北\x02京\tB-CITY\x02I-CITY")
    examples = data.load_examples(TOKEN_CLS, arguments("own_ner", tmp_path), "train")
    assert data.find_labels(TOKEN_CLS, arguments("own_ner"), examples, None) == ["B-CITY", "I-CITY", "O"]


# ------------------------------------------------------------------------------------------------- features


def test_no_feature_exceeds_the_limit(real_data):
    for dataset, row in DATA_SETS.items():
        examples = data.load_examples(row.task, arguments(dataset, real_data), "dev")
        made = make(row.task, examples, max_seq_length=48).features
        lengths = [len(f["input_ids"]) for f in made]
        assert max(lengths) <= 48, dataset
        assert max(lengths) == 48 or dataset == "afqmc", f"{dataset} was not put to the test"
        assert all(len(f["input_ids"]) == len(f["token_type_ids"]) for f in made)


LABELS = ["B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "O"]


def ner_feature(tokens, tags, **kwargs):
    """The feature of one sentence, with its text and the offsets of its pieces."""
    examples = [{"id": 0, "where": "here", "tokens": tokens, "tags": tags}]
    split = make(TOKEN_CLS, examples, LABELS, **kwargs)
    return {**split.features[0], "text": split.pairs[0].first, "offsets": split.notes[0][0]}


def labels_by_text(feature):
    """[(text of the piece, tag)] of the labelled pieces."""
    text = feature["text"]
    return [
        (text[start:end], LABELS[label])
        for (start, end), label in zip(feature["offsets"], feature["labels"][1:-1])
        if label != IGNORED
    ]


def test_words_numbers_and_spaces_shift_no_label():
    tokens = ["我", "在", "\u3000", "Huawei", "Mate", "2019", "年", "会", "见", "李", "明", "℃", "\u200b", "北"]
    tags = ["O", "O", "O", "B-ORG", "I-ORG", "O", "O", "O", "O", "B-PER", "I-PER", "O", "O", "B-LOC"]
    feature = ner_feature(tokens, tags)
    labelled = labels_by_text(feature)
    by_char = dict(labelled)
    assert by_char["李"] == "B-PER" and by_char["明"] == "I-PER" and by_char["北"] == "B-LOC"
    assert by_char["年"] == "O"
    # A word of several pieces has one label, on its first piece; a space and an invisible character have none.
    tokens_labelled = [tag for _, tag in labelled]
    assert tokens_labelled == [t for token, t in zip(tokens, tags) if token not in ("\u3000", "\u200b")]
    assert feature["labels"][0] == feature["labels"][-1] == IGNORED


def test_a_word_written_letter_by_letter_is_labelled_once():
    feature = ner_feature(["n", "b", "a", "赛"], ["B-ORG", "I-ORG", "I-ORG", "O"])
    assert feature["text"] == "nba赛"
    (first, label), *rest = labels_by_text(feature)
    assert "nba".startswith(first) and label == "B-ORG" and rest == [("赛", "O")]


def test_real_ner_labels_are_those_of_the_file(real_data):
    """MSRA's tokens are single characters: every one that begins a word keeps its tag."""
    examples = data.load_examples(TOKEN_CLS, arguments("msra_ner", real_data), "dev")
    split = make(TOKEN_CLS, examples, LABELS, max_seq_length=4096)
    for example, pair, (offsets, _), feature in zip(examples, split.pairs, split.notes, split.features):
        text = "".join(example["tokens"])
        assert pair.first == text
        found = {start: LABELS[label] for (start, _), label in zip(offsets, feature["labels"][1:]) if label != IGNORED}
        assert found == {start: example["tags"][start] for start in found}
        assert {i for i, char in enumerate(text) if "\u4e00" <= char <= "\u9fa5"} <= set(found)


@pytest.mark.parametrize("folder", ["sample", "real"])
def test_qa_positions_are_the_answers(folder, request):
    """In each window the labelled span, read back through the offsets, is the answer's text."""
    root = SAMPLE_DATA if folder == "sample" else request.getfixturevalue("real_data")
    examples = data.load_examples(QA, arguments("cmrc2018", root), "train")[:400]
    split = make(QA, examples, max_seq_length=256, doc_stride=64)
    windows = [(index, span, *window) for index, (span, places) in enumerate(split.notes) for window in places]
    assert len(windows) == len(split.features)
    answered = set()
    for (index, span, first, place), feature in zip(windows, split.features):
        start, end = feature["start_positions"], feature["end_positions"]
        if start == 0:
            assert end == 0
            continue
        example = examples[index]
        answered.add(index)
        shift = first - place.start
        text = example["context"][span[start + shift][0] : span[end + shift][1]]
        answers = {a["text"] for a in example["answers"]}
        # A piece may be longer than the answer's end within it ("1999" where the answer is "199").
        assert any(answer.strip() in text and len(text) <= len(answer) + 12 for answer in answers), (text, answers)
        assert start >= place.start
    # An answer of up to 64 tokens is inside some window; a longer one may be in none.
    short = {i for i, e in enumerate(examples) if all(len(a["text"]) <= 64 for a in e["answers"])}
    located = {i for i in short if any(locate_answer(examples[i]["context"], a) for a in examples[i]["answers"])}
    assert located <= answered and len(located) > 0.85 * len(examples)


def test_a_long_question_leaves_the_context_a_quarter_of_the_window(caplog):
    example = {
        "question": "问" * 80,
        "context": "答" * 200,
        "answers": [{"text": "答", "answer_start": 150}],
        "where": "x",
    }
    split = make(QA, [example], max_seq_length=64, doc_stride=16)
    assert "1 of 1 questions are truncated at 45 tokens" in caplog.text
    assert len(split.features) == 13 and all(place.stop - place.start <= 16 for _, place in split.notes[0][1])
    assert any(feature["start_positions"] for feature in split.features)


def test_an_answer_whose_start_is_off_is_found():
    assert locate_answer("天津在北京边上，北京", {"text": "北京", "answer_start": 7}) == (8, 10)
    assert locate_answer("天津", {"text": "天津", "answer_start": -1}) == (0, 2)
    assert locate_answer("天津", {"text": "北京", "answer_start": 0}) is None


def test_answers_that_are_not_where_they_should_be_are_counted_in_one_warning(caplog):
    answers = {"right": ("北京", 1), "moved": ("北京", 0), "lost": ("上海", 1), "both": ("上海", 1)}
    examples = [
        {"question": "哪？", "context": "在北京。", "answers": [{"text": text, "answer_start": start}], "where": where}
        for where, (text, start) in answers.items()
    ]
    examples[-1]["answers"].append({"text": "北京", "answer_start": 1})
    split = make(QA, examples, max_seq_length=64, doc_stride=16)
    assert [feature["start_positions"] > 0 for feature in split.features] == [True, True, False, True]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "Of 4 questions" in warning and "1 have no answer" in warning and "(lost ...)" in warning
    assert "1 have none at `answer_start`" in warning and "(moved ...)" in warning


def test_batches_are_padded_to_the_longest_or_to_a_given_length():
    rows = [
        {"input_ids": [1, 7, 2], "token_type_ids": [0, 0, 0], "labels": [-100, 3, -100]},
        {"input_ids": [1, 7, 8, 9, 2], "token_type_ids": [0] * 5, "labels": [-100, 3, 4, 5, -100]},
    ]
    batch = features.Collator(TOKENIZER)(rows)
    assert batch["input_ids"].shape == (2, 5) and all(type(array) is np.ndarray for array in batch.values())
    np.testing.assert_array_equal(batch["labels"][0], [-100, 3, -100, -100, -100])
    assert features.Collator(TOKENIZER, [4, 16, 8])(rows)["input_ids"].shape == (2, 8)


# ------------------------------------------------------------------------------------------------ labels


def test_an_unknown_label_is_named():
    rows = [{"where": f"x.json line {n}", "text": "文", "text_pair": None, "label": str(n)} for n in (1, 2)]
    with pytest.raises(UserError, match=r"x\.json line 2: unknown label '2'; known are 0, 1"):
        make(SEQ_CLS, rows, ["0", "1"])
    row = {"where": "x.tsv line 9", "tokens": ["北", "京"], "tags": ["O", "B-X"]}
    with pytest.raises(UserError, match=r"x\.tsv line 9: unknown label 'B-X'; known are O"):
        make(TOKEN_CLS, [row], ["O"])


# ------------------------------------------------------------------------------------------------ download


def test_a_published_data_set_is_downloaded_once(tmp_path, monkeypatch):
    """PaddleNLP's own download, from an HTTP server on this machine in place of the hub."""
    import functools
    import hashlib
    import http.server
    import shutil
    import threading

    from paddlenlp.datasets.clue import Clue

    served = tmp_path / "served"
    shutil.copytree(SAMPLE_DATA / "afqmc", served / "afqmc_public")
    archive = shutil.make_archive(str(served / "afqmc_public"), "zip", served, "afqmc_public")
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *args):
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def md5(path):
        with open(path, "rb") as f:
            return hashlib.md5(f.read()).hexdigest()

    folder = served / "afqmc_public"
    config = {
        "url": f"http://127.0.0.1:{server.server_port}/afqmc_public.zip",
        "md5": md5(archive),
        "splits": {s: [f"afqmc_public/{s}.json", md5(folder / f"{s}.json")] for s in ("train", "dev", "test")},
        "labels": ["0", "1"],
    }
    monkeypatch.setitem(Clue.BUILDER_CONFIGS, "afqmc", config)
    monkeypatch.setattr("paddlenlp.datasets.clue.DATA_HOME", str(tmp_path / "cache"))
    try:
        local = data.load_examples(SEQ_CLS, arguments("afqmc", SAMPLE_DATA), "dev")
        for split in ("dev", "train", "dev"):
            fetched = data.load_examples(SEQ_CLS, arguments("afqmc"), split)
            assert split != "dev" or [e["text"] for e in fetched] == [e["text"] for e in local]
    finally:
        server.shutdown()
    assert requests == ["/afqmc_public.zip"]
