"""Returns over several steps, of the replay and within sequences, against oracles that walk step by step."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from toy_off_policy import DQNConfig, config_of

from qio_rllib.learners.transitions import n_step_targets
from qio_rllib.sampling.n_step import Windows, n_step_columns
from qio_rllib.sampling.replay import JointReplay, joint_transitions
from qio_rllib.sampling.runner import BatchedEnvRunner

GAMMA = 0.9


def windows_of(task, n, steps=20, rollouts=1):
    """Return windows of single transitions from every start, ``[B, n, M, ...]``."""
    runner = BatchedEnvRunner(config=config_of(task, fragment=steps, num_envs=2, algorithm=DQNConfig))
    parts = [joint_transitions(runner.sample()[0], GAMMA).modules["shared"] for _ in range(rollouts)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    count = steps * rollouts - n + 1
    return {
        name: np.concatenate([array[t : t + n].swapaxes(0, 1) for t in range(count)])
        for name, array in columns.items()
    }


def over_steps(windows):
    """Return what `n_step_columns` makes of windows."""

    def of(array):
        count, length = array.shape[:2]
        return Windows(array.swapaxes(0, 1), np.tile(np.arange(length), (count, 1)), np.arange(count))

    return n_step_columns({name: of(array) for name, array in windows.items()}, windows["fresh"])


def by_hand(windows, row, agent):
    """Walk until the agent's episode ends: (return, discount, step reached)."""
    total, discount = 0.0, 1.0
    for step in range(windows["rewards"].shape[1]):
        total += discount * windows["rewards"][row, step, agent]
        discount *= GAMMA
        last = step == windows["rewards"].shape[1] - 1
        goes_on = windows["present_next"][row, step, agent] and not (
            last or windows["fresh"][row, step + 1, agent]
        )
        if not goes_on:
            return total, discount, step
    raise AssertionError


@pytest.mark.parametrize("task", ["lives", "masked", "forest"])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_returns_are_those_of_a_walk_to_the_end_of_the_agents_episode(task, n):
    windows = windows_of(task, n)
    found = over_steps(windows)
    reached_early = 0
    for row, agent in np.argwhere(windows["acted"][:, 0]):
        total, discount, step = by_hand(windows, row, agent)
        assert found["rewards"][row, agent] == pytest.approx(total, rel=1e-5)
        assert found["discounts"][row, agent] == pytest.approx(discount, rel=1e-5)
        for name in ("present_next", "next_observations", "next_action_mask"):
            if name in windows:
                np.testing.assert_array_equal(found[name][row, agent], windows[name][row, step, agent])
        for name in ("observations", "actions", "acted", "fresh"):
            np.testing.assert_array_equal(found[name][row, agent], windows[name][row, 0, agent])
        reached_early += step < n - 1
    assert reached_early > 5
    assert found["rewards"].dtype == np.float32


def test_a_death_a_cut_and_an_arrival_by_numbers():
    """Lives, rewards 1 to 5: a ends in step 2, b acts from 3 to 5 and ends, c is cut in step 5."""
    windows = windows_of("lives", 3, steps=12)
    found = over_steps(windows)
    start = {name: array[::2] for name, array in found.items()}  # of the first environment, from step 1 on
    a, b, c = range(3)
    assert start["rewards"][0, a] == pytest.approx(1 + 2 * GAMMA)
    assert not start["present_next"][0, a]
    assert start["rewards"][3, b] == pytest.approx(4 + 5 * GAMMA)
    assert not start["present_next"][3, b]
    assert start["rewards"][0, c] == pytest.approx(1 + 2 * GAMMA + 3 * GAMMA**2)
    assert start["discounts"][0, c] == pytest.approx(GAMMA**3)
    assert start["next_observations"][0, c, 1] == 3
    assert start["rewards"][3, c] == pytest.approx(4 + 5 * GAMMA)  # and not 1 of the next episode
    assert start["discounts"][3, c] == pytest.approx(GAMMA**2)
    assert start["present_next"][3, c]
    assert start["next_observations"][3, c, 1] == 5  # what it saw last


def test_windows_end_where_a_runner_has_begun_anew():
    """After an error or a restart nothing tells but that all agents are fresh."""
    windows = windows_of("forest", 3, steps=6)
    windows["fresh"][:, 1] = True
    found = over_steps(windows)
    np.testing.assert_allclose(found["rewards"], windows["rewards"][:, 0])
    np.testing.assert_allclose(found["discounts"], GAMMA)
    np.testing.assert_array_equal(found["next_observations"], windows["next_observations"][:, 0])


def test_a_replay_draws_them():
    runner = BatchedEnvRunner(config=config_of("lives", fragment=20, num_envs=1, algorithm=DQNConfig))
    replay = JointReplay(50, 1, n_step=3, gamma=GAMMA)
    replay.add(runner.sample()[0])
    assert replay.num_samples == 18
    columns = replay.sample(400).modules["shared"]
    c = 2
    wanted = {0: 1 + 2 * GAMMA + 3 * GAMMA**2, 2: 3 + 4 * GAMMA + 5 * GAMMA**2, 4: 5.0}
    for time, total in wanted.items():
        rows = columns["observations"][:, c, 1] == time
        assert rows.any()
        np.testing.assert_allclose(columns["rewards"][rows, c], total, rtol=1e-6)


# -- returns within sequences


@given(
    length=st.integers(1, 7), n_step=st.integers(1, 5), share=st.floats(0.0, 0.6), seed=st.integers(0, 2**16)
)
def test_targets_within_sequences_are_sums_to_the_end_of_episode_or_sequence(length, n_step, share, seed):
    rng = np.random.default_rng(seed)
    rewards, ahead = rng.normal(size=(2, length, 4))
    fresh = rng.random((length, 4)) < share
    expected = np.zeros((length, 4))
    for t in range(length):
        for b in range(4):
            last = t
            while last + 1 < min(t + n_step, length) and not fresh[last + 1, b]:
                last += 1
            expected[t, b] = sum(GAMMA ** (k - t) * rewards[k, b] for k in range(t, last + 1))
            expected[t, b] += GAMMA ** (last - t) * ahead[last, b]
    found = n_step_targets(*map(torch.as_tensor, (rewards, ahead, fresh)), GAMMA, n_step)
    np.testing.assert_allclose(found, expected, atol=1e-12)
