"""Images that cannot be read: found when a data set is opened, named, counted and left out.

So the set is settled before the first step: the draw, the teacher's targets and the metrics all
speak of the same images, in every process and after every start. Each image is tried once on a
machine; those found good are remembered by path, size and modification time.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from kdmodels.cache import cache_path, write_atomically
from kdmodels.images.read import ImageError
from train.data.cells import Cell
from train.data.manifest import DataError, Manifest, read_checked

log = logging.getLogger("train")

MAX_SHARE = 0.01  # of the images of a data set; beyond it, the copy is taken for damaged


def leave_out_unreadable(manifest: Manifest) -> Manifest:
    """The manifest without the images that cannot be read: they go to `skipped`, named in `notes`.

    Raises `DataError` when more than 1% of the images, or all of a class in a split, are affected.
    """
    reasons = find_unreadable([sample.path for sample in manifest.samples])
    if not reasons:
        return manifest
    first = min(reasons)
    example = f"{manifest.samples[first].path} ({reasons[first]})"
    count, total = len(reasons), len(manifest.samples)
    if count > MAX_SHARE * total:
        raise DataError(
            f"{count:,} of {total:,} images of '{manifest.name}' cannot be read, more than "
            f"{MAX_SHARE:.0%}, first {example}; get another copy of the data set."
        )
    kept, skipped, places = [], [], Counter()
    for index, sample in enumerate(manifest.samples):
        if index in reasons:
            skipped.append(replace(sample, number=places[sample.split]))
        else:
            kept.append(sample)
        places[sample.split] += 1
    for split, label in {(s.split, s.label) for s in skipped} - {(s.split, s.label) for s in kept}:
        raise DataError(
            f"No image of the class '{label}' in the {split} split of '{manifest.name}' can be "
            f"read, such as {example}; get another copy of the data set."
        )
    notes = [f"{count:,} of {total:,} images cannot be read and are left out:"]
    notes += [f"left out: {manifest.samples[i].path} ({reason})" for i, reason in reasons.items()]
    return replace(
        manifest, samples=tuple(kept), notes=(*manifest.notes, *notes), skipped=tuple(skipped)
    )


def find_unreadable(paths: Sequence[Path | Cell]) -> dict[int, str]:
    """Which images cannot be read, by index and in its order, and why."""
    stamps = [_stamp(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(name) for name, _ in stamps])
    cache = cache_path(f"readable-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.json")
    known = _read_cache(cache)
    unknown = [i for i, (name, stamp) in enumerate(stamps) if known.get(name) != stamp]
    reasons: dict[int, str] = {}
    good: dict[str, str] = {}
    pool = ThreadPoolExecutor(os.cpu_count())  # decoders release the interpreter's lock
    try:
        results = pool.map(lambda i: why_unreadable(paths[i]), unknown)
        bar = tqdm(results, "Checking images", len(unknown), leave=False, disable=None)
        for index, reason in zip(unknown, bar, strict=True):
            if reason is None:
                name, stamp = stamps[index]
                good[name] = stamp
            else:
                reasons[index] = reason
    finally:
        pool.shutdown(cancel_futures=True)
        if good:
            _write_cache(cache, known | good)
    return reasons


def _stamp(path: Path | Cell) -> tuple[str, str]:
    """What an image is called, and what tells that its file has changed."""
    file, place = (path.file, f"::{path.row}") if isinstance(path, Cell) else (path, "")
    try:
        status = file.stat()
    except OSError:  # `why_unreadable` will say what is wrong
        return os.fspath(file) + place, ""
    return os.path.abspath(file) + place, f"{status.st_size}-{status.st_mtime_ns}"


def why_unreadable(path: Path | Cell) -> str | None:
    """Why an image cannot be read; None where it can."""
    try:
        read_checked(path)
    except (ImageError, OSError) as error:
        return str(error).rstrip(".")
    return None


def _read_cache(file: Path) -> dict[str, str]:
    """Whatever is wrong with the cache, it counts as empty and is written anew."""
    try:
        known = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(file: Path, known: dict[str, str]) -> None:
    try:
        write_atomically(file, json.dumps(known).encode())
    except OSError as error:
        log.warning(
            "Which images can be read cannot be kept in %s (%s); the next command tries all again.",
            file,
            error.strerror,
        )
