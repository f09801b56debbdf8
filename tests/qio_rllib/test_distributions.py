"""Distributions over arrays agree with torch's and RLlib's, masked actions included."""

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.distribution.torch.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchSquashedGaussian,
)
from scipy import stats

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import Distributions, sample, uniform_inputs
from qio_rllib.acting.module_actor import check_distribution

LEAST = float(np.finfo(np.float32).min)
DISCRETE, BOX = gymnasium.spaces.Discrete(5), gymnasium.spaces.Box(-1, 1, (3,), np.float32)


def module_of(space):
    return DefaultPPOTorchRLModule(
        observation_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
        action_space=space,
        model_config={"fcnet_hiddens": [4]},
    )


def drawn(kind, inputs, rng):
    """Return actions and log-probabilities of samples; without random numbers, of the most probable actions."""
    noise = None
    if rng is not None:
        discrete = kind == "discrete"
        noise = (
            rng.random(len(inputs), np.float32)
            if discrete
            else rng.standard_normal((len(inputs), 3), np.float32)
        )
    return sample(inputs, kind == "discrete", False, noise)


def parameters(kind, seed, rows=20):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 5 if kind == "discrete" else 6), scale=1.5).astype(np.float32)


def pair(kind, inputs):
    """Return ours and RLlib's over the same numbers, each with gradients of its own."""
    ours, theirs = (torch.tensor(inputs, dtype=torch.float64, requires_grad=True) for _ in range(2))
    stock = (TorchCategorical if kind == "discrete" else TorchDiagGaussian).from_logits(theirs)
    return ours, Distributions(ours, kind == "discrete"), theirs, stock


@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_values_and_gradients_are_those_of_rllib(kind):
    inputs, others = parameters(kind, 0), parameters(kind, 1)
    other_leaf, other, their_leaf, their_other = pair(kind, others)
    actions = (
        torch.arange(20) % 5 if kind == "discrete" else torch.tensor(parameters("box", 2)[:, :3]).double()
    )
    for name, ours_of, theirs_of in (
        ("logp", lambda d: d.logp(actions), lambda d: d.logp(actions)),
        ("entropy", lambda d: d.entropy(), lambda d: d.entropy()),
        ("divergence", lambda d: d.divergence(other), lambda d: d.kl(their_other)),
    ):
        leaf, ours, stock_leaf, stock = pair(kind, inputs)
        found, expected = ours_of(ours), theirs_of(stock)
        assert found.shape == (20,)
        torch.testing.assert_close(found, expected, msg=name)
        weights = torch.linspace(-1, 2, 20).double()
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(leaf.grad, stock_leaf.grad, msg=name)
    torch.testing.assert_close(other_leaf.grad, their_leaf.grad)  # of the divergence, in its second argument


def test_divergence_is_that_of_torch():
    one, two = torch.tensor(parameters("box", 0)), torch.tensor(parameters("box", 1))
    normals = [torch.distributions.Normal(x[:, :3], x[:, 3:].exp()) for x in (one, two)]
    expected = torch.distributions.kl_divergence(*normals).sum(-1)
    torch.testing.assert_close(Distributions(one, False).divergence(Distributions(two, False)), expected)


def test_masked_actions_have_probability_0_and_gradients_stay_finite():
    logits = torch.tensor([[1.0, LEAST, 0.5, LEAST], [30.0, LEAST, LEAST, LEAST]], requires_grad=True)
    old = Distributions(torch.tensor([[0.0, LEAST, 2.0, LEAST], [0.0, LEAST, LEAST, LEAST]]), True)
    policy = Distributions(logits, True)
    assert policy.probs[0, 1] == policy.probs[0, 3] == 0
    assert torch.isfinite(policy.log_probs).all()
    bare = torch.distributions.Categorical(logits=torch.tensor([1.0, 0.5]))
    assert policy.entropy()[0].item() == pytest.approx(bare.entropy().item(), rel=1e-6)
    assert policy.entropy()[1] == 0
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=torch.tensor([0.0, 2.0])), bare
    )
    assert old.divergence(policy)[0].item() == pytest.approx(expected.item(), rel=1e-5)
    total = (
        policy.entropy() + old.divergence(policy) + policy.divergence(old) + policy.logp(torch.tensor([2, 0]))
    )
    total.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[:, [1, 3]].any()
    assert logits.grad[0, [0, 2]].all()


