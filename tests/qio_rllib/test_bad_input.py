"""Bad input to the command line: one line that says what is wrong, exit code 2, and nothing left behind."""

import subprocess
import sys

import pytest

from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main

SETTINGS = {
    "num_env_runners": 0,
    "train_batch_size_per_learner": 200,
    "minibatch_size": 100,
    "model_config": {"fcnet_hiddens": [8]},
}
FOREST = ["--env", "forest_uav_v0"]
STOP = ["--stop", '{"training_iteration": 2}']


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory that holds the file of an experiment, x.yaml."""
    monkeypatch.chdir(tmp_path)
    stop = {"training_iteration": 1}
    experiment = {"run": "PPO", "env": "CartPole-v1", "stop": stop, "config": SETTINGS}
    (tmp_path / "x.yaml").write_text(yaml_text({"x": experiment}))
    return tmp_path


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "an experiment is needed: a file or the name of a ready one"),
        (["trian"], "No such command 'trian'"),
        (["plot", "runs"], "there is no command 'plot': 'rllib compare RUNS --out DIR' draws"),
        (["resume"], "'rllib train --resume RUN_DIR' continues"),
        (["train", "--confg", "x"], "--confg"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["train", "--config", "x.yaml", "--run", "PPO"], "--run: cannot go with an experiment file"),
        (["train", "--config", "x.yaml", "--env", "CartPole-v1"], "--env: needs --run"),
        (["train", "--config", "{}"], "--config with JSON: needs --run"),
        (["train", "--run", "PPO"], "--env: --run needs an environment"),
        (["train", "--run", "PPO", "--env", "CartPole-v1", "--config", "{x"], "--config: not valid JSON"),
        (
            ["train", "--run", "PPO", "--env", "CartPole-v1", "--config", '{"lr": 1, "lr": 2}'],
            "'lr' stands there twice",
        ),
        (
            ["train", "--run", "PPO", "--env", "CartPole-v1", "--stop", "[1]"],
            "--stop: expected a JSON object",
        ),
        (["train", "--run", "PPO", "--env", "CartPole-v1"], "stop: at least one criterion"),
        (["train", "--run", "PPPO", "--env", "CartPole-v1", *STOP], "(did you mean 'PPO'?)"),
        (["train", "--run", "ppo", "--env", "CartPole-v1", *STOP], "(did you mean 'PPO'?)"),
        (["train", "--run", "PPO", "--env", "CartPole-v9x", *STOP], "unknown environment 'CartPole-v9x'"),
        (["train", "--config", "x.yaml", "--set", "lr"], "--set: expected key=value, got 'lr'"),
        (["train", "--config", "x.yaml", "--set", "lrr=1"], "unknown key 'lrr' (did you mean 'lr'?)"),
        (["train", "--config", "x.yaml", "--set", "lr=abc"], "config.lr: expected a number"),
        (["train", "--config", "x.yaml", "--set", "minibatch_size=999"], "config.minibatch_size"),
        (
            ["train", "--config", "x.yaml", "--set", "num_gpus_per_learner=99"],
            "config.num_gpus_per_learner: 99 GPUs are needed",
        ),
        (["train", "--config", "x.yaml", "--seed", "-1"], "--seed"),
        (
            ["train", "--config", "x.yaml", "--seed", "4294967296"],
            "config.seed: expected an integer from 0 to",
        ),
        (
            ["train", "--config", "x.yaml", "--seed", "1", "--set", "seed=2"],
            "--seed: cannot go with --set seed",
        ),
        (["train", "--config", "x.yaml", "--out", "x.yaml"], "--out: cannot make a run directory"),
        (["train", "--resume", "nowhere"], "nowhere: no such run directory"),
        (["train", "--resume", "."], "not a run directory (run.json is missing)"),
        (["train", "--resume", ".", "--seed", "1"], "--seed: cannot go with --resume"),
        (["train", "--resume", ".", "--config", "x.yaml"], "--config: cannot go with --resume"),
        (["train", "--resume", ".", "--dry-run"], "--dry-run: cannot go with --resume"),
        (
            ["train", "--config", "x.yaml", "--set", "lr={grid_search: []}"],
            "lr: grid_search takes a list",
        ),
        (
            ["train", "--config", "x.yaml", "--set", "lr={grid_search: [1, x]}"],
            "config.lr: expected a number",
        ),
        (["train", "--config", "x.yaml", "--set", "num_samples=2"], "num_samples: nothing is drawn"),
        (
            ["train", "--config", "x.yaml", "--set", "lr={uniform: [1, 0]}"],
            "lr: uniform takes [lower, upper], two numbers with lower < upper, got [1, 0]",
        ),
        (["train", "--config", "x.yaml", "--seeds", "1,1,1"], "--seeds: the seed 1 stands there twice"),
        (["train", "--config", "x.yaml", "--seeds", "0-2,1"], "--seeds: the seed 1 stands there twice"),
        (["train", "--config", "x.yaml", "--seeds", ""], "--seeds: expected numbers of at least 0"),
        (["train", "--config", "x.yaml", "--seeds", "4-0"], "the range 4-0 ends before it begins; write 0-4"),
        (["train", "--config", "x.yaml", "--seeds", "0-9999999999"], "--seeds: at most 10,000 seeds"),
        (["train", "--config", "x.yaml", "--seeds", "0-4", "--seed", "1"], "--seed: cannot go with --seeds"),
        (
            ["train", "--config", "x.yaml", "--seeds", "0-4", "--set", "seed=1"],
            "--seeds: cannot go with --set seed",
        ),
        (["train", "--config", "x.yaml", "--quiet", "--json"], "--quiet: cannot go with --json"),
        (["train", "--config", "x.yaml", "-v", "--dry-run"], "--verbose: cannot go with --dry-run"),
        (["train", "--resume", ".", "--seeds", "1"], "--seeds: cannot go with --resume"),
        (
            ["train", "--resume", "x.yaml"],
            "x.yaml: neither a run directory nor the file of a sweep (sweep_<time>.yaml)",
        ),
        (["train", "--resume", "x.yaml", "--set", "stop.training_iteration=3"], "--set: cannot go with"),
        (["evaluate"], "Missing argument"),
        (["video"], "Missing argument"),
        (["evaluate", "--scripted", "random"], "--scripted: needs --env"),
        (["evaluate", ".", "--scripted", "random", *FOREST], "--scripted: cannot go with a checkpoint"),
        (["evaluate", "--scripted", "random", "--greedy", *FOREST], "--scripted: cannot go with --greedy"),
        (
            ["evaluate", "--scripted", "randm", *FOREST],
            "forest_uav_v0 has no scripted policy 'randm' (did you mean 'random'?)",
        ),
        (
            ["evaluate", "--scripted", "random", "--env", "CartPole-v1"],
            "'CartPole-v1' has no scripted policies",
        ),
        (["evaluate", "--scripted", "random", *FOREST, "--env-config", '{"height": 0}'], "height: expected"),
        (
            ["evaluate", "--scripted", "random", *FOREST, "--env-config", '{"hight": 9}'],
            "did you mean 'height'?",
        ),
        (["video", "--scripted", "random"], "--scripted: needs --env"),
        (["video", ".", "--scripted", "random", *FOREST], "--scripted: cannot go with a checkpoint"),
        (["video", "--scripted", "x", *FOREST], "forest_uav_v0 has no scripted policy 'x'"),
        (["evaluate", "nowhere"], "checkpoint: there is no nowhere"),
        (["evaluate", "."], "checkpoint: . is no checkpoint"),
        (["evaluate", "x.yaml"], "policy file: x.yaml is damaged or no policy file"),
        (["evaluate", ".", "--greedy", "--sampled"], "--greedy: cannot go with --sampled"),
        (["evaluate", ".", "--seeds", "1,x"], "--seeds: expected numbers"),
        (["evaluate", ".", "--seeds", "1", "--episodes", "3"], "--episodes: cannot go with --seeds"),
        (["evaluate", ".", "--episodes", "0"], "--episodes"),
        (["evaluate", ".", "--out", "x.yaml"], "--out: x.yaml exists already"),
        (["video", "nowhere"], "checkpoint: there is no nowhere"),
        (["video", "nowhere", "--out", "x.mp4"], "--out: expected a file that ends in .gif"),
        (["video", "nowhere", "--out", "y/x.gif"], "is in no directory that exists"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_trace(here, capsys, arguments, message):
    before = files(here)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("rllib: ")
    assert err.count("\n") == 1
    assert out == ""
    assert files(here) == before


def run_module(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "qio_rllib.cli", *arguments], capture_output=True, text=True, check=False
    )


def test_a_process_reports_bad_input_without_a_traceback(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: {run: PPO, env: CartPole-v1, stop: {training_iteration: 1}, config: {lrr: 1}}")
    done = run_module("train", "--config", str(path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "rllib: config: unknown key 'lrr' (did you mean 'lr'?)\n"
