"""Fine-tunes, compresses and scores a model on the nine data sets; prints the table of the published scores.

python benchmarks/clue.py --model ernie-3.0-medium-zh --output_dir best_models/clue
python benchmarks/clue.py --model ernie-3.0-medium-zh --output_dir best_models/clue --launch "--gpus 0,1"

Each data set is fine-tuned with the hyperparameters of --config, pruned and quantized, and quantized alone; the scores
are those of the four models on the dev set, through ONNX. The same command resumes after an interruption: what is
finished, and was made from the same files with the same options, is not made again. The table is in
<output_dir>/clue.md and clue.json.
"""

import harness  # isort: skip  makes the project's packages importable

import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml
from tqdm import tqdm

from ernie.files import content_hash, file_hash, write_json, write_text
from ernie.tasks import DATA_SETS

# As published.
COLUMNS = ["afqmc", "tnews", "iflytek", "cmnli", "ocnli", "cluewsc2020", "csl", "cmrc2018", "msra_ner"]
VARIANTS = {
    "FP32": "export",
    "width 0.75": "width_mult_0.75",
    "width 0.75, INT8": "width_mult_0.75/mse16_1",
    "INT8": "mse16_1",
}
# What is made for each data set: (step, its share of the time, the folder that it makes last).
STEPS = (("fine-tuned", 0.3, "export"), ("pruned", 0.6, "width_mult_0.75/mse16_1"), ("quantized", 0.1, "mse16_1"))
# Rows of CLUE's and PaddleNLP's training files, to estimate the time left where the files are not in --data_dir.
ROWS = {
    **{"afqmc": 34_334, "tnews": 53_360, "iflytek": 12_133, "cmnli": 391_783, "ocnli": 50_437, "cluewsc2020": 1_244},
    **{"csl": 20_000, "cmrc2018": 10_142, "msra_ner": 45_000},
}


def commands(args, dataset):
    """{step: the arguments of `python`}."""
    task, output = DATA_SETS[dataset].task, f"{args.output_dir}/{dataset}"
    launch = ["-m", "paddle.distributed.launch", *args.launch, "--log_dir", f"{output}/log"] if args.launch else []
    shared = ["--dataset", dataset, "--config", args.config]
    shared += ["--data_dir", args.data_dir] if args.data_dir else []
    compress = [*launch, task.compress_script, "--model_name_or_path", output, *shared, "--output_dir", output]
    compress += ["--algo_list", "mse", "--batch_size_list", "16", "--strategy"]
    return {
        "fine-tuned": [
            *(*launch, task.script, "--model_name_or_path", args.model, *shared, "--output_dir", args.output_dir),
            *("--do_train", "--do_eval", "--do_export", *(args.script_args or ())),
        ],
        "pruned": [*compress, "dynabert+ptq", *(args.script_args or ())],
        "quantized": [*compress, "ptq", *(args.script_args or ())],
    }


def sources(args, dataset):
    """Identity of the files that the models of a data set are made from."""
    folders = [Path(args.data_dir) / dataset] if args.data_dir else []
    folders += [Path(args.model)] if os.path.isdir(args.model) else []
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    return content_hash(*(file_hash(path) for path in (Path(args.config), *files)))


def work(args, dataset):
    """How long the trainings of a data set take, in no unit: training texts times epochs."""
    if "--max_steps" in (args.script_args or ()):
        return 1
    with open(args.config, encoding="utf-8") as f:
        config = yaml.safe_load(f)
    task = DATA_SETS[dataset].task
    settings = {**config.get("DefaultArgs", {}), **config.get(task.head, {}).get(dataset, {})}
    epochs = settings.get("num_train_epochs", 3)
    if not args.data_dir:
        return ROWS[dataset] * epochs
    return sum(path.stat().st_size for path in (Path(args.data_dir) / dataset).glob("train.*")) * epochs


