"""`train.tables.audit_figure`: every number is in the picture, at its place."""

import pytest

from tests.train.tables.made_audit import audit, forest, model
from train.tables.audit_figure import audit_figure


def test_the_figure_shows_every_number():
    models = (model(), model("OFA-595 (labels only), seed 1", "student", lungs_only=0.66))
    figure = audit_figure(audit(*models, forest=forest(0.77)))
    above, below = figure.subfigs
    shown = {
        axes.get_title().replace("\n", " "): [t.get_text() for t in axes.texts]
        for axes in (*above.axes, *below.axes)
    }
    assert shown == {
        "as they are": ["90", "90", "77"],
        "lungs blanked": ["50", "50", "77"],
        "box around the lungs blanked": ["50", "50", "77"],
        "all but the lungs blanked": ["50", "66", "77"],
        "outline of the lungs alone": ["30", "30", "77"],
        "cropped to the box around the lungs": ["85", "85", "77"],
        "box of the same class": ["90", "90"],
        "box of another class": ["70", "5", "70", "5"],
        "box of another class of the same source": ["65", "6", "65", "6"],
    }
    names = [t.get_text() for t in above.axes[0].get_yticklabels()]
    assert names == ["VGG19", "OFA-595 (labels only),\nseed 1", "Random forest"]
    assert [t.get_text() for t in below.axes[0].get_yticklabels()] == names[:2]
    for axes in above.axes:
        majority, source = (line.get_xdata()[0] for line in axes.lines[:2])
        assert (majority, source) == (50, pytest.approx(70.83))
        low, high = axes.lines[2].get_xdata()
        assert high - low == pytest.approx(10)
