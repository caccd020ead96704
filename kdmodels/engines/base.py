"""What an engine is: it runs a network on a batch and gives logits and features in one pass."""

import os
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

BATCH = 8  # images in one go; more gain little on a CPU and keep others waiting longer

Precision = Literal["float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")


class EngineError(Exception):
    """An engine that cannot be opened, or a pass that failed; the message says why."""


class MemoryShortage(EngineError):
    """Memory does not suffice for even one image."""


@dataclass(frozen=True)
class Outputs:
    """Result of one pass over N images.

    logits: (N, K) float32 on the CPU. features: (N, C, h, w) float32, the output of the Score-CAM
    layer in the order that `ModelSpec.cam_reshape` gives it, on the engine's device; None unless
    asked for.
    """

    logits: Tensor
    features: Tensor | None = None


@dataclass(frozen=True)
class Size:
    """Parameters of a network, and multiply-accumulate operations of a pass on one image."""

    parameters: int
    macs: int


def default_threads() -> int:
    """CPU threads to compute with: physical cores that this process may use, as torch counts them.

    A container's share of the processor (cgroup), the affinity mask and OMP_NUM_THREADS count.
    """
    from joblib import cpu_count

    return max(1, min(torch.get_num_threads(), cpu_count(only_physical_cores=True)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, of OpenVINO or of Python means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError | OSError):
        return False
    said = str(error).lower()
    return any(
        words in said
        for words in (
            "bad_alloc",
            "can't allocate memory",
            "cannot allocate memory",
            "failed to allocate",
            "not enough memory",
            "out of memory",
            "could not create a memory",  # oneDNN
        )
    )


def gist(error: BaseException) -> str:
    """What an error says, short enough for a sentence; its kind where it says nothing."""
    lines = [line.strip(" -.:") for line in str(error).splitlines()]
    places = ("Exception from", "Check '", "FrontEnd API failed")  # where, not what
    told = [line for line in lines if line and not line.startswith(places)]
    chosen = next((line for line in told if line.startswith("No conversion rule")), None)
    text = chosen or (told[0] if told else type(error).__name__)
    return text if len(text) <= 200 else text[:199] + "…"


class Engine(ABC):
    """Runs one network. Calls from several threads are answered one after the other.

    kind: `torch` or `openvino`. name: in words, with version, precision and device. precision:
    `float32` or `bf16`, of the arithmetic; inputs and outputs are float32. threads: on how many
    CPU threads. device: where features come back, and where inputs are best made. batch: how many
    images go through the network at once; it shrinks when memory runs out. note: one sentence when
    this is not the engine that was wanted, else None. remedy: what a user may do where it fails.
    """

    kind: str
    name: str
    precision: Precision
    threads: int
    device: torch.device = torch.device("cpu")
    batch: int = BATCH
    note: str | None = None
    remedy: str = "start again, and see whether it happens with another image"

    def __init__(self) -> None:
        self._turn = threading.Lock()

    @abstractmethod
    def _run(self, images: Tensor, features: bool) -> Outputs:
        """One pass over at most `batch` images."""

    @property
    @abstractmethod
    def size(self) -> Size:
        """How large the network is and how much a pass takes."""

    def _failure(self, error: Exception) -> EngineError:
        """What is told of a pass that failed, in one sentence."""
        told = f"{self.name} failed while running ({gist(error)})"
        if isinstance(error, EngineError):  # a sentence already
            told = str(error).rstrip(".")
        return EngineError(f"{told}; {self.remedy}.")

    def _shrink(self, images: int) -> None:
        """Memory did not suffice for so many images at once: take at most half from now on."""
        self.batch = max(1, images // 2)

    def __call__(self, images: Tensor, features: bool = False) -> Outputs:
        """Run (N, 3, S, S) float32 normalised images, N >= 1, of the size that the network takes.

        Raises `ValueError` for another shape, `MemoryShortage` when memory suffices for not even
        one image, and `EngineError` when the engine fails.
        """
        if images.ndim != 4 or len(images) == 0 or images.shape[1] != 3:
            raise ValueError(f"Images must be (N, 3, S, S) with N >= 1, not {tuple(images.shape)}.")
        parts: list[Outputs] = []
        done = 0
        while done < len(images):
            part = images[done : done + self.batch]
            try:
                with self._turn:
                    parts.append(self._run(part, features))
            except Exception as error:
                if isinstance(error, ValueError):  # a mistake of the caller's
                    raise
                if not is_out_of_memory(error):
                    raise self._failure(error) from error
                if len(part) == 1:
                    raise MemoryShortage(
                        f"There is not enough memory to run {self.name} on one image: close other "
                        "programs and try again."
                    ) from error
                self._shrink(len(part))
                continue
            done += len(part)
        if len(parts) == 1:
            return parts[0]
        return Outputs(
            torch.cat([part.logits for part in parts]),
            torch.cat([part.features for part in parts]) if features else None,
        )


def checked_precision(precision: str) -> Precision:
    """Raises `EngineError` for what is not a precision."""
    if precision not in PRECISIONS:
        raise EngineError(f"There is no precision '{precision}': choose float32 or bf16.")
    return precision


def wanted_engine(kind: str | None) -> str | None:
    """The engine asked for: by name, else by KD_ENGINE; None: by what the machine has.

    Raises `EngineError` for an unknown name.
    """
    kind = kind or os.environ.get("KD_ENGINE") or None
    if kind not in (None, "torch", "openvino"):
        raise EngineError(f"There is no engine '{kind}': set KD_ENGINE to torch or openvino.")
    return kind
