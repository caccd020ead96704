"""`train.measure.audit_numbers`: shares of versions and swaps, counted film by film, with intervals."""

import numpy as np
import pytest

from kdmodels.tasks import TASKS
from tests.train.measure.answers import images_of, logits_for
from train.data.blanking import FILLED, FILLS, MAIN_FILL, SWAPS, VERSIONS
from train.measure.audit_numbers import Audited, audit_numbers, majority, swap_numbers
from train.measure.kept_audit import FOREST, AuditFilms, AuditResults, KeptAudit
from train.measure.measured import Measured

CXR = TASKS["cxr"]
NUMBER = 40


def test_a_version_is_compared_with_the_films_as_they_are():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 80)
    images = images_of(labels, np.arange(80) // 2)
    whole = generator.normal(size=(80, 3)) + 2 * np.eye(3)[labels]
    blanked = whole + generator.normal(size=whole.shape)
    versions = {"whole": Measured(whole, images, CXR), "no_box": Measured(blanked, images, CXR)}
    found = Audited("VGG19", "teacher", versions)
    before, after = whole.argmax(1), blanked.argmax(1)
    assert found.unchanged("no_box") == pytest.approx((before == after).mean())
    change = (after == labels).mean() - (before == labels).mean()
    assert found.changes["no_box"].value == pytest.approx(change)
    assert found.changes["no_box"].low < change < found.changes["no_box"].high
    assert found.unchanged("whole") == 1 and found.changes["whole"].high == 0


def test_shares_of_a_swap_are_counted_film_by_film():
    generator = np.random.default_rng(3)
    labels, answers, whole = generator.integers(0, 3, (3, 300))
    donors = generator.integers(0, 300, 300)
    found = swap_numbers(np.eye(3)[answers], np.eye(3)[whole], donors, images_of(labels))
    around, mistaken = answers == labels, whole[donors] == labels
    assert found.images == 300
    assert found.surroundings.value == pytest.approx(around.mean())
    assert found.box.value == pytest.approx((answers == labels[donors]).mean())
    assert found.mistaken.value == pytest.approx(mistaken.mean())
    assert found.pull.value == pytest.approx(around.mean() - mistaken.mean())


def test_intervals_of_a_swap_are_over_groups():
    """A share p of n films has an error of sqrt(p (1 - p) / n); of two groups alike, far more."""
    labels, donors = np.zeros(200, int), np.roll(np.arange(200), 1)
    answers = (np.arange(200) % 4 > 0).astype(int)  # a quarter right
    scores, whole = np.eye(3)[answers], np.eye(3)[labels + 1]
    apart = swap_numbers(scores, whole, donors, images_of(labels))
    error = np.sqrt(0.25 * 0.75 / 200)
    for share in (apart.surroundings, apart.pull):
        assert share.value == 0.25
        assert share.low == pytest.approx(0.25 - 1.96 * error, abs=0.015)
        assert share.high == pytest.approx(0.25 + 1.96 * error, abs=0.015)
    together = swap_numbers(scores, whole, donors, images_of(labels, [0, 1] * 100))
    assert (together.surroundings.low, together.surroundings.high) == (0.0, 0.5)


def test_films_without_a_donor_do_not_count_in_a_swap():
    images, whole = images_of([0, 1, 2]), np.eye(3)[[0, 1, 2]]
    found = swap_numbers(np.eye(3)[[0, 0, 1]], whole, np.array([1, 0, -1]), images)
    assert found.images == 2
    assert (found.surroundings.value, found.box.value) == (0.5, 0.5)
    assert swap_numbers(whole, whole, np.array([-1, -1, -1]), images) is None


def test_the_majority_is_that_of_each_part():
    labels = np.array([0, 0, 1, 1, 1, 2])
    assert majority(labels) == 0.5
    assert majority(labels, ["a", "a", "b", "b", "b", "b"]) == pytest.approx(5 / 6)


@pytest.fixture
def kept(tmp_path) -> AuditResults:
    """Answers of two networks and the forest, written as an audit writes them."""
    task = CXR.model_copy(update={"classes": CXR.classes[::2]})
    labels = np.arange(NUMBER) % 2
    images = images_of(labels, sources=[f"s{i % 4 > 1}" for i in range(NUMBER)])
    donors = {name: np.roll(np.arange(NUMBER), 1) for name in SWAPS} | {
        "within": np.full(NUMBER, -1)
    }
    results = AuditResults.of(CXR, tmp_path)
    left_out = {"name": "x.png", "label": "pneumonia", "group": "x", "source": "s0"}
    films = AuditFilms(CXR, task, images, donors, (left_out | {"left_out": "few masks"},))
    films.write(results.folder / "audit.csv")

    def answers(seed: int) -> np.ndarray:
        flipped = np.random.default_rng(seed).random(NUMBER) < 0.2
        return logits_for(np.where(flipped, 1 - labels, labels), seed, classes=2)

    for key, name, role in (
        ("cxr-vgg19-seed0", "VGG19", "teacher"),
        ("cxr-ofa_595-labels-seed0", "OFA-595 (labels only)", "student"),
        (FOREST, "random forest", FOREST),
    ):
        network = role != FOREST
        KeptAudit(
            key, name, role, "1" * 64,
            {name: answers(i) for i, name in enumerate(VERSIONS)},
            {f: {v: answers(9) for v in FILLED} for f in FILLS if f != MAIN_FILL and network},
            {name: answers(20) for name in SWAPS if network},
        ).write(results.folder / "audit")  # fmt: skip
    return results


def test_what_is_kept_becomes_numbers_in_the_order_of_the_tables(kept):
    audit = audit_numbers(kept)
    assert [m.name for m in audit.models] == ["VGG19", "OFA-595 (labels only)"]
    assert audit.forest.name == "random forest, trained on each version"
    assert audit.rows == (*audit.models, audit.forest)
    assert audit.counts == {"covid": 20, "normal": 20} and audit.groups == NUMBER
    assert (audit.majority, audit.source_majority) == (0.5, 0.5)
    assert audit.notes == ("Left out: Non-COVID pneumonia, with masks for 1 films, fewer than 10.",)
    first = audit.models[0]
    assert tuple(first.versions) == tuple(VERSIONS) and tuple(first.swaps) == tuple(SWAPS)
    assert tuple(first.fills) == tuple(FILLS)[1:] and tuple(first.fills["grey"]) == FILLED
    answered = kept.audits[0].versions["no_box"].argmax(1)
    right = (answered == audit.images.labels).mean()
    assert first.versions["no_box"].accuracy.value == pytest.approx(right)
    assert first.swaps["within"] is None and first.swaps["other"].images == NUMBER


def test_without_an_audit_there_are_no_numbers(tmp_path):
    assert audit_numbers(AuditResults.of(CXR, tmp_path)) is None
