"""Episodes of JaxMARL's SMAX as a file, for `smax_agreement.py` and the tests of skirmish_v0, which replay them.

JaxMARL brings packages that do not go together with this project's, so this runs with the Python of an environment of
its own:

    python -m venv /somewhere/jaxmarl
    /somewhere/jaxmarl/bin/pip install jaxmarl==0.2.0
    /somewhere/jaxmarl/bin/python benchmarks/smax_reference.py --out tests/qio_envs/smax_reference.npz
    /somewhere/jaxmarl/bin/python benchmarks/smax_reference.py --every-map 12 --out runs/smax_episodes.npz

The environment is `HeuristicEnemySMAX`, stepped by its own ``step_env``. Allies follow one of the controllers below.
Of an episode with T steps the file holds, under the episode's number: ``world`` ``[T + 1, D]``, SMAX's world state;
``position`` ``[U, 2]`` at the start; ``ally_actions`` ``[T, N]``; ``enemy_actions`` ``[T, M]``, read off what SMAX
says that units did last; ``memory`` ``[T + 1, M]``, what each enemy shot at last; ``rewards`` ``[T]``; ``dones``
``[T, N + 1]``, those of the allies and of the episode; ``masks`` ``[T + 1, N, A]`` as packed bits; and ``seen``
``[T + 1, D]``, the observation of ally ``t mod N`` after t steps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxmarl import make
from jaxmarl.environments.smax import Scenario, map_name_to_scenario

STOP, FIRST_ATTACK = 4, 5
MAPS = (
    "3m", "8m", "25m", "5m_vs_6m", "10m_vs_11m", "27m_vs_30m", "2s3z", "3s5z", "3s5z_vs_3s6z", "3s_vs_5z", "6h_vs_8z",
    "smacv2_5_units", "smacv2_10_units", "smacv2_20_units",
)  # fmt: skip
ALL_TYPES = "all_types"
"""A map of our own, one unit of each type a side."""
CHOSEN = (  # map, controller, seed, time limit
    ("3m", "blind", 0, 100), ("8m", "focus", 1, 100), ("8m", "random", 2, 12), ("25m", "nearest", 3, 100),
    ("5m_vs_6m", "focus", 4, 100), ("10m_vs_11m", "mixed", 5, 100), ("27m_vs_30m", "mixed", 6, 100),
    ("2s3z", "nearest", 7, 100), ("2s3z", "random", 8, 100), ("2s3z", "border", 9, 100), ("3s5z", "focus", 10, 100),
    ("3s5z_vs_3s6z", "nearest", 11, 100), ("3s_vs_5z", "random", 12, 100), ("6h_vs_8z", "focus", 13, 100),
    ("smacv2_5_units", "nearest", 14, 100), ("smacv2_5_units", "mixed", 15, 100),
    ("smacv2_10_units", "focus", 16, 100), ("smacv2_20_units", "mixed", 17, 100), (ALL_TYPES, "focus", 18, 100),
    (ALL_TYPES, "random", 19, 100),
)  # fmt: skip


class Sight:
    """What controllers see: NumPy arrays of the units, allies first."""

    def __init__(self, env: Any, state: Any, rng: np.random.Generator) -> None:
        inner = state.state
        self.position, self.health = np.asarray(inner.unit_positions), np.asarray(inner.unit_health)
        self.alive = np.asarray(inner.unit_alive)
        self.range = np.asarray(env.unit_type_attack_ranges)[np.asarray(inner.unit_types)]
        available = env.get_avail_actions(state)
        self.mask = np.stack([np.asarray(available[agent]) for agent in env.agents]).astype(np.uint8)
        self.allies, self.rng = len(env.agents), rng

    def distances(self, ally: int) -> np.ndarray:
        """Return the distances to the enemies, infinity for the dead."""
        away = np.linalg.norm(self.position[self.allies :] - self.position[ally], axis=1)
        return np.where(self.alive[self.allies :], away, np.inf)


def _random(sight: Sight, ally: int) -> int:
    return int(sight.rng.choice(np.flatnonzero(sight.mask[ally])))


def _blind(sight: Sight, ally: int) -> int:
    """Attack anything, in range or not."""
    return int(sight.rng.integers(sight.mask.shape[1]))


def _nearest(sight: Sight, ally: int) -> int:
    enemy = int(sight.distances(ally).argmin())
    return _attack_or_approach(sight, ally, enemy)


def _focus(sight: Sight, ally: int) -> int:
    away = sight.distances(ally)
    health = np.where(away < sight.range[ally], sight.health[sight.allies :], np.inf)
    enemy = int(health.argmin()) if np.isfinite(health).any() else int(away.argmin())
    return _attack_or_approach(sight, ally, enemy)


def _mixed(sight: Sight, ally: int) -> int:
    return _nearest(sight, ally) if sight.rng.random() < 0.7 else _random(sight, ally)


def _border(sight: Sight, ally: int) -> int:
    """Leave the map upwards, downwards or to the left."""
    return (0, 2, 3)[ally % 3]


def _attack_or_approach(sight: Sight, ally: int, enemy: int) -> int:
    if sight.mask[ally, FIRST_ATTACK + enemy]:
        return FIRST_ATTACK + enemy
    x, y = sight.position[sight.allies + enemy] - sight.position[ally]
    return int(np.argmax([y, x, -y, -x]))


CONTROLLERS: dict[str, Callable[[Sight, int], int]] = {
    "random": _random,
    "blind": _blind,
    "nearest": _nearest,
    "focus": _focus,
    "mixed": _mixed,
    "border": _border,
}


def environment(name: str, max_steps: int) -> Any:
    """Return SMAX with a map."""
    if name == ALL_TYPES:
        scenario = Scenario(jnp.array([0, 1, 2, 3, 4, 5] * 2, dtype=jnp.uint8), 6, 6, False, False)
    else:
        scenario = map_name_to_scenario(name)
    return make("HeuristicEnemySMAX", scenario=scenario, max_steps=max_steps)


def done_last(state: Any, first_enemy: int) -> np.ndarray:
    """Return the actions of the enemies in the last step."""
    moves = np.asarray(state.state.prev_movement_actions)[first_enemy:]
    attacks = np.asarray(state.state.prev_attack_actions)[first_enemy:]
    steps = np.stack([moves[:, 1], moves[:, 0], -moves[:, 1], -moves[:, 0]], axis=1)
    moved = np.where(steps.max(axis=1) > 0.5, steps.argmax(axis=1), STOP)
    return np.where(attacks >= FIRST_ATTACK, attacks, moved).astype(np.uint8)


def play(env: Any, functions: dict[str, Callable], controller: str, seed: int) -> dict[str, np.ndarray]:
    """Return the columns of an episode."""
    rng, act = np.random.default_rng(seed), CONTROLLERS[controller]
    key, reset_key = jax.random.split(jax.random.PRNGKey(seed))
    obs, state = functions["reset"](reset_key)
    allies, found = len(env.agents), {name: [] for name in COLUMNS}
    position = np.asarray(state.state.unit_positions)
    done = False
    while True:
        t = len(found["world"])
        sight = Sight(env, state, rng)
        found["world"].append(np.asarray(obs["world_state"]))
        found["seen"].append(np.asarray(obs[env.agents[t % allies]]))
        found["memory"].append(np.asarray(state.enemy_policy_state.last_attacked_enemy, np.int8))
        found["masks"].append(sight.mask)
        if done:
            break
        actions = np.array([act(sight, n) if sight.alive[n] else STOP for n in range(allies)], np.uint8)
        key, step_key = jax.random.split(key)
        given = {agent: jnp.array(int(actions[n])) for n, agent in enumerate(env.agents)}
        obs, state, rewards, dones, _ = functions["step"](step_key, state, given)
        done = bool(dones["__all__"])
        found["ally_actions"].append(actions)
        found["enemy_actions"].append(done_last(state, allies))
        found["rewards"].append(np.float32(rewards[env.agents[0]]))
        found["dones"].append([bool(dones[agent]) for agent in env.agents] + [done])
    columns = {name: np.stack(values) for name, values in found.items()}
    columns["masks"] = np.packbits(columns["masks"], axis=None)
    return columns | {"position": position}


COLUMNS = ("world", "seen", "memory", "masks", "ally_actions", "enemy_actions", "rewards", "dones")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--every-map", type=int, metavar="EPISODES", help="so many episodes of every map, not the chosen ones"
    )
    args = parser.parse_args()
    wanted = CHOSEN
    if args.every_map:
        players = ("random", "nearest", "mixed", "focus")
        wanted = tuple(
            (name, players[k % len(players)], 1000 + k, 100) for name in MAPS for k in range(args.every_map)
        )
    arrays, episodes, made = {}, [], {}
    for number, (name, controller, seed, max_steps) in enumerate(wanted):
        if (name, max_steps) not in made:
            env = environment(name, max_steps)
            made[name, max_steps] = env, {"reset": jax.jit(env.reset), "step": jax.jit(env.step_env)}
        env, functions = made[name, max_steps]
        columns = play(env, functions, controller, seed)
        episodes.append({"map": name, "controller": controller, "seed": seed, "max_steps": max_steps})
        arrays |= {f"{number}/{key}": values for key, values in columns.items()}
        print(episodes[-1], len(columns["rewards"]), "steps, return", columns["rewards"].sum(), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, episodes=json.dumps(episodes), **arrays)
    print(f"written to {args.out}, {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
