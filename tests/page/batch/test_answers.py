"""`page.batch.answers`: each file has its row, and a file's name cannot become a formula."""

import csv
from dataclasses import replace
from io import StringIO

import pytest

from kdmodels.examples import examples
from kdmodels.images.archives import Found
from kdmodels.images.read import ImageError, read_image
from kdmodels.predict import predict
from page.batch.answers import COLUMNS, Row, run, to_csv
from page.sessions import Superseded
from tests.phantom import chest_phantom


@pytest.fixture
def files(tmp_path, photo):
    chest_phantom(120, 130).save(tmp_path / "chest.png")
    photo.save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "photo.png").read_bytes()[:200])
    (tmp_path / "cases.csv").write_text("file,label\n", encoding="utf-8")
    names = ["chest.png", "broken.png", "cases.csv", "gone.png", "photo.png"]
    return [Found(name, tmp_path / name, name) for name in names]


@pytest.fixture
def pair(make_classifier):
    return make_classifier("ofa_595"), make_classifier("vgg19")


def test_rows_say_what_a_single_prediction_says_and_bad_files_are_problems(files, pair):
    rows = list(run(pair, files))
    assert [row.file for row in rows] == ["chest.png", "broken.png", "gone.png", "photo.png"]
    for row, file in ((rows[0], files[0]), (rows[3], files[4])):
        pixels = read_image(file.path).pixels
        said = {c.spec.role: predict(c, pixels) for c in pair}
        assert (row.teacher, row.student) == (said["teacher"].class_id, said["student"].class_id)
        assert row.teacher_probability == pytest.approx(max(said["teacher"].probabilities))
        assert row.student_probability == pytest.approx(max(said["student"].probabilities))
        assert row.agree == (row.teacher == row.student) and row.problem == ""
        assert 0 < row.teacher_ms < 10_000 and 0 < row.student_ms < 10_000
    for row, file in ((rows[1], files[1]), (rows[2], files[3])):
        with pytest.raises(ImageError) as refused:
            read_image(file.path)
        assert row == Row(row.file, problem=str(refused.value))


def test_a_doubtful_picture_is_a_row_with_its_doubt(files, pair):
    film = examples("cxr")[0].path
    rows = [row for row in run(pair, [Found(film.name, film, film.name), *files]) if row.teacher]
    plain, chest, photo = (row.doubt for row in rows)
    assert plain == "" and "chest X-rays" in chest
    assert photo == (
        "This picture has colours; chest X-rays are grey. No lungs were found in this picture."
    )
    assert [row["doubt"] for row in read_back(rows)] == ["", chest, photo]


def test_the_probabilities_are_calibrated(files, pair):
    flat = [replace(c, checkpoint=replace(c.checkpoint, temperature=1e6)) for c in pair]
    (row,) = run(flat, files[:1])
    assert row.teacher_probability == pytest.approx(1 / 3, abs=1e-3)


def test_a_newer_request_ends_the_batch_between_two_files(files, pair):
    calls = []

    def check():
        calls.append(None)
        if len(calls) > limit:
            raise Superseded

    limit = 10**6
    first = next(rows := run(pair, files, check))
    limit = len(calls)
    assert first.file == "chest.png"
    with pytest.raises(Superseded):
        next(rows)


def read_back(rows):
    return list(csv.DictReader(StringIO(to_csv(rows), newline="")))


def test_the_table_holds_every_number_and_says_yes_or_no():
    row = Row('a, "b".png', "covid", 0.98765, "normal", 0.5, False, 85.941, 2.5)
    bad = Row("b.png", problem="This file is empty; export or download it again.")
    first, second = read_back([row, bad])
    assert tuple(first) == COLUMNS
    assert list(first.values()) == [
        'a, "b".png', "covid", "0.9877", "normal", "0.5000", "no", "85.94", "2.50", "", "",
    ]  # fmt: skip
    assert list(second.values()) == ["b.png", *[""] * 8, bad.problem]
    assert to_csv([]) == ",".join(COLUMNS) + "\r\n"
    assert read_back([Row("c", agree=True)])[0]["agree"] == "yes"


@pytest.mark.parametrize(
    "name",
    ["=cmd|'/C calc'!A0.png", "+1.png", "-1.png", "@SUM(A1).png", "\tx.png", "\rx.png", "＝1"],
)
def test_no_cell_is_a_formula(name):
    row = read_back([Row(name, problem=name)])[0]
    assert row["file"] == row["problem"] == f"'{name}"


def test_names_that_are_no_formula_stay_as_they_are():
    assert read_back([Row("a=b-c+d@e.png")])[0]["file"] == "a=b-c+d@e.png"
