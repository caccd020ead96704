"""`train.tables.words`: each sentence follows from its numbers by rule."""

from types import SimpleNamespace

import pytest

from tests.train.tables.made_audit import audit, model
from train.measure.differences import Difference
from train.measure.resampling import Estimate
from train.tables.words import (
    audit_of,
    change_told,
    distillation_told,
    engine_told,
    floor_name,
    floors_told,
    over_floor_told,
    probes_told,
    verdict,
)


def change(low: float, high: float, seeds=(0,)) -> Difference:
    middle = Estimate((low + high) / 2, low, high)
    return Difference(middle, middle, dict.fromkeys(seeds, (middle.value, middle.value)))


BETTER, WORSE, UNCLEAR = change(0.01, 0.05), change(-0.05, -0.01), change(-0.02, 0.02)


def floor(name="thumbnail", id="thumbnail") -> SimpleNamespace:
    return SimpleNamespace(
        name=name, floor=SimpleNamespace(id=id), accuracy=Estimate(0.7, 0.6, 0.8)
    )


def run(name: str, otherwise: float | None = None, largest: float = 0.0) -> SimpleNamespace:
    served = None
    if otherwise is not None:
        served = SimpleNamespace(engine="OpenVINO, bf16", otherwise=otherwise, largest=largest)
    return SimpleNamespace(
        row=SimpleNamespace(name=name, stem=name, teacher="vgg19"),
        run=SimpleNamespace(engine="PyTorch, float32"),
        accuracy=Estimate(0.75, 0.7, 0.8),
        served=served,
    )


def numbers(over: dict[str, Difference], changes=(), runs=None) -> SimpleNamespace:
    """over: by name of a network its difference to floor and probe."""
    return SimpleNamespace(
        task=SimpleNamespace(blind_to="disease"),
        shipped=runs or [run(name) for name in over],
        best_floor=floor(),
        probes=[floor("linear probe")],
        over_floor=lambda one: over[one.row.name],
        over=lambda one, other: over[one.row.name],
        changes=list(changes),
    )


def changed(name: str, by: Difference, teacher: str | None = "vgg19") -> SimpleNamespace:
    row = SimpleNamespace(name=name, stem=name, teacher=teacher)
    return SimpleNamespace(row=row, control=SimpleNamespace(name="the control"), by=by)


@pytest.mark.parametrize(
    "by, says",
    [(BETTER, "better"), (WORSE, "worse"), (UNCLEAR, "unclear"), (change(0, 1), "unclear")],
)
def test_only_an_interval_beside_zero_is_beyond_doubt(by, says):
    assert verdict(by) == says


def test_networks_are_sorted_by_how_they_stand_to_the_floor():
    [told] = floors_told(numbers({"A": BETTER, "B": WORSE, "C": UNCLEAR, "D": BETTER}))
    assert told == (
        "Against the best floor on the validation split, the random forest (thumbnail), which does "
        "not see disease, paired on the same images: A and D are better beyond doubt; B is worse "
        "beyond doubt; C is neither better nor worse beyond doubt."
    )


def test_what_holds_for_all_is_said_once():
    [told] = probes_told(numbers({"A": WORSE, "B": WORSE}))
    assert told.endswith(
        "linear probe, paired on the same images: every network is worse beyond doubt."
    )


@pytest.mark.parametrize(
    "by, says",
    [
        (BETTER, "is better than this floor (paired difference +3.0 (+1.0 to +5.0) points)"),
        (WORSE, "is worse than this floor, so it is no evidence of seeing that"),
        (UNCLEAR, "is not better beyond doubt, so it is no evidence of seeing that"),
    ],
)
def test_each_network_is_held_against_floor_and_probe(by, says):
    first, second = over_floor_told(run("A"), numbers({"A": by}))
    assert (
        "the random forest (thumbnail), which does not see disease. It is right in 70.0%" in first
    )
    assert "this network, with 75.0%" in first and says in first
    assert "The linear probe, which was not trained for the task, is right in 70.0%" in second


def test_one_seed_does_not_cover_the_chance_of_training():
    alone, several = changed("A", BETTER), changed("B", change(-0.1, 0.1, (0, 1, 2)))
    [told] = distillation_told(numbers({"A": BETTER}, [alone, several]))
    assert "A +3.0 (+1.0 to +5.0), 1 seed; B +0.0 (-10.0 to +10.0), 3 seeds. " in told
    assert told.endswith(
        "Zero is outside for A. The interval of one seed does not cover the chance of training."
    )
    [told] = distillation_told(numbers({"A": BETTER}, [several]))
    assert told.endswith(
        "Each of them includes zero. The intervals cover the choice of test images and the chance of "
        "training."
    )
    assert distillation_told(numbers({"A": BETTER}, [changed("V", BETTER, None)])) == []


def test_a_card_tells_what_the_interval_covers():
    found = numbers({"A": BETTER}, [changed("A", BETTER)])
    assert change_told(run("A"), found) == (
        "Against the control, in percentage points with paired 95% intervals: accuracy +3.0 (+1.0 to "
        "+5.0), macro-F1 +3.0 (+1.0 to +5.0) (one seed: the interval covers the choice of test images, "
        "not the chance of training)."
    )
    several = numbers({"A": BETTER}, [changed("A", change(0.01, 0.05, (0, 1)))])
    assert (
        "(2 seeds: the interval covers the choice of test images and the chance of"
        in change_told(run("A"), several)
    )
    assert change_told(run("B"), found) is None


def test_the_audit_is_told_of_the_weights_that_it_was_of():
    found = SimpleNamespace(audit=audit(model("A", whole=0.54)))
    one = SimpleNamespace(row=SimpleNamespace(name="A", sha256="ab" * 32))
    words = "Shortcut audit on 60 test films with lung masks: this network is not clearly better"
    assert audit_of(one, found).startswith(words)
    other = SimpleNamespace(row=SimpleNamespace(name="A", sha256="f" * 64))
    assert audit_of(other, found) is None
    assert audit_of(one, SimpleNamespace(audit=None)) is None


def test_the_engine_of_the_tables_and_the_pages_are_named():
    runs = [run("A", 0.01, 0.02), run("B", 0.003, 0.076)]
    [told] = engine_told(numbers({"A": BETTER, "B": BETTER}, runs=runs))
    assert told == (
        "The tables are from PyTorch, float32; OpenVINO, bf16, which the page uses by default where "
        "this was measured, answers at most 1.0% of a network's test images otherwise, and moves a "
        "probability by at most 7.6 points."
    )
    assert engine_told(numbers({"A": BETTER})) == ["The tables are from PyTorch, float32."]


def test_the_majority_is_no_forest():
    assert floor_name(floor("majority class", "majority")) == "majority class"
    assert floor_name(floor()) == "random forest (thumbnail)"
