"""How often do the scripted policies of skirmish_v0 win, on each of its scenarios?

python benchmarks/skirmish_win_rates.py            # a minute
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tables import write

from qio_envs import skirmish_v0

FIRST_SEED = 2000


def play(scenario: str, policy: str, episodes: int) -> dict[str, Any]:
    """Return the row of a policy on a scenario: one episode from each seed."""
    env = skirmish_v0.batched_env(episodes, scenario)
    env.reset(FIRST_SEED)
    player = env.scripted_policies[policy](env)
    found: dict[str, np.ndarray] = {}
    length, over = np.zeros(episodes, int), np.zeros(episodes, bool)
    while not over.all():
        env.step(player.act())
        length += ~over
        for name, values in env.info().items():
            found[name] = np.where(over, found.get(name, values), values)
        over |= ~env.running
        if not over.all():
            env.reset(mask=~env.running)
    rate = float(found["won"].mean())
    return {
        "scenario": scenario,
        "policy": policy,
        "episodes": episodes,
        "win_rate": round(rate, 4),
        "standard_error": round((rate * (1 - rate) / episodes) ** 0.5, 4),
        "loss_rate": round(float(found["lost"].mean()), 4),
        "mean_return": round(float(found["team_return"].mean()), 4),
        "mean_length": round(float(length.mean()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000, help="episodes of each (1000)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/skirmish/win_rates.csv"), help="CSV to write"
    )
    args = parser.parse_args()
    rows = []
    for scenario in skirmish_v0.scenarios():
        for policy in skirmish_v0.batched_class.scripted_policies:
            rows.append(play(scenario, policy, args.episodes))
            print(rows[-1], flush=True)
    write(args.out, rows)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
