"""A comparison to take away: a slide (PNG), a page (PDF), and its data (JSON, `page.export.comparison`).

Drawn by matplotlib figures of their own, so several requests may draw at a time.
"""

import threading
from datetime import UTC
from io import BytesIO

import matplotlib
from PIL import Image

from kdmodels.explain import overlay
from page.export.comparison import (
    AGREEMENT_NAMES,
    DISCLAIMER,
    VARIANT,
    Comparison,
    Settings,
    Side,
    to_json,
)
from page.export.sheet import AMBER, QUIET, TRACK, Sheet
from page.words import BEFORE

__all__ = ["Comparison", "Settings", "Side", "to_json", "to_pdf", "to_png"]

CAUTION = "A heatmap shows what moved the network, not where disease is."
SCALE = "Colour runs from dark to light relative to each map's own maximum."
_PICTURE_SIDE = 1024  # px, the longer side of the picture without a heatmap
_PDF_DPI = 200  # of the pictures on the page
_SAVING = threading.Lock()  # the type of a PDF's fonts is a setting of matplotlib as a whole


def to_png(comparison: Comparison) -> bytes:
    """A slide of 1920 x 1080 pixels: the picture, both heatmaps, both answers; no metadata."""
    figure = _slide(comparison).figure
    figure.savefig(file := BytesIO(), format="png", metadata={"Software": None})
    return file.getvalue()


def to_pdf(comparison: Comparison) -> bytes:
    """One A4 page with everything of the slide, and what is needed to do it again."""
    figure = _page(comparison).figure
    about = {
        "Title": f"Teacher and student: {comparison.task.name}",
        "CreationDate": comparison.made_at.astimezone(UTC),  # matplotlib mistakes other zones
        "Creator": None,
        "Producer": None,
    }
    with _SAVING, matplotlib.rc_context({"pdf.fonttype": 42}):  # 42: TrueType, as printers want
        figure.savefig(file := BytesIO(), format="pdf", dpi=_PDF_DPI, metadata=about)
    return file.getvalue()


# --- What is said ------------------------------------------------------------------------------


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _pictures(shown: Comparison) -> list[Image.Image]:
    """The picture alone, and with the teacher's and the student's heatmap."""
    (plain := shown.picture.copy()).thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    look = shown.settings
    return [
        plain,
        *(
            plain
            if side.heatmap is None
            else overlay(
                shown.picture,
                side.heatmap,
                colours=look.colours,
                opacity=look.opacity,
                threshold=look.threshold,
            )
            for side in shown.sides
        ),
    ]


def _evidence(shown: Comparison, side: Side) -> str:
    if side.heatmap is None:
        return "no heatmap was made"
    flat = "" if side.heatmap.any() else ": nothing found"
    return f"evidence for {shown.class_name(side.evidence)}{flat}"


def _channels(side: Side) -> str:
    if side.heatmap is None:
        return "no heatmap was made"
    if side.exact:
        return f"exact: all {side.channels_total:,} channels"
    return f"estimate: {side.channels_done:,} of {side.channels_total:,} channels"


def _time(side: Side) -> str:
    return f"{side.latency.median_ms:.1f} ms"


def _threads(side: Side) -> str:
    return f"{side.latency.threads} thread{'s' if side.latency.threads != 1 else ''}"


def _agreement(shown: Comparison) -> list[tuple[str, str]]:
    return [
        (AGREEMENT_NAMES.get(name, name), "not defined" if value != value else f"{value:.2f}")
        for name, value in shown.agreement.items()
    ]


def _settings(shown: Comparison) -> list[tuple[str, str]]:
    look = shown.settings
    return [
        ("Colours", look.colours),
        ("Opacity of the hottest place", f"{look.opacity:.0%}"),
        ("Heat left clear", f"below {look.threshold:.0%}" if look.threshold else "none"),
        ("Temperature of the softened outputs", f"{look.temperature:g}"),
    ]


def _doubts(
    sheet: Sheet, x: float, y: float, width: float, size: float, shown: Comparison
) -> float:
    """Write the doubts, if there are any; return the height that they take."""
    if not shown.doubts:
        return 0
    return sheet.notice(x, y, width, " ".join([f"{BEFORE}:", *shown.doubts]), size)


