"""The study of malicious clients: its cells, what each sets, and what it makes of invented scores."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import federated_poison
from federated_poison import ATTACKS, FORESTS, POLES, cells_of, scores_of, settings_of, table
from tables import append, read

from qio_rllib.federated.settings import RULES

pytestmark = pytest.mark.usefixtures("ray_runtime")

SMALL = {
    "run": "PPO",
    "num_envs_per_env_runner": 4,
    "train_batch_size_per_learner": 16,
    "num_epochs": 1,
    "minibatch_size": 16,
    "model_config": {"fcnet_hiddens": [4]},
}


def invented(seed, cell):
    """Return a row whose score says where it comes from; nothing for two cells that settings refuse."""
    rule, attack, share = cell
    is_refused = (rule, share) == ("multi_krum", 0.4)
    score = RULES.index(rule) + ATTACKS.index(attack) / 10 + seed / 100
    return {
        "seed": seed,
        "rule": rule,
        "attack": attack,
        "share": f"{share:.3f}",
        "score": "" if is_refused else f"{score:.4f}",
        "cpu_seconds": 1.0,
        "refused": "byzantine: too many" if is_refused else "",
    }


def test_no_cell_is_left_out():
    cells = cells_of(POLES, (0.2, 0.4))
    assert set(cells) == {
        (rule, attack, share) for rule in RULES for attack in ATTACKS for share in (0.2, 0.4)
    }
    assert len(cells) == len(set(cells)) == 6 * 7 * 2
    forests = cells_of(FORESTS, (0.2, 0.4))
    assert {share for _, _, share in forests} == {1 / 6}
    assert {attack for _, attack, _ in forests} == {"none", "sign_flip", "normalized"}


def test_rules_are_told_the_share_and_only_attacks_name_clients():
    assert settings_of(("trimmed_mean", "none", 0.3), (0, 1)) == {
        "aggregation": {"rule": "trimmed_mean", "trim": 0.3}
    }
    assert settings_of(("multi_krum", "noise", 0.2), range(2)) == {
        "aggregation": {"rule": "multi_krum", "byzantine": 0.2},
        "attack": {"type": "noise", "clients": [0, 1]},
    }
    assert settings_of(("mean", "lying_count", 0.2), (4,)) == {
        "aggregation": {"rule": "mean", "weights": "env_steps"},
        "attack": {"type": "lying_count", "clients": [4]},
    }


def test_a_cell_is_trained_and_a_refused_one_says_why(monkeypatch):
    monkeypatch.setattr(federated_poison, "LOCAL", SMALL)
    monkeypatch.setattr(federated_poison, "ROUNDS", 1)
    seen = []
    played = federated_poison.played
    monkeypatch.setattr(
        federated_poison, "played", lambda config, rounds: seen.append(played(config, rounds)) or seen[-1]
    )
    row = federated_poison.run(POLES, 0, ("trimmed_mean", "normalized", 0.3))
    assert seen[0].federated_server.settings.attack.malicious(10) == {0, 1, 2}
    assert seen[0].federated_server.number == 1
    assert -0.2 < float(row["score"]) < 1
    assert row["refused"] == ""
    for cell, reason in (
        (("multi_krum", "none", 0.4), "2 byzantine + 2 < n"),
        (("median", "lying_count", 0.2), "aggregation.weights: expected equal with rule median"),
    ):
        row = federated_poison.run(POLES, 0, cell)
        assert reason in row["refused"]
        assert row["score"] == ""


@pytest.mark.parametrize(("value", "expected"), [(200.0, 1.0), (20.0, 0.0), (110.0, 0.5)])
def test_a_pole_scores_between_random_play_and_the_greatest_return(monkeypatch, value, expected):
    monkeypatch.setattr(federated_poison, "LOCAL", SMALL)
    monkeypatch.setattr(federated_poison, "ROUNDS", 0)
    monkeypatch.setattr(federated_poison, "evaluate", lambda *_, explore: [{"episode_return": value}] * 2)
    monkeypatch.setattr(
        federated_poison, "reference_scores", lambda env, seed: {"random": 20.0, "lqr": 200.0}
    )
    assert federated_poison.pole(0, ("mean", "none", 0.2)) == pytest.approx(expected)


def test_the_malicious_forest_is_not_scored(monkeypatch):
    config = federated_poison.config_of
    small = {
        "num_envs_per_env_runner": 2,
        "train_batch_size_per_learner": 8,
        "num_epochs": 1,
        "minibatch_size": 8,
    }
    seen = []

    def smaller(seed, **settings):
        found = config(seed, **settings)
        return found.training(local={**found.local, **small})

    monkeypatch.setattr(federated_poison, "config_of", smaller)
    monkeypatch.setattr(federated_poison, "ITERATIONS", 4)
    monkeypatch.setattr(
        federated_poison, "score", lambda policy, client: seen.append(client.label) or float(len(seen))
    )
    assert federated_poison.forest(0, ("median", "sign_flip", 1 / 6)) == 3.0
    assert seen == ["small", "corridor", "crowded", "short_radio", "silent"]


def test_only_cells_that_are_missing_are_trained_and_the_same_run_is_not_repeated(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        federated_poison, "run", lambda what, seed, cell: calls.append((seed, cell)) or invented(seed, cell)
    )
    out = tmp_path / "poison.csv"
    cells = cells_of(POLES, (0.1, 0.2))
    append(out, [invented(0, ("mean", "noise", 0.2))])
    federated_poison.train(POLES, cells, range(2), out)
    assert len(read(out)) == 2 * len(cells)
    # Without an attack three of the six rules come to the same for both shares; one row was there.
    assert len(calls) == len(set(calls)) == 2 * len(cells) - 2 * 3 - 1
    federated_poison.train(POLES, cells, range(2), out)
    assert len(calls) == 2 * len(cells) - 2 * 3 - 1
    for rule in ("mean", "trimmed_mean"):
        assert scores_of(read(out), (rule, "none", 0.2)) == pytest.approx(
            [RULES.index(rule) + seed / 100 for seed in (0, 1)]
        )


def test_invented_scores_are_summed_up_and_drawn(tmp_path, monkeypatch, capsys):
    cells = cells_of(POLES, (0.2, 0.4))
    rows = [invented(seed, cell) for seed in (0, 1, 2) for cell in cells]
    append(tmp_path / "poison.csv", rows)
    monkeypatch.setattr(sys, "argv", ["federated_poison.py", "poles", "--table", "--out", str(tmp_path)])
    federated_poison.main()
    text = capsys.readouterr().out
    assert "| share 0.2 | none | sign_flip | noise | normalized | lying_count |" in text
    assert "| median | 1.01 (1.00 to 1.02) | 1.11 (1.10 to 1.12) |" in text
    assert text.count("(1)") == 7 + 1
    assert text.rstrip().endswith("(1) byzantine: too many")
    assert (tmp_path / "poison.png").stat().st_size > 10_000
    rows = [row for row in read(tmp_path / "poison.csv") if row["attack"] != "noise" or row["rule"] != "mean"]
    assert scores_of(rows, ("mean", "noise", 0.2)) == []
    assert scores_of(rows, ("multi_krum", "noise", 0.4)) is None
    assert table(rows).count("not run") == 2
    federated_poison.draw(rows, tmp_path / "partial.png")
    assert (tmp_path / "partial.png").stat().st_size > 10_000


def test_an_unknown_study_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["federated_poison.py", "swarms"])
    with pytest.raises(SystemExit):
        federated_poison.main()
    assert "STUDY: expected one of poles, forests, got 'swarms'" in capsys.readouterr().err
