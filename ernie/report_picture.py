"""The picture of a compression report: score against speed, a point per variant."""

import logging
import os
import warnings

# Fonts are looked for on first use: what it says of that, and of fonts that are not installed, nobody has to act on.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

import matplotlib
from matplotlib.figure import Figure  # no pyplot: nothing here needs a display

from ernie.files import work_folder

INK, PLAIN, ORIGINAL, BEST = "#24292f", "#6ea8fe", "#8c959f", "#1f9d55"
# A data set may have a Chinese name.
FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC", "SimHei"]


def draw_report(report, best, path):
    """Writes a PNG.

    Args:
        report: what compression_report.json holds.
        best: the row of `choose_best`, which is marked, or None.
    """
    rows = report["variants"]
    with matplotlib.rc_context({"font.family": FONTS}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that no font has
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for number, row in enumerate(rows, start=1):
            speed_up = row["speed"][row["engine"]]["speed_up"]
            colour = BEST if row is best else ORIGINAL if row is rows[0] else PLAIN
            place = (speed_up, 100 * row["score"])
            size, order = (16, 4) if row is best else (13, 3)
            axes.plot(*place, "o", color=colour, markersize=size, markeredgecolor="white", zorder=order)
            axes.annotate(str(number), place, ha="center", va="center", color="white", fontsize=8, zorder=order)
            name = f"{number}  {row['variant']}" + (" (best)" if row is best else "")
            height = 1 - (number - 0.5) / max(len(rows), 16)
            style = {"color": INK, "fontsize": 9, "fontweight": "bold" if row is best else "normal"}
            axes.text(1.03, height, name, transform=axes.transAxes, va="center", **style)
        axes.margins(0.1)
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        times = f"times as fast as {rows[0]['variant']}"
        axes.set_xlabel(f"{times}, in batches of 32, with the engine that the predictor takes")
        axes.set_ylabel(f"dev {report['score'].replace('_', ' ')}, %")
        axes.set_title(f"{report['dataset']}: {report['num_examples']} dev examples; {report['machine']}", fontsize=10)
        with work_folder(os.path.dirname(path), "picture") as work:
            part = os.path.join(work, "report.png")
            figure.savefig(part, dpi=120)
            os.replace(part, path)
