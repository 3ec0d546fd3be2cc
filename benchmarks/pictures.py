"""Draws the pictures of the documents from figures that benchmarks wrote.

python benchmarks/predictor_speed.py --output benchmarks/results/predictor_speed.json
python benchmarks/serving_load.py --output benchmarks/results/serving_load.json
python benchmarks/choose_model.py
python benchmarks/pictures.py                     docs/images/*.svg, from benchmarks/results/

Text stays text, in the reader's own font, and the background is transparent, for light and dark pages.
"""

import argparse
import functools
import itertools
import json
import logging
import math
import sys
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


# Of the models of choose_model.py: (colour, marker).
FAMILIES = {
    "ERNIE 3.0": ("#2f81f7", "o"),
    "ERNIE": ("#1f9d55", "s"),
    "HFL": ("#d9822b", "^"),
    "UER": ("#c2568f", "v"),
    "TinyBERT": ("#8b6fd6", "D"),
    "BERT, Mengzi": ("#7d8590", "X"),
}
LOWEST = 60  # average that is drawn to scale
CHOICE_WORDS = {
    "": {
        "fp32": "in FP32",
        "int8": "in INT8",
        "pruned_int8": "pruned to 75% and in INT8",
        "title": "Which model is the best at which speed: models {precision}",
        "x": "latency, ms per batch",
        "y": "CLUE average, published for FP32",
        "panel": "batch size {batch_size}, threads: {threads}",
        "ERNIE": "other ERNIE",
        "front": "no other model is better and as fast",
        "setup": "{length} tokens per text, random weights; {cores} cores of {processor}, {engine}. "
        "Labels: millions of parameters; ↓ a score below the axis.",
        "loss": "\nThe average is that of the FP32 models. "
        "Published loss of this compression on ERNIE 3.0 Medium: {loss:.2f} points.",
    },
    "_zh": {
        "fp32": "FP32",
        "int8": "INT8",
        "pruned_int8": "裁剪到 75% + INT8",
        "title": "效果-时延图：{precision} 模型",
        "x": "每个 batch 的时延（毫秒）",
        "y": "CLUE 平均分（公开的 FP32 成绩）",
        "panel": "batch size {batch_size}，线程数 {threads}",
        "ERNIE": "其他 ERNIE",
        "BERT, Mengzi": "BERT、孟子",
        "front": "同样快的模型中没有更好的",
        "setup": "每条文本 {length} 个 token，随机参数；{processor} {cores} 核，{engine}。"
        "标签为参数量（M 表示百万），↓ 为低于坐标轴的分数。",
        "loss": "\n平均分是 FP32 模型的；ERNIE 3.0 Medium 这样压缩后，公开的下降为 {loss:.2f} 分。",
    },
}


def look_of(axes, sides=(), **ticks):
    """Axes with lines at some sides only."""
    axes.tick_params(**(ticks if sides else {"length": 0, **ticks}), colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in sides)
        spine.set_color(SOFT)


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
    axes.set_yticks([])
    look_of(axes)
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
        axes.set_xlabel(words["clients"], color=INK, fontsize=8)
        axes.set_title(words[title], color=INK, fontsize=10, loc="left")
        axes.grid(axis="y", color=SOFT, alpha=0.25)
        axes.margins(x=0.12, y=0.18)
        look_of(axes, labelsize=8)
    speed.set_ylim(bottom=0)
    figure.legend(*speed.get_legend_handles_labels(), loc="lower center", bbox_to_anchor=(0.5, 0.04), ncols=3,
                  columnspacing=3,
                  frameon=False, labelcolor=INK, fontsize=9)  # fmt: skip
    about = {"architecture": figures["arguments"]["arch"], **figures["machine"]}
    figure.text(0.01, 0.01, words["setup of servers"].format(**about), color=SOFT, fontsize=6.5)
    save(figure, path, bottom=0.13)


