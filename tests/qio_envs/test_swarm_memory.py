"""The cooperative swarm whose target is shown in the first steps only, in which nobody moves."""

import numpy as np
import pytest

from qio_envs import swarm_cooperative_v0
from qio_envs.api import episode_scores, normalized_score, reference_scores
from qio_envs.swarm import ControllerPolicy


def remembered(num_envs=3, **settings):
    env = swarm_cooperative_v0.batched_env(num_envs, "remembered_target", **settings)
    env.reset(4)
    return env


def test_agents_stay_where_they_are_during_the_cue_whatever_they_do():
    env = remembered(process_noise=0.5)
    start = env.arrays.body.copy()
    for t in range(5):
        transition = env.step(np.full((3, 3), 1 + t % 4))
        np.testing.assert_array_equal(env.arrays.body, start)
        gap = np.hypot(*np.moveaxis(env.arrays.target[:, None] - start[..., :2], -1, 0))
        assert (transition.rewards <= -gap + 1e-5).all()  # the steps count
        assert env.agents_alive().all()
    env.step(np.full((3, 3), 1))
    assert (env.arrays.body != start).all()


def test_the_target_is_observed_until_actions_count_and_reads_zero_from_then_on():
    env = remembered()
    start = env.arrays.body[..., :2].copy()
    part = env.config.observation_layout["target"]
    for t in range(60):
        shown = env.observe()[..., part]
        if t < 5:
            np.testing.assert_array_equal(shown, env.arrays.target[:, None] - start)
        else:
            assert not shown.any()
            assert (env.state()[:, env.config.state_layout["target"]] == env.arrays.target).all()
        env.step(np.full((3, 3), 3))
    assert not env.observe()[..., part].any()  # the final observation
    env.reset()
    assert env.observe()[..., part].all()


def test_a_policy_without_memory_observes_the_same_whatever_the_target():
    """From the end of the cue on, only memory tells two targets apart."""
    env, other = remembered(), remembered()
    other.arrays.target[:] = -env.arrays.target
    for t in range(60):
        if t >= 5:
            np.testing.assert_array_equal(env.observe(), other.observe())
        actions = np.random.default_rng(t).integers(0, 5, (3, 3))
        env.step(actions)
        other.step(actions)


def test_only_the_informed_are_given_the_cue():
    env = remembered(informed_agents=1)
    shown = env.observe()[..., env.config.observation_layout["target"]]
    assert shown[:, 0].all()
    assert not shown[:, 1:].any()


def test_a_state_saved_during_the_cue_continues_exactly():
    env, other = remembered(), swarm_cooperative_v0.batched_env(3, "remembered_target")
    env.step(np.ones((3, 3), int))
    env.step(np.ones((3, 3), int))
    other.set_state(env.get_state())
    for t in range(2, 20):
        np.testing.assert_array_equal(env.observe(), other.observe())
        actions = np.random.default_rng(t).integers(0, 5, (3, 3))
        for one, two in zip(env.step(actions), other.step(actions), strict=True):
            np.testing.assert_array_equal(one, two)


class _HoldTheOrigin(ControllerPolicy):
    """The best that a policy can do that does not know the target: its disc lies around the origin."""

    def _goal(self):
        return np.zeros((self.env.num_envs, 1, 2), np.float32)


class _Nothing:
    def __init__(self, env):
        self.env = env

    def act(self):
        return np.zeros((self.env.num_envs, self.env.num_agents), np.int64)


@pytest.mark.parametrize("policy", [_Nothing, _HoldTheOrigin])
def test_policies_that_do_not_remember_the_target_score_next_to_nothing(policy):
    env = remembered(256)
    scores = reference_scores(env)
    value = episode_scores(env, policy).mean()
    assert normalized_score(value, scores["random"], scores["controller"]) < 0.1
