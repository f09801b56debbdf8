"""Trajectories of PettingZoo environments: random legal actions, steps, comparison of what they give."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

MakeEnv = Callable[
    ..., Any
]  # of a PettingZoo ParallelEnv; PettingZoo has no type annotations to check against


class Player:
    """Draws legal actions from copies of the action spaces, the same ones for the same seed."""

    def __init__(self, env: Any, seed: int) -> None:
        self.spaces = {agent: copy.deepcopy(env.action_space(agent)) for agent in env.possible_agents}
        for index, space in enumerate(self.spaces.values()):
            space.seed(seed + index)

    def act(self, env: Any, observations: dict, infos: dict) -> dict[str, Any]:
        """Return an action for every living agent."""
        return {
            agent: self.spaces[agent].sample(mask_of(observations.get(agent), infos.get(agent)))
            for agent in env.agents
        }


def mask_of(observation: Any, info: Any) -> Any:
    """Return the action mask of an observation or info, None if there is none."""
    for place in (observation, info):
        if isinstance(place, dict) and "action_mask" in place:
            return place["action_mask"]
    return None


@dataclasses.dataclass
class Step:
    """One step of a trajectory; after a reset only ``observations``, ``infos`` and ``after`` are set."""

    observations: dict
    infos: dict
    after: list[str]  # living agents
    before: list[str] | None = None
    rewards: dict = dataclasses.field(default_factory=dict)
    terminated: dict = dataclasses.field(default_factory=dict)
    truncated: dict = dataclasses.field(default_factory=dict)

    @property
    def outcome(self) -> tuple:
        """What a copy of the environment must give alike."""
        return self.observations, self.rewards, self.terminated, self.truncated


def reset(env: Any, seed: int | None) -> Step:
    """Start an episode."""
    observations, infos = env.reset(seed=seed)
    return Step(observations, infos, list(env.agents))


def advance(env: Any, player: Player, last: Step) -> Step:
    """Take a step with the player's actions."""
    before = list(env.agents)
    observations, *rest, infos = env.step(player.act(env, last.observations, last.infos))
    rewards, terminated, truncated = rest
    return Step(observations, infos, list(env.agents), before, rewards, terminated, truncated)


def play(env: Any, steps: int, seed: int) -> Iterator[Step]:
    """Yield a reset, then ``steps`` steps, with resets (no seed) in between where episodes end."""
    player, last = Player(env, seed), reset(env, seed)
    yield last
    for _ in range(steps):
        if not env.agents:
            last = reset(env, None)
            yield last
        last = advance(env, player, last)
        yield last


def go_on(env: Any, player: Player, last: Step, steps: int) -> list[tuple]:
    """Return the outcomes of further steps of the episode."""
    given = []
    for _ in range(steps):
        if not env.agents:
            break
        last = advance(env, player, last)
        given.append(last.outcome)
    return given


def equal(first: Any, second: Any) -> bool:
    """Whether two values are the same, numbers that are no numbers and nested containers included."""
    if isinstance(first, dict) or isinstance(second, dict):
        same_kind = isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys()
        return same_kind and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape:
        return False
    same = one == other
    if one.dtype.kind in "fc" and other.dtype.kind in "fc":
        same |= np.isnan(one) & np.isnan(other)
    return bool(np.all(same))


def dtype_fault(space: gymnasium.Space, value: Any) -> str | None:
    """Return what is wrong with the types inside a value, or None."""
    if isinstance(space, gymnasium.spaces.Dict):
        faults = (dtype_fault(part, value[key]) for key, part in space.spaces.items())
    elif isinstance(space, gymnasium.spaces.Tuple):
        faults = (dtype_fault(part, item) for part, item in zip(space.spaces, value, strict=True))
    elif space.shape:
        have = getattr(value, "dtype", type(value).__name__)
        return None if have == space.dtype else f"dtype {have} instead of {space.dtype}"
    else:
        return None
    return next((fault for fault in faults if fault), None)


def assert_in_space(space: gymnasium.Space, value: Any, what: str) -> None:
    """Assert that a value, called ``what`` in the message, lies in its space and has its types."""
    assert space.contains(value), f"{what} is not in its space {short(space)}: {short(value)}"
    fault = dtype_fault(space, value)
    assert fault is None, f"{what} has {fault}"


def short(value: Any) -> str:
    """Return a value as one line of at most 120 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 120 else text[:117] + "..."


def when_of(index: int, step: Step) -> str:
    """Return when a step of a trajectory was taken, for messages."""
    return "at a reset" if step.before is None else f"at step {index}"


def in_mid_episode(make_env: MakeEnv, seed: int) -> tuple[Any, Player, Step]:
    """Return an environment after a step or two, its player, and its last step."""
    env = make_env()
    player, last = Player(env, seed), reset(env, seed)
    for _ in range(2):
        step = advance(env, player, last)
        if not env.agents:  # episodes of a step or two: from the reset, then
            return env, player, reset(env, seed)
        last = step
    return env, player, last
