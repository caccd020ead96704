"""`train.tables.audit_words` and the audit's tables: the sentences follow from the numbers, by rule."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.train.tables.made_audit import MAJORITY, audit, estimate, forest, model
from train.tables.audit_words import audit_told, judge_blanking, judge_swaps
from train.tables.templates import render
from train.tables.write import AUDIT

# --- Verdicts --------------------------------------------------------------------------------


@pytest.mark.parametrize("accuracies, verdict, words", [
    (dict(whole=0.54), "unknown", "so there is nothing to audit"),
    (dict(no_lungs=0.8, no_box=0.7), "outside", "right in 70.0% (65.0 to 75.0) of the films, where "
     "the majority class gives 50.0%. It reads most of what it knows beyond that (50%)"),
    (dict(no_lungs=0.8, no_box=0.69), "outside", "It reads a part of what it knows beyond that"),
    (dict(no_lungs=0.8, no_box=0.55), "outside", "with the lungs blanked it is right in 80.0%"),
    (dict(no_lungs=0.55, lungs_only=0.8), "lungs", "keeps 80.0% (75.0 to 85.0) with the lungs alone"),
    (dict(no_lungs=0.2, lungs_only=0.55), "thrown off", "the blanking itself throws it off"),
    (dict(no_lungs=0.8, no_box=0.95), "outside", "(100%)"),
])  # fmt: skip
def test_the_verdict_on_blanking_follows_from_the_intervals(accuracies, verdict, words):
    found, sentence = judge_blanking(model(**accuracies), MAJORITY)
    assert found == verdict and words in sentence


@pytest.mark.parametrize("swaps, verdict, words", [
    ((0.9, (0.7, 0.05), (0.65, 0.06)), "box", "No pull of the surroundings is clear."),
    ((0.9, (0.7, 0.13), (0.65, 0.06)), "pulled", "Given the box of another class, it names the "
     "class of the box in 70.0% (68.0 to 72.0) and that of the surroundings in 13.0% (11.0 to "
     "15.0), for which it takes 4.0% of the boxes' own films."),
    ((0.9, (0.7, 0.05), (0.65, 0.13)), "pulled", "The surroundings pull its answers."),
    ((0.81, (0.4, 0.4), (0.7, 0.1)), "pulled", "The surroundings pull its answers."),
    ((0.79, (0.4, 0.4), (0.7, 0.1)), "nothing", "already costs it 11.0 points"),
])  # fmt: skip
def test_the_verdict_on_swaps_follows_from_the_shares(swaps, verdict, words):
    found, sentence = judge_swaps(model(swaps=swaps))
    assert found == verdict and words in sentence


def test_no_swaps_give_no_sentence():
    bare = replace(model(), swaps={"same": None, "other": None, "within": None})
    assert judge_swaps(bare) == ("nothing", "")


def without_the_swap_within(**settings):
    one = model(**settings)
    return replace(one, swaps=one.swaps | {"within": None})


def test_a_swap_without_films_is_left_out_of_the_sentence_and_the_table():
    one = without_the_swap_within()
    assert "of the same source" not in judge_swaps(one)[1]
    assert (
        "| VGG19 | 90.0 (85.0 to 95.0) | 70.0 (68.0 to 72.0) | 5.0 (3.0 to 7.0) | "
        "+1.0 (-1.0 to +3.0) | no such films | no such films | no such films |\n"
    ) in tables(audit(one))


# --- Words and tables ------------------------------------------------------------------------


def tables(found) -> str:
    """The audit's part of docs/results.md."""
    numbers = SimpleNamespace(audit=found)
    task = SimpleNamespace(id="cxr", name="Chest X-ray")
    return render("audit.md.jinja", {"numbers": numbers, "task": task} | AUDIT)


