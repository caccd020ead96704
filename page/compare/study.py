"""What the Compare tab keeps of a browser tab, so that a control redraws without computing anew."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from kdmodels.explain import Step
from kdmodels.images import CheckedImage
from kdmodels.predict import Prediction
from kdmodels.tasks import Task, get_task
from page.pairs import ROLES, Pair
from page.sessions import Session


@dataclass
class Study:
    """One comparison: an image, a pair of models, their answers, and their heatmaps so far.

    predictions, evidence, steps: by role; evidence is the class id that a heatmap is for.
    untouched: by role, probabilities of the reduced picture that can be painted over.
    inside: (H, W) bool lung mask of the image, where one is at hand. doubts: sentences that stand
    beside the answers.
    """

    checked: CheckedImage
    task_id: str
    teacher: str
    pair: Pair
    decode_ms: float
    predictions: dict[str, Prediction] = field(default_factory=dict)
    evidence: dict[str, str] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    untouched: dict[str, np.ndarray] = field(default_factory=dict)
    inside: np.ndarray | None = None
    doubts: tuple[str, ...] = ()
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def task(self) -> Task:
        return get_task(self.task_id)

    @property
    def answered(self) -> bool:
        """Whether both models have answered."""
        return len(self.predictions) == len(ROLES)

    @property
    def explained(self) -> bool:
        """Whether both models have a heatmap, however rough."""
        return len(self.steps) == len(ROLES)


class Upload(NamedTuple):
    """The file on the page, whose grey values may be windowed anew.

    inside: (H, W) bool lung mask of its image, once one was chosen. notes: those of `CheckedImage`;
    the page itself holds the checked picture, which has none.
    """

    path: str
    inside: np.ndarray | None = None
    notes: tuple[str, ...] = ()


class View(NamedTuple):
    """Which view of the heatmaps is open: one of `page.compare.looks.VIEWS`."""

    name: str


class Wish(NamedTuple):
    """Evidence and exactness that were chosen before the answers came."""

    evidence: str
    exact: bool


def shows(session: Session, study: Study) -> bool:
    """Whether the tab still shows this comparison, for whatever class's evidence."""
    now = session.get(Study)
    return now is not None and now.checked is study.checked and now.pair is study.pair


def keep_mask(session: Session, inside: np.ndarray, upload: Upload | None) -> None:
    """Keep a lung mask of the upload's image, for the study of now and for later ones.

    Where another file is on the page by now, it is not kept.
    """
    with session.lock:
        now = session.get(Upload)
        if upload is None or now is None or now.path != upload.path:
            return
        session.keep(now._replace(inside=inside))
        if study := session.get(Study):
            study.inside = inside
