"""`kdmodels.images.read`: what a user uploads becomes the right pixels, or one plain sentence."""

import io
import os
import resource
import struct
import time
import tracemalloc
import warnings
import zlib
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, TiffImagePlugin
from pydicom.data import get_testdata_file

from kdmodels.images.checked import MAX_PIXELS, MIN_SIDE, CheckedImage, ImageError
from kdmodels.images.read import MAX_BYTES, read_image
from tests.kdmodels.images.files import (
    PATIENT,
    dicom,
    display_table,
    encode,
    grey,
    plain,
    png_of_16_bits,
    ramp,
    refusal,
    scene,
)

ORIENTATION = 0x0112


@pytest.mark.parametrize(
    ("image_format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("BMP", {}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 8),
        ("GIF", {}, 60),
    ],
)
def test_each_format_gives_its_pixels(image_format, options, tolerance):
    checked = read_image(encode(scene(), image_format, **options))
    assert checked.source_format == image_format
    assert checked.notes == ()
    assert checked.pixels.mode == "RGB"
    assert checked.pixels.size == (48, 64)
    difference = np.asarray(checked.pixels).astype(int) - np.asarray(scene()).astype(int)
    assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("name", ["scan.dcm", "scan.jpg", "scan.pdf", "scan", "scan.png.exe"])
def test_the_file_name_does_not_decide_the_format(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encode(scene()))
    for source in (path, str(path)):
        checked = read_image(source)
        assert checked.source_format == "PNG"
        assert checked.pixels.tobytes() == scene().tobytes()


def test_a_tiff_in_the_preamble_does_not_hide_the_dicom_file():
    data = b"II*\0" + dicom(ramp(255, np.uint8))[4:]
    assert read_image(data).source_format == "DICOM"


# Grey values


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_deep_grey_ramp_stays_monotonic_and_spans_the_range(bits):
    checked = read_image(png_of_16_bits(ramp(2**bits - 1)))
    values = grey(checked).ravel()
    assert values[0] == 0 and values[-1] == 255
    assert (np.diff(values) >= 0).all()
    assert len(set(values)) == 256
    assert checked.notes == (f"{bits}-bit values scaled to 8 bit",)


def test_16_bit_export_equals_the_8_bit_export():
    eight = ramp(255, np.uint8)
    for sixteen in (eight.astype(np.uint16) * 257, eight.astype(np.uint16)):
        assert (grey(read_image(png_of_16_bits(sixteen))) == eight).all()


def test_one_bright_marker_does_not_change_the_rest_of_a_16_bit_image():
    values = ramp(40_000)
    marked = values.copy()
    marked[0, :8] = 65_535
    plain_image, marked_image = (grey(read_image(png_of_16_bits(v))) for v in (values, marked))
    assert (plain_image[1:] == marked_image[1:]).all()


def test_big_endian_16_bit_tiff_equals_little_endian():
    little = encode(Image.fromarray(ramp(65_535)), "TIFF")
    big = encode(Image.frombytes("I;16B", (64, 64), ramp(65_535).astype(">u2").tobytes()), "TIFF")
    assert big[:2] == b"MM" and little[:2] == b"II"
    assert (grey(read_image(big)) == grey(read_image(little))).all()


def test_16_bit_tiff_with_white_as_zero_is_inverted():
    image = Image.fromarray(ramp(65_535))
    upright = grey(read_image(encode(image, "TIFF")))
    checked = read_image(encode(image, "TIFF", tiffinfo={262: 0}))
    assert (grey(checked) == 255 - upright).all()
    assert any("inverted" in note for note in checked.notes)


@pytest.mark.parametrize("offset", [-1024, 100_000])
def test_signed_and_32_bit_tiff_use_percentiles(offset):
    values = ramp(3000, np.int32) + np.int32(offset)
    checked = read_image(encode(Image.fromarray(values), "TIFF"))
    low, high = np.percentile(values, (0.5, 99.5))
    expected = ((values - low) / (high - low) * 255).clip(0, 255)
    assert np.abs(grey(checked) - expected).max() <= 0.5 + 1e-9
    assert any("percentiles" in note for note in checked.notes)


