"""Battles in which both sides are agents: self-play, tournaments, evaluation against the script, and videos."""

import numpy as np
import pytest
from PIL import Image

from qio_envs.api import ConfigError
from qio_rllib.acting.pooled_actor import LEARNING
from qio_rllib.algorithms import PPOConfig
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.cli import main
from qio_rllib.experiments.exploit import Mixture, check
from qio_rllib.experiments.tournament import Contestant, tournament
from qio_rllib.sampling.evaluation import policy_from_modules
from qio_rllib.sampling.runner import BatchedEnvRunner

SETTINGS = {"scenario": "3m", "enemy": "agents", "map_width": 16, "map_height": 16, "max_steps": 12}
SIDES = [[f"ally_{n}" for n in range(3)], [f"enemy_{n}" for n in range(3)]]


def config_of(env_config=None, policies=None, **training):
    config = PPOConfig().environment("skirmish_v0", env_config={**SETTINGS, **(env_config or {})})
    if policies is not None:
        config.multi_agent(policies=policies)
    training = {"train_batch_size_per_learner": 48, "minibatch_size": 48, "num_epochs": 1} | training
    return (
        config.env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=12)
        .training(**training)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=0)
    )


def policy_of(env_config=None):
    config = config_of(env_config)
    return policy_from_modules(dict(BatchedEnvRunner(config=config).module.items()), config)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_sides_are_teams_without_being_named():
    algorithm = config_of(self_play={"current_share": 0.0}).build_algo()
    (rollout,) = algorithm.env_runner.sample()
    learning = rollout.modules["shared"].columns[LEARNING]
    assert (learning.reshape(12, 4, 2, 3) == learning[..., [0, 3]][..., None]).all()
    assert (learning.sum(axis=2) == 3).all()
    assert {tuple(row) for row in learning[:, :, [0, 3]].reshape(-1, 2)} == {(True, False), (False, True)}
    result = algorithm.train()
    assert result["self_play"]["pool"] == 1
    algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_sides_of_different_numbers_have_a_module_each():
    members = {"allies": [f"ally_{n}" for n in range(5)], "enemies": [f"enemy_{n}" for n in range(6)]}
    config = config_of({"scenario": "5m_vs_6m"}, members, self_play={}, central_value="state")
    algorithm = config.build_algo()
    before = algorithm.opponents.present()
    algorithm.train()
    after = algorithm.opponents.present()
    for module_id in members:
        assert any(
            (after[module_id][name] != array).any()
            for name, array in before[module_id].items()
            if name != "exploration"
        )
    algorithm.stop()


@pytest.mark.parametrize(
    "env_config", [{"enemy": "heuristic"}, {"scenario": "5m_vs_6m", "enemy": "heuristic"}]
)
def test_against_a_script_there_is_no_opponent(env_config):
    config = config_of(env_config, self_play={"teams": [["ally_0"], ["ally_1"]]})
    with pytest.raises(ConfigError) as caught:
        config.validate()
    assert str(caught.value) == (
        "self_play: no agent is an opponent of another: the enemy follows a script; set env_config.enemy to agents"
    )


def test_a_ready_experiment_with_another_enemy_is_refused_in_a_line(capsys):
    for change, message in (
        ("heuristic", "self_play: no agent is an opponent of another: the enemy follows a script; set"),
        ("human", "enemy: expected one of heuristic, agents, got 'human'"),
    ):
        arguments = ["train", "skirmish_self_play", "--set", f"env_config.enemy={change}", "--dry-run"]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_tournament_is_between_the_sides():
    both = [Contestant(name, policy_of()) for name in ("one", "two")]
    found = tournament(both, "skirmish_v0", SETTINGS, [1, 2, 3])
    assert [(one.policy, one.opponent, one.team) for one in found] == [
        (row, column, side) for row in range(2) for column in range(2) for side in range(2)
    ]
    for one in found[:2]:  # a policy against itself: what one side earns is seen from both
        assert (one.own != one.others).any()
    with pytest.raises(
        ConfigError, match="teams: no agent is an opponent of another: the enemy follows a script"
    ):
        tournament(both, "skirmish_v0", {**SETTINGS, "enemy": "heuristic"}, [1])
    mixture = Mixture(both[:1], np.ones(1))
    check(mixture, "skirmish_v0", SETTINGS)
    with pytest.raises(ConfigError, match="teams: no agent is an opponent of another"):
        check(mixture, "skirmish_v0", {**SETTINGS, "enemy": "heuristic"})


def test_commands_take_a_policy_of_both_sides_and_set_it_against_the_script(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_policy(policy_of(), "policy.pt")
    assert main(["video", "policy.pt", "--out", "battle.gif", "--seed", "3"]) == 0
    with Image.open("battle.gif") as picture:
        assert picture.n_frames > 3
    assert main(["tournament", "policy.pt", "policy.pt", "--episodes", "2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "policy.pt", "--episodes", "2", "--sampled"]) == 0
    both = capsys.readouterr().out
    assert "enemy_return" in both
    assert "agent_won" in both
    script = ["--env-config", '{"enemy": "heuristic"}']
    assert main(["evaluate", "policy.pt", "--episodes", "2", "--sampled", *script]) == 0
    scripted = capsys.readouterr().out
    assert 'skirmish_v0 (enemy "heuristic"), 2 episodes' in scripted
    assert "won" in scripted
    assert "enemy_return" not in scripted
