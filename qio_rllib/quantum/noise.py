"""Noise on circuits: channels, density matrices, quantum trajectories, readout errors, zero-noise extrapolation.

A channel on one qubit maps ``rho`` to ``sum_i K_i rho K_i^dagger`` with ``sum_i K_i^dagger K_i = I``; those here are
the ones of M. Nielsen and I. Chuang, "Quantum Computation and Quantum Information" (2000), section 8.3. A `NoiseModel`
puts channels behind each gate, on the qubits that the gate touches; idle qubits stay as they are.

```python
noise = NoiseModel(Depolarizing(0.01), readout=ReadoutError(0.02, 0.05))
rho = density_matrix(circuit, weights, features, noise)                      # complex [..., 2**n, 2**n]
seen = expectation_of_density(rho, ["Z0"], noise.readout)                    # float [..., 1]
states = trajectories(circuit, noise, weights, features, 1000, generator)    # complex [1000, ..., 2**n]
about = expectation(states, ["Z0"]).mean(0)                                  # the same to about 1 / sqrt(1000)
```
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.circuit import Circuit, check_memory, checked_angles, complex_dtype
from qio_rllib.quantum.gates import GATES, PAULIS, ROTATIONS, Array, kron, suggestion
from qio_rllib.quantum.observables import Observable, PauliSum, Projector, check_qubits, observable
from qio_rllib.quantum.operations import UNITARY, Angle, Operation

MAX_DENSITY_QUBITS = 6
"""Qubits that `density_matrix` takes at most; `trajectories` goes on from there."""


@runtime_checkable
class Channel(Protocol):
    """What happens to one qubit: anything that has Kraus operators."""

    @property
    def kraus(self) -> Array:
        """Kraus operators ``K_i``, complex128 ``[K, 2, 2]``, with ``sum_i K_i^dagger K_i = I``."""


@dataclass(frozen=True)
class Depolarizing:
    """With probability ``p`` the qubit is replaced by a completely mixed one: ``(1 - p) rho + p I / 2``.

    Nielsen and Chuang, section 8.3.4. Each of X, Y and Z then acts with probability ``p / 4``: in PennyLane this is
    ``DepolarizingChannel(3 * p / 4)``.

    Attributes:
        p: Probability, in [0, 1].

    Raises:
        ValueError: ``p`` is no number in [0, 1].
    """

    p: float

    def __post_init__(self) -> None:
        _check_probability("Depolarizing: p", self.p)

    @property
    def kraus(self) -> Array:
        """Kraus operators, complex128 ``[4, 2, 2]``."""
        weights = np.sqrt([1 - 0.75 * self.p, *(0.25 * self.p,) * 3])
        return weights[:, None, None] * np.stack([PAULIS[letter] for letter in "IXYZ"])


@dataclass(frozen=True)
class AmplitudeDamping:
    """Decay of |1> to |0>, such as the loss of a photon. Nielsen and Chuang, section 8.3.5.

    Attributes:
        gamma: Probability that |1> decays, in [0, 1].

    Raises:
        ValueError: ``gamma`` is no number in [0, 1].
    """

    gamma: float

    def __post_init__(self) -> None:
        _check_probability("AmplitudeDamping: gamma", self.gamma)

    @property
    def kraus(self) -> Array:
        """Kraus operators, complex128 ``[2, 2, 2]``."""
        kept, lost = math.sqrt(1 - self.gamma), math.sqrt(self.gamma)
        return np.array([[[1, 0], [0, kept]], [[0, lost], [0, 0]]], np.complex128)


@dataclass(frozen=True)
class Dephasing:
    """The phase flip: Z acts with probability ``p``, ``(1 - p) rho + p Z rho Z``. Nielsen and Chuang, section 8.3.3.

    Coherences shrink by ``1 - 2 p``: they are gone at ``p = 1/2``, and ``p = 1`` is the gate Z. For ``p`` up to 1/2 it
    is the phase damping of section 8.3.6 with ``lambda = 4 p (1 - p)``.

    Attributes:
        p: Probability, in [0, 1].

    Raises:
        ValueError: ``p`` is no number in [0, 1].
    """

    p: float

    def __post_init__(self) -> None:
        _check_probability("Dephasing: p", self.p)

    @property
    def kraus(self) -> Array:
        """Kraus operators, complex128 ``[2, 2, 2]``."""
        return np.stack([math.sqrt(1 - self.p) * PAULIS["I"], math.sqrt(self.p) * PAULIS["Z"]])


@dataclass(frozen=True)
class ReadoutError:
    """Bits that are read wrongly, each on its own and all with the same probabilities.

    Attributes:
        p01: Probability that a 0 is read as 1, in [0, 1].
        p10: Probability that a 1 is read as 0, in [0, 1].

    Raises:
        ValueError: A probability is no number in [0, 1].
    """

    p01: float
    p10: float

    def __post_init__(self) -> None:
        _check_probability("ReadoutError: p01", self.p01)
        _check_probability("ReadoutError: p10", self.p10)

    @property
    def matrix(self) -> Array:
        """``matrix[read, true]``, float64 ``[2, 2]``; its columns sum to 1."""
        return np.array([[1 - self.p01, self.p10], [self.p01, 1 - self.p10]])

    def of_probabilities(self, probs: Tensor) -> Tensor:
        """Return the probabilities of what is read.

        Args:
            probs: Those of the true outcomes, float ``[..., 2**n]``, such as `probabilities` gives.

        Returns:
            float ``[..., 2**n]``; differentiable.

        Raises:
            ValueError: The length of the last axis is no power of two above 1, or they are not floats.
        """
        size = probs.shape[-1] if probs.ndim else 0
        if size < 2 or size & (size - 1) or not probs.dtype.is_floating_point:
            raise ValueError(
                f"probs: expected floats [..., 2**n], got {probs.dtype} of shape {tuple(probs.shape)}"
            )
        matrix = torch.from_numpy(self.matrix).to(probs)
        for qubit in range(size.bit_length() - 1):
            probs = _apply(probs, matrix, (qubit,), size.bit_length() - 1)
        return probs

    def of_samples(
        self, samples: Tensor, num_qubits: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return what is read instead of sampled basis states: each bit flips at random.

        Args:
            samples: Indices of basis states, int64 of any shape, such as `sample` draws.
            num_qubits: ``n``.
            generator: Source of the draws, on the device of ``samples``; torch's own by default.

        Returns:
            Indices, int64 of the same shape.

        Raises:
            ValueError: They are not int64, or an index is not in ``[0, 2**n)``.
        """
        if samples.dtype != torch.int64:
            raise ValueError(f"samples: expected int64 indices of basis states, got {samples.dtype}")
        if samples.numel() and not 0 <= int(samples.min()) <= int(samples.max()) < 2**num_qubits:
            raise ValueError(
                f"samples: indices of {num_qubits} qubits are 0 to {2**num_qubits - 1}, "
                f"got {int(samples.min())} to {int(samples.max())}"
            )
        places = torch.arange(num_qubits, device=samples.device)
        bits = (samples[..., None] >> places) & 1
        flip = torch.tensor([self.p01, self.p10], dtype=torch.float64, device=samples.device)[bits]
        draws = torch.rand(bits.shape, dtype=torch.float64, device=samples.device, generator=generator)
        return (((draws < flip) ^ bits.bool()).long() << places).sum(-1)

    def of_observable(self, given: str | Observable) -> PauliSum:
        """Return the observable whose expectation a device with this readout error would estimate.

        A Pauli string is measured in its own basis, where it is a product of Z's, and as it is read ``Z`` becomes
        ``(1 - p01 - p10) Z + (p10 - p01)``; a projector likewise. Works on states and density matrices alike:
        ``expectation(states, [readout.of_observable("Z0 X1")])``.

        Args:
            given: A Pauli string, `PauliSum` or `Projector` on ``k`` qubits.

        Returns:
            A sum of up to ``2**k`` strings for each string.
        """
        slope, shift = 1 - self.p01 - self.p10, self.p10 - self.p01
        given = observable(given)
        strings: list[tuple[float, list[tuple[int, str, float, float]]]] = []
        if isinstance(given, Projector):  # onto bit b: (1 + (-1)^b Z) / 2
            factors = []
            for qubit, bit in sorted(zip(given.qubits, given.bits, strict=True)):
                sign = 0.5 if bit == "0" else -0.5
                factors.append((qubit, "Z", sign * slope, 0.5 + sign * shift))
            strings.append((1.0, factors))
        else:
            for coefficient, letters in given.terms:
                strings.append((coefficient, [(qubit, letter, slope, shift) for qubit, letter in letters]))
        terms: dict[tuple[tuple[int, str], ...], float] = {}
        for coefficient, factors in strings:
            for present in product((True, False), repeat=len(factors)):
                value, kept = coefficient, []
                for (qubit, letter, with_letter, without), there in zip(factors, present, strict=True):
                    value *= with_letter if there else without
                    kept += [(qubit, letter)] if there else []
                terms[tuple(kept)] = terms.get(tuple(kept), 0.0) + value
        return PauliSum(tuple((value, letters) for letters, value in terms.items()))


