"""The whole way on the sample data: fine-tune, evaluate, predict, export, compress, and answer through ONNX INT8.

python examples/quickstart.py --dataset tnews        (or any other of the nine data sets)

Every command is shown before it runs; the table at the end shows the results and how long each step took.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))
from ernie.tasks import DATA_SETS

# What the table calls the trivial baseline that metrics.json puts beside a score.
BASELINES = {
    "majority_class": "always the commonest label",
    "f1_of_all_O": "no entity anywhere",
    "question_blind": "the best that ignores the question",
}


def commands(dataset, output_dir):
    """{step: the arguments of `python` that run it}, in order."""
    task = DATA_SETS[dataset].task
    output = f"{output_dir}/{dataset}"
    data = ("--dataset", dataset, "--data_dir", "examples/data", "--config", "examples/quickstart.yml")
    return {
        "fine-tune, evaluate, predict, export": (
            *(task.script, "--model_name_or_path", "examples/model", *data, "--output_dir", output_dir),
            *("--do_train", "--do_eval", "--do_predict", "--do_export"),
        ),
        "prune to 3/4 of the width, quantize, measure": (
            *(task.compress_script, "--model_name_or_path", output, *data, "--output_dir", output),
            *("--strategy", "dynabert+ptq", "--algo_list", "mse", "--batch_size_list", "16"),
        ),
        "two answers through ONNX, INT8": (
            *("deploy/predictor/infer_cpu.py", "--precision_mode", "int8"),
            *("--model_path", f"{output}/width_mult_0.75/mse16_1"),
        ),
    }


def run(*command):
    """Shows a command, runs it from the repository's root, and returns the seconds it took."""
    print("\n$ python " + " ".join(command), flush=True)
    start = time.perf_counter()
    status = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
    if status:
        sys.exit(status)
    return time.perf_counter() - start


def summary(dataset, output_dir):
    """Rows (what, value) of the table at the end."""
    output = ROOT / output_dir / dataset
    metrics = json.loads((output / "export" / "metrics.json").read_text(encoding="utf-8"))
    report = json.loads((output / "compression_report.json").read_text(encoding="utf-8"))
    score = DATA_SETS[dataset].task.score
    ((baseline, baseline_score),) = metrics["baseline"].items()
    original, int8 = report["variants"][0], report["variants"][-1]
    engine = int8["fastest_engine"]
    return [
        (f"dev {score.replace('_', ' ')}, {metrics['num_examples']} examples", f"{100 * original['score']:.1f}"),
        ("  pruned and in INT8", f"{100 * int8['score']:.1f}"),
        (f"  {BASELINES[baseline]}", f"{100 * baseline_score:.1f}"),
        ("model.onnx", f"{original['megabytes']:.1f} MB"),
        ("  pruned and in INT8", f"{int8['megabytes']:.1f} MB"),
        (f"  times as many texts/s ({engine})", f"{int8['speed'][engine]['speed_up']:.1f}"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="tnews", choices=sorted(p.name for p in (HERE / "data").iterdir()))
    parser.add_argument("--output_dir", default="best_models/quickstart")
    args = parser.parse_args()

    seconds = {}
    if not (HERE / "model" / "model_state.pdparams").exists():
        seconds["make the untrained sample model"] = run("examples/make_model.py")
    steps = commands(args.dataset, args.output_dir)
    for step, command in steps.items():
        seconds[step] = run(*command)

    print(f"\n{args.dataset}, sample data, a 2-layer ERNIE trained from scratch on {os.cpu_count()} cores")
    for name, value in [*summary(args.dataset, args.output_dir), *((k, f"{v:.0f} s") for k, v in seconds.items())]:
        print(f"  {name:<45} {value:>9}")
    script = DATA_SETS[args.dataset].task.script
    print(f"""
Next:
  python {" ".join(command)} --input FILE    # texts of your own, one per line
  make quickstart DATASET={"msra_ner" if args.dataset != "msra_ner" else "cmrc2018"}
  python {script} --model_name_or_path ernie-3.0-nano-zh --dataset {args.dataset} --output_dir ./best_models \
      --do_train --do_eval --do_export --config=configs/default.yml""")


if __name__ == "__main__":
    main()