def test_float_tiff_with_missing_values_keeps_the_others():
    values = np.linspace(-0.5, 0.5, 64 * 64, dtype=np.float32).reshape(64, 64)
    clean = grey(read_image(encode(Image.fromarray(values), "TIFF")))
    assert clean.min() == 0 and clean.max() == 255 and (np.diff(clean.ravel()) >= 0).all()
    values[10, :4] = np.nan, np.inf, -np.inf, 3e38
    checked = read_image(encode(Image.fromarray(values), "TIFF"))
    assert (grey(checked)[10, :4] == 0).all()
    assert np.abs(grey(checked) - clean)[11:].max() <= 1
    assert any("valid value" in note for note in checked.notes)
    assert "no usable" in refusal(encode(Image.fromarray(values * np.nan), "TIFF"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values",
    [
        np.full((40, 40), 7, np.uint8),
        np.full((40, 40), 30_000, np.uint16),
        np.zeros((40, 40), np.uint16),
        np.full((40, 40), -5, np.int32),
        np.full((40, 40), 0.25, np.float32),
    ],
)
def test_constant_images_do_not_divide_by_zero(values):
    assert np.ptp(grey(read_image(encode(Image.fromarray(values), "TIFF")))) == 0
    if values.dtype.kind != "f":
        assert np.ptp(grey(read_image(dicom(values)))) == 0


@pytest.mark.filterwarnings("error")
def test_the_narrowest_and_widest_float_ranges_keep_their_order():
    for step in (1e-45, 1e34):
        values = np.arange(-2048, 2048, dtype=np.float32).reshape(64, 64) * np.float32(step)
        pixels = grey(read_image(encode(Image.fromarray(values), "TIFF"))).ravel()
        assert (np.diff(pixels) >= 0).all() and pixels[0] == 0 and pixels[-1] == 255


# Colour modes


def test_transparency_is_flattened_on_black():
    image = scene().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    rgba = np.asarray(image).astype(float)
    checked = read_image(encode(image))
    expected = rgba[..., :3] * rgba[..., 3:] / 255
    assert np.abs(np.asarray(checked.pixels) - expected).max() <= 1
    assert checked.notes == ("transparency flattened on black",)


@pytest.mark.parametrize("mode", ["LA", "P", "L", "RGB"])
def test_every_kind_of_transparency_turns_black(mode):
    """Grey 100 on the left, transparent white on the right."""
    values = np.full((64, 64), 100, np.uint8)
    values[:, 32:] = 255
    image = Image.fromarray(values)
    options = {}
    if mode == "LA":
        image.putalpha(Image.fromarray(np.where(values == 255, 0, 255).astype(np.uint8)))
    elif mode == "P":
        image = Image.frombytes("P", (64, 64), (values == 255).astype(np.uint8).tobytes())
        image.putpalette([100] * 3 + [255] * 3)
        options["transparency"] = 1
    else:
        image = image.convert(mode)
        options["transparency"] = 255 if mode == "L" else (255, 255, 255)
    checked = read_image(encode(image, **options))
    assert (grey(checked)[:, :32] == 100).all() and (grey(checked)[:, 32:] == 0).all()
    assert checked.notes == ("transparency flattened on black",)


def test_an_opaque_alpha_channel_needs_no_note():
    checked = read_image(encode(scene().convert("RGBA")))
    assert checked.notes == ()
    assert checked.pixels.tobytes() == scene().tobytes()


def test_cmyk_jpeg_looks_as_pillow_shows_it():
    data = encode(scene().convert("CMYK"), "JPEG", quality=95)  # Pillow writes Adobe's inversion
    pixels = read_image(data).pixels
    assert pixels.tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()
    assert np.abs(np.asarray(pixels).astype(int) - np.asarray(scene())).mean() < 5


def test_bilevel_and_palette_images_are_converted():
    bilevel = scene().convert("1")
    assert read_image(encode(bilevel)).pixels.tobytes() == bilevel.convert("RGB").tobytes()
    palette = scene().quantize(64)
    assert read_image(encode(palette)).pixels.tobytes() == palette.convert("RGB").tobytes()


# Orientation, metadata, frames


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_gives_the_upright_image(image_format, orientation):
    transpose = Image.Transpose
    stored_as = {  # what a camera stores so that its tag turns it upright again
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90,
        7: transpose.TRANSVERSE,
        8: transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    data = encode(
        scene().transpose(stored_as), image_format, exif=exif, **options.get(image_format, {})
    )
    checked = read_image(data)
    assert checked.pixels.size == (48, 64)
    difference = np.asarray(checked.pixels).astype(int) - np.asarray(scene()).astype(int)
    assert np.abs(difference).max() <= (8 if image_format == "JPEG" else 0)
    assert checked.notes == ("rotated as its EXIF tag says",)


def test_16_bit_tiff_is_turned_too():
    values = ramp(65_535)[:48]
    upright = read_image(encode(Image.fromarray(values), "TIFF"))
    turned = read_image(
        encode(Image.fromarray(values).rotate(90, expand=True), "TIFF", tiffinfo={ORIENTATION: 6})
    )
    assert turned.pixels.tobytes() == upright.pixels.tobytes()
    assert turned.pixels.size == (64, 48)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP", "GIF"])
def test_nothing_of_the_metadata_survives(image_format):
    exif = Image.Exif()
    exif[0x010E] = exif[0x013B] = PATIENT
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {
        "PNG": {"pnginfo": PngImagePlugin.PngInfo(), "exif": exif, "icc_profile": profile},
        "JPEG": {"exif": exif, "icc_profile": profile, "comment": PATIENT, "dpi": (72, 72)},
        "TIFF": {"tiffinfo": TiffImagePlugin.ImageFileDirectory_v2(), "icc_profile": profile},
        "WEBP": {"exif": exif, "icc_profile": profile, "xmp": PATIENT.encode()},
        "GIF": {"comment": PATIENT},
    }[image_format]
    if image_format == "PNG":
        options["pnginfo"].add_text("Patient", PATIENT)
    if image_format == "TIFF":
        options["tiffinfo"][270] = PATIENT
    data = encode(scene(), image_format, **options)
    assert PATIENT.encode() in data
    checked = read_image(data)
    pixels = checked.pixels
    assert pixels.info == {}
    assert dict(pixels.getexif()) == {}
    assert not hasattr(pixels, "tag_v2") and not hasattr(pixels, "text")
    assert PATIENT not in repr(vars(pixels)) + repr(checked)
    assert PATIENT.encode() not in encode(pixels)


@pytest.mark.parametrize("image_format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames_is_used(image_format):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    checked = read_image(data)
    assert checked.pixels.tobytes() == frames[0].tobytes()
    assert checked.notes == ("first of several frames used",)


def test_a_phone_photo_with_a_preview_is_a_plain_jpeg():
    data = encode(scene(), "MPO", save_all=True, append_images=[scene(40, 40)])
    checked = read_image(data)
    assert (checked.source_format, checked.notes) == ("JPEG", ())


# Refusals


SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"Findings: no consolidation.\n" * 20, "not an image"),
        (b"BMI 24, weight 70 kg, height 171 cm", "not an image"),
        (b"\x00" * 4096, "not an image"),
        (
            b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj",
            "This is a PDF; export the page as PNG or upload",
        ),
        (SVG, "SVG"),
        (b"\xef\xbb\xbf\n" + SVG[22:], "SVG"),
        (b"PK\x03\x04" + b"\0" * 60, "archive"),
        (b"\x1f\x8b\x08" + b"\0" * 60, "archive"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 60, "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"\0" * 60, "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0" + b"\0" * 60, "AVIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "not an image"),
        (encode(scene(), "PPM"), "not an image"),
        (encode(scene(), "ICO"), "not an image"),
        (encode(scene(), "TGA"), "not an image"),
        (dicom(ramp(255))[132:], "lost its header"),
        (b"\x89PNG\r\n\x1a\n", "PNG file is damaged"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 200, "JPEG file is damaged"),
    ],
)
def test_what_is_no_image_is_refused_by_its_name(data, words):
    assert words in refusal(data)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(image_format, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), image_format)
    assert "damaged or incomplete" in refusal(data[: int(len(data) * share)])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_corrupt_png_checksum_is_refused():
    data = bytearray(encode(scene()))
    data[data.index(b"IDAT") + 20] ^= 0xFF
    assert "PNG file is damaged" in refusal(bytes(data))


