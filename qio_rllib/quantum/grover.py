"""Grover's search over a set of actions, and amplitude amplification from any policy.

A policy's probabilities ``p`` become amplitudes ``a_i = sqrt(p_i)``. One iteration flips the sign of the good actions
(the oracle) and then reflects about the starting state; started from the uniform one, the reflection is inversion about
the mean, ``a_i -> 2 mean(a) - a_i`` (the diffusion step). With ``P = sin^2(theta)`` the probability of the good actions
together, ``k`` iterations lead to::

    p'_i = p_i sin^2((2k + 1) theta) / sin^2(theta)     good actions
    p'_i = p_i cos^2((2k + 1) theta) / cos^2(theta)     the others

so that about ``pi / (4 sqrt(P))`` iterations reach a good action where sampling takes ``1 / P``. Sources: L. K. Grover,
"A fast quantum mechanical algorithm for database search" (STOC 1996); G. Brassard, P. Høyer, M. Mosca and A. Tapp,
"Quantum amplitude amplification and estimation" (2000, arXiv:quant-ph/0005055), for any starting state.

How this differs from the Q operator (`qio_rllib.exploration.amplify`), whose line before clipping and normalisation is
``a'_i = a_i + eta (a_i - mean(a))``:

- Both keep the mean and multiply the deviation from it: the diffusion step by -1 (it is the Q operator's line at
  ``eta = -2``), the Q operator by ``1 + eta``, away from the mean.
- Inversion about the mean keeps the norm: it is a reflection. The Q operator's line stretches it, for ``eta > 0``
  and unequal amplitudes; clipping and normalisation make a policy of it. It is not unitary, no circuit does it alone.
- Grover's iteration needs an oracle that marks good actions. The Q operator has none: what it amplifies is what is
  probable already, and ``k`` times with ``eta`` is, as long as nothing is clipped, once with ``(1 + eta)^k - 1``.
- The quadratic speed-up counts calls of the oracle on a quantum device. The Q operator calls none and has no such
  speed-up; neither has `grover_amplify`, which computes on all actions what the device would do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.circuit import Circuit


def grover_amplify(probs: Tensor, good: Tensor, iterations: int | Tensor) -> Tensor:
    """Return a policy after iterations of amplitude amplification towards good actions.

    Exact, for the starting state ``sum_i sqrt(p_i) |i>`` with phases of any kind; a policy all of whose actions are
    good, or none, stays as it is. The two factors at the head of this module are computed as polynomials in ``P``, so
    that gradients are finite and exact everywhere, at ``P = 0`` and 1 too.

    Args:
        probs: float ``[..., A]``, not negative, of sum 1 in each row to 1e-4.
        good: bool ``[..., A]``, True where the oracle marks; broadcasts with ``probs``.
        iterations: At least 0; a number, or int64 ``[...]`` for rows of their own, such as `optimal_iterations` gives.

    Returns:
        float ``[..., A]``, dtype of ``probs``; differentiable in it.

    Raises:
        ValueError: Wrong shapes or dtypes, probabilities that are negative, not finite or do not sum to 1, or negative
            iterations.
    """
    _check_probs(probs)
    if good.dtype != torch.bool:
        raise ValueError(f"good: expected bool [..., {probs.shape[-1]}], got {good.dtype}")
    try:
        shape = torch.broadcast_shapes(probs.shape, good.shape)
    except RuntimeError:
        shape = torch.Size()
    if not shape or shape[-1] != probs.shape[-1]:
        raise ValueError(
            f"good: expected bool [..., {probs.shape[-1]}], got shape {tuple(good.shape)} "
            f"beside probabilities of shape {tuple(probs.shape)}"
        )
    counts, most = _counts(iterations, shape[:-1])
    p_good = torch.where(good, probs, torch.zeros_like(probs)).sum(-1)
    # sin((2k + 1) t) / sin(t) and cos((2k + 1) t) / cos(t) obey x_{k+1} = 2 cos(2t) x_k - x_{k-1}.
    double = 2.0 - 4.0 * p_good
    sine, sine_before = torch.ones_like(p_good), -torch.ones_like(p_good)
    cosine, cosine_before = torch.ones_like(p_good), torch.ones_like(p_good)
    for done in range(most):
        sines, cosines = (sine, double * sine - sine_before), (cosine, double * cosine - cosine_before)
        if counts is None:
            (sine_before, sine), (cosine_before, cosine) = sines, cosines
        else:
            (sine_before, sine), (cosine_before, cosine) = (
                (torch.where(done < counts, old, before), torch.where(done < counts, new, old))
                for before, (old, new) in ((sine_before, sines), (cosine_before, cosines))
            )
    return probs * torch.where(good, sine.square()[..., None], cosine.square()[..., None])


@overload
def optimal_iterations(p_good: float) -> int: ...


@overload
def optimal_iterations(p_good: Tensor) -> Tensor: ...


def optimal_iterations(p_good: float | Tensor) -> int | Tensor:
    """Return how many iterations come nearest to certainty: ``floor(pi / (4 theta))`` with ``sin^2(theta) = P``.

    The good actions then have the probability ``max(P, 1 - P)`` at least (Brassard et al., theorem 2); more iterations
    lead away again.

    Args:
        p_good: Probability ``P`` of the good actions before, in [0, 1]; a number or float ``[...]``.

    Returns:
        An int, or int64 ``[...]`` for a tensor; 0 where no action is good.

    Raises:
        ValueError: Outside [0, 1] or not finite; rounding of 1e-4 is let pass.
    """
    values = torch.as_tensor(p_good, dtype=torch.float64).detach()
    if not bool(((values >= -1e-4) & (values <= 1 + 1e-4)).all()):  # NaN included
        raise ValueError(f"p_good: expected probabilities in [0, 1], got {p_good}")
    theta = torch.asin(values.clamp(0.0, 1.0).sqrt())
    # 1e-12: at P = 1/4, pi / (4 theta) is 3/2, but where it is an integer rounding must not take one away
    counts = torch.floor(math.pi / (4.0 * theta) + 1e-12)
    counts = torch.where(theta > 0.0, counts, torch.zeros_like(counts)).long()
    return counts if isinstance(p_good, Tensor) else int(counts)


def grover_circuit(num_qubits: int, marked: Sequence[int], iterations: int | None = None) -> Circuit:
    """Return Grover's search as a circuit: H on all qubits, then oracle and diffusion in turn.

    Oracle and diffusion hold matrices of ``4**n`` numbers, which all iterations share: meant for up to 10 qubits. Its
    probabilities are those of `grover_amplify` from the uniform distribution over ``2**n`` actions.

    Args:
        num_qubits: ``n``.
        marked: Indices of the good basis states, distinct, 0 to ``2**n - 1``; may be none.
        iterations: At least 0; by default `optimal_iterations`.

    Returns:
        A circuit without weights and features.

    Raises:
        ValueError: Indices out of range or repeated, or negative iterations.
    """
    circuit = Circuit(num_qubits)
    size, qubits = 2**num_qubits, tuple(range(num_qubits))
    for index in marked:
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < size:
            raise ValueError(f"marked: {index!r} is out of range; allowed: 0 to {size - 1}")
    if len(set(marked)) != len(marked):
        raise ValueError(f"marked: names a state twice: {list(marked)}")
    if iterations is None:
        iterations = optimal_iterations(len(marked) / size)
    _, most = _counts(iterations, torch.Size())
    signs, ground = np.ones(size), -np.ones(size)
    signs[list(marked)] = -1.0
    ground[0] = 1.0
    turn = Circuit(num_qubits).unitary(np.diag(signs), *qubits)
    for qubit in qubits:
        turn.add("H", qubit)
    turn.unitary(np.diag(ground), *qubits)  # between two layers of H's 2 |s><s| - 1, s the uniform state
    for qubit in qubits:
        turn.add("H", qubit)
    for qubit in qubits:
        circuit.add("H", qubit)
    for _ in range(most):
        for operation in turn.operations:  # checked once, above
            circuit._append(operation)
    return circuit


def _check_probs(probs: Tensor) -> None:
    if probs.ndim == 0 or probs.shape[-1] == 0 or not probs.dtype.is_floating_point:
        raise ValueError(f"probs: expected floats [..., A], got {probs.dtype} of shape {tuple(probs.shape)}")
    values = probs.detach()
    sums = values.sum(-1)
    if not bool(((sums - 1.0).abs() <= 1e-4).all()) or bool((values < 0.0).any()):  # NaN included
        raise ValueError(
            "probs: expected probabilities, not negative and of sum 1 in each row, "
            f"got sums from {sums.min():.6g} to {sums.max():.6g}, the least number is {values.min():.6g}"
        )


def _counts(iterations: int | Tensor, batch: torch.Size) -> tuple[Tensor | None, int]:
    """Return iterations by row, None where all rows have as many, and the most of them."""
    if isinstance(iterations, Tensor):
        if iterations.dtype != torch.int64 or bool((iterations < 0).any()):
            raise ValueError("iterations: expected int64 of at least 0")
        try:
            iterations.expand(batch)
        except RuntimeError:
            raise ValueError(
                f"iterations: expected shape {tuple(batch)}, got {tuple(iterations.shape)}"
            ) from None
        return iterations, int(iterations.max()) if iterations.numel() else 0
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
        raise ValueError(f"iterations: expected an integer of at least 0, got {iterations!r}")
    return None, iterations
