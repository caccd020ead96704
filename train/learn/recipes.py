"""A recipe: everything that determines one training run, read from a short YAML file."""

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from kdmodels.models.zoo import get_spec
from kdmodels.tasks import get_task
from kdmodels.tasks.known import SHIPPED
from train.learn.objectives import build_objective

FOLDER = Path(__file__).parents[1] / "recipes"
ANY = "any"  # begins the names of recipes for any task


class RecipeError(Exception):
    """A recipe that cannot be run; the message names the file and the key."""


@dataclass(frozen=True)
class Phase:
    """Some epochs at one image size. Each phase starts from the averaged weights of the last.

    lr: peak learning rate of AdamW; warmup: epochs of linear warm-up before the cosine decay;
    steps: steps in an epoch (None: as many as the training images fill);
    augmentation: strength of the random views, 0 (flips alone) to 1 (see `train.learn.views`);
    objective: the recipe's (None), or `features`: learn the guide's features (see `train.learn.guides`).
    """

    size: int
    epochs: int
    lr: float
    warmup: float = 0.5
    steps: int | None = None
    augmentation: float = 1.0
    objective: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Settings of one run; a YAML file holds what differs from these defaults.

    teacher: id of the frozen teacher, for objectives that need one; several joined by "+".
    teacher_size: image side in px at which a teacher sees the views (None: its own input size).
    views: number of fixed augmentations of each image (None: always new ones). With a teacher its
        targets on them are then computed once; mixup must be 0.
    source_power: see `train.learn.views.BalancedSampler`.
    swap_surroundings: share of the draws of films with lung masks that show their lungs in another
        class's surroundings (see `train.learn.surroundings`); for recipes without a teacher.
    patience: epochs of the last phase without a better validation macro-F1 before stopping.
    """

    name: str
    task: str
    model: str
    phases: tuple[Phase, ...]
    objective: str = "labels"
    objective_settings: dict[str, float] = field(default_factory=dict)
    teacher: str | None = None
    teacher_size: int | None = None
    seed: int = 0
    batch_size: int = 32
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    mixup: float = 0.2
    ema_decay: float = 0.998
    views: int | None = None
    source_power: float = 0.5
    patience: int = 5
    pretrained: bool = False
    swap_surroundings: float = 0.0

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers' ids."""
        return tuple(self.teacher.split("+")) if self.teacher else ()

    @property
    def guided(self) -> bool:
        """Whether it starts with the features of an ImageNet network (see `train.learn.guides`)."""
        return any(phase.objective for phase in self.phases)

    @property
    def variant(self) -> str:
        """What its name adds to that of the usual recipe of its model and teachers."""
        return self.name.removeprefix(_stem(self.task, self.model, self.teacher)).lstrip("-")


def usual_objective(teacher: str | None) -> str:
    return "labels" if not teacher else "multi_teacher" if "+" in teacher else "hybrid"


def _check_keys(path: Path, given: dict, known: type) -> None:
    names = {f.name: f.type for f in dataclasses.fields(known)}
    for key, value in given.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)[0]
            raise RecipeError(
                f"{path} has the unknown key '{key}'; the nearest valid one is '{near}'."
            )
        if isinstance(value, str) and names[key] in (int, float, int | None):
            raise RecipeError(
                f"{path}: YAML reads the {key} '{value}' as text, not as a number; "
                "a number with an exponent needs a point, such as 1.0e-3."
            )


