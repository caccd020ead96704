"""`train.measure.agreement_numbers`: means of the right maps, against the control of the same seed."""

from dataclasses import replace

import numpy as np
import pytest

from train.measure.agreement_numbers import agreement_numbers
from train.measure.kept_rows import AgreementRow


@pytest.fixture
def students(new_row):
    taught = replace(new_row("cxr", "ofa_595", "vgg19"), sha256="1" * 64)
    return {"taught": taught, "plain": replace(new_row("cxr", "ofa_595"), sha256="2" * 64)}


@pytest.fixture
def teachers(new_row):
    rows = (replace(new_row("cxr", model), sha256="3" * 64) for model in ("vgg19", "visformer_s"))
    return {row.model: row for row in rows}


def rows(student: str, teacher: str, correlations, sha256: str) -> list[AgreementRow]:
    return [
        AgreementRow(student, sha256[:12], teacher, "3" * 12, f"{i}.png", f"g{i // 2}", value, 0.5)
        for i, value in enumerate(correlations)
    ]


def test_a_student_is_set_against_its_teacher_and_the_control(students, teachers):
    generator = np.random.default_rng(0)
    near, far = generator.normal(0.7, 0.1, 40), generator.normal(0.1, 0.1, 40)
    kept = [
        *rows("taught", "vgg19", near, "1" * 64),
        *rows("plain", "vgg19", far, "2" * 64),
        *rows("plain", "visformer_s", near, "2" * 64),
    ]
    first, second, third = agreement_numbers(kept, students, teachers, {"taught": "plain"})
    assert [n.teacher for n in (first, second, third)] == ["vgg19", "vgg19", "visformer_s"]
    assert first.student.name == "OFA-595 (from VGG19)" and first.images == 40
    assert first.correlation.value == pytest.approx(near.mean())
    assert first.correlation.low < near.mean() < first.correlation.high
    assert first.over_control.value == pytest.approx((near - far).mean())
    assert first.overlap.value == 0.5
    assert second.over_control is None  # it is the control


def test_flat_maps_do_not_count_and_other_weights_neither(students, teachers):
    kept = rows("taught", "vgg19", [0.2, np.nan, 0.6], "1" * 64)
    [found] = agreement_numbers(kept, students, teachers, {})
    assert found.correlation.value == pytest.approx(0.4) and found.over_control is None
    assert agreement_numbers(rows("taught", "vgg19", [0.2], "9" * 64), students, teachers, {}) == []
    assert agreement_numbers(rows("gone", "vgg19", [0.2], "1" * 64), students, teachers, {}) == []
    other = {"vgg19": replace(teachers["vgg19"], sha256="8" * 64)}
    assert agreement_numbers(kept, students, other, {}) == []
