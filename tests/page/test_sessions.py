"""`page.sessions`: each tab has its own, what is closed or old is forgotten, and newer work ends older."""

import threading
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from page.sessions import Session, Sessions, Superseded


class Word(NamedTuple):
    text: str


class Unpacked(NamedTuple):
    folder: TemporaryDirectory


def tab(name: str | None) -> SimpleNamespace:
    """What a handler sees of the browser tab."""
    return SimpleNamespace(session_hash=name)


def unpacked(tmp_path) -> Unpacked:
    return Unpacked(TemporaryDirectory(dir=tmp_path))


def test_each_tab_keeps_one_thing_of_each_type():
    sessions = Sessions()
    sessions.of(tab("a")).keep(Word("1"))
    sessions.of(tab("a")).keep(Word("2"))
    sessions.of(tab("a")).keep(3)
    assert sessions.of(tab("a")).get(Word) == Word("2") and sessions.of(tab("a")).get(int) == 3
    assert sessions.of(tab("b")).get(Word) is None
    sessions.of(tab("a")).drop(Word, str)
    assert sessions.of(tab("a")).get(Word) is None and sessions.of(tab("a")).get(int) == 3


@pytest.mark.parametrize("name", [None, ""])
def test_a_script_has_no_tab_and_leaves_nothing(name):
    sessions = Sessions()
    sessions.of(tab(name)).keep(Word("1"))
    assert sessions.of(tab(name)).get(Word) is None
    first, second = (sessions.of(tab(name)).take_turn("work") for _ in range(2))
    first.check()  # scripts do not end each other's work
    second.check()
    sessions.leave(tab(name))


def test_a_newer_turn_ends_the_older_one_of_the_same_work_and_tab_alone():
    sessions = Sessions()
    old = sessions.of(tab("a")).take_turn("comparison")
    beside = (
        sessions.of(tab("a")).take_turn("stroke"),
        sessions.of(tab("b")).take_turn("comparison"),
    )
    old.check()
    new = sessions.of(tab("a")).take_turn("comparison")
    with pytest.raises(Superseded):
        old.check()
    for turn in (new, *beside):
        turn.check()


def test_leaving_ends_the_work_and_forgets_all(tmp_path):
    sessions = Sessions()
    session = sessions.of(tab("a"))
    session.keep(Word("1"))
    session.keep(unpacked(tmp_path))
    turn = session.take_turn("work")
    sessions.leave(tab("a"))
    sessions.leave(tab("a"))  # browsers may tell it twice
    with pytest.raises(Superseded):
        turn.check()
    assert not list(tmp_path.iterdir()) and sessions.of(tab("a")).get(Word) is None


def test_a_folder_goes_with_what_it_belongs_to(tmp_path):
    session = Session()
    first, second = unpacked(tmp_path), unpacked(tmp_path)
    session.keep(first)
    session.keep(first)  # the same once more
    assert len(list(tmp_path.iterdir())) == 2
    session.keep(second)
    assert [str(left) for left in tmp_path.iterdir()] == [second.folder.name]
    session.drop(Unpacked)
    assert not list(tmp_path.iterdir())


def test_the_tab_used_longest_ago_is_forgotten_first(tmp_path):
    sessions = Sessions(most=2)
    for name in ("a", "b"):
        sessions.of(tab(name)).keep(Word(name))
    sessions.of(tab("b")).keep(unpacked(tmp_path))
    old = sessions.of(tab("b")).take_turn("work")
    sessions.of(tab("a")).take_turn("work").check()  # what works is in use
    sessions.of(tab("c")).keep(Word("c"))
    with pytest.raises(Superseded):
        old.check()
    assert not list(tmp_path.iterdir())
    assert [sessions.of(tab(n)).get(Word) for n in "ac"] == [Word("a"), Word("c")]


def test_work_that_goes_on_keeps_its_tab():
    sessions = Sessions(most=2)
    turn = sessions.of(tab("a")).take_turn("work")
    sessions.of(tab("b"))
    turn.check()
    sessions.of(tab("c"))
    turn.check()


def test_many_tabs_at_once_keep_to_the_limit_and_to_themselves():
    sessions, wrong = Sessions(most=1000), []

    def use(name: str) -> None:
        for n in range(300):
            sessions.of(tab(name)).keep(Word(f"{name}{n}"))
            if sessions.of(tab(name)).get(Word) != Word(f"{name}{n}"):
                wrong.append(name)
            sessions.of(tab(f"{name}-{n}"))

    threads = [threading.Thread(target=use, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(sessions) == 1000


def test_of_many_that_ask_at_once_one_turn_is_left():
    session, left = Session(), []
    gate = threading.Barrier(8)

    def ask() -> None:
        turn = session.take_turn("work")
        gate.wait()
        try:
            turn.check()
            left.append(turn)
        except Superseded:
            pass

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(left) == 1
