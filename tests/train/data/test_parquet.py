"""`train.data.parquet` and `train.data.cells`: the same data set in tables, here or elsewhere."""

import io
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import train.data.pixels
import train.learn.runs
from kdmodels.tasks import get_task
from train.__main__ import main
from train.data.cells import Cell, file_size
from train.data.manifest import DataError, read_mask, read_pixels
from train.data.open import open_manifest
from train.data.parquet import write_parquet
from train.data.pixels import PixelStore
from train.data.table import read_table
from train.learn.views import BalancedSampler, TrainViews, collate

CXR = get_task("cxr")
REPOSITORY = Path(__file__).parents[3]


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
    return read_table(folder / "manifest.csv", CXR)


@pytest.fixture
def tables(manifest, tmp_path) -> Path:
    """The same films in Parquet files of about three each."""
    three = 2.5 * max(s.path.stat().st_size for s in manifest.samples) / 1e6
    write_parquet(manifest, tmp_path / "tables", three)
    return tmp_path / "tables"


def assert_same_films(found, wanted):
    assert found.id == wanted.id
    for split in ("train", "val", "test"):
        pairs = zip(found.split(split), wanted.split(split), strict=True)
        for ours, theirs in pairs:
            assert replace(ours, path=None, mask=None) == replace(theirs, path=None, mask=None)
            assert (ours.path.name, file_size(ours.path)) == (
                theirs.path.name,
                file_size(theirs.path),
            )
            assert ours.path.read_bytes() == theirs.path.read_bytes()
            assert np.array_equal(read_pixels(ours, CXR, 32), read_pixels(theirs, CXR, 32))
            assert (ours.mask is None) == (theirs.mask is None)
            if ours.mask:
                assert ours.mask.name == theirs.mask.name
                assert np.array_equal(read_mask(ours.mask, 32), read_mask(theirs.mask, 32))


# --- The same data set -----------------------------------------------------------------------


def test_tables_are_the_data_set_that_they_were_made_of(manifest, tables):
    found = open_manifest("cxr", tables)
    assert_same_films(found, manifest)
    assert found.name == "starter-cxr"
    assert sum(s.mask is not None for s in found.samples) == 2
    assert all(isinstance(s.path, Cell) for s in found.samples)


def test_files_are_of_one_split_and_of_about_the_size_asked_for(manifest, tables):
    names = sorted(path.name for path in tables.iterdir())
    assert names[0] == "README.md" and names[1] == "test-00000.parquet"
    assert names[-1] == "val-00000.parquet" and 4 <= sum("train" in name for name in names) <= 5
    rows = Dataset.from_parquet(str(tables / "val-00000.parquet"), cache_dir=str(tables.parent))
    assert set(rows["split"]) == {"val"} and len(rows) == 3
    assert rows.features["label"].names == list(CXR.class_ids)


def test_the_same_data_set_makes_the_same_bytes(manifest, tmp_path):
    for name in ("a", "b"):
        write_parquet(manifest, tmp_path / name, megabytes=1)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "b").iterdir()) and len(files) == 4
    assert all(
        (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files
    )


def test_others_read_them_without_this_project(manifest, tables, tmp_path):
    found = datasets.load_dataset(str(tables), cache_dir=str(tmp_path / "theirs"))
    assert list(found) == ["train", "val", "test"]
    wanted = manifest.split("val")[1]
    row = found["val"][1]
    assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(wanted.path)))
    assert (row["group"], row["source"]) == (wanted.group, wanted.source)
    assert found["val"].features["label"].int2str(row["label"]) == wanted.label


def test_tables_can_be_moved_and_lie_where_the_hub_puts_them(manifest, tables, tmp_path):
    moved = tables.rename(tmp_path / "elsewhere")
    assert_same_films(open_manifest("cxr", moved), manifest)
    (moved / "data").mkdir()
    for file in moved.glob("*.parquet"):
        file.rename(moved / "data" / file.name)
    card = moved / "README.md"
    card.write_text(card.read_text().replace("path: ", "path: data/"))
    assert_same_films(open_manifest("cxr", moved), manifest)


def test_tables_can_be_packed_anew(manifest, tables, tmp_path):
    write_parquet(open_manifest("cxr", tables), tmp_path / "again", megabytes=1)
    assert_same_films(open_manifest("cxr", tmp_path / "again"), manifest)


