"""A recipe: everything that determines one training run, read from a short YAML file."""

import re
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kdmodels.mistakes import describe_mistake
from kdmodels.models.zoo import get_spec
from kdmodels.tasks import get_task
from kdmodels.tasks.known import SHIPPED
from train.learn.objectives import Objective, build_objective

FOLDER = Path(__file__).parents[1] / "recipes"
ANY = "any"  # begins the names of recipes for any task

# Strict, because text such as 1e-3, which YAML does not take for a number, is a mistake here.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Count = Annotated[Whole, Field(ge=1)]
Share = Annotated[Number, Field(ge=0, le=1)]


class RecipeError(Exception):
    """A recipe that cannot be run; the message names the file and the key."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Phase(_Part):
    """Some epochs at one image size. Each phase starts from the averaged weights of the last.

    size: of the images, in px; lr: peak learning rate of AdamW; warmup: epochs of linear warm-up
    before the cosine decay; steps: steps in an epoch (None: as many as the training images fill);
    augmentation: strength of the random views, 0 (flips alone) to 1 (see `train.learn.views`);
    objective: the recipe's (None), or `features`: learn the guide's features (see `train.learn.guides`).
    """

    size: Count
    epochs: Count
    lr: Annotated[Number, Field(gt=0)]
    warmup: Annotated[Number, Field(ge=0)] = 0.5
    steps: Count | None = None
    augmentation: Share = 1.0
    objective: str | None = None


class Recipe(_Part):
    """Settings of one run; a YAML file holds what differs from these defaults.

    teacher: id of the frozen teacher, for objectives that need one; several joined by "+".
    teacher_size: image side in px at which a teacher sees the views (None: its own input size).
    views: number of fixed augmentations of each image (None: always new ones). With a teacher its
        targets on them are then computed once; mixup must be 0.
    source_power: see `train.learn.views.BalancedSampler`.
    swap_surroundings: share of the draws of films with lung masks that show their lungs in another
        class's surroundings (see `train.learn.surroundings`); for recipes without a teacher.
    patience: epochs of the last phase without a better validation macro-F1 before stopping.

    Raises `pydantic.ValidationError` for an unknown task, model, teacher or objective, a teacher
    that is missing, has no use or no weight, and settings that exclude each other.
    """

    name: str
    task: str
    model: str
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    objective: str = "labels"
    objective_settings: dict[str, Whole | Number] = {}
    teacher: str | None = None
    teacher_size: Count | None = None
    seed: Annotated[Whole, Field(ge=0)] = 0
    batch_size: Count = 32
    weight_decay: Annotated[Number, Field(ge=0)] = 0.05
    clip_norm: Annotated[Number, Field(gt=0)] = 5.0
    mixup: Annotated[Number, Field(ge=0)] = 0.2
    ema_decay: Share = 0.998
    views: Count | None = None
    source_power: Share = 0.5
    patience: Count = 5
    pretrained: bool = False
    swap_surroundings: Share = 0.0

    @field_validator("teacher", mode="before")
    @classmethod
    def _is_text(cls, teacher: Any) -> Any:
        if not isinstance(teacher, str | None):
            raise ValueError(
                f"teacher must be the id of one, or of several joined by '+', not {teacher}"
            )
        return teacher

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        get_task(self.task)
        for model in (self.model, *self.teachers):
            get_spec(model)
        objective = build_objective(self.objective, **self.objective_settings)
        for broken, sentence in self._rules(objective):
            if broken:
                raise ValueError(sentence)
        return self

    def _rules(self, objective: Objective) -> tuple[tuple[bool, str], ...]:
        """Whether each rule is broken, and what is then to be said."""
        least, most = objective.teachers
        number = (
            "no teacher" if most == 0 else f"{'exactly' if least == most else 'at least'} {least}"
        )
        phases, augmentations = self.phases, {phase.augmentation for phase in self.phases}
        return (
            (
                any(phase.objective not in (None, "features") for phase in phases),
                "the objective of a phase must be 'features' or left out",
            ),
            (
                self.objective == "features" or phases[-1].objective is not None,
                "'features' learns no labels; it is for phases before the last",
            ),
            (
                not objective.takes(len(self.teachers)),
                f"the objective '{self.objective}' takes {number}, but the teacher is "
                f"{self.teacher or 'not named'}",
            ),
            (
                bool(self.teachers) and objective.teacher_weight == 0,
                f"the teacher {self.teacher} has no weight in the loss; set alpha above 0, or leave "
                "teacher and objective out",
            ),
            (
                objective.needs_maps and self.mixup > 0,
                "mixed images have no one class to compare maps of; set mixup to 0",
            ),
            (
                self.views is not None and len(augmentations) > 1,
                "fixed views need the same augmentation in all phases",
            ),
            (
                self.views is not None and self.mixup > 0,
                "fixed views and mixup exclude each other; set mixup to 0",
            ),
            (
                self.guided and self.views is None,
                "the features of the guide are kept for a fixed number of views; set views",
            ),
            (
                self.swap_surroundings > 0 and self.teacher is not None,
                "a teacher sees films as they are; set swap_surroundings to 0, or leave the "
                "teacher out",
            ),
        )

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
    """The objective of the usual recipe for no teacher, for one, and for several."""
    return "labels" if not teacher else "multi_teacher" if "+" in teacher else "hybrid"


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

    Raises `RecipeError`, in one sentence, for a missing file, an unknown key (naming the nearest
    valid one), and all that `Recipe` refuses.
    """
    path = Path(path)
    usual = {"name": re.sub(rf"^{ANY}-", f"{task}-", path.stem)} | ({"task": task} if task else {})
    content = usual | _read_yaml(path)
    try:
        return Recipe(**content | {k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        raise RecipeError(f"{path}: {describe_mistake(error, Recipe).rstrip('.')}.") from error


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
    found = recipe.model_dump()
    if not recipe.swap_surroundings:
        del found["swap_surroundings"]
    for phase in found["phases"]:
        if phase["objective"] is None:
            del phase["objective"]
    return found
