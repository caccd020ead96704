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
from train.data.blanking import SWAPS
from train.learn.recipes import FOLDER, read_recipe, to_dict
from train.release.model_cards import (
    Sheet,
    compare_with_floors,
    figures_of,
    model_card,
    repo_card,
    texts,
)


def interval(value: float) -> dict:
    return {"value": value, "ci95": [round(value - 0.03, 4), round(value + 0.04, 4)]}


def measured(task: str = "cxr") -> dict:
    """Metrics as `train.measure.metrics.summarise` gives them, each number another."""
    ids = TASKS[task].class_ids
    rates = ("sensitivity", "specificity", "ppv")
    return {
        "images": 1769,
        "groups": 441,
        "accuracy": interval(0.7671),
        "macro_f1": interval(0.7482),
        "auroc": 0.9113,
        "ece": 0.0484,
        "nll": 0.5685,
        "calibrated": {"temperature": 1.37, "ece": 0.0216, "nll": 0.5511},
        "classes": {
            name: {rate: interval(0.5 + 0.1 * i + 0.03 * j) for j, rate in enumerate(rates)}
            for i, name in enumerate(ids)
        },
        "confusion": [[100 * i + j for j, _ in enumerate(ids)] for i, _ in enumerate(ids)],
        "sources": {
            "hannover": {
                "images": 24,
                "accuracy": 0.8333,
                "classes": {ids[0]: {"images": 24, "sensitivity": 0.8333}},
            }
        },
        "within": {
            "kermany": {
                "images": 144,
                "classes": [1, 2],
                "majority": 0.6667,
                "accuracy": interval(0.9236),
                "macro_f1": interval(0.9181),
            }
        },
        "latency": {
            "median_ms": 12.34,
            "q1_ms": 11.9,
            "q3_ms": 13.2,
            "runs": 10,
            "engine": "PyTorch 2.15.0 eager, float32, CPU",
            "threads": 2,
            "processor": "A. Processor",
        },
    }


@pytest.fixture
def row(new_row):
    """A distilled student, stored and measured."""
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
        metrics=measured(),
    )


FLOORS = [
    {"name": "majority class", "accuracy": 0.459, "macro_f1": 0.2097},
    {"name": "16 x 16 px thumbnail", "accuracy": 0.7906, "macro_f1": 0.7619},
]
RESULTS = {"cxr": {"floors": FLOORS}}


def card_of(row, results=RESULTS, timm=None, **options) -> str:
    sheet = Sheet(row, parameters=7_600_000, macs=140_000_000, timm=timm)
    index = Index(Path("weights"), (row,))
    return model_card(sheet, "someone/models", "weights-0123456789ab", index, results, **options)


def test_every_stored_number_is_in_the_card(row):
    card = card_of(row)
    for words in (
        "| accuracy | 76.7 (73.7 to 80.7) |",
        "| macro-F1 | 74.8 (71.8 to 78.8) |",
        "one against rest | 91.1 |",
        "error, 15 bins | 4.8 |",
        "after temperature scaling | 2.2 |",
        "0.569 nats",
        "1,769 images of 441 independent groups",
        "| Non-COVID pneumonia | 60.0 (57.0 to 64.0) | 63.0 (60.0 to 67.0) | 66.0 (63.0 to 70.0) |",
        "| Normal | 200 | 201 | 202 |",
        "| hannover | 24 | 83.3 | 83.3 of 24 |  |  |",
        "| kermany: Non-COVID pneumonia or Normal | 144 | 66.7 | 92.4 (89.4 to 96.4) | 91.8",
        "| 16 x 16 px thumbnail | 79.1 | 76.2 |",
        "12.3 ms for one image (quartiles 11.9 to 13.2 of 10 passes",
        "PyTorch 2.15.0 eager, float32, CPU, 2 threads, A. Processor.",
        "divided by 1.370",
        "7.6 M parameters, 0.14 GMAC for an image of 48 x 48 px",
        "15.5 MB, stored as int8",
        row.sha256,
        "distilled from VGG19",
        "no diagnosis, no treatment",
        "arXiv 2508.15251",
        "| hannover | COVID-19 image repository of Hannover Medical School; CC BY 3.0 |",
    ):
        assert words in card, words


def test_the_hub_reads_the_scores(row):
    data = ModelCard(card_of(row, licence="cc-by-4.0")).data
    assert data.license == "cc-by-4.0" and data.pipeline_tag == "image-classification"
    assert {r.metric_type: r.metric_value for r in data.eval_results} == {
        "accuracy": 0.7671,
        "f1": 0.7482,
        "roc_auc": 0.9113,
    }
    assert {(r.dataset_type, r.dataset_revision, r.dataset_split) for r in data.eval_results} == {
        ("starter-cxr", "400b1116169d", "test")
    }


def test_a_start_from_imagenet_features_is_said(row):
    assert "frozen ImageNet MobileNetV2" not in card_of(row)
    guided = replace(row, model="vgg19", teacher=None, recipe="train/recipes/cxr-vgg19.yaml")
    assert "frozen ImageNet MobileNetV2" in card_of(guided)


def test_what_a_teacher_began_with_is_said_of_its_student(row):
    teacher = replace(row, model="vgg19", teacher=None, recipe="train/recipes/cxr-vgg19.yaml")
    tiles = replace(teacher, task="histopathology")
    sheet = Sheet(row, parameters=7_600_000, macs=140_000_000)
    for other, said in ((teacher, True), (tiles, False)):
        card = model_card(sheet, "someone/models", "main", Index(Path(), (other, row)), RESULTS)
        words = "learned from VGG19 may in part come from ImageNet, whose features"
        assert (words in card) == said


