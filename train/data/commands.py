"""`python -m train data` and `parquet`: what is in a data folder, and copies of it."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from train.options import add_data

if TYPE_CHECKING:
    from train.data.manifest import Manifest


def add(commands: argparse._SubParsersAction) -> None:
    data = commands.add_parser("data", help="check a data folder and count its images")
    add_data(data)
    data.set_defaults(run=_run_data)

    parquet = commands.add_parser("parquet", help="copy a data set into Parquet files")
    add_data(parquet)
    parquet.add_argument("--out", type=Path, required=True, help="folder for the files; a new one")
    parquet.add_argument("--size", type=float, default=512, help="of a file, in MB (default: 512)")
    parquet.set_defaults(run=_run_parquet)


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


def _run_parquet(args: argparse.Namespace) -> None:
    from train.data.open import open_manifest
    from train.data.parquet import write_parquet

    manifest = open_manifest(args.task, args.data, check=False)  # damaged images are copied too
    write_parquet(manifest, args.out, args.size)
    _describe(manifest)


def _describe(manifest: "Manifest") -> None:
    from train.data.manifest import SPLITS

    counts = manifest.counts()
    print(f"{manifest.id}: {len(manifest.samples):,} images")
    for split in SPLITS:
        cells = ", ".join(f"{name} {counts[split, name]:,}" for name in manifest.task.class_ids)
        print(f"  {split}: {cells}")
    for note in manifest.notes:
        print(f"  {note}")
