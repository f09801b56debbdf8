"""The script that measures environments beside those of others."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import env_throughput

from qio_envs import forest_uav_v0, mpe_spread_v0, swarm_cooperative_v0

ROOT = Path(__file__).parents[2]


def test_the_python_loop_plays_the_same_task():
    env_throughput.check_same_task(25)


@pytest.mark.parametrize("environment", [forest_uav_v0, swarm_cooperative_v0], ids=lambda e: e.id)
def test_random_actions_fit_their_space(environment):
    env = environment.batched_env(2)
    actions = env_throughput.random_actions(env.action_space, 2, env.num_agents)
    assert len(actions) == 64
    assert all(env.action_space.contains(action) for row in actions[0] for action in row)
    assert len(np.unique(actions)) > 4


def test_every_contestant_plays_over_the_ends_of_episodes():
    for contestants in env_throughput.GROUPS.values():
        for contestant in contestants:
            if env_throughput.version_of(contestant.package) and contestant.num_envs <= 8:
                contestant.make()(210)


@pytest.mark.parametrize("environment", [forest_uav_v0, swarm_cooperative_v0], ids=lambda e: e.id)
@pytest.mark.parametrize("player", ["batch", "PettingZoo"])
def test_environments_of_this_package_are_reset_where_an_episode_ends(environment, player):
    made = []

    class Recorded:
        """The environment, which keeps what it makes."""

        def batched_env(self, *args, **settings):
            made.append(environment.batched_env(*args, **settings))
            return made[-1]

        def parallel_env(self):
            made.append(environment.parallel_env())
            return made[-1]

    play = (
        env_throughput.batched(Recorded(), 2)
        if player == "batch"
        else env_throughput.parallel(Recorded().parallel_env())
    )
    (env,) = made
    play(210)  # episodes of 200 steps
    assert env.running.all() if player == "batch" else env.agents == env.possible_agents


def test_each_group_has_its_agents_and_the_base_of_its_ratios():
    groups = env_throughput.GROUPS
    assert set(groups) == {10, 3}
    assert forest_uav_v0.batched_env().num_agents == 10
    assert swarm_cooperative_v0.batched_env().num_agents == 3
    for contestants in groups.values():
        names = [contestant.name for contestant in contestants]
        assert len(set(names)) == len(names)
        assert env_throughput.MPE2 in names


def test_some_are_chosen_by_name_and_the_base_stays():
    for contestants in env_throughput.GROUPS.values():
        some = env_throughput.chosen(contestants, "PettingZoo")
        assert [one.name for one in some if one.name != env_throughput.MPE2] == [
            one.name for one in contestants if one.name.endswith("PettingZoo")
        ]
        assert env_throughput.MPE2 in [one.name for one in some]
        assert env_throughput.chosen(contestants, "") == contestants


def test_the_same_task_has_the_same_size():
    for agents, contestants in env_throughput.GROUPS.items():
        names = [contestant.name for contestant in contestants]
        assert f"{mpe_spread_v0.id}, batch of 64" in names
        env = mpe_spread_v0.batched_env(num_agents=agents)
        other = pytest.importorskip("mpe2").simple_spread_v3.parallel_env(N=agents)
        assert other.observation_space("agent_0").shape == env.observation_space.shape


def test_a_package_that_is_absent_has_no_version():
    assert env_throughput.version_of("no-such-package") == ""
    assert env_throughput.version_of("numpy") == np.__version__


def test_the_script_writes_a_row_for_each_contestant_that_is_there(tmp_path):
    out = tmp_path / "rates.csv"
    command = [sys.executable, "benchmarks/env_throughput.py", "--rounds", "1", "--seconds", "0.002"]
    done = subprocess.run([*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        rows = list(csv.DictReader(file))
    there = {
        (str(agents), contestant.name)
        for agents, contestants in env_throughput.GROUPS.items()
        for contestant in contestants
        if env_throughput.version_of(contestant.package)
    }
    assert {(row["agents"], row["contestant"]) for row in rows} == there
    for row in rows:
        assert 0 < int(row["slowest_round"]) <= int(row["env_steps_per_s"]) <= int(row["fastest_round"])
        assert row["contestant"] in done.stdout
        assert row["numpy"] == np.__version__
    if not env_throughput.version_of("vmas"):
        assert "VMAS simple_spread, batch of 64: left out, vmas is not installed" in done.stdout
