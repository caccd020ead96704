"""The page: upload an image, and see what teacher and student decide and where each looked.

Layout and event wiring only; models, timing and heatmaps live in `kdmodels`.
"""

import html
import os
import threading
from functools import cache
from pathlib import Path

# Before gradio is imported: it reads these when it starts. Nothing phones home.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from PIL import Image

from kdmodels import cards, scorecam
from kdmodels.checkpoints import CheckpointError, Index
from kdmodels.figures import overlay
from kdmodels.images import MAX_BYTES, CheckedImage, ImageError, read_image
from kdmodels.predict import Classifier, predict
from kdmodels.tasks import TASKS, Task, get_task
from kdmodels.zoo import STUDENTS, count_macs, get_spec

STUDENT = STUDENTS[0]
OWN_ANSWER = "own"
DISCLAIMER = "For research and teaching only. Not a medical device: no diagnosis, no treatment."
HINT = '<p class="verdict hint">Upload or paste an image, then press Compare.</p>'
ON_SPACE = "SPACE_ID" in os.environ
CSS = (Path(__file__).parent / "kdmodels" / "page.css").read_text(encoding="utf-8")

INDEX = Index.read()
OFFERED = [task for task in TASKS.values() if INDEX.teachers(task.id)]


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


@cache
def _classifier(task: str, model: str, teacher: str | None) -> Classifier:
    return Classifier.load(INDEX, INDEX.find(task, model, teacher))


@cache
def _gmacs(task: str, model: str, teacher: str | None) -> float:
    classifier = _classifier(task, model, teacher)
    return count_macs(classifier.model, classifier.spec.input_size) / 1e9


def _pair(task: str, teacher: str) -> tuple[Classifier, Classifier]:
    return _classifier(task, teacher, None), _classifier(task, STUDENT, teacher)


def warm_up() -> None:
    """Load the default pair and run it once, while the page loads."""
    task = OFFERED[0]
    blank = Image.new("RGB", (64, 64))
    for classifier in _pair(task.id, INDEX.teachers(task.id)[0]):
        predict(classifier, blank)
        _gmacs(task.id, classifier.spec.id, classifier.checkpoint.teacher)


# --- What happens ----------------------------------------------------------------------------


class Superseded(Exception):
    """A newer request of the same browser tab has made this work pointless."""


class Turns:
    """The latest turn of each browser tab, so that older heatmaps stop instead of piling up."""

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, tab: str) -> int:
        with self._lock:
            self._latest[tab] = self._latest.get(tab, 0) + 1
            return self._latest[tab]

    def check(self, tab: str, turn: int | None) -> None:
        """Raise `Superseded` unless this is the tab's latest turn (None: not part of any)."""
        if turn is not None and self._latest.get(tab) != turn:
            raise Superseded

    def leave(self, tab: str) -> None:
        with self._lock:
            self._latest.pop(tab, None)


TURNS = Turns()


def _read(path: str | None) -> CheckedImage:
    if not path:
        raise ImageError("There is no image yet; upload or paste one first.")
    return read_image(path)


def show_upload(path: str | None):
    """A file was chosen: show what will be compared, or say why not. Returns (image, message)."""
    try:
        checked = _read(path)
    except ImageError as error:
        return None, cards.message("error", str(error))
    return checked.pixels, cards.facts(checked)


def begin(request: gr.Request):
    """Drop old answers and stop old heatmaps: (turn, answers, verdict, two cards, two maps)."""
    return TURNS.take(request.session_hash), None, HINT, "", "", None, None


def leave(request: gr.Request) -> None:
    """The browser tab was closed: forget it, which also stops its heatmaps."""
    TURNS.leave(request.session_hash)


def begin_heatmaps(request: gr.Request):
    """The same for the heatmaps alone: (turn, two maps)."""
    return TURNS.take(request.session_hash), None, None


def compare(path: str | None, task: str, teacher: str):
    """Predictions of teacher and student for one image, each as soon as it is there.

    Yields (message, verdict, teacher's card, student's card, ids of both answers); HTML but for
    the last.
    """
    try:
        checked = _read(path)
        classifiers = _pair(task, teacher)
    except (ImageError, CheckpointError) as error:
        yield cards.message("error", str(error)), HINT, "", "", None
        return
    shown, predictions = ["", ""], []
    for i, classifier in enumerate(classifiers):
        predictions.append(predict(classifier, checked.pixels))
        gmacs = _gmacs(task, classifier.spec.id, classifier.checkpoint.teacher)
        shown[i] = cards.card(classifier, predictions[i], gmacs)
        if i == 0:
            yield gr.skip(), gr.skip(), *shown, None
    sentence = html.escape(cards.verdict(get_task(task), *predictions))
    answers = [p.class_id for p in predictions]
    yield gr.skip(), f'<p class="verdict" role="status">{sentence}</p>', *shown, answers


