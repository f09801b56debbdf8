"""What is measured: Pauli strings and their sums, projectors, probabilities and samples."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.circuit import Circuit
from qio_rllib.quantum.gates import PAULIS, Array, kron

_FACTOR = re.compile(r"([IXYZ])(\d+)")


@dataclass(frozen=True)
class PauliSum:
    """A real sum of Pauli strings.

    ```python
    energy = PauliSum.of("Z0 Z1") + 0.5 * PauliSum.of("X0")
    ```

    Attributes:
        terms: (coefficient, ((qubit, letter), ...)) each, qubits in order and distinct, letters X, Y or Z; no letters
            is the identity.
    """

    terms: tuple[tuple[float, tuple[tuple[int, str], ...]], ...]

    @classmethod
    def of(cls, text: str, coefficient: float = 1.0) -> PauliSum:
        """Return one string, such as "Z0", "X0 Y2" or "I" (the identity).

        Raises:
            ValueError: The text is no Pauli string, a qubit is named twice, or the coefficient is not finite.
        """
        if not math.isfinite(coefficient):
            raise ValueError(f"observable: the coefficient of {text!r} must be finite, got {coefficient}")
        letters: dict[int, str] = {}
        for part in text.split():
            found = _FACTOR.fullmatch(part)
            if found is None and part != "I":
                raise ValueError(f"observable: expected a Pauli string such as 'X0 Z2', got {text!r}")
            if found is not None:
                qubit = int(found[2])
                if qubit in letters:
                    raise ValueError(f"observable: {text!r} names qubit {qubit} twice")
                letters[qubit] = found[1]
        if not text.split():
            raise ValueError("observable: expected a Pauli string such as 'X0 Z2', got an empty text")
        kept = tuple(sorted((qubit, letter) for qubit, letter in letters.items() if letter != "I"))
        return cls(((float(coefficient), kept),))

    def __add__(self, other: PauliSum) -> PauliSum:
        return PauliSum(self.terms + other.terms)

    def __radd__(self, other: Any) -> PauliSum:
        if other != 0:  # which `sum` begins with
            return NotImplemented
        return self

    def __sub__(self, other: PauliSum) -> PauliSum:
        return self + (-1.0) * other

    def __mul__(self, factor: float) -> PauliSum:
        return PauliSum(tuple((float(factor) * c, letters) for c, letters in self.terms))

    __rmul__ = __mul__

    @property
    def num_qubits(self) -> int:
        """Number of qubits it needs at least."""
        return max((qubit + 1 for _, letters in self.terms for qubit, _ in letters), default=1)

    @property
    def is_diagonal(self) -> bool:
        """Whether there are only Z's in it."""
        return all(letter == "Z" for _, letters in self.terms for _, letter in letters)

    def diagonal(self, num_qubits: int) -> Array:
        """Return the eigenvalue of each basis state, float64 ``[2**n]``.

        Raises:
            ValueError: There are X's or Y's, or qubits beyond ``n``.
        """
        if not self.is_diagonal:
            raise ValueError("observable: not diagonal in the computational basis")
        return self.shifts(num_qubits).get(0, np.zeros(2**num_qubits)).real.astype(np.float64)

    def matrix(self, num_qubits: int) -> Array:
        """Return the matrix, complex128 ``[2**n, 2**n]``."""
        _check_fits(self, num_qubits)
        total = np.zeros((2**num_qubits,) * 2, np.complex128)
        for coefficient, letters in self.terms:
            of = dict(letters)
            total += coefficient * kron(*(PAULIS[of.get(qubit, "I")] for qubit in range(num_qubits)))
        return total

    def shifts(self, num_qubits: int) -> dict[int, Array]:
        """Return the sum as ``{mask: vector}``: ``(O s)[i] = sum over masks of vector[i] s[i ^ mask]``.

        Raises:
            ValueError: There are qubits beyond ``n``.
        """
        _check_fits(self, num_qubits)
        index = np.arange(2**num_qubits)
        found: dict[int, Array] = {}
        for coefficient, letters in self.terms:
            mask, vector = 0, np.full(len(index), coefficient, np.complex128)
            for qubit, letter in letters:
                place = num_qubits - 1 - qubit
                bit = (index >> place) & 1
                if letter != "Z":
                    mask |= 1 << place
                if letter == "Z":
                    vector *= 1 - 2 * bit
                elif letter == "Y":
                    vector *= np.where(bit == 1, 1j, -1j)
            found[mask] = found.get(mask, 0) + vector
        return found


