"""Where results that take long are kept between runs. Everything here can be deleted."""

import os
import uuid
from pathlib import Path


def cache_folder() -> Path:
    """`explainable-kd` under `$XDG_CACHE_HOME`, or under `~/.cache`; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "explainable-kd"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see all of it or none. Raises `OSError` where it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")  # mkstemp would hide it from others
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
