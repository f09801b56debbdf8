import csv
import importlib.util
import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image

import qio_envs
from qio_envs.api.scores import episode_scores
from qio_rllib.artifacts.files import read_csv
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.cli import main
from qio_rllib.cli.progress import progress_line

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
CARTPOLE = ["--run", "PPO", "--env", "CartPole-v1", "--config", json.dumps(SETTINGS)]
STOP = ["--stop", '{"training_iteration": 2}']


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def experiment_file(here):
    path = here / "x.yaml"
    path.write_text(
        yaml_text(
            {"x": {"run": "PPO", "env": "CartPole-v1", "stop": {"training_iteration": 1}, "config": SETTINGS}}
        )
    )
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_runtime):
    """A run of two iterations, as the command line makes it."""
    out = tmp_path_factory.mktemp("runs")
    assert main(["train", *CARTPOLE, *STOP, "--seed", "5", "--out", str(out)]) == 0
    (path,) = (out / "PPO_CartPole-v1").iterdir()
    return RunDirectory.open(path)


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def table_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


# --- a run -------------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_run_leaves_its_artifacts(finished):
    found = {path.name for path in finished.path.iterdir()}
    assert found - {"best.gif"} == {
        "config.yaml",
        "run.json",
        "progress.csv",
        "tensorboard",
        "learning_curve.png",
        "entropy.png",
        "losses.png",
        "checkpoints",
        "checkpoints.json",
        ".lock",
        "policy.pt",
        "evaluation.csv",
        "run.log",
    }
    assert ("best.gif" in found) == (importlib.util.find_spec("pygame") is not None)
    for name in ("learning_curve.png", "entropy.png"):
        with Image.open(finished.path / name) as image:
            assert image.size == (1080, 630)
    info = finished.info()
    assert info["status"] == "finished"
    assert info["seed"] == 5
    assert info["versions"].keys() >= {"python", "ray", "torch", "numpy", "gymnasium", "pettingzoo"}
    assert info["cpu"]
    assert info["start_time"] <= info["end_time"]
    assert (finished.path / info["checkpoint"] / "rllib_checkpoint.json").exists()


@pytest.mark.ray
def test_progress_has_a_row_for_each_iteration(finished):
    rows = ProgressFile(finished.progress_file).rows
    assert [row["training_iteration"] for row in rows] == [1, 2]
    assert [row["num_env_steps_sampled_lifetime"] for row in rows] == [200, 400]
    for row in rows:
        assert row["env_runners/episode_return_mean"] > 0
        assert row["evaluation/greedy/episode_return"] > 0
        assert 0 < row["learners/default_policy/normalized_entropy"] <= 1
        assert row["learners/default_policy/alpha"] <= 0.02


@pytest.mark.ray
def test_the_final_evaluation_is_the_one_that_training_logged(finished):
    rows = read_csv(finished.evaluation_file)
    logged = ProgressFile(finished.progress_file).rows[-1]
    for mode in ("greedy", "sampled"):
        returns = [row["episode_return"] for row in rows if row["mode"] == mode]
        assert len(returns) == 3
        assert sum(returns) / 3 == logged[f"evaluation/{mode}/episode_return"]
        assert finished.info()["evaluation"][mode]["episode_return"] == sum(returns) / 3


@pytest.mark.ray
@pytest.mark.parametrize("what", ["checkpoint", "run directory"])
def test_evaluate_repeats_the_final_evaluation_exactly(finished, here, capsys, what):
    path = finished.path if what == "run directory" else finished.path / finished.info()["checkpoint"]
    assert main(["evaluate", str(path), "--out", "again.csv"]) == 0
    assert (here / "again.csv").read_bytes() == finished.evaluation_file.read_bytes()
    mean = finished.info()["evaluation"]["greedy"]["episode_return"]
    assert f"{mean:.6g}" in capsys.readouterr().out


@pytest.mark.ray
def test_evaluate_takes_seeds_and_policy_files(finished, here):
    seeds = [row["seed"] for row in read_csv(finished.evaluation_file)[:3]]
    listed = ",".join(map(str, seeds))
    policy = str(finished.path / "policy.pt")
    assert main(["evaluate", policy, "--seeds", listed, "--sampled", "--out", "sampled.csv"]) == 0
    assert read_csv(here / "sampled.csv") == read_csv(finished.evaluation_file)[3:]
    assert main(["evaluate", str(finished.path), "--episodes", "5", "--greedy", "--out", "five.csv"]) == 0
    rows = read_csv(here / "five.csv")
    assert rows[:3] == read_csv(finished.evaluation_file)[:3]
    assert [row["seed"] for row in rows] == [*seeds, seeds[-1] + 1, seeds[-1] + 2]


