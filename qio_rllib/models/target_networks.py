"""What modules with target networks have in common."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class HasTargets(Protocol):
    """A module with target networks."""

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs of a target network and the one that it follows."""
