"""Whose work still counts: a newer request of the same browser tab ends the older one."""

import threading
import uuid


class Superseded(Exception):
    """A newer request of the same browser tab has made this work pointless."""


class Turns:
    """The latest turn of each browser tab, so that older work stops instead of piling up."""

    def __init__(self) -> None:
        self._latest: dict[str, str] = {}
        self._lock = threading.Lock()

    def take(self, tab: str | None) -> tuple[str, str]:
        """A new turn of a tab; a call without a tab (from a script) gets one of its own."""
        turn = (tab or uuid.uuid4().hex, uuid.uuid4().hex)
        with self._lock:
            self._latest[turn[0]] = turn[1]
        return turn

    def check(self, turn: tuple[str, str]) -> None:
        """Raise `Superseded` unless this is still its tab's latest turn."""
        if self._latest.get(turn[0]) != turn[1]:
            raise Superseded

    def leave(self, tab: str) -> None:
        """Forget a tab, which also stops its work."""
        with self._lock:
            self._latest.pop(tab, None)
