"""What the shortcut audit found, in words and tables: all from the stored numbers, by rule."""

from collections.abc import Iterator

from kdmodels.tasks import get_task
from train.data.blanking import CONTROL, FILLED, MAIN_FILL, MARGIN, SWAPS, VERSIONS, WHOLE
from train.tables.markdown import head, percent, points, row

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


def _said(metric: dict) -> str:
    low, high = metric["ci95"]
    return f"{_percent(metric['value'])} ({100 * low:.1f} to {100 * high:.1f})"


def beats(metric: dict, floor: float) -> bool:
    """Whether the whole interval lies above the floor."""
    return metric["ci95"][0] > floor


# --- In words --------------------------------------------------------------------------------


def judge_blanking(model: dict, majority: float) -> tuple[str, str]:
    """What a network's answers on blanked films say: a verdict and its sentence.

    unknown: it is not clearly better than the majority class even on the films as they are.
    outside: it is, with the box around the lungs blanked, or at least with the lungs blanked.
    lungs: it is not then, but it is with the lungs alone.
    thrown off: neither, so that the blanking itself may be what it fails on.
    """
    accuracy = {name: version["accuracy"] for name, version in model["versions"].items()}
    floor = f"the majority class gives {_percent(majority)}"
    if not beats(accuracy[WHOLE], majority):
        return "unknown", (
            f"is not clearly better than the majority class on these films as they are "
            f"({_said(accuracy[WHOLE])}; {floor}), so there is nothing to audit."
        )
    if found := [name for name in ("no_box", "no_lungs") if beats(accuracy[name], majority)]:
        left = accuracy[found[0]]["value"] - majority
        kept = min(round(left / (accuracy[WHOLE]["value"] - majority), 4), 1)
        amount = "most" if kept >= MOST else "a part"
        return "outside", (
            f"still knows the class without the lungs: with the {VERSIONS[found[0]].name} it is "
            f"right in {_said(accuracy[found[0]])} of the films, where {floor}. It reads {amount} "
            f"of what it knows beyond that ({100 * kept:.0f}%) outside of the lungs."
        )
    without, alone = accuracy["no_lungs"], accuracy["lungs_only"]
    if beats(alone, majority):
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


def judge_swaps(model: dict) -> tuple[str, str]:
    """What a network's answers on swapped films say: a verdict and its sentence.

    nothing: a box of the same class already costs more than `MAX_COST` of its accuracy.
    pulled: with the box of another class its answer is the surroundings' class clearly more often
        than for the box's own film. Else box.
    """
    control = model["swaps"][CONTROL]
    others = {name: s for name, s in model["swaps"].items() if name != CONTROL and s}
    if not control or not others:
        return "nothing", ""
    cost = model["versions"][WHOLE]["accuracy"]["value"] - control["surroundings"]["value"]
    if cost > MAX_COST:
        return "nothing", (
            "Swaps tell little of it: the box of another film of the same class already costs it "
            f"{100 * cost:.1f} points."
        )
    told = [
        f"Given the box {SWAPS[name].name}, it names the class of the box in {_said(swap['box'])} "
        f"and that of the surroundings in {_said(swap['surroundings'])}, for which it takes "
        f"{_percent(swap['mistaken']['value'])} of the boxes' own films."
        for name, swap in others.items()
    ]
    pulled = any(beats(swap["pull"], 0) for swap in others.values())
    end = "The surroundings pull its answers" if pulled else "No pull of the surroundings is clear"
    return "pulled" if pulled else "box", f"{' '.join(told)} {end}."


def _forest_sentence(audit: dict) -> str:
    versions = audit["forest"]["versions"]
    whole, box, shape = (versions[n]["accuracy"] for n in (WHOLE, "no_box", "box_outline"))
    knows = beats(box, max(audit["majority"], shape["value"]))
    return (
        f"{'The class can' if knows else 'Little can'} be known without the lungs: a random forest "
        f"on 16 x 16 px thumbnails, trained on films with the box around the lungs blanked, is "
        f"right in {_said(box)}; trained on the films as they are, in {_said(whole)}; on the "
        f"outline of that box alone, in {_said(shape)}. The majority class gives "
        f"{_percent(audit['majority'])}."
    )


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


