"""The cart and pole against Gymnasium's, rules, interventions, saved states, policies, interfaces and pictures."""

import copy
import math
import pickle
from functools import partial

import gymnasium
import numpy as np
import pytest
from batch_and_singles import check_batch_against_singles
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs import cart_pole_v0
from qio_envs.api import ConfigError, InvalidActionError, episode_scores
from qio_envs.api.drawing import HEAD
from qio_envs.cart_pole import CartPole, CartPoleConfig, LQRPolicy, linear_model, lqr_gain, viewer
from qio_envs.cart_pole.model import FORCE_COST, STATE_COST
from qio_envs.testing import CHECKS, check_parallel_env, table

SCENARIOS = cart_pole_v0.scenarios()
PHYSICS = [
    {},
    {"pole_length": 0.1},
    {"pole_length": 0.9},
    {"gravity": 1.62},
    {"gravity": 24.79},
    {"force": 7.5, "cart_mass": 0.6, "pole_mass": 0.4},
]
physics = pytest.mark.parametrize("values", PHYSICS, ids=str)

seeds = st.integers(0, 2**64 - 1)
configs = st.builds(
    CartPoleConfig,
    max_steps=st.integers(1, 40),
    pole_length=st.sampled_from([0.05, 0.1, 0.5, 3.0]),
    gravity=st.sampled_from([0.1, 4.9, 9.8, 60.0]),
    force=st.sampled_from([1.0, 10.0, 40.0]),
    cart_mass=st.sampled_from([0.2, 1.0, 5.0]),
    pole_mass=st.sampled_from([0.01, 0.1, 3.0]),
)


def gymnasium_with(config):
    """Return Gymnasium's environment with the physics of a configuration, derived quantities too."""
    env = gymnasium.make("CartPole-v1", max_episode_steps=config.max_steps)
    bare = env.unwrapped
    bare.length, bare.gravity, bare.force_mag = config.pole_length, config.gravity, config.force
    bare.masscart, bare.masspole = config.cart_mass, config.pole_mass
    bare.total_mass = bare.masspole + bare.masscart
    bare.polemass_length = bare.masspole * bare.length
    env.reset(seed=0)
    return env


def numbers_of(env, index=0):
    return np.array([part[index] for part in env.arrays.components])


def put(env, rows):
    """Set the states of all environments, ``[E, 4]``."""
    for part, column in zip(env.arrays.components, np.asarray(rows, float).T, strict=True):
        part[:] = column


def actions_of(env, step, key=0):
    return np.random.default_rng([key, step]).integers(0, 2, (env.num_envs, 1))


