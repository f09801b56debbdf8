"""Pictures of the cart and pole with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import BACKGROUND, TIME_BAR, Entry, disc, gauges, legend, line

_WIDTH, _HEIGHT = 560, 300  # pixels of the scene, without the bar
_SCALE = 110.0  # pixels a metre
_TRACK = 240.0  # row of the track
_CART = np.array([30.0, 15.0])  # half width and half height of the cart, pixels
_ARROW = 45.0  # pixels of the line that shows the push
_TEXT_BAR = 20  # letters from the middle of a bar of text to its end

_RAIL = np.array([66, 78, 86], np.float32)
_LIMIT = np.array([206, 84, 84], np.float32)
_CART_COLOUR = np.array([86, 170, 236], np.float32)
_POLE = np.array([236, 162, 92], np.float32)
_OUTLINE = np.array([250, 250, 250], np.float32)
_ACTION = np.array([226, 190, 84], np.float32)
_LEGEND: tuple[Entry, ...] = (
    ("cell", _CART_COLOUR, "cart"),
    ("line", _POLE, "pole"),
    ("line", _ACTION, "last push"),
    ("line", _LIMIT, "end of the track"),
)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment."""

    position: float  # m
    angle: float  # rad
    pole_length: float  # half of it, m
    action: int  # the last one; -1 at reset
    max_position: float  # m
    max_angle: float  # rad
    score: float
    step: int
    max_steps: int


def draw(scene: Scene) -> Array:
    """Return uint8 ``[366, 560, 3]``: step, score and angle, cart and pole to scale on the track, the legend.

    The upright lines are the ends of the track. What of a long pole lies outside the picture is cut off.
    """
    canvas = np.broadcast_to(BACKGROUND, (_HEIGHT, _WIDTH, 3)).copy()
    middle, end = _WIDTH / 2, scene.max_position * _SCALE
    line(canvas, _RAIL, np.array([middle - end, _TRACK]), np.array([middle + end, _TRACK]), 3.0)
    for side in (-end, end):
        line(
            canvas,
            _LIMIT,
            np.array([middle + side, _TRACK - 12]),
            np.array([middle + side, _TRACK + 12]),
            3.0,
        )
    cart = np.array([middle + scene.position * _SCALE, _TRACK])
    left, top = np.round(cart - _CART).astype(int)
    right, bottom = np.round(cart + _CART).astype(int)
    canvas[top:bottom, max(left, 0) : max(right, 0)] = _CART_COLOUR
    joint = cart - np.array([0, _CART[1]])
    along = np.array([math.sin(scene.angle), -math.cos(scene.angle)])
    line(canvas, _POLE, joint, joint + 2 * scene.pole_length * _SCALE * along, 7.0)
    disc(canvas, _OUTLINE, _OUTLINE, joint, 4.0)
    if scene.action >= 0:
        start = cart + np.array([0, 2 * _CART[1]])
        way = np.array([_ARROW if scene.action == 1 else -_ARROW, 0.0])
        line(canvas, _ACTION, start, start + way, 6.0)
    head = gauges(
        _WIDTH,
        (f"step {scene.step}/{scene.max_steps}", scene.step / scene.max_steps, TIME_BAR),
        (f"score {scene.score:g}", None, TIME_BAR),
        (f"{math.degrees(scene.angle):+.1f} degrees", None, TIME_BAR),
    )
    picture = np.concatenate([head, canvas, legend(_WIDTH, _LEGEND)])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return position and angle as bars around their middles, up to where an episode ends, and the score."""
    push = {-1: "none", 0: "left", 1: "right"}[scene.action]
    return "\n".join(
        [
            f"position {_bar_of_text(scene.position / scene.max_position)} {scene.position:+.3f} m",
            f"angle    {_bar_of_text(scene.angle / scene.max_angle)} {math.degrees(scene.angle):+.2f} degrees",
            f"step {scene.step}/{scene.max_steps}  score {scene.score:g}  push {push}",
        ]
    )


def _bar_of_text(share: float) -> str:
    """Return a bar from the middle ``|`` to the left for negative and to the right for positive shares of 1."""
    length = min(round(abs(share) * _TEXT_BAR), _TEXT_BAR)
    left, right = ("#" * length, "") if share < 0 else ("", "#" * length)
    return f"[{left:.>{_TEXT_BAR}}|{right:.<{_TEXT_BAR}}]"
