"""Policies against each other: who acts for whom, and the command."""

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image
from toy_strategies import ENV, NAMES, SETTINGS, policy_of

from qio_envs.api import ConfigError
from qio_rllib.acting.team import Team
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.cli import main
from qio_rllib.experiments.tournament import Contestant, tournament
from qio_rllib.sampling.evaluation import evaluation_seeds


def contestants(**given):
    return [Contestant(name, policy_of(number, **given)) for number, name in enumerate(NAMES)]


@pytest.mark.parametrize("together", [True, False])
def test_every_policy_plays_every_team_against_every_policy(together):
    found = tournament(contestants(together=together), ENV, SETTINGS, evaluation_seeds(3))
    assert [(one.policy, one.opponent, one.team) for one in found] == [
        (row, column, team) for row in range(3) for column in range(3) for team in range(2)
    ]
    for one in found:
        gain = 4.0 * [0, 1, -1][(one.policy - one.opponent) % 3]  # paper beats rock, and so on
        np.testing.assert_array_equal(one.own, [gain] * 3)
        np.testing.assert_array_equal(one.others, [-gain] * 3)


def test_what_cannot_take_part_is_named():
    with pytest.raises(ConfigError, match="a tournament needs two policies at least, got 1"):
        tournament(contestants()[:1], ENV, SETTINGS, [1])
    with pytest.raises(ConfigError, match="teams: agent_1 in no team"):
        tournament(contestants(), ENV, SETTINGS, [1], teams=[["agent_0"], []])
    indexed = policy_of(0)
    groups = [dataclasses.replace(group, agent_id=True) for group in indexed.team.groups]
    indexed = dataclasses.replace(indexed, team=Team(groups))
    with pytest.raises(
        ConfigError, match="one of ten: agent_id: the policy was trained for the agents agent_0"
    ):
        tournament([Contestant("one of ten", indexed), *contestants()], ENV, SETTINGS, [1])


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        save_policy(policy_of(number), f"{name}.pt")
    return [f"{name}.pt" for name in NAMES]


def test_the_command_prints_and_writes_who_beats_whom(files, tmp_path, capsys):
    assert main(["tournament", *files, "--episodes", "2", "--out", "out"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[:4] == [
        "matrix_game_v0: 2 episodes of each pair and team, sampled actions",
        "(1) rock.pt",
        "(2) paper.pt",
        "(3) scissors.pt",
    ]
    (row,) = (line for line in out.splitlines() if line.startswith(" (1)") or line.startswith("(1)  "))
    assert row.split()[1:] == ["0.50±0.00", "0.00±0.00", "1.00±0.00", "0", "1500", "0.33", "0.33"]
    assert "effective diversity of the scores: 2.01 of 3 policies" in out  # as many as a cycle has dimensions
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cross_play.png",
        "pairings.csv",
        "ranking.csv",
    ]
    with open("out/pairings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 * 2 * 2
    assert {row["return"] for row in rows if (row["policy"], row["opponent"]) == ("paper.pt", "rock.pt")} == {
        "4.0"
    }
    with Image.open("out/cross_play.png") as picture:
        assert min(picture.size) > 300
    assert main(["tournament", *files, "--out", "out"]) == 2
    assert capsys.readouterr().err == "rllib: --out: out exists already\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rock.pt"], "a tournament needs two policies at least, got 1"),
        (["rock.pt", "water.pt"], "water.pt"),
        (
            ["rock.pt", "paper.pt", "--teams", '[["agent_0"], ["player"]]'],
            "teams: there is no agent 'player'; allowed: ",
        ),
        (["rock.pt", "paper.pt", "--teams", "[["], "--teams: not valid JSON"),
        (["rock.pt", "paper.pt", "--teams", '["agent_0"]'], "--teams: expected lists of agents, such as"),
        (["rock.pt", "paper.pt", "--episodes", "0"], "--episodes"),
        (["rock.pt", "policy:forest_uav_ppo"], "cannot play in the environment of rock.pt: "),
    ],
)
def test_bad_input_is_one_line(files, arguments, message, capsys):
    assert main(["tournament", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
