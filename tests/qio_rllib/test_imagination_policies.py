"""Imagination-augmented policies: runs, checkpoints and policy files, and what is refused."""

import math
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from toy_first_ratio import FirstRatio
from toy_imagination import TINY, module_of
from toy_runners import config_of as toy_config_of
from toy_runners import learner_of, runner_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.cli import main
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.learners.imagination import MODEL
from qio_rllib.models.actor_critic import INPUTS
from qio_rllib.models.imagination import ImaginationSettings
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, load_policy_from_checkpoint, mean_scores

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- training -----------------------------------------------------------------------------------------------------


MASKED = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 12, "mask_blocked_moves": True}
ENVIRONMENTS = {
    "qio_envs/DriftControl-v0": {"max_steps": 12},
    "forest_uav_v0": MASKED,
    "swarm_cooperative_v0": {"max_steps": 12},
}


def config_of(config_class, env, model_config=None, **training):
    sizes = {"train_batch_size_per_learner": 32, "lr": 1e-2}
    if config_class is PPOConfig:
        sizes |= {"minibatch_size": 32, "num_epochs": 2, "use_kl_loss": False}
    config = (
        config_class()
        .environment(env, env_config=ENVIRONMENTS[env])
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=16)
        .reporting(min_sample_timesteps_per_iteration=32)
        .evaluation(evaluation_interval=1, evaluation_duration=2)
        .training(**sizes, **{"imagination": TINY, **training})
        .rl_module(model_config={"fcnet_hiddens": [8], **(model_config or {})})
        .debugging(seed=0)
    )
    return config.learners(learner_class=FirstRatio) if config_class is PPOConfig else config


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(
    ("config_class", "env", "training", "model_config"),
    [
        (PPOConfig, "qio_envs/DriftControl-v0", {}, {}),
        (PPOConfig, "forest_uav_v0", {"amplification": {"eta": 0.3}, "agent_id": True}, {}),
        (PPOConfig, "swarm_cooperative_v0", {"central_value": "state", "normalize_values": True}, {}),
        (A2CConfig, "qio_envs/DriftControl-v0", {"imagination": {**TINY, "encoder": "gru"}}, {}),
        (A2CConfig, "forest_uav_v0", {}, {"use_gru": True, "gru_cell_size": 6, "max_seq_len": 4}),
        (PPOConfig, "qio_envs/DriftControl-v0", {}, {"vf_share_layers": True}),
        (PPOConfig, "forest_uav_v0", {"imagination": {**TINY, "source": "none"}}, {}),
    ],
    ids=["ppo", "ppo-masked", "ppo-central", "a2c", "a2c-memory", "ppo-shared", "none"],
)  # fmt: skip
def test_it_trains_and_acts_equally_from_checkpoint_and_policy_file(
    config_class, env, training, model_config, tmp_path
):
    config = config_of(config_class, env, model_config, **training)
    algorithm = config.build_algo()
    (name,) = algorithm.env_runner.module.keys()
    blind = config.imagination.get("source") == "none"
    learner = algorithm.learner_group._learner.module[name].unwrapped()
    before = {key: value.detach().clone() for key, value in learner.named_parameters()}
    for _ in range(2):  # the second update has weights that were synced, and a model that has learned
        FirstRatio.ratio.clear()
        result = algorithm.train()
        if config_class is PPOConfig:
            first = FirstRatio.ratio[0]
            torch.testing.assert_close(first, torch.ones_like(first), atol=1e-4, rtol=0)
    metrics = result["learners"][name]
    assert ("model_loss" in metrics) != blind
    if not blind:
        assert math.isfinite(metrics["model_loss"])
        assert metrics[f"{MODEL}_learning_rate"] == 1e-3
    for key, value in learner.named_parameters():
        unused = blind and (".imagination." in key or ".rollouts.layers.0.weight" in key)
        assert torch.equal(value, before[key]) == unused, key
    acting = algorithm.env_runner.module[name].unwrapped()
    for key, value in acting.state_dict().items():
        assert torch.equal(value, learner.state_dict()[key]), key
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    policy = load_policy_from_checkpoint(tmp_path / "checkpoint")
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    for mode, explore in (("greedy", False), ("sampled", True)):
        rows = evaluate(policy, env, ENVIRONMENTS[env], evaluation_seeds(2), explore)
        scores = mean_scores(rows)
        assert scores == {key: result["evaluation"][mode][key] for key in scores}
        assert evaluate(loaded, env, ENVIRONMENTS[env], evaluation_seeds(2), explore) == rows


