"""The page: upload an image, and see what teacher and student decide and where each looked.

Layout and event wiring only; models, timing and heatmaps live in `kdmodels`.
"""

import html
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

# Before gradio is imported, because it reads these when it starts. Nothing phones home, and the
# uploads of this process go to a folder of their own that is removed when it ends.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
UPLOADS = tempfile.TemporaryDirectory(prefix="teacher-and-student-", ignore_cleanup_errors=True)
os.environ.setdefault("GRADIO_TEMP_DIR", UPLOADS.name)

import gradio as gr
from PIL import Image

from kdmodels import cards, scorecam
from kdmodels.checkpoints import CheckpointError, Index
from kdmodels.engine import EngineError
from kdmodels.figures import overlay
from kdmodels.images import MAX_BYTES, CheckedImage, ImageError, read_image
from kdmodels.predict import Classifier, on_equal_terms, predict, warm_up
from kdmodels.tasks import TASKS, Task, get_task
from kdmodels.turns import Superseded, Turns
from kdmodels.zoo import STUDENTS, get_spec

STUDENT = STUDENTS[0]
OWN_ANSWER = "own"
DISCLAIMER = "For research and teaching only. Not a medical device: no diagnosis, no treatment."
HINT = '<p class="verdict hint">Upload or paste an image, then press Compare.</p>'
ON_SPACE = "SPACE_ID" in os.environ
CSS = (Path(__file__).parent / "kdmodels" / "page.css").read_text(encoding="utf-8")

try:
    INDEX = Index.read()
except CheckpointError as error:
    raise SystemExit(f"{error} Restore the folder weights/, or unset KD_WEIGHTS.") from None
OFFERED = [task for task in TASKS.values() if INDEX.teachers(task.id)]
_LOADING = threading.Lock()


@cache
def _opened(task: str, teacher: str) -> list[Classifier]:
    rows = INDEX.find(task, teacher), INDEX.find(task, STUDENT, teacher)
    return on_equal_terms(*(Classifier.load(INDEX, row) for row in rows))


def _pair(task: str, teacher: str) -> list[Classifier]:
    """Teacher and student, opened once however many tabs ask at the same time."""
    with _LOADING:
        return _opened(task, teacher)


def warm_up_first() -> None:
    """Open the default pair and run it once, while the page loads."""
    task = OFFERED[0].id
    warm_up(*_pair(task, INDEX.teachers(task)[0]))


# --- What happens ----------------------------------------------------------------------------


TURNS = Turns()


class Results(NamedTuple):
    """What an event changes on the page; all else stays as it is."""

    message: Any = gr.skip()
    verdict: Any = gr.skip()
    teacher_card: Any = gr.skip()
    student_card: Any = gr.skip()
    teacher_progress: Any = gr.skip()
    student_progress: Any = gr.skip()
    teacher_map: Any = gr.skip()
    student_map: Any = gr.skip()


def _empty_map(role: str) -> gr.Image:
    return gr.Image(None, label=f"Where the {role} looked")


def _cleared(**changes: Any) -> Results:
    return Results(
        verdict=HINT,
        teacher_card="",
        student_card="",
        teacher_progress="",
        student_progress="",
        teacher_map=_empty_map("teacher"),
        student_map=_empty_map("student"),
    )._replace(**changes)


def _read(path: str | None) -> CheckedImage:
    if not path:
        raise ImageError("There is no image yet; upload or paste one first.")
    return read_image(path)


def show_upload(path: str | None, request: gr.Request):
    """A file was chosen: show what will be compared, or say why not. Returns image and results."""
    TURNS.take(request.session_hash)
    try:
        checked = _read(path)
    except ImageError as error:
        return None, *_cleared(message=cards.message("error", str(error)))
    return checked.pixels, *_cleared(message=cards.facts(checked))


def clear(request: gr.Request) -> Results:
    """The image or the teacher is another one: drop the old answers and stop the old work."""
    TURNS.take(request.session_hash)
    return _cleared(message="")


def leave(request: gr.Request) -> None:
    """The browser tab was closed."""
    TURNS.leave(request.session_hash)


