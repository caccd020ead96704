"""What a task is: everything that is special about some classes of images."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

# Okabe and Ito's colours, which can be told apart without colour vision, for classes without one.
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442", "#000000",
)  # fmt: skip

# What the training side has a function for, under these names: `train.learn.views`,
# `train.measure.floors`, `train.measure.leakage`, `train.data.open` and `train.examples`.
Augmentation = Literal["plain", "film", "tile"]
Feature = Literal[
    "frame", "grey_histogram", "spectrum", "thumbnail",
    "colour_moments", "colour_histogram", "colour_texture",
]  # fmt: skip
Classifier = Literal["forest", "nearest"]
Layout = Literal["folders", "covid-qu-ex", "lc25000"]
Examples = Literal["none", "composite", "drawn"]

Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassInfo(_Part):
    """One class. `colour`: hex RGB. A file may give the id alone, and gets a name and a colour."""

    id: Id
    name: Name
    colour: str

    @field_validator("colour")
    @classmethod
    def _is_colour(cls, colour: str) -> str:
        if (
            len(colour) != 7
            or colour[0] != "#"
            or set(colour[1:].upper()) - set("0123456789ABCDEF")
        ):
            raise ValueError(f"'{colour}' is no colour; write six hex digits, such as '#0072B2'")
        return colour.upper()


class Reasons(_Part):
    """Why a picture is called unlike the task's: a sentence for each group of
    `kdmodels.familiar.statistics`, and for a picture without colours (`grey`). `{images:,}` becomes
    the number of training pictures.
    """

    colour: str = "The colours of this picture are unlike those of the {images:,} pictures that the models were trained on."
    brightness: str = "This picture is lighter, darker or of another contrast than the {images:,} pictures that the models were trained on."
    texture: str = "The fine detail of this picture (edges, grain, flat areas) is unlike that of the {images:,} pictures that the models were trained on."
    layout: str = "Light and dark lie elsewhere in this picture than in those that the models were trained on."
    edges: str = "The outlines in this picture run unlike those that the models were trained on."
    grey: str = "This picture has no colours, unlike those that the models were trained on."


class Table(_Part):
    """Columns of a `manifest.csv`: each the name of one, or a text with `{names}` in braces.

    A column that a task file names must be there; of the others `file` and `label` must.
    mask: where the lung mask lies, empty where there is none; masked: a column that is 1 where
    there is one.
    """

    file: str = "file"
    label: str = "label"
    split: str = "split"
    group: str = "group"
    source: str = "source"
    mask: str = "mask"
    masked: str | None = None


class CheapClassifier(_Part):
    """A cheap classifier on a cheap feature, which shows what a leaky split would gain."""

    classifier: Classifier
    feature: Feature


class Card(_Part):
    """What a model card says of the task in words."""

    tags: tuple[str, ...] = ()
    input: str = "images like those of its data set"
    preprocessing: str = "An image is stretched to a square."
    direct_use: str = (
        "Teaching and research on knowledge distillation and on explanations (Score-CAM)."
    )
    out_of_scope: tuple[str, ...] = (
        "Diagnosis, treatment or any other decision about a patient.",
        "Images of another kind than those of its data set, and classes other than its own.",
    )


class Task(_Part):
    """A classification task. The order of `classes` is the order of the logits.

    greyscale: images carry no colour information, so colour is removed before inference.
    upright: a picture has a top, so that only its mirror image shows the same; else any turn does.
    lung_masks: masks of the lungs are common, so that the page takes one.
    augmentation: random views in training. organs: parts to be judged within, with their class ids.
    floors: cheap features, and blind_to: what they do not see. group_name: of what belongs together
    in a split, such as a patient. leakage: classifiers that show what a leaky split would gain.
    layout: of a folder without a manifest.csv, whose columns are `table`. group_pattern: regular
    expression with a group named `group`, and perhaps one named `source`, that is searched in a
    file's path below the data folder. unfamiliar, limits, card: texts, for
    the page and the model cards. examples: how those of the page are made.
    """

    id: Id
    name: Name
    classes: tuple[ClassInfo, ...] = Field(min_length=2)
    greyscale: bool = False
    upright: bool = True
    lung_masks: bool = False
    augmentation: Augmentation = "plain"
    organs: dict[str, tuple[str, ...]] = {}
    floors: tuple[Feature, ...] = Field(("colour_histogram", "thumbnail"), min_length=1)
    blind_to: str = "detail"
    group_name: str = "group"
    leakage: tuple[CheapClassifier, ...] = (
        CheapClassifier(classifier="forest", feature="colour_histogram"),
        CheapClassifier(classifier="nearest", feature="thumbnail"),
    )
    layout: Layout = "folders"
    table: Table = Table()
    group_pattern: str | None = None
    examples: Examples = "none"
    limits: tuple[str, ...] = ()
    unfamiliar: Reasons = Reasons()
    card: Card = Card()

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def class_ids(self) -> tuple[str, ...]:
        return tuple(c.id for c in self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @field_validator("classes", mode="before")
    @classmethod
    def _complete(cls, classes: Any) -> Any:
        """A class that is only an id gets a name; one without a colour gets the next free one."""
        if not isinstance(classes, list):
            return classes
        rows = [{"id": c} if isinstance(c, str) else c for c in classes]
        if not all(isinstance(row, dict) for row in rows):
            return rows
        used = {str(row.get("colour")).upper() for row in rows}
        free = iter([colour for colour in PALETTE if colour not in used])
        named = [{"name": str(row.get("id")).replace("_", " ").capitalize()} | row for row in rows]
        try:
            return [row if "colour" in row else row | {"colour": next(free)} for row in named]
        except StopIteration:
            raise ValueError("there are more classes than colours; give each a colour") from None

    @field_validator("group_pattern")
    @classmethod
    def _names_a_group(cls, pattern: str | None) -> str | None:
        try:
            names = re.compile(pattern or "(?P<group>)").groupindex
        except re.error as error:
            raise ValueError(f"group_pattern is no regular expression: {error}") from None
        if "group" not in names:
            raise ValueError(
                "group_pattern needs a part named group, such as '(?P<group>case[0-9]+)'"
            )
        return pattern

    @model_validator(mode="after")
    def _is_consistent(self) -> "Task":
        for what in ("id", "name", "colour"):
            values = [getattr(c, what).casefold() for c in self.classes]
            if twice := next((v for v in values if values.count(v) > 1), None):
                raise ValueError(f"two classes have the {what} '{twice}'; give each its own")
        for organ, ids in self.organs.items():
            if strange := [i for i in ids if i not in self.class_ids]:
                raise ValueError(
                    f"organs: '{organ}' names '{strange[0]}', which is no class; "
                    f"the classes are: {', '.join(self.class_ids)}"
                )
        return self
