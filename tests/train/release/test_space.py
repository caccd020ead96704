"""`train.release.space`: the front matter names what is pinned, and nothing else of README.md changes."""

from dataclasses import replace

import pytest
from huggingface_hub import metadata_load

from train.release.space import pin_space

TEXT = '---\ntitle: Mine\npython_version: "3.12"\nlicense: unknown\n---\n\n# Mine\n\n---\n\nText – here.\n'


@pytest.fixture
def readme(tiny_index):
    path = tiny_index.folder.parent / "README.md"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_pinned_repository_is_fetched_with_the_space(tiny_index, readme):
    pinned = replace(tiny_index, hub_repo="someone/models", hub_revision="0123abcd")
    for _ in range(2):
        pin_space(pinned, readme)
    told = metadata_load(readme)
    assert told["models"] == ["someone/models"]
    repo, files, revision = told["preload_from_hub"][0].split(" ")
    assert (repo, revision) == ("someone/models", "0123abcd")
    assert files.split(",") == sorted(row.file for row in tiny_index.checkpoints)
    assert (told["title"], told["python_version"]) == ("Mine", "3.12")
    assert readme.read_text(encoding="utf-8").endswith("\n---\n\n# Mine\n\n---\n\nText – here.\n")


def test_weights_of_elsewhere_change_nothing(tiny_index, readme, tmp_path_factory):
    pin_space(tiny_index, readme)  # nothing is pinned
    elsewhere = tmp_path_factory.mktemp("other")
    pinned = replace(tiny_index, folder=elsewhere, hub_repo="a/b", hub_revision="1")
    pin_space(pinned, readme)
    assert readme.read_text(encoding="utf-8") == TEXT
