"""Training views of films with their lung masks, made in batches on the device.

Every view is a function of the state of torch's generator, which the loop sets from seed, epoch and
step. Besides turned, moved, blurred and re-exposed films they hold what spoils films in practice:
black borders, letters, inverted greys.
"""

from functools import cache

import torch
from kornia import augmentation as K
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from kdmodels.lungs.unet import standardised

TEXTS = (
    "L",
    "R",
    "PORTABLE",
    "AP ERECT",
    "SUPINE",
    "12:45",
    "MOBILE",
    "CHEST PA",
    "ID 0815",
    "SITTING",
)
TEXT_SHARE = 0.4  # of the films that get letters
BORDER_SHARE = 0.3  # of the films that lose a strip at some sides


@cache
def _letters(size: int) -> tuple[Tensor, ...]:
    """Each of `TEXTS` as (h, w) bool, in two sizes."""
    drawn = []
    for text in TEXTS:
        for height in (size // 16, size // 9):
            font = ImageFont.load_default(height)
            box = font.getbbox(text)
            image = Image.new("L", (int(box[2]) + 2, int(box[3]) + 2))
            ImageDraw.Draw(image).text((1, 0), text, fill=255, font=font)
            drawn.append(pil_to_tensor(image)[0, :size, :size] > 127)
    return tuple(drawn)


def _draw(low: int, high: int) -> int:
    return int(torch.randint(low, high, ()))


def _write(film: Tensor) -> None:
    """Put letters somewhere on a (1, S, S) film in [0, 1], light or dark, now and then on a plate."""
    size = film.shape[-1]
    for _ in range(_draw(1, 4)):
        letters = _letters(size)[_draw(0, len(_letters(size)))].to(film.device)
        height, width = letters.shape
        y, x = _draw(0, size - height + 1), _draw(0, size - width + 1)
        place = film[0, y : y + height, x : x + width]
        value = float(torch.rand(()) > 0.3)
        if torch.rand(()) < 0.25:
            place.fill_(1 - value)
        place[letters] = value


def _border(film: Tensor, mask: Tensor) -> None:
    """Blacken a strip of up to a sixth of the side at each edge, with what it covers of the mask."""
    size = film.shape[-1]
    for axis in (1, 2):
        first, last = _draw(0, size // 6), _draw(0, size // 6)
        for start, width in ((0, first), (size - last, last)):
            film.narrow(axis, start, width).zero_()
            mask.narrow(axis, start, width).zero_()


class LungViews:
    """(N, 1, S', S') uint8 films and masks in {0, 1} -> standardised float32 views (N, 1, S, S) of both."""

    def __init__(self, size: int) -> None:
        self.place = K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5),
            K.RandomVerticalFlip(p=0.04),
            K.RandomAffine(25.0, (0.12, 0.12), (0.65, 1.25), 8.0, p=0.9),
            K.Resize((size, size)),
            data_keys=["input", "mask"],
        )
        self.greys = K.ImageSequential(
            K.RandomGamma((0.5, 2.0), p=0.6),
            K.RandomBrightness((0.7, 1.3), p=0.4),
            K.RandomContrast((0.6, 1.5), p=0.5),
            K.RandomEqualize(p=0.1),
            K.RandomGaussianBlur((5, 5), (0.3, 1.5), p=0.25),
            K.RandomGaussianNoise(std=0.06, p=0.3),
            K.RandomErasing((0.01, 0.06), p=0.2),
        )
        self.invert = K.RandomInvert(p=0.2)

    @torch.no_grad()
    def __call__(self, films: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        films, masks = self.place(films.float() / 255, masks.float())
        films = self.greys(films.clamp(0, 1)).clamp(0, 1)
        for film, mask in zip(films, masks, strict=True):
            if torch.rand(()) < BORDER_SHARE:
                _border(film, mask)
            if torch.rand(()) < TEXT_SHARE:
                _write(film)
        return standardised(self.invert(films)), masks
