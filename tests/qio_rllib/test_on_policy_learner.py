"""Learning from rollouts: every row once an epoch, Learners in step, what is not finite is refused."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from qio_rllib.algorithms import PPOConfig
from qio_rllib.algorithms.ppo import PPOLearner

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

SMALL = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 20}


class CountingLearner(PPOLearner):
    """Remembers the minibatches that it was given."""

    minibatches: ClassVar[list[torch.Tensor]] = []

    def losses(self, module_id, config, batch, policy, values):
        self.minibatches.append(batch["action_logp"].clone())
        return super().losses(module_id, config, batch, policy, values)


def small_config(env: str = "forest_uav_v0", **training) -> PPOConfig:
    settings = {"train_batch_size_per_learner": 40, "minibatch_size": 35, "num_epochs": 2, **training}
    return (
        PPOConfig()
        .environment(env, env_config=SMALL if env == "forest_uav_v0" else {})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2)
        .training(**settings)
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .debugging(seed=0)
    )


def test_every_epoch_takes_each_row_once_in_even_minibatches_and_a_new_order():
    CountingLearner.minibatches.clear()
    algorithm = small_config().learners(learner_class=CountingLearner).build_algo()
    algorithm.train()
    algorithm.stop()
    sizes = [len(rows) for rows in CountingLearner.minibatches]
    assert sizes == [40, 40, 40] * 2  # 120 rows; three minibatches are nearest to 35 each
    first, second = (torch.cat(CountingLearner.minibatches[k : k + 3]) for k in (0, 3))
    assert not torch.equal(first, second)
    torch.testing.assert_close(first.sort().values, second.sort().values, rtol=0, atol=0)


def test_fewer_rows_than_a_minibatch_are_one_smaller_minibatch():
    CountingLearner.minibatches.clear()
    algorithm = small_config().learners(learner_class=CountingLearner).build_algo()
    (rollout,) = algorithm.env_runner.sample(num_timesteps=10)
    before = algorithm.learner_group.get_weights()
    algorithm.learner_group.update(episodes=[rollout], minibatch_size=35, num_epochs=1)
    assert [len(rows) for rows in CountingLearner.minibatches] == [30]
    after = algorithm.learner_group.get_weights()
    assert any(np.any(values != after["shared"][name]) for name, values in before["shared"].items())
    algorithm.stop()


def test_a_loss_that_is_not_finite_ends_the_update():
    algorithm = small_config().build_algo()
    (rollout,) = algorithm.env_runner.sample(num_timesteps=40)
    rollout.modules["shared"].rewards[3, 1, 2] = np.inf
    with pytest.raises(FloatingPointError, match="shared/total_loss is nan"):
        algorithm.learner_group.update(episodes=[rollout])
    algorithm.stop()


def test_only_modules_that_are_to_be_trained_change():
    config = small_config("mpe2.simple_speaker_listener_v4", minibatch_size=20).multi_agent(
        policies="independent", policies_to_train=["listener_0"]
    )
    algorithm = config.build_algo()
    before = algorithm.learner_group.get_weights()
    assert set(before) == {"speaker_0", "listener_0"}
    algorithm.train()
    after = algorithm.learner_group.get_weights()
    for module_id, changes in (("speaker_0", False), ("listener_0", True)):
        same = all(np.all(after[module_id][name] == values) for name, values in before[module_id].items())
        assert same is not changes
    algorithm.stop()


@pytest.mark.long  # two that share a central value too: test_central_value_training.py
@pytest.mark.parametrize("learners", [1, 2])
def test_remote_learners_share_the_environments_and_stay_equal(learners):
    config = small_config(train_batch_size_per_learner=40 // learners, minibatch_size=20)
    algorithm = config.learners(num_learners=learners).build_algo()
    before = algorithm.learner_group.get_weights()["shared"]
    result = algorithm.train()
    found = algorithm.learner_group.foreach_learner(
        lambda learner: {
            name: value.detach().numpy().copy()
            for name, value in learner.module["shared"].unwrapped().named_parameters()
        }
    )
    first, *others = (entry.get() for entry in found)
    assert len(others) == learners - 1
    for name, values in first.items():
        assert (values != before[name]).any()
        for other in others:
            np.testing.assert_array_equal(values, other[name])
    assert result["learners"]["__all_modules__"]["num_env_steps_trained_lifetime"] == 40
    algorithm.stop()


def test_kl_coefficients_are_part_of_the_state():
    algorithm = small_config(kl_coeff=0.2).build_algo()
    learner = algorithm.learner_group._learner
    learner.curr_kl_coeffs_per_module["shared"].data.fill_(0.7)
    state = learner.get_state()
    learner.curr_kl_coeffs_per_module["shared"].data.fill_(0.1)
    learner.set_state(state)
    assert float(learner.curr_kl_coeffs_per_module["shared"]) == pytest.approx(0.7)
    algorithm.stop()
