"""How different the policies of a population are: by what they earn against each other, and by how they act."""

from __future__ import annotations

import numpy as np

from qio_rllib.games.game import Array, GameError

STRENGTH = 100.0
"""Weight of the kernel in `effective_diversity`: copies of a policy together count as at most 1 + 1 / `STRENGTH`."""


def expected_cardinality(kernel: Array) -> float:
    """Return how many items a determinantal point process draws on average: ``Tr(I - (L + I)^-1)``.

    Such a process draws sets of items that differ: the probability of a set is proportional to the determinant of its
    part of the kernel (Kulesza and Taskar, "Determinantal point processes for machine learning", 2012).

    Args:
        kernel: ``L``, symmetric and positive semidefinite, ``[P, P]``.

    Raises:
        GameError: A kernel of another form.
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not np.isfinite(kernel).all():
        raise GameError(f"kernel: expected finite numbers of shape [P, P], got shape {list(kernel.shape)}")
    if not np.allclose(kernel, kernel.T):
        raise GameError("kernel: expected a symmetric matrix")
    eigenvalues = np.linalg.eigvalsh(kernel)
    if (eigenvalues < -1e-8 * max(1.0, float(np.abs(eigenvalues).max(initial=0.0)))).any():
        raise GameError(f"kernel: expected no eigenvalue below 0, got {eigenvalues.min():.3g}")
    positive = np.maximum(eigenvalues, 0.0)
    return float((positive / (1.0 + positive)).sum())


def effective_diversity(payoffs: Array, strength: float = STRENGTH) -> float:
    """Return how many different policies a population has, by what they earn.

    The expected cardinality of a determinantal point process whose kernel compares rows of the table of payoffs
    (Perez-Nieves et al., "Modelling behavioural diversity for learning in open-ended games", ICML 2021), here of rows
    of length 1, and in units of that of a single policy: so many policies with orthogonal payoffs, copies of one count
    once but for ``1 / strength``, and a policy that earns 0 against all counts for nothing.

    Args:
        payoffs: What each policy earns against each opponent, or in each task, ``[P, Q]``; scores of which 0.5 is a
            draw are best taken less 0.5.
        strength: Weight of the kernel, above 0; with 1 copies count as up to 2, as in the paper.

    Returns:
        From 0 (nobody earns anything) to ``P``.

    Raises:
        GameError: An argument that does not fit.
    """
    table = np.asarray(payoffs, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise GameError(f"payoffs: expected finite numbers of shape [P, Q], got shape {list(table.shape)}")
    if not 0 < strength < np.inf:
        raise GameError(f"strength: expected a finite number above 0, got {strength}")
    largest = np.abs(table).max(axis=1, keepdims=True)
    table = table / np.where(largest > 0, largest, 1.0)  # before squares, which could overflow
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    rows = table / np.where(lengths > 0, lengths, 1.0)
    return expected_cardinality(strength * rows @ rows.T) * (1.0 + strength) / strength


def jensen_shannon(probabilities: Array) -> Array:
    """Return the mean Jensen-Shannon divergence of every two policies over common states, float64 ``[P, P]``.

    Of a state it is the mean divergence of the two distributions over actions from the mean of both (Lin, "Divergence
    measures based on the Shannon entropy", 1991), in bits: 0 for equal ones, 1 for ones that share no action.

    Args:
        probabilities: Of each policy's actions in each state, ``[P, B, A]``.

    Raises:
        GameError: They are no distributions.
    """
    table = np.asarray(probabilities, np.float64)
    if table.ndim != 3 or not table.size or not np.isfinite(table).all():
        raise GameError(f"probabilities: expected shape [P, B, A], got {list(table.shape)}")
    if (table < 0).any() or not np.allclose(table.sum(axis=-1), 1.0, atol=1e-5):
        raise GameError("probabilities: expected none below 0, and those of a state to have the sum 1")
    own = _entropy(table)
    both = _entropy((table[:, None] + table[None]) / 2)
    return np.maximum((both - (own[:, None] + own[None]) / 2).mean(axis=-1), 0.0)


def behavioural_diversity(probabilities: Array) -> float:
    """Return the mean of `jensen_shannon` over all pairs of different policies, from 0 to 1; 0 for a single one."""
    found = jensen_shannon(probabilities)
    count = len(found)
    return float(found.sum() / (count * (count - 1))) if count > 1 else 0.0


def _entropy(probabilities: Array) -> Array:
    """Return entropies in bits along the last axis."""
    logs = np.log2(np.where(probabilities > 0, probabilities, 1.0))
    return -(probabilities * logs).sum(axis=-1)
