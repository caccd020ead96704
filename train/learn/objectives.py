"""What a student (or a teacher) is trained to do: losses that read like their equations."""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, stack


@dataclass(frozen=True)
class Answers:
    """What one network says of a batch.

    logits: (N, K). maps: (N, h, w) class maps of each image's labelled class (see
    `kdmodels.models.classmaps`), for objectives that need them; else None.
    """

    logits: Tensor
    maps: Tensor | None = None


class Objective(ABC):
    """A loss of a batch. Subclasses register themselves under `name`.

    teachers: how many frozen teachers it takes, least and most (None: any number).
    needs_maps: whether `Answers.maps` must be there, of the student and of the teachers.
    teacher_weight: factor of what depends on the teachers; 0 where they change nothing.
    """

    name: ClassVar[str]
    teachers: ClassVar[tuple[int, int | None]]
    needs_maps: ClassVar[bool] = False
    teacher_weight: float = 0.0
    registry: ClassVar[dict[str, type["Objective"]]] = {}

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        Objective.registry[cls.name] = cls

    @classmethod
    def takes(cls, number: int) -> bool:
        """Whether it can be trained with that many teachers."""
        least, most = cls.teachers
        return least <= number and (most is None or number <= most)

    def demand(self, number: int) -> None:
        """Raise `ValueError` where it cannot be trained with that many teachers."""
        if not self.takes(number):
            raise ValueError(f"The objective '{self.name}' cannot do with {number} teachers.")

    @abstractmethod
    def __call__(
        self, student: Answers, targets: Tensor, teachers: Sequence[Answers] = ()
    ) -> Tensor:
        """Return the scalar loss.

        student: of the network in training. targets: (N, K) class probabilities (one-hot, or mixed
        by mixup). teachers: of each frozen teacher on the same views.
        """


class Labels(Objective):
    """CE(student, label), with label smoothing (Szegedy et al., CVPR 2016, section 7)."""

    name = "labels"
    teachers = (0, 0)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must lie in [0, 1], not {label_smoothing}.")
        self.label_smoothing = label_smoothing

    def __call__(
        self, student: Answers, targets: Tensor, teachers: Sequence[Answers] = ()
    ) -> Tensor:
        return F.cross_entropy(student.logits, targets, label_smoothing=self.label_smoothing)


class Hybrid(Objective):
    """(1 - alpha) * CE(student, label) + alpha * T^2 * KL(softmax(teacher/T) || softmax(student/T)).

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2; the
    factor T^2 keeps the gradients of the soft term at the scale of the hard term's. KL is averaged
    over the batch. arXiv 2508.15251 calls this hybrid supervision.
    """

    name = "hybrid"
    teachers = (1, 1)

    def __init__(
        self, alpha: float = 0.5, temperature: float = 4.0, label_smoothing: float = 0.0
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], not {alpha}.")
        if not 0 < temperature < math.inf:
            raise ValueError(f"The temperature must be above 0 and finite, not {temperature}.")
        self.alpha = self.teacher_weight = alpha
        self.temperature = temperature
        self.labels = Labels(label_smoothing)

    def __call__(
        self, student: Answers, targets: Tensor, teachers: Sequence[Answers] = ()
    ) -> Tensor:
        self.demand(len(teachers))
        hard = self.labels(student, targets)
        soft = F.kl_div(
            F.log_softmax(student.logits / self.temperature, dim=1),
            mean_log_softmax([t.logits for t in teachers], self.temperature),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.alpha) * hard + self.alpha * self.temperature**2 * soft


class MultiTeacher(Hybrid):
    """`hybrid` with the mean of the teachers' softened outputs, 1/M * sum_m softmax(teacher_m/T).

    Hinton et al., 2015, section 2, on distilling an ensemble (arithmetic mean); You et al.,
    "Learning from Multiple Teacher Networks", KDD 2017, equation 5.
    """

    name = "multi_teacher"
    teachers = (2, None)


class Attention(Hybrid):
    """`hybrid` + beta * mean over images of || s/||s|| - t/||t|| ||^2.

    s, t: the class maps of the labelled class of student and teacher, averaged over a grid of
    `grid` x `grid` cells and flattened: class attention transfer (Guo et al., "Class Attention
    Transfer Based Knowledge Distillation", CVPR 2023, equations 3 and 4) for the labelled class
    alone; dividing by the norm compares where the maps are high, not how high.
    """

    name = "attention"
    needs_maps = True

    def __init__(
        self,
        alpha: float = 0.5,
        temperature: float = 4.0,
        label_smoothing: float = 0.0,
        beta: float = 1.0,
        grid: int = 4,
    ) -> None:
        super().__init__(alpha, temperature, label_smoothing)
        if not 0 <= beta < math.inf or not isinstance(grid, int) or grid < 2:
            raise ValueError(
                "beta must be at least 0 and grid a whole number of at least 2, "
                f"not {beta} and {grid}."
            )
        self.beta = beta
        self.grid = grid
        self.teacher_weight = alpha + beta

    def _direction(self, answers: Answers) -> Tensor:
        """(N, grid^2) maps of unit norm."""
        if answers.maps is None:
            raise ValueError("The objective 'attention' needs the class maps.")
        return F.normalize(F.adaptive_avg_pool2d(answers.maps, self.grid).flatten(1), dim=1)

    def __call__(
        self, student: Answers, targets: Tensor, teachers: Sequence[Answers] = ()
    ) -> Tensor:
        loss = super().__call__(student, targets, teachers)
        apart = (self._direction(student) - self._direction(teachers[0])).square().sum(1)
        return loss + self.beta * apart.mean()


class Features(Objective):
    """Mean squared error between a network's outputs and the features of its guide.

    FitNets' hint loss (Romero et al., ICLR 2015, equation 3) with the network's last linear layer
    as the regressor. It takes no labels, and is for phases before those that do (see
    `train.learn.guides`); `Answers.logits` hold the features.
    """

    name = "features"
    teachers = (1, 1)
    teacher_weight = 1.0

    def __call__(
        self, student: Answers, targets: Tensor, teachers: Sequence[Answers] = ()
    ) -> Tensor:
        self.demand(len(teachers))
        return F.mse_loss(student.logits, teachers[0].logits)


def mean_log_softmax(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Logarithm of the mean of softmax(z / temperature) over M tensors z of shape (N, K)."""
    softened = [F.log_softmax(z / temperature, dim=1) for z in logits]
    if len(softened) == 1:
        return softened[0]
    return stack(softened).logsumexp(dim=0) - math.log(len(softened))


def build_objective(name: str, **settings: float) -> Objective:
    """Build an objective by its registered name.

    Raises `ValueError` for an unknown name or setting, and lists the known ones, and for a value
    that the objective cannot have.
    """
    if name not in Objective.registry:
        known = ", ".join(Objective.registry)
        raise ValueError(f"There is no objective '{name}'; there are: {known}.")
    known = inspect.signature(Objective.registry[name]).parameters
    if unknown := [setting for setting in settings if setting not in known]:
        raise ValueError(
            f"The objective '{name}' has no setting '{unknown[0]}'; it has: "
            f"{', '.join(known) or 'none'}."
        )
    return Objective.registry[name](**settings)
