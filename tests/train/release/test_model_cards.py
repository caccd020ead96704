"""`train.release.model_cards`: a card says what was measured, and nothing that was not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from kdmodels.models.checkpoints import Index
from kdmodels.models.zoo import TEACHERS
from kdmodels.tasks import TASKS
from kdmodels.tasks.task import Card
from tests.train.made_results import write_results
from train.learn.recipes import FOLDER, read_recipe, to_dict
from train.measure.task_numbers import TaskNumbers
from train.release.model_cards import Place, Sheet, figures_of, model_card, repo_card
from train.tables.data_sets import data_sets
from train.tables.templates import percent, points
from train.tables.write import all_numbers


@pytest.fixture
def row(new_row):
    """A distilled student, stored, of which no answers are kept."""
    return replace(
        new_row("cxr", "ofa_595", "vgg19"),
        file="cxr-ofa_595-from-vgg19.safetensors",
        sha256="0123456789abcdef" * 4,
        bytes=15_525_124,
        recipe="train/recipes/cxr-ofa_595-from-vgg19.yaml",
        data="starter-cxr@400b1116169d",
        seed=3,
        input_size=48,
        temperature=1.37,
    )


@pytest.fixture
def index(tiny_index) -> Index:
    """Tiny networks, said to be trained on the starter sets."""
    rows = (replace(c, data=f"starter-{c.task}@400b1116169d") for c in tiny_index.checkpoints)
    return replace(tiny_index, checkpoints=tuple(rows))


@pytest.fixture
def tasks(index, tmp_path) -> list[TaskNumbers]:
    return all_numbers(index, write_results(tmp_path / "results", index))


def card_of(row, index=None, tasks=(), licence=None, timm=None, **options) -> str:
    sheet = Sheet(row, parameters=7_600_000, macs=140_000_000, timm=timm)
    index = index or Index(Path("weights"), (row,))
    place = Place("someone/models", "weights-0123456789ab", index, tasks, licence)
    return model_card(sheet, place, **options)


def test_what_is_known_of_a_checkpoint_is_in_its_card(row):
    card = card_of(row)
    for words in (
        "divided by 1.370",
        "7.6 M parameters, 0.14 GMAC for an image of 48 x 48 px",
        "15.5 MB, stored as int8",
        row.sha256,
        "distilled from VGG19",
        "no diagnosis, no treatment",
        "arXiv 2508.15251",
        "| hannover | COVID-19 image repository of Hannover Medical School; CC BY 3.0 |",
        "for research, under the terms of the data that they were trained on",
    ):
        assert words in card, words


def test_every_number_of_its_answers_is_in_the_card(index, tasks):
    numbers = tasks[0]
    row = index.find("cxr", "ofa_595", "vgg19")
    m = numbers.find(row)
    card = card_of(row, index, tasks)
    [change] = [c for c in numbers.changes if c.row.stem == row.stem]
    classes = m.classes["pneumonia"]
    rates = " | ".join(percent(classes[rate]) for rate in ("sensitivity", "specificity", "ppv"))
    for words in (
        "90 images of 45 independent groups",
        f"| accuracy | {percent(m.accuracy)} |",
        f"| macro-F1 | {percent(m.macro_f1)} |",
        f"one against rest | {100 * m.auroc:.1f} |",
        f"error, 15 bins | {100 * m.plain.ece:.1f} |",
        f"after temperature scaling | {100 * m.calibrated.ece:.1f} |",
        f"| {m.plain.nll:.3f} nats |",
        f"| Non-COVID pneumonia | {rates} |",
        f"| Normal | {' | '.join(map(str, m.confusion[2].tolist()))} |",
        f"| source 1 | 45 | {100 * m.sources[1].accuracy:.1f} |",
        f"| source 0: COVID-19 or Non-COVID pneumonia or Normal | {m.within[0].images} |",
        f"(paired difference {points(numbers.over_floor(m).accuracy)} points)",
        f"accuracy {points(change.by.accuracy)}, macro-F1 {points(change.by.macro_f1)} (2 seeds:",
        "Answered by PyTorch eager, float32.",
    ):
        assert words in card, words


def test_the_hub_reads_the_scores(index, tasks):
    row = index.find("cxr", "ofa_595", "vgg19")
    m = tasks[0].find(row)
    data = ModelCard(card_of(row, index, tasks, licence="cc-by-4.0")).data
    assert data.license == "cc-by-4.0" and data.pipeline_tag == "image-classification"
    assert {r.metric_type: r.metric_value for r in data.eval_results} == {
        "accuracy": round(m.accuracy.value, 4),
        "f1": round(m.macro_f1.value, 4),
        "roc_auc": round(m.auroc, 4),
    }
    assert {(r.dataset_type, r.dataset_revision, r.dataset_split) for r in data.eval_results} == {
        ("starter-cxr", "400b1116169d", "test")
    }


def test_answers_of_other_weights_are_not_told(index, tasks):
    row = index.find("cxr", "ofa_595", "vgg19")
    other = replace(row, sha256="f" * 64)
    assert "## Evaluation" in card_of(row, index, tasks)
    assert "## Evaluation" not in card_of(other, index, tasks)


def test_a_checkpoint_of_which_nothing_is_known_has_a_card_all_the_same(new_row):
    card = card_of(new_row("histopathology", "visformer_s"))
    assert "## Evaluation" not in card and "model-index" not in card
    for filler in ("More Information Needed", "None", "Undefined", "nan"):
        assert filler not in card.replace("index.find", "")
    assert "none was named" in card  # of licences


def test_a_start_from_imagenet_features_is_said(row):
    assert "frozen ImageNet MobileNetV2" not in card_of(row)
    guided = replace(row, model="vgg19", teacher=None, recipe="train/recipes/cxr-vgg19.yaml")
    assert "frozen ImageNet MobileNetV2" in card_of(guided)


def test_what_a_teacher_began_with_is_said_of_its_student(row):
    teacher = replace(row, model="vgg19", teacher=None, recipe="train/recipes/cxr-vgg19.yaml")
    tiles = replace(teacher, task="histopathology")
    words = "learned from VGG19 may in part come from ImageNet, whose features"
    for other, said in ((teacher, True), (tiles, False)):
        assert (words in card_of(row, Index(Path(), (other, row)))) == said


def test_the_recipe_is_in_the_card_with_all_its_settings(row):
    block = card_of(row).split("```yaml\n")[1].split("```")[0]
    recipe = read_recipe(FOLDER / "cxr-ofa_595-from-vgg19.yaml", seed=3)
    assert yaml.safe_load(block) == json.loads(json.dumps(to_dict(recipe)))


def test_several_teachers_and_another_objective_are_named(row):
    several = replace(row, teacher="+".join(TEACHERS), variant="attention", recipe="gone.yaml")
    card = card_of(several)
    assert "distilled from VGG19, Visformer-S and AutoFormerV2-T." in card
    find = '("cxr", "ofa_595", "vgg19+visformer_s+autoformerv2_t", "attention")'
    assert f"index.find{find}" in card and "```yaml" not in card


def test_the_control_is_found_by_its_code_whatever_its_variant(row):
    assert 'index.find("cxr", "ofa_595"))' in card_of(replace(row, teacher=None))
    other = card_of(replace(row, teacher=None, variant="long"))
    assert 'index.find("cxr", "ofa_595", None, "long")' in other


def test_the_card_says_how_timm_loads_it_or_why_not(row):
    card = card_of(row, timm="timm-cxr-x")
    assert 'timm.create_model("hf-hub:someone/models@timm-cxr-x", pretrained=True)' in card
    assert 'image.convert("L")' in card
    assert "timm cannot load it by a name: timm has no architecture" in card_of(row)
    assert "in place of the two 4096-wide ones" in card_of(
        replace(row, model="vgg19", teacher=None)
    )


def test_figures_belong_to_the_checkpoint_that_they_are_named_after(new_row):
    plain = new_row("cxr", "ofa_595", "vgg19")
    rows = [new_row("cxr", "vgg19"), plain, replace(plain, variant="attention")]
    names = ["audit-cxr.png", *(f"confusion-{row.stem}.png" for row in rows)]
    assert [figures_of(row, names) for row in rows] == [[name] for name in names[1:]]


def test_every_data_set_and_task_has_its_texts():
    assert all(task.card.model_fields_set == set(Card.model_fields) for task in TASKS.values())
    starters = {f"starter-{task}" for task in TASKS}
    assert set(data_sets()) >= starters | {"covid-qu-ex", "lc25000"}


def test_the_card_of_the_repository_lists_every_checkpoint(index, tasks):
    rows = index.checkpoints
    sheets = [Sheet(r, 1000, 1000, "timm-x" if r.model == "visformer_s" else None) for r in rows]
    card = repo_card(sheets, Place("someone/models", "weights-1", index, tasks))
    for row in rows:
        accuracy = next(n for n in tasks if n.task.id == row.task).find(row).accuracy
        assert f"| [{row.name}](models/{row.stem}.md) | {TASKS[row.task].name} |" in card
        assert f"`{row.file}`" in card and row.sha256[:12] in card
        assert f"{percent(accuracy)} |" in card
    assert "](train/" not in card  # what the table of the project's README links to
    assert "| `timm-x` |" in card and "under the terms of the data" in card
    scores = {
        (s.metric_name, s.dataset_type): s.metric_value for s in ModelCard(card).data.eval_results
    }
    student = tasks[0].find(index.find("cxr", "ofa_595", "vgg19"))
    name = ("OFA-595 (from VGG19), accuracy", "starter-cxr")
    assert scores[name] == round(student.accuracy.value, 4)