def test_the_summary_says_what_each_network_and_the_forest_know():
    first = model("A", no_box=0.8, swaps=(0.9, (0.6, 0.3), (0.5, 0.41)))
    first = replace(first, changes=first.changes | {"crop": estimate(-0.04)})  # to +1 point
    second = model("B", no_lungs=0.7, swaps=(0.7, (0.6, 0.3), (0.5, 0.42)))
    told = audit_told(audit(model(), first, second, forest=forest(0.8, box_outline=0.7)))
    assert told[0].startswith("The class can be known without the lungs: a random forest")
    assert "with the box around the lungs blanked, is right in 80.0% (75.0 to 85.0);" in told[0]
    assert told[1].endswith("could be right in 70.8%.")
    assert told[2:] == [
        "Clearly better than the majority class without the lungs: A; B.",
        "Not clearly better than the majority class without the lungs, nor with the lungs alone, "
        "so that the blanking itself throws them off: VGG19.",
        "Clearly less is right with the films cropped to the box around the lungs, which takes "
        "nothing from the lungs but makes them larger: VGG19 85.0% instead of 90.0%; B 85.0% instead "
        "of 90.0%.",
        "The surroundings pull the answers of 1 of 2 networks. With the box around the lungs "
        "taken from a film of another class of the same source, the answer is the class of the "
        "surroundings in: VGG19 6.0% (for which it takes 4.0% of the boxes' own films); A 41.0% "
        "(for which it takes 4.0% of the boxes' own films).",
    ]


@pytest.mark.parametrize("blanked, outline, words", [
    (0.8, 0.7, "The class can be known"), (0.8, 0.76, "Little can be known"),
    (0.54, 0.3, "Little can be known"),
])  # fmt: skip
def test_what_can_be_known_is_beyond_the_outline_of_the_box(blanked, outline, words):
    found = forest(0.9, no_box=blanked, box_outline=outline)
    assert audit_told(audit(model(), forest=found))[0].startswith(words)


def test_a_summary_without_swaps_within_a_source_speaks_of_the_others():
    one = without_the_swap_within(swaps=(0.9, (0.6, 0.31), (0.5, 0.41)))
    (said,) = [line for line in audit_told(audit(one)) if "surroundings" in line]
    assert "taken from a film of another class, the answer" in said and "VGG19 31.0%" in said


def test_every_number_is_in_the_tables():
    text = tables(audit(model(no_lungs=0.81), forest=forest(0.8)))
    for wanted in (
        "**60 test films with lung masks** (41 independent groups)",
        "| VGG19 | 90.0 (85.0 to 95.0) | 85.0 (80.0 to 90.0) | 81.0 (76.0 to 86.0) | 50.0 (45.0 to 55.0) |",
        "| random forest, trained on each version | 80.0 (75.0 to 85.0) |",
        "| VGG19 | 81.0 / 41.0 / 44.0 | 50.0 / 42.0 / 45.0 | 50.0 / 43.0 / 46.0 |",
        "| VGG19 | hospital: COVID-19 or Normal, 44 films | 75.0 | 70.0 (65.0 to 75.0) | 65.0 (",
        "| VGG19 | lungs blanked | 71.0 (66.0 to 76.0) | 0.812 | 31.0 (26.0 to 36.0) | 32.0 (27.0 to "
        "37.0) | 62.5 | -12.5 (-17.5 to -7.5) |",
        "| model | films | macro-F1 | AUROC | sensitivity, COVID-19 | sensitivity, Normal |",
        "Films: COVID-19 30, Normal 30. Left out: Non-COVID pneumonia, with masks for 3",
        "- VGG19 still knows the class without the lungs: with the lungs blanked it is right in 81.0%",
        "](figures/audit-cxr.png)",
    ):
        assert wanted in text, wanted


def test_tables_are_whole():
    """In Markdown, a row of another length than its head is lost or cut."""
    text = tables(audit(model(), model("OFA-595", "student"), forest=forest(0.8)))
    width = None
    for line in text.split("\n"):
        if not line.startswith("|"):
            width = None
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line


def test_without_an_audit_there_is_nothing_to_say():
    assert tables(None).strip() == ""