def run(command):
    """Runs a script; its messages go to standard error. It ends with this program, even if that is killed."""
    end_with_parent = 1  # PR_SET_PDEATHSIG of Linux
    libc = ctypes.CDLL(None)
    try:
        status = subprocess.run(
            [sys.executable, *command],
            cwd=harness.ROOT,
            env=harness.ENVIRONMENT,
            stdout=sys.stderr,
            preexec_fn=lambda: libc.prctl(end_with_parent, signal.SIGTERM),
        ).returncode
    except KeyboardInterrupt:
        sys.exit(130)
    if status:
        print(f"clue.py: error: the script failed with exit status {status}; the same command resumes", file=sys.stderr)
        sys.exit(status if status > 0 else 1)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def table_of(scores):
    """Markdown: a row for each variant, a column for each data set that has all of them.

    Args:
        scores: {data set: {variant: metrics}}.
    """
    rows = []
    for variant in VARIANTS:
        average = sum(scores[name][variant][DATA_SETS[name].task.score] for name in scores) / len(scores)
        cells = [
            "/".join(f"{100 * found[variant][score]:.2f}" for score in DATA_SETS[name].task.scores)
            for name, found in scores.items()
        ]
        rows.append([variant, f"{100 * average:.2f}", *cells])
    return harness.markdown(["Model", "AVG", *(name.upper() for name in scores)], rows) + "\n"


def main():
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--model", metavar="NAME|DIR", default="ernie-3.0-medium-zh", help="to start from: a name on the hub (needs a "
        "network), or a folder")  # fmt: skip
    add("--datasets", nargs="+", metavar="NAME", choices=COLUMNS, default=COLUMNS, help="in this order")
    add("--data_dir", metavar="DIR", help="has a folder for each data set (default: downloaded)")
    add("--config", metavar="FILE", type=harness.existing_file, default="configs/default.yml", help="hyperparameters")
    add("--output_dir", metavar="DIR", default="best_models/clue", help="for models, table and figures")
    add("--launch", metavar="OPTIONS", type=shlex.split, help='run the scripts with '
        'paddle.distributed.launch and these options, e.g. "--gpus 0,1"')  # fmt: skip
    add("--script_args", metavar="OPTIONS", type=shlex.split, help='further options of all scripts, e.g. '
        '"--max_steps 4"')  # fmt: skip
    args = parser.parse_args()
    for name in ("data_dir", "config", "output_dir"):
        if getattr(args, name):
            setattr(args, name, os.path.abspath(getattr(args, name)))
    model = args.model
    if os.path.isdir(model):
        args.model = os.path.abspath(args.model)
    for dataset in args.datasets if args.data_dir else ():
        if not (Path(args.data_dir) / dataset).is_dir():
            parser.error(f"--data_dir {args.data_dir} has no folder {dataset}")

    amounts = {(d, step): share * work(args, d) for d in args.datasets for step, share, _ in STEPS}
    done, seconds = 0.0, 0.0  # of what this command and the ones before it made
    scores, times = {}, {}
    for dataset in args.datasets:
        folder = Path(args.output_dir) / dataset
        record = folder / "clue_steps.json"  # {step: {"made_from": ..., "seconds": ...}}, of what is finished
        steps = read(record) if record.exists() else {}
        before = sources(args, dataset)
        for number, (step, _, made) in enumerate(STEPS, 1 + len(STEPS) * len(scores)):
            command = commands(args, dataset)[step]
            before = content_hash(before, command)
            if steps.get(step, {}).get("made_from") != before or not (folder / made / "metrics.json").exists():
                left = tqdm.format_interval(seconds / done * (sum(amounts.values()) - done)) if done else "unknown"
                print(f"[{number}/{len(amounts)}] {dataset}, {step}; time left: {left}", file=sys.stderr)
                print(f"$ python {shlex.join(command)}", file=sys.stderr, flush=True)
                begin = time.monotonic()
                run(command)
                steps[step] = {"made_from": before, "seconds": time.monotonic() - begin}
                write_json(record, steps)
            done += amounts[dataset, step]
            seconds += steps[step]["seconds"]
        scores[dataset] = {variant: read(folder / made / "metrics.json") for variant, made in VARIANTS.items()}
        times[dataset] = {step: steps[step]["seconds"] for step, *_ in STEPS}
        # After each data set: what is there is shown, whatever becomes of the rest.
        machine = harness.machine()
        title = f"{model}, dev scores; {machine}"
        write_text(Path(args.output_dir) / "clue.md", f"{title}\n\n{table_of(scores)}")
        figures = {"model": model, "machine": machine, "scores": scores, "seconds": times}
        write_json(Path(args.output_dir) / "clue.json", figures)
    print(f"{title}\n\n{table_of(scores)}", end="")


if __name__ == "__main__":
    main()
