"""What acting and planning draw from."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class RandomNumbers(Protocol):
    """A source of draws; the first axis of every draw is that of the environments."""

    def random(self, size: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return uniform numbers on [0, 1)."""

    def standard_normal(self, size: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return standard normal numbers."""
