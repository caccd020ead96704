"""Data sets in tar shards, on this machine or behind a URL, for those that do not fit one disk.

Shards follow the WebDataset convention: `<key>.<image suffix>` and `<key>.json`, with `label`,
`split`, `group`, `source` and perhaps `name` (of the file), and perhaps `<key>.mask.png` with its
name as `mask`; any WebDataset reader can stream them. Here `shards.json` says where each image
lies, and each is read when it is needed, as one range of bytes. So the balanced draw, the views,
resuming and the teacher's targets are what they are with files, and training gives the same
weights.
"""

import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import fsspec
from braceexpand import braceexpand
from fsspec.core import url_to_fs
from tqdm import tqdm
from webdataset import ShardWriter

from kdmodels.tasks import Task
from train.data.cache import write_atomically
from train.data.manifest import SPLITS, DataError, Manifest, Sample
from train.data.members import Member
from train.data.unreadable import leave_out_unreadable, why_unreadable

INDEX = "shards.json"
IMAGES = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp", "dcm")
FACTS = ("label", "split", "group", "source")  # of a sample, in its JSON and in the index
COLUMNS = ("name", *FACTS, "shard", "offset", "size", "mask")  # mask: name, offset, size or null
END_BYTES = range(1024, tarfile.RECORDSIZE + 1025)  # zeros after the last member of a tar file


# --- Reading ---------------------------------------------------------------------------------


