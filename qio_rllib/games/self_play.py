"""Self-play against a pool of frozen opponents: its settings, the pool with its ratings, and matchmaking."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.games.elo import expected_score
from qio_rllib.mapping_settings import MappingSettings, is_number

SELF_PLAY = "self_play"
LATEST, UNIFORM, PRIORITIZED, ELO = "latest", "uniform", "prioritized", "elo"
MATCHMAKING = (UNIFORM, LATEST, PRIORITIZED, ELO)

Weights = dict[str, dict[str, np.ndarray]]
"""Arrays of the policy network of each module, by name."""

_RATE = 0.05  # weight of a game in the mean score against an opponent
_LEAST_SHARE = 0.05  # of the uniform distribution in every other one: nobody is forgotten
_FURTHEST = 0.98  # score against an opponent that a rating is fitted to at most; 1 would be infinitely far


@dataclasses.dataclass(frozen=True)
class SelfPlaySettings(MappingSettings):
    """``training(self_play={...})``: agents learn against snapshots of earlier policies.

    In each episode one team learns and plays with the present policies. Every other team plays with a snapshot that
    matchmaking draws from the pool, and does not learn. In a share of the episodes (``current_share``) all teams play
    with the present policies, and all learn.

    Attributes:
        matchmaking: How an opponent is drawn: ``"uniform"``; ``"latest"``, the newest; ``"prioritized"``, with a weight
            of ``(1 - x)^2`` for a mean score of ``x`` against it (prioritised fictitious self-play: Vinyals et al.,
            2019, "Grandmaster level in StarCraft II", methods); ``"elo"``, with a weight of ``e (1 - e)`` for a score
            of ``e`` that the ratings (A. Elo, 1978) expect, so that equal opponents meet most often.
        opponents: Policy files (or ``policy:NAME``, or directories of finished runs) of the same networks, which are
            in the pool from the beginning and stay; a list, or a mapping to the weights, of at least 0, with which
            ``"uniform"`` draws them (a snapshot has 1).
        pool_size: Snapshots that are kept at most; the oldest gives way.
        snapshot_interval: Training iterations between two snapshots; None takes none. The untrained policy is the first
            one where there are no ``opponents``.
        current_share: Share of the episodes without snapshots, from 0 to 1.
        teams: Lists of agent ids, which together hold every agent once. By default those of the environment, where it
            has any; otherwise the agents of each module, and where there is a single module, each agent.
    """

    key = SELF_PLAY

    matchmaking: str = UNIFORM
    opponents: Sequence[str] | Mapping[str, float] | None = None
    pool_size: int = 16
    snapshot_interval: int | None = 10
    current_share: float = 0.2
    teams: Sequence[Sequence[Hashable]] | None = None

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is checked; see `MappingSettings`."""
        share = self.current_share
        return [
            ("matchmaking", f"one of {', '.join(MATCHMAKING)}", self.matchmaking in MATCHMAKING),
            (
                "pool_size",
                "a whole number of at least 1 (an empty pool has no opponents)",
                _is_count(self.pool_size),
            ),
            (
                "opponents",
                "a list of policy files, or a mapping of them to weights of at least 0, one of which is above 0",
                self.opponents is None or _are_opponents(self.opponents),
            ),
            (
                "opponents",
                f"a list where matchmaking is not {UNIFORM}, which alone knows weights",
                self.matchmaking == UNIFORM or not isinstance(self.opponents, Mapping),
            ),
            (
                "snapshot_interval",
                "a whole number of at least 1, or null",
                self.snapshot_interval is None or _is_count(self.snapshot_interval),
            ),
            ("current_share", "a number from 0 to 1", is_number(share) and 0 <= share <= 1),
            ("teams", "lists of agent ids", self.teams is None or _are_lists(self.teams)),
        ]

    @property
    def named_opponents(self) -> dict[str, float]:
        """Weights of the policy files by their paths, in order; empty without any."""
        given = self.opponents or ()
        return dict(given) if isinstance(given, Mapping) else dict.fromkeys(given, 1.0)


