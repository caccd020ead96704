"""`train.tables.markdown`: numbers as a reader expects them."""

from train.tables.markdown import head, mean_and_range, percent, points, row


def test_cells_stand_between_bars():
    assert row("a", 1, "") == "| a | 1 |  |"
    assert head("a", "b") == ["| a | b |", "| --- | --- |"]


def test_shares_are_percent_with_their_interval():
    assert percent({"value": 0.7665, "ci95": [0.7289, 0.8032]}) == "76.6 (72.9 to 80.3)"
    assert percent({"value": None, "ci95": [None, None]}) == "none predicted"


def test_differences_carry_their_sign():
    assert points({"value": 0.0156, "ci95": [-0.0105, 0.0431]}) == "+1.6 (-1.1 to +4.3)"
    assert points({"value": -0.02, "ci95": [-0.03, -0.01]}) == "-2.0 (-3.0 to -1.0)"


def test_seeds_have_a_mean_and_a_range():
    assert mean_and_range([0.7, 0.8, 0.75]) == "75.0 (70.0 to 80.0)"
    assert mean_and_range([0.9]) == "90.0 (90.0 to 90.0)"
