"""`kdmodels.lungs.unet`: sizes, and that a film's brightness does not matter."""

import pytest
import torch

from kdmodels.lungs.unet import SIDE, LungNet, standardised
from kdmodels.models.zoo import count_parameters


def test_it_is_small_and_gives_a_logit_a_pixel():
    network = LungNet().eval()
    assert count_parameters(network) < 1_500_000
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, SIDE, SIDE)).shape == (2, 1, SIDE, SIDE)
        assert network(torch.zeros(1, 1, 64, 96)).shape == (1, 1, 64, 96)


def test_standardised_films_do_not_tell_brightness_and_contrast():
    films = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    found = standardised(films)
    assert found.mean((1, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert found.std((1, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-4)
    assert torch.allclose(standardised(films / 3 + 40), found, atol=1e-3)
    assert not standardised(torch.full((1, 1, 8, 8), 77)).any()
