"""An environment whose spaces are nested, and which checks what it is given."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces

OBSERVATIONS = spaces.Dict(
    {
        "room": spaces.Discrete(3, start=-1),
        "bag": spaces.Tuple(
            [spaces.MultiBinary(2), spaces.Box(-1, 1, (2, 2)), spaces.MultiDiscrete([2, 3], start=[5, 0])]
        ),
    }
)
ACTIONS = spaces.Dict(
    {
        "gear": spaces.Discrete(3, start=1),
        "arms": spaces.Tuple([spaces.Box(-2, 2, (2,)), spaces.MultiDiscrete([2, 4])]),
        "lamps": spaces.MultiBinary(2),
    }
)


class Nested(gymnasium.Env):
    """Pays for gear 2, the last value of the arms' second number, and a lit first lamp; ends after ten steps.

    Attributes:
        taken: The actions of the running episode.
    """

    observation_space = OBSERVATIONS
    action_space = ACTIONS

    def __init__(self) -> None:
        self.taken: list[dict] = []

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.taken = []
        return self._look(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.taken.append(action)
        gain = sum(map(float, (action["gear"] == 2, action["arms"][1][1] == 3, action["lamps"][0] == 1)))
        return self._look(), gain, False, len(self.taken) >= 10, {}

    def _look(self):
        room = int(self.np_random.integers(-1, 2))
        corner = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        bits = self.np_random.integers(0, 2, 2).astype(np.int8)
        return {"room": room, "bag": (bits, corner, np.array([5 + len(self.taken) % 2, room + 1]))}