def _explainer(role: int):
    """The event function that draws the heatmap of the teacher (role 0) or the student (role 1)."""

    def explain(
        path: str | None,
        task: str,
        teacher: str,
        evidence: str,
        answers: list[str] | None,
        turn: int | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (gradio's way to ask for it)
    ):
        if answers is None:  # no prediction, and why not is on the page already
            return gr.skip()
        classifier = _pair(task, teacher)[role]

        def report(done: int, total: int) -> None:
            TURNS.check(request.session_hash, turn)
            progress(done / total, desc=f"Score-CAM, {done:,} of {total:,} channels")

        class_id = answers[role] if evidence == OWN_ANSWER else evidence
        try:
            report(0, classifier.spec.cam_channels)
            pixels = _read(path).pixels
            heatmap = scorecam.explain(classifier, pixels, class_id, report)
        except (ImageError, Superseded):
            return gr.skip()
        name = get_task(task).class_names[classifier.task.class_ids.index(class_id)]
        label = f"Where the {classifier.spec.role} saw “{name}”"
        if not heatmap.any():
            label += ": nothing found (the map is flat)"
        return gr.Image(overlay(pixels, heatmap), label=label)

    return explain


def _evidence_choices(task: Task) -> list[tuple[str, str]]:
    return [
        ("Each model's own answer", OWN_ANSWER),
        *zip(task.class_names, task.class_ids, strict=True),
    ]


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


def _heatmap_image(role: str) -> gr.Image:
    return gr.Image(
        label=f"Where the {role} looked",
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id=f"{role}-heatmap",
        elem_classes="film",
        height=380,
        min_width=300,
    )


def build() -> gr.Blocks:
    """Lay the page out and wire its events."""
    first = OFFERED[0]
    # Uploaded files live at most an hour, and are looked for every quarter of one.
    with gr.Blocks(title="Teacher and student", delete_cache=(900, 3600)) as page:
        turn, answers = gr.State(None), gr.State(None)
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
                other = gr.UploadButton(
                    "Open DICOM or TIFF", size="sm", elem_id="other-file", file_count="single"
                )
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
                verdict_html = gr.HTML(HINT, elem_id="verdict", padding=False)
                with gr.Row(equal_height=True):
                    with gr.Column(min_width=300):
                        teacher_card = gr.HTML(elem_id="teacher-card", padding=False)
                    with gr.Column(min_width=300):
                        student_card = gr.HTML(elem_id="student-card", padding=False)
                with gr.Row():
                    teacher_map = _heatmap_image("teacher")
                    student_map = _heatmap_image("student")
                gr.HTML(
                    f"<p class='legend'>{html.escape(scorecam.VARIANT)}. Colour runs from dark (no "
                    "weight) to yellow (most weight), relative to each map's own maximum. A heatmap "
                    "shows what moved the network, not where disease is.</p>"
                )
        maps, answer_cards = [teacher_map, student_map], [teacher_card, student_card]
        results = [turn, answers, verdict_html, *answer_cards, *maps]
        quick = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}

        for source in (image, other):
            event = source.upload(show_upload, source, [image, message], api_visibility="private")
            event.then(begin, None, results, **quick)
        image.clear(lambda: "", None, message, **quick).then(begin, None, results, **quick)
        teacher.input(begin, None, results, **quick)
        task.change(change_task, task, [teacher, evidence], **quick).then(
            begin, None, results, **quick
        )

        def show_heatmaps(after):
            inputs = [image, task, teacher, evidence, answers, turn]
            options = {"concurrency_id": "heatmaps", "concurrency_limit": 1}
            # The student first: its map is there sooner.
            after.then(
                _explainer(1), inputs, student_map, api_visibility="private", **options
            ).then(_explainer(0), inputs, teacher_map, api_visibility="private", **options)

        show_heatmaps(
            button.click(begin, None, results, **quick).then(
                compare,
                [image, task, teacher],
                [message, verdict_html, *answer_cards, answers],
                concurrency_limit=1,
                api_name="compare",
            )
        )
        show_heatmaps(evidence.input(begin_heatmaps, None, [turn, *maps], **quick))
        page.unload(leave)
    return page


def main() -> None:
    """Serve the page; open a browser unless on a Space or asked not to (KD_NO_BROWSER)."""
    if not OFFERED:
        raise SystemExit("weights/index.json holds no teacher with its student; restore weights/.")
    threading.Thread(target=warm_up, daemon=True).start()
    build().queue(default_concurrency_limit=4, max_size=64).launch(
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
