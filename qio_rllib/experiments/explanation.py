"""Explains a decision of a trained policy: the episode is played, and branched with one variable set otherwise."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import AFTER, ConfigError, UnsupportedError
from qio_rllib.acting.actor import Acted
from qio_rllib.acting.decisions import deciding_team, decisions
from qio_rllib.acting.policy import EpisodeStreams, Policy
from qio_rllib.acting.world_model_actor import OTHERS
from qio_rllib.causal.datasets import action_names, numbered
from qio_rllib.causal.explanation import Explanation, Influence, decision_ancestors
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.branches import ACTION, OBSERVATION, STATE, Branches, Change, Moment, place_of
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.evaluation import cut_in_words, evaluation_seeds, step_cap
from qio_rllib.sampling.recorded_transitions import agent_index
from qio_rllib.sampling.stepper import EnvStepper, one_thread
from qio_rllib.sampling.streams import generator
from qio_rllib.sampling.vector_env import Array, VectorEnv

DEFAULT_LAGS = 5
_MOST_NUMBERS = 32  # of an observation that are variables of their own; of a longer one its parts are
_MOST_BRANCHES = 512  # at once: a branch holds a whole environment


@dataclasses.dataclass(frozen=True, eq=False)
class _Variable:
    """What can be set: as in `Change`, with a name; ``begins`` is 1 for what the step before its time has to give."""

    name: str
    kind: str
    key: Any
    agent: int = 0
    begins: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class _Point:
    """The episode at one step: what the step begins with, the state's components by name, and what was done."""

    moment: Moment
    components: dict[str, Array]
    acted: list[Acted]


@dataclasses.dataclass(frozen=True, eq=False)
class _Trial:
    """A variable at one time, which the decision is to be tried for."""

    variable: _Variable
    lag: int
    value: float
    values: Array

    @property
    def start(self) -> int:
        """Steps before the decision at which the branches begin."""
        return self.lag + self.variable.begins


def explain(
    policy: Policy,
    seed: int,
    step: int | None = None,
    agent: str | None = None,
    lags: int | None = None,
    draws: int = 16,
    episodes: int = 16,
    explore: bool = False,
    max_steps: int | None = None,
) -> Explanation:
    """Explain one decision of one agent.

    Each variable that may have moved the decision is set to values from the policy's own episodes, one variable at one
    time; the episode then goes on from there under the same random numbers and the same policy, and the decisions are
    compared. In the suite this is exact. Which variables these are depends on the environment:

    * with interventions on its state: components of the state and the agent's earlier actions. Those that are no
      ancestors of the decision in the environment's graph have exactly no influence and are not played;
    * without: what the agent observes, set in the observation and not in the world, and all agents' earlier actions;
    * outside the suite, or where the meaning of random numbers depends on actions: the present observation alone.

    Args:
        policy: What acts, in the environment of its training.
        seed: Of the episode.
        step: The decision is the action of this step, counted from 0; the middle of the episode when absent.
        agent: Whose decision; the first agent's when absent.
        lags: How many steps to go back; 5, or as many as there are, when absent.
        draws: Values that each variable is set to, at least 1.
        episodes: Of the policy, from which these values are drawn, at least 1.
        explore: Whether the policy samples.
        max_steps: Steps after which episodes are left, as for `qio_rllib.sampling.evaluation.play_episodes`; the
            explanation's notes say where any were. A decision that is named may lie beyond it.

    Raises:
        ConfigError: An unknown agent, a step beyond the episode, lags beyond its start or where there can be none.
    """
    explainer = _Explainer(policy, seed, agent, explore, max_steps)
    try:
        with one_thread():
            return explainer.explain(step, lags, draws, episodes)
    finally:
        explainer.env.close()


