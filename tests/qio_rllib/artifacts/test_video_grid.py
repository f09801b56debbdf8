"""Episodes side by side, and the command that records them on one seed."""

import numpy as np
import pytest
from PIL import Image

from qio_rllib.artifacts.video_grid import Panel, grid_frames
from qio_rllib.cli import main

SOLO = ["--env", "forest_uav_v0", "--env-config", '{"scenario": "solo", "max_steps": 4}']


def panel(color, steps, height=40, width=60):
    return Panel(
        f"panel {color}", [np.full((height, width, 3), color + step, np.uint8) for step in range(steps)]
    )


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (5, 2, 3)])
def test_panels_stand_in_rows_with_their_labels_above(count, rows, columns):
    frames = grid_frames([panel(100 + 20 * index, 2) for index in range(count)])
    assert len(frames) == 2
    assert frames[0].dtype == np.uint8
    assert frames[0].shape == (rows * 78 - 8, columns * 68 - 8, 3)
    for index in range(count):
        row, column = divmod(index, columns)
        top, left = row * 78, column * 68
        for step in range(2):
            part = frames[step][top + 30 : top + 70, left : left + 60]
            assert (part == 100 + 20 * index + step).all()
        assert (frames[0][top : top + 30, left : left + 60] > 150).any()  # letters


def test_an_episode_that_is_over_stays_and_smaller_panels_stand_in_the_middle():
    frames = grid_frames([panel(100, 1, 20, 30), panel(200, 3)])
    assert len(frames) == 3
    assert (frames[2][40:60, 15:45] == 100).all()
    assert (frames[2][30:40, :60] < 60).all()
    assert (frames[2][30:70, 68:] == 202).all()


def test_the_command_records_all_policies_on_the_same_seed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair = ["--scripted", "random", "--scripted", "greedy"]
    assert main(["video", *pair, *SOLO, "--layout", "grid", "--seed", "3", "--out", "a.gif"]) == 0
    out = capsys.readouterr().out
    assert "a.gif: 2 episodes of seed 3" in out
    returns = dict(line.strip().split(": return ") for line in out.splitlines()[1:])
    with Image.open("a.gif") as image:
        assert image.n_frames == 5
        assert image.size[0] > image.size[1]
    for name in ("random", "greedy"):
        assert main(["video", "--scripted", name, *SOLO, "--seed", "3", "--out", f"{name}.gif"]) == 0
        alone = float(capsys.readouterr().out.rpartition("return ")[2])
        assert float(returns[f"scripted: {name}"]) == pytest.approx(alone, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scripted", "random", "--layout", "grid"], "--layout: a grid has 2 to 16 policies, got 1"),
        (
            ["--scripted", "random", "--scripted", "greedy"],
            "one video shows one policy, got 2 (side by side: --layout grid",
        ),
        (["--scripted", "random", "--layout", "row"], "--layout: expected single or grid, got row"),
        (["--scripted", "random", "--scripted", "x", "--layout", "grid"], "no scripted policy 'x'"),
        (["nowhere", "--scripted", "random", "--layout", "grid"], "there is no nowhere"),
    ],
)
def test_bad_grids_are_refused(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["video", *arguments, *SOLO, "--out", "a.gif"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "a.gif").exists()
