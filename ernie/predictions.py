"""Predictions: logits to test_results.json and to the file that CLUE's leaderboard takes."""

import bisect
import collections
import json
import os

from paddlenlp.utils.log import logger
from tqdm import tqdm

from ernie_predictor.answers import read_answers, read_class, read_entities
from ernie.export import write_json, write_text
from ernie.features import join_tokens

# Files that CLUE's leaderboard takes are <task>_predict.json; where a test set was renewed, the name says so
# (CLUE's submission rules, version 1.1).
LEADERBOARD_NAMES = {"tnews": "tnews11", "cluewsc2020": "cluewsc11", "ocnli": "ocnli_50k"}


def classify(examples, logits, labels):
    """test_results.json of a classification: id, text, label and confidence of each example."""
    results = []
    for example, answer in zip(examples, (read_class(row, labels) for row in logits)):
        texts = {key: example[key] for key in ("text", "text_pair") if example[key] is not None}
        results.append({"id": example["id"], **texts, **answer})
    return results


def find_entities(examples, features, logits, labels):
    """test_results.json of NER: id, text and entities of each example."""
    results = []
    for example, feature, row in zip(examples, features, logits):
        pieces = row[1 : len(feature["offsets"]) + 1]
        entities = read_entities(pieces, labels, feature["text"], feature["offsets"])
        results.append({"id": example["id"], "text": feature["text"], "entities": entities})
    return results


def find_answers(examples, features, offsets, start_logits, end_logits, data_args):
    """test_results.json of reading comprehension: id, question, the best answer, and the n best.

    Args:
        features, offsets: of `qa_features`; start_logits, end_logits: [features, length].
    """
    windows = collections.defaultdict(list)
    for feature, start, end in zip(features, start_logits, end_logits):
        inside = slice(feature["begin"], len(feature["input_ids"]) - 1)
        windows[feature["example"]].append((start[inside], end[inside], feature["first"]))
    results = []
    for index, example in enumerate(tqdm(examples, desc="Reading answers", disable=len(examples) < 2000)):
        n_best = read_answers(
            windows[index], example["context"], offsets[index], data_args.n_best_size, data_args.max_answer_length
        )
        results.append({"id": example["id"], "question": example["question"], **n_best[0], "n_best": n_best})
    return results


def write_predictions(task, data_args, folder, examples, results):
    """Writes test_results.json, and beside it the file that CLUE's leaderboard takes (NER: MSRA_NER's format)."""
    write_json(os.path.join(folder, "test_results.json"), results)
    name = LEADERBOARD_NAMES.get(data_args.dataset, data_args.dataset)
    if task == "SequenceClassification":
        path = os.path.join(folder, f"{name}_predict.json")
        text = "".join(json.dumps({"id": r["id"], "label": r["label"]}, ensure_ascii=False) + "\n" for r in results)
    elif task == "TokenClassification":
        path = os.path.join(folder, f"{name}_predict.tsv")
        text = "".join(_tagged_line(e["tokens"], r["entities"]) for e, r in zip(examples, results))
    else:
        path = os.path.join(folder, f"{name}_predict.json")
        text = json.dumps({r["id"]: r["answer"] for r in results}, ensure_ascii=False, indent=2) + "\n"
    write_text(path, text)
    logger.info(f"{len(results):,} predictions in {folder}/test_results.json and {path}")


def _tagged_line(tokens, entities):
    """A line of MSRA_NER's format with the tags of found entities."""
    _, starts = join_tokens(tokens)
    tags = ["O"] * len(tokens)
    for entity in entities:
        first = bisect.bisect_right(starts, entity["start"]) - 1
        last = bisect.bisect_left(starts, entity["end"])
        tags[first:last] = [f"B-{entity['label']}"] + [f"I-{entity['label']}"] * (last - first - 1)
    return "\x02".join(tokens) + "\t" + "\x02".join(tags) + "\n"
