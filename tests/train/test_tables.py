"""`train.tables`: every number in a table is a stored one, and the tables are up to date."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest

import train.tables
from kdmodels.checkpoints import WEIGHTS, Index
from kdmodels.tasks import TASKS
from kdmodels.zoo import build_model, count_macs, count_parameters
from train.datasets import Sample
from train.evaluate import compare, summarise
from train.store import read_results
from train.tables import BEGIN, END, README, RESULTS, details, fill_readme, summary, write_tables

RATES = ("sensitivity", "specificity", "ppv")
README_TEXT = f"# A title\n\nBefore 12.3.\n\n{BEGIN}\nold 99.9\n{END}\n\nAfter, to the end.\n"


def random_metrics(task_id: str, seed: int) -> tuple[np.ndarray, list[Sample]]:
    generator = np.random.default_rng(seed)
    task = TASKS[task_id]
    labels = np.random.default_rng(0).integers(0, task.num_classes, 90)
    samples = [
        Sample(f"{i}.png", task.class_ids[label], "test", f"g{i // 2}", f"source {i % 3}")
        for i, label in enumerate(labels)
    ]
    logits = generator.normal(size=(90, task.num_classes))
    logits[np.arange(90), labels] += 1
    return logits, samples


@pytest.fixture
def index(tiny_index) -> Index:
    """An index with random metrics, different in every row."""
    rows = []
    for seed, row in enumerate(tiny_index.checkpoints, 1):
        logits, samples = random_metrics(row.task, seed)
        rows.append(replace(row, metrics=summarise(logits, samples, TASKS[row.task])))
    return replace(tiny_index, checkpoints=tuple(rows))


@pytest.fixture
def results() -> dict:
    found = {}
    for task in TASKS.values():
        (first, samples), (second, _) = (random_metrics(task.id, seed) for seed in (50, 51))
        found[task.id] = {
            "floors": [{"name": "a floor", "accuracy": 0.4321, "macro_f1": 0.1234}],
            "distillation": {"vgg19": compare(first, second, samples, task)},
        }
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def shown(metric: dict) -> str:
    numbers = [100 * v for v in (metric["value"], *metric["ci95"])]
    return "{:.1f} ({:.1f} to {:.1f})".format(*numbers)


def part_of(text: str, heading: str) -> list[str]:
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(heading))
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("## ")), len(lines))
    return lines[start:end]


# --- The summary -----------------------------------------------------------------------------


def test_the_summary_shows_every_checkpoint_with_its_own_numbers(index, results):
    lines = summary(index, results).split("\n")
    for row in index.checkpoints:
        links = [
            line for line in lines
            if line.startswith(f"| [{row.name}](") and f"`{row.sha256[:12]}`" in line
        ]  # fmt: skip
        assert len(links) == 1
        found = cells(links[0])
        m, model = row.metrics, build_model(row.model, len(row.classes))
        size = f"{count_parameters(model) / 1e6:.1f} M / {count_macs(model, 32) / 1e9:.2f} at 32 px"
        assert found == [
            f"[{row.name}]({row.recipe})", size, shown(m["accuracy"]), shown(m["macro_f1"]),
            *[shown(m["classes"][i]["sensitivity"]) for i in TASKS[row.task].class_ids],
            f"{row.bytes / 1e6:.1f} MB, `{row.sha256[:12]}`",
        ]  # fmt: skip


def test_the_summary_shows_the_floors_and_what_distillation_changed(index, results):
    text = summary(index, results)
    assert text.count("a floor 43.2 / 12.3.") == len(TASKS)
    for task in TASKS:
        change = results[task]["distillation"]["vgg19"]["accuracy"]
        value, (low, high) = change["value"], change["ci95"]
        words = f"accuracy by {100 * value:+.1f} points (95% interval {100 * low:+.1f} to {100 * high:+.1f}"
        assert words in text
        assert (f"{words}, which includes zero)" in text) == (low <= 0 <= high)


@pytest.mark.parametrize("interval, zero", [((-0.01, 0.03), True), ((0.01, 0.03), False),
                                            ((-0.03, -0.01), False)])  # fmt: skip
def test_a_difference_that_may_be_none_is_called_so(index, interval, zero):
    change = {"value": 0.5 * sum(interval), "ci95": list(interval)}
    results = {"cxr": {"distillation": {"vgg19": {"accuracy": change, "macro_f1": change}}}}
    assert ("which includes zero" in summary(index, results)) == zero


def test_a_metric_changes_its_own_cell_only(index, results):
    before = cells_of(summary(index, results))
    row = next(c for c in index.checkpoints if c.task == "cxr" and c.model == "ofa_595")
    metrics = copy.deepcopy(row.metrics)
    metrics["classes"]["normal"]["sensitivity"] = {"value": 0.7654, "ci95": [0.5432, 0.8764]}
    changed = tuple(replace(c, metrics=metrics) if c is row else c for c in index.checkpoints)
    after = cells_of(summary(replace(index, checkpoints=changed), results))
    differing = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert [after[i] for i in differing] == ["76.5 (54.3 to 87.6)"]


def cells_of(text: str) -> list[str]:
    return [cell for line in text.split("\n") for cell in cells(line)]


def test_checkpoints_without_metrics_are_left_out(tiny_index):
    assert summary(tiny_index, {}) == ""


# --- The details -----------------------------------------------------------------------------


def test_the_details_show_every_class_cell_and_source(index, results):
    text = details(index, results)
    for row in index.checkpoints:
        task, m = TASKS[row.task], row.metrics
        lines = part_of(text, f"## {row.name}, {task.name}")
        assert f"sha256 `{row.sha256}`" in lines[2] and f"trained on `{row.data}`" in lines[2]
        assert f"AUROC {m['auroc']:.3f}" in lines[2] and f"{m['nll']:.3f} nats" in lines[2]
        assert f"calibration error {m['ece']:.3f}" in lines[2]
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


def test_a_class_that_is_never_predicted_has_words_for_a_number(index):
    row = index.checkpoints[0]
    metrics = copy.deepcopy(row.metrics)
    metrics["classes"][row.classes[0]]["ppv"] = {"value": None, "ci95": [None, None]}
    changed = (replace(row, metrics=metrics), *index.checkpoints[1:])
    text = details(replace(index, checkpoints=changed), {})
    assert text.count("none predicted") == 1


def test_links_of_the_details_lead_out_of_their_folder(index, results):
    text = details(index, results)
    assert len(re.findall(r"\]\(\.\./train/recipes/", text)) == len(index.checkpoints)
    assert "](train/" not in text


# --- The files -------------------------------------------------------------------------------


def test_only_what_stands_between_the_markers_is_replaced(index, results):
    filled = fill_readme(README_TEXT, index, results)
    before, after = README_TEXT.split(BEGIN)[0], README_TEXT.split(END)[1]
    assert filled == f"{before}{BEGIN}\n\n{summary(index, results)}\n\n{END}{after}"
    assert "old 99.9" not in filled
    assert fill_readme(filled, index, results) == filled


def test_write_tables_brings_both_files_up_to_date(index, results, tmp_path, monkeypatch):
    index.write()
    monkeypatch.setattr(Index.read.__func__, "__defaults__", (index.folder,))
    monkeypatch.setattr(train.tables, "read_results", lambda: results)
    monkeypatch.setattr(train.tables, "README", tmp_path / "README.md")
    monkeypatch.setattr(train.tables, "RESULTS", tmp_path / "RESULTS.md")
    (tmp_path / "README.md").write_text(README_TEXT, encoding="utf-8")
    write_tables()
    stored = Index.read(index.folder)
    assert (tmp_path / "README.md").read_text("utf-8") == fill_readme(README_TEXT, stored, results)
    assert (tmp_path / "RESULTS.md").read_text("utf-8") == details(stored, results)


def test_the_tables_of_the_repository_are_up_to_date():
    if not (WEIGHTS / "index.json").is_file():
        pytest.skip("weights/index.json does not exist yet: nothing is trained")
    index, results = Index.read(), read_results()
    if not any(row.metrics for row in index.checkpoints):
        pytest.skip("weights/index.json holds no results yet: nothing is evaluated")
    text = README.read_text(encoding="utf-8")
    assert text == fill_readme(text, index, results), "run `python -m train tables`"
    assert RESULTS.read_text(encoding="utf-8") == details(index, results)
