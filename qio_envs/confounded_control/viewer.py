"""Pictures of confounded control with NumPy alone: no display, no drawing library."""

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
)
from qio_envs.api.lettering import write

_WIDTH, _HEIGHT = 480, 240  # pixels of the line on which the state moves, without the bar
_ROW = 90
_BARS = {"action": 150, "mediator": 180, "u": 210}  # rows of what moves the state
_SCALE = 22.0  # pixels a unit of the state
_TEXT_BAR = 20  # letters from the middle of a bar of text to its end

_LINE = np.array([66, 78, 86], np.float32)
_STATE = np.array([86, 170, 236], np.float32)
_OUTLINE = np.array([250, 250, 250], np.float32)
_TARGET = np.array([238, 214, 120], np.float32)
_COLOURS = {
    "action": np.array([226, 190, 84], np.float32),
    "mediator": np.array([122, 200, 110], np.float32),
    "u": np.array([206, 84, 84], np.float32),
}
_LEGEND: tuple[Entry, ...] = (("disc", _STATE, "state s"), ("ring", _TARGET, "target"))


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment."""

    s: float
    action: float  # of the last step
    mediator: float  # of the last step
    u: float  # hidden, of the step to come
    score: float
    step: int
    max_steps: int
    limit: float  # magnitude at which the state is clipped


def draw(scene: Scene) -> Array:
    """Return uint8 ``[306, 480, 3]``: step and score, the state on a line around the target, what moves it, the legend.

    The bars from the middle are the last action, its mediator and the hidden variable of the step to come, each as long
    as the way that the state would go by it: half a unit of the state for a unit of action and mediator.
    """
    canvas = np.broadcast_to(BACKGROUND, (_HEIGHT, _WIDTH, 3)).copy()
    middle = _WIDTH / 2
    half = scene.limit * _SCALE
    line(canvas, _LINE, np.array([middle - half, _ROW]), np.array([middle + half, _ROW]), 3.0)
    mark_target(canvas, _TARGET, np.array([middle, float(_ROW)]))
    for name, way in (("action", scene.action / 2), ("mediator", scene.mediator / 2), ("u", scene.u)):
        row = float(_BARS[name])
        end = middle + way * _SCALE
        write(canvas, "u, hidden" if name == "u" else name, (round(row) - 7, GAP), QUIET)
        line(canvas, _COLOURS[name], np.array([middle, row]), np.array([end, row]), 12.0)
    disc(canvas, _STATE, _OUTLINE, np.array([middle + scene.s * _SCALE, float(_ROW)]), 10.0)
    head = gauges(
        _WIDTH,
        (f"step {scene.step}/{scene.max_steps}", scene.step / scene.max_steps, TIME_BAR),
        (f"score {scene.score:.2f}", None, TIME_BAR),
    )
    picture = np.concatenate([head, canvas, legend(_WIDTH, _LEGEND)])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return the state as a bar around its middle, the numbers that move it, and the score as lines of text."""
    length = min(round(abs(scene.s) / scene.limit * _TEXT_BAR), _TEXT_BAR)
    left, right = ("#" * length, "") if scene.s < 0 else ("", "#" * length)
    return "\n".join(
        [
            f"s [{left:.>{_TEXT_BAR}}|{right:.<{_TEXT_BAR}}] {scene.s:+.3f}",
            f"a {scene.action:+.3f}  m {scene.mediator:+.3f}  next u {scene.u:+.3f} (hidden)",
            f"step {scene.step}/{scene.max_steps}  score {scene.score:.2f}",
        ]
    )
