"""Many images at once: a table of what both say, as CSV too; a click opens a row's image."""

import time
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import gradio as gr

from kdmodels.images.archives import MAX_FILES, ArchiveError, Found, gather
from kdmodels.tasks import Task, get_task
from page import words
from page.batch import answers
from page.compare import comparing
from page.compare.results import TROUBLE
from page.compare.tab import CompareTab, choices_of
from page.pairs import pair
from page.parts import REDRAW, WORK, model_choice, unpacking_folder
from page.studies import MOST
from page.turns import Superseded, Turns

HEADINGS = [
    "File",
    "Teacher",
    "%",
    "Student",
    "% ",
    "Agree",
    "Teacher, ms",
    "Student, ms",
    "Problem",
]
KINDS = ["str", "str", "number", "str", "number", "str", "number", "number", "str"]

RUNS = Turns()


class Batch(NamedTuple):
    """The last batch of a tab: which models, its files by name, and where they are unpacked."""

    task: str
    teacher: str
    files: dict[str, Found]
    folder: TemporaryDirectory


BATCHES: OrderedDict[str, Batch] = OrderedDict()


def cells(task: Task, row: answers.Row) -> list:
    """A row as the table shows it."""
    if row.problem:
        return [row.file, "", None, "", None, "", None, None, row.problem]
    names = dict(zip(task.class_ids, task.class_names, strict=True))
    return [
        row.file,
        names[row.teacher],
        round(100 * row.teacher_probability, 1),
        names[row.student],
        round(100 * row.student_probability, 1),
        "yes" if row.agree else "no",
        round(row.teacher_ms, 1),
        round(row.student_ms, 1),
        "",
    ]


def summary(rows: list[answers.Row], total: int, seconds: float, over: bool) -> str:
    """HTML: how far it is, or what came out."""
    read_ = [row for row in rows if not row.problem]
    agree = sum(row.agree for row in read_)
    said = f"{len(rows)} of {total} files; teacher and student agree on {agree} of {len(read_)}."
    if over:
        return words.message("note", f"{said} {seconds:.1f} s.")
    bar = f'<progress max="{total}" value="{len(rows)}"></progress>'
    return f'<label class="progress">{said}{bar}</label>'


def run(request: gr.Request, uploads: list[str] | None, task_id: str, teacher: str):
    """Classify all files. Yields (table, state in words, CSV file)."""
    tab = request.session_hash
    turn = RUNS.take(tab)
    task, rows = get_task(task_id), []
    try:
        if not uploads:
            raise ArchiveError("There are no files yet; choose images or a zip of images.")
        place = unpacking_folder()
        folder = Path(place.name)
        found = gather([Path(u) for u in uploads], folder)
        rows = [answers.Row("", problem=problem) for problem in found.problems]
        total = len(rows) + len(found.images)
        RUNS.check(turn)
        files = {file.name: file for file in found.images}
        _remember(tab, Batch(task_id, teacher, files, place))
        started = shown = time.perf_counter()
        yield [], summary(rows, total, 0, over=False), gr.DownloadButton(visible=False)
        check = lambda: RUNS.check(turn)  # noqa: E731
        for row in answers.run(pair(task_id, teacher), found.images, check):
            rows.append(row)
            if time.perf_counter() - shown > REDRAW:
                shown = time.perf_counter()
                table = [cells(task, row) for row in rows]
                yield table, summary(rows, total, 0, over=False), gr.skip()
        seconds = time.perf_counter() - started
        file = folder / "teacher-and-student.csv"
        file.write_text(answers.to_csv(rows), encoding="utf-8-sig")
        table = [cells(task, row) for row in rows]
        ready = gr.DownloadButton(value=str(file), visible=True)
        yield table, summary(rows, total, seconds, over=True), ready
    except Superseded:
        yield gr.skip(), gr.skip(), gr.skip()
    except (*TROUBLE, ArchiveError) as error:
        yield [], words.message("error", str(error)), gr.DownloadButton(visible=False)


def _remember(tab: str, found: Batch) -> None:
    _forget(tab)
    BATCHES[tab] = found
    while len(BATCHES) > MOST:
        _forget(next(iter(BATCHES)))


def _forget(tab: str) -> None:
    if old := BATCHES.pop(tab, None):
        old.folder.cleanup()


def open_case(request: gr.Request, event: gr.SelectData):
    """A row was clicked: bring its image into the first tab, with the models of the batch.

    Returns (tabs, modality, teacher, evidence, gallery, mask) and what `comparing.show_upload` does.
    """
    found, tab = BATCHES.get(request.session_hash), request.session_hash
    file = found and found.files.get(event.row_value[0])
    if file is None:
        raise gr.Error("This row has no image to open; choose another.", print_exception=False)
    try:
        shown = comparing.show_file(tab, str(file.path), found.task)
    except TROUBLE as error:
        raise gr.Error(str(error), print_exception=False) from error
    except Superseded:
        raise gr.Error(
            "Something newer was opened meanwhile.", print_exception=False, visible=False
        ) from None
    chosen = choices_of(get_task(found.task), found.teacher)
    return [gr.Tabs(selected="compare"), found.task, *chosen, *shown]


def leave(request: gr.Request) -> None:
    RUNS.leave(request.session_hash)
    _forget(request.session_hash)


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
    table = gr.Dataframe(
        headers=HEADINGS,
        datatype=KINDS,
        interactive=False,
        wrap=True,
        column_widths=[f"{px}px" for px in (190, 180, 70, 180, 70, 75, 95, 95, 240)],
        max_height=520,
        elem_id="batch-table",
        label="Click a row to open its image; click a heading to sort.",
    )
    csv = gr.DownloadButton("CSV", visible=False, elem_id="batch-csv", size="sm")
    button.click(run, [files, task, teacher], [table, state, csv], **WORK)
    _, main_task, main_teacher = compare.chosen
    chosen = [main_task, main_teacher, compare.evidence, compare.gallery, compare.mask]
    table.select(
        open_case,
        None,
        [pages, *chosen, *compare.shown],
        api_visibility="private",
        show_progress="hidden",
    ).success(comparing.answer_and_explain, compare.inputs, compare.results, **WORK)
