"""A checkpoint as timm keeps one: `config.json` and a float32 `model.safetensors`.

timm reads both from the root of a Hub repository at a revision (`hf-hub:owner/name@revision`), or
from a folder (`local-dir:`); it knows no folders within a repository (`timm/models/_hub.py`, 1.0.31).
"""

from pathlib import Path

import torch
from torch import nn

from kdmodels.models.checkpoints import Checkpoint
from kdmodels.tasks import get_task


def is_known_to_timm(model: nn.Module) -> bool:
    """Whether timm builds this very network from its architecture's name and plain arguments.

    VGG19 here is timm's `vgg19_bn` with another head, which no argument of timm's gives, and
    OFA-595 is none of timm's.
    """
    import timm

    architecture = getattr(model, "pretrained_cfg", {}).get("architecture")
    if architecture is None:
        return False
    with torch.device("meta"):  # shapes alone, no numbers
        theirs = timm.create_model(architecture, **model._model_args).state_dict()
    return _shapes(theirs) == _shapes(model.state_dict())


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def write_timm_folder(row: Checkpoint, model: nn.Module, folder: Path) -> None:
    """Write a loaded checkpoint that `is_known_to_timm` for `timm.create_model("local-dir:...")`.

    The configuration also gives timm's transforms what `kdmodels.images.preprocess` does (a square,
    bilinear, without a crop), except that films are made grey: `image.convert("L").convert("RGB")`.
    """
    from timm.models import save_for_hf

    task, spec = get_task(row.task), row.spec
    save_for_hf(
        model.to(memory_format=torch.contiguous_format),  # as safetensors wants it
        str(folder),
        model_config={
            "label_names": list(task.class_ids),
            "label_descriptions": dict(zip(task.class_ids, task.class_names, strict=True)),
            # `tag` and `license` would otherwise be those of timm's own weights.
            "pretrained_cfg": {"tag": row.stem, "license": None},
        },
        safe_serialization=True,
        data_config={
            "input_size": (3, spec.input_size, spec.input_size),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": spec.mean,
            "std": spec.std,
        },
    )
