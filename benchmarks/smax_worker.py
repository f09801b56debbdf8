"""SMAX's part of `skirmish_throughput.py`, which runs this with a Python that has jaxmarl.

``smax_worker.py MAP NUM_ENVS STEPS``: for each line of the input plays so many steps and prints CPU seconds.
"""

import importlib.metadata
import sys
import time

import jax
import jax.numpy as jnp
from jaxmarl import make
from jaxmarl.environments.smax import map_name_to_scenario


def player(env, num_envs, steps):
    """Return a compiled function that plays steps of random legal actions, and what it begins with.

    What it returns depends on observations, world state and rewards, so that none of them is left out.
    """

    def step(carry, _):
        key, state, total = carry
        key, act_key, step_key = jax.random.split(key, 3)
        available = jax.vmap(env.get_avail_actions)(state)
        masks = jnp.stack([available[agent] for agent in env.agents], axis=1)
        actions = jax.random.categorical(act_key, jnp.where(masks > 0, 0.0, -jnp.inf))
        given = {agent: actions[:, n] for n, agent in enumerate(env.agents)}
        keys = jax.random.split(step_key, num_envs)
        obs, state, rewards, _, _ = jax.vmap(env.step)(keys, state, given)
        total += sum(values.sum() for values in obs.values()) + rewards[env.agents[0]].sum()
        return (key, state, total), None

    _, state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.PRNGKey(0), num_envs))
    play = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps)[0])
    return play, (jax.random.PRNGKey(1), state, jnp.float32(0))


def main():
    name, num_envs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    env = make("HeuristicEnemySMAX", scenario=map_name_to_scenario(name))
    play, carry = player(env, num_envs, steps)
    for _ in range(2):  # the second turn has other types of numbers, and is compiled too
        carry = jax.block_until_ready(play(carry))
    print("ready", jax.__version__, importlib.metadata.version("jaxmarl"), flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        carry = jax.block_until_ready(play(carry))
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main()
