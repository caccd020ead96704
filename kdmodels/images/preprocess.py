"""Image -> model input. The app and the evaluation share this code, so they see the same pixels."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kdmodels.models.zoo import ModelSpec
from kdmodels.tasks import Task


def squared(image: Image.Image, task: Task, size: int) -> np.ndarray:
    """Resize to a (size, size, 3) uint8 square, without its colour where the task has none.

    The aspect ratio is given up on purpose: in chest X-ray collections it tells the source apart.
    Pillow's bilinear filter is antialiased.
    """
    image = image.convert("L" if task.greyscale else "RGB")
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("RGB"))


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(N, 3, H, W) uint8 or float in [0, 255] -> float32, normalised per channel, channels-last."""
    scale = torch.tensor([1 / (255 * s) for s in std]).view(1, -1, 1, 1)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)]).view(1, -1, 1, 1)
    images = pixels.float() * scale.to(pixels.device) - shift.to(pixels.device)
    return images.contiguous(memory_format=torch.channels_last)


def to_input(image: Image.Image, task: Task, spec: ModelSpec) -> Tensor:
    """Turn an RGB image of any size into the (1, 3, S, S) float32 input of a model."""
    pixels = torch.from_numpy(squared(image, task, spec.input_size).copy())
    return normalise(pixels.permute(2, 0, 1).unsqueeze(0), spec.mean, spec.std)
