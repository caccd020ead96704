"""Try to fool it: paint over a part of the image, and see what both models say then.

The occlusion test of Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks",
ECCV 2014, by hand. gradio's own editor sends no event after a stroke on a picture that the page
has put there (seen in 6.31), hence a canvas of our own.
"""

import base64
import html
from io import BytesIO
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from kdmodels.images import ImageError
from kdmodels.predict import answer
from page.compare import panels
from page.compare.shown import WAITING
from page.compare.study import Study, shows
from page.pairs import ROLES
from page.sessions import SESSIONS, Superseded
from page.words import TROUBLE

SIDE = 512  # px, the longer side of the picture that is painted over
MAX_PAINT = 4_000_000  # characters of a paint layer
PNG_ADDRESS = "data:image/png;base64,"
NO_PAINT = '<p class="legend">Paint over a part of the picture.</p>'

STROKE = "stroke"  # a newer one makes the answers to the older one pointless


def component() -> gr.HTML:
    """The canvas; its value is the paint, its prop `picture` what is painted over."""
    folder = Path(__file__).parent
    return gr.HTML(
        "",
        html_template=(folder / "eraser.html").read_text(encoding="utf-8"),
        js_on_load=(folder / "eraser.js").read_text(encoding="utf-8"),
        picture="",
        elem_id="eraser",
    )


def _reduced(study: Study) -> Image.Image:
    pixels = study.checked.pixels.copy()
    pixels.thumbnail((SIDE, SIDE))
    return pixels


def canvas_of(study: Study) -> gr.HTML:
    """The canvas with a study's image and no paint."""
    _reduced(study).save(stream := BytesIO(), "PNG")
    address = PNG_ADDRESS + base64.b64encode(stream.getvalue()).decode()
    return gr.HTML(picture=address)


def open_canvas(request: gr.Request) -> gr.HTML:
    """The tab was opened; what was sent to it while it was closed may not have arrived."""
    study = SESSIONS.of(request).get(Study)
    return canvas_of(study) if study and study.answered else gr.skip()


def painted(picture: Image.Image, paint: str) -> tuple[Image.Image, float]:
    """The picture under the paint, and the share of it that is covered.

    paint: a PNG data address of an RGBA layer. Raises `ImageError` where it is none of that size.
    """
    try:
        if not paint.startswith(PNG_ADDRESS) or len(paint) > MAX_PAINT:
            raise ValueError
        data = base64.b64decode(paint.removeprefix(PNG_ADDRESS), validate=True)
        with Image.open(BytesIO(data), formats=("PNG",)) as layer:
            if layer.size != picture.size:
                raise ValueError
            layer = layer.convert("RGBA")
    except Exception as error:
        raise ImageError("The paint could not be read; press Start again.") from error
    covered = np.asarray(layer)[..., 3] > 0
    under = Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")
    return under, float(covered.mean())


def paint_over(request: gr.Request, paint: str) -> str:
    """A stroke was painted: both models' answers to the picture, before and after."""
    session = SESSIONS.of(request)
    study = session.get(Study)
    turn = session.take_turn(STROKE)
    if study is None:
        return WAITING
    if not paint:
        return NO_PAINT
    try:
        before = _reduced(study)
        after, share = painted(before, paint)
        changed = {}
        for role, classifier in zip(ROLES, study.pair, strict=True):
            turn.check()
            if role not in study.untouched:
                study.untouched[role] = answer(classifier, before)
            changed[role] = answer(classifier, after)
        if not shows(session, study):
            return gr.skip()  # another image has come meanwhile
        return panels.changes_panel(study.task, study.untouched, changed, share)
    except Superseded:
        return gr.skip()
    except TROUBLE as error:
        return f'<p class="legend" role="alert">{html.escape(str(error))}</p>'
