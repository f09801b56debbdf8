"""Memory of recurrent policies in runners: put back where lives end and begin, kept between samples, in the state."""

import numpy as np
import pytest
import torch
from small_runners import assert_same, forest, lives, runner_of
from toy_lives import Locked

from qio_envs.api import ConfigError

A, B, C = range(3)  # of toy_lives: a lives in steps 0 and 1 of each 5, b in steps 2 to 4, c in all


def recurrent(config, cell_size=4, **model_config):
    return config.rl_module(
        model_config={"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": cell_size, "max_seq_len": 1}
        | model_config
    )


def begins(agent, step):
    return step % 5 == (2 if agent == B else 0)


def alive(agent, step):
    return {A: step % 5 < 2, B: step % 5 >= 2, C: True}[agent]


@pytest.fixture(scope="module")
def two_samples():
    """Return a runner and two consecutive rollouts of 12 steps; the first one ends amid the third episode."""
    runner = runner_of(recurrent(lives(fragment=12)))
    return runner, [runner.sample()[0].modules["shared"] for _ in range(2)]


def joined(parts, read):
    return np.concatenate([read(part) for part in parts])


def test_memory_is_put_back_when_an_episode_ends_an_agent_dies_or_appears(two_samples):
    memory = joined(two_samples[1], lambda part: part.memory["policy"])
    assert memory.shape == (24, 2, 3, 8)
    for step in range(24):
        for agent in (A, B, C):
            remembers = alive(agent, step) and not begins(agent, step)
            assert memory[step, :, agent].any(axis=-1).all() == remembers, (step, agent)
            assert memory[step, :, agent].any() == remembers, (step, agent)


def test_each_life_is_played_as_if_the_agent_were_alone_also_across_samples(two_samples):
    runner, parts = two_samples
    network = runner.module["shared"].unwrapped().policy
    observations = torch.from_numpy(joined(parts, lambda part: part.observations[:-1]))
    found = joined(parts, lambda part: part.columns["dist_inputs"])
    state = torch.zeros(1, network.state_size)
    with torch.no_grad():
        for e in range(2):
            for agent in (A, B, C):
                for step in range(24):
                    if begins(agent, step):
                        state = torch.zeros(1, network.state_size)
                    if alive(agent, step):
                        expected, state = network(observations[step, e, agent][None], None, state, True)
                        np.testing.assert_allclose(found[step, e, agent], expected[0], atol=1e-6)


def test_the_second_sample_says_which_agents_go_on_from_the_first(two_samples):
    first, second = two_samples[1]
    assert first.fresh.all()
    assert second.fresh.tolist() == [[True, True, False]] * 2  # step 12: a has ended, b has just come


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_restored_runner_goes_on_with_its_memory_bit_for_bit(kind):
    def make(seed):
        config = recurrent(lives(fragment=4), use_lstm=kind == "lstm", use_gru=kind == "gru")
        return runner_of(config.debugging(seed=seed))

    runner, other = make(3), make(99)
    runner.sample()
    state = runner.get_state()
    memory = state["sampling"]["stepper"]["memory"][0]["policy"]
    kept = memory.copy()
    assert memory[:, C].any()
    expected = [runner.sample(), runner.sample()]
    np.testing.assert_array_equal(memory, kept)  # playing on does not change the state
    other.sample()
    other.set_state(state)
    for rollouts in expected:
        assert_same(rollouts, other.sample())
    np.testing.assert_array_equal(memory, kept)


def test_memory_of_another_shape_is_refused():
    runner, wider = (runner_of(recurrent(lives(fragment=4), size)) for size in (4, 6))
    runner.sample()
    state = {"sampling": runner.get_state()["sampling"]}
    message = r"checkpoint: the memory of module 'shared' has the shapes .*\(2, 3, 8\).* needs .*\(2, 3, 12\)"
    with pytest.raises(ConfigError, match=message):
        wider.set_state(state)


def test_where_environments_cannot_be_pickled_memory_begins_anew():
    runner, other = (runner_of(recurrent(lives(Locked, fragment=4))) for _ in range(2))
    runner.sample()
    other.set_state(runner.get_state())
    part = other.sample()[0].modules["shared"]
    assert part.fresh.all()
    assert not part.memory["policy"][0].any()


def test_force_reset_and_whole_episodes_begin_without_memory():
    runner = runner_of(recurrent(forest(fragment=5)))
    runner.sample()
    for arguments in ({"force_reset": True}, {"num_episodes": 2}):
        part = runner.sample(**arguments)[0].modules["shared"]
        assert part.fresh.all()
        assert not part.memory["policy"][0].any()
        assert part.memory["policy"][1].any()
