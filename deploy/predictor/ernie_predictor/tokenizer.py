"""Text to input ids, the same ids whatever does the work.

A model sees what its tokenizer made of the text, so training and every deployment must cut a text alike. The reference
is PaddleNLP's `ErnieTokenizer`. The fast tokenizers, as they come, give other ids on about one real text in a hundred:
they do not split off symbols (`4℃` becomes `[UNK]` in place of `4`, `℃`), and know another version of Unicode; and
FastTokenizer ends the process where a character's lower case is longer than the character.

So they get two kinds of texts: as they are, those of characters that they are known to treat as the reference does,
which is nearly all; and the rest with everything but wordpieces done before, character by character, as the reference
does it. `benchmarks/tokenizer_fuzz.py` compares.

Needs `tokenizers`, no Paddle.
"""

import concurrent.futures
import functools
import importlib.util
import itertools
import json
import os
import re
import threading
import unicodedata
import zlib
from typing import NamedTuple

import numpy as np

from .errors import TokenizerError
from .formats import unique_fields
from .machine import usable_cores
from .unicode_13 import is_accent, is_assigned

TOKENIZERS = ("tokenizers", "fast_tokenizer")
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")
# PaddleNLP splits these off as well, besides Unicode's categories P and S (paddlenlp 2.8.1,
# transformers/tokenizer_utils.py, _is_symbol).
EXTRA_SYMBOLS = "\u00ad\u00b2\u00ba\u3007\u00b5\u00d8\u014b\u01b1"
# What both fast tokenizers treat as the reference does, whatever is beside it.
_SIMPLE = re.compile(
    "[\t\n\r -\x7e·“”‘’—…、-〃々〆〈-】〔-〛，。！？：；（）［］｛｝％＂＇－．／０-９＠Ａ-Ｚａ-ｚ"
    "\u3400-\u4dbf\u4e00-\u9fa5\u3000①-⑩]*"
)
_IDEOGRAPHS = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)
# A longer text is tokenized in pieces: `tokenizers` takes 700 bytes for each character of what it has at once.
PIECE = 8192
_WORD_BEGINS = re.compile("[ \u4e00-\u9fa5]")
_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")


class Encoding(NamedTuple):
    """One tokenized text without special tokens."""

    ids: list  # of int, one per wordpiece
    offsets: list  # of (start, end) in characters of the text, end exclusive, one per wordpiece; or None


class _Plain(dict):
    """{character: what the reference makes of it}, filled as characters turn up.

    Lower-cased, decomposed and without accents, if asked for; what stands alone (ideographs, punctuation, symbols)
    between spaces; nothing for control, unassigned and private-use characters and U+FFFD, which are dropped. It is the
    same on every Python.
    """

    def __init__(self, do_lower_case):
        super().__init__()
        self.do_lower_case = do_lower_case

    def __missing__(self, char):
        text = (char.lower() if self.do_lower_case else char) if is_assigned(char) else ""
        text = "".join(c for c in text if c in "\t\n\r" or not (unicodedata.category(c)[0] == "C" or c == "\ufffd"))
        alone = _IDEOGRAPHS.fullmatch(text)
        if self.do_lower_case:
            text = "".join(c for c in unicodedata.normalize("NFD", text) if not is_accent(c))
        self[char] = "".join(" " if c.isspace() else f" {c} " if alone or _stands_alone(c) else c for c in text)
        return self[char]


def _stands_alone(char):
    if char.isascii():
        return not char.isalnum()
    return unicodedata.category(char)[0] in "PS" or char in EXTRA_SYMBOLS


