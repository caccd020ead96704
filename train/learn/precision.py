"""Which arithmetic a network is trained, and a teacher run, in."""

import torch

from kdmodels.models.zoo import ModelSpec


def choose_precision(wanted: str, spec: ModelSpec) -> str:
    """Map `auto`, `float32` or `bf16` to Accelerate's `mixed_precision` for a network.

    bf16 pays on CUDA, and on CPUs that multiply matrices in it: with AVX-512's bf16 dot products
    training took half to three quarters of float32's time for the teachers, with AMX tiles 0.3 to
    0.6 of it. For depthwise convolutions it took 1.6 times as long on both.
    """
    if wanted == "auto":
        cpu = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return "bf16" if torch.cuda.is_available() or (cpu and not spec.depthwise) else "no"
    return {"float32": "no", "bf16": "bf16"}[wanted]
