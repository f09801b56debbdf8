import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from hypothesis import example, given
from hypothesis import strategies as st

from qio_envs import forest_uav_v0, swarm_cooperative_v0
from qio_envs.api import InvalidActionError, ResetNeededError
from qio_envs.api.actions import ActionCheck

NAMES = ("a", "b", "c")


def everybody():
    return np.ones((2, 3), bool)


@given(
    st.integers(0, 5), st.one_of(st.integers(-3, 6), st.sampled_from([2**63 - 1, -(2**63)])), st.booleans()
)
def test_a_discrete_action_passes_exactly_if_it_is_in_range(place, action, runs):
    check = ActionCheck(Discrete(4), 3)
    actions, running = np.full((2, 3), 3), np.array([True, runs])
    actions.flat[place] = action
    assert check.passes(actions, running) is (runs and 0 <= action < 4)
    if 0 <= action < 4:
        assert check.checked(actions, 2, everybody, NAMES) is actions
    else:
        message = f"action of {NAMES[place % 3]} in env {place // 3}: expected an integer from 0 to 3, got {action}$"
        with pytest.raises(InvalidActionError, match=message):
            check.checked(actions, 2, everybody, NAMES)


@given(st.integers(0, 11), st.floats(width=32), st.booleans())
@example(11, np.inf, True)
@example(5, -np.inf, True)
@example(0, np.nan, True)
def test_a_continuous_action_passes_exactly_if_it_is_finite(place, number, runs):
    check = ActionCheck(Box(-1, 1, (2,), np.float32), 3)
    actions, running = np.zeros((2, 3, 2), np.float32), np.array([runs, True])
    actions.flat[place] = number
    assert check.passes(actions, running) is (runs and bool(np.isfinite(number)))
    if np.isfinite(number):
        assert check.checked(actions, 2, everybody, NAMES) is actions
    else:
        with pytest.raises(
            InvalidActionError, match=f"^action of {NAMES[place % 6 // 2]} in env {place // 6}: "
        ):
            check.checked(actions, 2, everybody, NAMES)
        zeros = check.checked(actions, 2, lambda: ~everybody(), NAMES)
        assert not zeros.any()
        assert actions.flat[place] != 0  # the caller's array is as it was


@pytest.mark.parametrize(
    "converted",
    [
        lambda actions: actions.tolist(),
        lambda actions: actions.astype(np.int32),
        lambda actions: actions.astype(np.uint64),
        lambda actions: actions.astype(">i8"),
        np.asfortranarray,
        lambda actions: np.repeat(actions, 2, axis=1)[:, ::2],
        lambda actions: actions.view(type("Sub", (np.ndarray,), {})),
    ],
)
def test_actions_of_other_types_are_converted(converted):
    actions = np.random.default_rng(0).integers(0, 5, (3, 10))
    env, other = forest_uav_v0.batched_env(3), forest_uav_v0.batched_env(3)
    for each, given_actions in ((env, actions), (other, converted(actions))):
        each.reset(1)
        each.step(given_actions)
    np.testing.assert_array_equal(env.observe(), other.observe())


def test_what_is_wrong_with_environments_is_said_before_what_is_wrong_with_actions():
    env = swarm_cooperative_v0.batched_env(2)
    for actions in (np.zeros((2, 3, 2), np.float32), np.zeros(3), "up", np.full((2, 3, 2), np.nan)):
        with pytest.raises(
            ResetNeededError, match="env 0 of swarm_cooperative_v0 has ended or was never reset"
        ):
            env.step(actions)
    env.reset(0, mask=np.array([True, False]))
    with pytest.raises(ResetNeededError, match="env 1 "):
        env.step(np.zeros((2, 3, 2), np.float32))
    env.reset(0)
    with pytest.raises(InvalidActionError, match="expected shape"):
        env.step(np.zeros((1, 3, 2), np.float32))
    with pytest.raises(InvalidActionError, match="got dtype"):
        env.step(np.zeros((2, 3, 2), bool))
    env.branch(2).step(np.zeros((4, 3, 2), np.float32))
