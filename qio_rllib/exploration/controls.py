"""Controls for the Q operator: other operators that share one of its effects and nothing else.

They tell apart which effect of the operator helps, where it does. `temperature_control` has the entropy of the
amplified policy in every state, but comes from a softmax temperature; `random_control` moves the amplitudes as far as
the operator does, but in a direction that has nothing to do with the mean. Leaving the policy alone is the third
control. Each is a policy in the full sense: what is sampled, stored and differentiated is the same distribution.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from qio_rllib.exploration.amplification import Amplification, amplify

_MOST_STEPS, _TOLERANCE = 60, 1e-12
_TINY = 1e-12


def operate(
    settings: Amplification,
    logits: Tensor,
    eta: float | Tensor,
    h_min: float | Tensor,
    tau: float | Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Apply the operator that the settings name; arguments, result and errors as those of `amplify`."""
    if settings.operator == "temperature":
        return temperature_control(logits, eta, h_min, tau, mask)
    if settings.operator == "random":
        return random_control(logits, eta, h_min, tau, mask, settings.operator_seed)
    return amplify(logits, eta, h_min, tau, mask)


def temperature_control(
    logits: Tensor,
    eta: float | Tensor = 0.1,
    h_min: float | Tensor = 0.05,
    tau: float | Tensor = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the softmax policy at the temperature that gives it, row by row, the entropy of the amplified one.

    Args:
        logits: As for `amplify`.
        eta: Of the operator whose entropy is matched, like the next two.
        h_min: Its floor.
        tau: Its temperature.
        mask: As for `amplify`.

    Returns:
        Log-probabilities as `amplify` gives them. Entropies agree to 1e-6 where some temperature reaches them;
        gradients are those of the whole map, by the implicit function theorem. Rows of equal logits stay uniform.

    Raises:
        ValueError: As `amplify`.
    """
    # In float64: near the uniform policy entropies differ by less than float32 can tell.
    target = _entropy(amplify(logits.double(), eta, h_min, tau, mask))
    legal = logits > -math.inf if mask is None else mask & (logits > -math.inf)
    wide = logits.double().masked_fill(~legal, 0.0)
    with torch.no_grad():
        inverse = _solve(wide.detach(), legal, target.detach(), 1.0 / float(tau))
    step = _newton_step(wide, inverse, legal, target)  # of value 0, differentiated
    result = _softmax(wide, inverse - (step - step.detach()), legal)
    lowest = torch.finfo(logits.dtype).min
    return result.to(logits.dtype).clamp_min(lowest).masked_fill(~legal, lowest)


def random_control(
    logits: Tensor,
    eta: float | Tensor = 0.1,
    h_min: float | Tensor = 0.05,
    tau: float | Tensor = 1.0,
    mask: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Turn the amplitudes by the operator's own angle in a random direction, and apply the same entropy floor.

    The amplitudes ``a = sqrt(p)`` are a unit vector; amplification turns it by an angle. Here they are turned by that
    angle towards ``R a``, where ``R`` is a fixed matrix of standard normal numbers, and squared by the Born rule.
    Where an amplitude becomes negative, squaring mirrors it, and the policy moves less far than the operator moves
    it: on average by 1% at ``eta = 0.1`` and 10% at 0.5 for five actions with logits of deviation 2; never farther.

    Args:
        logits: As for `amplify`.
        eta: Of the operator whose strength is matched.
        h_min: Entropy floor.
        tau: Temperature.
        mask: As for `amplify`.
        seed: Of ``R``.

    Returns:
        Log-probabilities as `amplify` gives them.

    Raises:
        ValueError: As `amplify`.
    """
    plain, turned = amplify(logits, 0.0, 0.0, tau, mask), amplify(logits, eta, 0.0, tau, mask)
    before, after = (0.5 * plain.double()).exp(), (0.5 * turned.double()).exp()
    chord = (after - before).square().sum(-1, keepdim=True)  # (2 sin(angle / 2))^2
    cosine = 1 - chord / 2
    sine = (chord * (1 - chord / 4) + _TINY**2).sqrt()
    direction = before @ _matrix(before.shape[-1], seed).to(before.device)
    if mask is not None:
        direction = direction.masked_fill(~mask, 0.0)
    direction = direction - (direction * before).sum(-1, keepdim=True) * before
    length = direction.norm(dim=-1, keepdim=True)
    direction = direction / length.clamp_min(_TINY)  # no direction with a single legal action
    amplitudes = torch.where(length > _TINY, cosine * before + sine * direction, before)
    log_probs = amplitudes.square().clamp_min(1e-38).log().to(logits.dtype)
    return amplify(log_probs, 0.0, h_min, 1.0, mask)


@functools.lru_cache(maxsize=32)
def _matrix(size: int, seed: int) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in inference mode could not be learned through later
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(size, size, generator=generator, dtype=torch.float64)


def _softmax(logits: Tensor, inverse: Tensor, legal: Tensor) -> Tensor:
    """Log-probabilities at an inverse temperature; illegal ones hold -1e30, whose probability is 0."""
    return torch.log_softmax((logits * inverse.unsqueeze(-1)).masked_fill(~legal, -1e30), -1)


def _solve(logits: Tensor, legal: Tensor, target: Tensor, start: float) -> Tensor:
    """The inverse temperature ``[...]`` at which each row has the entropy ``target``.

    Newton's iteration in the logarithm of the inverse temperature, from the operator's own, kept within a bracket that
    shrinks at each step; a step out of it halves the bracket instead. Entropy falls as the inverse temperature grows.
    """
    scale = _spread(logits, legal).log()  # brackets are in units of the logits' own spread
    place = torch.full_like(target, math.log(start))
    low, high = torch.minimum(-16.0 - scale, place - 16.0), torch.maximum(16.0 - scale, place + 16.0)
    for _ in range(_MOST_STEPS):
        log_probs = _softmax(logits, place.exp(), legal)
        gap = _entropy(log_probs) - target
        done = (gap.abs() < _TOLERANCE) | (high - low < _TOLERANCE)
        if bool(done.all()):
            break
        low, high = torch.where(gap > 0, place, low), torch.where(gap > 0, high, place)
        newton = place - gap / (_slope(log_probs, logits, place.exp()) * place.exp())
        inside = (newton > low) & (newton < high)
        place = torch.where(done, place, torch.where(inside, newton, (low + high) / 2))
    return place.exp()


def _newton_step(logits: Tensor, inverse: Tensor, legal: Tensor, target: Tensor) -> Tensor:
    """Entropy's distance from the target over its derivative in the inverse temperature; 0 where that is none."""
    log_probs = _softmax(logits, inverse, legal)
    with torch.no_grad():
        slope = _slope(log_probs, logits, inverse)
        reacts = slope.abs() > _TINY
        slope = torch.where(reacts, slope, -torch.ones_like(slope))
    gap = _entropy(log_probs) - target
    return torch.where(reacts, gap / slope, torch.zeros_like(gap))


def _slope(log_probs: Tensor, logits: Tensor, inverse: Tensor) -> Tensor:
    """Derivative of the entropy in the inverse temperature: minus that times the variance of the logits."""
    probs = log_probs.exp()
    mean = (probs * logits).sum(-1, keepdim=True)
    return -inverse * (probs * (logits - mean).square()).sum(-1)


def _entropy(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs.clamp_min(-1e30)).sum(-1)


def _spread(logits: Tensor, legal: Tensor) -> Tensor:
    """Largest less smallest legal logit, 1 where they are equal."""
    top = logits.masked_fill(~legal, -torch.inf).amax(-1)
    bottom = logits.masked_fill(~legal, torch.inf).amin(-1)
    difference = top - bottom
    return torch.where(difference > 0, difference, torch.ones_like(difference))
