"""What the tests of the page have in common: files to upload, and what is read off the page."""

import io

import numpy as np
from PIL import Image

FIELDS = ("image", "other", "mask")  # file inputs of the first tab, as they follow on the page


def upload(page, name: str, content: bytes, kind: str, field: str = "image"):
    page.locator("input[type=file]").nth(FIELDS.index(field)).set_input_files(
        {"name": name, "mimeType": kind, "buffer": content}
    )
    return page.wait_for_selector("#message .message", timeout=60_000).inner_text()


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def percentages(page, card: str) -> list[float]:
    values = page.locator(f"{card} .bars .value").all_inner_texts()
    return [float(v.rstrip("%")) for v in values]


def picture_of(page, selector: str) -> np.ndarray:
    """The pixels of an image on the page, (H, W, 3) uint8."""
    address = page.wait_for_selector(selector, timeout=30_000).get_attribute("src")
    body = page.request.get(address).body()
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))
