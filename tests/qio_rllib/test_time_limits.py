"""``bootstrap_at_time_limit``: whether returns go on behind a limit, in what runners give and learners make of it."""

import numpy as np
import pytest
from ray.rllib.evaluation.postprocessing import Postprocessing
from toy_central import small_config

from qio_envs.api import ConfigError
from qio_rllib.algorithms import A2CConfig, COMAConfig, MADDPGConfig, PPOConfig, QMIXConfig
from qio_rllib.experiments.credit import Subject
from qio_rllib.sampling.counterfactuals import TERMINATED
from qio_rllib.sampling.runner import BatchedEnvRunner

LIMIT = 12
"""Of the forest of `small_config`; nothing else ends its episodes."""


def flags(config):
    """Return (terminated, truncated) of the 20 steps that a runner plays, ``[T, E, M]``."""
    (part,) = BatchedEnvRunner(config=config).sample(num_timesteps=40)[0].modules.values()
    at = np.zeros(part.rewards.shape, bool)
    at[LIMIT - 1] = True
    return part, at


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_limit_is_an_end_where_returns_stop(goes_on):
    part, at = flags(small_config(bootstrap_at_time_limit=goes_on))
    np.testing.assert_array_equal(part.truncated, at & goes_on)
    np.testing.assert_array_equal(part.terminated, at & (not goes_on))
    assert len(part.final_index) == at.sum()


def test_a_limit_in_a_branch_is_one_too():
    config = small_config(counterfactual_baseline={}, bootstrap_at_time_limit=False)
    part, at = flags(config)
    np.testing.assert_array_equal(part.columns[TERMINATED], np.repeat(at[..., None], 5, axis=-1))
    part, _ = flags(small_config(counterfactual_baseline={}))
    assert not part.columns[TERMINATED].any()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_the_value_target_of_the_last_step_is_its_reward():
    algorithm = small_config(config_class=A2CConfig, bootstrap_at_time_limit=False).build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample(num_timesteps=40)
    (part,) = rollout.modules.values()
    targets = learner.prepare("shared", [part]).columns[Postprocessing.VALUE_TARGETS]
    shaped = targets.reshape(part.rewards.shape).numpy()
    np.testing.assert_allclose(shaped[LIMIT - 1], part.rewards[LIMIT - 1], atol=1e-6)
    assert not np.allclose(shaped[LIMIT - 2], part.rewards[LIMIT - 2], atol=1e-3)
    algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("goes_on", [True, False])
def test_credit_knows_what_a_run_learned(tmp_path, goes_on):
    algorithm = small_config(bootstrap_at_time_limit=goes_on).build_algo()
    checkpoint = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    assert Subject.of_checkpoint(checkpoint).trained.limits_end == (not goes_on)


def test_returns_go_on_by_default_but_for_qmix():
    found = {
        config: config().bootstrap_at_time_limit
        for config in (PPOConfig, A2CConfig, COMAConfig, MADDPGConfig)
    }
    assert all(found.values())
    assert not QMIXConfig().bootstrap_at_time_limit


def test_rllibs_own_runner_knows_no_such_setting():
    config = small_config(central_value=None, bootstrap_at_time_limit=False).env_runners(env_runner_cls=None)
    with pytest.raises(
        ConfigError, match="env_runner_cls: bootstrap_at_time_limit: false needs BatchedEnvRunner"
    ):
        config.validate()
