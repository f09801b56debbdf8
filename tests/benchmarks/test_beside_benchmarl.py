"""The comparison with BenchMARL: its tables, the choice among trials, and our side; BenchMARL itself is not there."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import beside_benchmarl
from beside_benchmarl import FRAMES, HERE, MADDPG, QMIX, THERE, TRIALS, chosen, experiment_of, ours
from tables import append, read

from qio_rllib.sampling.evaluation import evaluation_seeds

TWO_TRIALS = {
    (QMIX, HERE): ({}, {"gamma": 0.9}),
    (QMIX, THERE): ({}, {"experiment": {"gamma": 0.9}}),
}


@pytest.fixture
def two_trials(monkeypatch):
    monkeypatch.setattr(beside_benchmarl, "TRIALS", TWO_TRIALS)
    monkeypatch.setattr(beside_benchmarl, "references", lambda algorithm: (-30.0, -10.0))


@pytest.fixture
def asked(monkeypatch):
    """Commands that were run; here the second trial is better, there the first."""
    commands = []

    def run(command):
        commands.append(command)
        is_first = command[-1] == "{}"
        score = -9.0 if is_first == ("benchmarl_worker.py" in command[1]) else -10.0
        return {"frames": 100, "seconds": 1.26, "cpu_seconds": 1.0, "return_per_agent": score}

    monkeypatch.setattr(beside_benchmarl, "run", run)
    return commands


def start(folder, *more):
    tables = ["--trials", str(folder / "trials.csv"), "--out", str(folder / "seeds.csv")]
    beside_benchmarl.main(["--benchmarl", sys.executable, "--frames", "100", *tables, *more])


def row(package, trial, score):
    found = {"frames": 100, "seconds": 1.0, "cpu_seconds": 1.0, "return_per_agent": score}
    return beside_benchmarl.row_of(QMIX, package, trial, 100, found)


def test_each_side_has_as_many_trials_that_begin_with_its_defaults():
    assert {len(trials) for trials in TRIALS.values()} == {len(TRIALS[QMIX, HERE])}
    assert len(TRIALS[QMIX, HERE]) >= 4
    for trials in TRIALS.values():
        assert trials[0] == {}
        assert len({json.dumps(settings) for settings in trials}) == len(trials)


@pytest.mark.parametrize("algorithm", [QMIX, MADDPG])
def test_tuned_trials_here_are_experiments_of_exactly_as_many_frames(algorithm):
    for settings in TRIALS[algorithm, HERE][1:]:
        config = experiment_of(algorithm, FRAMES, 3, settings).algorithm_config()
        assert FRAMES % config.round_steps == 0
        assert config.min_sample_timesteps_per_iteration == FRAMES
        assert config.seed == 3
        assert config.team_reward == ("mean" if algorithm == QMIX else None)
        assert config.env_config["continuous_actions"] == (algorithm == MADDPG)
        for key, value in settings.items():
            assert config[key] == value or key == "model_config"


def test_the_best_trial_of_each_side_runs_with_each_seed_in_turns(two_trials, asked, tmp_path):
    start(tmp_path, "--seeds", "2")
    sides = ["benchmarl_worker.py" if "worker" in command[1] else "here" for command in asked]
    assert sides == ["here", "benchmarl_worker.py"] * 4
    assert [command[command.index(QMIX) + 2] for command in asked] == ["100"] * 4 + ["0", "0", "1", "1"]
    assert [json.loads(command[-1]) for command in asked[4:6]] == [{"gamma": 0.9}, {}]
    python, _, *numbers, first, episodes, _ = asked[1]
    assert (python, numbers) == (sys.executable, [QMIX, "100", "100"])
    seeds = evaluation_seeds(beside_benchmarl.EPISODES)
    assert (int(first), int(episodes)) == (seeds[0], len(seeds))
    trials, runs = read(tmp_path / "trials.csv"), read(tmp_path / "seeds.csv")
    assert [(found["package"], found["trial"]) for found in trials] == [
        (HERE, "0"), (THERE, "0"), (HERE, "1"), (THERE, "1")
    ]  # fmt: skip
    assert [(found["package"], found["trial"], found["seed"]) for found in runs] == [
        (HERE, "1", "0"), (THERE, "0", "0"), (HERE, "1", "1"), (THERE, "0", "1")
    ]  # fmt: skip
    assert [runs[0][key] for key in ("return_per_agent", "normalized", "seconds")] == ["-9.0", "1.05", "1.3"]


def test_runs_that_are_there_are_not_repeated(two_trials, asked, tmp_path):
    start(tmp_path, "--seeds", "0")
    assert len(asked) == 4
    assert not (tmp_path / "seeds.csv").exists()
    start(tmp_path, "--seeds", "1")
    start(tmp_path, "--seeds", "2")
    assert len(asked) == 8


def test_the_greatest_return_is_chosen_as_a_number(two_trials):
    scores = {0: -10.0, 1: -9.5}
    rows = [row(HERE, trial, score) for trial, score in scores.items()] + [row(THERE, 0, -1.0)]
    assert chosen(rows, QMIX, HERE) == 1
    assert chosen([row(HERE, 1, -9.5), row(HERE, 0, -9.5)], QMIX, HERE) == 0
    with pytest.raises(SystemExit, match="^trials: benchmarl, qmix: 1 of 2 were run$"):
        chosen(rows, QMIX, THERE)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"frames": 99}, "trial 1, seed 100 is of 99 frames, not of 100; move the table away"),
        ({"frames": 1_100}, "trial 1, seed 100 is of 1100 frames"),
        ({"settings": '{"gamma": 0.8}'}, "trial 1, seed 100 has other settings than this script; move"),
        ({"trial": 2}, "trial 2, seed 100 has other settings than this script"),
    ],
)
def test_runs_of_other_settings_or_frames_are_not_mixed(two_trials, asked, tmp_path, changes, complaint):
    append(tmp_path / "trials.csv", [row(HERE, 1, -9.0) | changes])
    with pytest.raises(SystemExit, match=complaint):
        start(tmp_path)
    assert not asked


@pytest.mark.parametrize("python", [[], ["--benchmarl", "/no/such/python"]])
def test_a_python_that_is_not_there_is_said_in_a_line(python, tmp_path):
    with pytest.raises(
        SystemExit, match="^--benchmarl: a Python that holds BenchMARL is needed, got (None|/no/such)"
    ):
        beside_benchmarl.main([*python, "--trials", str(tmp_path / "trials.csv")])
    assert not (tmp_path / "trials.csv").exists()


def test_what_goes_wrong_in_a_run_is_said():
    with pytest.raises(
        SystemExit, match=r"(?s)import nothing_like_this failed:.*No module named 'nothing_like_this'"
    ):
        beside_benchmarl.run([sys.executable, "-c", "import nothing_like_this"])


def test_the_claim_is_made_of_both_tables_and_needs_equal_numbers(two_trials, asked, tmp_path, monkeypatch):
    from claims import figures, learning
    from results_page import sentence

    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    assert learning.beside_benchmarl() == ()
    tables = ["--trials", str(tmp_path / learning.TRIALS), "--out", str(tmp_path / learning.BENCHMARL)]
    beside_benchmarl.main(["--benchmarl", sys.executable, "--frames", "100", "--seeds", "2", *tables])
    qmix, _ = learning.beside_benchmarl()
    text = sentence(qmix)
    assert "100 environment steps, settings the best of 2 trials of each side" in text
    assert text.count("-9.0 (mean of 2 seeds, -9.0 to -9.0)") == 2
    append(tmp_path / learning.TRIALS, [row(HERE, 1, -9.0)])
    with pytest.raises(ValueError, match="no longer true of beside_benchmarl.csv"):
        sentence(qmix)
    append(tmp_path / learning.BENCHMARL, [row(HERE, 1, -9.0) | {"frames": 160}])
    with pytest.raises(ValueError, match=r"frames is \[100.0, 160.0\]"):
        figures.only(learning.BENCHMARL, "frames", algorithm=QMIX)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("algorithm", [QMIX, MADDPG])
def test_our_side_trains_and_returns_are_those_of_an_agent(algorithm, monkeypatch):
    returns = iter([-30.0, -60.0])
    monkeypatch.setattr(
        beside_benchmarl,
        "evaluate",
        lambda policy, env, settings, seeds, explore: [{"episode_return": next(returns)} for _ in seeds],
    )
    monkeypatch.setattr(beside_benchmarl, "EPISODES", 2)
    small = {
        "num_envs_per_env_runner": 2, "rollout_fragment_length": 8, "env_steps_per_update": 8,
        "num_steps_sampled_before_learning_starts": 16, "train_batch_size_per_learner": 8,
    }  # fmt: skip
    found = ours(algorithm, 64, 0, small)
    assert (found["frames"], found["return_per_agent"]) == (64, -15.0)
    assert found["cpu_seconds"] > 0
