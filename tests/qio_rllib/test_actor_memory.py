"""Memory of Actors: carried on, put back where an agent does not go on, kept in checkpoints."""

import copy

import numpy as np
import pytest
import torch
from toy_lives import Masked
from toy_runners import MASKED, assert_same, config_of, forest, lives, metrics_of, runner_of

from qio_envs.api import ConfigError

SWARM = {"actions": "discrete", "out_radius": 2.01, "max_steps": 20, "process_noise": 0.1}


def remembering(config, kind="lstm", size=4, max_seq_len=1):
    memory = {f"use_{kind}": True, f"{kind}_cell_size": size, "max_seq_len": max_seq_len}
    return config.rl_module(model_config={"fcnet_hiddens": [8], **memory})


def make_lives():
    return lives(fragment=13)


def make_masked():
    return lives(Masked, fragment=13)


def make_swarm():
    return config_of("swarm_cooperative_v0", SWARM, num_envs=2, fragment=45)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("make", [make_lives, make_masked, make_swarm])
def test_memory_is_that_of_each_agents_own_life(make, kind):
    """Each agent's memory before a step is what its network makes, alone, of what it has seen since it appeared."""
    runner = runner_of(remembering(make(), kind))
    parts = [runner.sample()[0].modules["shared"] for _ in range(2)]  # the second goes on from the first
    module = runner.module["shared"]
    networks = {"policy": module.policy, "value": module.value}
    assert set(parts[0].memory) == set(networks)
    lives_seen, carried_over = 0, False
    state = {}
    goes_on = np.zeros(parts[0].rewards.shape[1:], bool)
    for part in parts:
        for t in range(part.num_steps):
            for e, m in np.argwhere(part.acted[t]).tolist():
                if not goes_on[e, m]:
                    state[e, m] = {name: torch.zeros(1, n.state_size) for name, n in networks.items()}
                    lives_seen += 1
                elif t == 0:
                    carried_over = True
                row = torch.from_numpy(part.observations[t, e, m].reshape(1, -1))
                with torch.no_grad():
                    for name, network in networks.items():
                        own = state[e, m][name]
                        found = part.memory[name][t, e, m]
                        np.testing.assert_allclose(found, own[0], rtol=1e-4, atol=1e-6)
                        central = (None,) if name == "value" else ()
                        state[e, m][name] = network(row, *central, state=own)[1]
            goes_on = part.acted[t] & part.continues[t]
    assert lives_seen > 2 * parts[0].rewards.shape[1] * parts[0].rewards.shape[2]
    assert carried_over


@pytest.mark.parametrize("groups", [None, {"pair": ["c", "b"], "single": ["a"]}])
def test_who_goes_on_from_the_rollout_before(groups):
    """Rollouts of two steps: ``a`` ends with the first and ``b`` comes, and with the fifth step all begin anew."""
    config = remembering(lives(fragment=2))
    runner = runner_of(config.multi_agent(policies=groups) if groups else config)
    found = []
    for _ in range(4):
        rollout = runner.sample()[0]
        fresh = np.empty((2, 3), bool)
        for part in rollout.modules.values():
            fresh[:, part.agent_index] = part.fresh
        found.append(fresh.tolist())
    goes_on = [[], ["c"], ["b", "c"], ["a", "c"]]
    assert found == [[[agent not in names for agent in "abc"]] * 2 for names in goes_on]


def test_memory_of_agents_that_are_away_is_that_of_a_start():
    runner = runner_of(remembering(make_lives()))
    part = runner.sample()[0].modules["shared"]
    fresh = part.fresh_steps()[:-1]
    for memory in part.memory.values():
        assert not memory[fresh].any()
        assert memory[~fresh & part.acted].any(axis=-1).all()


@pytest.mark.parametrize(
    "make",
    [make_lives, lambda: config_of("swarm_cooperative_v0", SWARM, fragment=9), lambda: forest(**MASKED)],
)
def test_a_restored_runner_goes_on_bit_for_bit_with_its_memory(make):
    runner = runner_of(remembering(make()))
    runner.sample()
    state = runner.get_state()
    kept = copy.deepcopy(state["sampling"]["stepper"])
    expected = [runner.sample(), runner.sample()]
    assert any(memory.any() for memory in kept["memory"][0].values())
    for name, memory in state["sampling"]["stepper"]["memory"][
        0
    ].items():  # playing on leaves the state alone
        np.testing.assert_array_equal(memory, kept["memory"][0][name])
    other = runner_of(remembering(make()).debugging(seed=99))
    other.sample()
    other.set_state(state)
    for rollouts in expected:
        assert_same(rollouts, other.sample())
    assert metrics_of(runner).get("episode_return_mean") == metrics_of(other).get("episode_return_mean")


def test_a_memory_of_another_shape_is_refused_in_one_line():
    runner = runner_of(remembering(forest()))
    runner.sample()
    state = {"sampling": runner.get_state()["sampling"]}
    for other in (remembering(forest(), size=5), remembering(forest(), kind="gru"), forest()):
        wanted = runner_of(other)
        with pytest.raises(
            ConfigError, match="checkpoint: the memory of module 'shared' has the shapes"
        ) as caught:
            wanted.set_state(state)
        assert "\n" not in str(caught.value)
    assert "(2, 3, 8)" in str(caught.value)


def test_a_reset_forgets():
    runner = runner_of(remembering(forest()))
    runner.sample()
    stepper = runner.stepper
    assert all(memory.any() for memory in stepper.memory[0].values())
    stepper.reset()
    assert not any(memory.any() for memory in stepper.memory[0].values())
    assert stepper.fresh.all()
