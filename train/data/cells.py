"""Files that lie in the rows of a table, each read when it is needed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Cell:
    """A file in a row of a table that is mapped from the disk, so reading another row costs nothing.

    table: has one column, of undecoded images. place: what messages call the table. name: of the
    file itself, as `pathlib.Path.name`. size: in bytes. Worker processes may be forks: no state is
    kept between reads.
    """

    table: "Dataset" = field(repr=False, compare=False)
    place: str
    row: int
    name: str
    size: int

    def __str__(self) -> str:
        return f"row {self.row} of {self.place} ({self.name})"

    @property
    def file(self) -> Path:
        """The first file of the table on this machine."""
        return Path(self.table.cache_files[0]["filename"])

    def read_bytes(self) -> bytes:
        """The content."""
        (cell,) = self.table[self.row].values()
        return cell["bytes"]


def file_size(path: Path | Cell) -> int:
    """Number of bytes of a file. Raises `OSError` where it is not there."""
    return path.size if isinstance(path, Cell) else path.stat().st_size