def _heatmap(
    classifier: Classifier, pixels: Image.Image, class_id: str, turn: tuple[str, str]
) -> Iterator[dict[str, Any]]:
    """Explain in a thread of its own; yield the changes of the model's progress and map."""
    role = classifier.spec.role
    news: queue.Queue = queue.Queue()

    def report(done: int, total: int) -> None:
        TURNS.check(turn)
        news.put((done, total))

    def work() -> None:
        try:
            news.put(scorecam.explain(classifier, pixels, class_id, report))
        except BaseException as error:  # handed to the waiting request below
            news.put(error)

    threading.Thread(target=work, daemon=True).start()
    while isinstance(latest := news.get(), tuple):
        if news.empty():
            yield {f"{role}_progress": cards.progress(role, *latest)}
    if isinstance(latest, BaseException):
        raise latest
    name = classifier.task.class_names[classifier.task.class_ids.index(class_id)]
    label = f"Where the {role} saw “{name}”"
    if not latest.any():
        label += ": nothing found (the map is flat)"
    picture = gr.Image(overlay(pixels, latest), label=label)
    yield {f"{role}_progress": "", f"{role}_map": picture}


def _compare(path: str, task: str, teacher: str, evidence: str, turn) -> Iterator[Results]:
    started = time.perf_counter()
    checked = _read(path)
    decode_ms = (time.perf_counter() - started) * 1000
    classifiers, predictions = _pair(task, teacher), []
    yield _cleared()  # what was said of the file at its upload stays
    for classifier in classifiers:
        predictions.append(predict(classifier, checked.pixels, lambda: TURNS.check(turn)))
        card = cards.card(classifier, predictions[-1], decode_ms)
        shown = {f"{classifier.spec.role}_card": card}
        TURNS.check(turn)
        yield Results(**shown)
    sentence = html.escape(cards.verdict(get_task(task), *predictions))
    yield Results(verdict=f'<p class="verdict" role="status">{sentence}</p>')
    for classifier, prediction in reversed(list(zip(classifiers, predictions, strict=True))):
        class_id = prediction.class_id if evidence == OWN_ANSWER else evidence
        for change in _heatmap(classifier, checked.pixels, class_id, turn):
            TURNS.check(turn)
            yield Results(**change)


def compare(
    path: str | None, task: str, teacher: str, evidence: str, request: gr.Request
) -> Iterator[Results]:
    """Answers of teacher and student, each as soon as it is there, then both heatmaps.

    The student's heatmap comes first because it is ready sooner. A newer request of the same tab
    ends this one between two batches of work.
    """
    turn = TURNS.take(request.session_hash)
    try:
        yield from _compare(path, task, teacher, evidence, turn)
    except Superseded:
        yield Results()  # gradio sends the last yield once more at the end: let it change nothing
    except (ImageError, CheckpointError, EngineError) as error:
        yield _cleared(message=cards.message("error", str(error)))


def compare_again(
    path: str | None, task: str, teacher: str, evidence: str, request: gr.Request
) -> Iterator[Results]:
    """Another class's evidence is wanted: compare anew, if there is an image to compare."""
    if path:
        yield from compare(path, task, teacher, evidence, request)


def _evidence_choices(task: Task) -> list[tuple[str, str]]:
    named = zip(task.class_names, task.class_ids, strict=True)
    return [("Each model's own answer", OWN_ANSWER), *named]


def _teacher_choices(task: Task) -> list[tuple[str, str]]:
    return [(get_spec(model).paper_name, model) for model in INDEX.teachers(task.id)]


def change_task(task_id: str):
    """Another modality: its teachers and classes. Returns (teacher radio, evidence dropdown)."""
    task = get_task(task_id)
    teachers = _teacher_choices(task)
    return (
        gr.Radio(teachers, value=teachers[0][1]),
        gr.Dropdown(_evidence_choices(task), value=OWN_ANSWER),
    )


# --- The page --------------------------------------------------------------------------------


def _image_input() -> gr.Image:
    """An image component that hands over the uploaded file itself: `read_image` judges its bytes."""
    component = gr.Image(
        label="Image",
        sources=["upload", "clipboard"],
        type="filepath",
        format="png",  # the checked image comes back as it is, without loss
        elem_id="image",
        elem_classes="film",
        height=320,
    )
    component.preprocess = lambda payload: payload.path if payload else None
    return component