def test_log_probabilities_of_the_runner_are_those_of_the_learner_after_learning():
    config = toy_config_of("forest_uav_v0", MASKED, imagination=TINY, use_kl_loss=False)
    runner = runner_of(config)
    learner = learner_of(config, runner)
    for _ in range(2):
        (rollout,) = runner.sample()
        ((name, part),) = rollout.modules.items()
        batch = learner.prepare(name, [part])
        module = learner.module[name].unwrapped()
        with torch.no_grad():
            found = module._forward_train({INPUTS: batch.inputs})[Columns.ACTION_DIST_INPUTS]
        torch.testing.assert_close(
            found, torch.from_numpy(part.columns["dist_inputs"][part.acted]), atol=1e-4, rtol=1e-4
        )
        learner.update(episodes=[rollout], num_epochs=1, minibatch_size=8)
        runner.module[name].load_state_dict(
            {key: module.state_dict()[key] for key in runner.module[name].state_dict()}
        )


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizn": 4}, r"imagination: unknown key 'horizn' .did you mean 'horizon'"),
        (
            {"source": "lerned"},
            "imagination.source: expected one of learned, random, none, .* mean 'learned'",
        ),
        ({"encoder": "lstm"}, "imagination.encoder: expected one of mlp, gru, got 'lstm'"),
        ({"horizon": 0}, "imagination.horizon: expected an integer from 1 to 50, got 0"),
        ({"horizon": 2.0}, "imagination.horizon: expected an integer from 1 to 50, got 2.0"),
        ({"members": 21}, "imagination.members: expected an integer from 1 to 20, got 21"),
        ({"rollouts": 0}, "imagination.rollouts: expected an integer from 1 to 1000 or none, got 0"),
        ({"rollouts": True}, "imagination.rollouts: expected an integer"),
        ({"encoder_hiddens": []}, r"imagination.encoder_hiddens: expected sizes of at least 1, got \[\]"),
        ({"model_hiddens": 8}, "imagination.model_hiddens: expected sizes of at least 1, got 8"),
        ({"policy_hiddens": [0]}, r"imagination.policy_hiddens: expected sizes of at least 1, got \[0\]"),
        ({"model_lr": 0}, "imagination.model_lr: expected a finite number above 0, got 0"),
        ({"model_lr": "fast"}, "imagination.model_lr: expected a finite number above 0, got 'fast'"),
        ({"model_batch_size": 0}, "imagination.model_batch_size: expected an integer from 1"),
        ({"model_epochs": 101}, "imagination.model_epochs: expected an integer from 1 to 100, got 101"),
        (3, "imagination: .*got 3"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        A2CConfig().training(imagination=settings)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=message):
        ImaginationSettings.of(settings)


@pytest.mark.parametrize(
    ("algorithm", "env", "config", "message"),
    [
        ("PPO", "CartPole-v1", {"circuit": {}}, "imagination: does not go with circuit; set one of the two"),
        (
            "PPO",
            "chsh_v0",
            {"env_config": {"as_team": True}, "coordination": {}},
            "imagination: does not go with coordination; set one of the two to null",
        ),
        (
            "A2C",
            "CartPole-v1",
            {"imagination": {"rollouts": 3}},
            "imagination.rollouts: each of the 2 discrete actions has a rollout; leave it out",
        ),
        (
            "PPO",
            "CartPole-v1",
            {"num_learners": 2},
            "num_learners: imagination fits its model in one Learner",
        ),
        ("A2C", "Pendulum-v1", {"normalize_actions": False}, "normalize_actions: imagination's model takes"),
        (
            "DQN",
            "CartPole-v1",
            {},
            "imagination: DQN's networks see no imagined rollouts; PPO's and A2C's do",
        ),
        (
            "WorldModel",
            "CartPole-v1",
            {},
            "imagination: WorldModel's agents plan or learn inside their model",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused_before_a_run(algorithm, env, config, message):
    given = {"run": algorithm, "env": env, "stop": {"training_iteration": 1}}
    with pytest.raises(ConfigError, match=message) as caught:
        Experiment.from_mapping({**given, "config": {"imagination": {}, **config}}).validate()
    assert "\n" not in str(caught.value)


def test_images_and_rllibs_own_runner_are_refused():
    image = gymnasium.spaces.Box(0, 1, (16, 16, 3), np.float32)
    with pytest.raises(ConfigError, match=r"imagination: .* flat observations, got images of \(16, 16, 3\)"):
        module_of(observations=image)
    config = PPOConfig().environment("CartPole-v1").env_runners(env_runner_cls=None)
    with pytest.raises(ConfigError, match="env_runner_cls: imagination needs BatchedEnvRunner"):
        config.training(imagination={}).validate()


def test_null_takes_it_back_and_other_network_settings_leave_it():
    config = PPOConfig().training(imagination=TINY).rl_module(model_config={"fcnet_hiddens": [4]})
    assert config.imagination == TINY
    assert config.training(imagination=None).imagination is None
    assert module_of(imagination=None).policy.imagination is None


def test_the_ready_experiment_has_a_model_free_twin(tmp_path, monkeypatch, capsys):
    path = ROOT / "tune_configs" / "drift_control_i2a.yaml"
    config = load_experiment(path).algorithm_config()
    assert config.imagination["source"] == "learned"
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(path), "--set", "imagination.source=nothing"]) == 2
    err = capsys.readouterr().err
    assert "imagination.source: expected one of learned, random, none, got 'nothing'" in err
    assert err.count("\n") == 1
