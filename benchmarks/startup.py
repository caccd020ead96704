"""From `python app.py` to the first answer, and which imports take the time.

    python -m benchmarks.startup --rounds 3

Each round starts the app in a process of its own and asks it, as soon as the page answers, to
compare a drawn film through the endpoint `/compare`; the times are counted from the start of the
process. The imports are those of `python -X importtime`: the time of each top-level package's own
modules.
"""

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gradio_client import Client, handle_file

from kdmodels.engines.machine import describe_machine
from tests.phantom import chest_phantom

ROOT = Path(__file__).parents[1]
PATIENCE = 180  # s
SHOWN = 12  # packages


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The app's process and its address, before it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    surroundings = {"GRADIO_SERVER_PORT": str(port), "KD_NO_BROWSER": "1", "HF_HUB_OFFLINE": "1"}
    with TemporaryDirectory() as folder, open(Path(folder, "log"), "w+") as log:
        app = subprocess.Popen(
            [sys.executable, *options, "app.py"],
            cwd=ROOT, env=os.environ | surroundings, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield app, f"http://127.0.0.1:{port}"
        finally:
            app.terminate()
            app.wait(30)


def wait_for(app: subprocess.Popen, address: str) -> None:
    """Until the page answers. Raises `SystemExit` where the app ends or takes too long."""
    end = time.perf_counter() + PATIENCE
    while time.perf_counter() < end:
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return
        except OSError:
            if app.poll() is not None:
                raise SystemExit("The app has ended; start it by `python app.py`.") from None
            time.sleep(0.02)
    raise SystemExit(f"The page did not answer within {PATIENCE} s.")


def one_round(film: Path) -> tuple[float, float]:
    """Seconds until the page answers, and until the first comparison does."""
    start = time.perf_counter()
    with started() as (app, address):
        wait_for(app, address)
        page = time.perf_counter() - start
        client = Client(address, verbose=False)
        client.predict(handle_file(film), "cxr", "", api_name="/compare")
        return page, time.perf_counter() - start


def imports() -> Counter:
    """Seconds by top-level package that the app imports before the page answers."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import app"],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    found: Counter = Counter()
    for line in done.stderr.splitlines():
        if match := re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s*([\w.]+)", line):
            found[match[2].split(".")[0]] += (
                int(match[1]) / 1e6
            )  # its own time, without its imports
    return found


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args(words).rounds
    print(describe_machine())
    with TemporaryDirectory() as folder:
        film = Path(folder, "film.png")
        chest_phantom().save(film)
        times = [one_round(film) for _ in range(rounds)]
    for name, values in zip(("page", "first comparison"), zip(*times, strict=True), strict=True):
        each = ", ".join(f"{v:.1f}" for v in values)
        print(f"{name}: median {statistics.median(values):.1f} s ({each})")
    found = imports()
    print(f"imports: {sum(found.values()):.1f} s under -X importtime; of these, by package:")
    for name, seconds in found.most_common(SHOWN):
        print(f"  {name:20} {seconds:5.2f} s")


if __name__ == "__main__":
    main()
