"""Pictures of circuits, as text and as figures.

Time runs from left to right. Gates are put into columns, each as early as the wires that it spans are free. Controls
are dots, targets of CNOT circled pluses, SWAP a pair of crosses; angles read ``w3`` for weight 3, ``x0`` for feature 0,
with a factor such as ``2*w3``, or are numbers in radians.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qio_rllib.quantum.circuit import Circuit
from qio_rllib.quantum.operations import UNITARY, Angle, Operation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["box", "control", "not", "cross"]

_TEXT_SYMBOLS = {"control": "●", "not": "⊕", "cross": "x"}
_NAMES = {"SDG": "S†", "TDG": "T†", "PHASE": "P", UNITARY: "U"}
_CONTROLS = {"CNOT": 1, "CY": 1, "CZ": 1, "CRX": 1, "CRY": 1, "CRZ": 1, "TOFFOLI": 2}
_MORE = "···"

# Light fills of the gates, told apart by lightness as well as by hue: what is fixed, learned and encoded.
_COLOURS = {"fixed": "#f1f1f1", "weight": "#cfe3f5", "feature": "#f9d9a8"}
_MEANINGS = {"weight": "weight", "feature": "feature", "fixed": "fixed"}
_INK = "#222222"


def draw_text(circuit: Circuit, width: int = 100) -> str:
    """Return a circuit as text.

    ```
    0: ──RY(x0)──●──────────
                 │
    1: ──────────⊕──RX(w0)──
    ```

    Args:
        circuit: What is drawn.
        width: Characters in a line, at least 40; circuits that are longer go on below. A single gate that is wider
            stays whole.

    Returns:
        Lines joined by newlines, of unicode characters, without one at the end.

    Raises:
        ValueError: ``width`` is below 40.
    """
    if isinstance(width, bool) or not isinstance(width, int) or width < 40:
        raise ValueError(f"width: expected an integer of at least 40, got {width!r}")
    n = circuit.num_qubits
    label = len(f"{n - 1}: ")
    columns = [_text_column(column, n) for column in _columns(circuit)]
    blocks: list[list[list[str]]] = [[]]
    used, available = 0, width - label - 2 * (len(_MORE) + 1) - 2
    for column in columns:
        if used + len(column[0]) + 2 > available and blocks[-1]:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += len(column[0]) + 2
    lines = []
    for number, block in enumerate(blocks):
        lines += [""] if number else []
        for row in range(2 * n - 1):
            on_wire = row % 2 == 0
            fill = "──" if on_wire else "  "
            text = (f"{row // 2}: " if on_wire else "").rjust(label)
            if number:
                text += f"{_MORE} " if on_wire else " " * (len(_MORE) + 1)
            text += fill + "".join(column[row] + fill for column in block)
            if number < len(blocks) - 1 and on_wire:
                text += f" {_MORE}"
            lines.append(text + ("──" if on_wire and not block else ""))
    return "\n".join(line.rstrip() for line in lines)


def draw(circuit: Circuit, target: str | Path | Axes, columns: int = 24) -> None:
    """Draw a circuit with matplotlib: what is learned, encoded and fixed in colours of its own.

    Args:
        circuit: What is drawn.
        target: Path of the image, whose suffix says the format (missing folders are made), or axes of a figure; those
            get limits, equal aspect and no frame.
        columns: Gates from left to right, at least 1; circuits that are longer go on below.

    Raises:
        ValueError: ``columns`` is below 1.
        ImportError: matplotlib is not installed (the ``plots`` extra).
    """
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns: expected an integer of at least 1, got {columns!r}")
    if not isinstance(target, str | Path):
        _paint(circuit, target, columns)
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    across, down = _paint(circuit, axes, columns)
    figure.set_size_inches(_INCH * across, _INCH * down)
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


_INCH = 0.62  # inches of a figure to one unit of its axes: wires are one unit apart
_BOX = 0.68  # height and least width of a gate


def _columns(circuit: Circuit) -> list[list[Operation]]:
    """Put each operation into the first column in which all wires between its qubits are free."""
    free = [0] * circuit.num_qubits
    columns: list[list[Operation]] = []
    for operation in circuit.operations:
        wires = range(min(operation.qubits), max(operation.qubits) + 1)
        place = max(free[wire] for wire in wires)
        if place == len(columns):
            columns.append([])
        columns[place].append(operation)
        for wire in wires:
            free[wire] = place + 1
    return columns


def _angle(operation: Operation) -> str:
    angle = operation.angle
    if angle is None:
        return ""
    if not isinstance(angle, Angle):
        return f"{angle:.2f}"
    name = f"{'w' if angle.source == 'weight' else 'x'}{angle.index}"
    if abs(angle.scale) == 1.0:
        return name if angle.scale > 0 else f"-{name}"
    return f"{angle.scale:.3g}*{name}"


def _parts(operation: Operation) -> list[tuple[Kind, str]]:
    """Return for each qubit of an operation what is drawn there, and a box's name."""
    name, count = operation.name, len(operation.qubits)
    if name == "SWAP":
        return [("cross", "")] * 2
    if name == "CZ":  # symmetric
        return [("control", "")] * 2
    controls = _CONTROLS.get(name, 0)
    head: list[tuple[Kind, str]] = [("control", "")] * controls
    if name in ("CNOT", "TOFFOLI"):
        return [*head, ("not", "")]
    if controls:
        return [*head, ("box", name[1:])]
    shown = _NAMES.get(name, name)
    if name == UNITARY and count > 1:  # which of its qubits is which cannot be seen otherwise
        return [("box", f"{shown}[{place}]") for place in range(count)]
    return [("box", shown)] * count


