"""Many images at once: a table of what both models say."""
