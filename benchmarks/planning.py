"""What does planning cost, and how many candidates does it take?

rate     A decision of 500 candidates, 5 iterations and 8 steps with a recurrent model of the published demonstration's
         sizes (memory 100, latent 20, heads of 256 and 128, and 128 and 64), against bare matrix products of the same
         shapes, in one process on one thread: GFLOP a second of both, in turns.
quality  Drift control with the true model and the linear-quadratic regulator's cost-to-go at the end of a plan: what
         controllers with few candidates cost, in units of the regulator's cost on the same starts and noise, beside one
         that compares 2,500 sequences a decision.

    python benchmarks/planning.py rate
    python benchmarks/planning.py quality       # about ten minutes
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import write
from torch.utils.flop_counter import FlopCounterMode

from qio_envs import drift_control_v0
from qio_envs.drift_control import LQRPolicy, lqr_value, mean_next_state
from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.sampling.evaluation import evaluation_seeds
from qio_rllib.world_models import RSSM, Planner, PlanningSettings, RSSMSettings

ROOT = Path(__file__).parents[1]
PUBLISHED = RSSMSettings(
    deterministic=100,
    stochastic=20,
    embedding=256,
    hiddens=(256, 512),
    latent_hiddens=(),
    reward_hiddens=(256, 128),
    continuation_hiddens=(128, 64),
    activation="relu",
)
DECISION = PlanningSettings(method="cem", horizon=8, candidates=500, iterations=5, elites=50)
PLANNERS = {
    "cem 2,500": PlanningSettings(method="cem", horizon=8, candidates=500, iterations=5, elites=50),
    "cem 400": PlanningSettings(method="cem", horizon=8, candidates=99, iterations=4, elites=10),
    "icem": PlanningSettings(method="icem"),
    "mppi 400": PlanningSettings(method="mppi", horizon=8, candidates=79, iterations=5),
}


def rate(rounds: int) -> list[dict[str, Any]]:
    """Return GFLOP a second of a decision, and of the products in it alone."""
    torch.manual_seed(0)
    model = RSSM(4, 2, PUBLISHED).eval()
    planner, state = Planner(DECISION, 2, is_discrete=False), torch.zeros(1, model.state_size)
    memory = torch.zeros(1, planner.memory_size)

    def decide() -> None:
        rng = np.random.default_rng(0)
        planner.plan(lambda actions: model.returns(state, actions, 0.99), memory, rng, explore=False)

    layers = _products(model)

    def multiply() -> None:
        for rows, weights in layers:
            for _ in range(DECISION.horizon * DECISION.iterations):
                torch.mm(rows, weights)

    found = {}
    with torch.inference_mode():
        for name, run in (("decision", decide), ("matrix products", multiply)):
            with FlopCounterMode(display=False) as counter:
                run()
            found[name] = (run, counter.get_total_flops())
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, (run, _) in found.items():
                seconds[name].append(_timed(run))
    rates = {name: found[name][1] / statistics.median(seconds[name]) / 1e9 for name in found}
    return [
        {
            "what": name,
            "gflop": round(found[name][1] / 1e9, 3),
            "milliseconds": round(1e3 * statistics.median(seconds[name]), 1),
            "gflop_per_s": round(rates[name], 1),
            "share": round(rates[name] / rates["matrix products"], 3),
            "rounds": rounds,
            "cpu": cpu_model(),
            "torch": torch.__version__,
        }
        for name in found
    ]


def _products(model: RSSM) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return rows and weights of every linear layer that a predicted step passes, of 500 candidates."""
    parts = [model.prior, model.reward, model.continuation]
    weights = [
        layer.weight for part in parts for layer in part.modules() if isinstance(layer, torch.nn.Linear)
    ]
    weights += [model.cell.weight_ih, model.cell.weight_hh]
    rows = DECISION.candidates
    return [(torch.randn(rows, weight.shape[1]), weight.detach().t().contiguous()) for weight in weights]


def _timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def quality(episodes: int) -> list[dict[str, Any]]:
    """Return the cost of planning with the true model, by planner, over the regulator's."""
    env = drift_control_v0.batched_env(episodes)
    value = lqr_value(env.config) - np.eye(4)
    seeds = np.array(evaluation_seeds(episodes), np.uint64)
    costs = {"lqr": _played(env, seeds, LQRPolicy(env))}
    for name, settings in PLANNERS.items():
        planner = Planner(settings, 2, is_discrete=False)
        costs[name] = _played(env, seeds, _Plans(planner, value, env, seeds))
    return [
        {
            "planner": name,
            "sequences": PLANNERS[name].rollouts if name in PLANNERS else 0,
            "episodes": episodes,
            "cost": round(cost, 3),
            "over_lqr": round(cost / costs["lqr"], 4),
            "over_2500": round(cost / costs["cem 2,500"], 4),
            "cpu": cpu_model(),
        }
        for name, cost in costs.items()
    ]


class _Plans:
    """Plans with the true dynamics, without noise, for all environments at once."""

    def __init__(self, planner: Planner, value: np.ndarray, env: Any, seeds: np.ndarray) -> None:
        self.planner, self.env, self.action_cost = planner, env, env.config.action_cost
        self.value = torch.from_numpy(value)
        self.rng = EpisodeStreams(seeds)
        self.memory = torch.zeros(len(seeds), planner.memory_size)

    def act(self) -> np.ndarray:
        """Return float32 actions ``[E, 1, 2]``."""
        present = torch.from_numpy(self.env.arrays.components.astype(np.float64))

        def returns(actions: torch.Tensor) -> torch.Tensor:
            state = present[:, None].expand(-1, actions.shape[1], -1).numpy()
            total = np.zeros(state.shape[:2])
            for step in range(actions.shape[2]):
                action = actions[:, :, step].numpy()
                state = mean_next_state(state, action)
                total -= (state**2).sum(-1) + self.action_cost * (action.astype(np.float64) ** 2).sum(-1)
            total -= np.einsum("bni,ij,bnj->bn", state, self.value.numpy(), state)
            return torch.from_numpy(total.astype(np.float32))

        plan = self.planner.plan(returns, self.memory, self.rng, explore=False)
        self.memory = plan.memory
        return plan.actions.numpy()[:, None]


def _played(env: Any, seeds: np.ndarray, policy: Any) -> float:
    env.reset(seeds)
    while env.running.any():
        env.step(policy.act())
    return float(env.info()["cost"].mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("rate", "quality"))
    parser.add_argument("--rounds", type=int, default=15, help="of the rate, in turns (15)")
    parser.add_argument("--episodes", type=int, default=100, help="of the quality, on fixed seeds (100)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "planning", help="where to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = rate(arguments.rounds) if arguments.what == "rate" else quality(arguments.episodes)
    write(arguments.out / f"{arguments.what}.csv", rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