def teams_of(
    given: Sequence[Sequence[Hashable]] | None,
    modules: Mapping[str, Sequence[Hashable]],
    key: str = f"{SELF_PLAY}.teams",
    env: Any = None,
) -> list[list[Hashable]]:
    """Return the agents of each team.

    Args:
        given: As in `SelfPlaySettings`.
        modules: The agents of each module.
        key: What gave the teams, for messages.
        env: Where they play, with ``teams`` and ``lacks_opponents`` as of `BatchedEnv`; None where neither is known.

    Raises:
        ConfigError: The teams do not hold every agent once, there is only one, or the environment has no opponents.
    """
    if env is not None and env.lacks_opponents is not None:
        raise ConfigError(
            f"{key.partition('.')[0]}: no agent is an opponent of another: {env.lacks_opponents}"
        )
    if given is None and env is not None:
        given = env.teams
    agents = [agent for members in modules.values() for agent in members]
    if given is not None:
        named = [agent for team in given for agent in team]
        for agent in named:
            if agent not in agents:
                raise ConfigError(
                    f"{key}: there is no agent {agent!r}; allowed: {', '.join(map(str, agents))}"
                )
            if named.count(agent) > 1:
                raise ConfigError(f"{key}: {agent!r} stands there twice; every agent is in one team")
        missing = [str(agent) for agent in agents if agent not in named]
        if missing:
            raise ConfigError(f"{key}: {', '.join(missing)} in no team; every agent is in one")
        teams = [list(team) for team in given if team]
    elif len(modules) > 1:
        teams = [list(members) for members in modules.values()]
    else:
        teams = [[agent] for agent in agents]
    if len(teams) < 2:
        raise ConfigError(f"{key}: expected at least two teams, got {len(teams)}; there is no opponent")
    return teams


