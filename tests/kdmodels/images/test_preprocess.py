"""`kdmodels.images.preprocess`: the pixels a network sees, against the formula written out in numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kdmodels.images.preprocess import normalise, squared, to_input
from kdmodels.models.zoo import MODELS
from kdmodels.tasks import TASKS

CXR, HISTOPATHOLOGY = TASKS["cxr"], TASKS["histopathology"]


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(90, 40), (40, 90), (64, 64)])
def test_any_image_becomes_the_square_input_of_the_model(size):
    for spec in MODELS.values():
        images = to_input(noise(*size), HISTOPATHOLOGY, spec)
        assert images.shape == (1, 3, spec.input_size, spec.input_size)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_values_are_those_of_the_formula():
    image, spec = noise(224, 224), replace(MODELS["vgg19"], mean=(0.1, 0.5, 0.7), std=(0.2, 0.3, 1))
    wanted = (np.asarray(image) / 255.0 - (0.1, 0.5, 0.7)) / (0.2, 0.3, 1.0)
    found = to_input(image, HISTOPATHOLOGY, spec)[0].permute(1, 2, 0).double().numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_models_take_the_statistics_of_imagenet_in_the_order_red_green_blue():
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    for spec in MODELS.values():
        found = to_input(red, HISTOPATHOLOGY, spec)[0].mean((1, 2))
        wanted = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_tint_does_not_reach_the_model_where_images_carry_no_colour():
    tinted = Image.fromarray((np.asarray(noise(50, 50)) * (1.0, 0.8, 0.5)).astype(np.uint8))
    grey = squared(tinted, CXR, 32)
    assert (grey == grey[..., :1]).all()
    # luminance (ITU-R 601), not one channel or their mean
    assert abs(int(squared(Image.new("RGB", (40, 40), (0, 255, 0)), CXR, 8)[0, 0, 0]) - 150) <= 1
    np.testing.assert_array_equal(squared(tinted.convert("L").convert("RGB"), CXR, 32), grey)
    colour = squared(tinted, HISTOPATHOLOGY, 32)
    assert (colour[..., 0] != colour[..., 2]).mean() > 0.9


def test_an_image_of_the_right_size_is_not_resampled():
    image = noise(32, 32)
    np.testing.assert_array_equal(squared(image, HISTOPATHOLOGY, 32), np.asarray(image))


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing these become black, white or moiré
    small = squared(Image.fromarray(stripes), HISTOPATHOLOGY, 32).astype(int)
    assert np.abs(small[1:-1, 1:-1] - 127.5).max() < 3


def test_the_whole_image_is_stretched_and_nothing_is_cropped():
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, :12], wide[:, -12:] = 255, 255  # marks at both ends, a tenth of the width each
    square = squared(Image.fromarray(wide), CXR, 40)
    assert square[:, :3].min() == 255 and square[:, -3:].min() == 255
    assert square[:, 6:-6].max() == 0


def test_bytes_and_floats_of_the_same_value_are_normalised_alike():
    pixels = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    assert torch.equal(normalise(pixels, mean, std), normalise(pixels.float(), mean, std))
