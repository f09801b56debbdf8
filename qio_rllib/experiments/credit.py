"""True advantages of a policy's decisions, and how far its algorithm's estimators are from them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import DIST_INPUTS, LOGP
from qio_rllib.acting.decisions import deciding_team
from qio_rllib.acting.policy import Policy
from qio_rllib.acting.team import Team
from qio_rllib.acting.world_model_actor import WorldModelActor
from qio_rllib.artifacts.files import write_atomically, write_csv
from qio_rllib.artifacts.run_description import run_description
from qio_rllib.evaluation.advantages import TrueAdvantages, is_distinguishable
from qio_rllib.evaluation.agreement import Agreement
from qio_rllib.learners.credit_estimators import ESTIMATORS, Case, Estimator, Trained
from qio_rllib.learners.popart import PopArt
from qio_rllib.models.values import STATE_SIZE, STATE_SOURCE, TEAM_VALUE
from qio_rllib.sampling.branches import check_branches
from qio_rllib.sampling.continuations import Continuations
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.evaluation import (
    checkpoint_config,
    learner_state_from_checkpoint,
    modules_from_checkpoint,
)
from qio_rllib.sampling.global_state import StateSource
from qio_rllib.sampling.groups import groups_of, team_of
from qio_rllib.sampling.recorded_transitions import agent_index
from qio_rllib.sampling.sampled_decisions import Decision, sampled_decisions
from qio_rllib.sampling.stepper import one_thread
from qio_rllib.sampling.vector_env import VectorEnv


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """What is looked at.

    Attributes:
        env: Name of the environment.
        env_config: Its arguments.
        trained: What estimators read.
        state_source: What central values and critics see, by kind and size; None for nothing.
    """

    env: str
    env_config: dict[str, Any]
    trained: Trained
    state_source: StateSource | None

    @property
    def team(self) -> Team:
        """Who acts."""
        return self.trained.team

    @classmethod
    def of_checkpoint(cls, path: str | Path, gamma: float | None = None) -> Subject:
        """Return the run of a checkpoint.

        Args:
            path: Of an Algorithm's checkpoint.
            gamma: Discount in the place of the run's.

        Raises:
            ConfigError: The checkpoint is missing or damaged, or its values are those of a team.
        """
        config, modules = checkpoint_config(path), modules_from_checkpoint(path)
        if config.model_config.get(TEAM_VALUE):
            raise ConfigError(
                "checkpoint: its values are those of the team's return (team_reward), and what is measured here is "
                "each agent's own; take a policy file, whose true advantages are measured, or a run without team_reward"
            )
        env = make_vector_env(config.env, dict(config.env_config), 1)
        try:
            team = team_of(env, groups_of(env, config), modules, config, (DIST_INPUTS, LOGP))
        finally:
            env.close()
        popart = {}
        for module_id, state in learner_state_from_checkpoint(path).get("popart", {}).items():
            popart[module_id] = PopArt()
            popart[module_id].set_state(state)
        source = config.model_config.get(STATE_SOURCE)
        return cls(
            config.env,
            dict(config.env_config),
            Trained(
                team,
                {module_id: module.unwrapped() for module_id, module in modules.items()},
                config.gamma if gamma is None else gamma,
                1.0 if config.lambda_ is None else config.lambda_,
                popart,
                not config.bootstrap_at_time_limit,
                config.reward_scale,
            ),
            None if source is None else StateSource(source, config.model_config[STATE_SIZE]),
        )

    @classmethod
    def of_policy(cls, policy: Policy, gamma: float) -> Subject:
        """Return a policy, which has advantages and no estimators."""
        return cls(
            policy.env,
            dict(policy.env_config),
            Trained(deciding_team(policy.team), {}, gamma, 1.0, {}),
            None,
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        states: Decisions, each of an episode of its own.
        branches: Of each decision and action.
        agent: Whose decisions; None for all agents in turn.
        horizon: Steps to play on, the decision's included; None for the end of the episode.
        seed: Of the first episode, of the choice of steps and of the branches.
        given_others: Whether the other agents do in the decision what they did in the episode.
    """

    states: int = 32
    branches: int = 64
    agent: str | None = None
    horizon: int | None = None
    seed: int = 0
    given_others: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Credit:
    """What was found.

    Attributes:
        subject: What was looked at.
        plan: How.
        agents: Names of the environment's agents.
        decisions: ``D`` of them.
        truth: Their advantages.
        estimates: By estimator, float64 ``[D, A, 1 + B]``: as the episode gave them, then of each branch.
        estimators: Those that the run has.
        env_steps: Steps of environments that were played in branches.
    """

    subject: Subject
    plan: Plan
    agents: tuple[str, ...]
    decisions: tuple[Decision, ...]
    truth: TrueAdvantages
    estimates: dict[str, np.ndarray]
    estimators: tuple[Estimator, ...]
    env_steps: int

    @property
    def taken(self) -> np.ndarray:
        """Index of the action of each decision, int64 ``[D]``."""
        return np.array([decision.action for decision in self.decisions])

    def of_taken(self, values: np.ndarray) -> np.ndarray:
        """Return what the taken actions have of ``[D, A, ...]``, ``[D, ...]``."""
        return values[np.arange(len(self.decisions)), self.taken]

    def agreements(self) -> dict[str, Agreement]:
        """Return how far each estimator is from the truth, by name."""
        return {
            name: Agreement.of(self.truth, values, self.taken, self.plan.seed)
            for name, values in self.estimates.items()
        }

    def summary(self) -> dict[str, float]:
        """Return what the true advantages of the taken actions are like.

        ``spread`` is their root mean square, what the estimator that always says 0 is wrong by; the truth's own error
        is taken off. ``pairing`` is the mean ratio of standard errors without and with common random numbers.
        """
        advantages, errors = self.of_taken(self.truth.advantages), self.of_taken(self.truth.errors)
        unpaired = self.of_taken(self.truth.unpaired_errors())
        noise = np.nan_to_num(np.square(errors))
        certain = np.isnan(errors) | (errors == 0)
        return {
            "states": len(self.decisions),
            "branches": self.plan.branches,
            "env_steps": self.env_steps,
            "spread": float(np.sqrt(max(0.0, (np.square(advantages) - noise).mean()))),
            "mean_error": float(errors.mean()),
            "distinguishable": float(is_distinguishable(advantages, errors).mean()),
            "pairing": float((unpaired[~certain] / errors[~certain]).mean())
            if not certain.all()
            else float("nan"),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a decision and legal action."""
        found = []
        for d, decision in enumerate(self.decisions):
            for a in np.flatnonzero(decision.legal).tolist():
                row = {
                    "seed": decision.seed,
                    "step": decision.step,
                    "agent": self.agents[decision.agent],
                    "action": a,
                    "probability": float(decision.probabilities[a]),
                    "taken": int(a == decision.action),
                    "value": float(self.truth.values[d, a]),
                    "advantage": float(self.truth.advantages[d, a]),
                    "error": float(self.truth.errors[d, a]),
                }
                for name, values in self.estimates.items():
                    row[f"{name}, mean"] = float(values[d, a, 1:].mean())
                    if a == decision.action:
                        row[f"{name}, single"] = float(values[d, a, 0])
                found.append(row)
        return found

    def write(self, out: Path, command: Sequence[str]) -> None:
        """Write tables and figure to a directory that does not exist yet.

        Args:
            out: The directory.
            command: What measured this.
        """
        from qio_rllib.artifacts.credit_plot import plot_credit

        agreements = self.agreements()
        out.mkdir()
        write_csv(out / "advantages.csv", self.rows())
        write_csv(
            out / "estimators.csv",
            [
                {
                    "estimator": one.name,
                    "estimates": "given others" if one.given_others else "over others",
                    **agreements[one.name].row(),
                }
                for one in self.estimators
            ],
        )
        described = {
            **run_description(command),
            "env": self.subject.env,
            "env_config": self.subject.env_config,
            "gamma": self.subject.trained.gamma,
            "lambda": self.subject.trained.lambda_,
            "plan": dataclasses.asdict(self.plan),
            "summary": self.summary(),
            "estimators": {name: one.row() for name, one in agreements.items()},
        }
        write_atomically(out / "credit.json", json.dumps(described, indent=1) + "\n")
        plot_credit(self.truth, self.taken, self.estimates, agreements, out / "credit.png", self.title)

    @property
    def title(self) -> str:
        """What was looked at, in words."""
        others = "given the others' actions" if self.plan.given_others else "over the others' actions"
        count = len(self.decisions)
        return f"{self.subject.env}, {count} states, {self.plan.branches} branches an action, {others}"


def measure(subject: Subject, plan: Plan) -> Credit:
    """Measure the true advantages of decisions, and what the run's estimators say of them.

    Raises:
        ConfigError: An environment that cannot be branched exactly, continuous actions, a world model, an unknown
            agent, or one that never acts.
    """
    env = make_vector_env(subject.env, subject.env_config, 1)
    try:
        with one_thread():
            return _measured(subject, plan, env)
    finally:
        env.close()


def _measured(subject: Subject, plan: Plan, env: VectorEnv) -> Credit:
    batch, team = check_branches(env, subject.env), subject.team
    for group in team.groups:
        if isinstance(group.actor, WorldModelActor):
            raise ConfigError(
                f"checkpoint: '{group.module_id}' acts by a world model, which has no distribution over actions; "
                "rllib diagnose compares its predictions"
            )
        if group.actor.action.count is None:
            raise ConfigError(
                f"checkpoint: '{group.module_id}' has continuous actions; every action is tried, so that they have "
                "to be discrete"
            )
    chosen = range(len(env.agents)) if plan.agent is None else [agent_index(env, plan.agent)]
    agents = [chosen[place % len(chosen)] for place in range(plan.states)]
    seeds = range(plan.seed, plan.seed + plan.states)
    found, longest = sampled_decisions(batch, team, subject.state_source, seeds, agents, plan.seed)
    if not found:
        raise ConfigError(f"--agent: {plan.agent} does not act in any of the {plan.states} episodes")
    estimators = _offered(subject, found)
    shape = (len(found), len(found[0].legal), plan.branches + 1)
    returns = np.full(shape, np.nan)
    estimates = {one.name: np.full(shape, np.nan) for one in estimators}
    player = Continuations(
        batch, team, subject.state_source, plan.seed, plan.horizon, plan.given_others, longest=longest
    )
    for agent in sorted(set(agents)):
        mine = [(index, one) for index, one in enumerate(found) if one.agent == agent]
        for part in player.play(mine, plan.branches) if mine else ():
            returns[part.decision, :, part.branch] = part.returns(subject.trained.gamma)
            if estimators:
                case = Case(subject.trained, part)
                for one in estimators:
                    estimates[one.name][part.decision, :, part.branch] = one.estimate(case)
    legal = np.stack([one.legal for one in found])
    for values in (returns, *estimates.values()):
        values[~legal] = np.nan
    truth = TrueAdvantages.of(returns[..., 1:], np.stack([one.probabilities for one in found]))
    names = tuple("" if name is None else str(name) for name in env.agents)
    return Credit(subject, plan, names, tuple(found), truth, estimates, tuple(estimators), player.env_steps)


def _offered(subject: Subject, found: Sequence[Decision]) -> list[Estimator]:
    """Return the estimators that the modules of all decisions offer."""
    agents = {decision.agent for decision in found}
    modules = [
        subject.trained.modules.get(group.module_id)
        for group in subject.team.groups
        if agents & set(group.index.tolist())
    ]
    return [one for one in ESTIMATORS if all(map(one.offered, modules))]
