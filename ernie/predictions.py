"""Predictions: answers to test_results.json and to the file that CLUE's leaderboard takes."""

import bisect
import itertools
import json
import os

from ernie_predictor.answers import tags_of_spans
from ernie_predictor.tasks import join_tokens

from ernie import console
from ernie.console import logger
from ernie.files import write_json, write_text
from ernie.tasks import DATA_SETS, QA, SEQ_CLS


def write_predictions(task, data_args, folder, split, answers):
    """Writes test_results.json, and the leaderboard's file beside it (NER: a file in MSRA_NER's format).

    Args:
        split: the test set, a `Split`.
        answers: one per example, as the predictor gives them.
    """
    results = [
        {"id": example["id"], **result_of(task, example, pair, answer)}
        for example, pair, answer in zip(split.examples, split.pairs, answers)
    ]
    write_json(os.path.join(folder, "test_results.json"), results)
    row = DATA_SETS.get(data_args.dataset)
    name = (row and row.leaderboard) or data_args.dataset
    path = os.path.join(folder, f"{name}_predict.{task.suffix}")
    if task is SEQ_CLS:
        text = "".join(json.dumps({"id": r["id"], "label": r["label"]}, ensure_ascii=False) + "\n" for r in results)
    elif task is QA:
        text = json.dumps({r["id"]: r["answer"] for r in results}, ensure_ascii=False, indent=2) + "\n"
    else:
        labels = split.processor.id2label.values()
        spans = [_token_spans(e["tokens"], r["entities"]) for e, r in zip(split.examples, results)]
        covered = sum(later[1] < earlier[2] for row in spans for earlier, later in itertools.pairwise(row))
        if covered:
            logger.warning(
                f"{covered:,} entities share a token with the one before, and a token has one tag: {path} has the "
                "later of them, test_results.json all"
            )
        text = "".join(_tagged_line(e["tokens"], row, labels) for e, row in zip(split.examples, spans))
    write_text(path, text)
    console.row("predicted", f"{len(results):,} answers: {folder}/test_results.json, {os.path.basename(path)}")


def result_of(task, example, pair, answer):
    """What a row of test_results.json holds beside the id."""
    if task is SEQ_CLS:
        return {key: example[key] for key in ("text", "text_pair") if example[key] is not None} | answer
    if task is QA:
        return {"question": example["question"], **answer}
    return {"text": pair.first, "entities": answer}


def _token_spans(tokens, entities):
    """Entities in characters to (label, first token, last token + 1)."""
    _, starts = join_tokens(tokens)
    return [
        (e["label"], bisect.bisect_right(starts, e["start"]) - 1, bisect.bisect_left(starts, e["end"]))
        for e in entities
    ]


def _tagged_line(tokens, spans, labels):
    """A line of MSRA_NER's format with the tags of entities, in the labels' scheme."""
    return "\x02".join(tokens) + "\t" + "\x02".join(tags_of_spans(spans, len(tokens), labels)) + "\n"
