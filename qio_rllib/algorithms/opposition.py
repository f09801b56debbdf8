"""`Opposition`: the pool of opponents of an Algorithm, between its Learners and its runners."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import ray
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.utils.checkpoints import Checkpointable

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import Policy
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.artifacts.run_directory import POLICY_FILE
from qio_rllib.games.self_play import SELF_PLAY, OpponentPool, SelfPlaySettings, Weights
from qio_rllib.models.communication import COMMUNICATION, Communication
from qio_rllib.models.policy_network import PolicySpec

_POLICY = "policy."
_OPPONENTS = f"{SELF_PLAY}.opponents"
_TIMEOUT = 60.0  # seconds that runners have to answer; one that is lost is restarted by RLlib and told then


def opponent_policy(path: str, module_ids: Collection[str]) -> Policy:
    """Return the policy of a file of ``self_play.opponents``.

    Args:
        path: A policy file, ``policy:NAME``, or the directory of a finished run.
        module_ids: The modules that the present policies have.

    Raises:
        ConfigError: There is no such file, it is damaged, or has other modules.
    """
    where = Path(path) / POLICY_FILE if Path(path).is_dir() else path
    try:
        policy = load_policy(where)
    except ConfigError as error:
        raise ConfigError(f"{_OPPONENTS}: {error}") from error
    there = {group.module_id for group in policy.team.groups}
    if there != set(module_ids):
        raise ConfigError(
            f"{_OPPONENTS}: {path} has the modules {', '.join(sorted(there))}, expected {', '.join(sorted(module_ids))}"
        )
    return policy


def check_messages(path: str, policy: Policy, present: Communication | None, agents: Sequence[Any]) -> None:
    """Refuse opponents whose messages travel in another way: snapshots talk as the present policies do.

    Args:
        path: As for `opponent_policy`, for messages.
        policy: What it gave.
        present: How messages of the present policies travel; None where they do not talk.
        agents: Ids of all agents of the environment.

    Raises:
        ConfigError: Naming what differs.
    """
    where, given = f"{_OPPONENTS}: {path}: {COMMUNICATION}", policy.team.communication
    if given is None or present is None:
        if given is not present:
            talk, silent = "its agents talk", "its agents do not talk"
            there, here = (talk, "null") if present is None else (silent, "set")
            raise ConfigError(f"{where}: {there}, and here it is {here}")
        return
    for key in ("bandwidth", "bits", "drop", "routing"):
        there, expected = getattr(given, key), getattr(present, key)
        if there != expected:
            raise ConfigError(f"{where}.{key}: it has {there}, expected {expected}")
    links = given.links(agents)
    differing = np.argwhere(links != present.links(agents))
    if len(differing):
        hears, speaks = differing[0].tolist()
        does = "hears" if links[hears, speaks] else "does not hear"
        raise ConfigError(f"{where}: there {agents[hears]} {does} {agents[speaks]}, unlike here")


def opponent_weights(path: str, specs: Mapping[str, PolicySpec]) -> Weights:
    """Return the weights in a file of ``self_play.opponents``.

    Args:
        path: As for `opponent_policy`.
        specs: Of the present policies, by module.

    Raises:
        ConfigError: As `opponent_policy`; or other networks, observations or actions.
    """
    found: Weights = {}
    for group in opponent_policy(path, specs).team.groups:
        assert isinstance(group.actor, NetworkActor)  # world models have no self-play, so other modules
        network, expected = group.actor.network, specs[group.module_id]
        there, wanted = (json.loads(json.dumps(spec.as_dict())) for spec in (network.spec, expected))
        for key, value in wanted.items():
            if there[key] != value:
                raise ConfigError(
                    f"{_OPPONENTS}: {path}: another network in {group.module_id}: {key} is {there[key]}, "
                    f"expected {value}"
                )
        found[group.module_id] = {name: array.numpy() for name, array in network.state_dict().items()}
    return found


class Opposition(Checkpointable):
    """Takes snapshots of the policies, hands the pool to the runners, and takes in what they played.

    Args:
        algorithm: Whose policies.
        settings: Of the setting ``self_play``.

    Attributes:
        pool: The snapshots.
    """

    def __init__(self, algorithm: Any, settings: SelfPlaySettings) -> None:
        self._algorithm = algorithm
        self.pool = OpponentPool(settings)
        self._iterations = 0

    @classmethod
    def of(cls, algorithm: Any) -> Self | None:
        """Return the opposition of a new Algorithm, with its untrained policies in it; None without self-play."""
        settings = SelfPlaySettings.of(algorithm.config.learner_config_dict.get(SELF_PLAY))
        if settings is None:
            return None
        found = cls(algorithm, settings)
        specs = {
            module_id: module.unwrapped().policy.spec
            for module_id, module in algorithm.env_runner.module.items()
        }
        for path, weight in settings.named_opponents.items():
            found.pool.add(opponent_weights(path, specs), stays=weight)
        if not settings.opponents:
            found.pool.add(found.present())
        found.share()
        return found

    def advance(self) -> dict[str, Any]:
        """End an iteration: take in its games, take a snapshot where one is due; return what to report.

        Returns:
            ``score``, the mean score of this iteration's games against snapshots (1 for more, 0.5 for as much, 0 for
            less than the opponents; left out where there were none), their number ``games``, the ``rating`` of the
            present policies and the size ``pool``.
        """
        games = [game for answer in self._ask("games") for game in answer]
        self.pool.record(games)
        self._iterations += 1
        interval = self.pool.settings.snapshot_interval
        due = interval is not None and self._iterations % interval == 0
        if due:
            self.pool.add(self.present())
        self._ask("take_opponents", self.pool.opponents(changed=due))
        count = sum(game.played for game in games)
        report = {"games": count, "rating": self.pool.rating, "pool": len(self.pool.snapshots)}
        return report | ({"score": sum(game.score for game in games) / count} if count else {})

    def share(self, indices: Collection[int] | None = None) -> None:
        """Hand the pool to the runners, or to the remote ones with these indices."""
        self._ask("take_opponents", self.pool.opponents(), indices)

    def _ask(self, method: str, argument: Any = None, indices: Collection[int] | None = None) -> list[Any]:
        """Call a method of the runners that sample: the remote ones (with these indices), or the local one."""
        group = self._algorithm.env_runner_group
        given = () if argument is None else (argument,)
        if group is None:
            return []
        if not group.num_remote_env_runners():
            return [getattr(group.local_env_runner, method)(*given)]
        return group.foreach_env_runner(
            method,
            kwargs=None if argument is None else {"opponents": ray.put(argument)},
            remote_worker_ids=None if indices is None else list(indices),
            local_env_runner=False,
            timeout_seconds=_TIMEOUT,
        )

    def present(self) -> Weights:
        """Return the weights of the present policies."""
        state = self._algorithm.learner_group.get_state(
            components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
        )[COMPONENT_LEARNER][COMPONENT_RL_MODULE]
        return {
            module_id: {
                name.removeprefix(_POLICY): np.array(array)  # a copy
                for name, array in arrays.items()
                if name.startswith(_POLICY)
            }
            for module_id, arrays in state.items()
        }

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the pool, and how far the next snapshot is."""
        return {"pool": self.pool.get_state(), "iterations": self._iterations}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; `share` must follow."""
        self.pool.set_state(state["pool"])
        self._iterations = state["iterations"]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return what a checkpoint needs to build the pool again: the Algorithm builds it."""
        return (None, self.pool.settings), {}
