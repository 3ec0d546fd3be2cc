"""The C++ tokenizer against the Python one. benchmarks/cpp_tokenizer.py compares more, under sanitizers."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, SAMPLE_DATA

sys.path.insert(0, str(ROOT / "benchmarks"))
from cpp_tokenizer import VOCAB, build, differences, random_bytes, run, texts_of, with_surrogates
from tokenizer_fuzz import make_vocab, random_texts

RANDOM_TEXTS = 20_000


def has_icu():
    if shutil.which("g++") is None:
        return False
    command = ["g++", "-E", "-x", "c++", "-include", "unicode/uchar.h", "-"]
    return subprocess.run(command, input=b"", capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not has_icu(), reason="needs g++ and libicu-dev")


@pytest.fixture(scope="session")
def program(once):
    def make(folder):
        build(folder, "-O1")
        return ""

    folder, _ = once("cpp_tokenizer", make)
    return folder / "tokenizer_dump"


@pytest.fixture
def model(tmp_path):
    shutil.copy(VOCAB, tmp_path / "vocab.txt")
    return tmp_path


def test_sample_texts(program, model):
    assert differences(program, model, texts_of(SAMPLE_DATA)) == []


def test_real_texts(program, model, real_data):
    shutil.copy(real_data / "ernie_3.0_vocab.txt", model / "vocab.txt")
    texts = texts_of(real_data)
    assert len(texts) > 39_358
    assert differences(program, model, texts) == []


def test_random_texts(program, tmp_path):
    texts = random_texts(RANDOM_TEXTS, seed=1)
    texts += with_surrogates(texts[:500], seed=1)
    make_vocab(texts, tmp_path)
    half = len(texts) // 2
    assert differences(program, tmp_path, texts[:half]) == []
    assert differences(program, tmp_path, texts[half:], do_lower_case=False) == []


def test_characters_between_letters(program, model):
    """Whether each is dropped, split off or a part of the word. Chinese and Korean: a few."""
    characters = [*range(0x3500), *range(0x9FF0, 0xAC10), *range(0xD700, 0xE010), *range(0xF8F0, 0x11000)]
    assert differences(program, model, [f"a{chr(c)}b" for c in characters]) == []


def test_random_bytes_are_refused_where_python_refuses_them(program, model):
    data = list(random_bytes(3000, seed=1))
    assert differences(program, model, data) == []
    errors = run(program, model, data).count(b'{"error": "not valid UTF-8 at byte ')
    assert 500 < errors < 2500


def test_special_tokens_long_words_white_space_and_nothing(program, model):
    texts = [
        "",
        " ",
        "\u3000",
        "\x00",
        "[MASK]",
        "北京[SEP]上海",
        "a [UNK]b",
        "[CLS",
        "[ CLS ]",
        "[[PAD]]",
        "[mask]",
        "##ab",
    ]
    texts += [
        "x" * 99,
        "x" * 100,
        "x" * 101,
        "é" * 100,
        "é" * 101,
        "가" * 50,
        "가" * 51,
        "ﬁne ½ ²",
        "ΑΣ σ",
        "4℃",
        "\ufeff北京",
    ]
    assert differences(program, model, texts) == []
    assert differences(program, model, texts, do_lower_case=False) == []


def test_a_character_that_unicode_got_later_is_dropped(program, model):
    """Whatever ICU knows: U+1FAE0 is an emoji of Unicode 14, in which U+1734 ceased to be an accent."""
    expected = json.loads(run(program, model, ["ab"]))["ids"]
    for char in "\U0001fae0\u1734":
        found = json.loads(run(program, model, [f"a{char}b"]))
        assert found["ids"] == expected


def test_the_vocabulary_may_end_without_a_line_break_or_have_windows_ones(program, model):
    lines = VOCAB.read_text(encoding="utf-8").split("\n")
    for content in ("\r\n".join(lines), "\n".join(lines).rstrip("\n"), "\n".join([*lines[:-1], "的", "的"])):
        (model / "vocab.txt").write_bytes(content.encode())
        assert differences(program, model, ["我的北京 Beijing"]) == []


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("vocab.txt", None, "does not exist; it is a part of every model folder"),
        ("vocab.txt", "[PAD]\n的\n".encode(), "is no ERNIE vocabulary: it has no [CLS] [SEP] [MASK] [UNK]"),
        ("vocab.txt", b"[PAD]\n\xff\xfe\n", ", line 2: not valid UTF-8 at byte 0"),
        ("tokenizer_config.json", b"{", "is not JSON: "),
        ("tokenizer_config.json", b"[]", "is no JSON object"),
        ("tokenizer_config.json", b'{"do_lower_case": "yes"}', ": do_lower_case is 'yes', not true or false"),
        ("tokenizer_config.json", b'{"model_max_length": "long"}', ": model_max_length is 'long', not a number"),
    ],
)  # fmt: skip
def test_a_folder_that_is_none(file, content, message, program, model):
    (model / file).unlink(missing_ok=True)
    if content is not None:
        (model / file).write_bytes(content)
    done = subprocess.run([program, model], input=b'"text"\n', capture_output=True, text=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert str(model / file) in done.stderr.decode() and message in done.stderr.decode()
