"""The official COVID-QU-Ex data set: chest X-rays with lung masks, in folders.

Tahir et al., "COVID-19 infection localization and severity grading from chest X-ray images",
Computers in Biology and Medicine 139, 2021; https://www.kaggle.com/dsv/3122958. 33,920 films of
256 x 256 px from several collections that overlap, so the same film can be in two splits.
"""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from kdmodels.tasks import TASKS
from train.data.duplicates import MAX_DISTANCE, group_duplicates, hash_images
from train.data.layouts import find_parents, images_in, known_subfolders
from train.data.manifest import DataError, Manifest, Sample

SPLIT_FOLDERS = {"Train": "train", "Val": "val", "Test": "test"}
CLASS_FOLDERS = {"COVID-19": "covid", "Non-COVID": "pneumonia", "Normal": "normal"}
_LUNG, _INFECTION = "lung segmentation data", "infection segmentation data"


def read_covid_qu_ex(root: str | Path) -> Manifest:
    """Read the tree `[...]/{Train,Val,Test}/{COVID-19,Non-COVID,Normal}/{images,lung masks}/`.

    `root` is the folder that holds Train, Val and Test, or one up to four levels above it. Of the
    two trees of the archive the lung one is read; the infection one holds a part of its films.

    The official split is kept but for near-duplicates (`train.data.duplicates`): films that show the
    same picture form one group, and a group that the split separates goes to train, so that val
    and test stay clean. Duplicates with different labels are dropped. `notes` counts both.

    Raises `DataError` for another layout, or an unknown split or class folder.
    """
    root = Path(root).expanduser()
    tree, notes = _choose_tree(root)
    films = _list_films(tree)
    first = group_duplicates(hash_images([film.path for film in films], tree))
    samples, counts = settle_duplicates(
        [replace(film, group=films[i].group) for film, i in zip(films, first, strict=True)]
    )
    return Manifest(TASKS["cxr"], "covid-qu-ex", samples, (*notes, *counts))


def settle_duplicates(films: list[Sample]) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Give every group one label and one split: returns the films that stay, and notes.

    A group with several labels is dropped; one in several splits goes to train.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    for film in films:
        groups[film.group].append(film)
    kept: list[Sample] = []
    duplicates = moved = dropped = 0
    for members in groups.values():
        splits = {film.split for film in members}
        split = splits.pop() if len(splits) == 1 else "train"
        duplicates += len(members) - 1
        if len({film.label for film in members}) > 1:
            dropped += len(members)
            continue
        moved += sum(film.split != split for film in members)
        kept += [replace(film, split=split) for film in members]
    notes = (
        f"{duplicates} films repeat an earlier one (pHash within {MAX_DISTANCE} of 256 bits); "
        "each group of repeats is in one split.",
        f"{moved} films were moved from val or test to train, where a film like them is.",
        f"{dropped} films were dropped, as films like them have another label.",
    )
    return tuple(kept), notes


def _choose_tree(root: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder with Train, Val and Test, and what is to be said about the choice."""
    trees: dict[str, list[Path]] = defaultdict(list)
    for folder in find_parents(root, SPLIT_FOLDERS):
        parts = [root.resolve().name, *folder.relative_to(root).parts]
        parts = {part.casefold() for part in parts}
        trees[next((kind for kind in (_LUNG, _INFECTION) if kind in parts), "")].append(folder)
    chosen = trees[_LUNG] or trees[_INFECTION] or trees[""]
    if not chosen:
        raise DataError(
            f"{root} holds no COVID-QU-Ex: no folder with {', '.join(SPLIT_FOLDERS)} was found."
        )
    if len(chosen) > 1:
        raise DataError(f"{root} holds several data sets ({chosen[0]} and {chosen[1]}); name one.")
    if trees[_LUNG] and trees[_INFECTION]:
        return chosen[0], ("Infection Segmentation Data was left out: a part of the lung tree.",)
    if trees[_INFECTION]:
        return chosen[0], ("Only Infection Segmentation Data was found: a part of the data set.",)
    return chosen[0], ()


def _list_films(tree: Path) -> list[Sample]:
    """All films of a tree, each a group of its own, named after its file."""
    films = []
    for split_folder, split in known_subfolders(tree, SPLIT_FOLDERS, "split"):
        for folder, label in known_subfolders(split_folder, CLASS_FOLDERS, "class"):
            if not (folder / "images").is_dir():
                raise DataError(f"{folder} has no folder 'images'.")
            masks = folder / "lung masks"
            with_mask = {p.name for p in images_in(masks)} if masks.is_dir() else set()
            films += [
                Sample(
                    path=path,
                    label=label,
                    split=split,
                    group=path.stem,
                    source="covid-qu-ex",
                    mask=masks / path.name if path.name in with_mask else None,
                )
                for path in images_in(folder / "images")
            ]
    stems = Counter(film.group for film in films)
    return [
        film
        if stems[film.group] == 1
        else replace(film, group=film.path.relative_to(tree).as_posix())
        for film in films
    ]
