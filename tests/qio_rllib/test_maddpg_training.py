"""MADDPG as an algorithm: schedules, warming up, resuming, remote runners, bad input."""

import math

import gymnasium
import numpy as np
import pytest
from ray.rllib.algorithms.algorithm import Algorithm
from toy_lives import Lives
from toy_off_policy import config_of, setup_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import MADDPGConfig
from qio_rllib.artifacts.metrics import progress_row
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.vector_env import InvalidSampleError

FIRST_LAYER = "policy.encoder.layers.0.weight"


def numbers(result):
    row = progress_row(result)
    return {
        key: value for key, value in row.items() if not any(w in key for w in ("time", "per_s", "throughput"))
    }


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_it_warms_up_with_random_actions_and_says_so(caplog):
    config = config_of(
        "swarm", num_steps_sampled_before_learning_starts=256, exploration=[[0, 0.4], [512, 0.1]]
    )
    algorithm = config.build_algo()
    first = algorithm.train()
    assert first["replay"] == {"joint_steps": 128, "warming_up": 1}
    assert "critic_loss" not in first.get("learners", {}).get("shared", {})
    assert "warming up: it learns nothing before 256 environment steps" in caplog.text
    second, third = algorithm.train(), algorithm.train()
    assert (second["replay"]["warming_up"], third["replay"]["warming_up"]) == (0, 0)
    # one update for 16 steps, from the round on that fills the 256
    assert third["learners"]["shared"]["updates_lifetime"] == (384 - 256) // 16 + 64 // 16
    # by environment steps, on the runner too
    expected = 0.4 - 0.3 * 384 / 512
    assert third["learners"]["shared"]["exploration"] == pytest.approx(
        np.mean([expected, 0.4 - 0.3 * 320 / 512])
    )
    assert float(algorithm.env_runner.module["shared"].policy.exploration) == pytest.approx(expected)
    algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("task", ["swarm", "speaker", "forest", "lives"])
def test_an_interrupted_run_goes_on_exactly(task, tmp_path):
    training = {"exploration": [[0, 0.4], [1000, 0.1]]}
    model = {}
    if task in ("swarm", "speaker"):
        training["communication"] = {"bandwidth": 2, "drop": 0.2}
    if task == "lives":
        model, training["burn_in"] = {"use_gru": True, "gru_cell_size": 4, "max_seq_len": 4}, 2
    whole = config_of(task, model=model, **training).build_algo()
    for _ in range(2):
        whole.train()
    path = str(tmp_path / "checkpoint")
    whole.save_to_path(path)
    expected = [numbers(whole.train()) for _ in range(2)]
    weights = whole.learner_group.get_weights()
    whole.stop()
    resumed = Algorithm.from_checkpoint(path)
    assert len(resumed.replay) == 256
    found = [numbers(resumed.train()) for _ in range(2)]
    for one, two in zip(expected, found, strict=True):
        assert one == two
    for module_id, module in resumed.learner_group.get_weights().items():
        for name, array in module.items():
            np.testing.assert_array_equal(array, weights[module_id][name], name)
    resumed.stop()


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_a_remote_runner_samples_for_it():
    config = config_of("tag").env_runners(num_env_runners=1)
    algorithm = config.build_algo()
    for _ in range(2):
        result = algorithm.train()
    assert result["num_env_steps_sampled_lifetime"] == 256
    assert math.isfinite(result["learners"]["prey"]["critic_loss"])
    ours = algorithm.learner_group.get_weights()["chasers"][FIRST_LAYER]
    (theirs,) = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.module["chasers"].state_dict()["policy.encoder.layers.0.weight"].numpy(),
        local_env_runner=False,
    )
    np.testing.assert_array_equal(ours, theirs)
    algorithm.stop()


def test_a_runner_holds_no_critic():
    module = BatchedEnvRunner(config=config_of("swarm")).module["shared"]
    assert {name.split(".")[0] for name in module.state_dict()} == {"policy"}


# -- bad input


class Unbounded(Lives):
    def action_space(self, agent):
        return gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Picture(Lives):
    def observation_space(self, agent):
        return gymnasium.spaces.Box(0, 1, (4, 4), np.float32)


