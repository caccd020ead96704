"""How heatmaps are drawn: over the image, side by side, on a slider, or as their difference."""

from typing import NamedTuple

from PIL import Image, ImageOps

from kdmodels.explain import difference_overlay, overlay
from page.compare.study import Study

VIEWS = SIDE, SLIDER, DIFFERENCE = ("side", "slider", "difference")
SLIDER_PAIRS = {
    "Original and student": ("original", "student"),
    "Original and teacher": ("original", "teacher"),
    "Teacher and student": ("teacher", "student"),
}


class Look(NamedTuple):
    """The display controls. They change what is drawn, never what the networks see.

    opacity: of the hottest place; threshold: heat below it is left clear; both in [0, 1].
    """

    colours: str
    opacity: float
    threshold: float
    inverted: bool
    slider_pair: str


def original(study: Study, look: Look) -> Image.Image:
    pixels = study.checked.pixels
    return ImageOps.invert(pixels) if look.inverted else pixels


def explained(study: Study, look: Look, role: str) -> Image.Image:
    """The image with one model's heatmap."""
    return overlay(
        original(study, look),
        study.steps[role].heatmap,
        colours=look.colours,
        opacity=look.opacity,
        threshold=look.threshold,
    )


def on_slider(study: Study, look: Look) -> tuple[Image.Image, Image.Image]:
    """Two pictures of one size."""
    pictures = [
        original(study, look) if what == "original" else explained(study, look, what)
        for what in SLIDER_PAIRS[look.slider_pair]
    ]
    size = next(p.size for p in reversed(pictures))
    left, right = (p if p.size == size else p.resize(size) for p in pictures)
    return left, right


def difference(study: Study, look: Look) -> Image.Image:
    """Where the teacher's map is hotter, and where the student's is."""
    maps = (study.steps[role].heatmap for role in ("teacher", "student"))
    return difference_overlay(original(study, look), *maps, opacity=look.opacity)
