"""Entities: tag schemes as seqeval reads them, words whatever their accents, windows of long texts, and the score."""

import json
import random
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REAL_DATA
from ernie_predictor import answers
from ernie_predictor.errors import PredictorError
from ernie_predictor.scores import entity_scores
from ernie_predictor.tokenizer import ErnieTokenizer, load_vocab
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOBES, Entities

from ernie import features
from ernie.data import load_examples
from ernie.results import write_predictions
from ernie.tasks import DATA_SETS, IGNORED, TOKEN_CLS

KINDS = ("PER", "LOC-GPE", "机构")
SCHEMES = {"BIO": "BI", "BIOES": "BIES", "BMES": "BMES", "BILOU": "BILU", "BMEWO": "BMEW", "IO": "I"}


def labels_of(prefixes, kinds=KINDS):
    return ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in prefixes)]


def seqevals(tags):
    return [(kind, first, last + 1) for kind, first, last in get_entities(tags)]


def random_spans(generator, length, gap):
    spans, place = [], 0
    while place < length:
        end = min(place + generator.choice((1, 1, 2, 3, 5)), length)
        if generator.random() < 0.6:
            spans.append((generator.choice(KINDS), place, end))
        place = end + generator.choice((gap, gap, 2))
    return spans


@pytest.mark.parametrize("prefixes", ["BI", "BIES", "IES", "I"])
def test_any_sequence_of_tags_is_read_as_seqevals_default_mode_reads_it(prefixes):
    generator = random.Random(0)
    labels = labels_of(prefixes)
    for _ in range(1000):
        tags = [generator.choice(labels) for _ in range(generator.randrange(0, 12))]
        assert answers.entity_spans(tags) == seqevals(tags)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_become_tags_of_the_scheme_and_spans_again(scheme):
    generator = random.Random(1)
    labels = labels_of(SCHEMES[scheme])
    answers.check_tags(labels)
    strict = {"BIOES": IOBES, "BILOU": BILOU}.get(scheme)
    for _ in range(300):
        spans = random_spans(generator, 12, gap=1 if scheme == "IO" else 0)
        tags = answers.tags_of_spans(spans, 12, labels)
        assert set(tags) <= set(labels)
        assert answers.entity_spans(tags) == spans
        if strict:
            found = Entities([tags], strict).entities[0]
            assert [(e.tag, e.start, e.end) for e in found] == spans


def test_tags_without_a_prefix_are_entities_as_long_as_they_stay_the_same():
    answers.check_tags(["O", "PER", "e-mail", "机构"])
    assert answers.entity_spans(["PER", "PER", "O", "机构", "e-mail"]) == [
        ("PER", 0, 2),
        ("机构", 3, 4),
        ("e-mail", 4, 5),
    ]
    assert answers.tags_of_spans([("PER", 1, 3)], 4, ["O", "PER"]) == ["O", "PER", "PER", "O"]


def test_two_single_tokens_are_two_entities():
    for single in "SUW":
        assert answers.entity_spans([f"{single}-PER", f"{single}-PER"]) == [("PER", 0, 1), ("PER", 1, 2)]


@pytest.mark.parametrize(
    "tags",
    [
        ["B-PER", "I-PER", "X"],
        ["B-PER", "OTHER"],
        ["B-PER", "o"],
        ["X-PER", "B-PER"],
        ["PER-B", "PER-I"],
        ["B_PER", "I_PER"],
        ["b-per", "i-per"],
        ["B", "M", "E", "S"],
        ["B-"],
        ["PER", "OTHER", None],
    ],
)
def test_an_unknown_scheme_is_refused_by_name(tags):
    tags = ["O", *tags] if None not in tags else tags[:-1]  # without prefixes, nothing but O is no entity
    with pytest.raises(PredictorError) as error:
        answers.check_tags({tag: f"line {n}" for n, tag in enumerate(tags)})
    assert any(f"line {n}: " in str(error.value) and tag in str(error.value) for n, tag in enumerate(tags))
    with pytest.raises(PredictorError):
        TOKEN_CLS(None, 32, dict(enumerate(tags)))


@pytest.fixture(scope="module", params=["tokenizers", "fast_tokenizer"])
def tokenizer(request):
    if request.param == "fast_tokenizer":
        pytest.importorskip("fast_tokenizer")
    pieces = "bey ##on ##ce ##s cafe 在 唱 歌 北 京 大 学 i ##phone ##13 10 ##kg 售 价 ᄒ ##ᅡ ##ᆫ क ##ि , 。 - é x"
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces.split()]
    return ErnieTokenizer({piece: index for index, piece in enumerate(vocab)}, backend=request.param)


