"""Pictures of the causal chain with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import BACKGROUND, TEXT, TIME_BAR, Entry, disc, gauges, legend, line, mark_target
from qio_envs.api.lettering import write_centred

_WIDTH, _HEIGHT = 480, 320  # pixels of the graph, without the bar
_RADIUS = 34.0  # of a variable's disc at magnitude _FULL or more, pixels
_LEAST = 8.0  # of a disc at 0, pixels
_FULL = 2.0  # magnitude that is drawn as the largest disc
_PLACES = {
    "x1": (90, 220),
    "x2": (240, 220),
    "x3": (390, 220),
    "a0": (190, 80),
    "a1": (330, 80),
}
_EDGES = (("x1", "x2"), ("a0", "x2"), ("x2", "x3"), ("x1", "x3"))
_LINE = np.array([110, 124, 132], np.float32)
_OUTLINE = np.array([250, 250, 250], np.float32)
_POSITIVE = np.array([86, 170, 236], np.float32)
_NEGATIVE = np.array([236, 112, 72], np.float32)
_REWARD = np.array([238, 214, 120], np.float32)
_LEGEND: tuple[Entry, ...] = (
    ("disc", _POSITIVE, "positive"),
    ("disc", _NEGATIVE, "negative"),
    ("ring", _REWARD, "reward"),
    ("line", _LINE, "effect"),
)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment."""

    values: Array  # float [3], x1, x2 and x3 of the last round
    action: Array  # float [2], of the last round
    coming: float  # x1 of the round to come
    score: float
    played: int  # rounds so far
    rounds: int  # rounds of the episode

    @property
    def named(self) -> dict[str, float]:
        """Variables of the last round by name."""
        numbers = [*self.values, *self.action]
        return {name: float(value) for name, value in zip(_PLACES, numbers, strict=True)}


def draw(scene: Scene) -> Array:
    """Return uint8 ``[h, 480, 3]``: rounds and score, the causal graph with the last round's values, the legend.

    The actions a0 and a1 are above, x1, x2 and x3 below, from left to right; lines are causal effects, that of x1 on x3
    goes around below. The larger a disc the larger the magnitude; blue is positive, red negative. The cross is at x3,
    the reward.
    """
    canvas = np.broadcast_to(BACKGROUND, (_HEIGHT, _WIDTH, 3)).copy()
    places = {name: np.array(place, float) for name, place in _PLACES.items()}
    for cause, effect in _EDGES:
        start, end = places[cause], places[effect]
        if (cause, effect) == ("x1", "x3"):
            below = np.array([240.0, 312.0])
            line(canvas, _LINE, start, below, 3.0)
            start = below
        line(canvas, _LINE, start, end, 3.0)
    for name, value in scene.named.items():
        size = _LEAST + (_RADIUS - _LEAST) * min(abs(value) / _FULL, 1.0)
        disc(canvas, _NEGATIVE if value < 0 else _POSITIVE, _OUTLINE, places[name], size)
        away = 48.0 if name.startswith("x") else -48.0
        write_centred(canvas, f"{name} {value:+.2f}", places[name] + np.array([0, away]), TEXT)
    mark_target(canvas, _REWARD, places["x3"])
    head = gauges(
        _WIDTH,
        (f"round {scene.played}/{scene.rounds}", scene.played / scene.rounds, TIME_BAR),
        (f"score {scene.score:.2f}", None, TIME_BAR),
    )
    picture = np.concatenate([head, canvas, legend(_WIDTH, _LEGEND)])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return the last round's values, x1 of the round to come and the score as lines of text."""
    lines = [f"{name} {value:+.3f}" for name, value in scene.named.items()] if scene.played else []
    status = f"round {scene.played}/{scene.rounds}  score {scene.score:.3f}"
    return "\n".join([*lines, f"next x1 {scene.coming:+.3f}", status])
