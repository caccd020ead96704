"""The results as the README shows them: a table of each task's models, and how to read it.

What is too much for a README is in `train.tables.details`.
"""

from functools import cache

from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.models.zoo import ModelSpec, build_model, count_macs, count_parameters, get_spec
from kdmodels.tasks import TASKS, Task
from train.tables.audit_tables import audit_summary
from train.tables.markdown import head, mean_and_range, percent, points, row

EARLIER = (
    " Where the single answers of earlier runs were not kept, the ends of the interval are means of "
    "its parts' ends, weighted by their seeds: rather too wide than too narrow."
)


def evaluated(index: Index, task: Task) -> list[Checkpoint]:
    return [c for c in index.checkpoints if c.task == task.id and c.metrics]


@cache
def _count(spec: ModelSpec, classes: int) -> tuple[int, int]:
    model = build_model(spec.id, classes, spec.input_size)
    return count_parameters(model), count_macs(model, spec.input_size)


def size_of(checkpoint: Checkpoint) -> tuple[float, float]:
    """Millions of parameters, and GMAC of one image at the size of its weights."""
    parameters, macs = _count(checkpoint.spec, len(checkpoint.classes))
    return parameters / 1e6, macs / 1e9


def linked(checkpoint: Checkpoint) -> str:
    """Its name with a link to its recipe."""
    return f"[{checkpoint.name}]({checkpoint.recipe})"


def linked_change(change: dict) -> str:
    """The name of a row of `changes_of` with a link to its recipe, which is called like its weights."""
    return f"[{change['name']}](train/recipes/{change['stem']}.yaml)"


def seeds_of(checkpoint: Checkpoint, results: dict, metric: str) -> dict[int, float]:
    """A metric by seed: of the stored weights, and of further seeds where they were measured."""
    further = {e["seed"]: e[metric] for e in results.get("seeds", {}).get(checkpoint.stem, [])}
    return dict(sorted((further | {checkpoint.seed: checkpoint.metrics[metric]["value"]}).items()))


def over_seeds(checkpoint: Checkpoint, results: dict, metric: str) -> str:
    """`79.1 (78.3 to 79.8), 3 seeds`: mean and range; nothing where there is one seed only."""
    found = list(seeds_of(checkpoint, results, metric).values())
    return mean_over(found) if len(found) > 1 else ""


def mean_over(found: list[float]) -> str:
    """`79.1 (78.3 to 79.8), 3 seeds`, or `79.1, 1 seed`, of a metric by seed."""
    if len(found) == 1:
        return f"{100 * found[0]:.1f}, 1 seed"
    return f"{mean_and_range(found)}, {len(found)} seeds"


def summary(index: Index, results: dict) -> str:
    """The README's results: a row per model and task, the floors, and what distillation changed."""
    lines: list[str] = []
    for task in TASKS.values():
        if evaluated(index, task):
            found = results.get(task.id, {})
            lines += summary_of(task, index, found) + audit_summary(_of_stored(found, index))
    return "\n".join(lines).strip()


def _of_stored(results: dict, index: Index) -> dict:
    """A task's results without the audit of runs that are not stored, of which RESULTS.md tells."""
    if "audit" not in results:
        return results
    files = {c.file for c in index.checkpoints}
    models = {k: m for k, m in results["audit"]["models"].items() if k in files}
    return results | {"audit": results["audit"] | {"models": models}}


def summary_of(task: Task, index: Index, results: dict) -> list[str]:
    """What the summary says of one task, but for the audit; `results`: of this task."""
    rows = evaluated(index, task)
    first = rows[0].metrics
    repeated = any(over_seeds(c, results, "accuracy") for c in rows)
    return [
        f"**{task.name}**, test split: {first['images']:,} images of {first['groups']:,} "
        "independent groups; percent, with 95% bootstrap intervals over groups"
        + ("; over seeds: the mean, and the least and the greatest." if repeated else "."),
        "",
        *head(
            "model", "parameters / GMAC", "accuracy", "macro-F1", "lowest sensitivity",
            *(["accuracy over seeds"] if repeated else []), "file",
        ),
        *[
            row(
                linked(c),
                "{:.1f} M / {:.2f} at {} px".format(*size_of(c), c.spec.input_size),
                percent(c.metrics["accuracy"]),
                percent(c.metrics["macro_f1"]),
                _lowest(c.metrics, task),
                *([over_seeds(c, results, "accuracy")] if repeated else []),
                f"{c.bytes / 1e6:.1f} MB, `{c.sha256[:12]}`",
            )
            for c in rows
        ],
        *_reference(task, results, repeated),
        "",
        *_floors(task, results),
        *_starts(rows, results),
        *_distillation(rows, results),
        *_leakage(task, results),
    ]  # fmt: skip


def _lowest(metrics: dict, task: Task) -> str:
    """The sensitivity of the class that is missed most often, with its name."""
    rates = metrics["classes"]
    worst = min(task.classes, key=lambda c: rates[c.id]["sensitivity"]["value"])
    return f"{percent(rates[worst.id]['sensitivity'])}, {worst.name}"


