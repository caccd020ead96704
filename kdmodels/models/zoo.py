"""The models as a table: id -> how to build it, what it takes in, where Score-CAM looks.

Adding a model is adding a row to `MODELS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kdmodels.models.ofa595 import build_ofa595

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class ModelSpec:
    """What the rest of the project needs to know of one architecture.

    builder: (num_classes, input_size, pretrained) -> module mapping (N, 3, H, W) to logits.
    input_size: side of the square input in pixels at which the model is evaluated.
    cam_layer: dotted name of the module whose output Score-CAM weighs.
    cam_channels: number of channels of that output, hence of Score-CAM forward passes.
    cam_reshape: brings that output to (N, C, h, w); None where it is so already.
    head: dotted name of the linear layer that gives the logits.
    mix: dotted name of a 1 x 1 convolution between the pooled features and the head, or None.
    depthwise: built of depthwise convolutions, which bf16 speeds up on few processors.
    fit_state: resamples the tensors of a state dict whose shape depends on the input size.
    pretrained: name of the ImageNet weights on the Hub, or None.
    """

    id: str
    paper_name: str
    role: Literal["teacher", "student"]
    builder: Callable[[int, int, bool], nn.Module]
    input_size: int
    cam_layer: str
    cam_channels: int
    pretrained: str | None
    head: str
    mix: str | None = None
    depthwise: bool = False
    cam_reshape: Callable[[Tensor], Tensor] | None = None
    fit_state: Callable[[StateDict, nn.Module], StateDict] | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def _build_vgg19(num_classes: int, input_size: int, pretrained: bool) -> nn.Module:
    import timm
    from timm.layers import ClassifierHead

    model = timm.create_model(
        "vgg19_bn.tv_in1k" if pretrained else "vgg19_bn", pretrained=pretrained
    )
    # Global average pooling instead of the two 4096-wide layers: 20 M parameters, not 139.6 M.
    model.pre_logits = nn.Identity()
    model.head = ClassifierHead(model.num_features, num_classes, pool_type="avg", drop_rate=0.2)
    model.head_hidden_size = model.num_features
    model.num_classes = num_classes
    return model


def _timm_builder(name: str, tag: str, **kwargs) -> Callable[[int, int, bool], nn.Module]:
    def build(num_classes: int, input_size: int, pretrained: bool) -> nn.Module:
        import timm

        return timm.create_model(
            f"{name}.{tag}" if pretrained else name,
            pretrained=pretrained,
            num_classes=num_classes,
            img_size=input_size,
            **kwargs,
        )

    return build


def _build_ofa595(num_classes: int, input_size: int, pretrained: bool) -> nn.Module:
    if pretrained:
        raise ValueError(
            "OFA-595 has no ImageNet weights on the Hub in safetensors form; train it from scratch."
        )
    return build_ofa595(num_classes)


def _fit_visformer(state: StateDict, model: nn.Module) -> StateDict:
    """Resample the three (1, C, h, w) position embeddings to the model's input size."""
    fitted = dict(state)
    for name, target in model.state_dict().items():
        if name.startswith("pos_embed") and fitted[name].shape != target.shape:
            fitted[name] = nn.functional.interpolate(
                fitted[name].float(), size=target.shape[-2:], mode="bicubic", antialias=True
            ).to(fitted[name].dtype)
    return fitted


def _fit_swin(state: StateDict, model: nn.Module) -> StateDict:
    """Resample relative position bias tables to the model's window sizes (timm's own rule)."""
    from timm.models.swin_transformer import checkpoint_filter_fn

    return checkpoint_filter_fn(state, model)


def _channels_first(features: Tensor) -> Tensor:
    """(N, h, w, C) -> (N, C, h, w)."""
    return features.permute(0, 3, 1, 2)


MODELS: dict[str, ModelSpec] = {
    spec.id: spec
    for spec in (
        ModelSpec(
            id="vgg19",
            paper_name="VGG19",
            role="teacher",
            builder=_build_vgg19,
            input_size=224,
            cam_layer="features.51",  # ReLU of the last conv block, before its pooling: 14 x 14
            cam_channels=512,
            pretrained="vgg19_bn.tv_in1k",
            head="head.fc",
        ),
        ModelSpec(
            id="visformer_s",
            paper_name="Visformer-S",
            role="teacher",
            builder=_timm_builder("visformer_small", "in1k", drop_path_rate=0.1),
            input_size=224,
            cam_layer="norm",
            cam_channels=768,
            pretrained="visformer_small.in1k",
            head="head",
            fit_state=_fit_visformer,
        ),
        ModelSpec(
            id="autoformerv2_t",
            paper_name="AutoFormerV2-T",
            role="teacher",
            # timm publishes AutoFormerV2-T (S3-T) under Swin's name.
            builder=_timm_builder("swin_s3_tiny_224", "ms_in1k", drop_path_rate=0.1),
            input_size=224,
            cam_layer="norm",
            cam_channels=768,
            pretrained="swin_s3_tiny_224.ms_in1k",
            head="head.fc",
            cam_reshape=_channels_first,
            fit_state=_fit_swin,
        ),
        ModelSpec(
            id="ofa_595",
            paper_name="OFA-595",
            role="student",
            builder=_build_ofa595,
            input_size=236,
            cam_layer="final_expand_layer",
            cam_channels=1152,
            pretrained=None,
            head="classifier.linear",
            mix="feature_mix_layer",
            depthwise=True,
        ),
    )
}

TEACHERS = tuple(spec.id for spec in MODELS.values() if spec.role == "teacher")
STUDENTS = tuple(spec.id for spec in MODELS.values() if spec.role == "student")


def get_spec(model_id: str) -> ModelSpec:
    """Look a model up by id. Raises `ValueError` that lists the known ids."""
    try:
        return MODELS[model_id]
    except KeyError:
        known = ", ".join(MODELS)
        raise ValueError(f"There is no model '{model_id}'; the models are: {known}.") from None


def build_model(
    model_id: str, num_classes: int, input_size: int | None = None, pretrained: bool = False
) -> nn.Module:
    """Build an architecture by id, with random or (`pretrained`, needs the Hub) ImageNet weights.

    `input_size` differs from the spec's only while training at a smaller size first.
    """
    spec = get_spec(model_id)
    return spec.builder(num_classes, input_size or spec.input_size, pretrained)


def load_fitted(model_id: str, model: nn.Module, state: StateDict) -> None:
    """Load `state` into `model` (strictly), resampling what depends on the input size."""
    fit = get_spec(model_id).fit_state
    # Not OFA's own `load_state_dict`, which passes over missing tensors.
    nn.Module.load_state_dict(model, fit(state, model) if fit else state)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def count_macs(model: nn.Module, input_size: int) -> int:
    """Multiply-accumulate operations of one forward pass on one (3, input_size, input_size) image.

    Counted by torch's dispatcher (`FlopCounterMode`), which sees matrix products and convolutions
    and reports two operations for each multiply-accumulate.
    """
    from torch.utils.flop_counter import FlopCounterMode

    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        device = next(model.parameters()).device
        model(torch.zeros(1, 3, input_size, input_size, device=device))
    model.train(was_training)
    return counter.get_total_flops() // 2
