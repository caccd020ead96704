"""`make test`: all tests, in two processes side by side; with arguments, one ordinary pytest.

Those `APART` compute; the others wait for a browser and for processes most of the time. Each
test process computes on one thread, because two that use both cores slow each other down.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile

TESTS = Path(__file__).parent
PYTEST = [sys.executable, "-m", "pytest"]
# About half of the time.
APART = [
    TESTS / name for name in ("train", "kdmodels/explain", "kdmodels/images", "kdmodels/models")
]


def main(words: list[str]) -> int:
    """Exit code: 0 only where every test has passed."""
    if words:
        return subprocess.run([*PYTEST, *words]).returncode
    others = [p for p in sorted(TESTS.iterdir()) if p.is_dir() or p.name.startswith("test_")]
    rest = [str(p) for p in others if p != TESTS / "train" and p.name != "__pycache__"]
    rest += [f"--ignore={folder}" for folder in APART]
    surroundings = {"OMP_NUM_THREADS": "1"} | os.environ
    with TemporaryFile() as output:
        apart = subprocess.Popen(
            [*PYTEST, *map(str, APART), "-o", "cache_dir=.pytest_cache/train"],
            env=surroundings, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = subprocess.run([*PYTEST, *rest], env=surroundings).returncode
            apart.wait()
        finally:
            apart.kill()
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return code or apart.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
