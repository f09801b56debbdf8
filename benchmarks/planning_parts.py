"""What does each part of planning with a recurrent model cost? Drift control with s1 and s2 hidden.

planner  iCEM with the true model, from the true state and from the estimate of the extended Kalman filter that knows
         the true model, over the linear-quadratic regulator's cost on the same episodes: what would be left with a
         perfect model. `lqg` is the regulator on that estimate.
model    What a trained model knows, along episodes of `lqg` with noise, by the step of the episode:
         filter   Error of s1 and s2, by a linear read-out of the model's state, beside the filter's.
         effect   How much s0, s1 and s2 differ at the end of imagined plans, over how much they differ in truth (slope
                  of a regression over the plans of one start): 1 for a perfect model.
         plans    32 plans of 10 steps from each start, rated by the model's rewards, and by the true reward of states
                  that are read out of the imagined ones: by the read-out of observed states ("observed"), or by one
                  that is fitted to the imagined states of each step ("imagined"), which corrects what is wrong in the
                  same way in all plans. Given are the correlation with the true returns over the plans of one start,
                  and what the best rated plan loses in comparison with the best.
data     What planning costs with a model that has learned once, outside of a run: from as many steps as
         `drift_control_planet.yaml` has, and from ten times as many, with equally many gradient steps, half of them of
         random play and half of `lqg` with noise; from actions that tell nothing of hidden components; and from
         both of these, half each. Sizes, losses and the planner are those of that file. Beside it what the model
         knows, as above.
memory   The same for a model whose memory is a Kalman filter, with the sizes, losses and rates of
         `drift_control_kalman.yaml`, from the data of both. Sequences go round: behind the last step of an environment
         its first one follows, so that starts of episodes come as often as in a replay.
rewards  Reward heads of several kinds, fitted to the filter's estimates along the data of both, with the actions: what
         the same steps tell where the memory is right. Plans as above, which start from the filter's estimates and go
         on by the true dynamics or by dynamics that are fitted to the estimates too, are rated by the head; beside it
         what iCEM costs when it plans so from the filter's estimate.
True returns are those of the true model without noise from the filter's estimate. Read-outs are fitted to half of the
episodes, and tested on the others.

    python benchmarks/planning_parts.py planner
    python benchmarks/planning_parts.py model results/drift_control_planet/seed_*/policy.pt
    python benchmarks/planning_parts.py data
    python benchmarks/planning_parts.py memory
    python benchmarks/planning_parts.py rewards
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from drift_fits import fitted_model
from drift_knowledge import correlation, known, regret
from drift_play import (
    BOTH,
    EXCITED,
    GAMMA,
    MIXED,
    PLANNED,
    STEPS,
    filtered_steps,
    mean_cost,
    played_data,
    played_steps,
    true_returns,
)
from estimate_fits import HEADS, Dynamics, RewardHead, estimated, fitted_dynamics, fitted_head
from tables import write

from qio_envs import drift_control_v0
from qio_envs.drift_control import LQGPolicy, LQRPolicy
from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import evaluation_seeds
from qio_rllib.world_models import Planner, PlanningSettings
from qio_rllib.world_models.model import WorldModel

ROOT = Path(__file__).parents[1]
PLANNERS = {
    "iCEM, 8 steps": PlanningSettings(horizon=8, candidates=128, iterations=3),
    "iCEM, 10 steps": PlanningSettings(horizon=10, candidates=128, iterations=3),
    "iCEM, 20 steps": PlanningSettings(horizon=20, candidates=128, iterations=3),
}
CONFIG, SEED = ROOT / "tune_configs" / "drift_control_planet.yaml", 100
FILTER = CONFIG.with_name("drift_control_kalman.yaml")
LEARNED_FROM = ((MIXED, 80), (MIXED, 800), (EXCITED, 80), (BOTH, 80))  # and of how many environments
UPDATES, FIT_UPDATES = 2000, 10_000  # gradient steps, to what was played and to estimates


# -- the planner ------------------------------------------------------------------------------------------------------


class _Plans:
    """Plans with the true model or what is fitted in its place, from the true state or the filter's estimate."""

    def __init__(
        self,
        env: Any,
        seeds: np.ndarray,
        settings: PlanningSettings,
        filtered: bool,
        fitted: _Fitted | None = None,
    ) -> None:
        self.env, self.filter, self.fitted = env, LQGPolicy(env) if filtered else None, fitted
        self.planner = Planner(settings, 2, is_discrete=False)
        self.rng = EpisodeStreams(seeds)
        self.memory = torch.zeros(len(seeds), self.planner.memory_size)

    def act(self) -> np.ndarray:
        """Return float32 actions ``[E, 1, 2]``."""
        start = self.env.arrays.components.astype(np.float64)
        if self.filter is not None:
            self.filter.act()
            start = self.filter.mean

        def returns(plans: torch.Tensor) -> torch.Tensor:
            if self.fitted is not None:
                return self.fitted.returns(start, plans)
            found, _ = true_returns(start, plans.double().numpy(), self.env.config.action_cost)
            return torch.from_numpy(found.astype(np.float32))

        plan = self.planner.plan(returns, self.memory, self.rng, explore=False)
        self.memory = plan.memory
        return plan.actions.numpy()[:, None]