def read_shards(root: str | Path, task: Task) -> Manifest:
    """Read the data set whose `shards.json` lies in `root`, a folder or a URL.

    Shards that the index names without a folder lie beside it. Raises `DataError` when the index
    is missing, damaged or of another task, and when a shard is missing or has another size.
    """
    file = f"{str(root).rstrip('/')}/{INDEX}"
    try:
        with fsspec.open(file, "rb") as opened:
            content = opened.read()
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{file} cannot be read ({_named(error)}).") from error
    try:
        index = json.loads(content)
        shards = [(_place(file, name), size) for name, size in index["shards"]]
        rows = [dict(zip(index["columns"], row, strict=True)) for row in index["samples"]]
        samples = tuple(_sample(row, shards[row["shard"]][0]) for row in rows)
        skipped = tuple(
            Sample(path=Path(row["name"]), number=row["number"], **{f: row[f] for f in FACTS})
            for row in index["skipped"]
        )
        name, task_id, notes = index["name"], index["task"], tuple(index["notes"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{file} is damaged ({_named(error)}); fetch it again, or make it again from the "
            "shards with: python -m train shards --index."
        ) from error
    if task_id != task.id:
        raise DataError(f"{file} is of the task '{task_id}', not of '{task.id}'.")
    _check_sizes(shards)
    return Manifest(task, name, samples, notes, skipped)


def _place(index: str, shard: str) -> str:
    whole = "://" in shard or os.path.isabs(shard)
    return shard if whole else f"{index.removesuffix(INDEX)}{shard}"


def _sample(row: dict, shard: str) -> Sample:
    return Sample(
        path=Member(shard, row["name"], row["offset"], row["size"]),
        mask=Member(shard, *row["mask"]) if row["mask"] else None,
        **{fact: row[fact] for fact in FACTS},
    )


def _check_sizes(shards: Sequence[tuple[str, int]]) -> None:
    """Raise `DataError` for a shard that is missing or has another size than the index says."""
    with ThreadPoolExecutor(16) as pool:  # of requests, where the shards are behind a URL
        for (shard, size), found in zip(
            shards, pool.map(_size_of, [s for s, _ in shards]), strict=True
        ):
            if isinstance(found, Exception):
                raise DataError(f"The shard {shard} cannot be opened: {_named(found)}") from found
            if found not in (size, None):  # some servers do not tell
                raise DataError(
                    f"The shard {shard} has {found:,} bytes, not {size:,}; fetch it again."
                )


def _size_of(shard: str) -> int | Exception | None:
    try:
        system, path = url_to_fs(shard)
        return system.size(path)
    except Exception as error:  # each file system has errors of its own
        return error


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


# --- Making ----------------------------------------------------------------------------------


def write_shards(manifest: Manifest, folder: Path, megabytes: float) -> Manifest:
    """Copy a data set into shards of about that size, with their index: the same images, in the
    same order within a split, so that `id` is the same. Returns what was written.

    Raises `DataError` when the folder holds shards already or cannot be written.
    """
    if megabytes <= 0:
        raise DataError(f"A shard cannot have {megabytes} MB; name a size above 0 with --size.")
    if (folder / INDEX).exists():
        raise DataError(f"{folder} holds shards already; name another folder with --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shards = _pack(manifest, folder, megabytes)
    except OSError as error:
        raise DataError(f"The shards cannot be written to {folder}: {error}.") from error
    written = replace(
        _scan(shards, manifest.task, manifest.name), notes=manifest.notes, skipped=manifest.skipped
    )
    if written.id != manifest.id:
        raise DataError(f"What was written to {folder} reads otherwise; is the disk sound?")
    _write_index(written, folder)
    return written


def index_shards(pattern: str, folder: Path, task: Task, name: str) -> Manifest:
    """Write an index of shards that are there, such as `https://host/cxr-{000000..000012}.tar`.

    Reads them all once, and leaves out images that cannot be read, as `open_manifest` does.
    Raises `DataError` for a damaged shard, and for a sample without its image or its facts.
    """
    shards = [s if "://" in s else os.path.abspath(s) for s in braceexpand(pattern)]
    manifest = _scan(shards, task, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_index(manifest, folder)
    except OSError as error:
        raise DataError(f"The index cannot be written to {folder}: {error}.") from error
    return manifest


def _pack(manifest: Manifest, folder: Path, megabytes: float) -> list[str]:
    """Write the tar files, each of one split; returns their paths in order."""
    shards: list[str] = []
    pattern = str(folder.absolute() / f"{manifest.task.id}-").replace("%", "%%")
    options = dict(maxsize=megabytes * 10**6, verbose=0, post=shards.append, mtime=0, encoder=False)
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        for number, sample in enumerate(tqdm(manifest.samples, "Packing", disable=None)):
            facts = {"name": sample.path.name} | {fact: getattr(sample, fact) for fact in FACTS}
            parts = {
                "__key__": f"{number:08d}",
                _suffix(sample.path): sample.path.read_bytes(),
            }
            if sample.mask:
                facts["mask"] = sample.mask.name
                parts[f"mask.{_suffix(sample.mask)}"] = sample.mask.read_bytes()
            parts["json"] = json.dumps(facts).encode()
            if sample.split not in writers:
                writer = ShardWriter(f"{pattern}{sample.split}-%06d.tar", **options)
                writers[sample.split] = stack.enter_context(writer)
            writers[sample.split].write(parts)
    return sorted(shards, key=lambda shard: (_split_rank(shard), shard))


def _split_rank(shard: str) -> int:
    return SPLITS.index(os.path.basename(shard).split("-")[-2])


def _suffix(path: Path | Member) -> str:
    suffix = path.name.rpartition(".")[2].lower()
    if suffix not in IMAGES:
        raise DataError(f"{path} has the unknown suffix '{suffix}'; known: {', '.join(IMAGES)}.")
    return suffix


def _scan(shards: Sequence[str], task: Task, name: str) -> Manifest:
    """All samples of shards, read from the tar files themselves; each image is tried once."""
    samples: list[Sample] = []
    reasons: dict[int, str] = {}
    for shard in tqdm(shards, "Reading shards", disable=None):
        for sample, reason in _samples_of(shard):
            if reason is not None:
                reasons[len(samples)] = reason
            samples.append(sample)
    return leave_out_unreadable(Manifest(task, name, tuple(samples)), reasons)


def _samples_of(shard: str) -> Iterator[tuple[Sample, str | None]]:
    """The samples of one shard, each with the reason for which its image cannot be read."""
    images: dict[str, tuple[Member, str | None]] = {}
    masks: dict[str, Member] = {}
    facts: dict[str, bytes] = {}
    try:
        for key, suffix, member, content in _members_of(shard):
            if suffix == "json":
                facts[key] = content
            elif suffix in IMAGES:
                images[key] = member, why_unreadable(content)
            elif suffix.startswith("mask."):
                masks[key] = member
    except DataError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise DataError(
            f"The shard {shard} cannot be read ({_named(error)}); it must be there, whole and "
            "not compressed."
        ) from error
    for key in facts | images:
        if key not in facts or key not in images:
            lacking = "its image" if key in facts else "its .json"
            raise DataError(f"The sample '{key}' in {shard} lacks {lacking}.")
        image, reason = images[key]
        row = _read_facts(facts[key], f"{key}.json in {shard}")
        image = replace(image, name=row.get("name", image.name))
        if mask := masks.get(key):
            mask = replace(mask, name=row.get("mask", mask.name))
        yield Sample(image, **{f: row[f] for f in FACTS}, mask=mask), reason


def _read_facts(content: bytes, where: str) -> dict:
    try:
        row = json.loads(content)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise DataError(f"{where} is no JSON object with {', '.join(FACTS)}.")
    missing = [f for f in FACTS if not isinstance(row.get(f), str)]
    if missing:
        raise DataError(f"{where} lacks {', '.join(missing)} as text.")
    return row


def _members_of(shard: str) -> Iterator[tuple[str, str, Member, bytes]]:
    """Key, suffix, place and content of all files of a tar file. Raises `DataError` if it is cut."""
    end = 0
    with (
        fsspec.open(shard, "rb") as file,
        tarfile.open(fileobj=file, mode="r|") as tar,  # a stream: no server need answer a seek
    ):
        for info in tar:
            if info.isreg():
                folder, base = os.path.split(info.name)
                stem, _, suffix = base.partition(".")
                member = Member(shard, base, info.offset_data, info.size)
                content = tar.extractfile(info).read()
                yield os.path.join(folder, stem), suffix.lower(), member, content
            end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    size = _size_of(shard)
    if isinstance(size, int) and size - end not in END_BYTES:  # tarfile takes both for the end
        raise DataError(f"The shard {shard} is damaged or cut off after byte {end:,}.")


def _write_index(manifest: Manifest, folder: Path) -> None:
    """Write `shards.json`, last of all: without it there is no data set."""
    beside = f"{folder.absolute()}{os.sep}"
    paths = list(dict.fromkeys(sample.path.shard for sample in manifest.samples))
    numbers = {shard: number for number, shard in enumerate(paths)}
    content = {
        "name": manifest.name,
        "task": manifest.task.id,
        "notes": manifest.notes,
        "shards": [(shard.removeprefix(beside), _size_of(shard)) for shard in paths],
        "skipped": [
            {"name": s.path.name, "number": s.number} | {f: getattr(s, f) for f in FACTS}
            for s in manifest.skipped
        ],
        "columns": COLUMNS,
        "samples": [
            [
                s.path.name,
                *(getattr(s, fact) for fact in FACTS),
                numbers[s.path.shard],
                s.path.offset,
                s.path.size,
                s.mask and (s.mask.name, s.mask.offset, s.mask.size),
            ]
            for s in manifest.samples
        ],
    }
    write_atomically(folder / INDEX, (json.dumps(content) + "\n").encode())