def _reference(task: Task, results: dict, repeated: bool) -> list[str]:
    """The row of a network that was not trained here (`train.measure.probe`)."""
    found = results.get("reference")
    if not found:
        return []
    cells = [percent(found["accuracy"]), percent(found["macro_f1"]), _lowest(found, task)]
    name = "reference: linear probe on a frozen ImageNet MobileNetV2"
    return [row(name, "", *cells, *([""] if repeated else []), "not stored")]


def _floors(task: Task, results: dict) -> list[str]:
    if not results.get("floors"):
        return []
    floors = "; ".join(
        f"{f['name']} {100 * f['accuracy']:.1f} / {100 * f['macro_f1']:.1f}"
        for f in results["floors"]
    )
    return [
        "Floors, accuracy / macro-F1 of a random forest on features that do not see "
        f"{task.blind_to}: {floors}.",
        "",
    ]


def changes_of(rows: list[Checkpoint], results: dict, role: str = "student") -> dict[str, dict]:
    """By name of each distilled student what distillation changed: {stem, accuracy, macro_f1, seeds}.

    With the role `teacher`: of each variant of a teacher, what it changed against the usual recipe.
    Over several seeds where they were measured with the weights that are stored now, else of the
    stored weights alone.
    """
    sha256, by_stem = {c.file: c.sha256 for c in rows}, {c.stem: c for c in rows}
    changes = {}
    for stem, change in results.get("distillation", {}).items():
        if stem in by_stem:
            seed = {"seed": by_stem[stem].seed, "accuracy": change["accuracy"]["value"],
                    "macro_f1": change["macro_f1"]["value"]}  # fmt: skip
            changes[stem] = change | {"name": by_stem[stem].name, "seeds": [seed]}
    for stem, change in results.get("distillation_over_seeds", {}).items():
        if all(sha256.get(file) == known for file, known in change["files"].items()):
            changes[stem] = change
    return {c["name"]: c | {"stem": stem} for stem, c in changes.items() if _role_of(stem) == role}


def _role_of(stem: str) -> str:
    model = stem.split("-")[1]  # <task>-<model>, and what `Checkpoint.stem` adds
    return get_spec(model).role


def seed_by_seed(change: dict, metric: str) -> str:
    """`+1.0 (seed 0); +3.0 (seed 1)`."""
    return "; ".join(f"{100 * s[metric]:+.1f} (seed {s['seed']})" for s in change["seeds"])


def _table_of(who: str, changes: dict[str, dict]) -> list[str]:
    """Rows of `changes_of`, under a heading that says whom they are of."""
    return [
        *head(who, "accuracy", "macro-F1", "accuracy, seed by seed"),
        *[
            row(
                linked_change(change),
                points(change["accuracy"]),
                points(change["macro_f1"]),
                seed_by_seed(change, "accuracy"),
            )
            for change in changes.values()
        ],
    ]


def _is_joined(change: dict) -> bool:
    return len(change.get("earlier", change)["seeds"]) < len(change["seeds"])


def _distillation(rows: list[Checkpoint], results: dict) -> list[str]:
    changes = changes_of(rows, results)
    if not changes:
        return []
    clear = [
        f"{name} ({metric})"
        for name, change in changes.items()
        for key, metric in (("accuracy", "accuracy"), ("macro_f1", "macro-F1"))
        if change[key]["ci95"][0] > 0 or change[key]["ci95"][1] < 0
    ]
    return [
        "What distillation changes, or another variant of the recipe, in percentage points against the "
        "student on labels only: "
        "the mean over the seeds, with its paired 95% bootstrap interval over groups, which covers "
        "the choice of test images; the single seeds show the chance of training."
        + (EARLIER if any(map(_is_joined, changes.values())) else ""),
        "",
        *_table_of("student", changes),
        "",
        "The interval excludes zero for: " + ", ".join(clear) + "; it includes zero for all else."
        if clear
        else "Every one of these intervals includes zero.",
        "",
    ]


def _starts(rows: list[Checkpoint], results: dict) -> list[str]:
    """Of teachers trained by a variant of their recipe, what that changed."""
    changes = changes_of(rows, results, "teacher")
    if not changes:
        return []
    return [
        "What a teacher's start is worth: variants of the recipes against the usual ones, in "
        "percentage points with paired 95% intervals. `scratch` learns from labels alone for as many "
        "epochs, without the start from ImageNet features, and nowhere at a higher rate.",
        "",
        *_table_of("teacher", changes),
        "",
    ]


def _leakage(task: Task, results: dict) -> list[str]:
    found = results.get("leakage")
    if not found:
        return []
    kind = task.group_name
    most = max(found["rows"], key=lambda r: sum(r["by_image"]))
    return [
        f"Leakage: in a random split of the same images, {100 * found['seen']['by_image']:.0f}% of "
        f"the test images have another image of their {kind} among the training images, and a "
        f"{most['name']} reaches {mean_and_range(most['by_image'])} against "
        f"{mean_and_range(most['by_group'])} in splits by {kind} (mean and range of "
        f"{len(found['seeds'])} random splits each). All other results here are of splits by {kind}.",
        "",
    ]  # fmt: skip
