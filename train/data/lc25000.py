"""The official LC25000 data set: lung and colon tiles, split by the tile they were made from.

Borkowski et al., "Lung and Colon Cancer Histopathological Image Dataset (LC25000)",
arXiv:1912.12142, 2019. Its 25,000 files of 768 x 768 px are turned and mirrored copies of about
1,250 tiles, so a split by file tests on the training tiles. Which files share a tile comes from
LC25000-clean: Batchkala, Li, Rittscher, DEMI at MICCAI 2024, doi:10.1007/978-3-031-73748-0_2.
"""

import csv
import hashlib
import os
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from kdmodels.cache import cache_path, write_atomically
from kdmodels.tasks import TASKS
from train.data.layouts import find_parents, images_in, known_subfolders
from train.data.manifest import DataError, Manifest, Sample

CLASS_FOLDERS = {class_id: class_id for class_id in TASKS["histopathology"].class_ids}
CLUSTER_FOLDER = "lc25000_clusters"
CLUSTER_URL = (
    "https://raw.githubusercontent.com/GeorgeBatch/LC25000-clean/"
    "c6c55395b7f62910cf90bce6234f07e2671ff904/annotations/{}/UNI/resize_only/final_clusters.csv"
)
CLUSTER_SHA256 = {  # of the copies that this project was built with; 5,000 rows each
    "lung_n": "6b14639a655d388c0e06ac77aacdd45a6c0495409b288c15fd1372bbe1fb7e53",
    "lung_aca": "7c7cab2b70368440e31644146804cc891eeb4700eb91a3ccb0c81bb485b18448",
    "lung_scc": "a270102184674d8c8e0d8717befd2525df2002fea1b300c30b503843f4f05d14",
    "colon_n": "c842ca3506ce77824d89f6029c61c0c124882e11aba286c73f40092822640105",
    "colon_aca": "ba4ee1f8d996bfd06a6213c880d98b1e6a0048d5b9b72cb3180a0e4285b3cc4a",
}
# Clusters of these tables that show one tile, or overlapping fields of a slide: found by matching
# RootSIFT points up to a mirrored similarity (7 inliers or more; tiles of different classes have
# at most 6) among 5 files of each lung cluster and files 1 to 1000 of each colon class.
SAME_TILE = {
    "lung_n": "11+133 60+194+244 80+114+243 96+236 106+112 108+198 177+228 199+221 237+248",
    "lung_aca": "4+154+172 5+193 11+27 14+228 17+148+181 33+156 39+160 60+203 84+225 178+196",
    "lung_scc": "1+215 41+175 45+167 46+70 53+219 55+188 61+172 110+134+164 112+137 114+245 "
    "115+124 136+211 151+158 183+238 214+239",
    "colon_n": "0+159 29+161 34+75+106+234+241 38+227 40+154 51+157 52+103 63+69 76+199 79+167 "
    "84+116 85+219 114+134+226 118+206 120+131 132+251 143+228 151+189 153+173 175+230+243 "
    "176+232 193+218 208+223 239+248",
    "colon_aca": "39+241 100+172 117+143 234+248",
}
SPLIT_ENDS = {"train": 0.70, "val": 0.82, "test": 1.0}


def read_lc25000(root: str | Path, clusters: str | Path | None = None) -> Manifest:
    """Read the leaves `lung_n`, `lung_aca`, `lung_scc`, `colon_n` and `colon_aca` below `root`.

    Leaves of one class are merged, so that the Kaggle copy's own split, which separates copies of
    a tile, is ignored. `group` is the original tile; `split_of` gives its split.

    clusters: folder with a `<class>.csv` (columns cluster_label, img_path) for each class. By
    default `lc25000_clusters` in `root` or in one of the two folders above it, else
    `$KD_LC25000_CLUSTERS`, else the tables of LC25000-clean, fetched once and kept in the cache.

    Raises `DataError` for another layout, an unknown class folder, a file without a cluster, and
    a table that is missing, cannot be fetched or has not the expected SHA-256.
    """
    root = Path(root).expanduser()
    files, repeated = _list_files(root)
    folder = _cluster_folder(root, clusters)
    tiles = {label: _read_tiles(label, folder) for label in sorted({key[0] for key in files})}
    samples = []
    for (label, stem), path in sorted(files.items()):
        if stem not in tiles[label]:
            raise DataError(f"{path} is not in the table of original tiles of '{label}'.")
        tile = tiles[label][stem]
        samples.append(
            Sample(
                path=path,
                label=label,
                split=split_of(label, tile),
                group=f"{label}-{tile.zfill(3)}",
                source="lc25000",
            )
        )
    notes = ["Split by original tile; a split that the folders suggest is ignored."]
    if repeated:
        notes.append(f"{repeated} files were left out: another folder has one of the same name.")
    return Manifest(TASKS["histopathology"], "lc25000", tuple(samples), tuple(notes))


