"""Environments as arrays: a batch and single environments alike, agents that come and go, faults with names."""

import pickle

import gymnasium
import numpy as np
import pytest
from mpe2 import simple_speaker_listener_v4, simple_spread_v3
from toy_lives import EzLives, Lives, Locked, Masked, StillListed, Vanishing

from qio_envs import environment
from qio_envs.api import ConfigError
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.object_vector_env import ObjectVectorEnv
from qio_rllib.sampling.vector_env import InvalidSampleError

FOREST = environment("forest_uav_v0")
SEEDS = np.array([5, 2**31 - 1, 77], np.uint64)


def shape_of(env, index):
    space = env.observation_spaces[env.agents[index[0]]]
    return (space["observation"] if isinstance(space, gymnasium.spaces.Dict) else space).shape


def seen_by(env, index):
    out = np.full((env.num_envs, len(index), *shape_of(env, index)), np.nan, np.float32)
    env.observe(np.array(index), out)
    return out


def whole(env):
    return [np.arange(len(env.agents))]


def act(env, groups, rng):
    """Return legal random actions for groups of agent indices."""
    moves = []
    for index in groups:
        space, mask = env.action_spaces[env.agents[index[0]]], env.action_mask(index)
        shape = (env.num_envs, len(index))
        if isinstance(space, gymnasium.spaces.Box):
            moves.append(
                (index, rng.uniform(space.low, space.high, (*shape, *space.shape)).astype(np.float32))
            )
        elif mask is None:
            moves.append((index, rng.integers(space.n, size=shape)))
        else:
            moves.append((index, (rng.random(mask.shape) * mask).argmax(-1)))
    return moves


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"max_steps": 25},
        {"scenario": "wooded", "mask_blocked_moves": True, "max_steps": 25, "height": 12, "width": 12},
    ],
)
def test_a_batch_is_exactly_its_single_environments(settings, split):
    pair = (
        BatchedVectorEnv(FOREST.batched_env(3, **settings)),
        ObjectVectorEnv(lambda: FOREST.parallel_env(**settings), 3),
    )
    agents = len(pair[0].agents)
    groups = [np.arange(0, agents, 2), np.arange(1, agents, 2)] if split else whole(pair[0])
    assert pair[0].agents == pair[1].agents
    assert pair[0].observation_spaces == pair[1].observation_spaces
    assert pair[0].action_spaces == pair[1].action_spaces
    rng = np.random.default_rng(0)
    episodes, masks_differ = np.zeros(3, int), False
    for env in pair:
        env.reset(SEEDS)
    while episodes.min() < 2:
        for index in groups:
            one, other = (seen_by(env, index) for env in pair)
            np.testing.assert_array_equal(one, other)
            one, other = (env.action_mask(index) for env in pair)
            np.testing.assert_array_equal(one, other)
            masks_differ |= one is not None and not one.all()
        moves = act(pair[0], groups, rng)
        for one, other in zip(*(env.step(moves) for env in pair), strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        np.testing.assert_array_equal(pair[0].alive(), pair[1].alive())
        over = ~pair[0].alive().any(axis=1)
        for e in range(3):
            assert pair[0].info(e) == pair[1].info(e)
        assert "team_return" in pair[0].info(0)
        if over.any():
            episodes += over
            for env in pair:
                env.reset(mask=over)
    assert masks_differ == ("mask_blocked_moves" in settings)


@pytest.mark.parametrize(
    ("make", "groups", "length"),
    [
        (lambda: simple_spread_v3.parallel_env(max_cycles=7), [[0, 1, 2]], 7),
        (lambda: simple_speaker_listener_v4.parallel_env(max_cycles=7), [[0], [1]], 7),
        (lambda: gymnasium.make("CartPole-v1"), [[0]], None),
        (lambda: gymnasium.make("Pendulum-v1", max_episode_steps=7), [[0]], 7),
    ],
)
def test_environments_of_others_give_what_they_give_alone(make, groups, length):
    env, groups = ObjectVectorEnv(make, 2), [np.array(group) for group in groups]
    alone = make()
    parallel = hasattr(alone, "possible_agents")
    env.reset(np.array([9, 4], np.uint64))
    seen = alone.reset(seed=4)[0]
    rng = np.random.default_rng(1)
    for step in range(1, 300):
        for index in groups:
            found = seen_by(env, index)[1]
            for column, agent in enumerate(index):
                expected = seen[env.agents[agent]] if parallel else seen
                np.testing.assert_array_equal(found[column], np.asarray(expected, np.float32))
        moves = act(env, groups, rng)
        chosen = {env.agents[agent]: a[1, column] for index, a in moves for column, agent in enumerate(index)}
        seen, *outcome, _ = alone.step(chosen if parallel else chosen[None])
        rewards, terminated, truncated = env.step(moves)
        for found, expected in zip((rewards, terminated, truncated), outcome, strict=True):
            expected = [expected[agent] for agent in env.agents] if parallel else [expected]
            np.testing.assert_array_equal(found[1], np.asarray(expected, found.dtype))
        if not env.alive()[1].any():
            assert (terminated | truncated)[1].all()
            assert step == length or (length is None and terminated[1, 0])
            break
        if not env.alive()[0].any():
            env.reset(mask=np.array([True, False]))
    else:
        pytest.fail("no episode ended")
    env.close()


def play(env, steps, action=1):
    """Return (acted, rewards, terminated, truncated), each [T, E, N], with ended env begun anew."""
    log = []
    for _ in range(steps):
        acted = env.alive().copy()
        log.append(
            (
                acted,
                *env.step([(index, np.full((env.num_envs, len(index)), action)) for index in whole(env)]),
            )
        )
        over = ~env.alive().any(axis=1)
        if over.any():
            env.reset(mask=over)
    return [np.stack(arrays) for arrays in zip(*log, strict=True)]


def test_agents_die_appear_and_end_together_in_different_ways():
    env = ObjectVectorEnv(Lives, 2)
    env.reset(np.array([1, 2], np.uint64))
    acted, rewards, terminated, truncated = play(env, 6)
    for e in range(2):
        # columns: a, b, c; the sixth step is the first of the next episode
        assert acted[:, e].astype(int).tolist() == [
            [1, 0, 1], [1, 0, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1], [1, 0, 1],
        ]  # fmt: skip
        assert rewards[:, e].tolist() == [[1, 0, 1], [2, 0, 2], [0, 3, 3], [0, 4, 4], [0, 5, 5], [1, 0, 1]]
        assert np.argwhere(terminated[:, e]).tolist() == [[1, 0], [4, 1]]
        assert np.argwhere(truncated[:, e]).tolist() == [[4, 2]]


def test_observations_of_agents_that_are_away_are_0_and_last_ones_are_kept():
    env = ObjectVectorEnv(Lives, 1)
    env.reset(np.array([1], np.uint64))
    number = np.float32(np.random.default_rng(1).random())
    assert seen_by(env, [0, 1, 2])[0].tolist() == [[number, 0, 0], [0, 0, 0], [number, 0, 0]]
    for _ in range(2):
        env.step([(np.arange(3), np.array([[1, 0, 2]]))])
    assert seen_by(env, [0, 1, 2])[0].tolist() == [[number, 2, 1], [number, 2, 0], [number, 2, 2]]
    env.step([(np.arange(3), np.array([[1, 0, 2]]))])
    assert seen_by(env, [2, 0])[0].tolist() == [[number, 3, 2], [0, 0, 0]]
    assert env.info(0) == {"time": 3}


def test_an_agent_that_is_listed_though_it_has_ended_has_ended():
    for expected, found in zip(play_from_start(Lives, 7), play_from_start(StillListed, 7), strict=True):
        np.testing.assert_array_equal(expected, found)


def play_and_see(env, action):
    play(env, 1, action)
    seen_by(env, [0, 1, 2])
    env.action_mask(np.arange(3))


def test_agents_of_a_batch_that_are_away_have_every_action(monkeypatch):
    batch = FOREST.batched_env(2, num_uavs=3, mask_blocked_moves=True)
    env = BatchedVectorEnv(batch)
    env.reset(np.array([1, 2], np.uint64))
    alive = np.array([[True, False, True], [True, True, False]])
    none = np.zeros((2, 3, 5), np.int8)
    none[alive, 3] = 1
    monkeypatch.setattr(batch, "agents_alive", lambda: alive)
    monkeypatch.setattr(batch, "action_mask", lambda: none)
    for agents in (np.arange(3), np.array([2, 1])):
        legal = env.action_mask(agents)
        assert (legal.dtype, legal.shape) == (bool, (2, len(agents), 5))
        assert legal[~alive[:, agents]].all()
        assert legal[alive[:, agents]].sum(axis=-1).tolist() == [1] * int(alive[:, agents].sum())


def play_from_start(cls, steps):
    env = ObjectVectorEnv(cls, 1)
    env.reset(np.array([1], np.uint64))
    return play(env, steps)


def test_an_agent_that_is_gone_without_a_flag_was_cut_and_keeps_what_it_saw():
    env = ObjectVectorEnv(Vanishing, 1)
    env.reset(np.array([1], np.uint64))
    play(env, 2)
    before = seen_by(env, [2])
    assert before[0, 0, 1] == 2
    _, rewards, terminated, truncated = play(env, 1)
    assert not env.alive()[0, 2]
    assert (rewards[0, 0, 2], terminated[0, 0, 2], truncated[0, 0, 2]) == (0, False, True)
    np.testing.assert_array_equal(seen_by(env, [2]), before)
    _, _, terminated, truncated = play(env, 2)
    assert terminated[1, 0, 1]
    assert not truncated.any()


def test_masks_are_those_of_the_living():
    env = ObjectVectorEnv(Masked, 2)
    env.reset(np.array([1, 2], np.uint64))
    assert env.action_mask(np.arange(3))[1].astype(int).tolist() == [[0, 1, 1], [1, 1, 1], [0, 1, 1]]
    play(env, 1)
    assert env.action_mask(np.array([2]))[0].astype(int).tolist() == [[1, 0, 1]]
    assert ObjectVectorEnv(Lives, 1).action_mask(np.array([0])) is None


@pytest.mark.parametrize(
    ("cls", "fault", "message"),
    [
        (
            Lives,
            "missing",
            r"environment 1, step 3 of its episode: observation of c is None .* expected numbers of shape \(3,\)",
        ),
        (
            Lives,
            "shape",
            r"environment 1, step 3 .* observation of c is array\(\[1.\]\S* .*shape \(1,\), expected .* \(3,\)",
        ),
        (Lives, "words", r"environment 1, step 3 .* observation of c is \['x', 'y', 'z'\]"),
        (Lives, "ragged", r"environment 1, step 3 .* observation of c is \[\[1.0\], \[1.0, 2.0\], \[\]\]"),
        (Lives, "stranger", r"environment 1, step 3 .* agent d is not among the possible agents"),
        (Masked, "bare", r"environment 1, step 3 .* action_mask of c is None"),
        (
            Masked,
            "narrow",
            r"environment 1, step 3 .* action_mask of c is .* of shape \(1,\), expected numbers of shape \(3,\)",
        ),
    ],
)
def test_faults_are_told_with_environment_step_agent_and_value(cls, fault, message):
    makers = iter([cls(), cls(**{fault: 3})])
    env = ObjectVectorEnv(lambda: next(makers), 2)
    env.reset(np.array([1, 2], np.uint64))
    for time in range(2):
        play_and_see(env, action=(time + 1) % 3)
    with pytest.raises(InvalidSampleError, match=message) as caught:
        play_and_see(env, action=0)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (InvalidSampleError, str(caught.value))


def test_the_agent_of_a_gymnasium_environment_has_a_name_in_messages():
    class Wrong(gymnasium.ObservationWrapper):
        def observation(self, observation):
            return observation[:2]

    env = ObjectVectorEnv(lambda: Wrong(gymnasium.make("CartPole-v1")), 1)
    env.reset()
    with pytest.raises(
        InvalidSampleError,
        match=r"environment 0, step 0 .* observation of the agent .* \(2,\), expected .* \(4,\)",
    ):
        seen_by(env, [0])


def test_an_episode_without_agents_is_refused():
    class Empty(Lives):
        def reset(self, seed=None, options=None):
            result = super().reset(seed)
            self.agents = []
            return result

    with pytest.raises(InvalidSampleError, match="environment 0, step 0 .* no agents after reset"):
        ObjectVectorEnv(Empty, 1).reset()


class Odd(Lives):
    """Its observation space is what it is told."""

    def __init__(self, space, agents=Lives.possible_agents):
        super().__init__()
        self.space, self.possible_agents = space, agents

    def observation_space(self, agent):
        return self.space if agent == "b" else super().observation_space(agent)


BOX = gymnasium.spaces.Box(-100, 100, (3,), np.float32)
MASK = gymnasium.spaces.Box(0, 1, (4,), np.int8)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (gymnasium.spaces.Text(4), r"observations of b are Text\(.*\); Text has no fixed number of values"),
        (
            gymnasium.spaces.Dict({"observation": BOX, "rest": gymnasium.spaces.Sequence(BOX)}),
            "observations of b are Dict.*; Sequence has no fixed number of values",
        ),
        (
            gymnasium.spaces.Dict({3: BOX}),
            "observations of b are .*; keys of Dict spaces must be texts, got 3",
        ),
        (
            gymnasium.spaces.Dict({"observation": gymnasium.spaces.Text(3), "action_mask": MASK}),
            "observations of b are Dict",
        ),
        (
            gymnasium.spaces.Dict({"observation": BOX, "action_mask": MASK}),
            r"'action_mask' of b .* Discrete\(3\)",
        ),
    ],
)
def test_spaces_that_do_not_fit_arrays_are_refused(space, message):
    with pytest.raises(ConfigError, match=message):
        ObjectVectorEnv(lambda: Odd(space), 1)


