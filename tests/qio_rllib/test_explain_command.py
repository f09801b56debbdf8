"""``rllib causal explain``, and ``discover`` and ``effect`` of a policy: what is written, what is refused."""

import json

import numpy as np
import pytest
from PIL import Image
from test_explaining import LSTM
from toy_endless import Endless, register_endless
from toy_policies import toy_policy

from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.cli import main
from qio_rllib.sampling import evaluation


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_policy(toy_policy("drift_control_v0", {"max_steps": 12}, LSTM), "drift.pt")
    save_policy(toy_policy("swarm_cooperative_v0", {"max_steps": 12}, modules=2), "swarm.pt")
    (tmp_path / "log.txt").write_text("a,b\n1,2\n")
    return tmp_path


def test_the_command_writes_a_table_a_picture_and_a_sentence(here, capsys):
    assert (
        main(["causal", "explain", "drift.pt", "--seed", "3", "--step", "6", "--lags", "2", "--out", "e"])
        == 0
    )
    said = capsys.readouterr().out
    assert {path.name for path in (here / "e").iterdir()} == {
        "explanation.csv", "explanation.json", "explanation.png",
    }  # fmt: skip
    rows = read_csv(here / "e" / "explanation.csv")
    shifts = [row["shift"] for row in rows]
    assert shifts == sorted(shifts, reverse=True)
    assert len(rows) == 4 * 3 + 2 * 2
    assert all(row["draws"] == 16 for row in rows)
    described = json.loads((here / "e" / "explanation.json").read_text())
    assert described["sentence"] in said
    assert [row["shift"] for row in described["influences"]] == shifts
    assert (described["step"], described["seed"], described["mode"]) == (6, 3, "greedy")
    with Image.open(here / "e" / "explanation.png") as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 50
    assert "step 6 of the episode of seed 3, greedy" in said


def test_the_same_command_explains_the_same(here):
    for name in ("a", "b"):
        assert main(["causal", "explain", "swarm.pt", "--step", "4", "--sampled", "--out", name]) == 0
    one, other = ((here / name / "explanation.csv").read_bytes() for name in ("a", "b"))
    assert one == other


def test_episodes_that_never_end_are_left_and_the_explanation_says_so(here, capsys, monkeypatch):
    register_endless()
    save_policy(toy_policy("endless"), "endless.pt")
    monkeypatch.setattr(evaluation, "MAX_EPISODE_STEPS", 30)
    monkeypatch.setattr(Endless, "steps", 0)
    assert main(["causal", "explain", "endless.pt", "--episodes", "3", "--seed", "5", "--out", "a"]) == 0
    said = capsys.readouterr().out
    assert "step 15 of the episode of seed 5" in said
    assert (
        "note: the episode of seed 5 was cut after 30 steps (--max-steps): the decision is in the middle"
        in said
    )
    assert "note: 3 of 3 episodes were cut after 30 steps, before their end (--max-steps)" in said
    assert Endless.steps == 30 + 16 + 3 * 30  # its length, up to the decision, and where values come from
    # a decision that is named may come later
    arguments = ["endless.pt", "--episodes", "2", "--max-steps", "7", "--step", "40", "--out", "b"]
    assert main(["causal", "explain", *arguments]) == 0
    notes = json.loads((here / "b" / "explanation.json").read_text())["notes"]
    assert [note for note in notes if "cut" in note] == [
        "2 of 2 episodes were cut after 7 steps, before their end (--max-steps)"
    ]


EXPLAIN = ["explain", "drift.pt", "--out", "e"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*EXPLAIN, "--step", "12"], "--step: the episode of seed 1000000 has 12 steps, expected 0 to 11, got 12"),
        ([*EXPLAIN, "--lags", "0"], "--lags: expected at least 1, got 0"),
        ([*EXPLAIN, "--step", "2", "--lags", "3"], "--lags: 3 steps before step 2 lie before the start"),
        ([*EXPLAIN, "--agent", "agent_7"], "there is no agent 'agent_7' (did you mean 'agent_0'?); allowed: agent_0"),
        ([*EXPLAIN, "--draws", "0"], "--draws"),
        ([*EXPLAIN, "--step", "-1"], "--step"),
        (["explain", "nowhere.pt", "--out", "e"], "there is no nowhere.pt"),
        (["explain", "drift.pt"], "Missing option '--out'"),
        (["explain", "log.txt", "--out", "e"], "log.txt"),
        (["explain", ".", "--out", "e"], "is no checkpoint of an RLlib algorithm"),
        (["discover", "log.txt"], "log.txt"),
        (["explain", "drift.pt", "--out", "drift.pt"], "--out: drift.pt exists already"),
        (["discover", "swarm.pt"], "--agent: the modules m0, m1 act for different agents; say whose steps"),
        (["discover", "swarm.pt", "--agent", "x"], "--agent: there is no agent 'x'"),
        (["discover", "drift.pt", "--interventions"], "--interventions: a policy's experience is what it is"),
        (["discover", "drift_control_v0", "--agent", "x"], "--agent: for runs, checkpoints and policy files alone"),
        (["effect", "drift.pt", "--treatment", "a0", "--outcome", "s0"], "s0"),
        (["effect", "swarm.pt", "--agent", "agent_0", "--treatment", "action[0]", "--outcome", "reward"],
         "Missing option '--graph'"),
        (["effect", "drift.pt", "--treatment", "a0", "--outcome", "s0'", "--hidden", "s1"], "--hidden: needs --graph"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_no_trace(here, capsys, arguments, message):
    assert main(["causal", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert {path.name for path in here.iterdir()} == {"drift.pt", "swarm.pt", "log.txt"}
