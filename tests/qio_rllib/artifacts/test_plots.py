import subprocess
import sys

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from qio_rllib.artifacts.plot_style import Series, plot_series, spread
from qio_rllib.artifacts.plots import plot_entropy, plot_learning_curve

ROWS = [
    {
        "training_iteration": i,
        "num_env_steps_sampled_lifetime": 1000 * i,
        "env_runners/team_return": 300.0 + i,
        "env_runners/episode_return_mean": 1.0,
        "learners/shared/normalized_entropy": 1 / i,
        "learners/shared/alpha": 0.02 / i,
        **(
            {"evaluation/greedy/team_return": 350.0 + i, "evaluation/sampled/team_return": 340.0}
            if i % 2 == 0
            else {}
        ),
    }
    for i in range(1, 9)
]


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
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_learning_curve_shows_training_evaluations_and_references(tmp_path, figures):
    path = tmp_path / "curve.png"
    assert plot_learning_curve(ROWS, path, {"random": 310.0, "lawnmower": 400.0}, "forest")
    (axes,) = figures[0].axes
    drawn = lines(axes)
    assert drawn["training"].get_ydata().tolist() == [300.0 + i for i in range(1, 9)]
    assert drawn["without exploration"].get_xdata().tolist() == [2000, 4000, 6000, 8000]
    assert drawn["without exploration"].get_ydata().tolist() == [352.0, 354.0, 356.0, 358.0]
    names = {"training", "without exploration", "sampled actions", "scripted: random", "scripted: lawnmower"}
    assert {text.get_text() for text in axes.texts} == names
    assert "greedy" not in {text.get_text() for text in axes.texts}  # that is a scripted policy
    assert {400.0, 310.0} <= {line.get_ydata()[0] for line in axes.get_lines()}
    assert axes.get_ylabel() == "team return"
    with Image.open(path) as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_labels_of_equal_references_do_not_overlap(tmp_path, figures):
    plot_learning_curve(ROWS, tmp_path / "curve.png", {"a": 300.0, "b": 300.0, "c": 300.1})
    (axes,) = figures[0].axes
    places = sorted(text.xy[1] for text in axes.texts)
    assert min(np.diff(places)) > 0.03


def test_the_entropy_plot_has_two_axes(tmp_path, figures):
    assert plot_entropy(ROWS, tmp_path / "entropy.png")
    left, right = figures[0].axes
    assert lines(left)["entropy"].get_ydata().tolist() == [1 / i for i in range(1, 9)]
    assert lines(right)["alpha"].get_ydata().tolist() == [0.02 / i for i in range(1, 9)]
    assert right.get_ylim()[0] <= 0
    assert right.get_ylim()[1] > 0.02
    assert "entropy floor" not in lines(left)


def test_each_module_has_its_own_entropy_line(tmp_path, figures):
    rows = [{**row, "learners/other/normalized_entropy": 0.5} for row in ROWS]
    plot_entropy(rows, tmp_path / "entropy.png")
    assert set(lines(figures[0].axes[0])) == {"entropy, shared", "entropy, other"}


def test_nothing_is_drawn_of_nothing(tmp_path):
    rows = [{"training_iteration": 1, "num_env_steps_sampled_lifetime": 1000}]
    assert not plot_learning_curve(rows, tmp_path / "a.png")
    assert not plot_entropy(rows, tmp_path / "b.png")
    assert not plot_learning_curve([], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_artifacts_imports_neither_ray_nor_matplotlib():
    code = (
        "import sys, qio_rllib, qio_rllib.cli, qio_rllib.artifacts.plots, qio_rllib.artifacts.video, "
        "qio_rllib.artifacts.run_directory, qio_rllib.artifacts.progress_file; "
        "print(sorted({'ray', 'torch', 'matplotlib', 'PIL', 'tensorboardX'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_entropy_floor_is_drawn_and_named_where_there_is_one(tmp_path, figures):
    plot_entropy(ROWS, tmp_path / "entropy.png", floor=0.05)
    axes = figures[0].axes[0]
    assert set(lines(axes)["entropy floor"].get_ydata()) == {0.05}
    assert "floor h_min = 0.05" in {text.get_text() for text in axes.texts}


def test_series_show_seeds_interval_and_names_at_their_ends(tmp_path, figures):
    steps, middle = np.arange(5) * 1000, np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    several = Series("PPO", steps, middle, middle - 1, middle + 1, 5, "mean, min to max")
    plot_series([several, Series("A2C", steps, middle / 2)], tmp_path / "a.png", "return", title="on x")
    (axes,) = figures[0].axes
    assert axes.get_title(loc="left") == "PPO: 5 seeds (mean, min to max)"
    assert lines(axes)["PPO"].get_ydata().tolist() == [1, 2, 4, 5]
    (band,) = axes.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert (low, high) == (0, 6)
    colors = {text.get_text(): text.get_color() for text in axes.texts}
    assert colors == {name: lines(axes)[name].get_color() for name in ("PPO", "A2C")}
    assert len(set(colors.values())) == 2
    assert figures[0].get_suptitle() == "on x"


@pytest.mark.parametrize("places", [[0.1, 0.1, 0.1], [0.0, 0.5, 1.0], [0.2, 0.21, 0.9, 0.91]])
def test_labels_keep_their_order_their_distance_and_their_middle(places):
    found = spread(places, 0.05)
    assert min(np.diff(found)) >= 0.05 - 1e-9
    assert np.mean(found) == pytest.approx(np.mean(places))
    assert spread([0.0, 0.5], 0.05) == [0.0, 0.5]
