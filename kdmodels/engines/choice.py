"""Opening an engine: OpenVINO on a CPU, torch on CUDA, and torch where OpenVINO cannot be opened."""

import logging
from collections.abc import Callable

from torch import nn

from kdmodels.engines.base import (
    Engine,
    EngineError,
    Precision,
    checked_precision,
    wanted_engine,
)
from kdmodels.engines.devices import has_cuda
from kdmodels.engines.openvino import OpenVINOEngine
from kdmodels.engines.pytorch import TorchEngine
from kdmodels.models.zoo import ModelSpec

log = logging.getLogger(__name__)


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

    Where OpenVINO cannot be opened, torch takes over and `note` says why. Raises `EngineError` for an unknown kind or precision, or when torch fails too.
    """
    kind = wanted_engine(kind) or ("torch" if has_cuda() else "openvino")
    wanted: Precision | None = checked_precision(precision) if precision else None
    load = (lambda: model) if isinstance(model, nn.Module) else model

    def open_torch(note: str | None = None) -> Engine:
        return TorchEngine(load(), spec, wanted or "float32", threads, note)

    if kind == "torch":
        return open_torch()
    try:
        return OpenVINOEngine(load, spec, checkpoint, wanted, threads)
    except EngineError as error:
        log.warning("%s PyTorch takes over.", error)
        return open_torch(f"{str(error).rstrip('.')}, so PyTorch took over.")
