"""All numbers of one task, from what is kept in `results/`: the one source of tables and model cards."""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import softmax

from kdmodels.models.checkpoints import Checkpoint
from kdmodels.tasks import Task
from train.measure.agreement_numbers import AgreementNumbers, agreement_numbers
from train.measure.audit_numbers import AuditNumbers, audit_numbers
from train.measure.calibration import Calibration, calibration_of, fit_temperature
from train.measure.differences import Difference, difference
from train.measure.kept import Floor, KeptRun, TaskResults
from train.measure.kept_audit import AuditResults
from train.measure.kept_rows import AgreementRow, LeakageRow, LungRow, read_rows
from train.measure.leakage_numbers import LeakageNumbers, leakage_numbers
from train.measure.lungs_numbers import LungNumbers, lung_numbers
from train.measure.measured import Measured


@dataclass(frozen=True)
class ServedDifference:
    """How the page's default engine differs from the tables' on the test images.

    otherwise: share of images that it answers otherwise; largest: of a class's probability, as the
    page shows it (after the temperature).
    """

    engine: str
    otherwise: float
    largest: float


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredRun(Measured):
    """A run's answers on the test split, and what its answers on the validation split give."""

    run: KeptRun
    validation: Measured

    @property
    def row(self) -> Checkpoint:
        return self.run.row

    @cached_property
    def temperature(self) -> float:
        """Fitted on the validation split."""
        return fit_temperature(self.validation.logits, self.validation.images.labels)

    @cached_property
    def plain(self) -> Calibration:
        return calibration_of(self.logits, self.images.labels)

    @cached_property
    def calibrated(self) -> Calibration:
        return calibration_of(self.logits, self.images.labels, self.temperature)

    @cached_property
    def served(self) -> ServedDifference | None:
        if self.run.served is None:
            return None
        other = self.run.served.astype(np.float64)
        shares = [softmax(x / self.temperature, axis=1) for x in (self.logits, other)]
        return ServedDifference(
            self.run.served_by,
            float((other.argmax(1) != self.predicted).mean()),
            float(np.abs(shares[0] - shares[1]).max()),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredFloor(Measured):
    """A cheap classifier's answers on the test split, and on the validation split."""

    floor: Floor
    validation: Measured

    @property
    def name(self) -> str:
        return self.floor.name


@dataclass(frozen=True)
class Change:
    """What a recipe changed against its control, over the seeds that both have."""

    row: Checkpoint
    control: Checkpoint
    by: Difference


@dataclass(frozen=True)
class TaskNumbers:
    """Numbers of one task, each computed when it is asked for."""

    results: TaskResults

    @property
    def task(self) -> Task:
        return self.results.task

    @cached_property
    def runs(self) -> list[MeasuredRun]:
        return [self._measured(MeasuredRun, run, run=run) for run in self.results.runs]

    @cached_property
    def shipped(self) -> list[MeasuredRun]:
        return [run for run in self.runs if run.run.shipped]

    @cached_property
    def floors(self) -> list[MeasuredFloor]:
        return self._of_kind("floor")

    @cached_property
    def probes(self) -> list[MeasuredFloor]:
        return self._of_kind("probe")

    @cached_property
    def best_floor(self) -> MeasuredFloor | None:
        """The one that is right most often on the validation split."""
        return max(self.floors, key=lambda f: f.validation.accuracy.value, default=None)

    def find(self, row: Checkpoint) -> MeasuredRun | None:
        """The answers of a row of the index; None where those of other weights are kept."""
        wanted = (row.stem, row.sha256)
        found = (run for run in self.shipped if (run.row.stem, run.row.sha256) == wanted)
        return next(found, None)

    def over(self, one: Measured, other: Measured) -> Difference:
        """How much better one is than the other on the test split."""
        return difference([one], [other])

    def over_floor(self, one: Measured) -> Difference | None:
        """How much better than the best floor; None of that floor itself, or where there is none."""
        best = self.best_floor
        return None if best in (one, None) else self.over(one, best)

    @cached_property
    def changes(self) -> list[Change]:
        """Of each distilled student against the student on labels only, of each variant of a teacher
        against the usual one; where both have a seed in common.
        """
        by_stem: dict[str, dict[int, MeasuredRun]] = defaultdict(dict)
        for run in self.runs:
            by_stem[run.row.stem][run.row.seed] = run
        found = []
        for runs in by_stem.values():
            row = next(iter(runs.values())).row
            controls = by_stem.get(control_of(row).stem, {})
            seeds = sorted(runs.keys() & controls.keys())
            if row != control_of(row) and seeds:
                pairs = ([of[seed] for seed in seeds] for of in (runs, controls))
                control = controls[seeds[0]].row
                found.append(Change(row, control, difference(*pairs, seeds)))
        return found

    @cached_property
    def audit(self) -> AuditNumbers | None:
        return audit_numbers(AuditResults(self.task, self.results.folder))

    @cached_property
    def agreement(self) -> list[AgreementNumbers]:
        rows = read_rows(self.results.folder / "agreement.csv", AgreementRow)
        controls = {
            run.run.key: KeptRun.key_of(control_of(run.row))
            for run in self.runs
            if run.row != control_of(run.row)
        }
        students = {run.run.key: run.row for run in self.runs}
        teachers = {r.row.model: r.row for r in self.shipped if not r.row.variant}
        return agreement_numbers(rows, students, teachers, controls)

    @cached_property
    def leakage(self) -> LeakageNumbers | None:
        return leakage_numbers(read_rows(self.results.folder / "leakage.csv", LeakageRow))

    @cached_property
    def lungs(self) -> LungNumbers | None:
        return lung_numbers(read_rows(self.results.folder / "lungs.csv", LungRow))

    @cached_property
    def repeated(self) -> list[list[MeasuredRun]]:
        """All runs of each recipe that was run with several seeds; the shipped one comes first."""
        found = [[run for run in self.runs if run.row.stem == stem] for stem in self._stems]
        return [runs for runs in found if len(runs) > 1]

    @property
    def _stems(self) -> list[str]:
        return list(dict.fromkeys(run.row.stem for run in self.runs))

    def _of_kind(self, kind: str) -> list[MeasuredFloor]:
        floors = (floor for floor in self.results.floors if floor.kind == kind)
        return [self._measured(MeasuredFloor, floor, floor=floor) for floor in floors]

    def _measured(self, cls: type, kept: KeptRun | Floor, **of):
        test, val = (
            (logits.astype(np.float64), images, self.task)
            for logits, images in (
                (kept.test, self.results.test),
                (kept.val, self.results.val),
            )
        )
        return cls(*test, **of, validation=Measured(*val))


def control_of(row: Checkpoint) -> Checkpoint:
    """What a row is compared with: the same network on labels only, by the usual recipe."""
    return replace(row, teacher=None, variant="")
