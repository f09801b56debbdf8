"""Rollouts are cut and joined without loss; advantages are those of the equation."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.utils.minibatch_utils import ShardEpisodesIterator

from qio_rllib.learners.advantages import compute_advantages
from qio_rllib.sampling.rollout import ModuleRollout, Rollout, join

checks = settings(deadline=None, derandomize=True, max_examples=60)


def made_up(steps, envs, agents, seed, ends=0.25, absent=0.3, masked=True):
    """Return a rollout in which agents die, are cut, appear and are away, and values for it."""
    rng = np.random.default_rng(seed)
    shape = (steps, envs, agents)
    acted = rng.random(shape) >= absent
    over = acted & (rng.random(shape) < ends)
    terminated = over & (rng.random(shape) < 0.5)
    truncated = over & ~terminated
    # An agent that does not act in the next step has ended in this one, as runners see to.
    truncated[:-1] |= acted[:-1] & ~acted[1:] & ~terminated[:-1]
    final_index = np.argwhere(truncated)
    fresh = rng.random((envs, agents)) < 0.5
    part = ModuleRollout(
        agents=tuple(f"agent_{m}" for m in range(agents)),
        observations=rng.random((steps + 1, envs, agents, 2), np.float32),
        action_mask=rng.random((steps + 1, envs, agents, 4)) < 0.5 if masked else None,
        actions=rng.integers(4, size=shape),
        rewards=rng.normal(size=shape).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        acted=acted,
        continues=acted & ~over,
        fresh=fresh,
        final_index=final_index,
        final_observations=rng.random((len(final_index), 2), np.float32),
        global_states=rng.random((steps + 1, envs, 3), np.float32),
        final_global_states=rng.random((len(final_index), 3), np.float32),
        columns={
            "logp": rng.random(shape, np.float32),
            "messages": rng.random((*shape, 2), np.float32),
            "delivered": rng.random((*shape, agents)) < 0.5,
        },
        memory={"policy": rng.random((-(-steps // 2), *shape[1:], 5), np.float32)},
        memory_interval=2,
        agent_index=np.arange(agents),
    )
    values = rng.normal(size=(steps + 1, envs, agents)).astype(np.float32)
    return part, values, rng.normal(size=len(final_index)).astype(np.float32)


def by_the_equation(part, values, final_values, gamma, lambda_):
    """Sum discounted residuals forwards, one agent and one step at a time, up to the end of its life."""
    final = {
        tuple(index): value for index, value in zip(part.final_index.tolist(), final_values, strict=True)
    }
    out = np.zeros(part.rewards.shape)
    for t, e, m in np.argwhere(part.acted).tolist():
        weight = 1.0
        for k in range(t, part.num_steps):
            following = float(final.get((k, e, m), values[k + 1, e, m]))
            if part.terminated[k, e, m]:
                following = 0.0
            residual = float(part.rewards[k, e, m]) + gamma * following - float(values[k, e, m])
            out[t, e, m] += weight * residual
            weight *= gamma * lambda_
            if part.terminated[k, e, m] or part.truncated[k, e, m]:
                break
    return out


shapes = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
unit = st.floats(0, 1)


@checks
@given(shapes, unit, unit, st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 0.3]))
def test_advantages_are_those_of_the_equation(size, gamma, lambda_, ends, absent):
    part, values, final = made_up(*size, ends=ends, absent=absent)
    found = compute_advantages(part, values, final, gamma, lambda_)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, by_the_equation(part, values, final, gamma, lambda_), rtol=1e-4, atol=1e-5
    )
    assert not found[~part.acted].any()


def test_advantages_by_hand():
    """One agent: a step, a truncated one whose end was worth 10, a terminated one, and a rollout cut in the middle."""
    part, values, _ = made_up(4, 1, 1, 0, ends=0, absent=0)
    part.rewards[:, 0, 0] = [1, 2, 3, 4]
    part.truncated[1], part.terminated[2] = True, True
    part.final_index = np.array([[1, 0, 0]])
    values[:, 0, 0] = [0.5, 1, 1.5, 2, 100]
    found = compute_advantages(part, values, np.array([10], np.float32), 0.5, 0.5)[:, 0, 0]
    cut = 2 + 0.5 * 10 - 1
    np.testing.assert_allclose(found, [(1 + 0.5 * 1 - 0.5) + 0.25 * cut, cut, 3 - 1.5, 4 + 0.5 * 100 - 2])


@checks
@given(shapes, unit)
def test_lambda_0_is_the_residual(size, gamma):
    part, values, final = made_up(*size)
    following = values[1:].copy()
    following[part.truncated] = final
    residual = part.rewards + gamma * np.where(part.terminated, 0, following) - values[:-1]
    found = compute_advantages(part, values, final, gamma, 0.0)
    np.testing.assert_allclose(found, np.where(part.acted, residual, 0), rtol=1e-4, atol=1e-5)


@checks
@given(shapes)
def test_lambda_1_and_gamma_1_is_the_return_minus_the_value(size):
    """With one episode of each agent that ends with the rollout, the return is the plain sum of rewards."""
    part, values, final = made_up(*size, ends=0, absent=0)
    part.terminated[-1] = True
    returns = part.rewards[::-1].cumsum(axis=0)[::-1]
    found = compute_advantages(part, values, final, 1.0, 1.0)
    np.testing.assert_allclose(found, returns - values[:-1], rtol=1e-3, atol=1e-4)


@checks
@given(shapes, st.integers(0, 4))
def test_splitting_along_environments_changes_nothing(size, place):
    part, values, final = made_up(*size)
    whole = compute_advantages(part, values, final, 0.9, 0.8)
    for envs in (slice(place), slice(place, None)):
        kept = np.isin(part.final_index[:, 1], np.arange(part.rewards.shape[1])[envs])
        piece = compute_advantages(part.select(envs), values[:, envs], final[kept], 0.9, 0.8)
        np.testing.assert_array_equal(piece, whole[:, envs])


def test_values_of_another_shape_are_refused():
    part, values, final = made_up(5, 2, 2, 0)
    with pytest.raises(ValueError, match=r"expected shapes \(6, 2, 2\) .* got \(5, 2, 2\)"):
        compute_advantages(part, values[1:], final, 0.9, 0.9)
    with pytest.raises(ValueError, match="values"):
        compute_advantages(part, values, final[1:], 0.9, 0.9)


def assert_same(one, other):
    for field in dataclasses.fields(ModuleRollout):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if field.name == "agents" or left is None:
            assert left == right
            continue
        pairs = [(left, right)]
        if isinstance(left, dict):
            assert set(left) == set(right)
            pairs = [(left[key], right[key]) for key in left]
        for mine, yours in pairs:
            np.testing.assert_array_equal(mine, yours, field.name)
            assert np.asarray(mine).dtype == np.asarray(yours).dtype


def in_order(part):
    """Return the rollout with its final rows in the order of their places; a set has none of its own."""
    order = np.lexsort(part.final_index.T[::-1])
    return dataclasses.replace(
        part,
        final_index=part.final_index[order],
        final_observations=part.final_observations[order],
        final_global_states=part.final_global_states[order],
    )


@checks
@given(shapes, st.integers(0, 4), st.booleans())
def test_slices_join_to_the_whole(size, place, masked):
    part, _, _ = made_up(*size, masked=masked)
    whole = Rollout({"shared": part})
    (joined,) = join([whole[:place].modules["shared"], whole.slice(slice(place, None), 3).modules["shared"]])
    assert_same(in_order(joined), in_order(part))


@checks
@given(shapes, st.integers(1, 3))
def test_a_slice_keeps_final_observations_with_their_rows(size, stride):
    part, _, _ = made_up(*size)
    place_of = {
        tuple(i): seen for i, seen in zip(part.final_index.tolist(), part.final_observations, strict=True)
    }
    envs = slice(size[1] - 1, None, -stride)
    kept = np.arange(size[1])[envs]
    piece = part.select(envs)
    assert sorted(map(tuple, piece.final_index.tolist())) == sorted(
        map(tuple, np.argwhere(piece.truncated).tolist())
    )
    for (t, e, m), seen in zip(piece.final_index.tolist(), piece.final_observations, strict=True):
        np.testing.assert_array_equal(seen, place_of[t, kept[e], m])
    np.testing.assert_array_equal(piece.rewards, part.rewards[:, kept])
    np.testing.assert_array_equal(piece.columns["messages"], part.columns["messages"][:, kept])
    np.testing.assert_array_equal(piece.memory["policy"], part.memory["policy"][:, kept])
    np.testing.assert_array_equal(piece.fresh, part.fresh[kept])


def test_slices_are_views():
    part, _, _ = made_up(3, 4, 2, 0)
    assert np.shares_memory(Rollout({"shared": part})[1:3].modules["shared"].observations, part.observations)


def test_rollouts_that_differ_stay_apart():
    long, short, other = made_up(5, 2, 2, 0)[0], made_up(4, 3, 2, 1)[0], made_up(5, 1, 3, 2)[0]
    more = made_up(5, 1, 2, 3)[0]
    first, second, third = join([long, short, more, other])
    assert first.rewards.shape == (5, 3, 2)
    assert second is short
    assert third is other
    np.testing.assert_array_equal(first.rewards[:, 2], more.rewards[:, 0])
    assert len(first.final_index) == len(long.final_index) + len(more.final_index)


def test_counts():
    first, second = made_up(5, 2, 2, 0)[0], made_up(5, 2, 1, 1)[0]
    rollout = Rollout({"first": first, "second": second})
    assert len(rollout) == 2
    assert rollout.env_steps() == 10
    assert rollout.agent_steps() == first.acted.sum() + second.acted.sum() < 30


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_rllib_shares_rollouts_among_learners_by_environments(shards):
    rollouts = [Rollout({"shared": made_up(5, envs, 2, envs)[0]}) for envs in (4, 1, 2)]
    pieces = list(ShardEpisodesIterator(rollouts, shards))
    sizes = [sum(len(rollout) for rollout in piece) for piece in pieces]
    assert sum(sizes) == 7
    assert max(sizes) - min(sizes) <= 1
    total = sum(rollout.modules["shared"].rewards.sum() for piece in pieces for rollout in piece)
    assert total == pytest.approx(sum(rollout.modules["shared"].rewards.sum() for rollout in rollouts))
