"""OpenVINO on the CPU: converts a torch network once, compiles it, and keeps the result on disk.

The network is compiled for one image and for a full batch, each when first needed, because fixed
shapes run faster than a batch left open (by a fifth to a third for OFA-595).
"""

import copy
import gc
import io
import logging
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdmodels import __version__
from kdmodels.cache import cache_folder
from kdmodels.engines.base import (
    Engine,
    EngineError,
    Outputs,
    Precision,
    Size,
    default_threads,
    gist,
    is_out_of_memory,
)
from kdmodels.engines.blobs import BlobCache
from kdmodels.engines.machine import cpu_name
from kdmodels.engines.pytorch import network_size
from kdmodels.models.classmaps import tapped
from kdmodels.models.zoo import ModelSpec

log = logging.getLogger(__name__)

FORMAT = 1  # of a cache entry; raise it when what is compiled changes
HINTS: dict[Precision, str] = {"float32": "f32", "bf16": "bf16"}

# How far a compiled network may be from torch in float32 on two images of noise: probabilities,
# and features relative to the largest. Far above rounding; it finds kernels that are wrong.
MAX_CHANGE: dict[Precision, tuple[float, float]] = {"float32": (1e-3, 1e-3), "bf16": (0.05, 0.1)}


class Disagreement(EngineError):
    """The compiled network does not answer as the torch network does."""


def import_openvino() -> ModuleType:
    """OpenVINO, which otherwise reports each import over the network by a package of its own."""
    sys.modules.setdefault("openvino_telemetry", None)  # importing it now raises ImportError
    import openvino

    return openvino


def native_precision(core: Any) -> Precision:
    """bf16 where OpenVINO would choose it for this processor by itself, else float32."""
    ov = import_openvino()
    chosen = core.get_property("CPU", "INFERENCE_PRECISION_HINT")
    return "bf16" if chosen == ov.Type.bf16 else "float32"


def processor(core: Any) -> str:
    """The processor with all that a compiled network may depend on."""
    abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    flags = sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True)
    return " ".join([cpu_name(), *abilities, *flags])


