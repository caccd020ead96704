"""`kdmodels.tasks.known`: task files, what is wrong with them in one sentence, and own tasks."""

import pytest
import yaml

from kdmodels.models.checkpoints import Checkpoint, CheckpointError, Index
from kdmodels.tasks import TASKS, TaskError, add_task, add_tasks, get_task, keep_task, read_task
from kdmodels.tasks.task import PALETTE

SHORT = {"id": "shapes", "name": "Shapes", "classes": ["circle", "red_square"]}


@pytest.fixture
def write(tmp_path):
    """Write a task file: `SHORT` with some keys replaced, or a text."""

    def write(text=None, name="mine.yaml", **changes):
        file = tmp_path / name
        file.write_text(text if text is not None else yaml.safe_dump(SHORT | changes), "utf-8")
        return file

    return write


def test_a_class_that_is_only_an_id_gets_a_name_and_a_free_colour(write):
    classes = ["circle", {"id": "red_square", "colour": PALETTE[0].lower()}]
    circle, square = read_task(write(classes=classes)).classes
    assert (circle.id, circle.name, circle.colour) == ("circle", "Circle", PALETTE[1])
    assert (square.id, square.name, square.colour) == ("red_square", "Red square", PALETTE[0])


def test_what_a_short_file_leaves_out_has_a_use(write):
    task = read_task(write())
    assert (task.greyscale, task.augmentation, task.layout) == (False, "plain", "folders")
    assert task.floors and task.leakage and task.blind_to and task.group_name
    assert not task.organs and not task.lung_masks and task.examples == "none"


def test_a_task_cannot_be_changed(write):
    with pytest.raises(ValueError, match="frozen"):
        read_task(write()).name = "Another"


BAD = {
    "near key": ({"greyscal": True}, "the key 'greyscal' is unknown; the nearest valid one is 'greyscale'"),
    "near key of a class": (
        {"classes": ["a", {"id": "b", "color": "#000000"}]},
        r"the key 'classes\.2\.color' is unknown; the nearest valid one is 'colour'",
    ),
    "near key of a part": (
        {"table": {"lable": "x"}},
        r"the key 'table\.lable' is unknown; the nearest valid one is 'label'",
    ),
    "no colour": (
        {"classes": ["a", {"id": "b", "colour": "red"}]},
        r"classes\.2\.colour: 'red' is no colour; write six hex digits, such as '#0072B2'",
    ),
    "same id": ({"classes": ["a", "b", "a"]}, "two classes have the id 'a'; give each its own"),
    "same name": (
        {"classes": [{"id": "a", "name": "Cell"}, {"id": "b", "name": "cell"}]},
        "two classes have the name 'cell'; give each its own",
    ),
    "same colour": (
        {"classes": [{"id": i, "colour": "#0072B2"} for i in "ab"]},
        "two classes have the colour '#0072b2'; give each its own",
    ),
    "one class": ({"classes": ["a"]}, "classes needs 2 entries or more"),
    "too many classes": ({"classes": list("abcdefghi")}, "give each a colour"),
    "unknown floor": ({"floors": ["fram"]}, r"floors\.1 is 'fram', which is unknown; there are: 'frame', "),
    "no floor": ({"floors": []}, "floors needs 1 entries or more"),
    "unknown augmentation": (
        {"augmentation": "films"},
        "augmentation is 'films', which is unknown; there are: 'plain', 'film', 'tile'",
    ),
    "strange id": ({"id": "My task"}, "id is 'My task'; write small letters, digits and underscores"),
    "strange organ": ({"organs": {"lung": ["x"]}}, "'lung' names 'x', which is no class; the classes are: circle"),
    "no expression": ({"group_pattern": "("}, "group_pattern is no regular expression: missing"),
    "no group": ({"group_pattern": "p[0-9]+"}, "group_pattern needs a part named group, such as"),
    "not a switch": ({"greyscale": "perhaps"}, "greyscale is 'perhaps': input should be a valid bool"),
}  # fmt: skip


@pytest.mark.parametrize("changes, said", BAD.values(), ids=BAD)
def test_a_mistake_is_one_sentence_with_the_file_and_what_to_do(write, changes, said):
    with pytest.raises(TaskError, match=said) as caught:
        read_task(write(**changes))
    text = str(caught.value)
    assert text.startswith(f"{write()}: ") and text.endswith(".") and "\n" not in text


def test_a_missing_key_is_named(write):
    with pytest.raises(TaskError, match=r"mine\.yaml: the key 'classes' is missing\."):
        read_task(write("id: a\nname: A\n"))


@pytest.mark.parametrize(
    "text, said",
    [("id: [", "mine.yaml is not valid YAML: "), ("- a", "mine.yaml must hold keys and values"),
     ("", "mine.yaml must hold keys and values")],
)  # fmt: skip
def test_what_is_no_mapping_in_yaml_is_refused(write, text, said):
    with pytest.raises(TaskError, match=said):
        read_task(write(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TaskError, match=r"The task file .*none\.yaml cannot be read: "):
        read_task(tmp_path / "none.yaml")


def test_an_own_task_is_known_by_its_id_from_then_on(write):
    assert get_task(add_task(write()).id).name == "Shapes"


def test_the_id_of_a_shipped_task_is_taken(write):
    with pytest.raises(TaskError, match="'cxr' is the id of a task that comes with this project"):
        add_task(write(id="cxr"))


def test_another_file_of_the_same_id_may_not_have_other_classes(write):
    first = add_task(write())
    assert add_task(write(name="Forms")) is first
    with pytest.raises(TaskError, match=r"known with other classes .*\(circle, red_square\); give"):
        add_task(write(classes=["circle", "star"]))


def test_a_kept_task_comes_back_as_it_was(write, tmp_path):
    task = add_task(write(group_pattern="(?P<group>p[0-9]+)", table={"file": "path"}))
    keep_task(task, tmp_path / "tasks")
    assert (tmp_path / "tasks" / "shapes.yaml").is_file()
    del TASKS["shapes"]
    add_tasks(tmp_path / "tasks")
    again = get_task("shapes")
    assert again == task and again is not task
    assert again.table.model_fields_set == {"file"}  # so that this column must be there


def test_a_shipped_task_is_not_kept(tmp_path):
    keep_task(TASKS["cxr"], tmp_path / "tasks")
    assert not list(tmp_path.rglob("*.yaml"))


def test_an_index_knows_the_tasks_of_its_weights(write, tiny_models, new_row, tmp_path):
    from kdmodels.models.zoo import build_model

    row = new_row(add_task(write()).id, "ofa_595")
    index = Index(tmp_path / "weights")
    index.store(row, build_model("ofa_595", 2).state_dict())
    del TASKS["shapes"]
    found = Index.read(index.folder)
    assert isinstance(found.checkpoints[0], Checkpoint) and get_task("shapes").num_classes == 2
    (index.folder / "tasks" / "shapes.yaml").write_text("id: [", "utf-8")
    with pytest.raises(CheckpointError, match=r"shapes\.yaml is not valid YAML"):
        Index.read(index.folder)
