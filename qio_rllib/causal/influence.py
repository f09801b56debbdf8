"""Causal influence between agents: how much one agent's action changes what the others do next.

``c_i = sum over j != i of KL[pi_j(. | a_i) || sum over a' of pi_i(a') pi_j(. | a')]`` (Jaques et al. 2019, "Social
influence as intrinsic motivation for multi-agent deep reinforcement learning", section 3), here with the other agents'
policies in the next step, and with the environment itself in the place of a learned model of the others.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from qio_envs.api import BatchedEnv, ConfigError
from qio_rllib.mapping_settings import MappingSettings, is_number

INFLUENCE_REWARD = "influence_reward"


@dataclasses.dataclass(frozen=True)
class InfluenceSettings(MappingSettings):
    """``training(influence_reward={...})``: agents are paid for the influence that their actions have on the others.

    Attributes:
        coefficient: What a nat of influence adds to the reward that is learned from, at least 0. With 0 influence is
            measured only.
        permuted: Whether each update's influences are shuffled among steps, environments and agents of the module
            first: the control with the same rewards and no information.
    """

    key = INFLUENCE_REWARD

    coefficient: float = 0.1
    permuted: bool = False

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is checked; see `MappingSettings`."""
        number = self.coefficient
        return [
            ("coefficient", "a number of at least 0", is_number(number) and 0 <= number < float("inf")),
            ("permuted", "true or false", type(self.permuted) is bool),
        ]

    def added(self, influence: np.ndarray, acted: np.ndarray) -> np.ndarray:
        """Return what is added to rewards.

        The order of a permutation is a function of the influences alone, so that equal rollouts give equal rewards.

        Args:
            influence: In nats, float32 ``[T, E, M]``.
            acted: Whose it is, bool ``[T, E, M]``.
        """
        if self.permuted:
            mine = influence[acted]
            order = np.random.default_rng(zlib.crc32(mine.tobytes())).permutation(len(mine))
            influence = np.zeros_like(influence)
            influence[acted] = mine[order]
        return np.float32(self.coefficient) * np.where(acted, influence, np.float32(0))


def influence_of(
    logits: np.ndarray, weights: np.ndarray, taken: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Return the influence of each agent's action on the others, in nats, float32 ``[E, N]``.

    Args:
        logits: Of the policy of agent ``j`` after action ``k`` of agent ``i``, up to a constant,
            ``[N i, K, E, N j, A]``.
        weights: Probability of agent ``i``'s action ``k``, ``[E, N, K]``; they sum to 1.
        taken: The actions that were taken, int64 ``[E, N]``.
        counts: Whether agent ``j`` acts next whatever agent ``i`` does, bool ``[N i, E, N j]``; an agent has no
            influence on itself.
    """
    agents = logits.shape[0]
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    probs = np.exp(log_probs)
    marginal = np.einsum("eik,ikeja->ieja", weights, probs)
    chosen = np.broadcast_to(taken.T[:, None, :, None, None], (agents, 1, *logits.shape[2:]))
    now = np.take_along_axis(probs, chosen, axis=1)[:, 0]
    log_now = np.take_along_axis(log_probs, chosen, axis=1)[:, 0]
    terms = np.where(
        now > 0, now * (log_now - np.log(np.maximum(marginal, np.finfo(marginal.dtype).tiny))), 0
    )
    others = counts & ~np.eye(agents, dtype=bool)[:, None]
    total = np.where(others, np.maximum(terms.sum(axis=-1), 0), 0).sum(axis=-1)
    return total.T.astype(np.float32)


def check_agents(env: BatchedEnv) -> None:
    """Check that there is somebody to influence, with actions that can be counted, and exact branches.

    Raises:
        ConfigError: A single agent, continuous actions, or random numbers whose meaning depends on actions.
    """
    if env.num_agents < 2:
        raise ConfigError(f"{INFLUENCE_REWARD}: {env.id} has a single agent; set it to null")
    if not hasattr(env.action_space, "n"):
        raise ConfigError(f"{INFLUENCE_REWARD}: needs discrete actions, {env.id} has {env.action_space}")
    if env.action_dependent_draws is not None:
        raise ConfigError(
            f"{INFLUENCE_REWARD}: {env.id} has no exact counterfactuals with these settings: "
            f"{env.action_dependent_draws}"
        )
