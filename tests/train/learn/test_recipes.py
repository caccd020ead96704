"""`train.learn.recipes`: the shipped recipes fit together, and mistakes end in sentences."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from kdmodels.models.zoo import STUDENTS, TEACHERS, get_spec
from kdmodels.tasks import TASKS, Task
from train.learn.objectives import build_objective
from train.learn.recipes import (
    FOLDER,
    Phase,
    Recipe,
    RecipeError,
    file_of,
    find_recipe,
    read_recipe,
    to_dict,
)

SHIPPED = sorted(p for p in FOLDER.glob("*.yaml") if not p.name.startswith(("_", "any-")))
FOR_ANY = sorted(FOLDER.glob("any-*.yaml"))
STUDENT_DIFFERENCES = {
    "name", "objective", "objective_settings", "teacher", "teacher_size", "swap_surroundings",
}  # fmt: skip
GOOD = {"task": "cxr", "model": "ofa_595", "phases": [{"size": 32, "epochs": 1, "lr": 0.1}]}


@pytest.fixture
def shapes(monkeypatch) -> str:
    """The id of a task of the user's."""
    task = Task(id="shapes", name="Shapes", classes=["circle", "square"])
    monkeypatch.setitem(TASKS, task.id, task)
    return task.id


@pytest.fixture
def write_recipe(tmp_path):
    """Write a recipe file: the good one with keywords replaced; a value of None leaves it out."""

    def write(**changes) -> Path:
        path = tmp_path / "mine.yaml"
        content = {k: v for k, v in (GOOD | changes).items() if v is not None}
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


# --- The shipped recipes ---------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_recipe_reads_and_lies_where_it_is_looked_for(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert find_recipe(recipe.task, recipe.model, recipe.teacher, recipe.variant) == path
    for teacher in recipe.teachers:
        assert find_recipe(recipe.task, teacher) in SHIPPED
        assert get_spec(teacher).role == "teacher"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_recipe_is_stored_under_its_own_name(path, new_row):
    recipe = read_recipe(path)
    row = new_row(recipe.task, recipe.model, recipe.teacher)
    assert replace(row, variant=recipe.variant).stem == path.stem


@pytest.mark.parametrize("path", FOR_ANY, ids=lambda p: p.stem)
def test_a_recipe_for_any_task_is_found_and_named_for_a_task_of_ones_own(path, shapes):
    recipe = read_recipe(path, shapes)
    assert (recipe.task, recipe.name) == (shapes, path.stem.replace("any", shapes, 1))
    assert file_of(recipe.name, FOLDER) == path
    assert find_recipe(shapes, recipe.model, recipe.teacher) == path


def test_there_is_a_recipe_for_any_task_of_each_usual_pair(shapes):
    pairs = [(teacher, None) for teacher in (*TEACHERS, STUDENTS[0])]
    pairs += [(STUDENTS[0], teacher) for teacher in (*TEACHERS, "+".join(TEACHERS))]
    assert {find_recipe(shapes, *pair) for pair in pairs} == set(FOR_ANY)


def test_a_recipe_of_its_own_goes_before_the_one_for_any_task(tmp_path):
    assert file_of("shapes-vgg19", tmp_path).name == "any-vgg19.yaml"
    assert file_of("cxr-vgg19", tmp_path).name == "cxr-vgg19.yaml"  # is missing, and said to be
    (tmp_path / "shapes-vgg19.yaml").touch()
    assert file_of("shapes-vgg19", tmp_path).name == "shapes-vgg19.yaml"


def test_a_recipe_for_any_task_needs_one():
    with pytest.raises(RecipeError, match="task"):
        read_recipe(FOR_ANY[0])


def test_students_of_a_task_differ_in_the_objective_only(shapes):
    recipes = [*map(read_recipe, SHIPPED), *(read_recipe(path, shapes) for path in FOR_ANY)]
    students = [r for r in recipes if r.model in STUDENTS]
    assert students
    for student in students:
        control = read_recipe(find_recipe(student.task, student.model), student.task)
        given, wanted = to_dict(student), to_dict(control)
        assert {k for k in given if given[k] != wanted.get(k)} <= STUDENT_DIFFERENCES
        smoothing = [r.objective_settings.get("label_smoothing") for r in (student, control)]
        assert smoothing[0] == smoothing[1]


