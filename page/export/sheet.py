"""A white sheet on which an export is laid out: text, boxes and pictures by their distances in it."""

from collections.abc import Iterable

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

INK, QUIET, TRACK = "#1a1f24", "#50575e", "#e3e6e9"
AMBER = {"facecolor": "#fff4d6", "edgecolor": "#8a6100", "linewidth": 0.8}


class Sheet:
    """A white sheet on which things are placed by their distance from its left and upper edge.

    width, height: in a unit of `inches`. Sizes of letters are in points.
    """

    def __init__(self, width: float, height: float, inches: float, dpi: float) -> None:
        self.width, self.height, self.inches = width, height, inches
        self.figure = Figure((width * inches, height * inches), dpi=dpi, facecolor="white")
        self._canvas = FigureCanvasAgg(self.figure)

    def line(self, size: float) -> float:
        """Distance from one line of text to the next."""
        return size / 72 / self.inches * 1.3

    def write(self, x: float, y: float, text: str, size: float, **how):
        """Write one line whose upper edge is at y."""
        how = {"color": INK, "va": "top", "parse_math": False} | how
        return self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=size, **how)

    def measure(self, text: str, size: float, **how) -> float:
        """Width of one line of text."""
        written = self.write(0, 0, text, size, **how)
        width = written.get_window_extent(self._canvas.get_renderer()).width
        written.remove()
        return width / self.figure.dpi / self.inches

    def fit(self, x: float, y: float, width: float, text: str, size: float, **how) -> None:
        """Write one line, in smaller letters where it would be too wide."""
        self.write(x, y, text, self.fitting((text,), width, size, **how), **how)

    def fitting(self, texts: Iterable[str], width: float, size: float, **how) -> float:
        """The largest size, at most `size`, at which each of the texts fits in one line."""
        for text in texts:
            # Step by step: the widths of letters are rounded, so they do not go with the size.
            while size > 1 and self.measure(text, size, **how) > width:
                size -= 0.25
        return size

    def wrap(self, text: str, width: float, size: float, **how) -> list[str]:
        """Break text into lines of at most `width`, between words."""
        lines: list[str] = []
        for word in text.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and self.measure(longer, size, **how) <= width:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def paragraph(self, x: float, y: float, width: float, text: str, size: float, **how) -> float:
        """Write text in as many lines as it needs; return where the next one may begin."""
        for line in self.wrap(text, width, size, **how):
            self.write(x, y, line, size, **how)
            y += self.line(size)
        return y

    def notice(self, x: float, y: float, width: float, text: str, size: float) -> float:
        """Write text on an amber ground; return the height that it takes with a gap beneath."""
        line = self.line(size)
        below = self.paragraph(x + line / 2, y + line / 3, width - line, text, size)
        self.box(x, y, width, below - y + line / 4, **AMBER)
        return below - y + line

    def box(self, x: float, y: float, width: float, height: float, **how) -> None:
        place = (x / self.width, 1 - (y + height) / self.height)
        size = width / self.width, height / self.height
        how = {"edgecolor": "none", "zorder": -1} | how  # beneath the pictures
        patch = Rectangle(place, *size, transform=self.figure.transFigure, **how)
        self.figure.add_artist(patch)

    def axes(self, x: float, y: float, width: float, height: float):
        place = x / self.width, 1 - (y + height) / self.height
        return self.figure.add_axes((*place, width / self.width, height / self.height))

    def picture(self, x: float, y: float, width: float, height: float, image: Image.Image) -> None:
        """Show an image as large as it fits, in the middle of a dark surround."""
        scale = min(width / image.width, height / image.height)
        w, h = image.width * scale, image.height * scale
        if min(w / width, h / height) < 0.99:  # else it would show as a hairline
            self.box(x, y, width, height, facecolor="black")
        axes = self.axes(x + (width - w) / 2, y + (height - h) / 2, w, h)
        axes.imshow(image, aspect="auto")
        axes.axis("off")

    def scale(self, x: float, y: float, width: float, height: float, colours: str, size) -> None:
        """The colours of the heatmaps, from no weight to most."""
        axes = self.axes(x, y, width, height)
        mappable = ScalarMappable(Normalize(0, 1), colours)
        self.figure.colorbar(mappable, cax=axes, orientation="horizontal", ticks=[])
        below = y + height * 1.3
        self.write(x, below, "no weight", size, color=QUIET)
        self.write(x + width, below, "most weight", size, color=QUIET, ha="right")