def words(tokenizer, text):
    (encoding,) = tokenizer.encode([text])
    return [text[start:end] for start, _, end, _ in answers.find_words(text, encoding.offsets)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Beyoncés在café唱歌", ["Beyoncés", "在", "café", "唱", "歌"]),
        ("iPhone13在10kg", ["iPhone", "13", "在", "10", "kg"]),
        ("cafe\u0301, x", ["cafe\u0301", ",", "x"]),
        ("Bey\u200bonce x\u200d", ["Bey\u200bonce", "x\u200d"]),
        ("café\ufffd 在\ufe0f", ["café\ufffd", "在\ufe0f"]),
        ("x-x 한 कि", ["x", "-", "x", "한", "कि"]),
    ],
)
def test_accents_and_dropped_characters_stay_with_their_word(tokenizer, text, expected):
    assert words(tokenizer, text) == expected
    for form in ("NFC", "NFD"):
        normal = [unicodedata.normalize(form, word) for word in expected]
        assert words(tokenizer, unicodedata.normalize(form, text)) == normal


def test_an_answer_keeps_its_last_accent(tokenizer):
    context = "在cafe\u0301\u200d 唱歌"
    (encoding,) = tokenizer.encode([context])
    logits = np.zeros([2, len(encoding.ids)])
    logits[:, 1] = 9
    (best, *_) = answers.read_answers([(logits[0], logits[1], 0)], context, encoding.offsets)
    assert best["answer"] == context[best["start"] : best["end"]] == "cafe\u0301\u200d"


LABELS = ["O", "B-PER", "I-PER"]


def tagged(tokenizer, length, doc_stride, text, logits_of):
    """The entities of a text, the windows, and the features, with a model that is a function of a feature."""
    task = TOKEN_CLS(tokenizer, length, dict(enumerate(LABELS)), {"doc_stride": doc_stride})
    pairs = [task.check(text)]
    made, notes = task.tokenize(pairs)
    assert task.truncated == 0 and all(len(ids) <= length for ids, _ in made)
    return task.read(pairs, notes, [(logits_of(ids),) for ids, _ in made])[0], notes[0][1]


@pytest.mark.parametrize("length, doc_stride", [(8, 128), (16, 3), (64, 128), (64, 20), (63, 31)])
def test_windows_find_what_one_window_finds(tokenizer, length, doc_stride):
    generator = random.Random(2)
    text = "".join(generator.choice(["北京", "在", "iPhone13", " x ", "唱歌", "10kg"]) for _ in range(200))
    tag_of = np.random.default_rng(3).normal(size=[len(tokenizer.vocab), len(LABELS)])

    def logits_of(ids):
        return tag_of[ids]

    expected, windows = tagged(tokenizer, 4096, 128, text, logits_of)
    assert len(windows) == 1 and len(expected) > 20
    found, windows = tagged(tokenizer, length, doc_stride, text, logits_of)
    assert len(windows) > 5 and found == expected


def test_each_piece_is_read_in_the_window_that_holds_most_of_its_context(tokenizer):
    for length in (1, 29, 30, 31, 45, 46, 200, 20000):
        task = TOKEN_CLS(tokenizer, 32, dict(enumerate(LABELS)))
        made, ((offsets, windows),) = task.tokenize([task.check("在" * length)])
        read = [piece for _, first, end in windows for piece in range(first, end)]
        assert read == list(range(length)) == list(range(len(offsets)))  # each once, none left out
        sizes = [len(ids) - 2 for ids, _ in made]
        assert windows[-1][0] + sizes[-1] == length
        for at, first, end in windows if length < 1000 else windows[:3] + windows[-3:]:
            for piece in range(first, end):
                context = [min(piece - a, a + size - 1 - piece) for (a, _, _), size in zip(windows, sizes)]
                assert min(piece - at, at + 30 - 1 - piece) >= max(context) - 1 or len(windows) == 1


def split_of(tokenizer, sentences, labels, max_seq_length=128):
    examples = [
        {"id": i, "where": f"file line {i + 1}", "tokens": tokens, "tags": tags}
        for i, (tokens, tags) in enumerate(sentences)
    ]
    task = TOKEN_CLS(tokenizer, max_seq_length, dict(enumerate(labels)))
    return features.make_features(task, examples)


def perfect_outputs(split, labels):
    """Logits that say what the features' labels say, sorted as a model's are."""
    rows = [split.features[i]["labels"] for i in split.order]
    logits = np.zeros([len(rows), max(map(len, rows)), len(labels)])
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            logits[row, column, labels.index("O") if value == IGNORED else value] = 9
    return logits