def _text_column(operations: Sequence[Operation], num_qubits: int) -> list[str]:
    """Return the lines of a column, of wires and between them, all of one length."""
    lines, bars = [""] * num_qubits, set[int]()
    for operation in operations:
        angle = _angle(operation)
        for qubit, (kind, name) in zip(operation.qubits, _parts(operation), strict=True):
            lines[qubit] = _TEXT_SYMBOLS.get(kind) or (f"{name}({angle})" if angle else name)
        low, high = min(operation.qubits), max(operation.qubits)
        bars.update(range(low, high))
        for wire in range(low, high):
            lines[wire] = lines[wire] or "┼"
    width = max(len(line) for line in lines)
    centre = (width - 1) // 2
    result = []
    for wire, line in enumerate(lines):
        left = centre - (len(line) - 1) // 2
        result.append(("─" * left + line).ljust(width, "─"))
        result.append((" " * centre + "│").ljust(width) if wire in bars else " " * width)
    return result[:-1]


def _paint(circuit: Circuit, axes: Any, most: int) -> tuple[float, float]:
    """Draw onto axes; return the size of the drawing in units."""
    from matplotlib.patches import Circle, FancyBboxPatch

    line: dict[str, Any] = {"color": _INK, "linewidth": 1.1, "solid_capstyle": "butt"}
    columns, n = _columns(circuit), circuit.num_qubits
    rows = [columns[i : i + most] for i in range(0, len(columns), most)] or [[]]
    widths = [[max(_width(operation) for operation in column) + 0.26 for column in row] for row in rows]
    right = max(max(sum(row) for row in widths), 1.0) + 0.2
    pitch = n + 0.6  # from one row of wires to the next
    sources = []

    for number, (row, row_widths) in enumerate(zip(rows, widths, strict=True)):
        top = number * pitch
        end = right if number < len(rows) - 1 else max(sum(row_widths), 1.0) + 0.2
        for qubit in range(n):
            y = top + qubit
            axes.plot([0.0, end], [y, y], zorder=1, **line)
            text = "|0⟩" if number == 0 else f"q{qubit}"
            axes.text(-0.12, y, text, ha="right", va="center", fontsize=11, color=_INK)
            if number < len(rows) - 1:
                axes.text(end + 0.1, y, "…", ha="left", va="center", fontsize=11, color=_INK)
        x = 0.1
        for column, width in zip(row, row_widths, strict=True):
            centre = x + width / 2
            x += width
            for operation in column:
                angle, colour = _angle(operation), _source(operation)
                ys = [top + qubit for qubit in operation.qubits]
                axes.plot([centre, centre], [min(ys), max(ys)], zorder=2, **line)
                for y, (kind, name) in zip(ys, _parts(operation), strict=True):
                    if kind == "control":
                        axes.add_patch(Circle((centre, y), 0.09, color=_INK, zorder=4))
                    elif kind == "not":
                        axes.add_patch(
                            Circle(
                                (centre, y), 0.2, facecolor="white", edgecolor=_INK, linewidth=1.1, zorder=3
                            )
                        )
                        axes.plot([centre - 0.2, centre + 0.2], [y, y], zorder=4, **line)
                        axes.plot([centre, centre], [y - 0.2, y + 0.2], zorder=4, **line)
                    elif kind == "cross":
                        for sign in (1, -1):
                            ends = [y - 0.14 * sign, y + 0.14 * sign]
                            axes.plot([centre - 0.14, centre + 0.14], ends, zorder=4, **line)
                    else:
                        sources.append(colour)
                        half = _width(operation) / 2 - 0.08
                        axes.add_patch(
                            FancyBboxPatch(
                                (centre - half, y - _BOX / 2 + 0.08),
                                2 * half,
                                _BOX - 0.16,
                                boxstyle="round,pad=0.08",
                                facecolor=_COLOURS[colour],
                                edgecolor=_INK,
                                linewidth=0.9,
                                zorder=3,
                            )
                        )
                        lifted = 0.13 if angle else 0.0
                        style: dict[str, Any] = {"ha": "center", "va": "center", "color": _INK, "zorder": 5}
                        axes.text(centre, y - lifted, name, fontsize=9.5, **style)
                        if angle:
                            axes.text(centre, y + 0.17, angle, fontsize=7.5, **style)

    bottom = (len(rows) - 1) * pitch + n - 1 + 0.55
    shown = [source for source in _MEANINGS if source in sources]
    if len(shown) > 1:  # a legend, below the wires
        x = 0.1
        for source in shown:
            axes.add_patch(
                FancyBboxPatch(
                    (x + 0.04, bottom + 0.09),
                    0.14,
                    0.14,
                    boxstyle="round,pad=0.04",
                    facecolor=_COLOURS[source],
                    edgecolor=_INK,
                    linewidth=0.7,
                )
            )
            text = _MEANINGS[source]
            axes.text(x + 0.32, bottom + 0.17, text, ha="left", va="center", fontsize=8, color=_INK)
            x += 0.62 + 0.12 * len(text)
        right = max(right, x - 0.2)
        bottom += 0.5
    left, head, margin = -0.75, -0.6, 0.5
    axes.set_xlim(left, right + margin)
    axes.set_ylim(bottom, head)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return right + margin - left, bottom - head


def _width(operation: Operation) -> float:
    names = [len(name) for kind, name in _parts(operation) if kind == "box"]
    if not names:
        return 0.4
    return max(_BOX, 0.2 + 0.15 * max(names), 0.2 + 0.12 * len(_angle(operation)))


def _source(operation: Operation) -> str:
    return operation.angle.source if isinstance(operation.angle, Angle) else "fixed"
