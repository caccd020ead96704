"""How well the stored network finds lungs: on films as they are, on spoiled films, and what it refuses.

`python -m train dice` keeps a row for each test film with a mask and each of `SPOILED`, and for each
picture that should be refused: what is made of films by `REFUSED`, other images, and junk.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from tqdm import tqdm

from kdmodels.images.read import read_image
from kdmodels.lungs.find import LungFinder, Lungs
from kdmodels.lungs.stored import stored_finder
from kdmodels.lungs.unet import SIDE
from kdmodels.models.checkpoints import Index
from train.data.manifest import DataError, Manifest, Sample, read_mask
from train.measure.junk import junk
from train.measure.kept import ResultsError, TaskResults
from train.measure.kept_rows import DIGITS, LungRow, read_rows, unlike_rows, write_rows

log = logging.getLogger("train")

Pair = tuple[Image.Image, Image.Image]  # a film and its mask, both of mode L and one size


def _turned(degrees: float) -> Callable[[Pair], Pair]:
    return lambda pair: tuple(image.rotate(degrees, Image.Resampling.BILINEAR) for image in pair)


def _inverted(pair: Pair) -> Pair:
    return ImageOps.invert(pair[0]), pair[1]


def _bordered(pair: Pair) -> Pair:
    width, height = pair[0].size
    around = (width // 5, height // 8, width // 10, height // 6)
    return tuple(ImageOps.expand(image, around, 0) for image in pair)


def _written(pair: Pair) -> Pair:
    film = pair[0].copy()
    draw = ImageDraw.Draw(film)
    size = film.height // 12
    font = ImageFont.load_default(size)
    draw.text((film.width // 3, film.height // 3), "PORTABLE", fill=255, font=font)
    draw.rectangle((0, 0, film.width // 3, size + 4), fill=0)
    draw.text((4, 0), "R  12:45", fill=255, font=font)
    return film, pair[1]


def _blurred(pair: Pair) -> Pair:
    return pair[0].filter(ImageFilter.GaussianBlur(pair[0].width / 128)), pair[1]


PLAIN = "as they are"
SPOILED: dict[str, Callable[[Pair], Pair]] = {
    PLAIN: lambda pair: pair,
    "turned by 15 degrees": _turned(15),
    "inverted": _inverted,
    "black borders": _bordered,
    "letters": _written,
    "blurred": _blurred,
}


def _half(box: tuple[float, float, float, float]) -> Callable[[Image.Image], Image.Image]:
    def cut(film: Image.Image) -> Image.Image:
        size = film.size * 2
        return film.crop(tuple(round(part * side) for part, side in zip(box, size, strict=True)))

    return cut


def _collage(film: Image.Image) -> Image.Image:
    sheet = Image.new("L", (film.width * 2, film.height))
    sheet.paste(film, (0, 0))
    sheet.paste(film, (film.width, 0))
    return sheet


# What is made of a film so that it should be refused, or told of.
REFUSED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "upside down": ImageOps.flip,
    "turned by 90 degrees": lambda film: film.transpose(Image.Transpose.ROTATE_90),
    "left half": _half((0, 0, 0.5, 1)),
    "right half": _half((0.5, 0, 1, 1)),
    "upper third": _half((0, 0, 1, 0.33)),
    "lower half": _half((0, 0.5, 1, 1)),
    "two films in one picture": _collage,
    "mostly black": lambda film: film.point(lambda grey: grey // 40),
}


def dice_of(found: np.ndarray, mask: np.ndarray) -> float:
    """Dice of two bool masks of one shape; 1 where both are empty."""
    total = int(found.sum() + mask.sum())
    return 2 * int((found & mask).sum()) / total if total else 1.0


def _pair(sample: Sample) -> Pair:
    film = read_image(sample.path).pixels.convert("L")
    mask = Image.fromarray(read_mask(sample.mask, 256).astype(np.uint8) * 255)
    return film, mask.resize(film.size, Image.Resampling.BILINEAR)


def rows_of(
    finder: LungFinder, sha256: str, films: Sequence[Sample], others: Sequence[Sample]
) -> Iterator[LungRow]:
    """films: with masks. others: images that show no chest."""

    def row(version: str, image: str, lungs: Lungs, source: str, group: str, dice: float):
        about = (sha256[:DIGITS], version, image[:DIGITS], source, group)
        return LungRow(*about, dice, lungs.sureness, lungs.reason or "")

    for film in tqdm(films, "Films", disable=None):
        pair = _pair(film)
        for version, spoil in SPOILED.items():
            shown, mask = spoil(pair)
            wanted = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) > 127
            lungs = finder(shown)
            dice = dice_of(lungs.mask, wanted)
            yield row(version, film.path.name, lungs, film.source, film.group, dice)
        for version, change in REFUSED.items():
            lungs = finder(change(pair[0]))
            yield row(version, film.path.name, lungs, film.source, film.group, float("nan"))
    for other in tqdm(others, "Other images", disable=None):
        lungs = finder(read_image(other.path).pixels)
        yield row("other images", other.path.name, lungs, other.source, other.group, float("nan"))
    for number, (kind, picture) in enumerate(junk()):
        yield row(kind, str(number), finder(picture), "", f"{kind} {number}", float("nan"))


def lungs_task(manifest: Manifest, others: Sequence[Sample], write: bool = False) -> list[str]:
    """What the stored finder finds on the test films: kept in `results/<task>/lungs.csv`, or compared
    with what is kept there; returns a sentence for each difference.

    Raises `DataError` where no film has a mask, and `ResultsError` where no finder is stored.
    """
    films = [s for s in manifest.split("test") if s.mask]
    index, finder = Index.read(), stored_finder()
    if not films:
        raise DataError(
            f"No test film of '{manifest.name}' has a lung mask, so none can be scored."
        )
    if finder is None:
        raise ResultsError(f"{index.folder} holds no lung finder; train and store one first.")
    rows = list(rows_of(finder, index.lungs.sha256, films, others))
    scores = [r.dice for r in rows if r.version == PLAIN]
    log.info("%d films: mean Dice %.4f, least %.4f.", len(films), np.mean(scores), min(scores))
    file = TaskResults.of(manifest.task).folder / "lungs.csv"
    if write:
        write_rows(file, rows)
        return []
    known = read_rows(file, LungRow)
    other = unlike_rows(file, known, rows, {"dice": 0.01, "sureness": 0.01})
    for line in other:
        log.info("%s", line)
    return other
