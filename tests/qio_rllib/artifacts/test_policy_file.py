"""Policy files: every kind of policy plays from its file as it was trained, without Ray, and no file is executed."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import qio_envs
from qio_envs.api import ConfigError
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.scripted import scripted_team
from qio_rllib.algorithms import A2CConfig, DQNConfig, MADDPGConfig, MASACConfig, PPOConfig, WorldModelConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.sampling.evaluation import evaluate, policy_from_modules
from qio_rllib.sampling.runner import BatchedEnvRunner

ROOT = Path(__file__).parents[3]
FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 8, "mask_blocked_moves": True}
SWARM = {"max_steps": 8}
DISCRETE = {**SWARM, "actions": "discrete"}
TINY = {"num_qubits": 3, "num_layers": 1, "inputs": "arctan"}
LSTM = {"use_lstm": True, "lstm_cell_size": 4}
GRU = {"use_gru": True, "gru_cell_size": 4}
AMPLIFIED = {"amplification": {"eta": 0.3, "h_min": 0.2}}
IMAGINED = {"horizon": 2, "members": 2, "model_hiddens": [8], "encoder_hiddens": [8, 4], "encoder": "gru"}
PLANS = {"planner": {"horizon": 3, "candidates": 6, "elites": 2, "iterations": 2, "exploration": 0.3}}
ENSEMBLE = {"world_model": {"members": 2, "hiddens": [8]}}
RECURRENT = {
    "world_model": {
        "type": "rssm", "deterministic": 8, "stochastic": 3, "latent": "categorical", "classes": 2, "embedding": 6,
        "hiddens": [8], "latent_hiddens": [8], "reward_hiddens": [8], "continuation_hiddens": [8],
    }
}  # fmt: skip
SEEN = {"attention_heads": 2, "attention_size": 4}
LEAVING = {**SWARM, "out_radius": 2.0, "spawn_radius": 2.0, "process_noise": 0.2}
KINDS = {  # algorithm, environment, its settings, training settings, model_config
    "masked and amplified": (PPOConfig, "forest_uav_v0", FOREST, AMPLIFIED, {}),
    "gaussian": (PPOConfig, "swarm_cooperative_v0", SWARM, {}, {}),
    "talking": (
        MADDPGConfig,
        "swarm_cooperative_v0",
        SWARM,
        {"communication": {"bandwidth": 2, "drop": 0.3}, "exploration": 0.3},
        {},
    ),
    "a share of random actions": (MADDPGConfig, "forest_uav_v0", FOREST, {"exploration": 0.5}, {}),
    "squashed": (MASACConfig, "swarm_cooperative_v0", SWARM, {}, {}),
    "dueling": (DQNConfig, "forest_uav_v0", FOREST, {"exploration": 0.4}, {}),
    "circuit": (A2CConfig, "swarm_cooperative_v0", DISCRETE, {"circuit": {**TINY, "policy": "born"}}, {}),
    "circuit of Q-values": (DQNConfig, "swarm_cooperative_v0", DISCRETE, {"circuit": TINY}, {}),
    "coordination": (PPOConfig, "chsh_v0", {"as_team": True, "rounds": 6}, {"coordination": {}}, {}),
    "imagination, masked": (PPOConfig, "forest_uav_v0", FOREST, {"imagination": IMAGINED}, {}),
    "imagination with memory": (A2CConfig, "swarm_cooperative_v0", SWARM, {"imagination": IMAGINED}, GRU),
    "lstm": (PPOConfig, "forest_uav_v0", FOREST, {}, LSTM),
    "gru that talks": (
        MADDPGConfig, "swarm_cooperative_v0", SWARM, {"communication": {"bandwidth": 2}}, GRU,
    ),
    "agent_id": (PPOConfig, "forest_uav_v0", FOREST, {"agent_id": True}, {}),
    "agent_id and memory of Q-values": (DQNConfig, "forest_uav_v0", FOREST, {"agent_id": True}, GRU),
    "single agent": (PPOConfig, "CartPole-v1", {}, {}, {}),
    "planner over an ensemble": (WorldModelConfig, "swarm_mixed_v0", SWARM, {**ENSEMBLE, **PLANS}, {}),
    "planner over a recurrent model, masked": (WorldModelConfig, "forest_uav_v0", FOREST, {**RECURRENT, **PLANS}, {}),
    "actor over an ensemble": (
        WorldModelConfig, "forest_uav_v0", FOREST, {**ENSEMBLE, "behaviour": "actor", **AMPLIFIED}, {},
    ),
    "actor over a recurrent model": (
        WorldModelConfig, "swarm_cooperative_v0", SWARM, {**RECURRENT, "behaviour": "actor", "agent_id": True}, {},
    ),
    "planner over a model that sees others": (
        WorldModelConfig, "swarm_cooperative_v0", LEAVING,
        {"world_model": {**ENSEMBLE["world_model"], **SEEN}, **PLANS}, {},
    ),
    "planner over a recurrent model that sees others": (
        WorldModelConfig, "swarm_cooperative_v0", LEAVING,
        {"world_model": {**RECURRENT["world_model"], **SEEN}, **PLANS}, {},
    ),
    "several modules": (PPOConfig, "swarm_mixed_v0", SWARM, {}, {}),
}  # fmt: skip
kinds = pytest.mark.parametrize("kind", KINDS)


def policy_of(kind):
    """Return the policy of fresh modules, as it is made of checkpointed ones."""
    config_class, env, env_config, training, model = KINDS[kind]
    torch.manual_seed(0)
    config = (
        config_class()
        .environment(env, env_config=env_config)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1)
        .training(**training)
        .rl_module(model_config={"fcnet_hiddens": [8], **model})
        .debugging(seed=0)
    )
    modules = dict(BatchedEnvRunner(config=config).module.items())
    for module in modules.values():
        network = module.unwrapped().policy
        with torch.no_grad():  # far from uniform, and exploration as after some training
            for parameter in network.parameters():
                parameter.mul_(2.0)
            if "exploration" in training:
                network.exploration.fill_(training["exploration"])
    return policy_from_modules(modules, config)


def env_of(kind):
    _, env, env_config, *_ = KINDS[kind]
    if env == "CartPole-v1":
        import gymnasium

        return gymnasium.make(env)
    return qio_envs.environment(env).parallel_env(**env_config)


def play(policy, env, seed, explore):
    """Play an episode with a Player; return its return and all that was done."""
    player, total, done = policy.player(explore, seed), 0.0, []
    observations, _ = env.reset(seed=seed)
    while True:
        actions = player.act(observations)
        done.append(actions if not isinstance(actions, dict) else list(actions.values()))
        observations, rewards, terminated, truncated, _ = env.step(actions)
        if not isinstance(rewards, dict):
            total += rewards
            if terminated or truncated:
                return total, done
            continue
        total += sum(rewards.values())
        if not env.agents:
            return total, done
        observations = {agent: observations[agent] for agent in env.agents}


@kinds
@pytest.mark.parametrize("explore", [False, True])
def test_a_player_of_the_file_plays_what_an_evaluation_of_the_modules_plays(kind, explore, tmp_path):
    _, env, env_config, *_ = KINDS[kind]
    policy = policy_of(kind)
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    assert (loaded.env, loaded.env_config) == (env, env_config)
    assert loaded.module_of == policy.module_of
    seeds = [5, 6]
    rows = evaluate(policy, env, env_config, seeds, explore)
    assert evaluate(loaded, env, env_config, seeds, explore) == rows
    for seed, row in zip(seeds, rows, strict=True):
        total, actions = play(loaded, env_of(kind), seed, explore)
        assert len(actions) == row["episode_length"]
        assert total == pytest.approx(row["episode_return"], rel=1e-4, abs=1e-4)
        again, same = play(loaded, env_of(kind), seed, explore)
        assert total == again
        np.testing.assert_equal(same, actions)


@kinds
def test_memory_and_exploration_are_in_the_file(kind, tmp_path):
    policy = policy_of(kind)
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    for one, two in zip(policy.team.groups, loaded.team.groups, strict=True):
        assert one.actor.memory == two.actor.memory
        assert one.actor.network.spec.as_dict() == two.actor.network.spec.as_dict()
        assert one.agent_id == two.agent_id
        weights = two.actor.network.state_dict()
        for name, value in one.actor.network.state_dict().items():
            assert torch.equal(value, weights[name]), name
    words = ("lstm", "gru", "memory", "planner", "recurrent")
    assert bool(policy.team.groups[0].actor.memory) == any(word in kind for word in words)


WITHOUT_RAY = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "pettingzoo", "hypothesis"):
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, Refuse())
from qio_rllib.artifacts.policy_file import load_policy
import numpy as np
out = []
for path, observations in zip(sys.argv[1::2], sys.argv[2::2]):
    player = load_policy(path).player(seed=3)
    given = {a: {k: np.array(v, np.float32) for k, v in o.items()} if isinstance(o, dict) else np.array(o, np.float32)
             for a, o in json.loads(observations).items()}
    out.append([{a: np.asarray(x).tolist() for a, x in player.act(given).items()} for _ in range(2)])
assert "ray" not in sys.modules
print(json.dumps(out))
"""


