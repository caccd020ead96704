"""`page.compare.erasing`: paint covers what it covers."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from kdmodels.images.read import ImageError
from page.compare.erasing import PNG_ADDRESS, painted


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def address(layer: Image.Image, kind: str = "PNG") -> str:
    layer.save(stream := BytesIO(), kind)
    return PNG_ADDRESS + base64.b64encode(stream.getvalue()).decode()


def test_paint_covers_what_it_covers_and_nothing_else(photo):
    layer = Image.new("RGBA", photo.size)
    layer.paste((128, 128, 128, 255), (10, 20, 30, 40))
    under, share = painted(photo, address(layer))
    assert share == pytest.approx(20 * 20 / (80 * 60))
    wanted = array(photo)
    wanted[20:40, 10:30] = 128
    assert np.array_equal(array(under), wanted)


@pytest.mark.parametrize(
    "paint",
    [
        "nonsense",
        PNG_ADDRESS + "%%%",
        PNG_ADDRESS + base64.b64encode(b"no picture").decode(),
        "data:image/jpeg;base64,AAAA",
        address(Image.new("RGBA", (80, 61))),
        address(Image.new("RGB", (80, 60)), "JPEG"),
        PNG_ADDRESS + "A" * 4_000_001,
    ],
    ids=["word", "base64", "picture", "kind", "size", "jpeg inside", "long"],
)
def test_paint_that_is_none_is_answered_with_one_sentence(photo, paint):
    with pytest.raises(ImageError, match=r"^The paint could not be read; press Start again\.$"):
        painted(photo, paint)
