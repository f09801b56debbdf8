"""Differential privacy for the clients of a federation: clipping, noise, and a ledger of what was spent.

The unit is a client: neighbouring federations differ in one client's presence in all rounds.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from qio_envs.api import ConfigError

_ORDERS = tuple([1 + x / 10 for x in range(1, 100)] + list(range(11, 64)) + [128, 256, 512])


def clip(update: np.ndarray, norm: float) -> np.ndarray:
    """Return an update scaled down to a Euclidean norm where it is longer, float32 ``[d]``.

    Args:
        update: ``[d]``, finite.
        norm: Above 0.
    """
    length = float(np.linalg.norm(update.astype(np.float64)))
    if length <= norm:
        return update.astype(np.float32)
    scaled = (update * (norm / length)).astype(np.float32)
    while float(np.linalg.norm(scaled.astype(np.float64))) > norm:  # float32 rounds up as well as down
        scaled = scaled * np.float32(1 - 2**-23)
    return scaled


def gaussian_mean(
    total: np.ndarray, norm: float, noise_multiplier: float, expected: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the noised mean of clipped updates, float64 ``[d]`` (McMahan et al., 2018: DP-FedAvg, fixed denominator).

    Args:
        total: Sum of updates of at most ``norm`` each, ``[d]``.
        norm: The clip.
        noise_multiplier: Standard deviation of the noise in the sum over ``norm``.
        expected: Expected number of clients ``q N``; the realised number would tell who took part.
        rng: Of the noise.
    """
    return (total + noise_multiplier * norm * rng.standard_normal(total.shape)) / expected


def skellam(size: int, variance: float, rng: np.random.Generator) -> np.ndarray:
    """Return integer noise, the difference of two Poisson numbers of mean ``variance / 2``, int64 ``[d]``.

    Sums of it are of the same kind, so that clients add a share each (Agarwal, Kairouz and Liu, 2021).
    """
    return rng.poisson(variance / 2, size) - rng.poisson(variance / 2, size)


def rounded_norm(norm: float, size: int, beta: float = math.exp(-0.5)) -> float:
    """Return a norm that stochastic rounding to integers keeps with a probability of at least ``1 - beta``.

    Args:
        norm: Before rounding, in steps.
        size: Numbers ``d``.
        beta: Probability that it is exceeded; rounding is repeated then.

    Source: Kairouz, Liu and Steinke, 2021, theorem 1 (the distributed discrete Gaussian), eq. for gamma = 1.
    """
    tail = math.sqrt(2 * math.log(1 / beta)) * (norm + math.sqrt(size) / 2)
    return min(norm + math.sqrt(size), math.sqrt(norm**2 + size / 4 + tail))


def round_within(scaled: np.ndarray, norm: float, rng: np.random.Generator) -> np.ndarray:
    """Round stochastically to integers until the norm is within a bound, int64 ``[d]``.

    Args:
        scaled: Clipped update in steps, ``[d]``.
        norm: See `rounded_norm`.
        rng: Of the rounding.

    Raises:
        ConfigError: A hundred trials were too long: the update was not clipped, or the bound is too small.
    """
    below = np.floor(scaled.astype(np.float64))
    for _ in range(100):
        found = below + (rng.random(scaled.shape) < scaled - below)
        if np.linalg.norm(found) <= norm:
            return found.astype(np.int64)
    raise ConfigError(
        f"privacy: an update of norm {np.linalg.norm(scaled):.4g} does not round to one of {norm:.4g}"
    )


def skellam_rdp(alpha: float, variance: float, norm: float, norm_1: float) -> float:
    """Return the Renyi divergence of order ``alpha`` (an integer above 1) that integer noise leaves.

    Args:
        alpha: Order.
        variance: Of the noise in the sum.
        norm: Euclidean norm of one client's integers at most.
        norm_1: Sum of magnitudes of one client's integers at most.

    Source: Agarwal, Kairouz and Liu, "The Skellam mechanism for differentially private federated learning", 2021,
    theorem 3.5.
    """
    extra = ((2 * alpha - 1) * norm**2 + 6 * norm_1) / (4 * variance**2)
    return alpha * norm**2 / (2 * variance) + min(extra, 3 * norm_1 / (2 * variance))


