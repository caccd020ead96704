"""Named endpoints for programs: /compare, /explain and /batch, with stable names and types."""

import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import gradio as gr
from PIL import Image

from kdmodels.doubts import doubts_of
from kdmodels.engines.devices import lent, on_zero_gpu
from kdmodels.explain import explain_progressively, overlay
from kdmodels.images import gather, read_image
from kdmodels.predict import Prediction, predict
from kdmodels.tasks import TASKS, get_task
from page.batch import answers
from page.pairs import ROLES, forget, index, offered, pair
from page.words import TROUBLE

LIMIT = {"concurrency_limit": 4}


def _chosen(task: str, teacher: str | None):
    if task not in TASKS or not index().teachers(task):
        known = ", ".join(t.id for t in offered())
        raise gr.Error(f"There is no task '{task}'; the tasks are: {known}.", print_exception=False)
    teachers = index().teachers(task)
    if teacher and teacher not in teachers:
        raise gr.Error(
            f"There is no teacher '{teacher}'; the teachers are: {', '.join(teachers)}.",
            print_exception=False,
        )
    try:
        return pair(task, teacher or teachers[0])
    except TROUBLE as error:
        raise _told(error) from error


def _told(error: Exception) -> gr.Error:
    return gr.Error(str(error), print_exception=False)


def _answer(prediction: Prediction) -> dict:
    latency = prediction.latency
    return {
        "class": prediction.class_id,
        "probabilities": dict(zip(prediction.class_ids, prediction.probabilities, strict=True)),
        "logits": dict(zip(prediction.class_ids, prediction.logits, strict=True)),
        "latency_ms": {
            "median": latency.median_ms,
            "q1": latency.q1_ms,
            "q3": latency.q3_ms,
            "runs": latency.runs,
        },
        "engine": latency.engine,
        "threads": latency.threads,
    }


def compare(image: str | None, task: str, teacher: str | None) -> dict:
    """Both models' answers to one image file.

    task: id of one that is offered, such as `cxr` or `histopathology`. teacher: `vgg19`,
    `visformer_s` or `autoformerv2_t`; empty: the task's first. Returns {"teacher": answer, "student": answer, "agree": bool, "doubts": sentences}; an answer
    has the class id, calibrated probabilities, logits, latency in ms, engine and threads; doubts are
    what speaks against taking the answers at their word, often none.
    """
    models = _chosen(task, teacher)
    try:
        checked = read_image(image or "")
        said = (_answer(predict(c, checked.pixels)) for c in models)
        answers = dict(zip(ROLES, said, strict=True))
    except TROUBLE as error:
        raise _told(error) from error
    return answers | {
        "agree": answers["teacher"]["class"] == answers["student"]["class"],
        "doubts": list(doubts_of(get_task(task), checked)),
    }


def explain(
    image: str | None, task: str, teacher: str | None, role: str, class_id: str | None, exact: bool
) -> tuple[Image.Image, dict]:
    """One model's Score-CAM heatmap of one image file.

    role: `teacher` or `student`. class_id: whose evidence is shown; empty: the model's own answer.
    exact: score every channel; else stop once the map is settled. Returns the overlay and
    {"class", "heatmap": rows of values in [0, 1], "channels", "of", "agreement", "doubts": sentences}.
    """
    models = _chosen(task, teacher)
    if role not in ROLES:
        raise gr.Error(
            f"There is no role '{role}'; choose teacher or student.", print_exception=False
        )
    known = get_task(task).class_ids
    if class_id and class_id not in known:
        raise gr.Error(
            f"There is no class '{class_id}'; the classes are: {', '.join(known)}.",
            print_exception=False,
        )
    classifier = models[ROLES.index(role)]
    try:
        checked = read_image(image or "")
        pixels = checked.pixels
        class_id = class_id or predict(classifier, pixels).class_id
        for step in explain_progressively(classifier, pixels, class_id):
            if step.settled and not exact:
                break
    except TROUBLE as error:
        raise _told(error) from error
    return overlay(pixels, step.heatmap), {
        "class": class_id,
        "heatmap": step.heatmap.tolist(),
        "channels": step.done,
        "of": step.total,
        "agreement": step.estimate,
        "doubts": list(doubts_of(get_task(task), checked)),
    }


def run_batch(files: list[str] | None, task: str, teacher: str | None) -> list[dict]:
    """Both models' answers to many image files or zips of them: one row each, as in the CSV."""
    models = _chosen(task, teacher)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = gather([Path(f) for f in files or []], Path(folder))
            rows = [answers.Row("", problem=problem) for problem in found.problems]
            rows += answers.run(models, found.images)
    except TROUBLE as error:
        raise _told(error) from error
    return [{name: getattr(row, name) for name in answers.COLUMNS} for row in rows]


def on_gpu(function: Callable) -> Callable:
    """On a ZeroGPU Space, the function in a process of its own that has a GPU; elsewhere, itself.

    The page itself stays on the CPU there: its answers take less time than getting a GPU does.
    """
    if not on_zero_gpu():
        return function
    try:
        import spaces  # there on every ZeroGPU Space
    except ImportError:
        return function

    @wraps(function)
    def run(*args):
        with lent():
            forget()  # what was opened before is on the CPU
            return function(*args)

    return spaces.GPU(duration=120)(run)


def build() -> None:
    """Add the endpoints to the page; nothing of them is seen."""
    with gr.Row(visible=False):
        image, files = gr.File(label="image"), gr.File(label="files", file_count="multiple")
        task = gr.Textbox(offered()[0].id, label="task")
        teacher = gr.Textbox("", label="teacher")
        role, class_id = gr.Textbox("student", label="role"), gr.Textbox("", label="class_id")
        exact = gr.Checkbox(False, label="exact")
        answer, picture = gr.JSON(label="answer"), gr.Image(label="overlay", format="png")
        about, rows = gr.JSON(label="heatmap"), gr.JSON(label="rows")
        start = gr.Button()
    start.click(compare, [image, task, teacher], answer, api_name="compare", **LIMIT)
    wanted = [image, task, teacher, role, class_id, exact]
    start.click(on_gpu(explain), wanted, [picture, about], api_name="explain", **LIMIT)
    start.click(run_batch, [files, task, teacher], rows, api_name="batch", **LIMIT)
