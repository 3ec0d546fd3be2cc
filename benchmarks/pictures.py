"""Draws the pictures of the documents from figures that benchmarks wrote.

python benchmarks/predictor_speed.py --output benchmarks/results/predictor_speed.json
python benchmarks/pictures.py                     docs/images/speedup.svg and speedup_zh.svg, from benchmarks/results/

Text stays text, in the reader's own font, and the background is transparent, for light and dark pages.
"""

import argparse
import json
import logging
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
INK, SOFT = "#7d8590", "#9aa4b2"  # readable on white and on black
COLOURS = ("#9aa4b2", "#6ea8fe", "#2f81f7", "#1f9d55")
PUBLISHED = "published way, FP32"

WORDS = {
    "": {
        "title": "Texts per second from text to prediction, times the published way (Paddle Inference FP32)",
        PUBLISHED: "published way, FP32",
        "predictor, FP32": "this project, FP32",
        "predictor, INT8": "INT8",
        "predictor, width 0.75, INT8": "pruned to 75%, INT8",
        "tnews": "classification\nTNEWS",
        "msra_ner": "named entities\nMSRA_NER",
        "cmrc2018": "reading comprehension\nCMRC2018",
        "setup": "ERNIE 3.0 {architecture}'s architecture, batch size {batch_size}, {machine}",
    },
    "_zh": {
        "title": "从文本到预测结果的吞吐量，相对官方做法（Paddle Inference FP32）的倍数",
        PUBLISHED: "官方做法，FP32",
        "predictor, FP32": "本项目，FP32",
        "predictor, INT8": "INT8",
        "predictor, width 0.75, INT8": "裁剪+INT8",
        "tnews": "文本分类\nTNEWS",
        "msra_ner": "命名实体识别\nMSRA_NER",
        "cmrc2018": "阅读理解\nCMRC2018",
        "setup": "ERNIE 3.0 {architecture} 结构，batch size {batch_size}，{machine}",
    },
}


def draw_speedup(figures, words, path):
    """Bars of texts per second, as multiples of the published way: a group per data set, a bar per model."""
    speeds = figures["texts/s"]
    names = [name for name in words if name in next(iter(speeds.values()))]
    figure, axes = plt.subplots(figsize=(8.6, 3.6))
    width = 0.8 / len(names)
    for place, (name, colour) in enumerate(zip(names, COLOURS)):
        heights = [speeds[dataset][name] / speeds[dataset][PUBLISHED] for dataset in speeds]
        bars = axes.bar([i + (place - 1.5) * width for i in range(len(speeds))], heights, 0.92 * width, color=colour,
                        label=words[name])  # fmt: skip
        axes.bar_label(bars, [f"{height:.1f}x" for height in heights], color=INK, fontsize=9, padding=2)
    axes.set_xticks(range(len(speeds)), [words[dataset] for dataset in speeds], color=INK, fontsize=10)
    axes.tick_params(length=0)
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.margins(x=0.03, y=0.12)
    axes.legend(loc="upper right", frameon=False, labelcolor=INK, fontsize=9)
    axes.set_title(words["title"], color=INK, fontsize=10, loc="left", pad=10)
    figure.text(0.01, 0.01, words["setup"].format(**figures), color=SOFT, fontsize=6.5)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)
    print(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", metavar="DIR", type=Path, default=ROOT / "benchmarks" / "results",
                        help="has predictor_speed.json")  # fmt: skip
    parser.add_argument("--output_dir", metavar="DIR", type=Path, default=ROOT / "docs" / "images")
    args = parser.parse_args()
    logging.captureWarnings(True)  # "glyph missing": the reader's browser has the Chinese font, not this machine
    # Fixed ids make the same file of the same figures.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ernie", "font.family": "sans-serif"})
    figures = json.loads((args.results / "predictor_speed.json").read_text(encoding="utf-8"))
    for language, words in WORDS.items():
        draw_speedup(figures, words, args.output_dir / f"speedup{language}.svg")


if __name__ == "__main__":
    main()
