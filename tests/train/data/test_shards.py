"""`train.data.shards` and `train.data.members`: the same data set in tar files, here or behind a URL."""

import io
import json
import os
import tarfile
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

import train.data.members
import train.learn.views
from kdmodels.tasks import get_task
from train.__main__ import main
from train.data.manifest import DataError, read_mask, read_pixels
from train.data.members import Member, size_of
from train.data.open import open_manifest
from train.data.pixels import PixelStore
from train.data.shards import INDEX, index_shards, write_shards
from train.data.starter import read_starter
from train.learn.views import BalancedSampler, TrainViews, collate

CXR = get_task("cxr")


@pytest.fixture
def folder(write_starter, tmp_path) -> Path:
    """A starter set of 12 training, 3 validation and 3 test films; two have lung masks."""
    folder = write_starter(tmp_path / "folder", train=4, val=1, test=1)
    (folder / "masks").mkdir()
    table = folder / "manifest.csv"
    lines = table.read_text().splitlines()
    for i in (2, 5):
        lines[i] = lines[i].removesuffix("0") + "1"
        mask = np.zeros((64, 64), np.uint8)
        mask[:, : 10 * i] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{lines[i].split(',')[0]}.png")
    table.write_text("\n".join(lines))
    return folder


@pytest.fixture
def manifest(folder):
    return read_starter(folder, CXR)


@pytest.fixture
def shards(manifest, tmp_path) -> Path:
    """The same films in tar files of two or three each."""
    one = max(s.path.stat().st_size for s in manifest.samples) + 400  # with its JSON, 600 with mask
    write_shards(manifest, tmp_path / "shards", megabytes=one / 1e6)
    assert len(list((tmp_path / "shards").glob("*.tar"))) in (9, 10)
    return tmp_path / "shards"


class RangeHandler(SimpleHTTPRequestHandler):
    """Files of a folder; answers requests for a range of bytes unless told to ignore them."""

    def log_message(self, *_):
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))

    def do_GET(self):
        wanted = self.headers.get("Range")
        if self.server.failures > 0 and self.path.endswith(".tar"):
            self.server.failures -= 1
            return self.send_error(503)
        if not wanted or self.server.ignores_ranges:
            return super().do_GET()
        first, last = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        return self.wfile.write(data[first : last + 1])


@pytest.fixture
def server(tmp_path):
    """A web server of the test's folder on loopback; `url` of it, and what it was `asked`."""
    handler = lambda *a: RangeHandler(*a, directory=str(tmp_path))  # noqa: E731
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked, server.ignores_ranges, server.failures = [], False, 0
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def assert_same_films(found, wanted):
    assert found.id == wanted.id
    for split in ("train", "val", "test"):
        pairs = zip(found.split(split), wanted.split(split), strict=True)
        for ours, theirs in pairs:
            assert replace(ours, path=None, mask=None) == replace(theirs, path=None, mask=None)
            assert (ours.path.name, size_of(ours.path)) == (theirs.path.name, size_of(theirs.path))
            assert ours.path.read_bytes() == theirs.path.read_bytes()
            assert np.array_equal(read_pixels(ours, CXR, 32), read_pixels(theirs, CXR, 32))
            assert (ours.mask is None) == (theirs.mask is None)
            if ours.mask:
                assert ours.mask.name == theirs.mask.name
                assert np.array_equal(read_mask(ours.mask, 32), read_mask(theirs.mask, 32))


# --- The same data set -----------------------------------------------------------------------


def test_shards_are_the_data_set_that_they_were_made_of(manifest, shards):
    found = open_manifest("cxr", shards)
    assert_same_films(found, manifest)
    assert sum(s.mask is not None for s in found.samples) == 2
    assert all(isinstance(s.path, Member) for s in found.samples)


def test_shards_are_of_one_split_and_of_about_the_size_asked_for(manifest, tmp_path):
    bytes_of = [s.path.stat().st_size for s in manifest.split("train")]
    limit = sum(bytes_of) // 3 / 1e6
    write_shards(manifest, tmp_path / "three", limit)
    names = sorted(p.name for p in (tmp_path / "three").glob("*.tar"))
    assert names[:2] == ["cxr-test-000000.tar", "cxr-train-000000.tar"]
    assert names[-1] == "cxr-val-000000.tar" and 5 <= len(names) <= 6
    with tarfile.open(tmp_path / "three" / "cxr-val-000000.tar") as tar:
        assert {json.load(tar.extractfile(m))["split"] for m in tar if m.name[-4:] == "json"} == {
            "val"
        }


