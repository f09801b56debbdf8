"""`Opposition`: the pool of opponents of an Algorithm, between its Learners and its runners."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Self

import numpy as np
import ray
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.utils.checkpoints import Checkpointable

from qio_rllib.games.self_play import SELF_PLAY, OpponentPool, SelfPlaySettings, Weights

_POLICY = "policy."
_TIMEOUT = 60.0  # seconds that runners have to answer; one that is lost is restarted by RLlib and told then


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
        due = self._iterations % self.pool.settings.snapshot_interval == 0
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
