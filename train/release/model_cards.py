"""Model cards for the Hub: one of each checkpoint and one of the repository that holds them.

The sections are those of the Hub's template (`huggingface_hub.ModelCard`; Mitchell et al., "Model
Cards for Model Reporting", FAT* 2019). Numbers are the stored ones, and what was not measured has
no line; the texts of tasks and data sets are in `model_cards.yaml`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.models.zoo import get_spec
from kdmodels.tasks import TASKS, get_task
from train.learn.recipes import FOLDER, Recipe, read_recipe, to_dict
from train.tables.audit_tables import judge_blanking, judge_swaps
from train.tables.markdown import percent, points
from train.tables.summary import changes_of, linked, over_seeds, summary

HERE = Path(__file__).parent
ARXIV = "2508.15251"
BIBTEX = f"""@misc{{arxiv{ARXIV},
  title = {{Explainable Knowledge Distillation for Efficient Medical Image Classification}},
  eprint = {{{ARXIV}}},
  archivePrefix = {{arXiv}}
}}"""
TAGS = ["image-classification", "medical", "knowledge-distillation", f"arxiv:{ARXIV}"]
# Of a checkpoint's metrics: key, the Hub's name of the metric, and what to call it.
SCORES = (
    ("accuracy", "accuracy", "accuracy"),
    ("macro_f1", "f1", "macro-F1"),
    ("auroc", "roc_auc", "AUROC (macro, one against rest)"),
)


@dataclass(frozen=True)
class Sheet:
    """What the cards say of a checkpoint beside its row.

    parameters: their number; macs: multiply-accumulate operations for one image.
    timm: the branch of the repository from which timm loads it, or None.
    """

    row: Checkpoint
    parameters: int
    macs: int
    timm: str | None = None


@cache
def texts() -> dict:
    return yaml.safe_load((HERE / "model_cards.yaml").read_text(encoding="utf-8"))


def data_text(row: Checkpoint) -> dict | None:
    return texts()["data"].get(row.data.partition("@")[0])


def _results_for_hub(row: Checkpoint, prefix: str = "") -> Iterator[EvalResult]:
    """The scores in the form of the Hub's `model-index`; values in [0, 1]."""
    data, _, version = row.data.partition("@")
    for key, metric, name in SCORES:
        value = row.metrics.get(key)
        value = value["value"] if isinstance(value, Mapping) else value
        if value is not None:
            yield EvalResult(
                task_type="image-classification",
                dataset_type=data,
                dataset_name=f"{get_task(row.task).name} ({data})",
                dataset_split="test",
                dataset_revision=version or None,
                metric_type=metric,
                metric_name=prefix + name,
                metric_value=value,
            )


def _card_data(name: str, rows: Iterable[Checkpoint], licence: str | None, **more) -> ModelCardData:
    rows = list(rows)
    several = len(rows) > 1
    found = [r for c in rows for r in _results_for_hub(c, f"{c.name}, " if several else "")]
    tasks = [tag for id in TASKS if id in {c.task for c in rows} for tag in TASKS[id].card.tags]
    kinds = {r.metric_type for r in found}
    return ModelCardData(
        license=licence,
        pipeline_tag="image-classification",
        tags=TAGS + tasks,
        metrics=[metric for _, metric, _ in SCORES if metric in kinds] or None,
        model_name=name if found else None,
        eval_results=found or None,
        **more,
    )


def compare_with_floors(row: Checkpoint, floors: list[dict]) -> str | None:
    """One sentence: is the accuracy above that of features that hardly see, beyond doubt?"""
    accuracy = row.metrics.get("accuracy")
    if not floors or not accuracy or accuracy["value"] is None:
        return None
    best = max(floors, key=lambda f: f["accuracy"])
    low, high = accuracy["ci95"]
    if low > best["accuracy"]:
        says = "is better than this floor"
    elif high < best["accuracy"]:
        says = "is worse than this floor, so it is no evidence of seeing that"
    else:
        says = "is not better beyond doubt, so it is no evidence of seeing that"
    return (
        f"A random forest on features that do not see {get_task(row.task).blind_to} ({best['name']}) reaches an accuracy of "
        f"{100 * best['accuracy']:.1f}% on the same test images; this network, with "
        f"{100 * accuracy['value']:.1f}% ({100 * low:.1f} to {100 * high:.1f}), {says}."
    )


