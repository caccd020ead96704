"""`kdmodels.images.dicom`: windows, tables and frames as pydicom gives them, and nothing of the patient."""

import io
import re
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import JPEGLSLossless

import kdmodels.images.dicom
from kdmodels.images.checked import ImageError, Window
from kdmodels.images.read import read_image
from tests.kdmodels.images.files import (
    PATIENT,
    dicom,
    display_table,
    encode,
    grey,
    local_dicom,
    plain,
    ramp,
    refusal,
    scene,
)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (0, 300), (-600, 1500), (100, 1)])
def test_the_display_window_is_applied_as_pydicom_applies_it(function, centre, width):
    values = ramp(3000, np.int16)
    data = dicom(
        values,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=[centre, 7],
        WindowWidth=[width, 9],
        VOILUTFunction=function,
    )
    dataset = pydicom.dcmread(io.BytesIO(data))
    hounsfield = apply_modality_lut(values, dataset)
    if (function, width) == ("LINEAR", 1):  # pydicom would divide by zero
        reference, span = (hounsfield > centre - 0.5) * 1.0, (0, 1)
    else:
        reference = apply_windowing(hounsfield, dataset)
        span = (-(2**15) - 1024, 2**15 - 1 - 1024)
    expected = (reference - span[0]) / (span[1] - span[0]) * 255
    checked = read_image(data)
    assert np.abs(grey(checked) - expected).max() <= 0.5 + 1e-6
    assert checked.notes == ("display window of the file applied",)


def test_a_wanted_window_replaces_that_of_the_file():
    values = ramp(3000, np.int16)
    elements = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    shown = read_image(dicom(values, WindowCenter=40, WindowWidth=400, **elements))
    assert shown.window == Window(40, 400, -1024, values.max() - 1024)
    wanted = read_image(
        dicom(values, WindowCenter=40, WindowWidth=400, **elements), window=(-600, 1500)
    )
    same = read_image(dicom(values, WindowCenter=-600, WindowWidth=1500, **elements))
    assert np.array_equal(grey(wanted), grey(same)) and not np.array_equal(
        grey(wanted), grey(shown)
    )
    assert wanted.window == Window(-600, 1500, -1024, values.max() - 1024)
    assert wanted.notes == ("window -600 / 1500 applied",)


@pytest.mark.parametrize("how", ["png", "8 bits"])
def test_other_images_have_no_window_and_ignore_a_wanted_one(how):
    data = encode(scene()) if how == "png" else dicom(ramp(255, np.uint8), WindowCenter=9)
    plain, windowed = read_image(data), read_image(data, window=(10, 5))
    assert plain.window is windowed.window is None
    assert plain.pixels.tobytes() == windowed.pixels.tobytes()


def test_without_a_window_percentiles_are_used_and_said():
    values = ramp(2000, np.uint16) + 500
    values[0, 0] = 60_000  # a stray value must not make the image black
    for elements in ({}, {"WindowCenter": 5, "WindowWidth": 0}, {"WindowCenter": None}):
        checked = read_image(dicom(values.astype(np.uint16), **elements))
        assert checked.notes == ("values between the 0.5 and 99.5 percentiles scaled to 8 bit",)
        assert grey(checked)[1:].min() < 5 and grey(checked)[-1, -1] == 255
        assert 120 < np.median(grey(checked)) < 135


def test_8_bit_dicom_equals_the_same_png():
    values = ramp(200, np.uint8)
    checked = read_image(dicom(values))
    assert (grey(checked) == values).all()
    assert checked.notes == ()


@pytest.mark.parametrize(
    "elements", [{}, {"WindowCenter": 900, "WindowWidth": 500}], ids=["percentiles", "window"]
)
def test_monochrome1_is_monochrome2_inverted(elements):
    values = ramp(3000)
    two = read_image(dicom(values, **elements))
    one = read_image(dicom(values, PhotometricInterpretation="MONOCHROME1", **elements))
    assert (grey(one) == 255 - grey(two)).all()
    assert any("inverted" in note for note in one.notes)
    assert not any("inverted" in note for note in two.notes)


@pytest.mark.parametrize("vr", ["US", "OW"])
def test_the_display_table_is_applied_and_goes_before_the_window(vr):
    values = ramp(3000)
    entries = np.sqrt(np.linspace(0, 1, 2000)) * 4095
    data = dicom(
        values,
        VOILUTSequence=display_table(entries, 500, 12, vr),
        WindowCenter=9,
        WindowWidth=9,
    )
    reference = apply_voi(values, pydicom.dcmread(io.BytesIO(data)))
    checked = read_image(data)
    assert np.abs(grey(checked) - reference / 4095 * 255).max() <= 0.6
    assert checked.notes == ("display table of the file applied",)


