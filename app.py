"""The page: upload an image, and see what teacher and student decide and where each looked.

Start-up only: `page` lays the page out, and models, timing and heatmaps live in `kdmodels`.
"""

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

# Before gradio is imported, because it reads these when it starts. Nothing phones home, and the
# uploads of this process go to a folder of their own that is removed when it ends.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
UPLOADS = tempfile.TemporaryDirectory(prefix="teacher-and-student-", ignore_cleanup_errors=True)
os.environ.setdefault("GRADIO_TEMP_DIR", UPLOADS.name)

import gradio as gr

from kdmodels.images.archives import MAX_BYTES
from page import about, api
from page.batch import tab as batch
from page.compare import tab as compare
from page.pairs import index, warm_up_first
from page.sessions import SESSIONS
from page.teach import tab as teach

DISCLAIMER = "For research and teaching only. Not a medical device: no diagnosis, no treatment."
ON_SPACE = "SPACE_ID" in os.environ
PAGE = Path(__file__).parent / "page"
CSS, LABELS = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "labels.js"))
# Of the hues, 700 on white and 400 on slate have a contrast of at least 4.5:1.
THEME = gr.themes.Base(
    primary_hue="sky",
    neutral_hue="slate",
    font=["ui-sans-serif", "system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    checkbox_border_color="*neutral_500",
    checkbox_border_color_dark="*neutral_400",
    color_accent="*primary_700",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
)


def build() -> gr.Blocks:
    """The whole page."""
    # Every 15 minutes, files older than an hour go; all of them when the process ends.
    with gr.Blocks(title="Teacher and student", delete_cache=(900, 3600)) as page:
        gr.HTML(
            "<h1>Teacher and student</h1><p>What a large network and its small distilled student "
            f'decide, how long each took, and where each looked.</p><p class="disclaimer">{DISCLAIMER}</p>',
            elem_id="heading",
        )
        with gr.Tabs(elem_id="pages") as pages:
            with gr.Tab("Compare", id="compare"):
                compared = compare.build()
            with gr.Tab("Teach", id="teach"):
                teach.build()
            with gr.Tab("Batch", id="batch"):
                batch.build(pages, compared)
            with gr.Tab("About", id="about"):
                about.build()
        api.build()
        page.unload(SESSIONS.leave)
    return page


def main() -> None:
    """Serve the page; open a browser unless on a Space or asked not to (KD_NO_BROWSER)."""
    index()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the uploads are removed
    threading.Thread(target=warm_up_first, daemon=True).start()
    build().queue(max_size=64).launch(
        server_name="0.0.0.0" if ON_SPACE else None,
        inbrowser=not ON_SPACE and "KD_NO_BROWSER" not in os.environ,
        theme=THEME,
        css=CSS,
        js=LABELS,
        footer_links=["api", "settings"],
        max_file_size=MAX_BYTES,  # of a zip; a single image may have less (kdmodels.images)
        run_history=False,
        strict_cors=True,
        show_error=True,
        ssr_mode=False,
        share=False,
    )


if __name__ == "__main__":
    main()
