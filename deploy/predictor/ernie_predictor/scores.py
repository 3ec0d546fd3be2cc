"""Scores: entities as seqeval counts them, answers as CMRC2018's scorer does."""

import difflib


def entity_scores(answers, gold):
    """Entity-level {"precision", "recall", "f1"} over all sentences, as seqeval and conlleval count them.

    An entity is right if its label, start and end are.

    Args:
        answers: for each sentence the entities found, as the predictor gives them.
        gold: for each sentence its entities, (label, start, end).
    """
    right = total_found = total = 0
    for answer, entities in zip(answers, gold):
        found = {(e["label"], e["start"], e["end"]) for e in answer}
        right += len(found.intersection(entities))
        total_found += len(found)
        total += len(entities)
    precision, recall = right / max(total_found, 1), right / max(total, 1)
    return {"precision": precision, "recall": recall, "f1": 2 * right / max(total_found + total, 1)}


# What CMRC2018's scorer (cmrc2018_evaluate.py) ignores in an answer.
CMRC_PUNCTUATION = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def cmrc_units(text):
    """An answer as CMRC2018's scorer cuts it: Chinese characters one by one, other runs word by word."""
    from nltk.tokenize import NLTKWordTokenizer

    units, run_of_others = [], ""
    for char in text.lower().strip() + "\u4e00":  # a Chinese character to end the last run
        if char in CMRC_PUNCTUATION:
            continue
        if "\u4e00" <= char <= "\u9fa5":
            units += NLTKWordTokenizer().tokenize(run_of_others) if run_of_others else []
            units.append(char)
            run_of_others = ""
        else:
            run_of_others += char
    return units[:-1]


def cmrc_scores(predictions, references):
    """{"exact_match", "f1"} as CMRC2018's scorer defines them for Chinese, as shares of 1.

    Exact match leaves punctuation out. F1 is of the longest run of units that an answer and a reference have in
    common; of several references the best counts.

    Args:
        predictions: a list of str.
        references: for each a list of str.
    """
    exact = f1 = 0.0
    for prediction, answers in zip(predictions, references):
        exact += any(without_punctuation(prediction) == without_punctuation(answer) for answer in answers)
        f1 += max(_cmrc_f1(cmrc_units(prediction), cmrc_units(answer)) for answer in answers)
    return {"exact_match": exact / len(references), "f1": f1 / len(references)}


def without_punctuation(text):
    return "".join(c for c in text.lower().strip() if c not in CMRC_PUNCTUATION)


def _cmrc_f1(units, answer_units):
    match = difflib.SequenceMatcher(None, units, answer_units, autojunk=False)
    common = match.find_longest_match(0, len(units), 0, len(answer_units)).size
    if common == 0:
        return 0.0
    precision, recall = common / len(units), common / len(answer_units)
    return 2 * precision * recall / (precision + recall)