def _answer_column(role: str) -> tuple[gr.HTML, gr.HTML, gr.Image]:
    with gr.Column(min_width=300):
        card = gr.HTML(elem_id=f"{role}-card", padding=False)
        progress = gr.HTML(elem_id=f"{role}-progress", padding=False)
        heatmap = gr.Image(
            label=f"Where the {role} looked",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=f"{role}-heatmap",
            elem_classes="film",
            height=380,
        )
    return card, progress, heatmap


def build() -> gr.Blocks:
    """Lay the page out and wire its events."""
    first = OFFERED[0]
    # Every 15 minutes, files older than an hour go; all of them when the process ends.
    with gr.Blocks(title="Teacher and student", delete_cache=(900, 3600)) as page:
        gr.HTML(
            "<h1>Teacher and student</h1><p>What a large network and its small distilled student "
            f'decide, how long each took, and where each looked.</p><p class="disclaimer">{DISCLAIMER}</p>',
            elem_id="heading",
        )
        with gr.Row(elem_id="main"):
            with gr.Column(scale=3, min_width=300):
                task = gr.Radio(
                    [(t.name, t.id) for t in OFFERED],
                    value=first.id,
                    label="Modality",
                    visible=len(OFFERED) > 1,
                )
                image = _image_input()
                other = gr.UploadButton("Open DICOM or TIFF", size="sm", elem_id="other-file")
                message = gr.HTML(elem_id="message", padding=False)
                teacher = gr.Radio(
                    _teacher_choices(first),
                    value=INDEX.teachers(first.id)[0],
                    label="Teacher",
                    elem_id="teacher",
                )
                evidence = gr.Dropdown(
                    _evidence_choices(first),
                    value=OWN_ANSWER,
                    label="Show the evidence for",
                    elem_id="evidence",
                )
                button = gr.Button("Compare", variant="primary", elem_id="compare")
            with gr.Column(scale=7, min_width=300):
                verdict = gr.HTML(HINT, elem_id="verdict", padding=False)
                with gr.Row():
                    teacher_card, teacher_progress, teacher_map = _answer_column("teacher")
                    student_card, student_progress, student_map = _answer_column("student")
                gr.HTML(
                    f"<p class='legend'>{html.escape(scorecam.VARIANT)}. Colour runs from dark (no "
                    "weight) to yellow (most weight), relative to each map's own maximum. A heatmap "
                    "shows what moved the network, not where disease is.</p>",
                    padding=False,
                )
        results = list(
            Results(
                message,
                verdict,
                teacher_card,
                student_card,
                teacher_progress,
                student_progress,
                teacher_map,
                student_map,
            )
        )
        quick = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        for source in (image, other):
            source.upload(show_upload, source, [image, *results], api_visibility="private")
        image.clear(clear, None, results, **quick)
        teacher.input(clear, None, results, **quick)
        task.change(change_task, task, [teacher, evidence], **quick)
        task.change(clear, None, results, **quick)
        # Several at a time, so that a new request can start and thereby end its tab's old one;
        # the computing itself is one after the other (kdmodels.predict.COMPUTE).
        inputs = [image, task, teacher, evidence]
        work = {"show_progress": "hidden", "trigger_mode": "multiple", "concurrency_limit": 16}
        button.click(compare, inputs, results, api_name="compare", **work)
        evidence.input(compare_again, inputs, results, api_visibility="private", **work)
        page.unload(leave)
    return page


def main() -> None:
    """Serve the page; open a browser unless on a Space or asked not to (KD_NO_BROWSER)."""
    if not OFFERED:
        raise SystemExit(f"{INDEX.folder} holds no teacher with its student; restore weights/.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the uploads are removed
    threading.Thread(target=warm_up_first, daemon=True).start()
    build().queue(max_size=64).launch(
        server_name="0.0.0.0" if ON_SPACE else None,
        inbrowser=not ON_SPACE and "KD_NO_BROWSER" not in os.environ,
        theme=gr.themes.Base(
            primary_hue="sky",
            neutral_hue="slate",
            font=["ui-sans-serif", "system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ).set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300"),
        css=CSS,
        footer_links=["api", "settings"],
        max_file_size=MAX_BYTES,
        run_history=False,
        strict_cors=True,
        show_error=True,
        ssr_mode=False,
        share=False,
    )


if __name__ == "__main__":
    main()
