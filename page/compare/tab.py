"""The first tab: one image, two models. Layout and event wiring only."""

from typing import NamedTuple

import gradio as gr

from kdmodels.examples import examples
from kdmodels.explain import scorecam
from kdmodels.explain.overlays import COLOURS
from kdmodels.tasks import Task, get_task
from page.compare import comparing, erasing, exporting, masks
from page.compare.comparing import OWN_ANSWER
from page.compare.image_file import ImageFile
from page.compare.looks import DIFFERENCE, SIDE, SLIDER, SLIDER_PAIRS, Look
from page.compare.shown import HINT, WAITING, Shown, map_label
from page.pairs import ROLES, index, offered, teacher_choices
from page.parts import QUICK, READING, WORK, film


class Chosen(NamedTuple):
    """The components that say what is compared."""

    image: gr.Image
    task: gr.Radio
    teacher: gr.Radio


class Choices(NamedTuple):
    """What follows the modality; of components, or of what they become."""

    teacher: gr.Radio
    evidence: gr.Dropdown
    gallery: gr.Gallery
    mask: gr.UploadButton


class CompareTab(NamedTuple):
    """What other tabs need of this one."""

    chosen: Chosen
    choices: Choices
    inputs: list[gr.components.Component]  # of `comparing.answer_and_explain`
    shown: Shown


def evidence_choices(task: Task) -> list[tuple[str, str]]:
    named = zip(task.class_names, task.class_ids, strict=True)
    return [("Each model's own answer", OWN_ANSWER), *named]


def change_task(task_id: str) -> Choices:
    """Another modality was chosen."""
    return choices_of(get_task(task_id))


def choices_of(task: Task, teacher: str | None = None) -> Choices:
    """The choices of a task, with a teacher chosen; None: its first."""
    teachers = teacher_choices(task)
    return Choices(
        gr.Radio(teachers, value=teacher or teachers[0][1]),
        gr.Dropdown(evidence_choices(task), value=OWN_ANSWER),
        gr.Gallery(example_pictures(task), selected_index=None),
        gr.UploadButton(visible=task.lung_masks),
    )


def example_pictures(task: Task) -> list[tuple[str, str]]:
    """(file, class name) of each synthetic example."""
    names = dict(zip(task.class_ids, task.class_names, strict=True))
    return [(str(e.path), names[e.class_id]) for e in examples(task.id)]


def _image_input() -> ImageFile:
    return ImageFile(
        label="Image",
        sources=["upload", "clipboard"],
        type="filepath",
        format="png",  # the checked image comes back as it is, without loss
        elem_id="image",
        elem_classes="film",
        height=320,
    )


class _Inputs(NamedTuple):
    chosen: Chosen
    other: gr.UploadButton
    message: gr.HTML
    window: tuple[gr.Slider, gr.Slider]
    window_group: gr.Group
    button: gr.Button
    gallery: gr.Gallery
    mask: gr.UploadButton


def _input_column(first: Task) -> _Inputs:
    task = gr.Radio(
        [(t.name, t.id) for t in offered()],
        value=first.id,
        label="Modality",
        visible=len(offered()) > 1,
        elem_id="modality",
    )
    image = _image_input()
    other = gr.UploadButton("Open DICOM or TIFF", size="sm", elem_id="other-file")
    mask = gr.UploadButton(
        "Add a lung mask (white lungs on black)",
        size="sm",
        elem_id="mask-file",
        visible=first.lung_masks,
    )
    message = gr.HTML(elem_id="message", padding=False)
    with gr.Group(visible=False, elem_id="window") as window_group:
        centre = gr.Slider(label="Window centre", info="The networks see the window, too.")
        width = gr.Slider(label="Window width")
    teacher = gr.Radio(
        teacher_choices(first),
        value=index().teachers(first.id)[0],
        label="Teacher",
        elem_id="teacher",
    )
    button = gr.Button("Compare", variant="primary", elem_id="compare")
    gallery = gr.Gallery(
        example_pictures(first),
        label="Synthetic examples (no patients)",
        columns=3,
        height="auto",
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_id="examples",
        visible=any(examples(t.id) for t in offered()),
    )
    return _Inputs(
        Chosen(image, task, teacher),
        other,
        message,
        (centre, width),
        window_group,
        button,
        gallery,
        mask,
    )


class _Controls(NamedTuple):
    evidence: gr.Dropdown
    exact: gr.Checkbox
    look: Look  # of components, in the order of its fields


def _controls(first: Task) -> _Controls:
    with gr.Row():
        evidence = gr.Dropdown(
            evidence_choices(first),
            value=OWN_ANSWER,
            label="Show the evidence for",
            elem_id="evidence",
            scale=2,
        )
        exact = gr.Checkbox(
            value=True,
            label="Go on to the exact map",
            info="Else the work ends once the map hardly changes.",
            elem_id="exact",
            scale=2,
        )
    with gr.Row():
        colours = gr.Dropdown(list(COLOURS), value=COLOURS[0], label="Colours", min_width=120)
        opacity = gr.Slider(0, 1, 0.65, step=0.05, label="Opacity", min_width=140)
        threshold = gr.Slider(0, 0.95, 0, step=0.05, label="Hide heat below", min_width=140)
        inverted = gr.Checkbox(False, label="Invert greys", min_width=120, elem_id="invert")
    return _Controls(evidence, exact, Look(colours, opacity, threshold, inverted, None))