def test_the_recipe_is_in_the_card_with_all_its_settings(row):
    block = card_of(row).split("```yaml\n")[1].split("```")[0]
    recipe = read_recipe(FOLDER / "cxr-ofa_595-from-vgg19.yaml", seed=3)
    assert yaml.safe_load(block) == json.loads(json.dumps(to_dict(recipe)))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("accuracy", "\n| accuracy |"),
        ("macro_f1", "\n| macro-F1 |"),
        ("auroc", "AUROC"),
        ("ece", "15 bins"),
        ("calibrated", "after temperature"),
        ("nll", "nats"),
        ("classes", "PPV"),
        ("confusion", "| true class |"),
        ("sources", "By source"),
        ("within", "| within |"),
        ("latency", "### Speed"),
    ],
)
def test_what_was_not_measured_has_no_line(row, key, words):
    assert words in card_of(row)
    metrics = {k: v for k, v in row.metrics.items() if k != key}
    assert words not in card_of(replace(row, metrics=metrics))


def test_a_checkpoint_of_which_nothing_is_known_has_a_card_all_the_same(new_row):
    card = card_of(new_row("histopathology", "visformer_s"), results={})
    assert "## Evaluation" not in card and "model-index" not in card and "Speed" not in card
    for filler in ("More Information Needed", "None", "Undefined", "nan"):
        assert filler not in card.replace("index.find", "")
    assert "none was named" in card  # of licences


def test_a_class_that_is_never_predicted_is_told(row):
    metrics = measured()
    metrics["classes"]["covid"]["ppv"] = {"value": None, "ci95": [None, None]}
    assert "none predicted |" in card_of(replace(row, metrics=metrics))


@pytest.mark.parametrize(
    ("accuracy", "says"),
    [
        (0.7671, "is not better beyond doubt, so it is no evidence of seeing that"),
        (0.8300, "is better than this floor"),
        (0.7400, "is worse than this floor"),
    ],
)
def test_the_accuracy_is_held_against_the_best_floor(row, accuracy, says):
    found = compare_with_floors(replace(row, metrics={"accuracy": interval(accuracy)}), FLOORS)
    assert "(16 x 16 px thumbnail) reaches an accuracy of 79.1%" in found
    assert f"{100 * accuracy:.1f}%" in found and says in found
    assert compare_with_floors(row, []) is None


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


def test_what_distillation_changed_is_told_where_it_was_measured(row):
    change = {"accuracy": interval(0.0156), "macro_f1": interval(0.0221)}
    results = {"cxr": {"distillation": {row.stem: change}}}
    words = "accuracy +1.6 (-1.4 to +5.6), macro-F1 +2.2 (-0.8 to +6.2); mean of 1 seed(s)."
    assert words in card_of(row, results) and "on labels only" not in card_of(row)
    assert words not in card_of(replace(row, variant="attention"), results)


def test_other_seeds_are_told(row):
    results = {"cxr": {"seeds": {row.stem: [{"seed": 4, "accuracy": 0.8071, "macro_f1": 0.8}]}}}
    assert "greatest | 78.7 (76.7 to 80.7), 2 seeds |" in card_of(row, results)
    assert "over seeds" not in card_of(row)


def test_the_audit_is_told_of_the_weights_that_it_was_of(row):
    version = {"accuracy": {"value": 0.46, "ci95": [0.41, 0.52]}}
    model = {"sha256": row.sha256, "versions": {"whole": version}, "swaps": {}}
    model["swaps"] = {name: None for name in SWAPS}
    audit = {"images": 1234, "majority": 0.459, "models": {row.file: model}}
    words = "Shortcut audit on 1,234 test films with lung masks: this network is not clearly better"
    assert words in card_of(row, {"cxr": {"audit": audit}})
    assert words not in card_of(replace(row, sha256="f" * 64), {"cxr": {"audit": audit}})


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
    assert set(texts()["data"]) >= {f"starter-{task}" for task in TASKS} | {
        "covid-qu-ex",
        "lc25000",
    }


def test_the_card_of_the_repository_lists_every_checkpoint(row, tiny_index):
    rows = [row, *(c for c in tiny_index.checkpoints if c.task == "histopathology")]
    sheets = [Sheet(r, 1000, 1000, "timm-x" if r.model == "visformer_s" else None) for r in rows]
    index = Index(tiny_index.folder, tuple(rows))
    seed = {"seed": 0, "accuracy": 0.02, "macro_f1": 0.02}
    change = {"accuracy": interval(0.02), "macro_f1": interval(0.02), "seeds": [seed], "files": {}}
    changes = {
        "cxr-ofa_595-from-all": change | {"name": "OFA-595 (from 3 teachers)"},
        "cxr-vgg19-scratch": change | {"name": "VGG19 (scratch)"},
    }
    results = {"cxr": RESULTS["cxr"] | {"distillation_over_seeds": changes}}
    card = repo_card(sheets, "someone/models", "weights-1", index, results)
    assert "| OFA-595 (from 3 teachers) | +2.0" in card and "| VGG19 (scratch) | +2.0" in card
    for r in rows:
        assert f"[{r.name}](models/{r.stem}.md)" in card
        assert f"`{r.file}`" in card and r.sha256[:12] in card
    assert "](train/" not in card  # what the table of the project's README links to
    assert "76.7 (73.7 to 80.7)" in card and "| `timm-x` |" in card
    scores = ModelCard(card).data.eval_results
    assert next((s.metric_name, s.metric_value) for s in scores) == (
        "OFA-595 (from VGG19), accuracy",
        0.7671,
    )
