"""`train.tables.details`: every stored number of every checkpoint is in RESULTS.md."""

import copy
import re
from dataclasses import replace

import pytest

from kdmodels.tasks import TASKS
from train.tables.details import details, figure_of

RATES = ("sensitivity", "specificity", "ppv")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def shown(metric: dict) -> str:
    numbers = [100 * v for v in (metric["value"], *metric["ci95"])]
    return "{:.1f} ({:.1f} to {:.1f})".format(*numbers)


def part_of(text: str, heading: str, task: str = "") -> list[str]:
    """The lines below a heading, up to the next one; of a task where several have it."""
    lines = text.split("\n")
    begin = lines.index(f"# {TASKS[task].name}") if task else 0
    start = next(i for i in range(begin, len(lines)) if lines[i].startswith(heading))
    end = next((i for i in range(start + 1, len(lines)) if re.match("##? ", lines[i])), len(lines))
    return lines[start:end]


def test_every_class_cell_and_source_is_shown(evaluated_index, some_results):
    text = details(evaluated_index, some_results)
    for row in evaluated_index.checkpoints:
        task, m = TASKS[row.task], row.metrics
        lines = part_of(text, f"## {row.name}, {task.name}")
        assert f"sha256 `{row.sha256}`" in lines[2] and f"trained on `{row.data}`" in lines[2]
        assert f"AUROC {m['auroc']:.3f}" in lines[2] and f"{m['nll']:.3f} nats" in lines[2]
        assert f"calibration error {m['ece']:.3f}" in lines[2]
        assert f"![Confusion matrix of {row.name}, {task.name}]({figure_of(row)})" in lines
        tables = [cells(line) for line in lines if line.startswith("|")]
        for i, (class_id, name) in enumerate(zip(task.class_ids, task.class_names, strict=True)):
            assert [name, *[shown(m["classes"][class_id][r]) for r in RATES]] in tables
            assert [name, *[str(n) for n in m["confusion"][i]]] in tables
        for source, part in m["sources"].items():
            seen = [
                f"{100 * part['classes'][i]['sensitivity']:.1f} of {part['classes'][i]['images']}"
                if i in part["classes"] else ""
                for i in task.class_ids
            ]  # fmt: skip
            images, accuracy = str(part["images"]), f"{100 * part['accuracy']:.1f}"
            assert [source, images, accuracy, *seen] in tables
        kind = "organ" if TASKS[row.task].organs else "source"
        assert m["within"] and any(line.startswith(f"| within one {kind} |") for line in lines)
        for name, part in m["within"].items():
            classes = " or ".join(task.class_names[i] for i in part["classes"])
            scores = [shown(part[key]) for key in ("accuracy", "macro_f1")]
            majority = f"{100 * part['majority']:.1f}"
            assert [f"{name}: {classes}", str(part["images"]), majority, *scores] in tables


@pytest.mark.parametrize("task", TASKS)
def test_all_models_of_a_task_stand_beside_each_other(evaluated_index, task):
    text = details(evaluated_index, {})
    rows = [c for c in evaluated_index.checkpoints if c.task == task]
    by_class = [cells(x) for x in part_of(text, "## Sensitivity of each class", task)]
    calibration = [cells(x) for x in part_of(text, "## Calibration", task)]
    speed = [cells(x) for x in part_of(text, "## Size and speed", task)]
    for row in rows:
        m = row.metrics
        rates = [shown(m["classes"][i]["sensitivity"]) for i in row.classes]
        organs = [shown(m["within"][organ]["accuracy"]) for organ in TASKS[task].organs]
        assert [f"[{row.name}](../{row.recipe})", *rates, *organs] in by_class
        after = m["calibrated"]
        numbers = (row.temperature, m["ece"], after["ece"], m["nll"], after["nll"])
        assert [row.name, *(f"{n:.3f}" for n in numbers)] in calibration
        line = next(x for x in speed if x[0] == row.name)
        assert line[3:] == [
            "32 px", f"{row.bytes / 1e6:.1f} MB, {row.storage}", "3.2 (3.0 to 4.5)", "11",
            "an engine, 1 thread",
        ]  # fmt: skip


def test_a_class_that_is_never_predicted_has_words_for_a_number(evaluated_index):
    row = evaluated_index.checkpoints[0]
    metrics = copy.deepcopy(row.metrics)
    metrics["classes"][row.classes[0]]["ppv"] = {"value": None, "ci95": [None, None]}
    changed = (replace(row, metrics=metrics), *evaluated_index.checkpoints[1:])
    assert details(replace(evaluated_index, checkpoints=changed), {}).count("none predicted") == 1


def test_weights_of_an_older_evaluation_have_empty_cells(evaluated_index):
    row = next(c for c in evaluated_index.checkpoints if c.task == "cxr")
    metrics = {k: v for k, v in row.metrics.items() if k not in ("latency", "calibrated")}
    rows = tuple(
        replace(c, metrics=metrics) if c is row else c for c in evaluated_index.checkpoints
    )
    text = details(replace(evaluated_index, checkpoints=rows), {})
    calibrated = [cells(x)[0] for x in part_of(text, "## Calibration", "cxr")]
    assert row.name not in calibrated
    line = next(cells(x) for x in part_of(text, "## Size and speed", "cxr") if row.name in x)
    assert line[5:] == ["", "", ""]


def test_links_of_the_details_lead_out_of_their_folder(evaluated_index, some_results):
    text = details(evaluated_index, some_results)
    # in the summary, in the table of classes, and for each task in that of what distillation changes
    links = len(re.findall(r"\]\(\.\./train/recipes/", text))
    changes = sum(len(part.get("distillation", {})) for part in some_results.values())
    assert changes and links == 2 * len(evaluated_index.checkpoints) + changes
    assert "](train/" not in text


def test_every_seed_is_shown_with_the_weights_that_gave_it(evaluated_index):
    row = evaluated_index.find("cxr", "ofa_595")
    entries = [{"seed": 7, "accuracy": 0.8123, "macro_f1": 0.7321, "sha256": "f" * 64}]
    text = details(evaluated_index, {"cxr": {"seeds": {row.stem: entries}}})
    (line,) = [x for x in part_of(text, "## Seeds", "cxr") if x.startswith("| [")]
    own = [100 * row.metrics[k]["value"] for k in ("accuracy", "macro_f1")]
    stored = "0: {:.1f} / {:.1f}, stored".format(*own)
    assert cells(line)[-1] == f"{stored}; 7: 81.2 / 73.2, `ffffffffffff`"
    assert "2 seeds" in line
    assert text.count("## Seeds") == 1


def test_leakage_has_a_table(evaluated_index):
    row = {"name": "forest", "as_stored": 0.9, "by_group": [0.8, 0.9], "by_image": [0.9, 0.94]}
    found = {
        "images": 3784, "test_images": 715, "seeds": [0, 1], "rows": [row],
        "seen": {"by_image": 0.9753, "by_group": 0.0},
    }  # fmt: skip
    lines = part_of(details(evaluated_index, {"histopathology": {"leakage": found}}), "## Leakage")
    assert "3,784 images, 715 of them to test on" in lines[2]
    assert "97.5% have another image of their tile" in lines[2]
    assert "| forest | 90.0 | 85.0 (80.0 to 90.0) | 92.0 (90.0 to 94.0) |" in lines
