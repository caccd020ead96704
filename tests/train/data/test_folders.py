"""`train.data.folders`: class folders with and without a split, and what is wrong with them."""

import pytest

from kdmodels.tasks import Task
from train.data.folders import class_of, read_folders
from train.data.grouping import ALONE
from train.data.manifest import SPLITS, DataError

TASK = Task(id="shapes", name="Shapes", classes=["circle", {"id": "square", "name": "A square"}])


@pytest.fixture
def fill(tmp_path):
    """Make empty files, which is all that reading a layout needs."""

    def fill(*names: str):
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "data"

    return fill


def split_names(train="train", val="val", test="test"):
    return [f"{split}/{c}/{i}.png" for split in (train, val, test) for c in ("circle", "square") for i in (1, 2)]  # fmt: skip


def flat_names(number=20):
    return [f"{c}/p{i:02d}-{k}.png" for c in ("circle", "square") for i in range(number) for k in (0, 1)]  # fmt: skip


def test_a_class_is_named_by_id_or_name_in_any_case():
    assert [class_of(t, TASK) for t in ("Circle", "SQUARE", "a Square", "star")] == [
        "circle", "square", "square", None,
    ]  # fmt: skip


@pytest.mark.parametrize("names", [{}, {"train": "Train", "val": "validation", "test": "TEST"}])
def test_a_split_that_is_there_is_kept(fill, names):
    found = read_folders(fill(*split_names(**names)), TASK)
    assert found.counts() == {(s, c): 2 for s in SPLITS for c in TASK.class_ids}
    assert (found.name, found.notes) == ("shapes", (ALONE,))
    assert {s.source for s in found.samples} == {"shapes"}
    assert len({s.group for s in found.samples}) == 12  # each file, though names repeat


def test_folders_may_lie_deeper_and_hold_folders(fill):
    names = [f"archive/v1/{n.replace('/1.', '/more/1.')}" for n in split_names()]
    root = fill(*names, "archive/__MACOSX/train/x.png", "archive/v1/train/circle/.hidden.png")
    found = read_folders(root, TASK)
    assert len(found.samples) == 12
    assert {s.group for s in found.samples} >= {"train/circle/more/1.png", "val/square/2.png"}


def test_classes_alone_are_split_by_group_and_always_alike(fill):
    task = TASK.model_copy(update={"group_pattern": r"(?P<group>p\d+)-"})
    root = fill(
        *(n.replace("circle/p", "circle/p1").replace("square/p", "square/p2") for n in flat_names())
    )
    found = read_folders(root, task)
    assert not found.notes
    assert found.counts() == {
        (split, c): 2 * number
        for split, number in (("train", 14), ("val", 2), ("test", 4))
        for c in TASK.class_ids
    }
    assert {s.group for s in found.samples} == {f"p{c}{i:02d}" for c in (1, 2) for i in range(20)}
    assert read_folders(root, task).id == found.id


def test_the_split_does_not_depend_on_the_place_of_the_folder(fill, tmp_path):
    root = fill(*flat_names())
    before = read_folders(root, TASK)
    root.rename(tmp_path / "elsewhere")
    assert read_folders(tmp_path / "elsewhere", TASK).id == before.id


def test_a_group_of_several_classes_stays_in_one_split(fill):
    task = TASK.model_copy(update={"group_pattern": r"(?P<group>p\d+)-"})
    found = read_folders(fill(*flat_names()), task)  # each p00 to p19 is in both classes
    splits = {}
    for sample in found.samples:
        assert splits.setdefault(sample.group, sample.split) == sample.split


def test_a_pattern_may_tell_the_source(fill):
    task = TASK.model_copy(update={"group_pattern": r"(?P<group>p\d+)-(?P<source>\d)"})
    assert {s.source for s in read_folders(fill(*flat_names()), task).samples} == {"0", "1"}


def split_but(gone):
    return [name for name in split_names() if not name.startswith(gone)]


WRONG = {
    "one class": (["circle/1.png", "circle/2.png"], {}, "holds images of one class only, 'circle'; a folder with images is needed for each of: circle, square"),
    "one class in splits": (split_but(("train/square", "val/square", "test/square")), {}, "of one class only, 'circle'"),
    "a class without images in a split": (split_but("val/square"), {}, r"val/square holds no image; add some, or take the class 'square' out of the task file"),
    "an empty class folder": ([*split_but("test/circle"), "test/circle/notes.txt"], {}, "test/circle holds no image"),
    "an unknown class": ([*split_names(), "train/star/1.png"], {}, "unknown class folder 'star'; known: circle, square, A square; rename it"),
    "an unknown split": ([*split_names(), "holdout/circle/1.png"], {}, "unknown split folder 'holdout'; known: train, val, test"),
    "a split is missing": (split_but("val"), {}, "has no folder 'val'; make it, or put the class folders into .*, so that a split is made"),
    "nothing known": (["beach/1.png"], {}, r"no folder for each class \(circle, square\), and no manifest\.csv; name another"),
    "two data sets": ([f"{d}/{n}" for d in "ab" for n in split_names()], {}, "both hold a data set; name one with --data"),
    "too few groups": (["circle/1.png", "circle/2.png", *flat_names()[40:]], {}, "The class 'circle' has 2 independent groups, but train, val and test need one each"),
    "a file that does not fit": (flat_names(), {"group_pattern": "(?P<group>case)"}, r"circle/p00-0\.png does not fit the group_pattern '.*' of the task 'shapes'; rename"),
    "a group in two splits": (split_names(), {"group_pattern": r"(?P<group>\d)\.png"}, "The group '1' is in two splits"),
}  # fmt: skip


@pytest.mark.parametrize("names, changes, said", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_in_one_sentence(fill, names, changes, said):
    with pytest.raises(DataError, match=said) as caught:
        read_folders(fill(*names), TASK.model_copy(update=changes))
    assert "\n" not in str(caught.value)
