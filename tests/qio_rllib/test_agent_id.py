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
