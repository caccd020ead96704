"""`train.tables.write`: the files are written where they belong, and those of the repository are new."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import train.tables.write
from kdmodels.models.checkpoints import WEIGHTS, Index
from train.release.store import read_results
from train.tables.cards_page import cards
from train.tables.details import details, figure_of
from train.tables.summary import summary
from train.tables.write import (
    BEGIN,
    CARDS,
    END,
    OWN_WEIGHTS,
    README,
    RESULTS,
    fill_readme,
    write_tables,
)

README_TEXT = f"# A title\n\nBefore 12.3.\n\n{BEGIN}\nold 99.9\n{END}\n\nAfter, to the end.\n"
MAX_FIGURE_BYTES = 40_000


@pytest.fixture
def places(evaluated_index, some_results, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """README.md in a folder of its own, and RESULTS.md beside the tiny weights."""
    few = [c for c in evaluated_index.checkpoints if c.model == "vgg19" or c.teacher == "vgg19"]
    replace(evaluated_index, checkpoints=tuple(few)).write()
    readme, results = tmp_path / "README.md", evaluated_index.folder / "RESULTS.md"
    readme.write_text(README_TEXT, encoding="utf-8")
    monkeypatch.setattr(Index.read.__func__, "__defaults__", (evaluated_index.folder,))
    monkeypatch.setattr(train.tables.write, "read_results", lambda: some_results)
    monkeypatch.setattr(train.tables.write, "README", readme)
    monkeypatch.setattr(train.tables.write, "RESULTS", results)
    monkeypatch.setattr(train.tables.write, "CARDS", results.with_name("CARDS.md"))
    return readme, results


def test_only_what_stands_between_the_markers_is_replaced(evaluated_index, some_results):
    filled = fill_readme(README_TEXT, evaluated_index, some_results)
    before, after = README_TEXT.split(BEGIN)[0], README_TEXT.split(END)[1]
    table = summary(evaluated_index, some_results)
    assert filled == f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"
    assert "old 99.9" not in filled
    assert fill_readme(filled, evaluated_index, some_results) == filled


def test_write_tables_brings_all_up_to_date(places, some_results, monkeypatch):
    readme, results = places
    monkeypatch.setattr(train.tables.write, "OWN_WEIGHTS", results.parent)
    figures = results.parent / "figures"
    figures.mkdir()
    for name in ("confusion-gone.png", "audit-cxr.png"):
        (figures / name).touch()
    write_tables()
    stored = Index.read(results.parent)
    assert readme.read_text("utf-8") == fill_readme(README_TEXT, stored, some_results)
    text = results.read_text("utf-8")
    assert text == details(stored, some_results)
    assert results.with_name("CARDS.md").read_text("utf-8") == cards(stored, some_results)
    drawn = {Path(figure_of(row)).name for row in stored.checkpoints}
    assert {p.name for p in figures.iterdir()} == drawn | {"audit-cxr.png"}
    assert all(f"figures/{name}" in text for name in drawn)
    with Image.open(figures / "confusion-cxr-vgg19.png") as figure:
        assert figure.format == "PNG"


def test_the_readme_does_not_speak_of_other_weights(places):
    readme, results = places
    write_tables()
    assert results.is_file()
    assert readme.read_text("utf-8") == README_TEXT


def test_the_tables_of_the_repository_are_up_to_date():
    if WEIGHTS.resolve() != OWN_WEIGHTS.resolve():
        pytest.skip("KD_WEIGHTS names other weights than the repository's")
    if not (WEIGHTS / "index.json").is_file():
        pytest.skip("weights/index.json does not exist yet: nothing is trained")
    index, results = Index.read(), read_results()
    if not any(row.metrics for row in index.checkpoints):
        pytest.skip("weights/index.json holds no results yet: nothing is evaluated")
    text = README.read_text(encoding="utf-8")
    assert text == fill_readme(text, index, results), "run `python -m train tables`"
    assert RESULTS.read_text(encoding="utf-8") == details(index, results)
    assert CARDS.read_text(encoding="utf-8") == cards(index, results)
    figures = [WEIGHTS / figure_of(row) for row in index.checkpoints if row.metrics]
    assert [f.name for f in figures if not f.is_file()] == [], "run `python -m train tables`"
    assert [f.name for f in figures if f.stat().st_size > MAX_FIGURE_BYTES] == []
