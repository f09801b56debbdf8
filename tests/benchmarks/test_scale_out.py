"""The script that measures remote runners and learners."""

import csv
import itertools
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import scale_out

from qio_rllib.experiments.timed_turns import Turn
from qio_rllib.sampling.environments import make_vector_env

FORAGING = ("lbforaging:Foraging-5x5-2p-1f-v3", {})
FOREST = ("forest_uav_v0", {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7})
MASKED = ("forest_uav_v0", FOREST[1] | {"mask_blocked_moves": True, "obstacle_density": 0.2})


@pytest.mark.parametrize("place", scale_out.PLACES.values())
def test_contestants_have_the_same_batch_and_minibatches_over_all_learners(place):
    config = scale_out.config_for(FORAGING, *place)
    assert (config.num_env_runners, config.num_learners) == place
    assert config.total_train_batch_size == scale_out.STEPS
    assert config.minibatch_size * max(1, config.num_learners) == scale_out.MINIBATCH
    assert config.num_epochs == scale_out.EPOCHS


def test_the_limit_is_amdahls():
    assert scale_out.limit_of(0.8, 0.2, 2.0) == pytest.approx(1 / 0.6)
    assert scale_out.limit_of(0.8, 0.2, 1.0) == 1
    assert scale_out.limit_of(0.5, 0.0, 1.9) == pytest.approx(1.9)


@pytest.mark.parametrize(
    "task",
    [FORAGING, MASKED, ("mpe2.simple_spread_v3", {"N": 2})],
)
def test_loops_play_legal_actions_over_the_ends_of_episodes(task):
    loop, chosen, ends = scale_out.EnvLoop(task, seed=1), [], []
    step, reset = loop.env.step, loop.env.reset
    loop.env.step = lambda moves: (
        chosen.append((moves[0][1], loop.env.action_mask(loop.index))),
        step(moves),
    )[1]
    loop.env.reset = lambda mask: (ends.append(mask.sum()), reset(mask=mask))
    loop.play(60)
    for actions, legal in chosen:
        assert legal is None or np.take_along_axis(legal, actions[..., None], -1).all()
    assert sum(ends) >= scale_out.NUM_ENVS
    assert loop.env.alive().any(axis=1).all()
    assert len({actions.tobytes() for actions, _ in chosen}) > 50
    assert np.isfinite(loop.seen).all()


def algorithm_of(turn, env=None, runners=([],), learners=([],)):
    """Return what stands for a `TimedAlgorithm`; its processes' CPU seconds are told in this order."""
    runners, learners = itertools.cycle(runners), itertools.cycle(learners)
    return types.SimpleNamespace(
        turn=turn,
        algorithm=types.SimpleNamespace(
            env_runner=types.SimpleNamespace(env=env),
            env_runner_group=types.SimpleNamespace(foreach_env_runner=lambda *_, **__: next(runners)),
            learner_group=types.SimpleNamespace(
                foreach_learner=lambda _: [
                    types.SimpleNamespace(get=lambda value=value: value) for value in next(learners)
                ]
            ),
            config=types.SimpleNamespace(num_learners=2),
        ),
    )


TURN = Turn(seconds=100.0, sample_s=50.0, learn_s=40.0, env_steps=8, agent_steps=16, gradient_steps=1)


def clock_of(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(
        scale_out,
        "time",
        types.SimpleNamespace(perf_counter=lambda: clock[0], process_time=lambda: clock[0]),
    )
    return clock


@pytest.mark.parametrize(("task", "calls"), [(FORAGING, 8), (FOREST, 1)])
def test_the_environments_share_is_the_time_within_their_own_methods(task, calls, monkeypatch):
    clock = clock_of(monkeypatch)
    env = make_vector_env(*task, scale_out.NUM_ENVS)
    owners = [env.env] if task is FOREST else env.envs
    for owner in owners:  # a step of an environment's own takes 3 s here
        own = owner.step
        owner.step = lambda actions, own=own: (clock.__setitem__(0, clock[0] + 3.0), own(actions))[1]
    env.reset(np.arange(8, dtype=np.uint64))
    index = np.arange(len(env.agents))

    def turn():
        env.step([(index, np.zeros((8, len(index)), int))])
        return TURN

    watched = scale_out.Watched(algorithm_of(turn, env))
    for _ in range(2):
        assert watched.turn() is TURN
    assert watched.shares == [(3.0 * calls / 50, 3.0 * calls / 100)] * 2


def test_the_cpu_path_is_the_driver_the_slowest_runner_and_the_slowest_learner(monkeypatch):
    clock = clock_of(monkeypatch)

    def turn():
        clock[0] += 2.0
        return TURN

    watched = scale_out.Watched(
        algorithm_of(turn, runners=[[100.0, 50.0], [110.0, 80.0]], learners=[[7.0, 9.0], [7.5, 9.25]])
    )
    watched.turn()
    assert watched.paths == [2.0 + 30.0 + 0.5]
    nobody = scale_out.Watched(algorithm_of(turn))
    nobody.turn()
    assert nobody.paths == [2.0]


@pytest.mark.long
def test_the_script_measures_all_contestants_on_one_node_and_on_two(tmp_path):
    out = tmp_path / "new" / "x.csv"
    done = subprocess.run(
        [sys.executable, scale_out.__file__, "--tasks", "lbforaging", "--rounds", "1", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    copies = [scale_out.ONE_COPY, scale_out.TWO_COPIES]
    assert [row["contestant"] for row in rows if row["part"] == "one node"] == [*scale_out.PLACES, *copies]
    assert [row["contestant"] for row in rows if row["part"] == "two nodes"] == [
        "none",
        scale_out.NODES,
        *copies,
    ]
    for row in rows:
        assert row["contestant"] in done.stdout
        assert float(row["env_steps_per_s"]) > 0
        if row["contestant"] not in copies:
            assert row["env_steps"] == "800"
            assert row["gradient_steps"] == "16"  # 4 epochs of 3,200 agent rows
        if row["contestant"] == "none":
            assert row["cpu_path_ratio"] == "1.0"
            assert 0 < float(row["env_share_of_iteration"]) < float(row["env_share_of_sampling"]) < 1
    one, two = ([row for row in rows if row["contestant"] == name] for name in copies)
    assert [2 * int(row["env_steps"]) for row in one] == [int(row["env_steps"]) for row in two]
    assert all(float(row["sample_s"]) > 0.05 for row in one)  # not the time of a call alone
