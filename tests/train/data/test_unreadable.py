"""`train.data.unreadable`: a damaged image among many is named, counted and left out; many are not."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

import train.data.unreadable
from kdmodels.cache import cache_folder
from kdmodels.tasks import get_task
from train.__main__ import main
from train.data.manifest import DataError
from train.data.open import open_manifest
from train.data.unreadable import find_unreadable, leave_out_unreadable

CXR = get_task("cxr")


@pytest.fixture
def folder(write_starter, tmp_path) -> Path:
    """A starter set of 120 films."""
    return write_starter(tmp_path / "set", train=34, val=3, test=3)


@pytest.fixture
def tried(monkeypatch) -> list:
    """The images that are tried, as they are."""
    seen = []
    read = train.data.unreadable.read_checked
    monkeypatch.setattr(
        train.data.unreadable, "read_checked", lambda source: seen.append(source) or read(source)
    )
    return seen


def break_film(folder: Path, name: str, keep: int = 300) -> Path:
    """Cut a film off, as an interrupted download does."""
    path = folder / "images" / f"{name}.jpg"
    path.write_bytes(path.read_bytes()[:keep])
    return path


# --- One image -------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 300, 900])
def test_one_damaged_image_is_left_out_by_name(folder, keep):
    whole = open_manifest("cxr", folder)
    path = break_film(folder, "train-covid-2", keep)
    found = open_manifest("cxr", folder)
    assert [s.path for s in found.skipped] == [path]
    assert [s for s in whole.samples if s.path != path] == list(found.samples)
    assert found.notes[0] == "1 of 120 images cannot be read and are left out:"
    assert found.notes[1].startswith(f"left out: {path} (This ") and len(found.notes) == 2
    assert found.id == whole.id


def test_those_that_remain_keep_their_numbers(folder):
    path = break_film(folder, "train-covid-2")
    whole = open_manifest("cxr", folder, check=False).split("train")
    found = open_manifest("cxr", folder).split("train")
    assert [s.path for s in whole].index(path) == 2
    assert {s.path: s.number for s in found} == {
        s.path: i for i, s in enumerate(whole) if s.path != path
    }


def test_a_damaged_test_image_is_not_counted(folder):
    break_film(folder, "test-normal-1")
    found = open_manifest("cxr", folder)
    assert (len(found.split("test")), len(found.split("train"))) == (8, 102)
    assert all(s.number is None for s in found.split("train"))
    assert found.counts()["test", "normal"] == 2


def test_the_command_says_and_counts_it(folder, capsys):
    path = break_film(folder, "val-covid-0")
    assert main(["data", "--task", "cxr", "--data", str(folder)]) == 0
    out = capsys.readouterr().out
    assert ": 119 images" in out and "val: covid 2, pneumonia 3, normal 3" in out
    assert f"  left out: {path} (" in out and "  1 of 120 images cannot be read" in out


# --- Many images -----------------------------------------------------------------------------


def test_more_than_a_hundredth_is_an_error(folder):
    first, _ = break_film(folder, "train-covid-2"), break_film(folder, "test-covid-0")
    with pytest.raises(DataError, match=r"2 of 120 images of 'starter-cxr' cannot be read, more "
                       rf"than 1%, first {first} \(.*\); get another copy"):  # fmt: skip
        open_manifest("cxr", folder)


def test_a_whole_class_of_a_split_is_an_error(write_starter, tmp_path):
    folder = write_starter(tmp_path / "set", train=40, val=1, test=1)
    path = break_film(folder, "test-pneumonia-0")
    with pytest.raises(DataError, match=r"No image of the class 'pneumonia' in the test split of "
                       rf"'starter-cxr' can be read, such as {path}"):  # fmt: skip
        open_manifest("cxr", folder)


# --- What is remembered ----------------------------------------------------------------------


def test_an_image_is_tried_once_until_it_changes(folder, tried):
    open_manifest("cxr", folder)
    assert len(tried) == 120
    open_manifest("cxr", folder)
    assert len(tried) == 120
    path = break_film(folder, "train-normal-7")
    for times in (1, 2):  # a damaged one is tried each time, as it may be back
        assert len(open_manifest("cxr", folder).skipped) == 1
        assert tried[120:] == [path] * times


def test_a_mended_image_is_back(folder):
    path = folder / "images" / "train-normal-7.jpg"
    whole = path.read_bytes()
    break_film(folder, "train-normal-7")
    assert open_manifest("cxr", folder).skipped
    path.write_bytes(whole)
    found = open_manifest("cxr", folder)
    assert not found.skipped and not found.notes


def test_what_was_tried_before_an_interruption_is_kept(folder, tried, monkeypatch):
    monkeypatch.setattr(train.data.unreadable.os, "cpu_count", lambda: 1)
    read = train.data.unreadable.read_checked

    def stop(source):
        if len(tried) == 50:
            raise KeyboardInterrupt
        return read(source)

    with monkeypatch.context() as patch:
        patch.setattr(train.data.unreadable, "read_checked", stop)
        with pytest.raises(KeyboardInterrupt):
            open_manifest("cxr", folder)
    assert len(tried) == 50
    open_manifest("cxr", folder)
    assert len(tried) == 120


@pytest.mark.parametrize("damage", [b"", b"[1, 2]", b"\xff", b'{"a'])
def test_a_damaged_memory_counts_as_empty(folder, tried, damage, tmp_path):
    open_manifest("cxr", folder)
    (file,) = cache_folder().iterdir()
    before = file.read_bytes()
    file.write_bytes(damage)
    open_manifest("cxr", folder)
    assert len(tried) == 240
    assert json.loads(file.read_bytes()) == json.loads(before)


def test_a_memory_that_cannot_be_written_is_said_and_is_no_error(folder, caplog, monkeypatch):
    monkeypatch.setattr("kdmodels.cache.cache_folder", lambda: None)
    with caplog.at_level(logging.WARNING, logger="train"):
        assert len(open_manifest("cxr", folder).samples) == 120
    assert "cannot be kept in" in caplog.text


def test_a_file_that_is_gone_is_named_as_unreadable(folder):
    manifest = open_manifest("cxr", folder)
    gone = manifest.samples[4].path
    gone.unlink()
    assert list(find_unreadable([s.path for s in manifest.samples])) == [4]
    found = leave_out_unreadable(manifest)
    assert [s.path for s in found.skipped] == [gone]
    assert leave_out_unreadable(replace(manifest, samples=found.samples)).samples == found.samples
