"""`train.measure.audit`: networks that look at one place only are found out, whichever place it is."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, recall_score, roc_auc_score
from torch import nn

import train.release.store
from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.models.zoo import build_model
from kdmodels.predict import Classifier
from kdmodels.tasks import TASKS
from train.__main__ import main
from train.data.blanking import FILLED, FILLS, SWAPS, VERSIONS
from train.data.manifest import DataError, Manifest, Sample
from train.measure.audit import audit_classifier, audit_forest, audit_task, measure, measure_swap
from train.measure.films import MIN_FILMS, Films, masked_films
from train.measure.predictions import logits_of
from train.release.store import StoreError
from train.tables.audit_tables import judge_blanking, judge_swaps

CXR = TASKS["cxr"]
SIDE = 32
LEVELS = (60, 120, 180)  # grey of a class: around the lungs; in them, that of the next class
LUNGS = np.zeros((SIDE, SIDE), bool)
LUNGS[8:24, 5:13] = LUNGS[8:24, 19:27] = True
FRAME = np.ones((SIDE, SIDE), bool)
FRAME[3:-3, 3:-3] = False


@pytest.fixture
def write_films(tmp_path):
    """Make a `Manifest` of films whose lungs and surroundings each tell the class by their grey.

    numbers: films of each class in each split. plain: what tells nothing, "lungs" or "around".
    """

    def write(numbers=(12, 12, 12), plain=None, mask=LUNGS) -> Manifest:
        generator, samples = np.random.default_rng(0), []
        Image.fromarray(mask).save(tmp_path / "mask.png")
        for split in ("train", "val", "test"):
            for kind, (label, number) in enumerate(zip(CXR.class_ids, numbers, strict=True)):
                for i in range(number):
                    around = 120 if plain == "around" else LEVELS[kind]
                    inside = 120 if plain == "lungs" else LEVELS[(kind + 1) % 3]
                    film = np.where(LUNGS, inside, around) + generator.normal(0, 6, (SIDE, SIDE))
                    path = tmp_path / f"{split}-{label}-{i}.png"
                    Image.fromarray(film.clip(0, 255).astype(np.uint8)).save(path)
                    group = f"{split}-{label}-{i // 2}"
                    source = f"source {i // 10}"
                    samples.append(Sample(path, label, split, group, source, tmp_path / "mask.png"))
        return Manifest(CXR, "drawn", tuple(samples))

    return write


class Reader(nn.Module):
    """Knows the class by the mean grey of one place, and sees nothing else.

    place: (S, S) bool. levels: grey of each class there, of 255.
    """

    def __init__(self, place: np.ndarray, levels, spec) -> None:
        super().__init__()
        self.place = torch.from_numpy(place)
        self.levels = nn.Parameter(torch.tensor(levels, dtype=torch.float32))
        self.mean, self.std = spec.mean[0], spec.std[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = 255 * (images[:, 0] * self.std + self.mean)
        return -((grey[:, self.place].mean(1)[:, None] - self.levels) ** 2) / 100


@pytest.fixture
def read(make_classifier):
    """Make a `Classifier` that looks at the `FRAME`, or at the `LUNGS`."""

    def make(place: np.ndarray) -> Classifier:
        classifier = make_classifier()
        levels = LEVELS if place is FRAME else np.roll(LEVELS, -1)
        about = classifier.task, classifier.spec, classifier.checkpoint
        return Classifier(*about, Reader(place, levels, classifier.spec).eval())

    return make


OUTLINES = {"lungs_outline", "box_outline"}


def seen(found: dict) -> dict[str, float]:
    """Accuracies of the versions that leave each part of the film where it was."""
    moved = {*OUTLINES, "crop"}
    return {name: value for name, value in accuracies(found).items() if name not in moved}


def accuracies(found: dict) -> dict[str, float]:
    return {name: version["accuracy"]["value"] for name, version in found["versions"].items()}


# --- Networks that look at one place ---------------------------------------------------------


def test_a_network_that_looks_around_the_lungs_is_found_out(write_films, read):
    found = audit_classifier(read(FRAME), masked_films(write_films()))
    assert seen(found) == {
        "whole": 1.0, "no_lungs": 1.0, "no_box": 1.0, "lungs_only": 0.0,
    }  # fmt: skip
    for row in found["fills"].values():
        assert row["no_lungs"] == row["no_box"] == 1 and row["lungs_only"] < 0.5
    for name in ("other", "within"):
        assert found["swaps"][name]["surroundings"] == {"value": 1.0, "ci95": [1.0, 1.0]}
        assert found["swaps"][name]["box"]["value"] == 0
        assert found["swaps"][name]["pull"] == {"value": 1.0, "ci95": [1.0, 1.0]}
    assert (
        judge_blanking(found, 1 / 3)[0] == "outside" and "most" in judge_blanking(found, 1 / 3)[1]
    )
    assert judge_swaps(found)[0] == "pulled"


def test_a_network_that_looks_at_the_lungs_is_cleared(write_films, read):
    found = audit_classifier(read(LUNGS), masked_films(write_films()))
    assert seen(found) == {
        "whole": 1.0, "no_lungs": 0.0, "no_box": 0.0, "lungs_only": 1.0,
    }  # fmt: skip
    for row in found["fills"].values():
        assert row["lungs_only"] == 1 and max(row["no_lungs"], row["no_box"]) < 0.5
    for name in ("other", "within"):
        assert found["swaps"][name]["box"]["value"] == 1
        assert found["swaps"][name]["surroundings"]["value"] == 0
        assert found["swaps"][name]["pull"]["value"] == 0
    assert judge_blanking(found, 1 / 3)[0] == "lungs"
    assert judge_swaps(found)[0] == "box"


def test_the_outline_alone_is_one_answer_where_all_outlines_are_alike(write_films, read):
    found = audit_classifier(read(FRAME), masked_films(write_films()))
    for name in OUTLINES:
        outline = found["versions"][name]
        assert outline["accuracy"]["value"] == pytest.approx(1 / 3, abs=1e-4)
        assert outline["auroc"] == 0.5
        assert outline["unchanged"] == pytest.approx(1 / 3, abs=1e-4)


def test_every_version_fill_and_swap_is_measured(write_films, read):
    found = audit_classifier(read(FRAME), masked_films(write_films()))
    assert tuple(found["versions"]) == tuple(VERSIONS) and tuple(found["swaps"]) == tuple(SWAPS)
    assert list(found["fills"]) == list(FILLS)[1:]
    assert all(tuple(row) == FILLED for row in found["fills"].values())
    within = found["versions"]["lungs_only"]["within"]
    assert set(within) == {"source 0"}  # the other has 2 films of each class
    assert within["source 0"]["images"] == 30 and within["source 0"]["accuracy"]["value"] == 0
    assert json.loads(json.dumps(found)) == found


def test_the_films_as_they_are_give_the_evaluations_logits(write_films, tiny_classifier):
    films = masked_films(write_films())
    right = logits_of(tiny_classifier, films.samples).argmax(1) == films.labels
    found = audit_classifier(tiny_classifier, films)["versions"]["whole"]
    assert found["accuracy"]["value"] == round(right.mean(), 4) and found["unchanged"] == 1
    assert found["change"] == {"value": 0.0, "ci95": [0.0, 0.0]}


# --- The forest ------------------------------------------------------------------------------


@pytest.mark.parametrize("plain, knows, blind", [
    ("lungs", ("whole", "no_lungs", "no_box"), ("lungs_only", *OUTLINES)),
    ("around", ("whole", "crop", "lungs_only"), ("no_lungs", "no_box", *OUTLINES)),
])  # fmt: skip
def test_the_forest_tells_what_can_be_known_from_what_is_left(
    write_films, plain, knows, blind, monkeypatch
):
    monkeypatch.setattr("train.measure.audit.TREES", 50)
    monkeypatch.setattr("train.measure.audit.FOREST_SIZE", 64)
    manifest = write_films(plain=plain)
    forest = audit_forest(manifest, masked_films(manifest))
    found = accuracies(forest)
    assert forest["films"] == 36
    assert all(found[name] == 1 for name in knows), found
    assert all(found[name] < 0.6 for name in blind), found


def test_the_forest_is_not_trained_on_masks_of_no_lungs(write_films, tmp_path, monkeypatch):
    monkeypatch.setattr("train.measure.audit.TREES", 2)
    manifest = write_films()
    Image.fromarray(np.zeros_like(LUNGS)).save(tmp_path / "empty.png")
    first = replace(manifest.samples[0], mask=tmp_path / "empty.png")
    assert first.split == "train"
    manifest = replace(manifest, samples=(first, *manifest.samples[1:]))
    assert audit_forest(manifest, masked_films(manifest))["films"] == 35


def test_no_forest_without_masks_for_training(write_films):
    manifest = write_films()
    samples = [replace(s, mask=None) if s.split == "train" else s for s in manifest.samples]
    assert audit_forest(replace(manifest, samples=tuple(samples)), masked_films(manifest)) == {}


# --- Which films -----------------------------------------------------------------------------


def test_films_without_masks_are_left_out(write_films):
    manifest = write_films()
    samples = [replace(s, mask=None) if s.path.stem.endswith("0") else s for s in manifest.samples]
    films = masked_films(replace(manifest, samples=tuple(samples)))
    assert len(films.samples) == 30 and films.notes == ()
    assert {s.split for s in films.samples} == {"test"} and films.task == CXR


def test_a_class_with_few_masks_is_left_out_and_no_answer_names_it(write_films, read):
    films = masked_films(write_films((12, MIN_FILMS - 1, 12)))
    assert films.task.class_ids == ("covid", "normal") and films.columns == (0, 2)
    assert films.notes == ("Left out: Non-COVID pneumonia, with masks for 9 films, fewer than 10.",)
    assert set(films.labels) == {0, 1} and len(films.samples) == 24
    classifier = read(FRAME)
    with torch.no_grad():
        classifier.model.levels.copy_(torch.tensor([60.0, 179.0, 180.0]))
    named = set(logits_of(classifier, films.samples).argmax(1).tolist())
    assert named == {0, 1, 2}  # it names pneumonia when it may
    audit = audit_classifier(classifier, films)
    found = audit["versions"]["whole"]
    assert found["accuracy"]["value"] == 1 and list(found["sensitivity"]) == ["covid", "normal"]
    assert audit["fills"]["grey"]["no_lungs"] == 1


def test_two_classes_at_least_are_needed(write_films):
    with pytest.raises(DataError, match=r"for 10 films each of two classes or more.* 16 films"):
        masked_films(write_films((12, 2, 2)))


@pytest.mark.parametrize("rows", [1, SIDE])
def test_masks_that_cannot_be_of_two_lungs_are_left_out_by_name(
    write_films, tmp_path, rows, caplog
):
    manifest = write_films()
    strange = np.zeros_like(LUNGS)
    strange[:rows] = True
    Image.fromarray(strange).save(tmp_path / "strange.png")
    first = manifest.samples[-1]
    samples = (*manifest.samples[:-1], replace(first, mask=tmp_path / "strange.png"))
    with caplog.at_level(logging.INFO, "train"):
        films = masked_films(replace(manifest, samples=samples))
    assert len(films.samples) == 35 and "strange.png" in caplog.text
    assert films.notes == ("Left out: 1 films whose masks cover less than 5% or more than 75%.",)


def test_a_damaged_mask_is_named(write_films, tmp_path):
    manifest = write_films()
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"The mask .*mask\.png cannot be read"):
        masked_films(manifest)


# --- Numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_numbers_are_scikit_learns(classes):
    generator = np.random.default_rng(1)
    task = CXR.model_copy(update={"classes": CXR.classes[:classes]})
    labels = generator.integers(0, classes, 80)
    samples = [
        Sample(f"{i}", task.class_ids[k], "test", f"{i // 2}", "x") for i, k in enumerate(labels)
    ]
    films = Films(task, tuple(samples), tuple(range(classes)))
    whole = generator.normal(size=(80, classes)) + 2 * np.eye(classes)[labels]
    scores = whole + generator.normal(size=whole.shape)
    found, answers = measure(scores, whole, films), scores.argmax(1)
    assert found["accuracy"]["value"] == round((answers == labels).mean(), 4)
    assert found["macro_f1"]["value"] == round(f1_score(labels, answers, average="macro"), 4)
    recalls = recall_score(labels, answers, average=None)
    assert [r["value"] for r in found["sensitivity"].values()] == pytest.approx(recalls, abs=1e-4)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    wanted = roc_auc_score(labels, shares if classes > 2 else shares[:, 1], multi_class="ovr")
    assert found["auroc"] == pytest.approx(wanted, abs=1e-4)
    assert found["unchanged"] == round((answers == whole.argmax(1)).mean(), 4)
    before = (whole.argmax(1) == labels).mean()
    assert found["change"]["value"] == pytest.approx((answers == labels).mean() - before, abs=1e-4)
    low, high = found["accuracy"]["ci95"]
    assert low < found["accuracy"]["value"] < high


def films_of(labels, groups=None) -> Films:
    groups = groups or range(len(labels))
    samples = [
        Sample(f"{i}", CXR.class_ids[label], "test", str(group), "x")
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]
    return Films(CXR, tuple(samples), (0, 1, 2))


def test_shares_of_a_swap_are_counted_film_by_film():
    generator = np.random.default_rng(3)
    labels, answers, whole = generator.integers(0, 3, (3, 300))
    donors = generator.integers(0, 300, 300)
    found = measure_swap(np.eye(3)[answers], np.eye(3)[whole], donors, films_of(labels))
    around, mistaken = answers == labels, whole[donors] == labels
    assert found["images"] == 300
    assert found["surroundings"]["value"] == pytest.approx(around.mean(), abs=1e-4)
    assert found["box"]["value"] == pytest.approx((answers == labels[donors]).mean(), abs=1e-4)
    assert found["mistaken"]["value"] == pytest.approx(mistaken.mean(), abs=1e-4)
    assert found["pull"]["value"] == pytest.approx(around.mean() - mistaken.mean(), abs=1e-4)


def test_intervals_of_a_swap_are_over_groups():
    """A share p of n films has an error of sqrt(p (1 - p) / n); of two groups alike, far more."""
    labels, donors = np.zeros(200, int), np.roll(np.arange(200), 1)
    answers = (np.arange(200) % 4 > 0).astype(int)  # a quarter right
    scores, whole = np.eye(3)[answers], np.eye(3)[labels + 1]
    apart = measure_swap(scores, whole, donors, films_of(labels))
    for name in ("surroundings", "pull"):
        low, high = apart[name]["ci95"]
        error = np.sqrt(0.25 * 0.75 / 200)
        assert apart[name]["value"] == 0.25
        assert low == pytest.approx(0.25 - 1.96 * error, abs=0.015)
        assert high == pytest.approx(0.25 + 1.96 * error, abs=0.015)
    together = measure_swap(scores, whole, donors, films_of(labels, [0, 1] * 100))
    assert together["surroundings"]["ci95"] == [0.0, 0.5]


def test_films_without_a_donor_do_not_count_in_a_swap():
    films, whole = films_of([0, 1, 2]), np.eye(3)[[0, 1, 2]]
    found = measure_swap(np.eye(3)[[0, 0, 1]], whole, np.array([1, 0, -1]), films)
    assert found["images"] == 2  # the first answers as its surroundings, the second as its box
    assert found["surroundings"]["value"] == found["box"]["value"] == 0.5
    assert measure_swap(np.eye(3), whole, np.full(3, -1), films) == {}


# --- The command -----------------------------------------------------------------------------


@pytest.fixture
def stored(tiny_models, write_films, new_row, tmp_path, monkeypatch) -> tuple[Manifest, Index]:
    """Drawn films, and two tiny networks in an index that counts as the project's own."""
    manifest, folder = write_films(), tmp_path / "weights"
    monkeypatch.setattr(train.release.store, "WEIGHTS", folder)
    monkeypatch.setattr(Index.read.__func__, "__defaults__", (folder,))
    monkeypatch.setattr("train.measure.audit.audit_forest", lambda manifest, films: {})
    for model in ("vgg19", "ofa_595"):
        row = replace(new_row("cxr", model), data=manifest.id)
        Index(folder).store(row, build_model(model, 3).state_dict())
    return manifest, Index.read(folder)


