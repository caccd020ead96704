"""Frozen teachers: what they say of a batch of training views."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdmodels.images.preprocess import normalise
from kdmodels.models.checkpoints import Index
from kdmodels.models.classmaps import maps_of, tapped
from kdmodels.models.zoo import ModelSpec
from train.learn.objectives import Answers
from train.learn.precision import choose_precision
from train.learn.recipes import Recipe


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher, fed images of side `size` px; `sha256` of its weights file.

    bf16: whether it runs under bfloat16 autocast.
    """

    model: nn.Module
    spec: ModelSpec
    sha256: str
    size: int
    bf16: bool = False

    @property
    def name(self) -> str:
        """What messages call it: the name of the network in the paper."""
        return self.spec.paper_name

    def to(self, device: torch.device) -> None:
        """Freeze the network and move it."""
        self.model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Answers:
        """(N, 3, H, W) float or uint8 views in [0, 255] and (N,) class indices -> float32 answers."""
        images = normalise(images, self.spec.mean, self.spec.std)
        if images.shape[-1] != self.size:
            images = nn.functional.interpolate(
                images, size=self.size, mode="bilinear", antialias=self.size < images.shape[-1]
            )
        with (
            torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16),
            tapped(self.model, self.spec) as tap,
        ):
            logits = self.model(images)
            maps = maps_of(self.model, self.spec, tap["features"], labels)
        return Answers(logits.float(), maps.float())


def load_teachers(recipe: Recipe, index: Index, precision: str = "auto") -> tuple[Teacher, ...]:
    """The teachers of a recipe, from `weights/`: the weights that the page shows, fed images of
    `teacher_size` px, which may be fewer than on the page. Raises `CheckpointError`.
    """
    teachers = []
    for model_id in recipe.teachers:
        row = index.find(recipe.task, model_id)
        size = recipe.teacher_size or row.spec.input_size
        bf16 = choose_precision(precision, row.spec) == "bf16"
        teachers.append(Teacher(index.load(row), row.spec, row.sha256, size, bf16))
    return tuple(teachers)
