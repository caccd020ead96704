"""Uploads -> files to work on: images as they are, zips unpacked, hostile ones refused.

Nothing that a zip declares is trusted: names only label files, and bytes are counted while they
are unpacked. Only stored and deflated members are read, because those unpack in bounded steps.
"""

import io
import os
import re
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kdmodels.images.read import MAX_BYTES as MAX_FILE_BYTES

MAX_FILES = 500
MAX_BYTES = 512 * 2**20  # of all files of a zip together, unpacked
MAX_RATIO = 100  # unpacked bytes for each byte of the zip; DEFLATE can reach 1,000
HARMLESS_BYTES = 8 * 2**20  # up to here the ratio does not matter: a blank picture packs well
MAX_LISTING = 2**20  # bytes of a zip's list of members; 500 take about 50,000
MAX_NAME = 400  # characters of a member's path

TABLE = ".csv"
_RASTER = {".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".gif"}
_KNOWN = {TABLE, *_RASTER, ".dcm", ".dicom", ".dic", ".ima"}
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PACKED = (*_ZIP, b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_CLUTTER = re.compile(r"(^|/)(__MACOSX/|\.|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: controls, marks, line ends
_STEP = 2**20
# What `zipfile` raises on bad bytes; an encrypted or unknown member is a RuntimeError.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError)
_DAMAGED += (OverflowError, RuntimeError)
_TOO_LARGE = f"is larger than {MAX_FILE_BYTES // 2**20} MB; export a smaller image."


class ArchiveError(ValueError):
    """The uploads were refused as a whole. The message is one sentence: why and what to do."""


@dataclass(frozen=True)
class Found:
    """A file to work on.

    name: its own name, made different from all others by a number where needed; to be shown.
    path: where it lies, under a name made here. place: path inside the zip, with "/", or its name.
    """

    name: str
    path: Path
    place: str

    @property
    def is_table(self) -> bool:
        """Whether it is a CSV table and not an image."""
        return self.place.lower().endswith(TABLE)


@dataclass(frozen=True)
class Gathered:
    """Files in the order of the uploads, and one sentence for each file that was left out."""

    files: tuple[Found, ...]
    problems: tuple[str, ...]

    @property
    def images(self) -> tuple[Found, ...]:
        return tuple(file for file in self.files if not file.is_table)


class _Refused(Exception):
    """One member cannot be used; the message completes a sentence that begins with its name."""


def gather(uploads: Sequence[Path], folder: Path) -> Gathered:
    """Take image files, CSV tables and zips of both; unpack the zips into `folder`.

    Folders, hidden files and what macOS and Windows add are passed over without a word. A file
    that cannot be used is a problem and the others work: encrypted, damaged, packed once more,
    too large, or neither image nor table. That a name says "image" is not yet proof: `read_image`
    judges.

    Raises `ArchiveError`, and leaves nothing unpacked, where an upload is no whole zip or is made
    to do harm: a path outside, a link, a bomb, more than `MAX_FILES` or `MAX_BYTES`.
    """
    if len(uploads) > MAX_FILES + 1:
        raise ArchiveError(
            f"These are {len(uploads):,} files, and at most {MAX_FILES} are taken at a time; "
            "make several smaller sets."
        )
    work = _Gathering(folder)
    try:
        for upload in map(Path, uploads):
            work.take(upload)
    except BaseException:
        for path in work.unpacked:
            path.unlink(missing_ok=True)
        raise
    return Gathered(tuple(work.files), tuple(work.problems))


@dataclass
class _Gathering:
    folder: Path
    files: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unpacked: list[Path] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    image_count: int = 0
    table_count: int = 0
    out: int = 0

    def take(self, upload: Path) -> None:
        name = printable(upload.name)
        if not upload.is_file():
            self.problems.append(f"{name} is not a file; choose files or a zip of them.")
            return
        with upload.open("rb") as file:
            start = file.read(132)
        if start.startswith(_ZIP) or name.lower().endswith(".zip"):
            self._take_zip(upload, name)
            return
        self._count([name], "These are")
        try:
            _check_kind(name, start)
        except _Refused as reason:
            self.problems.append(f"{name} {reason}")
        else:
            self._add(name, upload, name)

    def _count(self, places: Sequence[str], where: str) -> None:
        """Count files, the first table apart: it comes on top of a full set of images."""
        tables = sum(place.lower().endswith(TABLE) for place in places)
        self.table_count += tables
        self.image_count += len(places) - tables
        count = self.image_count + max(0, self.table_count - 1)
        if count > MAX_FILES:
            raise ArchiveError(
                f"{where} {count:,} files, and at most {MAX_FILES} are taken at a time; "
                "make several smaller sets."
            )

    def _add(self, name: str, path: Path, place: str) -> None:
        stem, suffix = os.path.splitext(name)
        number = 1
        while name.casefold() in self.names:
            number += 1
            name = f"{stem} ({number}){suffix}"
        self.names.add(name.casefold())
        self.files.append(Found(name, path, place))

    def _take_zip(self, upload: Path, name: str) -> None:
        packed = upload.stat().st_size
        if packed > MAX_BYTES:
            raise ArchiveError(f"{name} is over {_mb(MAX_BYTES)}; make several smaller zips.")
        with _Bounded(name, upload) as file:
            with _plain_errors(name):
                archive = zipfile.ZipFile(file)
                members = list(_members(archive, name))
            self._count([place for _, place in members], f"With {name} there are")
            limit = _Limit(name, packed, self.out)
            limit.check(sum(info.file_size for info, _ in members), "would unpack")
            for info, place in members:
                self._take_member(archive, info, place, limit)
        self.out += limit.out

    def _take_member(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str, limit: "_Limit"
    ) -> None:
        name = PurePosixPath(place).name
        path = None
        try:
            _check_member(info, name)
            suffix = _suffix(name, _KNOWN)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=suffix, delete=False) as file:
                path = Path(file.name)
                self.unpacked.append(path)
                start = b""
                for step in _steps(archive, info, limit):
                    start = start or step[:132]
                    file.write(step)
            _check_kind(name, start)
        except _Refused as reason:
            if path:
                path.unlink()
            self.problems.append(f"{_short(place)} {reason}")
        else:
            self._add(name, path, place)


@contextmanager
def _plain_errors(name: str) -> Iterator[None]:
    """Turn what `zipfile` raises on a bad list of members into `ArchiveError`."""
    try:
        yield
    except ArchiveError:
        raise
    except _DAMAGED as error:
        raise ArchiveError(f"{name} is a damaged or incomplete zip; make it again.") from error


class _Bounded(io.FileIO):
    """A zip that cannot make `zipfile` build a list of millions, which it reads in one go."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(path)
        self.shown = name

    def read(self, size: int = -1) -> bytes:
        if size > MAX_LISTING:
            raise ArchiveError(
                f"{self.shown} lists far more files than the {MAX_FILES} that are taken at a time; "
                "make several smaller zips."
            )
        return super().read(size)


@dataclass
class _Limit:
    """Counts the bytes that come out of one zip, against its size on disk, which cannot lie.

    packed: that size. before: bytes that came out of other zips.
    """

    name: str
    packed: int
    before: int
    out: int = 0

    def add(self, count: int) -> None:
        self.out += count
        self.check(self.out, "unpacks")

    def check(self, count: int, verb: str) -> None:
        if count > max(HARMLESS_BYTES, MAX_RATIO * self.packed):
            raise ArchiveError(
                f"{self.name} {verb} to over {MAX_RATIO} times its size, as a zip bomb does; "
                "zip the images themselves again."
            )
        if self.before + count > MAX_BYTES:
            raise ArchiveError(
                f"With {self.name} there are over {_mb(MAX_BYTES)} of images; "
                "make several smaller sets."
            )


def _steps(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: _Limit) -> Iterator[bytes]:
    """The bytes of a member, counted; raises `_Refused` where they are damaged or too many."""
    size = 0
    try:
        with archive.open(info) as source:
            while step := source.read(_STEP):
                limit.add(len(step))
                size += len(step)
                if size > MAX_FILE_BYTES:
                    raise _Refused(_TOO_LARGE)
                yield step
    except ArchiveError:
        raise
    except _DAMAGED as error:
        raise _Refused("is damaged in the zip; make the zip again.") from error


def _members(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """The files of a zip with their places; raises `ArchiveError` for what points outside."""
    for info in archive.infolist():
        place = _place(info)
        is_folder = place.endswith("/")
        if place.startswith("/") or ".." in place.split("/") or re.match("[A-Za-z]:", place):
            raise ArchiveError(
                f"{name} holds a file whose path leads outside the zip ({_short(place)}); "
                "zip one folder of images again."
            )
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(
                f"{name} holds a link or a device ({_short(place)}); zip the images themselves."
            )
        place = str(PurePosixPath(place))
        if not is_folder and not _CLUTTER.search(place):
            yield info, place


def _place(info: zipfile.ZipInfo) -> str:
    """A member's path with "/", composed letters and no control characters."""
    name = info.filename
    if not info.flag_bits & 0x800:  # not marked as UTF-8, although macOS writes it
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return printable(name.replace("\\", "/"))


def printable(text: str) -> str:
    """Composed, without control characters and those that turn the direction of writing."""
    composed = unicodedata.normalize("NFC", text)
    return "".join("�" if unicodedata.category(c) in _UNSEEN else c for c in composed)


def _check_member(info: zipfile.ZipInfo, name: str) -> None:
    if len(info.filename) > MAX_NAME:
        raise _Refused(f"has a path of over {MAX_NAME} characters; shorten it.")
    if info.flag_bits & 0x2041:  # encrypted, also strongly, also its name
        raise _Refused("is encrypted; make the zip without a password.")
    if _suffix(name, _ARCHIVES):
        raise _Refused("is an archive inside the zip; unpack it first.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Refused("is packed by an unusual method; make the zip with the usual one (deflate).")
    if info.file_size > MAX_FILE_BYTES:
        raise _Refused(_TOO_LARGE)


def _check_kind(name: str, start: bytes) -> None:
    """Refuse what is neither image nor table; a DICOM file may have any name."""
    if start.startswith(_PACKED) or _suffix(name, _ARCHIVES):
        raise _Refused("is an archive; unpack it, or make one zip of the images.")
    if not _suffix(name, _KNOWN) and start[128:132] != b"DICM":
        raise _Refused("is neither an image nor a CSV table, so it was left out.")


def _suffix(name: str, known: Collection[str]) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in known else ""


def _short(place: str) -> str:
    return place if len(place) <= 80 else f"…{place[-79:]}"


def _mb(count: int) -> str:
    return f"{count // 2**20} MB"
