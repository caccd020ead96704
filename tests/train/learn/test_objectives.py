"""`train.learn.objectives` against the written equations, in float64 and plain loops."""

import math

import numpy as np
import pytest
import torch

from train.learn.objectives import Answers, Objective, build_objective

GENERATOR = np.random.default_rng(5)
N, K = 7, 4
LOGITS, TEACHER, SECOND, THIRD = GENERATOR.normal(0, 2, (4, N, K))
STUDENT_MAPS = GENERATOR.normal(1, 2, (N, 4, 4))
TEACHER_MAPS = GENERATOR.normal(1, 2, (N, 7, 7))
ONE_HOT = np.eye(K)[GENERATOR.integers(0, K, N)]
MIXED = GENERATOR.dirichlet(np.ones(K), N)
TARGETS = pytest.mark.parametrize("targets", [ONE_HOT, MIXED], ids=["one-hot", "mixed"])
SETTINGS = pytest.mark.parametrize(
    "alpha, temperature, smoothing", [(0.6, 3.0, 0.05), (0.3, 1.0, 0.0), (1.0, 0.5, 0.0)]
)
NUMBER_OF_TEACHERS = {"labels": 0, "hybrid": 1, "multi_teacher": 3, "attention": 1, "features": 1}


# --- The equations ---------------------------------------------------------------------------


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(z / temperature) for z in row]
    return [p / sum(powers) for p in powers]


def written_ce(logits, targets, smoothing=0.0) -> float:
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        for q, y in zip(softmax(row), target, strict=True):
            total -= ((1 - smoothing) * y + smoothing / len(target)) * math.log(q)
    return total / len(logits)


def written_kl(student, teachers, temperature) -> float:
    """Mean over images of KL(mean of the softened teachers || softened student)."""
    total = 0.0
    for i, row in enumerate(student):
        softened = [softmax(teacher[i], temperature) for teacher in teachers]
        for k, q in enumerate(softmax(row, temperature)):
            p = sum(s[k] for s in softened) / len(softened)
            total += p * (math.log(p) - math.log(q))
    return total / len(student)


def written_hybrid(logits, targets, teachers, alpha, temperature, smoothing) -> float:
    soft = alpha * temperature**2 * written_kl(logits, teachers, temperature)
    return (1 - alpha) * written_ce(logits, targets, smoothing) + soft


