"""The app as a Hugging Face Space starts it, and what README.md tells the Space."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml
from gradio_client import Client, handle_file
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from page.pairs import index
from tests.browser.conftest import running_app
from tests.phantom import chest_phantom

ROOT = Path(__file__).parents[2]


def front_matter() -> dict:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter_is_that_of_a_gradio_space():
    told = front_matter()
    assert (told["sdk"], told["app_file"]) == ("gradio", "app.py")
    assert (ROOT / told["app_file"]).is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Version(str(told["python_version"])) in SpecifierSet(project["requires-python"])
    wanted = next(
        line.split("#")[0].strip().removeprefix("gradio")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line.startswith("gradio")
    )
    assert told["sdk_version"] in SpecifierSet(wanted)
    assert Version(told["sdk_version"]) <= Version(version("gradio"))
    repo = index().hub_repo
    assert told.get("models", []) == ([repo] if repo else [])
    assert bool(told.get("preload_from_hub")) == bool(repo)


def test_it_starts_without_a_home_and_answers(tmp_path):
    """Like a Space: SPACE_ID is set, the port is given, and nothing can be written at home."""
    film = tmp_path / "film.png"
    chest_phantom(300, 320, 5).save(film)
    surroundings = {"SPACE_ID": "someone/space", "HOME": "/dev/null/home", "KD_NO_BROWSER": ""}
    for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "HF_HOME"):
        surroundings[name] = f"/dev/null/{name}"
    with running_app(tmp_path, **surroundings) as address:
        said = Client(address, verbose=False).predict(
            handle_file(film), "cxr", "", api_name="/compare"
        )
    assert sum(said["student"]["probabilities"].values()) > 0.99
