import math

import numpy as np
import pytest

from qio_rllib.artifacts.metrics import flatten, progress_row, score_column


def result(iteration, **more):
    return {
        "training_iteration": iteration,
        "num_env_steps_sampled_lifetime": 100.0 * iteration,
        "time_this_iter_s": 0.5,
        **more,
    }


def test_flatten_keeps_numbers_only():
    values = {
        "a": {"b": 1, "c": np.float32(0.5), "d": np.int64(3)},
        "e": "text",
        "f": True,
        "g": [1],
        "h": None,
    }
    flat = flatten({**values, "i": np.array(2.5), "j": np.bool_(True)})
    assert flat == {"a/b": 1, "a/c": 0.5, "a/d": 3, "i": 2.5}
    assert all(type(value) in (int, float) for value in flat.values())


@pytest.mark.parametrize("returns", [{"shared": 3.0}, {"chasers": 3.0, "prey": -2.0}])
def test_returns_by_module_are_told_where_there_are_several(returns):
    row = progress_row(result(1, env_runners={"module_episode_returns_mean": returns}))
    expected = returns if len(returns) > 1 else {}
    assert {
        key.rpartition("/")[2]: value for key, value in row.items() if "module_episode" in key
    } == expected


def test_a_row_holds_results_and_no_bookkeeping():
    row = progress_row(
        result(
            3,
            config={"lr": 1.0},
            pid=7,
            timers={"x": 1.0},
            env_runners={
                "team_return": np.float64(5.0),
                "num_episodes_lifetime": 4.0,
                "sample": 3.0,
                "agent_steps": {"a": 1.0},
                "connector_pipeline_timer": 1.0,
                "episode_return_mean": math.nan,
            },
            learners={"shared": {"alpha": 0.1, "weights_seq_no": 2.0}},
            evaluation={"greedy": {"team_return": 9.0}, "num_healthy_workers": 0},
            self_play={"score": 0.25},
        ),
        previous_steps=200,
    )
    assert row == {
        "training_iteration": 3,
        "num_env_steps_sampled_lifetime": 300,
        "time_this_iter_s": 0.5,
        "env_steps_per_s": 200.0,
        "env_runners/num_episodes_lifetime": 4,
        "env_runners/team_return": 5.0,
        "evaluation/greedy/team_return": 9.0,
        "learners/shared/alpha": 0.1,
        "self_play/score": 0.25,
    }
    assert list(row)[:2] == ["training_iteration", "num_env_steps_sampled_lifetime"]
    assert isinstance(row["num_env_steps_sampled_lifetime"], int)


def test_the_score_is_the_teams_return_where_there_is_one():
    columns = [
        "env_runners/episode_return_mean",
        "env_runners/team_return",
        "evaluation/greedy/episode_return",
    ]
    assert score_column(columns, "env_runners/") == "env_runners/team_return"
    assert score_column(columns[:1], "env_runners/") == "env_runners/episode_return_mean"
    assert score_column(columns, "evaluation/greedy/") == "evaluation/greedy/episode_return"
    assert score_column(columns, "evaluation/sampled/") is None
