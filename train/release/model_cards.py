"""Model cards for the Hub: one of each checkpoint and one of the repository that holds them.

The sections are those of the Hub's template (`huggingface_hub.ModelCard`; Mitchell et al., "Model
Cards for Model Reporting", FAT* 2019). Numbers come from the answers kept in `results/`; a checkpoint
whose answers are not kept has none.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCardData

from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.models.zoo import get_spec
from kdmodels.tasks import TASKS, get_task
from kdmodels.tasks.known import SHIPPED
from train.learn.recipes import FOLDER, Recipe, read_recipe, to_dict
from train.measure.task_numbers import MeasuredRun, TaskNumbers
from train.tables import words
from train.tables.data_sets import RESEARCH_ONLY, data_set_of, data_sets_of
from train.tables.templates import listed, render

HERE = Path(__file__).parent
ARXIV = "2508.15251"
BIBTEX = f"""@misc{{arxiv{ARXIV},
  title = {{Explainable Knowledge Distillation for Efficient Medical Image Classification}},
  eprint = {{{ARXIV}}},
  archivePrefix = {{arXiv}}
}}"""
TAGS = ["image-classification", "medical", "knowledge-distillation", f"arxiv:{ARXIV}"]
UNLICENSED = f"none was named when this was published. The weights are {RESEARCH_ONLY}."


@dataclass(frozen=True)
class Sheet:
    """What the cards say of a checkpoint beside its row and its numbers.

    parameters: their number; macs: multiply-accumulate operations for one image.
    timm: the branch of the repository from which timm loads it, or None.
    """

    row: Checkpoint
    parameters: int
    macs: int
    timm: str | None = None


@dataclass(frozen=True)
class Place:
    """Where the code in the cards loads a checkpoint from, and what all cards say alike.

    licence: the Hub's id of one, or None. tasks: the numbers of tasks with kept answers.
    """

    repo: str
    revision: str
    index: Index
    tasks: Sequence[TaskNumbers] = ()
    licence: str | None = None

    def numbers_of(self, row: Checkpoint) -> TaskNumbers | None:
        return next((n for n in self.tasks if n.task.id == row.task), None)

    def measured(self, row: Checkpoint) -> MeasuredRun | None:
        numbers = self.numbers_of(row)
        return numbers and numbers.find(row)


def model_card(
    sheet: Sheet, place: Place, figures: Iterable[str] = (), for_timm: bool = False
) -> str:
    """The card of one checkpoint, as Markdown with the Hub's YAML block.

    figures: file names in the repository's `figures` folder. for_timm: the card stands at the root
    of timm's branch, not in the folder `models` of the main one.
    """
    row = sheet.row
    taught_by = [t for t in (row.teacher or "").split("+") if t]
    return _render(
        "model_card.md.jinja",
        _card_data(row.stem, [row], place, **({"library_name": "timm"} if for_timm else {})),
        place,
        checkpoint=row,
        sheet=sheet,
        task=get_task(row.task),
        data=data_set_of(row),
        teachers=listed([get_spec(t).paper_name for t in taught_by]),
        guided=listed(_guided(taught_by, row.task, place.index)),
        sentences=words.told_of(row, place.numbers_of(row)),
        code=_load_code(row, place),
        timm_code=_timm_code(sheet, place),
        why_not_timm=_why_not_timm(row),
        recipe=_in_full(_recipe(row)),
        m=place.measured(row),
        figures=list(figures),
        base=f"https://huggingface.co/{place.repo}/resolve/main/" if for_timm else "../",
    )


def repo_card(sheets: list[Sheet], place: Place, figures: Iterable[str] = ()) -> str:
    """The README.md of the repository: what is in it, how to load it, and the table of results."""
    rows = [s.row for s in sheets]
    for_timm = next((s for s in sheets if s.timm), None)
    files = {row.file for row in rows}

    def link(row: Checkpoint) -> str:
        return f"[{row.name}](models/{row.stem}.md)" if row.file in files else row.name

    return _render(
        "repo_card.md.jinja",
        _card_data(place.repo.partition("/")[2], rows, place),
        place,
        sheets=sheets,
        names=list(dict.fromkeys(row.spec.paper_name for row in rows)),
        code=_load_code(rows[0], place),
        timm_code=for_timm and _timm_code(for_timm, place),
        tasks=TASKS,
        measured=place.tasks,
        link=link,
        biases=[bias for data in data_sets_of(rows) for bias in data["biases"]],
        figures=list(figures),
    )


def figures_of(row: Checkpoint, figures: Iterable[str]) -> list[str]:
    """The figures of a checkpoint: `<what>-<its name>.png`."""
    return [f for f in figures if Path(f).stem.endswith(f"-{row.stem}")]


def _render(template: str, data: ModelCardData, place: Place, /, **values) -> str:
    alike = {
        "card_data": data.to_yaml(),
        "place": place,
        "words": words,
        "licence": place.licence or UNLICENSED,
        "research_only": RESEARCH_ONLY,
        "bibtex": BIBTEX,
    }
    return render(template, alike | values, HERE)


# --- What the Hub reads ----------------------------------------------------------------------


def _card_data(name: str, rows: Sequence[Checkpoint], place: Place, **more) -> ModelCardData:
    found = [
        result
        for row in rows
        if (run := place.measured(row))
        for result in _results_for_hub(run, f"{row.name}, " if len(rows) > 1 else "")
    ]
    tags = [tag for id in TASKS if id in {c.task for c in rows} for tag in TASKS[id].card.tags]
    return ModelCardData(
        license=place.licence,
        pipeline_tag="image-classification",
        tags=TAGS + tags,
        metrics=list(dict.fromkeys(r.metric_type for r in found)) or None,
        model_name=name if found else None,
        eval_results=found or None,
        **more,
    )


def _results_for_hub(run: MeasuredRun, prefix: str) -> Iterator[EvalResult]:
    """The scores in the form of the Hub's `model-index`; values in [0, 1]."""
    data, _, version = run.row.data.partition("@")
    scores = (
        ("accuracy", "accuracy", run.accuracy.value),
        ("f1", "macro-F1", run.macro_f1.value),
        ("roc_auc", "AUROC (macro, one against rest)", run.auroc),
    )
    for metric, name, value in scores:
        yield EvalResult(
            task_type="image-classification",
            dataset_type=data,
            dataset_name=f"{run.task.name} ({data})",
            dataset_split="test",
            dataset_revision=version or None,
            metric_type=metric,
            metric_name=prefix + name,
            metric_value=round(value, 4),
        )


