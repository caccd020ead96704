"""A made-up audit whose every number is given, for tests of its words, tables and figure."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from kdmodels.tasks import get_task
from train.data.blanking import VERSIONS, WHOLE
from train.measure.audit_numbers import Audited, SwapNumbers
from train.measure.measured import Within
from train.measure.resampling import Estimate

MAJORITY = 0.5
NOTE = "Left out: Non-COVID pneumonia, with masks for 3 films, fewer than 10."
TASK = get_task("cxr").model_copy(
    update={"classes": tuple(c for c in get_task("cxr").classes if c.id != "pneumonia")}
)


def estimate(value: float, half: float = 0.05) -> Estimate:
    return Estimate(value, round(value - half, 4), round(value + half, 4))


def version(accuracy: float) -> SimpleNamespace:
    """What the audit's tables read of a `Measured`."""
    within = Within("hospital", 44, (0, 1), 0.75, estimate(accuracy - 0.2), estimate(0.4))
    return SimpleNamespace(
        accuracy=estimate(accuracy),
        macro_f1=estimate(accuracy - 0.1),
        auroc=0.8125,
        classes={
            "covid": {"sensitivity": estimate(0.31)},
            "normal": {"sensitivity": estimate(0.32)},
        },
        within_sources=[within],
    )


@dataclass(frozen=True)
class MadeAudited(Audited):
    """With given changes, where an `Audited` computes them from answers."""

    changes: dict[str, Estimate] = field(
        default_factory=lambda: dict.fromkeys(VERSIONS, estimate(-0.125))
    )

    def unchanged(self, version: str) -> float:
        return 0.625


def swap(box: float, around: float) -> SwapNumbers:
    shares = (box, around, 0.04, around - 0.04)
    return SwapNumbers(60, *(estimate(share, 0.02) for share in shares))


def model(
    name="VGG19", role="teacher", swaps=(0.9, (0.7, 0.05), (0.65, 0.06)), **accuracies
) -> MadeAudited:
    """swaps: right within the class; (as the box, as the surroundings) of the two other swaps."""
    control, other, within = swaps
    values = {WHOLE: 0.9, "crop": 0.85, "no_lungs": 0.5, "no_box": 0.5, "lungs_only": 0.5}
    values |= {"lungs_outline": 0.3, "box_outline": 0.2} | accuracies
    grey = {"no_lungs": 0.41, "no_box": 0.42, "lungs_only": 0.43}
    black = {"no_lungs": 0.44, "no_box": 0.45, "lungs_only": 0.46}
    same = replace(swap(control, control), surroundings=estimate(control))
    return MadeAudited(
        name,
        role,
        {key: version(value) for key, value in values.items()},
        sha256="ab" * 32,
        fills={
            fill: {name: version(value) for name, value in found.items()}
            for fill, found in (("grey", grey), ("black", black))
        },
        swaps={"same": same, "other": swap(*other), "within": swap(*within)},
    )


def forest(accuracy: float, **others: float) -> MadeAudited:
    values = dict.fromkeys(VERSIONS, accuracy) | others
    name = "random forest, trained on each version"
    return MadeAudited(name, "forest", {key: version(value) for key, value in values.items()})


def audit(*models: Audited, forest: Audited | None = None) -> SimpleNamespace:
    """What words, tables and figure read of an `AuditNumbers`."""
    return SimpleNamespace(
        task=TASK,
        images=range(60),
        groups=41,
        counts={"covid": 30, "normal": 30},
        notes=(NOTE,),
        majority=MAJORITY,
        source_majority=0.7083,
        models=models,
        forest=forest,
        rows=(*models, forest) if forest else models,
    )
