"""Whether a GPU can be used here and now.

On Hugging Face ZeroGPU, torch says from the start that CUDA is there, but only a function under
`spaces.GPU` gets a GPU, in a process of its own, for a while. All else has to stay on the CPU.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lent = False


def on_zero_gpu() -> bool:
    """As the package `spaces` itself decides."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def has_cuda() -> bool:
    """Whether this process may put a network onto a GPU."""
    return torch.cuda.is_available() and (_lent or not on_zero_gpu())


@contextmanager
def lent() -> Iterator[None]:
    """Within the block this process has the GPU that `spaces.GPU` lends it."""
    global _lent
    before, _lent = _lent, True
    try:
        yield
    finally:
        _lent = before
