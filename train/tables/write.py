"""README.md's tables, docs/results.md with its figures, and docs/models.md: from `results/` alone."""

import os
from collections.abc import Sequence
from pathlib import Path

from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.tasks import TASKS
from train.data.blanking import CONTROL, FILLED, MAIN_FILL, SWAPS, VERSIONS
from train.measure.kept import REPOSITORY, TaskResults, results_folder
from train.measure.task_numbers import TaskNumbers
from train.tables import audit_words, times, words
from train.tables.audit_figure import draw_audit
from train.tables.confusion import draw_confusion
from train.tables.data_sets import RESEARCH_ONLY, data_sets_of
from train.tables.templates import confusion_figure, render

README, DOCS = REPOSITORY / "README.md", REPOSITORY / "docs"
AUDIT = {  # what the tables of the audit need beside its numbers
    "audit_words": audit_words,
    "versions": VERSIONS,
    "control": SWAPS[CONTROL],
    "other_swaps": [swap for name, swap in SWAPS.items() if name != CONTROL],
    "filled": FILLED,
    "main_fill": MAIN_FILL,
}
BEGIN = "<!-- results: begin (python -m train tables) -->"
END = "<!-- results: end -->"


def all_numbers(index: Index, root: Path | None = None) -> list[TaskNumbers]:
    """Of each task of which answers are kept. Raises `ResultsError` where they are of other weights
    than the index lists.

    root: `results/`.
    """
    found = [TaskNumbers(TaskResults.of(task, root)) for task in TASKS.values()]
    kept = [numbers for numbers in found if numbers.shipped]
    for numbers in kept:
        numbers.results.check_weights(index)
    return kept


def docs_folder() -> Path:
    """Where results.md, models.md and `figures` go: docs/, or for own weights beside their results."""
    return results_folder() if os.environ.get("KD_WEIGHTS") else DOCS


def linked(folder: str):
    """A function that makes a checkpoint's name a link to its recipe; folder: to the repository."""

    def link(row: Checkpoint) -> str:
        return f"[{row.name}]({folder}{row.recipe})"

    return link


def _text(template: str, tasks: Sequence[TaskNumbers], folder: str = "", **more) -> str:
    """A page of docs, or a part of README.md. folder: the way from there to the repository."""
    values = {"tasks": tasks, "words": words, "times": times, "link": linked(folder)}
    return render(template, values | AUDIT | more)


def results_text(tasks: Sequence[TaskNumbers]) -> str:
    """docs/results.md."""
    return _text("results.md.jinja", tasks, "../")


def models_text(tasks: Sequence[TaskNumbers], index: Index) -> str:
    """docs/models.md: of every checkpoint of the index, with what is known of it."""
    rows = {task: [c for c in index.checkpoints if c.task == task.id] for task in TASKS.values()}
    return _text(
        "models.md.jinja",
        tasks,
        "../",
        listed=[(task, found, data_sets_of(found)) for task, found in rows.items() if found],
        numbers_of={numbers.task.id: numbers for numbers in tasks},
        research_only=RESEARCH_ONLY,
    )


def fill_readme(text: str, tasks: Sequence[TaskNumbers]) -> str:
    """Replace what stands between the two markers of a README."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{_text('readme.md.jinja', tasks)}\n{END}{after}"


def draw_figures(tasks: Sequence[TaskNumbers], folder: Path) -> None:
    """A confusion matrix of each shipped checkpoint, and the audits; those that are gone go."""
    wanted = set()
    for numbers in tasks:
        if numbers.audit:
            file = folder / f"audit-{numbers.task.id}.png"
            draw_audit(numbers.audit, file)
            wanted.add(file.name)
        for m in numbers.shipped:
            file = folder / confusion_figure(m.row)
            draw_confusion(m.confusion, m.task, f"{m.row.name}, {m.task.name}", file)
            wanted.add(file.name)
    for file in folder.glob("*.png"):
        if file.name not in wanted:
            file.unlink()


def write_tables() -> None:
    """Bring results.md, models.md and the figures up to date; and README.md, unless $KD_WEIGHTS names
    other weights than the repository's. Raises `ResultsError`.
    """
    index = Index.read()
    tasks = all_numbers(index)
    folder = docs_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(results_text(tasks), encoding="utf-8")
    (folder / "models.md").write_text(models_text(tasks, index), encoding="utf-8")
    draw_figures(tasks, folder / "figures")
    if folder == DOCS:
        README.write_text(fill_readme(README.read_text("utf-8"), tasks), encoding="utf-8")
