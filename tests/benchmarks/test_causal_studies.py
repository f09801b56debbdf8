"""The studies of the casino and of controllers from logs: what they measure, at a small size."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import casino
import causal_control
import causal_information

from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.causal.transitions import TransitionGraph
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def network_of(slope):
    """Logits of machine 0 are 0, those of machine 1 ``slope`` times the difference of the intention's two numbers."""
    network = PolicyNetwork(PolicySpec((2,), "categorical", 2, network={"fcnet_hiddens": []}))
    with torch.no_grad():
        layer = network.head.layers[0]
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [slope, -slope]]))
        layer.bias.zero_()
    return network


@pytest.mark.parametrize(
    ("slope", "knows", "expected"),
    [(50.0, True, 0.45), (-50.0, True, 0.15), (0.0, True, 0.3), (50.0, False, 0.3)],
)
def test_exact_and_sampled_payouts_of_policies_that_are_known(monkeypatch, slope, knows, expected):
    network = network_of(slope)
    assert casino.exact(network, knows) == pytest.approx(expected)
    monkeypatch.setattr(casino, "NUM_ENVS", 100)
    group = AgentGroup("shared", ("agent_0",), np.array([0]), NetworkActor(network, ActionSpec(2)))
    paid = casino.played(Team([group]), "default" if knows else "no_intent", 3)
    assert paid == pytest.approx(expected, abs=0.018)  # five standard deviations of 20,000 rounds


def test_no_round_is_played_by_two_runs():
    seeds = [set(casino.round_seeds(seed)) for seed in range(10)]
    assert len(set.union(*seeds)) == sum(map(len, seeds)) == 10 * casino.NUM_ENVS


@pytest.mark.parametrize("scenario", casino.SCENARIOS.values())
def test_the_control_is_one_setting_away(scenario):
    experiment = load_experiment(casino.CONFIG, [f"env_config.scenario={scenario}"])
    assert experiment.stop == {"num_env_steps_sampled_lifetime": 100_000}
    assert experiment.algorithm_config().env_config == {"scenario": scenario}


def test_gamblers_are_counted_round_by_round(monkeypatch):
    monkeypatch.setattr(casino, "COUNTS", (5, 200))
    rows = casino.bandit_rows("with intent", True, 100, 0, 50)
    assert [row["rounds"] for row in rows] == [5, 200]
    assert rows[1]["exact"] > 0.44
    assert 0.15 < rows[0]["payout_rate"] < 0.7


def test_controllers_from_a_log_are_scored_beside_the_oracle(tmp_path, capsys):
    causal_control.main(["--logs", "1", "--transitions", "2000", "--episodes", "20", "--out", str(tmp_path)])
    rows = {(row["way"], row["dynamics"]): row for row in read(tmp_path / "control.csv")}
    assert len(rows) == 8
    for (way, dynamics), row in rows.items():
        assert row["how"].startswith("back-door" if way == "naive" else way)
        assert (float(row["ratio"]) < 1.1) == (way != "naive")
        assert (float(row["state_effect"]) == 1.0) == (dynamics == "known")
    assert "front-door" in capsys.readouterr().out


def test_edges_are_counted_at_both_levels(monkeypatch):
    truth = np.array([[1, 1, 0], [0, 0, 1]], bool)
    p_values = np.array([[0.0005, 0.5, 0.005], [0.0001, 0.5, 0.0]])
    names = (("a", "b", "c"), ("x", "y"))
    monkeypatch.setitem(
        causal_information.TESTS, "known", lambda x, y, seed: TransitionGraph(*names, p_values, 0.5)
    )
    case = causal_information.Case("kind", 5, np.zeros((5, 3)), np.zeros((5, 2)), truth)
    row = causal_information.row_of(case, "known", 0, "drift")
    assert {key: row[key] for key in ("edges", "found", "others", "false", "false_at_0.01")} == {
        **{"edges": 3, "found": 2},
        **{"others": 3, "false": 1, "false_at_0.01": 2},
    }
    assert row["f1"] == pytest.approx(4 / 6)


@pytest.mark.parametrize("part", causal_information.PARTS)
def test_truth_is_that_of_the_data(part):
    """Every target moves with its causes alone: what polynomials of degree 2 find at a strict level lies within."""
    for case in causal_information.PARTS[part][0](1):
        found = causal_information.transition_graph(case.inputs, case.targets, alpha=1e-9).mask
        assert found.any()
        assert not (found & ~case.truth).any()