def test_the_audit_is_stored_beside_the_other_results(stored, tmp_path, caplog):
    manifest, index = stored
    file = tmp_path / "weights" / "results.json"
    file.write_text(json.dumps({"cxr": {"floors": [1]}, "histopathology": {"data": "x"}}))
    with caplog.at_level(logging.INFO, "train"):
        audit = audit_task(manifest, write=True)
    results = json.loads(file.read_text())
    assert results == {"cxr": {"floors": [1], "audit": audit}, "histopathology": {"data": "x"}}
    assert (audit["images"], audit["groups"], audit["task"]) == (36, 18, "cxr")
    assert audit["classes"] == {"covid": 12, "pneumonia": 12, "normal": 12}
    assert audit["majority"] == audit["source_majority"] == 0.3333
    wanted = {c.file: (c.name, c.spec.role, c.sha256) for c in index.checkpoints}
    found = {f: (m["name"], m["role"], m["sha256"]) for f, m in audit["models"].items()}
    assert found == wanted and len(found) == 2
    with Image.open(tmp_path / "weights" / "figures" / "audit-cxr.png") as figure:
        assert figure.format == "PNG" and figure.width == 1600
    assert "Shortcut audit, Chest X-ray" in caplog.text


def test_a_stored_audit_is_compared(stored, caplog):
    manifest, index = stored
    audit = audit_task(manifest)
    train.release.store.update_results("cxr", audit=audit)
    name = index.checkpoints[0].file
    with caplog.at_level(logging.INFO, "train"):
        audit_task(manifest)
        assert caplog.messages[-1] == "As stored."
        audit["models"][name]["versions"]["no_box"]["accuracy"]["value"] += 0.1
        train.release.store.update_results("cxr", audit=audit)
        audit_task(manifest)
    assert caplog.messages[-1] == (
        f"DIFFERS from the stored audit: ['models.{name}.versions.no_box.accuracy.value']"
    )


