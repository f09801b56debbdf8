"""What the pictures of all environments share: step and score in words, legends, one picture for one state."""

import numpy as np
import pytest

import qio_envs
from qio_envs import environment, forest_uav_v0, swarm_cooperative_v0
from qio_envs.api import lettering
from qio_envs.api.drawing import (
    BACKGROUND,
    GAP,
    HEAD,
    LEGEND_ROW,
    MARK,
    MESSAGE_HIGH,
    MESSAGE_LOW,
    QUIET,
    TEXT,
    draw_message,
    gauges,
    legend,
    scale_bar,
    thin_line,
)
from qio_envs.forest_uav import viewer

RED = np.array([255.0, 0, 0], np.float32)


def found(picture, text, colour, scale=2):
    """Rows and columns where a text stands in a colour, every point of it and no other."""
    points = lettering._points(text)[:, :-1].repeat(scale, 0).repeat(scale, 1)
    mask = (np.asarray(picture, int) == colour.astype(int)).all(axis=-1)
    height, width = points.shape
    windows = np.lib.stride_tricks.sliding_window_view(mask, points.shape)
    return np.argwhere((windows == points).reshape(*windows.shape[:2], height * width).all(axis=-1))


def played(env_id, steps, envs=2):
    env = environment(env_id).batched_env(envs)
    env.reset(5)
    policy = env.scripted_policies["random"](env)
    for _ in range(steps):
        env.step(policy.act())
    return env


@pytest.mark.parametrize("env_id", sorted(qio_envs.environments()))
def test_the_step_stands_in_words_and_the_picture_follows_from_the_state(env_id):
    env = played(env_id, 1)
    picture = env.render(1)
    assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
    head = picture[:HEAD]
    word = next(word for word in ("step", "round", "gates") if len(found(head, word, TEXT)))
    assert len(found(head, f"{word} 1/", TEXT)) == 1
    assert len(found(head, f"{word} 0/", TEXT)) == 0
    again = environment(env_id).batched_env(2)
    again.set_state(env.get_state())
    np.testing.assert_array_equal(again.render(1), picture)
    single = environment(env_id).batched_env(1)
    single.set_state({name: array[1:] for name, array in env.get_state().items()})
    np.testing.assert_array_equal(single.render(0), picture)


@pytest.mark.parametrize(
    ("env_id", "texts"),
    [
        ("forest_uav_v0", ("not monitored", "sensed by a UAV", "radio in this step", "beliefs of UAV 0")),
        ("swarm_mixed_v0", ("team A, scored", "team B", "velocity", "has left")),
        ("chsh_v0", ("question", "answer", "classical 0.75", "entangled 0.8536")),
        ("greedy_casino_v0", ("intuition 0.15", "best 0.45", "drunk (hidden)")),
        ("skirmish_v0", ("ally", "enemy", "attacks")),
        ("mpe_tag_v0", ("agent", "adversary", "landmark")),
        ("qubit_control_v0", ("state, magnitude", "target, magnitude", "phase")),
    ],
)
def test_legends_name_what_is_shown(env_id, texts):
    picture = played(env_id, 1).render(0)
    for text in texts:
        assert len(found(picture, text, QUIET)) == 1, text


def test_the_coverage_of_the_forest_stands_in_words():
    env = played("forest_uav_v0", 12)
    coverage = f"coverage {env.info()['coverage'][0]:.1%}"
    assert len(found(env.render(0)[:HEAD], coverage, TEXT)) == 1


def test_radio_links_are_drawn_in_the_step_of_the_exchange_alone():
    env = forest_uav_v0.batched_env(1, num_uavs=2, comm_budget=0.5)
    env.reset(0)
    scenes = []

    def kept(scene):
        scenes.append(scene)
        return viewer_draw(scene)

    viewer_draw, viewer.draw = viewer.draw, kept
    try:
        for _ in range(4):
            env.step(np.zeros((1, 2), int))
            env.render(0)
    finally:
        viewer.draw = viewer_draw
    assert [scene.links.tolist() for scene in scenes] == [[], [[0, 1]], [], [[0, 1]]]


