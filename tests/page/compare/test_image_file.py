"""`page.compare.image_file`: the file comes as it was uploaded, also after an update of the component."""

import gradio as gr
from gradio.data_classes import ImageData

from page.compare.image_file import ImageFile


def test_the_bytes_are_those_of_the_file_whatever_they_are(tmp_path):
    (tmp_path / "no.png").write_bytes(b"no image at all")
    component = ImageFile(type="filepath", format="png")
    again = component.__class__(**component.constructor_args)  # as gradio does
    for one in (component, again):
        assert one.preprocess(ImageData(path=str(tmp_path / "no.png"))) == str(tmp_path / "no.png")
        assert one.preprocess(None) is None
        assert one.get_block_name() == gr.Image().get_block_name()
