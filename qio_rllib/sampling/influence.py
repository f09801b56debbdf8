"""`Influence`: how much each agent's action changes what the others do next, recorded while a team plays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qio_rllib.acting.actor import DIST_INPUTS, Acted, ActorInputs, Array
from qio_rllib.acting.team import AgentGroup, Team, with_agent_id
from qio_rllib.causal.influence import INFLUENCE_REWARD, influence_of
from qio_rllib.random_numbers import RandomNumbers
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.counterfactuals import Branches
from qio_rllib.sampling.vector_env import VectorEnv

INFLUENCE = "influence"
"""Column of a `ModuleRollout`: in nats, float32 ``[T, E, M]``; of the last step of an episode 0."""


class Influence:
    """Asks the other agents' policies what they would do next, after each of an agent's actions.

    Args:
        env: The environments, with discrete actions.
        team: Who acts in them, without memory.

    Raises:
        ConfigError: Environments that cannot be branched.
    """

    def __init__(self, env: VectorEnv, team: Team) -> None:
        self.branches, self.team = Branches(env, team, INFLUENCE_REWARD), team
        self._as_vector = BatchedVectorEnv(self.branches.env)

    def columns(self, group: AgentGroup) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return (shape of one agent's entry, dtype) of the columns of a group."""
        return {INFLUENCE: ((), np.float32)}

    def record(self, acted: Sequence[Acted], alive: Array, rng: RandomNumbers | None) -> list[Acted]:
        """Return what the groups do with `INFLUENCE` beside it; before the environments are stepped.

        Args:
            acted: What each group is about to do; its extras hold `DIST_INPUTS`.
            alive: Who acts, bool ``[E, N]``.
            rng: Not used: all actions are tried.
        """
        branches = self.branches
        envs, agents, count = branches.source.num_envs, branches.source.num_agents, branches.count
        branches.step(acted, rng)
        observed = branches.env.observe()
        lives = branches.env.agents_alive().reshape(agents, count, envs, agents)
        present = np.logical_and.reduce(lives, axis=1)
        following = np.empty((len(observed), agents, count), np.float32)
        weights = np.empty((envs, agents, count), np.float32)
        taken = np.empty((envs, agents), np.int64)
        for group, one in zip(self.team.groups, acted, strict=True):
            seen = np.ascontiguousarray(observed[:, group.index])
            inputs = ActorInputs(
                with_agent_id(seen) if group.agent_id else seen, self._as_vector.action_mask(group.index)
            )
            following[:, group.index] = group.actor.act(inputs, {}, None, False).extras[DIST_INPUTS]
            logits = one.extras[DIST_INPUTS]
            likely = np.exp(logits - logits.max(axis=-1, keepdims=True))
            weights[:, group.index] = likely / likely.sum(axis=-1, keepdims=True)
            taken[:, group.index] = one.actions
        shaped = following.reshape(agents, count, envs, agents, count)
        found = np.where(alive, influence_of(shaped, weights, taken, present), np.float32(0))
        return [
            one._replace(extras={**one.extras, INFLUENCE: found[:, group.index]})
            for group, one in zip(self.team.groups, acted, strict=True)
        ]
