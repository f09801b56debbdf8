"""What malicious clients send in place of their updates; for measuring how much a rule of aggregation bears.

Attacks on the environment's side (random actions, flipped rewards) are `qio_rllib.sampling.lying_env`'s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qio_envs.api import ConfigError, did_you_mean

Array = np.ndarray
Attack = Callable[[Array, Array, float, np.random.Generator], Array]
"""From honest updates ``[n, d]``, the malicious client's own ``[d]``, a scale and random numbers to what it sends."""


def _sign_flip(honest: Array, own: Array, scale: float, rng: np.random.Generator) -> Array:
    return -scale * own


def _noise(honest: Array, own: Array, scale: float, rng: np.random.Generator) -> Array:
    deviation = (
        scale * float(np.linalg.norm(own)) / np.sqrt(own.size)
    )  # of the length of its own, times the scale
    return deviation * rng.standard_normal(own.shape)


def _normalized(honest: Array, own: Array, scale: float, rng: np.random.Generator) -> Array:
    centre = honest.mean(0, dtype=np.float64)
    length = float(np.linalg.norm(centre))
    usual = float(np.median(np.linalg.norm(honest, axis=1)))
    return centre * (-scale * usual / length if length > 0 else 0.0)


ATTACKS: dict[str, Attack] = {"sign_flip": _sign_flip, "noise": _noise, "normalized": _normalized}
"""By the name in settings: ``sign_flip`` sends ``-scale`` times its own update; ``noise`` a normal vector ``scale``
times as long as its own; ``normalized`` the direction against the honest mean, ``scale`` times as long as the median
honest update, so that its length gives nothing away (it knows all honest updates)."""


def poisoned(name: str, updates: Array, malicious: Array, scale: float, rng: np.random.Generator) -> Array:
    """Return updates with those of malicious clients replaced, float32 ``[n, d]``.

    Args:
        name: Of `ATTACKS`.
        updates: What all clients would have sent, ``[n, d]``.
        malicious: Which ones are, bool ``[n]``. Where all are, they take each other for honest.
        scale: Of the attack, above 0.
        rng: Of the noise.

    Raises:
        ConfigError: An unknown name, or a value outside its range.
    """
    if name not in ATTACKS:
        raise ConfigError(
            f"attack: unknown '{name}'{did_you_mean(name, ATTACKS)}; allowed: {', '.join(ATTACKS)}"
        )
    if not scale > 0:
        raise ConfigError(f"attack scale: expected a number above 0, got {scale}")
    honest = updates if malicious.all() else updates[~malicious]
    sent = updates.astype(np.float32).copy()
    for client in np.flatnonzero(malicious):
        sent[client] = ATTACKS[name](honest, updates[client], scale, rng)
    return sent
