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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from estimate_fits import HEADS, Dynamics, RewardHead, estimated, fitted_dynamics, fitted_head
from tables import write

from qio_envs import drift_control_v0
from qio_envs.drift_control import DriftControlConfig, LQGPolicy, LQRPolicy, lqr_gain, mean_next_state
from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.models.world_model_policy import WorldModelPolicy, WorldModelSpec
from qio_rllib.sampling.evaluation import evaluation_seeds
from qio_rllib.world_models import Planner, PlanningSettings
from qio_rllib.world_models.model import Sequences, WorldModel

ROOT = Path(__file__).parents[1]
GAMMA = 0.99
PLANNERS = {
    "iCEM, 8 steps": PlanningSettings(horizon=8, candidates=128, iterations=3),
    "iCEM, 10 steps": PlanningSettings(horizon=10, candidates=128, iterations=3),
    "iCEM, 20 steps": PlanningSettings(horizon=20, candidates=128, iterations=3),
}
STEPS, HORIZON, PLANS = (0, 2, 5, 10, 20, 45), 10, 32
NOISES, PLAN_NOISES = (0.1, 0.3, 0.6, 1.0), (0.1, 0.3, 0.6)
FIRST_SEED, EPISODES, PLANNED = 4_000_000, 2000, 240  # plans are drawn in the first episodes alone
CONFIG, SEED = ROOT / "tune_configs" / "drift_control_planet.yaml", 100
FILTER = CONFIG.with_name("drift_control_kalman.yaml")
MIXED, EXCITED, BOTH = "mixed", "excited", "both"
LEARNED_FROM = ((MIXED, 80), (MIXED, 800), (EXCITED, 80), (BOTH, 80))  # and of how many environments
UPDATES, LAST = 2000, 0.1  # gradient steps, and what the learning rate falls to over the last third of them
FIT_UPDATES = 10_000  # to estimates
RIDGE = 0.1  # added to the diagonal of a read-out's normal equations


def true_returns(start: np.ndarray, plans: np.ndarray, action_cost: float) -> tuple[np.ndarray, np.ndarray]:
    """Return returns ``[E, N]`` and states ``[E, N, H, 4]`` of plans ``[E, N, H, 2]`` without noise."""
    state = np.repeat(start[:, None], plans.shape[1], axis=1)
    total, states = np.zeros(plans.shape[:2]), np.zeros((*plans.shape[:3], 4))
    for step in range(plans.shape[2]):
        action = plans[:, :, step]
        state = states[:, :, step] = mean_next_state(state, action)
        total -= GAMMA**step * ((state**2).sum(-1) + action_cost * (action**2).sum(-1))
    return total, states


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
    costs = {("lqr", "true state"): _played(env, seeds, LQRPolicy(env))}
    costs["lqr", "filter"] = _played(env, seeds, LQGPolicy(env))
    for name, settings in PLANNERS.items():
        for filtered in (False, True):
            policy = _Plans(env, seeds, settings, filtered)
            costs[name, "filter" if filtered else "true state"] = _played(env, seeds, policy)
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


def _played(env: Any, seeds: np.ndarray, policy: Any) -> float:
    """Return the mean cost of an episode of each seed; what ends early begins anew, and no longer counts."""
    env.reset(seeds)
    costs, running = np.zeros(len(seeds)), np.ones(len(seeds), bool)
    while running.any():
        env.reset(mask=~env.running)
        env.step(policy.act())
        ended = running & ~env.running
        costs[ended] = env.info()["cost"][ended]
        running &= ~ended
    return float(costs.mean())


# -- the model --------------------------------------------------------------------------------------------------------


class _Data(NamedTuple):
    """Episodes of ``lqg`` with noise, steps first; an episode that ends begins anew, and no longer counts."""

    obs: np.ndarray  # [T, E, D]
    actions: np.ndarray  # [T, E, 2]
    truth: np.ndarray  # [T, E, 4]
    estimates: np.ndarray  # of the filter, [T, E, 4]
    plans: dict[int, np.ndarray]  # of the first episodes, [P, N, H, 2], by step


