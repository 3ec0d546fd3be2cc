"""Reading comprehension: what the overlap of windows costs and gains, at several --doc_stride.

python benchmarks/doc_stride.py --data_dir DIR --vocab_file FILE           ERNIE 3.0-Medium's architecture, INT8
python benchmarks/doc_stride.py --arch nano --questions 8 --rounds 1       a quick look, on the sample data

A context that is too long is cut into windows. "Published" windows are full, but for the last one; a new one begins
every --doc_stride tokens. "Even" windows are as many, with the same overlap, and equally long. The share of tokens that
are computed twice is counted on all dev texts. Speed is measured on some of them, from text to prediction, all layouts
in turns, with random weights, which change no speed.

The score is that of --scored_model, the sample's, on the sample's dev set. Its windows are shorter, and so its strides
are shortened by the same factor. Few of its contexts are longer than a window: the score is also given for the same dev
set with every context made long, as those few are, three times over with other sentences.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "predictor"))
sys.path.insert(1, str(ROOT))

import argparse
import copy
import json
import math
import random
import re
import statistics
import tempfile
import time

from ernie_predictor.commandline import HelpFormatter, existing_file, positive, run
from ernie_predictor.dev_sets import read_dev_set, score
from ernie_predictor.predictor import Predictor, open_folder
from ernie_predictor.tasks import load_task
from serving_load import child, machine
from tqdm import tqdm

from examples.make_data import CMRC_LONG_WHAT, CMRC_LONG_WHEN, CMRC_LONG_WHO

SAMPLE = ROOT / "examples" / "data"
LENGTH = 512  # tokens per window, as configs/default.yml trains
FILLERS = 37  # sentences that make a context of the sample long
DRAWS = 3  # long dev sets, with other sentences in other places: of one, single questions decide


def even_windows(build_windows):
    """As `ErnieTokenizer.build_windows`, but with windows of equal length."""

    def build(question, context, max_seq_length, doc_stride, max_query_length):
        windows = build_windows(question, context, max_seq_length, doc_stride, max_query_length)
        _, _, _, begin = windows[0]
        room = max_seq_length - begin - 1
        overlap = room - min(doc_stride, room)
        shorter = math.ceil((len(context.ids) + (len(windows) - 1) * overlap) / len(windows))
        return build_windows(question, context, begin + shorter + 1, max(shorter - overlap, 1), begin - 2)

    return build


LAYOUTS = {"published": lambda build_windows: build_windows, "even": even_windows}


def layouts_of(task, strides):
    """{(layout, stride): the task with its windows laid like that}; strides are of windows of LENGTH tokens."""
    tasks = {}
    for stride in strides:
        for name, layout in LAYOUTS.items():
            variant, variant.tokenizer = copy.copy(task), copy.copy(task.tokenizer)
            variant.tokenizer.build_windows = layout(task.tokenizer.build_windows)
            variant.params = {**task.params, "doc_stride": max(round(stride * task.max_seq_length / LENGTH), 1)}
            tasks[name, stride] = variant
    return tasks


def count_tokens(task, items):
    """Windows per question, and the share of context tokens that are computed a second time, or more often."""
    _, notes = task.tokenize([task.check(item) for item in items])
    windows = [place for _, places in notes for _, place in places]
    computed = sum(place.stop - place.start for place in windows)
    return {
        "windows_per_question": len(windows) / len(items),
        "computed_twice": 1 - sum(len(offsets) for offsets, _ in notes) / computed,
    }


def lengthened(items, seed):
    """Each context with more sentences in between, as examples/make_data.py makes the few long ones of the sample."""
    dice, long = random.Random(seed), {}
    for context in dict.fromkeys(context for _, context in items):
        sentences = re.findall("[^。，]*[。，]", context)
        for _ in range(FILLERS):
            words = (CMRC_LONG_WHEN, CMRC_LONG_WHO, CMRC_LONG_WHAT)
            # Not before the first, which gives the name.
            sentences.insert(dice.randint(1, len(sentences)), "".join(map(dice.choice, words)) + "。")
        long[context] = "".join(sentences)
    return [(question, long[context]) for question, context in items]


def measure_speed(args, folder, items):
    """{(layout, stride): {"batches": seconds of each round, "single": seconds of each round}}."""
    task, model = open_folder(folder, "qa", args.backend, args.precision_mode, args.threads, max_seq_length=LENGTH)
    predictors = {
        key: Predictor(variant, model, args.batch_size) for key, variant in layouts_of(task, args.doc_stride).items()
    }
    times = {key: {"batches": [], "single": []} for key in predictors}
    with tqdm(total=(args.rounds + 1) * len(predictors), unit=" runs", desc="speed", disable=None) as bar:
        for turn in range(args.rounds + 1):
            for key, predictor in predictors.items():
                for way, chunks in (("batches", [items]), ("single", [[item] for item in items])):
                    start = time.perf_counter()
                    for chunk in chunks:
                        predictor.predict(chunk)
                    if turn > 0:  # at first kernels are made for every length
                        times[key][way].append(time.perf_counter() - start)
                bar.update()
    return times


def measure_scores(args):
    """{(layout, stride): {"exact_match", "f1", "long": the same two}} of --scored_model."""
    items, gold = read_dev_set("qa", SAMPLE, "cmrc2018")
    long_items = [item for seed in range(DRAWS) for item in lengthened(items, seed)]
    task, model = open_folder(args.scored_model, "qa", num_threads=args.threads)
    scores = {}
    for key, variant in tqdm(layouts_of(task, args.doc_stride).items(), unit=" layouts", desc="scores", disable=None):
        predictor = Predictor(variant, model, args.batch_size)
        scores[key] = score("qa", predictor.predict(items), gold)
        scores[key]["long"] = score("qa", predictor.predict(long_items), gold * DRAWS)
    return scores, task.max_seq_length


def results(args, folder):
    items, _ = read_dev_set("qa", args.data_dir, "cmrc2018")
    # Spread over the dev set, whose questions on one context follow each other.
    timed = [items[index * len(items) // args.questions] for index in range(args.questions)]
    times = measure_speed(args, folder, timed)
    scores, scored_length = measure_scores(args) if args.scored_model else ({}, None)
    tasks = layouts_of(load_task(folder, max_seq_length=LENGTH), args.doc_stride)
    reference = times["published", args.doc_stride[0]]
    rows = []
    for (layout, stride), variant in tasks.items():
        row = {"windows": layout, "doc_stride": stride, **count_tokens(variant, items)}
        for way, seconds in times[layout, stride].items():
            ratios = [ours / theirs for ours, theirs in zip(reference[way], seconds)]
            row[way] = {
                "questions_per_second": len(timed) / statistics.median(seconds),
                "times_first": statistics.median(ratios),
                "times_first_rounds": ratios,
            }
        rows.append({**row, "score": scores.get((layout, stride))})
    about = {
        name: vars(args)[name] for name in ("arch", "precision_mode", "questions", "batch_size", "threads", "rounds")
    }
    return {"machine": machine(), **about, "dev_set": len(items), "scored_length": scored_length, "rows": rows}


def tables(args, found):
    """The figures in Markdown."""
    about, first = found["machine"], args.doc_stride[0]
    packages = ", ".join(f"{name} {about[name]}" for name in ("onnxruntime", "openvino") if name in about)
    model = args.model_path or f"ERNIE 3.0-{args.arch}"
    yield f"{model}, {args.precision_mode}, windows of {LENGTH} tokens, batch size {args.batch_size}; {args.threads} "
    yield f"threads of {about['processor']}; {packages}; Python {about['python']}; {found['dev_set']} questions, "
    yield f"{args.questions} of them timed, medians of {args.rounds} rounds\n"
    yield f"\n| `--doc_stride` | Windows | Per question | Computed twice | Questions/s, batches (times {first}) | "
    yield f"Questions/s, one by one (times {first}) |\n|---|---|---|---|---|---|\n"
    for row in found["rows"]:
        cells = [row["doc_stride"], row["windows"], f"{row['windows_per_question']:.2f}"]
        cells.append(f"{100 * row['computed_twice']:.1f}%")
        for way in ("batches", "single"):
            cells.append(f"{row[way]['questions_per_second']:.2f} ({row[way]['times_first']:.2f})")
        yield f"| {' | '.join(map(str, cells))} |\n"
    if not args.scored_model:
        return
    yield f"\n| `--doc_stride` | Windows | Stride of the sample model, windows of {found['scored_length']} tokens | "
    yield "Exact match / F1 | The same, all contexts long |\n|---|---|---|---|---|\n"
    for row in found["rows"]:
        stride = max(round(row["doc_stride"] * found["scored_length"] / LENGTH), 1)
        cells = [row["doc_stride"], row["windows"], stride]
        for scores in (row["score"], row["score"]["long"]):
            cells.append(f"{100 * scores['exact_match']:.1f} / {100 * scores['f1']:.1f}")
        yield f"| {' | '.join(map(str, cells))} |\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--data_dir", metavar="DIR", default=str(SAMPLE), help="has cmrc2018/dev.json, which is counted and timed")
    add("--model_path", metavar="DIR", help="model to time (default: one of --arch is made)")
    add("--arch", default="medium", help="of examples/make_model.py, where a model is made")
    vocab = str(ROOT / "examples" / "model" / "vocab.txt")
    add("--vocab_file", metavar="FILE", type=existing_file, default=vocab, help="vocabulary, where a model is made")
    add("--scored_model", metavar="DIR", help="of `make quickstart DATASET=cmrc2018`, to score (default: no scores)")
    add("--doc_stride", metavar="N", type=positive, nargs="+", default=[128, 256, 384, 512], help="tokens between the "
        f"beginnings of two windows; {LENGTH}: no overlap")  # fmt: skip
    add("--precision_mode", choices=("fp32", "int8"), default="int8", help="of the timed model")
    add("--backend", default="auto", help="of infer_cpu.py")
    add("--questions", metavar="N", type=positive, default=64, help="that are timed")
    add("--batch_size", metavar="N", type=positive, default=32, help="windows per batch")
    add("--threads", metavar="N", type=positive, default=2, help="for one batch")
    add("--rounds", metavar="N", type=positive, default=3, help="turns of each")
    add("--output", metavar="FILE", help="for the figures as JSON; the tables are written beside it, as .md")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        if args.model_path is None:
            print(f"making models of ERNIE 3.0-{args.arch}: some minutes", file=sys.stderr)
            made = child("make_models", arch=args.arch, vocab_file=args.vocab_file, folder=folder, task="qa")
            found = results(args, made[args.precision_mode])
        else:
            found = results(args, args.model_path)
    table = "".join(tables(args, found))
    if args.output:
        output = Path(args.output)
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        output.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    run(main, "../requirements.txt")
