"""`page.heatmaps`: rough maps of both first, only the latest where many wait, no leaks."""

import threading
import time

import numpy as np
import pytest

from kdmodels.explain.scorecam import explain
from kdmodels.predict import COMPUTE
from page.heatmaps import heatmaps

WANTED = {"teacher": "covid", "student": "normal"}


@pytest.fixture
def models(make_classifier):
    """A teacher and a student of 12 and 6 channels, one channel at a time."""
    found = {"teacher": make_classifier("autoformerv2_t"), "student": make_classifier("ofa_595")}
    for classifier in found.values():
        classifier.engine.batch = 1
    return found


def gone(thread: threading.Thread) -> bool:
    thread.join(20)
    return not thread.is_alive()


def test_it_ends_with_the_exact_maps_of_both(models, photo):
    last = {}
    for role, step in heatmaps(models, photo, WANTED, True, lambda: None):
        assert role not in last or step.done >= last[role].done
        last[role] = step
    for role, classifier in models.items():
        assert last[role].exact
        np.testing.assert_allclose(
            last[role].heatmap, explain(classifier, photo, WANTED[role]), atol=1e-6
        )


def test_without_exact_it_ends_at_settled_maps(models, photo, monkeypatch):
    monkeypatch.setattr("kdmodels.explain.scorecam.SETTLED", -1.0)  # the first map is good enough
    found = list(heatmaps(models, photo, WANTED, False, lambda: None))
    assert [role for role, _ in found] == ["student", "teacher"]
    assert all(step.settled and not step.exact for _, step in found)


def test_where_many_wait_only_the_latest_is_handed_on(models, photo):
    started = set(threading.enumerate())
    found = heatmaps(models, photo, WANTED, True, lambda: None)
    first = next(found)
    assert all(gone(t) for t in set(threading.enumerate()) - started)  # all the work is done
    rest = list(found)
    assert first[0] == "student" and len(rest) <= 2
    assert {role: step.exact for role, step in rest} == dict.fromkeys(dict(rest), True)


def test_closing_it_ends_the_work(models, photo):
    started = set(threading.enumerate())
    held = threading.Event()
    released = threading.Event()

    def wait():
        held.set()
        assert released.wait(20)

    found = heatmaps(models, photo, WANTED, True, wait)
    puller = threading.Thread(target=lambda: next(found, None))
    puller.start()
    assert held.wait(20)
    work = set(threading.enumerate()) - started - {puller}
    released.set()
    puller.join(20)
    found.close()
    assert work and all(gone(thread) for thread in work)
    assert not COMPUTE.locked()


def test_what_the_check_raises_comes_out_and_ends_the_work(models, photo):
    class Newer(Exception):
        pass

    calls = []

    def check():
        calls.append(time.perf_counter())
        if len(calls) == 4:
            raise Newer

    started = set(threading.enumerate())
    with pytest.raises(Newer):
        list(heatmaps(models, photo, WANTED, True, check))
    assert all(gone(t) for t in set(threading.enumerate()) - started)
    assert len(calls) == 4 and not COMPUTE.locked()
