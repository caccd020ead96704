"""The figure of the shortcut audit: accuracy by version, and what decides on swapped films.

It shows numbers alone, and no film.
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from train.data.blanking import CONTROL, SWAPS, VERSIONS
from train.measure.audit_numbers import Audited, AuditNumbers, SwapNumbers

# Okabe-Ito colours, which differ in lightness too.
LOOKS = {
    "teacher": ("teacher", "#0072B2", "o"),
    "student": ("student", "#D55E00", "D"),
    "forest": ("random forest on thumbnails, trained on each version", "0.35", "s"),
}
PULLS = {
    "both": ("both, which agree", "#009E73"),
    "box": ("box around the lungs", "#56B4E9"),
    "neither": ("neither", "0.88"),
    "surroundings": ("surroundings", "#E69F00"),
}
PANELS = tuple(name for name in VERSIONS if name != "box_outline")  # the tables have it
DPI = 160


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 100)


def _draw_version(axes: Axes, audit: AuditNumbers, version: str) -> None:
    axes.axvline(100 * audit.majority, color="0.2", linestyle="--", linewidth=1.2)
    axes.axvline(100 * audit.source_majority, color="0.2", linestyle=":", linewidth=1.4)
    for y, model in enumerate(audit.rows):
        share = model.versions[version].accuracy
        value = 100 * share.value
        _, colour, marker = LOOKS[model.role]
        ends = [100 * share.low, 100 * share.high]
        axes.plot(ends, [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(value, y, marker, color=colour, markersize=7, markeredgecolor="white")
        axes.text(
            value, y - 0.22, f"{value:.0f}",
            ha="center", va="bottom", fontsize=10, bbox={"color": "white", "pad": 0.6},
        )  # fmt: skip
    axes.set_title(fill(VERSIONS[version].name, 14), fontsize=11)
    axes.set_xticks((0, 50, 100))
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    _clean(axes)


def _pulls(swap: SwapNumbers, name: str) -> dict[str, float]:
    """Percent of the films by what the answer goes with, in the order of `PULLS`."""
    if name == CONTROL:
        found = {"both": swap.surroundings.value}
    else:
        found = {"box": swap.box.value, "surroundings": swap.surroundings.value}
    found["neither"] = 1 - sum(found.values())
    return {part: 100 * found[part] for part in PULLS if part in found}


def _draw_swap(axes: Axes, models: Sequence[Audited], name: str) -> None:
    for y, model in enumerate(models):
        left, swap = 0.0, model.swaps.get(name)
        for part, share in (_pulls(swap, name) if swap else {}).items():
            axes.barh(y, share, 0.62, left, color=PULLS[part][1])
            if part != "neither":
                where = left + share / 2
                axes.text(where, y, f"{share:.0f}", ha="center", va="center", fontsize=10)
            left += share
    axes.set_title(fill(f"box {SWAPS[name].name}", 24), fontsize=11)
    axes.set_xticks((0, 50, 100))
    _clean(axes)


def _legend(place, handles: list, columns: int) -> None:
    place.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=10,
        handletextpad=0.5, columnspacing=1.4,
    )  # fmt: skip


def audit_figure(audit: AuditNumbers) -> Figure:
    """Above, accuracy with 95% intervals by version and model; below, swaps.

    audit: of one model or more.
    """
    heights = (2.1 + 0.46 * len(audit.rows), 1.7 + 0.42 * len(audit.models))
    figure = Figure(figsize=(10, sum(heights)), layout="constrained", dpi=DPI)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    above, below = figure.subfigures(2, 1, height_ratios=heights)

    panels = above.subplots(1, len(PANELS), sharey=True)
    for axes, version in zip(panels, PANELS, strict=True):
        _draw_version(axes, audit, version)
    _name_rows(panels[0], audit.rows, 0.75)
    above.suptitle(
        f"{audit.task.name}: accuracy (%) on {len(audit.images):,} test films with lung masks, "
        "95% intervals",
        fontsize=12, fontweight="bold",
    )  # fmt: skip
    handles = [
        Line2D([], [], color=colour, marker=marker, linewidth=2.2, label=label)
        for role, (label, colour, marker) in LOOKS.items()
        if role in {row.role for row in audit.rows}
    ]
    handles += [
        Line2D([], [], color="0.2", linestyle="--", label="majority class"),
        Line2D([], [], color="0.2", linestyle=":", label="majority class of each source"),
    ]
    _legend(above, handles, 3)

    panels = below.subplots(1, len(SWAPS), sharey=True)
    for axes, name in zip(panels, SWAPS, strict=True):
        _draw_swap(axes, audit.models, name)
    _name_rows(panels[0], audit.models, 0.5)
    below.suptitle(
        "The box around the lungs is from another film: what does the answer go with? (% of films)",
        fontsize=12, fontweight="bold",
    )  # fmt: skip
    _legend(below, [Patch(color=colour, label=label) for label, colour in PULLS.values()], 4)
    return figure


def _name_rows(axes: Axes, rows: Sequence[Audited], above: float) -> None:
    names = [fill("Random forest" if row.role == "forest" else row.name, 24) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=11)
    axes.set_ylim(len(rows) - 0.5, -above)


def draw_audit(audit: AuditNumbers, path: Path) -> None:
    """Write the figure as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audit_figure(audit).savefig(path)
