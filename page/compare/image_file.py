"""The image component of the page, which hands over the uploaded file itself.

A class of its own, because gradio makes a browser tab's component anew when an event updates it: a
method replaced on one component would be gone then. For each such class gradio writes a stub beside
it (`image_file.pyi`, which git ignores).
"""

import gradio as gr
from gradio.data_classes import ImageData


class ImageFile(gr.Image):
    """Its value is the path of the file as it was uploaded: `read_image` judges its bytes."""

    is_template = True  # on the page it is an ordinary image

    def preprocess(self, payload: ImageData | None) -> str | None:
        return payload.path if payload else None
