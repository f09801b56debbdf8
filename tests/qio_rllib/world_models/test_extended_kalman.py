"""The filter over sequences: beliefs and gradients against autograd through single steps."""

import numpy as np
import pytest
import torch
from test_kalman import SIZE, model_of

from qio_rllib.world_models.extended_kalman import LARGEST, filtered
from qio_rllib.world_models.kalman import Belief

STEPS, ROWS = 5, 3


def case(spread=0.3, large=1.0, seed=0):
    """Return a model in float64 and what its filter is given; ``large`` scales the beliefs to begin with."""
    model = model_of(spread).double()
    rng = np.random.default_rng(seed)
    means = torch.from_numpy(large * rng.normal(size=(STEPS, ROWS, SIZE)))
    roots = torch.from_numpy(rng.normal(size=(STEPS, ROWS, SIZE, SIZE)))
    covariances = large**2 * roots @ roots.transpose(-1, -2)
    fresh = torch.zeros(STEPS, ROWS, dtype=torch.bool)
    fresh[0] = True
    fresh[2, 1] = fresh[3, 1] = fresh[4, 2] = True
    actions = torch.from_numpy(rng.uniform(-1, 1, (STEPS, ROWS, 1)))
    observed = torch.from_numpy(rng.normal(size=(STEPS, ROWS, 2)))
    return model, means.requires_grad_(), covariances.requires_grad_(), fresh, actions, observed


def by_single_steps(model, means, covariances, fresh, actions, observed):
    """Return means, errors, variances and the beliefs before each step, by the operations of single steps."""
    belief, dynamics = Belief(means[0], covariances[0]), model._dynamics()
    found, before = [], []
    for t in range(len(means)):
        begins = fresh[t].unsqueeze(-1)
        belief = Belief(
            torch.where(begins, means[t], belief.mean),
            torch.where(begins.unsqueeze(-1), covariances[t], belief.covariance),
        )
        before.append(belief)
        one = model._conditioned(model._moved(belief, actions[t], dynamics), observed[t])
        found.append((one.belief.mean, one.errors, one.variances))
        belief = one.belief
    parts = [torch.stack(part) for part in zip(*found, strict=True)]
    return [*parts, *(torch.stack(part) for part in zip(*before, strict=True))]


def gradients_of(outputs, model, means, covariances):
    """Return gradients of a sum of all outputs with weights that differ."""
    rng = np.random.default_rng(1)
    loss = sum((output * torch.from_numpy(rng.normal(size=output.shape))).sum() for output in outputs[:3])
    filtering = [*model.linear.parameters(), *model.first.parameters(), *model.last.parameters()]
    return torch.autograd.grad(loss, [*filtering, model.motion, model.sensor, means, covariances])


def test_beliefs_and_gradients_are_those_of_single_steps():
    given = case()
    model, means, covariances, *_ = given
    expected = by_single_steps(*given)
    found = filtered(model._moves(), *given[1:])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert not found.means_before.requires_grad
    gradients = gradients_of(found, model, means, covariances)
    for one, other in zip(gradients, gradients_of(expected, model, means, covariances), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
        assert one.any()
    assert not gradients[-2][~given[3]].any()  # beliefs to begin with, where nothing begins


@pytest.mark.parametrize(("large", "what"), [(12.0, "covariance"), (200.0, "mean")])
def test_what_is_held_back_has_the_gradients_of_single_steps_too(large, what):
    given = case(spread=0.05, large=large)
    model, means, covariances, *_ = given
    expected = by_single_steps(*given)
    moved = model._moved(Belief(means[0], covariances[0]), given[4][0], model._dynamics())
    if what == "mean":
        assert (moved.mean.abs() == LARGEST).any()
        assert (moved.mean.abs() < LARGEST).any()
    variance = moved.covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    torch.testing.assert_close(variance.max(), variance.new_tensor(LARGEST))
    found = filtered(model._moves(), *given[1:])
    torch.testing.assert_close(found.means, expected[0], rtol=1e-9, atol=1e-9)
    for one, other in zip(
        gradients_of(found, model, means, covariances),
        gradients_of(expected, model, means, covariances),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_in_single_precision_it_comes_as_near():
    model, *given = case()
    expected = filtered(model._moves(), *given)
    single = [array.float() if array.is_floating_point() else array for array in given]
    found = filtered(model.float()._moves(), *single)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other.float(), rtol=1e-3, atol=1e-3)


def test_what_is_not_finite_stays_so():
    model, means, covariances, fresh, actions, observed = case()
    observed[1, 0, 0] = float("nan")
    found = filtered(model._moves(), means, covariances, fresh, actions, observed)
    assert torch.isnan(found.means[1:, 0]).any(-1).all()
    assert torch.isfinite(found.means[:, 1:]).all()
