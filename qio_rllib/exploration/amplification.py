"""The Q operator: amplitude amplification of a discrete policy, with an exact entropy floor.

For the ``n`` legal actions of a row, with probabilities ``p = softmax(logits / tau)``::

    a_i  = sqrt(p_i)                             amplitudes
    a'_i = max(a_i + eta (a_i - mean(a)), 0)     amplification about the mean
    p'_i = a'_i^2 / sum_j a'_j^2                 Born rule
    p''  = (1 - w) p' + w u                      u uniform over the legal actions

with ``w`` the smallest weight in [0, 1] for which the normalised entropy of ``p''`` reaches ``h_min``.

The first three lines do not change when all amplitudes of a row are scaled together. Amplitudes that sum to
one, ``a = softmax(logits / (2 tau))``, have the mean ``1/n``, so that with ``k = eta / (1 + eta)``::

    p'_i  is proportional to  max(a_i - k / n, 0)^2

which is what is computed here. Inversion about the mean is the diffusion step of Grover's search
(L. K. Grover, "A fast quantum mechanical algorithm for database search", STOC 1996).
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Amplitudes that the operator clips are held here, and the log-probability of a clipped action at LOG_FLOOR.
# Finite, so that a KL divergence between two amplified policies is finite; and no lower than float32 can
# follow, so that the ratio of any two amplified probabilities (PPO) is a finite float32 as well.
_CLIPPED_AMPLITUDE = 1e-19
LOG_FLOOR: float = 2.0 * math.log(_CLIPPED_AMPLITUDE)
"""Log-probability of a legal action that the amplification has clipped (probability 1e-38)."""

OPERATORS: tuple[str, ...] = ("amplify", "temperature", "random")
"""What may stand behind a policy's head: the Q operator or one of its controls."""

_MAX_ITERATIONS = 20
_SMALLEST_WEIGHT = 1e-38
_LEAST = torch.tensor(1e-60, dtype=torch.float64)  # a tensor: exporters make numbers float32, where this is 0


@dataclass(frozen=True)
class Amplification:
    """Parameters of the Q operator.

    Attributes:
        eta: amplification about the mean, finite and >= 0; 0 leaves the amplitudes alone.
        h_min: floor of the normalised entropy, in [0, 1); 0 switches the floor off.
        tau: softmax temperature, finite and > 0.
        operator: "amplify", or for fair comparisons one of its controls (`qio_rllib.exploration.controls`):
            "temperature", of equal entropy, or "random", of equal strength.
        operator_seed: of the random control's matrix, >= 0.

    Raises:
        ValueError: if a parameter is outside its range.
    """

    eta: float = 0.1
    h_min: float = 0.05
    tau: float = 1.0
    operator: str = "amplify"
    operator_seed: int = 0

    def __post_init__(self) -> None:
        validate_parameters(self.eta, self.h_min, self.tau)
        if self.operator not in OPERATORS:
            near = difflib.get_close_matches(str(self.operator), OPERATORS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"operator must be one of {', '.join(OPERATORS)}, got {self.operator!r}{hint}")
        if (
            isinstance(self.operator_seed, bool)
            or not isinstance(self.operator_seed, int)
            or self.operator_seed < 0
        ):
            raise ValueError(f"operator_seed must be an integer >= 0, got {self.operator_seed!r}")


def validate_parameters(
    eta: float | Tensor, h_min: float | Tensor, tau: float | Tensor
) -> tuple[float, float, float]:
    """Check the parameters of the Q operator.

    Args:
        eta: amplification, a number or 0-d tensor, finite and >= 0.
        h_min: floor of the normalised entropy, a number or 0-d tensor, in [0, 1).
        tau: temperature, a number or 0-d tensor, finite and > 0.

    Returns:
        The three parameters as Python floats, in the order of the arguments.

    Raises:
        ValueError: if a parameter is not a single number or is outside its range.
    """
    eta, h_min, tau = _number("eta", eta), _number("h_min", h_min), _number("tau", tau)
    if not 0.0 <= eta < math.inf:
        raise ValueError(f"eta must be finite and >= 0, got {eta}")
    if not 0.0 <= h_min < 1.0:
        raise ValueError(f"h_min must be in [0, 1), got {h_min}")
    if not 0.0 < tau < math.inf:
        raise ValueError(f"tau must be finite and > 0, got {tau}")
    return eta, h_min, tau