def audited(row: Checkpoint, results: dict) -> str | None:
    """What the shortcut audit says of these weights; `results`: of the task."""
    audit = results.get("audit", {})
    found = audit.get("models", {}).get(row.file)
    if not found or found["sha256"] != row.sha256:
        return None
    words = f"{judge_blanking(found, audit['majority'])[1]} {judge_swaps(found)[1]}".rstrip()
    return f"Shortcut audit on {audit['images']:,} test films with lung masks: this network {words}"


def _biases(row: Checkpoint, results: dict) -> list[str]:
    data = data_text(row)
    lines = [compare_with_floors(row, results.get("floors", [])), audited(row, results)]
    return [
        *(data["biases"] if data else []),
        *filter(None, lines),
        "A heatmap shows which parts of an image moved the answer, not where disease is.",
    ]


def changes_told(row: Checkpoint, index: Index, results: dict) -> str | None:
    """What distillation changed, in percentage points, where it was measured."""
    rows = [c for c in index.checkpoints if c.task == row.task]
    change = changes_of(rows, results).get(row.name)
    return change and (
        "Against the same recipe on labels only, in percentage points with paired 95% intervals: "
        f"accuracy {points(change['accuracy'])}, macro-F1 {points(change['macro_f1'])}; mean of "
        f"{len(change['seeds'])} seed(s)."
    )


def speed(row: Checkpoint) -> str | None:
    """The measured time, `metrics["latency"]` (see `train.measure.evaluate.latency_of`)."""
    time = row.metrics.get("latency")
    processor = time and time.get("processor")
    return time and (
        f"{time['median_ms']:.1f} ms for one image (quartiles {time['q1_ms']:.1f} to "
        f"{time['q3_ms']:.1f} of {time['runs']} passes, without decoding and preprocessing): "
        f"{time['engine']}, {time['threads']} thread{'s' if time['threads'] != 1 else ''}"
        f"{f', {processor}' if processor else ''}."
    )


def _recipe(row: Checkpoint) -> Recipe | None:
    """The recipe of a checkpoint; None where its file is not at hand."""
    file = FOLDER / Path(row.recipe).name
    return read_recipe(file, row.task, seed=row.seed) if file.exists() else None


def _in_full(recipe: Recipe | None) -> str | None:
    """A recipe with all its settings, as YAML."""
    if recipe is None:
        return None
    return yaml.safe_dump(json.loads(json.dumps(to_dict(recipe))), sort_keys=False).strip()


