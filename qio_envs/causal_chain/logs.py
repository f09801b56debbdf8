"""Logged data of the causal chain, observational and interventional."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qio_envs.api import Array, InterventionError, did_you_mean
from qio_envs.api.logs import columns_of, episodes_for, reset_to_episodes
from qio_envs.api.policies import RandomPolicy
from qio_envs.causal_chain.config import CausalChainConfig
from qio_envs.causal_chain.env import CausalChain

_SETTABLE = {"x1": 0, "x2": 1, "x3": 2}  # columns of `CausalChain.intervene`
_ACTIONS = {"a0": 0, "a1": 1}


def logged(num_steps: int, seed: int = 0, do: Mapping[str, float | Array] | None = None) -> dict[str, Array]:
    """Return rounds of `CausalChain` with uniform actions as columns, float64 ``[num_steps]``.

    The columns are x1, x2, x3, a0, a1 and reward, all of the same round; `round_graph` is the graph of their
    variables. They are the first rounds of the episodes 0, 1, ... of the seed (10 rounds each): a pure function of the
    arguments, of which fewer rounds are the beginning.

    Args:
        num_steps: Rounds, at least 1.
        seed: Seed of the environment and, with another key, of the actions, 0 to 2**64 - 1.
        do: What to set from outside: a number, or an array ``[num_steps]``, for any of x1, x2, x3, a0, a1. Actions are
            within [-1, 1], the others within the space of `CausalChain.intervene`. Noises are those of the
            observational data with the same seed.

    Raises:
        ValueError: ``num_steps`` or ``seed`` does not fit.
        InterventionError: An unknown variable, a shape that does not fit, or a value outside the space.
    """
    config = CausalChainConfig()
    env = CausalChain(config, episodes_for(num_steps, config.rounds))
    given = _given(do or {}, num_steps, env)
    reset_to_episodes(env, seed)
    player, rows = RandomPolicy(env), []
    for t in range(config.rounds):
        actions = player.act()
        for name, column in _ACTIONS.items():
            if name in given:
                actions[:, 0, column] = given[name][:, t]
        mask, values = np.zeros((env.num_envs, 3), bool), np.zeros((env.num_envs, 3))
        for name, column in _SETTABLE.items():
            if name in given:
                mask[:, column], values[:, column] = True, given[name][:, t]
        env.intervene(mask, values)
        cause = env.arrays.values[:, 0].copy()
        rewards = env.step(actions).rewards
        s = env.arrays
        rows.append(
            {
                "x1": cause,
                "x2": s.values[:, 1].copy(),
                "x3": s.values[:, 2].copy(),
                "a0": actions[:, 0, 0],
                "a1": actions[:, 0, 1],
                "reward": rewards[:, 0],
            }
        )
    return columns_of(rows, num_steps)


def _given(do: Mapping[str, float | Array], num_steps: int, env: CausalChain) -> dict[str, Array]:
    """Return the values by name, ``[E, rounds]``; rounds beyond ``num_steps`` are set to 0."""
    known, result = {**_SETTABLE, **_ACTIONS}, {}
    for name, value in do.items():
        if name not in known:
            raise InterventionError(
                f"do: unknown variable '{name}'{did_you_mean(name, known)}; allowed: {', '.join(known)}"
            )
        numbers = np.asarray(value)
        if numbers.shape not in ((), (num_steps,)) or numbers.dtype.kind not in "biuf":
            raise InterventionError(
                f"do: expected one number or {num_steps} for {name}, got {numbers.dtype} of shape {numbers.shape}"
            )
        if name in _ACTIONS and not (np.abs(numbers) <= 1).all():
            raise InterventionError(
                f"an intervention outside the space: {name}: expected numbers from -1 to 1"
            )
        values = np.zeros(env.num_envs * env.config.rounds)
        values[:num_steps] = numbers
        result[name] = values.reshape(env.num_envs, env.config.rounds)
    return result
