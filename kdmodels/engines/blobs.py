"""Compiled networks on disk, so that only the first start on a machine has to compile them.

An entry is two files: `<key>.blob`, which OpenVINO wrote, and `<key>.json`, which says what it is
of and holds its sha256. A blob is used only if that agrees; a damaged entry is removed. The folder
is bounded: entries that were not used for long go, and the least recently used ones beyond 2 GB.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from kdmodels.cache import write_atomically

MAX_BYTES = 2_000_000_000
MAX_DAYS = 60  # without use
_DAY = 24 * 3600


class BlobCache:
    """Blobs in one folder by what they are of; without a folder nothing is kept.

    Nothing here raises for a full disk, a damaged or vanished file, or a lost permission: what
    cannot be read is not there, and what cannot be written is not kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def _files(self, key: dict) -> tuple[Path, Path]:
        """(blob, JSON) of a key, which is a JSON object."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / f"{digest}.blob", self.folder / f"{digest}.json"

    def get(self, key: dict) -> tuple[np.ndarray, dict] | None:
        """The (bytes,) uint8 blob of a key, mapped into memory, and what was stored about it."""
        if self.folder is None:
            return None
        blob_file, about_file = self._files(key)
        try:
            entry = json.loads(about_file.read_text(encoding="utf-8"))
            blob = np.memmap(blob_file, np.uint8, "r")
            if entry["key"] != key or hashlib.sha256(blob).hexdigest() != entry["sha256"]:
                raise ValueError("another blob")
            about = dict(entry["about"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):  # ValueError: no JSON, an empty file
            self.remove(key)
            return None
        with suppress(OSError):
            os.utime(about_file)  # for `_prune`
        return blob, about

    def put(self, key: dict, blob: bytes, about: dict) -> None:
        """Keep a blob and a JSON object about it."""
        if self.folder is None or not self.folder.is_dir():
            return  # nobody but `cache_folder` makes it, with the rights that it needs
        blob_file, about_file = self._files(key)
        entry = {"key": key, "sha256": hashlib.sha256(blob).hexdigest(), "about": about}
        with suppress(OSError):
            write_atomically(blob_file, blob)
            write_atomically(about_file, json.dumps(entry, indent=1).encode())
        with suppress(OSError):
            self._prune()

    def remove(self, key: dict) -> None:
        for file in self._files(key) if self.folder else ():
            with suppress(OSError):
                file.unlink()

    def _prune(self) -> None:
        now = time.time()
        for partial in self.folder.glob("*.partial"):  # of a process that was killed
            if now - partial.stat().st_mtime > _DAY:
                partial.unlink()
        used = {file.stem: file.stat().st_mtime for file in self.folder.glob("*.json")}
        held = 0
        blobs = list(self.folder.glob("*.blob"))
        for blob in sorted(blobs, key=lambda file: -used.get(file.stem, 0)):
            held += blob.stat().st_size
            # A blob without its JSON, being written by another process or left, is new or goes.
            age = now - used.get(blob.stem, blob.stat().st_mtime)
            if held > MAX_BYTES or age > MAX_DAYS * _DAY:
                blob.with_suffix(".json").unlink(missing_ok=True)
                blob.unlink()
