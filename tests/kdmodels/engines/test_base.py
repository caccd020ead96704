"""`kdmodels.engines.base`: what an error says."""

from kdmodels.engines.base import gist


def test_an_error_is_told_in_a_few_words():
    path = "Exception from src/inference/src/cpp/core.cpp:237:\nCheck 'x' failed at a.cpp:1:\n"
    assert gist(RuntimeError(path + "[CPU] Cannot import blob.\n\n")) == "[CPU] Cannot import blob"
    assert gist(RuntimeError("")) == "RuntimeError"
    assert len(gist(RuntimeError("x" * 999))) == 200
