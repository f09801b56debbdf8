"""How fast are the environments? Steps per second on one core, with all observations, side by side.

Two groups. With 10 agents: the forest as a batch of 1, 8 and 64 environments, its PettingZoo form, the same task
written with a Python loop over agents (`LoopForest` below, checked to give the same observations), `mpe_spread_v0` in
these four forms too, and mpe2's simple_spread_v3, which is the same task as `mpe_spread_v0`. With 3 agents: the swarm
(cooperative) and `mpe_spread_v0` in those forms, mpe2's simple_spread_v3, and, where it is installed
(pip install '.[bench]'), VMAS's simple_spread (vectorised in torch, one thread) with 64 environments and with 4096.
Episodes have 200 steps; actions are random, those of spread discrete. All contestants of a group take turns over
several rounds, and CPU time is what counts, so that a busy machine slows all alike; the table shows medians.

    python benchmarks/env_throughput.py            # about two minutes
    python benchmarks/env_throughput.py --only spread --out results/mpe_throughput.csv     # spread and mpe2 alone
"""

import argparse
import contextlib
import csv
import dataclasses
import importlib.metadata
import io
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gymnasium
import numpy as np

from qio_envs import Environment, forest_uav_v0, mpe_spread_v0, swarm_cooperative_v0

FOREST_AGENTS, SWARM_AGENTS = 10, 3
BLOCKS = 5
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


