"""`train.objectives` against the written equations in float64."""

import numpy as np
import pytest
import torch

from train.objectives import Objective, build_objective

GENERATOR = np.random.default_rng(5)
LOGITS, TEACHER = GENERATOR.normal(0, 2, (2, 7, 4))
ONE_HOT = np.eye(4)[GENERATOR.integers(0, 4, 7)]
MIXED = GENERATOR.dirichlet(np.ones(4), 7)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    powers = np.exp(logits / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def written_ce(logits, targets, smoothing=0.0):
    smooth = (1 - smoothing) * targets + smoothing / targets.shape[1]
    return -(smooth * np.log(softmax(logits))).sum(axis=1).mean()


def written_hybrid(logits, targets, teacher, alpha, temperature, smoothing):
    p, q = softmax(teacher, temperature), softmax(logits, temperature)
    kl = (p * np.log(p / q)).sum(axis=1).mean()
    return (1 - alpha) * written_ce(logits, targets, smoothing) + alpha * temperature**2 * kl


def tensors(*arrays):
    return [torch.from_numpy(a) for a in arrays]


@pytest.mark.parametrize("targets", [ONE_HOT, MIXED], ids=["one-hot", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_is_the_written_cross_entropy(targets, smoothing):
    loss = build_objective("labels", label_smoothing=smoothing)(*tensors(LOGITS, targets), None)
    assert loss.item() == pytest.approx(written_ce(LOGITS, targets, smoothing), rel=1e-12)


@pytest.mark.parametrize("targets", [ONE_HOT, MIXED], ids=["one-hot", "mixed"])
@pytest.mark.parametrize("alpha, temperature, smoothing", [(0.6, 3.0, 0.05), (0.3, 1.0, 0.0)])
def test_hybrid_is_the_written_sum(targets, alpha, temperature, smoothing):
    objective = build_objective(
        "hybrid", alpha=alpha, temperature=temperature, label_smoothing=smoothing
    )
    expected = written_hybrid(LOGITS, targets, TEACHER, alpha, temperature, smoothing)
    assert objective(*tensors(LOGITS, targets, TEACHER)).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_alpha_0_leaves_the_labels_alone():
    logits, targets, teacher = tensors(LOGITS, MIXED, TEACHER)
    hybrid = build_objective("hybrid", alpha=0.0, label_smoothing=0.1)(logits, targets, teacher)
    assert torch.equal(
        hybrid, build_objective("labels", label_smoothing=0.1)(logits, targets, None)
    )


def test_alpha_1_is_content_with_a_student_equal_to_its_teacher():
    logits, targets, teacher = tensors(LOGITS.copy(), ONE_HOT, LOGITS)
    logits.requires_grad_()
    loss = build_objective("hybrid", alpha=1.0, temperature=2.0)(logits, targets, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.abs().max().item() < 1e-12


@pytest.mark.parametrize("name", Objective.registry)
def test_the_gradient_is_the_derivative(name):
    logits, targets, teacher = tensors(LOGITS, MIXED, TEACHER)
    objective = build_objective(name, label_smoothing=0.05)
    assert torch.autograd.gradcheck(
        lambda x: objective(x, targets, teacher), logits.clone().requires_grad_()
    )


def test_the_soft_gradient_keeps_its_scale_at_any_temperature():
    # Hinton et al., 2015, section 2.1: with T^2, the gradient tends to centred logit differences.
    logits, targets, teacher = tensors(LOGITS, ONE_HOT, TEACHER)
    sizes = []
    for temperature in (20.0, 200.0):
        x = logits.clone().requires_grad_()
        build_objective("hybrid", alpha=1.0, temperature=temperature)(
            x, targets, teacher
        ).backward()
        sizes.append(x.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_hybrid_says_that_the_teacher_is_missing():
    with pytest.raises(ValueError, match=r"The hybrid objective needs the teacher's logits\."):
        build_objective("hybrid")(*tensors(LOGITS, ONE_HOT), None)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (dict(alpha=1.5), r"alpha must lie in \[0, 1\], not 1\.5\."),
        (dict(alpha=-0.1), r"alpha must lie in \[0, 1\], not -0\.1\."),
        (dict(temperature=0), r"The temperature must be above 0, not 0\."),
        (dict(temperature=-2.0), r"The temperature must be above 0, not -2\.0\."),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_objective("hybrid", **settings)


def test_an_unknown_objective_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no objective 'mse'; there are: labels, hybrid\."):
        build_objective("mse")
