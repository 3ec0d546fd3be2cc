"""Logits to answers: what each task's model says, in pure NumPy.

Used by the training scripts, the predictor and the servers alike, so that a text gets one answer whichever
way it is asked. Positions are characters of the original text, end exclusive.
"""

import numpy as np


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


def split_tag(tag):
    """`B-PER` to ("B", "PER"); `O` to ("O", "")."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def entity_spans(tags):
    """BIO tags of a sentence to entities, by the rules of conlleval and of seqeval's default mode.

    An I- tag after "O" or after another type begins an entity, too.

    >>> entity_spans(["B-PER", "I-PER", "O", "I-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4)]
    """
    spans, begin, current = [], None, ""
    for index, tag in enumerate([*tags, "O"]):
        prefix, kind = split_tag(tag)
        if begin is not None and (prefix in "OB" or kind != current):
            spans.append((current, begin, index))
            begin = None
        if begin is None and prefix != "O":
            begin, current = index, kind
    return spans


def read_entities(logits, id2label, text, offsets):
    """Named entities of one text.

    A wordpiece that continues a word (its offset touches the piece before, both of letters or digits)
    takes the tag of the word's first piece: "iPhone" is one entity or none, never half of one.

    Args:
        logits: float [pieces, tags], special tokens left out.
        id2label: {tag index: name}.
        text: the original text.
        offsets: [(start, end)] of each piece.

    Returns:
        [{"entity": str, "label": str, "start": int, "end": int, "confidence": float}], in order of appearance;
        confidence is the mean probability of its words' tags.
    """
    probs = softmax(logits)
    words = []  # (start, end, piece) of each word; piece is its first one
    for piece, (start, end) in enumerate(offsets[: len(logits)]):
        if words and start == words[-1][1] and _inside_word(text, start):
            words[-1] = (words[-1][0], end, words[-1][2])
        else:
            words.append((start, end, piece))
    best = probs.argmax(axis=-1)
    tags = [id2label[int(best[piece])] for _, _, piece in words]
    entities = []
    for label, first, last in entity_spans(tags):
        start, end = words[first][0], words[last - 1][1]
        confidence = np.mean([probs[piece, best[piece]] for _, _, piece in words[first:last]])
        entities.append(
            {"entity": text[start:end], "label": label, "start": start, "end": end, "confidence": float(confidence)}
        )
    return entities


def _inside_word(text, position):
    """Whether the characters before and at a position belong to one word of an alphabet or one number."""
    before, after = text[position - 1], text[position]
    return before.isalnum() and after.isalnum() and not (_is_ideograph(before) or _is_ideograph(after))


def _is_ideograph(char):
    return "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or char >= "\U00020000"


def read_answers(windows, context, offsets, n_best_size=20, max_answer_length=50):
    """Reading comprehension: the likeliest spans of one context for one question.

    Every window proposes its `n_best_size` best starts and ends; a pair's score is the sum of its two logits,
    and the softmax over the `n_best_size` best pairs of all windows is their confidence (the way of BERT's
    SQuAD baseline, Devlin et al. 2018).

    Args:
        windows: [(start_logits, end_logits, first)]: logits float [pieces] of the window's context pieces alone,
            the first of them being piece `first` of the context.
        context: the original text.
        offsets: [(start, end)] of each context piece.
        max_answer_length: longest answer, in pieces.

    Returns:
        [{"answer": str, "start": int, "end": int, "confidence": float}], best first, no text twice;
        one empty answer where the context has no pieces.
    """
    found = {}
    for start_logits, end_logits, first in windows:
        starts, ends = _top(start_logits, n_best_size), _top(end_logits, n_best_size)
        lengths = ends[None, :] - starts[:, None] + 1
        rows, columns = np.nonzero((lengths > 0) & (lengths <= max_answer_length))
        scores = start_logits[starts[rows]] + end_logits[ends[columns]]
        for score, begin, last in zip(scores.tolist(), starts[rows] + first, ends[columns] + first):
            span = (offsets[begin][0], offsets[last][1])
            found[span] = max(score, found.get(span, score))
    longest = max((len(start) for start, _, _ in windows), default=0)
    if not found and n_best_size < longest:
        # All of the best ends lie before the best starts: look at every pair.
        return read_answers(windows, context, offsets, longest, max_answer_length)[:n_best_size]
    if not found:
        return [{"answer": "", "start": 0, "end": 0, "confidence": 1.0}]
    # Equal scores: the earlier, shorter span, so that the order never depends on the windows.
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    answers, texts = [], set()
    for (start, end), score in ranked:
        if context[start:end] not in texts:
            texts.add(context[start:end])
            answers.append({"answer": context[start:end], "start": start, "end": end, "confidence": score})
        if len(answers) == n_best_size:
            break
    confidences = softmax(np.array([a["confidence"] for a in answers]))
    return [{**a, "confidence": float(c)} for a, c in zip(answers, confidences)]


def _top(logits, n):
    """Indices of the n largest logits."""
    if len(logits) <= n:
        return np.arange(len(logits))
    return np.argpartition(logits, -n)[-n:]
