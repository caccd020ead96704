"""What an event of the Compare tab changes there; all else stays as it is."""

from typing import Any, NamedTuple

import gradio as gr

from page import words

HINT = '<p class="verdict hint">Upload, paste or choose an image, then press Compare.</p>'
WAITING = '<p class="legend">Compare an image first.</p>'


class Shown(NamedTuple):
    """One field for each component, in the order in which the page lists them."""

    image: Any = gr.skip()
    window_centre: Any = gr.skip()
    window_width: Any = gr.skip()
    window: Any = gr.skip()  # the group of both
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


def cleared(**changes: Any) -> Shown:
    """Nothing is compared yet."""
    return Shown(
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


def failed(error: Exception) -> Shown:
    """One sentence, and no answer of anything else beside it."""
    return cleared(message=words.trouble(error))
