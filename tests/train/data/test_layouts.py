"""The official data sets as people unpack them: `train.data.covid_qu_ex`, `train.data.lc25000` and below."""

import csv
import hashlib
import io
import os
import shutil
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

import train.data.duplicates
import train.data.lc25000
from train.data.covid_qu_ex import CLASS_FOLDERS, SPLIT_FOLDERS, read_covid_qu_ex
from train.data.duplicates import group_duplicates, hash_image
from train.data.lc25000 import CLUSTER_SHA256, SAME_TILE, read_lc25000, split_of
from train.data.manifest import DataError, read_mask
from train.data.open import open_manifest

DATA = Path(os.environ.get("KD_DATA") or Path(__file__).parents[4] / "shared" / "data")
LUNG, INFECTION = "Lung Segmentation Data", "Infection Segmentation Data"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty cache folder for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.delenv("KD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.delenv("KD_LC25000_CLUSTERS", raising=False)
    return folder / "teacher-and-student"


def blotches(seed, size=64):
    """A grey picture that looks like no other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12), np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def make_films(tree, masks=True):
    """Two films for each split and class in `tree`; returns the number of films."""
    seed = 0
    for split in SPLIT_FOLDERS:
        for folder in CLASS_FOLDERS:
            for _ in range(2):
                path = tree / split / folder / "images" / f"{folder} ({seed}).png"
                save(blotches(seed), path)
                if masks:
                    mask = Image.new("L", (64, 64), 255)
                    save(mask, path.parents[1] / "lung masks" / path.name)
                seed += 1
    return seed


def film(tree, split, folder, number=0):
    return sorted((tree / split / folder / "images").iterdir())[number]


def facts(manifest):
    return sorted(
        (s.path.name, s.label, s.split, s.group, s.mask is not None) for s in manifest.samples
    )


# --- COVID-QU-Ex -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "above",
    ["", LUNG, f"{LUNG}/{LUNG}", f"COVID-QU-Ex dataset/{LUNG}/{LUNG}",
     f"COVID-QU-Ex_Dataset/{LUNG}", f"cxr/archive/{LUNG}/{LUNG}",
     f"{INFECTION}/{INFECTION}", "films"],
)  # fmt: skip
def test_all_nestings_hold_the_same_films(tmp_path, above):
    count = make_films(tmp_path / above)
    found = read_covid_qu_ex(tmp_path)
    assert facts(found) == facts(read_covid_qu_ex(tmp_path / above))
    assert len(found.samples) == count
    assert found.counts() == {
        (split, label): 2 for split in ("train", "val", "test") for label in CLASS_FOLDERS.values()
    }
    assert {s.source for s in found.samples} == {"covid-qu-ex"}
    assert {s.group for s in found.samples} == {s.path.stem for s in found.samples}
    assert all(s.mask.name == s.path.name and s.mask.is_file() for s in found.samples)


def test_folder_names_in_other_case_and_stray_files_do_no_harm(tmp_path):
    make_films(tmp_path)
    (tmp_path / "Val").rename(tmp_path / "val")
    (tmp_path / "Test" / "COVID-19").rename(tmp_path / "Test" / "Covid-19")
    (tmp_path / "Test" / "__MACOSX").mkdir()
    (tmp_path / "Test" / "Normal" / "images" / "._Normal (16).png").write_bytes(b"junk")
    (tmp_path / "Test" / "Normal" / "images" / "Thumbs.db").write_bytes(b"junk")
    assert len(read_covid_qu_ex(tmp_path).samples) == 18


def test_of_both_trees_the_lung_one_is_read(tmp_path):
    make_films(tmp_path / LUNG / LUNG)
    make_films(tmp_path / INFECTION / INFECTION)
    found = open_manifest("cxr", tmp_path)
    assert all(LUNG in s.path.parts for s in found.samples)
    assert any(INFECTION in note and "left out" in note for note in found.notes)


def test_two_copies_of_the_data_set_are_refused(tmp_path):
    make_films(tmp_path / "one")
    make_films(tmp_path / "two")
    with pytest.raises(DataError, match=r"several data sets \(.*one and .*two\)"):
        read_covid_qu_ex(tmp_path)


def test_films_without_masks_have_none(tmp_path):
    make_films(tmp_path, masks=False)
    assert {s.mask for s in read_covid_qu_ex(tmp_path).samples} == {None}


def test_unknown_folders_are_named_with_the_known_ones(tmp_path):
    make_films(tmp_path)
    (tmp_path / "Test" / "Tuberculosis").mkdir()
    with pytest.raises(DataError, match=r"class folder 'Tuberculosis'; known: COVID-19, Non-COVID"):
        read_covid_qu_ex(tmp_path)
    (tmp_path / "Holdout").mkdir()
    with pytest.raises(DataError, match=r"split folder 'Holdout'; known: Train, Val, Test;"):
        read_covid_qu_ex(tmp_path)


def test_a_missing_images_folder_is_named(tmp_path):
    make_films(tmp_path)
    shutil.rmtree(tmp_path / "Val" / "Normal" / "images")
    with pytest.raises(DataError, match=r"Val/Normal has no folder 'images'"):
        read_covid_qu_ex(tmp_path)


def test_an_unreadable_film_is_named(tmp_path):
    make_films(tmp_path)
    film(tmp_path, "Train", "Normal").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    assert len(read_covid_qu_ex(tmp_path).samples) == 18  # it is like no other film
    with pytest.raises(
        DataError, match=r"1 of 18 images .* cannot be read, .*Normal \(4\)\.png \("
    ):
        open_manifest("cxr", tmp_path)


def test_duplicates_across_splits_end_in_train(tmp_path):
    make_films(tmp_path)
    original = film(tmp_path, "Val", "COVID-19")
    with Image.open(original) as image:  # the same film in test, resized and recompressed
        copy = image.resize((48, 48))
    save(copy, tmp_path / "Test" / "COVID-19" / "images" / "copy.jpg", quality=80)
    found = read_covid_qu_ex(tmp_path)
    pair = [s for s in found.samples if s.path.name in (original.name, "copy.jpg")]
    assert [s.split for s in pair] == ["train", "train"]
    assert len({s.group for s in pair}) == 1
    assert found.counts()["val", "covid"] == 1
    assert found.counts()["test", "covid"] == 2
    assert any(note.startswith("1 films repeat") for note in found.notes)
    assert any(note.startswith("2 films were moved") for note in found.notes)


def test_duplicates_within_a_split_stay_there_as_one_group(tmp_path):
    make_films(tmp_path)
    shutil.copy(film(tmp_path, "Test", "Normal"), tmp_path / "Test" / "Normal" / "images" / "z.png")
    found = read_covid_qu_ex(tmp_path)
    assert found.counts()["test", "normal"] == 3
    assert len({s.group for s in found.samples}) == 18
    assert any(note.startswith("0 films were moved") for note in found.notes)


def test_duplicates_with_different_labels_are_dropped(tmp_path):
    make_films(tmp_path)
    original = film(tmp_path, "Train", "Normal")
    shutil.copy(original, tmp_path / "Test" / "COVID-19" / "images" / "copy.png")
    found = read_covid_qu_ex(tmp_path)
    assert len(found.samples) == 17
    assert not {original.name, "copy.png"} & {s.path.name for s in found.samples}
    assert any(note.startswith("2 films were dropped") for note in found.notes)


def test_different_films_of_one_name_are_not_taken_for_one(tmp_path):
    make_films(tmp_path)
    for split, folder in (("Train", "Normal"), ("Test", "Normal"), ("Test", "COVID-19")):
        path = film(tmp_path, split, folder)
        path.rename(path.with_name("1.png"))
    assert len(read_covid_qu_ex(tmp_path).samples) == 18


@pytest.mark.data
def test_the_original_films_load_with_masks():
    root = DATA / "cxr" / "covid_qu_ex_sample"
    if not root.is_dir():
        pytest.skip(f"the sample of COVID-QU-Ex is not in {root}; KD_DATA names its folder's place")
    found = open_manifest("cxr", root)
    assert found.counts() == {("test", label): 4 for label in CLASS_FOLDERS.values()}
    assert len({s.group for s in found.samples}) == 12
    assert all(0.1 < read_mask(s.mask, 64).mean() < 0.7 for s in found.samples)
    assert any("Only Infection" in note for note in found.notes)


# --- Duplicates and their cache --------------------------------------------------------------


def test_groups_are_those_of_all_pairs(monkeypatch):
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 256, (60, 32), np.uint8)
    for index in range(30, 60):  # chains: each a few bits from an earlier one
        hashes[index] = hashes[generator.integers(index)]
        hashes[index, generator.integers(32, size=3)] ^= np.uint8(0x81)
    bits = np.unpackbits(hashes, axis=1)
    near = (bits[:, None] != bits[None]).sum(-1) <= 6
    expected = np.arange(60)
    for _ in range(60):
        expected = np.where(near, expected[None], 60).min(axis=1)
    assert len(set(expected)) < 60
    for pairs in (1, 500, 10**6):  # the result does not depend on the size of the blocks
        monkeypatch.setattr(train.data.duplicates, "_PAIRS", pairs)
        assert (group_duplicates(hashes, 6) == expected).all()
    assert len(set(group_duplicates(hashes, 5))) > len(set(expected))
    assert group_duplicates(hashes[:0]).shape == (0,)


def test_the_threshold_tells_copies_from_other_films(tmp_path):
    save(blotches(1, 256), tmp_path / "film.png")
    save(blotches(1, 224), tmp_path / "small.png")
    save(blotches(1, 256), tmp_path / "poor.jpg", quality=40)
    save(blotches(2, 256), tmp_path / "other.png")
    names = ("film.png", "small.png", "poor.jpg", "other.png")
    hashes = np.stack([hash_image(tmp_path / name) for name in names])
    assert list(group_duplicates(hashes)) == [0, 0, 0, 3]


@pytest.fixture
def hashed(monkeypatch):
    """The names of the films that are hashed."""
    names = []

    def hash_and_note(path):
        names.append(path.name)
        return hash_image(path)

    monkeypatch.setattr(train.data.duplicates, "hash_image", hash_and_note)
    return names


def test_hashes_are_kept_until_a_file_changes(tmp_path, hashed, cache):
    make_films(tmp_path)
    before = facts(read_covid_qu_ex(tmp_path))
    assert len(hashed) == 18
    assert [path.suffix for path in cache.iterdir()] == [".csv"]  # and no partial file
    assert facts(read_covid_qu_ex(tmp_path)) == before
    assert len(hashed) == 18
    changed = film(tmp_path, "Val", "Normal")
    os.utime(changed, ns=(1, 1))
    read_covid_qu_ex(tmp_path)
    assert hashed[18:] == [changed.name]


@pytest.mark.parametrize(
    "damage",
    [b"", b"\xff\xfe\x00", b"file,size,mtime_ns,phash\na,1\n", b"a,b,c,d\n",
     b"file,size,mtime_ns,phash\na.png,1,2,zz\n", b'file,size,mtime_ns,phash\n"a'],
)  # fmt: skip
def test_a_damaged_cache_is_rebuilt(tmp_path, hashed, cache, damage):
    make_films(tmp_path)
    before = facts(read_covid_qu_ex(tmp_path))
    (file,) = cache.iterdir()
    good = file.read_bytes()
    for content in (damage, good[:-9]):
        hashed.clear()
        file.write_bytes(content)
        assert facts(read_covid_qu_ex(tmp_path)) == before
        assert len(hashed) == 18
        assert file.read_bytes() == good


def test_an_unreadable_film_is_hashed_again_as_long_as_it_is(tmp_path, hashed):
    make_films(tmp_path)
    path = film(tmp_path, "Val", "Normal", 1)
    good = path.read_bytes()
    path.write_bytes(good[:100])
    for tried in (18, 19):
        assert len({s.group for s in read_covid_qu_ex(tmp_path).samples}) == 18
        assert len(hashed) == tried
    path.write_bytes(good)
    for _ in range(2):
        read_covid_qu_ex(tmp_path)
        assert len(hashed) == 20


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    make_films(tmp_path)
    monkeypatch.setattr("kdmodels.cache.cache_folder", lambda: None)
    with pytest.warns(UserWarning, match="hashes cannot be kept"):
        assert len(read_covid_qu_ex(tmp_path).samples) == 18


# --- LC25000 ---------------------------------------------------------------------------------

STEMS = {
    "lung_n": "lungn",
    "lung_aca": "lungaca",
    "lung_scc": "lungscc",
    "colon_n": "colonn",
    "colon_aca": "colonca",
}
TILES = 40


def leaf(label):
    return Path(f"{label.split('_')[0]}_image_sets") / label


def make_tiles(root, numbers=range(1, 2 * TILES + 1), labels=STEMS):
    """Files 1 to 80 of each class; their content does not matter, as the reader never opens them."""
    for label in labels:
        folder = root / leaf(label)
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (folder / f"{STEMS[label]}{number}.jpeg").touch()


def table(label):
    """Files n and n + 40 are of one tile."""
    rows = [f"{n % TILES},./LC25000/{label}/{STEMS[label]}{n}.jpeg" for n in range(1, 81)]
    return "\n".join(["cluster_label,img_path", *rows, ""])


def make_tables(folder):
    folder.mkdir(parents=True)
    for label in STEMS:
        (folder / f"{label}.csv").write_text(table(label))
    return folder


def tile_facts(manifest):
    return sorted((s.path.name, s.label, s.split, s.group) for s in manifest.samples)


@pytest.mark.parametrize(
    "above, tables",
    [("", "lc25000_clusters"), ("lung_colon_image_set", "lc25000_clusters"),
     ("archive/lung_colon_image_set", "archive/lc25000_clusters"),
     ("lung_colon_image_set", "lung_colon_image_set/lc25000_clusters")],
)  # fmt: skip
def test_clusters_beside_or_in_any_nesting_become_groups(tmp_path, above, tables):
    make_tiles(tmp_path / above)
    make_tables(tmp_path / tables)
    found = read_lc25000(tmp_path / above)
    assert len(found.samples) == 5 * 2 * TILES
    assert Counter(Counter(s.group for s in found.samples).values()) == {2: 5 * TILES}
    one = next(s for s in found.samples if s.path.name == "lungscc47.jpeg")
    assert (one.label, one.group, one.split) == ("lung_scc", "lung_scc-007", split_of("lung_scc", "7"))  # fmt: skip
    for split in ("train", "val", "test"):
        assert found.split(split)
    make_tables(tmp_path / "elsewhere")
    explicit = read_lc25000(tmp_path, clusters=tmp_path / "elsewhere")
    assert tile_facts(explicit) == tile_facts(found)


def test_leaves_without_the_organ_folders_and_an_environment_variable(tmp_path, monkeypatch):
    make_tiles(tmp_path / "whole")
    flat = tmp_path / "flat"
    for label in STEMS:
        shutil.copytree(tmp_path / "whole" / leaf(label), flat / label)
    tables = make_tables(tmp_path / "elsewhere" / "tables")
    monkeypatch.setenv("KD_LC25000_CLUSTERS", str(tables))
    found = open_manifest("histopathology", flat, check=False)
    assert tile_facts(found) == tile_facts(read_lc25000(tmp_path / "whole"))


def test_the_two_folders_of_the_kaggle_copy_are_merged(tmp_path):
    copy, tables = tmp_path / "copy", make_tables(tmp_path / "lc25000_clusters")
    make_tiles(tmp_path / "whole")
    make_tiles(copy / "Train and Validation Set", range(1, 70))
    make_tiles(copy / "Test Set", range(70, 81))
    found = read_lc25000(copy, tables)
    assert tile_facts(found) == tile_facts(read_lc25000(tmp_path / "whole", tables))
    assert any("suggest is ignored" in note for note in found.notes)
    make_tiles(copy / "Test Set", range(60, 81))  # ten names a class in both
    again = read_lc25000(copy, tables)
    assert tile_facts(again) == tile_facts(found)
    assert any(note.startswith("50 files were left out") for note in again.notes)


def test_a_tile_keeps_its_split_when_files_are_missing(tmp_path):
    make_tables(tmp_path / "lc25000_clusters")
    make_tiles(tmp_path / "whole")
    make_tiles(tmp_path / "part", range(3, 60, 4), ["colon_n", "lung_aca"])
    part, whole = (tile_facts(read_lc25000(tmp_path / name)) for name in ("part", "whole"))
    assert part and set(part) < set(whole)


def test_the_split_is_pinned():
    """Other fractions or another hash would change what published results were measured on."""
    lines = "\n".join(f"{c}/{n},{split_of(c, str(n))}" for c in STEMS for n in range(250))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "fc4dd39d5e0f6b3b"
    shares = Counter(split_of("x", str(n)) for n in range(20000))
    assert [round(shares[s] / 20000, 2) for s in ("train", "val", "test")] == [0.70, 0.12, 0.18]


def test_an_unknown_class_folder_is_named(tmp_path):
    make_tiles(tmp_path)
    (tmp_path / "lung_image_sets" / "lung_lcc").mkdir()
    with pytest.raises(DataError, match=r"unknown class folder 'lung_lcc'; known: lung_n, lung_ac"):
        read_lc25000(tmp_path)


def test_a_file_without_a_cluster_is_named(tmp_path):
    make_tiles(tmp_path, range(1, 83))
    make_tables(tmp_path / "lc25000_clusters")
    with pytest.raises(DataError, match=r"colonca81\.jpeg is not in the table of original tiles"):
        read_lc25000(tmp_path)


@pytest.mark.parametrize("content", [None, b"name,tile\na,1\n", b"\xff\xfe", b"cluster_label\n1\n"])
def test_a_table_that_cannot_be_read_is_named(tmp_path, content):
    make_tiles(tmp_path)
    path = make_tables(tmp_path / "lc25000_clusters") / "lung_n.csv"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=r"lc25000_clusters/lung_n\.csv cannot be read; it needs"):
        read_lc25000(tmp_path)


# --- Tables from the network -----------------------------------------------------------------


@pytest.fixture
def network(monkeypatch):
    """Serves `table`; `network.asked` holds the addresses. Sums match unless a test spoils them."""

    class Network:
        def __init__(self):
            self.asked, self.spoilt, self.offline = [], b"", False

        def open(self, url, timeout):
            self.asked.append(url)
            if self.offline:
                raise URLError("no route to host")
            label = next(label for label in STEMS if f"/{label}/" in url)
            return io.BytesIO(table(label).encode() + self.spoilt)

    network = Network()
    sums = {label: hashlib.sha256(table(label).encode()).hexdigest() for label in STEMS}
    monkeypatch.setattr(train.data.lc25000, "CLUSTER_SHA256", sums)
    monkeypatch.setattr(
        train.data.lc25000, "SAME_TILE", {**dict.fromkeys(STEMS, ""), "lung_n": "3+8+9"}
    )
    monkeypatch.setattr(train.data.lc25000, "urlopen", network.open)
    return network


def test_the_tables_are_fetched_once_at_a_fixed_commit(tmp_path, network, cache):
    make_tiles(tmp_path)
    found = read_lc25000(tmp_path)
    assert len(network.asked) == 5
    assert all("/c6c55395b7f62910cf90bce6234f07e2671ff904/" in url for url in network.asked)
    assert tile_facts(read_lc25000(tmp_path)) == tile_facts(found)
    assert len(network.asked) == 5
    (cache / "lc25000_clusters" / "colon_n.csv").write_bytes(b"damaged")
    assert tile_facts(read_lc25000(tmp_path)) == tile_facts(found)
    assert len(network.asked) == 6


def test_clusters_of_the_known_table_that_show_one_tile_are_joined(tmp_path, network):
    make_tiles(tmp_path)
    groups = Counter(s.group for s in read_lc25000(tmp_path).samples)
    assert groups["lung_n-003"] == 6
    assert not {"lung_n-008", "lung_n-009"} & set(groups)
    assert groups["lung_aca-008"] == 2


def test_offline_the_error_says_what_to_put_where(tmp_path, network):
    make_tiles(tmp_path)
    network.offline = True
    with pytest.raises(DataError) as caught:
        read_lc25000(tmp_path)
    sentence = str(caught.value)
    for part in ("could not be fetched", "no route to host", "final_clusters.csv as colon_aca.csv",
                 "'lc25000_clusters' beside", "KD_LC25000_CLUSTERS"):  # fmt: skip
        assert part in sentence


def test_a_fetched_table_with_another_sum_is_refused(tmp_path, network, cache):
    make_tiles(tmp_path)
    network.spoilt = b"0,./LC25000/lung_n/lungn99.jpeg\n"
    with pytest.raises(DataError, match="is not the table that this project knows"):
        read_lc25000(tmp_path)
    assert not (cache / "lc25000_clusters").exists()


def test_without_a_cache_the_tables_are_still_used(tmp_path, network, monkeypatch):
    make_tiles(tmp_path)
    monkeypatch.setattr("kdmodels.cache.cache_folder", lambda: None)
    assert len(read_lc25000(tmp_path).samples) == 5 * 2 * TILES


@pytest.mark.data
def test_the_published_clusters_cover_the_whole_data_set(tmp_path):
    tables = DATA / "lc25000_clusters"
    if not tables.is_dir():
        pytest.skip(f"the tables of LC25000-clean are not in {tables}; KD_DATA names their place")
    for label, digest in CLUSTER_SHA256.items():
        data = (tables / f"{label}.csv").read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        clusters = {row["cluster_label"] for row in csv.DictReader(data.decode().splitlines())}
        joined = [c for same in SAME_TILE[label].split() for c in same.split("+")]
        assert len(joined) == len(set(joined)) and set(joined) <= clusters
        tiles = train.data.lc25000._read_tiles(label, tables)
        assert set(tiles) == {f"{STEMS[label]}{n}" for n in range(1, 5001)}
        assert len(set(tiles.values())) == len(clusters) - len(joined) + len(SAME_TILE[label].split())  # fmt: skip
    make_tiles(tmp_path, range(1, 101))
    found = read_lc25000(tmp_path, tables)
    assert all(found.split(split) for split in ("train", "val", "test"))
