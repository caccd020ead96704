"""`page.compare.study`: how far a study is, and what stays with its file."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from page.compare.study import Study, Upload, keep_mask, shows
from page.sessions import Session

ALL = np.ones((2, 2), bool)


def study(name: str = "1", pair: object = None) -> Study:
    return Study(SimpleNamespace(name=name), "cxr", "vgg19", pair, 1.0)


def test_a_study_knows_how_far_it_is():
    one = study()
    assert not one.answered and not one.explained and one.task.id == "cxr"
    one.predictions["teacher"] = one.steps["student"] = object()
    assert not one.answered and not one.explained
    one.predictions["student"] = one.steps["teacher"] = object()
    assert one.answered and one.explained
    assert replace(one, predictions={}).made_at == one.made_at


def test_a_study_is_the_same_for_any_class_but_not_for_another_image_or_pair():
    session, first = Session(), study(pair=object())
    assert not shows(session, first)
    session.keep(replace(first, evidence={"teacher": "covid"}))
    assert shows(session, first) and not shows(Session(), first)
    session.keep(replace(first, checked=SimpleNamespace()))
    assert not shows(session, first)
    session.keep(replace(first, pair=object()))
    assert not shows(session, first)


def test_a_mask_stays_with_its_file():
    session = Session()
    session.keep(study())
    session.keep(one := Upload("one.png"))
    keep_mask(session, ALL, Upload("another.png"))  # read for another file
    keep_mask(session, ALL, None)
    assert session.get(Study).inside is None and session.get(Upload).inside is None
    keep_mask(session, ALL, one)
    keep_mask(session, ~ALL, one)  # a second mask that was chosen while the first was read
    assert not session.get(Study).inside.any() and not session.get(Upload).inside.any()
    session.drop(Study)  # another teacher
    assert session.get(Upload).inside is not None
    session.drop(Upload)
    keep_mask(session, ALL, one)
    assert session.get(Upload) is None