def split_of(label: str, tile: str) -> str:
    """Split of an original tile: a hash of its name against 70 / 12 / 18 %, with no random state.

    So a tile stays where it is, whatever files are missing. Of the 25,000 files, 17,420 / 2,938 /
    4,642 are in train / val / test; of the 1,174 tiles, 831 / 131 / 212.
    """
    digest = hashlib.sha256(f"{label}/{tile}".encode()).digest()
    position = int.from_bytes(digest[:6], "big") / 2**48
    return next(split for split, end in SPLIT_ENDS.items() if position < end)


def _list_files(root: Path) -> tuple[dict[tuple[str, str], Path], int]:
    """Path by (label, stem), and the number of files left out as repeated names."""
    files: dict[tuple[str, str], Path] = {}
    repeated = 0
    for parent in find_parents(root, CLASS_FOLDERS):
        for folder, label in known_subfolders(parent, CLASS_FOLDERS, "class", CLUSTER_FOLDER):
            for path in images_in(folder):
                repeated += (label, path.stem) in files
                files.setdefault((label, path.stem), path)
    if not files:
        raise DataError(
            f"{root} holds no LC25000: no folder {', '.join(CLASS_FOLDERS)} with images was found."
        )
    return files, repeated


def _cluster_folder(root: Path, clusters: str | Path | None) -> Path | None:
    """The folder of tables to use; None when they are to be fetched."""
    if clusters is not None:
        return Path(clusters).expanduser()
    root = root.resolve()
    for folder in (root, *root.parents[:2]):
        if (folder / CLUSTER_FOLDER).is_dir():
            return folder / CLUSTER_FOLDER
    named = os.environ.get("KD_LC25000_CLUSTERS")
    return Path(named).expanduser() if named else None


def _read_tiles(label: str, folder: Path | None) -> dict[str, str]:
    """Original tile of every file stem of a class: the first of the clusters that show it."""
    table = folder / f"{label}.csv" if folder else CLUSTER_URL.format(label)
    try:
        data = table.read_bytes() if folder else _fetch(label)
        rows = list(csv.DictReader(data.decode("utf-8-sig").splitlines()))
        tiles = {Path(row["img_path"]).stem: row["cluster_label"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"The table of original tiles {table} cannot be read; "
            "it needs the columns cluster_label and img_path."
        ) from error
    if _sha256(data) != CLUSTER_SHA256[label]:
        return tiles  # someone's own table: `SAME_TILE` does not speak of its clusters
    same = [clusters.split("+") for clusters in SAME_TILE[label].split()]
    first = {cluster: joined[0] for joined in same for cluster in joined}
    return {stem: first.get(cluster, cluster) for stem, cluster in tiles.items()}


def _fetch(label: str) -> bytes:
    """The table of a class from the cache, or from `CLUSTER_URL` and then into the cache."""
    url, cached = CLUSTER_URL.format(label), cache_path(f"{CLUSTER_FOLDER}/{label}.csv")
    with suppress(OSError):
        data = cached.read_bytes()
        if _sha256(data) == CLUSTER_SHA256[label]:
            return data
    try:
        with urlopen(url, timeout=30) as response:
            data = response.read(2**20)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"The table of original tiles could not be fetched ({error}): save {url} "
            f"as {label}.csv in a folder '{CLUSTER_FOLDER}' beside the data set, or in one "
            "that KD_LC25000_CLUSTERS names."
        ) from error
    if _sha256(data) != CLUSTER_SHA256[label]:
        raise DataError(f"{url} is not the table that this project knows (SHA-256 differs).")
    with suppress(OSError):  # without a cache it is fetched again next time
        write_atomically(cached, data)
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
