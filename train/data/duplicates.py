"""Near-duplicate images: perceptual hashes, kept between runs, and the groups that they form.

The hash is pHash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010) as in imagehash: the signs, about their median, of the 16 x 16 lowest DCT frequencies.
"""

import csv
import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import imagehash
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from kdmodels.cache import cache_path, write_atomically
from kdmodels.images.read import ImageError, read_image
from train.data.manifest import DataError

MAX_DISTANCE = 16
"""Hashes (256 bits) within this Hamming distance are taken for the same picture.

Measured on 700 chest films at 256 x 256: a copy saved as JPEG (quality 40 to 75), resized through
128 or 224 px or with gamma 1.2 lies within 16, as do half of the copies cropped by 1 % a side;
the closest of 244,650 pairs of different films lie 58 apart, and the tail falls tenfold per
9 bits. Mirrored, turned or more closely cropped copies are not found.
"""

_SIDE = 16  # of the hash: 16 x 16 bits, 32 bytes
_PAIRS = 2**22  # compared at a time; about 70 MB
_COLUMNS = ["file", "size", "mtime_ns", "phash"]


def hash_image(path: Path) -> np.ndarray:
    """pHash of one image as (32,) uint8. Raises `DataError` by name where it cannot be read."""
    try:
        pixels = read_image(path).pixels
    except ImageError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return np.packbits(imagehash.phash(pixels, hash_size=_SIDE).hash)


def hash_images(paths: Sequence[Path], root: Path) -> np.ndarray:
    """pHashes of images under `root`, in their order: (N, 32) uint8.

    About 2 ms an image, so they are kept in the cache folder, by file name below `root`, size and
    modification time; also when this is interrupted. An image that cannot be read is like no
    other: it gets the SHA-256 of its name instead, for this time.
    """
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    cache = cache_path(f"phash-{name}.csv")
    keys = [_key(path, root) for path in paths]
    known = _read_cache(cache)
    missing = [(key, path) for key, path in zip(keys, paths, strict=True) if key not in known]
    unreadable: dict[tuple[str, str, str], np.ndarray] = {}
    try:
        for key, path in tqdm(missing, "Looking for duplicates", unit="image", disable=None):
            try:
                known[key] = hash_image(path)
            except DataError:
                digest = hashlib.sha256(os.fsencode(key[0])).digest()
                unreadable[key] = np.frombuffer(digest, np.uint8)
    finally:
        if missing:
            _write_cache(cache, {key: known[key] for key in keys if key in known})
    hashes = known | unreadable
    return np.stack([hashes[key] for key in keys]) if keys else np.empty((0, 32), np.uint8)


def group_duplicates(hashes: np.ndarray, max_distance: int = MAX_DISTANCE) -> np.ndarray:
    """Group hashes that are linked by pairs within `max_distance` bits (single linkage).

    hashes: (N, 32) uint8. Returns (N,) integers: for each, the index of its group's first member.
    Compares all pairs, in blocks: 34,000 hashes take about 10 s and 70 MB.
    """
    unique, which = np.unique(hashes, axis=0, return_inverse=True)
    words = np.ascontiguousarray(np.ascontiguousarray(unique).view(np.uint64).T)  # (4, U)
    count = words.shape[1]
    step = max(1, _PAIRS // max(1, count))
    pairs = [np.empty((2, 0), np.intp)]
    for start in range(0, count, step):
        distance = sum(
            np.bitwise_count(word[start : start + step, None] ^ word[None, start:]).astype(np.int16)
            for word in words
        )
        pairs.append(np.stack(np.nonzero(distance <= max_distance)) + start)
    rows, columns = np.concatenate(pairs, axis=1)
    links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    labels = connected_components(links, directed=False)[1][which.reshape(-1)]
    _, first, group = np.unique(labels, return_index=True, return_inverse=True)
    return first[group.reshape(-1)]


def _key(path: Path, root: Path) -> tuple[str, str, str]:
    status = path.stat()
    return path.relative_to(root).as_posix(), str(status.st_size), str(status.st_mtime_ns)


def _read_cache(path: Path) -> dict[tuple[str, str, str], np.ndarray]:
    """Whatever is wrong with the cache, it counts as empty and is written anew."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        known = {
            (name, size, mtime): np.frombuffer(bytes.fromhex(phash), np.uint8)
            for name, size, mtime, phash in rows
        }
    except (OSError, ValueError, csv.Error):
        return {}
    damaged = header != _COLUMNS or any(len(phash) != 32 for phash in known.values())
    return {} if damaged else known


def _write_cache(path: Path, known: dict[tuple[str, str, str], np.ndarray]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([_COLUMNS, *((*k, v.tobytes().hex()) for k, v in known.items())])
    try:
        write_atomically(path, file.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        warnings.warn(
            f"The image hashes cannot be kept in {path} ({error.strerror}); "
            "the next run computes them again.",
            stacklevel=2,
        )
