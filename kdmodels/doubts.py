"""What speaks against taking the answers to a picture at their word; it stands beside them.

A doubt is one sentence for the user and forbids nothing. It is about the picture and the way it was
read, so it is the same for every network.
"""

from collections.abc import Callable

from kdmodels.familiar import FamiliarityError, check
from kdmodels.images import CheckedImage
from kdmodels.lungs import stored_finder
from kdmodels.models import CheckpointError
from kdmodels.tasks import Task

# How notes of `CheckedImage` begin that tell of another picture than the file may have been meant
# to show. Not among them: what changes no more than the number of bits or which side is up.
CHANGES = (
    "first of ",
    "inverted, ",
    "window ",
    "display window ",
    "display table ",
    "values between ",
    "pixels without ",
    "transparency ",
)


def unlike(task: Task, checked: CheckedImage) -> tuple[str, ...]:
    """Why the picture does not look like its modality, or that no check of that is stored."""
    try:
        reason = check(task, checked.pixels).reason
    except FamiliarityError:
        return (f"No check is stored that a picture is of this kind: {task.name}.",)
    return (reason,) if reason else ()


def changed(task: Task, checked: CheckedImage) -> tuple[str, ...]:
    """What was done to the pixels on reading that may change what they mean."""
    notes = [note for note in checked.notes if note.startswith(CHANGES)]
    return (f"Changed on reading: {'; '.join(notes)}.",) if notes else ()


def lungless(task: Task, checked: CheckedImage) -> tuple[str, ...]:
    """Why a film does not show two whole lungs; nothing for tasks that are not about lungs."""
    if not task.lung_masks:
        return ()
    try:
        finder = stored_finder()
    except CheckpointError as error:
        return (f"Lungs cannot be looked for: {error}",)
    reason = finder(checked.pixels).reason if finder else None
    return (reason,) if reason else ()


# Each gives its sentences, or none. The gravest come first.
CHECKS: tuple[Callable[[Task, CheckedImage], tuple[str, ...]], ...] = (unlike, lungless, changed)


def doubts_of(task: Task, checked: CheckedImage) -> tuple[str, ...]:
    """All doubts about a picture as one of the task's, one sentence each; empty where there is none.

    Takes some milliseconds; the first call opens the lung finder.
    """
    return tuple(doubt for look in CHECKS for doubt in look(task, checked))
