"""A lung mask that is at hand: how much of each model's heat lies inside it."""

import gradio as gr
import numpy as np
from PIL import Image

from kdmodels.images import ImageError, read_image
from page import words
from page.compare import comparing
from page.compare.shown import Shown
from page.compare.study import Study, Upload, keep_mask
from page.sessions import SESSIONS
from page.words import TROUBLE

ASPECT = 0.02  # of the aspect ratio may differ, for masks of rounded sizes


def mask_of(mask: Image.Image, film: Image.Image) -> np.ndarray:
    """(H, W) bool, True inside: what is brighter than middle grey.

    Raises `ImageError` where it is all of one kind, or not of the film's shape.
    """
    if abs(mask.width * film.height / (mask.height * film.width) - 1) > ASPECT:
        raise ImageError(
            f"The mask is {mask.width} × {mask.height} px and the image {film.width} × "
            f"{film.height} px, which is another shape; choose the mask of this image."
        )
    inside = np.asarray(mask.convert("L")) > 127
    if inside.all() or not inside.any():
        raise ImageError("The mask is black or white all over; choose one with white lungs.")
    return inside


def show_mask(request: gr.Request, path: str | None, image: str | None) -> Shown:
    """A mask was chosen for the image that is on the page."""
    session = SESSIONS.of(request)
    upload = session.get(Upload)
    try:
        film = comparing.read(image).pixels
        inside = mask_of(read_image(path).pixels, film)
    except TROUBLE as error:
        return Shown(message=words.trouble(error))
    keep_mask(session, inside, upload)
    said = f"Lung mask: {inside.mean():.0%} of the picture. See the numbers under the heatmaps."
    shown = Shown(message=words.message("note", said))
    study = session.get(Study)
    if study is None or not study.explained or study.inside is None:
        return shown
    return shown._replace(agreement=comparing.agreement_html(study))
