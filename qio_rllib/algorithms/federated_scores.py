"""Scores of clients whose environments differ, on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import qio_envs
from qio_envs.api import normalized_score, reference_scores
from qio_rllib.federated.clients import Client
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

MAX_ENVIRONMENTS = 32
"""Scripted policies play in at most so many different environments."""

_EPISODES = 10


class ScoreScales:
    """Puts team returns between random play (0) and the best scripted policy (1) of each client's own environment.

    Scripted policies play the episodes of evaluations, once in each environment and not before it is asked for.

    Args:
        clients: All that take part.
        episodes: In an evaluation; scripted policies play at least ten.
    """

    def __init__(self, clients: Sequence[Client], episodes: int) -> None:
        self._clients = clients
        self._episodes = max(episodes, _EPISODES)
        self._found: dict[str, tuple[float, float] | None] = {}
        self._is_small = len({client.environment_key for client in clients}) <= MAX_ENVIRONMENTS

    def normalized(self, returns: Mapping[int, float]) -> dict[int, float]:
        """Return team returns of clients, by index, on their scales.

        Empty where an environment has no scripted policies that differ from random play, or where there are more than
        `MAX_ENVIRONMENTS` different ones: the least of some would not be the least of all.
        """
        if not self._is_small:
            return {}
        scales = {index: self._scale(self._clients[index]) for index in returns}
        found = {
            index: normalized_score(returns[index], *scale)
            for index, scale in scales.items()
            if scale is not None
        }
        return found if len(found) == len(returns) else {}

    def _scale(self, client: Client) -> tuple[float, float] | None:
        """Return what random play and the best scripted policy score in a client's environment."""
        key = client.environment_key
        if key not in self._found:
            self._found[key] = None
            if client.env in qio_envs.environments():
                env = qio_envs.environment(client.env).batched_env(self._episodes, **client.env_config)
                scores = reference_scores(env, FIRST_EVALUATION_SEED)
                random, best = scores.get("random"), max(scores.values(), default=None)
                if random is not None and best is not None and best > random:
                    self._found[key] = random, best
        return self._found[key]
