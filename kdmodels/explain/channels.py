"""The channels that Score-CAM weighs: their masks, the masked images, and the scores so far.

The scores of an image are kept for a while, for all classes at once, so that asking again, or for
another class's evidence, or going on after an interruption, runs no channel twice.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdmodels.predict import Classifier

KEPT_BYTES = 64_000_000  # of all images in `KEPT` together


def unit_masks(features: Tensor) -> Tensor:
    """(C, h, w) activations -> masks in [0, 1], as torchcam scales them; a flat one is all zeros."""
    masks = features - features.amin((1, 2), keepdim=True)
    return masks / (masks.amax((1, 2), keepdim=True) + 1e-8)


def _linear(cells: int, pixels: int) -> Tensor:
    """(cells, pixels) weights of linear interpolation, without aligned corners."""
    return F.interpolate(torch.eye(cells)[None], pixels, mode="linear", align_corners=False)[0]


class MaskedImages:
    """Makes masked copies of an image, in a buffer that is used again for the next batch.

    image: (3, S, S). masks: (R, h, w), on the image's device.
    """

    def __init__(self, image: Tensor, masks: Tensor) -> None:
        self.image, self.masks = image.contiguous(), masks
        self.buffer = image.new_empty(0, *image.shape)
        # Bilinear enlargement as two matrix products, a few times as fast as `interpolate`.
        self.rows = _linear(masks.shape[1], image.shape[1]).T.to(image.device)
        self.columns = _linear(masks.shape[2], image.shape[2]).to(image.device)

    def __call__(self, runs: list[int]) -> Tensor:
        """(N, 3, S, S): the image times N of the masks, enlarged bilinearly."""
        if len(self.buffer) < len(runs):
            self.buffer = self.image.new_empty(len(runs), *self.image.shape)
        masks = self.rows @ self.masks[runs] @ self.columns
        return torch.mul(masks.unsqueeze(1), self.image, out=self.buffer[: len(runs)])


class Channels:
    """The channels of one image in one network, and the logits of those that were run.

    features: (C, h, w) float32 on the CPU. baseline: (K,) logits of the image itself.

    Flat channels have no mask: each gives a black image and thus the same score, so one stands for
    all; none where they are zero, and so are no part of a map. `runs`: (R,) the channels to be run,
    and counts: (R,) how many channels each stands for. masks, activations: (R, h, w) theirs, the
    activation of the one that stands for all flat ones being their sum, so that a sum over the R is
    one over the C. logits: (R, K) of the masked images; scored: (R,) bool, which of them are known.
    finite: whether the network has given nothing but numbers so far.
    """

    def __init__(self, features: Tensor, baseline: Tensor) -> None:
        self.baseline, self.total, self.grid = baseline, len(features), features.shape[1:]
        self.finite = bool(features.isfinite().all() and baseline.isfinite().all())
        masks = unit_masks(features)
        flat = masks.amax((1, 2)) == 0
        runs, for_all = (~flat).nonzero()[:, 0], flat.nonzero()[:1, 0]
        together = features[flat].sum(0, keepdim=True)
        if not together.any():  # the flat ones are zero and change no map
            for_all, together = for_all[:0], together[:0]
        self.runs = torch.cat([runs, for_all])
        self.counts = torch.ones(len(self.runs), dtype=torch.long)
        self.counts[len(runs) :] = flat.sum()
        self.masks = masks[self.runs]
        self.activations = torch.cat([features[runs], together])
        self.logits = baseline.new_zeros(len(self.runs), len(baseline))
        self.scored = torch.zeros(len(self.runs), dtype=torch.bool)

    @property
    def done(self) -> int:
        """How many of the `total` channels have a score or need none."""
        return self.total - int(self.counts[~self.scored].sum()) if self.finite else self.total

    @property
    def left(self) -> list[int]:
        """The channels still to be run; none where a network gives anything but numbers."""
        return (~self.scored).nonzero()[:, 0].tolist() if self.finite else []

    def record(self, runs: list[int], logits: Tensor) -> None:
        """Note the (N, K) logits of N of the runs."""
        self.logits[runs] = logits
        self.scored[runs] = True
        self.finite &= bool(logits.isfinite().all())

    def scores(self, class_index: int) -> Tensor:
        """(R,) rises of the class's logit over the unmasked image's; of no meaning if not scored."""
        return self.logits[:, class_index] - self.baseline[class_index]

    @property
    def bytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, Tensor))


class Kept:
    """The most recently used `Channels`, as many as fit into `limit` bytes."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self.limit = limit
        self._entries: OrderedDict[Hashable, Channels] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Channels | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Hashable, channels: Channels) -> None:
        with self._lock:
            self._entries[key] = channels
            self._entries.move_to_end(key)
            while sum(entry.bytes for entry in self._entries.values()) > self.limit:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


KEPT = Kept()


def read_channels(classifier: Classifier, images: Tensor) -> Channels:
    """The channels of a (1, 3, S, S) input: those kept from earlier, else from one pass."""
    sha256 = classifier.checkpoint.sha256 if classifier.checkpoint else ""
    engine = classifier.engine
    pixels = hashlib.blake2b(images.cpu().contiguous().numpy(), digest_size=16).digest()
    key = (sha256, engine.kind, engine.precision, tuple(images.shape), pixels)
    channels = KEPT.get(key) if sha256 else None
    if channels is None:
        out = engine(images, features=True)
        channels = Channels(out.features[0].float().cpu(), out.logits[0])
        if sha256:
            KEPT.put(key, channels)
    return channels