class Crowd(Lives):
    """It does not say who there can be."""

    possible_agents = property(lambda self: getattr(self, "unknown"))  # noqa: B009


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"tau": 0.0}, "tau: expected a number above 0, up to 1, got 0.0"),
        ({"gumbel_temperature": 0.0}, "gumbel_temperature: expected a number above 0"),
        ({"action_regularization": -1.0}, "action_regularization: expected a number of at least 0"),
        ({"burn_in": -1}, "burn_in: expected an integer of at least 0, got -1"),
        ({"exploration": [[0, 0.5], [10, -0.1]]}, "exploration: expected a number of at least 0, or"),
        (
            {"exploration": None},
            r"exploration: expected a number of at least 0, or \[\[0, first\], .* got None",
        ),
        ({"exploration": [[0, 0.5], [10]]}, "exploration: expected a number"),
        ({"exploration": [[5, 0.5], [10, 0.1]]}, "exploration: expected a number"),
        ({"exploration": [[0, 0.5], [10, 0.1], [10, 0.2]]}, "with rising steps"),
        ({"actor_lr": -1e-3}, "actor_lr: expected a number of at least 0"),
        ({"critic_lr": True}, "critic_lr: expected a number of at least 0"),
        ({"replay_capacity": 0}, "replay_capacity: expected an integer of at least 1, got 0"),
        (
            {"replay_capacity": 10},
            r"replay_capacity: 10 joint .* samples of 1 step, a batch needs 32",
        ),
        (
            {"env_steps_per_update": 7},
            "env_steps_per_update: 7 does not divide the 64 environment steps of a round",
        ),
        ({"critic": {"type": "mpl"}}, "critic.type: expected one of mlp, attention, own, got 'mpl'"),
        ({"critic": {"hidens": [4]}}, r"critic: unknown key 'hidens' \(did you mean 'hiddens'\?\)"),
        ({"critic": {"hiddens": []}}, "critic.hiddens: expected sizes of at least 1"),
        (
            {"critic": {"type": "attention", "hiddens": [10], "heads": 3}},
            "critic.heads: 3 heads do not divide",
        ),
        ({"critic": {"heads": 4}}, "critic.heads: goes with type attention, the type is mlp"),
        ({"critic": {"type": "own", "heads": 4}}, "critic.heads: goes with type attention, the type is own"),
        ({"critic": "attention"}, "critic: expected a mapping or null, got 'attention'"),
        ({"central_value": "state"}, "central_value: MADDPG"),
        ({"normalize_values": True}, "normalize_values: MADDPG"),
        ({"entropy_annealing": {"law": "quantum"}}, "entropy_annealing: MADDPG"),
    ],
)
def test_bad_settings_are_refused(training, message):
    with pytest.raises(ConfigError, match=message):
        config_of("swarm", **training).validate()


def test_what_it_cannot_do_is_said():
    with pytest.raises(ConfigError, match="num_learners: MADDPG .*got 2"):
        config_of("swarm").learners(num_learners=2).validate()
    with pytest.raises(ConfigError, match="env_runner_cls: MADDPG needs BatchedEnvRunner"):
        config_of("swarm").env_runners(env_runner_cls=None).validate()
    with pytest.raises(ConfigError, match=r"normalize_actions: MADDPG's actors act in"):
        config_of("swarm").environment(normalize_actions=False).validate()
    with pytest.raises(ConfigError, match=r"critic_state: Pendulum-v1 has no state\(\)"):
        config_of("alone", critic_state=True)


def test_another_environment_takes_the_states_of_the_one_before_away():
    config = MADDPGConfig().environment("swarm_cooperative_v0")
    assert config.model_config["state_source"] == "state"
    config.environment("Pendulum-v1")
    assert config.model_config.get("state_source") is None


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Unbounded, "env: Discrete or bounded Box actions are needed, a has Box"),
        (Picture, r"observations: joint critics take flat ones, got the shape \(4, 4\)"),
        (Crowd, "has no possible_agents"),
    ],
)
def test_environments_that_do_not_suit_are_named(cls, message):
    register_env("unsuitable", lambda env_config: cls())
    with pytest.raises(ConfigError, match=message):
        BatchedEnvRunner(config=MADDPGConfig().environment("unsuitable"))


def test_a_broken_environment_ends_the_run_with_its_own_message():
    runner = BatchedEnvRunner(config=config_of("lives"))
    runner.env.envs[1].faults = {"observation": 3}
    with pytest.raises(
        InvalidSampleError, match="environment 1, step 3 of its episode: observation of c is nan"
    ):
        runner.sample()


def test_a_loss_that_is_not_finite_stops_learning():
    setup = setup_of(config_of("swarm"))
    setup.steps.modules["shared"]["rewards"][0] = np.inf
    with pytest.raises(FloatingPointError, match="shared/critic_loss is"):
        setup.learner.update(episodes=[setup.steps], timesteps={}, num_epochs=1)
