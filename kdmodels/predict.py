"""A checkpoint that answers: probabilities of an image, and how long the network took."""

import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kdmodels.engines.base import Engine, Size
from kdmodels.engines.choice import open_engine
from kdmodels.engines.devices import has_cuda
from kdmodels.images.preprocess import to_input
from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.models.zoo import ModelSpec
from kdmodels.tasks import Task, get_task


class FairLock:
    """A lock that whoever gives it up cannot take back before one who waits has had it.

    Python's own lock gives no such promise. The thread next in line holds `_next` while it waits.
    """

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):  # whoever held it is not in the child
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._next = threading.Lock()
        self._lock = threading.Lock()

    def acquire(self) -> None:
        with self._next:
            self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_) -> None:
        self.release()


# Everything that computes holds this lock, so that no measured time includes another's work.
COMPUTE = FairLock()
_OPENING = threading.RLock()  # one network is loaded at a time, and each only once


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass at batch size 1, without decoding and preprocessing.

    median_ms, q1_ms, q3_ms: median and quartiles over `runs` passes, in milliseconds, after one
    pass of warm-up. engine: what ran, in words; threads: on how many CPU threads; note: why it was
    not the engine that was wanted, or None.
    """

    median_ms: float
    q1_ms: float
    q3_ms: float
    runs: int
    engine: str
    threads: int
    note: str | None = None


@dataclass(frozen=True)
class Prediction:
    """What one model says of one image.

    logits, probabilities: K floats in the order of `class_ids`. The logits are as the network gives
    them; the probabilities, which sum to 1, are softmax(logits / T) with the checkpoint's T.
    preprocess_ms: time to turn the checked image into the model's input, in milliseconds.
    """

    model: str
    class_ids: tuple[str, ...]
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    latency: Latency
    preprocess_ms: float

    @property
    def index(self) -> int:
        """Index of the most probable class."""
        return int(np.argmax(self.probabilities))

    @property
    def class_id(self) -> str:
        return self.class_ids[self.index]


@dataclass(frozen=True)
class Classifier:
    """A checkpoint with what is known of its architecture and task, and what runs it.

    source: the torch network in eval mode, or what loads it. kind, precision, threads: of the
    engine, see `open_engine`.
    """

    task: Task
    spec: ModelSpec
    checkpoint: Checkpoint
    source: nn.Module | Callable[[], nn.Module]
    kind: str | None = None
    precision: str | None = None
    threads: int | None = None

    @classmethod
    def load(cls, index: Index, checkpoint: Checkpoint) -> "Classifier":
        """A checkpoint of an index, found and verified; its network is loaded when needed.

        It goes onto the GPU if there is one. Raises `CheckpointError`, which `model` and `engine`
        may also do when the file's contents are not what the index says.
        """
        index.locate(checkpoint)

        def load() -> nn.Module:
            model = index.load(checkpoint)
            return model.cuda() if has_cuda() else model

        return cls(get_task(checkpoint.task), checkpoint.spec, checkpoint, load)

    def _borrow(self) -> nn.Module:
        """The torch network, the same for all who hold it at a time, and kept for none of them."""
        if isinstance(self.source, nn.Module):
            return self.source
        with _OPENING:
            held = self.__dict__.get("_held")
            model = held() if held else None
            if model is None:
                with torch.inference_mode(False):  # weights made in it can take no gradient
                    model = self.source()
                self.__dict__["_held"] = weakref.ref(model)
            return model

    @cached_property
    def model(self) -> nn.Module:
        """The torch network in float32; loaded when first asked for, and then kept."""
        return self._borrow()

    @cached_property
    def engine(self) -> Engine:
        """What runs the network; opened when first asked for, which may mean to compile it."""
        with _OPENING:
            if "engine" in self.__dict__:  # another thread was faster
                return self.__dict__["engine"]
            sha256 = self.checkpoint.sha256 if self.checkpoint else ""
            return open_engine(
                self._borrow, self.spec, sha256, self.kind, self.precision, self.threads
            )

    @property
    def device(self) -> torch.device:
        """Where the torch network is, or will be."""
        if isinstance(self.source, nn.Module):
            return next(self.source.parameters()).device
        return torch.device("cuda" if has_cuda() else "cpu")

    @property
    def size(self) -> Size:
        return self.engine.size

    def prepare(self, image: Image.Image) -> Tensor:
        """RGB image of any size -> (1, 3, S, S) float32 input on the torch network's device."""
        return to_input(image, self.task, self.spec).to(self.device)


