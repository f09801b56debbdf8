"""A sound PettingZoo environment in plain Python, and one that is broken for each conformance check."""

import random

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

HORIZON = 7


class Sound(ParallelEnv):
    """Two agents walk on a line with noise; truncated after `HORIZON` steps."""

    metadata = {"name": "toy_v0", "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.possible_agents = ["a", "b"]
        self.agents = []
        self.observation_spaces = {
            agent: gymnasium.spaces.Dict(
                {
                    "observation": gymnasium.spaces.Box(-50, 50, (2,), np.float32),
                    "action_mask": gymnasium.spaces.Box(0, 1, (3,), np.int8),
                }
            )
            for agent in self.possible_agents
        }
        self.action_spaces = {agent: gymnasium.spaces.Discrete(3) for agent in self.possible_agents}
        self.state_space = gymnasium.spaces.Box(-50, 50, (2,), np.float32)
        self.generator = np.random.default_rng()

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def observe(self):
        mask = np.array([1, self.t % 2, 1], np.int8)
        return {
            agent: {
                "observation": np.array([self.place[agent], self.t], np.float32),
                "action_mask": mask.copy(),
            }
            for agent in self.agents
        }

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.t = 0
        self.place = {agent: self.noise() for agent in self.agents}
        return self.observe(), {agent: {} for agent in self.agents}

    def noise(self):
        return self.generator.random()

    def step(self, actions):
        self.t += 1
        for agent in self.agents:
            self.place[agent] += int(actions[agent]) - 1 + 0.1 * self.noise()
        over = self.t >= HORIZON
        result = (
            self.observe(),
            {agent: float(self.place[agent]) for agent in self.agents},
            dict.fromkeys(self.agents, False),
            dict.fromkeys(self.agents, over),
            {agent: {} for agent in self.agents},
        )
        if over:
            self.agents = []
        return result

    def state(self):
        return np.array([self.place["a"], self.place["b"]], np.float32)

    def get_state(self):
        return {
            "t": self.t,
            "place": dict(self.place),
            "agents": list(self.agents),
            "generator": self.generator.bit_generator.state,
        }

    def set_state(self, state):
        self.t, self.place, self.agents = state["t"], dict(state["place"]), list(state["agents"])
        self.generator.bit_generator.state = state["generator"]

    def render(self):
        return np.zeros((4, 6, 3), np.uint8)

    def close(self):
        pass


class ObservationOutsideItsSpace(Sound):
    def observe(self):
        seen = super().observe()
        for value in seen.values():
            value["observation"] = value["observation"] + (100 if self.t == 3 else 0)
        return seen


class ObservationOfAnotherType(Sound):
    def observe(self):
        seen = super().observe()
        for value in seen.values():
            value["observation"] = value["observation"].astype(np.float16)
        return seen


class _Mask(Sound):
    def observe(self):
        seen = super().observe()
        for value in seen.values():
            value["action_mask"] = self.mask()
        return seen


class MaskOfAnotherType(_Mask):
    def __init__(self, render_mode=None):
        super().__init__(render_mode)
        for space in self.observation_spaces.values():
            space.spaces["action_mask"] = gymnasium.spaces.Box(0, 1, (3,), np.int64)

    def mask(self):
        return np.ones(3, np.int64)


class MaskWithoutLegalAction(_Mask):
    def mask(self):
        return np.zeros(3, np.int8) if self.t == 2 else np.ones(3, np.int8)


class MaskOfOtherNumbers(_Mask):
    def mask(self):
        return np.array([1, 2, 0], np.int8)


class RewardOfAStranger(Sound):
    def step(self, actions):
        seen, rewards, *rest = super().step(actions)
        return seen, rewards | {"c": 0.0}, *rest


class NoInfoOfAnAgent(Sound):
    def step(self, actions):
        *rest, infos = super().step(actions)
        infos.pop("a", None)
        return *rest, infos


class RewardThatIsNaN(Sound):
    def step(self, actions):
        seen, rewards, *rest = super().step(actions)
        return seen, dict.fromkeys(rewards, float("nan")), *rest


class SeedOfTheFirstResetOnly(Sound):
    seeded = False

    def reset(self, seed=None, options=None):
        seed, self.seeded = (None if self.seeded else seed), True
        return super().reset(seed)


class ResetWithoutSeed(Sound):
    def reset(self, seed=None, options=None):
        seen, infos = super().reset(seed)
        fresh = np.random.default_rng()  # PettingZoo's own seed test compares steps only
        for value in seen.values():
            value["observation"][0] = fresh.random()
        return seen, infos


class UseOfNumpysGlobalGenerator(Sound):
    def reset(self, seed=None, options=None):
        if seed is not None:
            np.random.seed(seed)  # noqa: NPY002
        return super().reset(seed)

    def noise(self):
        return np.random.random()  # noqa: NPY002


class UseOfPythonsGlobalGenerator(Sound):
    def reset(self, seed=None, options=None):
        if seed is not None:
            random.seed(seed)
        return super().reset(seed)

    def noise(self):
        return random.random()


class AgentThatGoesOn(Sound):
    def step(self, actions):
        seen, rewards, terminated, truncated, infos = super().step(actions)
        if self.t == 3:
            terminated = terminated | {"a": True}
        return seen, rewards, terminated, truncated, infos


class AgentThatVanishes(Sound):
    def step(self, actions):
        result = super().step(actions)
        if self.t == 3:
            self.agents = ["a"]
        return result


class TimeLimitAsTermination(Sound):
    def step(self, actions):
        seen, rewards, terminated, truncated, infos = super().step(actions)
        return seen, rewards, truncated, terminated, infos


class CopyThatForgets(Sound):
    def __deepcopy__(self, memo):
        duplicate = type(self)()
        duplicate.reset(seed=0)
        return duplicate


class CopyThatIsRefused(Sound):
    def __deepcopy__(self, memo):
        raise TypeError("there is one of me")


class PickleThatForgets(Sound):
    def __getstate__(self):
        return self.__dict__ | {"place": dict.fromkeys(self.possible_agents, 0.0)}

    def __deepcopy__(self, memo):
        duplicate = type(self)()
        duplicate.set_state(self.get_state())
        return duplicate


class StateThatForgets(Sound):
    def set_state(self, state):
        super().set_state(state | {"t": 0})


class GlobalStateOutsideItsSpace(Sound):
    def state(self):
        return super().state()[:1]


class PictureInGrey(Sound):
    def render(self):
        return np.zeros((4, 6), np.uint8)


class PictureInFloats(Sound):
    def render(self):
        return np.zeros((4, 6, 3))


class NotEvenTheInterface(Sound):
    def step(self, actions):
        return super().step(actions)[:4]


class Bare(Sound):
    """Without what is optional: masks, state, get_state, pictures."""

    metadata = {"name": "bare_v0"}  # noqa: RUF012
    state_space = None

    def __init__(self):
        super().__init__()
        del self.state_space
        self.observation_spaces = {
            agent: space["observation"] for agent, space in self.observation_spaces.items()
        }

    def __getattribute__(self, name):
        if name in ("get_state", "set_state"):
            raise AttributeError(name)
        return super().__getattribute__(name)

    def observe(self):
        return {agent: value["observation"] for agent, value in super().observe().items()}


def make_nothing():
    return object()
