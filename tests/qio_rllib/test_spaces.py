"""Observations and actions of any space as rows of numbers, and back."""

import json
import math

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_spaces import ACTIONS, OBSERVATIONS, Nested

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.models.networks import Encoder, NetworkSettings
from qio_rllib.models.parts import SpaceParts
from qio_rllib.models.spaces import EncodedBox, array_space, encoded
from qio_rllib.sampling.environments import describe_env, make_rllib_env, register_env
from qio_rllib.sampling.object_vector_env import ObjectVectorEnv
from qio_rllib.sampling.vector_env import InvalidSampleError

LEAVES = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)),
    st.builds(lambda sizes: spaces.MultiDiscrete(sizes), st.lists(st.integers(1, 4), min_size=1, max_size=3)),
    st.builds(spaces.MultiBinary, st.integers(1, 3)),
    st.builds(
        lambda shape: spaces.Box(-2, 3, tuple(shape)), st.lists(st.integers(1, 3), min_size=0, max_size=3)
    ),
)
SPACES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(spaces.Tuple, st.lists(inner, min_size=1, max_size=3)),
        st.builds(spaces.Dict, st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)


def same(first, second):
    """Whether two nested values are equal in structure and numbers."""
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and {*first} == {*second}
            and all(same(first[k], second[k]) for k in first)
        )
    if isinstance(first, tuple):
        return isinstance(second, tuple) and len(first) == len(second) and all(map(same, first, second))
    return np.array_equal(first, second)


@settings(max_examples=60, deadline=None)
@given(space=SPACES, seed=st.integers(0, 2**31 - 1))
def test_observations_are_what_gymnasium_flattens_them_to(space, seed):
    space.seed(seed)
    values = [space.sample() for _ in range(4)]
    parts = SpaceParts.from_list(json.loads(json.dumps(SpaceParts.of(space).as_list())))
    found = np.full((4, parts.encoded_size), np.nan, np.float32)
    parts.encode(values, found)
    for row, value in zip(found, values, strict=True):
        np.testing.assert_array_equal(row, gymnasium.spaces.flatten(space, value).astype(np.float32))
    box = EncodedBox(space)
    assert all(box.contains(row.reshape(box.shape)) for row in found)


@settings(max_examples=60, deadline=None)
@given(space=SPACES, seed=st.integers(0, 2**31 - 1))
def test_every_row_of_a_policy_is_an_action_of_the_space(space, seed):
    rng = np.random.default_rng(seed)
    spec = ActionSpec.of(space, rescaled=True)
    if spec.count is not None:
        assert spec.structured(np.int64(spec.count - 1)) == spec.count - 1
        return
    digits = [rng.integers(size) for size in spec.factors]
    row = np.array([*digits, *rng.uniform(-1.5, 1.5, len(spec.low))], np.float32)
    action = spec.structured(spec.to_env(row))
    assert space.contains(action), (action, space)
    assert ActionSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


def test_all_actions_can_be_reached_and_none_stands_for_two():
    spec = ActionSpec.of(ACTIONS, rescaled=True)
    assert spec.factors == (2, 4, 3, 2, 2)  # gymnasium sorts the keys of a Dict: arms, gear, lamps
    assert spec.low == (-2.0, -2.0)
    row = np.array([1, 3, 2, 0, 1, -1.0, 0.5], np.float32)
    expected = {
        "arms": (np.array([-2, 1], np.float32), np.array([1, 3])),
        "gear": 3,
        "lamps": np.array([0, 1]),
    }
    assert same(spec.structured(spec.to_env(row)), expected)


def test_bytes_are_divided_by_255_and_pictures_keep_their_shape():
    box = array_space(spaces.Box(0, 255, (4, 5, 3), np.uint8))
    assert box.shape == (4, 5, 3)
    assert box.high.max() == 1.0
    np.testing.assert_array_equal(encoded(box, np.full((4, 5, 3), 51, np.uint8)), np.float32(0.2))
    real = spaces.Box(0, 255, (4, 5, 3), np.float32)
    assert array_space(real) is real
    assert array_space(spaces.Box(0, 7, (4,), np.uint8)).high.max() == 7  # no bytes


