"""Untrusted bytes -> a checked image: upright 8-bit RGB without metadata, or one plain sentence.

The content decides the format and the one decoder that runs, after a check of the declared size.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from PIL import ExifTags, Image, ImageOps
from pydicom.datadict import DicomDictionary
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
MIN_SIDE = 32

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
# The elements kept of a DICOM file: image description and pixels, nothing about the patient.
_PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_DICOM_TAGS = [*(tag for tag in DicomDictionary if tag >> 16 == 0x0028), *_PIXEL_DATA]
_NOT_AN_IMAGE = "This is not an image that can be read here; upload PNG, JPEG, TIFF or DICOM."
_DICOM_UNDECODED = "This DICOM image is damaged or of an unknown compression; export it as PNG."
_TOO_MANY_PIXELS = "This image has over 64 million pixels; crop it or export it at a lower size."


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
    source_format: "PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "DICOM", or "decoded" if unknown.
    notes: what was done to the pixels, in plain words, one entry per step; often empty.
    window: of greyscale DICOM with more than 8 bits, else None.
    """

    pixels: Image.Image
    source_format: str
    notes: tuple[str, ...]
    window: Window | None = None


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
    with _plain_errors(f"{source_format} file"):
        if source_format == "DICOM":
            return _read_dicom(data, window)
        with Image.open(BytesIO(data), formats=(source_format,)) as image:
            return _check(image, source_format)


def check_image(image: Image.Image) -> CheckedImage:
    """Check an image from Pillow, say from the clipboard, as `read_image` checks a file."""
    source_format = "JPEG" if image.format == "MPO" else image.format or "decoded"
    if source_format not in (*_FORMATS, "decoded"):
        raise ImageError(_NOT_AN_IMAGE)
    with _plain_errors("image"):
        return _check(image, source_format)


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    """Turn whatever a decoder raises into ImageError; decoders fail in many ways on bad bytes."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(_TOO_MANY_PIXELS) from error
    except Exception as error:
        raise ImageError(f"This {what} is damaged or incomplete; export it again.") from error


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


def _check_size(width: int, height: int, samples: int = 1) -> None:
    if width * height * samples > MAX_PIXELS:
        raise ImageError(_TOO_MANY_PIXELS)
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"This image is too small; both sides must be at least {MIN_SIDE} pixels.")
    if max(width, height) > 10 * min(width, height):
        raise ImageError("One side of this image is over 10 times the other; crop it.")


def _check(image: Image.Image, source_format: str) -> CheckedImage:
    notes: list[str] = []
    _check_size(*image.size)
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
        grey = _to_8_bit(np.asarray(image), notes)
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


def _to_8_bit(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Scale values of any number type to uint8, as the docstring of `read_image` says."""
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() < 2**16:
        bits = next(bits for bits in (8, 10, 12, 14, 16) if values.max() < 2**bits)
        if bits > 8:
            notes.append(f"{bits}-bit values scaled to 8 bit")
        return _rescale(values, 0, 2**bits - 1)
    values = values.astype(np.float64)
    usable = np.abs(values) < 1e38  # false for NaN too; larger values would overflow below
    if not usable.any():
        raise ImageError("This image holds no usable pixel values; export it again.")
    if not usable.all():
        notes.append("pixels without a valid value shown in black")
        values[~usable] = values[usable].min()
    low, high = np.percentile(values[usable], (0.5, 99.5))
    notes.append("values between the 0.5 and 99.5 percentiles scaled to 8 bit")
    return _rescale(values, low, high)


