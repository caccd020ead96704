"""Files that the tests of reading make, and what is asked of a refusal."""

import io
import re

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from kdmodels.images.checked import ImageError
from kdmodels.images.read import read_image

PATIENT = "Doe^Jane^Secret"


def encode(image, image_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def scene(width=48, height=64):
    """An RGB image without symmetry, smooth enough for JPEG."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(
        np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1).astype(np.uint8)
    )


def ramp(highest, dtype=np.uint16):
    """(64, 64) values that rise evenly from 0 to `highest` in reading order."""
    return np.linspace(0, highest, 64 * 64).round().astype(dtype).reshape(64, 64)


def png_of_16_bits(values):
    return encode(Image.fromarray(values.astype(np.uint16)))


def dicom(values=None, transfer_syntax=ExplicitVRLittleEndian, **elements):
    """The bytes of a DICOM file with `values`: (H, W), (N, H, W) or, where RGB, (H, W, 3)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName = PATIENT
    dataset.PatientID = PATIENT
    dataset.StudyDate = "19010203"
    if values is not None:
        colour = elements.get("SamplesPerPixel", 1) == 3
        bits = values.dtype.itemsize * 8
        dataset.Rows, dataset.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit = bits - 1
        dataset.PixelRepresentation = int(values.dtype.kind == "i")
        if values.ndim == 3 and not colour:
            dataset.NumberOfFrames = len(values)
        dataset.PixelData = values.tobytes()
        if transfer_syntax.is_compressed:
            dataset.PixelData = pydicom.encaps.encapsulate([values.tobytes()])
        dataset["PixelData"].VR = "OB" if bits == 8 or transfer_syntax.is_compressed else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def grey(checked):
    """(H, W) int grey values; asserts that the three channels agree."""
    rgb = np.asarray(checked.pixels).astype(int)
    assert (rgb == rgb[..., :1]).all()
    return rgb[..., 0]


def refusal(source):
    """The sentence with which `source` is refused, checked to be one plain sentence."""
    with pytest.raises(ImageError) as caught:
        read_image(source)
    return plain(caught.value)


def plain(error):
    sentence = str(error)
    assert re.fullmatch(r"[A-Z][^.\n]{20,}\.", sentence), sentence
    assert not re.search(r"Traceback|Error|Exception|struct|pydicom|PIL|0x|\(", sentence), sentence
    assert PATIENT not in sentence
    return sentence


def local_dicom(name):
    path = get_testdata_file(name, download=False)
    assert path is not None
    return path


def display_table(entries, first, bits, vr="US"):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    words = [int(entry) for entry in entries]
    item.add_new("LUTData", vr, words if vr == "US" else np.array(words, "<u2").tobytes())
    return [item]