def draw_choice(results, words, path, precision):
    """Score against latency, a point per model: a row of panels per batch size, one per number of threads."""
    rows = [row for row in results["latencies"] if row["precision"] == precision]
    if not rows:
        print(f"choose_model.json has no figures of {precision}: no {path.name}", file=sys.stderr)
        return
    latency = {(r["architecture"], r["batch_size"], r["threads"]): r["milliseconds"]["median"] for r in rows}
    sizes, threads = ({row[key] for row in rows} for key in ("batch_size", "threads"))
    figure, panels = plt.subplots(
        len(sizes), len(threads), figsize=(8.6, 4.2 * len(sizes)), sharex="row", sharey=True, squeeze=False
    )
    for line, batch_size in zip(panels, sorted(sizes, reverse=True)):
        times = [row["milliseconds"]["median"] for row in rows if row["batch_size"] == batch_size]
        line[0].set_xscale("log")
        line[0].set_xlim(min(times) / 2, max(times) * 2.5)
        line[0].set_ylabel(words["y"], color=INK, fontsize=8)
        for axes, number in zip(line, sorted(threads)):
            points = {
                name: (latency[key], model["average"])
                for name, model in ((model["name"], model) for model in results["models"])
                if (key := (model["architecture"], batch_size, number)) in latency
            }
            draw_models(axes, points, {model["name"]: model for model in results["models"]})
            axes.set_title(words["panel"].format(batch_size=batch_size, threads=number), color=INK, fontsize=9)
            axes.set_xlabel(words["x"], color=INK, fontsize=8)
            axes.xaxis.set_major_formatter("{x:,g}")
            axes.grid(color=SOFT, alpha=0.25, linewidth=0.5)
            look_of(axes, ("left", "bottom"), labelsize=8, which="both")
    handles = [plt.Line2D([], [], linestyle="", color=c, marker=m, label=words.get(name, name))
               for name, (c, m) in FAMILIES.items()]  # fmt: skip
    handles.append(plt.Line2D([], [], color=SOFT, linewidth=1, label=words["front"]))
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.005, 0.975), ncols=len(handles), frameon=False,
                  labelcolor=INK, fontsize=8, columnspacing=1.8, handletextpad=0.3)  # fmt: skip
    figure.suptitle(
        words["title"].format(precision=words[precision]), color=INK, fontsize=10, x=0.015, y=0.99, ha="left"
    )
    loss = results["loss"][precision]
    below = words["setup"].format(**results["machine"], **results) + (words["loss"].format(loss=loss) if loss else "")
    figure.text(0.015, 0.008, below, color=SOFT, fontsize=6.5)
    save(figure, path, top=0.955)


def draw_models(axes, points, models):
    """Points, their labels, and the line through the best models of each speed."""
    best, front = LOWEST, []
    for place in sorted(points.values(), key=lambda place: (place[0], -place[1])):
        if place[1] > best:
            best = place[1]
            front.append(place)
    axes.plot(*zip(*front), color=SOFT, linewidth=1, zorder=1)
    # The scores of the smallest are far below: they lie on the edge, with the score in the label.
    points = {name: (x, max(y, LOWEST)) for name, (x, y) in points.items()}
    for name, place in points.items():
        family = models[name]["family"]
        colour, marker = FAMILIES[family]
        axes.plot(*place, marker, color=colour, markersize=5,
                  zorder=3 if family == "ERNIE 3.0" else 2)  # fmt: skip
    axes.set_ylim(LOWEST - 0.5, 80.5)
    # Each label goes where it covers nothing, as near to its point as it can; those of ERNIE 3.0 go first, to the left.
    axes.figure.canvas.draw()
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in axes.transData.transform(list(points.values()))]
    for name in sorted(points, key=lambda name: (models[name]["family"] != "ERNIE 3.0", -points[name][1])):
        ours = models[name]["family"] == "ERNIE 3.0"
        colour, _ = FAMILIES[models[name]["family"]]
        text = (name.split("-")[2].capitalize() + " " if ours else "") + f"{models[name]['parameters']}M"
        text += f" ↓{models[name]['average']:.1f}" if models[name]["average"] < LOWEST else ""
        x, y = axes.transData.transform(points[name])
        wide, high = (4.9 if ours else 4.4) * len(text), 7.5
        angles = (180, 160, 140, 120, 90) if ours else (0, 20, -20, 40, -40, 60, 90, -60, -90, 120, -120)
        for distance, angle in itertools.product(range(7, 90, 4), angles):
            dx, dy = distance * math.cos(math.radians(angle)), distance * math.sin(math.radians(angle))
            left = x + dx - (wide if ours else wide / 2 if angle % 180 == 90 else 0)
            box = (left, y + dy - high / 2, left + wide, y + dy + high / 2)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                break
        taken.append(box)
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(text, points[name], (left - x, dy), textcoords="offset points", va="center", fontsize=7,
                      color=colour, fontweight="bold" if ours else "normal",
                      arrowprops=line if distance > 10 else None)  # fmt: skip


def save(figure, path, bottom=0.03, top=1):
    figure.tight_layout(rect=(0, bottom, 1, top))
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
    for results, draw, texts, name in (
        ("predictor_speed.json", draw_speedup, WORDS, "speedup"),
        ("serving_load.json", draw_servers, WORDS, "servers"),
        *(
            ("choose_model.json", functools.partial(draw_choice, precision=name), CHOICE_WORDS, f"choose_model_{name}")
            for name in ("fp32", "int8", "pruned_int8")
        ),
    ):
        if not (args.results / results).exists():
            print(f"{args.results / results} is not there: no {name}", file=sys.stderr)
            continue
        figures = json.loads((args.results / results).read_text(encoding="utf-8"))
        for language, words in texts.items():
            draw(figures, words, args.output_dir / f"{name}{language}.svg")


if __name__ == "__main__":
    main()
