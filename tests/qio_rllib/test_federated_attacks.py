"""Environments that lie to malicious clients of a federation."""

import pickle

import numpy as np
import pytest
from toy_federations import FOREST, POLE, federation

from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.lying_env import lying

pytestmark = pytest.mark.usefixtures("ray_runtime")


def test_flipped_rewards_are_minus_what_was_paid():
    for attack in (None, "flipped_rewards"):
        env = make_vector_env("cart_pole_v0", POLE, 3)
        env.reset(np.arange(3, dtype=np.uint64))
        index = np.arange(1)
        with lying(env, attack, np.random.default_rng(0)):
            rewards, _, _ = env.step([(index, np.ones((3, 1), np.int64))])
        assert (rewards == (1 if attack is None else -1)).all()
        rewards, _, _ = env.step([(index, np.ones((3, 1), np.int64))])
        assert (rewards == 1).all()  # honest again


def test_random_actions_replace_the_policys_and_are_legal():
    settings = {**FOREST, "obstacle_density": 0.2, "mask_blocked_moves": True}
    env = make_vector_env("forest_uav_v0", settings, 50)
    env.reset(np.arange(50, dtype=np.uint64))
    index, taken = np.arange(3), []
    honest = type(env).step

    def watched(self, actions):
        legal = self.action_mask(index)
        taken.append(actions[0][1].copy())
        assert np.take_along_axis(legal, actions[0][1][..., None], -1).all()
        return honest(self, actions)

    type(env).step, before = watched, type(env).step
    try:
        with lying(env, "random_actions", np.random.default_rng(0)):
            for _ in range(5):
                env.step([(index, np.zeros((50, 3), np.int64))])
    finally:
        type(env).step = before
    assert len(np.unique(np.concatenate(taken))) == 5


@pytest.mark.parametrize("attack", ["flipped_rewards", "random_actions"])
def test_environments_lie_to_malicious_clients_alone(attack):
    honest = federation("A2C", clients=3).build_algo()
    attacked = federation("A2C", clients=3, attack={"type": attack, "clients": [1]}).build_algo()
    for algorithm in (honest, attacked):
        algorithm.train()
    for index in range(3):
        learners = [pickle.loads(one.records[index].state)["learner_group"] for one in (honest, attacked)]
        modules = [learner["learner"]["rl_module"]["shared"] for learner in learners]
        same = all(np.array_equal(value, modules[1][name]) for name, value in modules[0].items())
        assert same == (index != 1)