@dataclass(frozen=True)
class NoiseModel:
    """Noise that follows the gates, and the error of the readout.

    Attributes:
        after_gate: Channel, or several in order, that act on every qubit a gate touches, after the gate.
        readout: Error of each measured bit; None for none. It is applied where something is measured, by
            `probabilities_of_density` and the methods of `ReadoutError`, not to states.
        gates: Names of the gates that are noisy, such as ``("CNOT", "CZ")``, "UNITARY" for matrices of the user's own;
            None for all.

    Raises:
        ValueError: ``after_gate`` holds something else, or Kraus operators that do not sum to the identity (to 1e-6);
            an unknown gate.
    """

    after_gate: Channel | Sequence[Channel] = ()
    readout: ReadoutError | None = None
    gates: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for channel in self.channels:
            _check_kraus(channel)
        if self.readout is not None and not isinstance(self.readout, ReadoutError):
            raise ValueError(f"readout: expected a ReadoutError or None, got {self.readout!r}")
        if isinstance(self.gates, str):
            raise ValueError(f"gates: expected several names such as ({self.gates!r},), got one text")
        allowed = (*GATES, UNITARY)
        for name in self.gates or ():
            if name not in allowed:
                raise ValueError(f"gates: unknown {name!r}{suggestion(name, allowed)}")

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of ``after_gate`` in order."""
        if isinstance(self.after_gate, Sequence):
            return tuple(self.after_gate)
        return (self.after_gate,)

    def channels_after(self, gate: str) -> tuple[Channel, ...]:
        """Return the channels that follow a gate of that name."""
        return self.channels if self.gates is None or gate in self.gates else ()


def density_matrix(
    circuit: Circuit,
    weights: Tensor | None = None,
    features: Tensor | None = None,
    noise: NoiseModel | None = None,
    *,
    initial: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Run a noisy circuit exactly.

    Args:
        circuit: Of ``n`` qubits, 6 at most.
        weights: float ``[W]`` or ``[..., W]``.
        features: float ``[..., F]``.
        noise: None for none.
        initial: Pure state to start from, complex ``[..., 2**n]``, taken as it is; by default |0...0>.
        dtype: complex64 or complex128; by default as in `Circuit.state`.

    Returns:
        Density matrices before the readout, complex ``[..., 2**n, 2**n]``, with the batch axes of the arguments
        (broadcast); differentiable in all of them.

    Raises:
        ValueError: More qubits, or arguments that do not fit as in `Circuit.state`.
    """
    n = circuit.num_qubits
    angles, start, batch = _prepare(circuit, weights, features, initial, dtype)
    if n > MAX_DENSITY_QUBITS:
        wanted = math.prod(batch) * 4**n * start.dtype.itemsize
        raise ValueError(
            f"num_qubits: density matrices go up to {MAX_DENSITY_QUBITS} qubits, got {n}: {math.prod(batch):,} of them "
            f"would take {wanted:,} bytes; trajectories() takes pure states of more qubits"
        )
    check_memory(2 * n, math.prod(batch), start.dtype)
    # A density matrix is a vector of 2 n axes: those of its rows, then those of its columns.
    rho = (start[..., :, None] * start[..., None, :].conj()).flatten(-2)
    for operation, gate, channels in _steps(circuit, angles, noise, start):
        rho = _apply(rho, gate, operation.qubits, 2 * n)
        rho = _apply(rho, gate.conj(), tuple(n + qubit for qubit in operation.qubits), 2 * n)
        if channels:
            whole = torch.eye(4, dtype=rho.dtype, device=rho.device)
            for kraus in channels:
                whole = torch.einsum("kac,kbd->abcd", kraus, kraus.conj()).reshape(4, 4) @ whole
            for qubit in operation.qubits:
                rho = _apply(rho, whole, (qubit, n + qubit), 2 * n)
    return rho.expand(*batch, 4**n).reshape(*batch, 2**n, 2**n)


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
    angles, start, batch = _prepare(circuit, weights, features, initial, dtype)
    check_memory(n, num_trajectories * math.prod(batch), start.dtype)
    state = start.expand(num_trajectories, *batch, 2**n)
    for operation, gate, channels in _steps(circuit, angles, noise, start):
        state = _apply(state, gate, operation.qubits, n)
        for qubit in operation.qubits:
            for kraus in channels:
                state = _apply(state, _draw(state, kraus, qubit, n, generator), (qubit,), n)
    return state.contiguous()


