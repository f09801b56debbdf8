"""Small runners, and what their rollouts and metrics hold."""

import numpy as np
from toy_lives import Lives

from qio_rllib.algorithms import PPOConfig
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.runner import BatchedEnvRunner

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7}
MASKED = {"mask_blocked_moves": True, "obstacle_density": 0.2}


def config_of(env, env_config=None, num_envs=2, fragment=10, **training):
    return (
        PPOConfig()
        .environment(env, env_config=env_config or {})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs, rollout_fragment_length=fragment)
        .training(
            train_batch_size_per_learner=num_envs * (fragment if isinstance(fragment, int) else 10),
            minibatch_size=8,
            num_epochs=1,
            **training,
        )
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )


def forest(num_envs=2, fragment=10, **env_config):
    return config_of("forest_uav_v0", FOREST | env_config, num_envs, fragment)


def lives(cls=Lives, num_envs=2, fragment=12):
    register_env("lives", lambda env_config: cls())
    return config_of("lives", None, num_envs, fragment)


def faulty(cls=Lives, fragment=12, **faults):
    """Return a runner of two environments of which the second has the faults."""
    runner = runner_of(lives(cls, fragment=fragment))
    runner.env.envs[1].faults = faults
    return runner


def runner_of(config, **kwargs):
    return BatchedEnvRunner(config=config, **kwargs)


def arrays_of(rollouts):
    """Return (name, array) of everything that rollouts hold, columns and memory included."""
    for rollout in rollouts:
        for part in rollout.modules.values():
            for name, value in sorted({**vars(part), **part.columns, **part.memory}.items()):
                if isinstance(value, np.ndarray):
                    yield name, value


def assert_same(one, other):
    for (name, left), (_, right) in zip(arrays_of(one), arrays_of(other), strict=True):
        np.testing.assert_array_equal(left, right, name)


def metrics_of(runner):
    def values(stats):
        if isinstance(stats, dict):
            return {key: values(value) for key, value in stats.items()}
        return float(stats.peek())

    return values(runner.get_metrics())


def learner_of(config, runner):
    """Return the Learner of a configuration, built without an Algorithm."""
    return config.build_learner(spaces=runner.get_spaces())
