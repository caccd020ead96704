"""`kdmodels.explain.surrogate`: the Gaussian process of scikit-learn, and a design that keeps its word."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, WhiteKernel

from kdmodels.explain.channels import unit_masks
from kdmodels.explain.similarity import pearson
from kdmodels.explain.surrogate import KERNELS, PRIOR, Surrogate
from tests.kdmodels.explain.generated import hills, scores_of


@pytest.fixture
def hundred():
    activations = hills(100, 6, 0)
    return Surrogate(unit_masks(activations), activations), scores_of(activations, 0.05)


def test_it_predicts_as_scikit_learn_does(hundred):
    surrogate, scores = hundred
    known = torch.arange(0, 100, 4)
    belief = surrogate.believe(known, scores[known])
    kernel = RBF(belief.kernel.length) + WhiteKernel(belief.kernel.noise)
    if belief.kernel.linear:
        kernel = belief.kernel.linear * DotProduct(0) + kernel
    # The level and the scale are fitted by generalised least squares: give scikit-learn the same.
    masks = surrogate.masks.numpy()
    covariance = kernel(masks[known])
    ones = np.ones(len(known))
    inverse = np.linalg.inv(covariance)
    level = ones @ inverse @ scores[known].numpy() / (ones @ inverse @ ones)
    rest = scores[known].numpy() - level
    assert belief.variance == pytest.approx(rest @ inverse @ rest / 22, rel=1e-6)  # 25 - 3
    reference = GaussianProcessRegressor(kernel, optimizer=None, alpha=0).fit(masks[known], rest)
    mean, covariance = reference.predict(masks, return_cov=True)
    other = np.setdiff1d(np.arange(100), known)
    np.testing.assert_allclose(belief.scores[other], level + mean[other], atol=1e-6)
    np.testing.assert_array_equal(belief.scores[known], scores[known])
    # scikit-learn's covariance has the noise on its diagonal; `error` is without it.
    covariance -= belief.kernel.noise * np.eye(100)
    np.testing.assert_allclose(belief.error, covariance @ belief.parts.numpy(), atol=1e-4)


def test_the_likeliest_kernel_is_taken(hundred):
    """Scikit-learn's own measure, with the fitted level and scale put in, likes no other more."""
    surrogate, scores = hundred
    known = torch.arange(0, 100, 3)
    masks, values = surrogate.masks[known].numpy(), scores[known].numpy()

    def likelihood(kernel):
        covariance = kernel(surrogate.masks[known], surrogate.masks[known]).numpy()
        covariance += kernel.noise * np.eye(len(known))
        inverse, ones = np.linalg.inv(covariance), np.ones(len(known))
        rest = values - ones @ inverse @ values / (ones @ inverse @ ones)
        scale = rest @ inverse @ rest / len(known)
        full = scale * (RBF(kernel.length) + WhiteKernel(kernel.noise))
        if kernel.linear:
            full = full + scale * kernel.linear * DotProduct(0)
        model = GaussianProcessRegressor(full, optimizer=None, alpha=0).fit(masks, rest)
        return model.log_marginal_likelihood_value_

    best = max(KERNELS, key=likelihood)
    assert surrogate.believe(known, scores[known]).kernel == best


@pytest.mark.parametrize("start", [0, 7])
def test_each_choice_lowers_the_expected_error_most(start):
    """Against the definition: condition on every candidate in turn, and take the best."""
    activations = hills(30, 5, 1)
    surrogate = Surrogate(unit_masks(activations), activations)
    scores = scores_of(activations)
    known = torch.arange(start)
    belief = surrogate.believe(known, scores[known])
    kernel, masks = belief.kernel, surrogate.masks
    parts = belief.parts - belief.parts.mean(1, keepdim=True)

    def expected_error(run):
        """Of the map about its mean, once the channels `run` are run."""
        full = kernel(masks, masks) + kernel.noise * torch.eye(30, dtype=torch.float64)
        if run:
            shared = full[:, run]
            full = full - shared @ torch.linalg.solve(full[run][:, run], shared.T)
        return torch.trace(parts.T @ full @ parts)

    run = known.tolist()
    for pick in surrogate.choose(5, belief):
        errors = {k: expected_error([*run, k]).item() for k in range(30) if k not in run}
        # The choice leaves out what running a channel tells of its own noise, which is little.
        assert errors[pick] <= min(errors.values()) * 1.02 + 1e-9
        run.append(pick)


