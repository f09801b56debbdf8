"""Sweeps on the command line: grids, draws and seeds."""

import json
import signal

import pytest

from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import read_yaml, yaml_text
from qio_rllib.cli import main
from qio_rllib.experiments import sweep
from qio_rllib.experiments.failures import TrainingFailed, TrainingInterrupted
from qio_rllib.experiments.finished_run import RunResult

SETTINGS = {
    "num_env_runners": 0,
    "train_batch_size_per_learner": 200,
    "minibatch_size": 100,
    "num_epochs": 1,
    "evaluation_interval": 1,
    "evaluation_duration": 3,
    "model_config": {"fcnet_hiddens": [8]},
    "entropy_annealing": {"law": "quantum", "alpha_0": 0.02},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


GRID = {
    "lr": {"grid_search": [1e-3, 1e-4]},
    "model_config": {"fcnet_hiddens": {"grid_search": [[8], [4]]}},
}


@pytest.fixture
def grid_file(here):
    path = here / "g.yaml"
    entry = {"run": "PPO", "env": "CartPole-v1", "stop": {"training_iteration": 1}}
    path.write_text(yaml_text({"g": {**entry, "config": {**SETTINGS, **GRID}}}))
    return path


def test_a_dry_run_of_a_grid_search_lists_its_variants(grid_file, here, capsys):
    before = files(here)
    assert main(["train", "--config", "g.yaml", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-4:] == [
        "# 1 of 4: model_config.fcnet_hiddens = [8], lr = 0.001",
        "# 2 of 4: model_config.fcnet_hiddens = [8], lr = 0.0001",
        "# 3 of 4: model_config.fcnet_hiddens = [4], lr = 0.001",
        "# 4 of 4: model_config.fcnet_hiddens = [4], lr = 0.0001",
    ]
    (here / "again.yaml").write_text(printed)
    assert main(["train", "--config", "again.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out == printed
    (here / "again.yaml").unlink()
    assert files(here) == before


@pytest.mark.ray
def test_a_grid_search_trains_each_variant_in_a_directory_of_its_own(grid_file, here, ray_runtime, capsys):
    assert main(["train", "--config", "g.yaml", "--set", "model_config.fcnet_hiddens=[8]"]) == 0
    runs = sorted(path for path in (here / "runs" / "g").iterdir() if path.is_dir())
    assert [read_yaml(run / "config.yaml")["g"]["config"]["lr"] for run in runs] == [1e-3, 1e-4]
    out = capsys.readouterr().out
    for run in runs:
        info = RunDirectory.open(run).info()
        assert info["status"] == "finished"
        assert f"{info['evaluation']['greedy']['episode_return']:.4g}" in out
        assert str(run.relative_to(here)) in out.replace("\n", "") or run.name[:10] in out


@pytest.mark.ray
@pytest.mark.long
def test_a_variant_that_fails_does_not_keep_the_others_from_training(here, ray_runtime, capsys):
    settings = {**SETTINGS, "env_config": {"fault": {"grid_search": ["error", "none"]}}}
    settings |= {"train_batch_size_per_learner": 20, "minibatch_size": 20, "evaluation_interval": None}
    experiment = {"run": "PPO", "env": "toy_broken:Broken", "stop": {"training_iteration": 3}}
    (here / "b.yaml").write_text(yaml_text({"b": {**experiment, "config": settings}}))
    assert main(["train", "--config", "b.yaml", "--allow-import", "toy_broken"]) == 1
    out, err = capsys.readouterr()
    assert "failed" in out
    assert "the arm is stuck" in err
    states = [RunDirectory.open(run).info()["status"] for run in sorted((here / "runs" / "b").glob("2*"))]
    assert states == ["failed", "finished"]


# --- without training --------------------------------------------------------------------------------------------


@pytest.fixture
def fails():
    """What the run of a number raises, given its directory."""
    return {}


@pytest.fixture
def trainer(monkeypatch, fails):
    """Take the place of training: a run's score is 100 times its learning rate, plus its seed. Yields what was done."""
    done = []

    def end(directory, experiment):
        number = directory.info()["sweep"]["run"]
        if number in fails:
            directory.update_info(status="interrupted")
            raise fails[number](directory.path)
        score = 100 * experiment.config["lr"] + experiment.seed
        evaluation = {"greedy": {"episode_return": score}}
        directory.update_info(status="finished", checkpoint="checkpoint", evaluation=evaluation)
        return RunResult(directory.path, directory.path / "checkpoint", evaluation)

    def train(experiment, out, info, **how):
        done.append(("train", info["sweep"]["run"]))
        directory = RunDirectory.create(out, experiment.name)
        directory.write_config({experiment.name: experiment.as_dict()})
        directory.update_info(status="running", **info)
        return end(directory, experiment)

    def resume(path, **how):
        directory = RunDirectory.open(path)
        done.append(("resume", directory.info()["sweep"]["run"]))
        return end(directory, sweep.load_experiment(directory.config_file))

    monkeypatch.setattr(sweep.training, "train", train)
    monkeypatch.setattr(sweep.training, "resume", resume)
    return done


LR_FILE = ["--config", "g.yaml", "--set", "model_config.fcnet_hiddens=[8]"]


def test_seeds_go_round_fastest_and_are_summed_up(grid_file, trainer, capsys):
    assert main(["train", *LR_FILE, "--seeds", "1,3-4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("run ")] == [
        f"run {3 * i + j + 1} of 6: lr = {lr}, seed = {seed}"
        for i, lr in enumerate((0.001, 0.0001))
        for j, seed in enumerate((1, 3, 4))
    ]
    table = "\n".join(lines)
    assert "1,3,4" in table
    for part in ("mean 2.767", "1.1 to 4.1", "mean 2.677", "1.01 to 4.01"):
        assert part in table
    assert lines[-1].startswith("results       runs/g (6 runs, listed by sweep_")


def test_a_sweep_goes_on_where_it_was_interrupted(grid_file, here, trainer, fails, capsys):
    fails[2] = lambda path: TrainingInterrupted(path, signal.SIGTERM)
    assert main(["train", *LR_FILE, "--seeds", "0-1"]) == 143
    (file,) = (here / "runs" / "g").glob("sweep_*.yaml")
    shown = file.relative_to(here)
    assert capsys.readouterr().err == (
        f"rllib: training was interrupted; resume it with: rllib train --resume {shown}\n"
    )
    assert trainer == [("train", 1), ("train", 2)]
    fails[3] = lambda path: TrainingFailed("training failed in iteration 1: no", path)
    del fails[2]
    assert main(["train", "--resume", str(file)]) == 1
    assert trainer[2:] == [("resume", 2), ("train", 3), ("train", 4)]
    out, err = capsys.readouterr()
    assert "failed" in out
    assert "3 of 4 runs" in out
    assert err == "rllib: training failed in iteration 1: no\n"
    fails.clear()
    assert main(["train", "--resume", str(file), "--json"]) == 0
    assert trainer[5:] == [("resume", 3)]
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["values"] for each in results] == [
        {"lr": lr, "seed": seed} for lr in (1e-3, 1e-4) for seed in (0, 1)
    ]
    assert [each["evaluation"]["greedy"]["episode_return"] for each in results] == pytest.approx(
        [0.1, 1.1, 0.01, 1.01]
    )
    assert len(list((here / "runs" / "g").glob("*/run.json"))) == 4


def test_a_sweep_that_another_process_trains_is_left_alone(grid_file, here, trainer, capsys):
    assert main(["train", *LR_FILE]) == 0
    (file,) = (here / "runs" / "g").glob("sweep_*.yaml")
    capsys.readouterr()
    with sweep.Sweep.open(file).lock():
        assert main(["train", "--resume", str(file)]) == 2
    assert "another process is training this sweep" in capsys.readouterr().err


def test_quiet_is_one_line(grid_file, trainer, capsys):
    assert main(["train", *LR_FILE, "-q"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("results       runs/g (2 runs, listed by sweep_")


def test_draws_are_listed_before_anything_starts(grid_file, here, capsys):
    (here / "d.yaml").write_text(
        yaml_text(
            {
                "d": {
                    "run": "PPO",
                    "env": "CartPole-v1",
                    "stop": {"training_iteration": 1},
                    "num_samples": 3,
                    "config": {**SETTINGS, "lr": {"loguniform": [1e-5, 1e-3]}},
                }
            }
        )
    )
    assert main(["train", "--config", "d.yaml", "--seeds", "0-1", "--dry-run"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# ")]
    assert [line[:6] for line in listed] == [f"# {i} of" for i in range(1, 7)]
    drawn = [line.partition("lr = ")[2].partition(",")[0] for line in listed]
    assert drawn[::2] == drawn[1::2]
    assert len(set(drawn)) == 3
    assert main(["train", "--config", "d.yaml", "--set", "num_samples=2", "--seed", "0", "--dry-run"]) == 0
    fewer = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# ")]
    assert [line.partition("lr = ")[2] for line in fewer] == drawn[:4:2]
