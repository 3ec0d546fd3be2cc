"""How fast fine-tuning is: this project against the plain use of PaddleNLP's Trainer, both in one run.

python benchmarks/finetune_speed.py --model models/nano --data_dir DIR [--datasets tnews cmrc2018] [--steps 40]

Plain is what a script does that follows PaddleNLP's documentation: the Python tokenizer, shuffled batches padded
to their longest text, Paddle as it comes. Ours is run_*.py. Both train the same model on the same examples at the
same length and batch size, in processes of their own, in turns; the seconds are of the training loop, tokenizing
apart. Loading Paddle and saving are not timed. Then both train a whole run (--score) to show that no score is
lost.
"""

import harness  # isort: skip  sets up nothing of Paddle's surroundings, as the plain runs need it

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def plain(args):
    """Trains with PaddleNLP alone; prints a line of JSON. Runs in a process of its own."""
    import zlib  # noqa: F401  without it Paddle 2.6 may crash on import; it costs and gains no time

    import paddle
    from paddlenlp.data import DataCollatorWithPadding
    from paddlenlp.datasets import load_dataset
    from paddlenlp.trainer import Trainer, TrainingArguments, set_seed
    from paddlenlp.transformers import (
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    set_seed(42)
    tokenizer = AutoTokenizer.from_pretrained(os.path.abspath(args.model))
    qa = args.dataset == "cmrc2018"
    files = [os.path.join(args.data_dir, args.dataset, f"{split}.json") for split in ("train", "dev")]
    if qa:
        train, dev = load_dataset("cmrc2018", data_files=files)
    else:
        train, dev = load_dataset("clue", args.dataset, data_files=files)
    labels = [] if qa else {label: i for i, label in enumerate(train.label_list or dev.label_list)}

    def classification(example):
        encoded = tokenizer(example["sentence"], max_length=args.max_seq_length, truncation=True)
        label = example["label"]
        return {**encoded, "labels": labels[label] if isinstance(label, str) else label}

    def reading(examples):
        questions, contexts = [e["question"] for e in examples], [e["context"] for e in examples]
        encoded = tokenizer(questions, contexts, stride=args.doc_stride, max_length=args.max_seq_length)
        features = []
        for row in zip(*(encoded[key] for key in ("input_ids", "token_type_ids", "offset_mapping"))):
            input_ids, token_type_ids, offsets = row
            feature = {"input_ids": input_ids, "token_type_ids": token_type_ids}
            example = examples[encoded["overflow_to_sample"][len(features)]]
            start, end = example["answer_starts"][0], example["answer_starts"][0] + len(example["answers"][0])
            inside = [i for i, (a, b) in enumerate(offsets) if token_type_ids[i] and a < end and b > start]
            feature["start_positions"], feature["end_positions"] = (inside[0], inside[-1]) if inside else (0, 0)
            features.append(feature)
        return features

    if args.steps > 0:  # a timed run: no more than it trains on, since tokenizing in Python takes minutes
        train.new_data = train.new_data[:: max(len(train) // (2 * args.steps * args.batch_size), 1)]
    train = train.map(reading, batched=True) if qa else train.map(classification)
    if not qa:
        dev = dev.map(classification)
    auto_class = AutoModelForQuestionAnswering if qa else AutoModelForSequenceClassification
    model = auto_class.from_pretrained(os.path.abspath(args.model), **({} if qa else {"num_labels": len(labels)}))
    with tempfile.TemporaryDirectory() as folder:
        training_args = TrainingArguments(
            output_dir=folder,
            device="cpu" if not paddle.is_compiled_with_cuda() else "gpu",
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            warmup_ratio=0.1,
            weight_decay=0.01,
            max_steps=args.steps,
            num_train_epochs=args.epochs,
            save_strategy="no",
            logging_steps=50,
            label_names=["start_positions", "end_positions"] if qa else None,
        )
        trainer = Trainer(
            model=model,
            args=training_args,
            data_collator=DataCollatorWithPadding(tokenizer),
            train_dataset=train,
            eval_dataset=dev,
            tokenizer=tokenizer,
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        )
        metrics = trainer.train().metrics
        result = {"samples_per_second": metrics["train_samples_per_second"]}
        if args.score and not qa:
            result["score"] = trainer.evaluate()["eval_accuracy"]
    print("RESULT " + json.dumps(result))


def run(command, **kwargs):
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, **kwargs)


def run_plain(args, dataset, settings, score):
    command = [__file__, "--plain", "--dataset", dataset, "--model", args.model, "--data_dir", args.data_dir]
    command += [part for name, value in settings.items() for part in (f"--{name}", value)]
    done = run([*command, "--score"] if score else command, env=harness.ENVIRONMENT)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not results:
        sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
    return json.loads(results[0].removeprefix("RESULT "))


def run_ours(args, dataset, settings, score):
    ours = {"batch_size": "per_device_train_batch_size", "steps": "max_steps", "epochs": "num_train_epochs"}
    with tempfile.TemporaryDirectory() as folder:
        command = [args.tasks[dataset].script, "--do_train", "--model_name_or_path", args.model, "--dataset", dataset]
        command += ["--data_dir", args.data_dir, "--output_dir", folder, "--logging_steps", 50]
        # Nothing is saved, and the last model is the one that is scored, as with the plain Trainer.
        command += ["--save_strategy", "no", "--load_best_model_at_end", "false", "--weight_decay", 0.01]
        command += ["--warmup_ratio", 0.1, "--per_device_eval_batch_size", settings["batch_size"]]
        command += [part for name, value in settings.items() for part in (f"--{ours.get(name, name)}", value)]
        command += ["--do_eval"] if score else []
        done = run(command, cwd=harness.ROOT)
        if done.returncode:
            sys.exit(done.stderr[-4000:])
        written = Path(folder) / dataset
        speed = json.loads((written / "train_results.json").read_text())["train_samples_per_second"]
        accuracy = json.loads((written / "metrics.json").read_text()).get("accuracy") if score else None
        return {"samples_per_second": speed, "score": accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", metavar="DIR", required=True, help="model folder, e.g. of examples/make_model.py --arch nano")
    add("--data_dir", metavar="DIR", default="examples/data", help="has a folder for each data set (%(default)s)")
    add("--datasets", metavar="NAME", nargs="+", default=["tnews", "cmrc2018"], help="(default: tnews cmrc2018)")
    add("--steps", metavar="N", type=int, default=40, help="optimizer steps per run (default: 40, cmrc2018: 4)")
    add("--repeat", metavar="N", type=int, default=3, help="timed runs of each, in turns (default: %(default)s)")
    add("--score", action="store_true", help="also train whole runs and compare their dev scores")
    add("--batch_size", metavar="N", type=int, help="(default: as published, 32, cmrc2018: 12)")
    add("--max_seq_length", metavar="N", type=int, help="(default: as published, 128, cmrc2018: 512)")
    add("--learning_rate", metavar="N", type=float, default=5e-4, help="large, for a model without pretraining "
        "(default: %(default)s)")  # fmt: skip
    add("--epochs", metavar="N", type=float, default=5, help="of --score (default: %(default)s)")
    for name, kind in (("dataset", str), ("doc_stride", int)):  # of the processes that this one starts
        add(f"--{name}", type=kind, help=argparse.SUPPRESS)
    add("--plain", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.model, args.data_dir = os.path.abspath(args.model), os.path.abspath(args.data_dir)
    if args.plain:
        return plain(args)

    from ernie.tasks import DATA_SETS, SEQ_CLS  # imports Paddle, with its surroundings set up

    args.tasks = {name: row.task for name, row in DATA_SETS.items()}
    rows = []
    for dataset in args.datasets:
        batch_size, length = {"cmrc2018": (12, 512)}.get(dataset, (32, 128))
        settings = {
            "batch_size": args.batch_size or batch_size,
            "max_seq_length": args.max_seq_length or length,
            "doc_stride": 128,
            "learning_rate": args.learning_rate,
            "epochs": args.epochs,
            "steps": max(args.steps // 10, 4) if dataset == "cmrc2018" else args.steps,
        }
        ways = (run_plain, run_ours)
        pairs = [
            [way(args, dataset, settings, False)["samples_per_second"] for way in ways] for _ in range(args.repeat)
        ]
        plain_speed, speed = (statistics.median(column) for column in zip(*pairs))
        ratio = f"**{speed / plain_speed:.2f}** ({', '.join(f'{b / a:.2f}' for a, b in pairs)})"
        lengths = (settings["max_seq_length"], settings["batch_size"])
        rows.append([dataset, *lengths, f"{plain_speed:.1f}", f"{speed:.1f}", ratio])
        if args.score and args.tasks[dataset] is SEQ_CLS:
            plain_score, score = (way(args, dataset, settings | {"steps": -1}, True)["score"] for way in ways)
            print(f"{dataset}, {args.epochs:g} epochs, dev accuracy: plain {100 * plain_score:.1f}, this project "
                  f"{100 * score:.1f}")  # fmt: skip
    print(f"{harness.machine()}\nSamples a second, median of {args.repeat} runs each\n")
    print(harness.markdown(["data set", "length", "batch", "plain Trainer", "this project", "ratio (each pair)"], rows))


if __name__ == "__main__":
    main()
