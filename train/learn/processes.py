"""Several processes on one run.

A recipe means the same however many there are: `batch_size` counts the images of a step over all
processes, each of which takes an equal part of every batch. Only the main process writes.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator, DataLoaderConfiguration, InitProcessGroupKwargs

from train.learn.recipes import RecipeError

log = logging.getLogger("train")

PATIENCE = timedelta(hours=24)  # with the main process, which computes the teachers' targets alone


def start_processes(precision: str, batch_size: int) -> Accelerator:
    """Join the processes that `accelerate launch` started, or be the only one.

    precision: `no` or `bf16`. batch_size: images of a step over all processes. Raises
    `RecipeError` when they cannot be shared evenly.
    """
    # Without a GPU, Accelerate leaves each process alone unless told that the CPU is meant.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    device = torch.accelerator.current_accelerator(check_available=True)
    accelerator = Accelerator(
        cpu=several and (device is None or device.type == "mps"),
        mixed_precision=precision,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if batch_size % accelerator.num_processes:
        raise RecipeError(
            f"{accelerator.num_processes} processes cannot share batches of {batch_size} images "
            "evenly; start another number of them, or set another batch_size in the recipe."
        )
    if not accelerator.is_main_process:
        log.setLevel(logging.ERROR)  # once is enough
    if accelerator.num_processes > 1:
        log.info(
            "%d processes share each batch of %d images.", accelerator.num_processes, batch_size
        )
    return accelerator


@contextmanager
def main_first(accelerator: Accelerator) -> Iterator[None]:
    """Let the main process go through the block before the others.

    Unlike Accelerate's own, it lets them go on where the main process fails, so that they fail in
    the same way and do not add the story of a lost connection.
    """
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
    try:
        yield
    finally:
        if accelerator.is_main_process:
            accelerator.wait_for_everyone()
