"""A DICOM file becomes a checked image: decoded, windowed as it says or as is wished, in 8 bit."""

import subprocess
from io import BytesIO

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from kdmodels.images.checked import CheckedImage, ImageError, Window, check_size, rescale, to_8_bit
from kdmodels.images.decoding import PIXEL_DATA, TAGS, decode_apart

_UNDECODED = "This DICOM image is damaged or of an unknown compression; export it as PNG."


def read_dicom(data: bytes, window: tuple[float, float] | None) -> CheckedImage:
    """The first frame, by the window (centre, width) or by what the file says; see `read_image`."""
    # pydicom would inflate such a file without a limit before its size can be checked.
    if DeflatedExplicitVRLittleEndian.encode() in data:
        raise ImageError("This DICOM file is compressed as a whole; export it uncompressed.")
    dataset = pydicom.dcmread(BytesIO(data), specific_tags=TAGS)
    if not any(tag in dataset for tag in PIXEL_DATA):
        raise ImageError("This DICOM file holds no image; choose the file with the image.")
    check_size(dataset.Columns, dataset.Rows, dataset.get("SamplesPerPixel", 1))
    try:
        compressed = dataset.file_meta.TransferSyntaxUID.is_compressed
        values = decode_apart(data) if compressed else pixel_array(dataset, index=0)
    except subprocess.SubprocessError as error:
        raise ImageError(_UNDECODED) from error
    frames = int(dataset.get("NumberOfFrames") or 1)
    notes = [f"first of {frames} frames used"] if frames > 1 else []
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        values, shown = to_8_bit(values, notes), None
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


def _display_values(values: np.ndarray, dataset: pydicom.Dataset, notes: list[str]) -> np.ndarray:
    """Turn greyscale DICOM values into uint8 as the file's display table or window says."""
    if dataset.get("VOILUTSequence"):
        # Not pydicom's apply_voi: it wraps around where a table of 8-bit entries has over 256.
        table = (item := dataset.VOILUTSequence[0]).LUTData
        if isinstance(table, bytes):
            table = np.frombuffer(table, "<u2" if dataset.original_encoding[1] else ">u2")
        index = np.clip(values - np.float64(item.LUTDescriptor[1]), 0, len(table) - 1)
        notes.append("display table of the file applied")
        return rescale(np.asarray(table)[index.astype(np.intp)], 0, max(table))
    centre, width = (
        np.array(dataset.get(f"Window{x}"), float).flat[0] for x in ("Center", "Width")
    )
    shape = dataset.get("VOILUTFunction") or "LINEAR"
    if np.isfinite(centre) and width >= (1 if shape == "LINEAR" else 1e-6):
        notes.append("display window of the file applied")
        if shape == "SIGMOID":  # the standard's 1 / (1 + exp(-4x)), in a form free of overflow
            return rescale(np.tanh(2 * (values - centre) / width), -1, 1)
        if shape == "LINEAR":  # centre and width count whole values: PS3.3 C.11.2.1.2
            centre, width = centre - 0.5, width - 1
        return rescale(values, centre - width / 2, centre + width / 2)
    ready = values.dtype == np.uint8 and dataset.BitsStored == 8
    return values if ready else to_8_bit(values.astype(float), notes)  # float: by percentiles
