"""What a student (or a teacher) is trained to do: losses that read like their equations."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor


class Objective(ABC):
    """A loss of a batch. Subclasses register themselves under `name`.

    logits: (N, K) of the network in training.
    targets: (N, K) class probabilities (one-hot, or mixed by mixup).
    teacher_logits: (N, K) of the frozen teacher on the same views; None without a teacher.
    """

    name: ClassVar[str]
    needs_teacher: ClassVar[bool]
    registry: ClassVar[dict[str, type["Objective"]]] = {}

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        Objective.registry[cls.name] = cls

    @abstractmethod
    def __call__(self, logits: Tensor, targets: Tensor, teacher_logits: Tensor | None) -> Tensor:
        """Return the scalar loss."""


class Labels(Objective):
    """CE(student, label), with label smoothing (Szegedy et al., CVPR 2016, section 7)."""

    name = "labels"
    needs_teacher = False

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(
        self, logits: Tensor, targets: Tensor, teacher_logits: Tensor | None = None
    ) -> Tensor:
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)


class Hybrid(Objective):
    """(1 - alpha) * CE(student, label) + alpha * T^2 * KL(softmax(teacher/T) || softmax(student/T)).

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2; the
    factor T^2 keeps the gradients of the soft term at the scale of the hard term's. KL is averaged
    over the batch. arXiv 2508.15251 calls this hybrid supervision.
    """

    name = "hybrid"
    needs_teacher = True

    def __init__(
        self, alpha: float = 0.5, temperature: float = 4.0, label_smoothing: float = 0.0
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], not {alpha}.")
        if temperature <= 0:
            raise ValueError(f"The temperature must be above 0, not {temperature}.")
        self.alpha = alpha
        self.temperature = temperature
        self.labels = Labels(label_smoothing)

    def __call__(self, logits: Tensor, targets: Tensor, teacher_logits: Tensor | None) -> Tensor:
        if teacher_logits is None:
            raise ValueError("The hybrid objective needs the teacher's logits.")
        hard = self.labels(logits, targets)
        soft = F.kl_div(
            F.log_softmax(logits / self.temperature, dim=1),
            F.log_softmax(teacher_logits / self.temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.alpha) * hard + self.alpha * self.temperature**2 * soft


def build_objective(name: str, **settings: float) -> Objective:
    """Build an objective by its registered name. Raises `ValueError` that lists the names."""
    try:
        return Objective.registry[name](**settings)
    except KeyError:
        known = ", ".join(Objective.registry)
        raise ValueError(f"There is no objective '{name}'; there are: {known}.") from None