def expectation_of_density(
    rho: Tensor, observables: Sequence[str | Observable], readout: ReadoutError | None = None
) -> Tensor:
    """Return expectation values ``tr(O_k rho)``.

    Args:
        rho: complex ``[..., 2**n, 2**n]``, of trace 1.
        observables: ``K`` of them: texts such as "Z0 Z1", `PauliSum` or `Projector`.
        readout: Error with which they are read, see `ReadoutError.of_observable`; None for none.

    Returns:
        float ``[..., K]``; differentiable.

    Raises:
        ValueError: ``rho`` has another shape or is not complex, there are no observables, or one does not fit.
    """
    n = _qubits_of_density(rho)
    if isinstance(observables, str) or not observables:
        raise ValueError(f"observables: expected at least one in a list, got {observables!r}")
    index, columns = torch.arange(2**n, device=rho.device), []
    for given in observables:
        shifts = (observable(given) if readout is None else readout.of_observable(given)).shifts(n)
        total = rho.new_zeros(rho.shape[:-2])
        for mask, vector in shifts.items():
            # O[i, i ^ mask] = vector[i], so that tr(O rho) is the sum of vector[i] rho[i ^ mask, i]
            total = total + rho[..., index ^ mask, index] @ torch.from_numpy(vector).to(rho)
        columns.append(total)
    return torch.stack(columns, dim=-1).real


