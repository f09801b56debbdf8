"""What an environment refuses; each message is one line that says what would be allowed."""

from __future__ import annotations


class InvalidActionError(ValueError):
    """An action of the wrong shape, type or range; the message names the agent and the allowed values."""


class ResetNeededError(RuntimeError):
    """A step was asked of an environment that was never reset, or whose episode has ended."""


class InterventionError(ValueError):
    """An intervention of the wrong shape or type, or outside the space; the message names the variable."""


class UnsupportedError(RuntimeError):
    """An optional part of the contract that an environment does not have; the message says why."""
