"""How fast whole jobs are, from texts to answers: the predictor against the published one's way, in one run.

python benchmarks/predictor_speed.py                                  the sample data, ERNIE 3.0-Medium's architecture
python benchmarks/predictor_speed.py --data_dir DIR --datasets tnews --texts 1000

The published way is Paddle Inference FP32 with oneDNN, PaddleNLP's tokenizer in Python, and batches in the order of the
input, padded to their longest text; answers are read with PaddleNLP's own functions. The same way runs BERT-Base's
architecture. Weights are random, which changes no speed. All read the same texts in turns, a few rounds; the figures
are medians, and ratios are of the same round. Tokenizing alone, in batches of 64, is measured before any model runs.
The last two tables have the form of the published ones, with the published QPS beside.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import workarounds  # noqa: F401  before Paddle

import argparse
import concurrent.futures
import importlib.util
import itertools
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
import types

import numpy as np
from compression_speed import LABELS, json_file, make_folders, markdown, paddle_inference, write_results
from ernie_predictor import ErniePredictor, load_task
from ernie_predictor.commandline import HelpFormatter, existing_file, positive
from ernie_predictor.machine import processor_kind
from ernie_predictor.runtimes import engine_versions
from ernie_predictor.tasks import join_tokens
from ernie_predictor.tokenizer import TOKENIZERS
from paddlenlp.metrics.squad import compute_prediction
from paddlenlp.transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    ErnieTokenizer,
)

from ernie.data import load_examples
from ernie.static_model import save_static_model
from ernie.tasks import DATA_SETS
from examples.make_model import ARCHITECTURES, VOCAB

LENGTHS = {"tnews": 128, "msra_ner": 128, "cmrc2018": 512}  # as configs/default.yml trains
BERT = {
    "seq_cls": BertForSequenceClassification,
    "token_cls": BertForTokenClassification,
    "qa": BertForQuestionAnswering,
}
PUBLISHED, BERT_BASE = "published way, FP32", "published way, BERT-Base"
# PaddleNLP's model_zoo/ernie-3.0, ERNIE 3.0-Medium: QPS at batch size 32, with PaddlePaddle 2.3.
PUBLISHED_CPU = "12 threads of an Intel Xeon Gold 6271C"
PUBLISHED_CPU_QPS = {
    "FP32": {"tnews": "311.95 (1.0x)", "msra_ner": "90.91 (1.0x)", "cmrc2018": "33.74 (1.0x)"},
    "INT8": {"tnews": "600.35 (1.9x)", "msra_ner": "141.00 (1.6x)", "cmrc2018": "56.51 (1.7x)"},
    "width 0.75, FP32": {"tnews": "408.65 (1.3x)", "msra_ner": "122.13 (1.3x)", "cmrc2018": "48.47 (1.4x)"},
    "width 0.75, INT8": {"tnews": "704.42 (2.3x)", "msra_ner": "215.58 (2.4x)", "cmrc2018": "75.23 (2.2x)"},
}
PUBLISHED_GPU = "NVIDIA T4, CUDA 11.2, cuDNN 8.2"
PUBLISHED_GPU_QPS = {
    "FP32": {"tnews": "1123.85 (1.0x)", "msra_ner": "366.75 (1.0x)", "cmrc2018": "146.84 (1.0x)"},
    "FP16": {"tnews": "2672.41 (2.4x)", "msra_ner": "840.11 (2.3x)", "cmrc2018": "303.43 (2.1x)"},
    "INT8": {"tnews": "3226.26 (2.9x)", "msra_ner": "889.33 (2.4x)", "cmrc2018": "348.84 (2.4x)"},
    "width 0.75, FP32": {"tnews": "1424.01 (1.3x)", "msra_ner": "454.27 (1.2x)", "cmrc2018": "183.77 (1.3x)"},
    "width 0.75, FP16": {"tnews": "3577.62 (3.2x)", "msra_ner": "1138.77 (3.1x)", "cmrc2018": "445.71 (3.0x)"},
    "width 0.75, INT8": {"tnews": "3635.48 (3.2x)", "msra_ner": "1105.26 (3.0x)", "cmrc2018": "444.27 (3.0x)"},
}


class PublishedPredictor:
    """Tokenizer, batches and reading of answers as the published deployment does it."""

    def __init__(self, task, folder, tokenizer, max_length, batch_size, threads):
        self.task, self.tokenizer, self.max_length, self.batch_size = task, tokenizer, max_length, batch_size
        self.model = paddle_inference(folder, threads)

    def tokenize(self, items):
        if self.task == "qa":
            questions, contexts = map(list, zip(*items))
            encoded = self.tokenizer(
                questions, contexts, stride=128, max_length=self.max_length, return_offsets_mapping=True
            )
        else:
            # Entities are asked of lists of characters or words.
            words = self.task == "token_cls"
            encoded = self.tokenizer(items, max_length=self.max_length, truncation=True, is_split_into_words=words)
        # A row a text, or for contexts a row a window.
        rows = [dict(zip(encoded, row)) for row in zip(*encoded.values())]
        return [{"overflow_to_sample": index, **row} for index, row in enumerate(rows)]

    def predict(self, items):
        features = []
        for begin in range(0, len(items), self.batch_size):
            chunk = self.tokenize(items[begin : begin + self.batch_size])
            for feature in chunk:
                feature["text"] = begin + feature["overflow_to_sample"]
            features += chunk
        logits = []
        for begin in range(0, len(features), self.batch_size):
            rows = features[begin : begin + self.batch_size]
            longest = max(len(row["input_ids"]) for row in rows)
            batch = {
                name: np.array([row[name] + [0] * (longest - len(row[name])) for row in rows], dtype="int64")
                for name in ("input_ids", "token_type_ids")
            }
            logits += zip(*self.model(batch))
        return getattr(self, f"read_{self.task}")(items, features, logits)

    def read_seq_cls(self, items, features, logits):
        return [int(np.argmax(row)) for (row,) in logits]

    def read_token_cls(self, items, features, logits):
        tags = [np.argmax(tags, axis=-1)[1 : len(f["input_ids"]) - 1] for f, (tags,) in zip(features, logits)]
        return [row.tolist() for row in tags]

    def read_qa(self, items, features, logits):
        class Examples(list):  # compute_prediction reads columns and rows
            def __getitem__(self, key):
                return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

        examples = Examples({"id": i, "context": context} for i, (_, context) in enumerate(items))
        windows = [
            {
                "example_id": f["text"],
                "offset_mapping": [o if t else None for o, t in zip(f["offset_mapping"], f["token_type_ids"])],
            }
            for f in features
        ]
        answers, _, _ = compute_prediction(examples, windows, tuple(zip(*logits)), False, 20, 50)
        return list(answers.values())


def load_texts(dataset, data_dir, number):
    """(items for the predictor, items for the published way) of a dev set."""
    examples = load_examples(DATA_SETS[dataset].task, types.SimpleNamespace(dataset=dataset, data_dir=data_dir), "dev")
    examples = list(itertools.islice(itertools.cycle(examples), number))
    if dataset == "cmrc2018":
        return [[(e["question"], e["context"]) for e in examples]] * 2
    if dataset == "msra_ner":
        return [join_tokens(e["tokens"])[0] for e in examples], [e["tokens"] for e in examples]
    return [[e["text"] for e in examples]] * 2


def make_bert(task, vocab_size, folder):
    more = {"num_labels": len(LABELS[task])} if LABELS[task] else {}
    model = BERT[task](BertConfig(vocab_size=vocab_size, **more))
    model.eval()
    os.makedirs(folder)
    save_static_model(model, folder)


def agreement(found, expected):
    return sum(map(lambda a, b: a == b, found, expected)) / len(expected)


def plain_answers(task, answers):
    """The predictor's answers as the published way gives them."""
    if task == "seq_cls":
        return [LABELS[task].index(a["label"]) for a in answers]
    return [a["answer"] for a in answers]


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def measure_tokenizing(args, folder, published, items, published_items):
    """{who: seconds of each round}, in batches of 64. Before models run, whose threads would share the cores."""
    runs = [("Python tokenizer", published.tokenize, published_items)]
    for name in TOKENIZERS:
        if importlib.util.find_spec(name):
            task = load_task(folder, None, published.max_length, args.threads, name)
            runs.append((f"predictor, {name}", task.tokenize, [task.check(item) for item in items]))
    times = {}
    for _ in range(3 * args.rounds):
        for name, tokenize, texts in runs:
            chunks = [texts[begin : begin + 64] for begin in range(0, len(texts), 64)]
            times.setdefault(name, []).append(sum(seconds(tokenize, chunk) for chunk in chunks))
    return times


