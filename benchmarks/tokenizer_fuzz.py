"""Holds both tokenizers against PaddleNLP's on random texts: the same ids, exact offsets, and no crash.

python benchmarks/tokenizer_fuzz.py                       100,000 texts, lower-cased and not, with both tokenizers
python benchmarks/tokenizer_fuzz.py --texts 2000 --seed 7

Texts mix characters of all planes with letters, Chinese, marks, white space, and the characters whose lower-cased or
decomposed form has another length. Every character that can come out is in the vocabulary, so that none hides in [UNK].
Each tokenizer runs in a process of its own, since one that fails may take its process with it.
"""

import harness  # isort: skip  makes the project's packages importable

import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

from ernie_predictor.tokenizer import _SIMPLE, TOKENIZERS, ErnieTokenizer
from ernie_predictor.unicode_13 import is_assigned
from tqdm import tqdm

CHUNK = 500
ALL = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
# The reference knows the characters of the Python that runs it, the predictor those of Unicode 13.0.
ALL = [c for c in ALL if is_assigned(c) or unicodedata.category(c) == "Cn"]
ASSIGNED = [c for c in ALL if unicodedata.category(c) not in ("Cn", "Co")]
CHANGING = [
    char
    for char in ASSIGNED
    if len(char.lower().encode()) != len(char.encode())
    or (unicodedata.decomposition(char) and not "가" <= char <= "힣")
]
MARKS = [c for c in ASSIGNED if unicodedata.category(c)[0] == "M"]
SPACES = [c for c in ALL if c.isspace() or unicodedata.category(c)[0] == "Z"]
LETTERS = "abcdefgABCDEFGßẞİıŞΣσςЖñÑéÉ"
ASCII = [c for c in ALL if " " <= c <= "~"]
CHINESE = "北京大学在上海中国人民的一是不了"
OTHERS = "0123456789.,:;!?-_()[]{}'\"/\\@#$%^&*+=<>|~`，。！？、；：“”‘’（）《》【】…—·"
# Characters for which there is a shorter way.
SIMPLE = [c for c in ALL if _SIMPLE.fullmatch(c)]
ALPHABETS = (ALL, ASSIGNED, ASSIGNED, CHANGING, CHANGING, MARKS, SPACES, LETTERS, LETTERS, CHINESE, CHINESE, OTHERS)


def random_text(generator):
    if generator.random() < 0.01:
        return generator.choice(ASSIGNED) * generator.choice((99, 100, 101, 300))
    length = generator.choice((1, 2, 3, 5, 8, 13, 40))
    alphabets = (SIMPLE, ASCII, CHINESE) if generator.random() < 0.25 else ALPHABETS
    return "".join(generator.choice(generator.choice(alphabets)) for _ in range(length))


def random_texts(number, seed):
    generator = random.Random(seed)
    return [random_text(generator) for _ in range(number)]


def normal(text, lower):
    """What the reference makes of a piece of text: one character at a time, so that no neighbour changes it."""
    kept = [c for c in text if c in "\t\n\r" or not (unicodedata.category(c)[0] == "C" or c == "\ufffd")]
    if not lower:
        return "".join(kept).replace("ς", "σ")
    plain = unicodedata.normalize("NFD", "".join(c.lower() for c in kept))
    return "".join(c for c in plain if unicodedata.category(c) != "Mn").replace("ς", "σ")


def make_vocab(texts, folder):
    """A vocabulary of every character that texts can come to, at the beginning of a word and within."""
    chars = set()
    for text in texts:
        chars.update(text, text.lower(), unicodedata.normalize("NFD", text.lower()), unicodedata.normalize("NFD", text))
    chars = sorted(c for c in chars if not (c.isspace() or unicodedata.category(c)[0] in "ZC"))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "##ab", "北京", *chars, *(f"##{c}" for c in chars)]
    (Path(folder) / "vocab.txt").write_bytes("".join(f"{word}\n" for word in words).encode())


def wrong_offsets(text, pieces, offsets, lower):
    """What is wrong with the offsets of a text's pieces; None if nothing is."""
    covered, last = set(), (0, 0)
    for piece, (start, end) in zip(pieces, offsets):
        # One character can be several pieces: a Korean syllable is decomposed to its letters.
        if not (last[1] <= start < end <= len(text) or (start, end) == last):
            return f"{piece!r} at {start}:{end}, after one that ends at {last[1]}"
        last = (start, end)
        found, wanted = normal(text[start:end], lower), piece.removeprefix("##").replace("ς", "σ")
        if piece != "[UNK]" and not (found == wanted or (end - start == 1 and wanted in found)):
            return f"{piece!r} at {start}:{end}, where {text[start:end]!r} stands"
        if not (normal(text[start], lower) and normal(text[end - 1], lower)):
            return f"{piece!r} at {start}:{end} has a dropped character at its end"
        covered.update(range(start, end))
    for index, char in enumerate(text):
        if index not in covered and normal(char, lower).strip() and not char.isspace():
            return f"{char!r} at {index} is in no piece"
    return None