def _made(shown: Comparison) -> str:
    return f"{shown.made_at:%Y-%m-%d %H:%M} {shown.made_at.tzname()}, version {shown.version}"


def _bars(
    sheet: Sheet,
    x: float,
    y: float,
    width: float,
    height: float,
    shown: Comparison,
    side: Side,
    size,
) -> None:
    """Probabilities of all classes: name and per cent, and a bar beneath."""
    room = 0.97 * width - sheet.measure("100.0%", size, weight="bold")
    names = shown.task.class_names
    answer = "bold" if sheet.fitting(names, room, size, weight="bold") == size else "normal"
    size = sheet.fitting(names, room, size)
    line = sheet.line(size)
    step = min(height / len(side.probabilities), 2.2 * line)
    for n, (info, share) in enumerate(zip(shown.task.classes, side.probabilities, strict=True)):
        top = y + n * step
        own, said = (answer, "bold") if n == side.index else ("normal", "normal")
        sheet.write(x, top, info.name, size, weight=own)
        sheet.write(x + width, top, _percent(share), size, weight=said, ha="right")
        bar = x, top + 0.95 * line
        sheet.box(*bar, width, 0.25 * line, facecolor=TRACK)
        if share >= 0.0005:  # 0.0% would show as a hairline
            sheet.box(*bar, width * share, 0.25 * line, facecolor=info.colour)


# --- The slide ---------------------------------------------------------------------------------


def _slide(shown: Comparison) -> Sheet:
    """Units are pixels of 1920 x 1080."""
    sheet = Sheet(1920, 1080, 1 / 120, dpi=120)
    left, width, columns, column = 60, 1800, (60, 680, 1300), 560
    sheet.write(left, 30, f"Teacher and student: {shown.task.name}", 15, color=QUIET)
    sizes = (24, 22, 20, 18)
    lines = {size: sheet.wrap(shown.verdict, width, size, weight="bold") for size in sizes}
    size = next((size for size in sizes if len(lines[size]) <= 2), sizes[-1])
    sheet.paragraph(left, 62, width, shown.verdict, size, weight="bold")
    taken = _doubts(sheet, left, 172, width, 14, shown)  # from the height of the pictures
    roles = ["", *(side.role.capitalize() for side in shown.sides)]
    names = ["Original", *(side.name for side in shown.sides)]
    notes = ["as it was shown", *(_evidence(shown, side) for side in shown.sides)]
    pictures = _pictures(shown)
    for x, role, name, note, picture in zip(columns, roles, names, notes, pictures, strict=True):
        sheet.write(x, 174 + taken, role, 14, color=QUIET)
        sheet.fit(x, 198 + taken, column, name, 17, weight="bold")
        sheet.fit(x, 232 + taken, column, note, 14, color=QUIET)
        sheet.picture(x, 286 + taken, column, 438 - taken, picture)
    for x, side in zip(columns[1:], shown.sides, strict=True):
        if side.heatmap is not None:
            sheet.fit(x, 258 + taken, column, _channels(side), 12.5, color=QUIET)
        large = 17 if len(side.probabilities) <= 3 else 13.5
        _bars(sheet, x, 740, column, 212, shown, side, large)
        facts = (
            f"{_time(side)} · {side.parameters / 1e6:.1f} M parameters · "
            f"{side.macs / 1e9:.2f} GMAC · {side.file_bytes / 1e6:.1f} MB"
        )
        sheet.fit(x, 964, column, facts, 14.5)
        sheet.fit(x, 996, column, f"{side.latency.engine}, {_threads(side)}", 12.5, color=QUIET)
    sheet.scale(columns[0], 742, column, 22, shown.settings.colours, 13)
    for n, (name, value) in enumerate(_agreement(shown)[:4]):
        sheet.fit(columns[0], 812 + 36 * n, 400, name, 14.5)
        sheet.write(columns[0] + column, 812 + 36 * n, value, 14.5, weight="bold", ha="right")
    sheet.paragraph(columns[0], 968, column, CAUTION, 12.5, color=QUIET)
    sheet.write(left, 1040, DISCLAIMER, 12.5, weight="bold")
    sheet.write(left + width, 1040, _made(shown), 12.5, color=QUIET, ha="right")
    return sheet