def test_the_same_data_set_makes_the_same_bytes(manifest, tmp_path):
    for name in ("a", "b"):
        write_shards(manifest, tmp_path / name, megabytes=1)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "b").iterdir()) and len(files) == 4
    assert all(
        (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the reader leaves closing to the collector
def test_any_webdataset_reader_can_stream_them(manifest, shards):
    files = sorted(str(path) for path in shards.glob("*.tar"))
    stream = webdataset.WebDataset(files, shardshuffle=False)
    seen = {json.loads(s["json"])["name"]: s["jpg"] for s in stream}
    assert seen == {s.path.name: s.path.read_bytes() for s in manifest.samples}


def test_shards_can_be_moved(manifest, shards, tmp_path):
    moved = shards.rename(tmp_path / "elsewhere")
    assert_same_films(open_manifest("cxr", moved), manifest)


def test_shards_can_be_packed_anew(manifest, shards, tmp_path):
    write_shards(open_manifest("cxr", shards), tmp_path / "again", megabytes=1)
    assert_same_films(open_manifest("cxr", tmp_path / "again"), manifest)


def test_files_of_one_name_do_not_collide(manifest, tmp_path):
    first, second, *rest = manifest.samples
    twin = tmp_path / "twin" / first.path.name
    twin.parent.mkdir()
    twin.write_bytes(second.path.read_bytes())
    both = replace(manifest, samples=(first, replace(second, path=twin), *rest))
    write_shards(both, tmp_path / "both", megabytes=1)
    assert_same_films(open_manifest("cxr", tmp_path / "both"), both)


def test_what_was_left_out_stays_known(manifest, tmp_path):
    *samples, last = manifest.samples
    gone = replace(last, number=2)
    holed = replace(manifest, samples=tuple(samples), skipped=(gone,), notes=("one is missing",))
    write_shards(holed, tmp_path / "holed", megabytes=1)
    found = open_manifest("cxr", tmp_path / "holed", check=False)
    assert found.id == holed.id == manifest.id
    assert found.notes == ("one is missing",)
    assert [(s.path.name, s.number) for s in found.skipped] == [(last.path.name, 2)]


@pytest.mark.parametrize("limit", [2**20, pytest.param(0, marks=pytest.mark.alone)])
def test_training_draws_the_same_views_in_the_same_order(manifest, shards, monkeypatch, limit):
    monkeypatch.setattr(train.learn.views, "CACHE_LIMIT_BYTES", limit)
    batches = []
    for source in (manifest, open_manifest("cxr", shards)):
        store = PixelStore(source.split("train"), CXR, 48)
        sampler = BalancedSampler(store.samples, seed=1, source_power=0.5)
        views, workers = TrainViews(store, 32, seed=1), limit < 1
        loader = DataLoader(views, 6, sampler=sampler, num_workers=workers, collate_fn=collate)
        batches.append([part for batch in loader for part in batch])
    assert len(batches[0]) == 8
    assert all(np.array_equal(a, b) for a, b in zip(*batches, strict=True))


# --- Behind a URL ----------------------------------------------------------------------------


def test_shards_behind_a_url_are_read_in_ranges(manifest, shards, server):
    found = open_manifest("cxr", f"{server.url}/shards/")
    assert found.samples[0].path.shard.startswith(server.url)
    server.asked.clear()
    assert_same_films(found, manifest)
    gets = [wanted for command, path, wanted in server.asked if command == "GET"]
    assert len(gets) == 2 * 18 + 2 and all(gets)


@pytest.mark.alone
def test_worker_processes_read_behind_a_url(manifest, shards, server):
    found = open_manifest("cxr", f"{server.url}/shards")
    found.samples[0].path.read_bytes()  # this process has its connection already
    views = [TrainViews(PixelStore(m.split("train"), CXR, 48), 32, 1) for m in (found, manifest)]
    keys = [(i, v) for v in range(2) for i in range(12)]
    images = []
    for view, workers in zip(views, (2, 0), strict=True):
        loader = DataLoader(view, 4, sampler=keys, num_workers=workers, collate_fn=collate)
        images.append(np.concatenate([batch[0] for batch in loader]))
    assert np.array_equal(*images)


def test_an_index_here_may_name_shards_elsewhere(manifest, shards, server, tmp_path):
    for i, path in enumerate(sorted(shards.glob("*.tar"))):
        path.rename(shards / f"x-{i:03d}.tar")
    last = len(list(shards.glob("*.tar"))) - 1
    pattern = f"{server.url}/shards/x-{{000..{last:03d}}}.tar"
    index_shards(pattern, tmp_path / "here", CXR, "starter-cxr")
    assert [p.name for p in (tmp_path / "here").iterdir()] == [INDEX]
    found = open_manifest("cxr", tmp_path / "here")
    assert found.id == manifest.id
    assert all(s.path.shard.startswith(server.url) for s in found.samples)
    assert found.samples[-1].path.read_bytes()[:3] == b"\xff\xd8\xff"


def test_a_hiccup_of_the_server_is_no_end(shards, server, monkeypatch):
    member = open_manifest("cxr", f"{server.url}/shards").samples[0].path
    monkeypatch.setattr(train.data.members, "PAUSES", (0.01, 0.01))
    server.failures = 2
    assert len(member.read_bytes()) == member.size
    server.failures = 3
    with pytest.raises(OSError, match="503"):
        member.read_bytes()


def test_a_server_without_ranges_is_said(shards, server):
    server.ignores_ranges = True
    sample = open_manifest("cxr", f"{server.url}/shards").samples[0]
    with pytest.raises(DataError, match=r"bytes came instead of .* range of bytes"):
        read_pixels(sample, CXR, 32)


@pytest.mark.parametrize("end", ["/nothing", ":1/"])
def test_a_url_without_shards_is_said(server, end, monkeypatch):
    url = server.url + "/nothing" if end == "/nothing" else "http://127.0.0.1:1"
    with pytest.raises(DataError, match=rf"{url}/shards\.json cannot be read"):
        open_manifest("cxr", url)


# --- Damage ----------------------------------------------------------------------------------


@pytest.fixture
def shard(shards) -> Path:
    return max(shards.glob("cxr-train-*.tar"))


def test_a_missing_shard_is_named(shards, shard):
    shard.unlink()
    with pytest.raises(DataError, match=rf"{shard} cannot be opened: FileNotFoundError"):
        open_manifest("cxr", shards)


def test_a_shard_of_another_size_is_named(shards, shard):
    size = shard.stat().st_size
    os.truncate(shard, 512)
    with pytest.raises(DataError, match=rf"{shard} has 512 bytes, not {size:,}; fetch it again"):
        open_manifest("cxr", shards)


def test_a_damaged_image_in_a_shard_is_counted_as_one(shards, shard):
    member = next(
        s.path for s in open_manifest("cxr", shards).samples if s.path.shard == str(shard)
    )
    with shard.open("r+b") as file:
        file.seek(member.offset)
        file.write(bytes(member.size))
    with pytest.raises(DataError, match=rf"1 of 18 images .*, first {shard}::{member.name}"):
        open_manifest("cxr", shards)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b'{"name": 3', b"\xff\xfe", b'{"shards": [["a", 1]], "samples": 7}'],
)
def test_a_damaged_index_is_named(shards, content):
    (shards / INDEX).write_bytes(content)
    with pytest.raises(DataError, match=r"shards\.json is damaged"):
        open_manifest("cxr", shards)


