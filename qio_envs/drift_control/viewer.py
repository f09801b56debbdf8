"""Pictures of drift control with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import (
    BACKGROUND,
    GAP,
    QUIET,
    TIME_BAR,
    Entry,
    disc,
    gauges,
    legend,
    line,
    mark_target,
    paint,
)
from qio_envs.api.lettering import width as text_width
from qio_envs.api.lettering import write_centred

_PLANE = 400  # pixels of the side of the plane of s0 and s1
_WIDTH = 560  # pixels of the picture
_MARGIN = 1.08  # half the side of the plane, in radii
_POINT = 9.0  # radius of the state's disc, pixels
_STEPS = 5.0  # an action is drawn as the way that it would lead in so many steps
_TEXT_BAR = 20  # letters from the middle of a bar of text to its end

_FLOOR = np.array([40, 48, 54], np.float32)
_LINE = np.array([66, 78, 86], np.float32)
_BORDER = np.array([150, 165, 175], np.float32)
_TARGET = np.array([238, 214, 120], np.float32)
_OUTLINE = np.array([250, 250, 250], np.float32)
_HIDDEN = np.array([92, 100, 106], np.float32)
_ACTION = np.array([226, 190, 84], np.float32)
_DISTRACTOR = np.array([180, 150, 120], np.float32)
_COMPONENTS = np.array([[86, 170, 236], [236, 112, 72], [122, 200, 110], [204, 130, 220]], np.float32)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment."""

    components: Array  # float [4], s0 to s3
    hidden: tuple[int, ...]  # components that are not observed
    action: Array  # float [2], the last one; 0 at reset
    distractors: Array  # float [D]
    out_radius: float
    score: float
    step: int
    max_steps: int


def draw(scene: Scene) -> Array:
    """Return uint8 ``[h, 560, 3]``: step and score, the plane of s0 and s1 on the left, bars on the right, the legend.

    In the plane s0 points to the right and s1 upwards. The disc is the state, the line from it the last action, the
    cross the origin. The outer ring is where the episode would end given s2 and s3, the inner rings are at quarters of
    ``out_radius``. The bars, upwards for positive numbers, are from the top: the components s0 to s3 from minus to plus
    ``out_radius``, those that are hidden in grey; the two actions from -1 to 1; the distractors, if any, on the scale
    of the components.
    """
    canvas = np.broadcast_to(BACKGROUND, (_PLANE, _WIDTH, 3)).copy()
    _draw_plane(canvas[:, :_PLANE], scene)
    colours = _COMPONENTS.copy()
    colours[list(scene.hidden)] = _HIDDEN
    panels = [
        ("s", scene.components / scene.out_radius, colours, 3),
        ("a", scene.action, np.broadcast_to(_ACTION, (2, 3)), 2),
    ]
    count = len(scene.distractors)
    if count:
        panels.append(
            ("d", scene.distractors / scene.out_radius, np.broadcast_to(_DISTRACTOR, (count, 3)), 2)
        )
    heights = np.cumsum([0, *[share for *_, share in panels]])
    edges = np.round(heights / heights[-1] * (_PLANE - GAP)).astype(int)
    for (letter, values, shades, _), top, bottom in zip(panels, edges, edges[1:], strict=False):
        _draw_bars(canvas[top + GAP : bottom, _PLANE : _WIDTH - GAP], letter, values, shades)
    head = gauges(
        _WIDTH,
        (f"step {scene.step}/{scene.max_steps}", scene.step / scene.max_steps, TIME_BAR),
        (f"score {scene.score:.2f}", None, TIME_BAR),
    )
    entries: list[Entry] = [
        ("disc", _COMPONENTS[0], "s0, s1"),
        ("line", _ACTION, "action a"),
        ("ring", _TARGET, "origin"),
        *([("cell", _HIDDEN, "hidden")] if scene.hidden else []),
        *([("cell", _DISTRACTOR, "distractors d")] if count else []),
    ]
    picture = np.concatenate([head, canvas, legend(_WIDTH, entries)])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return a line for each component, action and distractor with a bar around its middle; hidden ones say so."""
    lines = []
    for index, value in enumerate(scene.components):
        note = "  hidden" if index in scene.hidden else ""
        lines.append(f"s{index} {_bar_of_text(value / scene.out_radius)} {value:+.3f}{note}")
    lines += [f"a{index} {_bar_of_text(value)} {value:+.3f}" for index, value in enumerate(scene.action)]
    lines += [
        f"d{index} {_bar_of_text(value / scene.out_radius)} {value:+.3f}"
        for index, value in enumerate(scene.distractors)
    ]
    distance = float(np.linalg.norm(scene.components))
    status = (
        f"step {scene.step}/{scene.max_steps}  score {scene.score:.2f}  "
        f"distance {distance:.3f} of {scene.out_radius:g}"
    )
    return "\n".join([*lines, status])


def _bar_of_text(share: float) -> str:
    """Return a bar from the middle ``|`` to the left for negative and to the right for positive shares of 1."""
    length = min(round(abs(float(share)) * _TEXT_BAR), _TEXT_BAR)
    left, right = ("#" * length, "") if share < 0 else ("", "#" * length)
    return f"[{left:.>{_TEXT_BAR}}|{right:.<{_TEXT_BAR}}]"


def _draw_plane(canvas: Array, scene: Scene) -> None:
    half = _MARGIN * scene.out_radius
    scale = _PLANE / (2 * half)  # pixels a unit
    axis = ((np.arange(_PLANE) + 0.5) / scale - half).astype(np.float32)
    radius = np.hypot(axis[None, :], axis[:, None])
    rest = scene.out_radius**2 - float(np.square(scene.components[2:]).sum())
    border = np.sqrt(max(rest, 0.0))
    paint(canvas, _FLOOR, (scene.out_radius - radius) * scale + 0.5)
    for quarter in (0.25, 0.5, 0.75):
        paint(canvas, _LINE, 1.0 - np.abs(radius - quarter * scene.out_radius) * scale)
    paint(canvas, _BORDER, 1.7 - np.abs(radius - border) * scale)
    mark_target(canvas, _TARGET, np.full(2, half * scale))
    upright = np.array([1, -1])
    centre = half * scale + scene.components[:2] * upright * scale
    line(canvas, _ACTION, centre, centre + scene.action * upright * 0.1 * _STEPS * scale, 4.0)
    disc(canvas, _COMPONENTS[0], _OUTLINE, centre, _POINT)


def _draw_bars(canvas: Array, letter: str, values: Array, colours: Array) -> None:
    """Draw shares of -1 to 1 as bars from the middle, named below where there is room; larger ones are cut off."""
    canvas[:] = _FLOOR
    height, width = canvas.shape[:2]
    middle = height // 2
    edges = np.linspace(GAP, width - GAP, len(values) + 1)
    gap = 0.15 * (edges[1] - edges[0])
    for index, (value, colour, left, right) in enumerate(
        zip(values, colours, edges, edges[1:], strict=False)
    ):
        name = f"{letter}{index}"
        if text_width(name, 2) < right - left:
            write_centred(canvas, name, np.array([(left + right) / 2, height - 12]), QUIET)
        length = round(float(np.clip(value, -1, 1)) * (middle - GAP))
        top, bottom = sorted((middle - length, middle))
        columns = slice(round(left + gap), max(round(right - gap), round(left + gap) + 1))
        canvas[top:bottom, columns] = colour
    canvas[middle, :] = _BORDER
