"""Small environments whose agents come and go, and that go wrong where a test wants it."""

import threading
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv


class Lives(ParallelEnv):
    """Agent ``a`` terminates in step 2; ``b`` comes in step 2; in step 5 ``b`` terminates while ``c`` truncates.

    An observation is (environment's random number, step, last action); a reward is the step.
    """

    metadata = {"name": "lives", "render_modes": []}  # noqa: RUF012
    possible_agents = ("a", "b", "c")
    render_mode = None

    def __init__(self, **faults: Any) -> None:
        self.faults = faults  # by name, the step in which it happens
        self.agents: list[str] = []
        self.generator = np.random.default_rng()

    def observation_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Box(-100, 100, (3,), np.float32)

    def action_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        self.agents, self.time = ["a", "c"], 0
        self.number = self.generator.random()
        return self.see({}, self.agents), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        assert set(actions) == set(self.agents)
        self.time += 1
        now, acted = self.time, list(self.agents)
        if self.happens("raises"):
            raise OSError("the simulator is gone")
        terminated = {agent: (agent, now) in (("a", 2), ("b", 5)) for agent in acted}
        truncated = {agent: (agent, now) == ("c", 5) for agent in acted}
        self.agents = [agent for agent in acted if not (terminated[agent] or truncated[agent])]
        if now == 2:
            self.agents.append("b")
        rewards = dict.fromkeys(acted, float(now))
        if self.happens("reward"):
            rewards["c"] = self.faults.get("value", np.nan)
        if self.happens("stranger"):
            self.agents.append("d")
        seen = self.see(actions, dict.fromkeys([*acted, *self.agents]))
        return seen, rewards, terminated, truncated, {agent: {"time": now} for agent in seen}

    def happens(self, fault: str) -> bool:
        return self.faults.get(fault) == self.time

    def see(self, actions: dict[str, int], agents: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {
            agent: np.array([self.number, self.time, actions.get(agent, 0)], np.float32) for agent in agents
        }
        if self.happens("observation"):
            seen["c"][1] = self.faults.get("value", np.nan)
        if self.happens("missing"):
            del seen["c"]
        if self.happens("shape"):
            seen["c"] = np.ones((1,), np.float32)
        if self.happens("words"):
            seen["c"] = ["x", "y", "z"]
        if self.happens("ragged"):
            seen["c"] = [[1.0], [1.0, 2.0], []]
        return seen

    def close(self) -> None:
        pass


class StillListed(Lives):
    """Still lists its last agents when they have ended."""

    def step(self, actions: dict[str, int]) -> Any:
        result = super().step(actions)
        if self.time == 5:
            self.agents = ["b", "c"]
        return result


class Vanishing(Lives):
    """Agent ``c`` is gone after step 3, without flag and without observation."""

    def step(self, actions: dict[str, int]) -> Any:
        seen, rewards, terminated, truncated, infos = super().step(actions)
        if self.time == 3:
            self.agents.remove("c")
            del seen["c"], rewards["c"], terminated["c"], truncated["c"], infos["c"]
        return seen, rewards, terminated, truncated, infos


class Locked(Lives):
    """Cannot be pickled."""

    def __init__(self, **faults: Any) -> None:
        super().__init__(**faults)
        self.lock = threading.Lock()


class EzLives(Lives, gymnasium.utils.EzPickle):
    """Gives pickle the arguments of its constructor only, as many environments do."""

    def __init__(self) -> None:
        gymnasium.utils.EzPickle.__init__(self)
        super().__init__()


class Masked(Lives):
    """Action ``time % 3`` is illegal for all; ``stuck`` leaves agent ``c`` none at all, ``bare`` no mask."""

    def observation_space(self, agent: str) -> gymnasium.Space:
        mask = gymnasium.spaces.Box(0, 1, (3,), np.int8)
        return gymnasium.spaces.Dict({"observation": super().observation_space(agent), "action_mask": mask})

    def see(self, actions: dict[str, int], agents: Any) -> dict[str, Any]:
        assert all(action != (self.time - 1) % 3 for action in actions.values())
        mask = np.array([self.time % 3 != action for action in range(3)], np.int8)
        seen = {
            agent: {"observation": value, "action_mask": mask.copy()}
            for agent, value in super().see(actions, agents).items()
        }
        if self.happens("stuck"):
            seen["c"]["action_mask"][:] = 0
        if self.happens("bare"):
            del seen["c"]["action_mask"]
        if self.happens("narrow"):
            seen["c"]["action_mask"] = np.ones(1, np.int8)
        return seen
