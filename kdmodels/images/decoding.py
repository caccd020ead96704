"""The first frame of a compressed DICOM file, decoded by running this module as a script.

It imports nothing of the project, which the script would not find.
"""

import os
import subprocess
import sys
from contextlib import suppress
from io import BytesIO

import numpy as np
import pydicom
from pydicom.datadict import DicomDictionary
from pydicom.pixels import pixel_array

# The elements kept of a DICOM file: image description and pixels, nothing about the patient.
PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)
TAGS = [*(tag for tag in DicomDictionary if tag >> 16 == 0x0028), *PIXEL_DATA]


def decode_apart(data: bytes) -> np.ndarray:
    """Decode the first frame of a compressed DICOM file in a process of its own.

    GDCM aborts its process on damaged data, and all decoders allocate what the compressed frame
    asks for, whatever the file around it declares; the process bounds both.
    Raises `subprocess.SubprocessError` where it fails or takes too long.
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


if __name__ == "__main__":
    with suppress(ImportError, OSError, ValueError):  # where the system knows no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    result = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the decoders print must not mix with the result
    upload = BytesIO(sys.stdin.buffer.read())
    dataset = pydicom.dcmread(upload, specific_tags=TAGS)
    np.save(frame := BytesIO(), pixel_array(dataset, index=0))
    result.write(frame.getbuffer())
