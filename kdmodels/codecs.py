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

All else is as in `float16`: the small matrices, depthwise ones among them, take little room and are
the ones whose rounding changes answers. Weights are expanded to float32 at loading, so all
arithmetic stays in float.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdmodels.zoo import StateDict

_SCALE = ".int8_scale"
_SCALE6, _SHAPE6 = ".int6_scale", ".int6_shape"
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


def _pack6(values: Tensor) -> Tensor:
    """Integers -31..31 -> uint8, four of them in three bytes (padded with zeros)."""
    values = (values.flatten() + 32).to(torch.int32)
    a, b, c, d = nn.functional.pad(values, (0, -len(values) % 4)).view(-1, 4).unbind(1)
    packed = torch.stack([a | (b & 3) << 6, b >> 2 | (c & 15) << 4, c >> 4 | d << 2], dim=1)
    return packed.to(torch.uint8).flatten()


def _unpack6(packed: Tensor, number: int) -> Tensor:
    """Undo `_pack6`: the first `number` integers, as float32."""
    x, y, z = packed.view(-1, 3).int().unbind(1)
    values = torch.stack([x & 63, x >> 6 | (y & 15) << 2, y >> 4 | (z & 3) << 4, z >> 2], dim=1)
    return values.flatten()[:number].float() - 32


def _encode_int6(state: StateDict) -> StateDict:
    encoded = _encode_float16(state)
    for name, tensor in state.items():
        if (flat := _large(tensor)) is None:
            continue
        scale = _least_error_scale(flat, 31)
        encoded[name] = _pack6((flat / scale[:, None]).round().clamp(-31, 31))
        encoded[name + _SCALE6] = scale
        encoded[name + _SHAPE6] = torch.tensor(tensor.shape)
    return encoded


ENCODERS: dict[str, Callable[[StateDict], StateDict]] = {
    "float32": dict,
    "float16": _encode_float16,
    "int6": _encode_int6,
    "int8": _encode_int8,
}


def encode(state: StateDict, storage: str) -> StateDict:
    """Encode a state dict for storage as `float32`, `float16`, `int8` or `int6` (see above)."""
    return {k: v.contiguous() for k, v in ENCODERS[storage](state).items()}


def decode(stored: StateDict) -> StateDict:
    """Undo `encode`, whichever storage it was: every floating tensor comes back as float32."""
    state: StateDict = {}
    for name, tensor in stored.items():
        if name.endswith((_SCALE, _SCALE6, _SHAPE6)):
            continue
        if name + _SCALE in stored:
            scale = stored[name + _SCALE].view(-1, *[1] * (tensor.ndim - 1))
            state[name] = tensor.float() * scale
        elif name + _SCALE6 in stored:
            shape = stored[name + _SHAPE6].tolist()
            rows = _unpack6(tensor, math.prod(shape)).view(shape[0], -1)
            state[name] = (rows * stored[name + _SCALE6][:, None]).view(shape)
        else:
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state
