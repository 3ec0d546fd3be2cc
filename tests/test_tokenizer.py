"""The fast tokenizers against PaddleNLP's ErnieTokenizer, on every character and on real texts."""

import json
import random
import re
import sys
import tempfile
import unicodedata

import numpy as np
import pytest
from conftest import REAL_DATA, ROOT, SAMPLE_DATA
from ernie_predictor.tokenizer import (
    _SIMPLE,
    EXTRA_SYMBOLS,
    PIECE,
    ErnieTokenizer,
    TokenizerError,
    longest_first,
)
from ernie_predictor.unicode_13 import is_assigned
from paddlenlp.transformers import ErnieTokenizer as ReferenceTokenizer

from ernie.models import PythonTokenizer

VOCAB = ROOT / "examples" / "model" / "vocab.txt"

try:
    import fast_tokenizer  # noqa: F401

    BACKENDS = ["tokenizers", "fast_tokenizer"]
except ImportError:
    BACKENDS = ["tokenizers", pytest.param("fast_tokenizer", marks=pytest.mark.skip(reason="not installed"))]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


def pair_for(vocab_file, backend):
    """PaddleNLP's tokenizer, loaded from a model folder as the scripts do it, and ours."""
    with tempfile.TemporaryDirectory() as folder:
        ReferenceTokenizer(str(vocab_file)).save_pretrained(folder)
        reference = ReferenceTokenizer.from_pretrained(folder)
        return reference, ErnieTokenizer.from_pretrained(folder, backend=backend)


def reference_ids(reference, text):
    return reference.convert_tokens_to_ids(reference.tokenize(text))


def all_texts(folder):
    """Every text of the data sets in a folder."""
    for path in sorted(folder.glob("*/*")):
        if path.suffix == ".tsv":
            for line in path.read_text(encoding="utf-8").split("\n"):
                yield line.split("\t")[0].replace("\x02", "")
        elif path.parent.name == "cmrc2018":
            for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
                for paragraph in article["paragraphs"]:
                    yield paragraph["context"]
                    yield from (qa["question"] for qa in paragraph["qas"])
        elif path.parent.name == "c3":
            for texts, questions, _ in json.loads(path.read_text(encoding="utf-8")):
                yield from texts
                yield from (question["question"] for question in questions)
        else:
            for line in path.read_text(encoding="utf-8").split("\n"):
                row = json.loads(line) if line else {}
                yield from (row[key] for key in ("sentence", "sentence1", "sentence2", "text", "abst") if key in row)
                yield " ".join(row.get("keyword", ()))


def check_texts(texts, vocab_file, backend):
    reference, tokenizer = pair_for(vocab_file, backend)
    pieces = {index: piece for piece, index in tokenizer.vocab.items()}
    texts = list(dict.fromkeys(texts))
    for text, encoding in zip(texts, tokenizer.encode(texts)):
        assert list(encoding.ids) == reference_ids(reference, text), text
        end_before = 0
        for index, (start, end) in zip(encoding.ids, encoding.offsets):
            assert end_before <= start < end <= len(text), text
            end_before = end
            piece = pieces[index].removeprefix("##")
            if piece != "[UNK]":
                plain = unicodedata.normalize("NFD", text[start:end].lower())
                plain = "".join(c for c in plain if unicodedata.category(c) not in ("Mn", "Cf", "Cc"))
                assert plain == piece, (text, start, end)


def test_sample_texts_give_the_references_ids_and_exact_offsets(backend):
    check_texts(all_texts(SAMPLE_DATA), VOCAB, backend)


@pytest.mark.slow
def test_real_texts_give_the_references_ids_and_exact_offsets(backend, real_data):
    texts = list(all_texts(real_data))
    assert len(texts) > 50_000
    # All that hold a symbol or need preparation, and every eighth of the rest: the reference is slow.
    odd = [t for t in texts if re.search("[^\\w\\s\u3000-\u303f\uff00-\uffef!-~“”‘’…·—]", t)]
    check_texts([*odd, *texts[::8]], real_data / "ernie_3.0_vocab.txt", backend)


