import numpy as np
import pytest
from mpe_settings import IDS

from qio_envs import environment, mpe_spread_v0
from qio_envs.api.drawing import HEAD
from qio_envs.mpe import viewer


def scene_of(**changes):
    values = {
        "position": np.array([[-0.5, 0.0], [0.5, 0.5], [0.5, -0.5]]),
        "velocity": np.zeros((2, 2)),
        "radius": np.array([0.1, 0.1, 0.05]),
        "adversary": np.array([True, False]),
        "movable": np.array([True, True]),
        "solid": np.array([True, True, False]),
        "landmark_colour": viewer.PRIMARY[1:2],
        "aims": (),
        "messages": {},
        "names": ("adversary_0", "agent_0"),
        "score": -1.25,
        "step": 3,
        "max_steps": 10,
    }
    return viewer.Scene(**(values | changes))


def pixel(picture, x, y, half=1.25):
    side = picture.shape[1]
    return picture[HEAD + int((half - y) / (2 * half) * side), int((x + half) / (2 * half) * side)].astype(
        int
    )


@pytest.mark.parametrize("env_id", IDS)
def test_pictures_are_bytes_in_colour_and_leave_the_state_alone(env_id):
    env = environment(env_id).batched_env(2)
    env.reset(0)
    before = env.get_state()
    for index in range(2):
        picture = env.render(index)
        assert (picture.dtype, picture.shape[1:]) == (np.uint8, (560, 3))
        assert picture.shape[0] in (HEAD + 560 + 24, HEAD + 560 + 42)
    assert (env.render(0) != env.render(1)).any()
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])
    assert env.render(0, "ansi").splitlines()[-1].startswith("step 0/25  score 0.0")


def test_agents_and_landmarks_are_where_they_are_in_their_colours():
    picture = viewer.draw(scene_of())
    red, blue, green = pixel(picture, -0.53, 0), pixel(picture, 0.47, 0.5), pixel(picture, 0.5, -0.5)
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60
    assert green[1] > green[0] + 40
    np.testing.assert_array_equal(pixel(picture, 0, -0.9), viewer._FLOOR)
    np.testing.assert_array_equal(pixel(picture, 1.2, 1.2), pixel(picture, -1.2, 1.2))


def test_goals_velocities_messages_and_time_are_shown():
    still = viewer.draw(scene_of())
    ring = (0.05 + 6 / 224) * np.array([0, 1]) + [0.5, -0.5]  # 224 pixels a unit
    yellow = pixel(viewer.draw(scene_of(aims=((-1, 0),))), *ring)
    assert yellow[:2].min() > yellow[2] + 60
    line = (viewer.draw(scene_of(aims=((0, 0),))) != viewer.draw(scene_of(aims=((-1, 0),)))).any(axis=2)
    assert line.sum() > 100
    moving = viewer.draw(scene_of(velocity=np.array([[1.0, 0.0], [0.0, 0.0]])))
    rows, columns = np.nonzero((moving != still).any(axis=2))
    assert np.ptp(columns) > 30 > np.ptp(rows)
    silent, said = (viewer.draw(scene_of(messages={0: np.array([0.0, loud])})) for loud in (0, 1))
    changed = np.argwhere((silent != said).any(axis=2))
    assert len(changed) > 50
    assert changed.max() < HEAD + 80  # in the corner
    assert (viewer.draw(scene_of(step=9))[:HEAD] != still[:HEAD]).any()


@pytest.mark.parametrize(
    ("env_id", "aims"),
    [
        ("mpe_push_v0", lambda goal: ((-1, goal[0]),)),
        ("mpe_crypto_v0", lambda goal: ((-1, goal[0]),)),  # and not the key
        ("mpe_speaker_listener_v0", lambda goal: ((1, goal[0]),)),
        ("mpe_reference_v0", lambda goal: ((0, goal[1]), (1, goal[0]))),  # each knows the other's
    ],
)
def test_pictures_mark_whose_goal_is_where(env_id, aims):
    env = environment(env_id).batched_env(20)
    env.reset(0)
    for index, goal in enumerate(env.arrays.goal.tolist()):
        assert env.aims(index) == aims(goal)


def test_the_picture_grows_with_who_goes_far():
    far = viewer.draw(scene_of(position=np.array([[-4.0, 0.0], [0.5, 0.5], [0.5, -0.5]])))
    red = pixel(far, -3.95, 0, 4.1)
    assert red[0] > red[2] + 60
    assert "0" in viewer.draw_text(scene_of(position=np.array([[-400.0, 0.0], [0.5, 0.5], [0.5, -0.5]])))


def test_text_shows_agents_by_number_landmarks_by_letter_and_words():
    text = viewer.draw_text(scene_of(aims=((1, 0),), messages={0: np.array([0.0, 1.0]), 1: np.zeros(2)}))
    *lines, status = text.splitlines()
    assert status == "step 3/10  score -1.2  adversary_0 says 1  agent_0 says nothing"
    assert len(lines) == 21
    assert lines[10].index("0") == 12
    assert [line.index("1") for line in lines if "1" in line] == [30]
    assert "A" in lines[14]
    assert "a" in viewer.draw_text(scene_of())


def test_another_mode_is_refused():
    env = mpe_spread_v0.batched_env(1)
    with pytest.raises(ValueError, match="mode: expected rgb_array or ansi, got 'svg'"):
        env.render(0, "svg")
