"""Class maps: how much each place of the last feature maps speaks for a class, in one pass.

The classification head is applied at every place instead of to the pooled features: the class
activation map of Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016,
and for a head of several layers its convolutional form (Guo et al., "Class Attention Transfer Based
Knowledge Distillation", CVPR 2023, section 3.1).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn

from kdmodels.models.zoo import ModelSpec


@contextmanager
def tapped(model: nn.Module, spec: ModelSpec) -> Iterator[dict[str, Tensor]]:
    """Record the Score-CAM layer's output of the latest pass under `features`, as (N, C, h, w)."""
    record: dict[str, Tensor] = {}

    def keep(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        record["features"] = spec.cam_reshape(output) if spec.cam_reshape else output

    handle = model.get_submodule(spec.cam_layer).register_forward_hook(keep)
    try:
        yield record
    finally:
        handle.remove()


def class_maps(model: nn.Module, spec: ModelSpec, features: Tensor) -> Tensor:
    """(N, C, h, w) features of the Score-CAM layer -> (N, K, h, w) maps, in logits.

    The mean over all places is the logit itself where nothing but pooling lies between layer and
    head (Visformer-S, AutoFormerV2-T). VGG19's last pooling is left out, for a finer map.
    """
    if spec.mix is not None:
        features = model.get_submodule(spec.mix)(features)
    head = model.get_submodule(spec.head)
    return F.linear(features.permute(0, 2, 3, 1), head.weight, head.bias).permute(0, 3, 1, 2)


def maps_of(model: nn.Module, spec: ModelSpec, features: Tensor, labels: Tensor) -> Tensor:
    """The (N, h, w) maps of one class for each image, `labels` being (N,) class indices."""
    maps = class_maps(model, spec, features)
    return maps[range(len(maps)), labels]
