"""The federations of the cart-pole task: small runs of each study, and what is made of rows."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import federated_cart_pole
import federated_overhead as overhead
import federated_privacy as privacy
import federated_speedup as speedup
from cart_pole_federations import config_of, local_of
from tables import read, write

from qio_rllib.federated.privacy import GaussianMechanism

pytestmark = pytest.mark.usefixtures("ray_runtime")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(speedup, "NUM_CLIENTS", (1, 2))
    monkeypatch.setattr(speedup, "TUNING_SEEDS", (100,))
    monkeypatch.setattr(speedup, "LEARNING_RATES", dict.fromkeys(speedup.SERVERS, (0.01, 0.03)))
    monkeypatch.setattr(speedup, "TUNING_ROUNDS", 2)
    monkeypatch.setattr(speedup, "MOST_ROUNDS", 4)
    monkeypatch.setattr(speedup, "EPISODES", 2)
    for study in (privacy, overhead):
        monkeypatch.setattr(study, "FEDERATION", 10)
        monkeypatch.setattr(study, "SAMPLED", 4)
    monkeypatch.setattr(privacy, "CLIPS", (0.5, 1.0))
    monkeypatch.setattr(privacy, "NOISE", (0.0, 4.0))
    monkeypatch.setattr(privacy, "PRIVACY_EPISODES", 2)
    monkeypatch.setattr(privacy, "FEWEST", 3)


@pytest.mark.long
def test_speedup_tunes_trains_and_goes_on_with_what_is_there(tmp_path, capsys):
    federated_cart_pole.main(["speedup", "--seeds", "1", "--out", str(tmp_path)])
    rows = read(tmp_path / "speedup.csv")
    assert [(row["seed"], row["clients"], row["rounds"]) for row in rows] == [
        *(("100", clients, "2") for clients in ("1", "1", "2", "2")),
        *(("0", clients, "4") for clients in ("1", "2")),
    ]
    assert {row["reached"] for row in rows} == {"False"}
    assert rows[-1]["steps_per_client"] == str(4 * 64)
    federated_cart_pole.main(["speedup", "--seeds", "1", "--out", str(tmp_path)])
    assert read(tmp_path / "speedup.csv") == rows
    assert (tmp_path / "speedup.png").stat().st_size > 10_000
    assert "0/1" in capsys.readouterr().out


def test_a_run_ends_with_the_measurement_that_reaches_the_threshold(monkeypatch):
    measured = iter([100.0, 400.0])
    monkeypatch.setattr(speedup, "score", lambda *_, **__: next(measured))
    row = speedup.until_threshold(0, 2, 0.01, 10, {})
    assert (row["reached"], row["rounds"], row["steps_per_client"]) == (True, 4, 4 * 64)


@pytest.mark.long
def test_privacy_takes_the_better_clip_and_charges_each_round(tmp_path, capsys):
    federated_cart_pole.main(["privacy", "--seeds", "1", "--rounds", "2", "--out", str(tmp_path)])
    tried, (without, noised) = read(tmp_path / "privacy.csv")[:2], read(tmp_path / "privacy.csv")[2:]
    assert [row["clip"] for row in tried] == ["0.5", "1.0"]
    best = max(tried, key=lambda row: float(row["sampled_return"]))
    assert (noised["noise_multiplier"], noised["clip"]) == ("4.0", best["clip"])
    assert (without["epsilon_simulated"], without["clip"]) == ("", "")
    expected = GaussianMechanism(0.4, 4.0).epsilon(2, 1e-5)
    assert float(noised["epsilon_simulated"]) == pytest.approx(expected, abs=1e-4)
    assert without["sampled_return"] != noised["sampled_return"]
    assert (tmp_path / "privacy.png").stat().st_size > 10_000
    assert "inf" in capsys.readouterr().out


def test_skellam_noise_spends_what_gaussian_noise_does(tmp_path, monkeypatch):
    monkeypatch.setattr(privacy, "FEDERATION", 20)
    monkeypatch.setattr(privacy, "SAMPLED", 16)
    monkeypatch.setattr(privacy, "LOCAL_ITERATIONS", 1)
    columns = ("seed", "noise_multiplier", "clip", "epsilon_simulated", "sampled_return")
    rows = [(100, 1.0, 0.5, 4.0, 30.0), (100, 1.0, 1.0, 4.0, 20.0), (0, 1.0, 0.5, 4.0, 20.0)]
    write(tmp_path / "privacy.csv", [dict(zip(columns, row, strict=True)) for row in rows])
    federated_cart_pole.main(["privacy_skellam", "--seeds", "1", "--rounds", "1", "--out", str(tmp_path)])
    (row,) = read(tmp_path / "privacy_skellam.csv")
    assert (row["clip"], row["rounds"]) == ("0.5", "1")
    assert float(row["epsilon_simulated"]) == pytest.approx(4.0, abs=1e-3)
    federated_cart_pole.main(["privacy_skellam", "--seeds", "1", "--rounds", "1", "--out", str(tmp_path)])
    assert read(tmp_path / "privacy_skellam.csv") == [row]


def test_a_return_is_normalized_between_random_play_and_the_time_limit():
    assert privacy.normalized(500.0) == 1
    assert -0.1 < privacy.normalized(20.0) < 0.1


def test_overhead_is_the_trainer_without_the_training(tmp_path):
    def row(who, number, cpu_ms, mib=np.nan):
        memory = {} if np.isnan(mib) else {"trainer_mib": mib, "driver_mib": mib, "records_mib": mib / 10}
        return overhead.overhead_row(who, number, cpu_ms, **memory)

    rows = [
        row(overhead.DRIVER, 1, 500.0, 100.0),
        *(row(overhead.DRIVER, n, 9.0, 100.0 + n) for n in (2, 3, 4)),
    ]
    rows += [row(overhead.HOST, n, np.nan, 50.0) for n in (1, 2)]
    rows += [row(overhead.ALONE, 4, 3.0), row(overhead.ALONE, 4, 5.0), row(overhead.FLOWER, 4, 11.0)]
    write(tmp_path / "overhead.csv", rows)
    found = overhead.overheads(read(tmp_path / "overhead.csv"))
    assert (found["whole"], found["alone"], found["difference"], found["flower"]) == (9, 4, 5, 11)
    assert (found["driver_half"], found["driver_end"], found["host_end"]) == (103, 104, 50)
    assert found["driver_records_end"] == pytest.approx(10.4)


def test_rounds_are_measured_one_by_one():
    rows = overhead.rounds_of(0, 2, overhead.FEW_STEPS)
    assert [row["round"] for row in rows] == [1, 2]
    assert 0 < rows[0]["records_mib"] < rows[1]["records_mib"] < rows[1]["trainer_mib"]
    assert float(rows[1]["cpu_ms"]) > 1


def test_the_speedup_is_a_ratio_with_an_interval_from_ten_seeds_on():
    def rows(seeds):
        return [
            {"seed": str(seed), "clients": str(clients), "lr": "0.01", "reached": "True",
             "steps_per_client": str((1000 + seed) // clients)}
            for seed in range(seeds) for clients in (1, 2)
        ]  # fmt: skip

    tuning = [
        {"seed": "100", "clients": clients, "lr": lr, "rounds": rounds, "steps_per_client": "9"}
        for clients in ("1", "2") for lr, rounds in (("0.03", "9"), ("0.01", "8"))
    ]  # fmt: skip
    worse = {**rows(1)[0], "lr": "0.03", "steps_per_client": "9"}
    one, two = speedup.speedups([*tuning, worse, *rows(10)])
    assert one["speedup"] == 1
    assert two["speedup"] == pytest.approx(2, rel=1e-3)
    assert 1.98 < two["speedup_low"] < two["speedup"] < two["speedup_high"] < 2.02
    assert np.isnan(speedup.speedups([*tuning, *rows(3)])[1]["speedup_low"])


def test_flower_is_asked_for():
    with pytest.raises(SystemExit):
        federated_cart_pole.main(["overhead"])


def test_greater_learning_rates_are_tried_as_long_as_the_greatest_is_the_best(tmp_path, monkeypatch):
    best = {1: 0.03, 2: 1.0}
    monkeypatch.setattr(speedup, "LEARNING_RATES", {speedup.SPEEDUP: (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)})
    monkeypatch.setattr(speedup, "TUNING_SEEDS", (100, 101))

    def invented(seed, clients, lr, most, server):
        rounds = round(abs(np.log(lr / best[clients])) * 10) + 1
        return {"seed": seed, "clients": clients, "lr": lr, "rounds": rounds}

    monkeypatch.setattr(speedup, "until_threshold", invented)
    # greater ones that are there already end nothing
    write(tmp_path / "speedup.csv", [invented(seed, 2, 0.3, 1, {}) for seed in (100, 101)])
    speedup.speedup(speedup.SPEEDUP, range(1), tmp_path / "speedup.csv")
    rows = [row for row in read(tmp_path / "speedup.csv") if row["clients"] == "1"]
    assert [row["lr"] for row in rows if row["seed"] == "100"] == ["0.003", "0.01", "0.03", "0.1"]
    rows = [row for row in read(tmp_path / "speedup.csv") if row["clients"] == "2"]
    assert [row["lr"] for row in rows if row["seed"] == "101"][-2:] == ["1.0", "3.0"]
    assert [(row["clients"], row["lr"]) for row in read(tmp_path / "speedup.csv") if row["seed"] == "0"] == [
        ("1", "0.03"),
        ("2", "1.0"),
    ]


def test_momentum_is_the_servers():
    quiet, moved = (
        config_of(0, 2, local_of(speedup.SPEEDUP_SAMPLING, 0.01), server=speedup.SERVERS[name])
        for name in (speedup.SPEEDUP, speedup.MOMENTUM)
    )
    assert [config.federation_settings().server.momentum for config in (quiet, moved)] == [0.0, 0.9]
