"""`kdmodels.engines.blobs`: what is kept comes back whole or not at all, and the folder is bounded."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kdmodels.engines.blobs import BlobCache

KEY = {"checkpoint": "ab", "batch": 1}
BLOB = bytes(range(256)) * 40


@pytest.fixture
def cache(tmp_path):
    cache = BlobCache(tmp_path)
    cache.put(KEY, BLOB, {"precision": "bf16", "note": None})
    return cache


def only(folder: Path, suffix: str) -> Path:
    (file,) = folder.glob(f"*{suffix}")
    return file


def test_what_was_put_comes_back(cache):
    blob, about = cache.get(KEY)
    assert bytes(blob) == BLOB and about == {"precision": "bf16", "note": None}
    assert cache.get(KEY | {"batch": 8}) is None
    cache.put(KEY | {"batch": 8}, b"other", {})
    assert bytes(cache.get(KEY | {"batch": 8})[0]) == b"other"
    assert bytes(cache.get(KEY)[0]) == BLOB


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "cut": lambda blob, about: blob.write_bytes(BLOB[:5000]),
    "empty": lambda blob, about: blob.write_bytes(b""),
    "one bit": lambda blob, about: flip(blob, 7777),
    "longer": lambda blob, about: blob.write_bytes(BLOB + b"\0"),
    "no blob": lambda blob, about: blob.unlink(),
    "a folder for a blob": lambda blob, about: (blob.unlink(), blob.mkdir()),
    "no JSON file": lambda blob, about: about.unlink(),
    "empty JSON file": lambda blob, about: about.write_bytes(b""),
    "no JSON": lambda blob, about: about.write_bytes(b"\xff\xfe{"),
    "JSON of another kind": lambda blob, about: about.write_text("[1, 2]"),
    "JSON without a hash": lambda blob, about: about.write_text(json.dumps({"key": KEY})),
    "another key": lambda blob, about: about.write_text(
        about.read_text().replace('"batch": 1', '"batch": 8')
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_entry_is_not_there_and_can_be_put_anew(cache, damage):
    DAMAGES[damage](only(cache.folder, ".blob"), only(cache.folder, ".json"))
    assert cache.get(KEY) is None
    assert cache.get(KEY) is None
    if damage != "a folder for a blob":  # which nobody but a person can have put there
        cache.put(KEY, BLOB, {})
        assert bytes(cache.get(KEY)[0]) == BLOB


def test_the_least_recently_used_blobs_go_when_there_are_too_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("kdmodels.engines.blobs.MAX_BYTES", 3 * len(BLOB))
    cache = BlobCache(tmp_path)
    now = time.time()
    for i in range(3):
        cache.put({"n": i}, BLOB, {})
        for file in cache._files({"n": i}):
            os.utime(file, (now - 100 + i, now - 100 + i))
    assert cache.get({"n": 0}) is not None  # used just now, so it stays
    cache.put({"n": 3}, BLOB, {})
    assert [i for i in range(4) if cache.get({"n": i})] == [0, 2, 3]
    assert len(list(tmp_path.iterdir())) == 6


def test_what_was_not_used_for_long_goes(tmp_path):
    cache = BlobCache(tmp_path)
    cache.put({"n": 0}, BLOB, {})
    (tmp_path / "left.partial").write_bytes(b"half")
    (tmp_path / "new.partial").write_bytes(b"half")
    long_ago = time.time() - 61 * 24 * 3600
    for file in (*cache._files({"n": 0}), tmp_path / "left.partial"):
        os.utime(file, (long_ago, long_ago))
    cache.put({"n": 1}, BLOB, {})
    assert cache.get({"n": 0}) is None and cache.get({"n": 1})
    assert sorted(f.suffix for f in tmp_path.iterdir()) == [".blob", ".json", ".partial"]


def test_without_a_folder_nothing_is_kept():
    cache = BlobCache(None)
    cache.put(KEY, BLOB, {})
    cache.remove(KEY)
    assert cache.get(KEY) is None


def test_a_folder_that_vanishes_or_a_full_disk_is_no_error(cache):
    folder = cache.folder
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    cache.put(KEY, BLOB, {})
    assert cache.get(KEY) is None
    if sys.platform == "linux":
        resource = pytest.importorskip("resource")
        folder.mkdir()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # EFBIG beyond 1000 bytes
        try:
            cache.put(KEY, BLOB, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert cache.get(KEY) is None
        assert list(folder.iterdir()) == []


def test_many_may_write_and_read_the_same_at_once(cache):
    seen, mistakes = [], []

    def work(seed):
        content = np.random.default_rng(seed).bytes(20_000)
        for _ in range(20):
            cache.put(KEY, content, {"seed": seed})
            if found := cache.get(KEY):
                blob, about = found
                wanted = np.random.default_rng(about["seed"]).bytes(20_000)
                seen.append(about["seed"])
                if bytes(blob) != wanted:
                    mistakes.append(about)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen and not mistakes
    assert not list(cache.folder.glob("*.partial"))
