"""The whole experiment, small: every recipe from training to the numbers of the tables.

All commands are those of `python -m train`; recipes keep their settings, but for the size and
number of images and steps.
"""

import csv
import math
import shutil
from pathlib import Path

import pytest
import timm
import yaml
from PIL import Image
from safetensors.torch import save_file

import train.learn.finished
import train.learn.recipes
import train.release.store
from kdmodels.models.checkpoints import Index
from kdmodels.models.zoo import MODELS, count_parameters, get_spec
from kdmodels.tasks import TASKS
from train.__main__ import main
from train.data.manifest import Manifest
from train.learn.guides import MODEL
from train.learn.recipes import FOLDER, Recipe, read_recipe, to_dict
from train.tables.write import all_numbers, results_text

SIDE = 32  # px
SHIPPED = [
    read_recipe(p) for p in sorted(FOLDER.glob("*.yaml")) if not p.name.startswith(("_", "any-"))
]
IN_ORDER = sorted(SHIPPED, key=lambda r: (get_spec(r.model).role != "teacher", len(r.teachers)))
# With the real networks: all of one task's teachers, and what is asked most of them and of OFA-595.
REAL = [
    recipe
    for recipe in IN_ORDER
    if recipe.task == "histopathology"
    and (get_spec(recipe.model).role == "teacher" or recipe.objective == "attention")
]
GUIDE = "guide.safetensors"  # the ImageNet network, with random weights here
PARAMETERS = {  # at 32 px, with five classes
    "vgg19": 20_037_957,
    "visformer_s": 39_196_389,
    "autoformerv2_t": 27_502_175,
    "ofa_595": 7_606_613,
}


def write_shrunk(recipes: list[Recipe], folder: Path, phases: int | None = None) -> None:
    """Write recipes with phases of one epoch of two steps on small images: all, or the last."""
    folder.mkdir(exist_ok=True)
    small = {"size": SIDE, "epochs": 1, "steps": 2}
    for recipe in recipes:
        settings = to_dict(recipe) | {"batch_size": 4}
        settings["phases"] = [phase | small for phase in settings["phases"][-(phases or 0) :]]
        (folder / f"{recipe.name}.yaml").write_text(yaml.safe_dump(settings))


