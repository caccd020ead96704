"""`train.tables.summary`: every number of the README is a stored one, in the row of its checkpoint."""

import copy
from dataclasses import replace

import pytest

from kdmodels.models.checkpoints import Index
from kdmodels.models.zoo import TEACHERS, build_model, count_macs, count_parameters
from kdmodels.tasks import TASKS
from train.tables.summary import summary

STUDENT = "[OFA-595 (from VGG19)](train/recipes/cxr-ofa_595-from-vgg19.yaml)"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def all_cells(text: str) -> list[str]:
    return [cell for line in text.split("\n") for cell in cells(line)]


def shown(metric: dict) -> str:
    numbers = [100 * v for v in (metric["value"], *metric["ci95"])]
    return "{:.1f} ({:.1f} to {:.1f})".format(*numbers)


def line_of(text: str, row) -> list[str]:
    lines = [
        cells(line) for line in text.split("\n")
        if line.startswith(f"| [{row.name}](") and f"`{row.sha256[:12]}`" in line
    ]  # fmt: skip
    assert len(lines) == 1
    return lines[0]


def with_row(index: Index, row, **changes) -> Index:
    rows = (replace(c, **changes) if c is row else c for c in index.checkpoints)
    return replace(index, checkpoints=tuple(rows))


# --- Models ----------------------------------------------------------------------------------


def test_every_checkpoint_has_a_row_with_its_own_numbers(evaluated_index, some_results):
    text = summary(evaluated_index, {})
    for row in evaluated_index.checkpoints:
        m, model = row.metrics, build_model(row.model, len(row.classes))
        size = f"{count_parameters(model) / 1e6:.1f} M / {count_macs(model, 32) / 1e9:.2f} at 32 px"
        rates = {c.name: m["classes"][c.id]["sensitivity"] for c in TASKS[row.task].classes}
        name = min(rates, key=lambda n: rates[n]["value"])
        assert line_of(text, row) == [
            f"[{row.name}]({row.recipe})", size, shown(m["accuracy"]), shown(m["macro_f1"]),
            f"{shown(rates[name])}, {name}", f"{row.bytes / 1e6:.1f} MB, `{row.sha256[:12]}`",
        ]  # fmt: skip


def test_a_metric_changes_its_own_cell_only(evaluated_index, some_results):
    before = all_cells(summary(evaluated_index, some_results))
    row = evaluated_index.find("cxr", "vgg19")
    metrics = copy.deepcopy(row.metrics)
    metrics["classes"]["normal"]["sensitivity"] = {"value": 0.0123, "ci95": [0.0012, 0.8764]}
    after = all_cells(summary(with_row(evaluated_index, row, metrics=metrics), some_results))
    differing = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert [after[i] for i in differing] == ["1.2 (0.1 to 87.6), Normal"]


def test_a_student_of_all_teachers_and_a_variant_have_rows(evaluated_index):
    row = evaluated_index.find("cxr", "ofa_595", "vgg19")
    for changes in ({"teacher": "+".join(TEACHERS)}, {"variant": "attention"}):
        index = with_row(evaluated_index, row, **changes)
        text = summary(index, {"cxr": {"distillation": {}}})
        assert line_of(text, replace(row, **changes))


def test_checkpoints_without_metrics_are_left_out(tiny_index):
    assert summary(tiny_index, {}) == ""


def test_a_reference_is_a_row_of_the_table(evaluated_index):
    found = evaluated_index.find("cxr", "vgg19").metrics
    text = summary(evaluated_index, {"cxr": {"reference": found}})
    lines = [cells(line) for line in text.split("\n") if line.startswith("| reference:")]
    assert len(lines) == 1
    assert lines[0][2:4] == [shown(found["accuracy"]), shown(found["macro_f1"])]


# --- Seeds -----------------------------------------------------------------------------------


def test_seeds_are_a_mean_and_a_range(evaluated_index):
    row = evaluated_index.find("cxr", "ofa_595")
    row_index = with_row(
        evaluated_index, row,
        metrics=row.metrics | {"accuracy": {"value": 0.70, "ci95": [0.6, 0.8]}},
    )  # fmt: skip
    further = [{"seed": s, "accuracy": a, "macro_f1": 0.5} for s, a in ((1, 0.8), (2, 0.75))]
    text = summary(row_index, {"cxr": {"seeds": {row.stem: further}}})
    row = row_index.find("cxr", "ofa_595")
    assert line_of(text, row)[5] == "75.0 (70.0 to 80.0), 3 seeds"
    others = [c for c in row_index.checkpoints if c.task == "cxr" and c is not row]
    assert {line_of(text, c)[5] for c in others} == {""}
    assert "accuracy over seeds" not in text.split("**Histopathology**")[1]


@pytest.mark.parametrize("interval, zero", [((-0.01, 0.03), True), ((0.01, 0.03), False),
                                            ((-0.03, -0.01), False)])  # fmt: skip
def test_a_difference_that_may_be_none_is_called_so(evaluated_index, interval, zero):
    change = {"value": 0.5 * sum(interval), "ci95": list(interval)}
    found = {"cxr-ofa_595-from-vgg19": {"accuracy": change, "macro_f1": change}}
    text = summary(evaluated_index, {"cxr": {"distillation": found}})
    assert ("Every one of these intervals includes zero." in text) == zero
    excluded = "OFA-595 (from VGG19) (accuracy), OFA-595 (from VGG19) (macro-F1);"
    assert (f"excludes zero for: {excluded}" in text) == (not zero)
    low, high = (100 * v for v in interval)
    cell = f"{100 * change['value']:+.1f} ({low:+.1f} to {high:+.1f})"
    assert f"| {STUDENT} | {cell} | {cell} | {100 * change['value']:+.1f} (seed 0) |" in text