def check(name, items, folder):
    """Compares one tokenizer with the reference; prints a JSON line for each text, and one for each fault.

    Args:
        items: [(lower-cased?, text)], those with one case together.
    """
    import workarounds  # noqa: F401  before Paddle, which takes seconds: not for random_texts

    from paddlenlp.transformers import ErnieTokenizer as ReferenceTokenizer

    for lower, group in itertools.groupby(enumerate(items), key=lambda item: item[1][0]):
        tokenizer = ErnieTokenizer.from_pretrained(folder, backend=name, do_lower_case=lower)
        reference = ReferenceTokenizer(os.path.join(folder, "vocab.txt"), do_lower_case=lower)
        pieces_of = {index: piece for piece, index in tokenizer.vocab.items()}
        while chunk := [(index, text) for index, (_, text) in itertools.islice(group, CHUNK)]:
            print(json.dumps({"at": chunk[0][0]}), flush=True)
            for (_, text), in_batch in zip(chunk, tokenizer.encode([text for _, text in chunk])):
                expected = reference.convert_tokens_to_ids(reference.tokenize(text))
                (alone,) = tokenizer.encode([text])
                pieces = [pieces_of[i] for i in alone.ids]
                fault = None
                if not list(alone.ids) == list(in_batch.ids) == expected:
                    fault = "ids", f"{pieces}, expected {[pieces_of[i] for i in expected]}"
                elif list(alone.offsets) != list(in_batch.offsets):
                    fault = "offsets", "others in a batch"
                elif why := wrong_offsets(text, pieces, alone.offsets, lower):
                    fault = "offsets", why
                print(json.dumps({"lower": lower, "text": text, "fault": fault}))


def fuzz(texts, names=TOKENIZERS, show=3):
    """{(tokenizer, lower-cased?): {"ids": n, "offsets": n, "crashes": n}}; prints the first faults of each."""
    results = {(name, lower): {"ids": 0, "offsets": 0, "crashes": 0} for name in names for lower in (True, False)}
    with tempfile.TemporaryDirectory() as folder:
        make_vocab(texts, folder)
        file = Path(folder, "texts.json")
        for name in names:
            left = [(lower, text) for lower in (True, False) for text in texts]
            bar = tqdm(total=len(left), desc=name, disable=None)
            while left:
                file.write_text(json.dumps(left), encoding="utf-8")
                command = [sys.executable, __file__, "--child", name, str(file), folder]
                child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
                at = 0
                for row in map(json.loads, child.stdout):
                    at = row.get("at", at)
                    bar.update("text" in row)
                    if row.get("fault"):
                        (kind, why), counts = row["fault"], results[name, row["lower"]]
                        counts[kind] += 1
                        if counts[kind] <= show:
                            bar.write(f"  {name}: {row['text']!r}: {kind}: {why}")
                if child.wait() == 0:
                    break
                results[name, left[at][0]]["crashes"] += 1
                bar.write(f"  {name}: exit {child.returncode} at one of {left[at : at + CHUNK]!r:.300}")
                left = left[at + CHUNK :]
            bar.close()
    return results


def main():
    if sys.argv[1:2] == ["--child"]:
        name, file, folder = sys.argv[2:]
        check(name, json.loads(Path(file).read_text(encoding="utf-8")), folder)
        return
    parser = harness.parser(__doc__, "seed", texts=100_000)
    parser.add_argument("--tokenizers", nargs="+", choices=TOKENIZERS, default=list(TOKENIZERS), help="to compare")
    args = parser.parse_args()
    texts = random_texts(args.texts, args.seed)
    planes = sorted({ord(char) >> 16 for text in texts for char in text})
    results = fuzz(texts, args.tokenizers)
    print(f"\n{len(texts):,} texts, {len({*''.join(texts)}):,} different characters of planes {planes}\n")
    rows = [
        [name, "lower-cased" if lower else "as it is", *counts.values()] for (name, lower), counts in results.items()
    ]
    print(harness.markdown(["Tokenizer", "Case", "Other ids", "Other offsets", "Crashes"], rows))
    sys.exit(any(sum(counts.values()) for counts in results.values()))


if __name__ == "__main__":
    main()
