"""Data sets as Parquet: a folder, a data set on the Hugging Face Hub, or a file behind a URL.

The columns: `image` (its path is the file's name), `label` (text, or numbers with names), and
perhaps `split`, `group`, `source` and `mask` (an image). `datasets` keeps the rows in its cache and
maps them from there, so that each is at hand: the balanced draw, the views, resuming and the
teacher's targets are what they are with files, and training gives the same weights. Nothing is
streamed: the cache grows by the size of the data set, by twice that where it is fetched. What is
behind a URL is fetched anew when its ETag changes, and a data set on the Hub when it has a commit.
"""

import hashlib
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from urllib.parse import urlsplit

import datasets
import pyarrow as pa
import pyarrow.compute
import yaml
from datasets import (
    ClassLabel,
    Dataset,
    DatasetBuilder,
    Features,
    Image,
    Value,
    load_dataset_builder,
)
from datasets.packaged_modules.cache.cache import Cache  # of a data set whose Hub is out of reach
from datasets.packaged_modules.parquet.parquet import Parquet
from pyarrow.parquet import ParquetWriter
from tqdm import tqdm

from kdmodels.cache import cache_path
from kdmodels.tasks import Task
from train.data.cells import Cell, file_size
from train.data.manifest import SPLITS, DataError, Manifest, Sample

PATTERNS = ("*.parquet", "data/*.parquet")  # here, and where the Hub's own tools put them
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
SPLIT_NAMES = {"validation": "val"}  # as others call them
WANTED, FACTS = ("image", "label"), ("split", "group", "source")
ROWS = 100  # in a row group, which readers fetch as one
CARD = """---
{configs}---
# {name}

{count:,} images of the task `{task}` ({classes}). Columns: `image`, `label`, `split`, `group` (what \
must stay in one split), `source`{mask}.
{notes}"""

datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # nobody is told what is opened


# --- Reading ---------------------------------------------------------------------------------


def is_parquet(root: str | Path) -> bool:
    """Whether it names a Parquet file, a folder of some, a URL, or what can be a data set's id."""
    if "://" in str(root):
        return True
    path = Path(root).expanduser()
    if path.is_dir():
        return any(found for pattern in PATTERNS for found in path.glob(pattern))
    return path.suffix == ".parquet" or HUB_ID.fullmatch(str(root)) is not None


def read_parquet(root: str | Path, task: Task) -> Manifest:
    """Read a folder or file of Parquet, a data set's id on the Hub, or a URL (`hf://` too).

    A set without `split` is split as its files are; one without `group` has each image as its own.
    Raises `DataError` for what is missing, damaged, or cannot be fetched.
    """
    name, tables = _load(root)
    samples = [s for split, table in tables.items() for s in _samples(table, split, root, name)]
    notes = ()
    if not all("group" in table.column_names for table in tables.values()):
        notes = (
            f"{root} has no column 'group': each image counts as independent of all others, "
            "so images of one patient may lie in two splits.",
        )
    return Manifest(task, name, tuple(samples), notes)


def _load(root: str | Path) -> tuple[str, dict[str, Dataset]]:
    """The name of a data set, and its tables by split, mapped from the cache."""
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        builder = _builder(root)
        builder.download_and_prepare()
        tables = builder.as_dataset()
    except DataError:
        raise
    except Exception as error:  # each way to fetch a file has errors of its own
        raise DataError(
            f"{root} cannot be read as Parquet ({_reason(error)}); it must be a folder with Parquet "
            "files, one file, its URL, or the id of a data set on the Hugging Face Hub."
        ) from error
    named = builder.config.name
    stem = PurePath(urlsplit(str(root)).path).name.removesuffix(".parquet")
    return stem if named.startswith("default") else named, dict(tables)


def _builder(root: str | Path) -> DatasetBuilder:
    cache = cache_path("datasets")
    if "://" in str(root):
        return load_dataset_builder("parquet", data_files=str(root), cache_dir=str(cache))
    path = Path(root).expanduser()
    if path.exists():  # datasets itself would take a folder that has changed for the same
        path, cache = path.absolute(), cache / _state_of(path)
    if path.is_file():
        return load_dataset_builder("parquet", data_files=str(path), cache_dir=str(cache))
    builder = load_dataset_builder(str(path), cache_dir=str(cache))
    if not isinstance(builder, Parquet | Cache):
        raise DataError(f"{root} is a data set, but not of Parquet files.")
    return builder


