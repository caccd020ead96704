"""`kdmodels.models.checkpoints`: what was stored is what is loaded, and nothing else is."""

import hashlib
import json
import os
import pickle
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import kdmodels.models.codecs
from kdmodels.models.checkpoints import (
    WEIGHTS,
    CheckpointError,
    Index,
    read_state,
    sha256_of,
    verify,
)
from kdmodels.models.codecs import ENCODERS, decode, encode
from kdmodels.models.zoo import MODELS, TEACHERS, build_model
from kdmodels.predict import Classifier
from kdmodels.tasks import TASKS
from tests.hub import HubStandIn

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    """Let matrices of few weights be quantised too: the ones here are kept small."""
    monkeypatch.setattr(kdmodels.models.codecs, "_LEAST_WEIGHTS", 0)


# --- storing, finding, loading ---------------------------------------------------------


@pytest.mark.parametrize("storage", list(ENCODERS))
@pytest.mark.parametrize("model", list(MODELS))
def test_what_was_stored_is_found_and_answers_alike(new_row, tmp_path, storage, model):
    network = build_model(model, 5).eval()
    row = replace(new_row("histopathology", model), storage=storage)
    stored = Index(tmp_path / "new" / "weights").store(row, network.state_dict())
    index = Index.read(tmp_path / "new" / "weights")
    found = index.find("histopathology", model)
    assert found == stored
    assert replace(found, file="", sha256="", bytes=0) == row

    file = index.folder / found.file
    assert found.bytes == file.stat().st_size
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest() == sha256_of(file)
    loaded = index.load(found)
    network.load_state_dict(decode(encode(network.state_dict(), storage)))
    images = torch.linspace(-2, 2, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    torch.testing.assert_close(loaded(images), network(images).detach(), rtol=1e-6, atol=1e-6)


def test_a_loaded_network_is_ready_to_answer(tiny_index):
    network = tiny_index.load(tiny_index.find("cxr", "ofa_595"))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert network.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_stored_file_says_what_it_is(tiny_index):
    row = tiny_index.find("cxr", "ofa_595", "vgg19")
    with safe_open(tiny_index.folder / row.file, framework="pt") as reader:
        assert json.loads(reader.metadata()["checkpoint"]) == {
            "task": "cxr",
            "model": "ofa_595",
            "classes": ["covid", "pneumonia", "normal"],
            "storage": "int8",
        }


def test_storing_the_same_weights_again_gives_the_same_file(tiny_index):
    row = tiny_index.find("cxr", "ofa_595", "vgg19")
    state = load_file(tiny_index.folder / row.file)
    plain = {k: v for k, v in state.items() if v.dtype == torch.float32}
    first, second = (tiny_index.store(row, plain).sha256 for _ in range(2))
    assert first == second


def test_students_are_found_by_their_teacher(tiny_index):
    for task in TASKS:
        rows = [tiny_index.find(task, "ofa_595", teacher) for teacher in (*TEACHERS, None)]
        assert [row.teacher for row in rows] == [*TEACHERS, None]
        assert len({row.file for row in rows}) == 4
        assert {row.task for row in rows} == {task}
    assert tiny_index.find("cxr", "ofa_595", "vgg19").name == "OFA-595 (from VGG19)"
    assert tiny_index.find("cxr", "ofa_595").name == "OFA-595 (labels only)"
    assert tiny_index.find("cxr", "visformer_s").name == "Visformer-S"


ALL = "+".join(TEACHERS)
NAMES = {  # model, teacher, variant -> name, stem
    ("vgg19", None, ""): ("VGG19", "cxr-vgg19"),
    ("autoformerv2_t", None, ""): ("AutoFormerV2-T", "cxr-autoformerv2_t"),
    ("vgg19", None, "scratch"): ("VGG19 (scratch)", "cxr-vgg19-scratch"),
    ("ofa_595", None, ""): ("OFA-595 (labels only)", "cxr-ofa_595-labels"),
    ("ofa_595", "visformer_s", ""): ("OFA-595 (from Visformer-S)", "cxr-ofa_595-from-visformer_s"),
    ("ofa_595", "vgg19", "attention"): (
        "OFA-595 (from VGG19, attention)",
        "cxr-ofa_595-from-vgg19-attention",
    ),
    ("ofa_595", ALL, ""): ("OFA-595 (from 3 teachers)", "cxr-ofa_595-from-all"),
    ("ofa_595", "vgg19+visformer_s", ""): ("OFA-595 (from 2 teachers)", "cxr-ofa_595-from-all"),
}


@pytest.mark.parametrize("origin", NAMES, ids=lambda origin: "-".join(filter(None, origin)))
def test_a_checkpoint_is_called_after_its_origin(new_row, origin):
    model, teacher, variant = origin
    row = replace(new_row("cxr", model, teacher), variant=variant)
    assert (row.name, row.stem) == NAMES[origin]


def test_no_two_origins_share_a_file_and_each_is_found(new_row, tmp_path):
    index = Index(tmp_path)
    origins = [origin for origin in NAMES if origin[1] != "vgg19+visformer_s"]
    for seed, (model, teacher, variant) in enumerate(origins):
        row = replace(new_row("cxr", model, teacher), variant=variant, seed=seed)
        index.store(row, build_model(model, 3).state_dict())
    again = Index.read(tmp_path)
    found = [again.find("cxr", *origin) for origin in origins]
    assert [row.seed for row in found] == list(range(len(origins)))
    assert [row.file for row in found] == [f"{NAMES[o][1]}.safetensors" for o in origins]
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {row.stem for row in found}


def test_other_teachers_of_the_same_number_take_the_place_of_the_last_ones(new_row, tmp_path):
    """They share a file name, so the row whose file is gone must go with it."""
    for teacher in ("vgg19+visformer_s", ALL):
        row = new_row("cxr", "ofa_595", teacher)
        Index(tmp_path).store(row, build_model("ofa_595", 3).state_dict())
    assert [row.teacher for row in Index.read(tmp_path).checkpoints] == [ALL]
    with pytest.raises(CheckpointError, match=r"no ofa_595 distilled from vgg19\+visformer_s for"):
        Index.read(tmp_path).find("cxr", "ofa_595", "vgg19+visformer_s")


def test_a_variant_neither_replaces_the_usual_student_nor_stands_in_for_it(tiny_index):
    usual = tiny_index.find("cxr", "ofa_595", "vgg19")
    variant = replace(usual, variant="attention", seed=9)
    tiny_index.store(variant, build_model("ofa_595", 3).state_dict())
    again = Index.read(tiny_index.folder)
    assert again.find("cxr", "ofa_595", "vgg19") == usual
    assert again.find("cxr", "ofa_595", "vgg19", "attention").seed == 9
    again.load(usual)  # its file is as it was
    with pytest.raises(CheckpointError, match=r"distilled from visformer_s by 'attention' for the"):
        again.find("cxr", "ofa_595", "visformer_s", "attention")
    without = replace(again, checkpoints=tuple(c for c in again.checkpoints if c != usual))
    assert "vgg19" in again.teachers("cxr") and "vgg19" not in without.teachers("cxr")
    with pytest.raises(CheckpointError, match="no ofa_595 distilled from vgg19 for the task 'cxr'"):
        without.find("cxr", "ofa_595", "vgg19")


def test_an_index_from_before_there_were_variants_is_read(tiny_index):
    file = tiny_index.folder / "index.json"
    content = json.loads(file.read_text())
    for stored in content["checkpoints"]:
        del stored["variant"]
    file.write_text(json.dumps(content))
    assert Index.read(tiny_index.folder) == tiny_index


def test_the_shipped_files_are_called_as_they_would_be_now():
    if not (WEIGHTS / "index.json").is_file():
        pytest.skip("no weights are stored yet")
    rows = Index.read().checkpoints
    assert [row.file for row in rows] == [f"{row.stem}.safetensors" for row in rows]


def test_what_is_not_listed_is_named(tiny_index):
    with pytest.raises(CheckpointError, match=r"index\.json lists no vgg19 for the task 'mri'"):
        tiny_index.find("mri", "vgg19")
    without = replace(tiny_index, checkpoints=())
    with pytest.raises(CheckpointError, match="no ofa_595 distilled from vgg19 for the task 'cxr'"):
        without.find("cxr", "ofa_595", "vgg19")


def test_the_index_is_sorted_by_task_then_teachers_first(tiny_index):
    rows = [(c.task, c.model in TEACHERS, c.file) for c in tiny_index.checkpoints]
    assert len(rows) == 14
    assert rows == sorted(rows, key=lambda row: (row[0], not row[1], row[2]))
    shuffled = replace(tiny_index, checkpoints=tiny_index.checkpoints[::-1])
    before = (tiny_index.folder / "index.json").read_bytes()
    shuffled.write()
    assert (tiny_index.folder / "index.json").read_bytes() == before
    assert Index.read(str(tiny_index.folder)) == tiny_index


def test_teachers_are_those_with_a_student(tiny_index):
    assert tiny_index.teachers("cxr") == list(TEACHERS)
    kept = [c for c in tiny_index.checkpoints if (c.task, c.teacher) != ("cxr", "vgg19")]
    without_student = replace(tiny_index, checkpoints=tuple(kept))
    assert without_student.teachers("cxr") == ["visformer_s", "autoformerv2_t"]
    assert sorted(without_student.teachers("histopathology")) == sorted(TEACHERS)
    kept = [c for c in tiny_index.checkpoints if (c.task, c.model) != ("cxr", "visformer_s")]
    assert "visformer_s" not in replace(tiny_index, checkpoints=tuple(kept)).teachers("cxr")
    assert Index(tiny_index.folder).teachers("cxr") == []


def taught_by(index: Index, teacher_sha256: str | None, teacher="vgg19") -> Index:
    """The index with a student that names what it learned from."""
    student = index.find("cxr", "ofa_595", teacher)
    others = tuple(c for c in index.checkpoints if c != student)
    return replace(index, checkpoints=(*others, replace(student, teacher_sha256=teacher_sha256)))


def test_a_student_whose_teacher_was_replaced_is_no_pair(tiny_index):
    teacher = tiny_index.find("cxr", "vgg19")
    same, unknown = taught_by(tiny_index, teacher.sha256), taught_by(tiny_index, None)
    assert same.teachers("cxr") == unknown.teachers("cxr") == list(TEACHERS)
    other = taught_by(tiny_index, "0" * 64)
    assert other.teachers("cxr") == ["visformer_s", "autoformerv2_t"]
    assert other.replaced_teachers(other.find("cxr", "ofa_595", "vgg19")) == ["vgg19"]
    assert other.teachers("histopathology") == list(TEACHERS)
    state = {k: v + 1 for k, v in build_model("vgg19", 3).state_dict().items()}
    same.write()
    Index.read(same.folder).store(teacher, state)
    assert "vgg19" not in Index.read(same.folder).teachers("cxr")


def test_a_student_says_what_is_known_of_its_teachers_file(new_row):
    student, teacher = new_row("cxr", "ofa_595", "vgg19"), new_row("cxr", "vgg19")
    assert teacher.origin == new_row("cxr", "ofa_595").origin == ""
    assert student.origin == "which file of its teacher it learned from was not recorded"
    known = replace(student, teacher_sha256="ab" * 32)
    assert known.origin == "it learned from the file with the sha256 abababababab…"
    two = replace(
        student, teacher="vgg19+visformer_s", teacher_sha256="+".join(("1" * 64, "2" * 64))
    )
    assert two.origin.endswith("111111111111… and 222222222222…")


def test_each_of_several_teachers_must_be_the_one_that_taught(tiny_index, new_row):
    both = "vgg19+visformer_s"
    sha256s = [tiny_index.find("cxr", teacher).sha256 for teacher in both.split("+")]
    student = replace(new_row("cxr", "ofa_595", both), teacher_sha256="+".join(sha256s))
    assert tiny_index.replaced_teachers(student) == []
    student = replace(student, teacher_sha256="+".join(sha256s[::-1]))
    assert tiny_index.replaced_teachers(student) == both.split("+")
    variant = replace(tiny_index.find("cxr", "vgg19"), variant="scratch", sha256="1" * 64)
    index = replace(tiny_index, checkpoints=(*tiny_index.checkpoints, variant))
    student = replace(student, teacher_sha256="+".join(sha256s))
    assert index.replaced_teachers(student) == []  # a variant is nobody's teacher
    student = replace(student, teacher_sha256=sha256s[0])
    replace(index, checkpoints=(replace(student, file="a.safetensors"),)).write()
    with pytest.raises(CheckpointError, match=r"'a\.safetensors' needs a sha256 for each teacher"):
        Index.read(index.folder)


def test_storing_again_replaces_the_row_and_its_file(tiny_index):
    row = tiny_index.find("cxr", "ofa_595", "vgg19")
    state = {k: v + 1 for k, v in build_model("ofa_595", 3).state_dict().items()}
    tiny_index.store(replace(row, seed=7, storage="float32"), state)
    again = Index.read(tiny_index.folder)
    assert len(again.checkpoints) == len(tiny_index.checkpoints)
    found = again.find("cxr", "ofa_595", "vgg19")
    assert (found.seed, found.storage) == (7, "float32") and found.sha256 != row.sha256
    assert torch.equal(again.load(found).head.bias, state["head.bias"])
    files = {c.file for c in again.checkpoints} | {"index.json"}
    assert {file.name for file in again.folder.iterdir()} == files


def test_rows_stored_since_the_index_was_read_are_kept(new_row, tmp_path):
    index = Index(tmp_path, hub_repo="someone/models", hub_revision=REVISION)
    for model in MODELS:
        index.store(new_row("cxr", model), build_model(model, 3).state_dict())
    again = Index.read(tmp_path)
    assert {c.model for c in again.checkpoints} == set(MODELS)
    assert (again.hub_repo, again.hub_revision) == ("someone/models", REVISION)


def test_a_store_that_fails_halfway_changes_nothing(tiny_index, monkeypatch):
    row = tiny_index.find("cxr", "ofa_595", "vgg19")
    before = {f.name: f.read_bytes() for f in tiny_index.folder.iterdir()}

    write = Path.write_bytes

    def write_half(file, content):
        write(file, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space left"):
        tiny_index.store(row, build_model("ofa_595", 3).state_dict())
    for name, content in before.items():
        assert (tiny_index.folder / name).read_bytes() == content, name
    tiny_index.load(Index.read(tiny_index.folder).find("cxr", "ofa_595", "vgg19"))


def test_an_index_that_cannot_be_written_leaves_the_old_one(tiny_index, monkeypatch):
    before = (tiny_index.folder / "index.json").read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
    with pytest.raises(OSError, match="read-only"):
        replace(tiny_index, checkpoints=()).write()
    assert (tiny_index.folder / "index.json").read_bytes() == before


# --- refusing --------------------------------------------------------------------------


def refused(index, row, *causes):
    """The message with which loading is refused; it names the file and each of the causes."""
    with pytest.raises(CheckpointError) as caught:
        index.load(row)
    message = str(caught.value)
    for cause in (row.file, *causes):
        assert cause in message
    return message


def put(index, row, content):
    """Replace a checkpoint's file, and its row's size and hash with it."""
    (index.folder / row.file).write_bytes(content)
    return replace(row, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def row(tiny_index):
    return tiny_index.find("cxr", "ofa_595", "vgg19")


@pytest.mark.parametrize("place", [0, 300, -1])
def test_one_changed_byte_is_noticed(tiny_index, row, place):
    file = tiny_index.folder / row.file
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    refused(tiny_index, row, sha256_of(file)[:12], row.sha256[:12], "changed or damaged")


def test_a_truncated_file_is_noticed_before_it_is_hashed(tiny_index, row, monkeypatch):
    file = tiny_index.folder / row.file
    file.write_bytes(file.read_bytes()[:-100])
    monkeypatch.setattr("kdmodels.models.checkpoints.sha256_of", None)
    refused(tiny_index, row, f"{row.bytes - 100:,} bytes instead of {row.bytes:,}", "truncated")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_file_listed_in_its_truncated_form_is_refused_too(tiny_index, row, keep):
    content = (tiny_index.folder / row.file).read_bytes()[:keep]
    refused(tiny_index, put(tiny_index, row, content), "not a whole safetensors file")


DAMAGE = {  # of a matrix of 5 x 70, stored as `weight`, `weight.int8_scale` and so on
    "int8": {
        "scales of other channels": {"int8_scale": torch.ones(4)},
        "scales in a table": {"int8_scale": torch.ones(5, 2)},
    },
    "int6": {
        "a byte less": {"": torch.zeros(262, dtype=torch.uint8)},
        "weights missing": {"": torch.zeros(3, dtype=torch.uint8)},
        "no shape": {"int6_shape": None},
        "another shape": {"int6_shape": torch.tensor([5, 71])},
        "a shape of fractions": {"int6_shape": torch.tensor([5.0, 70.0])},
        "a negative shape": {"int6_shape": torch.tensor([-5, 70])},
        "a shape of no dimension": {"int6_shape": torch.tensor([], dtype=torch.int64)},
        "one number for a shape": {"int6_shape": torch.tensor(350)},
        "scales of other channels": {"int6_scale": torch.ones(4)},
        "one number for scales": {"int6_scale": torch.tensor(1.0)},
    },
}


@pytest.mark.parametrize(
    ("storage", "damage"), [(storage, name) for storage in DAMAGE for name in DAMAGE[storage]]
)
def test_contents_that_do_not_fit_together_are_refused_with_the_name_of_the_file(
    tmp_path, storage, damage
):
    stored, file = encode({"weight": torch.randn(5, 70)}, storage), tmp_path / "a.safetensors"
    save_file(stored, file)
    assert read_state(file)["weight"].shape == (5, 70)
    changes = {f"weight.{k}".rstrip("."): v for k, v in DAMAGE[storage][damage].items()}
    assert changes.keys() <= stored.keys()
    save_file({k: v for k, v in (stored | changes).items() if v is not None}, file)
    with pytest.raises(CheckpointError, match=r"a\.safetensors is not a whole safetensors file"):
        read_state(file)


@pytest.mark.parametrize(
    "classes",
    [("normal", "covid", "pneumonia"), ("covid", "normal"), TASKS["histopathology"].class_ids],
)
def test_other_classes_or_another_order_are_refused(tiny_index, row, classes):
    wanted = "covid, pneumonia, normal"
    refused(tiny_index, replace(row, classes=classes), ", ".join(classes), wanted, "'cxr'")


def test_another_number_of_classes_in_the_file_is_refused(tiny_index, row):
    five = (tiny_index.folder / tiny_index.find("histopathology", "ofa_595").file).read_bytes()
    causes = ("ofa_595 with 3 classes", "head.weight", "(5, 6) instead of (3, 6)")
    refused(tiny_index, put(tiny_index, row, five), *causes)


def test_the_state_of_another_architecture_is_refused(tiny_index, row):
    other = (tiny_index.folder / tiny_index.find("cxr", "vgg19").file).read_bytes()
    refused(tiny_index, put(tiny_index, row, other), "does not hold a ofa_595", "instead of")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda s: s.pop("head.bias"), "'head.bias' is missing instead of (3,)"),
        (lambda s: s.update(extra=torch.zeros(2)), "'extra' is (2,) instead of absent"),
    ],
    ids=["missing", "surplus"],
)
def test_missing_and_surplus_tensors_are_named(tiny_index, row, tmp_path, change, cause):
    state = build_model("ofa_595", 3).state_dict()
    change(state)
    save_file(state, tmp_path / "state.safetensors")
    changed = put(tiny_index, row, (tmp_path / "state.safetensors").read_bytes())
    refused(tiny_index, changed, cause)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def pickled(how, trap, tmp_path):
    if how.startswith("protocol"):
        return pickle.dumps(trap, protocol=int(how[-1]))
    file = tmp_path / "saved"
    torch.save({"state": trap}, file, _use_new_zipfile_serialization=how == "zip")
    return file.read_bytes()


