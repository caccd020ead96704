"""`kdmodels.cache`: one folder of the user's own, and files that are whole or not there."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from kdmodels.cache import cache_folder, cache_path, write_atomically


@pytest.fixture
def places(monkeypatch, tmp_path):
    """A home, a folder for temporary files, and no wish for another place."""
    for name in ("KD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path


def test_the_place_follows_the_environment(places, monkeypatch):
    assert cache_folder() == places / "home/.cache/teacher-and-student"
    monkeypatch.setenv("XDG_CACHE_HOME", str(places / "xdg"))
    assert cache_folder() == places / "xdg/teacher-and-student"
    monkeypatch.setenv("KD_CACHE", str(places / "own/deep"))
    assert cache_folder() == places / "own/deep"
    assert not list((places / "own/deep").iterdir())
    assert (places / "own/deep").stat().st_mode & 0o077 == 0 or sys.platform == "win32"


def closed_by_file(places: Path) -> str:
    (places / "file").write_text("")
    return str(places / "file/cache")


def closed_by_system(places: Path) -> str:
    return "/proc/teacher-and-student"


def closed_by_rights(places: Path) -> str:
    (places / "closed").mkdir(mode=0o500)
    return str(places / "closed/cache")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("close", [closed_by_file, closed_by_system, closed_by_rights])
def test_temporary_files_serve_where_the_cache_cannot_be_written(places, monkeypatch, close):
    if close is closed_by_rights and os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    monkeypatch.setenv("KD_CACHE", close(places))
    folder = cache_folder()
    assert folder == places / f"tmp/teacher-and-student-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(tempfile, "tempdir", closed_by_file(places))
    assert cache_folder() is None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_folder_of_another_user_is_not_trusted(places, monkeypatch):
    folder = places / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    monkeypatch.setenv("KD_CACHE", str(folder))
    assert cache_folder() == places / "tmp/teacher-and-student-0"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_to_is_not_trusted(places, monkeypatch, mode):
    folder = places / "open"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv("KD_CACHE", str(folder))
    assert cache_folder() == places / f"tmp/teacher-and-student-{os.getuid()}"
    folder.chmod(0o755)
    assert cache_folder() == folder


def test_without_a_folder_a_file_can_be_neither_read_nor_written(places, monkeypatch):
    assert cache_path("a/b.csv") == places / "home/.cache/teacher-and-student/a/b.csv"
    monkeypatch.setattr("kdmodels.cache.cache_folder", lambda: None)
    with pytest.raises(OSError):
        cache_path("a.csv").read_bytes()
    with pytest.raises(OSError):
        write_atomically(cache_path("a.csv"), b"x")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "kept.csv"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