class _WithFeatures(nn.Module):
    """(N, 3, S, S) images -> (logits, features of the Score-CAM layer)."""

    def __init__(self, model: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.model, self.spec = model, spec

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with tapped(self.model, self.spec) as record:
            logits = self.model(images)
        return logits, record["features"]


def convert(model: nn.Module, spec: ModelSpec, by_export: bool | None = None) -> Any:
    """An `openvino.Model` of a module, with open batch: input images, outputs logits and features.

    by_export: through `torch.export` instead of `torch.jit.trace`, which is several times as quick
    but is not supported from Python 3.14 on; None: by the version of Python.
    """
    ov = import_openvino()
    if by_export is None:
        by_export = sys.version_info >= (3, 14)
    if next(model.parameters()).device.type != "cpu":
        model = copy.deepcopy(model).cpu()
    network = _WithFeatures(model, spec).eval()
    side = spec.input_size
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: deprecation, shapes taken as constants
        if by_export:
            batch = {0: torch.export.Dim.AUTO}
            images = torch.zeros(2, 3, side, side)  # a batch of 1 would be taken as a constant
            return ov.convert_model(
                torch.export.export(network, (images,), dynamic_shapes=(batch,))
            )
        return ov.convert_model(
            network,
            example_input=torch.zeros(1, 3, side, side),
            input=[ov.PartialShape([-1, 3, side, side])],
        )


class OpenVINOEngine(Engine):
    """Runs a network by OpenVINO.

    load: gives the torch network in eval mode, in float32; called only when there is something to
    compile, and its result is not kept. sha256: of the checkpoint, for the cache; empty: nothing
    is cached. precision: None for what suits the processor; `precision` says what it came to, and
    `note` why, where bf16 was given up because it moved the answers.
    Raises `EngineError` when OpenVINO is missing or cannot compile the network.
    """

    kind = "openvino"
    remedy = "set KD_ENGINE=torch and start again to go on with PyTorch"

    def __init__(
        self,
        load: Callable[[], nn.Module],
        spec: ModelSpec,
        sha256: str,
        precision: Precision | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        self.spec, self._load = spec, load
        self.threads = threads or default_threads()
        try:
            self._ov = import_openvino()
            self._core = self._ov.Core()
            self._native = native_precision(self._core)
        except Exception as error:  # a missing or broken installation has many faces
            raise EngineError(f"OpenVINO cannot be used ({gist(error)}).") from error
        self.precision = precision or self._native
        self._cache = BlobCache(cache_folder() if sha256 else None)
        self._key = {
            "format": FORMAT,
            "checkpoint": sha256,
            "model": spec.id,
            "input_size": spec.input_size,
            "layer": spec.cam_layer,
            "wanted": self.precision,
            "package": __version__,
            "openvino": self._ov.get_version(),
            "torch": torch.__version__,
            "processor": processor(self._core),
        }
        self._converted: Any = None  # the network before it was compiled for a batch
        self._about: dict = {}
        self._requests: dict[int, Any] = {}
        try:
            self._request(1)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise EngineError(
                f"There is not enough memory to compile {spec.paper_name} for OpenVINO."
            ) from error

    @property
    def name(self) -> str:  # the precision may have become another one
        version = self._ov.get_version().split("-")[0]
        return f"OpenVINO {version}, {self.precision}, CPU"

    @property
    def size(self) -> Size:
        return Size(self._about["parameters"], self._about["macs"])

    def _request(self, batch: int) -> Any:
        """What runs exactly `batch` images; taken from the cache or compiled when first needed."""
        if batch not in self._requests:
            try:
                compiled = self._from_cache(batch) or self._compile(batch)
                self._requests[batch] = compiled.create_infer_request()
            except EngineError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise EngineError(
                    f"OpenVINO cannot compile {self.spec.paper_name} ({gist(error)})."
                ) from error
        return self._requests[batch]

    def _config(self) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the cores are shared with the page and other programs
        }

    def _tell(self, about: dict) -> None:
        self._about = about
        self.precision, self.note = about["precision"], about["note"]

    def _from_cache(self, batch: int) -> Any:
        key = self._key | {"batch": batch}
        found = self._cache.get(key)
        if found is None:
            return None
        blob, about = found
        before = self._about, self.precision, self.note
        try:
            self._tell(about)
            return self._core.import_model(self._ov.Tensor(blob), "CPU", self._config())
        except Exception as error:
            if is_out_of_memory(error):
                raise
            log.info("A cached network is compiled again (%s).", gist(error))
            self._cache.remove(key)
            # Nothing of a refused entry is kept, so that what replaces a first one is checked.
            self._about, self.precision, self.note = before
            return None

    def _compile(self, batch: int) -> Any:
        model = None
        if self._converted is None:
            model = self._load()
            self._converted = convert(model, self.spec)
        if self._about:
            compiled = self._shaped(batch)
            self._converted = None  # holds the weights; a full batch is the last that is needed
        else:
            compiled = self._settle(model)
        if self._key["checkpoint"]:
            stream = io.BytesIO()
            compiled.export_model(stream)
            self._cache.put(self._key | {"batch": batch}, stream.getvalue(), self._about)
        return compiled

    def _shaped(self, batch: int) -> Any:
        """The converted network compiled for exactly `batch` images."""
        network = self._converted.clone()
        network.reshape([batch, 3, self.spec.input_size, self.spec.input_size])
        return self._core.compile_model(network, "CPU", self._config())

    def _settle(self, model: nn.Module) -> Any:
        """Compile for one image in the first precision that works and agrees with torch."""
        size = network_size(model, self.spec)
        about = {"parameters": size.parameters, "macs": size.macs, "note": None}
        for precision in dict.fromkeys((self.precision, "float32")):
            self.precision = precision
            try:
                compiled = self._shaped(1)
                self._check(model, compiled.create_infer_request())
                break
            except Exception as error:
                if precision == "float32" or is_out_of_memory(error):
                    raise
                if not isinstance(error, EngineError):
                    error = f"OpenVINO cannot compile it in {precision} ({gist(error)})."
                about["note"] = f"{error} So it runs in float32."
        self._tell(about | {"precision": self.precision})
        return compiled

    def _check(self, model: nn.Module, request: Any) -> None:
        """Compare with torch in float32 on noise. Raises `Disagreement`."""
        side, device = self.spec.input_size, next(model.parameters()).device
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            wanted = [x.cpu() for x in _WithFeatures(model, self.spec)(images.to(device))]
        found = _infer(request, images.numpy(), 1)
        if found[1].shape != wanted[1].shape:
            shapes = f"{tuple(found[1].shape)} instead of {tuple(wanted[1].shape)}"
            raise EngineError(f"OpenVINO gives features of {shapes}.")
        if not all(x.isfinite().all() for x in wanted):  # a network without an answer
            return
        change = (found[0].softmax(1) - wanted[0].softmax(1)).abs().max().item()
        largest = wanted[1].abs().max().item() or 1.0
        moved = (found[1] - wanted[1]).abs().max().item() / largest
        limits = MAX_CHANGE[self.precision]
        if not (change <= limits[0] and moved <= limits[1]):  # NaN is no agreement either
            raise Disagreement(
                f"OpenVINO in {self.precision} moved probabilities by {change:.2f} and features "
                f"by {moved:.0%} against PyTorch."
            )

    def _run(self, images: Tensor, features: bool) -> Outputs:
        side = self.spec.input_size
        if images.shape[2:] != (side, side):
            size = f"{images.shape[2]} x {images.shape[3]}"
            raise ValueError(f"{self.spec.paper_name} takes images of {side} px here, not {size}.")
        # A few images one by one: a batch costs as much padded as full.
        step = 1 if 2 * len(images) <= self.batch else self.batch
        pixels = images.detach().cpu().float().contiguous().numpy()
        logits, maps = _infer(self._request(step), pixels, step, features)
        return Outputs(logits, maps)

    def _shrink(self, images: int) -> None:
        """Go on one by one: that network is there, and a smaller batch would have to be compiled."""
        self.batch = 1
        self._requests = {1: self._requests[1]}
        self._converted = None  # holds the weights, and is not needed any more
        gc.collect()


def _infer(
    request: Any, pixels: np.ndarray, step: int, features: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Logits and features of (N, 3, S, S) images, `step` at a time, the last ones padded."""
    logits, maps = [], []
    for start in range(0, len(pixels), step):
        part = pixels[start : start + step]
        if missing := step - len(part):
            part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
        request.infer([part], share_inputs=True)
        kept = step - missing
        logits.append(request.get_output_tensor(0).data[:kept].copy())
        if features:
            maps.append(request.get_output_tensor(1).data[:kept].copy())
    together = torch.from_numpy(np.concatenate(maps)) if features else None
    return torch.from_numpy(np.concatenate(logits)), together