def test_environments_that_differ_are_refused():
    other = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    makers = iter([Odd(BOX), Odd(BOX), Odd(other)])
    with pytest.raises(
        ConfigError, match=r"observation space of b is Box\(-1.0.* in environment 2 and Box\(-100"
    ):
        ObjectVectorEnv(lambda: next(makers), 3)
    makers = iter([Odd(BOX), Odd(BOX, ("a", "b"))])
    with pytest.raises(
        ConfigError, match=r"environment 1 has the agents \['a', 'b'\], environment 0 has \['a', 'b', 'c'\]"
    ):
        ObjectVectorEnv(lambda: next(makers), 2)
    with pytest.raises(ConfigError, match="expected a PettingZoo ParallelEnv or a Gymnasium Env, got dict"):
        ObjectVectorEnv(dict, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ObjectVectorEnv(Lives, 2),
        lambda: ObjectVectorEnv(EzLives, 2),
        lambda: ObjectVectorEnv(lambda: gymnasium.make("CartPole-v1"), 2),
        lambda: BatchedVectorEnv(FOREST.batched_env(2, scenario="sprint", max_steps=5)),
    ],
)
def test_environments_go_on_exactly_from_a_state(make):
    env, later = make(), make()
    env.reset(np.array([1, 2], np.uint64))
    play(env, 3)
    state = pickle.loads(pickle.dumps(env.get_state()))
    expected = [seen_by(env, whole(env)[0]), *play(env, 12), seen_by(env, whole(env)[0])]
    later.set_state(state)
    found = [seen_by(later, whole(later)[0]), *play(later, 12), seen_by(later, whole(later)[0])]
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_state_of_other_environments_is_refused_and_replaces_nothing():
    env = ObjectVectorEnv(lambda: FOREST.parallel_env(), 1)
    kept = env.envs
    for settings in ({"comm_loss": 0.5}, {"num_uavs": 3}):  # with equal spaces, and with other agents
        other = ObjectVectorEnv(lambda settings=settings: FOREST.parallel_env(**settings), 1)
        with pytest.raises(ValueError, match="^state: expected one of forest_uav_v0 default .*, got one of"):
            env.set_state(other.get_state())
    lives, cart = ObjectVectorEnv(Lives, 1), ObjectVectorEnv(lambda: gymnasium.make("CartPole-v1"), 1)
    with pytest.raises(ConfigError, match="^env: environment 0 has the agents"):
        lives.set_state(cart.get_state())
    assert env.envs is kept


def test_no_state_where_an_environment_cannot_be_pickled():
    env = ObjectVectorEnv(Locked, 2)
    env.reset()
    assert env.get_state() is None