def _state_of(path: Path) -> str:
    """Digest of where a folder or file is, and of names, sizes and times of what it holds."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stamps = [(str(file), (status := file.stat()).st_size, status.st_mtime_ns) for file in files]
    return hashlib.sha256(repr((path.resolve(), stamps)).encode()).hexdigest()[:16]


def _reason(error: BaseException) -> str:
    """The first line of what an error, or the one behind it, says."""
    error = error.__cause__ or error
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")


def _samples(table: Dataset, split: str, root: str | Path, name: str) -> Iterator[Sample]:
    place = f"{root}, {split}"
    if missing := [column for column in WANTED if column not in table.column_names]:
        raise DataError(f"{place} lacks the column(s) {', '.join(missing)}.")
    images = _cells(table, "image", place)
    if empty := next((i for i, image in enumerate(images) if image is None), None):
        raise DataError(f"Row {empty} of {place} has no image; its bytes must be in the file.")
    masks = _cells(table, "mask", place) if "mask" in table.column_names else [None] * len(images)
    rows = range(len(images))
    usual = {
        "split": [split] * len(images),
        "group": [f"{split}-{row}" for row in rows],
        "source": [name] * len(images),
    }
    labels = _labels(table, place)
    splits, *facts = (
        _texts(table, fact, place) if fact in table.column_names else usual[fact] for fact in FACTS
    )
    splits = [SPLIT_NAMES.get(split, split) for split in splits]
    for image, label, *row, mask in zip(images, labels, splits, *facts, masks, strict=True):
        yield Sample(image, label, *row, mask)


def _cells(table: Dataset, column: str, place: str) -> list[Cell | None]:
    """The files of a column, None where there is none."""
    feature = table.features[column]
    if not isinstance(feature, Image) and feature != Value("binary"):
        raise DataError(f"The column '{column}' of {place} holds no images.")
    table = table.select_columns([column]).cast_column(column, Image(decode=False))
    cells = table.data.column(column)
    names = pyarrow.compute.struct_field(cells, "path").to_pylist()
    content = pyarrow.compute.struct_field(cells, "bytes")
    sizes = pyarrow.compute.binary_length(content).to_pylist()
    return [
        size and Cell(table, place, row, PurePath(name or f"{column}-{row:08d}").name, size)
        for row, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]


def _labels(table: Dataset, place: str) -> list[str]:
    feature = table.features["label"]
    if isinstance(feature, ClassLabel):
        names = dict(enumerate(feature.names))
        return [str(names.get(number, number)) for number in table["label"]]
    if feature not in (Value("string"), Value("large_string")):
        raise DataError(
            f"The column 'label' of {place} must hold text, or numbers with names (ClassLabel)."
        )
    return _texts(table, "label", place)


def _texts(table: Dataset, column: str, place: str) -> list[str]:
    values = list(table[column])
    if None in values:
        raise DataError(f"Row {values.index(None)} of {place} lacks its {column}.")
    return [str(value) for value in values]


# --- Making ----------------------------------------------------------------------------------


def write_parquet(manifest: Manifest, folder: Path, megabytes: float) -> None:
    """Copy a data set into Parquet files of about that size, as the Hub can host and show them.

    The images keep their bytes and their order within a split, so `Manifest.id` stays. The folder
    appears when all is written. Raises `DataError` when it holds files already or cannot be written.
    """
    if megabytes <= 0:
        raise DataError(f"A file cannot have {megabytes} MB; name a size above 0 with --size.")
    folder = folder.absolute()
    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder} holds files already; name another folder with --out.")
        partial.mkdir(parents=True)
        with tqdm(total=len(manifest.samples), desc="Packing", disable=None) as bar:
            for split in SPLITS:
                samples = [sample for sample in manifest.samples if sample.split == split]
                for number, part in enumerate(_parts(samples, megabytes * 10**6)):
                    _write_part(part, manifest, partial / f"{split}-{number:05d}.parquet")
                    bar.update(len(part))
        (partial / "README.md").write_text(_card(manifest), encoding="utf-8")
        os.replace(partial, folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _files_of(sample: Sample) -> list[Path | Cell]:
    return [file for file in (sample.path, sample.mask) if file]


def _parts(samples: Sequence[Sample], limit: float) -> Iterator[list[Sample]]:
    """Samples in order, as many together as reach `limit` bytes."""
    part, size = [], 0
    for sample in samples:
        part.append(sample)
        size += sum(map(file_size, _files_of(sample)))
        if size >= limit:
            yield part
            part, size = [], 0
    if part:
        yield part


def _write_part(samples: Sequence[Sample], manifest: Manifest, file: Path) -> None:
    features = {
        "image": Image(),
        "label": ClassLabel(names=list(manifest.task.class_ids)),
        **{fact: Value("string") for fact in FACTS},
    }
    if _has_masks(manifest):
        features["mask"] = Image()
    schema = Features(features).arrow_schema
    with ParquetWriter(file, schema) as writer:
        for start in range(0, len(samples), ROWS):
            rows = [_row(sample, manifest.task) for sample in samples[start : start + ROWS]]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _row(sample: Sample, task: Task) -> dict:
    return {
        "image": _cell(sample.path),
        "label": task.class_ids.index(sample.label),
        **{fact: getattr(sample, fact) for fact in FACTS},
        "mask": sample.mask and _cell(sample.mask),
    }


def _cell(file: Path | Cell) -> dict:
    return {"bytes": file.read_bytes(), "path": file.name}


def _has_masks(manifest: Manifest) -> bool:
    return any(sample.mask for sample in manifest.samples)


def _card(manifest: Manifest) -> str:
    """What the Hub shows of the data set; the name of its configuration is that of the data set."""
    splits = [split for split in SPLITS if any(s.split == split for s in manifest.samples)]
    files = [{"split": split, "path": f"{split}-*.parquet"} for split in splits]
    configs = {"configs": [{"config_name": manifest.name, "data_files": files}]}
    return CARD.format(
        configs=yaml.safe_dump(configs, sort_keys=False),
        name=manifest.name,
        count=len(manifest.samples),
        task=manifest.task.id,
        classes=", ".join(manifest.task.class_ids),
        mask=", `mask` (of the lungs)" if _has_masks(manifest) else "",
        notes="".join(f"\n- {note}" for note in manifest.notes),
    )