def with_absolute_paths(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping ``self_play`` whose ``opponents`` lie where they do seen from any working directory."""
    opponents = given.get("opponents")
    if not _are_opponents(opponents):  # none, or one that the settings refuse
        return dict(given)
    assert opponents is not None
    paths = {path: path if ":" in path else str(Path(path).absolute()) for path in opponents}
    if isinstance(opponents, Mapping):
        return {**given, "opponents": {paths[path]: weight for path, weight in opponents.items()}}
    return {**given, "opponents": [paths[path] for path in opponents]}


class Games(NamedTuple):
    """Games of the present policies against a snapshot."""

    snapshot: int
    played: int  # their number
    score: float  # sum: 1 for a game in which the learning team had more, 0.5 for as much, 0 for less


class Opponents(NamedTuple):
    """What runners need to know of a pool."""

    snapshots: dict[int, Weights] | None  # None where the pool is still that of the last time
    probabilities: dict[int, float]  # of being drawn, by snapshot
    current_share: float


class OpponentPool:
    """Snapshots of policies, and how the present ones fare against them.

    The mean score against a snapshot moves by a rate of 0.05 a game, from 0.5. The present rating is the one at which
    the scores that ratings expect of it, ``1 / (1 + 10^((r_j - r) / 400))``, sum up to the mean scores; a snapshot
    keeps the rating that it had as the present policy. The first one has 0.

    Args:
        settings: Of the setting ``self_play``.

    Attributes:
        snapshots: By number.
        weights: With which the uniform distribution draws those that stay, by number.
    """

    def __init__(self, settings: SelfPlaySettings) -> None:
        self.settings = settings
        self.snapshots: dict[int, Weights] = {}
        self.weights: dict[int, float] = {}
        self.ratings: dict[int, float] = {}
        self.scores: dict[int, float] = {}
        self.rating = 0.0
        self.added = 0

    def add(self, weights: Weights, stays: float | None = None) -> int:
        """Take in a snapshot; return its number.

        Args:
            weights: Of the present policies, or of others.
            stays: With which weight the uniform distribution draws it; such a snapshot never gives way to newer ones.
        """
        number = self.added
        self.snapshots[number] = weights
        self.ratings[number] = self.rating
        self.scores[number] = 0.5
        self.added += 1
        if stays is not None:
            self.weights[number] = stays
        while len(self.snapshots) - len(self.weights) > self.settings.pool_size:
            oldest = min(self.snapshots.keys() - self.weights.keys())
            for table in (self.snapshots, self.ratings, self.scores):
                del table[oldest]
        return number

    def record(self, games: Sequence[Games]) -> None:
        """Take in what was played; games against snapshots that are gone do not count."""
        for snapshot, played, score in games:
            if snapshot in self.scores and played:
                weight = 1.0 - (1.0 - _RATE) ** played
                self.scores[snapshot] += weight * (score / played - self.scores[snapshot])
        self.rating = self._fitted()

    def probabilities(self) -> dict[int, float]:
        """Return the probability of each snapshot of being drawn."""
        numbers = sorted(self.snapshots)
        kind = self.settings.matchmaking
        if kind == LATEST:
            weights = np.array([float(number == numbers[-1]) for number in numbers])
        else:
            scores = np.array([self.scores[number] for number in numbers])
            if kind == ELO:
                scores = expected_score(self.rating, np.array([self.ratings[number] for number in numbers]))
            if kind == UNIFORM:
                given = np.array([self.weights.get(number, 1.0) for number in numbers])
                return dict(zip(numbers, (given / given.sum()).tolist(), strict=True))
            weights = {
                PRIORITIZED: (1.0 - scores) ** 2,
                ELO: scores * (1.0 - scores),
            }[kind]
            total = weights.sum()
            uniform = np.full(len(numbers), 1.0 / len(numbers))
            weights = (
                (1.0 - _LEAST_SHARE) * weights / total + _LEAST_SHARE * uniform if total > 0 else uniform
            )
        return dict(zip(numbers, (weights / weights.sum()).tolist(), strict=True))

    def opponents(self, changed: bool = True) -> Opponents:
        """Return what runners need; without the snapshots if they have not changed."""
        snapshots = dict(self.snapshots) if changed else None
        return Opponents(snapshots, self.probabilities(), self.settings.current_share)

    def _fitted(self) -> float:
        """Return the rating at which expected and mean scores have the same sum (maximum likelihood), by bisection."""
        ratings = np.array([self.ratings[number] for number in sorted(self.ratings)])
        scores = np.array([self.scores[number] for number in sorted(self.ratings)])
        wanted = scores.clip(1.0 - _FURTHEST, _FURTHEST).sum()
        low, high = ratings.min() - 1_000.0, ratings.max() + 1_000.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            if expected_score(middle, ratings).sum() < wanted:
                low = middle
            else:
                high = middle
        return float(0.5 * (low + high))

    def get_state(self) -> dict[str, Any]:
        """Return all that the pool holds."""
        return {
            "snapshots": dict(self.snapshots),
            "weights": dict(self.weights),
            "ratings": dict(self.ratings),
            "scores": dict(self.scores),
            "rating": self.rating,
            "added": self.added,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; of more snapshots than this pool keeps the newest stay."""
        self.weights = dict(state["weights"])
        own = sorted(state["snapshots"].keys() - self.weights.keys())[-self.settings.pool_size :]
        kept = sorted([*self.weights, *own])
        self.snapshots, self.ratings, self.scores = (
            {number: state[name][number] for number in kept} for name in ("snapshots", "ratings", "scores")
        )
        self.rating, self.added = state["rating"], state["added"]


class Matchmaker:
    """Who plays with which policies in each environment.

    Args:
        teams: Agent indices of each of ``S`` teams; together they hold the ``N`` agents once.
        num_envs: ``E``.

    Attributes:
        learner: The team that learns, int64 ``[E]``.
        snapshots: The number of the snapshot that each team plays with, int64 ``[E, S]``; -1 is the present policy.
    """

    def __init__(self, teams: Sequence[Sequence[int]], num_envs: int) -> None:
        self.teams = [np.array(team) for team in teams]
        agents = sum(len(team) for team in teams)
        self._team_of = np.empty(agents, np.int64)
        for place, team in enumerate(self.teams):
            self._team_of[team] = place
        self.learner = np.zeros(num_envs, np.int64)
        self.snapshots = np.full((num_envs, len(teams)), -1)

    def draw(self, envs: np.ndarray, opponents: Opponents, rng: np.random.Generator) -> None:
        """Match the next episodes of some environments (indices, int64 ``[K]``)."""
        numbers = np.array(list(opponents.probabilities))
        weights = np.array(list(opponents.probabilities.values()))
        shape = (len(envs), len(self.teams))
        learner = rng.integers(len(self.teams), size=len(envs))
        drawn = numbers[rng.choice(len(numbers), size=shape, p=weights)]
        drawn[np.arange(len(envs)), learner] = -1
        drawn[rng.random(len(envs)) < opponents.current_share] = -1
        self.learner[envs], self.snapshots[envs] = learner, drawn

    def of_agents(self) -> np.ndarray:
        """Return what each agent plays with, int64 ``[E, N]``, as `snapshots`."""
        return self.snapshots[:, self._team_of]

    def games(self, env: int, returns: np.ndarray) -> list[Games]:
        """Return the games of an episode that has ended.

        Args:
            env: The environment.
            returns: Of its agents, ``[N]``. A team has more than another if the mean of its agents' returns is greater.
        """
        means = [returns[team].mean() for team in self.teams]
        own = means[self.learner[env]]
        return [
            Games(int(snapshot), 1, 0.5 * (1.0 + float(np.sign(own - mean))))
            for snapshot, mean in zip(self.snapshots[env], means, strict=True)
            if snapshot >= 0
        ]

    def get_state(self) -> dict[str, np.ndarray]:
        """Return the present matches."""
        return {"learner": self.learner.copy(), "snapshots": self.snapshots.copy()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on with the matches of a state."""
        self.learner[:], self.snapshots[:] = state["learner"], state["snapshots"]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_opponents(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence | Mapping) or not value:
        return False
    weights = list(value.values()) if isinstance(value, Mapping) else [1.0]
    return (
        all(isinstance(path, str) and path for path in value)
        and len(set(value)) == len(value)
        and all(is_number(weight) and 0 <= weight < math.inf for weight in weights)
        and sum(weights) > 0
    )


def _are_lists(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(team, Sequence) and not isinstance(team, str) for team in value)
    )
