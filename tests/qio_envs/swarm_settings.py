"""Hypothesis strategies of small swarms, and actions to play them with."""

import numpy as np
from hypothesis import strategies as st

from qio_envs import environment
from qio_envs.swarm import CompetitiveSwarm, CooperativeSwarm, MixedSwarm

IDS = ["swarm_cooperative_v0", "swarm_competitive_v0", "swarm_mixed_v0"]
TASKS = {"cooperative": CooperativeSwarm, "competitive": CompetitiveSwarm, "mixed": MixedSwarm}
SCENARIOS = [(env_id, scenario) for env_id in IDS for scenario in environment(env_id).scenarios()]

seeds = st.integers(0, 2**64 - 1)


@st.composite
def swarm_configs(draw, task=None, **fixed):
    """Small swarms of any task, many of them in arenas that agents soon leave."""
    task = task or draw(st.sampled_from(list(TASKS)))
    out_radius = draw(st.sampled_from([0.6, 1.0, 2.0, 5.0]))
    values = {
        "max_steps": draw(st.integers(1, 40)),
        "out_radius": out_radius,
        "spawn_radius": min(out_radius, draw(st.sampled_from([0.1, 1.0, 2.0]))),
        "spawn": draw(st.sampled_from(["disc", "box"])),
        "spawn_speed": draw(st.sampled_from([0.0, 0.5, 2.0])),
        "observe": draw(st.sampled_from(["relative", "own"])),
        "process_noise": draw(st.sampled_from([0.0, 0.02, 0.1])),
        "time_step": draw(st.sampled_from([0.02, 0.1, 0.5])),
        "damping": draw(st.sampled_from([0.0, 0.5, 0.9, 0.99])),
        "observation_noise": draw(st.sampled_from([0.0, 0.1, 2.0])),
        "sensing_range": draw(st.sampled_from([None, 0.0, 0.5, 2.0])),
        "exit_penalty": draw(st.sampled_from([0.0, 2.5])),
        "actions": draw(st.sampled_from(["continuous", "discrete"])),
    }
    if values["spawn"] == "box":
        values["spawn_radius"] /= 1.5
    if values["observe"] == "own":
        values["sensing_range"] = None
    if task == "mixed":
        values |= {"team_a": draw(st.integers(1, 4)), "team_b": draw(st.integers(1, 4))}
    else:
        values["num_agents"] = draw(st.integers(1 if task == "cooperative" else 2, 6))
    if task == "cooperative":
        values["target_spread"] = draw(st.sampled_from([0.0, 0.5]))
        values["informed_agents"] = draw(st.none() | st.integers(0, values["num_agents"]))
        if values["target_spread"] and values["max_steps"] > 1:
            values["cue_steps"] = draw(st.none() | st.integers(1, min(6, values["max_steps"] - 1)))
    return TASKS[task].config_class(**(values | fixed))


def make(config, num_envs=1):
    """Return the environment of a configuration."""
    return TASKS[config.task](config, num_envs)


def actions_of(env, step, key=0):
    """Return actions for all agents, some of them out of bounds; runs of eight steps go the same way."""
    generator = np.random.default_rng([key, step // 8])
    shape = (env.num_envs, env.num_agents)
    if env.config.actions == "discrete":
        return generator.integers(0, 5, shape)
    return generator.uniform(-1.6, 1.6, (*shape, 2)).astype(np.float32)


def close(given, expected):
    """Assert equality up to the rounding of float32."""
    np.testing.assert_allclose(given, expected, rtol=2e-5, atol=5e-5)
