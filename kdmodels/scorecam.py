"""Score-CAM heatmaps, by torchcam.

Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks",
CVPR Workshops 2020. Each channel of the last feature maps masks the image once; the channel counts
by how much the class's raw logit rises over the unmasked image's, through a softmax over channels
(torchcam's variant of the paper's equation 3).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchcam.methods import ScoreCAM

from kdmodels.predict import COMPUTE, Classifier

VARIANT = "Score-CAM (torchcam: softmax over channels of the class logit)"

# (channels done, channels in all) after every batch of masked images.
Progress = Callable[[int, int], None]


@contextmanager
def _reporting(
    model: nn.Module, batch_size: int, channels: int, report: Progress
) -> Iterator[None]:
    """Call `report` after each batch of Score-CAM's passes and let others compute in between."""
    thread = threading.get_ident()
    passes = 0

    def after_forward(*_) -> None:
        nonlocal passes
        if threading.get_ident() != thread:  # a prediction of another request, let in below
            return
        passes += 1
        # The first two passes read the feature maps and the unmasked image's logits.
        report(min(max(passes - 2, 0) * batch_size, channels), channels)
        if passes > 1:  # torchcam's hooks are off by now, so others' passes are not recorded
            COMPUTE.release()
            COMPUTE.acquire()

    handle = model.register_forward_hook(after_forward)
    try:
        yield
    finally:
        handle.remove()


def explain(
    classifier: Classifier,
    image: Image.Image,
    class_id: str,
    report: Progress = lambda done, total: None,
    batch_size: int = 8,
) -> np.ndarray:
    """Heatmap of the evidence for `class_id` in a checked RGB image.

    Returns (h, w) float32 in [0, 1] at the resolution of the feature maps; 1 is the hottest place.
    batch_size: masked images in one pass; between two passes others may compute, so a small one
    keeps predictions of other requests quick.
    A map without any positive evidence is all zeros. An exception raised by `report` cancels the
    work; the model is left without hooks in every case. Raises `ValueError` for an unknown class.
    """
    if class_id not in classifier.task.class_ids:
        known = ", ".join(classifier.task.class_ids)
        raise ValueError(f"There is no class '{class_id}'; the classes are: {known}.")
    spec, model = classifier.spec, classifier.model
    class_index = classifier.task.class_ids.index(class_id)
    with COMPUTE, torch.inference_mode():
        images = classifier.prepare(image)
        with (
            _reporting(model, batch_size, spec.cam_channels, report),
            ScoreCAM(
                model,
                spec.cam_layer,
                batch_size=batch_size,
                input_shape=tuple(images.shape[1:]),
                reshape_transform=spec.cam_reshape,
            ) as extractor,
        ):
            model(images)
            (cam,) = extractor(class_index, normalized=False)
    return _unit_range(cam[0].float().cpu().numpy())


def _unit_range(cam: np.ndarray) -> np.ndarray:
    """Scale a non-negative map linearly to [0, 1]; a flat map, which shows nothing, to zeros."""
    cam = np.nan_to_num(cam, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(cam.min()), float(cam.max())
    if high - low <= 1e-6 * max(abs(high), 1e-12):
        return np.zeros_like(cam)
    return ((cam - low) / (high - low)).astype(np.float32)
