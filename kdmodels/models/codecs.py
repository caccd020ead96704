"""How weights are stored: small enough for a git repository, and expanded to float32 at loading.

Storage types:

- `float32`: as trained.
- `float16`: tensors of two or more dimensions as float16; vectors (biases, norms) stay float32.
- `int8`: matrices of at least 64 columns and 20,000 weights as int8 with one float32 scale per
  output channel (dimension 0), w ~ q * scale with scale = max|w| / 127, under `<name>.int8_scale`:
  symmetric per-channel weight quantisation (Krishnamoorthi, arXiv 1806.08342, section 3.1.2).
- `int6`: matrices of at least 64 columns with 6 bits a weight, four weights in three bytes, and one float32 scale per
  output channel, the one of least squared error (Banner et al., "Post training 4-bit quantization
  of convolutional networks", NeurIPS 2019, on clipping; here by search); under `<name>` (uint8),
  `<name>.int6_scale` and `<name>.int6_shape`.
- `int7`: the same with 7 bits a weight, eight weights in seven bytes, and 7 in place of 6 in the names.

All else is as in `float16`: the small matrices, depthwise ones among them, take little room and are
the ones whose rounding changes answers. Weights are expanded to float32 at loading, so all
arithmetic stays in float.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from kdmodels.models.zoo import StateDict

_SCALE = ".int8_scale"
_PACKED = {bits: (f".int{bits}_scale", f".int{bits}_shape") for bits in (6, 7)}
_ASIDE = (_SCALE, *(suffix for pair in _PACKED.values() for suffix in pair))
_LEAST_COLUMNS, _LEAST_WEIGHTS = 64, 20_000


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim >= 2


def _encode_float16(state: StateDict) -> StateDict:
    return {k: v.half() if _is_matrix(v) else v for k, v in state.items()}


def _large(tensor: Tensor, least_weights: int = 0) -> Tensor | None:
    """(O, I) float32 where it is a large matrix, else None."""
    if not _is_matrix(tensor) or tensor.numel() < least_weights:
        return None
    flat = tensor.float().flatten(1)
    return flat if flat.shape[1] >= _LEAST_COLUMNS else None


def _encode_int8(state: StateDict) -> StateDict:
    encoded = _encode_float16(state)
    for name, tensor in state.items():
        if (flat := _large(tensor, _LEAST_WEIGHTS)) is None:
            continue
        scale = flat.abs().amax(dim=1) / 127
        scale[scale == 0] = 1.0
        encoded[name] = (flat / scale[:, None]).round().to(torch.int8).view(tensor.shape)
        encoded[name + _SCALE] = scale
    return encoded


def _least_error_scale(flat: Tensor, levels: int) -> Tensor:
    """(O,) scale for each row of (O, I) that rounds to -levels..levels with least squared error."""
    top = flat.abs().amax(dim=1)
    top[top == 0] = 1.0
    best = torch.full_like(top, float("inf"))
    scale = top / levels
    for share in torch.linspace(1.0, 0.5, 26):
        trial = (share * top / levels)[:, None]
        error = ((flat / trial).round().clamp(-levels, levels) * trial - flat).square().sum(1)
        scale = torch.where(error < best, trial[:, 0], scale)
        best = torch.minimum(error, best)
    return scale


def _group(bits: int) -> int:
    """The least number of values of so many bits that fills whole bytes."""
    return 8 // math.gcd(bits, 8)


def _words(bits: int) -> torch.dtype:
    return torch.int32 if bits * _group(bits) < 32 else torch.int64


def _pack(values: Tensor, bits: int) -> Tensor:
    """Integers from -2^(bits - 1) below 2^(bits - 1) -> uint8, little end first (zeros at the end)."""
    group = _group(bits)
    values = (values.flatten() + 2 ** (bits - 1)).to(_words(bits))
    values = nn.functional.pad(values, (0, -len(values) % group)).view(-1, group)
    words = (values << bits * torch.arange(group)).sum(1, keepdim=True)
    return (words >> torch.arange(0, bits * group, 8) & 255).to(torch.uint8).flatten()


def _unpack(packed: Tensor, number: int, bits: int) -> Tensor:
    """Undo `_pack`: the first `number` integers, as float32."""
    group = _group(bits)
    found = packed.view(-1, bits * group // 8).to(_words(bits)).unbind(1)
    word = found[0]
    for place, byte in enumerate(found[1:], 1):
        word = word | byte << 8 * place
    values = [word >> bits * i & 2**bits - 1 for i in range(group)]
    return torch.stack(values, dim=1).flatten()[:number].float() - 2 ** (bits - 1)


def _encode_packed(state: StateDict, bits: int) -> StateDict:
    levels = 2 ** (bits - 1) - 1
    encoded = _encode_float16(state)
    for name, tensor in state.items():
        if (flat := _large(tensor)) is None:
            continue
        scale = _least_error_scale(flat, levels)
        encoded[name] = _pack((flat / scale[:, None]).round().clamp(-levels, levels), bits)
        encoded[name + _PACKED[bits][0]] = scale
        encoded[name + _PACKED[bits][1]] = torch.tensor(tensor.shape)
    return encoded


ENCODERS: dict[str, Callable[[StateDict], StateDict]] = {
    "float32": dict,
    "float16": _encode_float16,
    "int6": partial(_encode_packed, bits=6),
    "int7": partial(_encode_packed, bits=7),
    "int8": _encode_int8,
}


def encode(state: StateDict, storage: str) -> StateDict:
    """Encode a state dict for storage as `float32`, `float16`, `int8`, `int7` or `int6` (see above)."""
    return {k: v.contiguous() for k, v in ENCODERS[storage](state).items()}


def decode(stored: StateDict) -> StateDict:
    """Undo `encode`, whichever storage it was: every floating tensor comes back as float32."""
    state: StateDict = {}
    for name, tensor in stored.items():
        if name.endswith(_ASIDE):
            continue
        bits = next((b for b, (scale, _) in _PACKED.items() if name + scale in stored), None)
        if name + _SCALE in stored:
            scale = stored[name + _SCALE].view(-1, *[1] * (tensor.ndim - 1))
            state[name] = tensor.float() * scale
        elif bits:
            scale, shape = (stored[name + suffix] for suffix in _PACKED[bits])
            shape = shape.tolist()
            rows = _unpack(tensor, math.prod(shape), bits).view(shape[0], -1)
            state[name] = (rows * scale[:, None]).view(shape)
        else:
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state
