"""What a fresh clone relies on: complete requirements, working entry points, a light repository."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENT_FILES = ["requirements.txt", "requirements-dev.txt"]
SETUP_FILES = [*REQUIREMENT_FILES, "Makefile", "pyproject.toml", ".ci/run"]

MB = 1_000_000
PICKLES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin"}


# --- requirements ----------------------------------------------------------------------


def requirement_lines(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for raw in lines if (line := re.sub(r"(^|\s)#.*", "", raw).strip())]


@cache
def required(name: str) -> frozenset[str]:
    """Canonical names of the distributions a requirements file asks for, `-r` followed."""
    names: set[str] = set()
    for line in requirement_lines(name):
        if line.startswith("-r "):
            names |= required(line.removeprefix("-r ").strip())
        else:
            names.add(canonicalize_name(Requirement(line).name))
    return frozenset(names)


@pytest.mark.parametrize("name", SETUP_FILES)
def test_no_package_index_is_named(name: str) -> None:
    """Where packages come from is the user's pip configuration, never this project's choice."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(
        r"\w+://\S*|--(?:extra-)?index-url|--find-links|--trusted-host|PIP_\w+|pypi\.|pythonhosted",
        text,
    )
    assert not found, f"{name} names a host or an index: {found}"


@pytest.mark.parametrize("name", REQUIREMENT_FILES)
def test_requirements_are_bounded(name: str) -> None:
    """Without both bounds, a release of tomorrow can break a clone of today."""
    for line in requirement_lines(name):
        if line.startswith("-r "):
            continue
        requirement = Requirement(line)
        assert requirement.url is None, f"{name}: {line}"
        operators = {spec.operator for spec in requirement.specifier}
        assert "==" in operators or {">=", "<"} <= operators, f"{name}: {line} is not bounded"


# --- imports are covered ---------------------------------------------------------------


def python_files(*places: str) -> list[Path]:
    files: list[Path] = []
    for place in places:
        path = ROOT / place
        files += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return files


def catches_import_error(node: ast.Try) -> bool:
    names = {n.id for h in node.handlers if h.type for n in ast.walk(h.type) if hasattr(n, "id")}
    return bool(names & {"ImportError", "ModuleNotFoundError"})


def imported(node: ast.AST) -> Iterator[str]:
    """Top-level names of absolute imports, at any depth, save those guarded as optional."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield (node.module or "").partition(".")[0]
    elif isinstance(node, ast.Try) and catches_import_error(node):
        for part in (*node.handlers, *node.orelse, *node.finalbody):
            yield from imported(part)
    else:
        for child in ast.iter_child_nodes(node):
            yield from imported(child)


def third_party(files: list[Path]) -> dict[str, list[str]]:
    own = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    own |= {path.stem for path in files}  # a test's helpers, next to it
    users: dict[str, list[str]] = {}
    for file in files:
        for name in set(imported(ast.parse(file.read_bytes(), str(file)))):
            if name not in own and name not in sys.stdlib_module_names:
                users.setdefault(name, []).append(str(file.relative_to(ROOT)))
    return users


@pytest.mark.parametrize(
    ("places", "name"),
    [
        pytest.param(
            ("app.py", "page", "kdmodels", "train"), "requirements.txt", id="app-and-training"
        ),
        pytest.param(("tests",), "requirements-dev.txt", id="tests"),
    ],
)
def test_every_import_is_required(places: tuple[str, ...], name: str) -> None:
    """A package that is here only by chance would be missing after a fresh install."""
    providers = packages_distributions()
    missing = {}
    for module, users in third_party(python_files(*places)).items():
        candidates = {canonicalize_name(d) for d in providers.get(module, [module])}
        if not candidates & required(name):
            missing[f"{module} (from {' or '.join(sorted(candidates))})"] = users
    assert not missing, f"imported, but not listed in {name}: {missing}"


def test_undeclared_needs_of_ofa_are_required() -> None:
    """The ofa distribution declares torch alone, yet cannot be imported without these."""
    if "ofa" in required("requirements.txt"):
        needs = {"torch", "torchvision", "gdown", "pyyaml", "tqdm", "numpy"}
        assert needs <= required("requirements.txt")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import a.b, c as d", {"a", "c"}),
        ("from a.b import c\nfrom . import e\nfrom .f import g", {"a"}),
        ("def f():\n    if x:\n        import a", {"a"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"b"}),
        ("try:\n    import a\nexcept (OSError, ImportError):\n    a = None", set()),
        ("try:\n    import a\nexcept ValueError:\n    pass", {"a"}),
    ],
)
def test_imports_are_found(code: str, expected: set[str]) -> None:
    assert set(imported(ast.parse(code))) == expected


# --- entry points ----------------------------------------------------------------------


@pytest.fixture
def run_make(tmp_path: Path):
    """Runs make on a bare copy of the set-up files, as a fresh clone has them."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    for name in ["Makefile", *REQUIREMENT_FILES]:
        shutil.copy(ROOT / name, tmp_path / name)

    # not as a sub-make of the `make test` that may be running this test
    env = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL"}}

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *args], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
        )

    return run


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        ("app", ["-m venv", "pip install -r requirements.txt", "app.py"]),
        ("test", ["-m venv", "pip install -r requirements-dev.txt", "ruff check", "pytest"]),
        ("lint", ["ruff check", "ruff format --check"]),
        ("format", ["ruff format"]),
        ("clean", [".venv"]),
    ],
)
def test_make_target(run_make, target: str, steps: list[str]) -> None:
    done = run_make("-n", target)
    assert done.returncode == 0, done.stderr
    at = 0
    for step in steps:  # all of them, in this order
        found = done.stdout.find(step, at)
        assert found >= 0, f"make {target}: no {step!r} where expected in\n{done.stdout}"
        at = found


