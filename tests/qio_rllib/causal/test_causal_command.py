"""``rllib causal``: graphs and effects of files and environments, what is written, what is refused."""

import csv
import json

import numpy as np
import pytest

from qio_envs.confounded_control import logged
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.causal import information
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.scm import StructuralModel
from qio_rllib.cli import main

QUICK = information.InformationSettings(hiddens=(32,), updates=500)
GRAPH = "u->a, u->y, z->a, a->m, m->y"
MODEL = StructuralModel.linear(
    CausalGraph([tuple(part.strip().split("->")) for part in GRAPH.split(",")]),
    {"a": {"u": -1.0, "z": 1.0}, "m": {"a": 1.0}, "y": {"m": 0.5, "u": 1.0}},
    {"u": 0.5, "z": 0.5, "a": 0.1, "m": 0.3, "y": 0.1},
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("log.csv", "w", newline="") as file:
        columns = MODEL.sample(2000, np.random.default_rng(0))
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return tmp_path


def test_a_graph_is_found_in_a_file_and_written(here, capsys):
    assert main(["causal", "discover", "log.csv", "--alpha", "0.01", "--out", "found"]) == 0
    text = capsys.readouterr().out
    assert "log.csv, 2,000 rows, 5 variables" in text
    assert "a <- u, z" in text
    described = json.loads((here / "found" / "graph.json").read_text())
    assert ["z", "a"] in described["edges"]
    with open(here / "found" / "edges.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["cause"], row["effect"]) for row in rows} >= {("u", "a"), ("z", "a")}
    assert all(float(row["p_value"]) < 0.01 for row in rows)
    assert (here / "found" / "graph.png").stat().st_size > 1000
    # the graph that was written serves as one to estimate by
    assert (
        main(
            [
                "causal",
                "effect",
                "log.csv",
                "--treatment",
                "z",
                "--outcome",
                "a",
                "--graph",
                "found/graph.json",
            ]
        )
        == 0
    )
    assert "effect of z on a: 1.0" in capsys.readouterr().out


def test_a_search_by_score_finds_the_same_and_knowledge_goes_in(here, capsys):
    assert main(["causal", "discover", "log.csv", "--method", "score"]) == 0
    assert "a <- u, z" in capsys.readouterr().out
    arguments = ["causal", "discover", "log.csv", "--variables", "m,y,u", "--tiers", "u; m; y"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "3 variables" in text
    assert "y <- m, u" in text
    assert " - " not in text
    assert main([*arguments, "--forbid", "u -> y"]) == 0
    assert "y <- m\n" in capsys.readouterr().out


def test_causes_of_steps_are_told_by_information(here, capsys, monkeypatch):
    monkeypatch.setattr(information, "InformationSettings", lambda: QUICK)
    arguments = ["causal", "discover", "confounded_control_v0", "--samples", "1000", "--test", "information"]
    assert main([*arguments, "--out", "found"]) == 0
    text = capsys.readouterr().out
    assert "s' <- s, a\n" in text
    assert "m' <- a\n" in text
    with open("found/edges.csv", newline="") as file:
        rows = {(row["cause"], row["effect"]): row for row in csv.DictReader(file)}
    # a is uniform in [-2, 2], m' = a + N(0, 0.3^2)
    expected = 0.5 * np.log(1 + (4 / 3) / 0.09)
    assert float(rows["a", "m'"]["nats"]) == pytest.approx(expected, abs=0.3)


def test_an_environment_is_played_at_random_or_after_interventions(here, capsys):
    assert main(["causal", "discover", "drift_control_v0", "--samples", "200", "--interventions"]) == 0
    text = capsys.readouterr().out
    assert "s1' <- s0, s1, s2, a1\n" in text
    assert "reward <- s0, s1, s2, s3, a0, a1\n" in text
    assert main(["causal", "discover", "drift_control_v0", "--samples", "200", "--variables", "s0,s0'"]) == 0
    assert "s0' <- s0\n" in capsys.readouterr().out
    arguments = ["causal", "discover", "drift_control_v0", "--samples", "200", "--variables", "s0,s1"]
    assert main(arguments) == 0  # no steps without anything after them
    assert "alone: s0, s1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ([], "back-door, adjusting for u"),
        (["--hidden", "u"], "front-door, through m"),
        (["--hidden", "u,m"], "instrument z"),
        (["--adjust", "u"], "back-door, adjusting for u"),
    ],
)
def test_effects_by_what_the_graph_allows(here, capsys, options, how):
    arguments = ["causal", "effect", "log.csv", "--treatment", "a", "--outcome", "y", "--graph", GRAPH]
    assert main([*arguments, *options]) == 0
    text = capsys.readouterr().out
    assert how in text
    value, low, high = (
        float(part.strip("[], "))
        for part in text.split(": ")[1].split(" (")[0].replace("95% interval", "").split()
    )
    assert low < 0.5 < high
    assert value == pytest.approx(0.5, abs=0.1)


EFFECT = ["effect", "log.csv", "--treatment", "a", "--outcome", "y", "--graph"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["discover", "nope"],
            "expected a .csv file, a run, a checkpoint, a policy file, or one of forest_uav_v0",
        ),
        (["discover", "drift_controll_v0"], "did you mean 'drift_control_v0'?"),
        (["discover", "none.csv"], "cannot read none.csv: No such file or directory"),
        (
            ["discover", "log.csv", "--method", "ges"],
            "--method: expected one of pc, score, transitions, got 'ges'",
        ),
        (
            ["discover", "log.csv", "--test", "information"],
            "--test: expected regression or information of transitions",
        ),
        (["discover", "drift_control_v0", "--test", "informatoin"], "did you mean 'information'?"),
        (["discover", "drift_control_v0", "--samples", "50", "--test", "information"], "need at least 100"),
        (["discover", "log.csv", "--method", "transitions"], "transitions are those of an environment"),
        (["discover", "log.csv", "--method", "score", "--alpha", "0.1"], "makes no tests"),
        (["discover", "log.csv", "--interventions"], "for environments alone"),
        (["discover", "log.csv", "--alpha", "2"], "alpha: expected a number in (0, 1), got 2.0"),
        (["discover", "log.csv", "--variables", "a,q"], "--variables: there is no 'q'"),
        (["discover", "log.csv", "--tiers", "a; q"], "tiers: there is no variable 'q'"),
        (["discover", "log.csv", "--require", "a"], "--require: expected edges such as"),
        (["discover", "log.csv", "--out", "log.csv"], "--out: log.csv exists already"),
        (["discover", "drift_control_v0", "--tiers", "s0; s1"], "have their order from time"),
        (["discover", "drift_control_v0", "--samples", "20"], "makes 28 features, which need at least 30"),
        ([*EFFECT, "a->y, y->a"], "there is a cycle"),
        ([*EFFECT, "u->a, u->y, a->y", "--hidden", "u"], "the path a <- u -> y stays open"),
        ([*EFFECT, "w->a, w->y, a->y"], "the path a <- w -> y stays open (w is hidden)"),
        ([*EFFECT, "none.json"], "--graph: cannot read none.json"),
        ([*EFFECT, GRAPH, "--adjust", "m"], "m is an effect of a"),
        ([*EFFECT, GRAPH, "--level", "95"], "level: expected a number in (0, 1)"),
        (["effect", "log.csv", "--treatment", "a", "--outcome", "a", "--graph", GRAPH], "both are a"),
        (["effect", "log.csv", "--treatment", "a", "--outcome", "y"], "Missing option '--graph'"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(here, capsys, arguments, message):
    assert main(["causal", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


CONTROL_GRAPH = "s->a, u->a, z->a, a->m, m->t, s->t, u->t"
CONTROL = ["control", "steps.csv", "--states", "s", "--actions", "a", "--next", "t", "--graph", CONTROL_GRAPH]


@pytest.fixture
def steps(here):
    columns = logged(2000, seed=1)
    columns["t"] = columns.pop("s_next")
    columns["noise"] = np.random.default_rng(0).standard_normal(2000)
    with open("steps.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return here


def test_a_log_becomes_a_controller_that_is_scored_and_kept(steps, capsys):
    options = ["--hidden", "u", "--action-costs", "0.1", "--env", "confounded_control_v0", "--episodes", "50"]
    assert main(["causal", *CONTROL, *options, "--out", "c.pt"]) == 0
    text = capsys.readouterr().out
    assert "(front-door, through m; 2000 samples)" in text
    assert "effect of s on t: 1" in text
    score = float(text.split("50 episodes: ")[1].split()[0])
    best = float(text.split(" lqr ")[-1].split()[0])
    assert 1.02 * best <= score <= 0.98 * best
    policy = load_policy("c.pt")
    gain = float(text.split("controller: a = ")[1].split()[0])
    action = policy.player().act({"agent_0": np.array([0.5, 0.0], np.float32)})["agent_0"]
    assert action == pytest.approx([gain * 0.5], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden", "u,m,z"], "the path a <- u -> t stays open (u is hidden)"),
        (["--graph", "noise->a, u->a, a->t, s->t, u->t", "--hidden", "u"], "noise: a weak instrument for a"),
        (["--graph", "a->t, v->t"], "variables: there is no variable 's'"),
        (["--states", "v"], "data: there is no column 'v'"),
        (["--states", "s,m"], "next_states: expected 2, as many as states, got 1"),
        (["--action-costs", "0"], "action_costs: expected numbers above 0, got 0.0"),
        (["--action-costs", "x"], "--action-costs: expected numbers such as 1,0.1, got 'x'"),
        (["--out", "c.pt"], "--out: needs --env"),
        (["--env-config", "{}"], "--env-config: needs --env"),
        (["--env", "confounded_contrl_v0"], "did you mean 'confounded_control_v0'?"),
        (["--env", "confounded_control_v0", "--env-config", '{"steps": 1}'], "--env-config: "),
        (["--env", "causal_chain_v0"], "actions: causal_chain_v0 takes Box"),
    ],
)
def test_controllers_that_cannot_be_are_one_line_and_exit_code_2(steps, capsys, options, message):
    assert main(["causal", *CONTROL, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line of names and rows of numbers"),
        ("a,b\n", "expected a line of names and rows of numbers"),
        ("a,a\n1,2\n", "the column a stands there twice"),
        ("a,b\n1\n", "line 2: 1 cells, expected 2"),
        ("a,b\n1,x\n", "line 2: b is 'x', expected a number"),
        ("a,b\n1,nan\n2,3\n4,5\n6,7\n1,2\n", "b: holds numbers that are not finite"),
        ("a,b\n1,1\n2,1\n4,1\n6,1\n1,1\n", "b: constant"),
        ("a,b\n1,2\n2,3\n", "samples: 2; a test given 0 variables needs at least |S| + 4 = 4"),
    ],
)
def test_a_damaged_file_is_one_line_and_exit_code_2(here, capsys, text, message):
    (here / "bad.csv").write_text(text)
    assert main(["causal", "discover", "bad.csv"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
