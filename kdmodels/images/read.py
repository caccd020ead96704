"""Untrusted bytes -> a checked image: upright 8-bit RGB without metadata, or one plain sentence.

The content decides the format and the one decoder that runs, after a check of the declared size.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from kdmodels.images.checked import TOO_MANY_PIXELS, CheckedImage, ImageError, check_size, to_8_bit
from kdmodels.images.dicom import read_dicom

MAX_BYTES = 32 * 2**20

_FORMATS = {
    "DICOM": rb".{128}DICM",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "WEBP": rb"RIFF.{4}WEBP",
}
_REFUSED = {
    rb".*%PDF-": "This is a PDF; export the page as PNG or upload the DICOM file.",
    rb"\W*<(\?xml.*<|!doctype )?svg": "This is an SVG drawing; export it as PNG and upload that.",
    rb"PK\x03\x04|PK\x05\x06|\x1f\x8b|7z\xbc|Rar!": "This is an archive; unpack it and upload one image.",
    rb".{4}ftyp(hei|hev|mif1|msf1|avi[fs])": "This is a HEIC or AVIF photo; save it as JPEG or PNG.",
    rb"\x02\0\0\0UL|\x08\0[\0\x05\x08]\0": "This DICOM file has lost its header; export it again.",
}
_NOT_AN_IMAGE = "This is not an image that can be read here; upload PNG, JPEG, TIFF or DICOM."


def read_image(
    source: str | os.PathLike | bytes, window: tuple[float, float] | None = None
) -> CheckedImage:
    """Read and check one image given as a path or as the bytes of a file.

    window: (centre, width) that replaces the display window of greyscale DICOM.

    Greyscale deeper than 8 bits is divided by the largest value of its depth: the smallest of 8,
    10, 12, 14 and 16 bits that holds the image, so that a 16-bit export looks like an 8-bit one.
    Float, signed and 32-bit values have no such depth; their 0.5 and 99.5 percentiles become 0
    and 255. DICOM uses its display table or window, then the percentiles; 8-bit values stay.

    Raises ImageError, with the decoder's exception as its cause, on anything else than an image.
    """
    data = _read_bytes(source)
    source_format = _format_of(data)
    with _plain_errors(source_format):
        if source_format == "DICOM":
            return read_dicom(data, window)
        with Image.open(BytesIO(data), formats=(source_format,)) as image:
            return _check(image, source_format)


@contextmanager
def _plain_errors(source_format: str) -> Iterator[None]:
    """Turn whatever a decoder raises into ImageError; decoders fail in many ways on bad bytes."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(TOO_MANY_PIXELS) from error
    except Exception as error:
        raise ImageError(
            f"This {source_format} file is damaged or incomplete; export it again."
        ) from error


def _read_bytes(source: str | os.PathLike | bytes) -> bytes:
    is_path = not isinstance(source, bytes)
    if is_path and not os.path.isfile(source):  # nor a pipe or device, which may never end
        found = "a folder" if os.path.isdir(source) else "not a file or no longer there"
        raise ImageError(f"What was chosen is {found}; choose one image file.")
    try:
        size = os.path.getsize(source) if is_path else len(source)
        if size > MAX_BYTES:
            raise ImageError("This file is larger than 32 MB; export a smaller image or one frame.")
        if size == 0:
            raise ImageError("This file is empty; export or download it again.")
        return Path(source).read_bytes() if is_path else source
    except OSError as error:
        raise ImageError("This file cannot be opened; check your right to read it.") from error


def _format_of(data: bytes) -> str:
    for name, pattern in _FORMATS.items():
        if re.match(pattern, data, re.DOTALL):
            return name
    for pattern, sentence in _REFUSED.items():
        if re.match(pattern, data[:1024], re.DOTALL | re.IGNORECASE):
            raise ImageError(sentence)
    raise ImageError(_NOT_AN_IMAGE)


def _check(image: Image.Image, source_format: str) -> CheckedImage:
    notes: list[str] = []
    check_size(*image.size)
    # Frames are not counted: millions of empty ones take minutes. Those of MPO are previews.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes.append("first of several frames used")
        image.seek(0)
    # Asked before decoding, because Pillow turns a TIFF and forgets the tag while decoding it.
    if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
        notes.append("rotated as its EXIF tag says")
    white_is_zero = getattr(image, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0
    image.load()
    rgb = _to_rgb(ImageOps.exif_transpose(image), white_is_zero, notes)
    return CheckedImage(rgb, source_format, tuple(notes))


def _to_rgb(image: Image.Image, white_is_zero: bool, notes: list[str]) -> Image.Image:
    """Return a new RGB image that shares no metadata with `image`, whatever its mode."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = to_8_bit(np.asarray(image), notes)
        if white_is_zero:  # Pillow inverts such TIFF files itself, but only up to 8 bits
            notes.append("inverted, as the file stores white as zero")
            grey = 255 - grey
        image = Image.fromarray(grey)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            notes.append("transparency flattened on black")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    return Image.fromarray(np.asarray(image.convert("RGB")))
