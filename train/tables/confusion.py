"""A checkpoint's confusion matrix, drawn."""

import textwrap
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from kdmodels.tasks import Task

WRAP = 16  # letters in a line of a class name
INCHES_PER_CLASS = 1.05
DPI = 110
COLOURS = "Blues"


def draw_confusion(counts: list[list[int]], task: Task, title: str, file: Path) -> None:
    """Write a PNG: counts in the cells, and the share of the row (of the true class) as colour."""
    counts = np.array(counts)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    names = [textwrap.fill(name, WRAP) for name in task.class_names]
    side = INCHES_PER_CLASS * len(names)
    figure = Figure(figsize=(side, side), dpi=DPI)
    axis = figure.add_axes((0, 0, 1, 1))  # labels stand around it; the tight box holds them
    axis.imshow(shares, cmap=COLOURS, vmin=0, vmax=1)
    for (true, called), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else "0.15"
        axis.text(
            called, true - 0.08, f"{counts[true, called]:,}", color=colour,
            ha="center", va="center", fontsize=13,
            fontweight="bold" if true == called else "normal",
        )  # fmt: skip
        axis.text(
            called, true + 0.24, f"{share:.0%}", color=colour, ha="center", va="center", fontsize=8
        )
    axis.set_xticks(range(len(names)), names, fontsize=8.5)
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.set_xlabel("answer", color="0.35")
    axis.set_ylabel("true class", color="0.35")
    axis.set_title(title, fontsize=11, pad=12)
    # White lines between the cells, and no frame.
    axis.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2.5)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)
    drawn, small = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight", pad_inches=0.12)
    Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(
        small, "PNG", optimize=True
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(small.getvalue())