def probabilities_of_density(
    rho: Tensor, qubits: Sequence[int] | None = None, readout: ReadoutError | None = None
) -> Tensor:
    """Return the probabilities of what qubits read.

    Args:
        rho: complex ``[..., 2**n, 2**n]``, of trace 1.
        qubits: ``k`` distinct ones, the most significant first; all by default.
        readout: Error with which they are read; None for none.

    Returns:
        float ``[..., 2**k]``; differentiable.

    Raises:
        ValueError: ``rho`` has another shape or is not complex, or qubits are out of range or repeated.
    """
    n = _qubits_of_density(rho)
    probs = rho.diagonal(dim1=-2, dim2=-1).real
    if qubits is not None and list(qubits) != list(range(n)):
        check_qubits(qubits, n)
        first = probs.ndim - 1
        cube = probs.reshape(*probs.shape[:-1], *(2,) * n)
        cube = cube.movedim([first + qubit for qubit in qubits], list(range(first, first + len(qubits))))
        probs = cube.reshape(*probs.shape[:-1], 2 ** len(qubits), -1).sum(-1)
    return probs if readout is None else readout.of_probabilities(probs)


def fold(circuit: Circuit, scale: int) -> Circuit:
    """Return a circuit that does the same with more gates: ``U (U^dagger U)^((scale - 1) / 2)``.

    Global unitary folding: where noise follows the gates, it multiplies the noise by about ``scale``
    (T. Giurgica-Tiron et al., "Digital zero noise extrapolation for quantum error mitigation", IEEE QCE 2020).

    Args:
        circuit: ``U``.
        scale: Odd, at least 1.

    Returns:
        A circuit of ``scale`` times as many gates, with the same weights and features.

    Raises:
        ValueError: ``scale`` is no odd integer of at least 1.
    """
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1 or scale % 2 == 0:
        raise ValueError(f"scale: expected an odd integer of at least 1, got {scale!r}")
    folded = Circuit(circuit.num_qubits).extend(circuit.operations)
    back = circuit.inverse().operations
    for _ in range(scale // 2):
        folded.extend(back).extend(circuit.operations)
    return folded


def zero_noise_extrapolation(
    evaluate: Callable[[int], Tensor | float], scales: Sequence[int] = (1, 3, 5), order: int | None = None
) -> Tensor:
    """Extrapolate a noisy value to no noise.

    A polynomial in the scale of the noise is fitted to ``evaluate(scale)`` by least squares and read off at 0. With as
    many coefficients as scales it goes through all points: Richardson's extrapolation (K. Temme, S. Bravyi and
    J. Gambetta, "Error mitigation for short-depth quantum circuits", Physical Review Letters 119, 180509, 2017), of
    least bias and most variance; with fewer it smooths.

    ```python
    def noisy(scale: int) -> Tensor:
        return expectation_of_density(density_matrix(fold(circuit, scale), weights, features, noise), ["Z0"])

    value = zero_noise_extrapolation(noisy)
    ```

    Args:
        evaluate: From a scale to a number or float tensor ``[...]``, always of the same shape.
        scales: Distinct, finite and above 0, at least one; `fold` takes odd integers.
        order: Of the polynomial, 0 to ``len(scales) - 1``, which is the default.

    Returns:
        float ``[...]``; differentiable as the values are (numbers give float64).

    Raises:
        ValueError: Scales that repeat or are out of range, or ``order`` is.
    """
    points = [float(scale) for scale in scales]
    if not points or len(set(points)) < len(points) or not all(0 < point < math.inf for point in points):
        raise ValueError(f"scales: expected distinct finite numbers above 0, got {list(scales)}")
    highest = len(points) - 1
    order = highest if order is None else order
    if isinstance(order, bool) or not isinstance(order, int) or not 0 <= order <= highest:
        raise ValueError(f"order: {len(points)} scales allow 0 to {highest}, got {order!r}")
    # The value at 0 of the fit is linear in the values: its weights are a row of the pseudo-inverse.
    powers = np.vander(np.array(points) / max(points), order + 1, increasing=True)
    weights = np.linalg.pinv(powers)[0]
    values = []
    for scale in scales:
        value = evaluate(scale)
        values.append(value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64))
    stacked = torch.stack(values)
    return torch.tensordot(torch.from_numpy(weights).to(stacked), stacked, dims=1)


