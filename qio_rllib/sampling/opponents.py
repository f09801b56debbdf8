"""Self-play in a runner: which environments play against which snapshots, and how their games end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qio_rllib.acting.actor import Array, NetworkActor
from qio_rllib.acting.module_actor import actor_of
from qio_rllib.acting.pooled_actor import PRESENT, PooledActor, frozen_policy
from qio_rllib.acting.team import Team
from qio_rllib.games.self_play import Games, Matchmaker, Opponents, SelfPlaySettings, Weights, teams_of
from qio_rllib.sampling.vector_env import VectorEnv


class SelfPlay:
    """The opponents of a runner's environments.

    A snapshot that the pool has dropped is kept as long as an episode against it runs.

    Args:
        settings: Of the setting ``self_play``.
        team: Who acts by the present policies.
        modules: RLModules of this package by id, whose weights ``team`` shares.
        columns: What the learner needs of the Actors.
        env: The environments.

    Attributes:
        team: Who acts by the present policies and by snapshots.
    """

    def __init__(
        self,
        settings: SelfPlaySettings,
        team: Team,
        modules: Mapping[str, Any],
        columns: tuple[str, ...],
        env: VectorEnv,
    ) -> None:
        self._actors: dict[str, PooledActor] = {}
        for group in team.groups:
            assert isinstance(group.actor, NetworkActor)  # checked with the settings
            frozen = _builder(modules[group.module_id], group.actor, columns)
            self._actors[group.module_id] = PooledActor(group.actor, frozen)
        groups = [dataclasses.replace(group, actor=self._actors[group.module_id]) for group in team.groups]
        self.team = Team(groups, team.communication)
        members = {group.module_id: group.agents for group in team.groups}
        sides = teams_of(settings.teams, members, env=env)
        place = {agent: index for index, agent in enumerate(env.agents)}
        self._matchmaker = Matchmaker([[place[agent] for agent in side] for side in sides], env.num_envs)
        self._opponents = Opponents(None, {}, 1.0)
        self._pool: dict[int, Weights] = {}
        self._held: dict[
            int, Weights
        ] = {}  # snapshots of the pool, and those that an episode still runs against
        self._games: dict[int, Games] = {}
        self._play()

    def take(self, opponents: Opponents) -> None:
        """Draw the next opponents from these."""
        self._opponents = opponents
        if opponents.snapshots is not None:
            self._pool = dict(opponents.snapshots)
        self._hold(self._pool)

    def begin(self, envs: Sequence[int], rng: np.random.Generator) -> None:
        """Match the episodes that begin in some environments (indices)."""
        if self._opponents.probabilities:
            self._matchmaker.draw(np.asarray(envs, np.int64), self._opponents, rng)
            self._play()

    def end(self, env: int, returns: Array) -> None:
        """Take in an episode that has ended, with the returns of its agents (``[N]``)."""
        for game in self._matchmaker.games(env, returns):
            before = self._games.get(game.snapshot, Games(game.snapshot, 0, 0.0))
            self._games[game.snapshot] = Games(
                game.snapshot, before.played + game.played, before.score + game.score
            )

    def games(self) -> list[Games]:
        """Return the games since the last call."""
        found, self._games = [self._games[number] for number in sorted(self._games)], {}
        return found

    def get_state(self) -> dict[str, Any]:
        """Return the matches with the snapshots that play in them; the pool is not part of it."""
        return {
            "matches": self._matchmaker.get_state(),
            "games": dict(self._games),
            "snapshots": {number: self._held[number] for number in self._playing()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the matches of a state; `take` must follow."""
        self._matchmaker.set_state(state["matches"])
        self._games = dict(state["games"])
        self._hold(state["snapshots"])
        self._play()

    def _playing(self) -> list[int]:
        return [number for number in np.unique(self._matchmaker.snapshots).tolist() if number != PRESENT]

    def _hold(self, snapshots: Mapping[int, Weights]) -> None:
        """Hold these snapshots, and those of running episodes."""
        known = {**self._held, **snapshots}
        self._held = {**{number: known[number] for number in self._playing()}, **snapshots}
        for module_id, actor in self._actors.items():
            actor.keep({number: weights[module_id] for number, weights in self._held.items()})

    def _play(self) -> None:
        played = self._matchmaker.of_agents()
        for group in self.team.groups:
            self._actors[group.module_id].played = played[:, group.index]


def _builder(module: Any, actor: Any, columns: tuple[str, ...]) -> Any:
    frozen = frozen_policy(module.unwrapped())
    return lambda weights: actor_of(frozen(weights), actor.action, columns)
