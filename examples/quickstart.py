"""The whole way on the sample data: fine-tune, evaluate, predict, export, compress, and answer through ONNX INT8.

python examples/quickstart.py --dataset tnews        (or any other of the nine data sets)

Every command is shown before it runs; the last table says what came out and how long it took.
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
SCRIPTS = {"msra_ner": "run_token_cls.py", "cmrc2018": "run_qa.py"}
SCORES = {"msra_ner": "f1", "cmrc2018": "exact_match"}
# How each score's trivial baseline, beside which metrics.json puts it, is called in the table.
BASELINES = {
    "majority_class": "always the commonest label",
    "f1_of_all_O": "no entity anywhere",
    "question_blind": "the best that ignores the question",
}


def run(*command):
    """Shows a command, runs it from the repository's root, and returns the seconds it took."""
    print("\n$ python " + " ".join(command), flush=True)
    start = time.perf_counter()
    status = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
    if status:
        sys.exit(status)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="tnews", choices=sorted(p.name for p in (HERE / "data").iterdir()))
    parser.add_argument("--output_dir", default="best_models/quickstart")
    args = parser.parse_args()
    script = SCRIPTS.get(args.dataset, "run_seq_cls.py")
    arguments = ["--dataset", args.dataset, "--data_dir", "examples/data", "--output_dir", args.output_dir]
    output = f"{args.output_dir}/{args.dataset}"
    compressed = f"{output}/width_mult_0.75/mse16_1"

    seconds = {}
    if not (HERE / "model" / "model_state.pdparams").exists():
        seconds["make the untrained sample model"] = run("examples/make_model.py")
    seconds["fine-tune, evaluate, predict, export"] = run(
        *(script, "--model_name_or_path", "examples/model", *arguments),
        *("--do_train", "--do_eval", "--do_predict", "--do_export", "--config", "examples/quickstart.yml"),
    )
    seconds["prune to 3/4 of the width, quantize, measure"] = run(
        *(script.replace("run_", "compress_"), "--model_name_or_path", output, *arguments[:-1], output),
        *("--strategy", "dynabert+ptq", "--algo_list", "mse", "--batch_size_list", "16"),
        *("--config", "examples/quickstart.yml"),
    )
    seconds["one answer through ONNX Runtime, INT8"] = run("examples/answer.py", compressed)

    with open(ROOT / output / "export" / "metrics.json", encoding="utf-8") as f:
        metrics = json.load(f)
    with open(ROOT / output / "compression_report.json", encoding="utf-8") as f:
        report = json.load(f)
    score = SCORES.get(args.dataset, "accuracy")
    ((baseline, baseline_score),) = metrics["baseline"].items()
    original, int8 = report["variants"][0], report["variants"][-1]
    speed = int8["speed"][report["engines"][0]]
    print(f"\n{args.dataset}, sample data, a 2-layer ERNIE trained from scratch on {os.cpu_count()} cores")
    rows = [
        (f"dev {score.replace('_', ' ')}, {metrics['num_examples']} examples", f"{100 * original['score']:.1f}"),
        ("  pruned and in INT8", f"{100 * int8['score']:.1f}"),
        (f"  {BASELINES[baseline]}", f"{100 * baseline_score:.1f}"),
        ("model.onnx", f"{original['megabytes']:.1f} MB"),
        ("  pruned and in INT8", f"{int8['megabytes']:.1f} MB"),
        ("  times as many texts a second", f"{speed['speed_up']:.1f}"),
        *((step, f"{time:.0f} s") for step, time in seconds.items()),
    ]
    for name, value in rows:
        print(f"  {name:<45} {value:>9}")
    print(f"""
Next:
  python examples/answer.py {compressed} -    # texts of your own, one a line
  make quickstart DATASET={"msra_ner" if args.dataset != "msra_ner" else "cmrc2018"}
  {_first_real_command(script, args.dataset)}""")


def _first_real_command(script, dataset):
    return (
        f"python {script} --model_name_or_path ernie-3.0-nano-zh --dataset {dataset} --output_dir ./best_models "
        "--do_train --do_eval --do_export --config=configs/default.yml"
    )


if __name__ == "__main__":
    main()