def written_pooled(plane: np.ndarray, grid: int) -> list[float]:
    """Mean of each cell, which spans floor(i h / grid) to ceil((i + 1) h / grid) in each axis."""
    height, width = plane.shape
    cells = []
    for i in range(grid):
        for j in range(grid):
            rows = range(i * height // grid, -(-(i + 1) * height // grid))
            columns = range(j * width // grid, -(-(j + 1) * width // grid))
            values = [plane[y, x] for y in rows for x in columns]
            cells.append(sum(values) / len(values))
    return cells


def written_attention(student_maps, teacher_maps, grid) -> float:
    total = 0.0
    for maps in zip(student_maps, teacher_maps, strict=True):
        s, t = (written_pooled(plane, grid) for plane in maps)
        s_norm, t_norm = (math.sqrt(sum(v * v for v in cells)) for cells in (s, t))
        total += sum((a / s_norm - b / t_norm) ** 2 for a, b in zip(s, t, strict=True))
    return total / len(student_maps)


# --- The implementation ----------------------------------------------------------------------


def answers(logits, maps=None) -> Answers:
    as_tensor = torch.as_tensor
    return Answers(as_tensor(logits), None if maps is None else as_tensor(maps))


def loss_of(objective: Objective, student, targets, *teachers) -> float:
    return objective(student, torch.as_tensor(targets), teachers).item()


def test_the_registry_holds_what_recipes_may_name():
    assert list(Objective.registry) == list(NUMBER_OF_TEACHERS)
    for name, number in NUMBER_OF_TEACHERS.items():
        objective = build_objective(name)
        assert isinstance(objective, Objective.registry[name])
        assert [n for n in range(5) if objective.takes(n)] == (
            [2, 3, 4] if name == "multi_teacher" else [number]
        )
        assert objective.needs_maps == (name == "attention")


@TARGETS
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_labels_is_the_written_cross_entropy(targets, smoothing):
    found = loss_of(build_objective("labels", label_smoothing=smoothing), answers(LOGITS), targets)
    assert found == pytest.approx(written_ce(LOGITS, targets, smoothing), rel=1e-12)


@TARGETS
@SETTINGS
def test_hybrid_is_the_written_sum(targets, alpha, temperature, smoothing):
    objective = build_objective(
        "hybrid", alpha=alpha, temperature=temperature, label_smoothing=smoothing
    )
    expected = written_hybrid(LOGITS, targets, [TEACHER], alpha, temperature, smoothing)
    found = loss_of(objective, answers(LOGITS), targets, answers(TEACHER))
    assert found == pytest.approx(expected, rel=1e-12)


@TARGETS
@SETTINGS
@pytest.mark.parametrize("teachers", [(TEACHER, SECOND), (TEACHER, SECOND, THIRD)], ids=len)
def test_multi_teacher_is_the_written_sum(targets, alpha, temperature, smoothing, teachers):
    objective = build_objective(
        "multi_teacher", alpha=alpha, temperature=temperature, label_smoothing=smoothing
    )
    expected = written_hybrid(LOGITS, targets, teachers, alpha, temperature, smoothing)
    found = loss_of(objective, answers(LOGITS), targets, *map(answers, teachers))
    assert found == pytest.approx(expected, rel=1e-12)


@TARGETS
@SETTINGS
@pytest.mark.parametrize("grid", [2, 3, 4, 5])  # 5 cells a side of 4 x 4 maps overlap
@pytest.mark.parametrize("beta", [0.0, 1.0, 7.5])
def test_attention_is_the_written_sum(targets, alpha, temperature, smoothing, grid, beta):
    objective = build_objective(
        "attention",
        alpha=alpha, temperature=temperature, label_smoothing=smoothing, beta=beta, grid=grid,
    )  # fmt: skip
    expected = written_hybrid(LOGITS, targets, [TEACHER], alpha, temperature, smoothing)
    expected += beta * written_attention(STUDENT_MAPS, TEACHER_MAPS, grid)
    student, teacher = answers(LOGITS, STUDENT_MAPS), answers(TEACHER, TEACHER_MAPS)
    assert loss_of(objective, student, targets, teacher) == pytest.approx(expected, rel=1e-12)


def test_features_is_the_written_mean_of_squares():
    expected = sum(
        (a - b) ** 2
        for s, t in zip(LOGITS, TEACHER, strict=True)
        for a, b in zip(s, t, strict=True)
    ) / (N * K)
    found = loss_of(build_objective("features"), answers(LOGITS), ONE_HOT, answers(TEACHER))
    assert found == pytest.approx(expected, rel=1e-12)


# --- Gradients -------------------------------------------------------------------------------


def gradient_inputs():
    return [torch.tensor(a, requires_grad=True) for a in (LOGITS, STUDENT_MAPS)]


@TARGETS
@pytest.mark.parametrize("name", Objective.registry)
def test_the_gradient_is_the_derivative(name, targets):
    objective = build_objective(name, **({} if name == "features" else {"label_smoothing": 0.05}))
    teachers = [answers(t, TEACHER_MAPS) for t in (TEACHER, SECOND, THIRD)]
    teachers = teachers[: NUMBER_OF_TEACHERS[name]]

    def loss(logits, maps):
        return objective(Answers(logits, maps), torch.as_tensor(targets), teachers)

    logits, maps = gradient_inputs()
    assert torch.autograd.gradcheck(loss, (logits, maps))
    loss(logits, maps).backward()
    assert logits.grad.abs().min() > 0
    assert (maps.grad is not None) == (name == "attention")


def test_the_soft_gradient_keeps_its_scale_at_any_temperature():
    # Hinton et al., 2015, section 2.1: with T^2, the gradient tends to centred logit differences.
    sizes = []
    for temperature in (20.0, 200.0):
        logits, _ = gradient_inputs()
        objective = build_objective("hybrid", alpha=1.0, temperature=temperature)
        objective(Answers(logits), torch.as_tensor(ONE_HOT), [answers(TEACHER)]).backward()
        sizes.append(logits.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
    centred = [z - z.mean(axis=1, keepdims=True) for z in (LOGITS, TEACHER)]
    assert sizes[1] == pytest.approx(np.linalg.norm((centred[0] - centred[1]) / K / N), rel=0.01)


def test_the_attention_term_moves_the_student_towards_the_teachers_places():
    maps = torch.tensor(STUDENT_MAPS, requires_grad=True)
    objective = build_objective("attention", alpha=0.0, grid=4)
    targets, teacher = torch.as_tensor(ONE_HOT), answers(TEACHER, TEACHER_MAPS)
    before = objective(Answers(torch.as_tensor(LOGITS), maps), targets, [teacher])
    before.backward()
    with torch.no_grad():
        after = objective(
            Answers(torch.as_tensor(LOGITS), maps - 0.5 * maps.grad), targets, [teacher]
        )
    assert after < before


# --- At the limits ---------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize("name", ["hybrid", "multi_teacher", "attention"])
def test_alpha_0_leaves_the_labels_alone(name, targets):
    settings = dict(alpha=0.0, label_smoothing=0.1) | ({"beta": 0.0} if name == "attention" else {})
    teachers = [answers(t, TEACHER_MAPS) for t in (TEACHER, SECOND, THIRD)]
    student = answers(LOGITS, STUDENT_MAPS)
    found = loss_of(
        build_objective(name, **settings), student, targets, *teachers[: NUMBER_OF_TEACHERS[name]]
    )
    assert found == loss_of(build_objective("labels", label_smoothing=0.1), student, targets)


@pytest.mark.parametrize("name", ["hybrid", "multi_teacher", "attention"])
def test_alpha_1_does_not_look_at_the_labels(name):
    objective = build_objective(name, alpha=1.0)
    teachers = [answers(t, TEACHER_MAPS) for t in (TEACHER, SECOND, THIRD)]
    losses = {
        loss_of(
            objective,
            answers(LOGITS, STUDENT_MAPS),
            targets,
            *teachers[: NUMBER_OF_TEACHERS[name]],
        )
        for targets in (ONE_HOT, MIXED, ONE_HOT[::-1].copy())
    }
    assert len(losses) == 1


@pytest.mark.parametrize("name", ["hybrid", "multi_teacher", "attention"])
def test_alpha_1_is_content_with_a_student_equal_to_its_teachers(name):
    logits, maps = gradient_inputs()
    teachers = [answers(LOGITS, STUDENT_MAPS)] * NUMBER_OF_TEACHERS[name]
    loss = build_objective(name, alpha=1.0, temperature=2.0)(
        Answers(logits, maps), torch.as_tensor(ONE_HOT), teachers
    )
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.abs().max().item() < 1e-12
    assert maps.grad is None or maps.grad.abs().max().item() < 1e-12


def test_logits_that_differ_by_a_constant_are_the_same_answer():
    objective = build_objective("hybrid", alpha=1.0)
    assert loss_of(objective, answers(LOGITS + 3.0), ONE_HOT, answers(LOGITS)) == pytest.approx(
        0, abs=1e-12
    )


@TARGETS
@pytest.mark.parametrize("number", [2, 3, 5])
def test_the_same_teacher_several_times_is_one_teacher(targets, number):
    settings = dict(alpha=0.7, temperature=2.5, label_smoothing=0.05)
    several = build_objective("multi_teacher", **settings)
    one = build_objective("hybrid", **settings)
    found = loss_of(several, answers(LOGITS), targets, *[answers(TEACHER)] * number)
    assert found == pytest.approx(
        loss_of(one, answers(LOGITS), targets, answers(TEACHER)), rel=1e-12
    )


def test_the_order_of_the_teachers_does_not_matter():
    objective, student = build_objective("multi_teacher"), answers(LOGITS)
    teachers = [answers(t) for t in (TEACHER, SECOND, THIRD)]
    assert loss_of(objective, student, ONE_HOT, *teachers) == pytest.approx(
        loss_of(objective, student, ONE_HOT, *teachers[::-1]), rel=1e-12
    )


def test_teachers_are_averaged_as_probabilities_and_not_as_logits():
    """A teacher that is sure counts for more than its share of the mean of logits."""
    sure, unsure = np.array([[40.0, 0.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0, 0.0]])
    objective = build_objective("multi_teacher", alpha=1.0, temperature=1.0)
    p = [(1 / 2 + softmax(unsure[0])[0] / 2)] + [q / 2 for q in softmax(unsure[0])[1:]]
    student = np.log([p])
    targets = ONE_HOT[:1]
    assert loss_of(
        objective, answers(student), targets, answers(sure), answers(unsure)
    ) == pytest.approx(0, abs=1e-12)


def test_logits_without_measure_give_finite_losses_and_gradients():
    for name, number in NUMBER_OF_TEACHERS.items():
        logits = torch.tensor([[1e4, -1e4, 0.0, 50.0]], requires_grad=True)
        maps = torch.zeros(1, 4, 4, requires_grad=True)  # of no direction at all
        teachers = [answers(np.float32([[-1e4, 1e4, 0, 0]]), np.ones((1, 7, 7), np.float32))]
        loss = build_objective(name)(
            Answers(logits, maps), torch.eye(4)[:1], (teachers * 3)[:number]
        )
        loss.backward()
        assert loss.isfinite() and logits.grad.isfinite().all()
        assert maps.grad is None or maps.grad.isfinite().all()


# --- Maps ------------------------------------------------------------------------------------


def attention_alone(student_maps, teacher_maps, grid=4) -> float:
    """The attention term alone."""
    objective = build_objective("attention", alpha=1.0, beta=1.0, grid=grid)
    student, teacher = answers(LOGITS, student_maps), answers(LOGITS, teacher_maps)
    return loss_of(objective, student, ONE_HOT, teacher)


def test_equal_maps_add_nothing():
    assert attention_alone(STUDENT_MAPS, STUDENT_MAPS) == pytest.approx(0, abs=1e-12)


def test_only_where_a_map_is_high_counts_and_not_how_high():
    found = attention_alone(STUDENT_MAPS, TEACHER_MAPS)
    scales = np.geomspace(1e-3, 1e3, N).reshape(N, 1, 1)  # of each image its own
    assert attention_alone(STUDENT_MAPS * scales, TEACHER_MAPS) == pytest.approx(found, rel=1e-9)
    assert attention_alone(STUDENT_MAPS, TEACHER_MAPS / scales) == pytest.approx(found, rel=1e-9)
    assert attention_alone(STUDENT_MAPS, STUDENT_MAPS * scales) == pytest.approx(0, abs=1e-12)


def test_opposite_maps_are_as_far_apart_as_maps_can_be():
    assert attention_alone(STUDENT_MAPS, -STUDENT_MAPS) == pytest.approx(4, rel=1e-12)
    assert 0 < attention_alone(STUDENT_MAPS, TEACHER_MAPS) < 4


@pytest.mark.parametrize("teacher_side", [4, 8, 12])
def test_a_finer_grid_of_the_teacher_is_compared_by_its_cells(teacher_side):
    """A teacher's map that shows the student's cell by cell, finer, is the same map."""
    times = teacher_side // 4
    finer = STUDENT_MAPS.repeat(times, axis=1).repeat(times, axis=2)
    assert attention_alone(STUDENT_MAPS, finer) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("sides", [(1, 2), (2, 14), (5, 7), (8, 3)])
def test_grids_of_any_size_are_compared(sides):
    maps = [np.random.default_rng(side).normal(1, 2, (N, side, side)) for side in sides]
    found = attention_alone(*maps, grid=4)
    assert found == pytest.approx(written_attention(*maps, 4), rel=1e-12)


# --- Mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, number",
    [("hybrid", 0), ("hybrid", 2), ("multi_teacher", 1), ("attention", 0), ("features", 0)],
)
def test_a_wrong_number_of_teachers_is_said(name, number):
    teachers = [answers(TEACHER, TEACHER_MAPS)] * number
    sentence = rf"The objective '{name}' cannot do with {number} teachers\."
    with pytest.raises(ValueError, match=sentence):
        loss_of(build_objective(name), answers(LOGITS, STUDENT_MAPS), ONE_HOT, *teachers)


@pytest.mark.parametrize("lacking", ["student", "teacher"])
def test_missing_maps_are_said(lacking):
    student = answers(LOGITS, None if lacking == "student" else STUDENT_MAPS)
    teacher = answers(TEACHER, None if lacking == "teacher" else TEACHER_MAPS)
    with pytest.raises(ValueError, match=r"The objective 'attention' needs the class maps\."):
        loss_of(build_objective("attention"), student, ONE_HOT, teacher)


@pytest.mark.parametrize("name", ["hybrid", "multi_teacher", "attention"])
@pytest.mark.parametrize(
    "settings, sentence",
    [
        (dict(alpha=1.5), r"alpha must lie in \[0, 1\], not 1\.5\."),
        (dict(alpha=-0.1), r"alpha must lie in \[0, 1\], not -0\.1\."),
        (dict(alpha=math.nan), r"alpha must lie in \[0, 1\], not nan\."),
        (dict(temperature=0), r"The temperature must be above 0 and finite, not 0\."),
        (dict(temperature=-2.0), r"The temperature must be above 0 and finite, not -2\.0\."),
        (dict(temperature=math.inf), r"The temperature must be above 0 and finite, not inf\."),
        (dict(label_smoothing=1.1), r"label_smoothing must lie in \[0, 1\], not 1\.1\."),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_objective(name, **settings)


@pytest.mark.parametrize("settings", [dict(beta=-1.0), dict(grid=1), dict(grid=4.5), dict(grid=0)])
def test_settings_of_attention_out_of_range_are_refused(settings):
    sentence = "beta must be at least 0 and grid a whole number of at least 2, not"
    with pytest.raises(ValueError, match=sentence):
        build_objective("attention", **settings)


def test_a_setting_of_another_objective_is_refused():
    sentence = "'hybrid' has no setting 'beta'; it has: alpha, temperature, label_smoothing"
    with pytest.raises(ValueError, match=sentence):
        build_objective("hybrid", beta=1.0)


def test_an_unknown_objective_is_refused_with_the_known_ones():
    known = "labels, hybrid, multi_teacher, attention, features"
    with pytest.raises(ValueError, match=rf"no objective 'mse'; there are: {known}\."):
        build_objective("mse")


@pytest.mark.parametrize(
    "name, settings, weight",
    [
        ("labels", {}, 0),
        ("hybrid", {"alpha": 0.25}, 0.25),
        ("hybrid", {"alpha": 0}, 0),
        ("multi_teacher", {"alpha": 0.5}, 0.5),
        ("attention", {"alpha": 0.5, "beta": 2}, 2.5),
        ("attention", {"alpha": 0, "beta": 0}, 0),
        ("features", {}, 1),
    ],
)
def test_a_teacher_of_no_weight_changes_nothing(name, settings, weight):
    objective = build_objective(name, **settings)
    assert objective.teacher_weight == weight
    if name == "labels":
        return
    torch.manual_seed(0)
    said = [Answers(torch.randn(4, 3), torch.randn(4, 6, 6)) for _ in range(4)]
    targets = torch.eye(3)[[0, 1, 2, 0]]
    number = objective.teachers[0]
    first, second = (objective(said[0], targets, [said[i]] * number) for i in (1, 2))
    assert (first == second) == (weight == 0)
