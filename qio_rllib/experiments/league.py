"""Populations of policies that are trained against each other, round by round: PSRO and leagues."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from qio_envs.api import ConfigError, check_keys
from qio_rllib.acting.tabular import small_game
from qio_rllib.algorithms.initial_weights import INITIAL_WEIGHTS
from qio_rllib.artifacts.files import write_atomically
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.artifacts.run_directory import POLICY_FILE, RunDirectory
from qio_rllib.artifacts.yaml_files import only_entry
from qio_rllib.experiments import training
from qio_rllib.experiments.experiment import Experiment, environments_named
from qio_rllib.experiments.finished_run import RunResult
from qio_rllib.experiments.tournament import Contestant, tournament
from qio_rllib.games.cross_play import CrossPlay, Pairing
from qio_rllib.games.self_play import LATEST, PRIORITIZED, SELF_PLAY, UNIFORM, SelfPlaySettings
from qio_rllib.sampling.env_creators import check_named_in_file
from qio_rllib.sampling.environments import make_env
from qio_rllib.sampling.evaluation import evaluation_seeds
from qio_rllib.sampling.named_in_file import NamedInFile

LEAGUE_FILE = "league.json"
"""What a finished league leaves: its policies with their weights in its equilibrium."""

PSRO, LEAGUE = "psro", "league"
METHODS = (PSRO, LEAGUE)
NASH, ALPHA_RANK = "nash", "alpha_rank"
META_SOLVERS = (NASH, UNIFORM, ALPHA_RANK)
SAMPLED, EXACT = "sampled", "exact"
PAYOFFS = (SAMPLED, EXACT)
RESPONSE, MAIN, MAIN_EXPLOITER, LEAGUE_EXPLOITER = "response", "main", "main_exploiter", "league_exploiter"

_KEYS = ("run", "env", "stop", "config", "rounds", "method", "meta_solver", "payoffs", "episodes", "seed")
_CURRENT_SHARE = 0.35  # of the main policy's episodes: Vinyals et al. (2019), methods
_LEAST_WEIGHT = 1e-3  # of an opponent; below it a mixture does without


@dataclasses.dataclass(frozen=True)
class Member:
    """A policy of the population.

    Attributes:
        round: In which it was trained, from 1.
        role: What it was trained for.
        run: The directory of its training.
    """

    round: int
    role: str
    run: Path

    @property
    def name(self) -> str:
        """For tables."""
        return f"round {self.round}, {self.role.replace('_', ' ')}"


@dataclasses.dataclass(frozen=True)
class Round:
    """What a round has led to.

    Attributes:
        number: From 1.
        members: All policies so far.
        pairings: Their games.
        cross_play: What they earn against each other; None for a single policy.
        weights: Of the mixture that the next response is trained against, float64 ``[P]``.
        gain: What the round's first policy earns more against the mixture before than that mixture against itself, on
            average over its agents and all teams; NaN in the first round. In PSRO it falls to 0.
    """

    number: int
    members: Sequence[Member]
    pairings: Sequence[Pairing]
    cross_play: CrossPlay | None
    weights: np.ndarray
    gain: float


Train = Callable[[Experiment, RunDirectory | None, Path], RunResult]
"""Trains an experiment, or goes on with its run, in a directory."""


@dataclasses.dataclass(frozen=True)
class League:
    """A population of policies, trained in rounds against those of the rounds before.

    ``psro`` (Lanctot et al., 2017, "A unified game-theoretic approach to multiagent reinforcement learning"): each
    round trains one policy anew against a mixture of all earlier ones. Payoffs between all give the next mixture.

    ``league`` (Vinyals et al., 2019, "Grandmaster level in StarCraft II"): each round goes on with the main policy,
    against all earlier ones, prioritised, and in 35% of its episodes against itself; and trains two policies anew, one
    against the main one of the round before, one against all, prioritised.

    In the first round there is the untrained policy alone.

    Attributes:
        experiment: What each policy is trained with; ``stop`` is that of each training.
        rounds: At least 1.
        method: ``"psro"`` or ``"league"``.
        meta_solver: Mixture of PSRO: ``"nash"``, the equilibrium of the zero-sum game in which a policy wins what it
            earns more than its opponent; ``"uniform"`` (fictitious play); ``"alpha_rank"`` (Omidshafiei et al., 2019).
        episodes: Of each pair of policies in each team, for payoffs; at least 1.
        payoffs: ``"sampled"``, means of so many episodes, or ``"exact"``, expected returns, in games that
            `qio_rllib.acting.tabular.expected_returns` knows.
    """

    experiment: Experiment
    rounds: int
    method: str = PSRO
    meta_solver: str = NASH
    episodes: int = 100
    payoffs: str = SAMPLED

    @classmethod
    def read(cls, path: str | Path, seed: int | None = None, allow_import: Sequence[str] = ()) -> Self:
        """Read a league and check it, without training.

        Args:
            path: The file: ``name: {run: ..., env: ..., stop: {...}, config: {...}, rounds: 8, ...}``.
            seed: In place of that of the file.
            allow_import: Modules that environments named in the file may import.

        Raises:
            ConfigError: The file cannot be read, or holds something that cannot be used.
        """
        name, given = only_entry(path, "league")
        if not isinstance(given, Mapping):
            raise ConfigError(f"{name}: expected a mapping with the keys {', '.join(_KEYS)}")
        check_keys(name, given, _KEYS)
        if "rounds" not in given:
            raise ConfigError("rounds: missing; how often policies are trained, such as rounds: 8")
        for key, least in (("rounds", 1), ("episodes", 1), ("seed", 0)):
            value = given.get(key, least)
            if type(value) is not int or value < least:
                raise ConfigError(f"{key}: expected a whole number of at least {least}, got {value!r}")
        own = {key: value for key, value in given.items() if key in ("run", "env", "stop", "config")}
        experiment = Experiment.from_mapping(own, name)
        found = cls(
            experiment.with_seed(seed if seed is not None else given.get("seed")).with_seed(),
            given["rounds"],
            given.get("method", PSRO),
            given.get("meta_solver", NASH),
            given.get("episodes", cls.episodes),
            given.get("payoffs", SAMPLED),
        )
        if found.payoffs == EXACT and "episodes" in given:
            raise ConfigError("episodes: with payoffs: exact there are none; leave it out")
        found.check()
        for env in environments_named(experiment.env, experiment.config):
            check_named_in_file(NamedInFile.of(env, allow_import))
        found.trainings(1, [], np.zeros(0))[0][1].validate()
        if found.payoffs == EXACT:
            small_game(make_env(experiment.env, experiment.config.get("env_config")))
        return found

    def check(self) -> None:
        """Refuse what no league can be made of.

        Raises:
            ConfigError: Naming the setting.
        """
        for key, value, allowed in (
            ("method", self.method, METHODS),
            ("meta_solver", self.meta_solver, META_SOLVERS),
            ("payoffs", self.payoffs, PAYOFFS),
        ):
            if value not in allowed:
                raise ConfigError(f"{key}: expected one of {', '.join(allowed)}, got {value!r}")
        if self.method == LEAGUE and self.meta_solver != NASH:
            raise ConfigError("meta_solver: a league matches by scores; it is for method: psro")
        if self.experiment.is_sweep:
            raise ConfigError(
                f"{self.experiment.name}: a league has no search; name one value of each setting"
            )
        given = self.experiment.config.get(SELF_PLAY) or {}
        SelfPlaySettings.of(given)
        if any(key != "teams" for key in given):
            raise ConfigError(
                f"{SELF_PLAY}: of a league it says the teams alone; it chooses the opponents itself"
            )
        if self.experiment.config.get(INITIAL_WEIGHTS) is not None:
            raise ConfigError(f"{INITIAL_WEIGHTS}: a league chooses them itself; set it to null")

    def trainings(
        self, number: int, members: Sequence[Member], weights: np.ndarray
    ) -> list[tuple[str, Experiment]]:
        """Return what a round trains, with the role of each.

        Args:
            number: Of the round, from 1.
            members: All policies of the rounds before.
            weights: Of the mixture, ``[P]``.
        """
        files = [str(member.run / POLICY_FILE) for member in members]
        if self.method == PSRO:
            mixture = {
                path: float(weight)
                for path, weight in zip(files, weights, strict=True)
                if weight > _LEAST_WEIGHT
            }
            return [
                (RESPONSE, self._training(number, RESPONSE, {"opponents": mixture, "current_share": 0.0}))
            ]
        mains = [member for member in members if member.role == MAIN]
        before = str(mains[-1].run) if mains else None
        pool = {"matchmaking": PRIORITIZED, "opponents": files}
        found = [(MAIN, self._training(number, MAIN, {**pool, "current_share": _CURRENT_SHARE}, before))]
        if before is not None:
            newest = [str(mains[-1].run / POLICY_FILE)]
            against = {"matchmaking": LATEST, "opponents": newest, "current_share": 0.0}
            found.append((MAIN_EXPLOITER, self._training(number, MAIN_EXPLOITER, against)))
            against = {**pool, "current_share": 0.0}
            found.append((LEAGUE_EXPLOITER, self._training(number, LEAGUE_EXPLOITER, against)))
        return found

    def play(self, out: Path, train: Train, tell: Callable[[Round], None]) -> Round:
        """Train all rounds, as far as they are not there yet.

        Args:
            out: Directory of the league; `LEAGUE_FILE` is written there.
            train: How to train.
            tell: Called with each round that has ended.

        Returns:
            The last round.

        Raises:
            ConfigError: A run that is there has other settings.
            TrainingFailed: A training ended with an error.
            TrainingInterrupted: The user stopped it.
        """
        members: list[Member] = []
        contestants: list[Contestant] = []
        pairings: list[Pairing] = []
        weights = np.zeros(0)
        found = Round(0, members, pairings, None, weights, math.nan)
        for number in range(1, self.rounds + 1):
            known = len(members)
            for role, experiment in self.trainings(number, members, weights):
                run = training.run_of(experiment, out)
                result = train(experiment, run, out)
                members = [*members, Member(number, role, result.run_dir)]
            for member in members[known:]:
                contestants.append(Contestant(member.name, load_policy(member.run / POLICY_FILE)))
            cross_play = None
            if len(members) > 1:
                pairings += self._games(contestants, known if known > 1 else 0)
                cross_play = CrossPlay.of(pairings, len(members))
            gain = math.nan
            if known and cross_play is not None:
                payoffs = cross_play.payoffs[:, :known] @ weights
                gain = float(payoffs[known] - weights @ payoffs[:known])
            weights = self._mixture(members, cross_play)
            found = Round(number, members, pairings, cross_play, weights, gain)
            self._write(out, found)
            tell(found)
        return found

    def _games(self, contestants: Sequence[Contestant], known: int) -> list[Pairing]:
        given = self.experiment.config.get(SELF_PLAY) or {}
        policy = contestants[0].policy
        seeds = None if self.payoffs == EXACT else evaluation_seeds(self.episodes)
        return tournament(
            contestants, self.experiment.env, policy.env_config, seeds, given.get("teams"), known=known
        )

    def _training(
        self, number: int, role: str, self_play: Mapping[str, Any], before: str | None = None
    ) -> Experiment:
        """Return a training; without opponents the untrained policy is the only one."""
        own = self.experiment.config
        given = {key: value for key, value in self_play.items() if key != "opponents" or value}
        given |= {"snapshot_interval": None, "teams": (own.get(SELF_PLAY) or {}).get("teams")}
        config = {
            **own,
            SELF_PLAY: given,
            INITIAL_WEIGHTS: before,
            "evaluation_interval": None,
            # Each training its own first weights and draws.
            "seed": 10_000 * self.experiment.seed
            + 10 * number
            + (MAIN, MAIN_EXPLOITER, LEAGUE_EXPLOITER, RESPONSE).index(role),
        }
        return dataclasses.replace(self.experiment, name=f"round_{number:02d}_{role}", config=config)

    def _mixture(self, members: Sequence[Member], cross_play: CrossPlay | None) -> np.ndarray:
        """Return the weights of all policies in the mixture."""
        if cross_play is None or self.meta_solver == UNIFORM:
            return np.full(len(members), 1.0 / len(members))
        return cross_play.alpha_rank if self.meta_solver == ALPHA_RANK else cross_play.nash

    def _write(self, out: Path, found: Round) -> None:
        content = {
            "env": self.experiment.env,
            "method": self.method,
            "rounds": found.number,
            "policies": [
                {
                    "round": member.round,
                    "role": member.role,
                    "run": member.run.resolve().relative_to(out.resolve()).as_posix(),
                    "weight": float(weight),
                }
                for member, weight in zip(found.members, found.weights, strict=True)
            ],
        }
        write_atomically(out / LEAGUE_FILE, json.dumps(content, indent=1) + "\n")


def mixture_of_league(path: str | Path) -> dict[str, float]:
    """Return the policy files of a league's mixture with their weights.

    Args:
        path: Its directory, in which `LEAGUE_FILE` lies.

    Raises:
        ConfigError: The file cannot be read, or leads out of the directory.
    """
    folder = Path(path).resolve()
    try:
        content = json.loads((folder / LEAGUE_FILE).read_text(encoding="utf-8"))
        weights = {policy["run"]: float(policy["weight"]) for policy in content["policies"]}
        files = {run: (folder / run / POLICY_FILE).resolve() for run in weights}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: {LEAGUE_FILE} is damaged ({type(error).__name__})") from error
    for run, file in files.items():
        if not file.is_relative_to(folder):
            raise ConfigError(f"{path}: {LEAGUE_FILE} names {run}, which lies outside")
    found = {str(files[run]): weight for run, weight in weights.items() if weight > _LEAST_WEIGHT}
    if not found:
        raise ConfigError(f"{path}: {LEAGUE_FILE} names no policy")
    return found
