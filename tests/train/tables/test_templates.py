"""`train.tables.templates`: numbers as a reader expects them."""

import jinja2
import pytest

from train.measure.resampling import Estimate
from train.tables.templates import (
    decimals,
    head,
    listed,
    mean_and_range,
    percent,
    points,
    render,
    row,
)

NONE = Estimate(float("nan"), float("nan"), float("nan"))


def test_a_table_has_a_line_below_its_head_and_spreads_lists():
    assert row("a", 1, "") == "| a | 1 |  |"
    assert head("x", ["y", "z"]) == "| x | y | z |\n| --- | --- | --- |"


def test_shares_are_percent_with_their_interval():
    assert percent(Estimate(0.767, 0.7294, 0.8026)) == "76.7 (72.9 to 80.3)"
    assert percent(0.767) == "76.7" and percent(NONE) == "none predicted"
    assert mean_and_range([0.783, 0.799]) == "79.1 (78.3 to 79.9)"
    assert mean_and_range([0.783]) == "78.3"


def test_differences_are_points_with_signs():
    assert points(Estimate(0.0156, -0.0111, 0.043)) == "+1.6 (-1.1 to +4.3)"
    assert points(-0.0156) == "-1.6"


def test_other_numbers_have_decimals_or_none():
    assert decimals(Estimate(0.255, 0.16, -0.1), "+.2f") == "+0.26 (+0.16 to -0.10)"
    assert decimals(NONE) == "all maps are flat"


def test_names_are_listed_as_one_speaks():
    assert [listed("ABC"[:n]) for n in (1, 2, 3)] == ["A", "A and B", "A, B and C"]


def test_a_name_that_a_template_does_not_get_is_an_error(tmp_path):
    (tmp_path / "t.jinja").write_text("{{ a }}\n\n\n\n{{ 1234 | thousands }}\n\n")
    assert render("t.jinja", {"a": "A"}, tmp_path) == "A\n\n1,234\n"
    with pytest.raises(jinja2.UndefinedError):
        render("t.jinja", {}, tmp_path)