@pytest.mark.parametrize(
    ("shape", "filters", "convolutions"),
    [((84, 84, 4), None, 3), ((13, 13, 5), None, 2), ((6, 7, 2), None, 1), ((3, 3, 2), None, 1), ((2, 9, 2), None, 0),
     ((13, 13, 5), ((8, 3, 1),), 1)],
)  # fmt: skip
def test_pictures_of_any_size_have_a_default_encoder(shape, filters, convolutions):
    import torch

    encoder = Encoder(shape, 0, NetworkSettings(conv_filters=filters, fcnet_hiddens=(8,)))
    found = [] if encoder.convolutions is None else list(encoder.convolutions)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in found) == convolutions
    assert encoder(torch.zeros(2, math.prod(shape))).shape == (2, 8)


def test_equal_numbers_of_other_spaces_are_no_equal_spaces():
    four, five = EncodedBox(spaces.Discrete(4)), EncodedBox(spaces.Discrete(4, start=1))
    assert four == EncodedBox(spaces.Discrete(4))
    assert four != five
    assert four != spaces.Box(0, 1, (4,))
    assert spaces.Box(0, 1, (4,)) != four


def test_environments_give_all_observations_at_once_and_get_nested_actions():
    envs = ObjectVectorEnv(Nested, 3)
    alone = [Nested() for _ in range(3)]
    envs.reset(np.array([1, 2, 3], np.uint64))
    seen = [env.reset(seed=seed)[0] for env, seed in zip(alone, (1, 2, 3), strict=True)]
    spec = ActionSpec.of(ACTIONS, rescaled=True)
    rng = np.random.default_rng(0)
    for _ in range(10):
        out = np.full((3, 1, SpaceParts.of(OBSERVATIONS).encoded_size), np.nan, np.float32)
        envs.observe(np.array([0]), out)
        for row, value in zip(out[:, 0], seen, strict=True):
            np.testing.assert_array_equal(row, gymnasium.spaces.flatten(OBSERVATIONS, value))
        rows = np.concatenate(
            [rng.integers(spec.factors, size=(3, 1, 5)), rng.uniform(-1, 1, (3, 1, 2))], axis=-1
        ).astype(np.float32)
        moves = spec.to_env(rows)
        rewards, _, truncated = envs.step([(np.array([0]), moves)])
        steps = [env.step(spec.structured(move)) for env, move in zip(alone, moves[:, 0], strict=True)]
        seen = [step[0] for step in steps]
        np.testing.assert_array_equal(rewards[:, 0], [step[1] for step in steps])
    assert truncated.all()
    for env, other in zip(envs.envs, alone, strict=True):
        assert len(env.env.taken) == 10
        assert all(map(same, env.env.taken, other.taken))


class Faulty(Nested):
    """Gives one observation outside its space."""

    wrong = None

    def _look(self):
        return {**super()._look(), **self.wrong} if self.taken else super()._look()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"room": 2}, "part room is outside its range"),
        ({"room": 0.5}, "part room is no integer"),
        ({"room": None}, "part room is object of shape"),
        ({"bag": (np.zeros(2),)}, "it has no part bag.1"),
        (
            {"bag": (np.zeros(3), np.zeros((2, 2)), np.array([5, 0]))},
            r"part bag.0 is float64 of shape \(3,\), not numbers",
        ),
    ],
)
def test_an_observation_outside_its_space_is_named(wrong, message):
    envs = ObjectVectorEnv(type("Faulty", (Faulty,), {"wrong": wrong}), 2)
    envs.reset(np.array([1, 2], np.uint64))
    out = np.empty((2, 1, SpaceParts.of(OBSERVATIONS).encoded_size), np.float32)
    envs.observe(np.array([0]), out)
    envs.step([(np.array([0]), np.zeros((2, 1, 7), np.float32))])
    with pytest.raises(
        InvalidSampleError, match=f"environment 0, step 1 .*observation of the agent is .*{message}"
    ):
        envs.observe(np.array([0]), out)


def test_rllibs_own_runner_is_shown_numbers():
    register_env("nested", lambda config: Nested())
    env = make_rllib_env("nested")
    assert env.observation_space == describe_env("nested").observation_spaces[None]
    assert env.observation_space.contains(env.reset(seed=0)[0])


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2)), spaces.Tuple([])])
def test_spaces_without_a_fixed_number_of_values_are_refused(space):
    with pytest.raises(ConfigError, match="no fixed number of values|holds no numbers"):
        ActionSpec.of(space, rescaled=False)
    with pytest.raises(ConfigError, match="no fixed number of values|holds no numbers"):
        array_space(space)
