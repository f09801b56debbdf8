"""The plot of losses: a panel a loss, a line a module, over gradient steps where they are counted."""

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from qio_rllib.artifacts.loss_plot import plot_losses


@pytest.fixture
def figures(monkeypatch):
    """Keeps the figures that are saved."""
    kept = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, path: (kept.append(self), save(self, path))
    )
    return kept


def row(steps=None, updates=None, module="m", **losses):
    found = {f"learners/{module}/{name}_loss": value for name, value in losses.items()}
    if steps is not None:
        found["num_env_steps_sampled_lifetime"] = steps
    if updates is not None:
        found[f"learners/{module}/updates_lifetime"] = updates
    return found


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}


def points(axes):
    return {line.get_label(): np.transpose(line.get_data()).tolist() for line in axes.get_lines()}


def test_losses_stand_over_gradient_steps_those_of_pretraining_before_the_others(tmp_path, figures):
    early = [row(updates=32, model=5.0, reward=2.0), row(updates=64, model=4.0, reward=1.5)]
    rows = [{"num_env_steps_sampled_lifetime": 100}, row(200, 70, model=3.0, reward=1.0)]
    assert plot_losses([*early, *rows], tmp_path / "a.png", "drift")
    drawn = panels(figures[0])
    assert list(drawn) == ["model loss", "reward loss"]
    assert points(drawn["model loss"]) == {"m": [[32, 5.0], [64, 4.0], [70, 3.0]]}
    assert points(drawn["reward loss"]) == {"m": [[32, 2.0], [64, 1.5], [70, 1.0]]}
    assert {axes.get_xlabel() for axes in drawn.values()} == {"gradient steps"}
    assert not figures[0].legends
    with Image.open(tmp_path / "a.png") as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_without_counts_they_stand_over_environment_steps_and_each_module_has_a_line(tmp_path, figures):
    rows = [
        row(steps, module="a", policy=-0.1) | row(steps, module="b", policy=0.2, vf=1.0)
        for steps in (100, 200)
    ]
    rows[0]["learners/__all_modules__/total_loss"] = 1.0
    assert plot_losses(rows, tmp_path / "a.png")
    drawn = panels(figures[0])
    assert list(drawn) == ["policy loss", "vf loss"]
    assert points(drawn["policy loss"]) == {"a": [[100, -0.1], [200, -0.1]], "b": [[100, 0.2], [200, 0.2]]}
    assert points(drawn["vf loss"]) == {"b": [[100, 1.0], [200, 1.0]]}
    assert drawn["vf loss"].get_xlabel() == "environment steps"
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["a", "b"]


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert not plot_losses([{"num_env_steps_sampled_lifetime": 100}], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
