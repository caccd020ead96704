"""A start from ImageNet features without ImageNet weights of the network itself.

Before it sees a label, a network learns to give the features that a small frozen ImageNet network,
the guide, gives for the same view: unsupervised feature distillation before fine-tuning on labels
(the idea of EFCM in pathology; Wei et al., "Contrastive Learning Rivals Masked Image Modeling in
Fine-tuning via Feature Distillation", arXiv 2205.14141). Each feature is standardised over the
training views. Where the Hub is reachable, `pretrained: true` is the plainer way.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kdmodels.images.preprocess import normalise
from train.data.manifest import DataError
from train.data.pixels import EvalViews
from train.learn.objectives import Answers
from train.learn.targets import Targets, teacher_targets
from train.learn.views import TrainViews

MODEL, SIZE = "mobilenetv2_100", 224  # Sandler et al., CVPR 2018
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Guide:
    """The frozen ImageNet network without its head, asked like a teacher.

    model: (N, 3, 224, 224) -> (N, 1280), of images normalised with `mean` and `std`; `sha256`:
    digest of its weights, and of how it is used where they are timm's own.
    """

    model: nn.Module
    sha256: str
    name: str = MODEL
    size: int = SIZE
    bf16: bool = False
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    @classmethod
    def load(cls, weights: Path | None) -> "Guide":
        """weights: a safetensors file of timm's `mobilenetv2_100` that was trained with
        `pad_type="same"` on images in [-1, 1]; None: timm's own from the Hub. Raises `DataError`
        when they cannot be had, or the file holds something else.
        """
        import timm

        if weights is None:
            try:
                model = timm.create_model(MODEL, pretrained=True, num_classes=0).eval()
            except Exception as error:  # errors of the HTTP client come through as they are
                raise DataError(
                    f"The ImageNet weights of {MODEL} could not be fetched "
                    f"({type(error).__name__}); name a file with --guide."
                ) from error
            config = model.pretrained_cfg
            digest = hashlib.sha256(save(model.state_dict()) + b"timm").hexdigest()
            return cls(model, digest, mean=config["mean"], std=config["std"])
        model = timm.create_model(MODEL, pad_type="same")
        try:
            model.load_state_dict(load_file(weights))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{weights} does not hold the weights of {MODEL}: {reason}") from error
        model.reset_classifier(0)
        return cls(model.eval(), hashlib.sha256(save(model.state_dict())).hexdigest())

    def to(self, device: torch.device) -> None:
        """Freeze the network and move it."""
        self.model.requires_grad_(False).to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Answers:
        """(N, 3, H, W) views in [0, 255] -> (N, 1280) features; the labels do not matter."""
        return Answers(self.model(normalise(images, self.mean, self.std)).float())


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
        self.targets = Targets(found.sub_(self.mean).div_(self.deviation))

    def of_images(self, images: EvalViews) -> Tensor:
        """(N, 1280) standardised features; `images` are of the guide's size."""
        loader = DataLoader(images, 32)
        found = [self.guide(x.to(self.device), label).logits.cpu() for x, label in loader]
        return (torch.cat(found) - self.mean) / self.deviation
