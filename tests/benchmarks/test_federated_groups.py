"""The study of secure sums of groups: its cells, what each sets, and what it makes of rows."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import federated_groups as study
import federated_poison
from tables import append, read

from qio_rllib.algorithms import FederatedConfig

pytestmark = pytest.mark.usefixtures("ray_runtime")

SMALL = {
    "run": "PPO",
    "num_envs_per_env_runner": 4,
    "train_batch_size_per_learner": 16,
    "num_epochs": 1,
    "minibatch_size": 16,
    "model_config": {"fcnet_hiddens": [4]},
}


@pytest.mark.parametrize("cell", study.CELLS)
def test_settings_go_together_and_bear_as_many_as_attack(cell):
    rule, attack, size = cell
    config = FederatedConfig().environment("cart_pole_v0").debugging(seed=0)
    config.training(local=SMALL, clients=[{"count": study.CLIENTS}], **study.settings_of(cell))
    settings = config.federation_settings()
    assert (settings.attack is None) == (attack == "none")
    assert settings.group_size == (None if size == 1 else 3)
    vectors = study.CLIENTS // size
    assert settings.aggregation.rule == rule
    if rule == "trimmed_mean":
        assert settings.aggregation.trim * vectors == pytest.approx(3)
    if rule in ("multi_krum", "distance_filter"):
        assert settings.aggregation.byzantine * vectors == pytest.approx(3)


def test_a_cell_is_trained_over_sums_of_groups(monkeypatch):
    monkeypatch.setattr(federated_poison, "LOCAL", SMALL)
    monkeypatch.setattr(federated_poison, "ROUNDS", 1)
    seen = []
    played = federated_poison.played
    monkeypatch.setattr(
        federated_poison, "played", lambda config, rounds: seen.append(played(config, rounds)) or seen[-1]
    )
    row = study.run(0, ("multi_krum", "sign_flip", 3))
    server = seen[0].federated_server
    assert (server.number, server.num_failed) == (1, 0)
    assert len(server.plan().groups) == 9
    assert -0.2 < float(row["score"]) < 1


def test_only_what_is_missing_is_trained_and_summed_up(tmp_path, monkeypatch, capsys):
    calls = []

    def invented(seed, cell):
        calls.append((seed, cell))
        score = study.CELLS.index(cell) / 10 + seed / 100
        return dict(zip(("seed", "rule", "attack", "group_size", "score"), (seed, *cell, score), strict=True))

    monkeypatch.setattr(study, "run", invented)
    out = tmp_path / "poison_groups.csv"
    append(out, [invented(1, study.CELLS[4])])
    study.main(["--seeds", "3", "--out", str(out)])
    assert len(calls) == len({*calls}) == 3 * len(study.CELLS) == len(read(out))
    text = capsys.readouterr().out
    # the second and the eighth of the thirteen cells
    assert "| mean | 0.11 (0.10 to 0.12) | 0.71 (0.70 to 0.72) |" in text
    assert "mean without an attack: 0.01 (0.00 to 0.02)" in text
    study.main(["--table", "--out", str(out)])
    assert len(calls) == 3 * len(study.CELLS)
