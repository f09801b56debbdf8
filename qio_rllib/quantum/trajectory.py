"""Quantum trajectories: noisy circuits on pure states, with channels that are drawn at random."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qio_rllib.quantum.circuit import Circuit, check_memory
from qio_rllib.quantum.noise import NoiseModel, noisy_steps
from qio_rllib.quantum.stepping import apply, prepare


def trajectories(
    circuit: Circuit,
    noise: NoiseModel,
    weights: Tensor | None = None,
    features: Tensor | None = None,
    num_trajectories: int = 100,
    generator: torch.Generator | None = None,
    *,
    initial: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Run a noisy circuit on pure states: where a channel acts, one of its Kraus operators is drawn.

    ``K_i`` is drawn with probability ``p_i = ||K_i psi||^2`` and ``K_i psi`` normalised, so that the mean of
    ``|psi><psi|`` is the density matrix (J. Dalibard, Y. Castin and K. Molmer, "Wave-function approach to dissipative
    processes in quantum optics", Physical Review Letters 68, 580, 1992). Each row of the batch has draws of its own.

    Gradients go through what was drawn, and the norms count as constants. That makes the gradient of a mean of
    `expectation` unbiased: ``p_i`` times the derivative of ``<psi| K_i^dagger O K_i |psi> / p_i``, with the divisor
    held fixed, sums to that of the exact value. For functions that are not linear in ``|psi><psi|`` it is biased.

    Args:
        circuit: Of ``n`` qubits.
        noise: Channels after the gates; its readout error is not applied here, see `ReadoutError.of_samples` and
            `ReadoutError.of_observable`.
        weights: float ``[W]`` or ``[..., W]``.
        features: float ``[..., F]``.
        num_trajectories: ``T``, at least 1.
        generator: Source of the draws, on the device of the states; torch's own by default.
        initial: State to start from, complex ``[..., 2**n]``, normalised; by default |0...0>.
        dtype: complex64 or complex128; by default as in `Circuit.state`.

    Returns:
        Normalised states, complex ``[T, ..., 2**n]``.

    Raises:
        ValueError: ``num_trajectories`` is below 1, the states do not fit into memory, or arguments do not fit as in
            `Circuit.state`.
    """
    if isinstance(num_trajectories, bool) or not isinstance(num_trajectories, int) or num_trajectories < 1:
        raise ValueError(f"num_trajectories: expected an integer of at least 1, got {num_trajectories!r}")
    n = circuit.num_qubits
    angles, start, batch = prepare(circuit, weights, features, initial, dtype)
    check_memory(n, num_trajectories * math.prod(batch), start.dtype)
    state = start.expand(num_trajectories, *batch, 2**n)
    for operation, gate, channels in noisy_steps(circuit, angles, noise, start):
        state = apply(state, gate, operation.qubits, n)
        for qubit in operation.qubits:
            for kraus in channels:
                state = apply(state, _draw(state, kraus, qubit, n, generator), (qubit,), n)
    return state.contiguous()


def _draw(
    state: Tensor, kraus: Tensor, qubit: int, num_qubits: int, generator: torch.Generator | None
) -> Tensor:
    """Return for each state the drawn Kraus operator divided by the norm that it leaves, ``[..., 2, 2]``."""
    with torch.no_grad():
        # ||K psi||^2 = tr(K^dagger K rho), with the qubit's own density matrix: no need to try each K on the state
        parts = state.reshape(*state.shape[:-1], 2**qubit, 2, -1).transpose(-3, -2).flatten(-2)
        rho = parts @ parts.mH
        probs = torch.einsum("kba,kbc,...ca->...k", kraus.conj(), kraus, rho).real.clamp_min(0.0)
        chosen = torch.multinomial(probs.reshape(-1, len(kraus)), 1, generator=generator)
        chosen = chosen.reshape(state.shape[:-1])
        norm = probs.gather(-1, chosen[..., None])[..., None].sqrt()
        return kraus[chosen] / norm