def planner(episodes: int) -> list[dict[str, Any]]:
    """Return what planning with the true model costs, over the regulator's cost."""
    env = drift_control_v0.batched_env(episodes, scenario="hidden")
    seeds = np.array(evaluation_seeds(episodes), np.uint64)
    costs = {("lqr", "true state"): mean_cost(env, seeds, LQRPolicy(env))}
    costs["lqr", "filter"] = mean_cost(env, seeds, LQGPolicy(env))
    for name, settings in PLANNERS.items():
        for filtered in (False, True):
            policy = _Plans(env, seeds, settings, filtered)
            costs[name, "filter" if filtered else "true state"] = mean_cost(env, seeds, policy)
    regulator = costs["lqr", "true state"]
    return [
        {
            "planner": name,
            "start": start,
            "episodes": episodes,
            "cost": round(cost, 3),
            "over_lqr": round(cost / regulator, 4),
            "cpu": cpu_model(),
        }
        for (name, start), cost in costs.items()
    ]


# -- the model --------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def model(paths: list[Path]) -> list[dict[str, Any]]:
    """Return what trained models know, a row for each policy file and step."""
    data, rows = played_data(), []
    for path in paths:
        (group,) = load_policy(path).team.groups
        assert isinstance(group.actor, WorldModelActor)
        rows += [{"policy": str(path), **row} for row in known(group.actor.network.model, data)]
    return rows


# -- the data ---------------------------------------------------------------------------------------------------------


class _Learned:
    """Plans with a learned model, from what it has observed."""

    def __init__(
        self, env: Any, seeds: np.ndarray, settings: PlanningSettings, world_model: WorldModel
    ) -> None:
        self.env, self.model = env, world_model
        self.planner = Planner(settings, 2, is_discrete=False)
        self.rng = EpisodeStreams(seeds)
        self.memory = torch.zeros(len(seeds), self.planner.memory_size)
        self.state = torch.zeros(len(seeds), world_model.state_size)
        self.action = torch.zeros(len(seeds), 2)

    def act(self) -> np.ndarray:
        """Return float32 actions ``[E, 1, 2]``."""
        self.state = self.model.observe(
            self.state, self.action, torch.from_numpy(self.env.observe()[:, 0].copy())
        )
        plan = self.planner.plan(
            lambda plans: self.model.returns(self.state, plans, GAMMA), self.memory, self.rng, explore=False
        )
        self.memory, self.action = plan.memory, plan.actions
        return plan.actions.numpy()[:, None]


def data(episodes: int) -> list[dict[str, Any]]:
    """Return what planning costs with models of more data, over the regulator's cost, and what they know."""
    return _of_fits(episodes, [(source, count, CONFIG, False) for source, count in LEARNED_FROM])


def memory(episodes: int) -> list[dict[str, Any]]:
    """Return the same for a model whose memory is a Kalman filter."""
    return _of_fits(episodes, [(BOTH, 80, FILTER, True)])