def _noise(previous: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return coloured noise of deviation 1 that goes on from what was drawn last."""
    return 0.7 * previous + np.sqrt(1 - 0.7**2) * rng.standard_normal(previous.shape)


def played_data() -> _Data:
    """Play, and draw plans: the regulator's with noise and an offset."""
    rng = np.random.default_rng(0)
    env = drift_control_v0.batched_env(EPISODES, scenario="hidden", out_radius=100.0)  # no episode ends early
    env.reset(np.arange(FIRST_SEED, FIRST_SEED + EPISODES, dtype=np.uint64))
    policy, noise = LQGPolicy(env), np.zeros((EPISODES, 1, 2))
    scale = rng.choice(NOISES, size=(EPISODES, 1, 1))
    rows: list[list[np.ndarray]] = [[], [], [], []]
    plans = {}
    for step in range(max(STEPS) + 1):
        noise = _noise(noise, rng)
        action = np.clip(policy.act() + scale * noise, -1, 1).astype(np.float32)
        found = (env.observe()[:, 0], action[:, 0], env.arrays.components, policy.mean)
        for row, values in zip(rows, found, strict=True):
            row.append(values.copy())
        if step in STEPS:
            plans[step] = _drawn_plans(policy.mean[:PLANNED], lqr_gain(env.config), rng)
        env.step(action)
    obs, actions, truth, estimates = (np.stack(row) for row in rows)
    return _Data(obs, actions, truth, estimates, plans)


def _drawn_plans(start: np.ndarray, gain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = (len(start), PLANS, 2)
    scale = rng.choice(PLAN_NOISES, size=(*shape[:2], 1))
    scale[:, 0] = 0.0  # the regulator's own plan is among them
    offset, noise = scale * rng.standard_normal(shape), np.zeros(shape)
    state = np.repeat(start[:, None], PLANS, axis=1)
    plans = np.zeros((*shape[:2], HORIZON, 2), np.float32)
    for step in range(HORIZON):
        noise = _noise(noise, rng)
        plans[:, :, step] = np.clip(-state @ gain.T + scale * noise + offset, -1, 1)
        state = mean_next_state(state, plans[:, :, step])
    return plans


def _read_out(states: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the matrix of a linear read-out with a constant, ``[S + 1, 4]``."""
    rows = _with_constant(states)
    return np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.T @ targets)


def _with_constant(states: np.ndarray) -> np.ndarray:
    return np.concatenate([states, np.ones((*states.shape[:-1], 1))], axis=-1).astype(np.float64)


def _observed(model: WorldModel, data: _Data) -> torch.Tensor:
    """Return the model's states, ``[T, E, S]``."""
    state, action = torch.zeros(EPISODES, model.state_size), torch.zeros(EPISODES, model.num_actions)
    found = []
    for step in range(len(data.obs)):
        state = model.observe(state, action, torch.from_numpy(data.obs[step]))
        action = torch.from_numpy(data.actions[step])
        found.append(state)
    return torch.stack(found)


def _imagined(model: WorldModel, start: torch.Tensor, plans: torch.Tensor) -> Iterator[np.ndarray]:
    """Yield the features after each step of plans, ``[E, N, F]``."""
    state = start[:, None].expand(-1, plans.shape[1], -1).flatten(0, 1)
    for step in range(plans.shape[2]):
        state = model.step(state, plans[:, :, step].flatten(0, 1)).state
        yield model.features(state).unflatten(0, plans.shape[:2]).numpy()


@torch.inference_mode()
def model(paths: list[Path]) -> list[dict[str, Any]]:
    """Return what trained models know, a row for each policy file and step."""
    data, rows = played_data(), []
    for path in paths:
        (group,) = load_policy(path).team.groups
        assert isinstance(group.actor, WorldModelActor)
        rows += [{"policy": str(path), **row} for row in _known(group.actor.network.model, data)]
    return rows


def _known(world_model: WorldModel, data: _Data) -> list[dict[str, Any]]:
    """Return what a model knows, a row for each step."""
    rows, fitted = [], slice(None, EPISODES // 2)
    states = _observed(world_model, data)
    features = world_model.features(states).numpy()
    everywhere = _read_out(
        features[1:, fitted].reshape(-1, features.shape[-1]), data.estimates[1:, fitted].reshape(-1, 4)
    )
    for step in STEPS:
        found = _filter_errors(features[step], data.truth[step], data.estimates[step])
        found |= _ratings(world_model, states[step, :PLANNED], data, step, everywhere)
        rounded = {name: round(float(value), 4) for name, value in found.items()}
        rows.append({"step": step, **rounded, "cpu": cpu_model()})
    return rows


def _filter_errors(features: np.ndarray, truth: np.ndarray, estimates: np.ndarray) -> dict[str, float]:
    """Return errors of s1 and s2, read out of the model's features and of the filter."""
    half = len(features) // 2
    read = _with_constant(features[half:]) @ _read_out(features[:half], truth[:half])
    return {
        f"{name}_{source}": float(np.sqrt(((values - truth[half:])[:, k] ** 2).mean()))
        for source, values in (("model", read), ("ekf", estimates[half:]))
        for k, name in ((1, "s1"), (2, "s2"))
    }


def _ratings(
    world_model: WorldModel, states: torch.Tensor, data: _Data, step: int, everywhere: np.ndarray
) -> dict[str, float]:
    """Return how well plans are rated, and what actions do to the components that are read out at their end."""
    half, action_cost = PLANNED // 2, DriftControlConfig().action_cost
    plans = data.plans[step]
    true, reached = true_returns(data.estimates[step, :PLANNED], plans.astype(np.float64), action_cost)
    ratings = {"observed": np.zeros((half, PLANS)), "imagined": np.zeros((half, PLANS))}
    for h, imagined in enumerate(_imagined(world_model, states, torch.from_numpy(plans))):
        own = _read_out(imagined[:half].reshape(-1, imagined.shape[-1]), reached[:half, :, h].reshape(-1, 4))
        rows, paid = _with_constant(imagined[half:]), action_cost * (plans[half:, :, h] ** 2).sum(-1)
        read_out = {"observed": rows @ everywhere, "imagined": rows @ own}
        for name, components in read_out.items():
            ratings[name] -= GAMMA**h * ((components**2).sum(-1) + paid)
    ratings["model"] = world_model.returns(states, torch.from_numpy(plans), GAMMA).numpy()[half:]
    effects = _slopes(read_out["observed"], reached[half:, :, -1])
    found = {f"effect_s{k}": float(effects[k]) for k in range(3)}
    for name in ("model", "observed", "imagined"):
        found[f"correlation_{name}"] = _correlation(ratings[name], true[half:])
        found[f"regret_{name}"] = _regret(ratings[name], true[half:])
    return found


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


def played_steps(source: str, environments: int, seed: int) -> Sequences:
    """Return what `filtered_steps` plays."""
    return filtered_steps(source, environments, seed)[0]


def filtered_steps(source: str, environments: int, seed: int) -> tuple[Sequences, torch.Tensor]:
    """Return 200 steps of each environment, and the filter's estimates before each, ``[T, E, 4]``.

    What ends early begins anew.

    Args:
        source: Who acts. "mixed": random play in the first half of the environments, `lqg` with noise in the others,
            whose actions tell what it has made of the observations. "excited": coloured noise, from whose first
            component the observed s0 is taken, so that no action tells of what is not observed. "both": that in the
            first half of the environments, `lqg` with noise in the others.
        environments: How many.
        seed: Of the actions.
    """
    rng = np.random.default_rng(seed)
    env = drift_control_v0.batched_env(environments, scenario="hidden")
    env.reset(np.arange(FIRST_SEED - environments, FIRST_SEED, dtype=np.uint64))
    policy, noise, half = LQGPolicy(env), np.zeros((environments, 1, 2)), environments // 2
    scale = rng.choice(NOISES, size=(environments, 1, 1))
    fresh = np.ones(environments, bool)
    steps: list[tuple[np.ndarray, ...]] = []
    estimates = []
    for _ in range(env.config.max_steps):
        noise = _noise(noise, rng)
        obs = env.observe()[:, 0].copy()
        actions = policy.act() + scale * noise
        estimates.append(policy.mean.astype(np.float32))
        if source == MIXED:
            actions[:half] = rng.uniform(-1, 1, size=actions[:half].shape)
        else:
            chosen = slice(half if source == BOTH else None)
            actions[chosen] = noise[chosen]
            actions[chosen, 0, 0] -= obs[chosen, 0]
        actions = np.clip(actions, -1, 1).astype(np.float32)
        found = env.step(actions)
        terminated = found.terminated[:, 0].astype(np.float32)
        steps.append(
            (obs, env.observe()[:, 0].copy(), actions[:, 0], found.rewards[:, 0].copy(), terminated, fresh)
        )
        fresh = ~env.running
        env.reset(mask=fresh)
    obs, next_obs, actions, rewards, terminated, fresh = (
        torch.from_numpy(np.stack(rows)) for rows in zip(*steps, strict=True)
    )
    sequences = Sequences(obs, next_obs, actions, rewards, terminated, torch.ones_like(rewards), fresh)
    return sequences, torch.from_numpy(np.stack(estimates))


def _drawn(
    data: Sequences, count: int, length: int, rng: np.random.Generator, around: bool = False
) -> Sequences:
    """Return sequences that begin anywhere, steps first; ``around``: also where they go on at the first step."""
    steps, episodes = data.rewards.shape
    first = rng.integers(steps if around else steps - length + 1, size=count)
    rows, columns = (first + np.arange(length)[:, None]) % steps, rng.integers(episodes, size=count)
    return Sequences(
        data.obs[rows, columns],
        data.next_obs[rows, columns],
        data.actions[rows, columns],
        data.rewards[rows, columns],
        data.terminated[rows, columns],
        data.learned[rows, columns],
        data.fresh[rows, columns],
    )


def fitted_model(
    data: Sequences, config: dict[str, Any], updates: int, seed: int, around: bool = False
) -> WorldModel:
    """Return a model of the sizes and losses of an experiment that has learned from data.

    Args:
        data: What was played.
        config: Of the experiment.
        updates: Gradient steps, at least 1.
        seed: Of weights, draws and latents.
        around: Whether sequences go round, see `_drawn`.
    """
    torch.manual_seed(seed)
    rng, latents = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    sizes = data.obs.shape[-1], data.actions.shape[-1]
    found = WorldModelPolicy(
        WorldModelSpec(*sizes, is_discrete=False, world_model=config["world_model"])
    ).model
    optimizer = torch.optim.Adam(found.parameters(), config["model_lr"][0][1], fused=True)
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: LAST ** max(0.0, 3 * update / updates - 2)
    )
    for _ in range(updates):
        batch = _drawn(
            data, config["train_batch_size_per_learner"], config["model_sequence_length"], rng, around
        )
        found.take_in(batch)
        optimizer.zero_grad()
        found.learn(batch, latents).loss.backward()
        torch.nn.utils.clip_grad_norm_(found.parameters(), config.get("grad_clip", 100.0))
        optimizer.step()
        falling.step()
    return found


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
    regulator, played, rows = _played(env, seeds, LQRPolicy(env)), played_data(), []
    for source, count, experiment, around in fits:
        config = dict(load_experiment(experiment).config)
        learned_from = played_steps(source, count, SEED)
        world_model = fitted_model(learned_from, config, UPDATES, SEED, around)
        with torch.inference_mode():
            policy = _Learned(env, seeds, PlanningSettings.of(config["planner"]), world_model)
            cost = _played(env, seeds, policy) / regulator
            head = {
                "source": source,
                "steps": learned_from.rewards.numel(),
                "updates": UPDATES,
                "over_lqr": round(cost, 4),
            }
            rows += [{**head, **row} for row in _known(world_model, played)]
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
    regulator, played, rows = _played(env, seeds, LQRPolicy(env)), played_data(), []
    settings = PlanningSettings.of(dict(load_experiment(CONFIG).config)["planner"])
    data = estimated(*filtered_steps(BOTH, 80, SEED))
    learned = fitted_dynamics(data, FIT_UPDATES, SEED)
    for kind in HEADS:
        head = fitted_head(kind, data, FIT_UPDATES, SEED)
        for name, dynamics in (("true", None), ("learned", learned)):
            fitted = _Fitted(head, dynamics)
            cost = _played(env, seeds, _Plans(env, seeds, settings, True, fitted)) / regulator
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
                        "correlation": round(_correlation(found, true), 4),
                        "regret": round(_regret(found, true), 4),
                        "cpu": cpu_model(),
                    }
                )
    return rows


def _within(values: np.ndarray) -> np.ndarray:
    """Return deviations from the mean over the plans of one start."""
    return values - values.mean(axis=1, keepdims=True)


def _slopes(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return slopes of components ``[E, N, 4]`` on the true ones over the plans of one start, ``[4]``."""
    return (_within(found) * _within(true)).sum((0, 1)) / (_within(true) ** 2).sum((0, 1))


def _correlation(ratings: np.ndarray, true: np.ndarray) -> float:
    first, second = _within(ratings), _within(true)
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))


def _regret(ratings: np.ndarray, true: np.ndarray) -> float:
    taken = np.take_along_axis(true, ratings.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float((true.max(axis=1) - taken).mean())


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