def over_two_seeds(files: dict) -> dict:
    change = {"value": 0.02, "ci95": [0.01, 0.03]}
    seeds = [{"seed": s, "accuracy": v, "macro_f1": v} for s, v in ((0, 0.03), (4, 0.01))]
    about = {"name": "OFA-595 (from VGG19)", "seeds": seeds, "files": files}
    return {"cxr-ofa_595-from-vgg19": {"accuracy": change, "macro_f1": change} | about}


def test_several_seeds_are_preferred_while_the_weights_are_theirs(evaluated_index):
    alone = {"value": 0.05, "ci95": [0.04, 0.06]}
    results = {"distillation": {"cxr-ofa_595-from-vgg19": {"accuracy": alone, "macro_f1": alone}}}
    row = evaluated_index.find("cxr", "ofa_595", "vgg19")
    for sha256, cell in ((row.sha256, "+2.0 (+1.0 to +3.0)"), ("0" * 64, "+5.0 (+4.0 to +6.0)")):
        over = {"distillation_over_seeds": over_two_seeds({row.file: sha256})}
        text = summary(evaluated_index, {"cxr": results | over})
        assert f"| {STUDENT} | {cell} | {cell} |" in text
        assert ("+3.0 (seed 0); +1.0 (seed 4)" in text) == (sha256 == row.sha256)


def test_a_teachers_variant_is_told_apart_from_what_distillation_changes(evaluated_index):
    points = {"value": -0.031, "ci95": [-0.052, -0.011]}
    usual = evaluated_index.find("cxr", "vgg19")
    change = {"name": "VGG19 (scratch)", "accuracy": points, "macro_f1": points,
              "seeds": [{"seed": 0, "accuracy": -0.031, "macro_f1": -0.031}],
              "files": {usual.file: usual.sha256}}  # fmt: skip
    stem = "cxr-vgg19-scratch"
    found = {"distillation_over_seeds": {stem: change}}
    text = summary(evaluated_index, {"cxr": found})
    wanted = [
        f"[VGG19 (scratch)](train/recipes/{stem}.yaml)",
        "-3.1 (-5.2 to -1.1)", "-3.1 (-5.2 to -1.1)", "-3.1 (seed 0)",
    ]  # fmt: skip
    assert [cells(line) for line in text.split("\n") if "(scratch)](" in line] == [wanted]
    assert "What distillation changes" not in text


def test_a_stored_variant_of_a_teacher_is_compared_too(evaluated_index):
    usual = evaluated_index.find("cxr", "vgg19")
    variant = replace(usual, variant="scratch", file="cxr-vgg19-scratch.safetensors")
    index = replace(evaluated_index, checkpoints=(*evaluated_index.checkpoints, variant))
    points = {"value": 0.012, "ci95": [-0.01, 0.03]}
    change = {"cxr-vgg19-scratch": {"accuracy": points, "macro_f1": points}}
    text = summary(index, {"cxr": {"distillation": change}})
    (line,) = [
        cells(x) for x in text.split("\n") if x.startswith("| [VGG19 (scratch)](") and "+" in x
    ]
    assert line[1] == "+1.2 (-1.0 to +3.0)"


def test_an_interval_of_parts_is_explained(evaluated_index):
    points = {"value": 0.02, "ci95": [0.01, 0.03]}
    change = {"name": "S", "accuracy": points, "macro_f1": points, "files": {},
              "seeds": [{"seed": 0, "accuracy": 0.02, "macro_f1": 0.02}]}  # fmt: skip
    for earlier in ({}, {"earlier": change}, {"earlier": {"seeds": []}}):
        found = {"distillation_over_seeds": {"cxr-ofa_595-from-all": change | earlier}}
        text = summary(evaluated_index, {"cxr": found})
        assert ("rather too wide than too narrow" in text) == (
            earlier == {"earlier": {"seeds": []}}
        )


def test_the_audit_of_runs_that_are_not_stored_is_left_to_the_details(evaluated_index, monkeypatch):
    told = []
    monkeypatch.setattr(
        "train.tables.summary.audit_summary", lambda found: told.append(found) or []
    )
    files = [c.file for c in evaluated_index.checkpoints if c.task == "cxr"]
    models = {key: {} for key in [*files, "cxr-ofa_595-labels-seed1"]}
    summary(evaluated_index, {"cxr": {"audit": {"images": 3, "models": models}}})
    assert told[0] == {"audit": {"images": 3, "models": {key: {} for key in files}}}


# --- Floors and leakage ----------------------------------------------------------------------


def test_floors_are_shown_with_what_they_do_not_see(evaluated_index, some_results):
    text = summary(evaluated_index, some_results)
    assert text.count("a floor 43.2 / 12.3.") == len(TASKS)
    assert "that do not see disease: a floor" in text
    assert "that do not see the structure of tissue: a floor" in text


def test_leakage_is_one_sentence_about_the_classifier_that_remembers_best(evaluated_index):
    rows = [
        {"name": "forest", "as_stored": 0.9, "by_group": [0.8, 0.9], "by_image": [0.9, 0.94]},
        {"name": "neighbour", "as_stored": 0.9, "by_group": [0.85, 0.9], "by_image": [0.99, 1.0]},
    ]
    found = {"seen": {"by_image": 0.976, "by_group": 0.0}, "seeds": [0, 1], "rows": rows}
    text = summary(evaluated_index, {"histopathology": {"leakage": found}})
    assert "98% of the test images have another image of their tile" in text
    assert "a neighbour reaches 99.5 (99.0 to 100.0) against 87.5 (85.0 to 90.0)" in text
    assert "Leakage" not in text.split("**Histopathology**")[0]
