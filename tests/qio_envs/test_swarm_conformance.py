import numpy as np
import pytest
from swarm_settings import SCENARIOS

from qio_envs import environment
from qio_envs.testing import CHECKS, check_parallel_env, table
from qio_envs.testing.command_line import main

IDS = ["swarm_cooperative_v0", "swarm_competitive_v0", "swarm_mixed_v0"]


def assert_conforms(results):
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.passed for result in results), table(results)
    assert [result.name for result in results if result.label == "skip"] == ["action masks"]


@pytest.mark.parametrize(("env_id", "scenario"), SCENARIOS)
def test_every_scenario_conforms(env_id, scenario):
    make = environment(env_id).parallel_env
    assert_conforms(check_parallel_env(lambda **kwargs: make(scenario, **kwargs), steps=30))


@pytest.mark.parametrize("env_id", IDS)
def test_agents_that_leave_one_by_one_conform(env_id):
    settings = {"out_radius": 1.0, "spawn_radius": 1.0, "process_noise": 0.1, "max_steps": 25}

    def make(**kwargs):
        return environment(env_id).parallel_env(**settings, **kwargs)

    assert_conforms(check_parallel_env(make, steps=60))
    endings = set()  # agents do leave in these, and some are truncated
    env = make()
    for seed in range(5):
        env.reset(seed=seed)
        while env.agents:
            _, _, terminated, truncated, _ = env.step(dict.fromkeys(env.agents, np.zeros(2, np.float32)))
            endings |= {(terminated[agent], truncated[agent]) for agent in terminated}
    assert endings == {(False, False), (True, False), (False, True)}


@pytest.mark.parametrize("env_id", IDS)
def test_the_command_line(capsys, env_id):
    assert main([env_id, "--kwarg", "out_radius=2.0", "--steps", "10"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "14 checks: 0 failed, 0 with a warning"
