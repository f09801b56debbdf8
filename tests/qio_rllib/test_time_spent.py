"""Where an iteration's time goes: clocks, operations of an update, the machine's limits, what `rllib bench` prints."""

import math
import types

import pytest
import torch

from qio_rllib.artifacts import time_plot
from qio_rllib.experiments import time_spent
from qio_rllib.experiments.benchmark import OURS, benchmark
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.experiments.time_spent import (
    ACTING,
    ENVIRONMENTS,
    GRADIENT_STEPS,
    Clocks,
    copy_rate,
    counted_operations,
    parts_of,
    product_rate,
)
from qio_rllib.experiments.timed_turns import TimedAlgorithm
from qio_rllib.fused.use import fused_kernels, in_use, torch_alone

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 20}


class Nested:
    """Takes 1 s in `outer` before and 2 s after `inner`, which takes 4 s; CPU time is half of each."""

    def __init__(self, clock):
        self.clock = clock

    def outer(self, fails=False):
        self.clock.now += 1
        self.inner()
        self.clock.now += 2
        if fails:
            raise ValueError("of the method")
        return "found"

    def inner(self):
        self.clock.now += 4


@pytest.fixture
def nested(monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    clock.thread_time = lambda: clock.now / 2
    monkeypatch.setattr(time_spent, "time", clock)
    return Nested(clock)


def test_what_is_timed_within_another_call_counts_once(nested):
    clocks = Clocks()
    clocks.watch("outer", nested, "outer")
    clocks.watch("inner", nested, "inner")
    clocks.watch("nothing", nested, "missing")
    assert nested.outer() == "found"
    nested.inner()
    with pytest.raises(ValueError, match="of the method"):
        nested.outer(fails=True)
    assert clocks.spent == {"outer": 6.0, "inner": 12.0}
    assert clocks.cpu == {"outer": 7.0, "inner": 6.0}
    clocks.restart()
    assert clocks.spent == clocks.cpu == {"outer": 0.0, "inner": 0.0}


def test_kernels_stay_away_where_torch_is_to_compute():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with fused_kernels():
            assert in_use()
            with torch_alone():
                assert not in_use()
                with fused_kernels():
                    assert not in_use()
            assert in_use()
        assert not in_use()
    finally:
        torch.set_num_threads(threads)


def ppo(**config):
    settings = {
        "num_env_runners": 0,
        "num_envs_per_env_runner": 2,
        "train_batch_size_per_learner": 80,
        "minibatch_size": 60,
        "num_epochs": 2,
        "model_config": {"fcnet_hiddens": [8, 4], "fcnet_activation": "tanh"},
        "env_config": FOREST,
        **config,
    }
    entry = {"run": "PPO", "env": "forest_uav_v0", "stop": {"training_iteration": 1}, "config": settings}
    return Experiment.from_mapping(entry, "tiny")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_operations_of_an_update_are_those_of_its_products():
    config = ppo().algorithm_config()
    timed = TimedAlgorithm(config)
    try:
        learner = timed.algorithm.learner_group._learner
        module = learner.module["shared"].unwrapped()
        size = math.prod(module.observation_space.shape)
        with counted_operations(timed.algorithm) as count:
            turn = timed.turn()
        found = count()
        later = timed.turn()
        assert count() == found  # nothing is counted any more
    finally:
        timed.stop()
    products = 0
    for outputs in (5, 1):
        products += 2 * size * 8 + 3 * (8 * 4 + 4 * outputs)  # nobody asks for the gradient of observations
    assert found == 2 * turn.agent_steps * 2 * products
    for each in (turn, later):
        assert 0 < each.environment_s + each.acting_s < each.sample_s
        assert 0 < each.gradient_s < each.learn_s
        assert each.gradient_cpu_s > 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_an_experiment_that_rllibs_path_cannot_take_is_measured_alone():
    measured = benchmark(ppo(agent_id=True, num_env_runners=1), rounds=1)
    (row,) = measured.rows
    assert row["path"] == OURS
    assert measured.notes == (
        "RLlib's own path cannot be taken: env_runner_cls: agent_id needs BatchedEnvRunner, got None",
    )
    assert (row["environment_s"], row["acting_s"]) == ("", "")  # of another process
    assert float(row["update_gflop_per_s"]) > 0
    assert [*parts_of(row)] == ["sampling", "batches and advantages", "gradient steps", "weights and metrics"]


def test_parts_add_up_to_the_iteration():
    row = {
        "sample_s": 3.0,
        "learn_s": 5,
        "other_s": 0.5,
        "environment_s": 1.0,
        "acting_s": 1.5,
        "gradient_s": 4.0,
    }
    assert parts_of(row) == {
        "environments": 1.0,
        "policies that act": 1.5,
        "recording": 0.5,
        "batches and advantages": 1.0,
        "gradient steps": 4.0,
        "weights and metrics": 0.5,
    }
    unknown = {**row, "environment_s": "", "acting_s": "", "gradient_s": ""}
    assert parts_of(unknown) == {"sampling": 3.0, "learning": 5.0, "weights and metrics": 0.5}


def test_bars_show_shares_and_how_long_an_iteration_takes(tmp_path, monkeypatch):
    figures, new_figure = [], time_plot.new_figure

    def kept(*args, **kwargs):
        figures.append(new_figure(*args, **kwargs))
        return figures[-1]

    monkeypatch.setattr(time_plot, "new_figure", kept)
    one = {"environments": 0.1, "policies that act": 0.3, "learning": 1.56, "weights and metrics": 0.04}
    time_plot.plot_time({"a": one, "b": {"sampling": 1.0, "learning": 3.0}}, tmp_path / "x.png", "title")
    (figure, (axes,)), *_ = figures
    assert [text.get_text() for text in axes.texts] == [
        "5%",
        "15%",
        "78%",
        "2,000 ms",
        "25%",
        "75%",
        "4,000 ms",
    ]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "environments", "policies that act", "sampling", "learning", "weights and metrics",
    ]  # fmt: skip
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_the_machines_limits_are_rates():
    assert 1e8 < product_rate() < 1e13
    assert 1e8 < copy_rate() < 1e13


def test_the_clocks_have_names_of_their_own():
    assert len({ENVIRONMENTS, ACTING, GRADIENT_STEPS}) == 3
