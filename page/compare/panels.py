"""HTML of the smaller panels: agreement of the heatmaps, softened outputs, what erasing changed."""

import html
from collections.abc import Mapping

import numpy as np

from kdmodels.explain import agreement, share_inside
from kdmodels.tasks import Task

EXPLAINED = {
    "correlation": (
        "Correlation",
        "Pearson correlation of the two maps over all places: 1 where they are the same up to "
        "scale, 0 where they have nothing to do with each other.",
    ),
    "overlap": (
        "Overlap of the hottest fifth",
        "Of the places that are among the hottest 20% of either map, the share that is among the "
        "hottest 20% of both.",
    ),
    "teacher_lungs": (
        "Teacher's heat inside the lungs",
        "Share of the teacher's heat that lies inside the lung mask; heat without a preference "
        "would have the mask's share of the picture.",
    ),
    "student_lungs": (
        "Student's heat inside the lungs",
        "Share of the student's heat that lies inside the lung mask; heat without a preference "
        "would have the mask's share of the picture.",
    ),
}


def numbers_of(
    heatmaps: Mapping[str, np.ndarray], inside: np.ndarray | None = None
) -> dict[str, float]:
    """Keys of `EXPLAINED` -> numbers, NaN where one of the maps is flat.

    heatmaps: by role, (h, w). inside: (H, W) bool lung mask, where one is at hand.
    """
    found = agreement(heatmaps["teacher"], heatmaps["student"])
    numbers = {"correlation": found.pearson, "overlap": found.overlap}
    if inside is not None:
        for role, heatmap in heatmaps.items():
            numbers[f"{role}_lungs"] = share_inside(heatmap, inside)
    return numbers


def agreement_panel(numbers: Mapping[str, float], note: str) -> str:
    """numbers: keys of `EXPLAINED`. note: what the numbers are of, in a few words."""
    entries = "".join(
        f'<div tabindex="0"><dt>{name}</dt>'
        f"<dd>{'not defined' if np.isnan(numbers[key]) else f'{numbers[key]:.2f}'}</dd>"
        f'<p class="why" role="note">{html.escape(why)}</p></div>'
        for key, (name, why) in EXPLAINED.items()
        if key in numbers
    )
    return f'<dl class="numbers">{entries}</dl><p class="legend">{html.escape(note)}</p>'


def _track(share: float, colour: str) -> str:
    return f'<span class="track"><span style="width:{share:.2%};background:{colour}"></span></span>'


def softened_panel(task: Task, temperature: float, teacher: np.ndarray, student: np.ndarray) -> str:
    """teacher, student: (K,) logits, shown as softmax(logits / temperature)."""
    shares = [_softmax(logits / temperature) for logits in (teacher, student)]
    rows = "".join(
        f'<tr><th scope="row">{html.escape(info.name)}</th>'
        + "".join(
            f'<td><span class="value">{share[k]:.1%}</span>{_track(share[k], info.colour)}</td>'
            for share in shares
        )
        + "</tr>"
        for k, info in enumerate(task.classes)
    )
    spread = " and ".join(
        f"{1 - share.max():.0%} for the {role}"
        for role, share in zip(("teacher", "student"), shares, strict=True)
    )
    return (
        '<table class="pairs"><thead><tr><th scope="col">Class</th><th scope="col">Teacher</th>'
        f'<th scope="col">Student</th></tr></thead><tbody>{rows}</tbody></table>'
        f'<p class="legend">At T = {temperature:g}, what is not given to the first choice is '
        f"{spread}. In distillation the student is trained to match the teacher's column: how "
        "likely the other classes are, which a label does not tell. Raw logits, without the "
        "calibration of the cards.</p>"
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def changes_panel(
    task: Task, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], painted: float
) -> str:
    """before, after: by role, (K,) probabilities. painted: share of the picture, in [0, 1]."""
    header = "".join(f'<th scope="col">{role.capitalize()}</th>' for role in before)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(info.name)}</th>'
        + "".join(_change(before[role][k], after[role][k], info.colour) for role in before)
        + "</tr>"
        for k, info in enumerate(task.classes)
    )
    said = " ".join(_turned(task, role, before[role], after[role]) for role in before)
    return (
        f'<p class="verdict" role="status">{html.escape(said)}</p>'
        f'<table class="pairs"><thead><tr><th scope="col">Class</th>{header}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        f'<p class="legend">{painted:.0%} of the picture is painted over. Before and after are '
        "both of the picture at the size shown here.</p>"
    )


def _change(before: float, after: float, colour: str) -> str:
    points = 100 * (after - before)
    sign = "±" if abs(points) < 0.05 else "+" if points > 0 else "−"
    return (
        f'<td><span class="value">{before:.1%} → {after:.1%} <b>({sign}{abs(points):.1f})</b></span>'
        f"{_track(after, colour)}</td>"
    )


def _turned(task: Task, role: str, before: np.ndarray, after: np.ndarray) -> str:
    old, new = int(before.argmax()), int(after.argmax())
    if old == new:
        moved = 100 * (after[old] - before[old])
        return f"The {role} still says {task.class_names[old]} ({moved:+.0f} points)."
    return f"The {role} now says {task.class_names[new]} instead of {task.class_names[old]}."
