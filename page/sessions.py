"""What the page remembers of each browser tab: one `Session`, in one registry with one limit.

A tab of the page keeps what it needs there by type: Compare its `Study`, the uploaded file, the open
view; Teach its `Lesson`; Batch its `Batch`. And each request takes a turn there, which ends the
older request for the same kind of work.
"""

import threading
import time
from typing import Any, TypeVar

import gradio as gr

MOST = 64  # sessions; beyond that, the one used longest ago is forgotten

T = TypeVar("T")


class Superseded(Exception):
    """A newer request of the same browser tab has made this work pointless."""


class Session:
    """What one browser tab looks at: at most one thing of each type.

    A thing may have a `folder`, a TemporaryDirectory, which goes with it. lock: hold it to check a
    turn and to keep something at one stroke.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.used = time.monotonic()
        self._kept: dict[type, Any] = {}
        self._turns: dict[str, Turn] = {}

    def get(self, kind: type[T]) -> T | None:
        return self._kept.get(kind)

    def keep(self, thing: object) -> None:
        """Remember a thing in place of the last one of its type."""
        with self.lock:
            before = self._kept.get(type(thing))
            self._kept[type(thing)] = thing
        if before is not thing:
            _clean(before)

    def drop(self, *kinds: type) -> None:
        with self.lock:
            gone = [self._kept.pop(kind, None) for kind in kinds]
        for thing in gone:
            _clean(thing)

    def take_turn(self, work: str) -> "Turn":
        """The turn of a new request; older ones for the same kind of work are over."""
        with self.lock:
            self._turns[work] = turn = Turn(self, work)
        return turn

    def close(self) -> None:
        """Forget all, and end what is being worked at."""
        with self.lock:
            self._turns.clear()
            kinds = list(self._kept)
        self.drop(*kinds)


def _clean(thing: object) -> None:
    if folder := getattr(thing, "folder", None):
        folder.cleanup()


class Turn:
    """A request's turn: it lasts until a newer request for the same kind of work, or the tab's end."""

    def __init__(self, session: Session, work: str) -> None:
        self.session, self.work = session, work

    def check(self) -> None:
        """Raise `Superseded` unless this is still the latest turn. Work counts as use of the tab."""
        self.session.used = time.monotonic()
        if self.session._turns.get(self.work) is not self:
            raise Superseded


class Sessions:
    """The sessions of all browser tabs by Gradio's name of the tab."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def of(self, request: gr.Request) -> Session:
        """The session of a request's tab; a script has no tab and gets one that nobody finds again."""
        tab = request.session_hash
        if not tab:
            return Session()
        with self._lock:
            session = self._sessions.setdefault(tab, Session())
            session.used = time.monotonic()
            gone = None
            if len(self._sessions) > self.most:
                oldest = min(self._sessions, key=lambda name: self._sessions[name].used)
                gone = self._sessions.pop(oldest)
        if gone:
            gone.close()
        return session

    def __len__(self) -> int:
        return len(self._sessions)

    def leave(self, request: gr.Request) -> None:
        """A browser tab was closed."""
        with self._lock:
            gone = self._sessions.pop(request.session_hash, None)
        if gone:
            gone.close()


SESSIONS = Sessions()