def build() -> CompareTab:
    """Lay the tab out and wire its events; call within a tab of a page."""
    first = offered()[0]
    with gr.Row(elem_id="main"):
        with gr.Column(scale=3, min_width=300):
            inputs = _input_column(first)
        with gr.Column(scale=7, min_width=300):
            verdict = gr.HTML(HINT, elem_id="verdict", padding=False)
            with gr.Row():
                with gr.Column(min_width=300):
                    teacher_card = gr.HTML(elem_id="teacher-card", padding=False)
                with gr.Column(min_width=300):
                    student_card = gr.HTML(elem_id="student-card", padding=False)
            with gr.Tabs(elem_id="tools"):
                with gr.Tab("Where they looked"):
                    controls = _controls(first)
                    progress = gr.HTML(elem_id="progress", padding=False)
                    with gr.Tabs(elem_id="views"):
                        with gr.Tab("Side by side", id=SIDE) as side_tab, gr.Row():
                            teacher_map, student_map = (
                                film(map_label(role), f"{role}-heatmap", 380) for role in ROLES
                            )
                        with gr.Tab("Slider", id=SLIDER) as slider_tab:
                            pair = gr.Radio(
                                list(SLIDER_PAIRS),
                                value=next(iter(SLIDER_PAIRS)),
                                label="Left and right",
                            )
                            slider = gr.ImageSlider(
                                label="Drag the line; scroll to zoom",
                                interactive=False,
                                elem_id="slider",
                                elem_classes="film",
                                height=440,
                                buttons=["download", "fullscreen"],
                            )
                        with gr.Tab("Difference", id=DIFFERENCE) as difference_tab:
                            difference = film(
                                "Orange: hotter for the teacher; purple: for the student",
                                "difference",
                                440,
                            )
                    agreement = gr.HTML(elem_id="agreement", padding=False)
                    gr.HTML(
                        f"<p class='legend'>{scorecam.VARIANT}. Colour is relative to each map's "
                        "own maximum. A heatmap shows what moved the network, not where disease "
                        "is.</p>",
                        padding=False,
                    )
                with gr.Tab("Try to fool it") as fool_tab:
                    gr.HTML(
                        "<p class='legend'>Paint over what you think decides. If an answer stays "
                        "when the disease is gone, or turns when a corner is painted, you have "
                        "learned something about the network.</p>",
                        padding=False,
                    )
                    with gr.Row():
                        with gr.Column(scale=3, min_width=300):
                            editor = erasing.component()
                        with gr.Column(scale=2, min_width=300):
                            changes = gr.HTML(WAITING, elem_id="changes", padding=False)
                with gr.Tab("Temperature"):
                    temperature = gr.Slider(
                        1, 20, 3, step=0.5, label="Temperature T", elem_id="temperature"
                    )
                    softened = gr.HTML(WAITING, elem_id="softened", padding=False)
                with gr.Tab("Export"):
                    exporting.build(temperature, list(controls.look._replace(slider_pair=pair)))
    look = list(controls.look._replace(slider_pair=pair))
    shown = Shown(
        inputs.chosen.image,
        *inputs.window,
        inputs.window_group,
        inputs.message,
        verdict,
        teacher_card,
        student_card,
        progress,
        teacher_map,
        student_map,
        slider,
        difference,
        agreement,
        editor,
        changes,
        softened,
    )
    wanted = [*inputs.chosen, controls.evidence, controls.exact, temperature, *look]
    inputs.button.click(comparing.answer_and_explain, wanted, list(shown), **WORK)
    inputs.button.click(None, js=TO_THE_ANSWER)
    choices = Choices(inputs.chosen.teacher, controls.evidence, inputs.gallery, inputs.mask)
    _wire(inputs, choices, controls, look, list(shown))
    views = ((SIDE, side_tab), (SLIDER, slider_tab), (DIFFERENCE, difference_tab))
    for view, tab in views:
        tab.select(comparing.open_view(view), look, list(shown), **QUICK)
    fool_tab.select(erasing.open_canvas, None, editor, **QUICK)
    editor.input(erasing.paint_over, editor, changes, **WORK)
    temperature.change(comparing.soften, temperature, softened, **QUICK)
    return CompareTab(inputs.chosen, choices, wanted, shown)


def _wire(inputs: _Inputs, choices: Choices, controls: _Controls, look: list, shown: list) -> None:
    image, task, teacher = inputs.chosen
    for source in (image, inputs.other):
        source.upload(comparing.show_upload, [source, task], shown, **READING)
    inputs.gallery.select(comparing.show_example, task, shown, **QUICK)
    for slider in inputs.window:
        slider.release(comparing.show_window, [*inputs.window, task], shown, **READING)
    image.clear(comparing.clear_image, None, shown, **QUICK)
    teacher.input(comparing.clear, None, shown, **QUICK)
    task.input(change_task, task, list(choices), **QUICK)
    inputs.mask.upload(masks.show_mask, [inputs.mask, image], shown, **READING)
    task.input(comparing.judge_again, [image, task], shown, **QUICK)
    wanted = [controls.evidence, controls.exact]
    controls.evidence.input(comparing.explain_again, [*wanted, *look], shown, **WORK)
    controls.exact.input(comparing.explain_again, [*wanted, *look], shown, **WORK)
    for control in look:
        event = control.release if isinstance(control, gr.Slider) else control.input
        event(comparing.redraw, look, shown, **QUICK)
    inverted = look[3]
    inverted.input(None, inverted, None, js=INVERT)


# On a phone the answer is below the image.
TO_THE_ANSWER = (
    "() => { if (innerWidth < 700) document.querySelector('#verdict')"
    ".scrollIntoView({behavior: 'smooth'}); }"
)
INVERT = "on => document.body.classList.toggle('inverted', on)"
