"""What compression costs in accuracy on the nine sample data sets: fine-tuned, pruned, quantized, and both.

python benchmarks/compression_accuracy.py [--datasets tnews msra_ner] [--output_dir best_models/quickstart]

Runs `make quickstart`'s program for each data set (fine-tuning, then dynabert+ptq), then --strategy ptq on the same
model, and prints the dev scores of the four models through ONNX Runtime. What is there already is not made anew.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from ernie.tasks import DATA_SETS  # isort: skip  makes the predictor's package importable
from ernie_predictor.commandline import HelpFormatter

VARIANTS = {
    "fine-tuned": "export",
    "width 0.75": "width_mult_0.75",
    "width 0.75, INT8": "width_mult_0.75/mse16_1",
    "INT8": "mse16_1",
}


def run(*command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-4000:])


def scores_of(folder, task):
    """(the scores that the table shows, the one that the average takes), in points."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return "/".join(f"{100 * metrics[name]:.1f}" for name in task.scores), 100 * metrics[task.score]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--datasets", nargs="+", metavar="NAME", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--output_dir", metavar="DIR", default="best_models/quickstart", help="for the models")
    args = parser.parse_args()

    columns = {}
    for dataset in args.datasets:
        output, task = f"{args.output_dir}/{dataset}", DATA_SETS[dataset].task
        run("examples/quickstart.py", "--dataset", dataset, "--output_dir", args.output_dir)
        run(
            *(task.compress_script, "--model_name_or_path", output, "--dataset", dataset),
            *("--data_dir", "examples/data", "--output_dir", output, "--config", "examples/quickstart.yml"),
            *("--strategy", "ptq", "--algo_list", "mse", "--batch_size_list", "16"),
        )
        columns[dataset] = {name: scores_of(ROOT / output / folder, task) for name, folder in VARIANTS.items()}
        print(
            f"{dataset}: " + ", ".join(f"{name} {shown}" for name, (shown, _) in columns[dataset].items()), flush=True
        )

    print(f"\n| Model | AVG | {' | '.join(name.upper() for name in columns)} |")
    print("|---" * (len(columns) + 2) + "|")
    for name in VARIANTS:
        average = sum(column[name][1] for column in columns.values()) / len(columns)
        print(f"| {name} | {average:.1f} | {' | '.join(column[name][0] for column in columns.values())} |")


if __name__ == "__main__":
    main()