@pytest.mark.parametrize("how", ["zip", "legacy", "protocol 2", "protocol 4", "protocol 5"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_pickle_is_refused_whatever_its_name_and_never_opened(
    tiny_index, row, tmp_path, monkeypatch, how, suffix
):
    sprung = tmp_path / "sprung"
    renamed = replace(row, file=f"renamed{suffix}")
    disguised = put(tiny_index, renamed, pickled(how, Trap(sprung), tmp_path))
    forbid_pickle(monkeypatch)
    refused(tiny_index, disguised, "is a pickle", "only safetensors")
    assert not sprung.exists()


def forbid_pickle(monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError("a pickle was opened")

    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(name, forbidden)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".ckpt", ".bin"])
def test_the_names_of_pickles_are_refused_whatever_they_hold(tiny_index, row, suffix):
    content = (tiny_index.folder / row.file).read_bytes()
    refused(tiny_index, put(tiny_index, replace(row, file=f"a{suffix}"), content), "is a pickle")


def test_loading_opens_no_pickle(tiny_index, row, monkeypatch):
    forbid_pickle(monkeypatch)
    tiny_index.load(row)


@pytest.mark.parametrize("header", [640, 896, 1024, 1152, 1408])
def test_a_file_is_not_taken_for_a_pickle_because_of_the_length_of_its_header(tmp_path, header):
    """A safetensors file starts with that length: 640 is 80 02, as a pickle of protocol 2 does."""
    state, file = {"a": torch.arange(4.0)}, tmp_path / "a.safetensors"
    for padding in range(header - 120, header):
        save_file(state, file, metadata={"padding": "x" * padding})
        if int.from_bytes(file.read_bytes()[:8], "little") == header:
            break
    else:
        pytest.fail(f"no metadata gives a header of {header} bytes")
    assert torch.equal(read_state(file)["a"], state["a"])


def test_a_file_that_is_nowhere_is_named(tiny_index, row):
    (tiny_index.folder / row.file).unlink()
    refused(tiny_index, row, "is missing", "no Hub repository")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors cannot be read: No such file"):
        read_state(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_state(tmp_path)


def test_verifying_the_right_file_says_nothing(tiny_index, row):
    assert verify(tiny_index.folder / row.file, row.sha256, row.bytes) is None


def test_a_missing_index_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"index\.json is missing"):
        Index.read(tmp_path)


def edit(**changes):
    def change(content):
        content["checkpoints"][0].update(changes)
        return json.dumps(content)

    return change


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda content: json.dumps(content)[:-1], "Expecting"),
        (lambda content: "", "Expecting value"),
        (lambda content: "[]", "list indices"),
        (lambda content: "\xff", "can't decode"),
        (lambda content: json.dumps({"hub": content["hub"]}), "'checkpoints'"),
        (lambda content: json.dumps({"checkpoints": []}), "'hub'"),
        (edit(file="../x"), "'../x' must be a plain file name"),
        (edit(file="/etc/passwd"), "'/etc/passwd' must be a plain file name"),
        (edit(file="a/b"), "'a/b' must be a plain file name"),
        (edit(colour="red"), "colour"),
        (edit(temperature=0), "needs a temperature above 0"),
        (edit(temperature=-1.5), "needs a temperature above 0"),
        (edit(temperature="warm"), "not supported"),
        (edit(classes=3), "not iterable"),
        (edit(model="resnet"), "no model 'resnet'"),
        (edit(task="mri"), "no task 'mri'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_index_that_cannot_be_understood_is_refused_with_the_cause(tiny_index, change, cause):
    file = tiny_index.folder / "index.json"
    file.write_bytes(change(json.loads(file.read_text())).encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"index\.json cannot be understood") as caught:
        Index.read(tiny_index.folder)
    assert cause in str(caught.value)


# --- the Hub ---------------------------------------------------------------------------


@contextmanager
def hub(files, cut=False):
    """A stand-in for the Hub: yields its address and the list of its requests.

    `files` maps repository, revision and name to bytes. `cut`: it breaks off within every file.
    """
    with HubStandIn(cut) as server:
        for place, content in files.items():
            server.place(*place, content)
        yield server.address, server.requests


@pytest.fixture
def pinned(tiny_index, row):
    """An index that pins a revision on the Hub, whose folder lacks the file of `row`."""
    content = (tiny_index.folder / row.file).read_bytes()
    (tiny_index.folder / row.file).unlink()
    index = replace(tiny_index, hub_repo="someone/models", hub_revision=REVISION)
    return index, {("someone/models", REVISION, row.file): content}


def test_a_missing_file_comes_from_the_pinned_revision_and_only_once(pinned, row, use_hub):
    index, files = pinned
    with hub(files) as (address, requests):
        use_hub(address)
        file = index.locate(row)
        path = f"/someone/models/resolve/{REVISION}/{row.file}"
        assert ("GET", path) in requests
        assert {requested for _, requested in requests if "/resolve/" in requested} == {path}
        index.load(row)
        assert requests.count(("GET", path)) == 1
    assert file.read_bytes() == files["someone/models", REVISION, row.file]
    assert not (index.folder / row.file).exists()  # the cache has it; the checkout is left alone


def test_a_file_that_was_fetched_serves_without_a_network(pinned, row, use_hub):
    index, files = pinned
    with hub(files) as (address, _):
        use_hub(address)
        index.load(row)
    index.load(row)


def test_what_the_folder_holds_is_not_fetched(tiny_index, use_hub):
    index = replace(tiny_index, hub_repo="someone/models", hub_revision=REVISION)
    with hub({}) as (address, requests):
        use_hub(address)
        for checkpoint in index.checkpoints:
            index.load(checkpoint)
    assert not [path for _, path in requests if "/resolve/" in path]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "sha256"),
        (lambda content: content + b"more", "bytes instead of"),
    ],
    ids=["changed", "longer"],
)
def test_other_content_from_the_hub_is_refused(pinned, row, use_hub, change, cause):
    index, files = pinned
    with hub({key: change(content) for key, content in files.items()}) as (address, _):
        use_hub(address)
        refused(index, row, cause)


