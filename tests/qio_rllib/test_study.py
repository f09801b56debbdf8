"""Studies: algorithms x tasks x seeds; training is put in place of here."""

import pytest

from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main
from qio_rllib.experiments import study
from qio_rllib.experiments.failures import TrainingFailed, TrainingInterrupted
from qio_rllib.experiments.finished_run import RunResult

STUDY = {
    "seeds": "0-1",
    "stop": {"training_iteration": 2},
    "config": {"num_env_runners": 0, "model_config": {"fcnet_hiddens": [8]}},
    "algorithms": {"ppo": {"run": "PPO", "config": {"lr": 1e-3}}, "a2c": {"run": "A2C"}},
    "tasks": {
        "pole": {"env": "CartPole-v1", "config": {"model_config": {"fcnet_activation": "relu"}}},
        "swing": {"env": "Acrobot-v1", "stop": {"training_iteration": 3}},
    },
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(here, **changes):
    (here / "s.yaml").write_text(yaml_text({"s": {**STUDY, **changes}}))


@pytest.fixture
def raises():
    """What the run of an algorithm on a task with a seed raises, given its directory."""
    return {}


@pytest.fixture
def trained(monkeypatch, raises):
    """Take the place of training; yields (what was done, task, algorithm, seed)."""
    done = []

    def end(how, directory):
        task, algorithm = directory.path.parts[-3:-1]
        seed = directory.info()["seed"]
        done.append((how, task, algorithm, seed))
        if (task, algorithm, seed) in raises:
            directory.update_info(status="interrupted")
            raise raises[task, algorithm, seed](directory.path)
        score = {"ppo": 10.0, "a2c": 30.0}[algorithm] + seed
        directory.progress_file.write_text(f"training_iteration,env_runners/episode_return_mean\n1,{score}\n")
        evaluation = {"greedy": {"episode_return": score}}
        directory.update_info(status="finished", evaluation=evaluation, checkpoint="c")
        return RunResult(directory.path, directory.path / "c", evaluation)

    def train(experiment, out, **how):
        directory = RunDirectory.create(out, experiment.name)
        directory.write_config({experiment.name: experiment.as_dict()})
        directory.update_info(status="running", seed=experiment.seed)
        return end("train", directory)

    monkeypatch.setattr(study.training, "train", train)
    monkeypatch.setattr(study.training, "resume", lambda path, **how: end("resume", RunDirectory.open(path)))
    return done


ALL = [(task, name, seed) for task in ("pole", "swing") for name in ("ppo", "a2c") for seed in (0, 1)]


def test_every_algorithm_is_trained_on_every_task_with_every_seed(here, trained, capsys):
    write(here)
    assert main(["study", "s.yaml"]) == 0
    assert [each[1:] for each in trained] == ALL
    (run,) = (
        run
        for run in map(RunDirectory, (here / "runs" / "s" / "pole" / "ppo").iterdir())
        if run.info()["seed"] == 1
    )
    (entry,) = run.config().values()
    assert entry["config"]["model_config"] == {"fcnet_hiddens": [8], "fcnet_activation": "relu"}
    assert (entry["config"]["lr"], entry["config"]["seed"]) == (1e-3, 1)
    (swing,) = RunDirectory(next((here / "runs" / "s" / "swing" / "a2c").iterdir())).config().values()
    assert (swing["env"], swing["stop"]) == ("Acrobot-v1", {"training_iteration": 3})
    out = capsys.readouterr().out
    for part in ("task pole (seeds 0,1)", "mean 10.5", "30 to 31", "results       runs/s (8 of 8 runs)"):
        assert part in out


def test_what_is_there_is_not_trained_again(here, trained, raises, capsys):
    write(here)
    raises["pole", "a2c", 0] = lambda path: TrainingInterrupted(path)
    assert main(["study", "s.yaml"]) == 130
    assert capsys.readouterr().err == ("rllib: the study was interrupted; go on with: rllib study s.yaml\n")
    assert [each[1:] for each in trained] == ALL[:3]
    trained.clear()
    raises["pole", "a2c", 0] = lambda path: TrainingFailed("training failed in iteration 1: no", path)
    assert main(["study", "s.yaml"]) == 1
    out, err = capsys.readouterr()
    assert err == "rllib: training failed in iteration 1: no\n"
    assert "s: 2 of 8 runs are there" in out
    assert "7 of 8 runs" in out
    assert trained == [("resume", *ALL[2]), *(("train", *each) for each in ALL[3:])]
    trained.clear()
    raises.clear()
    assert main(["study", "s.yaml", "--dry-run"]) == 0
    assert "pole, a2c, seed 0: interrupted: runs/s/pole/a2c/" in capsys.readouterr().out
    assert trained == []
    assert main(["study", "s.yaml", "--seeds", "0-2", "-q"]) == 0
    assert trained[0] == ("train", "pole", "ppo", 2)
    assert ("resume", *ALL[2]) in trained
    assert len(trained) == 5
    out = capsys.readouterr().out
    assert "of 12:" not in out
    assert "probability that a run of the row scores higher" in out


def test_runs_of_other_settings_are_not_mixed_in(here, trained, capsys):
    write(here)
    assert main(["study", "s.yaml"]) == 0
    write(here, stop={"training_iteration": 5})
    assert main(["study", "s.yaml"]) == 2
    assert "was trained with another stop.training_iteration; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithms": {}}, "algorithms: at least one is needed, such as algorithms: {name: {run: ...}}"),
        ({"tasks": None}, "tasks: at least one is needed"),
        ({"algorithms": {"ppo": {}}}, "algorithms.ppo.run: missing"),
        ({"algorithms": {"a/b": {"run": "PPO"}}}, "algorithms: 'a/b' cannot name a directory"),
        ({"algorithms": {"ppo": {"run": "PPPO"}}}, "pole, ppo: run: unknown algorithm 'PPPO'"),
        ({"algorithms": {"ppo": {"run": "PPO", "confg": {}}}}, "(did you mean 'config'?)"),
        ({"seed": 3}, "unknown key 'seed' (did you mean 'seeds'?)"),
        ({"seeds": "1,1,1"}, "s.seeds: the seed 1 stands there twice"),
        ({"seeds": []}, "s.seeds: expected numbers of at least 0"),
        ({"seeds": [2, 2]}, "s.seeds: the seed 2 stands there twice"),
        ({"config": {"lrr": 1}}, "(did you mean 'lr'?)"),
        ({"config": {"lr": {"uniform": [0, 1]}}}, "a study has no search"),
        ({"config": {"num_env_runners": 5000}}, "pole, ppo: config.num_env_runners: 500"),
        ({"tasks": {"x": {"env": "toy_matrix:unregistered"}}}, "--allow-import toy_matrix"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_trace(here, trained, monkeypatch, capsys, changes, message):
    write(here, **changes)
    assert main(["study", "s.yaml"]) == 2
    _, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert trained == []
    assert [path.name for path in here.iterdir()] == ["s.yaml"]
