"""PyTorch in eager mode: the reference engine, and the one that runs on CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property

import torch
from torch import Tensor, nn

from kdmodels.engines.base import Engine, Outputs, Precision, Size, default_threads
from kdmodels.models.classmaps import tapped
from kdmodels.models.zoo import ModelSpec, count_macs, count_parameters


class TorchEngine(Engine):
    """Runs a module where its parameters are.

    model: in eval mode. precision `bf16` is torch's autocast. channels_last: memory format of the
    images, which should be that of the weights.
    """

    kind = "torch"

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        precision: Precision = "float32",
        threads: int | None = None,
        note: str | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.spec = model, spec
        self.precision, self.note = precision, note
        self.threads = threads or default_threads()
        self.device = next(model.parameters()).device
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        version = torch.__version__.split("+")[0]
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        self.name = f"PyTorch {version} eager, {precision}, {where}"

    @cached_property
    def size(self) -> Size:
        with self._turn:
            return network_size(self.model, self.spec)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        before = torch.get_num_threads()
        if before != self.threads:
            torch.set_num_threads(self.threads)
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
            ):
                yield
        finally:
            if before != self.threads:
                torch.set_num_threads(before)

    def _run(self, images: Tensor, features: bool) -> Outputs:
        tap = tapped(self.model, self.spec) if features else nullcontext({})
        with self._computing(), tap as record:
            images = images.to(self.device).contiguous(memory_format=self.layout)
            logits = self.model(images).float().cpu()  # waits for CUDA
            return Outputs(logits, record["features"].float() if features else None)


def network_size(model: nn.Module, spec: ModelSpec) -> Size:
    """Count a network's parameters, and the operations of a pass at its input size."""
    return Size(count_parameters(model), count_macs(model, spec.input_size))
