"""Figures and GIFs of world models: what is drawn is what was found."""

import itertools

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from qio_rllib.artifacts.imagined_video import Imaginations, line_frames
from qio_rllib.artifacts.world_model_plots import (
    MAX_COMPONENTS,
    plot_calibration,
    plot_episode,
    plot_open_loop,
    plot_trajectories,
    trajectory_figure,
)
from qio_rllib.world_models.diagnostics import LEVELS, Calibration, OpenLoop, Reliability

RNG = np.random.default_rng(0)
ERRORS = RNG.random((4, 3, 20)).astype(np.float32)  # four errors, 3 steps, 20 rows
LOOP = OpenLoop(
    starts=np.zeros(20, int),
    sequences=np.arange(20),
    counted=np.ones((3, 20), bool),
    predicted=np.zeros((3, 20, 2), np.float32),
    predicted_rewards=np.zeros((3, 20), np.float32),
    obs=ERRORS[0],
    reward=ERRORS[1],
    obs_persistence=ERRORS[2],
    reward_persistence=ERRORS[3],
)
FOUND = Calibration(
    components=np.array([0, 2]),
    obs_shares=np.stack([np.array(LEVELS) ** 2, np.array(LEVELS)], axis=1),
    reward_shares=np.full(9, np.nan),
    continuation=Reliability(np.array([0.4, 0.99]), np.array([0.5, 1.0]), np.array([10, 1990])),
    count=2000,
)
REAL = np.cumsum(RNG.standard_normal((11, 8)), axis=0) * 10.0 ** np.arange(8)  # the last deviate most
SHOWN = Imaginations(REAL, (2, 5), (REAL[3:6] + 1, REAL[6:10] - 1))


@pytest.fixture
def figures(monkeypatch):
    """Keeps the figures that are saved."""
    kept = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, path: (kept.append(self), save(self, path))
    )
    return kept


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.get_lines()}


def test_errors_are_drawn_with_their_bands_beside_persistence(tmp_path, figures):
    plot_open_loop(LOOP, tmp_path / "a.png", "drift")
    for axes, name in zip(figures[0].axes, ("obs", "reward"), strict=True):
        baseline, model = axes.get_lines()
        np.testing.assert_array_equal(baseline.get_ydata(), LOOP.band(f"{name}_persistence").mean)
        np.testing.assert_array_equal(model.get_ydata(), LOOP.band(name).mean)
        assert model.get_xdata().tolist() == [1, 2, 3]
        edges = axes.collections[1].get_paths()[0].vertices[:, 1]
        assert {*LOOP.band(name).low, *LOOP.band(name).high} <= {*edges}
        assert axes.get_ylim()[0] == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1260, 585)


def test_shares_are_drawn_beside_the_diagonal(tmp_path, figures):
    plot_calibration(FOUND, tmp_path / "a.png")
    left, right = figures[0].axes
    drawn = lines(left)
    np.testing.assert_allclose(drawn["observation"], [0, *FOUND.obs_shares.mean(1), 1])
    np.testing.assert_allclose(drawn["each component"], [0, *FOUND.obs_shares[:, 0], 1])
    assert list(drawn["calibrated"]) == [0, 1]
    assert "reward" not in drawn  # all rewards are equal
    assert right.collections[0].get_offsets().tolist() == [[0.4, 0.5], [0.99, 1.0]]
    assert [text.get_text() for text in right.texts] == ["10", "1,990"]
    names = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert names == ["calibrated", "each component", "observation", "continuation"]


def test_imagined_lines_begin_where_the_real_one_is(tmp_path, figures):
    names = [f"x{i}" for i in range(8)]
    plot_trajectories(REAL, SHOWN.starts, SHOWN.imagined, tmp_path / "a.png", names)
    assert [axes.get_ylabel() for axes in figures[0].axes] == names[-MAX_COMPONENTS:]
    real, first, second, starts = figures[0].axes[0].get_lines()
    component = REAL[:, 8 - MAX_COMPONENTS]
    np.testing.assert_array_equal(real.get_ydata(), component)
    np.testing.assert_array_equal(first.get_xdata(), [2, 3, 4, 5])
    np.testing.assert_array_equal(first.get_ydata(), [component[2], *(component[3:6] + 1)])
    np.testing.assert_array_equal(second.get_ydata(), [component[5], *(component[6:10] - 1)])
    np.testing.assert_array_equal(starts.get_ydata(), component[[2, 5]])
    assert real.get_linestyle() == "-"
    assert first.get_linestyle() == "--"


@pytest.mark.parametrize(
    "actions", [RNG.uniform(-1, 1, (10, 2)), RNG.integers(0, 9, 10)], ids=["box", "discrete"]
)
def test_an_episode_is_what_was_seen_done_and_paid(tmp_path, figures, actions):
    rewards = -np.arange(10.0)
    plot_episode(REAL, actions, rewards, tmp_path / "a.png", [f"x{i}" for i in range(8)], "drift")
    states, acted, paid, total = figures[0].axes
    assert list(lines(states)) == [f"x{i}" for i in range(8)][-MAX_COMPONENTS:]
    np.testing.assert_array_equal(lines(states)["x7"], REAL[:, 7])
    done = actions if actions.ndim == 1 else actions[:, 1]
    np.testing.assert_array_equal(lines(acted)["action" if actions.ndim == 1 else "action[1]"], done)
    np.testing.assert_array_equal(lines(paid)["reward"], rewards)
    assert paid.get_lines()[0].get_xdata()[0] == 1  # with the step that it belongs to
    np.testing.assert_array_equal(lines(total)["return so far"], [0, *np.cumsum(rewards)])
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_what_is_imagined_at_a_step():
    assert SHOWN.last == 9
    for step, ahead, steps in ((0, 0, 0), (2, 0, 0), (3, 1, 3), (5, 3, 3), (6, 1, 4), (9, 4, 4)):
        obs, *found = SHOWN.at(step)
        assert found == [ahead, steps]
        np.testing.assert_array_equal(obs, REAL[step] + (0 if not ahead else 1 if step <= 5 else -1))


def test_lines_grow_a_step_a_frame():
    frames = line_frames(SHOWN, [f"x{i}" for i in range(8)])
    assert len(frames) == 10
    assert len({frame.shape for frame in frames}) == 1
    drawn = [int((frame < 128).any(axis=-1).sum()) for frame in frames]
    assert all(after > before for before, after in itertools.pairwise(drawn))
    assert len(line_frames(Imaginations(np.ones((400, 1)), (1,), (np.ones((398, 1)),)), ["x"])) == 100


def test_one_component_has_one_panel():
    figure, drawn = trajectory_figure(
        REAL[:, :1], SHOWN.starts, [part[:, :1] for part in SHOWN.imagined], ["x"]
    )
    assert len(figure.axes) == 1
    assert len(drawn) == 4
