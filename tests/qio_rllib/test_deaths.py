"""Agents that die in batched environments: who continues, what follows them, and that learning goes on."""

import numpy as np
import pytest
import torch
from toy_runners import arrays_of, learner_of, runner_of

from qio_envs import environment
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.sampling.streams import generator

SWARM = {"actions": "discrete", "out_radius": 2.01, "max_steps": 40, "process_noise": 0.1}
ENVS, STEPS, GAMMA, LAMBDA = 3, 70, 0.9, 0.8


def swarm(config_class=PPOConfig, policies="shared", **training):
    return (
        config_class()
        .environment("swarm_cooperative_v0", env_config=SWARM)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVS, rollout_fragment_length=STEPS)
        .training(train_batch_size_per_learner=ENVS * STEPS, gamma=GAMMA, lambda_=LAMBDA, **training)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .multi_agent(policies=policies)
        .debugging(seed=1)
    )


@pytest.fixture(scope="module")
def played():
    """A runner's rollout, and what the environments give alone for its actions: ends, successors, last observations."""
    config = swarm(A2CConfig)
    runner = runner_of(config)
    part = runner.sample()[0].modules["shared"]
    seeds = generator(config.seed, "runner", 0, 0).integers(2**64, size=ENVS, dtype=np.uint64)
    shape = part.rewards.shape
    terminated, truncated, continues = (np.zeros(shape, bool) for _ in range(3))
    final = {}
    for e in range(ENVS):
        env = environment("swarm_cooperative_v0").parallel_env(**SWARM)
        obs, _ = env.reset(seed=int(seeds[e]))
        for t in range(STEPS):
            actions = {agent: int(part.actions[t, e, part.agents.index(agent)]) for agent in env.agents}
            obs, rewards, ended, cut, _ = env.step(actions)
            for agent in actions:
                m = part.agents.index(agent)
                assert part.rewards[t, e, m] == np.float32(rewards[agent])
                terminated[t, e, m], truncated[t, e, m] = ended[agent], cut[agent]
                continues[t, e, m] = agent in env.agents
                if cut[agent]:
                    final[t, e, m] = obs[agent]
            if not env.agents:
                obs, _ = env.reset()
    return config, runner, part, terminated, truncated, continues, final


def test_those_who_continue_are_those_whom_the_environment_still_has(played):
    _, _, part, terminated, truncated, continues, _ = played
    np.testing.assert_array_equal(part.terminated & part.acted, terminated)
    np.testing.assert_array_equal(part.truncated & part.acted, truncated)
    np.testing.assert_array_equal(part.continues & part.acted, continues)
    fresh = part.fresh_steps()
    assert fresh.shape == (STEPS + 1, ENVS, 3)
    assert fresh[0].all()
    np.testing.assert_array_equal(fresh[1:], ~continues)
    # In one environment agents die, are cut, are away while others act, and go on beyond the end of the rollout.
    kinds = [terminated, truncated, ~part.acted, continues[-1:]]
    assert any(all(kind[:, e].any() for kind in kinds) for e in range(ENVS))


def test_advantages_bootstrap_through_deaths_as_by_hand(played):
    config, runner, part, terminated, truncated, continues, final = played
    learner = learner_of(config, runner)
    network = learner.module["shared"].value

    def value(obs):
        with torch.no_grad():
            return float(network(torch.from_numpy(np.asarray(obs, np.float32))[None])[0])

    expected = np.zeros(part.rewards.shape)
    for e, m in np.ndindex(ENVS, 3):
        carried = 0.0
        for t in reversed(range(STEPS)):
            if not part.acted[t, e, m]:
                carried = 0.0
                continue
            assert terminated[t, e, m] + truncated[t, e, m] + continues[t, e, m] == 1
            if terminated[t, e, m]:
                ahead = carried = 0.0
            elif truncated[t, e, m]:
                ahead, carried = value(final[t, e, m]), 0.0
            else:
                ahead = value(part.observations[t + 1, e, m])
            residual = part.rewards[t, e, m] + GAMMA * ahead - value(part.observations[t, e, m])
            carried = residual + GAMMA * LAMBDA * carried
            expected[t, e, m] = carried
    batch = learner.prepare("shared", [part])
    np.testing.assert_allclose(batch.columns["advantages"], expected[part.acted], rtol=1e-4, atol=1e-5)
    values = [value(obs) for obs in part.observations[:-1][part.acted]]
    np.testing.assert_allclose(
        batch.columns["value_targets"], expected[part.acted] + values, rtol=1e-4, atol=1e-5
    )


def sizes_of(learner, monkeypatch):
    """Return a list that fills with (module, rows) of each minibatch."""
    sizes, losses = [], learner.losses

    def counting(module_id, config, batch, policy, values):
        sizes.append((module_id, len(batch["actions"])))
        return losses(module_id, config, batch, policy, values)

    monkeypatch.setattr(learner, "losses", counting)
    return sizes


@pytest.mark.parametrize("memory", [{}, {"use_gru": True, "gru_cell_size": 4, "max_seq_len": 10}])
@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
def test_fewer_rows_than_a_minibatch_are_one_smaller_minibatch(config_class, memory, monkeypatch):
    config = swarm(config_class, "independent")
    config.rl_module(model_config={"fcnet_hiddens": [8], **memory})
    runner = runner_of(config)
    rollout = runner.sample()[0]
    rows = {module_id: int(part.acted.sum()) for module_id, part in rollout.modules.items()}
    assert max(rows.values()) < ENVS * STEPS  # every agent has died at some time
    gone = rollout.modules["agent_2"]
    gone.acted[:] = gone.terminated[:] = gone.truncated[:] = gone.continues[:] = False
    gone.final_index, gone.final_observations = gone.final_index[:0], gone.final_observations[:0]
    learner = learner_of(config, runner)
    sizes = sizes_of(learner, monkeypatch)
    before = {name: value.clone() for name, value in learner.module["agent_2"].state_dict().items()}
    learner.update(episodes=[rollout], minibatch_size=10 * ENVS * STEPS, num_epochs=2)
    # One minibatch of all its rows an epoch; an agent that was never there leaves its module as it is.
    assert sizes == [(name, rows[name]) for name in ("agent_0", "agent_1") for _ in range(2)]
    for name, value in learner.module["agent_2"].state_dict().items():
        assert torch.equal(value, before[name])
    for _, array in arrays_of([rollout]):
        assert np.isfinite(array).all()


def test_minibatches_are_counted_by_the_rows_in_which_agents_acted(monkeypatch):
    config = swarm()
    runner = runner_of(config)
    rollout = runner.sample()[0]
    rows = int(rollout.modules["shared"].acted.sum())
    learner = learner_of(config, runner)
    sizes = sizes_of(learner, monkeypatch)
    learner.update(episodes=[rollout], minibatch_size=rows // 3, num_epochs=1)
    found = [size for _, size in sizes]
    assert len(found) == 3
    assert sum(found) == rows < 3 * ENVS * STEPS
    assert max(found) - min(found) <= 1
