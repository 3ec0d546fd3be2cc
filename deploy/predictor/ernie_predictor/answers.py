"""Logits to answers: what each task's model says, in pure NumPy.

Used by the training scripts, the predictor and the servers alike, so that a text gets one answer whichever
way it is asked. Positions are characters of the original text, end exclusive.
"""

import re
import unicodedata

import numpy as np

from .errors import PredictorError


def softmax(logits):
    """Softmax over the last axis; float64 inside, so that large logits neither overflow nor round."""
    exp = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def read_class(logits, id2label):
    """Classification: the most likely label of a text.

    Args:
        logits: float [classes].
        id2label: {class index: name}.

    Returns:
        {"label": str, "confidence": float}.
    """
    probs = softmax(logits)
    best = int(probs.argmax())
    return {"label": id2label[best], "confidence": float(probs[best])}


# What a tag's prefix says of its token, in the schemes that are in use: BIO (IOB1, IOB2), BIOES (IOBES), BMES, BILOU,
# BMEWO, IOE. Tags without a prefix are read as if each had I-.
BEGIN, INSIDE, END, SINGLE = "B", "IM", "EL", "SUW"
_TAG = re.compile(f"([{BEGIN}{INSIDE}{END}{SINGLE}])-(.+)", re.DOTALL)
# Other ways to write a prefix, which would pass for tags without one; also a prefix alone, as for cutting words.
_OTHER_TAG = re.compile("[BIMELSUW]([-_:/].*)?|.+[-_:/][BIMELSUW]")


def split_tag(tag):
    """`B-PER` to ("B", "PER"); `PER`, a tag without a prefix, to ("I", "PER"); `O` to ("O", "")."""
    if tag == "O":
        return "O", ""
    match = _TAG.fullmatch(tag)
    return match.groups() if match else ("I", tag)


def check_tags(tags):
    """Raises PredictorError where tags are of no scheme that `entity_spans` reads.

    Args:
        tags: the different tags of a data set or a model; if a dict, its values say where each occurs.
    """
    names = sorted(set(tags) - {"O"})
    prefixed = [tag for tag in names if _TAG.fullmatch(tag)]
    others = [tag for tag in names if not _TAG.fullmatch(tag)]
    lower_case = all(_TAG.fullmatch(tag.capitalize()) for tag in others)
    wrong = next((tag for tag in others if prefixed or lower_case or _OTHER_TAG.fullmatch(tag)), None)
    if wrong is None and others and "O" not in tags:
        wrong = others[0]  # "no entity" has another name here, and would be read as entities
    if wrong is not None:
        place = f"{tags[wrong]}: " if isinstance(tags, dict) else ""
        beside = f" beside {prefixed[0]!r}" if prefixed else "" if "O" in tags else ", and none is 'O'"
        raise PredictorError(
            f"{place}unknown tag scheme: the tag {wrong!r}{beside}; expected O and B-<kind>, I-<kind> (BIO), with E- "
            "and S- (BIOES), M-, E- and S- (BMES), L- and U- (BILOU), or <kind> alone"
        )


def entity_spans(tags):
    """The entities that a sentence's tags make up, by the rules of conlleval and of seqeval's default mode.

    B- and S- always begin an entity, and E- and S- end it; otherwise, an entity continues as long as its kind is the
    same. So a tag that does not fit the one before it begins an entity, too.

    Args:
        tags: list of str, of one scheme (`check_tags`).

    Returns:
        [(kind, first, end)]: places in `tags`, end exclusive.

    >>> entity_spans(["B-PER", "I-PER", "O", "I-LOC", "S-LOC", "S-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5), ('LOC', 5, 6)]
    """
    spans, begin, current, ended = [], None, "", True
    for index, tag in enumerate([*tags, "O"]):
        prefix, kind = split_tag(tag)
        if begin is not None and (ended or kind != current or prefix in "O" + BEGIN + SINGLE):
            spans.append((current, begin, index))
            begin = None
        if begin is None and prefix != "O":
            begin, current = index, kind
        ended = prefix in END + SINGLE
    return spans