def test_an_index_of_another_task_is_named(shards):
    with pytest.raises(DataError, match="of the task 'cxr', not of 'histopathology'"):
        open_manifest("histopathology", shards)


def write_tar(path: Path, files: dict[str, bytes]) -> str:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def film(value: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), value).save(buffer, "PNG")
    return buffer.getvalue()


def facts(**changes) -> bytes:
    row = dict(label="covid", split="train", group="g", source="s") | changes
    return json.dumps({k: v for k, v in row.items() if v is not None}).encode()


def test_shards_of_others_are_indexed_under_their_own_names(tmp_path):
    files = {
        "d/a.png": film(),
        "d/a.json": facts(),
        "d/b.PNG": film(),
        "d/b.json": facts(name="B.png"),
    }
    shard = write_tar(tmp_path / "in" / "x.tar", files)
    found = index_shards(shard, tmp_path / "in", CXR, "theirs")
    again = open_manifest("cxr", tmp_path / "in")
    assert (found.id, found.name) == (again.id, "theirs")
    assert [s.path.name for s in again.samples] == ["a.png", "B.png"]
    assert json.loads((tmp_path / "in" / INDEX).read_text())["shards"][0][0] == "x.tar"


@pytest.mark.parametrize("files, words", [
    ({"a.png": film()}, r"sample 'a' in .*x\.tar lacks its \.json"),
    ({"a.json": facts()}, r"sample 'a' in .*x\.tar lacks its image"),
    ({"a.png": film(), "a.json": facts(split=None, group=None)}, r"a\.json in .* lacks split, group"),
    ({"a.png": film(), "a.json": facts(label=3)}, r"a\.json in .* lacks label"),
    ({"a.png": film(), "a.json": facts(label="flu")}, "unknown class 'flu'; known: covid, "),
    ({"a.png": film(), "a.json": facts(split="holdout")}, "unknown split 'holdout'"),
    ({"a.png": film(), "a.json": b"{"}, r"a\.json in .*x\.tar is no JSON object"),
    ({"a.png": film(), "a.json": b"[]"}, r"a\.json in .*x\.tar is no JSON object"),
    ({"a.png": b"no image", "a.json": facts()}, r"1 of 1 images of 'theirs' cannot be read"),
    ({}, "'theirs' holds no images"),
])  # fmt: skip
def test_mistakes_in_shards_of_others_are_named(tmp_path, files, words):
    shard = write_tar(tmp_path / "in" / "x.tar", files)
    with pytest.raises(DataError, match=words):
        index_shards(shard, tmp_path / "out", CXR, "theirs")
    assert not (tmp_path / "out" / INDEX).exists()