def test_files_load_and_play_where_there_is_no_ray(tmp_path):
    arguments, expected = [], []
    for kind in ("talking", "lstm", "circuit", "coordination"):
        policy = policy_of(kind)
        path = save_policy(policy, tmp_path / f"{len(arguments)}.pt")
        env = env_of(kind)
        observations, _ = env.reset(seed=1)
        player = policy.player(seed=3)
        acts = [player.act(observations) for _ in range(2)]
        expected.append([{a: np.asarray(x).tolist() for a, x in found.items()} for found in acts])
        plain = {
            agent: {key: np.asarray(v).tolist() for key, v in o.items()}
            if isinstance(o, dict)
            else o.tolist()
            for agent, o in observations.items()
        }
        arguments += [str(path), json.dumps(plain)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for one, two in zip(found, expected, strict=True):
        for step, other in zip(one, two, strict=True):
            for agent, action in step.items():
                np.testing.assert_allclose(action, other[agent], atol=1e-5)


# -- what is refused


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def rewritten(path, change):
    """Rewrite members of a policy file: ``change(name, data)``, None to leave one out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            new = change(name, data)
            if new is not None:
                archive.writestr(name, new)
    return path


@pytest.fixture
def file(tmp_path):
    return save_policy(policy_of("single agent"), tmp_path / "policy.pt")


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_nothing_in_a_file_is_executed(file, tmp_path, form):
    mark = tmp_path / "executed"

    def poison(name, data):
        if name.endswith(".json"):
            return data
        if form == "pickle":
            return pickle.dumps(Malicious(mark))
        torch.save({"weight": Malicious(mark)}, tmp_path / "weights.pt")
        return (tmp_path / "weights.pt").read_bytes()

    rewritten(file, poison)
    with pytest.raises(ConfigError, match=r"is damaged or no policy file") as caught:
        load_policy(file)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_files_of_the_format_before_say_what_to_do(tmp_path):
    path = tmp_path / "policy.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("policy.json", json.dumps({"format": 1, "env": "CartPole-v1", "modules": {}}))
        archive.writestr("default_policy.pt2", b"a torch.export program")
    with pytest.raises(
        ConfigError, match=r"format 1, expected 3; if it was made by an earlier version, train again"
    ) as caught:
        load_policy(path)
    assert "\n" not in str(caught.value)


def described(**changes):
    return lambda name, data: json.dumps(json.loads(data) | changes) if name == "policy.json" else data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (described(format=2), "has format 2, expected 3"),
        (lambda name, data: None if name == "policy.json" else data, "damaged"),
        (lambda name, data: data if name == "policy.json" else None, "expected the members"),
        (lambda name, data: data if name == "policy.json" else data[:100], "damaged"),
    ],
)
def test_damaged_files_are_named_in_one_line(file, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_policy(rewritten(file, change))
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"policy file: there is no file .*nothing.pt"):
        load_policy(tmp_path / "nothing.pt")
    with pytest.raises(ConfigError, match="there is no file"):
        load_policy(tmp_path)
    for content in (b"", b"no zip at all", b"\x80\x04."):
        (tmp_path / "other.pt").write_bytes(content)
        with pytest.raises(ConfigError, match="damaged or no policy file"):
            load_policy(tmp_path / "other.pt")


def test_weights_of_another_network_are_refused(file):
    description = json.loads(zipfile.ZipFile(file).read("policy.json"))
    description["groups"][0]["policy"]["num_actions"] = 3
    description["groups"][0]["action"]["count"] = 3
    with pytest.raises(
        ConfigError, match=r"head.layers.0.weight has the shape 2 x 8, expected 3 x 8"
    ) as caught:
        load_policy(rewritten(file, described(groups=description["groups"])))
    assert "\n" not in str(caught.value)


def test_a_file_is_replaced_only_by_a_whole_one(file, monkeypatch):
    before = file.read_bytes()

    def fails(*arguments, **named):
        raise OSError("disk full")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fails)
    with pytest.raises(OSError, match="disk full"):
        save_policy(policy_of("single agent"), file)
    assert file.read_bytes() == before


def test_other_actors_have_no_file(tmp_path):
    env = qio_envs.environment("forest_uav_v0").batched_env(1, num_uavs=2)
    team = scripted_team(env, "random")
    policy = Policy(team, {"random": GroupSpaces(env.observation_space.shape)}, "forest_uav_v0", {})
    with pytest.raises(ConfigError, match="policy file: module 'random' .*keep the checkpoint"):
        save_policy(policy, tmp_path / "policy.pt")
    assert list(tmp_path.iterdir()) == []
