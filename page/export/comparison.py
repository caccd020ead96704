"""What an export holds: both answers, both heatmaps, how they were made; and the same as JSON.

Nothing beside the picture says whose it is: no file name, no DICOM tag. `page.export.drawing` draws it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from PIL import Image

from kdmodels.explain.overlays import COLOURS
from kdmodels.explain.scorecam import VARIANT, Step
from kdmodels.predict import Classifier, Latency, Prediction
from kdmodels.tasks import Task

SCHEMA = "teacher-and-student/comparison"
SCHEMA_VERSION = 1
DISCLAIMER = "For research and teaching only. Not a medical device: no diagnosis, no treatment."
# How the numbers of `Comparison.agreement` are called; others keep the name they come with.
AGREEMENT_NAMES = {
    "correlation": "Correlation of the maps",
    "overlap": "Overlap of the hottest 20%",
    "teacher_lungs": "Teacher's heat in the lungs",
    "student_lungs": "Student's heat in the lungs",
}


@dataclass(frozen=True, eq=False)
class Side:
    """One model's part.

    model: its id. name: as in the paper, with the student's origin. role: "teacher" or "student".
    sha256, file_bytes: of the checkpoint. probabilities: in the order of the task's classes, after
    division of the logits by `calibration`. parameters, macs: counts. evidence: class id that the
    heatmap is for. heatmap: (h, w) float32 in [0, 1], or None where none was made; it is exact when
    all its channels are scored.
    """

    model: str
    name: str
    role: str
    sha256: str
    class_ids: tuple[str, ...]
    probabilities: tuple[float, ...]
    latency: Latency
    parameters: int
    macs: int
    file_bytes: int
    calibration: float = 1.0
    evidence: str | None = None
    heatmap: np.ndarray | None = None
    channels_done: int = 0
    channels_total: int = 0

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        prediction: Prediction,
        evidence: str | None = None,
        step: Step | None = None,
    ) -> "Side":
        """What a classifier said, and its heatmap so far of the evidence for a class."""
        checkpoint = classifier.checkpoint
        return cls(
            model=classifier.spec.id,
            name=checkpoint.name,
            role=classifier.spec.role,
            sha256=checkpoint.sha256,
            class_ids=prediction.class_ids,
            probabilities=prediction.probabilities,
            latency=prediction.latency,
            parameters=classifier.size.parameters,
            macs=classifier.size.macs,
            file_bytes=checkpoint.bytes,
            calibration=checkpoint.temperature,
            evidence=evidence if step else None,
            heatmap=step.heatmap if step else None,
            channels_done=step.done if step else 0,
            channels_total=step.total if step else 0,
        )

    @property
    def index(self) -> int:
        """Index of the most probable class."""
        return int(np.argmax(self.probabilities))

    @property
    def exact(self) -> bool:
        return self.heatmap is not None and self.channels_done == self.channels_total


@dataclass(frozen=True)
class Settings:
    """How the heatmaps are drawn, and the temperature that the softened outputs were shown at.

    inverted: whether the picture is shown with dark and bright exchanged.
    """

    colours: str = COLOURS[0]
    opacity: float = 0.65
    threshold: float = 0.0
    temperature: float = 1.0
    inverted: bool = False


@dataclass(frozen=True, eq=False)
class Comparison:
    """All that an export needs.

    picture: RGB, as it was shown. agreement: numbers by name (`AGREEMENT_NAMES`), NaN where one is
    not defined. made_at: with a time zone. version: of the app. doubts: one sentence each.

    Raises `ValueError` for a picture that is not RGB, a time without a zone, or a side whose
    classes are not those of the task.
    """

    task: Task
    picture: Image.Image
    teacher: Side
    student: Side
    verdict: str
    made_at: datetime
    version: str
    settings: Settings = field(default_factory=Settings)
    agreement: Mapping[str, float] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.picture.mode != "RGB":
            raise ValueError(f"The picture must be RGB, not {self.picture.mode}.")
        if self.made_at.utcoffset() is None:
            raise ValueError("The time of a comparison needs a time zone.")
        for side in self.sides:
            if side.class_ids != self.task.class_ids:
                raise ValueError(f"{side.name} has other classes than the task '{self.task.id}'.")

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.teacher, self.student

    def class_name(self, class_id: str) -> str:
        return self.task.class_names[self.task.class_ids.index(class_id)]


def to_json(comparison: Comparison) -> str:
    """The comparison as JSON text, without the picture.

    schema, schema_version: what this is; the version rises when a key changes its meaning.
    disclaimer, app_version, made_at (ISO 8601 with zone), verdict (one sentence): texts.
    doubts: sentences that stand beside both answers; often none.
    task: id, name, classes (id and name, in the order of the logits).
    image: width, height in pixels.
    settings: colours, opacity, threshold, temperature, inverted.
    agreement: name -> number, null where it is not defined.
    heatmap_method: the variant of Score-CAM.
    teacher, student: model (id), name, checkpoint_sha256, answer (class id), probabilities (class
    id -> share), calibration_temperature;
    latency: median_ms, q1_ms, q3_ms, runs, engine, threads; size: parameters, macs, file_bytes;
    heatmap: null, or class, exact, channels_done, channels_total, values (rows from top to bottom,
    in [0, 1], at the resolution of the network's features).
    """
    task = comparison.task
    content = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "disclaimer": DISCLAIMER,
        "app_version": comparison.version,
        "made_at": comparison.made_at.isoformat(timespec="seconds"),
        "task": {
            "id": task.id,
            "name": task.name,
            "classes": [{"id": c.id, "name": c.name} for c in task.classes],
        },
        "image": {"width": comparison.picture.width, "height": comparison.picture.height},
        "verdict": comparison.verdict,
        "doubts": list(comparison.doubts),
        "settings": {
            "colours": comparison.settings.colours,
            "opacity": comparison.settings.opacity,
            "threshold": comparison.settings.threshold,
            "temperature": comparison.settings.temperature,
            "inverted": comparison.settings.inverted,
        },
        "agreement": {
            name: float(value) if math.isfinite(value) else None
            for name, value in comparison.agreement.items()
        },
        "heatmap_method": VARIANT,
        "teacher": _side(comparison.teacher),
        "student": _side(comparison.student),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _side(side: Side) -> dict:
    # Not the latency's note: it may quote an error of the machine that ran it.
    latency = {
        key: getattr(side.latency, key)
        for key in ("median_ms", "q1_ms", "q3_ms", "runs", "engine", "threads")
    }
    return {
        "model": side.model,
        "name": side.name,
        "checkpoint_sha256": side.sha256,
        "answer": side.class_ids[side.index],
        "probabilities": dict(zip(side.class_ids, side.probabilities, strict=True)),
        "calibration_temperature": side.calibration,
        "latency": latency,
        "size": {
            "parameters": side.parameters,
            "macs": side.macs,
            "file_bytes": side.file_bytes,
        },
        "heatmap": _heatmap(side),
    }


def _heatmap(side: Side) -> dict | None:
    if side.heatmap is None:
        return None
    return {
        "class": side.evidence,
        "exact": side.exact,
        "channels_done": side.channels_done,
        "channels_total": side.channels_total,
        "values": [[round(float(value), 4) for value in row] for row in side.heatmap],
    }
