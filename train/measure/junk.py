"""Pictures that are no medical image of the task at all, to try `kdmodels.familiar.modality` on.

Drawn from a seed, or cut from photographs that come with the packages in requirements.txt.
"""

import warnings
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

# Two photographs of scikit-learn, one of matplotlib, and six of Gradio, most of them of big cats.
PHOTOS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("gradio", "media_assets/images/cheetah.jpg"),
    ("gradio", "media_assets/images/cheetah1.jpg"),
    ("gradio", "media_assets/images/groot.jpeg"),
    ("gradio", "media_assets/images/lion.jpg"),
    ("gradio", "media_assets/images/tower.jpg"),
    ("gradio", "test_data/cheetah2.jpg"),
)
CUTS = 12  # pictures from each photograph: the whole, and random parts of it, each second mirrored

# Other studies than films of a chest, among the test files of pydicom.
OTHER_DICOM = (
    "693_J2KI.dcm",
    "CT_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEG2000.dcm",
    "MR_small.dcm",
    "examples_jpeg2k.dcm",
    "examples_overlay.dcm",
    "examples_palette.dcm",
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
)

Pictures = Iterator[Image.Image]


def photographs(rng: np.random.Generator) -> Pictures:
    for package, name in PHOTOS:
        path = Path(str(files(package))) / name
        if not path.is_file():  # another release of the package may lack it
            continue
        whole = Image.open(path).convert("RGB")
        for i in range(CUTS):
            share = rng.uniform(0.4, 1) if i else 1
            size = [int(share * side) for side in whole.size]
            x, y = (rng.integers(0, a - b + 1) for a, b in zip(whole.size, size, strict=True))
            cut = whole.crop((x, y, x + size[0], y + size[1]))
            yield ImageOps.mirror(cut) if i % 2 else cut


def other_studies(_: np.random.Generator) -> Pictures:
    """CT, MR, ultrasound and a bone scan."""
    from pydicom.data import get_testdata_file

    from kdmodels.images.read import read_image

    for name in OTHER_DICOM:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = get_testdata_file(name, download=False)
            if path:
                yield read_image(path).pixels


def blanks(rng: np.random.Generator) -> Pictures:
    greys = [(g, g, g) for g in (0, 64, 128, 200, 255)]
    for colour in [*greys, *rng.integers(0, 256, (20, 3)).tolist()]:
        yield Image.new("RGB", (300, 300), tuple(colour))


def noises(rng: np.random.Generator) -> Pictures:
    """From clouds to grain."""
    for _ in range(25):
        side = int(2 ** rng.uniform(2, 8))
        grains = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        yield grains.resize((300, 300), Image.Resampling.BICUBIC)


def gradients(rng: np.random.Generator) -> Pictures:
    y, x = np.mgrid[0:1:200j, 0:1:200j]
    for i in range(25):
        along, across = rng.normal(size=2)
        ramp = 1 - np.hypot(x - 0.5, y - 0.5) if i % 3 == 0 else along * x + across * y
        ramp = (ramp - ramp.min()) / np.ptp(ramp)
        start, end = rng.integers(0, 256, (2, 3))
        yield Image.fromarray((start + (end - start) * ramp[..., None]).astype(np.uint8))


def _words(rng: np.random.Generator) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    lengths = rng.integers(2, 10, rng.integers(3, 15))
    return " ".join("".join(rng.choice(list(letters), n)) for n in lengths)


def pages(rng: np.random.Generator) -> Pictures:
    """Screens and printed pages: lines of text and boxes, dark on light or light on dark."""
    for i in range(30):
        width, height = (1280, 800) if i % 2 else (800, 1130)
        paper, ink = ((30, 30, 34), "white") if i % 5 == 0 else ("white", "black")
        page = Image.new("RGB", (width, height), paper)
        draw = ImageDraw.Draw(page)
        for _ in range(rng.integers(0, 6)):
            x, y = rng.integers(0, width - 200), rng.integers(0, height - 100)
            box = (x, y, x + rng.integers(60, 500), y + rng.integers(20, 300))
            draw.rectangle(box, fill=tuple(rng.integers(100, 256, 3).tolist()), outline="grey")
        font = ImageFont.load_default(int(rng.integers(14, 30)))
        y = 30
        while y < height - 30:
            draw.text((int(rng.integers(20, 60)), y), _words(rng), fill=ink, font=font)
            y += int(rng.integers(20, 70))
        yield page


def charts(rng: np.random.Generator) -> Pictures:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    for i in range(12):
        figure = Figure(figsize=(5, 4))
        canvas, axes = FigureCanvasAgg(figure), figure.subplots()
        draw = (axes.plot, axes.bar, axes.scatter)[i % 3]
        draw(np.arange(20), rng.normal(size=20).cumsum())
        axes.set_title("A chart")
        canvas.draw()
        yield Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


KINDS: dict[str, Callable[[np.random.Generator], Pictures]] = {
    "photographs": photographs,
    "blank colours": blanks,
    "noise": noises,
    "gradients": gradients,
    "pages and screens": pages,
    "charts": charts,
}
GREY = " in grey"


def junk(seed: int = 0) -> Iterator[tuple[str, Image.Image]]:
    """Kind and picture, RGB: each of `KINDS` as it is and then without its colours; CT, MR, ..."""
    for number, (kind, make) in enumerate(KINDS.items()):
        for picture in make(np.random.default_rng([seed, number])):
            yield kind, picture
            yield kind + GREY, picture.convert("L").convert("RGB")
    for picture in other_studies(np.random.default_rng(seed)):
        yield "CT, MR, ultrasound, bone scan", picture