def normalized_entropy(log_probs: Tensor, mask: Tensor | None = None) -> Tensor:
    """Shannon entropy divided by the log of the number of legal actions.

    ``H = -sum_i p_i log p_i / log n``; 0 where only one action is legal (there is nothing to choose).

    Args:
        log_probs: normalised log-probabilities, float, shape ``[..., A]``. Entries of -inf count as
            probability 0, entries of illegal actions are ignored whatever they hold.
        mask: True where an action is legal, bool, shape ``[..., A]``; None for all legal.

    Returns:
        Entropy in [0, 1] up to rounding, shape ``[...]``, dtype of ``log_probs``; differentiable.

    Raises:
        ValueError: if the shape or dtype of ``log_probs`` or ``mask`` is wrong.
    """
    _check_shapes("log_probs", log_probs, mask)
    log_probs = log_probs.clamp_min(torch.finfo(log_probs.dtype).min)
    if mask is None:
        return (log_probs.exp() * log_probs).sum(-1) / -math.log(max(log_probs.shape[-1], 2))
    log_probs = log_probs.masked_fill(~mask, torch.finfo(log_probs.dtype).min)
    # With one legal action the sum is already 0: any divisor will do, 2 actions avoid log(1).
    log_n = mask.sum(-1).clamp_min(2).to(log_probs.dtype).log()
    return -(log_probs.exp() * log_probs).sum(-1) / log_n