def _sum_up_swaps(models: list[dict]) -> Iterator[str]:
    for swap in SUMMED_UP:
        judged = [(m, judge_swaps(m)[0]) for m in models if m["swaps"][swap]]
        told = [
            f"{m['name']} {_percent(m['swaps'][swap]['surroundings']['value'])} (for which it takes "
            f"{_percent(m['swaps'][swap]['mistaken']['value'])} of the boxes' own films)"
            for m, verdict in judged
            if verdict != "nothing"
        ]
        if told:
            number = sum(verdict == "pulled" for _, verdict in judged)
            yield (
                f"The surroundings pull the answers of {number} of {len(told)} networks. With the "
                f"box around the lungs taken from a film {SWAPS[swap].name}, the answer is the "
                f"class of the surroundings in: {'; '.join(told)}."
            )
            return


def _sum_up_crops(models: list[dict]) -> Iterator[str]:
    told = [
        f"{m['name']} {_percent(m['versions']['crop']['accuracy']['value'])} instead of "
        f"{_percent(m['versions'][WHOLE]['accuracy']['value'])}"
        for m in models
        if m["versions"]["crop"]["change"]["ci95"][1] < 0
    ]
    if told:
        yield (
            "Clearly less is right with the films cropped to the box around the lungs, which takes "
            f"nothing from the lungs but makes them larger: {'; '.join(told)}."
        )


def audit_summary(results: dict) -> list[str]:
    """The audit's conclusions in short, in Markdown, for the README; empty where there was none.

    results: one task's part of `weights/results.json`.
    """
    if not (audit := results.get("audit")):
        return []
    models = list(audit["models"].values())
    lines = [
        f"**Shortcut audit**, {audit['images']:,} test films with lung masks "
        f"({audit['groups']:,} independent groups):",
        "",
    ]
    if audit.get("forest"):
        lines.append(f"- {_forest_sentence(audit)}")
    lines.append(
        "- Whoever knew of each of these films only which collection it is from could be right in "
        f"{_percent(audit['source_majority'])}."
    )
    verdicts = [judge_blanking(m, audit["majority"])[0] for m in models]
    for verdict, words in TOGETHER.items():
        names = [m["name"] for m, found in zip(models, verdicts, strict=True) if found == verdict]
        lines += [f"- {words.format('; '.join(names))}"] if names else []
    lines += [f"- {said}" for said in (*_sum_up_crops(models), *_sum_up_swaps(models))]
    return [*lines, ""]


def _one_by_one(audit: dict) -> list[str]:
    lines = []
    for model in audit["models"].values():
        words = f"{judge_blanking(model, audit['majority'])[1]} {judge_swaps(model)[1]}"
        lines.append(f"- {model['name']} {words}".rstrip())
    return [*lines, ""]


# --- In tables -------------------------------------------------------------------------------


def _rows(audit: dict) -> Iterator[dict]:
    """The models, then the forest under its name."""
    yield from audit["models"].values()
    if audit.get("forest"):
        yield {"name": "random forest, trained on each version"} | audit["forest"]


def _versions_table(audit: dict) -> list[str]:
    lines = head("accuracy", *(v.name for v in VERSIONS.values()))
    for entry in _rows(audit):
        lines.append(
            row(entry["name"], *(percent(entry["versions"][v]["accuracy"]) for v in VERSIONS))
        )
    return [*lines, ""]


