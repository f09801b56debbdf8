"""A batch of environments beside the same environments alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st


def check_batch_against_singles(
    make: Callable[[int], Any], actions_of: Callable[..., np.ndarray], seed: int, num_envs: int, data: Any
) -> None:
    """Demand that each environment of a batch is bit for bit the one that its seed gives alone.

    Some are reset now and then, so that they are in different episodes at different steps.

    Args:
        make: From a number of environments to a `BatchedEnv`.
        actions_of: Actions for ``(env, step, num_envs)``.
        seed: Of the first environment.
        num_envs: Environments in the batch.
        data: Hypothesis's source of draws.
    """
    batch, singles = make(num_envs), [make(1) for _ in range(num_envs)]
    batch.reset(seed)
    for index, single in enumerate(singles):
        single.reset(seed + index)
    for t in range(12):
        draws = data.draw(st.lists(st.integers(0, 9), min_size=num_envs, max_size=num_envs))
        again = ~batch.running | (np.array(draws) == 0)
        if again.any():  # second and later episodes, at different times
            batch.reset(mask=again)
            for index in np.flatnonzero(again):
                singles[index].reset()
        actions = actions_of(batch, t, num_envs)
        parts = [*batch.step(actions), *_seen(batch)]
        for index, single in enumerate(singles):
            own = [*single.step(actions[index : index + 1]), *_seen(single)]
            for whole, part in zip(parts, own, strict=True):
                np.testing.assert_array_equal(whole[index], part[0])
    whole = batch.get_state()
    for index, single in enumerate(singles):
        for name, array in single.get_state().items():
            np.testing.assert_array_equal(whole[name][index], array[0], err_msg=name)


def _seen(env: Any) -> list[np.ndarray]:
    return [env.observe(), env.agents_alive(), env.state(), *env.info().values()]
