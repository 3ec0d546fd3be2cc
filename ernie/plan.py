"""What a plan of compression is made of: strategies, algorithms, widths."""

import itertools
import re

from ernie.errors import UsageError

# What --strategy may be: pruning, then one kind of quantization of matrix products, then that of tables.
STRATEGIES = tuple(
    "+".join(filter(None, steps))
    for steps in itertools.product(("", "dynabert"), ("", "ptq", "qat"), ("", "embeddings"))
    if any(steps)
)
ALGORITHMS = ("mse", "KL", "hist", "avg", "abs_max", "min_max", "emd")


def read_widths(texts):
    """The numbers of --width_mult_list."""
    widths = {}
    for text in texts:
        width = read_width(text)
        if width_name(width) in widths:
            raise UsageError(f"--width_mult_list {text}: the folder {width_name(width)} is named twice")
        widths[width_name(width)] = width
    return list(widths.values())


def read_width(text):
    """A share of 1 as a float, from a decimal ("0.75") or a fraction ("2/3"): PaddleNLP would eval() it."""
    match = re.fullmatch(r"\s*(\d*\.?\d+)\s*(?:/\s*(\d*\.?\d+)\s*)?", str(text))
    width = float(match[1]) / float(match[2] or 1) if match and float(match[2] or 1) else 0.0
    if not 0.0001 <= width <= 1:
        raise UsageError(f"--width_mult_list {text}: expected a number above 0 and up to 1, such as 0.75 or 2/3")
    return width


def width_name(width_mult):
    """The folder of a width: width_mult_0.75 as in PaddleNLP, but with four digits, width_mult_0.6667."""
    return f"width_mult_{round(width_mult, 4)}"