# --- The page ----------------------------------------------------------------------------------


def _page(shown: Comparison) -> Sheet:
    """Units are millimetres of A4."""
    sheet = Sheet(210, 297, 1 / 25.4, dpi=300)
    left, width, columns = 15, 180, (15, 77, 139)
    sheet.write(left, 14, "Teacher and student", 17, weight="bold")
    sheet.write(left + width, 16.5, _made(shown), 8.5, color=QUIET, ha="right")
    sheet.write(left, 23, f"{shown.task.name}, one picture, two networks", 10, color=QUIET)
    sheet.paragraph(left, 31, width, shown.verdict, 11.5, weight="bold")
    taken = _doubts(sheet, left, 48.5, width, 9, shown)  # from the height of the pictures
    headings = ["Original", "Teacher", "Student"]
    notes = ["as it was shown", *(_evidence(shown, side) for side in shown.sides)]
    for x, heading, note, picture in zip(columns, headings, notes, _pictures(shown), strict=True):
        sheet.write(x, 50 + taken, heading, 11, weight="bold")
        sheet.fit(x, 55.5 + taken, 56, note, 8.5, color=QUIET)
        sheet.picture(x, 60.5 + taken, 56, 56 - taken, picture)
    sheet.scale(columns[0], 121, 56, 3, shown.settings.colours, 8)
    sheet.paragraph(columns[0], 131, 56, f"{CAUTION} {SCALE}", 8.5, color=QUIET)
    for x, side in zip(columns[1:], shown.sides, strict=True):
        _bars(sheet, x, 120, 56, 42, shown, side, 9)
    y = _table(sheet, left, 169, width, shown)
    _pairs(sheet, left, y + 6, 84, "Agreement of the heatmaps", _agreement(shown))
    _pairs(sheet, left + 96, y + 6, 84, "Settings", _settings(shown))
    sheet.box(left, 267, width, 11, **AMBER)
    sheet.write(left + width / 2, 272.5, DISCLAIMER, 10, weight="bold", ha="center", va="center")
    sheet.write(left, 281, f"Heatmaps: {VARIANT}.", 7.5, color=QUIET)
    return sheet


def _table(sheet: Sheet, left: float, y: float, width: float, shown: Comparison) -> float:
    """What each side is and what it took; returns where the table ends."""
    rows = {
        "Network": lambda s: s.name,
        "Answer": lambda s: (
            f"{shown.class_name(s.class_ids[s.index])}, {_percent(max(s.probabilities))}"
        ),
        "Time for one image": lambda s: (
            f"{_time(s)} (median of {s.latency.runs}; "
            f"quartiles {s.latency.q1_ms:.1f} to {s.latency.q3_ms:.1f})"
        ),
        "Engine": lambda s: f"{s.latency.engine}, {_threads(s)}",
        "Parameters": lambda s: f"{s.parameters:,}",
        "Work for one image": lambda s: f"{s.macs / 1e9:.3f} GMAC",
        "File": lambda s: f"{s.file_bytes:,} bytes",
        "Calibration": lambda s: (
            "none" if s.calibration == 1 else f"logits divided by {s.calibration:.3f}"
        ),
        "Heatmap": _channels,
        "Checkpoint's sha256": lambda s: s.sha256[:32],
        "": lambda s: s.sha256[32:],
    }
    columns = (left, left + 36, left + 110)
    for name, cell in rows.items():
        if name:
            sheet.box(left, y - 1.1, width, 0.15, facecolor=TRACK)
        sheet.write(columns[0], y, name, 8.5, color=QUIET)
        for x, side in zip(columns[1:], shown.sides, strict=True):
            family = {"family": "monospace"} if "sha256" in name or not name else {}
            sheet.fit(x, y, 70, cell(side), 8.5, **family)
        y += 5.2
    return y


def _pairs(
    sheet: Sheet, x: float, y: float, width: float, heading: str, pairs: list[tuple[str, str]]
) -> None:
    sheet.write(x, y, heading, 9.5, weight="bold")
    for n, (name, value) in enumerate(pairs):
        top = y + 6 + 4.8 * n
        sheet.fit(x, top, width * 0.68, name, 8.5, color=QUIET)
        sheet.write(x + width, top, value, 8.5, ha="right")