@pytest.mark.parametrize("path", [*SHIPPED, *FOR_ANY], ids=lambda p: p.stem)
def test_the_teacher_of_a_shipped_recipe_has_weight(path, shapes):
    recipe = read_recipe(path, shapes)
    objective = build_objective(recipe.objective, **recipe.objective_settings)
    assert (objective.teacher_weight > 0) == bool(recipe.teachers) == ("-from-" in path.stem)


def test_shipped_recipes_weigh_and_soften_every_teacher_alike(shapes):
    taught = [r for p in (*SHIPPED, *FOR_ANY) if (r := read_recipe(p, shapes)).teacher]
    settings = {
        (r.objective_settings["alpha"], r.objective_settings["temperature"]) for r in taught
    }
    assert len(taught) == 14 and len(settings) == 1 and settings.pop()[0] > 0.5


def test_maps_alone_may_teach(write_recipe):
    settings = {"alpha": 0.0, "beta": 1.0}
    maps = {"objective": "attention", "teacher": "vgg19", "mixup": 0.0}
    assert read_recipe(write_recipe(**maps, objective_settings=settings)).teachers == ("vgg19",)


def test_every_recipe_that_the_readme_names_exists():
    readme = FOLDER.parent.parent / "README.md"
    if not readme.is_file():
        pytest.skip("README.md is not written yet")
    named = set(re.findall(r"train/recipes/([\w.-]+\.yaml)", readme.read_text(encoding="utf-8")))
    assert named <= {p.name for p in FOLDER.glob("*.yaml")}


# --- Reading ---------------------------------------------------------------------------------


def test_a_recipe_is_its_file_over_the_defaults(write_recipe):
    recipe = read_recipe(write_recipe(batch_size=4))
    phases = (Phase(size=32, epochs=1, lr=0.1),)
    assert recipe == Recipe(name="mine", task="cxr", model="ofa_595", phases=phases, batch_size=4)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.batch_size = 8


def test_overrides_win_unless_they_are_none(write_recipe):
    path = write_recipe(seed=3)
    assert read_recipe(path, seed=7).seed == 7
    assert read_recipe(path, seed=0).seed == 0
    assert read_recipe(path, seed=None).seed == 3


def test_a_base_fills_in_what_the_file_leaves_out(write_recipe, tmp_path):
    (tmp_path / "_base.yaml").write_text("{seed: 5, batch_size: 2, task: histopathology}")
    recipe = read_recipe(write_recipe(base="_base.yaml", batch_size=4))
    assert (recipe.seed, recipe.batch_size, recipe.task) == (5, 4, "cxr")


def test_plain_data_reads_back_as_the_recipe(write_recipe):
    recipe = read_recipe(write_recipe(objective_settings={"label_smoothing": 0.1}))
    again = yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(to_dict(recipe)))))
    assert Recipe(**again) == recipe


def test_a_recipe_is_guided_by_a_phase_of_features(write_recipe):
    features = GOOD["phases"][0] | {"objective": "features"}
    recipe = read_recipe(write_recipe(phases=[features, *GOOD["phases"]], views=2, mixup=0.0))
    assert recipe.guided and not read_recipe(write_recipe()).guided
    assert [p.get("objective") for p in to_dict(recipe)["phases"]] == ["features", None]
    assert "objective" not in to_dict(recipe)["phases"][1]  # as in runs of before there were guides


def test_a_variant_is_what_a_name_adds(write_recipe):
    names = {"cxr-ofa_595-labels": "", "cxr-ofa_595-labels-swapped": "swapped", "mine": "mine"}
    for name, variant in names.items():
        assert read_recipe(write_recipe(name=name)).variant == variant


def test_several_teachers_are_joined_by_a_plus(write_recipe):
    path = write_recipe(objective="multi_teacher", teacher="visformer_s+vgg19")
    assert read_recipe(path).teachers == ("visformer_s", "vgg19")
    assert read_recipe(write_recipe(objective="hybrid", teacher="vgg19")).teachers == ("vgg19",)
    assert read_recipe(write_recipe()).teachers == ()


