"""Files inside tar shards, on this machine or behind a URL, each read as one range of bytes."""

import time
from dataclasses import dataclass
from pathlib import Path

from fsspec.core import url_to_fs

PAUSES = (1, 4)  # seconds before the second and the third attempt


@dataclass(frozen=True)
class Member:
    """A file that lies uncompressed inside a tar file: `size` bytes from `offset` on.

    shard: a path, or any URL that fsspec reads (https://, hf://, s3:// with s3fs, ...).
    name: of the file itself, as `pathlib.Path.name`.
    """

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}::{self.name}"

    @property
    def shard_path(self) -> Path | None:
        """Where the shard lies on this machine; None when it is behind a URL."""
        return None if "://" in self.shard else Path(self.shard)

    def read_bytes(self) -> bytes:
        """The content. Raises `OSError`; for a URL after three attempts."""
        pauses = () if self.shard_path else PAUSES
        for pause in (*pauses, None):
            try:
                # Asked each time: fsspec keeps one connection for each process, also after a fork.
                system, path = url_to_fs(self.shard)
                data = system.cat_file(path, start=self.offset, end=self.offset + self.size)
            except Exception as error:  # each file system has errors of its own
                if pause is None or isinstance(error, FileNotFoundError):
                    raise OSError(f"{type(error).__name__}: {error}") from error
                time.sleep(pause)
            else:
                break
        if len(data) != self.size:
            raise OSError(
                f"{len(data):,} bytes came instead of {self.size:,}; the shard is cut off, or its "
                "server does not answer requests for a range of bytes"
            )
        return data


def size_of(path: Path | Member) -> int:
    """Number of bytes of a file. Raises `OSError` where it is not there."""
    return path.size if isinstance(path, Member) else path.stat().st_size
