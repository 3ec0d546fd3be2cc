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
DATASETS = ["afqmc", "tnews", "iflytek", "cmnli", "ocnli", "cluewsc2020", "csl", "cmrc2018", "msra_ner"]
SCRIPTS = {"msra_ner": "compress_token_cls.py", "cmrc2018": "compress_qa.py"}
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


def scores_of(folder):
    """The scores that the table shows, and the one that the average takes, in points."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for names in (("exact_match", "f1"), ("precision", "recall", "f1"), ("accuracy",)):
        if names[0] in metrics:
            shown = "/".join(f"{100 * metrics[name]:.1f}" for name in names)
            return shown, 100 * metrics["exact_match" if names[0] == "exact_match" else names[-1]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--output_dir", default="best_models/quickstart")
    args = parser.parse_args()

    columns = {}
    for dataset in args.datasets:
        output = f"{args.output_dir}/{dataset}"
        run("examples/quickstart.py", "--dataset", dataset, "--output_dir", args.output_dir)
        run(
            *(SCRIPTS.get(dataset, "compress_seq_cls.py"), "--model_name_or_path", output, "--dataset", dataset),
            *("--data_dir", "examples/data", "--output_dir", output, "--config", "examples/quickstart.yml"),
            *("--strategy", "ptq", "--algo_list", "mse", "--batch_size_list", "16"),
        )
        columns[dataset] = {name: scores_of(ROOT / output / folder) for name, folder in VARIANTS.items()}
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
