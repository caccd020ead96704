"""What each browser tab is looking at, so that a control redraws without computing anew."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from kdmodels.explain.scorecam import Step
from kdmodels.images.read import CheckedImage
from kdmodels.predict import Prediction
from kdmodels.tasks import Task, get_task
from page.pairs import ROLES, Pair

MOST = 64  # tabs remembered; the one used longest ago is forgotten first


@dataclass
class Study:
    """One comparison: an image, a pair of models, their answers, and their heatmaps so far.

    predictions, evidence, steps: by role; evidence is the class id that a heatmap is for.
    untouched: by role, probabilities of the reduced picture that can be painted over.
    inside: (H, W) bool lung mask of the image, where one is at hand.
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


class Studies:
    """The latest `Study` of each tab, the file that its image came from, and its lung mask."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._studies: OrderedDict[str, Study] = OrderedDict()
        self._sources: OrderedDict[str, str] = OrderedDict()
        self._masks: OrderedDict[str, np.ndarray] = OrderedDict()

    def _put(self, kept: OrderedDict, tab: str, value: object) -> None:
        with self._lock:
            kept[tab] = value
            kept.move_to_end(tab)
            while len(kept) > self.most:
                kept.popitem(last=False)

    def put(self, tab: str | None, study: Study) -> None:
        if tab:  # a script has no tab and no controls
            self._put(self._studies, tab, study)

    def get(self, tab: str | None) -> Study | None:
        with self._lock:
            if tab in self._studies:
                self._studies.move_to_end(tab)
            return self._studies.get(tab)

    def shows(self, tab: str | None, study: Study) -> bool:
        """Whether the tab still shows this comparison, for whatever class's evidence."""
        now = self.get(tab)
        return now is not None and now.checked is study.checked and now.pair is study.pair

    def put_source(self, tab: str | None, path: str) -> None:
        """Remember the uploaded file, whose grey values may be windowed anew; forget its mask."""
        if tab:
            self._put(self._sources, tab, path)
            with self._lock:
                self._masks.pop(tab, None)

    def source(self, tab: str | None) -> str | None:
        return self._sources.get(tab)

    def put_mask(self, tab: str | None, inside: np.ndarray, source: str | None = None) -> None:
        """Keep a lung mask of the tab's file `source`, for the study of now and for later ones.

        Where the tab has another file by now, it is not kept.
        """
        if tab and self.source(tab) == source:
            self._put(self._masks, tab, inside)
            if study := self.get(tab):
                study.inside = inside

    def mask(self, tab: str | None) -> np.ndarray | None:
        return self._masks.get(tab)

    def drop(self, tab: str | None) -> None:
        """Forget the study, not the file: the image or the models have changed."""
        with self._lock:
            self._studies.pop(tab, None)

    def drop_source(self, tab: str | None) -> None:
        """Forget the file and its mask: the image was cleared."""
        with self._lock:
            self._sources.pop(tab, None)
            self._masks.pop(tab, None)

    def leave(self, tab: str | None) -> None:
        """Forget all of a tab that was closed."""
        with self._lock:
            self._studies.pop(tab, None)
            self._sources.pop(tab, None)
            self._masks.pop(tab, None)


STUDIES = Studies()
