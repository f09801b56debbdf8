"""Rewards by classes, continuation, running scales and returns along imagined steps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qio_rllib.world_models.heads import ContinuationHead, TwoHotHead, symexp, symlog
from qio_rllib.world_models.imagination import imagine, lambda_returns, reach_weights
from qio_rllib.world_models.model import Predicted, WorldModel
from qio_rllib.world_models.scales import RunningScale


@given(st.floats(-1e4, 1e4))
def test_symexp_undoes_symlog(value):
    there = symlog(torch.tensor(value, dtype=torch.float64))
    assert abs(float(there)) == pytest.approx(np.log1p(abs(value)))
    assert float(symexp(there)) == pytest.approx(value, rel=1e-9, abs=1e-9)


@given(st.floats(-1e5, 1e5))
def test_two_hot_weights_are_two_neighbours_whose_mean_is_the_symlog(value):
    head = TwoHotHead(2, (4,), "silu", num_bins=21, limit=8.0)
    weights = head.two_hot(torch.tensor([value]))[0]
    places = torch.nonzero(weights).flatten()
    assert len(places) in (1, 2)
    assert len(places) == 1 or places[1] == places[0] + 1
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
    expected = np.clip(np.sign(value) * np.log1p(abs(value)), -8.0, 8.0)
    assert float((weights * head.bins).sum()) == pytest.approx(expected, abs=1e-4)


def test_a_new_head_predicts_zero_and_learns_the_mean_of_what_it_is_told():
    torch.manual_seed(0)
    head = TwoHotHead(1, (16,), "silu")
    rows = torch.tensor([[-1.0], [1.0]]).repeat(32, 1)
    assert head.mean(rows).abs().max() < 1e-6
    targets = torch.where(rows[:, 0] > 0, 250.0, -3.0)
    optimizer = torch.optim.Adam(head.parameters(), 0.01)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(rows, targets).mean().backward()
        optimizer.step()
    torch.testing.assert_close(head.mean(rows), targets, rtol=0.05, atol=0.1)


def test_the_loss_of_a_head_is_the_cross_entropy_of_its_two_hot_targets():
    torch.manual_seed(0)
    head = TwoHotHead(3, (8,), "tanh")
    torch.nn.init.normal_(head.layers[-1].weight)
    rows, targets = torch.randn(5, 3), torch.tensor([0.0, 1.0, -20.0, 3e3, 1e9])
    logits = head(rows)
    expected = torch.nn.functional.cross_entropy(logits, head.two_hot(targets), reduction="none")
    torch.testing.assert_close(head.loss(rows, targets), expected)
    assert torch.equal(head.two_hot(targets)[-1], torch.eye(len(head.bins))[-1])


def test_continuation_is_a_probability_with_the_cross_entropy_as_its_loss():
    torch.manual_seed(0)
    head = ContinuationHead(2, (4,), "silu")
    rows, goes_on = torch.randn(6, 2), torch.tensor([1.0, 0, 1, 0, 1, 1])
    probability = head(rows)
    assert probability.shape == (6,)
    expected = -(goes_on * probability.log() + (1 - goes_on) * (1 - probability).log())
    torch.testing.assert_close(head.loss(rows, goes_on), expected)


def test_a_running_scale_has_the_moments_of_all_rows():
    rows = (
        torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50.0, 0.0]) + 7
    )
    scale = RunningScale(3)
    assert torch.equal(scale(rows), rows)
    for part in rows.split([1, 60, 0, 139]):
        scale.update(part)
    torch.testing.assert_close(scale.mean, rows.mean(0))
    torch.testing.assert_close(scale.deviation[:2], rows.std(0, unbiased=False)[:2])
    assert float(scale.deviation[2]) == pytest.approx(1e-3)
    torch.testing.assert_close(scale.inverse(scale(rows)), rows)


def test_lambda_returns_are_those_of_the_recursion_written_out():
    rng = np.random.default_rng(0)
    rewards, ends, values = rng.normal(size=(4, 3)), rng.uniform(size=(4, 3)), rng.normal(size=(5, 3))
    gamma, lambda_ = 0.9, 0.7
    found = lambda_returns(*map(torch.from_numpy, (rewards, ends, values)), gamma, lambda_)
    for t in range(4):
        # Sum over n-step returns, weighted (1 - lambda) lambda^(n - 1), the longest with what is left.
        expected = np.zeros(3)
        for n in range(1, 5 - t):
            total, discount = np.zeros(3), np.ones(3)
            for k in range(t, t + n):
                total += discount * rewards[k]
                discount *= gamma * ends[k]
            last = n == 4 - t
            weight = lambda_ ** (n - 1) * (1.0 if last else 1 - lambda_)
            expected += weight * (total + discount * values[t + n])
        np.testing.assert_allclose(found[t], expected)


def test_steps_count_by_the_chance_that_they_are_reached():
    ends = torch.tensor([[0.5], [0.0], [1.0]], requires_grad=True)
    found = reach_weights(ends, 0.8)
    torch.testing.assert_close(found, torch.tensor([[1.0], [0.4], [0.0]]))
    assert not found.requires_grad


class Counting(WorldModel):
    """A state that each action is added to; the reward is the state before."""

    obs_size = num_actions = state_size = feature_size = 1

    def observe(self, state, action, obs, generator=None, others=None):
        return obs

    def features(self, state):
        return state

    def decode(self, state):
        return state

    def step(self, state, action, generator=None, others=None):
        return Predicted(state + action, state[:, 0], torch.full((len(state),), 0.5))

    def learn(self, batch, generator):
        raise NotImplementedError


def test_imagined_steps_follow_the_behaviour():
    found = imagine(Counting(), torch.tensor([[1.0], [5.0]]), lambda features: features * 2, 3)
    assert found.states[..., 0].tolist() == [[1, 5], [3, 15], [9, 45], [27, 135]]
    assert found.rewards.tolist() == [[1, 5], [3, 15], [9, 45]]
    assert found.actions[..., 0].tolist() == [[2, 10], [6, 30], [18, 90]]


def test_returns_of_candidates_discount_by_gamma_and_continuation():
    actions = torch.tensor([[[[1.0], [1.0]], [[0.0], [10.0]]]])  # [1, 2, 2, 1]
    start = torch.tensor([[2.0]])
    found = Counting().returns(start, actions, 0.9)
    torch.testing.assert_close(found, torch.tensor([[2 + 0.45 * 3, 2 + 0.45 * 2]]))
    found = Counting().returns(start, actions, 0.9, value=lambda features: features[:, 0])
    torch.testing.assert_close(found, torch.tensor([[3.35 + 0.45**2 * 4, 2.9 + 0.45**2 * 12]]))
