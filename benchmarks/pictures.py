"""Draws the pictures of the documents from figures that benchmarks wrote.

python benchmarks/predictor_speed.py --output benchmarks/results/predictor_speed.json
python benchmarks/serving_load.py --output benchmarks/results/serving_load.json
python benchmarks/pictures.py                     docs/images/*.svg, from benchmarks/results/

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
        "SimpleServing, FP32": "PaddleNLP SimpleServing, FP32",
        "server_seq_cls.py, FP32": "this project, FP32",
        "server_seq_cls.py, INT8": "this project, INT8",
        "requests per second": "requests per second",
        "p99": "p99 latency, ms",
        "clients": "clients, each with one text at a time",
        "setup of servers": "ERNIE 3.0 {architecture}'s architecture, TNEWS headlines; {cores} cores of {processor}, "
        "shared by clients and server",
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
        "SimpleServing, FP32": "PaddleNLP SimpleServing，FP32",
        "server_seq_cls.py, FP32": "本项目，FP32",
        "server_seq_cls.py, INT8": "本项目，INT8",
        "requests per second": "每秒请求数",
        "p99": "p99 延迟（毫秒）",
        "clients": "并发客户端数，每个客户端一次发一条文本",
        "setup of servers": "ERNIE 3.0 {architecture} 结构，TNEWS 标题；{processor} {cores} 核，客户端与服务端共用",
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
    save(figure, path)


def draw_servers(figures, words, path):
    """Requests per second and p99 against the number of clients, a line per server."""
    rows = [row for row in figures["loads"] if row["texts"] == "TNEWS"]
    figure, (speed, latency) = plt.subplots(1, 2, figsize=(8.6, 3.7))
    for (name, colour), style in zip(zip(dict.fromkeys(row["server"] for row in rows), COLOURS), ("--", "-", "-")):
        mine = [row for row in rows if row["server"] == name and "200" in row["milliseconds"]]
        clients = [row["clients"] for row in mine]
        speeds = [row["requests_per_second"] for row in mine]
        p99 = [row["milliseconds"]["200"]["p99"] for row in mine]
        for axes, values, above in ((speed, speeds, True), (latency, p99, style == "--")):
            axes.plot(clients, values, style, marker="o", color=colour, label=words[name], linewidth=2, markersize=5)
            for x, y in zip(clients, values):
                axes.annotate(f"{y:,.0f}", (x, y), (0, 6 if above else -13), textcoords="offset points", ha="center",
                              color=INK, fontsize=8)  # fmt: skip
    latency.set_yscale("log")
    clients = sorted({row["clients"] for row in rows})
    for axes, title in ((speed, "requests per second"), (latency, "p99")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(clients, list(map(str, clients)), color=INK, fontsize=9)
        axes.minorticks_off()
        axes.tick_params(length=0, colors=INK, labelsize=8)
        axes.set_xlabel(words["clients"], color=INK, fontsize=8)
        axes.set_title(words[title], color=INK, fontsize=10, loc="left")
        axes.grid(axis="y", color=SOFT, alpha=0.25)
        axes.margins(x=0.12, y=0.18)
        for side in axes.spines.values():
            side.set_visible(False)
    speed.set_ylim(bottom=0)
    figure.legend(*speed.get_legend_handles_labels(), loc="lower center", bbox_to_anchor=(0.5, 0.04), ncols=3,
                  columnspacing=3,
                  frameon=False, labelcolor=INK, fontsize=9)  # fmt: skip
    about = {"architecture": figures["arguments"]["arch"], **figures["machine"]}
    figure.text(0.01, 0.01, words["setup of servers"].format(**about), color=SOFT, fontsize=6.5)
    save(figure, path, bottom=0.13)


def save(figure, path, bottom=0.03):
    figure.tight_layout(rect=(0, bottom, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)
    print(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", metavar="DIR", type=Path, default=ROOT / "benchmarks" / "results",
                        help="that --output of the benchmarks wrote")  # fmt: skip
    parser.add_argument("--output_dir", metavar="DIR", type=Path, default=ROOT / "docs" / "images")
    args = parser.parse_args()
    logging.captureWarnings(True)  # "glyph missing": the reader's browser has the Chinese font, not this machine
    # Fixed ids make the same file of the same figures.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ernie", "font.family": "sans-serif"})
    for results, draw, name in (
        ("predictor_speed.json", draw_speedup, "speedup"),
        ("serving_load.json", draw_servers, "servers"),
    ):
        figures = json.loads((args.results / results).read_text(encoding="utf-8"))
        for language, words in WORDS.items():
            draw(figures, words, args.output_dir / f"{name}{language}.svg")


if __name__ == "__main__":
    main()