def _rescale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high linearly to 0..255 (uint8) and clip; a step where low equals high."""
    if not high > low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    with np.errstate(over="ignore"):  # infinite after a tiny range, and clipped next
        scaled = (values - np.float64(low)) / (high - low) * 255
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def _read_dicom(data: bytes, window: tuple[float, float] | None) -> CheckedImage:
    # pydicom would inflate such a file without a limit before its size can be checked.
    if DeflatedExplicitVRLittleEndian.encode() in data:
        raise ImageError("This DICOM file is compressed as a whole; export it uncompressed.")
    dataset = pydicom.dcmread(BytesIO(data), specific_tags=_DICOM_TAGS)
    if not any(tag in dataset for tag in _PIXEL_DATA):
        raise ImageError("This DICOM file holds no image; choose the file with the image.")
    _check_size(dataset.Columns, dataset.Rows, dataset.get("SamplesPerPixel", 1))
    try:
        compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
        values = _decode_apart(data) if compressed else pixel_array(dataset, index=0)
    except subprocess.SubprocessError as error:
        raise ImageError(_DICOM_UNDECODED) from error
    frames = int(dataset.get("NumberOfFrames") or 1)
    notes = [f"first of {frames} frames used"] if frames > 1 else []
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        values, shown = _to_8_bit(values, notes), None
    else:
        values = apply_modality_lut(values, dataset)
        shown = _window_of(values, dataset, window)
        if shown and window:
            _use_window(dataset, shown)
            notes.append(f"window {shown.centre:g} / {shown.width:g} applied")
            values = _display_values(values, dataset, [])
        else:
            values = _display_values(values, dataset, notes)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            notes.append("inverted, as the file stores white as the lowest value")
            values = 255 - values
    return CheckedImage(Image.fromarray(values).convert("RGB"), "DICOM", tuple(notes), shown)


def _window_of(
    values: np.ndarray, dataset: pydicom.Dataset, wanted: tuple[float, float] | None
) -> Window | None:
    """The wanted window, else the file's, else all values; None of 8-bit images."""
    if dataset.BitsStored <= 8 or not np.isfinite(values).all():
        return None
    lowest, highest = float(values.min()), float(values.max())
    named = [np.array(dataset.get(f"Window{x}"), float).flat[0] for x in ("Center", "Width")]
    centre, width = wanted or named
    if not (np.isfinite(centre) and width > 0):
        centre, width = (lowest + highest) / 2, highest - lowest
    return Window(float(centre), max(float(width), 1e-6), lowest, highest)


def _use_window(dataset: pydicom.Dataset, window: Window) -> None:
    """Let the file say another window; it is applied as the file's own would be."""
    dataset.WindowCenter, dataset.WindowWidth = f"{window.centre:.10g}", f"{window.width:.10g}"
    if "VOILUTSequence" in dataset:
        del dataset.VOILUTSequence
    if window.width < 1:  # narrower than the default function can be
        dataset.VOILUTFunction = "LINEAR_EXACT"


def _decode_apart(data: bytes) -> np.ndarray:
    """Decode the first frame of a compressed DICOM file by running this module as a script.

    GDCM aborts its process on damaged data, and all decoders allocate what the compressed frame
    asks for, whatever the file around it declares; a process of its own bounds both.
    """
    frame = subprocess.run(
        [sys.executable, "-P", __file__],
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # may quote the file
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # each thread would count as memory
        timeout=60,
        check=True,
    ).stdout
    return np.load(BytesIO(frame))


def _display_values(values: np.ndarray, dataset: pydicom.Dataset, notes: list[str]) -> np.ndarray:
    """Turn greyscale DICOM values into uint8 as the file's display table or window says."""
    if dataset.get("VOILUTSequence"):
        # Not pydicom's apply_voi: it wraps around where a table of 8-bit entries has over 256.
        table = (item := dataset.VOILUTSequence[0]).LUTData
        if isinstance(table, bytes):
            table = np.frombuffer(table, "<u2" if dataset.original_encoding[1] else ">u2")
        index = np.clip(values - np.float64(item.LUTDescriptor[1]), 0, len(table) - 1)
        notes.append("display table of the file applied")
        return _rescale(np.asarray(table)[index.astype(np.intp)], 0, max(table))
    centre, width = (
        np.array(dataset.get(f"Window{x}"), float).flat[0] for x in ("Center", "Width")
    )
    shape = dataset.get("VOILUTFunction") or "LINEAR"
    if np.isfinite(centre) and width >= (1 if shape == "LINEAR" else 1e-6):
        notes.append("display window of the file applied")
        if shape == "SIGMOID":  # the standard's 1 / (1 + exp(-4x)), in a form free of overflow
            return _rescale(np.tanh(2 * (values - centre) / width), -1, 1)
        if shape == "LINEAR":  # centre and width count whole values: PS3.3 C.11.2.1.2
            centre, width = centre - 0.5, width - 1
        return _rescale(values, centre - width / 2, centre + width / 2)
    ready = values.dtype == np.uint8 and dataset.BitsStored == 8
    return values if ready else _to_8_bit(values.astype(float), notes)  # float: by percentiles


if __name__ == "__main__":
    with suppress(ImportError, OSError, ValueError):  # where the system knows no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    result = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the decoders print must not mix with the result
    upload = BytesIO(sys.stdin.buffer.read())
    dataset = pydicom.dcmread(upload, specific_tags=_DICOM_TAGS)
    np.save(frame := BytesIO(), pixel_array(dataset, index=0))
    result.write(frame.getbuffer())
