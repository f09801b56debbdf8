"""What learning curves sum up, from runs that are made up."""

import csv
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import learning_curves
from tables import read

from qio_rllib.experiments.experiment import load_experiment

ROOT = Path(__file__).parents[2]
FOREST = ROOT / "tune_configs" / "forest_uav_ppo.yaml"


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def make_runs(folder: Path, seeds: int, column: str) -> None:
    for seed in range(seeds):
        episodes = [
            {"mode": mode, column: (100 if mode == "sampled" else 50) + seed + end}
            for mode in ("sampled", "greedy")
            for end in (-1, 1)
        ]
        write(folder / f"seed_{seed}" / "evaluation.csv", episodes)
        curve = "env_runners/team_return" if column == "team_return" else "env_runners/episode_return_mean"
        progress = [
            {"num_env_steps_sampled_lifetime": 100 * i, "time_total_s": 2.0 * i, curve: i + seed or ""}
            for i in range(1, 4)
        ]
        write(folder / f"seed_{seed}" / "progress.csv", progress)


def table(monkeypatch, config: Path, out: Path, *more: str) -> list[dict[str, str]]:
    arguments = ["learning_curves.py", str(config), "--table", "--out", str(out), *more]
    monkeypatch.setattr(sys, "argv", arguments)
    learning_curves.main()
    return read(out / "summary.csv")


def test_few_seeds_have_a_mean_and_no_interval(tmp_path, monkeypatch, capsys):
    make_runs(tmp_path, 3, "episode_return")
    rows = table(monkeypatch, ROOT / "tune_configs" / "cartpole_a2c.yaml", tmp_path)
    assert [row["text"] for row in rows] == [
        "101.0 (mean of 3 seeds, 100.0 to 102.0)",
        "51.0 (mean of 3 seeds, 50.0 to 52.0)",
    ]
    assert {row["statistic"] for row in rows} == {"mean, min to max"}
    assert {row["training_s"] for row in rows} == {"6.0"}
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert "95%" not in out
    assert rows[0]["text"] in out


def test_ten_seeds_have_an_interval(tmp_path, monkeypatch):
    make_runs(tmp_path, 10, "episode_return")
    (sampled, _) = table(monkeypatch, ROOT / "tune_configs" / "cartpole_a2c.yaml", tmp_path)
    assert sampled["statistic"] == "IQM, 95% interval"
    assert sampled["text"].startswith("IQM 104.5, 95% interval ")
    assert float(sampled["low"]) < 104.5 < float(sampled["high"])


def test_scripted_policies_play_the_environment_of_the_runs(tmp_path, monkeypatch):
    make_runs(tmp_path, 2, "team_return")

    def scores(*overrides: str) -> dict[str, float]:
        more = [part for override in overrides for part in ("--set", override)]
        rows = table(monkeypatch, FOREST, tmp_path, *more)
        return {row["policy"]: float(row["score"]) for row in rows if row["policy"].startswith("scripted")}

    assert scores()["scripted: random"] > scores("env_config.scenario=sprint")["scripted: random"] + 50


def test_a_table_without_runs_is_an_error_in_words(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        table(monkeypatch, FOREST, tmp_path)
    assert caught.value.code == 2
    assert f"there are no runs in {tmp_path}" in capsys.readouterr().err


def test_the_figure_says_what_was_trained_overrides_included():
    config = ROOT / "tune_configs" / "mpe_spread_qmix.yaml"
    overrides = ["run=VDN", "mixer.type=sum"]
    title = learning_curves.title_of(load_experiment(config, overrides))
    assert title == "mpe-spread-qmix: VDN on mpe_spread_v0, epymarl"
    plain = learning_curves.title_of(load_experiment(config, ["env_config.scenario=default"]))
    assert plain == "mpe-spread-qmix: QMIX on mpe_spread_v0"
