"""A comparison in words and HTML: the answer cards, the verdict sentence, messages.

The page places what it returns; the page's smaller panels are in `page.compare.panels`.
"""

import html
from collections.abc import Mapping, Sequence

from kdmodels.engines import EngineError
from kdmodels.explain import Step
from kdmodels.images import ArchiveError, CheckedImage, ImageError
from kdmodels.models import CheckpointError
from kdmodels.predict import Classifier, Prediction
from kdmodels.tasks import Task

# What is told in one sentence instead of an answer.
TROUBLE = (ImageError, ArchiveError, CheckpointError, EngineError)


def message(kind: str, text: str) -> str:
    role = "alert" if kind == "error" else "status"
    return f'<div class="message {kind}" role="{role}">{html.escape(text)}</div>' if text else ""


def trouble(error: Exception) -> str:
    """HTML of what went wrong: one of `TROUBLE`."""
    return message("error", str(error))


def facts(checked: CheckedImage) -> str:
    width, height = checked.pixels.size
    notes = [f"{checked.source_format}, {width} × {height} px", *checked.notes]
    return message("note", "; ".join(notes) + ".")


def unlike(reason: str) -> str:
    """HTML of a warning that an image may not be of the chosen modality; it forbids nothing."""
    text = (
        f"{reason} Answers and heatmaps mean little for a picture of another kind; you can compare "
        "it all the same."
    )
    return f'<div class="message doubt" role="alert">{html.escape(text)}</div>'


BEFORE = "Before you rely on this"  # what doubts begin with where a reader meets them


def doubts(sentences: Sequence[str]) -> str:
    """HTML of `kdmodels.doubts.doubts_of`, to stand beside an answer; empty where there is none."""
    if not sentences:
        return ""
    rows = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="message doubt" role="status"><b>{BEFORE}</b><ul>{rows}</ul></div>'


def _bar(name: str, colour: str, share: float, chosen: bool) -> str:
    return (
        f'<li class="{"chosen" if chosen else ""}"><span class="name">{html.escape(name)}</span>'
        f'<span class="value">{share:.1%}</span>'
        f'<span class="track"><span style="width:{share:.2%};background:{colour}"></span></span></li>'
    )


def heatmap_progress(steps: Mapping[str, Step | None], over: bool) -> str:
    """HTML: how far each model's heatmap is. over: nothing more will be computed."""
    return "".join(_progress(role, step, over) for role, step in steps.items())


def _progress(role: str, step: Step | None, over: bool) -> str:
    if step is None:
        return f'<label class="progress">{role.capitalize()}: …<progress></progress></label>'
    share = f"{step.done:,} of {step.total:,} channels"
    if step.exact:
        return f'<p class="progress">{role.capitalize()}: exact, all {step.total:,} channels.</p>'
    if over:
        near = f"agreement with the exact map estimated at {min(step.estimate, 0.999):.3f}"
        return f'<p class="progress">{role.capitalize()}: {share}; {near}.</p>'
    return (
        f'<label class="progress">{role.capitalize()}: {share}, the others predicted'
        f'<progress max="{step.total}" value="{step.done}"></progress></label>'
    )


def calibration(classifier: Classifier) -> str:
    """How far the percentages may be taken at their word, in a few words."""
    temperature = classifier.checkpoint.temperature
    if temperature == 1:
        return "percentages as the network gives them"
    return f"percentages calibrated on validation images (temperature {temperature:.2f})"


def card(classifier: Classifier, prediction: Prediction, decode_ms: float | None = None) -> str:
    """HTML of one model's answer: probabilities, time and size, and what ran where.

    decode_ms: time to read and check the uploaded file, in milliseconds, where it is known.
    """
    task, latency, size = classifier.task, prediction.latency, classifier.size
    bars = "".join(
        _bar(info.name, info.colour, share, i == prediction.index)
        for i, (info, share) in enumerate(zip(task.classes, prediction.probabilities, strict=True))
    )
    answer = task.classes[prediction.index].name
    threads = f"{latency.threads} thread{'s' if latency.threads != 1 else ''}"
    note = f'<p class="note">{html.escape(latency.note)}</p>' if latency.note else ""
    origin = f"; {classifier.checkpoint.origin}" if classifier.checkpoint.origin else ""
    decoding = "" if decode_ms is None else f" {decode_ms:.0f} ms"
    return f"""
<section class="card" aria-label="{classifier.spec.role} {classifier.spec.paper_name}">
<header><span class="role">{classifier.spec.role}</span>
<span class="model">{html.escape(classifier.checkpoint.name)}</span></header>
<p class="answer">{html.escape(answer)} <b>{prediction.probabilities[prediction.index]:.0%}</b></p>
<ul class="bars">{bars}</ul>
<dl>
<div class="latency"><dt>Time for one image</dt><dd><b>{latency.median_ms:.1f} ms</b>
<small>median of {latency.runs}; quartiles {latency.q1_ms:.1f} to {latency.q3_ms:.1f}</small></dd></div>
<div><dt>Parameters</dt><dd>{size.parameters / 1e6:.1f} M</dd></div>
<div><dt>Work</dt><dd>{size.macs / 1e9:.2f} GMAC</dd></div>
<div><dt>File</dt><dd>{classifier.checkpoint.bytes / 1e6:.1f} MB</dd></div>
</dl>
<footer>{html.escape(latency.engine)}, {threads}; {classifier.spec.input_size} px input;
not counted: decoding{decoding}, preprocessing {prediction.preprocess_ms:.0f} ms; {calibration(classifier)}{origin}{note}</footer>
</section>"""


def verdict(task: Task, teacher: Prediction, student: Prediction) -> str:
    """One plain sentence: do they agree, on what, how sure, and which was faster."""
    names = task.class_names
    sure = [f"{p.probabilities[p.index]:.0%}" for p in (teacher, student)]
    if teacher.index == student.index:
        says = f"Both say {names[teacher.index]} (teacher {sure[0]}, student {sure[1]})."
    else:
        says = (
            f"They differ: the teacher says {names[teacher.index]} ({sure[0]}), "
            f"the student {names[student.index]} ({sure[1]})."
        )
    ratio = teacher.latency.median_ms / student.latency.median_ms
    faster, slower = ("student", ratio) if ratio >= 1 else ("teacher", 1 / ratio)
    engines = dict.fromkeys((teacher.latency.engine, student.latency.engine))  # one, as a rule
    where = " against ".join(engines)
    return f"{says} The {faster} was {slower:.1f} times as fast here ({where})."
