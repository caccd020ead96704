"""Where results that take long are kept between runs. Everything here can be deleted."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """`explainable-kd` under `$XDG_CACHE_HOME`, or under `~/.cache`; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "explainable-kd"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or none. Raises `OSError` where it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