@pytest.mark.parametrize("kind", ["discrete", "box"])
@pytest.mark.parametrize("explore", [True, False])
def test_the_samplers_logp_is_that_of_the_distribution(kind, explore):
    inputs = parameters(kind, 3, rows=500)
    rng = np.random.default_rng(0) if explore else None
    actions, logp = drawn(kind, inputs, rng)
    assert actions.dtype == (np.int64 if kind == "discrete" else np.float32)
    assert actions.shape == ((500,) if kind == "discrete" else (500, 3))
    assert (logp.dtype, logp.shape) == (np.float32, (500,))
    expected = Distributions(torch.tensor(inputs).double(), kind == "discrete").logp(torch.tensor(actions))
    np.testing.assert_allclose(logp, expected, rtol=1e-5, atol=2e-4)
    if not explore:
        np.testing.assert_array_equal(actions, inputs.argmax(-1) if kind == "discrete" else inputs[:, :3])


def test_actions_come_as_often_as_their_probability_says():
    row = np.array([[0.3, -1.0, LEAST, 1.2, -2.5]], np.float32)
    actions, _ = drawn("discrete", np.repeat(row, 40_000, axis=0), np.random.default_rng(5))
    counts = np.bincount(actions, minlength=5)
    assert counts[2] == 0
    legal = [0, 1, 3, 4]
    expected = torch.softmax(torch.tensor(row[0, legal]).double(), 0).numpy() * 40_000
    assert stats.chisquare(counts[legal], expected).pvalue > 0.01


def test_gaussian_actions_have_their_mean_and_deviation():
    row = np.array([[0.5, -2.0, 0.0, 0.0, -1.0, 1.0]], np.float32)
    actions, _ = drawn("box", np.repeat(row, 20_000, axis=0), np.random.default_rng(5))
    scaled = (actions - row[:, :3]) / np.exp(row[:, 3:])
    for column in scaled.T:
        assert stats.kstest(column, "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(scaled.T) - np.eye(3)).max() < 0.03


class Extreme:
    """Draws only the ends of [0, 1)."""

    def random(self, shape, dtype):
        draws = np.zeros(shape, dtype)
        draws[1::2] = 1 - 2.0**-24  # the largest that NumPy gives
        return draws


def test_masked_actions_are_never_taken_at_the_ends_of_the_draw():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(4000, 5), scale=3).astype(np.float32)
    mask = rng.random((4000, 5)) < 0.4
    mask[np.arange(4000), rng.integers(5, size=4000)] = True
    inputs[~mask] = LEAST
    for source in (Extreme(), np.random.default_rng(1)):
        actions, logp = drawn("discrete", inputs, source)
        assert mask[np.arange(4000), actions].all()
        assert np.isfinite(logp).all()


def test_uniform_play_is_over_legal_actions():
    inputs = parameters("discrete", 0, rows=6)
    mask = np.ones((2, 3, 5), bool)
    mask[0, 1, [0, 4]] = False
    uniform = uniform_inputs(inputs.reshape(2, 3, 5), mask).reshape(6, 5)
    probs = Distributions(torch.tensor(uniform), True).probs.numpy()
    np.testing.assert_allclose(probs[1], [0, 1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(np.delete(probs, 1, 0), 0.2, rtol=1e-6)
    assert not uniform_inputs(parameters("box", 0), None).any()


class Squashed(DefaultPPOTorchRLModule):
    def get_exploration_action_dist_cls(self):
        return TorchSquashedGaussian.get_partial_dist_cls(low=-1, high=1)


class Tempered(DefaultPPOTorchRLModule):
    def get_train_action_dist_cls(self):
        return type("TemperedCategorical", (TorchCategorical,), {})


@pytest.mark.parametrize(
    ("module_class", "space", "message"),
    [
        (Squashed, BOX, "need TorchDiagGaussian, the module has .*Squashed"),
        (Tempered, DISCRETE, "need TorchCategorical, the module has TemperedCategorical"),
    ],
)
def test_other_distributions_are_refused(module_class, space, message):
    module = module_of(space)
    module.__class__ = module_class
    with pytest.raises(ConfigError, match=message):
        check_distribution(module, space)
