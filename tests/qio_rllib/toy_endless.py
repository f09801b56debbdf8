"""A Gymnasium environment whose episodes never end by themselves."""

import gymnasium
import numpy as np

from qio_rllib.sampling.environments import register_env


class Endless(gymnasium.Env):
    """A point on a circle that goes forwards or backwards; ``steps`` counts those of all its instances."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.angle = self.np_random.uniform(0, 2 * np.pi)
        return self._seen(), {}

    def step(self, action):
        Endless.steps += 1
        self.angle += 0.3 * (2 * action - 1)
        return self._seen(), float(np.cos(self.angle)), False, False, {}

    def _seen(self):
        return np.array([np.cos(self.angle), np.sin(self.angle)], np.float32)


def register_endless() -> None:
    """Let experiments name it ``endless``."""
    register_env("endless", lambda config: Endless(**config))
