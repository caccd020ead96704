"""Load, run and explain the teacher and student classifiers; knows no web page and no training."""
