"""Reading comprehension: what the overlap of windows costs and gains, at several --doc_stride.

python benchmarks/doc_stride.py --data_dir DIR --vocab_file FILE           ERNIE 3.0-Medium's architecture, INT8
python benchmarks/doc_stride.py --arch nano --questions 8 --rounds 1       a quick look, on the sample data

A context that is too long is cut into windows. "Published" windows are full, but for the last one; a new one begins
every --doc_stride tokens. "Even" windows are as many, with the same overlap, and equally long. The share of tokens that
are computed twice is counted on all dev texts. Speed is measured on some of them, from text to prediction, all layouts
in turns, with random weights, which change no speed.

The score is that of --scored_model, the sample's, on the sample's dev set with every context made long, three times
over with other sentences. Its windows are shorter, and so its strides are shortened by the same factor.
"""

import harness  # isort: skip  makes the project's packages importable

import copy
import math
import random
import re
import statistics
import tempfile
from functools import partial

from ernie_predictor.data_files import read_dev_set, score
from ernie_predictor.predictor import Predictor, open_folder

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
    """(windows per question, the share of context tokens that are computed a second time, or more often)."""
    _, notes = task.tokenize([task.check(item) for item in items])
    windows = [place for _, places in notes for _, place in places]
    computed = sum(place.stop - place.start for place in windows)
    return len(windows) / len(items), 1 - sum(len(offsets) for offsets, _ in notes) / computed


def lengthened(items, seed):
    """Each context with more sentences in between, as examples/make_data.py makes the few long ones of the sample."""
    from examples.make_data import CMRC_LONG_WHAT, CMRC_LONG_WHEN, CMRC_LONG_WHO

    dice, long = random.Random(seed), {}
    for context in dict.fromkeys(context for _, context in items):
        sentences = re.findall("[^。，]*[。，]", context)
        for _ in range(FILLERS):
            words = (CMRC_LONG_WHEN, CMRC_LONG_WHO, CMRC_LONG_WHAT)
            # Not before the first, which gives the name.
            sentences.insert(dice.randint(1, len(sentences)), "".join(map(dice.choice, words)) + "。")
        long[context] = "".join(sentences)
    return [(question, long[context]) for question, context in items]


def main():
    parser = harness.parser(__doc__, "data_dir", "arch", "vocab_file", "batch_size", "threads", "rounds", "output",
                            questions=64)  # fmt: skip
    add = parser.add_argument
    add("--model_path", metavar="DIR", help="model to time (default: one of --arch is made)")
    add("--scored_model", metavar="DIR", help="of `make quickstart DATASET=cmrc2018`, to score (default: no scores)")
    add("--doc_stride", metavar="N", type=harness.positive, nargs="+", default=[128, 256, 384, 512], help="tokens "
        f"between the beginnings of two windows; {LENGTH}: no overlap")  # fmt: skip
    add("--precision_mode", choices=("fp32", "int8"), default="int8", help="of the timed model")
    args = parser.parse_args()

    items, _ = read_dev_set("qa", args.data_dir, "cmrc2018")
    # Spread over the dev set, whose questions on one context follow each other.
    timed = [items[index * len(items) // args.questions] for index in range(args.questions)]
    with tempfile.TemporaryDirectory() as folder:
        path = args.model_path
        if path is None:
            path = harness.make_models(args.arch, args.vocab_file, folder, "qa")[args.precision_mode.upper()]
        task, model = open_folder(path, "qa", "auto", args.precision_mode, args.threads, max_seq_length=LENGTH)
        tasks = layouts_of(task, args.doc_stride)
        predictors = {key: Predictor(variant, model, args.batch_size) for key, variant in tasks.items()}
        ways = {"batches": lambda p: p.predict(timed), "one by one": lambda p: [p.predict([item]) for item in timed]}
        runs = {(*key, way): partial(ask, p) for key, p in predictors.items() for way, ask in ways.items()}
        times = harness.in_turns(runs, args.rounds)
    scores = {}
    if args.scored_model:
        sample, gold = read_dev_set("qa", harness.SAMPLE_DATA, "cmrc2018")
        long = [item for seed in range(DRAWS) for item in lengthened(sample, seed)]
        scored, model = open_folder(args.scored_model, "qa", num_threads=args.threads)
        for key, variant in layouts_of(scored, args.doc_stride).items():
            scores[key] = score("qa", Predictor(variant, model, args.batch_size).predict(long), gold * DRAWS)

    rows = []
    for layout, stride in tasks:
        windows, twice = count_tokens(tasks[layout, stride], items)
        rows.append([stride, layout, f"{windows:.2f}", f"{100 * twice:.1f}%"])
        for way in ways:
            found, first = times[layout, stride, way], times["published", args.doc_stride[0], way]
            ratio, _, _ = harness.speed_up(found, first)
            rows[-1].append(f"{len(timed) / statistics.median(found):.2f} ({ratio:.2f}x)")
        if scores:
            rows[-1].append("{exact_match:.1%} / {f1:.1%}".format(**scores[layout, stride]))
    header = ["`--doc_stride`", "Windows", "Per question", "Computed twice", "Questions/s", "One by one, questions/s"]
    header += ["Exact match / F1, all contexts long"] if scores else []
    about = f"{args.model_path or args.arch}, {args.precision_mode}, {harness.machine(args.threads)}; {len(items)} "
    about += f"questions, {args.questions} of them timed"
    seconds = {", ".join(map(str, key)): found for key, found in times.items()}
    harness.write_results(args.output, {"about": about, "seconds": seconds}, about, harness.markdown(header, rows))


if __name__ == "__main__":
    harness.run(main, "../requirements.txt")
