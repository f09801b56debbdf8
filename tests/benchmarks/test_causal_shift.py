"""The study of shifted sensors: its arms, how edges are counted, and what it makes of invented runs."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import causal_shift
from causal_shift import ARMS, SCENARIOS, edges_of
from tables import read, write

from qio_envs import drift_control_v0
from qio_rllib.causal.datasets import true_mask
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings

ROOT = Path(__file__).parents[2]
SMALL = EnsembleSettings(members=2, hiddens=(4,))


def policy_of(model):
    group = SimpleNamespace(actor=SimpleNamespace(network=SimpleNamespace(model=model)))
    return SimpleNamespace(team=SimpleNamespace(groups=[group]))


def test_edges_are_counted_against_the_graph_of_the_environment():
    truth = torch.from_numpy(true_mask(drift_control_v0.batched_env(1, scenario="distractors")))
    mask = torch.cat([truth, truth[-1:]])
    mask[0, 0] = False  # a change that does not depend on itself is no missing cause
    mask[1, 2] = False
    mask[3, 5:7] = True
    found = edges_of(policy_of(Ensemble(12, 2, SMALL, mask)))
    assert found == {"edges": int(truth.sum()), "false": 2, "missed": 1}
    dense = edges_of(policy_of(Ensemble(12, 2, SMALL)))
    assert (dense["false"], dense["missed"]) == (13 * 14 - dense["edges"], 0)
    assert edges_of(policy_of(None)) == {}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_an_experiment_beside_distractors(arm):
    path, overrides = ARMS[arm]
    experiment = load_experiment(ROOT / path, overrides)
    assert experiment.config["env_config"] == {"scenario": SCENARIOS[0]}
    config = experiment.validate()
    if arm.startswith("ppo"):
        assert (config.interventional_consistency is None) == (arm == "ppo")
    else:
        uses = (
            None
            if config.causal_mask is None
            else (config.causal_mask["use"], config.causal_mask["interventions"])
        )
        assert (
            uses
            == {
                "masked": ("mask", 1600),
                "masked_play": ("mask", 0),
                "dense": None,
                "consistent": ("consistency", 1600),
            }[arm]
        )


def test_invented_runs_are_summed_up(tmp_path, monkeypatch, capsys):
    out = tmp_path / "shift"
    for seed in (0, 1):
        folder = out / "dense" / f"seed_{seed}"
        rows = [
            {
                "scenario": scenario,
                "seed": number,
                "episode_return": value + end,
                "episode_length": 200 - seed,
            }
            for scenario, value in zip(SCENARIOS, (-10.0, -30.0), strict=True)
            for number, end in enumerate((-1.0, 1.0))
        ]
        write(folder / "shift.csv", rows)
        write(folder / "edges.csv", [{"edges": 53, "false": 129, "missed": 0}])
        write(folder / "progress.csv", [{"time_total_s": 5.0}, {"time_total_s": 61.25}])
    monkeypatch.setattr(sys, "argv", ["causal_shift.py", "--table", "--out", str(out)])
    causal_shift.main()
    first, second = read(tmp_path / "shift.csv")
    assert first == {
        "arm": "dense", "seed": "0", "return_distractors": "-10.0", "length_distractors": "200.0",
        "return_sensor_shift": "-30.0", "length_sensor_shift": "200.0", "change": "-2.0",
        "false_edges": "129", "missed_edges": "0", "training_s": "61.2",
    }  # fmt: skip
    assert second["length_sensor_shift"] == "199.0"
    assert "dense (2 seeds): return_distractors -10 (-10 to -10)" in capsys.readouterr().out


def test_an_unknown_arm_and_an_empty_folder_are_refused(tmp_path, monkeypatch, capsys):
    for arguments, message in ((["sparse"], "ARM: expected some of"), (["--table"], "there are no runs in")):
        monkeypatch.setattr(sys, "argv", ["causal_shift.py", *arguments, "--out", str(tmp_path)])
        with pytest.raises(SystemExit):
            causal_shift.main()
        assert message in capsys.readouterr().err