def tags_of_spans(spans, length, labels):
    """The tags of a sentence that `entity_spans` reads as these entities.

    Args:
        spans: [(kind, first, end)], which do not overlap.
        length: number of tags.
        labels: the tags that there are; their scheme is used.

    Returns:
        A list of str; None where no tag of the kind is among the labels.
    """
    labels = set(labels)

    def tag(kind, *prefixes):
        # The prefix that the scheme has, or, if it has none for this place, the best substitute.
        names = [f"{prefix}-{kind}" for prefix in "".join((*prefixes, BEGIN, INSIDE, END, SINGLE))]
        return next((name for name in (*names, kind) if name in labels), None)

    tags = ["O"] * length
    for kind, first, end in spans:
        tags[first:end] = [tag(kind, INSIDE)] * (end - first)
        tags[end - 1] = tag(kind, END, INSIDE)
        tags[first] = tag(kind, BEGIN, INSIDE) if end - first > 1 else tag(kind, SINGLE, BEGIN, INSIDE)
    return tags


def find_words(text, offsets):
    """The words of a text, the pieces of each of which share one tag: runs of letters, runs of digits, other characters
    one by one.

    A run of letters and digits is two words where a piece ends between them: "10kg" is "10" and "kg". Characters that
    the tokenizer drops, such as accents that are characters of their own, belong to the word that they follow.

    Args:
        text: the original text.
        offsets: [(start, end)] of each piece; they cover all but white space and what the tokenizer drops.

    Returns:
        [(start, stop, end, piece)]: characters of the text, and the word's first piece; what is dropped after the last
        piece lies between `stop` and `end`.
    """
    words, last = [], 0
    for piece, (start, end) in enumerate(offsets):
        follows = bool(words)
        if words and start > last:
            dropped = _dropped_until(text, last, start)
            words[-1][2] = dropped
            follows = dropped == start
        if follows and _kind(text[last - 1]) == _kind(text[start]) != "other":
            words[-1][1:3] = [end, end]
        else:
            words.append([start, end, end, piece])
        last = end
    if words:
        words[-1][2] = _dropped_until(text, last, len(text))
    return words


def _dropped_until(text, begin, end):
    """The end of the characters from `begin` on that are no white space."""
    while begin < end and not (text[begin] in "\t\n\r" or unicodedata.category(text[begin])[0] == "Z"):
        begin += 1
    return begin


def _kind(char):
    """What a character makes up words with: "letter" (accents, too), "digit", or "other", which stands alone."""
    if _is_ideograph(char):
        return "other"
    if char.isdigit():
        return "digit"
    return "letter" if char.isalnum() or unicodedata.category(char)[0] == "M" else "other"


def _is_ideograph(char):
    return "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or char >= "\U00020000"


def read_entities(logits, id2label, text, offsets):
    """Named entities of one text.

    A word (`find_words`) takes the tag of its first piece: "Huawei" is one entity or none, never half of one.

    Args:
        logits: float [pieces, tags], without special tokens.
        id2label: {tag index: name}.
        text: the original text.
        offsets: [(start, end)] of each piece.

    Returns:
        [{"entity": str, "label": str, "start": int, "end": int, "confidence": float}], in order of appearance;
        confidence is the mean probability of its words' tags.
    """
    probs = softmax(logits)
    words = find_words(text, offsets)
    best = probs.argmax(axis=-1)
    tags = [id2label[int(best[piece])] for *_, piece in words]
    entities = []
    for label, first, last in entity_spans(tags):
        start, end = words[first][0], words[last - 1][2]
        confidence = np.mean([probs[piece, best[piece]] for *_, piece in words[first:last]])
        entities.append(
            {"entity": text[start:end], "label": label, "start": start, "end": end, "confidence": float(confidence)}
        )
    return entities


