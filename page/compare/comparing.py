"""What happens when an image is chosen and compared: answers first, then the heatmaps."""

import html
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from kdmodels.doubts import doubts_of, unlike
from kdmodels.examples import examples
from kdmodels.images import CheckedImage, ImageError, read_image
from kdmodels.predict import predict
from kdmodels.tasks import get_task
from page import words
from page.compare import erasing, looks, panels
from page.compare.looks import DIFFERENCE, SIDE, SLIDER, Look
from page.compare.shown import HINT, Shown, cleared, failed
from page.compare.study import Study, Upload, View, Wish, shows
from page.heatmaps import heatmaps
from page.pairs import ROLES, pair
from page.sessions import SESSIONS, Session, Superseded, Turn
from page.words import TROUBLE

OWN_ANSWER = "own"

COMPARISON = "comparison"  # the work that a newer request ends
NARROWEST = 1e-6  # range of a DICOM image's values for which a window can be chosen


def read(path: str | None, window: tuple[float, float] | None = None) -> CheckedImage:
    if not path:
        raise ImageError("There is no image yet; upload or paste one first.")
    return read_image(path, window)


# --- Choosing --------------------------------------------------------------------------------


def read_again(session: Session, path: str | None) -> CheckedImage:
    """The picture that the page holds, with the notes of the file that it was read from."""
    checked, upload = read(path), session.get(Upload)
    return replace(checked, notes=upload.notes) if upload else checked


def first_look(checked: CheckedImage, task_id: str) -> str:
    """HTML: what was done to a file, and a warning where it is unlike the modality's images."""
    return words.facts(checked) + _unlike(checked, task_id)


def _unlike(checked: CheckedImage, task_id: str) -> str:
    return "".join(words.unlike(reason) for reason in unlike(get_task(task_id), checked))


def show_upload(request: gr.Request, path: str | None, task: str) -> Shown:
    """A file was chosen: show what will be compared, or say why not."""
    try:
        return show_file(SESSIONS.of(request), path, task)
    except ImageError as error:
        return failed(error)._replace(image=None, **window_controls(None))
    except Superseded:
        return Shown()


def show_file(session: Session, path: str | None, task: str) -> Shown:
    """Show what will be compared.

    Raises `ImageError`, and `Superseded` where something newer was asked for while the file was read.
    """
    turn = session.take_turn(COMPARISON)
    session.drop(Study, Upload)
    checked = read(path)
    said = first_look(checked, task)
    with session.lock:
        turn.check()
        session.keep(Upload(path, notes=checked.notes))
    return cleared(image=checked.pixels, message=said, **window_controls(checked))


def show_example(request: gr.Request, task: str, event: gr.SelectData) -> Shown:
    """A synthetic example was chosen."""
    example = examples(task)[event.index]
    shown = show_upload(request, str(example.path), task)
    said = words.message("note", f"{example.caption} {example.attribution}")
    said += _unlike(read(str(example.path)), task)
    return shown._replace(message=said)


def window_controls(checked: CheckedImage | None) -> dict[str, Any]:
    """Fields of `Shown`: sliders for the grey values of a DICOM image; hidden for all others."""
    window = checked.window if checked else None
    span = window.highest - window.lowest if window else 0
    if span < NARROWEST:  # there is nothing to choose
        return {"window": gr.Group(visible=False)}
    step = span / 500

    def slider(lowest: float, highest: float, value: float) -> gr.Slider:
        # A file's own window may lie outside; gradio refuses any value that does.
        return gr.Slider(lowest, highest, min(max(value, lowest), highest), step=step)

    return {
        "window_centre": slider(window.lowest, window.highest, window.centre),
        "window_width": slider(span / 200, 2 * span, window.width),
        "window": gr.Group(visible=True),
    }


def show_window(request: gr.Request, centre: float, width: float, task: str) -> Shown:
    """Another window of a DICOM image: what is shown, and what the networks will see."""
    session = SESSIONS.of(request)
    turn = session.take_turn(COMPARISON)
    session.drop(Study)
    upload = session.get(Upload)
    try:
        checked = read(upload and upload.path, (centre, width))
        said = first_look(checked, task)
        with session.lock:
            turn.check()
            session.keep(session.get(Upload)._replace(notes=checked.notes))
    except ImageError as error:
        return failed(error)._replace(image=None)
    except Superseded:
        return Shown()
    return cleared(image=checked.pixels, message=said)


def judge_again(request: gr.Request, path: str | None, task: str) -> Shown:
    """Another modality was chosen: drop the answers, and say whether the image looks like it."""
    shown = clear(request)
    try:
        if path:
            checked = read_again(SESSIONS.of(request), path)
            shown = shown._replace(message=first_look(checked, task))
    except ImageError:
        pass
    return shown


def clear(request: gr.Request) -> Shown:
    """The models have changed: drop the old answers and stop the old work."""
    session = SESSIONS.of(request)
    session.take_turn(COMPARISON)
    session.drop(Study)
    return cleared()  # what was said of the image still holds


