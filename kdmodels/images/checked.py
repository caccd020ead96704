"""What a checked image is, how large one may be, and how its values become 8 bit."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

MAX_PIXELS = 64_000_000
MIN_SIDE = 32
TOO_MANY_PIXELS = "This image has over 64 million pixels; crop it or export it at a lower size."


class ImageError(ValueError):
    """The image was refused. The message is one sentence: what is wrong and what to do."""


@dataclass(frozen=True)
class Window:
    """The grey values of a DICOM image that are shown from black to white, as radiologists set it.

    centre, width: in the file's own units; lowest, highest: of the values in the image.
    """

    centre: float
    width: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class CheckedImage:
    """An image that is safe to show and to classify.

    pixels: mode "RGB", 8 bits per channel, upright; no EXIF, ICC profile or other metadata.
    source_format: "PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF" or "DICOM".
    notes: what was done to the pixels, in plain words, one entry per step; often empty.
    window: of greyscale DICOM with more than 8 bits, else None.
    """

    pixels: Image.Image
    source_format: str
    notes: tuple[str, ...]
    window: Window | None = None


def check_size(width: int, height: int, samples: int = 1) -> None:
    if width * height * samples > MAX_PIXELS:
        raise ImageError(TOO_MANY_PIXELS)
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"This image is too small; both sides must be at least {MIN_SIDE} pixels.")
    if max(width, height) > 10 * min(width, height):
        raise ImageError("One side of this image is over 10 times the other; crop it.")


def to_8_bit(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Scale values of any number type to uint8, as the docstring of `read_image` says."""
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() < 2**16:
        bits = next(bits for bits in (8, 10, 12, 14, 16) if values.max() < 2**bits)
        if bits > 8:
            notes.append(f"{bits}-bit values scaled to 8 bit")
        return rescale(values, 0, 2**bits - 1)
    values = values.astype(np.float64)
    usable = np.abs(values) < 1e38  # false for NaN too; larger values would overflow below
    if not usable.any():
        raise ImageError("This image holds no usable pixel values; export it again.")
    if not usable.all():
        notes.append("pixels without a valid value shown in black")
        values[~usable] = values[usable].min()
    low, high = np.percentile(values[usable], (0.5, 99.5))
    notes.append("values between the 0.5 and 99.5 percentiles scaled to 8 bit")
    return rescale(values, low, high)


def rescale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high linearly to 0..255 (uint8) and clip; a step where low equals high."""
    if not high > low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    with np.errstate(over="ignore"):  # infinite after a tiny range, and clipped next
        scaled = (values - np.float64(low)) / (high - low) * 255
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)
