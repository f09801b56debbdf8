"""Episodes as they run and end in a runner: their returns and lengths, and the means that it reports."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.core import DEFAULT_AGENT_ID
from ray.rllib.utils.metrics import (
    EPISODE_AGENT_RETURN_MEAN,
    EPISODE_LEN_MAX,
    EPISODE_LEN_MEAN,
    EPISODE_LEN_MIN,
    EPISODE_MODULE_RETURN_MEAN,
    EPISODE_RETURN_MAX,
    EPISODE_RETURN_MEAN,
    EPISODE_RETURN_MIN,
    NUM_AGENT_STEPS_SAMPLED,
    NUM_AGENT_STEPS_SAMPLED_LIFETIME,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    NUM_MODULE_STEPS_SAMPLED,
    NUM_MODULE_STEPS_SAMPLED_LIFETIME,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from qio_rllib.acting.team import SENT
from qio_rllib.sampling.rollout import Array, Rollout
from qio_rllib.sampling.vector_env import VectorEnv

BITS_SENT = "bits_sent"
"""Metric: bits sent per agent and environment step."""

_Key = str | tuple[str, ...]


@dataclasses.dataclass
class EpisodeRecord:
    """What callbacks are told of an episode.

    Attributes:
        agent_returns: Sum of rewards so far, by agent id.
        length: Environment steps so far.
        info: The numbers of the last info; empty before the end.
        env_index: The environment that plays it.
    """

    agent_returns: dict[Any, float]
    length: int
    info: dict[str, float]
    env_index: int

    def __len__(self) -> int:
        return self.length

    def get_return(self) -> float:
        """Return the sum of rewards over agents and steps."""
        return math.fsum(self.agent_returns.values())


class EpisodeLog:
    """Keeps account of the episodes of a runner's environments.

    Args:
        window: Means run over so many finished episodes.
        multi_agent: Whether returns by agent and by module are reported.

    Attributes:
        returns: Sum of rewards of the running episodes, float64 ``[E, N]``.
        lengths: Their environment steps, int64 ``[E]``.
        finished: The numbers of the last finished episodes, by metric.
    """

    def __init__(self, window: int, multi_agent: bool) -> None:
        self.window = window
        self.multi_agent = multi_agent
        self.finished: dict[_Key, collections.deque[float]] = {}

    def watch(self, env: VectorEnv, agents: Mapping[str, Sequence[Any]]) -> None:
        """Begin with new environments; ``agents`` are those of each module."""
        self._env = env
        self._agents = agents
        self.returns = np.zeros((env.num_envs, len(env.agents)))
        self.lengths = np.zeros(env.num_envs, np.int64)

    def step(self, rewards: Array) -> None:
        """Take in a step's rewards, ``[E, N]``."""
        self.returns += rewards
        self.lengths += 1

    def begin(self, mask: Array | None) -> list[int]:
        """Start the episodes of the environments in ``mask`` (bool ``[E]``; all when absent); return their indices."""
        rows = np.arange(len(self.lengths)) if mask is None else np.flatnonzero(mask)
        self.returns[rows] = 0
        self.lengths[rows] = 0
        return rows.tolist()

    def record(self, env_index: int) -> EpisodeRecord:
        """Return what there is to say of an environment's running episode."""
        returns = dict(zip(self._env.agents, self.returns[env_index].tolist(), strict=True))
        return EpisodeRecord(returns, int(self.lengths[env_index]), {}, env_index)

    def end(self, env_index: int) -> EpisodeRecord:
        """Take an environment's episode among the finished ones; return what there is to say of it."""
        record = self.record(env_index)
        record.info = self._env.info(env_index)
        scores: dict[_Key, float] = {
            key: float(value)
            for key, value in record.info.items()
            if not (key.startswith("steps_to_") and value < 0)  # -1 means «not reached»
        }
        scores[EPISODE_RETURN_MEAN] = record.get_return()
        scores[EPISODE_LEN_MEAN] = float(record.length)
        if self.multi_agent:
            for agent, value in record.agent_returns.items():
                scores[EPISODE_AGENT_RETURN_MEAN, str(agent)] = value
            for module_id, agents in self._agents.items():
                scores[EPISODE_MODULE_RETURN_MEAN, module_id] = math.fsum(
                    record.agent_returns[agent] for agent in agents
                )
        for name, value in scores.items():
            self.finished.setdefault(name, collections.deque(maxlen=self.window)).append(value)
        return record

    def log_steps(self, metrics: MetricsLogger, rollouts: list[Rollout], ended: int) -> int:
        """Log how much was sampled, and that ``ended`` episodes ended; return the environment steps."""
        env_steps = sum(rollout.env_steps() for rollout in rollouts)
        log = metrics.log_value
        log(NUM_ENV_STEPS_SAMPLED, env_steps, reduce="sum")
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, env_steps, reduce="lifetime_sum", with_throughput=True)
        log(NUM_EPISODES, ended, reduce="sum")
        log(NUM_EPISODES_LIFETIME, ended, reduce="lifetime_sum")
        for module_id, agents in self._agents.items():
            parts = [rollout.modules[module_id] for rollout in rollouts]
            counts = np.sum([part.acted.sum(axis=(0, 1)) for part in parts], axis=0).tolist()
            log((NUM_MODULE_STEPS_SAMPLED, module_id), sum(counts), reduce="sum")
            log((NUM_MODULE_STEPS_SAMPLED_LIFETIME, module_id), sum(counts), reduce="lifetime_sum")
            for agent, count in zip(agents, counts, strict=True):
                name = DEFAULT_AGENT_ID if agent is None else str(agent)
                log((NUM_AGENT_STEPS_SAMPLED, name), count, reduce="sum")
                log((NUM_AGENT_STEPS_SAMPLED_LIFETIME, name), count, reduce="lifetime_sum")
        return env_steps

    def log_bits(self, metrics: MetricsLogger, rollouts: list[Rollout], message_bits: int) -> None:
        """Log the bits that agents sent, as the mean over agents and the steps in which they acted.

        Args:
            metrics: Where to.
            rollouts: Of agents that talk.
            message_bits: Bits that a message takes.
        """
        parts = [part for rollout in rollouts for part in rollout.modules.values()]
        steps = sum(int(part.acted.sum()) for part in parts)
        sent = sum(int((part.columns[SENT] & part.acted).sum()) for part in parts)
        if steps:
            metrics.log_value(BITS_SENT, sent * message_bits / steps, window=1)

    def log_means(self, metrics: MetricsLogger) -> None:
        """Log the means over the window of finished episodes."""
        log = metrics.log_value
        for key, values in self.finished.items():
            log(key, math.fsum(values) / len(values), window=1)
        for mean, low, high in (
            (EPISODE_RETURN_MEAN, EPISODE_RETURN_MIN, EPISODE_RETURN_MAX),
            (EPISODE_LEN_MEAN, EPISODE_LEN_MIN, EPISODE_LEN_MAX),
        ):
            if mean in self.finished:
                log(low, min(self.finished[mean]), reduce="min", window=1)
                log(high, max(self.finished[mean]), reduce="max", window=1)

    def get_state(self) -> dict[str, Any]:
        """Return running and finished episodes."""
        return {
            "returns": self.returns.copy(),
            "lengths": self.lengths.copy(),
            "finished": {key: list(values) for key, values in self.finished.items()},
        }

    def set_state(self, state: Mapping[str, Any], running: bool) -> None:
        """Take over finished episodes, and with ``running`` those that were not."""
        self.finished = {
            key: collections.deque(values, maxlen=self.window) for key, values in state["finished"].items()
        }
        if running:
            self.returns[:], self.lengths[:] = state["returns"], state["lengths"]
