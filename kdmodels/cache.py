"""The one folder where what takes long to make is kept between runs. All in it can be deleted."""

import os
import stat
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

NAME = "teacher-and-student"


def _usable(folder: Path) -> bool:
    """Make the folder if needed; whether it is this user's alone and can be written to.

    Compiled networks are kept there, which are input to native code: none from other users.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        if hasattr(os, "getuid") and (
            found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        ):
            return False
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def cache_folder() -> Path | None:
    """$KD_CACHE, else `teacher-and-student` in $XDG_CACHE_HOME, else in ~/.cache.

    Where that cannot be written to, or others can write to it, a folder of this user among the
    temporary files; None where there is no such place either.
    """
    places = []
    if own := os.environ.get("KD_CACHE"):
        places.append(Path(own))
    elif shared := os.environ.get("XDG_CACHE_HOME"):
        places.append(Path(shared) / NAME)
    else:
        with suppress(RuntimeError):  # there is no home
            places.append(Path.home() / ".cache" / NAME)
    user = os.getuid() if hasattr(os, "getuid") else "user"
    places.append(Path(tempfile.gettempdir()) / f"{NAME}-{user}")
    return next((place for place in places if _usable(place)), None)


def cache_path(name: str) -> Path:
    """A file or folder in there; where there is no folder, to read or write it raises `OSError`."""
    return (cache_folder() or Path(os.devnull)) / name


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or none. Raises `OSError` where it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(
        f"{path.name}.{uuid.uuid4().hex}.partial"
    )  # mkstemp hides it from others
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
