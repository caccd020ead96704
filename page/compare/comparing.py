"""What happens when an image is chosen and compared: answers first, then the heatmaps."""

import html
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from kdmodels.examples import examples
from kdmodels.familiar import modality
from kdmodels.images.read import CheckedImage, ImageError, read_image
from kdmodels.predict import predict
from page import words
from page.compare import erasing, looks, panels
from page.compare.looks import DIFFERENCE, SIDE, SLIDER, Look
from page.compare.results import TROUBLE, Results, cleared, failed
from page.heatmaps import heatmaps
from page.pairs import ROLES, pair
from page.studies import STUDIES, Study
from page.turns import Superseded, Turns

OWN_ANSWER = "own"

TURNS = Turns()
VIEW: dict[str, str] = {}  # tab -> the view of the heatmaps that is open
WISH: dict[
    str, tuple[str, bool]
] = {}  # tab -> evidence and exactness chosen before the answers came
NARROWEST = 1e-6  # range of a DICOM image's values for which a window can be chosen


def read(path: str | None, window: tuple[float, float] | None = None) -> CheckedImage:
    if not path:
        raise ImageError("There is no image yet; upload or paste one first.")
    return read_image(path, window)


# --- Choosing --------------------------------------------------------------------------------


def doubts(checked: CheckedImage, task_id: str) -> str:
    """HTML: what was done to a file, and a warning where it is unlike the modality's images."""
    return words.facts(checked) + _unlike(checked, task_id)


def _unlike(checked: CheckedImage, task_id: str) -> str:
    try:
        found = modality.check(task_id, checked.pixels)
    except modality.FamiliarityError:  # no statistics are stored; nothing can be said
        return ""
    return words.doubt(found.reason) if found.reason else ""


def show_upload(request: gr.Request, path: str | None, task: str):
    """A file was chosen: show what will be compared, or say why not.

    Returns the image, the window sliders (centre, width, their group) and the results.
    """
    try:
        return show_file(request.session_hash, path, task)
    except ImageError as error:
        return None, *window_controls(None), *failed(error)
    except Superseded:
        return [gr.skip()] * (4 + len(Results()))


def show_file(tab: str | None, path: str | None, task: str) -> tuple:
    """What `show_upload` returns.

    Raises `ImageError`, and `Superseded` where something newer was asked for while the file was read.
    """
    turn = TURNS.take(tab)
    STUDIES.drop(tab)
    STUDIES.drop_source(tab)
    checked = read(path)
    said = cleared(message=doubts(checked, task))
    TURNS.check(turn)
    STUDIES.put_source(tab, path)
    return checked.pixels, *window_controls(checked), *said


def show_example(request: gr.Request, task: str, event: gr.SelectData):
    """A synthetic example was chosen; returns what `show_upload` does."""
    example = examples(task)[event.index]
    shown = show_upload(request, str(example.path), task)
    said = words.message("note", f"{example.caption} {example.attribution}")
    said += _unlike(read(str(example.path)), task)
    return *shown[:4], *Results(*shown[4:])._replace(message=said)


def window_controls(checked: CheckedImage | None):
    """Sliders for the grey values of a DICOM image; hidden for all others."""
    window = checked.window if checked else None
    span = window.highest - window.lowest if window else 0
    if span < NARROWEST:  # there is nothing to choose
        return gr.skip(), gr.skip(), gr.Group(visible=False)
    step = span / 500

    def slider(lowest: float, highest: float, value: float) -> gr.Slider:
        # A file's own window may lie outside; gradio refuses any value that does.
        return gr.Slider(lowest, highest, min(max(value, lowest), highest), step=step)

    return (
        slider(window.lowest, window.highest, window.centre),
        slider(span / 200, 2 * span, window.width),
        gr.Group(visible=True),
    )


def show_window(request: gr.Request, centre: float, width: float, task: str):
    """Another window of a DICOM image: what is shown, and what the networks will see."""
    turn = TURNS.take(request.session_hash)
    STUDIES.drop(request.session_hash)
    try:
        checked = read(STUDIES.source(request.session_hash), (centre, width))
        said = cleared(message=doubts(checked, task))
        TURNS.check(turn)
    except ImageError as error:
        return None, *failed(error)
    except Superseded:
        return [gr.skip()] * (1 + len(Results()))
    return checked.pixels, *said


def judge_again(request: gr.Request, path: str | None, task: str) -> Results:
    """Another modality was chosen: drop the answers, and say whether the image looks like it."""
    shown = clear(request)
    try:
        return shown._replace(message=doubts(read(path), task)) if path else shown
    except ImageError:
        return shown


def clear(request: gr.Request) -> Results:
    """The models have changed: drop the old answers and stop the old work."""
    TURNS.take(request.session_hash)
    STUDIES.drop(request.session_hash)
    return cleared()  # what was said of the image still holds


def clear_image(request: gr.Request) -> tuple:
    """The image was taken away; returns (window controls, results)."""
    shown = clear(request)
    STUDIES.drop_source(request.session_hash)
    return *window_controls(None), *shown._replace(message="")


def leave(request: gr.Request) -> None:
    """The browser tab was closed."""
    tab = request.session_hash
    TURNS.leave(tab)
    erasing.STROKES.leave(tab)
    STUDIES.leave(tab)
    VIEW.pop(tab, None)
    WISH.pop(tab, None)


# --- Comparing -------------------------------------------------------------------------------


def _answers(study: Study, turn) -> Iterator[Results]:
    for role, classifier in zip(ROLES, study.pair, strict=True):
        prediction = predict(classifier, study.checked.pixels, lambda: TURNS.check(turn))
        study.predictions[role] = prediction
        TURNS.check(turn)
        yield Results(**{f"{role}_card": words.card(classifier, prediction, study.decode_ms)})
    sentence = html.escape(verdict_of(study))
    yield Results(verdict=f'<p class="verdict" role="status">{sentence}</p>')


