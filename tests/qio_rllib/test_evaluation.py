"""Evaluation on fixed seeds, policies from checkpoints, and policy files."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qio_rllib
from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import ActorInputs, NetworkActor
from qio_rllib.acting.policy import Policy
from qio_rllib.algorithms import PPOConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.exploration import amplify
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.sampling.evaluation import (
    checkpoint_experiment,
    evaluate,
    evaluation_seeds,
    load_policy_from_checkpoint,
    mean_scores,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

ENV_CONFIG = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 20, "mask_blocked_moves": True}


@pytest.fixture(scope="module")
def trained(ray_runtime: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One iteration of PPO: its result and its checkpoint."""
    config = (
        PPOConfig()
        .environment("forest_uav_v0", env_config=ENV_CONFIG)
        .env_runners(num_env_runners=0)
        .evaluation(evaluation_interval=1, evaluation_duration=4)
        .training(
            train_batch_size_per_learner=80, minibatch_size=80, num_epochs=1, amplification={"h_min": 0.5}
        )
        .rl_module(model_config={"fcnet_hiddens": [16]})
    )
    algorithm = config.build_algo()
    result = algorithm.train()
    path = tmp_path_factory.mktemp("trained") / "checkpoint"
    algorithm.save_to_path(str(path))
    algorithm.stop()
    return result, path


def scores_of(policy: Policy, explore: bool) -> list[dict[str, Any]]:
    return evaluate(policy, "forest_uav_v0", ENV_CONFIG, evaluation_seeds(4), explore)


@pytest.mark.parametrize(("name", "explore"), [("greedy", False), ("sampled", True)])
def test_checkpoint_evaluates_to_the_logged_score_exactly(trained, name, explore):
    result, path = trained
    experiment = checkpoint_experiment(path)
    assert (experiment["env"], experiment["env_config"]) == ("forest_uav_v0", ENV_CONFIG)
    rows = evaluate(
        load_policy_from_checkpoint(path),
        experiment["env"],
        experiment["env_config"],
        experiment["evaluation_seeds"],
        explore,
    )
    assert mean_scores(rows) == {key: result["evaluation"][name][key] for key in mean_scores(rows)}


@pytest.mark.parametrize("explore", [False, True])
def test_policy_file_acts_as_the_checkpoint_does(trained, tmp_path, explore):
    policy = load_policy_from_checkpoint(trained[1])
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    assert scores_of(loaded, explore) == scores_of(policy, explore)
    assert (loaded.env, loaded.env_config) == (policy.env, policy.env_config)


