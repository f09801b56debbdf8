"""Plays that the tests of environments with one agent share."""

import numpy as np


def check_against_oracle(env, oracle, act, steps, compare, close):
    """Play an environment and its oracle, which have begun, until the episode ends.

    Args:
        env: A batch of one.
        oracle: Its ``step`` gives reward, terminated and truncated.
        act: From a step's number to actions ``[1, 1, ...]``.
        steps: At most.
        compare: Asserts that both show the same.
        close: Asserts that two numbers are the same.
    """
    compare(env, oracle)
    for t in range(steps):
        actions = act(t)
        transition = env.step(actions)
        reward, terminated, truncated = oracle.step(actions[0, 0])
        assert [array.dtype for array in transition] == [np.float32, bool, bool]
        assert [array.shape for array in transition] == [(1, 1)] * 3
        close(transition.rewards[0, 0], reward)
        assert (transition.terminated[0, 0], transition.truncated[0, 0]) == (terminated, truncated)
        assert env.running[0] == (not (terminated or truncated))
        compare(env, oracle)
        if not env.running[0]:
            return


def check_spaces(env, act, steps):
    """Play a batch of two, which has begun, until an episode ends; all that is shown lies in its space."""
    for t in range(steps):
        for index in range(2):
            assert env.state_space.contains(env.state()[index])
            assert env.observation_space.contains(env.observe()[index, 0])
        for key, values in env.info().items():
            assert values.shape == (2,), key
            assert np.isfinite(values).all(), key
        if not env.running.all():
            return
        env.step(act(t))
