"""Pictures of qubit control with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import BACKGROUND, QUIET, TEXT, TIME_BAR, gauges, scale_bar
from qio_envs.api.lettering import ADVANCE, HEIGHT, width, write

_WIDTH = 560  # pixels of the picture
_PANEL, _LABELS = 180, 52  # heights of its parts, pixels
_TALLEST = 136  # pixels of a bar of length 1
_LEFT, _SIDE = 50, 12  # pixels left and right of the panels
_WHEEL = 15.0  # radius of the wheel of phases
_TEXT_BAR = 24  # letters of the longest bar in text

_FLOOR = np.array([40, 48, 54], np.float32)
_LINE = np.array([60, 70, 78], np.float32)
_FIDELITY = np.array([122, 200, 110], np.float32)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment."""

    state: Array  # complex [D]
    target: Array  # complex [D]
    fidelity: float
    best_fidelity: float
    success_fidelity: float
    last_gate: str  # name of the last action; empty at reset
    noise_events: int | None  # None where there is no noise
    step: int
    max_steps: int

    @property
    def phases(self) -> tuple[Array, Array]:
        """Phases of the state's and the target's amplitudes, radians ``[D]`` each, as they are shown.

        A global phase means nothing: the target's first large amplitude has phase 0, and the state is turned so that
        its overlap with the target has; so bars of equal colour agree.
        """
        target = _upright(self.target)
        overlap = np.vdot(target, self.state)
        state = self.state * np.conj(overlap) if abs(overlap) > 1e-6 else _upright(self.state)
        return np.angle(state), np.angle(target)


def _upright(state: Array) -> Array:
    """Return the state with its first large amplitude positive."""
    size = np.abs(state)
    first = int(np.argmax(size > 0.9 * size.max()))
    return state * np.conj(state[first])