def test_clean_keeps_what_training_made(run_make, tmp_path: Path) -> None:
    kept = [tmp_path / "runs/a/model.safetensors", tmp_path / "weights/b.safetensors"]
    gone = [tmp_path / ".venv/x", tmp_path / "kdmodels/__pycache__/x.pyc"]
    for file in [*kept, *gone]:
        file.parent.mkdir(parents=True)
        file.touch()
    done = run_make("clean")
    assert done.returncode == 0, done.stderr
    assert all(file.exists() for file in kept)
    assert not any(file.exists() for file in gone)


def test_plain_make_lists_the_targets(run_make) -> None:
    done = run_make()
    assert done.returncode == 0, done.stderr
    for target in ["app", "test", "lint", "format", "clean"]:
        assert f"make {target} " in done.stdout


def test_unusable_python_is_said_in_one_sentence(run_make) -> None:
    done = run_make("app", "PYTHON=false")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1 and "3.11" in said[0], done.stderr
    assert "Traceback" not in done.stderr


def test_failed_install_leaves_no_stamp(run_make, tmp_path: Path) -> None:
    """Else the next `make app` would start with half of its packages."""
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\ncase "$*" in *"pip install"*) exit 1;; esac\n')
    python.chmod(0o755)
    stamps = [tmp_path / ".venv/.stamp-app", tmp_path / ".venv/.stamp-dev"]
    for target in ["app", "test"]:
        for stamp in stamps:
            stamp.touch()
            os.utime(stamp, (1, 1))  # older than the requirements: install again
        done = run_make(target)
        assert done.returncode != 0
        assert "did not finish" in done.stderr
        assert not any(stamp.exists() for stamp in stamps)


def test_finished_setup_installs_nothing(run_make, tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.stamp-app").touch()
    done = run_make("-n", "app")
    assert "pip" not in done.stdout and "venv " not in done.stdout, done.stdout
    assert "app.py" in done.stdout


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK), ".ci/run is not executable"
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!")
    assert "set -euo pipefail" in text
    assert re.search(r"^(exec )?make test\b", text, re.MULTILINE)


def test_versions_agree() -> None:
    """pyproject.toml and the Makefile speak of the same Python versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.15"
    assert "(3, 11) <= v < (3, 15)" in (ROOT / "Makefile").read_text(encoding="utf-8")


# --- the repository stays light and free of pickles -------------------------------------


@cache
def tracked() -> tuple[Path, ...]:
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = (ROOT / name for name in done.stdout.split("\0") if name)
    return tuple(file for file in files if file.is_file())


def test_no_tracked_file_is_large() -> None:
    large = {str(f.relative_to(ROOT)): f.stat().st_size for f in tracked()}
    large = {name: size for name, size in large.items() if size > 45 * MB}
    assert not large


def test_tracked_weights_are_small_in_all() -> None:
    weights = [f for f in tracked() if f.is_relative_to(ROOT / "weights")]
    assert sum(f.stat().st_size for f in weights) <= 200 * MB


def test_no_pickle_is_tracked() -> None:
    """Unpickling runs code; weights are published as safetensors."""
    found = [str(f.relative_to(ROOT)) for f in tracked() if f.suffix.lower() in PICKLES]
    assert not found


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        (".venv/bin/python", True),
        ("runs/a/log.csv", True),
        ("data/a.png", True),
        ("weights/a.pth", True),
        ("weights/a.safetensors", False),
        ("train/data.py", False),
        ("kdmodels/data/classes.json", False),
        ("tests/data/a.png", False),
    ],
)
def test_ignored_by_git(path: str, ignored: bool) -> None:
    tracked()  # skips outside a git checkout
    done = subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=ROOT)
    assert (done.returncode == 0) is ignored
