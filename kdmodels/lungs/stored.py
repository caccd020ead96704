"""The stored lung finder: verified like every other file of weights, and run by OpenVINO."""

import logging
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from kdmodels.engines.base import default_threads, wanted_engine
from kdmodels.engines.openvino import import_openvino
from kdmodels.lungs.find import LungFinder
from kdmodels.lungs.unet import SIDE, LungNet
from kdmodels.models.checkpoints import WEIGHTS, CheckpointError, Index, read_state

log = logging.getLogger(__name__)


@cache
def stored_finder(folder: Path = WEIGHTS) -> LungFinder | None:
    """The finder of a folder of weights, opened once; None where its index lists none.

    Raises `CheckpointError` for a file that is missing, changed or of another network.
    """
    index = Index.read(folder)
    if index.lungs is None:
        return None
    file, network = index.locate(index.lungs), LungNet()
    try:
        network.load_state_dict(read_state(file))
    except RuntimeError as error:
        raise CheckpointError(f"{file} does not hold a lung finder; fetch it again.") from error
    return LungFinder(open_runner(network.eval()), index.lungs.limit)


def open_runner(network: LungNet) -> Callable[[Tensor], Tensor]:
    """The network compiled by OpenVINO in float32, or itself where that does not work or is unwanted."""
    if wanted_engine(None) == "torch":
        return network
    try:
        ov = import_openvino()
        films = torch.zeros(1, 1, SIDE, SIDE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: deprecation, shapes taken as constants
            model = ov.convert_model(network, example_input=films, input=[films.shape])
        compiled = ov.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": default_threads(),
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
    except Exception as error:  # a missing or broken installation has many faces
        log.warning("Lungs are found by PyTorch, as OpenVINO cannot be used (%s).", error)
        return network

    def run(films: Tensor) -> Tensor:
        request = compiled.create_infer_request()  # each thread its own
        return torch.from_numpy(request.infer([films.numpy()])[0].copy())

    return run
