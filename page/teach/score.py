"""The votes of a class, and the score of human, teacher and student."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kdmodels.tasks import Task
from page.teach.cases import Case


@dataclass(frozen=True)
class Votes:
    """How many of a group chose each class. counts: by class id, in the order of the task."""

    counts: Mapping[str, int]

    @classmethod
    def none(cls, task: Task) -> "Votes":
        return cls(dict.fromkeys(task.class_ids, 0))

    def with_vote(self, class_id: str) -> "Votes":
        """One vote more. Raises `ValueError` for a class that is not of this task."""
        if class_id not in self.counts:
            known = ", ".join(self.counts)
            raise ValueError(f"There is no class '{class_id}'; the classes are: {known}.")
        return Votes({**self.counts, class_id: self.counts[class_id] + 1})

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def guess(self) -> str | None:
        """The class that the group says; None while two tie or nobody has voted."""
        most = max(self.counts.values(), default=0)
        first = [class_id for class_id, count in self.counts.items() if count == most > 0]
        return first[0] if len(first) == 1 else None


@dataclass(frozen=True)
class Round:
    """One case that was played: what each said, as class ids. guess: None where nobody guessed."""

    case: Case
    guess: str | None
    teacher: str
    student: str

    def right(self, player: str) -> bool | None:
        """Whether "human", "teacher" or "student" was right; None where that cannot be said."""
        said = {"human": self.guess, "teacher": self.teacher, "student": self.student}[player]
        return None if said is None or self.case.label is None else said == self.case.label


class Tally(NamedTuple):
    """right: right answers. of: answers to cases with a label."""

    right: int
    of: int


@dataclass(frozen=True)
class Score:
    """The running score of human, teacher and student over the rounds played so far."""

    rounds: tuple[Round, ...] = ()

    def with_answer(self, case: Case, guess: str | None, teacher: str, student: str) -> "Score":
        """The score after one more round; a case that was played, and so revealed, counts once."""
        if any(played.case.path == case.path for played in self.rounds):
            return self
        return Score((*self.rounds, Round(case, guess, teacher, student)))

    def tally(self, player: str) -> Tally:
        """Of "human", "teacher" or "student"; only cases with a label (and a guess) count."""
        judged = [r.right(player) for r in self.rounds if r.right(player) is not None]
        return Tally(sum(judged), len(judged))