def measure(args, dataset, folder):
    """({who: seconds of the whole job, each round}, {who: seconds of tokenizing}, texts)."""
    task, max_length = DATA_SETS[dataset].task.name, LENGTHS[dataset]
    items, published_items = load_texts(dataset, args.data_dir, args.texts if task != "qa" else args.questions)
    making = types.SimpleNamespace(task=task, arch=args.arch, vocab_file=args.vocab_file, width_mult=args.width_mult)
    folders, vocab_size = make_folders(making, folder)
    make_bert(task, vocab_size, os.path.join(folder, "bert"))
    tokenizer = ErnieTokenizer.from_pretrained(folders["FP32"])
    arguments = (tokenizer, max_length, args.batch_size, args.threads)
    published = {
        PUBLISHED: PublishedPredictor(task, folders["FP32"], *arguments),
        BERT_BASE: PublishedPredictor(task, os.path.join(folder, "bert"), *arguments),
    }
    alone = measure_tokenizing(args, folders["FP32"], published[PUBLISHED], items, published_items)
    ours = {
        f"predictor, {name}": ErniePredictor(
            model_dir,
            precision_mode=name.rpartition(" ")[2].lower(),
            backend=args.backend,
            num_threads=args.threads,
            batch_size=args.batch_size,
            max_seq_length=max_length,
        )
        for name, model_dir in folders.items()
    }
    runs = {name: (p.predict, published_items) for name, p in published.items()}
    runs |= {name: (p.predict, items) for name, p in ours.items()}
    if task != "token_cls":  # whose wordpieces and characters are counted differently
        share = agreement(
            plain_answers(task, ours["predictor, FP32"].predict(items)), published[PUBLISHED].predict(published_items)
        )
        if share < 0.95:
            sys.exit(f"{dataset}: only {100 * share:.1f}% of the answers are those of the published way")
        print(f"{dataset}: {100 * share:.1f}% of the answers are those of the published way", file=sys.stderr)
    whole = {}
    for turn in range(args.rounds + 1):
        for name, (predict, texts) in runs.items():
            time.sleep(0.1)  # the threads of the engine before spin for a while
            took = seconds(predict, texts)
            if turn > 0:  # at first kernels are made for every length
                whole.setdefault(name, []).append(took)
    return whole, alone, len(items)


