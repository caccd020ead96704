"""What the shortcut audit found, in words: all from its numbers, by rule."""

from collections.abc import Iterator

from train.data.blanking import CONTROL, MARGIN, SWAPS, VERSIONS
from train.measure.audit_numbers import Audited, AuditNumbers
from train.measure.resampling import Estimate

# A network is "clearly better" than a floor where the lower end of its 95% interval lies above it.
MOST = 0.5  # share of what a network knows beyond the majority class, from which on it is "most"
MAX_COST = 0.10  # of accuracy, that a swap within the class may cost before swaps tell nothing

ABOUT = (
    f"What is blanked is so with a margin of {100 * MARGIN:.0f}% of the film's side and filled "
    "smoothly from what stays visible. The networks answer as they are: what they get right on blanked films "
    "comes from what is left, what they get wrong may come from the blanking, which they were not "
    "trained on. The random forest is trained on each version, so it tells how much can be known "
    "from what a version leaves. In a swap the box around the lungs comes from another film and "
    "nothing is blank. That box holds the heart, the spine and much of the chest wall as well: an "
    "answer that goes with the box need not come from the lungs, one that goes with the "
    "surroundings does not."
)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _said(share: Estimate) -> str:
    return f"{_percent(share.value)} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def judge_blanking(model: Audited, majority: float) -> tuple[str, str]:
    """What a network's answers on blanked films say: a verdict and its sentence.

    unknown: it is not clearly better than the majority class even on the films as they are.
    outside: it is, with the box around the lungs blanked, or at least with the lungs blanked.
    lungs: it is not then, but it is with the lungs alone.
    thrown off: neither, so that the blanking itself may be what it fails on.
    """
    accuracy = {name: version.accuracy for name, version in model.versions.items()}
    whole = model.whole.accuracy
    floor = f"the majority class gives {_percent(majority)}"
    if not whole.beats(majority):
        return "unknown", (
            "is not clearly better than the majority class on these films as they are "
            f"({_said(whole)}; {floor}), so there is nothing to audit."
        )
    if found := [name for name in ("no_box", "no_lungs") if accuracy[name].beats(majority)]:
        left = accuracy[found[0]].value - majority
        kept = min(round(left / (whole.value - majority), 4), 1)
        amount = "most" if kept >= MOST else "a part"
        return "outside", (
            f"still knows the class without the lungs: with the {VERSIONS[found[0]].name} it is "
            f"right in {_said(accuracy[found[0]])} of the films, where {floor}. It reads {amount} "
            f"of what it knows beyond that ({100 * kept:.0f}%) outside of the lungs."
        )
    without, alone = accuracy["no_lungs"], accuracy["lungs_only"]
    if alone.beats(majority):
        return "lungs", (
            f"falls to {_said(without)} with the lungs blanked, not clearly better than the "
            f"majority class ({_percent(majority)}), and keeps {_said(alone)} with the lungs "
            "alone: it needs the lungs."
        )
    return "thrown off", (
        f"is not clearly better than the majority class ({_percent(majority)}) with the lungs "
        f"blanked ({_said(without)}), nor with all else blanked ({_said(alone)}): the blanking "
        "itself throws it off and does not tell where it looks."
    )


def judge_swaps(model: Audited) -> tuple[str, str]:
    """What a network's answers on swapped films say: a verdict and its sentence.

    nothing: a box of the same class already costs more than `MAX_COST` of its accuracy.
    pulled: with the box of another class its answer is the surroundings' class clearly more often
        than for the box's own film. Else box.
    """
    control = model.swaps.get(CONTROL)
    others = {name: swap for name, swap in model.swaps.items() if name != CONTROL and swap}
    if not control or not others:
        return "nothing", ""
    cost = model.whole.accuracy.value - control.surroundings.value
    if cost > MAX_COST:
        return "nothing", (
            "Swaps tell little of it: the box of another film of the same class already costs it "
            f"{100 * cost:.1f} points."
        )
    told = [
        f"Given the box {SWAPS[name].name}, it names the class of the box in {_said(swap.box)} "
        f"and that of the surroundings in {_said(swap.surroundings)}, for which it takes "
        f"{_percent(swap.mistaken.value)} of the boxes' own films."
        for name, swap in others.items()
    ]
    pulled = any(swap.pull.beats(0) for swap in others.values())
    end = "The surroundings pull its answers" if pulled else "No pull of the surroundings is clear"
    return "pulled" if pulled else "box", f"{' '.join(told)} {end}."


