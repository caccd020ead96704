"""Score-CAM heatmaps: exact, and on the way there.

Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks",
CVPR Workshops 2020. Each channel of the last feature maps masks the image once; the channel counts
by how much the class's raw logit rises over the unmasked image's, through a softmax over channels
(torchcam's variant of the paper's equation 3).

A few well-chosen channels tell most of the others' scores (`kdmodels.explain.surrogate`), so a map that
agrees with the exact one is there after a small part of the passes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdmodels.explain.channels import Channels, MaskedImages, read_channels
from kdmodels.explain.similarity import is_flat, pearson
from kdmodels.explain.surrogate import Belief, Surrogate
from kdmodels.predict import COMPUTE, Classifier

VARIANT = "Score-CAM (softmax over channels of the class logit, as torchcam)"

SETTLED = 0.98  # least estimate and steadiness of a map that hardly changes any more
LEARNED = 0.998  # estimate from which on nothing more is learned from further channels,
MAX_LEARNED = 256  # ... nor when so many are scored
GROWTH = 1.5  # a new map comes when so many times as many channels are scored

# (channels done, channels in all) after every batch of masked images.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Step:
    """A heatmap as far as it is known.

    heatmap: (h, w) float32 in [0, 1] at the resolution of the feature maps; 1 is the hottest
    place. done, total: channels scored, and channels in all. estimate: of the Pearson
    correlation with the exact map, too high where few channels are scored; 1 for the exact map.
    steadiness: measured Pearson correlation with the map before this one; -1 for the first.
    """

    heatmap: np.ndarray
    done: int
    total: int
    estimate: float
    steadiness: float = 1.0

    @property
    def exact(self) -> bool:
        """Whether every channel is scored."""
        return self.done == self.total

    @property
    def settled(self) -> bool:
        """Whether the channels still to be scored will hardly change the map.

        The estimate alone is too sure of itself after few channels, so that the map must also have
        stayed as it was when the last channels were added.
        """
        return min(self.estimate, self.steadiness) >= SETTLED

    @property
    def flat(self) -> bool:
        """Whether nothing was found: no place of the image speaks for the class."""
        return not self.heatmap.any()


class Sketch:
    """What is believed of an unfinished map, and which channels to run next by it.

    batch: channels that are run at a time. A map is `due` when so many are scored.
    """

    def __init__(self, channels: Channels, class_index: int, batch: int) -> None:
        self.channels, self.class_index, self.batch = channels, class_index, batch
        self.surrogate = Surrogate(channels.masks, channels.activations)
        self.estimate = -1.0
        self.belief: Belief | None = None
        self.latest: np.ndarray | None = None
        self.update()

    def update(self) -> None:
        """Learn from the scores so far, and choose what to run until the next map is due."""
        known = self.channels.scored.nonzero()[:, 0]
        self.due = max(
            len(known) + self.batch, math.ceil(len(known) * GROWTH / self.batch) * self.batch
        )
        if self.belief and (self.estimate >= LEARNED or len(known) > MAX_LEARNED):
            self.queue = self.channels.left
            return
        # More are known already where an earlier request for this image was interrupted.
        known = known[:: math.ceil(len(known) / MAX_LEARNED) or 1]
        scores = self.channels.scores(self.class_index)
        self.belief = self.surrogate.believe(known, scores[known])
        if len(known):
            self.estimate = self.surrogate.estimate(self.belief)
        self.queue = self.surrogate.choose(self.due - len(known), self.belief)

    def take(self) -> list[int]:
        """The next batch to run; fewer or none where another request has run them meanwhile."""
        left = self.channels.left
        known = set(left)
        chosen = [run for run in self.queue if run in known] or left
        return chosen[: self.batch]

    def step(self) -> Step:
        """The map by the scores so far and, for the others, by what was last believed of them."""
        scored = self.channels.scored.clone()  # before the scores: another request may add some
        scores = self.channels.scores(self.class_index).double()
        scores = torch.where(scored, scores, self.belief.scores)
        before, self.latest = self.latest, heatmap_of(self.channels, scores)
        steadiness = -1.0 if before is None else _alike(before, self.latest)
        return Step(self.latest, self.channels.done, self.channels.total, self.estimate, steadiness)


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two maps; of flat ones, 1 with another flat one, else 0."""
    if is_flat(a) or is_flat(b):
        return float(is_flat(a) and is_flat(b))
    return pearson(a, b)


