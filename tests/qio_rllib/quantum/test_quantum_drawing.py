import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_rllib.quantum import GATES, Circuit, draw, draw_text, feature, reuploading_circuit, weight
from qio_rllib.quantum.gates import ROTATIONS, num_qubits_of


def many_kinds():
    return (
        Circuit(4)
        .add("H", 0)
        .add("TOFFOLI", 0, 3, 1)
        .add("SWAP", 1, 3)
        .add("CRX", 2, 0, angle=2 * weight(3))
        .add("RZZ", 0, 2, angle=-weight(1))
        .add("RY", 1, angle=0.5)
        .add("SDG", 3)
        .add("CZ", 0, 3)
        .add("PHASE", 2, angle=0.25 * feature(10))
        .unitary(np.eye(4), 3, 1)
        .add("CY", 3, 2)
        .add("TDG", 1)
    )


def test_text_of_a_small_circuit():
    circuit = Circuit(2).add("RY", 0, angle=feature(0)).add("CNOT", 0, 1)
    circuit.add("RX", 1, angle=2 * weight(3)).add("H", 0)
    expected = """
0: ──RY(x0)──●─────H──────
             │
1: ──────────⊕──RX(2*w3)──
"""
    assert draw_text(circuit) == expected.strip("\n")


def test_text_that_wraps():
    expected = """
0: ──H──●─────RX(2*w3)──RZZ(-w1)── ···
        │        │         │
1: ─────⊕──x─────┼─────────┼────── ···
        │  │     │         │
2: ─────┼──┼─────●──────RZZ(-w1)── ···
        │  │
3: ─────●──x─────S†─────────────── ···

0: ··· ────────────●─────────────────────────
                   │
1: ··· ──RY(0.50)──┼───────────────U[1]──T†──
                   │                │
2: ··· ────────────┼──P(0.25*x10)───┼────Y───
                   │                │    │
3: ··· ────────────●───────────────U[0]──●───
"""
    assert draw_text(many_kinds(), width=50) == expected.strip("\n")
    assert "···" not in draw_text(many_kinds())


def test_text_without_gates():
    assert draw_text(Circuit(2)) == "0: ────\n\n1: ────"
    assert draw_text(Circuit(1)) == "0: ────"


def test_wires_stay_straight_with_two_digits():
    lines = draw_text(Circuit(12).add("H", 0).add("CNOT", 9, 11)).split("\n")
    assert lines[0] == " 0: ──H──"
    assert lines[18] == " 9: ──●──"
    assert lines[19] == lines[21] == "      │"
    assert lines[20] == "10: ──┼──"
    assert lines[22] == "11: ──⊕──"


@settings(max_examples=30, deadline=None)
@given(
    num_qubits=st.integers(3, 5), size=st.integers(0, 25), width=st.integers(40, 90), seed=st.integers(0, 999)
)
def test_text_fits_and_shows_every_gate(num_qubits, size, width, seed):
    rng = np.random.default_rng(seed)
    circuit = Circuit(num_qubits)
    for index in range(size):
        name = str(rng.choice(GATES))
        qubits = rng.permutation(num_qubits)[: num_qubits_of(name)].tolist()
        circuit.add(name, *qubits, angle=weight(index) if name in ROTATIONS else None)
    lines = draw_text(circuit, width).split("\n")
    assert max(map(len, lines)) <= width
    blocks = "\n".join(lines).split("\n\n")
    text = "\n".join(lines)
    for index, operation in enumerate(circuit.operations):
        if operation.name in ROTATIONS:
            boxes = 2 if operation.name in ("RXX", "RYY", "RZZ") else 1
            assert len(re.findall(rf"\(w{index}\)", text)) == boxes
    for block in blocks if num_qubits > 1 else ():
        wires = [line for line in block.split("\n") if re.match(r"\s*\d+: ", line)]
        assert len({len(line) for line in wires}) <= 1


def pixels(path):
    image = pytest.importorskip("matplotlib.image")
    return image.imread(path)[..., :3]


def test_picture_is_written(tmp_path):
    path = tmp_path / "new" / "circuit.png"
    draw(reuploading_circuit(4, 2, 4), path)
    image = pixels(path)
    height, width = image.shape[:2]
    assert width > 3 * height > 600
    for colour in ("#cfe3f5", "#f9d9a8"):  # weights and features
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(image - wanted).max(-1) < 0.02).mean() > 0.01
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):  # nothing is cut off
        assert (edge == 1.0).all()


def test_picture_goes_on_below(tmp_path):
    draw(many_kinds(), tmp_path / "long.png")
    draw(many_kinds(), str(tmp_path / "wrapped.png"), columns=4)
    long, wrapped = (pixels(tmp_path / f"{name}.png").shape for name in ("long", "wrapped"))
    assert wrapped[1] < 0.7 * long[1]
    assert wrapped[0] > 1.8 * long[0]
    draw(Circuit(1), tmp_path / "empty.png")
    assert (pixels(tmp_path / "empty.png") < 0.5).any()


def test_picture_on_axes_of_a_figure():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    draw(Circuit(2).add("RY", 0, angle=feature(0)).add("CNOT", 0, 1), axes)
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["|0⟩", "|0⟩", "RY", "x0"]
    assert len(axes.patches) == 3  # a box, a dot, a circle


def test_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="width: expected an integer of at least 40, got 39"):
        draw_text(Circuit(1), width=39)
    with pytest.raises(ValueError, match="columns: expected an integer of at least 1, got 0"):
        draw(Circuit(1), tmp_path / "x.png", columns=0)
