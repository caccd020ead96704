"""A user's own task, from a folder of pictures to the page: docs/own-task.md with tiny networks."""

import pytest
import yaml

import page.api
import page.pairs
import train.learn.finished
import train.learn.recipes
from kdmodels.models.checkpoints import Index
from kdmodels.tasks import TASKS
from page.compare import comparing
from tests.train.conftest import draw
from train.__main__ import main
from train.measure.kept import TaskResults

TASK = {
    "id": "stripes",
    "name": "Stripes",
    "classes": ["lying", {"id": "standing", "name": "Standing up"}],
    "greyscale": True,
    "floors": ["grey_histogram", "frame"],
    "group_pattern": r"(?P<group>sheet\d+)",
}
TINY = {
    "batch_size": 4,
    "mixup": 0.0,
    "phases": [{"size": 32, "epochs": 1, "lr": 0.01, "steps": 3}],
}


@pytest.fixture
def place(weights, recipes, tmp_path, monkeypatch):
    """A folder with a task file and generated pictures, two of each sheet; small recipes for any task."""
    (tmp_path / "stripes.yaml").write_text(yaml.safe_dump(TASK), "utf-8")
    for kind, folder in enumerate(("Lying", "standing UP")):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
        for i in range(24):
            name = f"sheet{kind}{i // 2:02d}-{i % 2}.png"
            draw(kind, 100 * kind + i, side=48).save(tmp_path / "pictures" / folder / name)
    hybrid = {"objective": "hybrid", "teacher": "vgg19"}
    for name, more in (("vgg19", {}), ("ofa_595-labels", {}), ("ofa_595-from-vgg19", hybrid)):
        recipe = TINY | {"model": name.partition("-")[0]} | more
        (recipes / f"any-{name}.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(train.learn.recipes, "FOLDER", recipes)
    # After three steps a network is so undecided that rounding its weights may change its mind.
    monkeypatch.setattr("train.release.store.MAX_ACCURACY_CHANGE", 1.01)
    return tmp_path


@pytest.fixture
def run(place, clean_accelerate):
    """Run a command on the task that must succeed, as in a process of its own."""

    def run(*words, task=place / "stripes.yaml") -> None:
        for task_id in TASKS.keys() & {"stripes"}:
            del TASKS[task_id]
        options = ["--task", task, "--data", place / "pictures"]
        assert main([str(word) for word in (*words, *options)]) == 0
        clean_accelerate()

    return run


@pytest.fixture
def opened():
    """The page opens the index of the moment, and forgets it afterwards."""
    yield
    page.pairs.index.cache_clear()
    page.pairs.forget()


def read(weights, name: str) -> str:
    return (weights / "results" / name).read_text("utf-8")


def test_pictures_become_a_task_of_the_page(run, place, weights, opened, capsys):
    run("data")
    said = capsys.readouterr().out
    assert "stripes@" in said and "train: lying 18, standing 18" in said
    for words in (
        ("teacher", "--model", "vgg19"),
        ("distill", "--teacher", "vgg19"),
        ("student",),
    ):
        run(*words, "--run", place / words[0])
        run("store", "--run", place / words[0])
    assert (weights / "tasks" / "stripes.yaml").is_file()
    run("evaluate", "--write", task="stripes")  # by its id, now that its weights are stored

    assert main(["tables"]) == 0
    assert "- Images of another kind than those of its data set" in read(weights, "models.md")
    assert "| Lying | Standing up |" in read(weights, "results.md")

    del TASKS["stripes"]  # the page begins with the weights alone
    index = Index.read()
    assert {(row.stem, row.recipe) for row in index.checkpoints} == {
        (f"stripes-{name}", f"train/recipes/any-{name}.yaml")
        for name in ("vgg19", "ofa_595-labels", "ofa_595-from-vgg19")
    }
    assert [(t.id, t.name) for t in page.pairs.offered()] == [("stripes", "Stripes")]
    picture = place / "pictures" / "Lying" / "sheet000-0.png"
    answer = page.api.compare(str(picture), "stripes", "vgg19")
    for role in ("teacher", "student"):
        assert list(answer[role]["probabilities"]) == ["lying", "standing"]
        assert sum(answer[role]["probabilities"].values()) == pytest.approx(1)
    checked = comparing.read(str(picture))
    said = comparing.first_look(checked, "stripes")
    assert "No check is stored that a picture is of this kind: Stripes." in said

    kept = TaskResults.of(TASKS["stripes"])
    assert (len(kept.val), len(kept.test)) == (4, 8)
    assert {run.key for run in kept.runs} == {f"{row.stem}-seed0" for row in index.checkpoints}
    assert {floor.name for floor in kept.floors} >= {
        "grey-value histogram",
        "outer frame, 3 of 32 px",
    }
