"""Tiles that show nobody's tissue: drawn by a program, as haematoxylin and eosin would colour them.

No pixel and no statistic of any image goes in: cells, glands and walls are shapes of random place,
size and outline, and their colours follow from how much of either dye is in them. A caricature of
a class, and said to be drawn wherever it is shown.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

SIDE = 256  # px
_FINE = 2 * SIDE  # drawn at twice the size
_DYES = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])
"""Absorption in red, green and blue of haematoxylin and eosin (Ruifrok and Johnston, 2001)."""


@dataclass(frozen=True)
class Cell:
    """How a nucleus looks: radii in px of the tile, dye, and how it varies.

    pale: 0 for an even nucleus, towards 1 for one with a pale middle and a dark rim.
    """

    long: float
    short: float
    dye: float = 1.3
    pale: float = 0.2
    spread: float = 0.15  # of size, relative
    wobble: float = 0.08  # of the outline, relative
    nucleolus: float = 0.0  # share of nuclei that show one


class Slide:
    """Two dyes on a square, and the pen that draws with them."""

    def __init__(self, seed: int, haematoxylin: float, eosin: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.y, self.x = np.mgrid[:_FINE, :_FINE].astype(np.float32) / 2
        self.h = np.full((_FINE, _FINE), haematoxylin, np.float32)
        self.e = np.full((_FINE, _FINE), eosin, np.float32)

    def noise(self, sigma: float) -> np.ndarray:
        """(F, F) smooth noise of deviation 1; sigma in px of the tile."""
        field = gaussian_filter(self.rng.normal(size=(_FINE, _FINE)).astype(np.float32), 2 * sigma)
        return field / field.std()

    def paint(self, share: np.ndarray, haematoxylin: float, eosin: float) -> None:
        """Lay dye over what is there, as far as `share`, (F, F) in [0, 1], says."""
        self.h += share * (haematoxylin - self.h)
        self.e += share * (eosin - self.e)

    def fibres(self, strength: float, angle: float) -> None:
        """Streaks of eosin along a wavy direction, with gaps between them."""
        bent = angle + 0.5 * self.noise(40)
        across = self.x * np.sin(bent) - self.y * np.cos(bent) + 5 * self.noise(12)
        streaks = np.sin(across / 2.6 + 2.5 * self.noise(7)) * 0.5 + 0.5
        self.e += strength * (streaks - 0.5)
        self.h += 0.3 * strength * (streaks - 0.5)

    def outline(self, radius: float, wobble: float, waves: int = 6) -> Callable:
        """A closed curve about the origin: angle -> distance."""
        sizes = wobble * self.rng.normal(size=waves) / np.arange(1, waves + 1) ** 0.7
        phases = self.rng.uniform(0, 2 * np.pi, waves)

        def curve(angle: np.ndarray) -> np.ndarray:
            k = np.arange(2, waves + 2).reshape(-1, *[1] * np.ndim(angle))
            bumps = sizes.reshape(k.shape) * np.sin(k * angle + phases.reshape(k.shape))
            return radius * np.maximum(1 + bumps.sum(0), 0.3)

        return curve

    def nucleus(self, x: float, y: float, angle: float, cell: Cell) -> None:
        rng = self.rng
        size = max(0.5, 1 + cell.spread * rng.normal())
        long, short = cell.long * size, cell.short * size * max(0.6, 1 + 0.15 * rng.normal())
        reach = int(2 * long * 1.5) + 3
        row, column = round(2 * y), round(2 * x)
        box = np.s_[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach]
        if row < -reach or column < -reach or self.h[box].size == 0:
            return
        dx, dy = self.x[box] - x, self.y[box] - y
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / long
        v = (-dx * np.sin(angle) + dy * np.cos(angle)) / short
        radius = np.hypot(u, v) / self.outline(1, cell.wobble, 4)(np.arctan2(v, u))
        inside = 1 / (1 + np.exp((radius - 1) * short * 2.2))
        grain = gaussian_filter(rng.normal(size=radius.shape), 1.6) * 3
        dye = cell.dye * max(0.5, 1 + 0.18 * rng.normal())
        rim = np.exp(-(((radius - 0.88) / 0.16) ** 2))
        body = dye * (1 - cell.pale + cell.pale * 0.9 * rim + 0.22 * grain * (0.4 + cell.pale))
        if rng.random() < cell.nucleolus:
            at = rng.normal(0, 0.25, 2)
            body += dye * 0.8 * np.exp(-((u - at[0]) ** 2 + (v - at[1]) ** 2) * (long / 1.3) ** 2)
        self.h[box] += inside * (np.maximum(body, 0.1) - self.h[box])
        self.e[box] += inside * (0.28 * dye - self.e[box])

    def scatter(self, spacing: float, where: Callable | None = None) -> np.ndarray:
        """(N, 2) places (x, y) at least `spacing` px apart, of which `where(x, y)` is true."""
        kept: list[tuple[float, float]] = []
        for x, y in self.rng.uniform(-8, SIDE + 8, (int(9 * (SIDE / spacing) ** 2), 2)):
            near = any((x - a) ** 2 + (y - b) ** 2 < spacing**2 for a, b in kept)
            if not near and (where is None or where(x, y)):
                kept.append((x, y))
        return np.array(kept).reshape(-1, 2)

    def at(self, field: np.ndarray, x: float, y: float) -> float:
        """The value of an (F, F) field at a place, the nearest where that is outside."""
        row, column = (int(np.clip(round(2 * v), 0, _FINE - 1)) for v in (y, x))
        return float(field[row, column])

    def polygons(self, places: np.ndarray, warp: float) -> tuple[np.ndarray, np.ndarray]:
        """Cells around places: (F, F) px to the border between cells, and whose cell it is."""
        warped = np.stack([self.x + warp * self.noise(14), self.y + warp * self.noise(14)], -1)
        distance, whose = cKDTree(places).query(warped.reshape(-1, 2), k=2)
        border = (distance[:, 1] - distance[:, 0]).reshape(_FINE, _FINE) / 2
        return border.astype(np.float32), whose[:, 0].reshape(_FINE, _FINE)

    def red_cells(self, places: np.ndarray) -> None:
        for x, y in places:
            radius = np.hypot(self.x - x, (self.y - y) * self.rng.uniform(0.8, 1.5))
            self.paint(0.9 * _share(radius - 3.1, 0.33), 0.12, self.rng.uniform(1.0, 1.4))

    def finish(self) -> Image.Image:
        """The tile as a camera sees it: a little out of focus, with uneven dye and light."""
        self.h *= 1 + 0.08 * self.noise(30)
        self.e *= 1 + 0.08 * self.noise(30)
        self.h += 0.035 * self.noise(0.7)
        self.e += 0.05 * self.noise(0.9)
        dyes = np.stack([gaussian_filter(d, 1.1).clip(0, 3) for d in (self.h, self.e)], -1)
        light = np.exp(-dyes @ _DYES) * np.array([0.975, 0.965, 0.98])
        pixels = (light * 255).clip(0, 255).astype(np.uint8)
        return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _share(distance: np.ndarray, softness: float = 0.8) -> np.ndarray:
    """1 where a distance in px is well below zero, 0 where well above."""
    return 1 / (1 + np.exp((distance / softness).clip(-30, 30)))


def draw_alveoli(seed: int) -> Image.Image:
    """Benign lung: thin walls around air, flat nuclei in them, red cells in and beside them."""
    slide = Slide(seed, 0.04, 0.05)
    border, _ = slide.polygons(slide.scatter(78), 9)
    thick = 5 + 2.4 * slide.noise(25)
    slide.paint(_share(border - thick), 0.24, 0.42)
    slide.e += _share(border - thick) * 0.08 * slide.noise(2)
    wall = lambda x, y: slide.at(border - thick, x, y) < 1  # noqa: E731
    gradient = np.gradient(gaussian_filter(border, 4))
    slide.red_cells(slide.scatter(8, lambda x, y: wall(x, y) and slide.rng.random() < 0.35))
    flock = slide.noise(28)
    slide.red_cells(slide.scatter(9, lambda x, y: slide.at(flock, x, y) > 1.5))
    for x, y in slide.scatter(12, wall):
        along = np.arctan2(slide.at(gradient[0], x, y), slide.at(gradient[1], x, y)) + np.pi / 2
        slide.nucleus(x, y, along, Cell(6, 3.4, 1.15, 0.25, 0.2, 0.12))
    return slide.finish()


def draw_sheet(seed: int) -> Image.Image:
    """Squamous carcinoma: a sheet of angular cells with bridges, large nuclei, a keratin pearl."""
    slide = Slide(seed, 0.42, 0.42)
    places = slide.scatter(19)
    border, whose = slide.polygons(places, 3)
    tint = slide.rng.normal(0, 0.07, len(places))[whose]
    slide.h += tint + 0.1 * slide.noise(30)
    slide.e += 0.5 * tint
    slide.paint(0.55 * _share(border - 0.9, 0.5), 0.16, 0.3)
    lean = slide.rng.uniform(0, np.pi) + 0.6 * slide.noise(50)
    pearl = slide.rng.uniform(50, SIDE - 50, 2)
    curve = slide.outline(slide.rng.uniform(17, 25), 0.12)
    dx, dy = slide.x - pearl[0], slide.y - pearl[1]
    radius = np.hypot(dx, dy) - curve(np.arctan2(dy, dx))
    for x, y in places:
        if slide.at(radius, x, y) > 2:
            cell = Cell(8.2, 5.9, 1.0, 0.5, 0.22, 0.1, nucleolus=0.6)
            slide.nucleus(*(np.array([x, y]) + slide.rng.normal(0, 1.2, 2)), slide.at(lean, x, y), cell)  # fmt: skip
    slide.paint(_share(radius, 1.2), 0.16, 0.72)
    slide.e += _share(radius, 1.2) * 0.16 * np.sin(radius * 1.3 + slide.noise(6))
    return slide.finish()


@dataclass(frozen=True)
class Gland:
    """How glands look: radius and lumen (share of the radius), nuclei in rings, what fills them."""

    radius: float
    spacing: float
    lumen: float
    wobble: float
    cell: Cell
    rings: tuple[float, ...]
    pitch: float  # px between nuclei of a ring
    cytoplasm: tuple[float, float]
    goblets: bool = False
    scatter: float = 0.02


def draw_glands(
    seed: int, gland: Gland, ground: tuple[float, float], fibres: float, stroma: Cell, pitch: float
) -> Image.Image:
    """Glands in fibrous tissue with cells of its own (`stroma`, about `pitch` px apart)."""
    slide = Slide(seed, *ground)
    rng = slide.rng
    slide.fibres(fibres, rng.uniform(0, np.pi))
    gaps = slide.noise(6)
    slide.paint(0.8 * _share(1.5 - gaps, 0.15), 0.05, 0.08)
    rings = []
    outside = np.full_like(slide.h, 99)
    for x, y in slide.scatter(gland.spacing):
        curve = slide.outline(gland.radius * rng.uniform(0.85, 1.15), gland.wobble)
        flat, lean = rng.uniform(0.72, 1), rng.uniform(0, np.pi)
        dx, dy = slide.x - x, slide.y - y
        u, v = (
            dx * np.cos(lean) + dy * np.sin(lean),
            (-dx * np.sin(lean) + dy * np.cos(lean)) / flat,
        )
        far = curve(np.arctan2(v, u))
        share = np.hypot(u, v) / far
        outside = np.minimum(outside, (share - 1) * far)
        rings.append((x, y, curve, flat, lean, share, far))
    for x, y in slide.scatter(pitch, lambda x, y: slide.at(outside, x, y) > 3):
        slide.nucleus(x, y, rng.uniform(0, np.pi), stroma)
    for x, y, curve, flat, lean, share, far in rings:
        slide.paint(0.9 * _share((share - 1.06) * far, 0.8), 0.06, 0.14)
        slide.paint(_share((share - 1) * far), *gland.cytoplasm)
        slide.h += _share((share - 1) * far) * 0.06 * slide.noise(2)
        if gland.goblets:
            _fill_with_mucus(slide, share, far, gland)
        slide.paint(0.95 * _share((share - gland.lumen) * far, 1.2), 0.04, 0.06)
        for ring in gland.rings:
            around = 2 * np.pi * gland.radius * ring
            angles = np.arange(0, 2 * np.pi, 2 * np.pi * gland.pitch / around)
            for angle in angles + rng.normal(
                0, 0.2 * gland.pitch / around * 2 * np.pi, len(angles)
            ):
                out = curve(angle) * (ring + gland.scatter * rng.normal())
                u, v = out * np.cos(angle), out * np.sin(angle) * flat
                turn = np.arctan2(v, u) + lean + 0.25 * rng.normal()
                place = (x + u * np.cos(lean) - v * np.sin(lean), y + u * np.sin(lean) + v * np.cos(lean))  # fmt: skip
                slide.nucleus(*place, turn, gland.cell)
    return slide.finish()


def _fill_with_mucus(slide: Slide, share: np.ndarray, far: np.ndarray, gland: Gland) -> None:
    """Goblet cells: pale drops between the nuclei and the middle."""
    places = slide.scatter(9.5, lambda x, y: gland.lumen < slide.at(share, x, y) < 0.74)
    if len(places) > 1:
        border, _ = slide.polygons(places, 1)
        within = _share((share - 0.76) * far, 1.0)
        slide.paint(within * _share(1.3 - border, 0.35) * 0.92, 0.07, 0.1)


_BENIGN = Gland(
    60, 128, 0.12, 0.05, Cell(4.8, 2.6, 0.95, 0.2), (0.9,), 6.2, (0.2, 0.2), goblets=True
)
_CROWDED = Gland(
    40, 84, 0.34, 0.15, Cell(7.2, 3.1, 0.85, 0.4, nucleolus=0.3), (0.86, 0.68, 0.52), 7.0,
    (0.3, 0.26), scatter=0.05,
)  # fmt: skip
_ACINUS = Gland(
    48, 112, 0.55, 0.2, Cell(9.5, 6.8, 1.35, 0.25, 0.28, 0.12, 0.4), (0.84,), 17,
    (0.34, 0.22), scatter=0.06,
)  # fmt: skip
_LYMPHOCYTE = Cell(3.4, 2.8, 1.35, 0.15, 0.15)

DRAWN: dict[str, Callable[[int], Image.Image]] = {
    "lung_n": draw_alveoli,
    "lung_aca": lambda seed: draw_glands(
        seed, _ACINUS, (0.3, 0.16), 0.08, Cell(8, 5, 1.2, 0.3, 0.3, 0.12), 20
    ),
    "lung_scc": draw_sheet,
    "colon_n": lambda seed: draw_glands(seed, _BENIGN, (0.07, 0.26), 0.25, _LYMPHOCYTE, 11),
    "colon_aca": lambda seed: draw_glands(seed, _CROWDED, (0.16, 0.3), 0.25, _LYMPHOCYTE, 10),
}
"""Class -> what draws a tile of it from a seed: (256, 256), mode RGB."""