def test_small_and_long_images_are_refused():
    for size in [(MIN_SIDE - 1, 100), (100, MIN_SIDE - 1), (1, 1)]:
        assert "too small" in refusal(encode(Image.new("L", size)))
    for size in [(321, 32), (32, 321)]:
        assert "10 times" in refusal(encode(Image.new("L", size)))
    assert read_image(encode(Image.new("L", (320, 32)))).pixels.size == (320, 32)
    assert read_image(encode(Image.new("L", (32, 32)))).pixels.size == (32, 32)
    assert "too small" in refusal(dicom(np.zeros((31, 64), np.uint8)))
    assert "10 times" in refusal(dicom(np.zeros((32, 330), np.uint8)))


def test_files_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    assert "no longer there" in refusal(tmp_path / f"{PATIENT}.png")
    assert "no longer there" in refusal("bad\0name")
    assert "folder" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in refusal(tmp_path / "pipe")  # opening it would wait for ever
    path = tmp_path / f"{PATIENT}.png"
    path.write_bytes(encode(scene()))

    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "cannot be opened" in refusal(path)


def test_large_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    assert "larger than 32 MB" in refusal(b"\0" * (MAX_BYTES + 1))
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("was read"))
    assert "larger than 32 MB" in refusal(path)


def png_header(width, height):
    def chunk(name, body):
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def jpeg_header(width, height):
    data = bytearray(encode(scene(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_header(width, height):
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 99}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(200)


def gif_header(width, height):
    data = encode(Image.new("L", (40, 40)), "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def bmp_header(width, height):
    data = encode(Image.new("L", (40, 40)), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def webp_header(width, height):
    data = bytearray(encode(Image.new("RGB", (40, 40)), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 9  # two 14-bit numbers
    flags = struct.unpack_from("<I", data, at)[0] >> 28 << 28
    struct.pack_into("<I", data, at, flags | (height - 1) << 14 | (width - 1))
    return bytes(data)


@contextmanager
def no_large_allocation(extra=64 * 2**20):
    """Let every allocation fail that takes this process `extra` bytes above what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def dicom_header(width, height):
    return dicom(ramp(255), Rows=height, Columns=width)


@pytest.mark.parametrize(
    ("header", "width", "height"),
    [
        (png_header, 30_000, 30_000),
        (png_header, 10_000, 10_000),  # Pillow itself only warns here
        (png_header, 8_001, 8_000),  # and is content with this
        (png_header, 2**31 - 1, 2**31 - 1),
        (jpeg_header, 30_000, 30_000),
        (tiff_header, 30_000, 30_000),
        (gif_header, 30_000, 30_000),
        (bmp_header, 30_000, 30_000),
        (webp_header, 8_001, 8_000),
        (webp_header, 16_383, 16_383),
        (dicom_header, 30_000, 30_000),
        (dicom_header, 8_001, 8_000),
    ],
)
def test_bombs_are_refused_by_their_declared_size(header, width, height):
    data = header(width, height)
    # WebP's decoder reserves a canvas, without touching it, while it reads the header.
    memory = nullcontext() if header is webp_header else no_large_allocation()
    start = time.perf_counter()
    with warnings.catch_warnings(), memory:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        sentence = refusal(data)
    assert time.perf_counter() - start < 1
    assert "64 million pixels" in sentence


def test_dicom_pixels_count_every_sample():
    values = np.zeros((32, 32, 3), np.uint8)
    sized = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    assert read_image(dicom(values, **sized)).pixels.size == (32, 32)
    assert 5000 * 5000 < MAX_PIXELS < 3 * 5000 * 5000
    assert "64 million" in refusal(dicom(values, **sized, Rows=5000, Columns=5000))


def test_a_deflated_dicom_bomb_is_not_inflated():
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = compressor.compress(bytes(2**24)) + compressor.flush()
    with open(get_testdata_file("image_dfl.dcm", download=False), "rb") as file:
        header = file.read(350)
    tracemalloc.start()
    assert "export it uncompressed" in refusal(header + body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_pillow_keeps_its_global_state():
    limits = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    read_image(encode(scene()))
    with pytest.raises(ImageError):
        read_image(encode(scene())[:-50])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # turns Pillow's warning into an exception
        assert "64 million" in refusal(png_header(10_000, 10_000))
    after = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    assert after == limits


@pytest.mark.parametrize(
    "error",
    [
        struct.error("unpack"), OSError("x"), SyntaxError("x"), ValueError("x"), EOFError(),
        MemoryError(), IndexError(), KeyError("x"), OverflowError(), RecursionError(),
        ZeroDivisionError(), Image.DecompressionBombError("x"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_any_decoder_error_becomes_one_sentence_and_keeps_its_cause(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    files = [encode(scene()), dicom(ramp(255))]
    monkeypatch.setattr(Image.Image, "convert", fail)
    for data in files:
        with pytest.raises(ImageError) as caught:
            read_image(data)
        assert caught.value.__cause__ is error
        plain(caught.value)


def test_only_the_decoder_of_the_format_runs(monkeypatch):
    asked = []
    opened = Image.open
    monkeypatch.setattr(
        Image, "open", lambda file, **kw: asked.append(kw["formats"]) or opened(file, **kw)
    )
    for image_format in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"):
        read_image(encode(scene(), image_format))
        assert asked.pop() == (image_format,)


# Fuzz


FUZZ_SEEDS = {
    "PNG": encode(scene()),
    "PNG 16": png_of_16_bits(ramp(65_535)),
    "PNG exif": encode(scene(), exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0"),
    "JPEG": encode(scene(), "JPEG"),
    "TIFF": encode(scene(), "TIFF", compression="tiff_adobe_deflate"),
    "TIFF float": encode(Image.fromarray(ramp(1, np.float32)), "TIFF"),
    "WEBP": encode(scene(), "WEBP"),
    "BMP": encode(scene().quantize(16), "BMP"),
    "GIF": encode(scene(), "GIF", save_all=True, append_images=[scene()]),
    "DICOM": dicom(ramp(3000), WindowCenter=900, WindowWidth=500, RescaleSlope=1, RescaleIntercept=0),
    "DICOM table": dicom(ramp(300), VOILUTSequence=display_table(range(300), 0, 12)),
}  # fmt: skip


PLACES = st.tuples(st.sampled_from(("start", "end", "anywhere")), st.integers(0, 2**16))


def place(data, where):
    """An index into `data`; headers and trailers matter most, so they are hit more often."""
    zone, number = where
    at = number % (len(data) if zone == "anywhere" else min(len(data), 400))
    return len(data) - 1 - at if zone == "end" else at


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FUZZ_SEEDS)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    changes=st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=8),
    cut=st.none() | PLACES,
    added=st.none() | st.tuples(PLACES, st.binary(min_size=1, max_size=40)),
)
def test_mutated_files_give_an_image_or_a_sentence(kind, changes, cut, added):
    data = bytearray(FUZZ_SEEDS[kind])
    for where, value in changes:
        data[place(data, where)] = value
    if added:
        at = place(data, added[0])
        data[at:at] = added[1]
    if cut:
        del data[place(data, cut) :]
    try:
        checked = read_image(bytes(data))
    except ImageError as error:
        plain(error)
    else:
        assert isinstance(checked, CheckedImage)
        assert checked.pixels.mode == "RGB" and checked.pixels.info == {}
        assert len(checked.pixels.tobytes()) == 3 * np.prod(checked.pixels.size)
