"""``rllib credit``: what is written, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_diagnose import drift_policy
from toy_central import small_config
from toy_off_policy import config_of as off_policy_config
from toy_policies import toy_policy

from qio_rllib.algorithms import QMIXConfig
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.cli import main

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7, "mask_blocked_moves": True}
FILES = {"advantages.csv", "estimators.csv", "credit.json", "credit.png"}
FEW = ["--states", "4", "--branches", "3"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_policy(toy_policy("forest_uav_v0", FOREST), "forest.pt")
    return tmp_path


def has_picture(path):
    with Image.open(path) as image:
        return len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_of_a_checkpoint_it_writes_tables_and_a_figure_and_says_how_far_estimators_are_off(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    algorithm = small_config(central_value="state", normalize_values=True, lambda_=0.9).build_algo()
    algorithm.train()
    checkpoint = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    (scale,) = algorithm.learner_group._learner._popart.values()
    algorithm.stop()
    assert main(["credit", "checkpoint", *FEW, "--horizon", "5", "--out", "found"]) == 0
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "found").iterdir()} == FILES
    assert has_picture(tmp_path / "found" / "credit.png")
    names = ["GAE", "one-step TD", "return - value", "GAE, counterfactual baseline"]
    table = read_csv(tmp_path / "found" / "estimators.csv")
    assert [row["estimator"] for row in table] == names
    assert all(row["rmse_low"] <= row["rmse"] <= row["rmse_high"] for row in table)
    described = json.loads((tmp_path / "found" / "credit.json").read_text())
    assert (described["gamma"], described["plan"]["seed"]) == (0.99, 1_000_000)
    assert described["summary"]["env_steps"] <= 4 * 4 * 5 * 5  # states, branches, actions, steps
    assert f"{described['summary']['env_steps']:,} environment steps" in said
    rows = read_csv(tmp_path / "found" / "advantages.csv")
    assert {row["agent"] for row in rows} == {"uav_0", "uav_1", "uav_2"}
    for seed in range(1_000_000, 1_000_004):
        mine = [row for row in rows if row["seed"] == seed]
        assert sum(row["taken"] for row in mine) == 1
        assert sum(row["probability"] for row in mine) == pytest.approx(1)
        assert sum(row["probability"] * row["advantage"] for row in mine) == pytest.approx(0, abs=1e-6)
        assert sum("GAE, single" in row for row in mine) == 1
    # Values are in the units of rewards: what is said of an action is not that of a scale of 1.
    from qio_rllib.experiments.credit import Subject

    trained = Subject.of_checkpoint(checkpoint, gamma=0.5).trained
    assert (described["lambda"], trained.lambda_, trained.gamma) == (0.9, 0.9, 0.5)
    (loaded,) = trained.popart.values()
    assert (loaded.mean, loaded.deviation) == (scale.mean, scale.deviation)
    assert scale.deviation != 1


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_values_of_a_team_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    algorithm = small_config(central_value="state", team_reward="mean").build_algo()
    algorithm.save_to_path(str(tmp_path / "runs" / "checkpoint"))
    algorithm.stop()
    assert main(["credit", "runs/checkpoint", *FEW]) == 2
    said = capsys.readouterr().err
    assert "checkpoint: its values are those of the team's return (team_reward)" in said
    assert said.count("\n") == 1


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_what_a_run_of_q_learning_scaled_rewards_by_is_read(tmp_path):
    from qio_rllib.experiments.credit import Subject

    algorithm = off_policy_config("forest", algorithm=QMIXConfig, reward_scale=0.25).build_algo()
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    trained = Subject.of_checkpoint(tmp_path / "checkpoint").trained
    assert trained.reward_scale == 0.25
    assert trained.limits_end


def test_of_a_policy_file_there_are_true_advantages_alone_and_always_the_same(here, capsys):
    for name in ("one", "two"):
        arguments = ["forest.pt", *FEW, "--gamma", "0.9", "--agent", "uav_1", "--given-others"]
        assert main(["credit", *arguments, "--seed", "5", "--out", name]) == 0
    said = capsys.readouterr().out
    assert "no estimators: a policy file has no value network" in said
    assert "given the others' actions" in said
    one, two = ((here / name / "advantages.csv").read_bytes() for name in ("one", "two"))
    assert one == two
    assert has_picture(here / "one" / "credit.png")
    rows = read_csv(here / "one" / "advantages.csv")
    assert {row["agent"] for row in rows} == {"uav_1"}
    assert {row["seed"] for row in rows} == {5, 6, 7, 8}
    assert main(["credit", "forest.pt", *FEW, "--gamma", "0.9", "--seed", "6", "--out", "three"]) == 0
    assert (here / "three" / "advantages.csv").read_bytes() != one


FILE = ["forest.pt", "--gamma", "0.9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*FILE, "--states", "0"], "'--states'"),
        ([*FILE, "--branches", "0"], "'--branches'"),
        ([*FILE, "--horizon", "0"], "'--horizon'"),
        ([*FILE, "--seed", "-1"], "'--seed'"),
        (["forest.pt", "--gamma", "1.5"], "'--gamma'"),
        (["forest.pt"], "--gamma: forest.pt is a policy file, which has no discount; give one"),
        ([*FILE, "--agent", "uav7"], "--agent: there is no agent 'uav7' (did you mean 'uav_2'?); allowed: uav_0"),
        ([*FILE, "--out", "forest.pt"], "--out: forest.pt exists already"),
        ([*FILE, "--out", "no/where"], "--out: no/where is in no directory that exists"),
        (["nowhere"], "checkpoint: there is no nowhere"),
        (["."], "checkpoint: . is no checkpoint of an RLlib algorithm"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_no_trace(here, capsys, arguments, message):
    assert main(["credit", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert {path.name for path in here.iterdir()} == {"forest.pt"}


REFUSED = {
    "gymnasium": (lambda: toy_policy("CartPole-v1"), "checkpoint: CartPole-v1 cannot be branched"),
    "pettingzoo": (
        lambda: toy_policy("mpe2.simple_spread_v3"),
        "checkpoint: mpe2.simple_spread_v3 cannot be branched",
    ),
    "gate noise": (
        lambda: toy_policy("qubit_control_v0", {"gate_noise": 0.1}),
        "checkpoint: qubit_control_v0 has no exact counterfactuals with these settings: ",
    ),
    "continuous": (
        lambda: toy_policy("swarm_cooperative_v0"),
        "checkpoint: 'shared' has continuous actions; every action is tried, so that they have to be discrete",
    ),
    "world model": (
        lambda: drift_policy(actions="discrete"),
        "checkpoint: 'shared' acts by a world model, which has no distribution over actions",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_branched_exactly_is_refused(here, capsys, what):
    policy, message = REFUSED[what]
    save_policy(policy(), "forest.pt")
    assert main(["credit", *FILE]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (here / "credit").exists()


def test_the_table_of_the_page_is_what_the_raw_files_give():
    root = Path(__file__).parents[2]
    runs = {
        "forest, PPO": "forest_uav_ppo",
        "forest, MAPPO": "forest_uav_mappo",
        "swarm, MADDPG": "swarm_maddpg",
        "the same, given the others": "swarm_maddpg_given_others",
    }
    page = (root / "docs" / "credit.md").read_text(encoding="utf-8")
    shown = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    compared = 0
    for label, folder in runs.items():
        expected = []
        for row in read_csv(root / "results" / "credit" / folder / "estimators.csv"):
            cells = []
            for key in ("offset", "distortion", "noise", "rmse", "order"):
                value, low, high = (f"{round(row[key + end], 6):.2g}" for end in ("", "_low", "_high"))
                cells.append(f"{value} ({low} to {high})")
            expected.append([row["estimator"], *cells])
        assert [line[2:] for line in shown if line[0] == label] == expected
        compared += len(expected)
    assert compared == 10