def _prepare(
    circuit: Circuit,
    weights: Tensor | None,
    features: Tensor | None,
    initial: Tensor | None,
    dtype: torch.dtype | None,
) -> tuple[dict[str, Tensor | None], Tensor, torch.Size]:
    """Check the arguments of a run; return its angles, the first state ``[..., 2**n]`` and the batch axes."""
    dtype = complex_dtype(dtype, weights, features, initial)
    real, size = torch.float64 if dtype == torch.complex128 else torch.float32, 2**circuit.num_qubits
    angles = {
        "weight": checked_angles("weights", weights, circuit.num_weights, real),
        "feature": checked_angles("features", features, circuit.num_features, real),
    }
    if initial is not None and (initial.ndim == 0 or initial.shape[-1] != size):
        raise ValueError(
            f"initial: expected [..., {size}] amplitudes for {circuit.num_qubits} qubits, "
            f"got shape {tuple(initial.shape)}"
        )
    given = [x for x in (*angles.values(), initial) if x is not None]
    try:
        batch = torch.broadcast_shapes(*(x.shape[:-1] for x in given)) if given else torch.Size()
    except RuntimeError:
        shapes = ", ".join(str(tuple(x.shape[:-1])) for x in given)
        raise ValueError(f"weights, features and initial: batch axes do not broadcast: {shapes}") from None
    if initial is not None:
        return angles, initial.to(dtype), batch
    ground = torch.zeros(size, dtype=dtype, device=given[0].device if given else None)
    ground[0] = 1
    return angles, ground, batch