@pytest.mark.ray
def test_evaluate_refuses_an_environment_that_does_not_fit(finished, capsys):
    assert main(["evaluate", str(finished.path), "--env", "Acrobot-v1"]) == 2
    assert "observation space of Acrobot-v1" in capsys.readouterr().err
    assert main(["evaluate", str(finished.path), "--env", "forest_uav_v0"]) == 2
    assert "observation space of forest_uav_v0" in capsys.readouterr().err


@pytest.mark.ray
def test_several_runs_of_an_experiment_are_evaluated_at_once(finished, here, capsys):
    for seed in ("1", "2"):
        shutil.copytree(finished.path, here / "runs" / "cart" / seed)
    shutil.rmtree(here / "runs" / "cart" / "2" / "checkpoints")
    assert main(["evaluate", "runs/cart/1", "runs/cart/2", "--out", "both.csv"]) == 0
    out, err = capsys.readouterr()
    assert "mean ± deviation of episode return, CartPole-v1, 3 episodes" in out
    assert err == "rllib: note: runs/cart/2 has no checkpoint any more; its policy.pt acts\n"
    expected = read_csv(
        finished.evaluation_file
    )  # the policy file acts as the checkpoint did, on the run's own seeds
    assert read_csv(here / "both.csv") == [
        {"run": f"runs/cart/{seed}", **row} for seed in ("1", "2") for row in expected
    ]


@pytest.mark.ray
def test_video_records_an_episode(finished, here, capsys):
    pytest.importorskip("pygame")
    assert main(["video", str(finished.path), "--out", "a.gif", "--seed", "3"]) == 0
    with Image.open(here / "a.gif") as image:
        assert image.n_frames > 3
    assert main(["video", str(finished.path), "--out", "a.gif"]) == 2
    assert "a.gif exists already" in capsys.readouterr().err


@pytest.mark.ray
def test_a_runs_config_repeats_the_run(finished, here, capsys):
    assert main(["train", "--config", str(finished.config_file), "--dry-run"]) == 0
    assert capsys.readouterr().out == finished.config_file.read_text()


@pytest.mark.ray
def test_resuming_a_finished_run_says_so_and_changes_nothing(finished, capsys):
    before = files(finished.path)
    assert main(["train", "--resume", str(finished.path)]) == 2
    assert "nothing to do, the run is finished (training_iteration = 2 of 2)" in capsys.readouterr().err
    assert files(finished.path) == before


SPRINT = ["--env", "forest_uav_v0", "--env-config", '{"scenario": "sprint"}']


def test_a_scripted_policy_is_scored_as_the_suite_scores_it(here, capsys):
    arguments = ["evaluate", "--scripted", "greedy", *SPRINT, "--seeds", "7,8,9", "--out", "s.csv"]
    assert main(arguments) == 0
    env = qio_envs.environment("forest_uav_v0").batched_env(3, scenario="sprint")
    expected = episode_scores(env, env.scripted_policies["greedy"], seed=7)
    rows = read_csv(here / "s.csv")
    assert [row["mode"] for row in rows] == ["greedy"] * 3
    assert [row["seed"] for row in rows] == [7, 8, 9]
    assert [row["team_return"] for row in rows] == expected.tolist()
    assert f"{expected.mean():.6g}" in capsys.readouterr().out


def test_a_scripted_episode_is_recorded_as_it_is_scored(here, capsys):
    assert main(["evaluate", "--scripted", "lawnmower", *SPRINT, "--seeds", "5", "--out", "s.csv"]) == 0
    assert main(["video", "--scripted", "lawnmower", *SPRINT, "--seed", "5", "--out", "s.gif"]) == 0
    (row,) = read_csv(here / "s.csv")
    assert f"lawnmower episode of seed 5, return {row['episode_return']:g}" in capsys.readouterr().out
    with Image.open(here / "s.gif") as image:
        assert image.n_frames > 3


