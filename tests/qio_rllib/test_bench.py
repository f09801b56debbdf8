"""``rllib bench``: RLlib's own path beside this package's."""

import csv
import math

import pytest
import ray

from qio_envs.api import ConfigError
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main
from qio_rllib.experiments.benchmark import OURS, STOCK, benchmark
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.experiments.stock_learners import STOCK_LEARNERS, stock_config
from qio_rllib.experiments.timed_turns import Turn, ray_for, summary, take_turns

COLUMNS = [
    "experiment", "algorithm", "env", "path", "env_runners", "num_envs", "agents", "env_steps_per_s",
    "agent_steps_per_s",
    "ratio", "slowest_round", "fastest_round", "rounds", "sample_s", "learn_s", "other_s",
    "environment_s", "acting_s", "gradient_s", "env_steps", "gradient_steps", "update_gflop_per_s",
    "product_gflop_per_s", "copy_gb_per_s", "torch_threads", "process_rss_mib",
    "runner_rss_mib", "seed", "cpu", "cpus", "python", "ray",
    "torch", "numpy",
]  # fmt: skip


def write(path, run="PPO", env="forest_uav_v0", **config):
    settings = {
        "num_env_runners": 0,
        "num_envs_per_env_runner": 2,
        "train_batch_size_per_learner": 80,
        "model_config": {"fcnet_hiddens": [8]},
        "amplification": {"eta": 0.2},
        "entropy_annealing": {"law": "quantum", "alpha_0": 0.02},
        "evaluation_interval": 1,
    }
    if env == "forest_uav_v0":
        settings["env_config"] = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 20}
    if run == "PPO":
        settings |= {"minibatch_size": 60, "num_epochs": 2}
    entry = {"run": run, "env": env, "stop": {"training_iteration": 1}, "config": settings | config}
    path.write_text(yaml_text({"tiny": entry}))
    return str(path)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_both_paths_take_turns_at_the_same_work(tmp_path, capsys):
    file = write(tmp_path / "x.yaml")
    out = tmp_path / "bench.csv"
    assert main(["bench", "--config", file, "--rounds", "2", "--set", "lr=1e-4", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    stock, ours = rows_of(out)
    assert list(stock) == COLUMNS
    assert [stock["path"], ours["path"]] == [STOCK, OURS]
    for row in (stock, ours):
        assert (row["env_runners"], row["agents"], row["rounds"], row["env_steps"]) == ("0", "3", "2", "80")
        assert float(row["agent_steps_per_s"]) == pytest.approx(3 * float(row["env_steps_per_s"]), rel=0.01)
        assert float(row["slowest_round"]) <= float(row["env_steps_per_s"]) <= float(row["fastest_round"])
        assert min(float(row[key]) for key in ("sample_s", "learn_s", "other_s")) > 0
        assert 20 < float(row["process_rss_mib"]) < 8000
        assert row["runner_rss_mib"] == ""
    assert stock["update_gflop_per_s"] == stock["gradient_s"] == stock["environment_s"] == ""
    assert 0 < float(ours["update_gflop_per_s"]) < 2 * float(ours["product_gflop_per_s"])
    # 80 steps of 3 agents in minibatches of 60, twice; RLlib's rows for the ends of episodes make some more.
    assert int(ours["gradient_steps"]) == 8
    assert 8 <= int(stock["gradient_steps"]) <= 9
    assert float(stock["ratio"]) == 1
    speeds = [float(row["env_steps_per_s"]) for row in (ours, stock)]
    assert float(ours["ratio"]) == pytest.approx(speeds[0] / speeds[1], rel=0.01)
    for text in (
        "tiny: PPO in forest_uav_v0, seed 0",
        "3 agents",
        "one torch thread",
        "environments  ",
        "gradient steps multiply",
        "of torch's matrix product",
        "2 rounds",
        ray.__version__,
    ):
        assert text in printed
    assert max(map(len, printed.splitlines()[:26])) <= 110


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_a_single_agent_environment(tmp_path, capsys):
    assert (
        main(["bench", "--config", write(tmp_path / "x.yaml", env="CartPole-v1"), "--seconds", "0.01"]) == 0
    )
    assert "1 round" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_an_algorithm_that_rllib_lacks_is_measured_alone(tmp_path, monkeypatch):
    monkeypatch.delitem(STOCK_LEARNERS, "PPO")
    measured = benchmark(load_experiment(write(tmp_path / "x.yaml", num_env_runners=1)), rounds=1)
    (row,) = measured.rows
    assert (row["path"], row["ratio"], row["env_runners"]) == (OURS, "", 1)
    assert 20 < row["runner_rss_mib"] < 4000
    assert measured.notes == ("RLlib has no PPO: there is nothing to compare with.",)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_a_running_ray_that_is_too_small_is_refused(tmp_path):
    config = load_experiment(write(tmp_path / "x.yaml")).algorithm_config()
    config.env_runners(num_env_runners=2)
    with (
        pytest.raises(ConfigError, match="6 CPUs are needed for 2 algorithms at once, the running Ray has 4"),
        ray_for(config, config),
    ):
        pass


def test_rllibs_path_is_the_same_but_for_runner_and_learner(tmp_path):
    config = load_experiment(write(tmp_path / "x.yaml")).algorithm_config()
    before = config.env_runner_cls, config.learner_class
    stock = stock_config(config, STOCK_LEARNERS["PPO"])
    assert (config.env_runner_cls, config.learner_class) == before
    ours, theirs = config.to_dict(), stock.to_dict()
    differing = {key for key in ours.keys() | theirs if ours.get(key) != theirs.get(key)}
    assert differing == {"env_runner_cls", "_learner_class", "policy_mapping_fn"}  # the last is a copy
    assert stock.policy_mapping_fn.modules == config.policy_mapping_fn.modules


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seconds", "0"], "--seconds: expected a number above 0, got 0"),
        (["--seconds", "nan"], "--seconds: expected a number above 0, got nan"),
        (["--rounds", "0"], "--rounds: expected an integer of at least 1, got 0"),
        (["--set", "lrr=1"], "config: unknown key 'lrr'"),
        (["--out", "missing/x.csv"], "--out: missing/x.csv is in no directory that exists"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--config", write(tmp_path / "x.yaml"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"rllib: {complaint}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--config", "nope.yaml"], "rllib: nope.yaml: No such file; 'rllib list' names"),
        (["--config", "{}"], "rllib: --config with JSON: needs --run ALGORITHM"),
        ([], "rllib: an experiment is needed: a file or the name of a ready one"),
    ],
)
def test_a_missing_experiment_is_one_line(capsys, arguments, complaint):
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err.startswith(complaint)


class Clockwork:
    """A contestant whose turns are known beforehand."""

    def __init__(self, log, name, speeds):
        self.log, self.name, self.speeds = log, name, iter(speeds)

    def turn(self):
        self.log.append(self.name)
        return Turn(100 / next(self.speeds), 0.5, 0.25, env_steps=100, agent_steps=300, gradient_steps=4)


def test_rounds_alternate_after_a_turn_that_does_not_count():
    log = []
    turns = take_turns({name: Clockwork(log, name, [1, 50, 100, 25]) for name in "ab"}, rounds=3)
    assert log == list("ab" * 4)
    assert [len(each) for each in turns.values()] == [3, 3]
    row = summary(turns["a"], turns["b"])
    assert row["env_steps_per_s"] == 50
    assert row["agent_steps_per_s"] == 150
    assert (row["slowest_round"], row["fastest_round"], row["ratio"]) == (25, 100, 1)
    assert (row["sample_s"], row["learn_s"], row["other_s"]) == (0.5, 0.25, 1.25)
    assert summary(turns["a"])["ratio"] == ""
    assert math.isnan(turns["a"][0].team_return)


def test_seconds_end_the_rounds():
    turns = take_turns({"a": Clockwork([], "a", [1, 1])}, rounds=5, seconds=1e-9)
    assert len(turns["a"]) == 1