@dataclass(frozen=True)
class Projector:
    """The projector onto basis states in which some qubits read given bits; its expectation is their probability.

    Attributes:
        bits: Of 0 and 1, such as "01".
        qubits: As many qubits; by default the first ones.

    Raises:
        ValueError: Other letters, or not as many distinct qubits.
    """

    bits: str
    qubits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.bits or set(self.bits) - {"0", "1"}:
            raise ValueError(f"projector: bits must be a text of 0 and 1, got {self.bits!r}")
        if not self.qubits:
            object.__setattr__(self, "qubits", tuple(range(len(self.bits))))
        distinct = len(set(self.qubits)) == len(self.qubits) == len(self.bits)
        if not distinct or min(self.qubits) < 0:
            raise ValueError(
                f"projector: {len(self.bits)} bits need as many distinct qubits, got {self.qubits}"
            )

    @property
    def num_qubits(self) -> int:
        """Number of qubits it needs at least."""
        return max(self.qubits) + 1

    def shifts(self, num_qubits: int) -> dict[int, Array]:
        """Return it as `PauliSum.shifts` does: mask 0 only.

        Raises:
            ValueError: There are qubits beyond ``n``.
        """
        _check_fits(self, num_qubits)
        index = np.arange(2**num_qubits)
        match = np.ones(len(index), bool)
        for qubit, bit in zip(self.qubits, self.bits, strict=True):
            match &= ((index >> (num_qubits - 1 - qubit)) & 1) == int(bit)
        return {0: match.astype(np.complex128)}

    def matrix(self, num_qubits: int) -> Array:
        """Return the matrix, complex128 ``[2**n, 2**n]``."""
        return np.diag(self.shifts(num_qubits)[0])


Observable = PauliSum | Projector
"""What `expectation` takes, besides texts."""


def observable(given: str | Observable) -> Observable:
    """Return a Pauli string's `PauliSum`; other observables as they are."""
    return PauliSum.of(given) if isinstance(given, str) else given


class Measurement:
    """Expectations of several observables in one pass.

    Args:
        num_qubits: ``n``.
        observables: ``K`` of them; texts are Pauli strings.

    Raises:
        ValueError: There are none, a text is no Pauli string, or an observable needs more qubits.
    """

    def __init__(self, num_qubits: int, observables: Sequence[str | Observable]) -> None:
        if isinstance(observables, str) or not observables:
            raise ValueError(f"observables: expected at least one in a list, got {observables!r}")
        self.num_qubits = num_qubits
        self.observables = tuple(observable(given) for given in observables)
        columns = [given.shifts(num_qubits) for given in self.observables]
        zero = np.zeros(2**num_qubits, np.complex128)
        self._masks = {
            mask: np.stack([column.get(mask, zero) for column in columns], axis=-1)
            for mask in sorted({mask for column in columns for mask in column})
        }
        self._constants: dict[Any, list[tuple[Tensor | None, Tensor, Tensor | None]]] = {}

    def expectation(self, state: Tensor) -> Tensor:
        """Return ``<state| O_k |state>``, float ``[..., K]``, for amplitudes ``[..., 2**n]``; differentiable.

        Raises:
            ValueError: The last axis is not of ``2**n`` amplitudes.
        """
        _check_state(state, self.num_qubits)
        total: Any = 0.0
        for index, real, imaginary in self._on(state.dtype, state.device):
            if index is None:
                total = total + (state.real.square() + state.imag.square()) @ real
                continue
            overlap = state.conj() * state.index_select(-1, index)
            total = total + overlap.real @ real
            if imaginary is not None:
                total = total - overlap.imag @ imaginary
        return total

    def _on(self, dtype: torch.dtype, device: torch.device) -> Any:
        key = (dtype, device)
        if key not in self._constants:
            with torch.inference_mode(
                False
            ):  # what is made in inference mode could not be learned through later
                self._constants[key] = self._made(dtype, device)
        return self._constants[key]

    def _made(
        self, dtype: torch.dtype, device: torch.device
    ) -> list[tuple[Tensor | None, Tensor, Tensor | None]]:
        kind = torch.float64 if dtype == torch.complex128 else torch.float32
        held = []
        for mask, vectors in self._masks.items():
            index = torch.from_numpy(np.arange(2**self.num_qubits) ^ mask).to(device) if mask else None
            real = torch.from_numpy(vectors.real.copy()).to(device, kind)
            imaginary = None
            if mask and vectors.imag.any():
                imaginary = torch.from_numpy(vectors.imag.copy()).to(device, kind)
            held.append((index, real, imaginary))
        return held

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_constants": {}}


