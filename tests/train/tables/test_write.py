"""`train.tables.write`: the files are written where they belong, and those of the repository are new."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

import train.tables.write
from kdmodels.models.checkpoints import Index
from tests.train.made_results import run_of, write_results
from train.measure.kept import REPOSITORY, ResultsError, results_folder
from train.measure.task_numbers import TaskNumbers
from train.tables.templates import over, percent, points
from train.tables.write import (
    BEGIN,
    END,
    all_numbers,
    fill_readme,
    models_text,
    results_text,
    write_tables,
)

MAX_FIGURE_BYTES = 100_000
README = REPOSITORY / "README.md"
README_TEXT = f"# Title\n\n{BEGIN}\nold 99.9\n{END}\n\nMore.\n"


@pytest.fixture
def root(tiny_index, tmp_path) -> Path:
    return write_results(tmp_path / "results", tiny_index)


@pytest.fixture
def tasks(tiny_index, root) -> list[TaskNumbers]:
    return all_numbers(tiny_index, root)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_only_what_stands_between_the_markers_is_replaced(tasks):
    filled = fill_readme(README_TEXT, tasks)
    assert filled.startswith(f"# Title\n\n{BEGIN}\n") and filled.endswith(f"{END}\n\nMore.\n")
    assert "old 99.9" not in filled
    assert fill_readme(filled, tasks) == filled


def test_every_checkpoint_has_a_row_with_its_own_numbers(tasks):
    text = fill_readme(README_TEXT, tasks)
    for numbers in tasks:
        for m in numbers.shipped:
            assert [
                f"[{m.row.name}]({m.row.recipe})",
                "7.6 M / 0.14 at 32 px",
                percent(m.accuracy),
                percent(m.macro_f1),
                over(numbers.over_floor(m)),
                f"{m.row.bytes / 1e6:.1f} MB, `{m.row.sha256[:12]}`",
            ] in [cells(line) for line in text.split("\n")]


def test_floor_and_probe_stand_in_the_same_table(tasks):
    text = fill_readme(README_TEXT, tasks)
    for numbers in tasks:
        [probe], floor = numbers.probes, numbers.best_floor
        assert (
            f"| {probe.name} |  | {percent(probe.accuracy)} | {percent(probe.macro_f1)} |" in text
        )
        assert f"(thumbnail) |  | {percent(floor.accuracy)} | {percent(floor.macro_f1)} |" in text


def test_the_results_tell_every_part(tasks):
    text = results_text(tasks)
    for numbers in tasks:
        for m in numbers.shipped:
            assert f"## {m.row.name}, {m.task.name}\n" in text and m.row.sha256 in text
            found = [percent(m.classes[i]["sensitivity"]) for i in m.task.class_ids]
            assert f"](../{m.row.recipe}) | {' | '.join(found)} |" in text
            temperature = f"{m.temperature:.3f} | {m.plain.ece:.3f} | {m.calibrated.ece:.3f}"
            assert f"| {m.row.name} | {temperature} |" in text
            served = f"{percent(m.served.otherwise)}% | {percent(m.served.largest)} |"
            assert f"PyTorch eager, float32 | OpenVINO, bf16 | {served}" in text
            for other in (numbers.best_floor, *numbers.probes):
                change = numbers.over(m, other)
                both = f"{points(change.accuracy)} | {points(change.macro_f1)} |"
                assert f"](../{m.row.recipe}) | {both}" in text
        for change in numbers.changes:
            both = f"{points(change.by.accuracy)} | {points(change.by.macro_f1)} |"
            assert f"[{change.row.name}](../{change.row.recipe}) | {both}" in text
    assert "images and seeds |" in text and "images alone |" in text


def test_tables_are_whole(tasks, tiny_index):
    """In Markdown, a row of another length than its head is lost or cut."""
    for text in (
        results_text(tasks),
        models_text(tasks, tiny_index),
        fill_readme(README_TEXT, tasks),
    ):
        width = None
        for line in text.split("\n"):
            if not line.startswith("|"):
                width = None
                continue
            width = width or line.count("|")
            assert line.count("|") == width and line.endswith("|"), line


def test_every_heading_and_table_stands_apart(tasks, tiny_index):
    for text in (
        results_text(tasks),
        models_text(tasks, tiny_index),
        fill_readme(README_TEXT, tasks),
    ):
        lines = text.split("\n")
        for before, line in pairwise(lines):
            assert before == "" or not line.startswith("#"), line
            assert before == "" or before.startswith("|") or not line.startswith("|"), line
        assert "\n\n\n" not in text and not any(line != line.rstrip() for line in lines)


def test_the_models_tell_what_each_is_for_and_from(tasks, tiny_index):
    text = models_text(tasks, tiny_index)
    assert "# Chest X-ray\n" in text and "Diagnosis, triage, treatment" in text
    assert "for research, under the terms of the data that they were trained on" in text
    for row in tiny_index.checkpoints:
        assert f"by [{row.recipe}](../{row.recipe}), seed 0, 2025-01-31" in text
        assert f"sha256 `{row.sha256}`" in text
    assert text.count("chosen on the validation split") == len(tiny_index.checkpoints)


def test_a_task_without_answers_is_told_without_numbers(tiny_index, tmp_path):
    assert all_numbers(tiny_index, tmp_path / "none") == []
    text = models_text([], tiny_index)
    assert "# Histopathology\n" in text and "validation split" not in text


def test_answers_of_other_weights_are_refused(tiny_index, root):
    row = tiny_index.find("cxr", "vgg19")
    other = run_of(replace(row, sha256="f" * 64), 0)
    other.write(root / "cxr" / "runs")
    with pytest.raises(ResultsError, match=r"cxr-vgg19-seed0.*ffffffffffff.*evaluate --task cxr"):
        all_numbers(tiny_index, root)


@pytest.fixture
def own_weights(tiny_index, root, tmp_path, monkeypatch) -> Path:
    """The folder of own weights, with few of them, and a README that must not speak of them."""
    few = [c for c in tiny_index.checkpoints if c.task == "cxr" and not c.teacher][:2]
    replace(tiny_index, checkpoints=tuple(few)).write()
    for file in (*(root / "cxr" / "runs").iterdir(), *(root / "histopathology" / "runs").iterdir()):
        if file.stem not in {f"{row.stem}-seed0" for row in few}:
            file.unlink()
    shutil.move(root, tiny_index.folder / "results")
    readme = tmp_path / "README.md"
    readme.write_text(README_TEXT, encoding="utf-8")
    monkeypatch.setenv("KD_WEIGHTS", str(tiny_index.folder))
    monkeypatch.setattr(Index.read.__func__, "__defaults__", (tiny_index.folder,))
    monkeypatch.setattr(train.tables.write, "README", readme)
    return tiny_index.folder


def test_pages_of_own_weights_are_beside_their_results(own_weights, tmp_path):
    figures = results_folder() / "figures"
    figures.mkdir()
    (figures / "confusion-gone.png").touch()
    write_tables()
    index = Index.read()
    text = (own_weights / "results" / "results.md").read_text("utf-8")
    assert text == results_text(all_numbers(index))
    drawn = {f"confusion-{row.stem}.png" for row in index.checkpoints}
    assert {p.name for p in figures.iterdir()} == drawn
    assert all(f"figures/{name}" in text for name in drawn)
    with Image.open(figures / "confusion-cxr-vgg19.png") as figure:
        assert figure.format == "PNG"
    assert (tmp_path / "README.md").read_text("utf-8") == README_TEXT


def test_the_tables_of_the_repository_follow_from_results_alone(tmp_path):
    """In a copy without weights and data; the texts that are made are those of the repository."""
    copy = tmp_path / "copy"
    kept_out = shutil.ignore_patterns("*.safetensors", "*.png", "__pycache__")
    for name in ("kdmodels", "train", "docs", "weights", "benchmarks"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=kept_out)
    shutil.copytree(REPOSITORY / "results", copy / "results")
    empty = re.sub(f"{BEGIN}.*{END}", f"{BEGIN}\n{END}", README.read_text("utf-8"), flags=re.DOTALL)
    (copy / "README.md").write_text(empty, encoding="utf-8")
    pages = ("docs/results.md", "docs/models.md", "README.md")
    for page in pages[:2]:
        (copy / page).unlink()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KD_")}
    subprocess.run(
        [sys.executable, "-m", "train", "tables"],
        cwd=copy,
        env=environment,
        check=True,
    )
    for page in pages:
        made, committed = ((place / page).read_text("utf-8") for place in (copy, REPOSITORY))
        assert made == committed, f"{page} is not what results/ gives; run `python -m train tables`"
    figures = {f.name: f for f in (REPOSITORY / "docs" / "figures").glob("*.png")}
    assert figures.keys() == {f.name for f in (copy / "docs" / "figures").glob("*.png")}
    small = [f for name, f in figures.items() if name.startswith("confusion-")]
    assert [f.name for f in small if f.stat().st_size > MAX_FIGURE_BYTES] == []
