"""What the page is, how it was measured, and how not to read it. Texts in about.md, numbers from
the generated pages of docs/."""

import re
from pathlib import Path

import gradio as gr

from kdmodels.examples import examples
from kdmodels.familiar import modality
from page.pairs import index, offered

TEXT = Path(__file__).with_name("about.md")
REPOSITORY = Path(__file__).parents[1]


def _text_of(name: str) -> str:
    """A generated page, without figures and links within the repository; empty if it is not there.

    It is in docs/, or for own weights in the folder `results` beside them.
    """
    weights = index().folder
    of_project = weights.resolve() == REPOSITORY / "weights"
    file = (REPOSITORY / "docs" if of_project else weights / "results") / name
    if not file.is_file():
        return ""
    text = re.sub(r"!\[[^]]*]\([^)]*\)", "", file.read_text(encoding="utf-8"))
    return re.sub(r"\[([^]]+)]\((?!https?:)[^)]*\)", r"\1", text)


def models() -> list[tuple[str, str]]:
    """(heading, Markdown) of each task's data and models."""
    parts = re.split(r"^# (.+)$", _text_of("models.md"), flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return [(f"{t.name}: data and models", found[t.name]) for t in offered() if t.name in found]


def results() -> list[tuple[str, str]]:
    """(heading, Markdown) of each part of the generated results; none where there are none."""
    text = _text_of("results.md")
    parts = re.split(r"^#{1,2} (.+)$", text, flags=re.MULTILINE)[1:]
    found, task = [], ""
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        if heading in {t.name for t in offered()}:
            task = heading
            found.append((f"{task}: results", body))
        elif task:
            name = heading if task in heading else f"{task}: {heading[0].lower()}{heading[1:]}"
            found.append((name, body))
    return [(name, body) for name, body in found if body.strip()]


def introduction() -> str:
    """about.md, with the limits of the tasks that are offered."""
    limits = [f"- {t.name}: {limit}" for t in offered() for limit in t.limits]
    return TEXT.read_text(encoding="utf-8").replace("{limits}\n", "".join(f"{x}\n" for x in limits))


def _checked() -> str:
    """What the check of the modality misses and catches."""
    told = []
    for task in offered():
        try:
            told.append(modality.paragraph(modality.measured(task.id)))
        except modality.FamiliarityError:
            continue
    return "\n\n".join(told)


def _credits() -> str:
    texts = (e.attribution for task in offered() for e in examples(task.id))
    return "\n".join(f"- {text}" for text in dict.fromkeys(texts))


def build() -> None:
    """Lay the tab out."""
    gr.Markdown(introduction(), elem_id="about")
    for heading, text in (
        ("Does this look like the modality? How that was measured", _checked()),
        ("Where the synthetic examples come from", _credits()),
        *models(),
        *results(),
    ):
        if text:
            with gr.Accordion(heading, open=False):
                gr.Markdown(text)
