"""A start from ImageNet features without ImageNet weights of the network itself.

Before it sees a label, a network learns to give the features that a small frozen ImageNet network,
the guide, gives for the same view: unsupervised feature distillation, as EFCM does it for
pathology, here with standardised targets (Wei et al., "Contrastive Learning Rivals Masked Image
Modeling in Fine-tuning via Feature Distillation", arXiv 2205.14141, section 3.1). Where the Hub is
reachable, `pretrained: true` is the plainer way to the same end.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kdmodels.preprocess import normalise
from train.datasets import DataError
from train.objectives import Answers
from train.targets import Targets, teacher_targets
from train.views import EvalViews, TrainViews

MODEL, SIZE = "mobilenetv2_100", 224  # Sandler et al., CVPR 2018
MEAN = STD = (0.5, 0.5, 0.5)


def load_imagenet(weights: Path | None) -> nn.Module:
    """The ImageNet network without its head: (N, 3, 224, 224) -> (N, 1280).

    weights: a safetensors file of timm's `mobilenetv2_100` with `pad_type="same"`; None: timm's own
    from the Hub. Raises `DataError` when they cannot be had, or the file holds something else.
    """
    import timm

    if weights is None:
        try:
            return timm.create_model(MODEL, pretrained=True, num_classes=0).eval()
        except Exception as error:  # errors of the HTTP client come through as they are
            raise DataError(
                f"The ImageNet weights of {MODEL} could not be fetched ({type(error).__name__}); "
                "name a file that holds them."
            ) from error
    model = timm.create_model(MODEL, pad_type="same")
    try:
        model.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{weights} does not hold the weights of {MODEL}: {reason}") from error
    model.reset_classifier(0)
    return model.eval()


@dataclass(frozen=True)
class Guide:
    """The frozen ImageNet network, asked like a teacher; `sha256` of its weights."""

    model: nn.Module
    sha256: str
    name: str = MODEL
    size: int = SIZE
    bf16: bool = False

    @classmethod
    def load(cls, weights: Path | None) -> "Guide":
        """See `load_imagenet`."""
        model = load_imagenet(weights)
        return cls(model, hashlib.sha256(save(model.state_dict())).hexdigest())

    def to(self, device: torch.device) -> None:
        """Freeze the network and move it."""
        self.model.requires_grad_(False).to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Answers:
        """(N, 3, H, W) views in [0, 255] -> (N, 1280) features; the labels do not matter."""
        return Answers(self.model(normalise(images, MEAN, STD)).float())


class GuideFeatures:
    """The guide's features of all training views and validation images, standardised.

    Each of the `width` numbers has mean 0 and deviation 1 over the training views, so that all
    count alike and 1 - (mean squared error) is the share of their variance that a network gives
    back.
    """

    def __init__(
        self, guide: Guide, views: TrainViews, number: int, folder: Path, device: torch.device
    ) -> None:
        self.guide, self.device = guide, device
        guide.to(device)
        found = teacher_targets(guide, views, number, folder, device).logits
        self.mean = found.mean(dim=(0, 1))
        deviation = found.std(dim=(0, 1))
        self.deviation = deviation.where(deviation > 1e-6, 1.0)  # a feature that never fires
        self.width = found.shape[-1]
        self.targets = Targets((found - self.mean) / self.deviation)

    def of_images(self, images: EvalViews) -> Tensor:
        """(N, 1280) standardised features; `images` are of the guide's size."""
        loader = DataLoader(images, 32)
        found = [self.guide(x.to(self.device), label).logits.cpu() for x, label in loader]
        return (torch.cat(found) - self.mean) / self.deviation
