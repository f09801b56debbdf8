"""How far skirmish_v0 is from JaxMARL's SMAX: episodes of `smax_reference.py`, played again here.

Each episode is compared in two ways. Step by step: from each of SMAX's states, one step of ours. As a whole: from
SMAX's first state, the whole episode of ours. Both take the actions of both sides from the file, so that no random
number but the length of cooldowns is left: a unit shoots at most once in a step (no cooldown is shorter than seven
ticks), so that a cooldown drawn in a step matters after it only, and there it is set to SMAX's. Before that it is
compared: those of units that did not shoot must agree, of those that did within the range of the draw.

What the enemies' script chooses here is compared apart: with what SMAX's chose where nothing is drawn, otherwise with
what it may choose.

    python benchmarks/smax_agreement.py --episodes runs/smax_episodes.npz
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from tables import write

from qio_envs import skirmish_v0
from qio_envs.skirmish.config import COOLDOWN_NOISE, FIRST_ATTACK, STOP, UNITS
from qio_envs.skirmish.kernels.enemies import command_enemies, move_along
from qio_envs.skirmish.kernels.outcome import advance
from qio_envs.skirmish.state import SkirmishRules

ALL_TYPES = ", ".join(f"1 {name}" for name in UNITS)
HEALTH = np.array([unit.health for unit in UNITS.values()])
TOLERANCE = 1e-4
FEATURES = 4 + len(UNITS)  # numbers of a unit in the world state


@dataclasses.dataclass
class Episode:
    """An episode of SMAX; see `smax_reference` for its columns."""

    map: str
    controller: str
    seed: int
    max_steps: int
    world: np.ndarray
    seen: np.ndarray
    memory: np.ndarray
    ally_actions: np.ndarray
    enemy_actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    masks: np.ndarray
    position: np.ndarray

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.rewards)

    @property
    def length_limit(self) -> int:
        """Steps after which SMAX ends an episode: it compares the time with ``max_steps`` before it counts the step."""
        return self.max_steps + 1

    @property
    def units(self) -> np.ndarray:
        """Health, x, y, cooldown and the type's bits of all units at each time, ``[T + 1, U, 10]``."""
        count = self.world.shape[1] // (FEATURES + 2)
        return self.world[:, : count * FEATURES].reshape(len(self.world), count, FEATURES)

    @property
    def types(self) -> np.ndarray:
        """Type of each unit, ``[U]``."""
        return self.world[0, -self.units.shape[1] :].astype(np.uint8)


@dataclasses.dataclass
class Agreement:
    """What a comparison found."""

    step_error: float = 0.0  # largest difference of any number after a single step
    whole_error: float = 0.0  # and in the whole episode
    first_apart: int = -1  # first step of the whole episode that differs by more than TOLERANCE; -1 for none
    wrong_masks: int = 0  # bits, from SMAX's states
    wrong_ends: int = 0  # endings of agents and episodes, likewise
    decisions: int = 0  # of living enemies
    drawn: int = 0  # decisions that differ, and might have been drawn here as well
    wrong_decisions: int = 0  # other decisions that differ
    wrong_memory: int = 0  # what enemies shot at last


def load(path: Path) -> list[Episode]:
    """Return the episodes of a file."""
    with np.load(path) as file:
        described = json.loads(str(file["episodes"]))
        found = []
        for number, about in enumerate(described):
            names = [field.name for field in dataclasses.fields(Episode) if field.name not in about]
            columns = {name: file[f"{number}/{name}"] for name in names}
            steps, allies = columns["ally_actions"].shape
            count = FIRST_ATTACK + columns["enemy_actions"].shape[1]
            bits = np.unpackbits(columns["masks"], count=(steps + 1) * allies * count)
            columns["masks"] = bits.reshape(steps + 1, allies, count)
            found.append(Episode(**about, **columns))
    return found


def environment(episode: Episode, num_envs: int) -> Any:
    """Return environments with the episode's map."""
    if episode.map == "all_types":
        settings = {"allies": ALL_TYPES, "enemies": ALL_TYPES}
    else:
        settings = {"scenario": episode.map}
    return skirmish_v0.batched_env(num_envs, max_steps=episode.length_limit, **settings)


def put(env: Any, episode: Episode, times: np.ndarray) -> None:
    """Set the environments to SMAX's states after so many steps, int ``[E]``."""
    s, units = env.arrays, episode.units[times]
    env.reset(0)
    s.step[:], s.kind[:] = times, episode.types
    s.health[:] = np.rint(units[..., 0] * HEALTH[episode.types])
    s.alive[:] = s.health > 0
    s.position[:] = np.moveaxis(units[..., 1:3], 2, 1)
    s.cooldown[:] = units[..., 3]
    actions = np.concatenate([episode.ally_actions, episode.enemy_actions], axis=1)
    s.action[:] = np.where((times > 0)[:, None], actions[times - 1], STOP)
    size = np.array([env.config.map_width, env.config.map_height])
    s.goal[:] = size - episode.position[env.num_agents :]
    s.target[:] = episode.memory[times]


