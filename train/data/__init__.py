"""A folder of images, of whatever layout, becomes one `Manifest`."""