def _of_fits(episodes: int, fits: list[tuple[str, int, Path, bool]]) -> list[dict[str, Any]]:
    """Return rows of fits.

    Args:
        episodes: That are played with each.
        fits: Source and environments of the data, experiment, and whether sequences go round.
    """
    env = drift_control_v0.batched_env(episodes, scenario="hidden")
    seeds = np.array(evaluation_seeds(episodes), np.uint64)
    regulator, played, rows = mean_cost(env, seeds, LQRPolicy(env)), played_data(), []
    for source, count, experiment, around in fits:
        config = dict(load_experiment(experiment).config)
        learned_from = played_steps(source, count, SEED)
        world_model = fitted_model(learned_from, config, UPDATES, SEED, around)
        with torch.inference_mode():
            policy = _Learned(env, seeds, PlanningSettings.of(config["planner"]), world_model)
            cost = mean_cost(env, seeds, policy) / regulator
            head = {
                "source": source,
                "steps": learned_from.rewards.numel(),
                "updates": UPDATES,
                "over_lqr": round(cost, 4),
            }
            rows += [{**head, **row} for row in known(world_model, played)]
    return rows


# -- rewards ----------------------------------------------------------------------------------------------------------


class _Fitted(NamedTuple):
    """What rates plans from the filter's estimate."""

    head: RewardHead
    dynamics: Dynamics | None  # None for the true ones, without noise

    def returns(self, start: np.ndarray, plans: torch.Tensor) -> torch.Tensor:
        """Return the discounted sums ``[E, N]`` of rewards along plans ``[E, N, H, 2]`` from estimates ``[E, 4]``."""
        if self.dynamics is None:
            found = true_returns(start, plans.double().numpy(), 0.0)[1]
            states = torch.from_numpy(found.astype(np.float32))
        else:
            state = torch.from_numpy(start.astype(np.float32))[:, None].expand(-1, plans.shape[1], -1)
            reached = []
            for step in range(plans.shape[2]):
                state = self.dynamics(state, plans[:, :, step])
                reached.append(state)
            states = torch.stack(reached, dim=2)
        found_rewards = self.head.mean(torch.cat([states, plans], dim=-1))
        return (found_rewards * GAMMA ** torch.arange(plans.shape[2])).sum(-1)


def rewards(episodes: int) -> list[dict[str, Any]]:
    """Return how well plans are rated by what is fitted to the filter's estimates, and what planning by it costs."""
    env = drift_control_v0.batched_env(episodes, scenario="hidden")
    seeds = np.array(evaluation_seeds(episodes), np.uint64)
    regulator, played, rows = mean_cost(env, seeds, LQRPolicy(env)), played_data(), []
    settings = PlanningSettings.of(dict(load_experiment(CONFIG).config)["planner"])
    data = estimated(*filtered_steps(BOTH, 80, SEED))
    learned = fitted_dynamics(data, FIT_UPDATES, SEED)
    for kind in HEADS:
        head = fitted_head(kind, data, FIT_UPDATES, SEED)
        for name, dynamics in (("true", None), ("learned", learned)):
            fitted = _Fitted(head, dynamics)
            cost = mean_cost(env, seeds, _Plans(env, seeds, settings, True, fitted)) / regulator
            for step in STEPS:
                start, plans = played.estimates[step, :PLANNED], played.plans[step]
                true, _ = true_returns(start, plans.astype(np.float64), env.config.action_cost)
                found = fitted.returns(start, torch.from_numpy(plans)).numpy()
                rows.append(
                    {
                        "head": kind,
                        "dynamics": name,
                        "steps": len(data.rewards),
                        "updates": FIT_UPDATES,
                        "over_lqr": round(cost, 4),
                        "step": step,
                        "correlation": round(correlation(found, true), 4),
                        "regret": round(regret(found, true), 4),
                        "cpu": cpu_model(),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("planner", "model", "data", "memory", "rewards"))
    parser.add_argument("policies", type=Path, nargs="*", help="policy files, for `model`")
    parser.add_argument(
        "--episodes", type=int, default=20, help="of all but `model`, on the evaluation seeds (20)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "results" / "planning_parts", help="where to write"
    )
    arguments = parser.parse_args()
    if (arguments.what == "model") != bool(arguments.policies):
        parser.error("policy files go with `model`, which needs at least one")
    torch.set_num_threads(1)
    if arguments.what == "model":
        rows = model(arguments.policies)
    else:
        parts = {"planner": planner, "data": data, "memory": memory, "rewards": rewards}
        rows = parts[arguments.what](arguments.episodes)
    write(arguments.out / f"{arguments.what}.csv", rows)
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(str(value) for value in row.values()))


if __name__ == "__main__":
    main()
