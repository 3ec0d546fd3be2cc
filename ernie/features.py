"""Features: examples to input ids and labels, and features to batches."""

import bisect
import re

import numpy as np
import paddle
from paddlenlp.utils.log import logger
from tqdm import tqdm

IGNORED = -100  # the label that paddle's cross entropy leaves out


def encode(tokenizer, texts, description):
    """Tokenizes many texts with a progress bar; a list of `Encoding`."""
    encodings = []
    with tqdm(total=len(texts), desc=description, disable=len(texts) < 2000) as bar:
        for begin in range(0, len(texts), 1024):
            chunk = texts[begin : begin + 1024]
            encodings += tokenizer.encode(chunk)
            bar.update(len(chunk))
    return encodings


def seq_cls_features(examples, tokenizer, data_args, label2id=None):
    """Classification features: "input_ids", "token_type_ids" (lists of int), "labels" (int) where there are."""
    encodings = encode(tokenizer, [e["text"] for e in examples], "Tokenizing")
    pairs = [e["text_pair"] for e in examples]
    pair_encodings = iter(encode(tokenizer, [p for p in pairs if p is not None], "Tokenizing pairs"))
    features = []
    for example, encoding, pair in zip(examples, encodings, pairs):
        pair_ids = None if pair is None else next(pair_encodings).ids
        input_ids, token_type_ids = tokenizer.build_inputs(encoding.ids, pair_ids, data_args.max_seq_length)
        feature = {"input_ids": input_ids, "token_type_ids": token_type_ids}
        if label2id is not None:
            feature["labels"] = label2id[example["label"]]
        features.append(feature)
    return features


def join_tokens(tokens):
    """The text that tokens stand for, and where in it each begins.

    Words of an alphabet are set apart by a space, as people write them; single characters are not, since
    MSRA_NER writes a word of an alphabet letter by letter.

    >>> join_tokens(["在", "New", "York", "3", "0", "天"])
    ('在New York30天', [0, 1, 5, 9, 10, 11])
    """
    text, starts = "", []
    for previous, token in zip(["", *tokens], tokens):
        if len(previous) > 1 and len(token) > 1 and _wordlike(previous[-1]) and _wordlike(token[0]):
            text += " "
        starts.append(len(text))
        text += token
    return text, starts


def _wordlike(char):
    return char.isascii() and char.isalnum()


def token_cls_features(examples, tokenizer, data_args, label2id=None):
    """NER features: "input_ids", "token_type_ids", "labels" (lists of int), and for reading answers "text",
    "offsets" ([(start, end)] of the kept pieces).

    A token's label stands on its first piece. Everything else ([CLS], [SEP], pieces that begin no token) is
    labelled `IGNORED`, hence out of the loss and of the score.
    """
    joined = [join_tokens(e["tokens"]) for e in examples]
    encodings = encode(tokenizer, [text for text, _ in joined], "Tokenizing")
    features, cut = [], 0
    for example, (text, starts), encoding in zip(examples, joined, encodings):
        input_ids, token_type_ids = tokenizer.build_inputs(encoding.ids, None, data_args.max_seq_length)
        offsets = encoding.offsets[: len(input_ids) - 2]
        cut += len(offsets) < len(encoding.offsets)
        feature = {"input_ids": input_ids, "token_type_ids": token_type_ids, "text": text, "offsets": offsets}
        if label2id is not None:
            labels, labelled = [IGNORED], -1
            for start, _ in offsets:
                token = bisect.bisect_right(starts, start) - 1
                labels.append(label2id[example["tags"][token]] if token > labelled else IGNORED)
                labelled = max(token, labelled)
            feature["labels"] = [*labels, IGNORED]
        features.append(feature)
    if cut:
        logger.warning(
            f"{cut:,} of {len(examples):,} sentences were cut at --max_seq_length {data_args.max_seq_length}"
        )
    return features


