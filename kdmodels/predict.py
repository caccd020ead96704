"""A checkpoint that answers: probabilities of an image, and how long the network took."""

import threading
import time
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kdmodels.checkpoints import Checkpoint, Index
from kdmodels.preprocess import to_input
from kdmodels.tasks import Task, get_task
from kdmodels.zoo import ModelSpec, count_parameters


class FairLock:
    """A lock that whoever gives it up cannot take back before one who waits has had it.

    Python's own lock gives no such promise. The thread next in line holds `_next` while it waits.
    """

    def __init__(self) -> None:
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


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass at batch size 1, without decoding and preprocessing.

    median_ms, q1_ms, q3_ms: median and quartiles over `runs` passes, in milliseconds, after one
    pass of warm-up. engine: what ran, in words; threads: on how many CPU threads.
    """

    median_ms: float
    q1_ms: float
    q3_ms: float
    runs: int
    engine: str
    threads: int


@dataclass(frozen=True)
class Prediction:
    """What one model says of one image.

    logits, probabilities: K floats in the order of `class_ids`; probabilities sum to 1.
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
    """A loaded checkpoint with what is known of its architecture and task."""

    task: Task
    spec: ModelSpec
    checkpoint: Checkpoint
    model: nn.Module

    @classmethod
    def load(cls, index: Index, checkpoint: Checkpoint) -> "Classifier":
        """Load a checkpoint of an index onto the GPU if there is one. Raises `CheckpointError`."""
        model = index.load(checkpoint)
        if torch.cuda.is_available():
            model = model.cuda()
        return cls(get_task(checkpoint.task), checkpoint.spec, checkpoint, model)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def parameters(self) -> int:
        return count_parameters(self.model)

    def prepare(self, image: Image.Image) -> Tensor:
        """RGB image of any size -> (1, 3, S, S) float32 input on the model's device."""
        return to_input(image, self.task, self.spec).to(self.device)


def engine_name(device: torch.device) -> str:
    """What runs a model on `device`, in words."""
    version = torch.__version__.split("+")[0]
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"PyTorch {version} eager, float32, {kind}"


def _timed(model: nn.Module, images: Tensor) -> tuple[Tensor, float]:
    started = time.perf_counter()
    logits = model(images)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return logits, (time.perf_counter() - started) * 1000


@torch.inference_mode()
def measure(
    model: nn.Module, images: Tensor, min_runs: int = 3, max_runs: int = 10, budget_ms: float = 500
) -> tuple[Tensor, Latency]:
    """Run a model on (1, 3, H, W) several times; return its (1, K) logits and the time of a pass.

    One warm-up pass, then at least `min_runs`, and up to `max_runs` within `budget_ms`.
    """
    logits, _ = _timed(model, images)
    times: list[float] = []
    while len(times) < min_runs or (len(times) < max_runs and sum(times) < budget_ms):
        times.append(_timed(model, images)[1])
    q1, median, q3 = np.percentile(times, (25, 50, 75))
    return logits, Latency(
        median_ms=float(median),
        q1_ms=float(q1),
        q3_ms=float(q3),
        runs=len(times),
        engine=engine_name(images.device),
        threads=torch.get_num_threads(),
    )


def predict(classifier: Classifier, image: Image.Image) -> Prediction:
    """Classify a checked RGB image and time the network; waits while another computation runs."""
    with COMPUTE:
        started = time.perf_counter()
        images = classifier.prepare(image)
        preprocess_ms = (time.perf_counter() - started) * 1000
        logits, latency = measure(classifier.model, images)
    logits = logits[0].double().cpu()
    return Prediction(
        model=classifier.spec.id,
        class_ids=classifier.task.class_ids,
        logits=tuple(logits.tolist()),
        probabilities=tuple(logits.softmax(0).tolist()),
        latency=latency,
        preprocess_ms=preprocess_ms,
    )