# --- Finding ---------------------------------------------------------------------------------

ALL = "+".join(TEACHERS)


@pytest.mark.parametrize(
    "words, name",
    [
        (("cxr", "vgg19"), "cxr-vgg19"),
        (("cxr", "vgg19", None, "labels"), "cxr-vgg19"),
        (("histopathology", "ofa_595"), "histopathology-ofa_595-labels"),
        (("cxr", "ofa_595", None, "labels"), "cxr-ofa_595-labels"),
        (("cxr", "ofa_595", "vgg19"), "cxr-ofa_595-from-vgg19"),
        (("cxr", "ofa_595", "vgg19", "hybrid"), "cxr-ofa_595-from-vgg19"),
        (("cxr", "ofa_595", "vgg19", "attention"), "cxr-ofa_595-from-vgg19-attention"),
        (("cxr", "ofa_595", ALL), "cxr-ofa_595-from-all"),
        (("cxr", "ofa_595", ALL, "multi_teacher"), "cxr-ofa_595-from-all"),
    ],
)
def test_a_run_finds_its_recipe(words, name):
    assert find_recipe(*words) == FOLDER / f"{name}.yaml"


# --- Mistakes --------------------------------------------------------------------------------

HYBRID = {"objective": "hybrid", "mixup": 0.0}
MULTI = {"objective": "multi_teacher", "mixup": 0.0}
MISTAKES = {
    "unknown key": ({"batchsize": 4}, "the key 'batchsize' is unknown; the nearest valid one is 'batch_size'"),
    "unknown phase key": (
        {"phases": [{"size": 32, "epoch": 1, "lr": 0.1}]},
        "the key 'phases.1.epoch' is unknown; the nearest valid one is 'epochs'",
    ),
    "lacking phase key": ({"phases": [{"size": 32, "epochs": 1}]}, "the key 'phases.1.lr' is missing"),
    "phases no list": ({"phases": 3}, "phases must be a list"),
    "phase no mapping": ({"phases": [64, 112]}, "phases.1 must hold keys and values"),
    "no phases": ({"phases": []}, "phases needs 1 entries or more"),
    "lacking key": ({"model": None}, "the key 'model' is missing"),
    "number as text": ({"phases": [{"size": 32, "epochs": 1, "lr": "1e-3"}]},
                       "reads phases.1.lr '1e-3' as text, not as a number.* such as 1.0e-3"),
    "unknown task": ({"task": "mri"}, "no task 'mri'; the tasks are: cxr, histopathology"),
    "unknown model": ({"model": "resnet"}, "no model 'resnet'; the models are: vgg19, "),
    "unknown objective": ({"objective": "mse"}, "no objective 'mse'; there are: labels, hybrid"),
    "smoothing": ({"objective_settings": {"label_smoothing": 2}}, r"label_smoothing must lie in \[0, 1\]"),
    "a setting as text": (
        HYBRID | {"teacher": "vgg19", "objective_settings": {"alpha": "half"}},
        "reads objective_settings.alpha 'half' as text, not as a number",
    ),
    "settings no mapping": ({"objective_settings": [0.5]}, "objective_settings must hold keys and values"),
    "unknown setting": ({"objective_settings": {"beta": 1}}, "'labels' has no setting 'beta'; it has: label_smoothing"),
    "alpha": (HYBRID | {"teacher": "vgg19", "objective_settings": {"alpha": 2.0}}, "alpha must lie"),
    "no teacher": (HYBRID, "the objective 'hybrid' takes exactly 1, but the teacher is not named"),
    "unknown teacher": (HYBRID | {"teacher": "vgg16"}, "no model 'vgg16'"),
    "one of several unknown": (MULTI | {"teacher": "vgg19+vgg16"}, "no model 'vgg16'"),
    "a plus too many": (MULTI | {"teacher": "vgg19+"}, "no model ''"),
    "a list of teachers": (
        MULTI | {"teacher": ["vgg19", "visformer_s"]},
        "teacher must be the id of one, or of several joined by '\\+', not",
    ),
    "useless teacher": (
        {"teacher": "vgg19"}, "the objective 'labels' takes no teacher, but the teacher is vgg19",
    ),
    "too many teachers": (HYBRID | {"teacher": ALL}, "the objective 'hybrid' takes exactly 1, but"),
    "too few teachers": (
        MULTI | {"teacher": "vgg19"}, "'multi_teacher' takes at least 2, but the teacher is vgg19",
    ),
    "maps of mixed images": (
        {"objective": "attention", "teacher": "vgg19", "mixup": 0.2},
        "mixed images have no one class to compare maps of; set mixup to 0",
    ),
    "a grid of one cell": (
        {"objective": "attention", "teacher": "vgg19", "mixup": 0.0, "objective_settings": {"grid": 1}},
        "grid a whole number of at least 2, not 1.0 and 1",
    ),
    "views that change": (
        {"views": 4, "mixup": 0.0, "phases": [*GOOD["phases"], GOOD["phases"][0] | {"augmentation": 0.5}]},
        "fixed views need the same augmentation in all phases",
    ),
    "unknown objective of a phase": (
        {"phases": [GOOD["phases"][0] | {"objective": "hybrid"}, *GOOD["phases"]], "views": 2, "mixup": 0.0},
        "the objective of a phase must be 'features' or left out",
    ),
    "features last": (
        {"phases": [GOOD["phases"][0] | {"objective": "features"}], "views": 2, "mixup": 0.0},
        "'features' learns no labels; it is for phases before the last",
    ),
    "features of the whole": (
        {"objective": "features"}, "'features' learns no labels",
    ),
    "features of ever new views": (
        {"phases": [GOOD["phases"][0] | {"objective": "features"}, *GOOD["phases"]]},
        "kept for a fixed number of views; set views",
    ),
    "a teacher without weight": (
        HYBRID | {"teacher": "vgg19", "objective_settings": {"alpha": 0.0}},
        "the teacher vgg19 has no weight in the loss; set alpha above 0, or leave",
    ),
    "teachers without weight": (
        MULTI | {"teacher": ALL, "objective_settings": {"alpha": 0}}, "has no weight in the loss",
    ),
    "maps without weight": (
        {"objective": "attention", "teacher": "vgg19", "mixup": 0.0,
         "objective_settings": {"alpha": 0, "beta": 0}}, "has no weight in the loss",
    ),
    "a share above 1": ({"swap_surroundings": 1.5}, "swap_surroundings is 1.5: .* less than or equal to 1"),
    "no epochs": (
        {"phases": [GOOD["phases"][0] | {"epochs": 0}]}, r"phases\.1\.epochs is 0: .* greater than or equal to 1",
    ),
    "half a batch": ({"batch_size": 2.5}, "batch_size is 2.5: .* integer"),
    "infinite": ({"phases": [GOOD["phases"][0] | {"lr": float("inf")}]}, "lr is inf: .* finite"),
    "views and mixup": ({"views": 4, "mixup": 0.2}, "exclude each other; set mixup to 0"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_a_sentence_with_the_file(write_recipe, mistake):
    changes, sentence = MISTAKES[mistake]
    with pytest.raises(RecipeError, match=sentence) as caught:
        read_recipe(write_recipe(**changes))
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_that_yaml_takes_for_text_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{task: cxr, model: ofa_595, weight_decay: 5e-2, phases: [{size: 32, epochs: 1, lr: 0.1}]}"
    )
    with pytest.raises(RecipeError, match="reads weight_decay '5e-2' as text"):
        read_recipe(path)


def test_a_missing_file_lists_the_known_ones(write_recipe, tmp_path):
    write_recipe()
    (tmp_path / "_shared.yaml").write_text("{}")
    with pytest.raises(RecipeError, match=r"no recipe .*other\.yaml; there are: mine\."):
        read_recipe(tmp_path / "other.yaml")


@pytest.mark.parametrize("text", ["phases: [", "a: b: c", "\t- x"])
def test_bad_yaml_is_said_in_one_line(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"mine\.yaml is not valid YAML: .*line 1") as caught:
        read_recipe(tmp_path / "mine.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "hello"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"mine\.yaml must hold keys and values"):
        read_recipe(tmp_path / "mine.yaml")