def locate_answer(context, answer):
    """(start, end) of an answer in characters; None where its text is nowhere in the context.

    CMRC2018 has answers whose `answer_start` is off: the nearest occurrence is taken.
    """
    text, start = answer["text"], answer["answer_start"]
    if start < 0 or context[start : start + len(text)] != text:
        places = [m.start() for m in re.finditer(re.escape(text), context)]
        if not places:
            return None
        start = min(places, key=lambda place: abs(place - start))
    return start, start + len(text)


def qa_features(examples, tokenizer, data_args, labelled=False):
    """Reading comprehension features, one a window of a context: "input_ids", "token_type_ids", and for reading
    answers "example" (index), "first" (the window's first context piece), "begin" (its position in the input);
    with `labelled` also "start_positions", "end_positions" (0, [CLS], where the window lacks the answer).

    Returns:
        (features, offsets of every example's context pieces).
    """
    questions = encode(tokenizer, [e["question"] for e in examples], "Tokenizing questions")
    # The questions of one context follow each other: each context is tokenized once.
    contexts = list(dict.fromkeys(e["context"] for e in examples))
    encoded = dict(zip(contexts, encode(tokenizer, contexts, "Tokenizing contexts")))
    features, lost = [], 0
    for index, (example, question) in enumerate(zip(examples, questions)):
        context = encoded[example["context"]]
        pieces = None
        if labelled:
            spans = (locate_answer(example["context"], answer) for answer in example["answers"])
            span = next((s for s in spans if s is not None), None)
            if span is not None:
                pieces = _pieces_of(span, context.offsets)
            lost += pieces is None
        for input_ids, token_type_ids, first, begin in tokenizer.build_windows(
            question, context, data_args.max_seq_length, data_args.doc_stride, data_args.max_query_length
        ):
            feature = {"input_ids": input_ids, "token_type_ids": token_type_ids}
            feature.update(example=index, first=first, begin=begin)
            if labelled:
                inside = pieces is not None and first <= pieces[0] and pieces[1] < first + len(input_ids) - begin - 1
                feature["start_positions"] = pieces[0] - first + begin if inside else 0
                feature["end_positions"] = pieces[1] - first + begin if inside else 0
            features.append(feature)
    if lost:
        logger.warning(f"{lost:,} of {len(examples):,} questions have no answer that stands in the context")
    return features, [encoded[e["context"]].offsets for e in examples]


def _pieces_of(span, offsets):
    """(first, last) piece of a span of characters, or None where no piece lies there (white space)."""
    first = bisect.bisect_right([end for _, end in offsets], span[0])
    last = bisect.bisect_left([start for start, _ in offsets], span[1]) - 1
    return (first, last) if first <= last else None


class Collator:
    """Features to a batch: pads to the longest, or to the first of `dynamic_max_length` that holds it.

    The longest batch is [batch, max_seq_length], int64.
    """

    def __init__(self, tokenizer, dynamic_max_length=None):
        self.tokenizer = tokenizer
        self.lengths = sorted(dynamic_max_length or [])

    def __call__(self, features):
        longest = max(len(f["input_ids"]) for f in features)
        length = next((n for n in self.lengths if n >= longest), longest)
        batch = self.tokenizer.pad([(f["input_ids"], f["token_type_ids"]) for f in features], length)
        for key in ("labels", "start_positions", "end_positions"):
            if key not in features[0]:
                continue
            values = [f[key] for f in features]
            if isinstance(values[0], list):
                values = [v + [IGNORED] * (length - len(v)) for v in values]
            batch[key] = np.array(values, dtype=np.int64)
        return {key: paddle.to_tensor(value) for key, value in batch.items()}


def longest_first(features):
    """(features from the longest to the shortest, for batches with little padding; what restores the order)."""
    order = np.argsort([-len(f["input_ids"]) for f in features], kind="stable")
    return [features[i] for i in order], np.argsort(order)