def _read_yaml(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml") if p.stem[0] != "_"))
        raise RecipeError(f"There is no recipe {path}; there are: {known}.") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold keys and values.")
    if "base" in content:
        content = _read_yaml(path.parent / content.pop("base")) | content
    return content


def file_of(name: str, folder: Path) -> Path:
    """The file of a recipe that is called `<task>-...`: its own, or `any-...`, which is for whatever
    task a user brings.
    """
    task, _, rest = name.partition("-")
    own = folder / f"{name}.yaml"
    return own if own.exists() or task in SHIPPED else folder / f"{ANY}-{rest}.yaml"


def read_recipe(path: str | Path, task: str | None = None, **overrides) -> Recipe:
    """Read a recipe file (with its `base`, if it names one) and apply overrides that are not None.

    task: of a recipe whose file names none, because it is for any.

    Raises `RecipeError` for a missing file, an unknown key (naming the nearest valid one), an
    unknown task, model, teacher or objective, or a teacher that is missing or has no use.
    """
    path = Path(path)
    content = _read_yaml(path) | {k: v for k, v in overrides.items() if v is not None}
    if task:
        content.setdefault("task", task)
    content.setdefault("name", re.sub(rf"^{ANY}-", f"{task}-", path.stem))
    _check_keys(path, content, Recipe)
    missing = [k for k in ("task", "model", "phases") if k not in content]
    if missing:
        raise RecipeError(f"{path} lacks the key(s) {', '.join(missing)}.")
    phases = content["phases"]
    if not (isinstance(phases, list) and phases and all(isinstance(p, dict) for p in phases)):
        raise RecipeError(f"{path}: phases must be a list of keys and values, one for each phase.")
    for phase in phases:
        _check_keys(path, phase, Phase)
    if not isinstance(content.get("teacher"), str | None):
        raise RecipeError(
            f"{path}: teacher must be the id of one, or of several joined by '+', "
            f"not {content['teacher']}."
        )
    try:
        content["phases"] = tuple(Phase(**phase) for phase in content["phases"])
        recipe = Recipe(**content)
        get_task(recipe.task)
        get_spec(recipe.model)
        objective = build_objective(recipe.objective, **recipe.objective_settings)
        for teacher in recipe.teachers:
            get_spec(teacher)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{path}: {error}") from error
    if any(phase.objective not in (None, "features") for phase in recipe.phases):
        raise RecipeError(f"{path}: the objective of a phase must be 'features' or left out.")
    if recipe.objective == "features" or recipe.phases[-1].objective:
        raise RecipeError(f"{path}: 'features' learns no labels; it is for phases before the last.")
    if not objective.takes(len(recipe.teachers)):
        least, most = objective.teachers
        wanted = (
            "no teacher" if most == 0 else f"{'exactly' if least == most else 'at least'} {least}"
        )
        raise RecipeError(
            f"{path}: the objective '{recipe.objective}' takes {wanted}, but the teacher is "
            f"{recipe.teacher or 'not named'}."
        )
    if objective.needs_maps and recipe.mixup:
        raise RecipeError(f"{path}: mixed images have no one class to attend to; set mixup to 0.")
    if recipe.views and len({phase.augmentation for phase in recipe.phases}) > 1:
        raise RecipeError(f"{path}: fixed views need the same augmentation in all phases.")
    if recipe.views and recipe.mixup:
        raise RecipeError(f"{path}: fixed views and mixup exclude each other; set mixup to 0.")
    if recipe.guided and not recipe.views:
        raise RecipeError(
            f"{path}: the features of the guide are kept for a fixed number of views; set views."
        )
    if recipe.swap_surroundings and recipe.teacher:
        raise RecipeError(
            f"{path}: a teacher sees films as they are; set swap_surroundings to 0, or leave the "
            "teacher out."
        )
    return recipe


def _stem(task: str, model: str, teacher: str | None) -> str:
    if get_spec(model).role == "teacher":
        return f"{task}-{model}"
    origin = f"from-{'all' if '+' in teacher else teacher}" if teacher else "labels"
    return f"{task}-{model}-{origin}"


def find_recipe(
    task: str, model: str, teacher: str | None = None, variant: str | None = None
) -> Path:
    """The recipe file of a run: `<task>-<model>`, for students with `-labels` or `-from-<teacher>`.

    Several teachers make `-from-all`; a variant (see `Recipe.variant`) is added, but not the
    objective that is usual for its number of teachers (`labels`, `hybrid`, `multi_teacher`).
    """
    name = _stem(task, model, teacher)
    if variant not in (None, "", usual_objective(teacher)):
        name += f"-{variant}"
    return file_of(name, FOLDER)


def to_dict(recipe: Recipe) -> dict:
    """The recipe as plain data, for JSON and YAML.

    What no recipe had when the first runs were stored is left out where it does nothing.
    """
    found = dataclasses.asdict(recipe)
    if not recipe.swap_surroundings:
        del found["swap_surroundings"]
    for phase in found["phases"]:
        if phase["objective"] is None:
            del phase["objective"]
    return found
