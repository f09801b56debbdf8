"""`GreedyActor`: an actor that always takes its most probable actions."""

from __future__ import annotations

from collections.abc import Mapping

from qio_rllib.acting.actor import Acted, Actor, ActorInputs, Array, State
from qio_rllib.models.messages import Spoken
from qio_rllib.random_numbers import RandomNumbers


class GreedyActor:
    """Takes the most probable actions of another actor, also where the rest of its team explores; see `Actor`.

    Args:
        actor: The other one.
    """

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self.action = actor.action
        self.bandwidth = actor.bandwidth
        self.samples_only = actor.samples_only

    @property
    def extras(self) -> Mapping[str, tuple[tuple[int, ...], type]]:
        """Columns for the `Rollout`."""
        return self._actor.extras

    @property
    def memory(self) -> Mapping[str, int]:
        """Sizes of memories."""
        return self._actor.memory

    def act(
        self,
        inputs: ActorInputs,
        state: State,
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
    ) -> Acted:
        """Choose actions; see `Actor.act`."""
        return self._actor.act(inputs, state, rng, False, random_actions)

    def speak(self, obs: Array, state: State, noise: Array | None) -> Spoken:
        """Say what is likeliest; see `Actor.speak`."""
        return self._actor.speak(obs, state, None)
