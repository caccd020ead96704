"""From a finished run of the lung finder to `weights/`."""

import datetime
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from kdmodels.images.read import read_image
from kdmodels.lungs.find import LungFinder
from kdmodels.lungs.unet import LungNet
from kdmodels.models.checkpoints import LUNG_STORAGE, LungWeights
from kdmodels.models.codecs import decode, encode
from train.data.manifest import Manifest
from train.release.store import StoreError, stored_index

DOUBTED = 1  # % of the validation films whose lungs are called unsure


def store_lungs(run: Path, manifest: Manifest) -> LungWeights:
    """Store a run's best weights, with the limit of sureness that the validation films set.

    Raises `StoreError` for a folder that is no finished run on these data.
    """
    try:
        state = load_file(run / "best.safetensors")
        with safe_open(run / "state.safetensors", framework="pt") as reader:
            about = json.loads(reader.metadata()["lungs"])
        settings = about["settings"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{run} is no run folder of the lung finder: {error}") from error
    if about["data"] != manifest.id:
        raise StoreError(f"{run} was trained on {about['data']}, not on {manifest.id}.")
    if about["epoch"] < settings["epochs"]:
        raise StoreError(f"{run} is not finished; start its command again to go on.")
    network = LungNet()
    network.load_state_dict(decode(encode(state, LUNG_STORAGE)))
    finder = LungFinder(network.eval())
    films = [s for s in manifest.split("val") if s.mask]
    sure = [finder(read_image(film.path).pixels).sureness for film in films]
    row = LungWeights(
        file="",
        sha256="",
        bytes=0,
        data=manifest.id,
        date=datetime.date.today().isoformat(),
        seed=settings["seed"],
        limit=round(float(np.percentile(sure, DOUBTED)), 4),
    )
    return stored_index().store_lungs(row, state)