def speed_up(times, reference):
    """How many times as fast: (the median over rounds, the smallest, the largest)."""
    ratios = [b / a for a, b in zip(times, reference)]
    return statistics.median(ratios), min(ratios), max(ratios)


def tables_of(args, results, machine):
    """Markdown: whole jobs, tokenizing, and both in the form of the published tables."""
    counts = {dataset: f"{number} {'questions' if dataset == 'cmrc2018' else 'texts'}"
              for dataset, (_, _, number) in results.items()}  # fmt: skip
    names = [f"{dataset}, {count}" for dataset, count in counts.items()]
    names_of_models, names_of_tokenizers = (list(times) for times in next(iter(results.values()))[:2])
    spread, median = "{:.2f}x, {:.2f} to {:.2f}", statistics.median

    def whole_job(name):
        for whole, _, number in results.values():
            ratios = spread.format(*speed_up(whole[name], whole[PUBLISHED]))
            bert = speed_up(whole[name], whole[BERT_BASE])[0]
            yield f"{number / median(whole[name]):.1f} ({ratios}; {bert:.1f}x)"

    def tokenizing(name):
        for _, alone, number in results.values():
            ratios = spread.format(*speed_up(alone[name], alone["Python tokenizer"]))
            yield f"{number / median(alone[name]):,.0f} ({ratios})"

    def published_form(name, published):
        for dataset, (whole, _, number) in results.items():
            ratio = speed_up(whole[name], whole[PUBLISHED])[0]
            yield from (f"{number / median(whole[name]):.2f} ({ratio:.1f}x)", published.get(dataset, ""))

    both = [cell for dataset in results for cell in (dataset.upper(), f"{dataset.upper()}, published")]
    own = {name: f"ERNIE 3.0-{args.arch.capitalize()}, {name.removeprefix('predictor, ')}" for name in names_of_models}
    return "\n\n".join([
        f"ERNIE 3.0-{args.arch.capitalize()}'s architecture, random weights, batch size {args.batch_size}, {machine}. "
        f"Medians over {args.rounds} rounds; ratios from the smallest to the largest.",
        markdown(["texts/s, whole job (times the published way; times BERT-Base)", *names],
                 [[name, *whole_job(name)] for name in names_of_models]),
        markdown(["texts/s, tokenizing alone, batches of 64", *names],
                 [[name, *tokenizing(name)] for name in names_of_tokenizers]),
        f"QPS on CPU. Published: Medium's architecture, {PUBLISHED_CPU}, against FP32. Measured: {args.threads} "
        "threads of this machine, from text to prediction, against the published way in the same run.",
        markdown(["QPS", *both],
                 [["published way, FP32", *published_form(PUBLISHED, {})],
                  *([own[name], *published_form(name, PUBLISHED_CPU_QPS.get(name.removeprefix("predictor, "), {}))]
                    for name in names_of_models if name.startswith("predictor"))]),
        f"QPS on GPU. Published: {PUBLISHED_GPU}. Not measured here: this takes a GPU and "
        "`deploy/predictor/infer_gpu.py --benchmark`.",
        markdown(["QPS", *both],
                 [[f"ERNIE 3.0-Medium, {name}", *(cell for dataset in results for cell in ("", published[dataset]))]
                  for name, published in PUBLISHED_GPU_QPS.items()]),
    ]) + "\n"  # fmt: skip