def step(env: Any, episode: Episode, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Advance by the actions of the episode after so many steps; return rewards, terminated and truncated."""
    shape = (env.num_envs, env.num_agents)
    outcome = np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, bool)
    actions, orders = (x[times].astype(np.int64) for x in (episode.ally_actions, episode.enemy_actions))
    advance(actions, orders, env.arrays, SkirmishRules.of(env.config), *outcome)
    return outcome


def compare_after(env: Any, episode: Episode, times: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Return the largest difference of each environment from SMAX after so many steps, and take over its cooldowns."""
    theirs, s, envs = episode.units[times], env.arrays, np.arange(env.num_envs)
    before = episode.units[times - 1][..., 3]
    living = s.alive & (theirs[..., 0] > 0)
    shot = theirs[..., 3] > before
    apart = np.abs(np.where(living, s.cooldown - theirs[..., 3], 0))
    drawn = COOLDOWN_NOISE[1] - COOLDOWN_NOISE[0]
    error = np.where(shot, np.maximum(apart - drawn, 0), apart).max(axis=1)
    s.cooldown[living] = theirs[..., 3][living]
    error = np.maximum(error, np.abs(env.state() - episode.world[times]).max(axis=1))
    own = env.observe()[envs, times % env.num_agents]
    error = np.maximum(error, np.abs(own - episode.seen[times]).max(axis=1))
    return np.maximum(error, np.abs(rewards - episode.rewards[times - 1][:, None]).max(axis=1))


def step_by_step(episode: Episode, found: Agreement) -> None:
    """Compare one step from each of SMAX's states."""
    times = np.arange(episode.steps)
    env = environment(episode, episode.steps)
    put(env, episode, times)
    _compare_decisions(env, episode, times, found)
    acted = env.agents_alive()
    rewards, terminated, truncated = step(env, episode, times)
    found.step_error = float(compare_after(env, episode, times + 1, rewards).max())
    found.wrong_masks = int((env.action_mask() != episode.masks[1:]).sum())
    ended = episode.dones[:, -1]
    late = times + 1 >= episode.length_limit
    found.wrong_ends = int((env.running == ended).sum())
    # in SMAX the dead are done and the living are not, even where the episode is
    decided = ended & ~_both_live(env)
    expected = acted & (episode.dones[:, :-1] | decided[:, None])
    found.wrong_ends += int((terminated != expected).sum())
    found.wrong_ends += int((truncated != (acted & ~expected & late[:, None])).sum())


def whole(episode: Episode, found: Agreement) -> None:
    """Compare the whole episode from SMAX's first state."""
    env = environment(episode, 1)
    rules = SkirmishRules.of(env.config)
    put(env, episode, np.array([0]))
    orders = np.empty((1, env.num_enemies), np.int64)
    for t in range(episode.steps):
        command_enemies(env.arrays, rules, orders)
        alive = env.arrays.alive[0, env.num_agents :]
        found.wrong_memory += int((env.arrays.target[0] != episode.memory[t + 1])[alive].sum())
        rewards, *_ = step(env, episode, np.array([t]))
        error = float(compare_after(env, episode, np.array([t + 1]), rewards)[0])
        found.whole_error = max(found.whole_error, error)
        if error > TOLERANCE and found.first_apart < 0:
            found.first_apart = t


def compare(episode: Episode) -> Agreement:
    """Return how an episode agrees."""
    found = Agreement()
    step_by_step(episode, found)
    whole(episode, found)
    return found


def _both_live(env: Any) -> np.ndarray:
    alive, allies = env.arrays.alive, env.num_agents
    return alive[:, :allies].any(axis=1) & alive[:, allies:].any(axis=1)


def _compare_decisions(env: Any, episode: Episode, times: np.ndarray, found: Agreement) -> None:
    """Compare what enemies choose, and what they then remember."""
    rules, orders = SkirmishRules.of(env.config), np.empty((env.num_envs, env.num_enemies), np.int64)
    command_enemies(env.arrays, rules, orders)
    theirs = episode.enemy_actions[times].astype(int)
    alive = env.arrays.alive[:, env.num_agents :]
    found.decisions = int(alive.sum())
    found.wrong_memory += int((env.arrays.target != episode.memory[times + 1])[alive].sum())
    for e, m in np.argwhere(alive & (orders != theirs)).tolist():
        chases = orders[e, m] < STOP and theirs[e, m] in _chases(env, rules, e, m)
        found.drawn += chases
        found.wrong_decisions += not chases


def _chases(env: Any, rules: SkirmishRules, e: int, m: int) -> set[int]:
    """Return the moves towards each of the allies that an enemy sees."""
    s, allies = env.arrays, env.num_agents
    away = (s.position[e, :, :allies] - s.position[e, :, allies + m][:, None]).astype(float)
    seen = s.alive[e, :allies] & (np.hypot(*away) < rules.sight_range[s.kind[e, allies + m]])
    return {move_along(x, y) for x, y in away.T[seen].tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--episodes", type=Path, required=True, help="file of smax_reference.py")
    parser.add_argument(
        "--out", type=Path, default=Path("results/skirmish/agreement.csv"), help="CSV to write"
    )
    args = parser.parse_args()
    rows = []
    for episode in load(args.episodes):
        found = compare(episode)
        about = {key: getattr(episode, key) for key in ("map", "controller", "seed", "steps")}
        numbers = dataclasses.asdict(found)
        numbers |= {key: f"{numbers[key]:.2g}" for key in ("step_error", "whole_error")}
        rows.append(about | numbers)
        print(rows[-1], flush=True)
    write(args.out, rows)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
