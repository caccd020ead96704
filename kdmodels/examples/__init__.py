"""Pictures that may be shown: synthetic examples of every class, and what is known of them.

They come from `python -m train examples`, which writes this folder's index.json.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kdmodels.tasks import get_task

FOLDER = Path(__file__).parent
MAKES = {
    "composite": "Synthetic example: blended from {sources} training films of class {name}, each of "
    "another patient; not a patient.",
    "drawn": "Synthetic example: drawn by a program after what is typical of {name}; made from "
    "{sources} images, not a patient.",
}
"""How an example was made -> its caption."""


class ExamplesError(Exception):
    """The examples' index is not what it should be; the message says what is wrong."""


@dataclass(frozen=True)
class Example:
    """One synthetic picture of a class. sha256: of the file; sources: images that went into it."""

    path: Path
    class_id: str
    caption: str
    sha256: str
    sources: int
    attribution: str


@cache
def examples(task_id: str, folder: Path = FOLDER) -> tuple[Example, ...]:
    """The synthetic examples of a task, in the order of its classes; none where none were made.

    Raises `ValueError` for an unknown task and `ExamplesError` for a damaged index.
    """
    task = get_task(task_id)
    path = folder / "index.json"
    if not path.is_file():
        return ()
    names = dict(zip(task.class_ids, task.class_names, strict=True))
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        found = [
            Example(
                path=folder / row["file"],
                class_id=row["class"],
                caption=MAKES[row["made"]].format(
                    sources=row["sources"] or "no", name=names[row["class"]]
                ),
                sha256=row["sha256"],
                sources=row["sources"],
                attribution=row["attribution"],
            )
            for row in index["examples"]
            if row["task"] == task.id
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExamplesError(
            f"{path} is damaged ({error!r}); write it again with python -m train examples --write."
        ) from error
    return tuple(sorted(found, key=lambda e: (task.class_ids.index(e.class_id), e.path.name)))
