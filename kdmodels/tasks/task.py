"""The two classification tasks, as data: classes in logit order, names, colours, input rules."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassInfo:
    """One class of a task. `colour` is a hex RGB string of the Okabe-Ito palette (colour-blind safe)."""

    id: str
    name: str
    colour: str


@dataclass(frozen=True)
class Task:
    """A classification task. The order of `classes` is the order of the logits.

    `greyscale`: images carry no colour information, so colour is removed before inference.
    """

    id: str
    name: str
    classes: tuple[ClassInfo, ...]
    greyscale: bool

    @property
    def class_ids(self) -> tuple[str, ...]:
        return tuple(c.id for c in self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def num_classes(self) -> int:
        return len(self.classes)


TASKS: dict[str, Task] = {
    task.id: task
    for task in (
        Task(
            id="cxr",
            name="Chest X-ray",
            classes=(
                ClassInfo("covid", "COVID-19", "#D55E00"),
                ClassInfo("pneumonia", "Non-COVID pneumonia", "#0072B2"),
                ClassInfo("normal", "Normal", "#009E73"),
            ),
            greyscale=True,
        ),
        Task(
            id="histopathology",
            name="Histopathology",
            classes=(
                ClassInfo("lung_n", "Lung, benign", "#009E73"),
                ClassInfo("lung_aca", "Lung adenocarcinoma", "#D55E00"),
                ClassInfo("lung_scc", "Lung squamous cell carcinoma", "#CC79A7"),
                ClassInfo("colon_n", "Colon, benign", "#56B4E9"),
                ClassInfo("colon_aca", "Colon adenocarcinoma", "#0072B2"),
            ),
            greyscale=False,
        ),
    )
}


def get_task(task_id: str) -> Task:
    """Look a task up by id. Raises `ValueError` that lists the known ids."""
    try:
        return TASKS[task_id]
    except KeyError:
        known = ", ".join(TASKS)
        raise ValueError(f"There is no task '{task_id}'; the tasks are: {known}.") from None
