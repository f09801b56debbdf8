"""Logged data of the greedy casino: what gamblers did and were paid."""

from __future__ import annotations

from qio_envs.api import Array
from qio_envs.api.logs import columns_of, episodes_for, reset_to_episodes
from qio_envs.api.policies import RandomPolicy
from qio_envs.greedy_casino.config import GreedyCasinoConfig
from qio_envs.greedy_casino.env import GreedyCasino
from qio_envs.greedy_casino.model import logged_graph
from qio_envs.greedy_casino.policies import IntuitionPolicy


def logged(num_steps: int, seed: int = 0, policy: str = "intuition") -> dict[str, Array]:
    """Return rounds of `GreedyCasino` as columns, float64 ``[num_steps]``.

    The columns are drunk, blinking, intent, machine and reward; `logged_graph` is the graph of their variables, drunk
    and blinking are hidden in it. They are the first rounds of the episodes 0, 1, ... of the seed (10 rounds each): a
    pure function of the arguments, of which fewer rounds are the beginning.

    Args:
        num_steps: Rounds, at least 1.
        seed: Seed of the environment, 0 to 2**64 - 1.
        policy: Who plays: ``intuition``, which gives observational data, or ``random``, an experiment.

    Raises:
        ValueError: An argument that does not fit.
    """
    logged_graph(policy)  # refuses other policies
    config = GreedyCasinoConfig()
    env = GreedyCasino(config, episodes_for(num_steps, config.rounds))
    reset_to_episodes(env, seed)
    player, rows = (IntuitionPolicy if policy == "intuition" else RandomPolicy)(env), []
    for _ in range(config.rounds):
        s, machines = env.arrays, player.act()
        row = {"drunk": s.causes[:, 0].copy(), "blinking": s.causes[:, 1].copy(), "intent": s.intent.copy()}
        rows.append(row | {"machine": machines[:, 0], "reward": env.step(machines).rewards[:, 0]})
    return columns_of(rows, num_steps)
