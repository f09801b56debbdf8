"""Plays every environment without compiled code; a script for a process of its own, with NUMBA_DISABLE_JIT=1.

``python plain_python.py FILE`` writes what `short_play` gives to FILE (a pickle), and then plays on from states at the
edges of what `set_state` takes: plain Python raises where a kernel would read or write outside an array. How many such
states were taken, and how many refused, goes to standard output.
"""

import pickle
import sys
import zlib
from pathlib import Path

import numpy as np

from qio_envs.registry import environments


def short_play(env, steps=3):
    """Play some steps at random; return all that an environment gives then, by name."""
    env.reset(3)
    player = env.scripted_policies["random"](env)
    for _ in range(steps):
        if not env.running.all():
            env.reset(mask=~env.running)
        env.step(player.act())
    return env.get_state() | seen(env)


def seen(env):
    """Return what an environment shows, by name."""
    shown = {"observation": env.observe(), "global state": env.state(), "alive agents": env.agents_alive()}
    if env.has_action_mask:
        shown["mask"] = env.action_mask()
    return shown | {f"info {name}": value for name, value in env.info().items()}


def edge_states(env, rng):
    """Yield states of play in which one array, or one number of it, is set to an end of its range."""
    reached = env.get_state()
    for name, limits in env.state_limits().items():
        array = reached[name]
        if not array.size:
            continue
        for bound in limits:
            if not np.isfinite(bound).all():
                continue
            edge = np.broadcast_to(np.asarray(bound).astype(array.dtype), array.shape)
            place = tuple(int(rng.integers(size)) for size in array.shape)
            one = array.copy()
            one[place] = edge[place]
            yield reached | {name: edge.copy()}
            yield reached | {name: one}


def forest_corners(env):
    """Return a state of play of a forest without obstacles in which every UAV stands in a corner."""
    state, radius = env.get_state(), env.config.sensing_radius
    rows, columns = env.config.height - 1, env.config.width - 1
    corners = np.array([[0, 0], [0, columns], [rows, 0], [rows, columns]], np.int16)
    state["position"][:] = corners[np.arange(env.num_agents) % 4]
    state["occupancy"][:] = 0
    for e in range(env.num_envs):
        np.add.at(state["occupancy"][e], tuple((state["position"][e] + radius).T), 1)
    return state


def play_from_edges(env):
    """Set every edge state that is taken and play on; return how many were taken and refused."""
    rng = np.random.default_rng(zlib.crc32(env.id.encode()))
    taken = refused = 0
    short_play(env)
    states = list(edge_states(env, rng))
    if env.id.startswith("forest_uav"):
        states.append(forest_corners(env))
    for state in states:
        try:
            env.set_state(state)
        except ValueError:
            refused += 1
            continue
        taken += 1
        seen(env)
        env.render(0, "ansi")
        for _ in range(2):
            if env.running.all():
                env.step(env.scripted_policies["random"](env).act())
                seen(env)
    return taken, refused


if __name__ == "__main__":
    played = {name: short_play(made.batched_env(2)) for name, made in environments().items()}
    Path(sys.argv[1]).write_bytes(pickle.dumps(played))
    for name, made in environments().items():
        print(name, *play_from_edges(made.batched_env(2)))
