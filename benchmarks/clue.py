"""What compression costs: fine-tunes, compresses and scores a model on CLUE's data sets, with every variant and engine.

python benchmarks/clue.py --data_dir DIR --quick                       TNEWS, one seed: half an hour on two cores
python benchmarks/clue.py --data_dir DIR --seeds 42 43 44              every data set that is in DIR
python benchmarks/clue.py --model ernie-3.0-medium-zh --config configs/default.yml --launch "--gpus 0,1"

Without --model it starts from the pretrained encoder that benchmarks/pretrained.py makes. Each variant answers the dev
set through the predictor, and is compared with FP32 text by text: how much the score changes, with its 95% interval,
and how many texts got better and worse. The same command resumes after an interruption: what is finished, and was made
from the same files with the same options, is not made again. <output_dir>/clue.md has the tables, clue.json the
figures.
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

import numpy as np
import yaml
from harness import paired
from tqdm import tqdm

from ernie.files import content_hash, file_hash, write_json, write_text
from ernie.tasks import DATA_SETS

SEED = 42  # PaddleNLP's own
HOURS = 3e-7  # of all steps, for a byte of the training file and an epoch; with the pretrained encoder on two cores
# As published.
COLUMNS = ["afqmc", "tnews", "iflytek", "cmnli", "ocnli", "cluewsc2020", "csl", "cmrc2018", "msra_ner"]
# What is made for each data set: {step: its share of the time}.
STEPS = {"fine-tuned": 0.25, "pruned": 0.4, "quantized": 0.05, "trained in INT8": 0.3}
# {what a variant is called: (its folder, the step that makes it)}.
VARIANTS = {
    "FP32": ("export", "fine-tuned"),
    "width 0.75": ("width_mult_0.75", "pruned"),
    "width 0.75, INT8": ("width_mult_0.75/mse16_1", "pruned"),
    "width 0.75, INT8, tables too": ("width_mult_0.75/mse16_1/quant_emb", "pruned"),
    "INT8": ("mse16_1", "quantized"),
    **{f"INT8, calibrated by {algo}": (f"{algo}16_1", "quantized") for algo in ("KL", "hist", "avg", "abs_max", "emd")},
    "INT8, trained (QAT)": ("qat", "trained in INT8"),
    "INT8, dynamic": ("export", "fine-tuned"),  # quantized by the predictor
}
DYNAMIC = "INT8, dynamic"
# Rows of CLUE's and PaddleNLP's training files, to estimate the time left where the files are not in --data_dir.
ROWS = {
    **{"afqmc": 34_334, "tnews": 53_360, "iflytek": 12_133, "cmnli": 391_783, "ocnli": 50_437, "cluewsc2020": 1_244},
    **{"csl": 20_000, "cmrc2018": 10_142, "msra_ner": 45_000},
}


def commands(args, dataset, seed):
    """{step: the arguments of `python`}."""
    task, output = DATA_SETS[dataset].task, str(folder_of(args, dataset, seed))
    launch = ["-m", "paddle.distributed.launch", *args.launch, "--log_dir", f"{output}/log"] if args.launch else []
    shared = ["--dataset", dataset, "--config", args.config, *(args.script_args or ())]
    shared += ["--data_dir", args.data_dir] if args.data_dir else []
    shared += ["--seed", str(seed)] if seed != SEED else []
    compress = [*launch, task.compress_script, "--model_name_or_path", output, *shared, "--output_dir", output]
    compress += ["--batch_size_list", "16", "--strategy"]
    algorithms = [folder.removesuffix("16_1") for folder, step in VARIANTS.values() if step == "quantized"]
    fine_tune = [*launch, task.script, "--model_name_or_path", args.model, *shared]
    return {
        "fine-tuned": [*fine_tune, "--output_dir", os.path.dirname(output), "--do_train", "--do_eval", "--do_export"],
        "pruned": [*compress, "dynabert+ptq+embeddings", "--algo_list", "mse"],
        "quantized": [*compress, "ptq", "--algo_list", *algorithms],
        "trained in INT8": [*compress, "qat"],
    }


def folder_of(args, dataset, seed):
    return Path(args.output_dir, *([f"seed-{seed}"] if seed != SEED else []), dataset)


def sources(args, dataset):
    """Identity of the files that the models of a data set are made from."""
    folders = [Path(args.data_dir) / dataset] if args.data_dir else []
    folders += [Path(args.model)] if os.path.isdir(args.model) else []
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    return content_hash(*(file_hash(path) for path in (Path(args.config), *files)))


def work(args, dataset):
    """How long the trainings of a data set take: bytes of the training file times epochs."""
    if "--max_steps" in (args.script_args or ()):
        return 1
    with open(args.config, encoding="utf-8") as f:
        config = yaml.safe_load(f)
    task = DATA_SETS[dataset].task
    settings = {**config.get("DefaultArgs", {}), **config.get(task.head, {}).get(dataset, {})}
    epochs = settings.get("num_train_epochs", 3)
    if not args.data_dir:
        return 300 * ROWS[dataset] * epochs  # about so many bytes a row
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


# ------------------------------------------------------------------------------------------------------------- scores


def measure(args, dataset, seed, steps):
    """{variant: {engine: what each dev text adds to the score}}, the engine that the predictor takes first.

    Known ones, of the same model and data, are read from clue_scores.json.
    """
    folder = folder_of(args, dataset, seed)
    record = folder / "clue_scores.json"
    known = read(record) if record.exists() else {}
    data = content_hash(*(file_hash(path) for path in dev_files(args, dataset)))
    found = {}
    for name, (path, step) in VARIANTS.items():
        if step not in steps:
            continue
        identity = content_hash(file_hash(folder / path / "model.onnx"), data, name == DYNAMIC)
        if known.get(name, {}).get("made_from") != identity:
            print(f"{dataset}: {name} answers the dev set", file=sys.stderr)
            counts = harness.apart(answer, dataset, args.data_dir, folder / path, name == DYNAMIC)
            known[name] = {"made_from": identity, "counts": counts}
            write_json(record, known)
        found[name] = {engine: np.array(rows, float) for engine, rows in known[name]["counts"].items()}
    return found


def is_there(folder, step):
    made = (path for path, by in VARIANTS.values() if by == step)
    return all((folder / path / "metrics.json").exists() for path in made)


def dev_files(args, dataset):
    from ernie.data import fetch_split

    if args.data_dir is None:
        return [Path(fetch_split(dataset, "dev"))]
    return sorted(path for path in Path(args.data_dir, dataset).iterdir() if path.stem in ("dev", "test"))


def answer(dataset, data_dir, folder, dynamic):
    """Answers the dev set with each engine; for a process of its own."""
    import paddle
    from ernie_predictor import ErniePredictor
    from ernie_predictor.data_files import read_dev_set, read_file
    from ernie_predictor.runtimes import fastest_engine, installed_engines

    from ernie.data import fetch_split

    paddle.disable_signal_handler()  # which prints a trace when a child of this process ends
    task = DATA_SETS[dataset].task
    if data_dir is None:
        examples = read_file(task.name, fetch_split(dataset, "dev"), dataset, labelled=True)
        items, gold = [task.item(e) for e in examples], [task.gold(e) for e in examples]
    else:
        items, gold = read_dev_set(task.name, data_dir, dataset)
    first = fastest_engine(str(folder / "model.onnx"))
    counts = {}
    for engine in (first, *(name for name in installed_engines() if name != first)):
        predictor = ErniePredictor(folder, backend=engine, precision_mode="int8" if dynamic else "auto")
        counts[engine] = paired.count(predictor.task, predictor.predict(items), gold).tolist()
    return counts


def compared(found):
    """The rows of a data set's table, against FP32 with the engine that the predictor takes for it.

    Args:
        found: of `measure`, of each seed.
    """
    rows = {}
    for name in found[0]:
        engines = [next(iter(of_seed[name])) for of_seed in found]
        ours = np.concatenate([of_seed[name][engine] for of_seed, engine in zip(found, engines)])
        theirs = np.concatenate([next(iter(of_seed["FP32"].values())) for of_seed in found])
        row = {"engine": engines[0], "score": float(paired.score(ours)), **paired.compare(ours, theirs)}
        row["half"], row["other_half"] = (paired.compare(ours[i::2], theirs[i::2]) for i in (0, 1))
        row["engines"] = {
            engine: float(np.mean([paired.score(of_seed[name][engine]) for of_seed in found]))
            for engine in found[0][name]
        }
        rows[name] = row
    return rows


def speeds(args, dataset, seed):
    """{folder of a variant: times as fast as FP32} of the last report, with the engine that the predictor takes."""
    path = folder_of(args, dataset, seed) / "compression_report.json"
    rows = read(path)["variants"] if path.exists() else []
    return {row["variant"]: row["speed"][row["engine"]]["speed_up"] for row in rows}


def table_of(dataset, rows, speed):
    """Markdown of `compared`."""
    cells = []
    for name, row in rows.items():
        changed = f"{row['change']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})" if name != "FP32" else ""
        times = f"{speed[VARIANTS[name][0]]:.2f}x" if name != DYNAMIC and VARIANTS[name][0] in speed else ""
        texts = f"{row['better']}, {row['worse']}" if name != "FP32" else ""
        cells.append([name, f"{100 * row['score']:.2f}", changed, texts, times])
    header = [dataset.upper(), DATA_SETS[dataset].task.score.replace("_", " "), "change, points (95%)"]
    return harness.markdown([*header, "texts better, worse", "batches, times as fast"], cells)


def choice_of(rows, speed, max_drop):
    """Which variant one half of the dev set chooses, as compress_*.py does, and what it costs on the other half."""
    good = [
        name
        for name, row in rows.items()
        if name != DYNAMIC and row["half"]["change"] >= -max_drop and speed.get(VARIANTS[name][0], 0) > 1
    ]
    if not good:
        return f"On one half of the texts no faster variant stays within {max_drop:g} points."
    name = max(good, key=lambda name: speed[VARIANTS[name][0]])
    other = rows[name]["other_half"]
    return (
        f"One half of the texts chooses {name} (within {max_drop:g} points there); on the other half it changes the "
        f"score by {other['change']:+.2f} points ({other['low']:+.2f} to {other['high']:+.2f})."
    )


def averages(found):
    """Markdown: the mean change over data sets of the variants that all of them have, with its interval.

    Args:
        found: {data set: [`measure` of each seed]}.
    """
    names = [name for name in VARIANTS if all(name in of_seed for seeds in found.values() for of_seed in seeds)]
    rows = []
    for name in names[1:]:
        pairs = [
            [np.concatenate([next(iter(of_seed[which].values())) for of_seed in seeds]) for which in (name, "FP32")]
            for seeds in found.values()
        ]
        change = np.mean([100 * (paired.score(ours) - paired.score(theirs)) for ours, theirs in pairs])
        low, high = np.percentile(np.mean([paired.draws(*pair) for pair in pairs], axis=0), [2.5, 97.5])
        rows.append([name, f"{change:+.2f} ({low:+.2f} to {high:+.2f})"])
    return harness.markdown([f"Mean of {', '.join(found)}", "change, points (95%)"], rows)


def main():
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--model", metavar="NAME|DIR", help="to start from: a name on the hub (needs a network), or a folder "
        "(default: what benchmarks/pretrained.py makes)")  # fmt: skip
    add("--datasets", nargs="+", metavar="NAME", choices=COLUMNS, help="in this order (default: those of --data_dir)")
    add("--data_dir", metavar="DIR", help="has a folder for each data set (default: downloaded)")
    add("--config", metavar="FILE", type=harness.existing_file, help="hyperparameters (default: configs/default.yml; "
        "without --model benchmarks/pretrained.yml)")  # fmt: skip
    add("--output_dir", metavar="DIR", default="best_models/clue", help="for models, tables and figures")
    add("--seeds", metavar="N", type=int, nargs="+", default=[SEED], help="of fine-tuning, pruning and QAT: each again")
    add("--quick", action="store_true", help="TNEWS alone, without QAT")
    add("--max_drop", metavar="N", type=float, default=0.5, help="points that the variant may lose which is chosen")
    add("--launch", metavar="OPTIONS", type=shlex.split, help='run the scripts with '
        'paddle.distributed.launch and these options, e.g. "--gpus 0,1"')  # fmt: skip
    add("--script_args", metavar="OPTIONS", type=shlex.split, help='further options of all scripts, e.g. '
        '"--max_steps 4"')  # fmt: skip
    args = parser.parse_args()
    args.config = args.config or (
        "configs/default.yml" if args.model else str(Path(__file__).with_name("pretrained.yml"))
    )
    for name in ("data_dir", "config", "output_dir"):
        if getattr(args, name):
            setattr(args, name, os.path.abspath(getattr(args, name)))
    there = [name for name in COLUMNS if not args.data_dir or (Path(args.data_dir) / name).is_dir()]
    datasets = args.datasets or (["tnews"] if args.quick else there)
    if missing := [name for name in datasets if name not in there]:
        parser.error(f"--data_dir {args.data_dir} has no folder {missing[0]}")
    model = args.model or "multilingual-e5-small in 4 bits, 6 of 12 layers (no ERNIE)"
    if args.model is None:
        args.model = os.path.join(args.output_dir, "pretrained")
        if not os.path.exists(os.path.join(args.model, "config.json")):
            run(["benchmarks/pretrained.py", "--output_dir", args.model])
    if os.path.isdir(args.model):
        args.model = os.path.abspath(args.model)
    steps = [step for step in STEPS if not (args.quick and step == "trained in INT8")]

    runs = [(dataset, seed) for dataset in datasets for seed in args.seeds]
    amounts = {(*one, step): STEPS[step] * work(args, one[0]) for one in runs for step in steps}
    hours = sum(amounts.values()) * HOURS
    print(f"{len(amounts)} steps; about {hours:.1f} hours on two cores for a model of 6 layers of 384", file=sys.stderr)
    done, seconds, number = 0.0, 0.0, 0  # of what this command and the ones before it made
    found, times, figures, tables = {}, {}, {}, {}
    for dataset, seed in runs:
        folder = folder_of(args, dataset, seed)
        record = folder / "clue_steps.json"  # {step: {"made_from": ..., "seconds": ...}}, of what is finished
        finished = read(record) if record.exists() else {}
        before = sources(args, dataset)
        for step in steps:
            number += 1
            command = commands(args, dataset, seed)[step]
            before = content_hash(before, command)
            if finished.get(step, {}).get("made_from") != before or not is_there(folder, step):
                left = tqdm.format_interval(seconds / done * (sum(amounts.values()) - done)) if done else "unknown"
                print(f"[{number}/{len(amounts)}] {dataset}, {step}; time left: {left}", file=sys.stderr)
                print(f"$ python {shlex.join(command)}", file=sys.stderr, flush=True)
                begin = time.monotonic()
                run(command)
                finished[step] = {"made_from": before, "seconds": time.monotonic() - begin}
                write_json(record, finished)
            done += amounts[dataset, seed, step]
            seconds += finished[step]["seconds"]
        times.setdefault(dataset, []).append({step: finished[step]["seconds"] for step in steps})
        found.setdefault(dataset, []).append(measure(args, dataset, seed, steps))
        # After each: what is there is shown, whatever becomes of the rest.
        rows, speed = compared(found[dataset]), speeds(args, dataset, seed)
        figures[dataset] = {"variants": rows, "speed": speed, "seconds": times[dataset]}
        tables[dataset] = f"{table_of(dataset, rows, speed)}\n\n{choice_of(rows, speed, args.max_drop)}"
        machine = harness.machine()
        title = f"{model}; dev sets, seeds {' '.join(map(str, args.seeds))}; {machine}; {seconds / 3600:.1f} hours"
        parts = [title, *tables.values(), *([averages(found)] if len(found) > 1 else [])]
        write_text(Path(args.output_dir) / "clue.md", "\n\n".join(parts) + "\n")
        write_json(Path(args.output_dir) / "clue.json", {"model": model, "machine": machine, "data sets": figures})
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