def expectation(state: Tensor, observables: Sequence[str | Observable]) -> Tensor:
    """Return expectation values in pure states.

    Args:
        state: complex ``[..., 2**n]``, normalised.
        observables: ``K`` of them: texts such as "Z0 Z1", `PauliSum` or `Projector`.

    Returns:
        float ``[..., K]``; differentiable.

    Raises:
        ValueError: The state's length is no power of two, or an observable does not fit it.
    """
    return Measurement(qubits_of(state), observables).expectation(state)


def probabilities(state: Tensor, qubits: Sequence[int] | None = None) -> Tensor:
    """Return the Born probabilities of what qubits read.

    Args:
        state: complex ``[..., 2**n]``.
        qubits: ``k`` distinct ones, the most significant first; all by default.

    Returns:
        float ``[..., 2**k]``; differentiable.

    Raises:
        ValueError: Qubits out of range or repeated.
    """
    n = qubits_of(state)
    probs = state.real.square() + state.imag.square()
    if qubits is None or list(qubits) == list(range(n)):
        return probs
    check_qubits(qubits, n)
    batch = probs.shape[:-1]
    axes = [len(batch) + qubit for qubit in qubits]
    rest = [axis for axis in range(len(batch), len(batch) + n) if axis not in axes]
    cube = probs.reshape(*batch, *(2,) * n).permute(*range(len(batch)), *axes, *rest)
    return cube.reshape(*batch, 2 ** len(axes), -1).sum(-1)


def sample(state: Tensor, shots: int, generator: torch.Generator | None = None) -> Tensor:
    """Measure all qubits in the computational basis.

    Args:
        state: complex ``[..., 2**n]``, normalised.
        shots: Measurements of each state, at least 1.
        generator: Source of the draws; torch's own by default.

    Returns:
        Indices of basis states, int64 ``[..., shots]``.

    Raises:
        ValueError: ``shots`` is below 1.
    """
    check_shots(shots)
    probs = probabilities(state.detach()).double()
    flat = probs.reshape(-1, probs.shape[-1])
    draws = torch.multinomial(flat, shots, replacement=True, generator=generator)
    return draws.reshape(*probs.shape[:-1], shots)


