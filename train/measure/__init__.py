"""Weights become predictions, and predictions numbers."""
