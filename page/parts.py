"""Pieces that several tabs are laid out from."""

import tempfile

import gradio as gr

from kdmodels.tasks import get_task
from page.pairs import offered, teacher_choices

QUICK = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
# Several at a time, so that a new request can start and thereby end its tab's old one; the
# computing itself is one after the other (kdmodels.predict.COMPUTE).
WORK = {
    "show_progress": "hidden",
    "trigger_mode": "multiple",
    "concurrency_limit": 16,
    "api_visibility": "private",
}
REDRAW = 0.5  # s, between two states of what grows
READING = WORK | {"show_progress": "minimal"}  # of a file, which may take long


def film(label: str, elem_id: str, height: int) -> gr.Image:
    """A picture that is shown on black, to be downloaded or seen in full screen."""
    return gr.Image(
        label=label,
        interactive=False,
        elem_id=elem_id,
        elem_classes="film",
        height=height,
        buttons=["download", "fullscreen"],
    )


def model_choice(elem_id: str) -> tuple[gr.Radio, gr.Radio]:
    """Modality and teacher, which follows the modality."""
    first = offered()[0]
    task = gr.Radio(
        [(t.name, t.id) for t in offered()], value=first.id, label="Modality", elem_id=elem_id
    )
    teachers = teacher_choices(first)
    teacher = gr.Radio(teachers, value=teachers[0][1], label="Teacher")
    task.input(_change_task, task, teacher, **QUICK)
    return task, teacher


def _change_task(task_id: str) -> gr.Radio:
    choices = teacher_choices(get_task(task_id))
    return gr.Radio(choices, value=choices[0][1])


def unpacking_folder() -> tempfile.TemporaryDirectory:
    """A folder for what a zip holds; it goes when nobody holds it any more."""
    return tempfile.TemporaryDirectory(dir=gr.utils.get_upload_folder(), ignore_cleanup_errors=True)