def marked_up(text, entities):
    """A text with its entities in brackets, for people: "[李明 PER]昨天去了[北京 LOC]。"

    Args:
        entities: of `read_entities`.
    """
    parts, end = [], 0
    for entity in entities:
        parts += [text[end : entity["start"]], f"[{text[entity['start'] : entity['end']]} {entity['label']}]"]
        end = entity["end"]
    return "".join(parts) + text[end:]


CANDIDATES = 20  # answers that a confidence is a share of, however few of them are returned
MOST_SPANS = 20_000  # that are kept while windows are read


def read_answers(windows, context, offsets, n_best_size=20, max_answer_length=50):
    """Reading comprehension: the likeliest spans of one context for one question.

    Every window proposes its best starts and ends; a pair's score is the sum of its two logits, and the softmax over
    the best pairs of all windows is their confidence (the way of BERT's SQuAD baseline, Devlin et al. 2018). These are
    `CANDIDATES`, or `n_best_size` if that is more, so that the confidence does not depend on how many are returned.

    Args:
        windows: [(start_logits, end_logits, first)]: logits float [pieces] of the window's context pieces alone,
            the first of them being piece `first` of the context.
        context: the original text.
        offsets: [(start, end)] of each context piece.
        max_answer_length: longest answer, in pieces.

    Returns:
        At most `n_best_size` of [{"answer": str, "start": int, "end": int, "confidence": float}], best first, no text
        twice; one empty answer where the context has no pieces.
    """
    count = max(n_best_size, CANDIDATES)
    longest = max((len(start) for start, _, _ in windows), default=0)
    # If all of the best ends lie before the best starts: look at every pair.
    found = _spans(windows, context, offsets, count, max_answer_length) or _spans(
        windows, context, offsets, longest, max_answer_length
    )
    if not found:
        return [{"answer": "", "start": 0, "end": 0, "confidence": 1.0}]
    best = _best(found, context, count)
    confidences = softmax(np.array([*best.values()])).tolist()
    return [
        {"answer": context[start:end], "start": start, "end": end, "confidence": confidence}
        for (start, end), confidence in zip(best, confidences)
    ][:n_best_size]


def _best(found, context, count):
    """The first `count` of {(start, end): score}, best first, no text twice.

    Equal scores: the earlier, shorter span, so that the order never depends on the windows.
    """
    best, texts = {}, set()
    for (start, end), score in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        if context[start:end] not in texts:
            texts.add(context[start:end])
            best[start, end] = score
        if len(best) == count:
            break
    return best


def _spans(windows, context, offsets, count, max_answer_length):
    """{(start, end) in characters: score} of the pairs of each window's `count` best starts and ends."""
    # What the tokenizer drops after a piece, such as an accent, belongs to it.
    limits = [start for start, _ in offsets[1:]] + [len(context)]
    stops = [end if end >= limit else _dropped_until(context, end, limit) for (_, end), limit in zip(offsets, limits)]
    found = {}
    for start_logits, end_logits, first in windows:
        starts, ends = _top(start_logits, count), _top(end_logits, count)
        lengths = ends[None, :] - starts[:, None] + 1
        rows, columns = np.nonzero((lengths > 0) & (lengths <= max_answer_length))
        scores = start_logits[starts[rows]] + end_logits[ends[columns]]
        for score, begin, last in zip(scores.tolist(), starts[rows] + first, ends[columns] + first):
            span = (offsets[begin][0], stops[last])
            found[span] = max(score, found.get(span, score))
        if len(found) > MOST_SPANS:  # a context of hundreds of windows
            found = _best(found, context, max(count, MOST_SPANS // 2))
    return found


def _top(logits, n):
    """Indices of the n largest logits."""
    if len(logits) <= n:
        return np.arange(len(logits))
    return np.argpartition(logits, -n)[-n:]
