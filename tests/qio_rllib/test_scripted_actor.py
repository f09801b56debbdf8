"""Scripted policies play by the loop that everybody plays by, and score what the suite says they score."""

import numpy as np
import pytest

from qio_envs import environment
from qio_envs.api import ConfigError, episode_scores
from qio_rllib.acting.scripted import scripted_team
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.evaluation import play_episodes

SETTINGS = {
    "forest_uav_v0": {"height": 8, "width": 8, "num_uavs": 3, "max_steps": 25, "mask_blocked_moves": True},
    "swarm_cooperative_v0": {"max_steps": 30, "out_radius": 2.05, "process_noise": 0.1},
}
NAMES = [
    (env_id, name) for env_id in SETTINGS for name in environment(env_id).batched_env(1).scripted_policies
]


@pytest.mark.parametrize(("env_id", "name"), NAMES)
def test_scores_are_those_of_the_suite_seed_by_seed(env_id, name):
    def make():
        return environment(env_id).batched_env(4, **SETTINGS[env_id])

    env = make()
    expected = episode_scores(env, env.scripted_policies[name], seed=20)
    batch = make()
    rows = play_episodes(scripted_team(batch, name), BatchedVectorEnv(batch), [20, 21, 22, 23], explore=True)
    assert [row["team_return"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-12)
    assert len(set(expected.tolist())) > 1 or name == "lawnmower"  # no obstacle is in its way here
    assert np.isfinite(expected).all()


def test_an_unknown_policy_is_named():
    env = environment("forest_uav_v0").batched_env(1)
    with pytest.raises(ConfigError, match="has no scripted policy 'randm' .did you mean 'random'"):
        scripted_team(env, "randm")
