import os
import subprocess
import sys

import numpy as np
import pytest

from qio_envs import qubit_control_v0
from qio_envs.api import lettering
from qio_envs.api.drawing import HEAD
from qio_envs.qubit_control import viewer

HEIGHT, WIDTH = 530, 560


def scene_of(**changes):
    values = {
        "state": np.array([1, 0, 0, 0], complex),
        "target": np.array([1, 0, 0, 1]) / np.sqrt(2) + 0j,
        "fidelity": 0.5,
        "best_fidelity": 0.75,
        "success_fidelity": 0.95,
        "last_gate": "CNOT(0,1)",
        "noise_events": None,
        "step": 3,
        "max_steps": 10,
    }
    return viewer.Scene(**(values | changes))


def bar_heights(picture, half, size):
    """Coloured pixels in the middle of each basis state's slot, of the state (0) or the target (1)."""
    middles = (viewer._slots(size)[:-1] + viewer._slots(size)[1:]) / 2
    top = HEAD + half * (viewer._PANEL + viewer._LABELS)
    panel = picture[top : top + viewer._PANEL].astype(int)
    return [int((np.ptp(panel[:, round(middle)], axis=1) > 40).sum()) for middle in middles]


@pytest.mark.parametrize("scenario", qubit_control_v0.scenarios())
def test_pictures_are_bytes_in_colour_and_leave_the_state_alone(scenario):
    env = qubit_control_v0.batched_env(2, scenario)
    env.reset(0)
    env.step([[0], [1]])
    before = env.get_state()
    for index in range(2):
        picture = env.render(index)
        assert (picture.dtype, picture.shape) == (np.uint8, (HEIGHT, WIDTH, 3))
        np.testing.assert_array_equal(picture, env.render(index))
    assert (env.render(0) != env.render(1)).any()
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("qubits", range(1, 7))
def test_every_number_of_qubits_can_be_drawn(qubits):
    env = qubit_control_v0.batched_env(1, "haar", num_qubits=qubits)
    assert env.render().shape == (HEIGHT, WIDTH, 3)  # before the first reset
    env.reset(0)
    assert env.render().shape == (HEIGHT, WIDTH, 3)
    assert len(env.render(mode="ansi").splitlines()) == 2**qubits + 1


def test_bars_are_as_long_as_amplitudes():
    picture = viewer.draw(scene_of())
    tallest = viewer._TALLEST
    assert bar_heights(picture, 0, 4) == pytest.approx([tallest, 0, 0, 0], abs=1)
    assert bar_heights(picture, 1, 4) == pytest.approx([0.707 * tallest, 0, 0, 0.707 * tallest], abs=1)


def test_the_colour_is_the_phase_but_not_the_global_one():
    target = np.array([1, 1j, -1, -1j]) / 2
    picture = viewer.draw(scene_of(state=target, target=target))
    turned = viewer.draw(scene_of(state=target * np.exp(0.9j), target=target * np.exp(-2j)))
    assert np.abs(picture.astype(int) - turned).max() <= 1  # rounding
    row, columns = HEAD + viewer._PANEL - 5, (viewer._slots(4)[:-1] + viewer._slots(4)[1:]) / 2
    colours = [picture[row, round(column)].astype(int) for column in columns]
    assert min(np.abs(a - b).sum() for i, a in enumerate(colours) for b in colours[:i]) > 80
    mirrored = HEAD + viewer._PANEL + viewer._LABELS + 5
    for column, colour in zip(columns, colours, strict=True):
        np.testing.assert_array_equal(picture[mirrored, round(column)], colour)


def test_gate_time_fidelity_and_errors_are_shown():
    first = viewer.draw(scene_of())
    for change, rows in [
        ({"last_gate": "H(0)"}, slice(0, HEAD)),
        ({"step": 4}, slice(0, HEAD)),
        ({"fidelity": 0.6}, slice(-82, None)),
        ({"best_fidelity": 0.8}, slice(-82, None)),
        ({"noise_events": 2}, slice(0, HEAD)),
    ]:
        changed = (viewer.draw(scene_of(**change)) != first).any(axis=(1, 2))
        assert changed[rows].any(), change
        changed[rows] = False
        assert not changed.any()


def test_text_shows_amplitudes_and_phases():
    lines = viewer.draw_text(scene_of(state=np.array([1, 0, 0, -1j]) / np.sqrt(2))).splitlines()
    assert [line[:4] for line in lines[:4]] == ["|00>", "|01>", "|10>", "|11>"]
    assert lines[0].count("#") == 2 * 17
    assert lines[1].split() == ["|01>", "|"]
    assert lines[3].split()[1:] == ["#" * 17, "-0.25", "|", "#" * 17, "+0.00"]
    assert lines[-1] == "gates 3/10  last CNOT(0,1)  fidelity 0.500  best 0.750"
    assert viewer.draw_text(scene_of(noise_events=2, last_gate="")).endswith(
        "last none  fidelity 0.500  best 0.750  errors 2"
    )


def test_every_letter_of_the_gates_names_has_a_glyph():
    for gates in ("clifford", "clifford_t", "rotations"):
        for name in qubit_control_v0.config(num_qubits=6, target="ghz", gates=gates).gate_names:
            assert set(name) <= set(lettering._GLYPHS)
    for text in (
        "last gate",
        "no gate yet",
        "gates",
        "fidelity",
        "best",
        "errors",
        "state",
        "target",
        "|01>",
    ):
        assert set(text) <= set(lettering._GLYPHS)
    assert all(len(glyph) == 10 for glyph in lettering._GLYPHS.values())


def test_letters_are_written_where_they_are_wanted():
    canvas = np.zeros((40, 40, 3), np.float32)
    lettering.write(canvas, "1", (10, 20), np.ones(3, np.float32))
    rows, columns = np.nonzero(canvas[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 23, 22, 27)
    assert lettering.width("H(0)", 2) == 46
    canvas = np.zeros((4, 4, 3), np.float32)
    lettering.write(canvas, "HH", (0, 0), np.ones(3, np.float32))  # what does not fit is cut off
    upwards = np.zeros((40, 40, 3), np.float32)
    lettering.write(upwards, "1", (10, 20), np.ones(3, np.float32), upwards=True)
    rows, columns = np.nonzero(upwards[..., 0])
    assert np.ptp(columns) > np.ptp(rows)


def test_the_modes_of_the_adapters():
    env = qubit_control_v0.gym_env(render_mode="ansi")
    env.reset(seed=0)
    assert env.render().splitlines()[-1] == "gates 0/10  last none  fidelity 0.500  best 0.500"
    env = qubit_control_v0.parallel_env(render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ValueError, match="mode: expected rgb_array or ansi, got 'svg'"):
        env.batch.render(0, "svg")


def test_pictures_need_no_display_and_no_drawing_library():
    code = (
        "import sys; from qio_envs import chsh_v0, qubit_control_v0\n"
        "for environment in (chsh_v0, qubit_control_v0):\n"
        "    env = environment.parallel_env(render_mode='rgb_array'); env.reset(seed=0); print(env.render().shape[2])\n"
        "print(*[name for name in ('pygame', 'matplotlib', 'PIL', 'torch', 'ray') if name in sys.modules])"
    )
    environ = {key: value for key, value in os.environ.items() if "DISPLAY" not in key}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "3"]
