"""The tables of README.md, weights/RESULTS.md with its figures, and weights/CARDS.md, from the stored
metrics."""

from pathlib import Path

from kdmodels.models.checkpoints import WEIGHTS, Index
from kdmodels.tasks import TASKS
from train.release.store import read_results
from train.tables.cards_page import cards
from train.tables.confusion import draw_confusion
from train.tables.details import details, figure_of
from train.tables.summary import summary

README = Path(__file__).parents[2] / "README.md"
RESULTS, CARDS = WEIGHTS / "RESULTS.md", WEIGHTS / "CARDS.md"
OWN_WEIGHTS = README.parent / "weights"
BEGIN = "<!-- results: begin (python -m train tables) -->"
END = "<!-- results: end -->"


def fill_readme(text: str, index: Index, results: dict) -> str:
    """Replace what stands between the two markers of a README."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{summary(index, results)}\n\n{END}{after}"


def draw_figures(index: Index, folder: Path) -> None:
    """A confusion matrix of each evaluated checkpoint; those of checkpoints that are gone go."""
    wanted = set()
    for row in index.checkpoints:
        if row.metrics:
            task, file = TASKS[row.task], folder / figure_of(row)
            draw_confusion(row.metrics["confusion"], task, f"{row.name}, {task.name}", file)
            wanted.add(file.name)
    for file in (folder / "figures").glob("confusion-*.png"):
        if file.name not in wanted:
            file.unlink()


def write_tables() -> None:
    """Bring RESULTS.md, its figures and CARDS.md up to date, beside the weights; and README.md, unless
    `KD_WEIGHTS` names other weights than the repository's.
    """
    index, results = Index.read(), read_results()
    RESULTS.write_text(details(index, results), encoding="utf-8")
    CARDS.write_text(cards(index, results), encoding="utf-8")
    draw_figures(index, RESULTS.parent)
    if RESULTS.parent.resolve() == OWN_WEIGHTS.resolve():
        README.write_text(fill_readme(README.read_text("utf-8"), index, results), encoding="utf-8")
