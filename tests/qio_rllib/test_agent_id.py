<<<<<<< HEAD
"""``agent_id``: a one-hot agent index behind each observation, in rollouts, evaluations and players."""

import numpy as np
import pytest
from small_runners import MASKED, forest, runner_of

from qio_envs.api import ConfigError
from qio_rllib.sampling.environments import make_env
from qio_rllib.sampling.evaluation import evaluate, policy_from_modules


def with_agent_id(config, **model_config):
    return config.rl_module(model_config={"fcnet_hiddens": [8], "agent_id": True} | model_config)


def policy_of(config):
    return policy_from_modules(dict(runner_of(config).module.items()), config)


def spy(policy, monkeypatch):
    """Return a list that gets what the actor of the first group is given."""
    given, actor = [], policy.team.groups[0].actor
    act = actor.act
    monkeypatch.setattr(actor, "act", lambda inputs, *rest: given.append(inputs) or act(inputs, *rest))
    return given


@pytest.mark.parametrize("masks", [{}, MASKED])
def test_rollouts_hold_observations_with_the_index_behind(masks):
    config = with_agent_id(forest(num_envs=4, **masks))
    runner = runner_of(config)
    part = runner.sample()[0].modules["shared"]
    bare = runner_of(forest(num_envs=4, **masks)).sample()[0].modules["shared"]
    one_hot = np.broadcast_to(np.eye(3, dtype=np.float32), (11, 4, 3, 3))
    np.testing.assert_array_equal(part.observations[..., -3:], one_hot)
    np.testing.assert_array_equal(part.observations[0, ..., :-3], bare.observations[0])
    np.testing.assert_array_equal(
        part.final_observations[:, -3:], np.eye(3, dtype=np.float32)[part.final_index[:, 2]]
    )
    space = runner.get_spaces()["shared"][0]
    assert (space["observation"] if masks else space).shape == part.observations.shape[3:]
    if masks:
        assert not part.action_mask.all()
        assert np.take_along_axis(part.action_mask[:-1], part.actions[..., None], -1).all()


def test_the_index_is_that_within_the_module():
    config = with_agent_id(forest()).multi_agent(policies={"pair": ["uav_2", "uav_0"], "single": ["uav_1"]})
    modules = runner_of(config).sample()[0].modules
    assert modules["pair"].observations[..., -2:][3, 1].tolist() == [[1, 0], [0, 1]]
    assert (modules["single"].observations[..., -1] == 1).all()


@pytest.mark.parametrize("masks", [{}, MASKED])
def test_evaluations_and_players_give_the_index(masks, monkeypatch):
    config = with_agent_id(forest(**masks))
    policy = policy_of(config)
    given = spy(policy, monkeypatch)
    evaluate(policy, config.env, config.env_config, [5, 6], True)
    env = make_env(config.env, config.env_config)
    seen, _ = env.reset(seed=5)
    policy.player(explore=True, seed=5).act({"uav_2": seen["uav_2"], "uav_0": seen["uav_0"]})
    first, last = given[0].obs, given[-1].obs
    assert (first.shape[:2], last.shape[:2]) == ((2, 3), (1, 3))
    for obs in (first, last):
        np.testing.assert_array_equal(obs[0, :, -3:], np.eye(3))
    np.testing.assert_array_equal(last[0, [0, 2]], first[0, [0, 2]])
    assert not last[0, 1, :-3].any()  # uav_1 was not there


@pytest.mark.parametrize("model_config", [{}, {"use_lstm": True, "lstm_cell_size": 4}])
@pytest.mark.parametrize("agent_id", [False, True])
@pytest.mark.parametrize("explore", [False, True])
def test_a_player_plays_the_episode_that_an_evaluation_plays(model_config, agent_id, explore):
    config = with_agent_id(forest(**MASKED), agent_id=agent_id, **model_config)
    policy = policy_of(config)
    rows = evaluate(policy, config.env, config.env_config, [7, 8], explore)
    for row in rows:
        env = make_env(config.env, config.env_config)
        player, total = policy.player(explore, row["seed"]), 0.0
        seen, _ = env.reset(seed=row["seed"])
        while env.agents:
            actions = player.act(seen)
            assert all(seen[agent]["action_mask"][action] for agent, action in actions.items())
            seen, rewards, _, _, infos = env.step(actions)
            total += sum(rewards.values())
        assert total == pytest.approx(row["episode_return"])
        assert infos["uav_0"]["team_return"] == row["team_return"]


def test_other_agents_than_those_of_the_training_are_refused():
    policy = policy_of(with_agent_id(forest()))
    assert policy.team_for(("uav_2", "uav_0", "uav_1")).groups[0].index.tolist() == [1, 2, 0]
    with pytest.raises(
        ConfigError, match="agent_id: the policy was trained for the agents uav_0, uav_1, uav_2"
    ):
        policy.team_for(("uav_0", "uav_1"))
    assert (
        policy_of(forest()).team_for(("uav_0", "uav_1")).num_agents == 2
    )  # without an index it may be fewer
=======
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
    config = forest(**env_config).training(central_value=central).multi_agent(policies=policies)
    return config.rl_module(model_config={"fcnet_hiddens": HIDDEN, "agent_id": True})


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
>>>>>>> t1
