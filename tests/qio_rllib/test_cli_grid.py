"""Grid searches on the command line."""

import pytest

from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import read_yaml, yaml_text
from qio_rllib.cli import main

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
    runs = sorted((here / "runs" / "g").iterdir())
    assert [read_yaml(run / "config.yaml")["g"]["config"]["lr"] for run in runs] == [1e-3, 1e-4]
    out = capsys.readouterr().out
    for run in runs:
        info = RunDirectory.open(run).info()
        assert info["status"] == "finished"
        assert f"{info['evaluation']['greedy']['episode_return']:.4g}" in out
        assert str(run.relative_to(here)) in out.replace("\n", "") or run.name[:10] in out
    assert main(["train", "--resume", str(runs[0]), "--set", "stop.training_iteration=2"]) == 0
    assert len(read_csv(runs[0] / "progress.csv")) == 2


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
    states = [RunDirectory.open(run).info()["status"] for run in sorted((here / "runs" / "b").iterdir())]
    assert states == ["failed", "finished"]
