"""Letters of 5 x 7 points for pictures: no font file, no drawing library."""

from __future__ import annotations

import functools

import numpy as np

from qio_envs.api.batched import Array

ADVANCE, HEIGHT = 6, 7
"""Points from one letter to the next, and of a letter's height."""

# Five columns of seven bits each as hexadecimal digits, the top point the lowest bit.
_GLYPHS = {
    " ": "0000000000", "!": "00005F0000", "%": "2313086462", "'": "0004030000", "(": "001C224100",
    ")": "0041221C00", "*": "14083E0814", "+": "08083E0808", ",": "0050300000", "-": "0808080808",
    ".": "0060600000", "/": "2010080402", ":": "0036360000", "<": "0814224100", "=": "1414141414",
    ">": "0041221408", "?": "0201510906", "[": "007F414100", "]": "0041417F00", "^": "0402010204",
    "_": "4040404040", "|": "00007F0000", "0": "3E5149453E", "1": "00427F4000", "2": "4261514946",
    "3": "2141454B31", "4": "1814127F10", "5": "2745454539", "6": "3C4A494930", "7": "0171090503",
    "8": "3649494936", "9": "064949291E", "A": "7E0909097E", "B": "7F49494936", "C": "3E41414122",
    "D": "7F4141413E", "E": "7F49494941", "F": "7F09090901", "G": "3E4149493A", "H": "7F0808087F",
    "I": "00417F4100", "J": "2040413F01", "K": "7F08142241", "L": "7F40404040", "M": "7F020C027F",
    "N": "7F0408107F", "O": "3E4141413E", "P": "7F09090906", "Q": "3E4151215E", "R": "7F09192946",
    "S": "4649494931", "T": "01017F0101", "U": "3F4040403F", "V": "1F2040201F", "W": "7F2018207F",
    "X": "6314081463", "Y": "0708700807", "Z": "6151494543", "a": "2054545478", "b": "7F48444438",
    "c": "3844444400", "d": "384444487F", "e": "3854545418", "f": "087E090102", "g": "0C5252523E",
    "h": "7F08040478", "i": "00447D4000", "j": "2040443D00", "k": "7F10284400", "l": "00417F4000",
    "m": "7C04180478", "n": "7C08040478", "o": "3844444438", "p": "7C14141408", "q": "081414147C",
    "r": "7C08040408", "s": "4854545420", "t": "043F444020", "u": "3C4040207C", "v": "1C2040201C",
    "w": "3C4030403C", "x": "4428102844", "y": "0C5050503C", "z": "4464544C44",
}  # fmt: skip


def width(text: str, scale: int) -> int:
    """Return how many pixels a text is wide."""
    return scale * (ADVANCE * len(text) - 1) if text else 0


def write(
    canvas: Array, text: str, place: tuple[int, int], colour: Array, scale: int = 2, upwards: bool = False
) -> None:
    """Write one line of text.

    Args:
        canvas: Float32 ``[h, w, 3]``.
        text: Letters; those without a glyph are left blank.
        place: Row and column of the top left corner.
        colour: RGB, ``[3]``.
        scale: Pixels a point.
        upwards: Whether the text runs from the bottom to the top, turned by a quarter.
    """
    points = _points(text)
    points = np.rot90(points) if upwards else points
    points = points.repeat(scale, axis=0).repeat(scale, axis=1)
    row, column = place
    points = points[max(-row, 0) :, max(-column, 0) :]
    row, column = max(row, 0), max(column, 0)
    part = canvas[row : row + points.shape[0], column : column + points.shape[1]]
    part[points[: part.shape[0], : part.shape[1]]] = colour


def write_centred(canvas: Array, text: str, centre: Array, colour: Array, scale: int = 2) -> None:
    """Write one line of text with its middle at a point (column, row, pixels); see `write`."""
    row = round(float(centre[1]) - HEIGHT * scale / 2)
    write(canvas, text, (row, round(float(centre[0]) - width(text, scale) / 2)), colour, scale)


@functools.lru_cache(maxsize=512)
def _points(text: str) -> Array:
    """Return bool ``[7, 6 * letters]``."""
    points = np.zeros((HEIGHT, ADVANCE * len(text)), bool)
    for index, letter in enumerate(text):
        columns = np.frombuffer(bytes.fromhex(_GLYPHS.get(letter, _GLYPHS[" "])), np.uint8)
        bits = columns >> np.arange(HEIGHT, dtype=np.uint8)[:, None] & 1
        points[:, ADVANCE * index : ADVANCE * index + 5] = bits.astype(bool)
    return points
