"""Both heatmaps of a study, from rough to exact, the rough ones of both models first."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping

from PIL import Image

from kdmodels.explain import Step, explain_progressively
from kdmodels.predict import Classifier

ORDER = ("student", "teacher")  # the student's is ready sooner


def heatmaps(
    classifiers: Mapping[str, Classifier],
    pixels: Image.Image,
    class_ids: Mapping[str, str],
    exact: bool,
    check: Callable[[], None],
) -> Iterator[tuple[str, Step]]:
    """(role, map so far), computed in a thread of its own; where many wait, only the latest.

    classifiers, class_ids: by role. First each model's map until it is settled; with `exact`, then
    each until all channels are scored. check: called between batches of work; what it raises ends
    the work and is raised here, as is any other error. Closing the iterator ends the work too.
    """
    news: queue.Queue = queue.Queue()
    closed = threading.Event()

    class Closed(Exception):
        pass

    def report(_done: int, _total: int) -> None:
        if closed.is_set():
            raise Closed
        check()

    def walk() -> Iterator[tuple[str, Step]]:
        walks = {
            role: explain_progressively(classifiers[role], pixels, class_ids[role], report)
            for role in ORDER
        }
        for until_exact in (False, True) if exact else (False,):
            for role, steps in walks.items():
                for step in steps:
                    yield role, step
                    if step.settled and not until_exact:
                        break

    def work() -> None:
        try:
            for found in walk():
                news.put(found)
            news.put(None)
        except BaseException as error:  # handed to the waiting request below
            news.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        waiting: dict[str, Step] = {}
        while True:
            latest = news.get()
            if isinstance(latest, tuple):
                waiting[latest[0]] = latest[1]
                if not news.empty():
                    continue
            yield from waiting.items()
            waiting = {}
            if latest is None:
                return
            if isinstance(latest, BaseException):
                raise latest
    finally:
        closed.set()
