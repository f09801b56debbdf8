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

from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.team import AgentGroup, Team
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
