"""The networks: how each is built, stored, found and verified."""

from kdmodels.models.checkpoints import Checkpoint, CheckpointError, Index
from kdmodels.models.zoo import MODELS, STUDENTS, TEACHERS, ModelSpec, build_model, get_spec

__all__ = [
    "MODELS",
    "STUDENTS",
    "TEACHERS",
    "Checkpoint",
    "CheckpointError",
    "Index",
    "ModelSpec",
    "build_model",
    "get_spec",
]
