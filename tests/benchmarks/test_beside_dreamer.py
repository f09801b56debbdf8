"""The script that runs world models beside RLlib's DreamerV3: at tiny sizes, and with contestants that are made up."""

import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import beside_dreamer
from beside_dreamer import CARTPOLE, DRIFT, measure, name_of, ours, played, rllib
from tables import read

from qio_rllib.sampling.evaluation import evaluation_seeds


class Fixed:
    """A module that takes the same action in every state, and keeps what it was asked."""

    def __init__(self, action):
        self.action, self.asked = torch.tensor(action), []
        self.dreamer_model = self

    def get_initial_state(self):
        return {"h": torch.zeros(3), "z": torch.ones(2, 2, dtype=torch.int64)}

    def forward_inference(self, observations, state, is_first):
        self.asked.append((observations.shape, is_first.tolist(), state["h"][0, 0].item()))
        state = {"h": state["h"] + 1, "z": state["z"]}
        return self.action.expand(len(observations), -1), state


@pytest.mark.parametrize(
    ("task", "said", "done", "size"),
    [(CARTPOLE, [0.1, 0.9], 1, 4), (DRIFT, [2.0, -0.5], np.float32([1.0, -0.5]), 4)],
)
def test_rllibs_module_is_played_on_the_fixed_episodes(task, said, done, size):
    module, returns, lengths = Fixed(said), [], []
    for seed in evaluation_seeds(3):
        env = gymnasium.make(task)
        env.reset(seed=seed)
        total, steps, over = 0.0, 0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(done)
            total, steps, over = total + float(reward), steps + 1, terminated or truncated
        returns.append(total)
        lengths.append(steps)
    assert len(set(lengths)) > 1  # so that some episodes wait for others
    assert played(module, task, episodes=3) == pytest.approx((np.mean(returns), np.mean(lengths)))
    assert len(module.asked) == max(lengths)
    for step, (shape, is_first, memory) in enumerate(module.asked):
        assert shape == (3, 1, size)
        assert is_first == [float(step == 0)] * 3
        assert memory == step


def test_playing_leaves_the_generator_of_training_as_it_was():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    played(Fixed([0.1, 0.9]), CARTPOLE, episodes=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_row_is_reported_after_each_share_of_the_steps():
    evaluated = []

    def progress():
        for steps in range(0, 10_000, 30):
            yield steps, steps // 2, -1.0, lambda steps=steps: (evaluated.append(steps) or steps, 7.0)

    rows = list(measure("someone", CARTPOLE, 0, 1_000, progress()))
    assert [row["env_steps"] for row in rows] == [
        min(steps for steps in range(0, 10_000, 30) if steps >= 100 * place) for place in range(1, 11)
    ]
    assert [row["env_steps"] for row in rows] == evaluated == [row["greedy_return"] for row in rows]
    assert rows[-1]["env_steps"] == 1_020
    assert all(row["gradient_steps"] == row["env_steps"] // 2 for row in rows)
    assert np.all(np.diff([row["cpu_seconds"] for row in rows]) >= 0)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("ratio", [8, 16])
def test_rllibs_dreamer_takes_as_many_gradient_steps_as_its_ratio_says(ratio):
    small = {"batch_size_B": 2, "batch_length_T": 8, "model_size": "nano"}
    rows = list(measure("RLlib", CARTPOLE, 0, 40, rllib(CARTPOLE, 0, ratio, **small)))
    for row in rows:  # 16 steps fill a batch; then a ratio of 8 is two steps to a batch of 16
        assert row["gradient_steps"] == (row["env_steps"] - 16) * ratio // 16 + 1
        assert 1 <= row["greedy_return"] == pytest.approx(row["greedy_length"], abs=0.1)
    assert rows[-1]["env_steps"] >= 40


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(("behaviour", "task"), beside_dreamer.OURS)
def test_our_sides_train_and_are_evaluated(behaviour, task, tmp_path, monkeypatch):
    monkeypatch.setattr(beside_dreamer, "EPISODES", 2)
    tiny = [
        "num_steps_sampled_before_learning_starts=40",
        "min_sample_timesteps_per_iteration=20",
        "env_steps_per_update=10",
        "pretraining_updates=1",
        "train_batch_size_per_learner=4",
    ]
    rows = list(measure(name_of(behaviour, 0), task, 0, 80, ours(task, 0, behaviour, tiny)))
    assert rows[-1]["env_steps"] == 80
    assert rows[-1]["gradient_steps"] > rows[0]["gradient_steps"] == 0
    assert np.isfinite([row["greedy_return"] for row in rows]).all()


def test_runs_that_are_there_are_not_repeated(tmp_path, monkeypatch):
    out, commands = tmp_path / "x.csv", []

    def progress():
        yield 0, 0, 0.0, lambda: (0.0, 0.0)
        yield 100, 1, 0.0, lambda: (5.0, 5.0)

    (row,) = measure(name_of("planner", 1024), CARTPOLE, 0, 100, progress())
    beside_dreamer.append(out, [row, row | {"task": DRIFT, "env_steps": 99}])
    monkeypatch.setattr(
        beside_dreamer.subprocess, "run", lambda command, check: commands.append(command[3:6])
    )
    sides = ["--sides", "rllib", "planner"]
    monkeypatch.setattr(sys, "argv", ["beside_dreamer.py", *sides, "--steps", "100", "--out", str(out)])
    beside_dreamer.main()
    assert commands == [
        ["rllib", CARTPOLE, "0"],
        ["rllib", DRIFT, "0"],
        ["planner", DRIFT, "0"],
    ]
    assert len(read(out)) == 2