class _Explainer:
    def __init__(
        self, policy: Policy, seed: int, agent: str | None, explore: bool, max_steps: int | None
    ) -> None:
        self.policy, self.seed, self.explore = policy, seed, explore
        self.env = self._make(1)
        self.cap = step_cap(self.env, max_steps)
        self.team = deciding_team(policy.team_for(self.env.agents))
        self.agent = 0 if agent is None else agent_index(self.env, agent)
        self.g, self.member = place_of(self.team, self.agent)
        self.group = self.team.groups[self.g]
        self.batch = self.env.env if isinstance(self.env, BatchedVectorEnv) else None
        self.world = None if self.batch is None or self.batch.action_dependent_draws else self.batch
        self.branches = Branches(self.team, self.world, explore)
        self.discrete = self.group.actor.action.count is not None
        self.notes: list[str] = []

    def _make(self, count: int) -> VectorEnv:
        return make_vector_env(self.policy.env, dict(self.policy.env_config), count)

    def explain(self, step: int | None, lags: int | None, draws: int, episodes: int) -> Explanation:
        if step is None:
            step = self._length() // 2
        lags = self._checked_lags(lags, step)
        points = self._play(step, lags)
        variables = self._variables(lags)
        pools = self._pools(variables, episodes)
        ancestors = self._ancestors(lags)
        found: dict[tuple[str, int], Influence] = {}
        trials = []
        for index, variable in enumerate(variables):
            for lag in range(int(variable.kind == ACTION), lags + 1 - variable.begins):
                point = points[lag]
                if variable.kind == ACTION and not point.moment.alive[0, variable.agent]:
                    continue
                value = self._value(variable, point)
                node = (variable.name + AFTER * variable.begins, lag)
                if ancestors is not None and node not in ancestors:
                    width = 2 if self.discrete else len(self.group.actor.action.low)
                    found[variable.name, lag] = Influence.none(
                        variable.name, variable.kind, lag, value, width
                    )
                    continue
                # the same values at every lag, unless some were not legal then
                pool = self._legal(variable, point, pools[index])
                rng = generator(self.seed, "explanation", index)
                trials.append(_Trial(variable, lag, value, pool[rng.integers(len(pool), size=draws)]))
        for one in self._try(points, trials, draws):
            found[one.variable, one.lag] = one
        acted, _ = self.branches.decide(points[0].moment)
        name = self.env.agents[self.agent]
        return Explanation(
            env=self.policy.env,
            agent="" if name is None else str(name),
            seed=self.seed,
            step=step,
            mode=self._mode,
            lags=lags,
            action=self._action(points[0]),
            decision=tuple(decisions(self.group, acted[self.g], self.explore)[0, self.member].tolist()),
            discrete=self.discrete,
            influences=tuple(
                found[variable.name, lag]
                for variable, lag in itertools.product(variables, range(lags + 1))
                if (variable.name, lag) in found
            ),
            notes=self._notes(variables, draws, episodes),
        )

    def _try(self, points: Sequence[_Point], trials: Sequence[_Trial], draws: int) -> Iterator[Influence]:
        """Play the branches of all trials, those that begin at the same step together."""
        at_once = max(1, (_MOST_BRANCHES - 1) // draws)
        chosen = int(points[0].acted[self.g].actions[0, self.member]) if self.discrete else None
        for start in sorted({trial.start for trial in trials}):
            here = [trial for trial in trials if trial.start == start]
            for first in range(0, len(here), at_once):
                part = here[first : first + at_once]
                changes = [
                    Change(one.variable.kind, one.variable.key, one.values, one.variable.agent)
                    for one in part
                ]
                acted, alive = self.branches.decide(points[start].moment, start, changes)
                found = decisions(self.group, acted[self.g], self.explore)[:, self.member]
                for place, trial in enumerate(part):
                    rows = slice(1 + place * draws, 1 + (place + 1) * draws)
                    name, kind = trial.variable.name, trial.variable.kind
                    present = alive[rows, self.agent]
                    yield Influence.of(
                        name, kind, trial.lag, trial.value, found[0], found[rows], present, chosen
                    )

    # -- the episode

    def _checked_lags(self, lags: int | None, step: int) -> int:
        if lags is not None and lags < 1:
            raise ConfigError(f"--lags: expected at least 1, got {lags}")
        if self.world is None:
            why = f"{self.policy.env} cannot be branched, it is no environment of the suite by its name"
            if self.batch is not None:
                why = f"{self.batch.id} has no exact counterfactuals, {self.batch.action_dependent_draws}"
            if lags is not None:
                raise ConfigError(f"--lags: {why}: only the present observation can be set")
            self.notes.append(f"{why}: only the present observation was set")
            return 0
        if lags is not None and lags > step:
            raise ConfigError(f"--lags: {lags} steps before step {step} lie before the start of the episode")
        return min(DEFAULT_LAGS, step) if lags is None else lags

    def _length(self) -> int:
        """Return the step after the agent's last one in the episode."""
        stepper, rng = self._started(self.env, [self.seed])
        step = last = 0
        while stepper.alive.any() and step != self.cap:
            step += 1
            last = step if stepper.alive[0, self.agent] else last
            self._advance(stepper, rng)
        if stepper.alive.any():
            self.notes.append(
                f"the episode of seed {self.seed} was cut after {step:,} steps (--max-steps): the decision is in the "
                "middle of these"
            )
        return last

    def _play(self, step: int, lags: int) -> list[_Point]:
        """Play up to a step; return it and those before it, latest first.

        Raises:
            ConfigError: The agent does not act in it.
        """
        stepper, rng = self._started(self.env, [self.seed])
        points: collections.deque[_Point] = collections.deque(maxlen=lags + 1)
        for now in range(step + 1):
            if not stepper.alive.any():
                raise ConfigError(
                    f"--step: the episode of seed {self.seed} has {now} steps, expected 0 to {now - 1}, got {step}"
                )
            if now == step and not stepper.alive[0, self.agent]:
                name = self.env.agents[self.agent]
                raise ConfigError(f"--step: {name} does not act in step {step} of seed {self.seed}")
            moment = Moment.of(stepper, rng, self.world is not None)
            components = self._components(self.env)
            points.appendleft(_Point(moment, components, self._advance(stepper, rng)))
        return list(points)

    def _started(self, env: VectorEnv, seeds: Sequence[int]) -> tuple[EnvStepper, EpisodeStreams]:
        stepper = EnvStepper(env, self.team)
        stepper.reset(np.array(seeds, np.uint64))
        return stepper, EpisodeStreams(seeds)

    def _advance(self, stepper: EnvStepper, rng: EpisodeStreams) -> list[Acted]:
        """Play a step; environments whose episode has ended have no agents that act from then on."""
        ended = ~stepper.alive.any(axis=1)
        step = stepper.step(rng, self.explore)
        ended |= step.over
        if step.over.any():
            stepper.env.retire(step.over)
        stepper.advance(step)
        stepper.alive[ended] = False
        return step.acted

    # -- variables and their values

    def _components(self, env: VectorEnv) -> dict[str, Array]:
        if self.world is None or not self.world.intervention_spaces:
            return {}
        assert isinstance(env, BatchedVectorEnv)
        return env.env.variables()

    def _variables(self, lags: int) -> list[_Variable]:
        variables = []
        if self.world is not None and self.world.intervention_spaces:
            for name in self.world.intervention_spaces:
                begins = int(name.endswith(AFTER))
                variables.append(_Variable(name.removesuffix(AFTER), STATE, name, begins=begins))
        else:
            variables += self._observed()
        for group in self.team.groups if lags else ():
            if OTHERS in group.actor.memory:
                self.notes.append(
                    f"actions of {group.module_id} were not set: its agents remember each other's"
                )
                continue
            action = group.actor.action
            keys = [None] if action.count is not None else list(range(len(action.low)))
            for agent in group.index.tolist():
                prefix = f"{self.env.agents[agent]}." if len(self.env.agents) > 1 else ""
                for key, name in zip(keys, action_names(self.batch, len(keys)), strict=True):
                    variables.append(_Variable(prefix + name, ACTION, key, agent))
        return variables

    def _observed(self) -> list[_Variable]:
        """Return the numbers that the agent observes; of many the parts, where they have names."""
        size = self.policy.spaces[self.group.module_id].observation_shape
        count = int(np.prod(size))
        layout = {} if self.batch is None else self.batch.config.observation_layout
        if count > _MOST_NUMBERS and layout and max(part.stop for part in layout.values()) == count:
            return [_Variable(f"obs.{name}", OBSERVATION, part, self.agent) for name, part in layout.items()]
        return [
            _Variable(name, OBSERVATION, slice(place, place + 1), self.agent)
            for place, name in enumerate(numbered("obs", count))
        ]

    def _pools(self, variables: Sequence[_Variable], episodes: int) -> list[Array]:
        """Return the values of each variable in episodes of the policy, ``[n, ...]``.

        Raises:
            ConfigError: There are none that can be set.
        """
        env = self._make(episodes)
        kept: list[list[Array]] = [[] for _ in variables]
        try:
            stepper, rng = self._started(env, evaluation_seeds(episodes))
            count = 0
            while stepper.alive.any() and count != self.cap:
                count += 1
                alive, components, started = stepper.alive.copy(), self._components(env), stepper.steps > 0
                obs = stepper.obs[self.g].reshape(*stepper.obs[self.g].shape[:2], -1).copy()
                acted = self._advance(stepper, rng)
                for variable, values in zip(variables, kept, strict=True):
                    if variable.kind == STATE:
                        here = alive.any(axis=1) & (started | (not variable.begins))
                        values.append(components[variable.name][here])
                        continue
                    here = alive[:, variable.agent]
                    if variable.kind == OBSERVATION:
                        values.append(obs[here, self.member, variable.key])
                    else:
                        g, member = place_of(self.team, variable.agent)
                        done = acted[g].actions[here, member]
                        values.append(done if variable.key is None else done[:, variable.key])
            left = int(stepper.alive.any(axis=1).sum())
            if left:
                self.notes.append(f"{cut_in_words(left, episodes, count)} (--max-steps)")
        finally:
            env.close()
        pools = [np.concatenate(values) for values in kept]
        for index, variable in enumerate(variables):
            if variable.kind == STATE:
                assert self.world is not None
                pools[index] = _within(pools[index], self.world.intervention_spaces[variable.key])
            if not len(pools[index]):
                raise ConfigError(
                    f"--episodes: in {episodes} episodes {variable.name} has no value that it can be set to"
                )
        return pools

    def _value(self, variable: _Variable, point: _Point) -> float:
        """Return what a variable really was; NaN for several numbers."""
        if variable.kind == STATE:
            return float(point.components[variable.name][0])
        g, member = place_of(self.team, variable.agent)
        if variable.kind == OBSERVATION:
            values = point.moment.obs[g][0, member].reshape(-1)[variable.key]
            return float(values[0]) if len(values) == 1 else float("nan")
        done = self.team.groups[g].actor.action.to_env(point.acted[g].actions)[0, member]
        return float(done if variable.key is None else done[variable.key])

    def _legal(self, variable: _Variable, point: _Point, pool: Array) -> Array:
        """Return those of a variable's values that it could take at a time: of an action the legal ones."""
        if variable.kind != ACTION:
            return pool
        g, member = place_of(self.team, variable.agent)
        mask = point.moment.masks[g]
        if mask is None:
            return pool
        kept = pool[mask[0, member][pool]]
        return kept if len(kept) else point.acted[g].actions[:1, member]

    def _ancestors(self, lags: int) -> frozenset[tuple[str, int]] | None:
        """Return the ancestors of the decision by the environment's graph; None without one."""
        if self.world is None or not self.world.intervention_spaces:
            return None
        try:
            graph = self.world.graph()
        except UnsupportedError:
            return None
        names = action_names(self.world, 1 if self.discrete else len(self.group.actor.action.low))
        return decision_ancestors(graph, names, lags, bool(self.group.actor.memory))

    # -- what is reported

    @property
    def _mode(self) -> str:
        return "sampled" if self.explore else "greedy"

    def _action(self, point: _Point) -> dict[str, float]:
        done = self.group.actor.action.to_env(point.acted[self.g].actions)[0, self.member].reshape(-1)
        return dict(zip(action_names(self.batch, len(done)), done.tolist(), strict=True))

    def _notes(self, variables: Sequence[_Variable], draws: int, episodes: int) -> tuple[str, ...]:
        first = f"each variable was set to {draws} of its values in {episodes} {self._mode} episodes of the policy"
        shown = any(variable.kind == OBSERVATION for variable in variables)
        second = ["obs was set in what the agent sees, not in the world"] if shown else []
        return (first, *second, *self.notes)


def _within(values: Array, space: gymnasium.spaces.Box | gymnasium.spaces.Discrete) -> Array:
    """Return those of the values that an intervention can set."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return values[(values >= 0) & (values < space.n)]
    return values[(values >= space.low) & (values <= space.high)]
