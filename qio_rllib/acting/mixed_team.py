"""`MixedTeam`: teams of several policies in the same environments, between which no message passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from qio_rllib.acting.actor import Acted, Array, State
from qio_rllib.acting.team import GroupInputs, Team
from qio_rllib.random_numbers import RandomNumbers


class MixedTeam(Team):
    """Acts for all ``N`` agents by several teams, each for its own agents and with messages of its own.

    What agents tell each other stays within their team: `messages` and `bits_sent` give None.

    Args:
        parts: Teams, each with the indices of its agents among all of the environment, int64 ``[M]``; together they
            hold every agent once. Agents of a team are numbered by their places in that array.
    """

    def __init__(self, parts: Sequence[tuple[Team, Array]]) -> None:
        super().__init__(
            [
                dataclasses.replace(group, index=index[group.index])
                for team, index in parts
                for group in team.groups
            ]
        )
        self._parts = tuple(parts)

    @property
    def draws(self) -> bool:
        """Whether it needs random numbers even where it does not explore."""
        return any(team.draws for team, _ in self._parts)

    def act(
        self,
        inputs: Sequence[GroupInputs],
        alive: Array,
        states: Sequence[State],
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
        global_state: Array | None = None,
    ) -> list[Acted]:
        """Choose all agents' actions, one team after the other; see `Team.act`.

        Nobody learns from what they do: ``global_state`` is not used.
        """
        found: list[Acted] = []
        for team, index in self._parts:
            own = slice(len(found), len(found) + len(team.groups))
            found += team.act(inputs[own], alive[:, index], states[own], rng, explore, random_actions)
        return found
