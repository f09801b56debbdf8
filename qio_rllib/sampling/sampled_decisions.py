"""Decisions of agents in episodes of a team that samples, with the moments in which they were taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from qio_envs.api import BatchedEnv
from qio_rllib.acting.actor import Acted
from qio_rllib.acting.decisions import decisions
from qio_rllib.acting.policy import EpisodeStreams
from qio_rllib.acting.team import Team
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.branches import Moment, place_of
from qio_rllib.sampling.global_state import StateSource
from qio_rllib.sampling.stepper import EnvStepper, Step
from qio_rllib.sampling.streams import generator
from qio_rllib.sampling.vector_env import Array

Replace = Callable[[list[Acted]], list[Acted]]
"""From what groups do to what they do in its place, as `EnvStepper.step` takes it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Decision:
    """A step of an episode in which one agent's action is in question.

    Attributes:
        seed: Of the episode.
        step: From 0.
        agent: The agent's index among all.
        moment: What the step begins with.
        actions: What each group did, ``[1, M]``.
        action: What the agent did.
        probabilities: Its policy over the ``A`` actions, float64 ``[A]``.
        legal: bool ``[A]``.
    """

    seed: int
    step: int
    agent: int
    moment: Moment
    actions: list[Array]
    action: int
    probabilities: Array
    legal: Array


def sampled_decisions(
    batch: BatchedEnv,
    team: Team,
    state_source: StateSource | None,
    seeds: Sequence[int],
    agents: Sequence[int],
    seed: int,
) -> tuple[list[Decision], int]:
    """Return one decision of each episode of a team that samples, spread evenly over the steps of episodes.

    Args:
        batch: The environment; its own state does not matter.
        team: Who acts; its Actors record `DIST_INPUTS`.
        state_source: Where global states come from; None for none.
        seeds: Of the episodes.
        agents: Whose decision it is in each; episodes in which the agent does not act are left out.
        seed: Of the choice of steps.

    Returns:
        The decisions, and the steps of the longest episode.
    """
    player = _Player(batch.branch(len(seeds)), team, state_source)
    acting = np.stack([alive[np.arange(len(seeds)), agents] for _, alive in player.play(seeds)])
    rng = generator(seed, "decisions")
    shares = (rng.permutation(len(seeds)) + rng.random(len(seeds))) / len(seeds)
    chosen: dict[int, int] = {}
    for e, share in enumerate(shares):
        steps = np.flatnonzero(acting[:, e])
        if len(steps):
            chosen[e] = int(steps[int(share * len(steps))])
    found: dict[int, Decision] = {}
    moments: dict[int, Moment] = {}
    last = max(chosen.values(), default=0)
    for step, _ in player.play(seeds):
        for e, at in chosen.items():
            if at == step - 1:
                found[e] = _decision(player, e, seeds[e], at, agents[e], moments[e])
            elif at == step:
                moments[e] = Moment.of(player.stepper, player.draws, True, e)
        if step > last:
            break
    return [found[e] for e in sorted(found)], len(acting) - 1


def _decision(player: _Player, e: int, seed: int, step: int, agent: int, moment: Moment) -> Decision:
    """Return the decision in the step that was just played."""
    team = player.stepper.team
    g, member = place_of(team, agent)
    group, acted = team.groups[g], player.acted[g]
    mask = moment.masks[g]
    count = group.actor.action.count
    assert count is not None
    return Decision(
        seed,
        step,
        agent,
        moment,
        [one.actions[e : e + 1].copy() for one in player.acted],
        int(acted.actions[e, member]),
        decisions(group, acted, True)[e, member],
        np.ones(count, bool) if mask is None else mask[0, member],
    )


class _Player:
    """Plays one episode in each of some environments."""

    def __init__(self, batch: BatchedEnv, team: Team, state_source: StateSource | None) -> None:
        self.stepper = EnvStepper(BatchedVectorEnv(batch), team, state_source)
        self.draws = EpisodeStreams([])
        self.acted: list[Acted] = []

    def play(self, seeds: Sequence[int]) -> Iterator[tuple[int, Array]]:
        """Yield each step before it is played, and who acts in it, bool ``[E, N]``; the end of the last one too."""
        stepper = self.stepper
        self.draws = EpisodeStreams(seeds)
        stepper.reset(np.array(seeds, np.uint64))
        count = 0
        while True:
            yield count, stepper.alive.copy()
            if not stepper.alive.any():
                return
            step = advance(stepper, self.draws)
            self.acted = step.acted
            count += 1


def advance(
    stepper: EnvStepper,
    draws: Any,
    replace: Replace | None = None,
    ending: Callable[[Step], None] | None = None,
) -> Step:
    """Let a team play a step; environments whose episode has ended have no agents that act from then on.

    Args:
        stepper: Of the environments.
        draws: Of the team.
        replace: As for `EnvStepper.step`.
        ending: Is told of the step before ended environments start another episode.
    """
    gone = ~stepper.alive.any(axis=1)
    step = stepper.step(draws, True, replace=replace)
    if ending is not None:
        ending(step)
    if step.over.any():
        stepper.env.retire(step.over)
    stepper.advance(step)
    stepper.alive[gone | step.over] = False
    return step