def on_equal_terms(*classifiers: Classifier) -> list[Classifier]:
    """The same classifiers with engines of one kind, precision and thread count, all opened.

    Where one of them had to fall back (to torch, or from bf16 to float32), the others follow, so
    that their times can be compared.
    """
    with COMPUTE:
        engines = [c.engine for c in classifiers]
        terms = {
            "kind": "torch" if any(e.kind == "torch" for e in engines) else "openvino",
            "precision": "bf16" if all(e.precision == "bf16" for e in engines) else "float32",
            "threads": min(e.threads for e in engines),
        }
        equal = []
        for classifier, engine in zip(classifiers, engines, strict=True):
            if any(getattr(engine, name) != value for name, value in terms.items()):
                classifier = replace(classifier, **terms)
                _ = classifier.engine
            equal.append(classifier)
        return equal


def _timed(engine: Engine, images: Tensor) -> tuple[Tensor, float]:
    started = time.perf_counter()
    logits = engine(images).logits  # on the CPU, so CUDA has finished
    return logits, (time.perf_counter() - started) * 1000


def time_passes(
    engine: Engine,
    images: Tensor,
    min_runs: int = 10,
    min_ms: float = 50,
    max_ms: float = 1000,
    check: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Latency]:
    """Run an engine on (1, 3, H, W) several times; return its (1, K) logits and the time of a pass.

    One pass of warm-up, then at least `min_runs` and for at least `min_ms`; but once `max_ms` have
    passed, warm-up included, no more than one. check: called before each pass; what it raises ends
    the work.
    """
    check()
    logits, warm_up_ms = _timed(engine, images)
    times: list[float] = []
    while not times or (
        (len(times) < min_runs or sum(times) < min_ms) and warm_up_ms + sum(times) < max_ms
    ):
        check()
        times.append(_timed(engine, images)[1])
    q1, median, q3 = np.percentile(times, (25, 50, 75))
    return logits, Latency(
        median_ms=float(median),
        q1_ms=float(q1),
        q3_ms=float(q3),
        runs=len(times),
        engine=engine.name,
        threads=engine.threads,
        note=engine.note,
    )


def predict(
    classifier: Classifier, image: Image.Image, check: Callable[[], None] = lambda: None
) -> Prediction:
    """Classify a checked RGB image and time the network; waits while another computation runs.

    check: called before each pass; what it raises ends the work.
    """
    with COMPUTE:
        check()
        engine = classifier.engine
        started = time.perf_counter()
        images = classifier.prepare(image)
        preprocess_ms = (time.perf_counter() - started) * 1000
        logits, latency = time_passes(engine, images, check=check)
    logits = logits[0].double()
    return Prediction(
        model=classifier.spec.id,
        class_ids=classifier.task.class_ids,
        logits=tuple(logits.tolist()),
        probabilities=tuple((logits / classifier.checkpoint.temperature).softmax(0).tolist()),
        latency=latency,
        preprocess_ms=preprocess_ms,
    )


def answer(classifier: Classifier, image: Image.Image) -> np.ndarray:
    """(K,) calibrated probabilities of a checked RGB image, by one pass that is not timed."""
    with COMPUTE:
        logits = classifier.engine(classifier.prepare(image)).logits[0].double()
    return (logits / classifier.checkpoint.temperature).softmax(0).numpy()


def warm_up(*classifiers: Classifier) -> None:
    """Run one image through each and then a full batch, so that no request waits for compiling."""
    grey = Image.new("RGB", (64, 64), "grey")
    for classifier in classifiers:
        predict(classifier, grey)
    for classifier in classifiers:
        with COMPUTE:
            engine = classifier.engine
            engine(classifier.prepare(grey).expand(engine.batch, -1, -1, -1), features=True)