@pytest.mark.parametrize("wrong", ["revision", "file"])
def test_what_the_hub_does_not_have_is_named(pinned, row, use_hub, wrong):
    index, _ = pinned
    if wrong == "file":
        files = {("someone/models", REVISION, "other.safetensors"): b"x"}
    else:
        files = {("someone/models", "main", row.file): b"x"}
    with hub(files) as (address, _):
        use_hub(address)
        refused(index, row, "could not be fetched from someone/models", REVISION[:12])


def test_a_hub_that_is_down_is_told_soon(pinned, row, use_hub):
    index, files = pinned
    with hub(files) as (address, _):
        use_hub(address)
    started = time.perf_counter()
    refused(index, row, str(index.folder), "could not be fetched from someone/models")
    assert time.perf_counter() - started < 10


def test_a_download_that_breaks_off_is_told(pinned, row, use_hub, monkeypatch):
    index, files = pinned
    sleep = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(min(seconds, 0.01)))  # between retries
    with hub(files, cut=True) as (address, requests):
        use_hub(address)
        refused(index, row, "could not be fetched from someone/models")
        assert ("GET", f"/someone/models/resolve/{REVISION}/{row.file}") in requests
    assert not [f for f in os.listdir(index.folder) if f == row.file]


def test_an_unfinished_index_names_no_hub(tiny_index):
    content = json.loads((tiny_index.folder / "index.json").read_text())
    assert content["format"] == 1 and content["hub"] == {"repo": None, "revision": None}


def test_a_checkpoint_may_name_the_input_size_it_was_finished_on(tiny_index, new_row):
    row = new_row("cxr", "ofa_595")
    assert row.spec.input_size == 32  # the tiny model's own
    state = tiny_index.load(tiny_index.find("cxr", "ofa_595")).state_dict()
    stored = tiny_index.store(replace(row, input_size=48), state)
    again = Index.read(tiny_index.folder)
    classifier = Classifier.load(again, again.find("cxr", "ofa_595"))
    assert stored.spec.input_size == classifier.spec.input_size == 48
    assert classifier.prepare(Image.new("RGB", (99, 60))).shape == (1, 3, 48, 48)
