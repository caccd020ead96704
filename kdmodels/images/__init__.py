"""Untrusted bytes become a checked picture, and that a network's input."""

from kdmodels.images.archives import ArchiveError, Found, gather
from kdmodels.images.checked import CheckedImage, ImageError, Window
from kdmodels.images.preprocess import to_input
from kdmodels.images.read import read_image

__all__ = [
    "ArchiveError",
    "CheckedImage",
    "Found",
    "ImageError",
    "Window",
    "gather",
    "read_image",
    "to_input",
]
