"""Opening an engine: OpenVINO on a CPU, torch on CUDA, and torch wherever OpenVINO fails."""

import logging
from collections.abc import Callable

from torch import Tensor, nn

from kdmodels.engines.base import (
    Engine,
    EngineError,
    MemoryShortage,
    Outputs,
    Precision,
    Size,
    checked_precision,
    wanted_engine,
)
from kdmodels.engines.devices import has_cuda
from kdmodels.engines.openvino import OpenVINOEngine, gist
from kdmodels.engines.pytorch import TorchEngine
from kdmodels.models.zoo import ModelSpec

__all__ = ["Engine", "EngineError", "Outputs", "Size", "open_engine"]

log = logging.getLogger(__name__)


class GuardedEngine(Engine):
    """An engine until it fails, then torch in its place; what it says of itself follows."""

    def __init__(self, engine: Engine, open_torch: Callable[[str], Engine]) -> None:
        super().__init__()
        self.current, self._open_torch = engine, open_torch

    kind = property(lambda self: self.current.kind)
    name = property(lambda self: self.current.name)
    precision = property(lambda self: self.current.precision)
    threads = property(lambda self: self.current.threads)
    device = property(lambda self: self.current.device)
    batch = property(lambda self: self.current.batch)
    note = property(lambda self: self.current.note)
    size = property(lambda self: self.current.size)

    def _run(self, images: Tensor, features: bool) -> Outputs:
        return self.current(images, features)

    def __call__(self, images: Tensor, features: bool = False) -> Outputs:
        try:
            return self.current(images, features)
        except (ValueError, MemoryShortage):  # of the caller; torch needs more memory still
            raise
        except Exception as error:
            if self.kind == "torch":
                raise
            if not isinstance(error, EngineError):
                error = EngineError(f"OpenVINO failed while running ({gist(error)}).")
            note = _instead(error)
            log.warning("%s", note)
            with self._turn:
                if self.current.kind != "torch":
                    self.current = self._open_torch(note)
            return self.current(images, features)


def _instead(error: EngineError) -> str:
    return f"{str(error).rstrip('.')}, so PyTorch took over."


def open_engine(
    model: nn.Module | Callable[[], nn.Module],
    spec: ModelSpec,
    checkpoint: str = "",
    kind: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> Engine:
    """The engine for a network on this machine.

    model: a module in eval mode, or what loads one: OpenVINO loads it only to compile, and lets it
    go again. checkpoint: sha256 of its weights, the key under which compiled networks are kept on
    disk; empty: none are kept. kind: `torch` or `openvino`; None: $KD_ENGINE, else torch with
    CUDA and OpenVINO without. precision: `float32` or `bf16`; None: float32 for torch, what suits
    the processor for OpenVINO. threads: CPU threads; None: the physical cores at hand.

    Where OpenVINO is missing or fails, now or in a later pass, torch takes over and `note` says
    why. Raises `EngineError` for an unknown kind or precision, or when torch fails too.
    """
    kind = wanted_engine(kind) or ("torch" if has_cuda() else "openvino")
    wanted: Precision | None = checked_precision(precision) if precision else None
    load = (lambda: model) if isinstance(model, nn.Module) else model

    def open_torch(note: str | None = None) -> Engine:
        return TorchEngine(load(), spec, wanted or "float32", threads, note)

    if kind == "torch":
        return open_torch()
    try:
        engine = OpenVINOEngine(load, spec, checkpoint, wanted, threads)
    except EngineError as error:
        log.warning("%s PyTorch takes over.", error)
        return open_torch(_instead(error))
    return GuardedEngine(engine, open_torch)
