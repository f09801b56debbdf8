"""Agents that talk and play against snapshots: who hears whom, by whose weights, and what is learned from it."""

import dataclasses

import numpy as np
import pytest
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.pooled_actor import LEARNING
from qio_rllib.acting.team import DELIVERED, INBOX, MESSAGES
from qio_rllib.algorithms import A2CConfig, MADDPGConfig, PPOConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.games.self_play import Opponents
from qio_rllib.models.communication import Communication
from qio_rllib.sampling.evaluation import evaluate, policy_from_modules
from qio_rllib.sampling.runner import BatchedEnvRunner

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

ENV, SETTINGS, ENVS = "swarm_mixed_v0", {"max_steps": 10}, 6
TEAM = np.array([0, 0, 1, 1])
TEAMS = [["team_a_0", "team_a_1"], ["team_b_0", "team_b_1"]]
TALK = {"bits": 2, "routing": "targeted", "signature": 2, "gate": {"cost": 0.1}}
GRU = {"use_gru": True, "gru_cell_size": 4, "max_seq_len": 5}


def config_of(config_class=PPOConfig, talk=None, settings=None, model=None, env=(ENV, SETTINGS), **training):
    if config_class is PPOConfig:
        training = {"train_batch_size_per_learner": 60, "minibatch_size": 60, "num_epochs": 1} | training
    if config_class is A2CConfig:
        training = {"train_batch_size_per_learner": 60} | training
    config = (
        config_class()
        .environment(env[0], env_config=env[1])
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVS, rollout_fragment_length=10)
        .training(
            self_play={"current_share": 0.0, **(settings or {})}, communication=talk or TALK, **training
        )
        .rl_module(model_config={"fcnet_hiddens": [8], **(model or {})})
        .debugging(seed=0)
    )
    config.validate()
    return config


def played(factor, talk, model=None):
    """Return a rollout against a snapshot whose weights are the present ones times a factor, and the policy."""
    runner = BatchedEnvRunner(config=config_of(talk=talk, model=model))
    policy = runner.module["shared"].unwrapped().policy
    weights = {"shared": {name: factor * array.numpy() for name, array in policy.state_dict().items()}}
    runner.take_opponents(Opponents({0: weights}, {0: 1.0}, 0.0))
    (rollout,) = runner.sample()
    return rollout.modules["shared"], policy


def test_messages_reach_mates_only_and_are_those_of_the_weights_that_each_side_plays_with():
    part, policy = played(-2.0, {"bandwidth": 3})
    learning, said = part.columns[LEARNING], part.columns[MESSAGES]
    assert (learning[..., :2] == learning[..., :1]).all()  # a side plays as one
    assert (learning.sum(axis=2) == 2).all()
    mates = (TEAM[:, None] == TEAM) & ~np.eye(4, dtype=bool)
    np.testing.assert_array_equal(part.columns[DELIVERED], np.broadcast_to(mates, (10, ENVS, 4, 4)))
    np.testing.assert_allclose(part.columns[INBOX], said[:, :, [1, 0, 3, 2]], atol=1e-6)
    own = {name: array.clone() for name, array in policy.state_dict().items()}
    rows = torch.from_numpy(part.observations[:10])
    for factor, whose in ((1.0, learning), (-2.0, ~learning)):
        policy.load_state_dict({name: factor * array for name, array in own.items()})
        with torch.no_grad():
            expected = policy.speak(rows, None, None).messages.numpy()
        same = np.isclose(said, expected, atol=1e-5).all(axis=-1)
        np.testing.assert_array_equal(same, whose)


@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
@pytest.mark.parametrize("model", [None, GRU])
def test_an_update_is_that_of_the_learning_side_and_of_what_its_mates_said(config_class, model):
    found = []
    for disturbed in ("nothing", "frozen", "learning"):
        algorithm = config_of(config_class, model=model).build_algo()
        with torch.no_grad():
            pool = {
                "shared": {name: -array for name, array in algorithm.opponents.present()["shared"].items()}
            }
        algorithm.opponents.pool.add(pool)
        algorithm.opponents.share()
        (rollout,) = algorithm.env_runner.sample()
        part = rollout.modules["shared"]
        if disturbed == "frozen":
            rows = ~part.columns[LEARNING]
            part.rewards[rows] += 100.0
            part.actions[rows] = 0
            part.observations[:10][rows] += 3.0  # also what it would say
        if disturbed == "learning":
            # what a mate would say is learned from: other noise is other bits
            part.columns["message_noise"][part.columns[LEARNING]] *= -1.0
        rollout.modules["shared"] = dataclasses.replace(part)
        more = {"minibatch_size": 1000, "num_epochs": 1} if config_class is PPOConfig else {}
        algorithm.learner_group.update(episodes=[rollout], **more)
        found.append(algorithm.opponents.present()["shared"])
        algorithm.stop()
    apart = [
        max(np.abs(one[name] - found[0][name]).max() for name in found[0] if name != "exploration")
        for one in found[1:]
    ]
    assert apart[0] == 0
    assert apart[1] > 0