def test_files_of_one_name_do_not_collide(manifest, tmp_path):
    first, second, *rest = manifest.samples
    twin = tmp_path / "twin" / first.path.name
    twin.parent.mkdir()
    twin.write_bytes(second.path.read_bytes())
    both = replace(manifest, samples=(first, replace(second, path=twin), *rest))
    write_parquet(both, tmp_path / "both", megabytes=1)
    assert_same_films(open_manifest("cxr", tmp_path / "both"), both)


def test_what_is_damaged_is_copied_and_left_out_again(write_starter, tmp_path):
    folder = write_starter(tmp_path / "holed", train=34, val=3, test=3)
    file = folder / "images" / "train-covid-2.jpg"
    file.write_bytes(file.read_bytes()[:300])
    holed = open_manifest("cxr", folder)
    words = ["parquet", "--task", "cxr", "--data", str(folder), "--out", str(tmp_path / "tables")]
    assert main(words) == 0
    found = open_manifest("cxr", tmp_path / "tables")
    assert found.id == holed.id
    assert [(s.path.name, s.number) for s in found.skipped] == [(file.name, 2)]
    assert [s.number for s in found.split("train")] == [s.number for s in holed.split("train")]
    assert found.notes[1].startswith("left out: row 2 of ") and file.name in found.notes[1]


@pytest.mark.parametrize("limit", [2**20, pytest.param(0, marks=pytest.mark.alone)])
def test_training_draws_the_same_views_in_the_same_order(manifest, tables, monkeypatch, limit):
    monkeypatch.setattr(train.data.pixels, "CACHE_LIMIT_BYTES", limit)
    batches = []
    for source in (manifest, open_manifest("cxr", tables)):
        store = PixelStore(source.split("train"), CXR, 48)
        sampler = BalancedSampler(store.samples, seed=1, source_power=0.5)
        views, workers = TrainViews(store, 32, seed=1), 2 * (limit < 1)
        loader = DataLoader(views, 6, sampler=sampler, num_workers=workers, collate_fn=collate)
        batches.append([part for batch in loader for part in batch])
    assert len(batches[0]) == 8
    assert all(np.array_equal(a, b) for a, b in zip(*batches, strict=True))


def test_training_ends_in_the_same_weights(
    folder, tables, tiny_models, clean_accelerate, tmp_path, monkeypatch
):
    monkeypatch.setattr(train.learn.runs, "plot_curves", lambda *_: None)
    recipe = tmp_path / "mine.yaml"
    phase = {"size": 32, "epochs": 2, "lr": 0.01}
    recipe.write_text(yaml.safe_dump(
        {"task": "cxr", "model": "ofa_595", "batch_size": 4, "phases": [phase]}
    ))  # fmt: skip
    words = ["student", "--task", "cxr", "--recipe", str(recipe)]
    for data in (folder, tables):
        assert main([*words, "--data", str(data), "--run", str(tmp_path / f"{data.name}-run")]) == 0
        clean_accelerate()
    runs = [tmp_path / "folder-run", tmp_path / "tables-run"]
    states = [load_file(run / "state.safetensors") for run in runs]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert len({(run / "run.yaml").read_bytes() for run in runs}) == 1  # the same run, whence ever


# --- What is kept, and what is asked ---------------------------------------------------------