def forest_scene(**changes):
    values = {
        "vegetation": np.full((20, 20), 0.5, np.float32),
        "blocked": np.zeros((20, 20), bool),
        "monitored": np.zeros((20, 20), bool),
        "believed": np.zeros((20, 20), bool),
        "position": np.array([[2, 2], [12, 12]]),
        "links": np.empty((0, 2), int),
        "sensing_radius": 2,
        "step": 3,
        "max_steps": 10,
    }
    return viewer.Scene(**(values | changes))


def cells_changed(one, other):
    """Cells of the forest's map that differ."""
    top = HEAD + GAP
    changed = (one != other).any(axis=2)[top : top + 480]
    return changed.reshape(20, 24, 20, 24).any(axis=(1, 3))


def test_a_link_a_move_and_a_belief_change_the_forest_where_they_should():
    plain = viewer.draw(forest_scene())
    linked = cells_changed(plain, viewer.draw(forest_scene(links=np.array([[0, 1]]))))
    assert linked[5:10, 5:10].diagonal().all()
    assert not linked[0:2].any()
    moved = cells_changed(plain, viewer.draw(forest_scene(position=np.array([[2, 2], [12, 13]]))))
    assert moved[12, 12]
    assert moved[12, 13]
    assert not moved[:9].any()
    assert not moved[:, :9].any()
    monitored = np.zeros((20, 20), bool)
    monitored[6, 7] = True
    known, missed = (
        viewer.draw(forest_scene(monitored=monitored, believed=b)) for b in (monitored, ~monitored)
    )
    assert not cells_changed(known, missed).any()
    below = HEAD + GAP + 480
    assert (known[below:] != missed[below:]).any()
    orange = (missed[below:, :226] == viewer._MISSED.astype(np.uint8)).all(axis=2)
    assert orange.sum() == 11 * 11  # one cell of the smaller map
    assert found(plain, "1", np.full(3, 255.0))[:, 0].tolist()  # the number of UAV 1


def test_the_trail_of_a_swarm_is_where_agents_were():
    env = swarm_cooperative_v0.batched_env(2, max_steps=50)
    env.reset(3)
    policy = env.scripted_policies["controller"](env)
    places = [env.arrays.body[..., :2].copy()] * 16
    for step in range(1, 21):
        env.step(policy.act())
        places = [*places[1:], env.arrays.body[..., :2].copy()]
        ordered = np.roll(env.arrays.trail, -1 - step, axis=2)
        np.testing.assert_array_equal(ordered, np.stack(places, axis=2))
    state = env.get_state()
    state["trail"][0, 0, 20 % 16] += 0.5
    with pytest.raises(ValueError, match="trail"):
        env.set_state(state)


def test_gauges_fill_their_bars_and_share_the_width():
    picture = gauges(400, ("a 1", 0.25, RED), ("b 2", None, RED))
    assert picture.shape == (HEAD, 400, 3)
    filled = (picture == RED).all(axis=-1).any(axis=0)
    assert filled.nonzero()[0].tolist() == list(range(GAP, GAP + round(0.25 * 188)))
    assert found(picture, "a 1", TEXT)[0, 1] < 200 < found(picture, "b 2", TEXT)[0, 1]


def test_legends_go_on_in_the_next_row_and_keep_their_marks():
    entries = [(kind, RED, "name") for kind in ("cell", "frame", "disc", "square", "ring", "line", "cross")]
    wide, narrow = legend(2000, entries), legend(100, entries)
    assert wide.shape == (LEGEND_ROW + GAP, 2000, 3)
    assert narrow.shape == (7 * LEGEND_ROW + GAP, 100, 3)
    for row in range(7):
        mark = narrow[row * LEGEND_ROW : (row + 1) * LEGEND_ROW, :24]
        assert (mark[..., 0] > 120).any(), entries[row][0]
    wide[:] = 0
    assert (legend(2000, entries)[-1, -1] == BACKGROUND).all()  # what is kept is not the caller's


