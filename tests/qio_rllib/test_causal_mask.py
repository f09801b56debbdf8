"""World models that predict from causes alone: the search in a run, its checkpoints, and what is refused."""

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm

from qio_envs import drift_control_v0
from qio_envs.api import ConfigError
from qio_rllib.algorithms import WorldModelConfig
from qio_rllib.algorithms.causal_search import mask_of_interventions
from qio_rllib.causal.datasets import true_mask
from qio_rllib.causal.masks import CausalMaskSettings
from qio_rllib.sampling.evaluation import policy_from_modules

PLANS = {"horizon": 2, "candidates": 4, "elites": 2, "iterations": 1}


def config_of(env="drift_control_v0", causal_mask=None, world_model=None, **env_config):
    config = WorldModelConfig().environment(env, env_config=env_config)
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=10)
    config.reporting(min_sample_timesteps_per_iteration=160)
    config.debugging(seed=0)
    return config.training(
        world_model=world_model or {"members": 2, "hiddens": [4]},
        planner=PLANS,
        causal_mask={} if causal_mask is None else causal_mask,
        train_batch_size_per_learner=16,
        num_steps_sampled_before_learning_starts=160,
        env_steps_per_update=40,
        replay_capacity=1000,
    )


def input_mask(algorithm):
    model = algorithm.env_runner.module["shared"].policy.model
    return model.input_mask.reshape(2, -1, 6)[0].numpy() > 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_a_run_seeks_causes_again_when_it_has_twice_as_much_and_resumes(tmp_path):
    algorithm = config_of().build_algo()
    try:
        first = algorithm.train()["learners"]["shared"]["causes"]
        mask = input_mask(algorithm)
        assert mask[:5].sum() == first
        assert 5 <= first < 25  # of 30
        assert mask[3, 3]
        assert not mask[3, 4:].any()  # no action reaches s3
        np.testing.assert_array_equal(mask[5], mask[4])
        algorithm.save_to_path(tmp_path / "here")
        second = algorithm.train()["learners"]["shared"]
        assert second["causes"] == input_mask(algorithm)[:5].sum() != 0
        after = input_mask(algorithm)
        assert not np.array_equal(after, mask)  # sought again, in twice as many steps
        assert after[[0, 1, 2, 2], [4, 5, 4, 5]].all()  # what actions reach
    finally:
        algorithm.stop()
    again = Algorithm.from_checkpoint(str(tmp_path / "here"))
    try:
        np.testing.assert_array_equal(input_mask(again), mask)
        found = again.train()["learners"]["shared"]
        assert found["model_loss"] == second["model_loss"]
        np.testing.assert_array_equal(input_mask(again), after)
        policy = policy_from_modules(dict(again.env_runner.module.items()), again.config)
        kept = policy.team.groups[0].actor.network.model.input_mask
        assert torch.equal(kept, again.env_runner.module["shared"].policy.model.input_mask)
    finally:
        again.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("behaviour", ["planner", "actor"])
def test_interventions_find_the_whole_graph_and_leave_distractors_out(behaviour):
    """Whoever acts, by planning in the model or learned in its imagination."""
    config = config_of(causal_mask={"interventions": 400}, scenario="distractors")
    algorithm = config.training(behaviour=behaviour, imagination_horizon=3).build_algo()
    try:
        learned = algorithm.train()["learners"]["shared"]
        assert ("actor_loss" in learned) == (behaviour == "actor")
        model = algorithm.env_runner.module["shared"].policy.model
        mask = model.input_mask.reshape(2, -1, 14)[0].numpy() > 0
        assert not mask[[0, 1, 2, 3, 12, 13]][:, 4:12].any()
        assert mask[12, :4].all()
    finally:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_a_dense_model_is_held_to_the_causes_and_resumes(tmp_path):
    settings = {"use": "consistency", "weight": 2.0, "interventions": 400}
    algorithm = config_of(causal_mask=settings, scenario="distractors").build_algo()
    try:
        found = algorithm.train()["learners"]["shared"]
        assert found["inconsistency"] > 0
        causes = algorithm.learner_group._learner.module["shared"].unwrapped().causes.clone()
        assert not causes[[0, 1, 2, 3, 12, 13]][:, 4:12].any()
        assert causes[:-1].sum() == found["causes"]
        model = algorithm.env_runner.module["shared"].policy.model
        assert not model.is_factored
        algorithm.save_to_path(tmp_path / "here")
        expected = algorithm.train()["learners"]["shared"]["model_loss"]
    finally:
        algorithm.stop()
    again = Algorithm.from_checkpoint(str(tmp_path / "here"))
    try:
        module = again.learner_group._learner.module["shared"].unwrapped()
        np.testing.assert_array_equal(module.causes, causes)
        assert again.train()["learners"]["shared"]["model_loss"] == expected
    finally:
        again.stop()


def test_interventions_come_on_top_of_those_of_before():
    env = drift_control_v0.batched_env(16)
    settings = CausalMaskSettings()
    one = mask_of_interventions(env, 200, 3, settings)
    np.testing.assert_array_equal(one, mask_of_interventions(env, 200, 3, settings))
    truth = true_mask(env)[:4]
    np.fill_diagonal(truth[:2, :2], False)  # s0 and s1 stay: their changes do not depend on themselves
    np.testing.assert_array_equal(one[:4], truth)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: config_of(causal_mask={"alpha": 2}),
            r"causal_mask\.alpha: expected a number in \(0, 1\), got 2",
        ),
        (
            lambda: config_of(world_model={"type": "rssm"}).validate(),
            r"causal_mask: needs world_model.type: ensemble",
        ),
        (
            lambda: config_of(world_model={"attention_heads": 2}).validate(),
            r"causal_mask: does not go with world_model.attention_heads",
        ),
        (
            lambda: config_of("CartPole-v1", causal_mask={"interventions": 5}).validate(),
            r"causal_mask\.interventions: CartPole-v1 has no state that can be set",
        ),
        (
            lambda: config_of("swarm_cooperative_v0", causal_mask={"interventions": 5}).validate(),
            r"causal_mask\.interventions: swarm_cooperative_v0 has no state that can be set",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