def amplify(
    logits: Tensor,
    eta: float | Tensor = 0.1,
    h_min: float | Tensor = 0.05,
    tau: float | Tensor = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Apply the Q operator to a batch of policies (equations at the head of this module).

    The result keeps the order of the probabilities, does not depend on a shift of the logits, commutes with
    permutations of the actions, and is ``log_softmax(logits)`` for ``eta = 0, h_min = 0, tau = 1``.
    Its entropy is at least ``h_min`` to 1e-9 in float64 and 1e-5 in float32. Gradients are finite
    everywhere and exact to first order (that of ``w`` by the implicit function theorem), not beyond.

    Args:
        logits: float32 or float64, shape ``[..., A]`` with ``A >= 1``. Those of legal actions may be finite
            or -inf (probability 0), with at least one finite in each row; those of illegal actions may be
            anything, NaN included.
        eta: amplification, finite and >= 0. Like ``h_min`` and ``tau`` a number or a 0-d tensor, and a
            constant: no gradient flows to it. Tensors are read back, so keep them on the CPU.
        h_min: floor of the normalised entropy, in [0, 1); void in rows with a single legal action.
        tau: temperature, finite and > 0.
        mask: True where an action is legal, bool, shape of ``logits``; None for all legal.

    Returns:
        Normalised log-probabilities, shape and dtype of ``logits``, all finite. Illegal actions hold the
        least finite number of the dtype, so their probability is exactly 0. Legal actions that the
        amplification clips hold ``LOG_FLOOR`` (1e-38), with zero gradient, unless the entropy floor lifts
        them. At ``eta = 0`` nothing is clipped; a legal -inf then becomes the dtype's least finite number.

    Raises:
        ValueError: if a parameter is outside its range, if the shape or dtype of ``logits`` or ``mask`` is
            wrong, if a row has no legal action, or if a legal logit is NaN or +inf.
    """
    eta, h_min, tau = validate_parameters(eta, h_min, tau)
    _check_shapes("logits", logits, mask)
    if logits.numel() == 0:
        return logits
    lowest = torch.finfo(logits.dtype).min
    illegal = None if mask is None else ~mask
    scaled = logits if illegal is None else logits.masked_fill(illegal, -math.inf)

    if eta == 0.0:
        log_probs = torch.log_softmax(scaled if tau == 1.0 else scaled / tau, -1).clamp_min(lowest)
    else:
        log_probs = _amplify_amplitudes(torch.softmax(scaled / (2.0 * tau), -1), eta, mask)

    # One number read back from the device per call tells whether a row is broken (a bad logit or no legal
    # action leaves NaN, which sum and min carry) and whether a row is below the entropy floor.
    below = None
    with torch.no_grad():
        if h_min == 0.0:
            margin = log_probs.sum().item()
        else:
            rows = log_probs.detach()
            excess = h_min * _log_num_legal(rows, mask) + (rows.exp() * rows).sum(-1)
            margin = -excess.max().item()
            if margin < 0.0:
                below = (excess.reshape(-1) > 0.0).nonzero().squeeze(-1)
    if math.isnan(margin):
        raise ValueError(_what_is_wrong(logits, mask))

    if below is not None:
        flat = log_probs.reshape(-1, log_probs.shape[-1])
        legal = None if mask is None else mask.reshape(flat.shape).index_select(0, below)
        lifted = _lift_entropy(flat.index_select(0, below), h_min, legal)
        log_probs = flat.index_copy(0, below, lifted).reshape(log_probs.shape)
    return log_probs if illegal is None else log_probs.masked_fill(illegal, lowest)


def amplify_traceable(
    logits: Tensor, eta: float, h_min: float, tau: float, mask: Tensor | None = None
) -> Tensor:
    """Apply the Q operator without decisions that depend on values, for exporters of graphs.

    All rows go through all iterations of the entropy floor, so that it is slower than `amplify`; bad logits are not
    found out, and there are no gradients to speak of. Arguments and result are else those of `amplify`, with numbers as
    parameters.
    """
    lowest = torch.finfo(logits.dtype).min
    scaled = logits if mask is None else logits.masked_fill(~mask, -math.inf)
    if eta == 0.0:
        log_probs = torch.log_softmax(scaled / tau, -1).clamp_min(lowest)
    else:
        log_probs = _amplify_amplitudes(torch.softmax(scaled / (2.0 * tau), -1), eta, mask)
    if h_min > 0.0 and logits.shape[-1] > 1:
        log_n = _log_num_legal(log_probs, mask)
        below = h_min * log_n + (log_probs.exp() * log_probs).sum(-1) > 0.0
        if mask is not None:
            below &= mask.sum(-1) > 1  # a runtime's log_softmax of one action may be a little above 0
        lifted = _lift_entropy(log_probs, h_min, mask, until_done=False)
        log_probs = torch.where(below.unsqueeze(-1), lifted, log_probs)
    return log_probs if mask is None else log_probs.masked_fill(~mask, lowest)


def _amplify_amplitudes(amplitudes: Tensor, eta: float, mask: Tensor | None) -> Tensor:
    """Log of the Born probabilities of amplitudes [..., A] that sum to one; illegal ones hold LOG_FLOOR."""
    kept = eta / (1.0 + eta)
    mean: float | Tensor
    if mask is None:
        mean = kept / amplitudes.shape[-1]
    else:
        mean = kept / mask.sum(-1, keepdim=True).to(amplitudes.dtype)
    # A clamp before the log, so that the derivative of a clipped action is a finite number times zero.
    raised = (amplitudes - mean).clamp_min(_CLIPPED_AMPLITUDE)
    if eta > 1e3:
        # The largest amplitude exceeds k/n by at least 1/(n (1 + eta)), which rounding can swallow.
        largest = amplitudes >= amplitudes.amax(-1, keepdim=True)
        raised = torch.where(largest, raised.clamp_min(1e-15), raised)
    log_probs = torch.log_softmax(2.0 * raised.log(), -1)
    return log_probs.masked_fill(raised <= _CLIPPED_AMPLITUDE, LOG_FLOOR)


def _lift_entropy(log_probs: Tensor, h_min: float, mask: Tensor | None, until_done: bool = True) -> Tensor:
    """Mix rows [R, A] of entropy below ``h_min`` with the uniform law until they reach it."""
    # float64 throughout: w can be as small as h_min / log(1 / h_min), and there are few such rows.
    wide = log_probs.double()
    uniform: float | Tensor
    if mask is None:
        uniform = 1.0 / wide.shape[-1]
    else:
        uniform = mask / mask.sum(-1, keepdim=True).double()
        wide = wide.masked_fill(~mask, -math.inf)
    target = h_min * _log_num_legal(wide, mask)
    probs = torch.softmax(wide, -1)
    rest = uniform - probs
    with torch.no_grad():
        weight = _solve_weight(probs.detach(), rest.detach(), h_min, target, until_done)
    # One Newton step that is differentiated: dw = -(dH/dp dp) / (dH/dw), the implicit function theorem.
    gap, slope = _gap_and_slope(probs, rest, weight, target)
    weight = (weight - gap / slope.detach()).clamp(_SMALLEST_WEIGHT, 1.0).unsqueeze(-1)
    return _safe_log((1.0 - weight) * probs + weight * uniform).to(log_probs.dtype)


def _solve_weight(
    probs: Tensor, rest: Tensor, h_min: float, target: float | Tensor, until_done: bool
) -> Tensor:
    """The root [R] in w of H(probs + w rest) = h_min, for rows with H(probs) < h_min, by Newton's iteration.

    It needs no safeguard. H is concave and increasing on [0, 1] with H(1) = 1, so a step from the left of the
    root stays left of it and goes up. A tangent at ``w`` meets ``w = 0`` at the height ``H(p) + KL(p, q_w)`` /
    log n, and as KL is convex in its second argument, that is at most ``H(p) + w (1 - H(p))``. Up to the
    chord's root ``c = (h_min - H(p)) / (1 - H(p))`` this is at most ``h_min``, so a step from anywhere in
    [0, c] stays in it. The start, below c, is exact where 1 - H is quadratic in 1 - w (near the uniform law).
    """
    gap, _ = _gap_and_slope(probs, rest, torch.zeros_like(probs[..., 0]), target)
    # gap = (H - h_min) log n and target = h_min log n; their ratio is free of log n.
    ratio = (1.0 - h_min) / (1.0 - h_min - gap * (h_min / target))
    weight = 1.0 - ratio.sqrt()
    for _ in range(_MAX_ITERATIONS):
        weight = weight.clamp(_SMALLEST_WEIGHT, 1.0)
        gap, slope = _gap_and_slope(probs, rest, weight, target)
        # Quadratic convergence: a step this small leaves an error below that of float64 after itself.
        done = until_done and (gap.abs() <= 1e-8 * weight * slope + 1e-15).all()
        weight = weight - gap / slope
        if done:
            break
    return weight


def _gap_and_slope(
    probs: Tensor, rest: Tensor, weight: Tensor, target: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Entropy [R] in nats of ``probs + weight rest`` less the target, and its derivative in the weight."""
    mixed = torch.addcmul(probs, weight.unsqueeze(-1), rest)
    surprise = -_safe_log(mixed)
    return (mixed * surprise).sum(-1) - target, (rest * surprise).sum(-1)


def _safe_log(probs: Tensor) -> Tensor:
    """Log that is finite, with zero gradient, at the probability 0 of illegal actions."""
    return probs.clamp_min(_LEAST).log()


def _log_num_legal(rows: Tensor, mask: Tensor | None) -> float | Tensor:
    """Log of the number of legal actions, shape [...] or one number for all rows."""
    return math.log(rows.shape[-1]) if mask is None else mask.sum(-1).to(rows.dtype).log()


def _number(name: str, value: float | Tensor) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be a number or a 0-d tensor, got {value!r}") from None


def _check_shapes(name: str, values: Tensor, mask: Tensor | None) -> None:
    if values.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {values.dtype}")
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"{name} must have shape [..., A] with A >= 1, got {tuple(values.shape)}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, got {mask.dtype}")
    if mask is not None and mask.shape != values.shape:
        raise ValueError(f"mask must have the shape of {name} {tuple(values.shape)}, got {tuple(mask.shape)}")


def _what_is_wrong(logits: Tensor, mask: Tensor | None) -> str:
    if mask is not None and not mask.any(-1).all():
        return (
            f"mask must leave at least one legal action in each row, {int((~mask.any(-1)).sum())} have none"
        )
    legal = logits if mask is None else logits[mask]
    for value, count in (("NaN", legal.isnan().sum()), ("+inf", (legal == math.inf).sum())):
        if count:
            return f"logits of legal actions must be finite or -inf, {int(count)} are {value}"
    return "logits / tau must be below +inf, with at least one legal action in each row above -inf"