# --- without training --------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_resolved_experiment_and_writes_nothing(experiment_file, here, capsys):
    before = files(here)
    arguments = ["train", "--config", "x.yaml", "--seed", "3", "--set", "lr=1e-5", "--dry-run"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    (here / "y.yaml").write_text(printed)
    assert "lr: 1e-05" in printed
    assert "seed: 3" in printed
    assert main(["train", "--config", "y.yaml", "--dry-run"]) == 0
    assert capsys.readouterr().out == printed
    (here / "y.yaml").unlink()
    assert files(here) == before


def test_list_shows_environments_algorithms_and_scripted_policies(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for word in (
        "forest_uav_v0",
        "sprint",
        "PPO",
        "random",
        "lawnmower",
        "six_forests",
        "corridor",
        "gravity from 4.9",
    ):
        assert word in out


def test_the_progress_line_names_what_there_is():
    row = {
        "training_iteration": 3,
        "num_env_steps_sampled_lifetime": 12345,
        "env_steps_per_s": 1234.5,
        "env_runners/team_return": 301.26,
        "env_runners/episode_return_mean": 9.0,
        "env_runners/coverage": 0.756,
        "learners/a/normalized_entropy": 0.5,
        "learners/b/normalized_entropy": 0.7,
        "learners/a/alpha": 0.01,
    }
    assert progress_line(row, {"training_iteration": 10, "time_total_s": 5}) == (
        "iteration 3/10  steps 12,345  return 301.3  coverage 0.76  entropy 0.600  alpha 0.0100  1,234 steps/s"
    )
    assert progress_line({"training_iteration": 1}) == "iteration 1"
    replay = {"training_iteration": 1, "replay/warming_up": 1, "learners/a/exploration": 0.25}
    assert progress_line(replay) == "iteration 1  warming up  exploration 0.250"
    assert progress_line(replay | {"replay/warming_up": 0}) == "iteration 1  exploration 0.250"


def test_help_answers_without_ray_and_torch():
    code = (
        "import sys; from qio_rllib.cli import main; assert main(['--help']) == 0; "
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("train", "evaluate", "diagnose", "list", "video", "bench"):
        assert command in done.stdout


@pytest.mark.ray
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            "observation",
            "InvalidSampleError: environment 0, step 15 of its episode: observation of a_1 is nan at [2]",
        ),
        pytest.param(
            "reward",
            "InvalidSampleError: environment 0, step 15 of its episode: reward of a_0 is inf",
            marks=pytest.mark.long,
        ),
        pytest.param("error", "RuntimeError: the arm is stuck", marks=pytest.mark.long),
    ],
)
def test_what_an_environment_breaks_is_said_and_the_last_checkpoint_stays(
    here, ray_runtime, capsys, fault, reason
):
    settings = {**SETTINGS, "env_config": {"fault": fault}, "evaluation_interval": None}
    settings |= {"train_batch_size_per_learner": 20, "minibatch_size": 20, "entropy_annealing": None}
    experiment = {"run": "PPO", "env": "toy_broken:Broken", "stop": {"training_iteration": 5}}
    experiment |= {"checkpoint_config": {"checkpoint_frequency": 1}, "config": settings}
    (here / "broken.yaml").write_text(yaml_text({"broken": experiment}))
    assert main(["train", "--config", "broken.yaml", "--allow-import", "toy_broken"]) == 1
    assert f"training failed in iteration 3: {reason} (log: " in capsys.readouterr().err
    (run,) = (here / "runs").glob("*/*")
    assert [int(row["training_iteration"]) for row in read_csv(run / "progress.csv")] == [1, 2]
    last = sorted((run / "checkpoints" / "trial").glob("checkpoint_*"))[-1]
    assert main(["evaluate", str(last), "--episodes", "1", "--env-config", '{"fault": "none"}']) == 0


# -- causal, of a finished run


@pytest.mark.ray
def test_a_run_is_explained_and_its_experience_is_data(finished, here, capsys):
    assert main(["causal", "explain", str(finished.path), "--step", "5", "--out", "why"]) == 0
    text = capsys.readouterr().out
    assert "CartPole-v1, step 5 of the episode of seed 1000000, greedy" in text
    assert "note: CartPole-v1 cannot be branched" in text
    rows = read_csv(here / "why" / "explanation.csv")
    assert sorted(row["variable"] for row in rows) == [f"obs[{i}]" for i in range(4)]
    assert main(["causal", "discover", str(finished.path), "--samples", "400", "--seed", "1"]) == 0
    text = capsys.readouterr().out
    assert "in CartPole-v1, 400 rows" in text
    assert "obs[0]' <- obs[0], obs[1]\n" in text
    assert "note: never changes and is left out: reward" in text
    assert main(["causal", "explain", str(finished.path), "--lags", "2", "--out", "x"]) == 2
    assert "only the present observation can be set" in capsys.readouterr().err