def verdict_of(study: Study) -> str:
    return words.verdict(study.task, *(study.predictions[role] for role in ROLES))


def softened(study: Study | None, temperature: float) -> Any:
    if study is None or not study.answered:
        return gr.skip()
    logits = (np.array(study.predictions[role].logits) for role in ROLES)
    return panels.softened_panel(study.task, temperature, *logits)


def _explain(study: Study, evidence: str, exact: bool, look: Look, tab, turn) -> Iterator[Results]:
    own = evidence == OWN_ANSWER
    wanted = {r: study.predictions[r].class_id if own else evidence for r in ROLES}
    study = replace(study, evidence=wanted, steps={})  # others may be drawing the old one
    TURNS.check(turn)
    STUDIES.put(tab, study)
    found = heatmaps(
        dict(zip(ROLES, study.pair, strict=True)),
        study.checked.pixels,
        study.evidence,
        exact,
        lambda: TURNS.check(turn),
    )
    for role, step in found:
        study.steps[role] = step
        shown = drawn(study, look, VIEW.get(tab, SIDE), (role,))
        TURNS.check(turn)
        yield shown
    yield Results(progress=progress(study, over=True))


def progress(study: Study, over: bool = False) -> str:
    """How far the heatmaps are, in words."""
    return words.heatmap_progress({role: study.steps.get(role) for role in ROLES}, over)


def drawn(study: Study, look: Look, view: str, roles: tuple[str, ...] = ROLES) -> Results:
    """The heatmaps of a study, so far, in the view that is open."""
    shown = Results(progress=progress(study))
    if view == SIDE:
        shown = shown._replace(**{f"{role}_map": _map(study, look, role) for role in roles})
    if not study.explained:
        return shown
    if view == SLIDER:
        shown = shown._replace(slider=looks.on_slider(study, look))
    elif view == DIFFERENCE:
        shown = shown._replace(difference=looks.difference(study, look))
    return shown._replace(agreement=agreement_html(study))


def _map(study: Study, look: Look, role: str) -> gr.Image:
    step = study.steps[role]
    label = f"Where the {role} saw “{_class_name(study, role)}”"
    if step.exact and step.flat:
        label += ": nothing found (the map is flat)"
    return gr.Image(looks.explained(study, look, role), label=label)


def _class_name(study: Study, role: str) -> str:
    return study.task.class_names[study.task.class_ids.index(study.evidence[role])]


def agreement_numbers(study: Study) -> dict[str, float]:
    heatmaps = {role: study.steps[role].heatmap for role in ROLES}
    return panels.numbers_of(heatmaps, study.inside)


def agreement_html(study: Study) -> str:
    """The numbers under the heatmaps."""
    names = dict.fromkeys(_class_name(study, role) for role in ROLES)
    note = "Of the evidence for " + " (teacher) and ".join(f"“{name}”" for name in names)
    note += " (student)." if len(names) > 1 else ", teacher against student."
    if study.inside is not None:
        note += f" The lung mask is {study.inside.mean():.2f} of the picture."
    return panels.agreement_panel(agreement_numbers(study), note)


def answer_and_explain(
    request: gr.Request, path, task, teacher, evidence, exact, temperature, *look
):
    """Answers of teacher and student, each as soon as it is there, then both heatmaps.

    A newer request of the same tab ends this one between two batches of work.
    """
    tab = request.session_hash
    turn = TURNS.take(tab)
    STUDIES.drop(tab)
    WISH.pop(tab, None)
    try:
        started = time.perf_counter()
        checked = read(path)
        decode_ms = (time.perf_counter() - started) * 1000
        study = Study(checked, task, teacher, pair(task, teacher), decode_ms)
        study.inside = STUDIES.mask(tab)
        yield cleared()  # what was said of the file at its upload stays
        yield from _answers(study, turn)
        TURNS.check(turn)
        STUDIES.put(tab, study)
        evidence, exact = WISH.pop(tab, (evidence, exact))
        yield Results(
            editor=erasing.canvas_of(study),
            changes=erasing.NO_PAINT,
            softened=softened(study, temperature),
        )
        yield from _explain(study, evidence, exact, Look(*look), tab, turn)
    except Superseded:
        yield Results()  # gradio sends the last yield once more at the end: let it change nothing
    except TROUBLE as error:
        yield failed(error)


def explain_again(request: gr.Request, evidence, exact, *look):
    """Another class's evidence, or the exact map, is wanted of what was compared."""
    tab = request.session_hash
    study = STUDIES.get(tab)
    if study is None:
        if tab:
            WISH[tab] = evidence, exact
        yield Results()
        return
    turn = TURNS.take(tab)
    try:
        yield from _explain(study, evidence, exact, Look(*look), tab, turn)
    except Superseded:
        yield Results()
    except TROUBLE as error:
        yield failed(error)


def redraw(request: gr.Request, *look) -> Results:
    """A display control was moved."""
    study = STUDIES.get(request.session_hash)
    if study is None or not study.steps:
        return Results()
    view = VIEW.get(request.session_hash, SIDE)
    shown = drawn(study, Look(*look), view, tuple(study.steps))._replace(progress=gr.skip())
    return shown if STUDIES.shows(request.session_hash, study) else Results()


def open_view(view: str):
    """The event of a view's tab: remember it, and draw it."""

    def opened(request: gr.Request, *look) -> Results:
        VIEW[request.session_hash] = view
        return redraw(request, *look)

    return opened


def soften(temperature: float, request: gr.Request):
    return softened(STUDIES.get(request.session_hash), temperature)
