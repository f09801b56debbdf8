import os
import subprocess
import sys

import numpy as np
import pytest

from qio_envs import forest_uav_v0
from qio_envs.api.drawing import GAP, HEAD
from qio_envs.forest_uav import viewer

TOP = HEAD + GAP  # row in which the map begins


def played(scenario, steps, **settings):
    env = forest_uav_v0.batched_env(2, scenario, **settings)
    env.reset(0)
    generator = np.random.default_rng(0)
    for _ in range(steps):
        env.step(generator.integers(0, 5, (2, env.num_agents)))
    return env


@pytest.mark.parametrize("scenario", forest_uav_v0.scenarios())
def test_pictures_are_bytes_in_colour_and_leave_the_state_alone(scenario):
    env = played(scenario, 10)
    before = env.get_state()
    for index in range(2):
        picture = env.render(index)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert 200 <= picture.shape[1] <= 640
        np.testing.assert_array_equal(picture, env.render(index))
    assert (env.render(0) != env.render(1)).any()
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])


def test_pictures_need_no_display_and_no_drawing_library():
    code = (
        "import sys; from qio_envs import forest_uav_v0; "
        "env = forest_uav_v0.parallel_env(render_mode='rgb_array'); env.reset(seed=0); "
        "print(env.render().shape[2], 'pygame' in sys.modules, 'matplotlib' in sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if "DISPLAY" not in key}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3", "False", "False"]


def test_text_shows_monitored_cells_obstacles_and_uavs():
    scene = viewer.Scene(
        vegetation=np.zeros((2, 4), np.float32),
        blocked=np.array([[0, 0, 0, 1], [0, 0, 0, 0]], bool),
        monitored=np.array([[1, 1, 0, 0], [0, 0, 1, 0]], bool),
        believed=np.zeros((2, 4), bool),
        links=np.empty((0, 2), int),
        position=np.array([[0, 0], [1, 2], [1, 2]] + [[1, 3]] * 11),
        sensing_radius=1,
        step=3,
        max_steps=10,
    )
    assert viewer.draw_text(scene) == "1 . * #\n* * 2 +\nstep 3/10  coverage 42.9%"


def test_the_text_mode_of_the_adapters():
    env = forest_uav_v0.parallel_env("sprint", render_mode="ansi")
    env.reset(seed=0)
    lines = env.render().splitlines()
    assert len(lines) == 21
    assert sum(line.count("1") for line in lines[:20]) == 10
    assert lines[20] == "step 0/60  coverage 0.0%"


def test_without_a_mode_render_says_so():
    env = forest_uav_v0.parallel_env()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render\\(\\) was called without a render_mode"):
        assert env.render() is None


def test_an_unknown_mode_is_refused():
    env = played("default", 0)
    with pytest.raises(ValueError, match="mode: expected rgb_array or ansi, got 'svg'"):
        env.render(0, "svg")


def test_the_picture_changes_where_a_uav_was():
    env = played("solo", 0)
    first = env.render(0).astype(int)
    env.step(np.zeros((2, 1), int))
    second = env.render(0).astype(int)
    cell = first.shape[1] // env.config.width
    row, column = env.arrays.position[0, 0] * cell
    changed = (first != second).any(axis=2)[TOP : TOP + env.config.height * cell]
    assert changed.any()
    changed[row : row + cell, column : column + cell] = False
    assert not changed.any()


def test_the_window_of_the_human_mode(monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(pygame.time, "wait", lambda milliseconds: None)
    env = forest_uav_v0.parallel_env("solo", render_mode="human")
    env.reset(seed=0)
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    np.testing.assert_array_equal(shown, env.batch.render())
    assert env.render() is None
    env.step({"uav_0": 1})
    env.close()
    assert not pygame.display.get_init()
    env.close()  # closing twice is harmless
