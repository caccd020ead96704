"""`page.teach.score`: votes are counted, and the score counts what it says."""

import pytest

from kdmodels.tasks import get_task
from page.teach.cases import Case
from page.teach.score import Score, Votes


@pytest.fixture
def cases(tmp_path):
    known = ["covid", "normal", "pneumonia", None]
    return [Case(f"{n}.png", tmp_path / f"{n}.png", label) for n, label in enumerate(known)]


def test_votes_are_counted_and_ties_are_told():
    votes = Votes.none(get_task("cxr"))
    assert votes.guess is None and votes.total == 0
    first = votes.with_vote("normal").with_vote("covid")
    assert first.counts == {"covid": 1, "pneumonia": 0, "normal": 1} and first.total == 2
    assert first.guess is None
    second = first.with_vote("normal")
    assert second.guess == "normal" and second.total == 3
    assert votes.total == 0  # each is a new one
    with pytest.raises(ValueError, match="no class 'cat'; the classes are: covid"):
        votes.with_vote("cat")


def test_the_score_counts_each_player_over_the_cases_that_can_be_judged(cases):
    score = Score()
    assert score.tally("human") == (0, 0)
    score = score.with_answer(cases[0], "covid", "covid", "normal")
    score = score.with_answer(cases[1], "covid", "normal", "normal")
    score = score.with_answer(cases[2], None, "pneumonia", "covid")  # nobody guessed
    score = score.with_answer(cases[3], "covid", "covid", "covid")  # no label
    tallies = [score.tally(player) for player in ("human", "teacher", "student")]
    assert tallies == [(1, 2), (3, 3), (1, 3)]


def test_a_case_that_was_revealed_counts_only_once(cases):
    score = Score().with_answer(cases[0], "normal", "covid", "covid")
    again = score.with_answer(cases[0], "covid", "covid", "covid")
    assert again == score and again.tally("human") == (0, 1)