def _details_table(audit: dict) -> list[str]:
    task = get_task(audit["task"])
    names = [c.name for c in task.classes if c.id in audit["classes"]]
    lines = head(
        "model", "films", "macro-F1", "AUROC",
        *(f"sensitivity, {name}" for name in names), "unchanged answers", "change in accuracy",
    )  # fmt: skip
    for entry in _rows(audit):
        for version in VERSIONS.values():
            found = entry["versions"][version.id]
            changes = (f"{100 * found['unchanged']:.1f}", points(found["change"]))
            lines.append(
                row(
                    entry["name"],
                    version.name,
                    percent(found["macro_f1"]),
                    f"{found['auroc']:.3f}",
                    *(percent(rate) for rate in found["sensitivity"].values()),
                    *(("", "") if version.id == WHOLE else changes),
                )
            )
    return [*lines, ""]


# Columns of a swap with another class; the pull is the share that is the surroundings' doing.
PARTS = {
    "box": ("as the box", percent),
    "surroundings": ("as the surroundings", percent),
    "pull": ("more than the boxes' own films, points", points),
}


def _swaps_table(audit: dict) -> list[str]:
    others = [swap for swap in SWAPS.values() if swap.id != CONTROL]
    heads = [f"{swap.name}: {name}" for swap in others for name, _ in PARTS.values()]
    lines = head("swapped box", f"{SWAPS[CONTROL].name}: right", *heads)
    for model in audit["models"].values():
        swaps, nothing = model["swaps"], "no such films"
        cells = [percent(swaps[CONTROL]["surroundings"]) if swaps[CONTROL] else nothing]
        for swap in others:
            found = swaps[swap.id]
            cells += [shown(found[p]) if found else nothing for p, (_, shown) in PARTS.items()]
        lines.append(row(model["name"], *cells))
    return [*lines, ""]


def _fills_table(audit: dict) -> list[str]:
    models = list(audit["models"].values())
    if not models:
        return []
    fills = (MAIN_FILL, *models[0]["fills"])
    lines = head(f"accuracy, filled {' / '.join(fills)}", *(VERSIONS[v].name for v in FILLED))
    for model in models:
        cells = []
        for version in FILLED:
            values = [model["versions"][version]["accuracy"]["value"]]
            values += [found[version] for found in model["fills"].values()]
            cells.append(" / ".join(f"{100 * value:.1f}" for value in values))
        lines.append(row(model["name"], *cells))
    return [*lines, ""]


def _within_table(audit: dict) -> list[str]:
    held, lines = list(audit["classes"]), []
    names = {c.id: c.name for c in get_task(audit["task"]).classes}
    for entry in _rows(audit):
        for source, whole in entry["versions"][WHOLE]["within"].items():
            classes = " or ".join(names[held[i]] for i in whole["classes"])
            cells = (percent(entry["versions"][v]["within"][source]["accuracy"]) for v in VERSIONS)
            about = f"{source}, {whole['images']} films: {classes}"
            lines.append(row(entry["name"], about, f"{100 * whole['majority']:.1f}", *cells))
    if not lines:
        return []
    heads = ("model", "within one source", "majority", *(v.name for v in VERSIONS.values()))
    return [*head(*heads), *lines, ""]


def audit_lines(results: dict) -> list[str]:
    """The audit as a section of RESULTS.md, in Markdown lines; empty where there was none.

    results: one task's part of `weights/results.json`.
    """
    if not (audit := results.get("audit")):
        return []
    task = get_task(audit["task"])
    names = {c.id: c.name for c in task.classes}
    counts = ", ".join(f"{names[i]} {number}" for i, number in audit["classes"].items())
    return [
        f"## Shortcut audit, {task.name}",
        "",
        *audit_summary(results),
        "One by one:",
        "",
        *_one_by_one(audit),
        f"Films: {counts}. {' '.join(audit['notes'])} {ABOUT}".replace("  ", " "),
        "",
        f"![Accuracy by version, and swaps](figures/audit-{task.id}.png)",
        "",
        "Percent, with 95% bootstrap intervals over groups.",
        "",
        *_versions_table(audit),
        *_swaps_table(audit),
        *_fills_table(audit),
        *_within_table(audit),
        *_details_table(audit),
    ]
