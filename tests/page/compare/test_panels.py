"""`page.compare.panels`: the numbers that are shown are those that were given, and add up."""

import re

import numpy as np
import pytest

from kdmodels.tasks import TASKS
from page.compare import panels

CXR = TASKS["cxr"]


def percents(html: str) -> list[float]:
    return [float(v) for v in re.findall(r'class="value">([\d.]+)%', html)]


def test_softened_outputs_are_the_softmax_at_that_temperature():
    teacher, student = np.array([4.0, 1.0, 0.0]), np.array([0.0, 8.0, 2.0])
    for temperature in (1.0, 2.5, 20.0):
        shown = panels.softened_panel(CXR, temperature, teacher, student)
        wanted = [
            np.exp(z / temperature) / np.exp(z / temperature).sum() for z in (teacher, student)
        ]
        assert percents(shown)[::2] == pytest.approx(100 * wanted[0], abs=0.051)
        assert percents(shown)[1::2] == pytest.approx(100 * wanted[1], abs=0.051)
        assert f"At T = {temperature:g}," in shown
        assert f"{1 - wanted[0].max():.0%} for the teacher" in shown


def test_softened_outputs_stand_large_logits():
    shown = panels.softened_panel(CXR, 1, np.array([1e4, 0, 0]), np.array([-1e4, 0, 0]))
    assert percents(shown) == [100, 0, 0, 50, 0, 50]


def test_agreement_is_explained_and_a_flat_map_has_none():
    shown = panels.agreement_panel({"correlation": 0.456, "overlap": float("nan")}, "of <this>")
    assert "<dd>0.46</dd>" in shown and "<dd>not defined</dd>" in shown
    assert shown.count('class="why"') == 2 and "of &lt;this&gt;" in shown
    assert "lung" not in shown  # no mask was at hand


def test_lungs_are_told_where_a_mask_was_at_hand():
    shown = panels.agreement_panel({"teacher_lungs": 0.7, "student_lungs": 0.2}, "")
    assert (
        shown.index("Teacher") < shown.index("0.70") < shown.index("Student") < shown.index("0.20")
    )


def test_changes_say_what_turned_and_by_how_much():
    before = {"teacher": np.array([0.7, 0.2, 0.1]), "student": np.array([0.6, 0.3, 0.1])}
    after = {"teacher": np.array([0.65, 0.25, 0.1]), "student": np.array([0.1, 0.3, 0.6])}
    shown = panels.changes_panel(CXR, before, after, painted=0.123)
    assert "The teacher still says COVID-19 (-5 points)." in shown
    assert "The student now says Normal instead of COVID-19." in shown
    assert "70.0% → 65.0% <b>(−5.0)</b>" in shown and "10.0% → 60.0% <b>(+50.0)</b>" in shown
    assert "(±0.0)" in shown and "12% of the picture" in shown