def damage_head(data: bytearray, tar: tarfile.TarFile) -> None:
    start = tar.getmembers()[2].offset
    data[start : start + 512] = b"\x01" * 512


def cut_in_a_file(data: bytearray, tar: tarfile.TarFile) -> None:
    del data[tar.getmembers()[2].offset_data + 10 :]


def cut_between_files(data: bytearray, tar: tarfile.TarFile) -> None:
    del data[tar.getmembers()[2].offset :]


@pytest.mark.parametrize("damage", [damage_head, cut_in_a_file, cut_between_files])
def test_a_damaged_shard_is_never_taken_for_a_shorter_one(tmp_path, damage):
    files = {
        f"{k}.{end}": part for k in "abcdefgh" for end, part in (("png", film()), ("json", facts()))
    }
    shard = tmp_path / "x.tar"
    write_tar(shard, files)
    assert len(index_shards(str(shard), tmp_path / "whole", CXR, "x").samples) == 8
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        damage(data, tar)
    shard.write_bytes(data)
    with pytest.raises(
        DataError, match=rf"{shard} (is damaged or cut off|cannot be read \(ReadError)"
    ):
        index_shards(str(shard), tmp_path / "out", CXR, "x")


def test_a_compressed_shard_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"x\.tar\.gz cannot be read \(ReadError: .*not compressed"):
        index_shards(str(tmp_path / "x.tar.gz"), tmp_path / "out", CXR, "x")


# --- The command -----------------------------------------------------------------------------


def test_the_command_packs_and_counts(folder, manifest, tmp_path, capsys):
    words = ["shards", "--task", "cxr", "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{manifest.id}: 18 images"
    assert lines[1] == "  train: covid 4, pneumonia 4, normal 4"
    assert main(["data", "--task", "cxr", "--data", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines() == lines
    assert main(words) == 2
    assert "holds shards already; name another folder with --out" in capsys.readouterr().err


def test_the_command_indexes(shards, manifest, tmp_path, capsys):
    (shards / INDEX).unlink()
    pattern = f"{shards}/cxr-{{val,test}}-00000{{0,1}}.tar"
    words = ["shards", "--task", "cxr", "--index", pattern, "--out", str(shards), "--name", "part"]
    assert main(words) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("part@") and out[0].endswith(": 6 images")


def test_a_place_that_cannot_be_written_is_said(manifest, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"The shards cannot be written to .*file/x: "):
        write_shards(manifest, tmp_path / "file" / "x", megabytes=1)