def test_a_run_stays_while_the_evaluation_counts_it(stored, finish_run, caplog):
    manifest, _ = stored
    run = finish_run(manifest, seed=1)
    name = "cxr-ofa_595-labels-seed1"
    audit = audit_task(manifest, write=True, runs=[run])
    about = audit["models"][name]
    assert (about["name"], len(audit["models"])) == ("OFA-595 (labels only), seed 1", 3)
    train.release.store.update_results("cxr", seeds={"any": [{"sha256": about["sha256"]}]})
    shutil.rmtree(run)
    with caplog.at_level(logging.INFO, "train"):
        assert audit_task(manifest) == audit
    assert caplog.messages[-1] == "As stored."
    again = finish_run(manifest, change=0.3, seed=1)
    found = audit_task(manifest, runs=[again])["models"][name]
    assert found["sha256"] != about["sha256"]
    train.release.store.update_results("cxr", seeds={})
    assert name not in audit_task(manifest)["models"]
    train.release.store.update_results("cxr", seeds={"any": [{"sha256": about["sha256"]}]})
    train.release.store.update_results("cxr", audit=audit | {"data": "other@0"})
    assert name not in audit_task(manifest)["models"]


def test_a_source_that_is_known_gives_its_majority(stored):
    manifest, _ = stored
    samples = tuple(replace(s, source=s.label.replace("normal", "covid")) for s in manifest.samples)
    other = replace(manifest, samples=samples)
    rows = [Checkpoint(**c.__dict__ | {"data": other.id}) for c in Index.read().checkpoints]
    replace(Index.read(), checkpoints=tuple(rows)).write()
    audit = audit_task(other)
    assert (audit["majority"], audit["source_majority"]) == (0.3333, 0.6667)


def test_weights_of_other_data_are_refused(stored, write_films):
    with pytest.raises(DataError, match="was trained on other data than drawn@"):
        audit_task(write_films((11, 12, 12)))


def test_an_audit_needs_weights(stored, write_films):
    replace(Index.read(), checkpoints=()).write()
    with pytest.raises(StoreError, match="holds no weights for the task 'cxr'"):
        audit_task(write_films())


def test_the_command_says_that_there_are_no_masks(write_starter, tmp_path, capfd):
    data = write_starter(tmp_path / "data")
    assert main(["audit", "--task", "cxr", "--data", str(data)]) == 2
    _, err = capfd.readouterr()
    assert err.startswith("error: The audit needs lung masks") and err.count("\n") == 1
