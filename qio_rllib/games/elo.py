"""Elo's scale (A. Elo, "The Rating of Chessplayers, Past and Present", 1978)."""

from __future__ import annotations

import numpy as np

ELO_SCALE = 400 / np.log(10)
"""Points of Elo's scale in a unit of log odds."""


def expected_score(rating: float, others: np.ndarray) -> np.ndarray:
    """Return the scores that a rating lets expect against others, ``1 / (1 + 10^((r_j - r) / 400))``."""
    return 1.0 / (1.0 + np.exp((others - rating) / ELO_SCALE))