def test_marks_of_an_axis_stand_at_their_places_with_their_names():
    picture = scale_bar(480, "share 0.5", 0.5, RED, ((0.25, "low"), (1.0, "high")))
    columns = np.flatnonzero((picture == MARK).all(axis=-1).any(axis=0))
    assert columns.tolist() == [GAP + 117 - 1, GAP + 117, GAP + 468 - 1, GAP + 468]
    assert found(picture, "low", QUIET)[0, 1] > GAP + 117
    assert found(picture, "high", QUIET)[0, 1] < GAP + 468


@pytest.mark.parametrize("end", [(30.0, 11.0), (12.0, 35.0), (-20.0, 5.0), (20.0, 20.0)])
def test_thin_lines_join_their_ends_and_stay_on_the_canvas(end):
    canvas = np.zeros((40, 40, 3), np.float32)
    start, end = np.array([5.5, 6.5]), np.array(end)
    thin_line(canvas, np.ones(3, np.float32), start, end)
    rows, columns = np.nonzero(canvas[..., 0] > 0.05)
    assert len(rows)
    along = (end - start) / np.linalg.norm(end - start)
    away = np.abs((columns + 0.5 - start[0]) * along[1] - (rows + 0.5 - start[1]) * along[0])
    assert away.max() < 1.5
    assert canvas[6, 5].max() > 0.5


# --- messages ------------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_message_are_cells_from_left_to_right():
    canvas = np.zeros((20, 40, 3), np.float32)
    draw_message(canvas, np.array([-1.0, 0.0, 1.0, 7.0]), np.array([20, 10]))
    cells = canvas[10, [4 + 4, 4 + 12, 4 + 20, 4 + 28]]
    np.testing.assert_array_equal(cells[[0, 2, 3]], [MESSAGE_LOW, MESSAGE_HIGH, MESSAGE_HIGH])
    assert np.ptp(cells[1]) == 0  # 0 is grey
    assert (canvas[10, [0, 1, 38, 39]] == 0).all()
    half = np.zeros((20, 40, 3), np.float32)
    draw_message(half, np.array([0.5]), np.array([20, 10]))
    np.testing.assert_allclose(half[10, 20], (cells[1] + MESSAGE_HIGH) / 2)


@pytest.mark.parametrize("middle", [(-3, 10), (43, 10), (20, -2), (20, 21), (-90, 10), (20, 90)])
def test_of_a_message_at_the_edge_what_lies_inside_is_drawn(middle):
    middle = np.array(middle)
    canvas, larger = np.zeros((20, 40, 3), np.float32), np.zeros((220, 240, 3), np.float32)
    draw_message(canvas, np.array([-1.0, 0.2, 1.0]), middle)
    draw_message(larger, np.array([-1.0, 0.2, 1.0]), middle + 100)
    np.testing.assert_array_equal(canvas, larger[100:120, 100:140])


@pytest.mark.parametrize("env_id", ["swarm_cooperative_v0", "forest_uav_v0", "mpe_spread_v0", "skirmish_v0"])
def test_messages_are_shown_where_agents_talk(env_id):
    env = played(env_id, 3)
    silent = env.render(1)
    env.shown_messages = np.zeros((2, env.num_agents, 2), np.float32)
    env.shown_messages[1] = [-1, 1]
    talking = env.render(1)
    for colour, text in ((MESSAGE_LOW, "message -1"), (MESSAGE_HIGH, "message 1")):
        assert len(found(talking, text, QUIET))
        assert not len(found(silent, text, QUIET))
        cells = [(picture == colour).all(axis=-1).sum() for picture in (silent, talking)]
        assert cells[1] > cells[0] + 14 * 14 + 40  # more than the mark of the legend
    assert not (env.render(0) == MESSAGE_LOW).all(axis=-1)[:400].any()  # each environment its own
    assert env.branch(2).shown_messages is None
    env.reset(5)
    assert env.render(1).shape == talking.shape  # nobody has talked, in a picture of the same size
    assert not (env.render(1)[:400] == MESSAGE_LOW).all(axis=-1).any()
