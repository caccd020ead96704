"""`train.tables.audit_tables` and its figure: the sentences follow from the numbers, by rule."""

import pytest

from train.data.blanking import VERSIONS
from train.tables.audit_figure import audit_figure
from train.tables.audit_tables import audit_lines, audit_summary, judge_blanking, judge_swaps

MAJORITY = 0.5


def metric(value: float, half: float = 0.05) -> dict:
    return {"value": value, "ci95": [round(value - half, 4), round(value + half, 4)]}


def version(accuracy: float) -> dict:
    return {
        "accuracy": metric(accuracy),
        "macro_f1": metric(accuracy - 0.1),
        "auroc": 0.8125,
        "sensitivity": {"covid": metric(0.31), "normal": metric(0.32)},
        "unchanged": 0.625,
        "change": metric(-0.125),
        "within": {
            "hospital": {
                "images": 44,
                "classes": [0, 1],
                "majority": 0.75,
                "accuracy": metric(accuracy - 0.2),
                "macro_f1": metric(0.4),
            }
        },
    }


def model(
    name="VGG19", role="teacher", swaps=(0.9, (0.7, 0.05), (0.65, 0.06)), **accuracies
) -> dict:
    """swaps: right within the class; (as the box, as the surroundings) of the two other swaps."""
    control, *others = swaps
    values = {"whole": 0.9, "crop": 0.85, "no_lungs": 0.5, "no_box": 0.5, "lungs_only": 0.5}
    values |= {"lungs_outline": 0.3, "box_outline": 0.2}
    found = {
        key: {
            "images": 60,
            "box": metric(box, 0.02),
            "surroundings": metric(around, 0.02),
            "mistaken": metric(0.04, 0.02),
            "pull": metric(around - 0.04, 0.02),
        }
        for key, (box, around) in zip(("other", "within"), others, strict=True)
    }
    return {
        "name": name,
        "role": role,
        "sha256": "ab" * 32,
        "versions": {key: version(value) for key, value in (values | accuracies).items()},
        "fills": {
            "grey": {"no_lungs": 0.41, "no_box": 0.42, "lungs_only": 0.43},
            "black": {"no_lungs": 0.44, "no_box": 0.45, "lungs_only": 0.46},
        },
        "swaps": {
            "same": {"images": 60, "box": metric(control), "surroundings": metric(control)},
            **found,
        },
    }


def results(*models: dict, forest: dict | None = None) -> dict:
    audit = {
        "task": "cxr",
        "data": "drawn@0",
        "images": 60,
        "groups": 41,
        "classes": {"covid": 30, "normal": 30},
        "notes": ["Left out: Non-COVID pneumonia, with masks for 3 films, fewer than 10."],
        "majority": MAJORITY,
        "source_majority": 0.7083,
        "models": {f"{m['name']}.safetensors": m for m in models},
        "forest": forest or {},
    }
    return {"audit": audit}


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
    bare = model()
    bare["swaps"] = {"same": {}, "other": {}, "within": {}}
    assert judge_swaps(bare) == ("nothing", "")


def test_a_swap_without_films_is_left_out_of_the_sentence_and_the_table():
    one = model()
    one["swaps"]["within"] = {}
    assert "of the same source" not in judge_swaps(one)[1]
    assert (
        "| VGG19 | 90.0 (85.0 to 95.0) | 70.0 (68.0 to 72.0) | 5.0 (3.0 to 7.0) | "
        "+1.0 (-1.0 to +3.0) | no such films | no such films | no such films |"
    ) in audit_lines(results(one))


# --- Words and tables ------------------------------------------------------------------------


def test_the_summary_says_what_each_network_and_the_forest_know():
    forest = {"films": 99, "versions": {name: version(0.8) for name in VERSIONS}}
    forest["versions"]["box_outline"] = version(0.7)
    students = [
        model("A", no_box=0.8, swaps=(0.9, (0.6, 0.3), (0.5, 0.41))),
        model("B", no_lungs=0.7, swaps=(0.7, (0.6, 0.3), (0.5, 0.42))),
    ]
    students[0]["versions"]["crop"]["change"] = metric(-0.04)  # to +1 point
    lines = audit_summary(results(model(), *students, forest=forest))
    assert lines[0] == (
        "**Shortcut audit**, 60 test films with lung masks (41 independent groups):"
    )
    assert lines[2].startswith("- The class can be known without the lungs: a random forest")
    assert "with the box around the lungs blanked, is right in 80.0% (75.0 to 85.0);" in lines[2]
    assert lines[3].endswith("could be right in 70.8%.")
    assert lines[4:8] == [
        "- Clearly better than the majority class without the lungs: A; B.",
        "- Not clearly better than the majority class without the lungs, nor with the lungs alone, "
        "so that the blanking itself throws them off: VGG19.",
        "- Clearly less is right with the films cropped to the box around the lungs, which takes "
        "nothing from the lungs but makes them larger: VGG19 85.0% instead of 90.0%; B 85.0% instead "
        "of 90.0%.",
        "- The surroundings pull the answers of 1 of 2 networks. With the box around the lungs "
        "taken from a film of another class of the same source, the answer is the class of the "
        "surroundings in: VGG19 6.0% (for which it takes 4.0% of the boxes' own films); A 41.0% "
        "(for which it takes 4.0% of the boxes' own films).",
    ]
    assert lines[8:] == [""]