def test_speakers_of_the_learning_side_learn():
    algorithm = config_of().build_algo()
    before = algorithm.opponents.present()["shared"]
    algorithm.train()
    after = algorithm.opponents.present()["shared"]
    names = [name for name in before if "speaker" in name and "query" not in name]
    assert names
    assert all(np.abs(after[name] - before[name]).max() > 0 for name in names)
    algorithm.stop()


def test_a_file_says_between_whom_messages_pass_and_acts_against_the_script(tmp_path):
    env = "skirmish_v0", {"scenario": "3m", "enemy": "agents", "max_steps": 5}
    config = config_of(talk={"bandwidth": 2, "drop": 0.3}, env=env)
    teams = [[f"{side}_{n}" for n in range(3)] for side in ("ally", "enemy")]
    policy = policy_from_modules(dict(BatchedEnvRunner(config=config).module.items()), config)
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    assert loaded.team.communication == Communication(2, drop=0.3, teams=teams)
    one, two = (evaluate(p, *env, [5, 6], True) for p in (policy, loaded))
    assert one == two
    alone = evaluate(loaded, env[0], {"scenario": "3m", "max_steps": 5}, [5], True)
    assert alone[0]["bits_sent"] == 64.0
    with pytest.raises(ConfigError, match="communication.teams: ally_3 is in no team"):
        loaded.team.communication.links(["ally_0", "ally_3"])


# -- settings


@pytest.mark.parametrize(
    ("talk", "links"),
    [
        (Communication(2, teams=[["a", "b"], ["c", "x"]]), ["ab", "ba"]),
        (Communication(2, teams=[["a", "b", "c"]]), ["ab", "ac", "ba", "bc", "ca", "cb"]),
        (
            Communication(2, routing="hierarchical", leaders=[["a", "b"], ["c"]], teams=[["a", "b"], ["c"]]),
            ["ab", "ba"],
        ),
        (
            Communication(2, routing="hierarchical", leaders=[["a", "b"], ["c"]], teams=[["a", "c"], ["b"]]),
            ["ac", "ca"],
        ),
    ],
)
def test_no_message_passes_between_teams(talk, links):
    agents = ["a", "b", "c"]
    found = [f"{agents[hears]}{agents[speaks]}" for hears, speaks in np.argwhere(talk.links(agents))]
    assert sorted(found) == links


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"teams": "ab"}, "communication.teams: expected lists of agents, each a team, got 'ab'"),
        ({"teams": [["a"], []]}, "communication.teams: expected lists of agents"),
        ({"teams": [["a"], ["a"]]}, "communication.teams: agent a stands there twice"),
        ({"teams": [[True]]}, "communication.teams: expected agents by their ids, got True"),
    ],
)
def test_teams_that_are_none_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        Communication.of({"bandwidth": 1, **given})


def test_what_no_on_policy_loss_fits_is_refused():
    whole = {"bandwidth": 1, "teams": [[agent for side in TEAMS for agent in side]]}
    for config_class in (PPOConfig, A2CConfig):
        with pytest.raises(
            ConfigError,
            match="communication.teams: PPO and A2C learn from what team mates say, and team_a_0 would hear team_b_0",
        ):
            config_of(config_class, whole)
    config_of(MADDPGConfig, whole, train_batch_size_per_learner=8, env_steps_per_update=60)
    assert config_of(talk={"bandwidth": 1}).communication["teams"] == TEAMS
    own = {"bandwidth": 1, "teams": [["team_a_0", "team_a_1"], ["team_b_0"], ["team_b_1"]]}
    assert config_of(talk=own).communication == own
    with pytest.raises(
        ConfigError, match="communication: with self_play messages stay within a team, and no agent"
    ):
        config_of(env=("swarm_competitive_v0", {"scenario": "duel"}))
    with pytest.raises(
        ConfigError, match="communication.teams: there is no agent 'team_c_0'; allowed: team_a_0"
    ):
        config_of(talk={"bandwidth": 1, "teams": [*TEAMS, ["team_c_0"]]})