def model_told(model: Audited, audit: AuditNumbers) -> str:
    """Both judgements, to follow the model's name."""
    return f"{judge_blanking(model, audit.majority)[1]} {judge_swaps(model)[1]}".rstrip()


# What is said together of the networks with the same verdict on blanking.
TOGETHER = {
    "outside": "Clearly better than the majority class without the lungs: {}.",
    "lungs": "Not clearly better than the majority class without the lungs, but with the lungs "
    "alone: {}.",
    "thrown off": "Not clearly better than the majority class without the lungs, nor with the "
    "lungs alone, so that the blanking itself throws them off: {}.",
    "unknown": "Not clearly better than the majority class even with the films as they are: {}.",
}
SUMMED_UP = ("within", "other")  # the swap that the summary speaks of: the first that there is


def audit_told(audit: AuditNumbers) -> list[str]:
    """The audit's conclusions in short, a sentence or two each."""
    told = [_forest_sentence(audit)] if audit.forest else []
    told.append(
        "Whoever knew of each of these films only which collection it is from could be right in "
        f"{_percent(audit.source_majority)}."
    )
    verdicts = {m.name: judge_blanking(m, audit.majority)[0] for m in audit.models}
    for verdict, words in TOGETHER.items():
        if names := [name for name, found in verdicts.items() if found == verdict]:
            told.append(words.format("; ".join(names)))
    return [*told, *_sum_up_crops(audit), *_sum_up_swaps(audit)]


def _forest_sentence(audit: AuditNumbers) -> str:
    whole, box, shape = (
        audit.forest.versions[name].accuracy for name in ("whole", "no_box", "box_outline")
    )
    knows = box.beats(max(audit.majority, shape.value))
    return (
        f"{'The class can' if knows else 'Little can'} be known without the lungs: a random forest "
        f"on 16 x 16 px thumbnails, trained on films with the box around the lungs blanked, is "
        f"right in {_said(box)}; trained on the films as they are, in {_said(whole)}; on the "
        f"outline of that box alone, in {_said(shape)}. The majority class gives "
        f"{_percent(audit.majority)}."
    )


def _sum_up_crops(audit: AuditNumbers) -> Iterator[str]:
    told = [
        f"{m.name} {_percent(m.versions['crop'].accuracy.value)} instead of "
        f"{_percent(m.whole.accuracy.value)}"
        for m in audit.models
        if m.changes["crop"].high < 0
    ]
    if told:
        yield (
            "Clearly less is right with the films cropped to the box around the lungs, which takes "
            f"nothing from the lungs but makes them larger: {'; '.join(told)}."
        )


def _sum_up_swaps(audit: AuditNumbers) -> Iterator[str]:
    for name in SUMMED_UP:
        judged = [(m, judge_swaps(m)[0]) for m in audit.models if m.swaps.get(name)]
        told = [
            f"{m.name} {_percent(m.swaps[name].surroundings.value)} (for which it takes "
            f"{_percent(m.swaps[name].mistaken.value)} of the boxes' own films)"
            for m, verdict in judged
            if verdict != "nothing"
        ]
        if told:
            number = sum(verdict == "pulled" for _, verdict in judged)
            yield (
                f"The surroundings pull the answers of {number} of {len(told)} networks. With the "
                f"box around the lungs taken from a film {SWAPS[name].name}, the answer is the "
                f"class of the surroundings in: {'; '.join(told)}."
            )
            return
