"""The comparison as a file: PNG for slides, PDF for paper, JSON for programs."""

import tempfile
from pathlib import Path

import gradio as gr

from kdmodels import __version__
from page import words
from page.compare import comparing, looks
from page.compare.looks import Look
from page.compare.study import Study
from page.export.comparison import Comparison, Settings, Side, to_json
from page.pairs import ROLES
from page.sessions import SESSIONS

KINDS = ("png", "pdf", "json")


def comparison_of(study: Study, look: Look, temperature: float) -> Comparison:
    sides = (
        Side.of(c, study.predictions[role], study.evidence.get(role), study.steps.get(role))
        for role, c in zip(ROLES, study.pair, strict=True)
    )
    return Comparison(
        study.task,
        looks.original(study, look),
        *sides,
        verdict=comparing.verdict_of(study),
        made_at=study.made_at,
        version=__version__,
        settings=Settings(look.colours, look.opacity, look.threshold, temperature, look.inverted),
        agreement=comparing.agreement_numbers(study) if study.explained else {},
        doubts=study.doubts,
    )


def content(kind: str, comparison: Comparison) -> bytes:
    if kind == "json":
        return to_json(comparison).encode()
    from page.export.drawing import to_pdf, to_png  # late: matplotlib's fonts take a while

    return {"png": to_png, "pdf": to_pdf}[kind](comparison)


def exporter(kind: str):
    """The event of a kind's button. Returns (file to download, message)."""

    def export(request: gr.Request, temperature: float, *look):
        study = SESSIONS.of(request).get(Study)
        if study is None or not study.answered:
            nothing = words.message("error", "There is nothing to export: compare first.")
            return gr.DownloadButton(value=None), nothing
        made = content(kind, comparison_of(study, Look(*look), temperature))
        name = f"teacher-and-student-{study.made_at:%Y%m%d-%H%M%S}.{kind}"
        file = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder())) / name
        file.write_bytes(made)
        return str(file), words.message("note", f"{name}: {len(made) / 1000:,.0f} kB.")

    return export


def build(temperature: gr.Slider, look: list) -> None:
    """Three buttons; each makes its file and then downloads it."""
    gr.HTML(
        "<p class='legend'>The answers with their doubts, and the heatmaps as they are drawn now; PDF "
        "and JSON also have the checkpoints' sha256, the settings and the time. No file name goes in, "
        "and of a DICOM header only what was done to the pixels; but what is written within the "
        "picture stays in it.</p>",
        padding=False,
    )
    with gr.Row():
        buttons = [gr.Button(kind.upper(), elem_id=f"export-{kind}") for kind in KINDS]
    said = gr.HTML(elem_id="export-message", padding=False)
    for kind, button in zip(KINDS, buttons, strict=True):
        ready = gr.DownloadButton(visible="hidden", elem_id=f"download-{kind}")
        # Emptied first, so that an earlier export is never what is downloaded.
        button.click(_empty, None, ready, queue=False, api_visibility="private").then(
            exporter(kind), [temperature, *look], [ready, said], api_visibility="private"
        ).success(None, None, None, js=_pressed(f"download-{kind}"))


def _empty() -> gr.DownloadButton:
    return gr.DownloadButton(value=None)


def _pressed(elem_id: str) -> str:
    """Press a hidden download button once its link is there."""
    return (
        "() => setTimeout(() => {"
        f" const e = document.getElementById('{elem_id}');"
        " const link = e && (e.matches('a') ? e : e.querySelector('a') || e.closest('a'));"
        " (link || e)?.click(); }, 150)"
    )
