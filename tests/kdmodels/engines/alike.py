"""What the tests of the engines have in common."""

import pytest
import torch

from kdmodels.engines.openvino import import_openvino, native_precision

HAS_BF16 = native_precision(import_openvino().Core()) == "bf16"
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor has no bf16 arithmetic")


def same(found, wanted) -> bool:
    """Whether two answers of engines, logits and features, are equal but for rounding."""
    return torch.allclose(found.logits, wanted.logits, rtol=1e-4, atol=1e-4) and torch.allclose(
        found.features, wanted.features, rtol=1e-4, atol=1e-4
    )
