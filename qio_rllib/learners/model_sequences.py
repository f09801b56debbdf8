"""From joint transitions to what a world model learns from, and to the states in which it imagines."""

from __future__ import annotations

import torch

from qio_rllib.learners.transitions import Transitions
from qio_rllib.world_models.model import Sequences


def starts_of(states: torch.Tensor, sequences: Sequences) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the states in which imagination begins, and which agents are there where they stay together.

    Args:
        states: In which each step was taken, ``[L, B, S]``.
        sequences: The steps.

    Returns:
        States of steps that count, ``[R, S]``, and None; of joint sequences those of all ``M`` agents where a step
        counts for one of them, ``[E M, S]``, and 1 for those for whom it does, ``[E, M]``.
    """
    if sequences.present is None:
        return states[sequences.learned > 0], None
    learned = sequences.learned.reshape(sequences.present.shape)
    together = (learned > 0).any(-1)
    joint = states.unflatten(1, tuple(learned.shape[1:]))
    return joint[together].flatten(0, 1), learned[together]


def sequences_of(batch: Transitions, g: int, joint: bool = False) -> Sequences:
    """Return what a group's model learns from; agents stand beside samples, ``[L, B M, ...]``.

    Args:
        batch: Joint transitions.
        g: The group.
        joint: Whether the model sees the agents of a sample together.
    """

    def shaped(rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(0, (batch.length, -1)).flatten(1, 2)

    ended = 1.0 - batch.present_next[g]
    return Sequences(
        obs=shaped(batch.obs[g]),
        next_obs=shaped(batch.next_obs[g]),
        actions=shaped(batch.actions[g]),
        rewards=shaped(batch.rewards[g]),
        terminated=shaped(ended),
        learned=shaped(batch.learned[g]),
        fresh=shaped(batch.fresh[g]),
        present=batch.acted[g].unflatten(0, (batch.length, -1)) if joint else None,
    )
