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

from kdmodels.images.read import ImageError, read_image
from train.data.cache import cache_folder, write_atomically
from train.data.manifest import DataError, Manifest
from train.data.members import Member

log = logging.getLogger("train")

MAX_SHARE = 0.01  # of the images of a data set; beyond it, the copy is taken for damaged


def leave_out_unreadable(manifest: Manifest, reasons: dict[int, str] | None = None) -> Manifest:
    """The manifest without the images that cannot be read: they go to `skipped`, named in `notes`.

    reasons: which cannot be read, and why, where that is known; else each image is tried.
    Raises `DataError` when more than 1% of the images, or all of a class in a split, are affected.
    """
    if reasons is None:
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


def find_unreadable(paths: Sequence[Path | Member]) -> dict[int, str]:
    """Which images cannot be read, by index and in its order, and why.

    Images behind a URL are not tried: they were when the index of their shards was made.
    """
    stamps = {i: stamp for i, path in enumerate(paths) if (stamp := _stamp(path))}
    if not stamps:
        return {}
    folder = os.path.commonpath([os.path.dirname(name) for name, _ in stamps.values()])
    cache = cache_folder() / f"readable-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.json"
    known = _read_cache(cache)
    unknown = [i for i, (name, stamp) in stamps.items() if known.get(name) != stamp]
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


def _stamp(path: Path | Member) -> tuple[str, str] | None:
    """What an image is remembered by; None for one that is behind a URL."""
    file = path.shard_path if isinstance(path, Member) else path
    if file is None:
        return None
    place = f"::{path.offset}+{path.size}" if isinstance(path, Member) else ""
    try:
        status = file.stat()
    except OSError:  # `why_unreadable` will say what is wrong
        return os.fspath(file) + place, ""
    return os.path.abspath(file) + place, f"{status.st_size}-{status.st_mtime_ns}"


def why_unreadable(source: Path | Member | bytes) -> str | None:
    """Why an image cannot be read; None where it can."""
    try:
        read_image(source.read_bytes() if isinstance(source, Member) else source)
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