def heatmap_of(channels: Channels, scores: Tensor) -> np.ndarray:
    """The map of (R,) scores, known or predicted; all zeros where there is nothing to see."""
    if not channels.finite or not len(scores):
        return np.zeros(channels.grid, np.float32)
    weights = (scores.double() - scores.max()).exp()
    cam = torch.einsum("k,kij->ij", weights, channels.activations.double()).relu().numpy()
    low, high = float(cam.min()), float(cam.max())
    if high - low <= 1e-6 * max(high, 1e-12):
        return np.zeros(channels.grid, np.float32)
    return ((cam - low) / (high - low)).astype(np.float32)


class _Work:
    """Runs the channels of one image in batches. Making it, and `run`, need the lock."""

    def __init__(self, classifier: Classifier, image: Image.Image, class_index: int) -> None:
        self.engine, self.class_index = classifier.engine, class_index
        images = classifier.prepare(image)
        self.channels = read_channels(classifier, images)
        pixels = images[0].to(self.engine.device)
        self.masked = MaskedImages(pixels, self.channels.masks.to(pixels.device))
        # All heat of an image of one colour would come from the edges, which the network pads.
        self.one_colour = bool((pixels.amax((1, 2)) == pixels.amin((1, 2))).all())

    @property
    def left(self) -> list[int]:
        """The channels to be run."""
        return [] if self.one_colour else self.channels.left

    def run(self, runs: list[int]) -> None:
        if runs:  # else another request for the same image was faster
            self.channels.record(runs, self.engine(self.masked(runs)).logits)

    def finished(self) -> Step:
        """The exact map."""
        if self.one_colour:
            total = self.channels.total
            return Step(np.zeros(self.channels.grid, np.float32), total, total, 1.0)
        heatmap = heatmap_of(self.channels, self.channels.scores(self.class_index))
        return Step(heatmap, self.channels.done, self.channels.total, 1.0)


def _class_index(classifier: Classifier, class_id: str) -> int:
    if class_id not in classifier.task.class_ids:
        known = ", ".join(classifier.task.class_ids)
        raise ValueError(f"There is no class '{class_id}'; the classes are: {known}.")
    return classifier.task.class_ids.index(class_id)


def explain_progressively(
    classifier: Classifier,
    image: Image.Image,
    class_id: str,
    report: Progress = lambda done, total: None,
) -> Iterator[Step]:
    """Heatmaps of the evidence for `class_id` in a checked RGB image, from rough to exact.

    The first comes after one batch, each further one after half as many channels again, the last
    when all are scored. Whoever has seen enough closes the iterator, or takes no more from it.

    `report` is called after each batch; an exception that it raises cancels the work, and so does
    closing the iterator. Between batches others may compute. What was scored is kept for a while,
    for every class. Raises `ValueError` for an unknown class, at once.
    """
    index = _class_index(classifier, class_id)
    return _steps(classifier, image, index, report)


def _steps(
    classifier: Classifier,
    image: Image.Image,
    class_index: int,
    report: Progress,
) -> Iterator[Step]:
    with COMPUTE, torch.inference_mode():
        work = _Work(classifier, image, class_index)
        channels = work.channels
        sketch = Sketch(channels, class_index, work.engine.batch) if work.left else None
    report(channels.done, channels.total)
    while work.left:
        with COMPUTE, torch.inference_mode():
            work.run(sketch.take())
            due = bool(work.left) and int(channels.scored.sum()) >= sketch.due
            if due:
                sketch.update()
        report(channels.done, channels.total)
        if due:
            yield sketch.step()
    yield work.finished()


def explain(
    classifier: Classifier,
    image: Image.Image,
    class_id: str,
    report: Progress = lambda done, total: None,
) -> np.ndarray:
    """The exact heatmap of the evidence for `class_id`: (h, w) float32 in [0, 1].

    That is the last of `explain_progressively`, without the work that the earlier ones take.
    """
    index = _class_index(classifier, class_id)
    with COMPUTE, torch.inference_mode():
        work = _Work(classifier, image, index)
    report(work.channels.done, work.channels.total)
    while work.left:
        with COMPUTE, torch.inference_mode():
            work.run(work.left[: work.engine.batch])
        report(work.channels.done, work.channels.total)
    return work.finished().heatmap
