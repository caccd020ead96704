"""`python -m train data` and `shards`: what is in a data folder, and copies of it."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from kdmodels.tasks import get_task
from train.options import add_data

if TYPE_CHECKING:
    from train.data.manifest import Manifest


def add(commands: argparse._SubParsersAction) -> None:
    data = commands.add_parser("data", help="check a data folder and count its images")
    add_data(data)
    data.set_defaults(run=_run_data)

    shards = commands.add_parser("shards", help="copy a data set into tar shards, or index some")
    add_data(shards)
    shards.add_argument("--out", type=Path, required=True, help="folder for shards and index")
    shards.add_argument("--size", type=float, default=512, help="of a shard, in MB (default: 512)")
    shards.add_argument(
        "--index",
        metavar="PATTERN",
        help="only index these, such as 'https://host/a-{000..012}.tar'",
    )
    shards.add_argument("--name", help="of the data set, with --index (default: shards-<task>)")
    shards.set_defaults(run=_run_shards)


def open_data(args: argparse.Namespace) -> "Manifest":
    """The data set that a command names; what is to be said of it goes to the log."""
    from train.data.open import open_manifest

    manifest = open_manifest(args.task, args.data)
    for note in manifest.notes:
        logging.getLogger("train").info(note)
    return manifest


def _run_data(args: argparse.Namespace) -> None:
    from train.data.open import open_manifest

    _describe(open_manifest(args.task, args.data))


def _run_shards(args: argparse.Namespace) -> None:
    from train.data.open import open_manifest
    from train.data.shards import index_shards, write_shards

    if args.index:
        task = get_task(args.task)
        _describe(index_shards(args.index, args.out, task, args.name or f"shards-{task.id}"))
    else:
        _describe(write_shards(open_manifest(args.task, args.data), args.out, args.size))


def _describe(manifest: "Manifest") -> None:
    from train.data.manifest import SPLITS

    counts = manifest.counts()
    print(f"{manifest.id}: {len(manifest.samples):,} images")
    for split in SPLITS:
        cells = ", ".join(f"{name} {counts[split, name]:,}" for name in manifest.task.class_ids)
        print(f"  {split}: {cells}")
    for note in manifest.notes:
        print(f"  {note}")
