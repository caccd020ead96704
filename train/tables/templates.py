"""The templates of all tables, and how numbers look in them: Jinja filters, each with one job."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from kdmodels.models.checkpoints import Checkpoint
from kdmodels.models.zoo import get_spec
from train.measure.differences import Difference
from train.measure.kept import KeptRun
from train.measure.resampling import Estimate

FOLDER = Path(__file__).parent / "templates"


def row(*cells: object) -> str:
    """A row of a table. A list or tuple among the cells is several of them."""
    return "| " + " | ".join(map(str, _spread(cells))) + " |"


def head(*cells: object) -> str:
    """The first row of a table, and the line below it."""
    return f"{row(*cells)}\n{row(['---'] * len(_spread(cells)))}"


def _spread(cells: Sequence[object]) -> list[object]:
    return [one for cell in cells for one in (cell if isinstance(cell, list | tuple) else [cell])]


def percent(share: Estimate | float) -> str:
    """`76.7 (72.9 to 80.3)` of a share with its interval, or `76.7`; or that it has no value."""
    if not isinstance(share, Estimate):
        return f"{100 * share:.1f}"
    if not share.known:
        return "none predicted"
    return f"{100 * share.value:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def points(change: Estimate | float) -> str:
    """`+1.6 (-1.1 to +4.3)` of a difference of shares, in percentage points; or `+1.6`."""
    if not isinstance(change, Estimate):
        return f"{100 * change:+.1f}"
    return f"{100 * change.value:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"


def decimals(number: Estimate, form: str = ".2f") -> str:
    """`0.26 (0.16 to 0.35)` of a number that is no share."""
    if not number.known:
        return "all maps are flat"
    return f"{number.value:{form}} ({number.low:{form}} to {number.high:{form}})"


def mean_and_range(shares: Sequence[float]) -> str:
    """`79.1 (78.3 to 79.8)`, in percent; one alone without a range."""
    mean = f"{100 * sum(shares) / len(shares):.1f}"
    if len(shares) == 1:
        return mean
    return f"{mean} ({100 * min(shares):.1f} to {100 * max(shares):.1f})"


def by_seed(change: Difference, place: int = 0) -> str:
    """`+1.0 (seed 0); +3.0 (seed 1)`; place: 0 for accuracy, 1 for macro-F1."""
    return "; ".join(
        f"{100 * values[place]:+.1f} (seed {seed})" for seed, values in change.by_seed.items()
    )


def size(run: KeptRun) -> str:
    """`7.6 M / 0.14 at 112 px`: parameters, and GMAC of one image."""
    side = run.row.spec.input_size
    return f"{run.parameters / 1e6:.1f} M / {run.macs / 1e9:.2f} at {side} px"


def stored(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.bytes / 1e6:.1f} MB, `{checkpoint.sha256[:12]}`"


def over(change: Difference | None) -> str:
    """Of a difference in accuracy, where there is one."""
    return points(change.accuracy) if change else ""


def paper_name(model: str) -> str:
    return get_spec(model).paper_name


def confusion_figure(checkpoint: Checkpoint) -> str:
    return f"confusion-{checkpoint.stem}.png"


def listed(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


FILTERS = (
    percent, points, over, decimals, mean_and_range, by_seed, size, stored, paper_name,
    confusion_figure,
)  # fmt: skip


@cache
def _environment(folders: tuple[Path, ...]) -> Environment:
    made = Environment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # Markdown
    )
    made.filters |= {f.__name__: f for f in FILTERS} | {"thousands": "{:,}".format}
    made.globals |= {"row": row, "head": head}
    return made


def render(template: str, values: dict[str, object], *folders: Path) -> str:
    """A template of those here, or in further folders: without empty lines in a row, and ending in
    one newline. A name that the template does not get is an error.
    """
    told = _environment((*folders, FOLDER)).get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", told).strip() + "\n"