def test_policy_file_needs_no_ray(trained, tmp_path):
    path = save_policy(load_policy_from_checkpoint(trained[1]), tmp_path / "policy.pt")
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():  # and tells nobody where this project lies
            assert str(Path(qio_rllib.__file__).parent).encode() not in archive.read(name)
    code = f"""
import sys
from qio_envs import forest_uav_v0
from qio_rllib.artifacts.policy_file import load_policy
policy = load_policy({str(path)!r})
env = forest_uav_v0.parallel_env(**policy.env_config)
observations, _ = env.reset(seed=1)
player = policy.player(explore=True, seed=1)
while env.agents:
    observations, rewards, _, _, infos = env.step(player.act(observations))
print(infos["uav_0"]["team_return"])
assert not [name for name in sys.modules if name == "ray" or name.startswith("ray.")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = evaluate(load_policy(path), "forest_uav_v0", ENV_CONFIG, [1], True)
    assert float(done.stdout) == row["team_return"]


def test_an_episode_depends_on_its_own_seed_only(trained):
    policy = load_policy_from_checkpoint(trained[1])
    together = scores_of(policy, True)
    assert len({row["episode_return"] for row in together}) > 1
    for place in (0, 2):
        assert evaluate(policy, "forest_uav_v0", ENV_CONFIG, [together[place]["seed"]], True) == [
            together[place]
        ]


def damage_nothing_there(path: Path) -> Path:
    return path / "missing"


def damage_not_a_checkpoint(path: Path) -> Path:
    (path / "rllib_checkpoint.json").unlink()
    return path


def damage_config(path: Path) -> Path:
    (path / "class_and_ctor_args.pkl").write_bytes(b"\x80\x04garbage")
    return path


def damage_weights(path: Path) -> Path:
    (state,) = (path / "learner_group/learner/rl_module/shared").glob("module_state*")
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    "damage", [damage_nothing_there, damage_not_a_checkpoint, damage_config, damage_weights]
)
def test_missing_and_damaged_checkpoints_are_named(trained, tmp_path, damage):
    path = damage(Path(shutil.copytree(trained[1], tmp_path / "copy")))
    with pytest.raises(ConfigError, match="^checkpoint: ") as caught:
        load_policy_from_checkpoint(path)
    assert str(path) in str(caught.value)


def test_missing_and_damaged_policy_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        load_policy(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match=r"bad\.pt is damaged"):
        load_policy(tmp_path / "bad.pt")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("policy.json", json.dumps({"format": 99, "modules": {}}))
    with pytest.raises(ConfigError, match="format 99"):
        load_policy(tmp_path / "other.pt")


def actor_of_outputs(network: PolicyNetwork, bias: list[float], action: ActionSpec) -> NetworkActor:
    """Return an Actor whose network gives the same outputs for every observation."""
    last = network.head.layers[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor(bias))
    return NetworkActor(network, action)


class Draws:
    """Gives the draws that it was told."""

    def __init__(self, noise: np.ndarray) -> None:
        self.noise = noise

    def random(self, size: tuple[int, ...], dtype: type) -> np.ndarray:
        return self.noise.reshape(size).astype(dtype)

    standard_normal = random


def test_sampling_follows_the_amplified_distribution():
    logits = [2.0, 0.0, 1.0, -50.0, 1.5]
    settings = {"fcnet_hiddens": [2], "amplification": {"eta": 0.4, "h_min": 0.3, "tau": 0.8}}
    network = PolicyNetwork(PolicySpec((1,), "categorical", 5, network=settings))
    actor = actor_of_outputs(network, logits, ActionSpec(5))
    mask = np.array([1, 1, 0, 1, 1], bool)
    inputs = ActorInputs(np.zeros((20_000, 1, 1), np.float32), np.tile(mask, (20_000, 1, 1)))
    actions = actor.act(inputs, {}, Draws((np.arange(20_000) + 0.5) / 20_000), True).actions[:, 0]
    expected = amplify(torch.tensor(logits), 0.4, 0.3, 0.8, torch.tensor(mask)).exp().numpy()
    assert np.bincount(actions, minlength=5) / 20_000 == pytest.approx(expected, abs=1e-4)
    assert 2 not in actions
    assert not actor.act(inputs, {}, None, False).actions.any()


def test_the_ends_of_the_unit_interval_give_legal_actions():
    network = PolicyNetwork(PolicySpec((1,), "categorical", 4, network={"fcnet_hiddens": [2]}))
    actor = actor_of_outputs(network, [0.0] * 4, ActionSpec(4))
    mask = np.array([[[0, 1, 1, 0]]] * 2, bool)
    draws = Draws(np.array([0.0, np.nextafter(np.float32(1), np.float32(0))]))
    actions = actor.act(ActorInputs(np.zeros((2, 1, 1), np.float32), mask), {}, draws, True).actions
    assert actions.tolist() == [[1], [2]]


def test_continuous_actions_are_scaled_to_their_bounds():
    network = PolicyNetwork(PolicySpec((1,), "gaussian", 2, network={"fcnet_hiddens": [2]}))
    action = ActionSpec(None, (-2.0, 0.0), (2.0, 10.0), rescaled=True)
    actor = actor_of_outputs(network, [0.5, -3.0, np.log(0.1), np.log(0.2)], action)
    inputs = ActorInputs(np.zeros((1, 1, 1), np.float32))
    assert action.to_env(actor.act(inputs, {}, None, False).actions) == pytest.approx(
        np.array([[[1.0, 0.0]]])
    )
    noisy = actor.act(inputs, {}, Draws(np.array([1.0, 20.0])), True).actions
    assert action.to_env(noisy) == pytest.approx(np.array([[[1.2, 10.0]]]), rel=1e-5)


def test_unknown_agents_are_refused(trained):
    player = load_policy_from_checkpoint(trained[1]).player()
    with pytest.raises(ConfigError, match="knows no agent 'uav_9'"):
        player.act({"uav_9": {"observation": np.zeros(153), "action_mask": np.ones(5)}})
