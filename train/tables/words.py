"""What the numbers say, in sentences: each follows from its numbers by rule."""

from collections.abc import Callable, Iterable

from kdmodels.models.checkpoints import Checkpoint
from train.measure.differences import Difference
from train.measure.measured import Measured
from train.measure.task_numbers import Change, MeasuredFloor, MeasuredRun, TaskNumbers
from train.tables.audit_words import model_told
from train.tables.templates import listed, percent, points

ONE_SEED = "one seed: the interval covers the choice of test images, not the chance of training"
SEVERAL_SEEDS = "{} seeds: the interval covers the choice of test images and the chance of training"

# Of a paired difference in accuracy: where its interval lies, and what that says of a network.
SAYS: dict[str, str] = {
    "better": "is better beyond doubt",
    "worse": "is worse beyond doubt",
    "unclear": "is neither better nor worse beyond doubt",
}


def floor_name(floor: MeasuredFloor) -> str:
    """`random forest (outer frame, 3 of 32 px)`."""
    return floor.name if floor.floor.id == "majority" else f"random forest ({floor.name})"


def verdict(change: Difference) -> str:
    """A key of `SAYS`."""
    if change.accuracy.low > 0:
        return "better"
    return "worse" if change.accuracy.high < 0 else "unclear"


def seeds_told(change: Difference) -> str:
    return SEVERAL_SEEDS.format(len(change.seeds)) if change.covers_seeds else ONE_SEED


def _sorted_out(
    runs: Iterable[MeasuredRun], over: Callable[[MeasuredRun], Difference]
) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {key: [] for key in SAYS}
    for run in runs:
        found[verdict(over(run))].append(run.row.name)
    return found


def _against(numbers: TaskNumbers, over: Callable, other: str) -> str:
    found = _sorted_out(numbers.shipped, over)
    parts = [
        f"{listed(names)} {'are' if len(names) > 1 else 'is'}{SAYS[key].removeprefix('is')}"
        for key, names in found.items()
        if names
    ]
    for key, names in found.items():
        if len(names) == len(numbers.shipped) > 1:
            parts = [f"every network {SAYS[key]}"]
    return f"Against {other}, paired on the same images: {'; '.join(parts)}."


def floors_told(numbers: TaskNumbers) -> list[str]:
    """How the networks stand to the best floor."""
    if not (best := numbers.best_floor):
        return []
    name = (
        f"the best floor on the validation split, the {floor_name(best)}, which does not see "
        f"{numbers.task.blind_to}"
    )
    return [_against(numbers, numbers.over_floor, name)]


def probes_told(numbers: TaskNumbers) -> list[str]:
    """How the networks stand to each probe."""
    return [
        _against(numbers, lambda run, probe=probe: numbers.over(run, probe), f"the {probe.name}")
        for probe in numbers.probes
    ]


def distillation_told(numbers: TaskNumbers) -> list[str]:
    """What distillation changed, in a sentence; which of it is beyond chance."""
    changes = [c for c in numbers.changes if c.row.teacher]
    if not changes:
        return []
    told = "; ".join(
        f"{change.row.name} {points(change.by.accuracy)}, {_number_of_seeds(change)}"
        for change in changes
    )
    covers = (
        "The intervals cover the choice of test images and the chance of training."
        if all(change.by.covers_seeds for change in changes)
        else "The interval of one seed does not cover the chance of training."
    )
    clear = [c.row.name for c in changes if c.by.accuracy.excludes(0)]
    end = f"Zero is outside for {listed(clear)}." if clear else "Each of them includes zero."
    return [
        f"What distillation changed in accuracy against the student on labels only: {told}. {end} "
        f"{covers}"
    ]


def _number_of_seeds(change: Change) -> str:
    number = len(change.by.seeds)
    return f"{number} seed{'s' if number > 1 else ''}"


def engine_told(numbers: TaskNumbers) -> list[str]:
    """Which engine the tables are from, and how far the page's default engine differs."""
    served = [run for run in numbers.shipped if run.served]
    engines = listed(sorted({run.run.engine for run in numbers.shipped}))
    told = f"The tables are from {engines}."
    if not served:
        return [told]
    names = listed(sorted({run.served.engine for run in served}))
    most = max(run.served.otherwise for run in served)
    farthest = max(run.served.largest for run in served)
    return [
        f"{told[:-1]}; {names}, which the page uses by default where this was measured, answers at "
        f"most {percent(most)}% of a network's test images otherwise, and moves a probability by at "
        f"most {100 * farthest:.1f} points."
    ]


def over_floor_told(run: MeasuredRun, numbers: TaskNumbers) -> list[str]:
    """Of one network: how it stands to the best floor and to the probe."""
    told = []
    if best := numbers.best_floor:
        change = numbers.over_floor(run)
        end = {
            "better": "is better than this floor",
            "worse": "is worse than this floor, so it is no evidence of seeing that",
            "unclear": "is not better beyond doubt, so it is no evidence of seeing that",
        }[verdict(change)]
        told.append(
            f"The best floor, chosen on the validation split, is the {floor_name(best)}, which does "
            f"not see {numbers.task.blind_to}. It is right in {_of(best)} of the same test images; "
            f"this network, with {_of(run)}, {end} (paired difference "
            f"{points(change.accuracy)} points)."
        )
    for probe in numbers.probes:
        change = numbers.over(run, probe)
        told.append(
            f"The {probe.name}, which was not trained for the task, is right in {_of(probe)}; "
            f"against it this network {SAYS[verdict(change)]} (paired difference "
            f"{points(change.accuracy)} points)."
        )
    return told


def _of(measured: Measured) -> str:
    return f"{100 * measured.accuracy.value:.1f}%"


def change_told(run: MeasuredRun, numbers: TaskNumbers) -> str | None:
    """Of one network: what distillation, or a variant of its recipe, changed."""
    change = next((c for c in numbers.changes if c.row.stem == run.row.stem), None)
    return change and (
        f"Against {change.control.name}, in percentage points with paired 95% intervals: accuracy "
        f"{points(change.by.accuracy)}, macro-F1 {points(change.by.macro_f1)} "
        f"({seeds_told(change.by)})."
    )


def audit_of(run: MeasuredRun, numbers: TaskNumbers) -> str | None:
    """Of one network: what the shortcut audit says of these weights."""
    audit = numbers.audit
    wanted = (run.row.name, run.row.sha256)
    models = audit.models if audit else ()
    model = next((m for m in models if (m.name, m.sha256) == wanted), None)
    return model and (
        f"Shortcut audit on {len(audit.images):,} test films with lung masks: this network "
        f"{model_told(model, audit)}"
    )


def told_of(row: Checkpoint, numbers: TaskNumbers | None) -> list[str]:
    """All that is told of a checkpoint in sentences; nothing where its answers are not kept."""
    run = numbers and numbers.find(row)
    if not run:
        return []
    sentences = [
        *over_floor_told(run, numbers),
        audit_of(run, numbers),
        change_told(run, numbers),
    ]
    return [sentence for sentence in sentences if sentence]