def add_job_flags(add, texts, questions, rounds):
    """The flags of a program that measures whole jobs: of which texts, with which models, how often."""
    add("--datasets", nargs="+", metavar="NAME", choices=LENGTHS, default=list(LENGTHS), help="whose texts are taken")
    add("--data_dir", metavar="DIR", default=str(ROOT / "examples" / "data"), help="has a folder for each data set")
    add("--vocab_file", metavar="FILE", type=existing_file, default=VOCAB, help="vocabulary")
    add("--arch", choices=ARCHITECTURES, default="medium", help="of ERNIE 3.0, or the sample's")
    add("--width_mult", metavar="N", type=float, default=0.75, help="share of the width of the narrow models")
    add("--texts", metavar="N", type=positive, default=texts, help="of the dev set, from its beginning, or again and "
        "again")  # fmt: skip
    add("--questions", metavar="N", type=positive, default=questions, help="of cmrc2018, whose contexts are long")
    add("--batch_size", metavar="N", type=positive, default=32, help="texts per batch")
    add("--threads", metavar="N", type=positive, default=2, help="for one batch")
    add("--rounds", metavar="N", type=positive, default=rounds, help="turns of each")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add_job_flags(add, texts=400, questions=32, rounds=3)
    add("--backend", default="auto", help="of infer_cpu.py")
    add("--output", metavar="FILE.json", type=json_file, help="for the figures, which pictures.py draws; the tables go "
        "to FILE.md")  # fmt: skip
    args = parser.parse_args()

    results = {}
    for dataset in args.datasets:
        # A process for each, since Paddle keeps the memory of all batches: of three data sets it took 13 GB.
        process = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        with tempfile.TemporaryDirectory() as folder, process:
            results[dataset] = process.submit(measure, args, dataset, folder).result()
    machine = f"{args.threads} threads of {processor_kind()}; {engine_versions()}; Python {platform.python_version()}"
    figures = {
        "architecture": args.arch,
        "batch_size": args.batch_size,
        "machine": machine,
        "texts": {dataset: number for dataset, (_, _, number) in results.items()},
        "texts/s": {
            dataset: {name: number / statistics.median(times) for name, times in whole.items()}
            for dataset, (whole, _, number) in results.items()
        },
        "seconds of each round": {dataset: whole for dataset, (whole, _, _) in results.items()},
        "seconds of each round, tokenizing alone": {dataset: alone for dataset, (_, alone, _) in results.items()},
    }
    write_results(args.output, figures, tables_of(args, results, machine))


if __name__ == "__main__":
    main()