def test_nothing_is_written_beside_the_data_and_nobody_is_asked(tables, monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = {path: path.stat().st_mtime_ns for path in tables.rglob("*")}
    cell = open_manifest("cxr", tables).samples[0].path
    assert {path: path.stat().st_mtime_ns for path in tables.rglob("*")} == before
    assert cell.file.is_relative_to(Path(os.environ["XDG_CACHE_HOME"]) / "teacher-and-student")
    assert not datasets.config.HF_UPDATE_DOWNLOAD_COUNTS


def test_a_changed_file_is_read_anew(manifest, tables):
    open_manifest("cxr", tables)
    for file in tables.glob("train-*"):
        file.unlink()
    fewer = replace(manifest, samples=manifest.samples[1:])
    write_parquet(fewer, tables.with_name("fewer"), megabytes=1)
    (tables.with_name("fewer") / "train-00000.parquet").rename(tables / "train-00000.parquet")
    assert open_manifest("cxr", tables).id == fewer.id


# --- Elsewhere -------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path):
    """A web server of the test's folder on loopback; `url` of it, and what it was `asked`."""
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_file_behind_a_url_is_fetched_once(manifest, tmp_path, server):
    write_parquet(manifest, tmp_path / "web", megabytes=1)
    parts = [p.read_bytes() for p in sorted((tmp_path / "web").glob("*.parquet"))]
    assert len(parts) == 3
    url = f"{server.url}/web/train-00000.parquet"
    found = open_manifest("cxr", url)
    assert [s.path.name for s in found.samples] == [s.path.name for s in manifest.split("train")]
    assert found.name == "train-00000" and server.asked
    server.asked.clear()
    assert found.samples[3].path.read_bytes() == manifest.samples[3].path.read_bytes()
    assert not server.asked


def test_a_url_without_a_file_is_said(server):
    for url in (f"{server.url}/nothing.parquet", "http://127.0.0.1:1/x.parquet"):
        with pytest.raises(DataError, match=rf"^{url} cannot be read as Parquet \(") as caught:
            open_manifest("cxr", url)
        assert "\n" not in str(caught.value)


HUB_SESSION = """
import os, sys
from pathlib import Path
from tests.hub import HubStandIn

def show(data):
    try:
        print(open_manifest("cxr", data).id)
    except DataError as error:
        print(error)

with HubStandIn() as hub:
    os.environ["HF_ENDPOINT"] = hub.address  # which is read once, when the client is imported
    from train.data.manifest import DataError
    from train.data.open import open_manifest
    from train.data.parquet import datasets
    for file in Path(sys.argv[1]).iterdir():
        hub.place("someone/films", "a" * 40, file.name, file.read_bytes())
    hub.repos["someone/films"].branches["main"] = "a" * 40
    show("someone/films")
    show("someone/nothing")
datasets.config.HF_HUB_OFFLINE = True
show("someone/films")
show("someone/others")
"""


def test_a_data_set_on_the_hub_is_fetched_and_kept(manifest, tables, tmp_path):
    settings = {
        "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", HUB_SESSION, str(tables)],
        cwd=REPOSITORY, env=os.environ | settings, text=True, capture_output=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    here, missing, kept, unknown = done.stdout.splitlines()
    assert here == kept == manifest.id
    for name, said in (("nothing", missing), ("others", unknown)):
        assert said.startswith(f"someone/{name} cannot be read as Parquet (")
        assert said.endswith("or the id of a data set on the Hugging Face Hub.")


def test_a_folder_that_is_missing_is_not_looked_for_on_the_hub(tmp_path):
    for root in (tmp_path / "none", "../none", "./none/none"):
        with pytest.raises(DataError, match="does not exist; name it with --data"):
            open_manifest("cxr", root)


# --- Tables of others, and damage ------------------------------------------------------------


def film(value: int = 90) -> dict:
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), value).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_table(folder: Path, file: str = "train.parquet", features=None, **columns) -> Path:
    """Two rows as others write them; a column of None is left out."""
    rows = {"image": [film(), film(60)], "label": ["covid", "normal"]} | columns
    rows = {name: values for name, values in rows.items() if values is not None}
    usual = {"image": datasets.Image(), "label": Value("string")}
    types = {name: (features or {}).get(name, usual.get(name, Value("string"))) for name in rows}
    folder.mkdir(exist_ok=True)
    Dataset.from_dict(rows, Features(types)).to_parquet(folder / file)
    return folder


NAMES = ClassLabel(names=["normal", "covid"])


@pytest.mark.parametrize(
    "label, feature",
    [(["covid", "normal"], Value("string")), ([1, 0], NAMES), (["covid", "normal"], NAMES)],
)
def test_tables_of_others_say_what_they_can(tmp_path, label, feature):
    folder = write_table(tmp_path / "theirs", label=label, features={"label": feature})
    write_table(folder, "validation.parquet", label=label, features={"label": feature})
    found = open_manifest("cxr", folder)
    assert [(s.label, s.split, s.source) for s in found.samples] == [
        ("covid", "train", "theirs"), ("normal", "train", "theirs"),
        ("covid", "val", "theirs"), ("normal", "val", "theirs"),
    ]  # fmt: skip
    assert len({s.group for s in found.samples}) == 4 and found.name == "theirs"
    assert "no column 'group'" in found.notes[0] and len(found.notes) == 1