def _listed(names: list[str]) -> str:
    """`A`, `A and B`, `A, B and C`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _guided(teachers: Iterable[str], task: str, index: Index) -> list[str]:
    """The names of the stored teachers that began with the features of an ImageNet network."""
    rows = (c for c in index.checkpoints if c.task == task and c.model in teachers)
    return [c.name for c in rows if (recipe := _recipe(c)) and recipe.guided]


def _load_code(row: Checkpoint, repo: str, revision: str) -> str:
    arguments = [row.task, row.model, row.teacher, row.variant]
    while not arguments[-1]:
        arguments.pop()
    return "\n".join(
        [
            "from huggingface_hub import hf_hub_download",
            "from kdmodels.models.checkpoints import Index",
            "",
            f'file = hf_hub_download("{repo}", "index.json", revision="{revision}")',
            'index = Index.read(file.removesuffix("index.json"))',
            f"model = index.load(index.find({', '.join(map(json.dumps, arguments))}))".replace(
                "null", "None"
            ),
        ]
    )


def _timm_code(sheet: Sheet, repo: str) -> str:
    lines = [
        "import timm",
        "",
        f'model = timm.create_model("hf-hub:{repo}@{sheet.timm}", pretrained=True).eval()',
        "config = timm.data.resolve_model_data_config(model)",
        "transform = timm.data.create_transform(**config)",
    ]
    if get_task(sheet.row.task).greyscale:
        lines.append('# an image goes in as transform(image.convert("L").convert("RGB"))')
    return "\n".join(lines)


def _why_not_timm(row: Checkpoint) -> str:
    if row.model == "vgg19":
        return (
            "it is timm's `vgg19_bn` with global average pooling and one linear layer in place of "
            "the two 4096-wide ones, and no argument of timm's builds that head"
        )
    return f"timm has no architecture that equals this {get_spec(row.model).paper_name}"


def _render(data: ModelCardData, template: str, /, **values) -> str:
    card = ModelCard.from_template(data, template_path=str(HERE / template), **values)
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def figures_of(row: Checkpoint, figures: Iterable[str]) -> list[str]:
    """The figures of a checkpoint: `<what>-<its name>.png`."""
    return [f for f in figures if Path(f).stem.endswith(f"-{row.stem}")]


def model_card(
    sheet: Sheet,
    repo: str,
    revision: str,
    index: Index,
    results: dict,
    licence: str | None = None,
    figures: Iterable[str] = (),
    for_timm: bool = False,
) -> str:
    """The card of one checkpoint, as Markdown with the Hub's YAML block.

    repo, revision: where the code in the card loads it from. index: of all checkpoints.
    results: the content of `weights/results.json`.
    figures: file names in the repository's `figures` folder. for_timm: the card stands at the root
    of timm's branch, not in the folder `models` of the main one.
    """
    row = sheet.row
    found = results.get(row.task, {})
    taught_by = [t for t in (row.teacher or "").split("+") if t]
    data = _card_data(row.stem, [row], licence, **({"library_name": "timm"} if for_timm else {}))
    return _render(
        data,
        "model_card.md",
        row=row,
        sheet=sheet,
        spec=row.spec,
        task=get_task(row.task),
        text=get_task(row.task).card,
        data=data_text(row),
        teachers=_listed([get_spec(t).paper_name for t in taught_by]),
        guided=_listed(_guided(taught_by, row.task, index)),
        licence=licence,
        biases=_biases(row, found),
        code=_load_code(row, repo, revision),
        timm_code=_timm_code(sheet, repo),
        why_not_timm=_why_not_timm(row),
        recipe=_in_full(_recipe(row)),
        m=row.metrics,
        rate=percent,
        seeds=row.metrics.get("accuracy") and over_seeds(row, found, "accuracy"),
        changes=changes_told(row, index, found),
        floors=found.get("floors", []),
        blind_to=get_task(row.task).blind_to,
        speed=speed(row),
        figures=list(figures),
        base=f"https://huggingface.co/{repo}/resolve/main/" if for_timm else "../",
        bibtex=BIBTEX,
    )


def repo_card(
    sheets: list[Sheet],
    repo: str,
    revision: str,
    index: Index,
    results: dict,
    licence: str | None = None,
    figures: Iterable[str] = (),
) -> str:
    """The README.md of the repository: what is in it, how to load it, and the table of results."""
    rows = [s.row for s in sheets]
    table = summary(index, results)
    for row in rows:
        table = table.replace(linked(row), f"[{row.name}](models/{row.stem}.md)")
    table = re.sub(r"\[([^]]+)\]\(train/[^)]+\)", r"\1", table)  # recipes do not go up
    known = {row.data.partition("@")[0]: data_text(row) for row in rows}
    for_timm = next((s for s in sheets if s.timm), None)
    return _render(
        _card_data(repo.partition("/")[2], rows, licence),
        "repo_card.md",
        repo=repo,
        tag=revision,
        sheets=sheets,
        tasks=TASKS,
        names=list(dict.fromkeys(row.spec.paper_name for row in rows)),
        licence=licence,
        code=_load_code(rows[0], repo, revision),
        timm_code=for_timm and _timm_code(for_timm, repo),
        summary=table,
        biases=[line for text in known.values() if text for line in text["biases"]],
        figures=list(figures),
        bibtex=BIBTEX,
    )
