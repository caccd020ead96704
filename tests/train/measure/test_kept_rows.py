"""`train.measure.kept_rows`: tables that come back as they went, and those that are none."""

import math

import pytest

from train.measure.kept import ResultsError
from train.measure.kept_rows import AgreementRow, LeakageRow, read_rows, unlike_rows, write_rows

LEAKAGE = [
    LeakageRow("random forest on colours, six", "by_image", seed, 10, 5, 4 - seed, 3)
    for seed in (0, 1)
]
AGREEMENT = [
    AgreementRow("run", "ab", "vgg19", "cd", f"{i}.png", "g", value, 0.5)
    for i, value in enumerate((0.25, -0.125, math.nan))
]


def test_rows_come_back_as_they_were_written(tmp_path):
    file = tmp_path / "new" / "leakage.csv"
    write_rows(file, LEAKAGE)
    assert read_rows(file, LeakageRow) == tuple(LEAKAGE)
    write_rows(file, AGREEMENT)
    found = read_rows(file, AgreementRow)
    assert found[:2] == tuple(AGREEMENT[:2]) and math.isnan(found[2].correlation)
    assert read_rows(tmp_path / "none.csv", LeakageRow) == ()


@pytest.mark.parametrize("text", ["", "classifier,way\na,b\n", "a\n"])
def test_a_table_of_other_columns_is_named(tmp_path, text):
    write_rows(tmp_path / "leakage.csv", LEAKAGE)
    lines = (tmp_path / "leakage.csv").read_text().splitlines()
    (tmp_path / "leakage.csv").write_text(text + lines[1] + "\n")
    with pytest.raises(ResultsError, match=r"leakage\.csv is no table of classifier, way, seed"):
        read_rows(tmp_path / "leakage.csv", LeakageRow)


def test_a_number_that_is_none_is_named(tmp_path):
    write_rows(tmp_path / "leakage.csv", LEAKAGE)
    text = (tmp_path / "leakage.csv").read_text()
    (tmp_path / "leakage.csv").write_text(text.replace("by_image,0", "by_image,zero"))
    with pytest.raises(ResultsError, match="delete it and measure it again"):
        read_rows(tmp_path / "leakage.csv", LeakageRow)


def test_rows_differ_by_more_than_a_tolerance_or_by_being_there(tmp_path):
    file = tmp_path / "a.csv"
    near = [AGREEMENT[0].__class__(*[*list(vars(r).values())[:6], r.correlation + 0.05, 0.5])
            for r in AGREEMENT]  # fmt: skip
    tolerances = {"correlation": 0.1, "overlap": 0.1}
    assert unlike_rows(file, AGREEMENT, near, tolerances) == []
    (line,) = unlike_rows(file, AGREEMENT, near, tolerances | {"correlation": 0.01})[:1]
    assert "a.csv: correlation of" in line
    assert len(unlike_rows(file, AGREEMENT[:2], near, tolerances)) == 1
    assert len(unlike_rows(file, AGREEMENT, near[1:], tolerances)) == 1