# --- Where it comes from, and how to load it -------------------------------------------------


def _recipe(row: Checkpoint) -> Recipe | None:
    """The recipe of a checkpoint; None where its file is not at hand."""
    file = FOLDER / Path(row.recipe).name
    return read_recipe(file, row.task, seed=row.seed) if file.exists() else None


def _in_full(recipe: Recipe | None) -> str | None:
    """A recipe with all its settings, as YAML."""
    if recipe is None:
        return None
    return yaml.safe_dump(json.loads(json.dumps(to_dict(recipe))), sort_keys=False).strip()


def _guided(teachers: Iterable[str], task: str, index: Index) -> list[str]:
    """The names of the stored teachers that began with the features of an ImageNet network."""
    rows = (c for c in index.checkpoints if c.task == task and c.model in teachers)
    return [c.name for c in rows if (recipe := _recipe(c)) and recipe.guided]


def _load_code(row: Checkpoint, place: Place) -> str:
    arguments = [row.task, row.model, row.teacher, row.variant]
    while not arguments[-1]:
        arguments.pop()
    at = f'revision="{place.revision}"'
    own = [f'hf_hub_download("{place.repo}", "tasks/{row.task}.yaml", {at})']
    return "\n".join(
        [
            "from huggingface_hub import hf_hub_download",
            "from kdmodels.models.checkpoints import Index",
            "",
            *(own if row.task not in SHIPPED else []),
            f'file = hf_hub_download("{place.repo}", "index.json", {at})',
            'index = Index.read(file.removesuffix("index.json"))',
            f"model = index.load(index.find({', '.join(map(json.dumps, arguments))}))".replace(
                "null", "None"
            ),
        ]
    )


def _timm_code(sheet: Sheet, place: Place) -> str:
    lines = [
        "import timm",
        "",
        f'model = timm.create_model("hf-hub:{place.repo}@{sheet.timm}", pretrained=True).eval()',
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
