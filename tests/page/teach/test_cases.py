"""`page.teach.cases`: good rows work whatever the others hold."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from kdmodels.tasks import TASKS, get_task
from page.teach.cases import Case, disagreements, order, read_cases

CXR = get_task("cxr")


def png(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.fixture
def read(tmp_path):
    """Read cases of a zip of {name: bytes, or text of a table}; an int is an image's seed."""

    def read(members, task=CXR):
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, png(content) if isinstance(content, int) else content)
        (folder := tmp_path / "out").mkdir(exist_ok=True)
        return read_cases([tmp_path / "set.zip"], task, folder)

    return read


def labels(found):
    return [(case.name, case.label) for case in found.cases]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_gives_labels_and_notes(read, delimiter, start, end):
    rows = [
        ["File", " label", "NOTE"],
        ["b.png", "COVID-19", '"ground glass, both sides; see follow-up"'],
        ["a.png", "normal", ""],
    ]
    table = start + end.join(delimiter.join(row) for row in rows) + end
    found = read({"a.png": 0, "b.png": 1, "cases.csv": table.encode()})
    assert found.problems == ()
    assert labels(found) == [("b.png", "covid"), ("a.png", "normal")]
    assert [case.note for case in found.cases] == ["ground glass, both sides; see follow-up", ""]
    assert found.cases[0].path.read_bytes() == png(1)


@pytest.mark.parametrize("task", TASKS.values(), ids=str)
def test_every_class_may_be_written_by_id_or_name(read, task):
    written = [text for c in task.classes for text in (c.id, c.name, c.id.upper(), c.name.lower())]
    table = "file\tlabel\n" + "".join(f"{n}.png\t{text}\n" for n, text in enumerate(written))
    found = read({f"{n}.png": n for n in range(len(written))} | {"t.csv": table}, task)
    assert found.problems == ()
    assert [case.label for case in found.cases] == [c.id for c in task.classes for _ in range(4)]


def test_bad_rows_are_told_with_their_line_and_good_rows_work(read):
    table = (
        'file,label,note\na.png,normal,"two\nlines"\n\nb.png,covd\nc.png,elephant\n'
        "gone.png,normal\na.png,covid\n,normal\nd.png\ne.png,pneumonia\n"
    )
    found = read({f"{name}.png": n for n, name in enumerate("abcdef")} | {"t.csv": table})
    assert labels(found) == [("a.png", "normal"), ("d.png", None), ("e.png", "pneumonia")]
    assert found.problems == (
        "Line 5: “covd” is not a class of this task; did you mean covid?",
        "Line 6: “elephant” is not a class of this task; the classes are covid, pneumonia, normal.",
        "Line 7: there is no image gone.png among the files.",
        "Line 8: a.png is already on line 2.",
        "Line 9: the column file is empty.",
        "In no row of the table, and so left out: f.png.",
    )


def test_a_row_finds_its_file_by_the_end_of_its_path(read):
    table = (
        "file,label\none/x.png,normal\n.\\two\\x.png,covid\nx.png,covid\n"
        "other/two/x.png,covid\nY.PNG,pneumonia\n"
    )
    found = read({"set/one/x.png": 1, "set/two/x.png": 2, "set/y.png": 3, "set/t.csv": table})
    assert [case.label for case in found.cases] == ["normal", "covid", "pneumonia"]
    assert [case.path.read_bytes() for case in found.cases] == [png(1), png(2), png(3)]
    assert found.problems == (
        "Line 4: 2 files are named x.png; write the path of the one meant.",
        "Line 5: there is no image other/two/x.png among the files.",
    )


def test_a_bare_name_means_the_file_beside_the_table_where_there_is_one(read):
    found = read({"x.png": 1, "deep/x.png": 2, "t.csv": "file,label\nx.png,normal\n"})
    assert found.cases[0].path.read_bytes() == png(1)
    assert found.problems == ("In no row of the table, and so left out: deep/x.png.",)


