"""The first tab: one image, two answers, two heatmaps."""
