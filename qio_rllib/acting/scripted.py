"""Scripted policies of `qio_envs` as Actors, so that runners, evaluations and videos can play them."""

from __future__ import annotations

import numpy as np

from qio_envs.api import BatchedEnv, ConfigError, did_you_mean
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import Acted, ActorInputs, Array, State
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.models.messages import Spoken
from qio_rllib.random_numbers import RandomNumbers


class ScriptedActor:
    """Plays a scripted policy, which looks at the environment itself; see `Actor`.

    Args:
        env: The batch that is played; the policy acts for its present state.
        name: A key of ``env.scripted_policies``.

    Raises:
        ConfigError: There is none of that name.
    """

    bandwidth = 0
    samples_only = False

    def __init__(self, env: BatchedEnv, name: str) -> None:
        known = env.scripted_policies
        if name not in known:
            raise ConfigError(
                f"policy: {env.id} has no scripted policy '{name}'{did_you_mean(name, known)}; "
                f"allowed: {', '.join(known)}"
            )
        self.policy = known[name](env)
        self.action = ActionSpec.of(env.action_space, rescaled=False)
        self.extras: dict[str, tuple[tuple[int, ...], type]] = {}
        self.memory: dict[str, int] = {}

    def act(
        self,
        inputs: ActorInputs,
        state: State,
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
    ) -> Acted:
        """Return the scripted actions; see `Actor.act`."""
        return Acted(self.policy.act(), state, {})

    def speak(self, obs: Array, state: State, noise: Array | None) -> Spoken:
        """Refuse: scripted policies have no messages."""
        raise ConfigError("communication: scripted policies do not talk")


def scripted_team(env: BatchedEnv, name: str) -> Team:
    """Return a `Team` in which a scripted policy acts for every agent of a batch."""
    index = np.arange(env.num_agents)
    return Team([AgentGroup(name, env.possible_agents, index, ScriptedActor(env, name))])
