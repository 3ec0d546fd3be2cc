"""The whole way on the sample data: fine-tune, evaluate, predict, export, compress, and answer through ONNX INT8.

python examples/quickstart.py --dataset tnews        (or any other of the nine data sets)

Every command is shown before it runs; the table at the end shows the results and how long each step took.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))
from ernie.tasks import BASELINES, DATA_SETS  # isort: skip  makes the predictor's package importable

from ernie_predictor.answers import marked_up
from ernie_predictor.data_files import read_split

INT8 = "width_mult_0.75/mse16_1"  # the folder that compression is shown with
# What the labels of CLUE's files mean; where a label is not in here, it is a word already.
LABEL_NAMES = {
    "afqmc": {"0": "意思不同", "1": "意思相同"},
    "csl": {"0": "关键词有误", "1": "关键词正确"},
    "tnews": {
        **{"100": "故事", "101": "文化", "102": "娱乐", "103": "体育", "104": "财经", "106": "房产", "107": "汽车"},
        **{"108": "教育", "109": "科技", "110": "军事", "112": "旅游", "113": "国际", "114": "股票", "115": "农业"},
        "116": "游戏",
    },
}


def commands(dataset, output_dir):
    """{step: the arguments of `python` that run it}, in order."""
    task = DATA_SETS[dataset].task
    output = f"{output_dir}/{dataset}"
    data = ("--dataset", dataset, "--data_dir", "examples/data", "--config", "examples/quickstart.yml")
    return {
        "fine-tuned": (
            *(task.script, "--model_name_or_path", "examples/model", *data, "--output_dir", output_dir),
            *("--do_train", "--do_eval", "--do_predict", "--do_export"),
        ),
        "pruned and in INT8": (
            *(task.compress_script, "--model_name_or_path", output, *data, "--output_dir", output),
            *("--strategy", "dynabert+ptq", "--algo_list", "mse", "--batch_size_list", "16"),
        ),
        "answers": (
            *("deploy/predictor/infer_cpu.py", "--precision_mode", "int8"),
            *("--model_path", f"{output}/{INT8}", "--input", f"{output}/two_texts.jsonl"),
        ),
    }


def run(*command, stdout=None):
    """Shows a command, runs it from the repository's root, and returns (seconds it took, its standard output)."""
    print("$ python " + " ".join(command) + (" > /dev/null" if stdout == subprocess.DEVNULL else ""), flush=True)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=stdout, encoding="utf-8")
    if done.returncode:
        sys.exit(done.returncode)
    return time.perf_counter() - start, done.stdout


def two_texts(dataset):
    """The first two examples of the dev set as the predictor takes them."""
    task = DATA_SETS[dataset].task
    _, examples = read_split(task.name, HERE / "data", dataset, "dev")
    items = [task.item(e) for e in examples[:2]]
    return [dict(zip(task.text_names(), (item,) if isinstance(item, str) else item)) for item in items]


def shown(dataset, item, answer):
    """An answer of the predictor for people: entities marked up in their text, labels by name."""
    if isinstance(answer, list):
        return marked_up(item["text"], answer)
    texts = item["question"] if "question" in item else " | ".join(item.values())
    found = answer.get("answer") or label_names(dataset).get(answer["label"], answer["label"])
    return f"{texts} -> {found} ({100 * answer['confidence']:.1f}%)"


def label_names(dataset):
    if dataset == "iflytek":  # 119 of them, which its rows name
        with open(HERE / "data" / dataset / "train.json", encoding="utf-8") as f:
            return {row["label"]: row["label_des"] for row in map(json.loads, f)}
    return LABEL_NAMES.get(dataset, {})


def summary(dataset, output_dir):
    """Rows (what, score, size of model.onnx) of the table at the end."""
    output = ROOT / output_dir / dataset
    metrics = json.loads((output / "export" / "metrics.json").read_text(encoding="utf-8"))
    report = json.loads((output / "compression_report.json").read_text(encoding="utf-8"))
    ((baseline, baseline_score),) = metrics["baseline"].items()
    rows = {row["variant"]: row for row in report["variants"]}  # also those of other commands
    original, int8 = rows["export"], rows[INT8]
    return [
        ("fine-tuned", f"{100 * original['score']:.1f}%", f"{original['megabytes']:.1f} MB"),
        ("pruned and in INT8", f"{100 * int8['score']:.1f}%", f"{int8['megabytes']:.1f} MB"),
        (BASELINES[baseline], f"{100 * baseline_score:.1f}%", ""),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="tnews", choices=sorted(p.name for p in (HERE / "data").iterdir()))
    parser.add_argument("--output_dir", default="best_models/quickstart")
    args = parser.parse_args()
    dataset, row = args.dataset, DATA_SETS[args.dataset]

    if not (HERE / "model" / "model_state.pdparams").exists():
        run("examples/make_model.py", stdout=subprocess.DEVNULL)
    tune, compress, answer = commands(dataset, args.output_dir).values()
    seconds = {"fine-tuned": run(*tune)[0]}
    print()
    # Its table is compression_report.md.
    seconds["pruned and in INT8"], _ = run(*compress, stdout=subprocess.DEVNULL)
    print()
    items = two_texts(dataset)
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
    (ROOT / args.output_dir / dataset / "two_texts.jsonl").write_text("".join(lines), encoding="utf-8")
    _, answers = run(*answer, stdout=subprocess.PIPE)
    for item, line in zip(items, answers.splitlines()):
        print(shown(dataset, item, json.loads(line)))

    score = row.task.score.replace("_", " ")
    print(f"\n{f'{dataset}, sample data (made up)':<36} {f'dev {score}':>15} {'model.onnx':>11} {'time':>6}")
    for name, score, size in summary(dataset, args.output_dir):
        taken = f"{seconds[name]:.0f} s" if name in seconds else ""
        print(f"{name:<36} {score:>15} {size:>11} {taken:>6}".rstrip())
    report = json.loads((ROOT / args.output_dir / dataset / "compression_report.json").read_text(encoding="utf-8"))
    print(f"""{report["advice"]}
A model of 2 layers and width 128 gains little speed; ERNIE 3.0's sizes gain more (README.md). Next:
  python {" ".join(answer[:-1])} FILE    # one text per line
  make quickstart DATASET={"msra_ner" if dataset != "msra_ner" else "cmrc2018"}
  python {row.task.script} --model_name_or_path ernie-3.0-nano-zh --dataset {dataset} --output_dir ./best_models \\
      --do_train --do_eval --do_export --config=configs/default.yml""")


if __name__ == "__main__":
    main()