def draw(scene: Scene) -> Array:
    """Return uint8 ``[h, 560, 3]``: amplitudes of the state upwards and of the target downwards.

    A bar's length is the magnitude of an amplitude, its colour the phase (see the wheel on the right, 0 at its right);
    basis states are named in between, qubit 0 first. Above are gates so far and the last one, below the fidelity, with
    marks at the best so far and where the episode ends.
    """
    canvas = np.broadcast_to(BACKGROUND, (2 * _PANEL + _LABELS, _WIDTH, 3)).copy()
    upper, lower = _PANEL, _PANEL + _LABELS  # where bars begin
    for top in (0, lower):
        canvas[top : top + _PANEL, _LEFT : _WIDTH - _SIDE] = _FLOOR
    for share in (0.5, 1.0):
        for row in (upper - round(share * _TALLEST), lower + round(share * _TALLEST) - 1):
            canvas[row, _LEFT : _WIDTH - _SIDE] = _LINE
            write(canvas, f"{share:.1f}", (row - HEIGHT, _LEFT - 42), QUIET)
    for row, base, name, values, phases in (
        (8, upper, "state, magnitude", scene.state, scene.phases[0]),
        (lower + _PANEL - 22, lower, "target, magnitude", scene.target, scene.phases[1]),
    ):
        write(canvas, name, (row, _LEFT + 10), QUIET)
        _bars(canvas, base, -1 if base == upper else 1, np.abs(values), phases)
    write(canvas, "phase", (15, _WIDTH - _SIDE - 114), QUIET)
    _wheel(canvas, np.array([_WIDTH - _SIDE - 30.0, 22.0]))
    write(canvas, "0", (19, _WIDTH - _SIDE - 11), QUIET, 1)
    _name_basis(canvas, upper, len(scene.state))
    items: list[tuple[str, float | None, Array]] = [
        (f"gates {scene.step}/{scene.max_steps}", scene.step / scene.max_steps, TIME_BAR),
        (f"last {scene.last_gate}" if scene.last_gate else "no gate yet", None, TIME_BAR),
    ]
    if scene.noise_events is not None:
        items.append((f"errors {scene.noise_events}", None, TIME_BAR))
    marks = (
        (scene.best_fidelity, f"best {scene.best_fidelity:.3f}"),
        (scene.success_fidelity, f"ends at {scene.success_fidelity:g}"),
    )
    fidelity = scale_bar(_WIDTH, f"fidelity {scene.fidelity:.3f}", scene.fidelity, _FIDELITY, marks)
    picture = np.concatenate([gauges(_WIDTH, *items), canvas, fidelity])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return a line for each basis state, with a bar as long as its amplitude, and the phase in units of pi.

    The left column is the state's, the right one the target's.
    """
    letters = (len(scene.state) - 1).bit_length()
    lines = []
    for index in range(len(scene.state)):
        cells = []
        for values, phases in zip((scene.state, scene.target), scene.phases, strict=True):
            size = float(np.abs(values[index]))
            phase = f"{round(phases[index] / np.pi, 2) + 0.0:+.2f}" if size > 1e-6 else ""
            cells.append(f"{'#' * round(_TEXT_BAR * size):<{_TEXT_BAR}} {phase:<5}")
        lines.append(f"|{index:0{letters}b}> {cells[0]} | {cells[1]}".rstrip())
    errors = "" if scene.noise_events is None else f"  errors {scene.noise_events}"
    return "\n".join(
        [
            *lines,
            f"gates {scene.step}/{scene.max_steps}  last {scene.last_gate or 'none'}  "
            f"fidelity {scene.fidelity:.3f}  best {scene.best_fidelity:.3f}{errors}",
        ]
    )


def _colour(phase: Array) -> Array:
    """Return RGB of phases (radians), ``[..., 3]``: blue for 0, and the same again after a whole turn."""
    peaks = 2 * np.pi / 3 * np.array([1, 2, 3]) + 0.3  # where red, green and blue are strongest
    return (150 + 95 * np.cos(np.asarray(phase)[..., None] - peaks)).astype(np.float32)


def _slots(size: int) -> Array:
    """Return the columns where the slots of the basis states begin and end, ``[size + 1]``."""
    return np.linspace(_LEFT + 8, _WIDTH - _SIDE - 8, size + 1)


def _bars(canvas: Array, base: int, direction: int, sizes: Array, phases: Array) -> None:
    slots, colours = _slots(len(sizes)), _colour(phases)
    half = min(0.38 * (slots[1] - slots[0]), 26.0)
    for index, size in enumerate(sizes):
        middle = (slots[index] + slots[index + 1]) / 2
        left, right = round(middle - half), max(round(middle + half), round(middle - half) + 2)
        length = round(_TALLEST * min(float(size), 1.0))
        top = base - length if direction < 0 else base
        canvas[top : top + length, left:right] = colours[index]
        if size < 1e-3:  # so that one sees where there is nothing
            canvas[base - 1 if direction < 0 else base, left:right] = QUIET


def _name_basis(canvas: Array, top: int, size: int) -> None:
    """Write the names of the basis states between the panels, upright where there is room."""
    slots, letters = _slots(size), (size - 1).bit_length()
    for index in range(size):
        name = f"{index:0{letters}b}"
        room = slots[1] - slots[0]
        middle = (slots[index] + slots[index + 1]) / 2
        ket = f"|{name}>"
        fits = [(ket, 2), (ket, 1), (name, 1)]
        chosen = next(((text, scale) for text, scale in fits if width(text, scale) + 3 <= room), None)
        if chosen:
            text, scale = chosen
            place = top + (_LABELS - HEIGHT * scale) // 2, round(middle - width(text, scale) / 2)
            write(canvas, text, place, TEXT, scale)
        else:
            place = top + (_LABELS - ADVANCE * letters) // 2, round(middle - HEIGHT / 2)
            write(canvas, name, place, TEXT, 1, upwards=True)


def _wheel(canvas: Array, centre: Array) -> None:
    """Draw a ring of the colours: phase 0 on the right, pi/2 at the top."""
    x = np.arange(canvas.shape[1]) + 0.5 - centre[0]
    y = centre[1] - np.arange(canvas.shape[0])[:, None] - 0.5
    coverage = np.clip(4.5 - np.abs(np.hypot(x, y) - _WHEEL + 4), 0, 1)[..., None]
    canvas += coverage * (_colour(np.arctan2(y, x)) - canvas)