class LoopForest:
    """The forest as one would write it first: NumPy maps, a Python loop over agents, dictionaries of observations.

    It takes its first state from a `ForestUAV` of one environment without obstacles, loss and limited range.
    """

    def __init__(self, env) -> None:
        config, arrays = env.config, env.arrays
        self.height, self.width, self.radius = config.height, config.width, config.sensing_radius
        self.max_steps, self.budget = config.max_steps, config.comm_budget
        self.agents = list(env.possible_agents)
        vegetation = env.without_margin(arrays.vegetation[0])
        self.vegetation = np.pad(vegetation, self.radius)
        self.blocked = np.pad(np.zeros_like(vegetation), self.radius, constant_values=1)
        cells = map(tuple, arrays.position[0].tolist())
        self.starts = dict(zip(self.agents, cells, strict=True))
        self.reset()

    def reset(self) -> dict[str, np.ndarray]:
        """Start again from the first state."""
        shape = (self.height, self.width)
        self.t = 0
        self.position = dict(self.starts)
        self.monitored = np.zeros(shape, bool)
        self.belief = {agent: np.ones(shape, np.float32) for agent in self.agents}
        self.received = {agent: {} for agent in self.agents}
        return self.observe()

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict]:
        """Return observations, rewards, terminations and truncations by agent."""
        self.t += 1
        for agent in self.agents:
            row, column = self.position[agent]
            rows, columns = MOVES[actions[agent]]
            row = min(max(row + rows, 0), self.height - 1)
            self.position[agent] = row, min(max(column + columns, 0), self.width - 1)
        cells = list(self.position.values())
        new = sum(not self.monitored[cell] for cell in set(cells))
        reward = new - 0.25 * sum(cells.count(cell) > 1 for cell in set(cells))
        for cell in cells:
            self.monitored[cell] = True
        for agent in self.agents:
            row, column = self.position[agent]
            top, left = max(row - self.radius, 0), max(column - self.radius, 0)
            crop = np.s_[top : row + self.radius + 1, left : column + self.radius + 1]
            self.belief[agent][crop][self.monitored[crop]] = 0
        if int(self.t * self.budget + 1e-9) > int((self.t - 1) * self.budget + 1e-9):
            sent = {agent: belief.copy() for agent, belief in self.belief.items()}
            for agent in self.agents:
                for other in self.agents:
                    if other != agent:
                        np.minimum(self.belief[agent], sent[other], out=self.belief[agent])
                        self.received[agent][other] = self.position[other], self.t
        truncated = self.t >= self.max_steps
        return (
            self.observe(),
            dict.fromkeys(self.agents, reward),
            dict.fromkeys(self.agents, False),
            dict.fromkeys(self.agents, truncated),
        )

    def observe(self) -> dict[str, np.ndarray]:
        """Return each agent's observation, laid out as the environment's."""
        side, others = 2 * self.radius + 1, np.float32(len(self.agents) - 1)
        occupancy = np.zeros_like(self.vegetation)
        for row, column in self.position.values():
            occupancy[row + self.radius, column + self.radius] += 1
        observations = {}
        for agent in self.agents:
            row, column = self.position[agent]
            crop = np.s_[row : row + side, column : column + side]
            uavs = occupancy[crop].copy()
            uavs[self.radius, self.radius] -= 1
            belief = self.belief[agent]
            pooled = belief.reshape(BLOCKS, self.height // BLOCKS, BLOCKS, self.width // BLOCKS).mean((1, 3))
            received = np.zeros((BLOCKS, BLOCKS), np.float32)
            for (i, j), when in self.received[agent].values():
                block = i * BLOCKS // self.height, j * BLOCKS // self.width
                received[block] = min(received[block] + 1 / (others * np.float32(1 + self.t - when)), 1)
            last = [row / (self.height - 1), column / (self.width - 1), 1 - self.t / self.max_steps]
            observations[agent] = np.concatenate(
                [
                    np.pad(belief, self.radius)[crop].ravel(),
                    self.vegetation[crop].ravel(),
                    (uavs / others).ravel(),
                    self.blocked[crop].ravel(),
                    pooled.ravel(),
                    received.ravel(),
                    last,
                ],
                dtype=np.float32,
            )
        return observations


def check_same_task(steps: int = 60) -> None:
    """Refuse to compare unless `LoopForest` gives the observations and rewards of the environment."""
    env = forest_uav_v0.batched_env(1)
    env.reset(0)
    loop, generator = LoopForest(env), np.random.default_rng(0)
    for _ in range(steps):
        actions = generator.integers(0, 5, (1, FOREST_AGENTS))
        rewards = env.step(actions).rewards[0]
        observations, given, *_ = loop.step(dict(zip(loop.agents, actions[0].tolist(), strict=True)))
        np.testing.assert_allclose(np.stack(list(observations.values())), env.observe()[0], atol=1e-6)
        np.testing.assert_allclose(list(given.values()), rewards)


Play = Callable[[int], None]  # plays so many steps, with resets where episodes end


def random_actions(space: gymnasium.Space, *shape: int) -> np.ndarray:
    """Return 64 sets of random actions, ``[64, *shape]`` of the space's actions."""
    generator = np.random.default_rng(0)
    if isinstance(space, gymnasium.spaces.Discrete):
        return generator.integers(0, space.n, (64, *shape))
    return generator.uniform(space.low, space.high, (64, *shape, *space.shape)).astype(space.dtype)


def batched(environment: Environment, num_envs: int, **settings) -> Play:
    env = environment.batched_env(num_envs, **settings)
    out = np.empty((num_envs, env.num_agents, *env.observation_space.shape), np.float32)
    actions = random_actions(env.action_space, num_envs, env.num_agents)
    env.reset(0)

    def play(steps: int) -> None:
        for t in range(steps):
            env.step(actions[t % 64])
            env.observe(out)
            running = env.running
            if np.count_nonzero(running) < num_envs:
                env.reset(mask=~running)

    return play


def parallel(env) -> Play:
    env.reset(seed=0)
    agents = env.possible_agents
    rows = random_actions(env.action_space(agents[0]), len(agents))
    actions = [dict(zip(agents, row.tolist() if row.ndim == 1 else row, strict=True)) for row in rows]

    def play(steps: int) -> None:
        for t in range(steps):
            env.step(actions[t % 64])
            if not env.agents:
                env.reset()

    return play


def python_loop() -> Play:
    start = forest_uav_v0.batched_env(1)
    start.reset(0)
    env = LoopForest(start)
    rows = random_actions(start.action_space, FOREST_AGENTS).tolist()
    actions = [dict(zip(env.agents, row, strict=True)) for row in rows]

    def play(steps: int) -> None:
        for t in range(steps):
            env.step(actions[t % 64])
            if env.t >= env.max_steps:
                env.reset()

    return play


def simple_spread(agents: int) -> Play:
    from mpe2 import simple_spread_v3

    return parallel(simple_spread_v3.parallel_env(N=agents, max_cycles=200))


def vmas_spread(num_envs: int) -> Play:
    with contextlib.redirect_stderr(io.StringIO()):  # gym, which it needs, says at length that it is old
        import torch
        from vmas import make_env
    torch.set_num_threads(1)
    torch.manual_seed(0)
    env = make_env(
        "simple_spread",
        num_envs=num_envs,
        device="cpu",
        continuous_actions=True,
        n_agents=SWARM_AGENTS,
        max_steps=200,
        seed=0,
    )
    env.reset()
    actions = [[torch.rand(num_envs, 2) * 2 - 1 for _ in range(SWARM_AGENTS)] for _ in range(8)]

    def play(steps: int) -> None:
        for t in range(steps):
            *_, done, _ = env.step(actions[t % 8])
            if done.all():  # all end at the time limit
                env.reset()

    return play


@dataclasses.dataclass(frozen=True)
class Contestant:
    """What takes part: its name, its number of environments, what makes it, and the package that it needs."""

    name: str
    num_envs: int
    make: Callable[[], Play]
    package: str = "numpy"


def own(environment: Environment, **settings) -> list[Contestant]:
    """Return an environment of this package as a batch of three sizes and as a PettingZoo environment."""
    batches = [
        Contestant(
            f"{environment.id}, batch of {num_envs}",
            num_envs,
            lambda num_envs=num_envs: batched(environment, num_envs, **settings),
        )
        for num_envs in (64, 8, 1)
    ]
    pettingzoo = Contestant(
        f"{environment.id}, PettingZoo", 1, lambda: parallel(environment.parallel_env(**settings))
    )
    return [*batches, pettingzoo]


MPE2 = "mpe2 simple_spread_v3"
GROUPS: dict[int, list[Contestant]] = {  # agents -> contestants, each compared with mpe2's environment
    FOREST_AGENTS: [
        *own(forest_uav_v0),
        Contestant("forest, Python loop", 1, python_loop),
        *own(mpe_spread_v0, num_agents=FOREST_AGENTS, max_steps=200),
        Contestant(MPE2, 1, lambda: simple_spread(FOREST_AGENTS), "mpe2"),
    ],
    SWARM_AGENTS: [
        *own(swarm_cooperative_v0),
        *own(mpe_spread_v0, num_agents=SWARM_AGENTS, max_steps=200),
        Contestant(MPE2, 1, lambda: simple_spread(SWARM_AGENTS), "mpe2"),
        Contestant("VMAS simple_spread, batch of 64", 64, lambda: vmas_spread(64), "vmas"),
        Contestant("VMAS simple_spread, batch of 4096", 4096, lambda: vmas_spread(4096), "vmas"),
    ],
}


def chosen(contestants: list[Contestant], text: str) -> list[Contestant]:
    """Return those whose name holds the text, and mpe2's environment, with which all are compared."""
    return [contestant for contestant in contestants if text in contestant.name or contestant.name == MPE2]


def measure(agents: int, contestants: list[Contestant], rounds: int, seconds: float) -> list[dict]:
    """Return a row for each contestant of a group."""
    players = {contestant: contestant.make() for contestant in contestants}
    rates: dict[Contestant, list[float]] = {contestant: [] for contestant in contestants}
    turn = {key: max(1, int(seconds / _time(play, 10) * 10)) for key, play in players.items()}
    for _ in range(rounds):
        for key, play in players.items():
            rates[key].append(turn[key] * key.num_envs / _time(play, turn[key]))
    medians = {key: statistics.median(values) for key, values in rates.items()}
    base = next(median for key, median in medians.items() if key.name == MPE2)
    return [
        {
            "contestant": key.name,
            "num_envs": key.num_envs,
            "agents": agents,
            "env_steps_per_s": round(medians[key]),
            "agent_steps_per_s": round(medians[key] * agents),
            "ratio_to_mpe2": round(medians[key] / base, 2),
            "slowest_round": round(min(values)),
            "fastest_round": round(max(values)),
            "rounds": rounds,
        }
        for key, values in rates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant (15)")
    parser.add_argument("--seconds", type=float, default=0.3, help="CPU time of a turn, about (0.3)")
    parser.add_argument(
        "--only", default="", help="compare those alone whose name holds this text, and mpe2's"
    )
    parser.add_argument("--out", type=Path, default=Path("results/env_throughput.csv"), help="CSV to write")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core

    check_same_task()
    machine = {"cpu": cpu_model(), "python": platform.python_version()} | {
        package: version_of(package) for package in ("numpy", "numba", "pettingzoo", "mpe2", "vmas", "torch")
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items() if value))
    rows = []
    for agents, contestants in GROUPS.items():
        contestants = chosen(contestants, args.only)
        here = [contestant for contestant in contestants if version_of(contestant.package)]
        group = measure(agents, here, args.rounds, args.seconds)
        _print(agents, group, args.rounds)
        for absent in contestants:
            if absent not in here:
                print(f"{absent.name}: left out, {absent.package} is not installed")
        rows += group
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *machine], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | machine for row in rows)
    print(f"\nwritten to {args.out}")


def version_of(package: str) -> str:
    """Return the version of an installed package, an empty text if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _print(agents: int, rows: Sequence[dict], rounds: int) -> None:
    print(
        f"\none core, CPU time, {agents} agents, all observations, median of {rounds} rounds (slowest to fastest)\n"
    )
    print(f"{'contestant':<36}{'env steps/s':>13}{'agent steps/s':>15}{'ratio':>9}   rounds, env steps/s")
    for row in rows:
        print(
            f"{row['contestant']:<36}{row['env_steps_per_s']:>13,}{row['agent_steps_per_s']:>15,}"
            f"{row['ratio_to_mpe2']:>9,.1f}   {row['slowest_round']:,} to {row['fastest_round']:,}"
        )


def _time(play: Callable[[int], None], steps: int) -> float:
    """Return the CPU seconds of so many steps: what else the machine does does not count."""
    play(1)
    start = time.process_time()
    play(steps)
    return time.process_time() - start


def cpu_model() -> str:
    """Return the processor's name, with its family and model numbers where the name says little."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')} model {fields.get('model', '?')})"


if __name__ == "__main__":
    main()
