"""Episodes of several policies side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LONGEST_SIDE, NUM_COLORS = 1200, 64
"""For `save_gif`: several pictures in one need more of both than one alone."""
MAX_PANELS = 16
_GAP, _CAPTION = 8, 30  # pixels between panels, and of the line of text above each
_BACKGROUND = (24, 28, 30)
_TEXT = (226, 232, 236)


class Panel(NamedTuple):
    """An episode and what it is of."""

    label: str
    frames: list[np.ndarray]  # uint8 [h, w, 3], one at least


def grid_frames(panels: Sequence[Panel]) -> list[np.ndarray]:
    """Return the frames of episodes that are played at the same time.

    Up to three stand in a row, more in a square; each has its label above it. An episode that is over stays at its last
    frame until all are. Panels of another size than the largest stand in the middle of their place.

    Args:
        panels: One to `MAX_PANELS`.

    Returns:
        uint8 ``[h, w, 3]`` each, as many as the longest episode has.
    """
    columns = len(panels) if len(panels) <= 3 else math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    height = max(panel.frames[0].shape[0] for panel in panels)
    width = max(panel.frames[0].shape[1] for panel in panels)
    stage = np.empty((rows * (height + _CAPTION + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), np.uint8)
    stage[:] = _BACKGROUND
    places = []
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        top, left = row * (height + _CAPTION + _GAP), column * (width + _GAP)
        stage[top : top + _CAPTION, left : left + width] = caption(panel.label, width, _TEXT, _CAPTION)
        own_height, own_width = panel.frames[0].shape[:2]
        top, left = top + _CAPTION + (height - own_height) // 2, left + (width - own_width) // 2
        places.append((slice(top, top + own_height), slice(left, left + own_width)))
    frames = []
    for step in range(max(len(panel.frames) for panel in panels)):
        frame = stage.copy()
        for panel, place in zip(panels, places, strict=True):
            frame[place] = panel.frames[min(step, len(panel.frames) - 1)]
        frames.append(frame)
    return frames


def caption(text: str, width: int, color: tuple[int, int, int], height: int = _CAPTION) -> np.ndarray:
    """Return a line of text, uint8 ``[height, width, 3]``, in letters small enough for it to fit, down to 9 pixels."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(strip)
    size = 18
    while size > 9 and draw.textlength(text, font=ImageFont.load_default(size)) > width - 16:
        size -= 1
    draw.text((8, height // 2), text, fill=color, font=ImageFont.load_default(size), anchor="lm")
    return np.asarray(strip)
