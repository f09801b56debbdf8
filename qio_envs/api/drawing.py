"""What the pictures of all environments have in common: NumPy alone, colours as float32 RGB of 0 to 255."""

from __future__ import annotations

import numpy as np

from qio_envs.api.batched import Array

BACKGROUND = np.array([24, 28, 30], np.float32)
TIME_BAR = np.array([120, 150, 190], np.float32)
GAP = 6
"""Pixels around a bar."""
_HEIGHT = 10  # of a bar


def bar(width: int, share: float, colour: Array) -> Array:
    """Return a progress bar with a gap above it, float32 ``[16, width, 3]``.

    Args:
        width: Width of the picture, pixels.
        share: Part of the bar that is filled, 0 to 1.
        colour: RGB of the filled part, ``[3]``.
    """
    picture = np.broadcast_to(BACKGROUND, (_HEIGHT + GAP, width, 3)).copy()
    track = picture[GAP:, GAP : width - GAP]
    track[:] = BACKGROUND * 1.8
    track[:, : round(share * track.shape[1])] = colour
    return picture
