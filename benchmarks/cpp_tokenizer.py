"""Holds the C++ tokenizer against the Python one: the same ids and offsets for any text, no finding of the sanitizers,
and how fast both are.

python benchmarks/cpp_tokenizer.py --data_dir DIR --vocab_file FILE        every text of DIR's files, and random ones
python benchmarks/cpp_tokenizer.py --random 2000 --rounds 1                a quick look, at the sample data

Compares every text of the data sets, every character of Unicode between two letters, random texts as those of
tokenizer_fuzz.py, some with half a surrogate pair, and random bytes, which both refuse at the same byte where they are
not UTF-8. For that the C++ tokenizer is built with the address and undefined behaviour sanitizers. Then both are timed
in turns, in one thread, on TNEWS's dev set. Needs g++ and ICU (libicu-dev).
"""

import harness  # isort: skip  makes the project's packages importable

import importlib.util
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from ernie_predictor.data_files import read_dev_set
from ernie_predictor.tokenizer import TOKENIZERS, ErnieTokenizer
from tokenizer_fuzz import ALL, make_vocab, random_texts
from tqdm import tqdm

VOCAB = Path(harness.VOCAB)
CPP = harness.ROOT / "deploy" / "predictor" / "cpp"
SOURCES = ("tests/tokenizer_dump.cpp", "tokenizer.cpp", "unicode.cpp", "json.cpp")
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Werror")
CHUNK = 20_000
# Overlong forms, half a surrogate pair, beyond U+10FFFF, bytes that begin no character, and characters that are cut.
NOT_UTF8 = (
    *(b"\xc0\x80", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xf4\x90\x80\x80"),
    *(b"\xf8\x88\x80\x80\x80", b"\xff", b"\x80", b"\xe4\xb8", b"\xf0\x9f\x98"),
)


def build(folder, *options):
    """Compiles tokenizer_dump into a folder; returns its path."""
    program = Path(folder) / "tokenizer_dump"
    sources = [str(CPP / source) for source in SOURCES]
    subprocess.run(["g++", "-std=c++17", *WARNINGS, *options, *sources, "-licuuc", "-o", str(program)], check=True)
    return program


def run(program, model_folder, inputs, *flags):
    """What the program prints for texts (str) or bytes. Raises CalledProcessError, after a sanitizer's finding too."""
    lines = "".join(json.dumps(item if isinstance(item, str) else list(item)) + "\n" for item in inputs)
    return subprocess.run(
        [program, model_folder, *flags], input=lines.encode(), stdout=subprocess.PIPE, check=True
    ).stdout


def expected(tokenizer, inputs):
    """The lines that the program prints if it does as the Python tokenizer."""
    texts = [None] * len(inputs)
    lines = [None] * len(inputs)
    for index, item in enumerate(inputs):
        try:
            texts[index] = item if isinstance(item, str) else item.decode()
        except UnicodeDecodeError as e:
            lines[index] = json.dumps({"error": f"not valid UTF-8 at byte {e.start}"})
    encodings = iter(tokenizer.encode([text for text in texts if text is not None]))
    return [line or json.dumps(next(encodings)._asdict()) for line in lines]


def differences(program, model_folder, inputs, do_lower_case=True):
    """[(text or bytes, the program's answer, the Python tokenizer's)] of those that are not the same."""
    config = json.dumps({"do_lower_case": do_lower_case})
    (Path(model_folder) / "tokenizer_config.json").write_text(config, encoding="utf-8")
    tokenizer = ErnieTokenizer.from_pretrained(model_folder, backend="tokenizers")
    different = []
    for begin in tqdm(range(0, len(inputs), CHUNK), unit=f" x {CHUNK:,}", disable=None):
        chunk = inputs[begin : begin + CHUNK]
        found = run(program, model_folder, chunk).decode().splitlines()
        if len(found) != len(chunk):
            raise ValueError(f"{len(found)} answers to {len(chunk)} texts")
        rows = zip(chunk, found, expected(tokenizer, chunk))
        different += [(item, answer, wanted) for item, answer, wanted in rows if answer != wanted]
    return different


def strings(value):
    """Every string in a JSON value, and the strings of an array (CSL's keywords) joined."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
        if value and all(isinstance(item, str) for item in value):
            yield " ".join(value)


def texts_of(data_dir):
    """Every text of CLUE's files once; ids and labels, which are texts too, included."""
    texts = {}
    for path in sorted(Path(data_dir).glob("*/*")):
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".tsv":
            texts.update((line.split("\t")[0].replace("\x02", ""), None) for line in content.split("\n"))
        elif path.suffix == ".json":
            lines = [content] if path.parent.name == "cmrc2018" else filter(None, content.split("\n"))
            texts.update((text, None) for line in lines for text in strings(json.loads(line)))
    return list(texts)


def with_surrogates(texts, seed):
    """Half a surrogate pair put into each text. One alone, since JSON takes two halves for a character."""
    generator = random.Random(seed)
    result = []
    for text in texts:
        place = generator.randrange(len(text) + 1)
        result.append(text[:place] + chr(generator.randrange(0xD800, 0xE000)) + text[place:])
    return result


def random_bytes(number, seed):
    """UTF-8 of random texts, most of it cut, overwritten or mixed with other bytes; some bytes at random."""
    generator = random.Random(seed)
    for text in random_texts(number, seed):
        data = bytearray(text.encode())
        choice = generator.randrange(5)
        if choice == 0:
            data = generator.randbytes(generator.randrange(20))
        elif choice == 1:
            data = data[: generator.randrange(len(data) + 1)]
        elif choice == 2:
            data[generator.randrange(len(data))] = generator.randrange(256)
        elif choice == 3:
            place = generator.randrange(len(data) + 1)
            data[place:place] = generator.choice(NOT_UTF8)
        yield bytes(data)


def compare(args, folder):
    """{what: (number of inputs, differences)}; prints the first of each."""
    program = build(folder, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    vocab_file = Path(folder) / "vocab.txt"
    results = {}

    def check(name, inputs, lower=True):
        print(f"{name}: {len(inputs):,}", file=sys.stderr)
        wrong = differences(program, folder, inputs, lower)
        for item, answer, wanted in wrong[:3]:
            print(f"  {item!r:.200}: {answer:.200}, expected {wanted:.200}", file=sys.stderr)
        results[name] = (len(inputs), len(wrong))

    vocab_file.write_bytes(Path(args.vocab_file).read_bytes())
    check("texts of the data sets", texts_of(args.data_dir))
    characters = [f"a{chr(c)}b" for c in range(0x110000)]
    texts = random_texts(args.random, args.seed)
    data = list(random_bytes(args.random, args.seed + 1))
    make_vocab([*ALL, *texts], folder)
    for lower, case in ((True, "lower-cased"), (False, "as they are")):
        check(f"every character between two letters, {case}", characters, lower)
        check(f"random texts, {case}", texts, lower)
    check("random texts with half a surrogate pair", with_surrogates(texts[: args.random // 10], args.seed))
    check("random bytes", data)
    return results


def measure(args, folder):
    """(texts, {who: texts/s of each round}), one thread."""
    program = build(folder, "-O2")
    (Path(folder) / "vocab.txt").write_bytes(Path(args.vocab_file).read_bytes())
    texts, _ = read_dev_set("seq_cls", args.data_dir, "tnews")
    runs = {}
    for name in filter(importlib.util.find_spec, TOKENIZERS):
        tokenizer = ErnieTokenizer.from_pretrained(folder, backend=name, num_threads=1)
        runs[f"Python, {name}"] = partial(tokenizer.encode, texts, True)
        runs[f"Python, {name}, without offsets"] = partial(tokenizer.encode, texts, False)
    own = []  # seconds by the program's own count, without its start
    runs["C++"] = lambda: own.append(float(run(program, folder, texts, "--seconds")))
    seconds = harness.in_turns(runs, args.rounds) | {"C++": own[1:]}
    return len(texts), {name: [len(texts) / taken for taken in found] for name, found in seconds.items()}


def main():
    parser = harness.parser(__doc__, "data_dir", "vocab_file", "seed", "output", rounds=9)
    parser.add_argument("--random", metavar="N", type=int, default=100_000, help="random texts, and byte strings")
    args = parser.parse_args()
    if shutil.which("g++") is None:
        sys.exit("g++ is not installed")
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = compare(args, folder)
        with tempfile.TemporaryDirectory() as folder:
            number, speeds = measure(args, folder)
    except subprocess.CalledProcessError as e:
        sys.exit(f"{Path(e.cmd[0]).name} ended with status {e.returncode}: see above")
    rows = [[name, f"{compared:,}", different] for name, (compared, different) in results.items()]
    rates = [
        [name, f"{statistics.median(v):,.0f}", f"{min(v):,.0f} to {max(v):,.0f}"] for name, v in sorted(speeds.items())
    ]
    harness.write_results(
        args.output,
        {"machine": harness.machine(1), "compared": results, "texts": number, "texts/s": speeds},
        harness.markdown(["", "Compared", "Different"], rows),
        harness.machine(1),
        harness.markdown([f"TNEWS's dev set, {number:,} texts", "Texts/s, median", "Lowest and highest"], rates),
    )
    sys.exit(any(different for _, different in results.values()))


if __name__ == "__main__":
    main()
