"""`page.batch.tab`: a batch belongs to its browser tab, and its unpacked files go with it."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdmodels.examples import examples
from kdmodels.tasks import get_task
from page.batch import answers, tab
from page.sessions import SESSIONS

TAB = SimpleNamespace(session_hash="batch tab")


@pytest.fixture
def zipped(tmp_path, photo, make_classifier, monkeypatch) -> str:
    """Two images and a broken one; the networks are tiny."""
    photo.save(tmp_path / "one.png")
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        for name in ("one.png", "two.png"):
            archive.write(tmp_path / "one.png", name)
        archive.writestr("broken.png", (tmp_path / "one.png").read_bytes()[:90])
    pair = make_classifier("vgg19"), make_classifier("ofa_595")
    monkeypatch.setattr(tab, "pair", lambda task, teacher: pair)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    yield str(tmp_path / "films.zip")
    SESSIONS.leave(TAB)


def test_the_last_state_has_all_rows_and_a_csv_file(zipped):
    *_, last = tab.run(TAB, [zipped], "cxr", "vgg19")
    assert {row[0] for row in last.table} == {"one.png", "two.png", "broken.png"}
    assert "3 of 3 files" in last.state and "agree on" in last.state
    assert Path(last.csv.value["path"]).name == "teacher-and-student.csv"


def test_unpacked_files_go_with_a_new_batch_and_with_the_tab(zipped):
    folders = []
    for _ in range(2):
        list(tab.run(TAB, [zipped], "cxr", "vgg19"))
        folders.append(Path(SESSIONS.of(TAB).get(tab.Batch).folder.name))
    assert [folder.exists() for folder in folders] == [False, True]
    SESSIONS.leave(TAB)
    assert not folders[1].exists() and SESSIONS.of(TAB).get(tab.Batch) is None


def test_a_newer_batch_ends_the_older_one(zipped):
    older = tab.run(TAB, [zipped], "cxr", "vgg19")
    next(older)
    list(tab.run(TAB, [zipped], "cxr", "vgg19"))
    assert list(older) == [tab.Shown()]


def test_without_files_one_sentence_says_so():
    (shown,) = tab.run(TAB, None, "cxr", "vgg19")
    assert "There are no files yet" in shown.state and shown.table == []


def test_the_doubtful_rows_can_be_seen_alone(zipped):
    film = str(examples("cxr")[0].path)
    *_, last = tab.run(TAB, [zipped, film], "cxr", "vgg19")
    assert len(last.table) == 4 and "2 with a doubt." in last.state
    doubt = tab.HEADINGS.index("Doubt")
    alone = tab.only_doubtful(TAB, True)
    assert {row[0] for row in alone} == {"one.png", "two.png"}
    assert all(row[1].endswith(" (see Doubt)") for row in alone)
    assert {row[doubt] for row in alone} == {
        "This picture has colours; chest X-rays are grey. No lungs were found in this picture."
    }
    *_, again = tab.run(TAB, [zipped, film], "cxr", "vgg19")  # the wish stays
    assert [row[0] for row in again.table] == [row[0] for row in alone]
    everything = {row[0]: row for row in tab.only_doubtful(TAB, False)}
    assert len(everything) == 4 and "see Doubt" not in everything[Path(film).name][1]


def test_without_a_batch_there_are_no_rows(zipped):
    assert tab.only_doubtful(TAB, True) == []
    list(tab.run(TAB, [zipped], "cxr", "vgg19"))
    list(tab.run(TAB, None, "cxr", "vgg19"))  # refused
    assert tab.only_doubtful(TAB, False) == []


def test_every_column_has_a_heading_a_kind_and_a_width():
    problem = tab.cells(get_task("cxr"), answers.Row("a.png", problem="No image."))
    assert problem[tab.HEADINGS.index("Problem")] == "No image."
    assert len(problem) == len(tab.HEADINGS) == len(tab.KINDS) == len(tab.WIDTHS)
