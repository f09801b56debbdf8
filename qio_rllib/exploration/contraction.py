"""Measurement of the Q operator's expected Lipschitz factor on the simplex.

An update of the policy is a random operator, and iterates of random operators that contract on average
converge almost surely (P. Diaconis and D. Freedman, "Iterated random functions", SIAM Review 41, 1999): the
condition is a negative expectation of the log of the Lipschitz factor. Here that factor is measured.

What is random here is the policy ``p``, uniform on the simplex (Dirichlet(1)): for fixed parameters the
operator itself is deterministic. The mean over ``p`` of ``d(Qp, Qq) / d(p, q)`` is a lower estimate of the
Lipschitz constant, which is the supremum over ``p`` and ``q``: a mean factor of 1 or more refutes
contraction, one below 1 supports it for typical policies and does not prove it for all. The largest factor
measured is therefore reported next to the means. For ``eta > 0`` it cannot be below 1 at ``tau = 1``: the uniform
policy is a fixed point where the floor is idle for any ``h_min < 1``, and the operator stretches its
surroundings by ``1 + eta`` in every metric. What can hold is contraction on average.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from qio_rllib.exploration.amplification import LOG_FLOOR, amplify

METRICS: tuple[str, ...] = ("hellinger", "total_variation", "hilbert")
"""Metrics on the simplex in which the factor is measured."""

MODES: tuple[str, ...] = ("pairs", "local")

# Size of the logit perturbation of a close neighbour: a bias of this order, and rounding of 1e-16 over it.
_NEIGHBOUR = 1e-5


@dataclass(frozen=True)
class ContractionEstimate:
    """Sample statistics of the factor ``d(Qp, Qq) / d(p, q)`` in one metric.

    Means are taken over the samples where they are defined, those with a finite factor and, for the log,
    with one above 0; the shares say how many samples that leaves out. Intervals are normal approximations,
    ``mean +- 1.96 s / sqrt(n)``; NaN where there are fewer than two samples to average.

    Attributes:
        metric: one of `METRICS`.
        mode: "pairs" for independent policies, "local" for a policy and a close neighbour.
        factor: mean factor, >= 0; below 1 where the operator brings policies together.
        factor_low: lower end of its 95% confidence interval.
        factor_high: upper end of its 95% confidence interval.
        log_factor: mean natural log of the factor; negative for contraction on average. -inf if every
            sample collapses.
        log_factor_low: lower end of its 95% confidence interval.
        log_factor_high: upper end of its 95% confidence interval.
        max_factor: largest measured factor, +inf if a sample is infinite.
        infinite_share: share of samples with an infinite factor, in [0, 1]. In the Hilbert metric two
            policies are infinitely far apart if the operator zeroes an action in only one of them.
        zero_share: share of samples in which the operator maps both policies to the same one, in [0, 1].
        samples: number of samples.
    """

    metric: str
    mode: str
    factor: float
    factor_low: float
    factor_high: float
    log_factor: float
    log_factor_low: float
    log_factor_high: float
    max_factor: float
    infinite_share: float
    zero_share: float
    samples: int

    @property
    def contracts_on_average(self) -> bool:
        """Whether the mean log factor is below 0 with 95% confidence and no sample was infinite."""
        return self.infinite_share == 0.0 and (self.log_factor_high < 0.0 or self.log_factor == -math.inf)


def distance(metric: str, log_p: Tensor, log_q: Tensor) -> Tensor:
    """Distance between two policies.

    ``hellinger`` is ``sqrt(sum_i (sqrt p_i - sqrt q_i)^2 / 2)`` in [0, 1], ``total_variation`` is
    ``sum_i |p_i - q_i| / 2`` in [0, 1], and ``hilbert`` is Hilbert's projective metric
    ``max_i log(p_i / q_i) - min_i log(p_i / q_i)`` in [0, inf], over the common support and infinite if the
    supports differ.

    Args:
        metric: one of `METRICS`.
        log_p: normalised log-probabilities, float, shape ``[..., A]``. Values down at `LOG_FLOOR` (1e-38),
            where `amplify` holds the actions that it clips, are taken for the zeros that they stand for.
        log_q: likewise.

    Returns:
        Distances, shape ``[...]``.

    Raises:
        ValueError: if the metric is unknown.
    """
    support_p, support_q = log_p > LOG_FLOOR, log_q > LOG_FLOOR
    if metric == "hilbert":
        common = support_p & support_q
        ratio = torch.where(common, log_p - log_q, 0.0)
        highest = ratio.masked_fill(~common, -math.inf).amax(-1)
        lowest = ratio.masked_fill(~common, math.inf).amin(-1)
        return torch.where((support_p == support_q).all(-1), highest - lowest, math.inf)
    p = torch.where(support_p, log_p, -math.inf)
    q = torch.where(support_q, log_q, -math.inf)
    if metric == "hellinger":
        return ((0.5 * p).exp() - (0.5 * q).exp()).square().sum(-1).mul(0.5).sqrt()
    if metric == "total_variation":
        return 0.5 * (p.exp() - q.exp()).abs().sum(-1)
    raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")


def estimate_contraction(
    eta: float = 0.1,
    h_min: float = 0.05,
    tau: float = 1.0,
    *,
    num_actions: int = 5,
    samples: int = 20_000,
    seed: int = 0,
    mode: str = "pairs",
) -> dict[str, ContractionEstimate]:
    """Measure the factor ``d(Qp, Qq) / d(p, q)`` of `amplify` in the three metrics.

    Args:
        eta: amplification, finite and >= 0.
        h_min: entropy floor, in [0, 1).
        tau: temperature, finite and > 0.
        num_actions: number of actions, >= 2.
        samples: number of pairs of policies, >= 2.
        seed: of the sampler, >= 0. Equal seeds give equal policies whatever the parameters, so estimates
            for several parameters can be compared sample by sample.
        mode: "pairs" draws ``p`` and ``q`` independently and uniformly on the simplex (Dirichlet(1));
            "local" draws ``p`` so and puts ``q`` right beside it, its logits moved by 1e-5 in a direction
            uniform on the sphere, which estimates the mean directional derivative of the operator.

    Returns:
        An estimate per metric, keyed by `METRICS`.

    Raises:
        ValueError: if an argument is outside its range.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    for name, value, least in (("num_actions", num_actions, 2), ("samples", samples, 2), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be >= {least}, got {value}")
    with torch.no_grad():
        log_p, log_q = _draw(num_actions, samples, seed, mode)
        image_p, image_q = (amplify(x, eta, h_min, tau) for x in (log_p, log_q))
        return {
            metric: _summarise(
                metric, mode, distance(metric, image_p, image_q) / distance(metric, log_p, log_q)
            )
            for metric in METRICS
        }


def sweep(
    etas: Iterable[float],
    h_mins: Iterable[float],
    *,
    tau: float = 1.0,
    num_actions: int = 5,
    samples: int = 20_000,
    seed: int = 0,
    modes: Sequence[str] = MODES,
) -> list[dict[str, Any]]:
    """Measure the factor over a grid of (eta, h_min).

    Args:
        etas: amplifications.
        h_mins: entropy floors.
        tau: temperature.
        num_actions: number of actions.
        samples: pairs of policies per cell.
        seed: of the sampler, the same in every cell.
        modes: "pairs", "local" or both.

    Returns:
        One row per mode, eta, h_min and metric: the parameters, the fields of `ContractionEstimate`, and
        ``contracts_on_average``.

    Raises:
        ValueError: as `estimate_contraction`.
    """
    return [
        {"eta": eta, "h_min": h_min, "tau": tau, "num_actions": num_actions, "seed": seed}
        | asdict(estimate)
        | {"contracts_on_average": estimate.contracts_on_average}
        for mode, eta, h_min in product(modes, etas, h_mins)
        for estimate in estimate_contraction(
            eta, h_min, tau, num_actions=num_actions, samples=samples, seed=seed, mode=mode
        ).values()
    ]


def _draw(num_actions: int, samples: int, seed: int, mode: str) -> tuple[Tensor, Tensor]:
    """Log-probabilities [S, A] of the sampled pairs."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, samples, num_actions)
    # Exponential variables divided by their sum are uniform on the simplex.
    raw = torch.empty(shape, dtype=torch.float64).exponential_(generator=generator).log()
    log_p, log_q = torch.log_softmax(raw, -1)
    if mode == "local":
        direction = torch.randn(samples, num_actions, dtype=torch.float64, generator=generator)
        direction -= direction.mean(-1, keepdim=True)
        direction *= _NEIGHBOUR / direction.norm(dim=-1, keepdim=True)
        log_q = torch.log_softmax(log_p + direction, -1)
    return log_p, log_q


def _summarise(metric: str, mode: str, factors: Tensor) -> ContractionEstimate:
    finite = factors[factors.isfinite()]
    positive = finite[finite > 0.0]
    factor, factor_low, factor_high = _mean_and_interval(finite)
    log_factor, log_low, log_high = _mean_and_interval(positive.log())
    samples, collapsed = factors.numel(), finite.numel() - positive.numel()
    return ContractionEstimate(
        metric=metric,
        mode=mode,
        factor=factor,
        factor_low=factor_low,
        factor_high=factor_high,
        log_factor=-math.inf if collapsed == samples else log_factor,
        log_factor_low=log_low,
        log_factor_high=log_high,
        max_factor=float(factors.max()),
        infinite_share=1.0 - finite.numel() / samples,
        zero_share=collapsed / samples,
        samples=samples,
    )


def _mean_and_interval(values: Tensor) -> tuple[float, float, float]:
    if values.numel() < 2:
        return (float(values.mean()) if values.numel() else math.nan), math.nan, math.nan
    mean = float(values.mean())
    half = 1.96 * float(values.std()) / math.sqrt(values.numel())
    return mean, mean - half, mean + half
