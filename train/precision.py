"""Which arithmetic a network is trained, and a teacher run, in."""

import torch

from kdmodels.zoo import ModelSpec


def choose_precision(wanted: str, spec: ModelSpec) -> str:
    """Map `auto`, `float32` or `bf16` to Accelerate's `mixed_precision` for a network.

    bf16 pays on CUDA and on CPUs with AMX tiles. On an AVX-512 CPU with bf16 dot products alone,
    training took half to three quarters of float32's time for the teachers, but 1.6 times as long
    for depthwise convolutions, and without those dot products it was slower for all.
    """
    if wanted == "auto":
        fast = torch.cuda.is_available() or torch.cpu._is_amx_tile_supported()
        dense = torch.cpu._is_avx512_bf16_supported() and not spec.depthwise
        return "bf16" if fast or dense else "no"
    return {"float32": "no", "bf16": "bf16"}[wanted]
