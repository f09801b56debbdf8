"""How long plans must be to swing a pendulum up: iCEM with the true dynamics of Pendulum-v1, without a learned model.

    python benchmarks/planning_horizon.py

Returns of 100 episodes on fixed seeds; what a learned model adds to the loss is the rest. A step is 0.05 s. Writes
results/planning/horizon.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from tables import write

from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.sampling.evaluation import evaluation_seeds
from qio_rllib.world_models.planning import Planner
from qio_rllib.world_models.planning_settings import PlanningSettings

ROOT = Path(__file__).parents[1]
STEPS, GAMMA = 200, 0.99
WIDE = {"candidates": 96, "iterations": 4, "elites": 10}
NARROW = {"candidates": 64, "iterations": 3, "elites": 8}
SETTINGS = [
    PlanningSettings.of({"method": "icem", "horizon": horizon, **size})
    for size, horizons in ((WIDE, (15, 20, 25, 30)), (NARROW, (15, 20, 25)))
    for horizon in horizons
]


def step(
    angle: torch.Tensor, speed: torch.Tensor, action: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return angle, angular velocity and reward of Gymnasium's Pendulum-v1 after an action in [-1, 1]."""
    torque = 2.0 * action.clamp(-1.0, 1.0)
    wrapped = torch.remainder(angle + np.pi, 2 * np.pi) - np.pi
    reward = -(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = (speed + 0.05 * (15.0 * torch.sin(angle) + 3.0 * torque)).clamp(-8.0, 8.0)
    return angle + 0.05 * speed, speed, reward


def play(settings: PlanningSettings, episodes: int) -> torch.Tensor:
    """Return the returns of episodes, ``[episodes]``."""
    env, seeds, starts = gymnasium.make("Pendulum-v1").unwrapped, evaluation_seeds(episodes), []
    for seed in seeds:
        env.reset(seed=seed)
        starts.append(env.state)  # type: ignore[attr-defined]
    angle, speed = torch.tensor(np.array(starts), dtype=torch.float32).unbind(1)
    planner = Planner(settings, 1, is_discrete=False)
    rng, memory = EpisodeStreams(seeds), torch.zeros(episodes, planner.memory_size)
    total = torch.zeros(episodes)
    for _ in range(STEPS):

        def returns(actions: torch.Tensor, start: Any = (angle, speed)) -> torch.Tensor:
            at, velocity = (number[:, None].expand(actions.shape[:2]) for number in start)
            found = torch.zeros(actions.shape[:2])
            for h in range(actions.shape[2]):
                at, velocity, reward = step(at, velocity, actions[:, :, h, 0])
                found += GAMMA**h * reward
            return found

        plan = planner.plan(returns, memory, rng, explore=False)
        memory = plan.memory
        angle, speed, reward = step(angle, speed, plan.actions[:, 0])
        total += reward
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=100, help="on fixed seeds (100)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "planning" / "horizon.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for settings in SETTINGS:
        returns = play(settings, arguments.episodes)
        rows.append(
            {
                "horizon": settings.horizon,
                "sequences": settings.rollouts,
                "episodes": arguments.episodes,
                "return": round(float(returns.mean()), 2),
                "least": round(float(returns.min()), 1),
                "cpu": cpu_model(),
            }
        )
        print(rows[-1], flush=True)
    write(arguments.out, rows)


if __name__ == "__main__":
    main()