def test_images_may_be_plain_bytes_and_a_file_alone_will_do(tmp_path):
    rows = [film()["bytes"], film(60)["bytes"]]
    plain = {"image": Value("binary"), "group": Value("int64")}
    write_table(tmp_path / "a", image=rows, group=[4, 5], split=["test", "val"], features=plain)
    found = open_manifest("cxr", tmp_path / "a" / "train.parquet")
    assert [s.path.read_bytes() for s in found.samples] == rows
    assert [(s.group, s.split) for s in found.samples] == [("4", "test"), ("5", "val")]
    assert found.name == "train" and not found.notes


@pytest.mark.parametrize("columns, words", [
    ({"image": None}, r"theirs, train lacks the column\(s\) image"),
    ({"label": None}, r"theirs, train lacks the column\(s\) label"),
    ({"image": ["a.png", "b.png"], "features": {"image": Value("string")}}, "'image' of .* holds no images"),
    ({"image": [film(), None]}, r"Row 1 of .*theirs, train has no image; its bytes must be in the file"),
    ({"image": [film(), {"bytes": b"no image", "path": "x.png"}]},
     r"1 of 2 images of 'theirs' cannot be read, .*, first row 1 of .* \(x\.png\)"),
    ({"label": ["covid", "flu"]}, r"row 1 of .*theirs, train \(.*\) has the unknown class 'flu'; known: covid, "),
    ({"label": [1, -1], "features": {"label": NAMES}}, "unknown class '-1'"),
    ({"label": [1, 0], "features": {"label": Value("int64")}}, r"must hold text, or numbers with names"),
    ({"label": ["covid", None]}, "Row 1 of .* lacks its label"),
    ({"group": ["a", None]}, "Row 1 of .* lacks its group"),
    ({"split": ["train", "holdout"]}, "unknown split 'holdout'"),
    ({"split": ["train", "test"], "group": ["p", "p"]}, "group 'p' is in two splits, train and test"),
    ({"mask": ["a", "b"]}, "'mask' of .* holds no images"),
    ({"image": [], "label": []}, r"theirs cannot be read as Parquet \(.* no data"),
])  # fmt: skip
def test_mistakes_in_tables_of_others_are_named(tmp_path, columns, words):
    folder = write_table(tmp_path / "theirs", **columns)
    with pytest.raises(DataError, match=words) as caught:
        open_manifest("cxr", folder)
    assert "\n" not in str(caught.value)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def zero_head(data: bytes) -> bytes:
    return b"PAR1" + bytes(1000) + data[1004:]


@pytest.mark.parametrize("damage", [cut, zero_head, lambda data: b"", lambda data: b"hello"])
def test_a_damaged_file_is_never_taken_for_a_shorter_one(tables, damage):
    file = tables / "train-00001.parquet"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=rf"^{tables} cannot be read as Parquet \(") as caught:
        open_manifest("cxr", tables)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_seen_in_the_id(tables, manifest):
    (tables / "train-00001.parquet").unlink()
    assert open_manifest("cxr", tables).id != manifest.id


def test_tables_of_another_task_are_named(tables):
    with pytest.raises(DataError, match="unknown class 'covid'; known: lung_n"):
        open_manifest("histopathology", tables)


# --- The command -----------------------------------------------------------------------------


def test_the_command_packs_and_counts(folder, manifest, tmp_path, capsys):
    words = ["parquet", "--task", "cxr", "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{manifest.id}: 18 images"
    assert lines[1] == "  train: covid 4, pneumonia 4, normal 4"
    assert main(["data", "--task", "cxr", "--data", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines() == lines
    assert main(words) == 2
    assert "holds files already; name another folder with --out" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "b"), "--size", "0"]) == 2
    assert "name a size above 0 with --size" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said_and_left_as_it_was(manifest, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/x cannot be written \("):
        write_parquet(manifest, tmp_path / "file" / "x", megabytes=1)
    gone = replace(manifest.samples[-1], path=tmp_path / "gone.png")
    holed = replace(manifest, samples=(*manifest.samples[:-1], gone))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"out cannot be written \(.*gone\.png"):
        write_parquet(holed, tmp_path / "out", megabytes=1)
    assert sorted(tmp_path.iterdir()) == before