def play_beside_gymnasium(config, seed, player, resynchronised=25):
    """Play an episode in both with the same actions; rounding errors grow, so that states are equated now and then."""
    env, other = CartPole(config), gymnasium_with(config)
    env.reset([seed])
    act = player(env)
    for t in range(config.max_steps):
        if t % resynchronised == 0:
            other.unwrapped.state = numbers_of(env)
        action = act(t)
        transition = env.step(action)
        seen, reward, terminated, truncated, _ = other.step(int(action[0, 0]))
        np.testing.assert_allclose(numbers_of(env), other.unwrapped.state, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(env.observe()[0, 0], seen, rtol=1e-6, atol=1e-7)
        assert transition.rewards[0, 0] == reward == 1
        assert transition.terminated[0, 0] == terminated
        assert transition.truncated[0, 0] == (truncated and not terminated)
        assert env.running[0] == (not (terminated or truncated))
        if not env.running[0]:
            break
    return t + 1


# -- against Gymnasium


@physics
def test_a_step_from_any_state_is_gymnasium_s(values):
    config = CartPoleConfig(**values)
    env, other = CartPole(config, 300), gymnasium_with(config).unwrapped
    env.reset(0)
    starts = np.random.default_rng(1).uniform(-1, 1, (300, 4)) * [2.4, 5, 0.2, 5]
    put(env, starts)
    actions = actions_of(env, 0)
    transition = env.step(actions)
    for index, start in enumerate(starts):
        other.reset(seed=0)  # forgets that an episode has ended
        other.state = start
        seen, reward, terminated, *_ = other.step(int(actions[index, 0]))
        np.testing.assert_allclose(numbers_of(env, index), other.state, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(env.observe()[index, 0], seen, rtol=1e-6)
        assert (transition.rewards[index, 0], transition.terminated[index, 0]) == (reward, terminated)
    assert transition.terminated.any()
    assert not transition.terminated.all()


@physics
def test_whole_episodes_are_gymnasium_s(values):
    config = CartPoleConfig(**values)

    def regulator(env):
        policy = LQRPolicy(env)
        return lambda _: policy.act()

    assert play_beside_gymnasium(config, 3, regulator) == 500
    assert play_beside_gymnasium(config, 3, lambda env: partial(actions_of, env)) < 200


@settings(max_examples=60)
@given(configs, seeds)
def test_random_play_with_any_settings_is_gymnasium_s(config, seed):
    play_beside_gymnasium(
        config, seed, lambda env: partial(actions_of, env, key=seed % 1000), resynchronised=10
    )


def test_starts_have_gymnasium_s_distribution():
    env = cart_pole_v0.batched_env(4000)
    env.reset(0)
    start = env.observe()[:, 0].astype(float)
    assert np.abs(start).max() <= 0.05
    assert np.abs(start).max() > 0.0499
    assert np.abs(start.mean(axis=0)).max() < 4 * 0.05 * np.sqrt(1 / 3 / 4000)
    assert np.abs(start.var(axis=0) / 0.05**2 - 1 / 3).max() < 0.03
    assert np.abs(np.corrcoef(start.T) - np.eye(4)).max() < 4 / np.sqrt(4000)


# -- rules


def test_leaving_the_track_or_the_upright_is_termination_on_either_side():
    env = cart_pole_v0.batched_env(6)
    env.reset(0)
    lean = math.radians(12)
    put(
        env,
        [
            (2.39, 0.6, 0, 0),
            (-2.39, -0.6, 0, 0),
            (2.39, 0.4, 0, 0),
            (0, 0, lean - 0.01, 0.6),
            (0, 0, 0.01 - lean, -0.6),
            (0, 0, lean - 0.01, 0.4),
        ],
    )
    rewards, terminated, truncated = env.step(np.ones((6, 1), int))
    assert terminated[:, 0].tolist() == [True, True, False, True, True, False]
    assert env.info()["out"].tolist() == [1, 1, 0, 1, 1, 0]
    assert env.running.tolist() == [False, False, True, False, False, True]
    assert (rewards == 1).all()
    assert not truncated.any()


def test_the_time_limit_is_truncation_unless_the_episode_terminates_in_that_very_step():
    env = cart_pole_v0.batched_env(2, max_steps=2)
    env.reset(0)
    put(env, [(0, 0, 0, 0), (2.3, 4.9, 0, 0)])
    env.step(np.array([[0], [0]]))
    assert env.running.all()
    _, terminated, truncated = env.step(np.array([[1], [1]]))
    assert (terminated[:, 0].tolist(), truncated[:, 0].tolist()) == ([False, True], [True, False])
    assert not env.running.any()
    assert env.info()["steps"].tolist() == env.info()["team_return"].tolist() == [2, 2]
    np.testing.assert_array_equal(env.state()[:, env.config.state_layout["time_left"]], 0)


def test_other_actions_are_refused():
    env = cart_pole_v0.batched_env()
    env.reset(0)
    with pytest.raises(
        InvalidActionError, match="action of agent_0 in env 0: expected an integer from 0 to 1"
    ):
        env.step(np.array([[2]]))


def test_a_longer_pole_falls_more_slowly():
    falls = {length: cart_pole_v0.batched_env(1, pole_length=length) for length in (0.1, 0.5, 0.9)}
    steps = {}
    for length, env in falls.items():
        env.reset(0)
        put(env, [(0, 0, 0.05, 0)])
        steps[length] = 0
        while env.running.all():
            env.step(np.array([[steps[length] % 2]]))  # pushes that cancel each other
            steps[length] += 1
    assert steps[0.1] < steps[0.5] < steps[0.9]


@settings(max_examples=30)
@given(config=configs, seed=st.integers(0, 2**63), num_envs=st.integers(1, 4), data=st.data())
def test_an_environment_of_a_batch_is_the_environment_of_its_seed_alone(config, seed, num_envs, data):
    check_batch_against_singles(lambda count: CartPole(config, count), actions_of, seed, num_envs, data)


# -- causes and saved states


def test_an_intervention_reaches_the_effects_of_the_graph_only():
    env = cart_pole_v0.batched_env(5)
    names = list(env.variables())
    env.reset(0)
    put(env, np.tile([0.1, 0.2, 0.05, 0.3], (5, 1)))
    env.intervene(np.eye(5, 4, dtype=bool), np.full((5, 4), 0.12))
    env.step(np.ones((5, 1), int))
    after = np.stack(list(env.variables().values()), axis=1)
    for row, cause in enumerate(names):
        found = [name for name, moved in zip(names, after[row] != after[4], strict=True) if moved]
        assert found == [name for name in names if (cause, name + "'") in env.graph().edges]
    pushed = cart_pole_v0.batched_env(2)
    pushed.reset([0, 0])
    pushed.step(np.array([[0], [1]]))
    moved = [name for name, values in pushed.variables().items() if values[0] != values[1]]
    assert moved == [name for name in names if ("a", name + "'") in env.graph().edges]


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_and_saved_states_continue_exactly(copier):
    env, third = (cart_pole_v0.batched_env(3, "short_pole") for _ in range(2))
    env.reset(0)
    env.step(actions_of(env, 0))
    duplicate = copier(env)
    third.set_state(env.get_state())
    for t in range(1, 30):
        seen = []
        for one in (env, duplicate, third):
            one.reset(mask=~one.running)
            seen.append([*one.step(actions_of(one, t)), one.observe(), one.state()])
        for first, *others in zip(*seen, strict=True):
            for other in others:
                np.testing.assert_array_equal(first, other)


def test_what_observe_returns_is_the_caller_s_own_and_it_writes_where_it_is_told():
    env = cart_pole_v0.batched_env(2)
    env.reset(0)
    seen = env.observe()
    seen[:] = 7
    assert np.abs(env.observe()).max() <= 0.05
    out = np.full((2, 1, 4), np.nan, np.float32)
    assert env.observe(out) is out
    np.testing.assert_array_equal(out[:, 0], env.state()[:, :4])
    with pytest.raises(ValueError, match="out: expected writable C-contiguous float32 of shape"):
        env.observe(out[:1])


# -- policies


@physics
def test_the_linear_model_is_the_derivative_of_a_step(values):
    a, b = linear_model(CartPoleConfig(**values))
    small = 1e-5
    for column in range(4):
        env = cart_pole_v0.batched_env(2, **values)
        env.reset(0)
        put(env, [small * np.eye(4)[column], -small * np.eye(4)[column]])
        env.step(np.ones((2, 1), int))
        slope = (numbers_of(env, 0) - numbers_of(env, 1)) / (2 * small)
        np.testing.assert_allclose(slope, a[:, column], rtol=1e-5, atol=1e-6)
    env = cart_pole_v0.batched_env(2, **values)
    env.reset(0)
    put(env, np.zeros((2, 4)))
    env.step(np.array([[1], [0]]))
    np.testing.assert_allclose(numbers_of(env, 0), env.config.force * b, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(numbers_of(env, 1), -env.config.force * b, rtol=1e-9, atol=1e-12)


@physics
def test_the_gain_is_that_of_the_riccati_recursion(values):
    config = CartPoleConfig(**values)
    (a, b), value = linear_model(config), STATE_COST
    for _ in range(3000):
        gain = (b @ value @ a) / (FORCE_COST + b @ value @ b)
        value = STATE_COST + a.T @ value @ (a - np.outer(b, gain))
    np.testing.assert_allclose(lqr_gain(config), gain, rtol=1e-5)
    assert np.abs(np.linalg.eigvals(a - np.outer(b, lqr_gain(config)))).max() < 1


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_oracle_reaches_the_time_limit_and_random_play_does_not(scenario):
    env = cart_pole_v0.batched_env(200, scenario)
    assert (episode_scores(env, LQRPolicy, seed=200) == 500).all()
    scores = episode_scores(env, env.scripted_policies["random"], seed=200)
    assert 5 < scores.mean() < 40


def test_policies_act_alike_in_a_batch_and_alone_and_change_nothing():
    for policy in CartPole.scripted_policies.values():
        batch, singles = cart_pole_v0.batched_env(3), [cart_pole_v0.batched_env() for _ in range(3)]
        batch.reset(40)
        for index, single in enumerate(singles):
            single.reset(40 + index)
        together, alone = policy(batch), [policy(single) for single in singles]
        for _ in range(8):
            before, actions = batch.get_state(), together.act()
            for name, array in batch.get_state().items():
                np.testing.assert_array_equal(array, before[name])
            for index, player in enumerate(alone):
                own = player.act()
                assert (own.dtype, own.shape) == (np.int64, (1, 1))
                np.testing.assert_array_equal(own[0], actions[index])
                singles[index].step(own)
            batch.step(actions)


# -- settings and interfaces


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_conforms(scenario):
    results = check_parallel_env(lambda **kwargs: cart_pole_v0.parallel_env(scenario, **kwargs), steps=30)
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.passed for result in results), table(results)
    assert [result.name for result in results if result.label == "skip"] == ["action masks"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pole_length": 0.01}, "pole_length: expected a number from 0.05 to 10.0, got 0.01"),
        ({"gravity": 0.0}, "gravity: expected a number from 0.1 to 100.0, got 0.0"),
        ({"force": "10"}, "force: expected a number from 0.1 to 1000.0, got '10'"),
        ({"cart_mass": 0.001}, "cart_mass: expected a number from 0.01 to 100.0, got 0.001"),
        ({"pole_mass": float("nan")}, "pole_mass: expected a number from 0.001 to 100.0, got nan"),
        ({"max_steps": 0}, "max_steps: expected an integer from 1 to 1000000, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        CartPoleConfig(**values)
    assert str(caught.value) == message


def test_the_gymnasium_forms():
    env = gymnasium.make("qio_envs/CartPole-v0", pole_length=0.9)
    seen, _ = env.reset(seed=3)
    assert env.observation_space.contains(seen)
    assert env.action_space == gymnasium.spaces.Discrete(2)
    seen, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated, info["team_return"]) == (1, False, False, 1)
    assert env.unwrapped.batch.config.pole_length == 0.9
    envs = gymnasium.make_vec("qio_envs/CartPole-v0", num_envs=3, max_steps=4)
    envs.reset(seed=3)
    for _ in range(4):
        *_, truncated, infos = envs.step(np.zeros(3, int))
    assert truncated.all()
    assert infos["final_info"]["team_return"].tolist() == [4, 4, 4]


# -- pictures


def scene_of(**changes):
    values = {
        "position": 0.6,
        "angle": 0.1,
        "pole_length": 0.5,
        "action": 1,
        "max_position": 2.4,
        "max_angle": 0.2,
        "score": 12.0,
        "step": 12,
        "max_steps": 500,
    }
    return viewer.Scene(**(values | changes))


def test_pictures_and_text_follow_the_state_and_leave_it_alone():
    env = cart_pole_v0.batched_env(2)
    env.reset(0)
    first, text, before = env.render(1), env.render(1, "ansi"), env.get_state()
    assert (first.dtype, first.shape) == (np.uint8, (360, 560, 3))
    assert text.endswith("push none")
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])
    env.step(np.ones((2, 1), int))
    assert (env.render(1) != first).any()
    assert env.render(1, "ansi").endswith("step 1/500  score 1  push right")
    with pytest.raises(ValueError, match="mode: expected rgb_array or ansi, got 'svg'"):
        env.render(0, "svg")


def test_cart_and_pole_are_where_they_are():
    picture = viewer.draw(scene_of(angle=0.0)).astype(int)[HEAD:]
    column = 280 + round(0.6 * 110)
    assert picture[244, column + 20, 2] > picture[244, column + 20, 0] + 60  # the cart is blue
    assert (
        picture[170, column, 0] > picture[170, column, 2] + 60
    )  # the pole is 110 pixels high, its end at row 115
    assert (picture[105, column] == picture[5, 5]).all()
    assert (picture[170, column + 20] == picture[5, 5]).all()
    leaning = viewer.draw(scene_of(angle=0.25)).astype(int)[HEAD:]  # to the right
    assert leaning[170, column + 14, 0] > leaning[170, column + 14, 2] + 60
    longer = viewer.draw(scene_of(angle=0.0, pole_length=0.9)).astype(int)[HEAD:]
    assert longer[105, column, 0] > longer[105, column, 2] + 60
    assert (viewer.draw(scene_of(action=0)) != viewer.draw(scene_of())).any()
    far = viewer.draw(scene_of(position=-9.0, pole_length=10.0))
    assert far[HEAD:].shape == picture.shape


def test_text_shows_the_numbers():
    assert viewer.draw_text(scene_of(angle=-0.1, action=0)).splitlines() == [
        "position [....................|#####...............] +0.600 m",
        "angle    [..........##########|....................] -5.73 degrees",
        "step 12/500  score 12  push left",
    ]
