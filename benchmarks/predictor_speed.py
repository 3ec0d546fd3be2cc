"""How fast whole jobs are, from texts to answers: the predictor against the published one's way, in one run.

python benchmarks/predictor_speed.py                                  the sample data, ERNIE 3.0-Medium's architecture
python benchmarks/predictor_speed.py --data_dir DIR --datasets tnews --texts 1000

The published way is Paddle Inference FP32 with oneDNN, PaddleNLP's tokenizer in Python, and batches in the order of the
input, padded to their longest text; answers are read with PaddleNLP's own functions. The same way runs BERT-Base's
architecture. Weights are random, which changes no speed. All read the same texts in turns, a few rounds; the figures
are medians, and ratios are of the same round. Tokenizing alone, in batches of 64, is measured before any model runs.
The last table has the form of the published one, with the published QPS beside.
"""

import harness  # isort: skip  makes the project's packages importable

import importlib.util
import itertools
import os
import statistics
import sys
import tempfile
import types
from functools import partial

import numpy as np
from ernie_predictor import ErniePredictor, load_task
from ernie_predictor.tasks import join_tokens
from ernie_predictor.tokenizer import TOKENIZERS
from harness import markdown, speed_up
from harness.models import LABELS, make_folders, paddle_inference
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


def plain_answers(task, answers):
    """The predictor's answers as the published way gives them."""
    if task == "seq_cls":
        return [LABELS[task].index(a["label"]) for a in answers]
    return [a["answer"] for a in answers]


def measure_tokenizing(args, folder, published, items, published_items):
    """{who: seconds of each round}, in batches of 64. Before models run, whose threads would share the cores."""
    runs = [("Python tokenizer", published.tokenize, published_items)]
    for name in TOKENIZERS:
        if importlib.util.find_spec(name):
            task = load_task(folder, None, published.max_length, args.threads, name)
            runs.append((f"predictor, {name}", task.tokenize, [task.check(item) for item in items]))

    def tokenize_all(tokenize, texts):
        for begin in range(0, len(texts), 64):
            tokenize(texts[begin : begin + 64])

    return harness.in_turns({name: partial(tokenize_all, *run) for name, *run in runs}, 3 * args.rounds)


def measure(args, dataset, folder):
    """({who: seconds of the whole job, each round}, {who: seconds of tokenizing}, texts)."""
    task, max_length = DATA_SETS[dataset].task.name, harness.LENGTHS[dataset]
    items, published_items = load_texts(dataset, args.data_dir, args.texts if task != "qa" else args.questions)
    folders, vocab_size = make_folders(task, args.arch, args.vocab_file, folder, args.width_mult)
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
    runs = {name: partial(p.predict, published_items) for name, p in published.items()}
    runs |= {name: partial(p.predict, items) for name, p in ours.items()}
    if task != "token_cls":  # whose wordpieces and characters are counted differently
        found, expected = ours["predictor, FP32"].predict(items), published[PUBLISHED].predict(published_items)
        same = [answer == wanted for answer, wanted in zip(plain_answers(task, found), expected)]
        share = sum(same) / len(same)
        if share < 0.95:
            sys.exit(f"{dataset}: only {100 * share:.1f}% of the answers are those of the published way")
        print(f"{dataset}: {100 * share:.1f}% of the answers are those of the published way", file=sys.stderr)
    return harness.in_turns(runs, args.rounds), alone, len(items)


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
    return [
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
    ]  # fmt: skip


def main():
    parser = harness.parser(__doc__, *harness.JOBS, texts=400, questions=32)
    parser.add_argument("--backend", default="auto", help="of infer_cpu.py")
    args = parser.parse_args()

    results = {}
    for dataset in args.datasets:
        # A process for each, since Paddle keeps the memory of all batches: of three data sets it took 13 GB.
        with tempfile.TemporaryDirectory() as folder:
            results[dataset] = harness.apart(measure, args, dataset, folder)
    machine = harness.machine(args.threads)
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
    harness.write_results(args.output, figures, *tables_of(args, results, machine))


if __name__ == "__main__":
    main()