class ErnieTokenizer:
    """ERNIE's wordpiece tokenizer over `tokenizers` or FastTokenizer, with PaddleNLP's ids.

    Args:
        vocab: {wordpiece: id}, as `load_vocab` reads it.
        do_lower_case: lower-case and strip accents, as all ERNIE 3.0 models do.
        backend: what does the work for nearly all texts: "tokenizers" (Hugging Face), "fast_tokenizer" (PaddleNLP's
            FastTokenizer), or "auto": the second where it is installed, else the first.
        model_max_length: maximum number of tokens of `build_inputs`, where it is not told otherwise.
        num_threads: threads for a batch; None: the cores that this process may use.

    Raises:
        TokenizerError: the backend asked for is not installed.
    """

    def __init__(self, vocab, do_lower_case=True, model_max_length=512, backend="auto", num_threads=None):
        self.vocab = vocab
        self.model_max_length = model_max_length
        self.cls_id, self.sep_id, self.pad_id = (self.vocab[t] for t in ("[CLS]", "[SEP]", "[PAD]"))
        self.backend = _choose_backend(backend)
        num_threads = num_threads or usable_cores()
        self._threads = _Threads(num_threads)
        self._plain = _Plain(do_lower_case)
        self._wordpieces = _wordpieces(vocab)
        if self.backend == "fast_tokenizer":
            self._encode_simple = _fast_tokenizer(vocab, do_lower_case, num_threads)
        else:
            self._bert = _bert_tokenizer(vocab, do_lower_case)

    @classmethod
    def from_pretrained(cls, folder, **kwargs):
        """Reads `vocab.txt` and `tokenizer_config.json` of a model folder.

        Raises:
            TokenizerError: a file is missing or broken; the message names it.
        """
        config_file = os.path.join(folder, "tokenizer_config.json")
        config = {}
        if os.path.exists(config_file):
            try:
                with open(config_file, encoding="utf-8") as f:
                    config = json.load(f, object_pairs_hook=unique_fields)
            except ValueError as e:
                raise TokenizerError(f"{config_file} is not JSON: {e}") from e
        kwargs.setdefault("do_lower_case", config.get("do_lower_case", True))
        # Hugging Face's libraries write 1e30 for "no limit".
        kwargs.setdefault("model_max_length", int(min(config.get("model_max_length") or 512, 1e6)))
        return cls(load_vocab(os.path.join(folder, "vocab.txt")), **kwargs)

    def encode(self, texts, offsets=True):
        """Tokenizes texts, without special tokens and without truncation.

        Args:
            texts: a list of str.
            offsets: whether they are needed; it is faster without.

        Returns:
            A list of `Encoding`, one per text.
        """
        is_simple = [_SIMPLE.fullmatch(text) is not None for text in texts]
        if all(is_simple):
            return self._encode_simple(texts, offsets)
        encodings = [None] * len(texts)
        for encode, wanted in ((self._encode_simple, True), (self._encode_other, False)):
            rows = [row for row, value in enumerate(is_simple) if value is wanted]
            for row, encoding in zip(rows, encode([texts[row] for row in rows], offsets)):
                encodings[row] = encoding
        return encodings

    def _encode_simple(self, texts, offsets):
        """Texts of `_SIMPLE` characters."""
        return self._threads.map(lambda part: _encode(self._bert, part, offsets), texts)

    def _encode_other(self, texts, offsets):
        """Any texts."""

        def encode(part):
            encodings = _encode(self._wordpieces, [self._to_plain(text) for text in part], offsets)
            if not offsets:
                return encodings
            origins = map(self._origin, part)
            return [
                Encoding(e.ids, [(origin[a], origin[b - 1] + 1) for a, b in e.offsets])
                for e, origin in zip(encodings, origins)
            ]

        return self._threads.map(encode, texts)

    def _to_plain(self, text):
        """The text as the reference has it before it looks for wordpieces, with spaces between all words."""
        if "[" in text:
            parts = _SPECIAL.split(text)
            return "".join(
                f" {part} " if n % 2 else "".join(map(self._plain.__getitem__, part)) for n, part in enumerate(parts)
            )
        return "".join(map(self._plain.__getitem__, text))

    def _origin(self, text):
        """For each character of `_to_plain(text)` the place of the character that it comes from."""
        origin, place = [], 0
        for n, part in enumerate(_SPECIAL.split(text)):
            if n % 2:
                origin += (place, *range(place, place + len(part)), place)
            else:
                for index, char in enumerate(part, start=place):
                    origin += (index,) * len(self._plain[char])
            place += len(part)
        return origin

    def build_inputs(self, ids, pair_ids=None, max_seq_length=None):
        """Puts special tokens around one text or a pair and cuts it to size.

        `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`. Too long, a pair loses one token at a time from the end of
        its longer side, from B where both are as long: "longest_first" as in PaddleNLP.

        Returns:
            (input_ids, token_type_ids): lists of int, no longer than `max_seq_length`.
        """
        limit = max_seq_length or self.model_max_length
        if pair_ids is None:
            ids = ids[: max(limit - 2, 0)]
            return [self.cls_id, *ids, self.sep_id], [0] * (len(ids) + 2)
        keep, keep_pair = longest_first(len(ids), len(pair_ids), max(limit - 3, 0))
        ids, pair_ids = ids[:keep], pair_ids[:keep_pair]
        input_ids = [self.cls_id, *ids, self.sep_id, *pair_ids, self.sep_id]
        return input_ids, [0] * (keep + 2) + [1] * (keep_pair + 1)

    def build_windows(self, question, context, max_seq_length, doc_stride, max_query_length):
        """Cuts a long context into overlapping windows, each after the question.

        Args:
            question, context: `Encoding`.
            max_seq_length: length of a window, question and special tokens included.
            doc_stride: tokens between the beginnings of two windows.
            max_query_length: the question is truncated to that many tokens, or to fewer (`longest_query`).

        Returns:
            A list of (input_ids, token_type_ids, first, context_begin): the window holds context tokens
            `first`, `first + 1`, ... from position `context_begin` on, up to the closing [SEP].
        """
        query = question.ids[: self.longest_query(max_seq_length, max_query_length)]
        room = max_seq_length - len(query) - 3
        step = min(doc_stride, room)  # a longer stride would leave out tokens between two windows
        windows, first = [], 0
        while True:
            piece = context.ids[first : first + room]
            input_ids = [self.cls_id, *query, self.sep_id, *piece, self.sep_id]
            token_type_ids = [0] * (len(query) + 2) + [1] * (len(piece) + 1)
            windows.append((input_ids, token_type_ids, first, len(query) + 2))
            if first + room >= len(context.ids):
                return windows
            first += step

    @staticmethod
    def longest_query(max_seq_length, max_query_length):
        """How many tokens of a question `build_windows` keeps: a quarter of the window, at least, is the context's.

        >>> ErnieTokenizer.longest_query(64, 64), ErnieTokenizer.longest_query(384, 64)
        (45, 64)
        """
        return min(max_query_length, max_seq_length - 3 - max(max_seq_length // 4, 1))

    def pad(self, features, length=None):
        """Features of unequal length to arrays.

        Args:
            features: (input_ids, token_type_ids) pairs.
            length: columns of the arrays; None: the longest feature's length.

        Returns:
            {"input_ids", "token_type_ids"}: int64 arrays [batch, length].
        """
        length = length or max(len(f[0]) for f in features)
        batch = np.full([len(features), length], self.pad_id, dtype=np.int64)
        types = np.zeros_like(batch)
        for row, (input_ids, token_type_ids) in enumerate(features):
            batch[row, : len(input_ids)] = input_ids
            types[row, : len(input_ids)] = token_type_ids
        return {"input_ids": batch, "token_type_ids": types}


def longest_first(length, pair_length, room):
    """How many tokens each side of a pair keeps so that both together fit into `room`.

    >>> longest_first(10, 4, 9)
    (5, 4)
    """
    if length + pair_length <= room:
        return length, pair_length
    half = room // 2
    if pair_length <= half:
        return room - pair_length, pair_length
    if length <= room - half:
        return length, room - length
    return room - half, half


def load_vocab(vocab_file):
    """{wordpiece: id} of a `vocab.txt`."""
    try:
        with open(vocab_file, encoding="utf-8", newline="\n") as f:
            vocab = {line.rstrip("\r\n"): index for index, line in enumerate(f)}
    except FileNotFoundError:
        raise TokenizerError(f"{vocab_file} does not exist; it is a part of every model folder") from None
    except UnicodeDecodeError as e:
        raise TokenizerError(f"{vocab_file} is not UTF-8 text: {e}") from e
    missing = [t for t in SPECIAL if t not in vocab]
    if missing:
        raise TokenizerError(f"{vocab_file} is no ERNIE vocabulary: it has no {' '.join(missing)}")
    return vocab


def vocab_crc32(vocab):
    """A checksum of a vocabulary's words in the order of their ids, as config.json has it: a model makes no sense of
    another vocabulary of the same size."""
    words = "\n".join(sorted(vocab, key=vocab.get)) + "\n"
    return f"{zlib.crc32(words.encode()):08x}"


def _choose_backend(backend):
    if backend not in ("auto", *TOKENIZERS):
        raise ValueError(f"backend {backend!r}: choose auto, {' or '.join(TOKENIZERS)}")
    installed = backend != "tokenizers" and importlib.util.find_spec("fast_tokenizer") is not None
    if backend == "fast_tokenizer" and not installed:
        raise TokenizerError(
            "fast_tokenizer is not installed (fast-tokenizer-python, whose wheels end with Python 3.10); tokenizers "
            "gives the same ids"
        )
    return "fast_tokenizer" if installed else "tokenizers"


def _wordpieces(vocab):
    """A tokenizer of `tokenizers` for texts whose words are separated by white space."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    # The library's own threads are one pool for all of a process, whose size can't be changed, and a forked child that
    # uses it waits forever. `_Threads` are as fast. Whoever sets the variable to true keeps both.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # 100 characters: PaddleNLP's WordpieceTokenizer takes a longer word for [UNK].
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _bert_tokenizer(vocab, do_lower_case):
    """A tokenizer of `tokenizers` that does the whole work, as BERT's does it."""
    from tokenizers import normalizers, pre_tokenizers

    tokenizer = _wordpieces(vocab)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=do_lower_case)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _encode(tokenizer, texts, offsets):
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    run = functools.partial(encode, add_special_tokens=False)
    if max(map(len, texts), default=0) <= PIECE:
        return [Encoding(e.ids, e.offsets if offsets else None) for e in run(texts)]
    encodings = []
    for text in texts:
        ids, places = [], []
        for begin, piece in _pieces(text):
            (found,) = run([piece])
            ids += found.ids
            places += [(begin + start, begin + end) for start, end in found.offsets] if offsets else []
        encodings.append(Encoding(ids, places if offsets else None))
    return encodings


def _pieces(text):
    """(where it begins, piece) of a text, cut where a word ends."""
    begin = 0
    while end := _WORD_BEGINS.search(text, begin + PIECE):
        yield begin, text[begin : end.start()]
        begin = end.start()
    yield begin, text[begin:]


class _Threads:
    """A pool of threads, made when it is first needed; a forked child, which has none of them, makes its own."""

    CHARACTERS = 4096  # fewer take less than a millisecond: not worth the other threads

    def __init__(self, number):
        self.number = number
        self._made = None  # (process, pool)
        self._lock = (None, None)

    def map(self, function, texts):
        """A function of a part of the texts that returns a list, for all texts."""
        if self.number == 1 or sum(map(len, texts)) < self.CHARACTERS:
            return function(texts) if texts else []
        return list(itertools.chain.from_iterable(self._pool().map(function, self._split(texts))))

    def _split(self, texts):
        """Parts of about a quarter of a thread's share, for texts differ in length."""
        share = max(sum(map(len, texts)) / (4 * self.number), self.CHARACTERS / 4)
        parts, size = [[]], 0
        for text in texts:
            if size >= share:
                parts.append([])
                size = 0
            parts[-1].append(text)
            size += len(text)
        return parts

    def _pool(self):
        process = os.getpid()
        made = self._made
        if made is None or made[0] != process:
            if self._lock[0] != process:  # a lock of before the fork may be held by a thread that is not here
                self._lock = (process, threading.Lock())
            with self._lock[1]:
                if self._made is None or self._made[0] != process:
                    self._made = (process, concurrent.futures.ThreadPoolExecutor(self.number, "ernie_tokenizer"))
                made = self._made
        return made[1]


def _fast_tokenizer(vocab, do_lower_case, num_threads):
    import fast_tokenizer
    from fast_tokenizer import ErnieFastTokenizer

    fast_tokenizer.set_thread_num(num_threads)
    tokenizer = ErnieFastTokenizer(vocab, lowercase=do_lower_case, max_sequence_len=10**9)
    tokenizer.disable_padding()
    tokenizer.disable_truncation()
    return functools.partial(_encode_fast, tokenizer)


def _encode_fast(tokenizer, texts, offsets):
    batch = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [Encoding(e.ids, e.offsets if offsets else None) for e in batch]