def test_choices_are_new_and_end_with_the_last_channel(hundred):
    surrogate, scores = hundred
    first = surrogate.choose(20, surrogate.believe(torch.arange(0), scores[:0]))
    assert len(set(first)) == 20
    known = torch.tensor(first)
    rest = surrogate.choose(1000, surrogate.believe(known, scores[known]))
    assert sorted(first + rest) == list(range(100))


def belief_after(count, activations, scores):
    surrogate = Surrogate(unit_masks(activations), activations)
    nothing = torch.arange(0)
    first = surrogate.choose(count, surrogate.believe(nothing, scores[:0]))
    known = torch.tensor(first)
    belief = surrogate.believe(known, scores[known])
    exact = (scores.exp() @ surrogate.activations).relu().numpy()
    believed = (belief.scores.exp() @ surrogate.activations).relu().numpy()
    return surrogate.estimate(belief), pearson(believed, exact)


def test_the_more_is_known_the_better_and_the_surer():
    activations = hills(300, 7, 2) - 0.2  # negative places, as after a norm
    scores = scores_of(activations, 0.1)
    promised, found = zip(*(belief_after(n, activations, scores) for n in (6, 20, 80)), strict=True)
    assert promised[0] < promised[-1] and promised[-1] > 0.97
    assert found[1] > 0.97 and found[-1] > 0.99


@pytest.mark.xfail(strict=True, reason="the estimate is too sure of itself after few channels")
def test_the_promise_is_kept_more_often_than_not():
    """The estimate is meant to be exceeded by 9 in 10 maps, where the model holds."""
    kept = []
    for seed in range(20):
        activations = hills(120, 6, 100 + seed) - 0.2
        promised, found = belief_after(12, activations, scores_of(activations, 0.2, seed))
        kept.append(found >= promised)
    assert np.mean(kept) >= 0.9


@pytest.mark.parametrize("count", [24, 40])
def test_where_the_model_holds_the_promise_is_kept_as_often_as_it_is_given(count):
    """Scores are drawn from a process of the kind that is assumed; 9 maps in 10 must be better.

    And the promise is not empty: half of the maps are promised to be good.
    """
    kernel, kept, promised = KERNELS[16], [], []
    for seed in range(40):
        activations = hills(120, 6, 100 + seed) - 0.2
        masks = Surrogate(unit_masks(activations), activations).masks
        covariance = kernel(masks, masks) + kernel.noise * torch.eye(120, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(120, generator=generator, dtype=torch.float64)
        scores = torch.linalg.cholesky(covariance) @ drawn
        estimate, found = belief_after(count, activations, scores)
        promised.append(estimate)
        kept.append(found >= estimate)
    assert 0.8 <= np.mean(kept) <= 0.98
    assert np.median(promised) > 0.85


def test_equal_scores_and_equal_masks_do_no_harm():
    activations = hills(40, 5, 3)
    activations[20:] = activations[:20]
    surrogate = Surrogate(unit_masks(activations), activations)
    known = torch.tensor([0, 1, 20, 21])
    for scores in (torch.zeros(4), torch.tensor([1.0, 2.0, 1.0, 2.0])):
        belief = surrogate.believe(known, scores)
        assert belief.scores.isfinite().all() and belief.error.isfinite().all()
        assert -1 <= surrogate.estimate(belief) <= 1
    one = surrogate.believe(known[:1], torch.tensor([0.5]))
    assert torch.allclose(one.scores, torch.tensor(0.5).double())


def test_a_single_channel_and_a_single_place_are_no_special_case():
    one = torch.rand(1, 4, 4)
    surrogate = Surrogate(unit_masks(one), one)
    assert surrogate.choose(5, surrogate.believe(torch.arange(0), torch.zeros(0))) == [0]
    dot = torch.rand(6, 1, 1)
    surrogate = Surrogate(torch.ones(6, 1, 1), dot)
    belief = surrogate.believe(torch.tensor([2]), torch.tensor([0.3]))
    assert surrogate.estimate(belief) == 1.0 and len(surrogate.choose(9, belief)) == 5


def test_a_map_that_is_surely_flat_agrees_with_the_exact_one():
    """Where no place speaks for the class, the ReLU leaves nothing, whatever the scores."""
    activations = hills(60, 5, 6) - 3
    promised, found = belief_after(8, activations, scores_of(activations))
    assert promised == 1 and np.isnan(found)


def test_nothing_known_means_the_prior():
    activations = hills(10, 4, 4)
    belief = Surrogate(unit_masks(activations), activations).believe(
        torch.arange(0), torch.zeros(0)
    )
    assert belief.kernel == PRIOR and (belief.scores == 0).all()