@dataclasses.dataclass(frozen=True)
class GaussianMechanism:
    """Noise on the sum of a Poisson sample of clients.

    Attributes:
        sampling: Probability ``q`` that a client takes part in a round, in (0, 1].
        noise_multiplier: Standard deviation of the noise over the clip, above 0.

    Raises:
        ConfigError: A value outside its range.
    """

    sampling: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        _check("sampling", self.sampling, 0 < self.sampling <= 1, "a probability in (0, 1]")
        _check("noise_multiplier", self.noise_multiplier, self.noise_multiplier > 0, "a number above 0")

    def epsilon(self, rounds: int, delta: float) -> float:
        """Return epsilon after some rounds, by privacy loss distributions (dp-accounting)."""
        from dp_accounting.pld import privacy_loss_distribution

        if self.sampling < 1:
            return float(_sampled_loss(self).self_compose(rounds).get_epsilon_for_delta(delta))
        # Rounds of Gaussian noise are one of a smaller one, exactly.
        loss = privacy_loss_distribution.from_gaussian_mechanism(self.noise_multiplier / math.sqrt(rounds))
        return float(loss.get_epsilon_for_delta(delta))


@functools.lru_cache(maxsize=8)
def _sampled_loss(mechanism: GaussianMechanism) -> Any:
    """Return the privacy loss distribution of one round, which takes up to a second of computing, unlike sums of it."""
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        mechanism.noise_multiplier, sampling_prob=mechanism.sampling
    )


@dataclasses.dataclass(frozen=True)
class SkellamMechanism:
    """Integer noise that the clients of a secure sum add themselves; against the server, sampling hides nobody.

    Attributes:
        variance: Of the noise in the sum of the fewest clients that are released, without colluders' shares.
        norm: Euclidean norm of one client's integers at most.
        size: Numbers ``d``.

    Raises:
        ConfigError: A value outside its range.
    """

    variance: float
    norm: float
    size: int

    def __post_init__(self) -> None:
        _check("variance", self.variance, self.variance > 0, "a number above 0")
        _check("norm", self.norm, self.norm > 0, "a number above 0")

    def epsilon(self, rounds: int, delta: float) -> float:
        """Return epsilon after some rounds, by Renyi divergences of integer orders."""
        from dp_accounting.rdp import rdp_privacy_accountant

        norm_1 = min(self.norm**2, math.sqrt(self.size) * self.norm)  # of integers
        orders = [order for order in _ORDERS if order == int(order) and order > 1]
        spent = [rounds * skellam_rdp(order, self.variance, self.norm, norm_1) for order in orders]
        return float(rdp_privacy_accountant.compute_epsilon(orders, spent, delta)[0])


class Ledger:
    """What a run has spent of its clients' privacy.

    Args:
        mechanism: What each round does.
        delta: Probability of a failure of the guarantee, in (0, 1).
        simulated: Whether noise and sampling come from the run's seed: then nothing is protected, and it says so.

    Raises:
        ConfigError: A value outside its range.
    """

    def __init__(
        self, mechanism: GaussianMechanism | SkellamMechanism, delta: float, simulated: bool
    ) -> None:
        _check("delta", delta, 0 < delta < 1, "a probability in (0, 1)")
        self.mechanism = mechanism
        self.delta = delta
        self.simulated = simulated
        self.rounds = 0
        self._epsilon = functools.lru_cache(maxsize=2)(
            lambda rounds: mechanism.epsilon(rounds, delta) if rounds else 0.0
        )

    def charge(self) -> None:
        """Count a round that was released; one that failed costs nothing."""
        self.rounds += 1

    @property
    def epsilon(self) -> float:
        """Spent so far."""
        return self._epsilon(self.rounds)

    def rounds_within(self, epsilon: float) -> int:
        """Return how many rounds a budget allows, at most 100,000."""
        low, high = 0, 1
        while high < 100_000 and self.mechanism.epsilon(high, self.delta) <= epsilon:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (middle, high) if self.mechanism.epsilon(middle, self.delta) <= epsilon else (low, middle)
            )
        return min(low, 100_000)

    def get_state(self) -> dict[str, Any]:
        """Return the rounds that were charged."""
        return {"rounds": self.rounds}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.rounds = int(state["rounds"])


def _check(name: str, value: float, fits: bool, allowed: str) -> None:
    if not fits:
        raise ConfigError(f"privacy.{name}: expected {allowed}, got {value}")
