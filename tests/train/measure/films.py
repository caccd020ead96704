"""Drawn films whose lungs and surroundings each tell the class."""

import numpy as np

from kdmodels.tasks import TASKS

CXR = TASKS["cxr"]
SIDE = 32
LEVELS = (60, 120, 180)  # grey of a class: around the lungs; in them, that of the next class
LUNGS = np.zeros((SIDE, SIDE), bool)
LUNGS[8:24, 5:13] = LUNGS[8:24, 19:27] = True