def estimate(
    state: Tensor,
    observables: Sequence[str | Observable],
    shots: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Estimate expectation values from samples, as a device would.

    Each Pauli string is measured in its own product basis with ``shots`` samples, except that the strings of Z's (and
    projectors) share theirs.

    Args:
        state: complex ``[..., 2**n]``, normalised.
        observables: As in `expectation`.
        shots: Measurements of each state and basis, at least 1.
        generator: Source of the draws; torch's own by default.

    Returns:
        float ``[..., K]`` without gradient.

    Raises:
        ValueError: As in `expectation`, or ``shots`` is below 1.
    """
    check_shots(shots)
    n, state = qubits_of(state), state.detach()
    draws: dict[tuple[str, ...], Tensor] = {}

    def measured(basis: tuple[str, ...]) -> Tensor:
        if basis not in draws:
            draws[basis] = sample(_in_basis(state, basis), shots, generator)
        return draws[basis]

    results = []
    for given in (observable(each) for each in observables):
        if isinstance(given, Projector):
            values = torch.from_numpy(given.shifts(n)[0].real.copy())
            results.append(values.to(state.device)[measured(("Z",) * n)].mean(-1))
            continue
        total = torch.zeros(state.shape[:-1], dtype=torch.float64, device=state.device)
        for coefficient, letters in given.terms:
            if not letters:
                total = total + coefficient
                continue
            of = dict(letters)
            basis = tuple(of.get(qubit, "Z") for qubit in range(n))
            signs = PauliSum(((coefficient, tuple((qubit, "Z") for qubit in of)),)).diagonal(n)
            total = total + torch.from_numpy(signs).to(state.device)[measured(basis)].mean(-1)
        results.append(total)
    return torch.stack(results, dim=-1).to(state.real.dtype)


def fidelity(state: Tensor, other: Tensor) -> Tensor:
    """Return ``|<state|other>|^2`` of pure states ``[..., 2**n]``, float ``[...]``; differentiable."""
    overlap = (state.conj() * other).sum(-1)
    return overlap.real.square() + overlap.imag.square()


def qubits_of(state: Tensor) -> int:
    """Return the number of qubits of amplitudes ``[..., 2**n]``.

    Raises:
        ValueError: Not complex, or the length of the last axis is no power of two above 1.
    """
    size = int(state.shape[-1]) if state.ndim else 0  # a tensor while torch.jit traces
    if size < 2 or size & (size - 1) or not state.dtype.is_complex:
        raise ValueError(
            f"state: expected complex amplitudes [..., 2**n], got {state.dtype} of shape {tuple(state.shape)}"
        )
    return size.bit_length() - 1


def check_qubits(qubits: Sequence[int], num_qubits: int) -> None:
    """Refuse qubits that are repeated or out of range.

    Raises:
        ValueError: The message says which, and what is allowed.
    """
    for qubit in qubits:
        if not 0 <= qubit < num_qubits:
            raise ValueError(f"qubits: {qubit} is out of range; allowed: 0 to {num_qubits - 1}")
    if len(set(qubits)) != len(qubits):
        raise ValueError(f"qubits: {list(qubits)} names one twice")


def check_shots(shots: int) -> None:
    """Refuse numbers of measurements below 1.

    Raises:
        ValueError: The message says what was given.
    """
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise ValueError(f"shots: expected an integer of at least 1, got {shots!r}")


def _in_basis(state: Tensor, basis: Sequence[str]) -> Tensor:
    """Return a state in the basis in which the given Paulis are diagonal."""
    turn = Circuit(len(basis))
    for qubit, letter in enumerate(basis):
        if letter == "Y":
            turn.add("SDG", qubit)
        if letter in "XY":
            turn.add("H", qubit)
    return turn.state(initial=state) if len(turn) else state


def _check_fits(given: Any, num_qubits: int) -> None:
    if given.num_qubits > num_qubits:
        raise ValueError(
            f"observable: {given} needs {given.num_qubits} qubits, there are {num_qubits}; "
            f"allowed: 0 to {num_qubits - 1}"
        )


def _check_state(state: Tensor, num_qubits: int) -> None:
    if qubits_of(state) != num_qubits:
        raise ValueError(
            f"state: expected [..., {2**num_qubits}] amplitudes for {num_qubits} qubits, "
            f"got shape {tuple(state.shape)}"
        )
