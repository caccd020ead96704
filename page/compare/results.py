"""What an event of the comparison changes on the page; all else stays as it is."""

from typing import Any, NamedTuple

import gradio as gr

from kdmodels.engines.choice import EngineError
from kdmodels.images.read import ImageError
from kdmodels.models.checkpoints import CheckpointError
from page import words

HINT = '<p class="verdict hint">Upload, paste or choose an image, then press Compare.</p>'
TROUBLE = (ImageError, CheckpointError, EngineError)  # what is told in one sentence
WAITING = '<p class="legend">Compare an image first.</p>'


class Results(NamedTuple):
    """One field for each component, in the order in which the page lists them."""

    message: Any = gr.skip()
    verdict: Any = gr.skip()
    teacher_card: Any = gr.skip()
    student_card: Any = gr.skip()
    progress: Any = gr.skip()
    teacher_map: Any = gr.skip()
    student_map: Any = gr.skip()
    slider: Any = gr.skip()
    difference: Any = gr.skip()
    agreement: Any = gr.skip()
    editor: Any = gr.skip()
    changes: Any = gr.skip()
    softened: Any = gr.skip()


def map_label(role: str) -> str:
    return f"Where the {role} looked"


def cleared(**changes: Any) -> Results:
    """Nothing is compared yet."""
    return Results(
        verdict=HINT,
        teacher_card="",
        student_card="",
        progress="",
        teacher_map=gr.Image(None, label=map_label("teacher")),
        student_map=gr.Image(None, label=map_label("student")),
        slider=None,
        difference=None,
        agreement="",
        editor=gr.HTML(picture=""),
        changes=WAITING,
        softened=WAITING,
    )._replace(**changes)


def failed(error: Exception) -> Results:
    """One sentence, and no answer of anything else beside it."""
    return cleared(message=words.message("error", str(error)))
