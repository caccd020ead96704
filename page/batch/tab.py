"""Many images at once: a table of what both say, as CSV too; a click opens a row's image."""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gradio as gr

from kdmodels.images.archives import MAX_FILES, ArchiveError, Found, gather
from kdmodels.tasks import Task, get_task
from page import words
from page.batch import answers
from page.compare import comparing
from page.compare.tab import CompareTab, choices_of
from page.pairs import pair
from page.parts import QUICK, REDRAW, WORK, model_choice, unpacking_folder
from page.sessions import SESSIONS, Superseded
from page.words import TROUBLE

HEADINGS = [
    "File",
    "Teacher",
    "%",
    "Student",
    "% ",
    "Agree",
    "Doubt",
    "Teacher, ms",
    "Student, ms",
    "Problem",
]
KINDS = ["str", "str", "number", "str", "number", "str", "str", "number", "number", "str"]
WIDTHS = [150, 150, 60, 150, 60, 70, 215, 95, 95, 150]  # px; together no wider than the page


class Batch(NamedTuple):
    """The last batch of a browser tab: which models, its files by name, where they are unpacked.

    rows: those that are there so far, it grows.
    """

    task: str
    teacher: str
    files: dict[str, Found]
    folder: TemporaryDirectory
    rows: list[answers.Row]


class Wish(NamedTuple):
    """Which rows the table shows: all, or those with a doubt."""

    doubtful: bool


class Shown(NamedTuple):
    """What a batch changes on the page: the table, how far it is, and the CSV file."""

    table: Any = gr.skip()
    state: Any = gr.skip()
    csv: Any = gr.skip()


def cells(task: Task, row: answers.Row) -> list:
    """A row as the table shows it."""
    if row.problem:
        return [row.file, "", None, "", None, "", "", None, None, row.problem]
    mark = " (see Doubt)" if row.doubt else ""  # on a phone that column is out of sight
    names = {info.id: info.name + mark for info in task.classes}
    return [
        row.file,
        names[row.teacher],
        round(100 * row.teacher_probability, 1),
        names[row.student],
        round(100 * row.student_probability, 1),
        "yes" if row.agree else "no",
        row.doubt,
        round(row.teacher_ms, 1),
        round(row.student_ms, 1),
        "",
    ]


def table_of(batch: Batch | None, wish: Wish | None) -> list[list]:
    """The rows that are wished for, as the table shows them."""
    if batch is None:
        return []
    task, doubtful = get_task(batch.task), wish is not None and wish.doubtful
    return [cells(task, row) for row in list(batch.rows) if row.doubt or not doubtful]


def only_doubtful(request: gr.Request, doubtful: bool) -> list[list]:
    """Show all rows, or those with a doubt."""
    session = SESSIONS.of(request)
    session.keep(wish := Wish(doubtful))
    return table_of(session.get(Batch), wish)


def summary(rows: list[answers.Row], total: int, seconds: float, over: bool) -> str:
    """HTML: how far it is, or what came out."""
    read_ = [row for row in rows if not row.problem]
    agree = sum(row.agree for row in read_)
    doubtful = sum(bool(row.doubt) for row in rows)
    said = f"{len(rows)} of {total} files; teacher and student agree on {agree} of {len(read_)}; "
    said += f"{doubtful} with a doubt."
    if over:
        return words.message("note", f"{said} {seconds:.1f} s.")
    bar = f'<progress max="{total}" value="{len(rows)}"></progress>'
    return f'<label class="progress">{said}{bar}</label>'


def run(
    request: gr.Request, uploads: list[str] | None, task_id: str, teacher: str
) -> Iterator[Shown]:
    """Classify all files."""
    session = SESSIONS.of(request)
    turn = session.take_turn("batch")
    session.drop(Batch)
    try:
        if not uploads:
            raise ArchiveError("There are no files yet; choose images or a zip of images.")
        place = unpacking_folder()
        folder = Path(place.name)
        found = gather([Path(u) for u in uploads], folder)
        rows = [answers.Row("", problem=problem) for problem in found.problems]
        total = len(rows) + len(found.images)
        files = {file.name: file for file in found.images}
        with session.lock:
            turn.check()
            session.keep(batch := Batch(task_id, teacher, files, place, rows))
        started = drawn = time.perf_counter()
        state = summary(rows, total, 0, over=False)
        yield Shown(table_of(batch, session.get(Wish)), state, gr.DownloadButton(visible=False))
        for row in answers.run(pair(task_id, teacher), found.images, turn.check):
            rows.append(row)
            if time.perf_counter() - drawn > REDRAW:
                drawn = time.perf_counter()
                yield Shown(table_of(batch, session.get(Wish)), summary(rows, total, 0, over=False))
        seconds = time.perf_counter() - started
        file = folder / "teacher-and-student.csv"
        file.write_text(answers.to_csv(rows), encoding="utf-8-sig")
        ready = gr.DownloadButton(value=str(file), visible=True)
        yield Shown(
            table_of(batch, session.get(Wish)), summary(rows, total, seconds, over=True), ready
        )
    except Superseded:
        yield Shown()
    except TROUBLE as error:
        yield Shown([], words.trouble(error), gr.DownloadButton(visible=False))


def open_case(request: gr.Request, event: gr.SelectData):
    """A row was clicked: bring its image into the first tab, with the models of the batch.

    Returns (tabs, modality), and then the fields of the Compare tab's `Choices` and `Shown`.
    """
    session = SESSIONS.of(request)
    found = session.get(Batch)
    file = found and found.files.get(event.row_value[0])
    if file is None:
        raise gr.Error("This row has no image to open; choose another.", print_exception=False)
    try:
        shown = comparing.show_file(session, str(file.path), found.task)
    except TROUBLE as error:
        raise gr.Error(str(error), print_exception=False) from error
    except Superseded:
        raise gr.Error(
            "Something newer was opened meanwhile.", print_exception=False, visible=False
        ) from None
    chosen = choices_of(get_task(found.task), found.teacher)
    return [gr.Tabs(selected="compare"), found.task, *chosen, *shown]


def build(pages: gr.Tabs, compare: CompareTab) -> None:
    """Lay the tab out and wire its events."""
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            files = gr.File(
                label=f"Images or zips of images (up to {MAX_FILES})",
                file_count="multiple",
                elem_id="batch-files",
                height=160,
            )
        with gr.Column(scale=3, min_width=300):
            task, teacher = model_choice("batch-task")
            button = gr.Button("Compare all", variant="primary", elem_id="batch-run")
    state = gr.HTML(elem_id="batch-state", padding=False)
    doubtful = gr.Checkbox(False, label="Only rows with a doubt", elem_id="batch-doubtful")
    table = gr.Dataframe(
        headers=HEADINGS,
        datatype=KINDS,
        interactive=False,
        wrap=True,
        column_widths=[f"{px}px" for px in WIDTHS],
        max_height=520,
        elem_id="batch-table",
        label="Click a row to open its image; click a heading to sort.",
    )
    csv = gr.DownloadButton("CSV", visible=False, elem_id="batch-csv", size="sm")
    button.click(run, [files, task, teacher], list(Shown(table, state, csv)), **WORK)
    doubtful.input(only_doubtful, doubtful, table, **QUICK)
    table.select(
        open_case,
        None,
        [pages, compare.chosen.task, *compare.choices, *compare.shown],
        api_visibility="private",
        show_progress="hidden",
    ).success(comparing.answer_and_explain, compare.inputs, list(compare.shown), **WORK)