def test_every_character_gives_the_references_ids(backend):
    """Each code point between letters, which shows whether it is dropped, split off, or a part of the word."""
    vocab_file = REAL_DATA / "ernie_3.0_vocab.txt" if REAL_DATA.is_dir() else VOCAB
    reference, tokenizer = pair_for(vocab_file, backend)
    # The reference knows the characters of the Python that runs it, ours those of Unicode 13.0.
    code_points = [c for c in range(0x110000) if is_assigned(chr(c)) or unicodedata.category(chr(c)) == "Cn"]
    code_points = [c for c in code_points if not 0xD800 <= c < 0xE000]
    interesting = [c for c in code_points if c < 0x3400 or 0x9F00 <= c < 0xAC10 or 0xD780 <= c < 0x10000]
    interesting += [c for c in code_points if 0x1E800 <= c < 0x20010 or 0x2A6D0 <= c < 0x31400][::3]
    interesting += random.Random(0).sample(code_points, 20_000)
    texts = [f"a{chr(c)}b" for c in interesting]
    wrong = [
        f"U+{ord(text[1]):04X}"
        for text, encoding in zip(texts, tokenizer.encode(texts))
        if list(encoding.ids) != reference_ids(reference, text)
    ]
    # A sign of the Hanunoo script, a non-spacing mark to Unicode 13 (Python 3.10, tokenizers) and none from 14 on.
    wrong = [name for name in wrong if name != "U+1734"]
    assert not wrong, f"{len(wrong)}: {wrong[:40]}"


def test_characters_are_those_of_unicode_13_on_every_python():
    characters = [chr(c) for c in range(0x110000)]
    assigned = [char for char in characters if is_assigned(char)]
    ours = [char for char in characters if unicodedata.category(char) != "Cn"]
    assert assigned == ours if unicodedata.unidata_version == "13.0.0" else set(assigned) < set(ours)
    assert len(assigned) == 283_440  # surrogates and private use included
    # An emoji of 2021, which Python 3.10 has not, as one that it has not either.
    _, tokenizer = pair_for(VOCAB, "tokenizers")
    assert [e.ids for e in tokenizer.encode(["好\U0001fae0", "好\U0001faff"])] == [tokenizer.encode(["好"])[0].ids] * 2


@pytest.mark.slow
def test_random_texts_of_all_planes_give_the_references_ids_and_exact_offsets():
    """In a process of its own, which may die. benchmarks/tokenizer_fuzz.py takes 100,000 texts."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from tokenizer_fuzz import fuzz, random_texts

    names = [name for name in BACKENDS if isinstance(name, str)]
    texts = [
        *random_texts(1500, seed=1),
        "aȺ北京",
        "Ⱦx",
        "ẞab在北京大学",
        "Beyonce\u0301s来了",
        "İstanbul",
        "ΑΣ x",
        "𑤸",
    ]
    results = fuzz(texts, names)
    assert len(results) == 2 * len(names)
    assert all(count == 0 for counts in results.values() for count in counts.values()), results


def test_texts_that_are_tokenized_in_pieces(backend):
    """Of three lengths around the pieces' own: simple texts, any texts, and one word without an end."""
    short = ["在2018年，Hello world", "  北京\n", "4℃ İstanbul é", "a" * 60, "\u3000\u200b字"]
    for text in (*short[:2], "".join(short)):
        for length in (PIECE - 1, PIECE + 1, 3 * PIECE + 7):
            check_texts([(text * length)[:length]], VOCAB, backend)
    check_texts(["x" * (2 * PIECE) + "北京"], VOCAB, backend)


def test_characters_longer_in_lower_case_kill_nothing(backend):
    """FastTokenizer ends the process at U+023A and U+023E beside a letter, if it gets them."""
    reference, tokenizer = pair_for(VOCAB, backend)
    texts = ["aȺ北京", "Ⱦx", "x" * 50 + "Ⱥ" * 60]
    for text, encoding in zip(texts, tokenizer.encode(texts)):
        assert list(encoding.ids) == reference_ids(reference, text)
    (encoding,) = tokenizer.encode(["ẞab在北京大学"])
    assert [place for place in encoding.offsets if place[0] >= 3] == [(i, i + 1) for i in range(3, 8)]


def test_paddlenlps_own_tokenizer_has_offsets_of_its_own_pieces(tmp_path):
    """--use_fast_tokenizer off, and a model that keeps upper case and accents."""
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] Caf ##é cafe 北"
    (tmp_path / "vocab.txt").write_text("\n".join(words.split()) + "\n", encoding="utf-8")
    tokenizer = PythonTokenizer(ReferenceTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=False))
    (encoding,) = tokenizer.encode(["Café北"])
    assert (encoding.ids, encoding.offsets) == ([5, 6, 8], [(0, 3), (3, 4), (4, 5)])


def test_simple_characters_are_no_symbols():
    """A shorter way is taken for texts of these alone."""
    simple = [char for char in map(chr, range(0x110000)) if _SIMPLE.fullmatch(char)]
    assert 25_000 < len(simple) < 30_000
    for char in simple:
        assert char not in EXTRA_SYMBOLS
        assert char.isascii() or unicodedata.category(char)[0] != "S"


