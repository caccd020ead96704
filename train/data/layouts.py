"""Finding a data set's folders, however deep the archive was unpacked."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from train.data.manifest import DataError

MAX_DEPTH = 4  # levels below the given root that are searched
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}


def find_parents(root: Path, names: Iterable[str]) -> list[Path]:
    """Folders at or below `root` that hold a subfolder called as one of `names`, in any case."""
    wanted = {name.casefold() for name in names}
    found = []
    for folder, below, _ in os.walk(root, followlinks=True):
        here = Path(folder)
        below[:] = sorted(name for name in below if _counts(name))
        if wanted & {name.casefold() for name in below}:
            found.append(here)
            below.clear()
        elif len(here.relative_to(root).parts) >= MAX_DEPTH:
            below.clear()
    return found


def known_subfolders(
    folder: Path, known: Mapping[str, str], what: str, ignored: str = ""
) -> list[tuple[Path, str]]:
    """Each subfolder with the meaning that `known` gives its name, sorted by name.

    Raises `DataError` that names a subfolder which is not known; `what` says what it should be.
    """
    meanings = {name.casefold(): meaning for name, meaning in known.items()}
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and _counts(p.name))
    for path in subfolders:
        if path.name.casefold() not in meanings and path.name != ignored:
            raise DataError(
                f"{folder} holds the unknown {what} folder '{path.name}'; "
                f"known: {', '.join(known)}; rename it, or move it away."
            )
    return [(p, meanings[p.name.casefold()]) for p in subfolders if p.name != ignored]


def images_in(folder: Path) -> list[Path]:
    """The PNG and JPEG files of a folder, sorted by name."""
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and _counts(p.name)
    )


def _counts(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))  # what archives from other systems add