def test_single_files_and_their_table(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "t.csv").write_text("file,label\nimages/a.png,covid\n", encoding="utf-8")
    found = read_cases([tmp_path / "t.csv", tmp_path / "a.png"], CXR, tmp_path)
    assert labels(found) == [("a.png", "covid")] and found.problems == ()


def test_folders_are_labels_where_there_is_no_table(read):
    found = read(
        {
            "set/COVID-19/images/a.png": 0,
            "set/normal/b.png": 1,
            "set/pneumona/c.png": 2,
            "d.png": 3,
        }
    )
    assert labels(found) == [
        ("a.png", "covid"),
        ("b.png", "normal"),
        ("c.png", None),
        ("d.png", None),
    ]
    assert found.problems == (
        "The folder pneumona is not named after a class, so its images (1) have no label; "
        "did you mean pneumonia?",
    )


def test_of_folders_within_folders_the_innermost_is_the_label(read):
    found = read({"covid/normal/a.png": 0, "normal/covid/images/b.png": 1})
    assert labels(found) == [("a.png", "normal"), ("b.png", "covid")] and found.problems == ()


def test_images_alone_are_cases_without_a_label(read):
    found = read({"holiday/a.png": 0, "b.png": 1})
    assert labels(found) == [("a.png", None), ("b.png", None)] and found.problems == ()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (b"name,class\na.png,covid\n", "was not used: it must be a CSV file with the columns file"),
        (b"", "was not used: it must be a CSV file"),
        ("file,label,note\na.png,covid,Übersicht\n".encode("cp1252"), "is not UTF-8 text"),
        (b"file,label\n" + b"x" * 2**20, "is larger than 1 MB"),
        (b'file,label\na.png,"' + b"x" * 200_000, "cannot be read from line 2 on"),
    ],
)
def test_a_table_that_cannot_be_used_is_a_problem_and_folders_still_count(read, table, sentence):
    found = read({"normal/a.png": 0, "t.csv": table})
    assert labels(found) == [("a.png", "normal")]
    assert len(found.problems) == 1 and found.problems[0].startswith(f"t.csv {sentence}")


def test_a_quote_that_is_never_closed_does_not_flood_the_page(read):
    found = read({"a.png": 0, "t.csv": 'file,label\na.png,normal\n"b.png,covid\n' + "x,y\n" * 9000})
    assert labels(found) == [("a.png", "normal")]
    assert len(found.problems) == 1 and len(found.problems[0]) < 150


def test_endless_problems_are_counted(read):
    found = read({"a.png": 0, "t.csv": "file,label\na.png,normal\n" + "b.png,normal\n" * 1000})
    assert labels(found) == [("a.png", "normal")]
    assert len(found.problems) == 51
    assert found.problems[-1] == "There are 950 more problems like these."


def test_of_two_tables_the_first_is_used(read):
    found = read({"a.png": 0, "1.csv": "file,label\na.png,normal\n", "2.csv": "file,label\n"})
    assert labels(found) == [("a.png", "normal")]
    assert found.problems == ("2.csv was not used: one table is enough, and 1.csv is.",)


def test_an_empty_set_says_what_is_wanted(read):
    found = read({"empty/": b""})
    assert found.cases == () and "There is no image; choose images" in found.problems[0]


@pytest.fixture
def cases(tmp_path):
    known = ["covid", "normal", "pneumonia", None]
    return [Case(f"{n}.png", tmp_path / f"{n}.png", known[n % 4]) for n in range(20)]


def test_an_order_is_a_shuffle_that_its_seed_repeats(cases):
    assert order(cases, 1) == order(cases, 1) != order(cases, 2)
    assert list(order(cases, 1)) != cases and set(order(cases, 1)) == set(cases)


def test_disagreements_are_those_where_both_answered_differently(cases):
    teacher = {"0.png": "covid", "1.png": "normal", "2.png": "covid", "7.png": "covid"}
    student = {"0.png": "covid", "1.png": "covid", "2.png": "normal", "8.png": "covid"}
    found = disagreements(reversed(cases), teacher, student)
    assert [case.name for case in found] == ["2.png", "1.png"]