def _steps(
    circuit: Circuit, angles: dict[str, Tensor | None], noise: NoiseModel | None, like: Tensor
) -> Iterator[tuple[Operation, Tensor, list[Tensor]]]:
    """Yield the operations, their matrices ``[..., 2**k, 2**k]`` and the Kraus operators of each channel after them."""
    known: dict[str, list[Tensor]] = {}
    for operation in circuit.operations:
        if operation.name not in known:
            channels = noise.channels_after(operation.name) if noise is not None else ()
            known[operation.name] = [torch.from_numpy(channel.kraus).to(like) for channel in channels]
        yield operation, _gate_matrix(operation, angles, like), known[operation.name]


def _gate_matrix(operation: Operation, angles: dict[str, Tensor | None], like: Tensor) -> Tensor:
    fixed = operation.fixed_matrix()
    if fixed is not None:
        return torch.from_numpy(np.ascontiguousarray(fixed)).to(like)
    angle, rotation = operation.angle, ROTATIONS[operation.name]
    assert isinstance(angle, Angle)
    values = angles[angle.source]
    assert values is not None
    diagonal = torch.from_numpy(angle.scale * rotation.diagonal).to(values)
    phases = -values[..., angle.index, None] * diagonal
    basis = torch.from_numpy(kron(*rotation.basis)).to(like)
    return (basis * torch.complex(phases.cos(), phases.sin())[..., None, :]) @ basis.mH


def _apply(state: Tensor, matrix: Tensor, axes: Sequence[int], num_axes: int) -> Tensor:
    """Apply ``matrix [..., 2**k, 2**k]`` to ``k`` of the axes of length 2 of a state ``[..., 2**num_axes]``."""
    batch = state.shape[:-1]
    front = state.reshape(*batch, *(2,) * num_axes)
    front = front.movedim([len(batch) + axis for axis in axes], [len(batch) + i for i in range(len(axes))])
    done = matrix @ front.reshape(*batch, 2 ** len(axes), -1)
    batch = done.shape[:-2]  # a batched gate brings its axes
    done = done.reshape(*batch, *(2,) * num_axes)
    done = done.movedim([len(batch) + i for i in range(len(axes))], [len(batch) + axis for axis in axes])
    return done.reshape(*batch, -1)


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


def _qubits_of_density(rho: Tensor) -> int:
    size = rho.shape[-1] if rho.ndim > 1 else 0
    if size < 2 or size & (size - 1) or rho.shape[-2] != size or not rho.dtype.is_complex:
        raise ValueError(
            f"rho: expected complex [..., 2**n, 2**n], got {rho.dtype} of shape {tuple(rho.shape)}"
        )
    return size.bit_length() - 1


def _check_probability(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be a probability in [0, 1], got {value!r}")


def _check_kraus(channel: Channel) -> None:
    if isinstance(channel, type) or not isinstance(channel, Channel):
        raise ValueError(
            f"after_gate: expected a channel such as Depolarizing(0.01), or several, got {channel!r}"
        )
    kraus = np.asarray(channel.kraus)
    if kraus.ndim != 3 or kraus.shape[1:] != (2, 2):
        raise ValueError(
            f"after_gate: expected Kraus operators [K, 2, 2] of {channel}, got shape {kraus.shape}"
        )
    error = np.abs(np.einsum("kba,kbc->ac", kraus.conj(), kraus) - np.eye(2)).max()
    if not error <= 1e-6:  # NaN included
        raise ValueError(
            f"after_gate: sum of K^dagger K of {channel} differs from the identity by {error:.2g}"
        )