def clear_image(request: gr.Request) -> Shown:
    """The image was taken away."""
    shown = clear(request)
    SESSIONS.of(request).drop(Upload)
    return shown._replace(message="", **window_controls(None))


# --- Comparing -------------------------------------------------------------------------------


def _answers(study: Study, turn: Turn) -> Iterator[Shown]:
    for role, classifier in zip(ROLES, study.pair, strict=True):
        prediction = predict(classifier, study.checked.pixels, turn.check)
        study.predictions[role] = prediction
        turn.check()
        yield Shown(**{f"{role}_card": words.card(classifier, prediction, study.decode_ms)})
    sentence = html.escape(verdict_of(study))
    said = f'<p class="verdict" role="status">{sentence}</p>'
    yield Shown(verdict=said + words.doubts(study.doubts))


def verdict_of(study: Study) -> str:
    return words.verdict(study.task, *(study.predictions[role] for role in ROLES))


def softened(study: Study | None, temperature: float) -> Any:
    if study is None or not study.answered:
        return gr.skip()
    logits = (np.array(study.predictions[role].logits) for role in ROLES)
    return panels.softened_panel(study.task, temperature, *logits)


def _explain(study: Study, wish: Wish, look: Look, turn: Turn) -> Iterator[Shown]:
    own = wish.evidence == OWN_ANSWER
    wanted = {r: study.predictions[r].class_id if own else wish.evidence for r in ROLES}
    study = replace(study, evidence=wanted, steps={})  # others may be drawing the old one
    session = turn.session
    with session.lock:
        turn.check()
        session.keep(study)
    found = heatmaps(
        dict(zip(ROLES, study.pair, strict=True)),
        study.checked.pixels,
        study.evidence,
        wish.exact,
        turn.check,
    )
    for role, step in found:
        study.steps[role] = step
        shown = drawn(study, look, _view(session), (role,))
        turn.check()
        yield shown
    yield Shown(progress=progress(study, over=True))


def _view(session: Session) -> str:
    return (session.get(View) or View(SIDE)).name


def progress(study: Study, over: bool = False) -> str:
    """How far the heatmaps are, in words."""
    return words.heatmap_progress({role: study.steps.get(role) for role in ROLES}, over)


def drawn(study: Study, look: Look, view: str, roles: tuple[str, ...] = ROLES) -> Shown:
    """The heatmaps of a study, so far, in the view that is open."""
    shown = Shown(progress=progress(study))
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
    session = SESSIONS.of(request)
    turn = session.take_turn(COMPARISON)
    session.drop(Study, Wish)
    upload = session.get(Upload)
    try:
        started = time.perf_counter()
        checked = read_again(session, path)
        decode_ms = (time.perf_counter() - started) * 1000
        study = Study(checked, task, teacher, pair(task, teacher), decode_ms)
        study.inside = upload and upload.inside
        study.doubts = doubts_of(study.task, checked)
        # There before the first answer. What was said of the file at its upload stays.
        yield cleared(verdict=HINT + words.doubts(study.doubts))
        yield from _answers(study, turn)
        with session.lock:
            turn.check()
            session.keep(study)
            wish = session.get(Wish) or Wish(evidence, exact)
            session.drop(Wish)
        yield Shown(
            editor=erasing.canvas_of(study),
            changes=erasing.NO_PAINT,
            softened=softened(study, temperature),
        )
        yield from _explain(study, wish, Look(*look), turn)
    except Superseded:
        yield Shown()  # gradio sends the last yield once more at the end: let it change nothing
    except TROUBLE as error:
        yield failed(error)


def explain_again(request: gr.Request, evidence, exact, *look):
    """Another class's evidence, or the exact map, is wanted of what was compared."""
    session, wish = SESSIONS.of(request), Wish(evidence, exact)
    with session.lock:
        study = session.get(Study)
        if study is None:
            session.keep(wish)  # for the answers that are on their way
    if study is None:
        yield Shown()
        return
    turn = session.take_turn(COMPARISON)
    try:
        yield from _explain(study, wish, Look(*look), turn)
    except Superseded:
        yield Shown()
    except TROUBLE as error:
        yield failed(error)


def redraw(request: gr.Request, *look) -> Shown:
    """A display control was moved."""
    session = SESSIONS.of(request)
    study = session.get(Study)
    if study is None or not study.steps:
        return Shown()
    shown = drawn(study, Look(*look), _view(session), tuple(study.steps))
    return shown._replace(progress=gr.skip()) if shows(session, study) else Shown()


def open_view(view: str):
    """The event of a view's tab: remember it, and draw it."""

    def opened(request: gr.Request, *look) -> Shown:
        SESSIONS.of(request).keep(View(view))
        return redraw(request, *look)

    return opened


def soften(temperature: float, request: gr.Request):
    return softened(SESSIONS.of(request).get(Study), temperature)