def test_a_display_table_of_8_bit_entries_does_not_wrap_around():
    data = dicom(ramp(4095), VOILUTSequence=display_table(np.arange(4096) // 16, 0, 8))
    values = grey(read_image(data)).ravel()
    assert values[0] == 0 and values[-1] == 255 and (np.diff(values) >= 0).all()


def test_the_first_dicom_frame_is_used():
    frames = np.stack([ramp(255, np.uint8), np.zeros((64, 64), np.uint8)] * 6)
    checked = read_image(dicom(frames))
    assert (grey(checked) == frames[0]).all()
    assert checked.notes == ("first of 12 frames used",)


def test_colour_dicom():
    values = np.asarray(scene())
    sized = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    rgb = read_image(dicom(values, PhotometricInterpretation="RGB", **sized))
    assert rgb.pixels.tobytes() == scene().tobytes()
    ybr = np.asarray(scene().convert("YCbCr"))
    converted = read_image(dicom(ybr, PhotometricInterpretation="YBR_FULL", **sized))
    assert np.abs(np.asarray(converted.pixels).astype(int) - values).max() <= 3
    deep = read_image(
        dicom(values.astype(np.uint16) * 257, PhotometricInterpretation="RGB", **sized)
    )
    assert deep.pixels.tobytes() == scene().tobytes()


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_422_uncompressed.dcm"])
def test_dicom_colour_bars_come_out_in_their_colours(name):
    """These files hold the same bars of pure colours, stored in different ways."""
    pixels = np.asarray(read_image(local_dicom(name)).pixels).astype(int)
    for row, colour in [(5, (255, 0, 0)), (25, (0, 255, 0)), (45, (0, 0, 255))]:
        assert np.abs(pixels[row, 50] - colour).max() <= 6
    assert pixels[65, 50].max() <= 6 and pixels[95, 50].min() >= 249


def test_palette_dicom_gives_colours():
    pixels = np.asarray(read_image(local_dicom("examples_palette.dcm")).pixels)
    assert pixels.shape == (350, 800, 3)
    assert (pixels[..., 0] != pixels[..., 2]).any()


@pytest.mark.parametrize("kind", ["RLE", "jp2klossless", "jpeg_ls_lossless", "bigendian"])
def test_compressed_dicom_equals_uncompressed(kind):
    if kind == "jpeg_ls_lossless":
        pytest.importorskip("gdcm")
    compressed = read_image(local_dicom(f"MR_small_{kind}.dcm")).pixels
    assert compressed.tobytes() == read_image(local_dicom("MR_small.dcm")).pixels.tobytes()


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [("SC_rgb_jpeg_gdcm.dcm", 2, 0), ("MR_small_jpeg_ls_lossless.dcm", 6, 0xFF)],
)
def test_damaged_compressed_dicom_does_not_end_the_process(name, at, value):
    """GDCM 3.2.6 calls abort() on each of these; decoded here, it would end the test run."""
    data = bytearray(Path(local_dicom(name)).read_bytes())
    data[data.index(b"\xff\xd8\xff", data.rindex(b"\xe0\x7f\x10\x00")) + at] = value
    assert "damaged" in refusal(bytes(data))


def test_a_bomb_inside_a_small_dicom_file_leaves_this_process_alone(monkeypatch):
    data = bytearray(Path(local_dicom("MR_small_jp2klossless.dcm")).read_bytes())
    size = data.index(b"\xff\x4f\xff\x51") + 8
    for at in (size, size + 16):  # image and tile
        struct.pack_into(">II", data, at, 30_000, 30_000)
    monkeypatch.setattr(
        kdmodels.images.dicom, "pixel_array", lambda *args, **kw: pytest.fail("decoded here")
    )
    assert "damaged" in refusal(bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (dicom(), "holds no image"),
        (dicom(ramp(255, np.uint8), JPEGLSLossless), "compression"),
        (dicom(ramp(255))[:-3000], "damaged or incomplete"),
        (dicom(ramp(255), PixelData=b""), "damaged or incomplete"),
        (dicom(ramp(255), Rows=None), "damaged or incomplete"),
        (dicom(ramp(255))[:140], "holds no image"),
    ],
    ids=["report", "JPEG-LS", "truncated", "empty", "no rows", "header only"],
)
def test_dicom_without_a_usable_image_is_refused(data, words):
    assert words in refusal(data)


@pytest.mark.parametrize("name", ["MR_truncated.dcm", "meta_missing_tsyntax.dcm"])
def test_broken_example_files_are_refused(name):
    assert re.search("compression|damaged", refusal(local_dicom(name)))


def test_no_patient_data_in_results_errors_logs_or_warnings(caplog, recwarn):
    good = dicom(ramp(3000))
    assert PATIENT.encode() in good
    caplog.set_level("DEBUG")
    checked = read_image(good)
    assert checked.pixels.info == {}
    told = [repr(checked), repr(vars(checked.pixels))]
    for bad in (good[:-3000], dicom(), dicom(ramp(255, np.uint8), JPEGLSLossless)):
        with pytest.raises(ImageError) as caught:
            read_image(bad)
        told += [plain(caught.value), repr(vars(caught.value.__cause__ or caught.value))]
    told += [caplog.text, *(str(warning.message) for warning in recwarn)]
    for secret in (PATIENT, "19010203"):
        assert not any(secret in text for text in told)


def test_only_the_image_is_taken_from_a_dicom_file(monkeypatch):
    taken = []
    dcmread = pydicom.dcmread
    monkeypatch.setattr(
        pydicom, "dcmread", lambda *args, **kw: taken.append(dcmread(*args, **kw)) or taken[-1]
    )
    read_image(dicom(ramp(3000)))
    assert {element.tag.group for element in taken[0]} == {0x0028, 0x7FE0}
