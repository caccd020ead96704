"""`page.studies`: each tab has its own, closed and old ones are forgotten."""

from dataclasses import replace
from types import SimpleNamespace

from page.studies import Studies, Study


def study(name: str) -> Study:
    return Study(SimpleNamespace(name=name), "cxr", "vgg19", None, 1.0)


def test_each_tab_has_its_own_study_and_file():
    studies = Studies()
    studies.put("a", study("1"))
    studies.put_source("a", "a.dcm")
    assert studies.get("a").checked.name == "1" and studies.source("a") == "a.dcm"
    assert studies.get("b") is None and studies.source("b") is None
    studies.drop("a")
    assert studies.get("a") is None and studies.source("a") == "a.dcm"
    studies.leave("a")
    assert studies.source("a") is None


def test_a_script_has_no_tab_and_leaves_nothing():
    studies = Studies()
    studies.put(None, study("1"))
    studies.put_source(None, "x")
    assert studies.get(None) is None and studies.source(None) is None


def test_the_tab_used_longest_ago_is_forgotten_first():
    studies = Studies(most=2)
    for tab in ("a", "b", "a", "c"):
        studies.put(tab, study(tab))
    assert [studies.get(t) is not None for t in "abc"] == [True, False, True]


def test_a_study_knows_how_far_it_is():
    one = study("1")
    assert not one.answered and not one.explained and one.task.id == "cxr"
    one.predictions["teacher"] = one.steps["student"] = object()
    assert not one.answered and not one.explained
    one.predictions["student"] = one.steps["teacher"] = object()
    assert one.answered and one.explained
    assert replace(one, predictions={}).made_at == one.made_at
