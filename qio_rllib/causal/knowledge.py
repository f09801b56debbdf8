"""`Knowledge`: what is known of a causal graph before data is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from qio_rllib.causal.graph import CausalGraph, Edge, GraphError


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """Background knowledge for discovery.

    Attributes:
        tiers: Groups of variables, earlier ones first: nothing causes what lies in an earlier tier, as time has it.
            Variables in no tier are free.
        separate: Tiers, by their places, whose variables do not cause each other (actions that are drawn
            independently, components of one time step).
        required: Edges ``(cause, effect)`` that there are.
        forbidden: Edges that there are not, in this direction.
    """

    tiers: Sequence[Sequence[str]] = ()
    separate: Iterable[int] = ()
    required: Iterable[Edge] = ()
    forbidden: Iterable[Edge] = ()

    def read(self, variables: Sequence[str]) -> Constraints:
        """Return what is known as arrays.

        Raises:
            GraphError: An unknown variable, one in two tiers, or an edge that is required and forbidden.
        """
        names = CausalGraph((), variables)

        def place(what: str, name: str) -> int:
            if name not in variables:
                names._known(what, name)
            return list(variables).index(name)

        size = len(variables)
        tier = np.full(size, -1)
        for level, group in enumerate(self.tiers):
            for name in group:
                index = place("tiers", name)
                if tier[index] >= 0:
                    raise GraphError(f"tiers: {name} is in two of them")
                tier[index] = level
        both = (tier[:, None] >= 0) & (tier[None, :] >= 0)
        allowed = ~(both & (tier[:, None] > tier[None, :]))
        for level in self.separate:
            inside = tier == level
            allowed &= ~(inside[:, None] & inside[None, :])
        np.fill_diagonal(allowed, False)
        required = np.zeros((size, size), bool)
        for cause, effect in self.forbidden:
            allowed[place("forbidden", cause), place("forbidden", effect)] = False
        for cause, effect in self.required:
            i, j = place("required", cause), place("required", effect)
            if not allowed[i, j]:
                raise GraphError(f"required: {cause} -> {effect} is forbidden, by tiers or by itself")
            required[i, j] = True
            allowed[j, i] = False
        return Constraints(tier, allowed, required)


@dataclasses.dataclass(frozen=True, eq=False)
class Constraints:
    """`Knowledge` as arrays.

    Attributes:
        tier: Of each variable, -1 for none, int ``[V]``.
        allowed: Whether i may cause j, bool ``[V, V]``.
        required: Whether i causes j, bool ``[V, V]``.
    """

    tier: np.ndarray
    allowed: np.ndarray
    required: np.ndarray