@pytest.mark.parametrize("scheme", ["BIO", "BIOES", "BMES"])
def test_what_training_teaches_is_what_the_predictor_reads_back(tokenizer, scheme):
    """Labels of features, read as a model's answers, give the file's entities: in long texts, in every scheme."""
    generator = random.Random(4)
    labels = labels_of(SCHEMES[scheme])
    sentences = []
    for _ in range(30):
        length = generator.choice((3, 10, 80))
        spans = random_spans(generator, length, 0)
        sentences.append((["在"] * length, answers.tags_of_spans(spans, length, labels)))
    split = split_of(tokenizer, sentences, labels, max_seq_length=24)
    assert len(split.features) > len(sentences)
    scores = split.scores(perfect_outputs(split, labels))
    assert scores == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    labelled = sum(label != IGNORED for f in split.features for label in f["labels"])
    assert labelled == sum(len(tokens) for tokens, _ in sentences)  # every token teaches once


def test_a_token_of_several_words_is_one_entity(tokenizer):
    labels = labels_of("BIES", ["PER"])
    split = split_of(tokenizer, [(["x-x", "在"], ["S-PER", "O"])], labels)
    assert [labels[i] for i in split.features[0]["labels"] if i >= 0] == ["B-PER", "I-PER", "E-PER", "O"]
    assert split.answers(perfect_outputs(split, labels))[0][0]["entity"] == "x-x"


def test_entities_inside_a_word_are_missed_in_the_score_and_named(tokenizer, caplog):
    tokens = ["售", "价", "1", "0", "k", "g", "在", "c", "a", "f", "e"]
    tags = ["O", "O", "B-NUM", "I-NUM", "B-UNIT", "I-UNIT", "O", "B-A", "I-A", "B-B", "I-B"]
    labels = labels_of("BI", ["NUM", "UNIT", "A", "B"])
    split = split_of(tokenizer, [(tokens, tags)], labels)
    assert len(split.gold[0]) == 4
    assert "2 of 4 entities" in caplog.text and "'ca', file line 1" in caplog.text
    scores = split.scores(perfect_outputs(split, labels))
    assert scores["precision"] == 1.0 and scores["recall"] == 0.5
    # The word teaches nothing: whatever it were taught would be wrong.
    offsets = split.notes[0][0]
    taught = {offsets[i][0] for i, label in enumerate(split.features[0]["labels"][1:-1]) if label >= 0}
    assert taught == {0, 1, 2, 4, 6}


def test_scores_are_seqevals():
    """Random answers, as entities and as tags: the same precision, recall and F1."""
    generator = random.Random(5)
    labels = labels_of("BIES")
    gold = [random_spans(generator, 15, 0) for _ in range(60)]
    found = [
        [span for span in spans if generator.random() < 0.7]
        if generator.random() < 0.8
        else random_spans(generator, 15, 0)
        for spans in gold
    ]
    true, guessed = ([answers.tags_of_spans(spans, 15, labels) for spans in side] for side in (gold, found))
    scores = entity_scores([[{"label": kind, "start": a, "end": b} for kind, a, b in spans] for spans in found], gold)
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        assert scores[name] == pytest.approx(score(true, guessed))
    assert 0.3 < scores["f1"] < 0.9


def test_scores_of_nothing():
    assert entity_scores([[]], [[]]) == {"precision": 0, "recall": 0, "f1": 0}


def test_entities_that_share_a_token_are_counted_where_only_one_fits(tokenizer, tmp_path, caplog):
    """The leaderboard's file has a tag a token; test_results.json has them all."""
    labels = labels_of("BI", ["BRAND", "MODEL"])
    split = split_of(tokenizer, [(["iPhone13", "x"], ["O", "O"])], labels)
    text = split.pairs[0].first
    entities = [
        {"entity": text[a:b], "label": label, "start": a, "end": b, "confidence": 1.0}
        for label, a, b in (("BRAND", 0, 6), ("MODEL", 6, 8))
    ]
    write_predictions(SimpleNamespace(dataset="own"), str(tmp_path), split, [entities])
    assert "1 entities share a token" in caplog.text
    assert len(json.loads((tmp_path / "test_results.json").read_text(encoding="utf-8"))[0]["entities"]) == 2
    assert (tmp_path / "own_predict.tsv").read_text(encoding="utf-8") == "iPhone13\x02x\tB-MODEL\x02O\n"


def test_msra_loses_no_entity(real_data, caplog):
    """Every entity of MSRA's dev sentences, the long ones too, can be taught and read back."""
    labels = list(DATA_SETS["msra_ner"].labels)
    examples = load_examples(TOKEN_CLS, SimpleNamespace(dataset="msra_ner", data_dir=real_data), "dev")
    vocab = load_vocab(REAL_DATA / "ernie_3.0_vocab.txt")
    task = TOKEN_CLS(ErnieTokenizer(vocab, backend="tokenizers"), 64, dict(enumerate(labels)))
    split = features.make_features(task, examples)
    scores = split.scores(perfect_outputs(split, labels))
    total = sum(len(seqevals(e["tags"])) for e in examples)
    assert sum(map(len, split.gold)) == total
    assert len(split.features) > len(examples) + 50
    assert scores["precision"] == 1.0 and scores["recall"] > 0.999, caplog.text
