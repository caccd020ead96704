"""Load, run and explain the teacher and student classifiers; knows no web page and no training."""

__version__ = "0.1.0"  # as in pyproject.toml
