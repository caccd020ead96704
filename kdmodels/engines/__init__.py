"""What runs a network: PyTorch or OpenVINO, by one interface."""

from kdmodels.engines.base import Engine, EngineError, Outputs, Size
from kdmodels.engines.choice import open_engine

__all__ = ["Engine", "EngineError", "Outputs", "Size", "open_engine"]
