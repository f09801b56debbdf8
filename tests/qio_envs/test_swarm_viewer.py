import os
import subprocess
import sys

import numpy as np
import pytest
from swarm_settings import SCENARIOS

from qio_envs import environment, swarm_cooperative_v0, swarm_mixed_v0
from qio_envs.api.drawing import HEAD
from qio_envs.swarm import viewer


def scene_of(**changes):
    values = {
        "task": "cooperative",
        "position": np.array([[0.0, 0.0], [2.5, 2.5]]),
        "velocity": np.zeros((2, 2)),
        "alive": np.array([True, True]),
        "team": np.array([0, 1]),
        "informed": np.array([False, False]),
        "sensing_range": None,
        "target": np.zeros(2),
        "out_radius": 5.0,
        "score": -1.25,
        "step": 3,
        "max_steps": 10,
    }
    values |= changes
    resting = np.repeat(np.asarray(values["position"])[:, None], 16, axis=1)
    return viewer.Scene(**({"trail": resting} | values))


def pixel(picture, x, y, out_radius=5.0):
    half, side = viewer._MARGIN * out_radius, picture.shape[1]
    return picture[HEAD + int((half - y) / (2 * half) * side), int((x + half) / (2 * half) * side)].astype(
        int
    )


@pytest.mark.parametrize(("env_id", "scenario"), SCENARIOS)
def test_pictures_are_bytes_in_colour_and_leave_the_state_alone(env_id, scenario):
    env = environment(env_id).batched_env(2, scenario)
    env.reset(0)
    player = env.scripted_policies["controller"](env)
    for _ in range(10):
        env.step(player.act())
    before = env.get_state()
    for index in range(2):
        picture = env.render(index)
        assert (picture.dtype, picture.shape[1:]) == (np.uint8, (560, 3))
        assert picture.shape[0] in (HEAD + 560 + 24, HEAD + 560 + 42)
        np.testing.assert_array_equal(picture, env.render(index))
    assert (env.render(0) != env.render(1)).any()
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])


def test_agents_are_where_they_are_in_the_colour_of_their_team():
    picture = viewer.draw(scene_of(position=np.array([[-2.5, 0.0], [2.5, 2.5]]), target=None))
    blue, red = pixel(picture, -2.66, 0), pixel(picture, 2.34, 2.5)
    assert blue[2] > blue[0] + 60  # y points upwards
    assert red[0] > red[2] + 60
    np.testing.assert_array_equal(pixel(picture, 2.5, -2.5), viewer._FLOOR)
    np.testing.assert_array_equal(pixel(picture, 5.2, 5.2), pixel(picture, -5.2, 5.2))
    gone = viewer.draw(scene_of(position=np.array([[-2.5, 0.0], [2.5, 2.5]]), alive=np.array([False, True])))
    assert np.ptp(pixel(gone, -2.66, 0)) < 30  # grey


def test_velocities_target_and_time_are_shown():
    still, moving = (
        viewer.draw(scene_of()),
        viewer.draw(scene_of(velocity=np.array([[0.0, 0.0], [0.8, 0.0]]))),
    )
    changed = (still != moving).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert len(rows) > 20
    assert np.ptp(columns) > np.ptp(rows)
    aimed = viewer.draw(scene_of(target=np.array([-2.0, 1.0])))
    assert pixel(aimed, -2.0, 1.0)[0] > 150  # the middle of the cross
    assert (viewer.draw(scene_of(step=9))[:HEAD] != still[:HEAD]).any()


def test_agents_out_of_the_picture_are_harmless():
    for place in ([-9.0, 0.0], [5.4, 5.4], [0.0, 1e6]):
        scene = scene_of(position=np.array([place, [0.0, 0.0]]))
        assert viewer.draw(scene).shape == viewer.draw(scene_of()).shape
        assert "0" in viewer.draw_text(scene)


def test_text_shows_the_arena_the_target_and_agents_by_number():
    text = viewer.draw_text(scene_of(position=np.array([[-2.5, 0.0], [2.5, 2.5]])))
    *lines, status = text.splitlines()
    assert status == "step 3/10  score -1.2  2 of 2 agents"
    assert len(lines) == 21
    assert lines[10][21] == "+"
    assert lines[10].index("0") == 11
    assert [line.index("1") for line in lines if "1" in line] == [31]
    assert "1" in lines[5]
    text = viewer.draw_text(scene_of(alive=np.array([True, False]), target=None))
    assert text.count("x") == 1
    assert text.endswith("1 of 2 agents")
    assert "+" not in text


def test_who_lives_is_drawn_above_who_left_and_the_first_above_the_rest():
    there = np.zeros((2, 2))
    assert "0" in viewer.draw_text(scene_of(position=there)).splitlines()[10]
    assert "1" in viewer.draw_text(scene_of(position=there, alive=np.array([False, True]))).splitlines()[10]


def test_the_modes_of_the_adapters():
    env = swarm_mixed_v0.parallel_env(render_mode="ansi")
    env.reset(seed=0)
    assert env.render().splitlines()[-1] == "step 0/200  score 0.0  4 of 4 agents"
    env = swarm_cooperative_v0.parallel_env(render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape[1:] == (560, 3)
    with pytest.raises(ValueError, match="mode: expected rgb_array or ansi, got 'svg'"):
        env.batch.render(0, "svg")


def test_pictures_need_no_display_and_no_drawing_library():
    code = (
        "import sys; from qio_envs import swarm_cooperative_v0 as swarm; "
        "env = swarm.parallel_env(render_mode='rgb_array'); env.reset(seed=0); "
        "print(env.render().shape[2], *[name for name in "
        "('pygame', 'matplotlib', 'PIL', 'torch', 'ray') if name in sys.modules])"
    )
    environ = {key: value for key, value in os.environ.items() if "DISPLAY" not in key}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["3"]
