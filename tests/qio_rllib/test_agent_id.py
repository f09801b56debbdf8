"""``agent_id``: a one-hot index within the module stands behind what policy and critic see, wherever agents act."""

import numpy as np
import pytest
import torch
from toy_runners import MASKED, forest, learner_of, runner_of

from qio_rllib.acting.team import with_agent_id
from qio_rllib.sampling.environments import make_env
from qio_rllib.sampling.evaluation import evaluate, policy_from_modules

GROUPS = {"pair": ["uav_2", "uav_0"], "single": ["uav_1"]}
HIDDEN = [8]


def with_id(policies="shared", central=None, **env_config):
    config = (
        forest(**env_config).multi_agent(policies=policies).rl_module(model_config={"fcnet_hiddens": HIDDEN})
    )
    return config.training(central_value=central, agent_id=True)


def watched(network):
    """Let a network keep the rows that it is given; return the list."""
    rows = []
    network.encoder.register_forward_pre_hook(lambda module, given: rows.append(given[0].detach().clone()))
    return rows


def test_rows_are_flat_with_a_one_hot_behind():
    obs = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 2, 2)
    found = with_agent_id(obs)
    assert (found.shape, found.dtype) == ((2, 3, 7), np.float32)
    np.testing.assert_array_equal(found[..., :4], obs.reshape(2, 3, 4))
    np.testing.assert_array_equal(found[..., 4:], np.broadcast_to(np.eye(3), (2, 3, 3)))


@pytest.mark.parametrize("masks", [{}, MASKED])
@pytest.mark.parametrize("policies", ["shared", GROUPS])
def test_rollouts_hold_the_observation_and_the_index_within_the_module(policies, masks):
    runner = runner_of(with_id(policies, **masks))
    rollout = runner.sample()[0]
    bare = runner_of(forest(**masks)).sample()[0].modules["shared"]
    for part in rollout.modules.values():
        members = len(part.agents)
        assert part.agent_index.tolist() == [int(agent[-1]) for agent in part.agents]
        obs, index = part.observations[..., :-members], part.observations[..., -members:]
        np.testing.assert_array_equal(index, np.broadcast_to(np.eye(members), index.shape))
        np.testing.assert_array_equal(obs[0], bare.observations[0][:, part.agent_index])
        np.testing.assert_array_equal(
            part.final_observations[:, -members:], np.eye(members)[part.final_index[:, 2]]
        )
        assert (part.action_mask is None) == (not masks)
        if masks:
            assert np.take_along_axis(part.action_mask[:-1], part.actions[..., None], -1).all()
            np.testing.assert_array_equal(part.action_mask[0], bare.action_mask[0][:, part.agent_index])


@pytest.mark.parametrize("central", [None, "observations"])
def test_policy_and_critic_learn_from_the_index(central):
    config = with_id(central=central)
    runner = runner_of(config)
    rollout = runner.sample()[0]
    learner = learner_of(config, runner)
    module = learner.module["shared"]
    size = rollout.modules["shared"].observations.shape[-1]
    if central:  # states stay without indices: the critic has them of the observation and of its own
        assert rollout.modules["shared"].global_states.shape[-1] == 3 * (size - 3)
        layer = module.value.encoder.first
        columns = slice(3 * (size - 3) + size - 3, 3 * (size - 3) + size)
    else:
        layer, columns = module.value.encoder.layers[0], slice(size - 3, size)
    actor = module.policy.encoder.layers[0]
    before = layer.weight.detach().clone(), actor.weight.detach().clone()
    learner.update(episodes=[rollout], minibatch_size=20, num_epochs=1)
    assert (layer.weight - before[0])[:, columns].any(dim=0).all()
    assert (actor.weight - before[1])[:, -3:].any(dim=0).all()


@pytest.mark.parametrize("policies", ["shared", GROUPS])
def test_evaluation_and_players_see_the_same_rows(policies):
    config = with_id(policies, **MASKED)
    modules = dict(runner_of(config).module.items())
    policy = policy_from_modules(modules, config)
    # A trace of the network would not call the hooks.
    for group in policy.team.groups:
        group.actor._forward = lambda rows, network=group.actor.network: network.outputs(
            network.features(rows, None)[0]
        )
    seen = {module_id: watched(module.policy) for module_id, module in modules.items()}
    (row,) = evaluate(policy, config.env, config.env_config, [7], True)
    evaluated = {module_id: torch.stack(rows) for module_id, rows in seen.items()}
    for rows in seen.values():
        rows.clear()
    env = make_env(config.env, config.env_config)
    obs, _ = env.reset(seed=7)
    player, gained, given = policy.player(explore=True, seed=7), 0.0, []
    while env.agents:
        given.append(obs)
        # The order in which a mapping names agents does not matter.
        obs, rewards, *_ = env.step(player.act(dict(reversed(obs.items()))))
        gained += sum(rewards.values())
    assert gained == pytest.approx(row["episode_return"])
    for group in policy.team.groups:
        members, played = len(group.agents), torch.stack(seen[group.module_id])
        torch.testing.assert_close(played, evaluated[group.module_id], rtol=0, atol=0)
        assert played.shape[:2] == (row["episode_length"], members)
        for column, agent in enumerate(group.agents):
            expected = np.stack([step[agent]["observation"] for step in given])
            np.testing.assert_array_equal(played[:, column, :-members], expected)
            one_hot = np.broadcast_to(np.eye(members)[column], (len(given), members))
            np.testing.assert_array_equal(played[:, column, -members:], one_hot)