def test_without_offsets_the_ids_are_the_same(backend):
    _, tokenizer = pair_for(VOCAB, backend)
    texts = ["北京 Beijing，2024年", "今天4℃～10℃", "", "[MASK] 😀", "，。"]
    encodings = tokenizer.encode(texts, offsets=False)
    assert [e.ids for e in encodings] == [e.ids for e in tokenizer.encode(texts)]
    assert {e.offsets for e in encodings} == {None}


def test_special_tokens_white_space_and_nothing(backend):
    reference, tokenizer = pair_for(VOCAB, backend)
    texts = ["", " ", "\u3000", "\x00", "[MASK]", "北京[SEP]上海", "a [UNK]b", "\n\n", "\u2028中\u2029国\x85", "É" * 3]
    texts += ["x" * 99, "x" * 100, "x" * 101, "😀👨‍👩‍👧 ok", "ﬁne ½ ²", "ΑΣ σ", "\ufeff北京", "北\u200b京", "가나다"]
    for text, encoding in zip(texts, tokenizer.encode(texts)):
        assert list(encoding.ids) == reference_ids(reference, text), repr(text)


def test_pairs_are_cut_as_paddlenlp_cuts_them():
    reference, tokenizer = pair_for(VOCAB, "tokenizers")
    generator = random.Random(0)
    for _ in range(200):
        text, pair = ("中" * generator.randrange(1, 40) for _ in range(2))
        limit = generator.randrange(5, 50)
        expected = reference(text, pair, max_length=limit, truncation=True)
        a, b = tokenizer.encode([text, pair])
        input_ids, token_type_ids = tokenizer.build_inputs(a.ids, b.ids, limit)
        assert (input_ids, token_type_ids) == (expected["input_ids"], expected["token_type_ids"])
        expected = reference(text, max_length=limit, truncation=True)
        assert tokenizer.build_inputs(a.ids, None, limit)[0] == expected["input_ids"]


def test_longest_first_is_one_token_at_a_time():
    for length in range(12):
        for pair_length in range(12):
            for room in range(length + pair_length + 2):
                a, b = length, pair_length
                while a + b > room:
                    a, b = (a - 1, b) if a > b else (a, b - 1)
                assert longest_first(length, pair_length, room) == (a, b)


def test_windows_are_paddlenlps():
    reference, tokenizer = pair_for(VOCAB, "tokenizers")
    question, context = "哪一年?", "1999年在北京，" * 30
    expected = reference([question], [context], stride=20, max_length=48, padding=False)
    a, b = tokenizer.encode([question, context])
    windows = tokenizer.build_windows(a, b, 48, 20, 64)
    expected = expected if isinstance(expected, list) else [dict(zip(expected, row)) for row in zip(*expected.values())]
    assert [w[0] for w in windows] == [e["input_ids"] for e in expected]
    assert [w[1] for w in windows] == [e["token_type_ids"] for e in expected]
    covered = set()
    for input_ids, _, first, begin in windows:
        assert len(input_ids) <= 48
        piece = input_ids[begin:-1]
        assert piece == b.ids[first : first + len(piece)]
        covered.update(range(first, first + len(piece)))
    assert covered == set(range(len(b.ids)))


def test_windows_leave_nothing_out_with_a_stride_too_long():
    _, tokenizer = pair_for(VOCAB, "tokenizers")
    question, context = tokenizer.encode(["问" * 80, "答" * 200])
    covered = set()
    for input_ids, _, first, begin in tokenizer.build_windows(question, context, 64, 1000, 50):
        assert len(input_ids) <= 64
        covered.update(range(first, first + len(input_ids) - begin - 1))
    assert covered == set(range(200))


def test_padding():
    _, tokenizer = pair_for(VOCAB, "tokenizers")
    batch = tokenizer.pad([([1, 5, 2], [0, 0, 0]), ([1, 2], [0, 1])])
    np.testing.assert_array_equal(batch["input_ids"], [[1, 5, 2], [1, 2, tokenizer.pad_id]])
    np.testing.assert_array_equal(batch["token_type_ids"], [[0, 0, 0], [0, 1, 0]])
    assert batch["input_ids"].dtype == np.int64


def test_a_vocabulary_that_is_none(tmp_path):
    with pytest.raises(TokenizerError, match=re.escape(str(tmp_path / "vocab.txt"))):
        ErnieTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n的\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"no \[CLS\]"):
        ErnieTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TokenizerError, match="not UTF-8"):
        ErnieTokenizer.from_pretrained(tmp_path)