@pytest.mark.parametrize("blanked, outline, words", [
    (0.8, 0.7, "- The class can be known"), (0.8, 0.76, "- Little can be known"),
    (0.54, 0.3, "- Little can be known"),
])  # fmt: skip
def test_what_can_be_known_is_beyond_the_outline_of_the_box(blanked, outline, words):
    forest = {"films": 99, "versions": {name: version(0.9) for name in VERSIONS}}
    forest["versions"] |= {"no_box": version(blanked), "box_outline": version(outline)}
    assert audit_summary(results(model(), forest=forest))[2].startswith(words)


def test_a_summary_without_swaps_within_a_source_speaks_of_the_others():
    one = model(swaps=(0.9, (0.6, 0.31), (0.5, 0.41)))
    one["swaps"]["within"] = {}
    (said,) = [line for line in audit_summary(results(one)) if "surroundings" in line]
    assert "taken from a film of another class, the answer" in said and "VGG19 31.0%" in said


def test_every_number_is_in_the_tables():
    forest = {"films": 99, "versions": {name: version(0.8) for name in VERSIONS}}
    text = "\n".join(audit_lines(results(model(no_lungs=0.81), forest=forest)))
    for wanted in (
        "| VGG19 | 90.0 (85.0 to 95.0) | 85.0 (80.0 to 90.0) | 81.0 (76.0 to 86.0) | 50.0 (45.0 to 55.0) |",
        "| random forest, trained on each version | 80.0 (75.0 to 85.0) |",
        "| VGG19 | 81.0 / 41.0 / 44.0 | 50.0 / 42.0 / 45.0 | 50.0 / 43.0 / 46.0 |",
        "| VGG19 | hospital, 44 films: COVID-19 or Normal | 75.0 | 70.0 (65.0 to 75.0) | 65.0 (",
        "| VGG19 | lungs blanked | 71.0 (66.0 to 76.0) | 0.812 | 31.0 (26.0 to 36.0) | 32.0 (27.0 to "
        "37.0) | 62.5 | -12.5 (-17.5 to -7.5) |",
        "| model | films | macro-F1 | AUROC | sensitivity, COVID-19 | sensitivity, Normal |",
    ):
        assert wanted in text, wanted
    assert "Films: COVID-19 30, Normal 30. Left out: Non-COVID pneumonia, with masks for 3" in text
    assert "](figures/audit-cxr.png)" in text


def test_tables_are_whole():
    """In Markdown, a row of another length than its head is lost or cut."""
    forest = {"films": 99, "versions": {name: version(0.8) for name in VERSIONS}}
    width = None
    for line in audit_lines(results(model(), model("OFA-595", "student"), forest=forest)):
        if not line.startswith("|"):
            width = None
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line


def test_without_an_audit_there_is_nothing_to_say():
    assert audit_lines({}) == audit_summary({"floors": []}) == []


# --- The figure ------------------------------------------------------------------------------


def test_the_figure_shows_every_number():
    forest = {"films": 99, "versions": {name: version(0.77) for name in VERSIONS}}
    audit = results(model(), model("OFA-595", "student", lungs_only=0.66), forest=forest)["audit"]
    figure = audit_figure(audit)
    above, below = figure.subfigs
    shown = {
        axes.get_title().replace("\n", " "): [t.get_text() for t in axes.texts]
        for axes in (*above.axes, *below.axes)
    }
    assert shown == {
        "as they are": ["90", "90", "77"],
        "lungs blanked": ["50", "50", "77"],
        "box around the lungs blanked": ["50", "50", "77"],
        "all but the lungs blanked": ["50", "66", "77"],
        "outline of the lungs alone": ["30", "30", "77"],
        "cropped to the box around the lungs": ["85", "85", "77"],
        "box of the same class": ["90", "90"],
        "box of another class": ["70", "5", "70", "5"],
        "box of another class of the same source": ["65", "6", "65", "6"],
    }
    names = [t.get_text() for t in above.axes[0].get_yticklabels()]
    assert names == ["VGG19", "OFA-595", "Random forest"]
    assert [t.get_text() for t in below.axes[0].get_yticklabels()] == names[:2]
    for axes in above.axes:
        majority, source = (line.get_xdata()[0] for line in axes.lines[:2])
        assert (majority, source) == (50, pytest.approx(70.83))
        low, high = axes.lines[2].get_xdata()
        assert high - low == pytest.approx(10)
