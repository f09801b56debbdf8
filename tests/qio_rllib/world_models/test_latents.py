"""Latent distributions against ``torch.distributions``, and the balanced divergence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributions

from qio_rllib.world_models.latents import (
    CategoricalLatent,
    GaussianLatent,
    Statistics,
    balanced_divergence,
)

LATENTS = [GaussianLatent(6), CategoricalLatent(3, 5)]


def outputs(latent, rows=4, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, latent.num_outputs, generator=generator, dtype=torch.float64)


def reference(latent, statistics):
    """The same distribution of torch, one event a row."""
    if isinstance(latent, GaussianLatent):
        return distributions.Independent(distributions.Normal(*statistics), 1)
    return distributions.Independent(distributions.OneHotCategorical(probs=statistics.first), 1)


@pytest.mark.parametrize("latent", LATENTS, ids=lambda latent: type(latent).__name__)
def test_the_divergence_is_that_of_torch(latent):
    q, p = (latent.statistics(outputs(latent, seed=seed)) for seed in (1, 2))
    expected = distributions.kl_divergence(reference(latent, q), reference(latent, p))
    torch.testing.assert_close(latent.divergence(q, p), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("latent", LATENTS, ids=lambda latent: type(latent).__name__)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.0, 30.0), single=st.booleans())
def test_the_divergence_is_never_negative(latent, seed, scale, single):
    dtype = torch.float32 if single else torch.float64
    q = latent.statistics(outputs(latent, seed=seed, scale=scale).to(dtype))
    p = latent.statistics((outputs(latent, seed=seed, scale=scale) * 1.0001).to(dtype))
    found = latent.divergence(q, p)
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    assert torch.equal(latent.divergence(q, q), torch.zeros(4, dtype=dtype))


def test_gaussian_samples_have_their_mean_and_deviation_and_pass_gradients():
    latent = GaussianLatent(2, least_deviation=0.5)
    raw = torch.tensor([[1.0, -2.0, 0.0, 3.0]], requires_grad=True)
    statistics = latent.statistics(raw)
    torch.testing.assert_close(statistics.second, torch.nn.functional.softplus(raw[:, 2:]) + 0.5)
    many = Statistics(*(part.expand(40_000, -1) for part in statistics))
    drawn = latent.sample(many, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), statistics.first[0], atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), statistics.second[0], atol=0.05, rtol=0)
    drawn.sum().backward()
    assert (raw.grad[:, :2] == 40_000).all()
    assert torch.equal(latent.mode(statistics), statistics.first)


def test_categorical_samples_have_their_frequencies_and_the_gradient_of_the_probabilities():
    latent = CategoricalLatent(2, 3, uniform=0.3)
    raw = torch.tensor([[4.0, 0.0, -4.0, 0.0, 1.0, 0.0]], requires_grad=True)
    statistics = latent.statistics(raw)
    softmax = torch.softmax(raw.reshape(1, 2, 3), -1)
    torch.testing.assert_close(statistics.first, 0.7 * softmax + 0.1)
    many = Statistics(*(part.expand(40_000, -1, -1) for part in statistics))
    drawn = latent.sample(many, torch.Generator().manual_seed(0)).reshape(-1, 2, 3)
    assert torch.equal(drawn.detach().sum(-1), torch.ones(40_000, 2))
    torch.testing.assert_close(drawn.detach().mean(0), statistics.first[0].detach(), atol=0.01, rtol=0)
    weights = torch.randn(6, generator=torch.Generator().manual_seed(1))
    one = latent.sample(statistics, torch.Generator().manual_seed(2))
    (found,) = torch.autograd.grad((one * weights).sum(), raw, retain_graph=True)
    (expected,) = torch.autograd.grad((statistics.first.flatten(1) * weights).sum(), raw)
    torch.testing.assert_close(found, expected)
    assert torch.equal(latent.mode(statistics), torch.tensor([[1.0, 0, 0, 0, 1.0, 0]]))


@pytest.mark.parametrize("latent", LATENTS, ids=lambda latent: type(latent).__name__)
def test_each_term_of_the_balanced_divergence_trains_its_side_alone(latent):
    q_raw, p_raw = (outputs(latent, seed=seed).requires_grad_() for seed in (1, 2))
    q, p = latent.statistics(q_raw), latent.statistics(p_raw)
    plain = latent.divergence(q, p)
    for dynamics, representation, trained, other in ((0.7, 0.0, p_raw, q_raw), (0.0, 0.3, q_raw, p_raw)):
        loss = balanced_divergence(latent, q, p, dynamics, representation, free_nats=0.0)
        torch.testing.assert_close(loss, (dynamics + representation) * plain)
        found, none = torch.autograd.grad(loss.sum(), (trained, other), retain_graph=True, allow_unused=True)
        assert found.abs().max() > 0
        assert none is None or none.abs().max() == 0
    loss = balanced_divergence(latent, q, p, 0.5, 0.1, free_nats=1e6)
    torch.testing.assert_close(loss, torch.full_like(loss, 0.6e6))
    (found,) = torch.autograd.grad(loss.sum(), q_raw)
    assert found.abs().max() == 0
