"""The particle environments beside those of mpe2: names, and states carried from one to the other."""

import importlib

import numpy as np

ORIGINALS = {
    "mpe_spread_v0": "simple_spread_v3",
    "mpe_speaker_listener_v0": "simple_speaker_listener_v4",
    "mpe_reference_v0": "simple_reference_v3",
    "mpe_tag_v0": "simple_tag_v3",
    "mpe_world_comm_v0": "simple_world_comm_v3",
    "mpe_adversary_v0": "simple_adversary_v3",
    "mpe_push_v0": "simple_push_v3",
    "mpe_crypto_v0": "simple_crypto_v3",
}
IDS = list(ORIGINALS)


def original(env_id, **settings):
    """Return mpe2's environment as a parallel environment, reset with a seed."""
    env = importlib.import_module(f"mpe2.{ORIGINALS[env_id]}").parallel_env(**settings)
    env.reset(seed=0)
    return env


def put_goals(world, env_id, goal):
    """Set what mpe2 draws at a reset besides places: goals, and the colours that depend on them."""
    agents, landmarks = world.agents, world.landmarks
    if env_id == "mpe_speaker_listener_v0":
        agents[0].goal_b = landmarks[goal[0]]
    elif env_id == "mpe_reference_v0":
        agents[0].goal_b, agents[1].goal_b = landmarks[goal[0]], landmarks[goal[1]]
    elif env_id in ("mpe_adversary_v0", "mpe_push_v0", "mpe_crypto_v0"):
        for agent in agents:
            agent.goal_a = landmarks[goal[0]]
    if env_id == "mpe_push_v0":
        agents[1].color = np.array([0.25, 0.25, 0.25])
        agents[1].color[goal[0] + 1] += 0.5
    if env_id == "mpe_crypto_v0":
        agents[1].color = landmarks[goal[0]].color
        agents[2].key = landmarks[goal[1]].color


def put_state(other, env_id, arrays, index):
    """Give mpe2's environment the state of environment ``index``."""
    world = other.unwrapped.world
    agents = len(world.agents)
    for m, entity in enumerate(world.entities):
        entity.state.p_pos = arrays.position[index, m].copy()
        if m < agents:
            entity.state.p_vel = arrays.velocity[index, m].copy()
            said = arrays.message[index, m]
            entity.state.c = said.copy() if len(said) else np.zeros(world.dim_c)
    put_goals(world, env_id, arrays.goal[index])
