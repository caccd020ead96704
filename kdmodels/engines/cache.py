"""Compiled networks on disk, so that only the first start on a machine has to compile them.

An entry is two files: `<key>.blob`, which OpenVINO wrote, and `<key>.json`, which says what it is
of and holds its sha256. A blob is used only if that agrees; a damaged entry is removed. The folder
is bounded: entries that were not used for long go, and the least recently used ones beyond 2 GB.
"""

import hashlib
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

MAX_BYTES = 2_000_000_000
MAX_DAYS = 60  # without use
_DAY = 24 * 3600


def _usable(folder: Path) -> bool:
    """Make the folder if needed; whether it is this user's own and can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            return False  # a blob is input to native code: none from other users
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cache_folder() -> Path | None:
    """$KD_CACHE, else `teacher-and-student` in $XDG_CACHE_HOME, else in ~/.cache.

    Where that cannot be written to, a folder of this user among the temporary files; None where
    there is no such place either.
    """
    name = "teacher-and-student"
    places = []
    if own := os.environ.get("KD_CACHE"):
        places.append(Path(own))
    elif shared := os.environ.get("XDG_CACHE_HOME"):
        places.append(Path(shared) / name)
    else:
        with suppress(RuntimeError):  # there is no home
            places.append(Path.home() / ".cache" / name)
    user = os.getuid() if hasattr(os, "getuid") else "user"
    places.append(Path(tempfile.gettempdir()) / f"{name}-{user}")
    return next((place for place in places if _usable(place)), None)


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
        if self.folder is None:
            return
        blob_file, about_file = self._files(key)
        entry = {"key": key, "sha256": hashlib.sha256(blob).hexdigest(), "about": about}
        with suppress(OSError):
            self._write(blob_file, blob)
            self._write(about_file, json.dumps(entry, indent=1).encode())
        with suppress(OSError):
            self._prune()

    def remove(self, key: dict) -> None:
        for file in self._files(key) if self.folder else ():
            with suppress(OSError):
                file.unlink()

    def _write(self, file: Path, content: bytes) -> None:
        """Whole or not at all, whoever else writes the same."""
        handle, partial = tempfile.mkstemp(suffix=".partial", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.replace(partial, file)
        except OSError:
            with suppress(OSError):
                os.unlink(partial)
            raise

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