def write_starter_set(manifest: Manifest, folder: Path) -> None:
    """Write a starter set's folder with the images of a manifest."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    for sample in manifest.samples:
        file = folder / "images" / f"{sample.path.stem}.jpg"
        with Image.open(sample.path) as image:
            image.save(file, quality=95)
        row = {"label": sample.label, "split": sample.split}
        if manifest.task.id == "cxr":
            names = {"stem": file.stem, "group": sample.group, "source": sample.source}
            mask = Image.new("L", (SIDE, SIDE))
            mask.paste(255, (8, 6, 24, 24))
            mask.save(folder / "masks" / f"{file.stem}.png")
            rows.append(row | names | {"has_mask": "1"})
        else:
            names = {"original_id": sample.group, "source_repo": sample.source}
            rows.append(row | names | {"file": f"images/{file.name}"})
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def words_of(recipe: Recipe) -> list[str]:
    """The command that runs a recipe, as the README has it."""
    if get_spec(recipe.model).role == "teacher":
        words = ["teacher", "--task", recipe.task, "--model", recipe.model]
    else:
        words = ["student", "--task", recipe.task]
    if recipe.guided:
        words += ["--guide", str(train.learn.recipes.FOLDER.parent / GUIDE)]
    if recipe.variant not in ("", recipe.objective):  # of which no option tells
        return [*words, "--recipe", str(train.learn.recipes.FOLDER / f"{recipe.name}.yaml")]
    if get_spec(recipe.model).role == "teacher":
        return words
    if not recipe.teachers:
        return ["student", "--task", recipe.task]
    teacher = "all" if len(recipe.teachers) > 1 else recipe.teacher
    words = ["distill", "--task", recipe.task, "--teacher", teacher]
    return words if recipe.objective == "hybrid" else [*words, "--objective", recipe.objective]


@pytest.fixture
def run(clean_accelerate, caplog):
    """Run a command of `python -m train` that must succeed, as in a process of its own."""
    caplog.set_level("INFO", logger="train")  # where pytest listens, `main` does not set it

    def run(*words) -> None:
        assert main([str(word) for word in words]) == 0
        clean_accelerate()

    return run


@pytest.fixture
def place(tmp_path, make_manifest, monkeypatch) -> Path:
    """A folder with data sets of both tasks, all recipes shrunk, and no weights yet."""
    for task in TASKS:
        write_starter_set(
            make_manifest(train=3, val=2, test=2, task=task), tmp_path / "data" / task
        )
    write_shrunk(SHIPPED, tmp_path / "recipes")
    save_file(timm.create_model(MODEL, pad_type="same").state_dict(), tmp_path / GUIDE)
    monkeypatch.setattr(train.learn.recipes, "FOLDER", tmp_path / "recipes")
    monkeypatch.setattr(train.learn.finished, "FOLDER", tmp_path / "recipes")
    monkeypatch.setattr(train.release.store, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setenv("KD_WEIGHTS", str(tmp_path / "weights"))  # where results/ is looked for
    # After two steps a network is so undecided that rounding its weights may change its mind.
    monkeypatch.setattr(train.release.store, "MAX_ACCURACY_CHANGE", 1.01)
    monkeypatch.setattr(Index.read.__func__, "__defaults__", (tmp_path / "weights",))
    return tmp_path


def train_and_store(run, place: Path, recipe: Recipe, phases: int | None = None) -> str:
    """Train a recipe, check what the run folder says, and store its weights. Returns the log."""
    folder = place / "runs" / recipe.name
    data = ("--data", place / "data")
    taught_by = [Index.read().find(recipe.task, t).sha256 for t in recipe.teachers]
    run(*words_of(recipe), *data, "--run", folder)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["size"]) for row in rows] == [
        (str(epoch), str(SIDE)) for epoch in range(phases or len(recipe.phases))
    ]
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)
    identity = yaml.safe_load((folder / "run.yaml").read_text())
    assert identity["teacher_sha256"] == ("+".join(taught_by) or None)
    log = (folder / "log.txt").read_text()
    assert log.count("Finished: best validation macro-F1") == 1
    run("store", "--task", recipe.task, *data, "--run", folder)
    shutil.rmtree(folder)  # real networks leave hundreds of MB
    return log


def test_all_recipes_run_in_the_order_in_which_they_need_each_other(place, run, tiny_models):
    for recipe in IN_ORDER:
        train_and_store(run, place, recipe)
    data = ("--data", place / "data")
    run("evaluate", "--all", *data, "--write")
    index = Index.read()
    assert sorted(row.stem for row in index.checkpoints) == sorted(r.name for r in SHIPPED)
    by_name = {recipe.name: recipe for recipe in SHIPPED}
    for row in index.checkpoints:
        recipe = by_name[row.stem]
        assert (row.task, row.model, row.teacher) == (recipe.task, recipe.model, recipe.teacher)
        assert row.recipe == f"train/recipes/{recipe.name}.yaml"
        assert (row.seed, row.input_size) == (recipe.seed, SIDE)
        taught_by = [index.find(row.task, t).sha256 for t in recipe.teachers]
        assert row.teacher_sha256 == ("+".join(taught_by) or None)
    tasks = all_numbers(index)
    for numbers in tasks:
        mine = [r for r in SHIPPED if r.task == numbers.task.id]
        distilled = {r.name for r in mine if r.teachers or r.variant}
        assert {change.row.stem for change in numbers.changes} == distilled
        alone = {r.teacher for r in mine if r.objective == "hybrid"}
        assert set(index.teachers(numbers.task.id)) == alone  # whom the page offers
        for found in numbers.shipped:
            assert len(found.images) == 2 * len(found.row.classes)
            assert 0 <= found.accuracy.value <= 1
    text = results_text(tasks)
    assert all(f"](../{row.recipe})" in text for row in index.checkpoints)
    run("evaluate", "--all", *data)  # every answer again, from the stored weights


def test_targets_are_computed_once_for_all_students_of_a_teacher(place, run, tiny_models):
    names = ["-vgg19", "-ofa_595-from-vgg19", "-ofa_595-from-vgg19-attention"]
    teacher, hybrid, attention = (
        next(r for r in SHIPPED if r.name == f"histopathology{name}") for name in names
    )
    logs = [train_and_store(run, place, recipe) for recipe in (teacher, hybrid, attention)]
    assert [log.count("Targets of VGG19") for log in logs] == [0, hybrid.views, 0]


@pytest.mark.timeout(900)  # half a minute on an idle core
def test_real_networks_run_the_recipes_too(place, run):
    write_shrunk(REAL, place / "recipes", phases=1)
    for recipe in REAL:
        train_and_store(run, place, recipe, phases=1)
    index = Index.read()
    assert {row.model for row in index.checkpoints} == set(MODELS)
    assert {row.variant for row in index.checkpoints} == {"", "attention"}
    for row in index.checkpoints:
        assert count_parameters(index.load(row)) == PARAMETERS[row.model]
