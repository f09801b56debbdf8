"""Drift control's scripted policies, the model behind them, and its pictures."""

import numpy as np
import pytest
import scipy.linalg
from drift_settings import actions_of, close

from qio_envs import drift_control_v0
from qio_envs.api import episode_scores, reference_scores
from qio_envs.api.drawing import HEAD
from qio_envs.drift_control import (
    CEMPolicy,
    DriftControl,
    DriftControlConfig,
    LQGPolicy,
    LQRPolicy,
    RandomPolicy,
    ZeroPolicy,
    linear_model,
    lqr_gain,
    lqr_value,
    mean_next_state,
    viewer,
)

SCENARIOS = drift_control_v0.scenarios()


# -- the model


def test_the_mean_next_state_is_a_step_without_noise():
    env = drift_control_v0.batched_env(50, process_noise=0.0, drive_noise=0.0)
    env.reset(0)
    for t in range(5):
        actions = actions_of(env, 8 * t)
        expected = mean_next_state(env.arrays.components, actions[:, 0])
        env.step(actions)
        close(env.arrays.components, expected)
    assert mean_next_state(np.zeros((2, 3, 4)), np.ones((2, 3, 2))).shape == (2, 3, 4)


def test_the_linear_model_is_the_derivative_at_the_origin():
    a, b = linear_model()
    step = 1e-6
    for k, direction in enumerate(np.eye(4)):
        moved = mean_next_state(step * direction, np.zeros(2)) - mean_next_state(
            -step * direction, np.zeros(2)
        )
        np.testing.assert_allclose(moved / (2 * step), a[:, k], atol=1e-9)
    for k, direction in enumerate(np.eye(2)):
        moved = mean_next_state(np.zeros(4), step * direction) - mean_next_state(
            np.zeros(4), -step * direction
        )
        np.testing.assert_allclose(moved / (2 * step), b[:, k], atol=1e-9)


@pytest.mark.parametrize("action_cost", [0.01, 1.0, 100.0])
def test_the_regulator_solves_the_riccati_equation(action_cost):
    config, (a, b) = DriftControlConfig(action_cost=action_cost), linear_model()
    value, gain = lqr_value(config), lqr_gain(config)
    expected = scipy.linalg.solve_discrete_are(a, b, np.eye(4), action_cost * np.eye(2))
    np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-8)
    cost = action_cost * np.eye(2) + b.T @ value @ b
    np.testing.assert_allclose(cost @ gain, b.T @ value @ a, atol=1e-9)
    np.testing.assert_allclose(value, np.eye(4) + a.T @ value @ (a - b @ gain), rtol=1e-9, atol=1e-9)
    assert np.abs(np.linalg.eigvals(a - b @ gain)).max() < 1
    with pytest.raises(ValueError, match="read-only"):
        gain[0] = 0


def test_without_any_action_cost_there_is_a_regulator_too():
    assert np.isfinite(lqr_gain(DriftControlConfig(action_cost=0.0))).all()


def test_the_value_is_the_cost_of_a_small_state_and_of_all_that_follows():
    env = drift_control_v0.batched_env(1, process_noise=0.0, drive_noise=0.0, max_steps=400)
    env.reset(0)
    start = np.array([0.01, -0.02, 0.01, 0.03])
    env.arrays.components[0] = start
    player = LQRPolicy(env)
    while env.running[0]:
        env.step(player.act())
    expected = start @ (lqr_value(env.config) - np.eye(4)) @ start
    assert env.info()["cost"][0] == pytest.approx(expected, rel=2e-3)


# -- scores


def test_mean_scores():
    """Random -307.6, zero -325.3 and lqr -9.62 over 20,000 episodes; here within four standard errors."""
    for policy, expected, error in (
        (RandomPolicy, -307.6, 2.3),
        (ZeroPolicy, -325.3, 2.5),
        (LQRPolicy, -9.62, 0.075),
    ):
        scores = episode_scores(drift_control_v0.batched_env(4000), policy, seed=0)
        assert abs(scores.mean() - expected) < 4 * error
        assert scores.std() / np.sqrt(4000) == pytest.approx(error, rel=0.1)


def test_most_episodes_of_random_play_end_early_and_none_of_the_regulator():
    for policy, share in ((RandomPolicy, 0.73), (ZeroPolicy, 0.69), (LQRPolicy, 0.0)):
        env = drift_control_v0.batched_env(2000)
        env.reset(0)
        player, out = policy(env), np.zeros(2000, bool)
        for _ in range(200):
            out |= env.step(player.act()).terminated[:, 0]
            env.arrays.running[:] = True  # go on after the end: only the first counts
        assert out.mean() == pytest.approx(share, abs=0.05)


def test_planning_beats_the_regulator_on_the_same_seeds():
    """By about 11 % of its cost over 400 episodes."""
    lqr, cem = (
        episode_scores(drift_control_v0.batched_env(60), policy, seed=0) for policy in (LQRPolicy, CEMPolicy)
    )
    assert 0.85 < cem.mean() / lqr.mean() < 0.93
    gain = cem - lqr
    assert gain.mean() > 4 * gain.std() / np.sqrt(60)
    assert (gain > -1.0).all()


def test_more_candidates_plan_no_worse():
    few, many = (
        episode_scores(
            drift_control_v0.batched_env(30), lambda env, n=n: CEMPolicy(env, candidates=n, elites=8), 0
        )
        for n in (16, 256)
    )
    assert many.mean() > few.mean()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_order_of_the_scripted_policies_is_that_of_their_scores(scenario):
    scores = reference_scores(drift_control_v0.batched_env(40, scenario, max_steps=40), seed=1000)
    assert list(scores) == ["random", "zero", "lqg", "lqr", "cem"]
    assert scores["cem"] > scores["lqr"] >= scores["lqg"] > max(scores["random"], scores["zero"])
    assert (scores["lqr"] > scores["lqg"]) == (scenario == "hidden")


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("name", DriftControl.scripted_policies)
def test_policies_act_in_the_space_and_alike_in_a_batch_and_alone(scenario, name):
    policy, short = DriftControl.scripted_policies[name], {"out_radius": 2.0, "max_steps": 15}
    batch = drift_control_v0.batched_env(3, scenario, **short)
    singles = [drift_control_v0.batched_env(1, scenario, **short) for _ in range(3)]
    batch.reset(40)
    for index, single in enumerate(singles):
        single.reset(40 + index)
    together, alone = policy(batch), [policy(single) for single in singles]
    for _ in range(25):  # into the second episode
        before = batch.get_state()
        actions = together.act()
        for key, array in batch.get_state().items():
            np.testing.assert_array_equal(array, before[key])
        assert actions.dtype == batch.action_space.dtype
        assert all(batch.action_space.contains(action) for row in actions for action in row)
        for index, player in enumerate(alone):
            own = player.act()
            np.testing.assert_array_equal(own[0], actions[index])
            singles[index].step(own)
        batch.step(actions)
        for env in (batch, *singles):
            env.reset(mask=~env.running)


def test_the_planner_forgets_plans_of_other_moments():
    env = drift_control_v0.batched_env(1)
    env.reset(0)
    used = CEMPolicy(env)
    for _ in range(3):
        env.step(used.act())
    env.reset(1)
    np.testing.assert_array_equal(used.act(), CEMPolicy(env).act())
    saved = env.get_state()
    env.step(used.act())
    used.act()
    env.set_state(saved)
    np.testing.assert_array_equal(used.act(), CEMPolicy(env).act())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "horizon, iterations, elites: expected at least 1 each, got 0, 2, 16"),
        ({"candidates": 16}, "candidates: expected more than the 16 elites, got 16"),
        ({"least_spread": -0.1}, "first_spread, next_spread, least_spread: expected at least 0 each"),
    ],
)
def test_a_planner_with_counts_that_do_not_fit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CEMPolicy(drift_control_v0.batched_env(), **settings)


def test_a_plan_of_one_step_and_one_elite_works():
    env = drift_control_v0.batched_env(20, max_steps=30)
    score = episode_scores(
        env, lambda env: CEMPolicy(env, horizon=1, candidates=2, iterations=1, elites=1), 0
    )
    assert score.mean() == pytest.approx(episode_scores(env, LQRPolicy, 0).mean(), rel=0.1)


# -- memory


def test_hidden_components_ask_for_memory():
    """With s1 and s2 hidden a filter is far better than the best feedback found without memory, 12.7 against 18."""
    feedback = np.array([[10.24, 0.62], [17.06, 1.03]])  # of s0 and s3, found by random search
    assert hidden_cost(lambda seen, last: -seen @ feedback.T) == pytest.approx(18.4, abs=1.5)
    without = lqr_gain(DriftControlConfig())[:, [0, 3]]
    assert hidden_cost(lambda seen, last: -seen @ without.T) > 40
    assert hidden_cost(Filter(1000)) == pytest.approx(12.6, abs=0.8)


@pytest.mark.parametrize(
    ("hidden", "noises"), [((1, 2), {}), ((0,), {}), ((3,), {"process_noise": 0.3, "drive_noise": 2.0})]
)
def test_the_estimating_regulator_does_what_an_extended_kalman_filter_and_the_gain_do(hidden, noises):
    env = drift_control_v0.batched_env(20, hidden=hidden, out_radius=100.0, **noises)
    env.reset(0)
    player, oracle, action = LQGPolicy(env), Filter(20, env.config), np.zeros((20, 2))
    for _ in range(60):
        action = np.clip(oracle(env.observe()[:, 0].astype(float), action), -1, 1)
        found = player.act()
        np.testing.assert_allclose(found[:, 0], action, atol=1e-4)
        np.testing.assert_allclose(player.mean, oracle.mean, atol=1e-4)
        env.step(found)
    assert np.abs(action).max() > 0.01


def test_the_estimating_regulator_is_the_regulator_where_nothing_is_hidden_also_without_noise():
    env = drift_control_v0.batched_env(5, process_noise=0.0, drive_noise=0.0, distractors=3)
    env.reset(0)
    player, regulator = LQGPolicy(env), LQRPolicy(env)
    for _ in range(20):
        actions = player.act()
        np.testing.assert_array_equal(actions, regulator.act())
        env.step(actions)


def test_the_estimate_starts_anew_with_an_episode_and_after_a_jump():
    env = drift_control_v0.batched_env(1, "hidden")
    env.reset(3)
    player, start = LQGPolicy(env), env.get_state()
    first = player.act()
    for _ in range(9):
        env.step(player.act())
    env.set_state(start)
    np.testing.assert_array_equal(player.act(), first)
    env.reset(3)
    np.testing.assert_array_equal(player.act(), first)


def hidden_cost(policy):
    """Return the mean cost over 1,000 episodes of a policy of observation and last action."""
    env = drift_control_v0.batched_env(1000, "hidden")
    env.reset(0)
    action = np.zeros((1000, 2))
    for _ in range(200):
        action = np.clip(policy(env.observe()[:, 0].astype(float), action), -1, 1)
        env.step(action[:, None].astype(np.float32))
        env.arrays.running[:] = True  # hardly any episode ends early
    return env.info()["cost"].mean()


HIDDEN = DriftControlConfig(hidden=(1, 2))


class Filter:
    """The regulator with an extended Kalman filter in place of the true state, by matrices and their inverses."""

    def __init__(self, envs, config=HIDDEN):
        process, drive = config.process_noise**2, (0.1 * config.drive_noise) ** 2
        self.noise, self.rows = np.diag([process] * 3 + [process + drive]), list(config.visible)
        self.mean = np.zeros((envs, 4))
        self.covariance = np.tile(np.diag([1 / 3] * 4), (envs, 1, 1))
        self.started = False

    def __call__(self, seen, last):
        if self.started:
            jacobian = np.tile(linear_model()[0], (len(seen), 1, 1))
            jacobian[:, 0, 1] = 0.05 * np.cos(self.mean[:, 1])
            jacobian[:, 1, 0], jacobian[:, 1, 2] = 0.02 * self.mean[:, 2], 0.02 * self.mean[:, 0]
            self.mean = mean_next_state(self.mean, last)
            self.covariance = jacobian @ self.covariance @ jacobian.transpose(0, 2, 1) + self.noise
        self.started = True
        rows = self.rows
        surprise = seen - self.mean[:, rows]
        of_seen = self.covariance[:, rows][:, :, rows] + 1e-9 * np.eye(len(rows))
        kalman = self.covariance[:, :, rows] @ np.linalg.inv(of_seen)
        self.mean = self.mean + (kalman @ surprise[..., None])[..., 0]
        self.covariance = self.covariance - kalman @ self.covariance[:, rows]
        return -self.mean @ lqr_gain(DriftControlConfig()).T


# -- pictures


def scene_of(**changes):
    values = {
        "components": np.array([1.5, -1.5, 0.75, 0.0]),
        "hidden": (),
        "action": np.array([-1.0, 0.5]),
        "distractors": np.zeros(0),
        "out_radius": 3.0,
        "score": -1.25,
        "step": 3,
        "max_steps": 10,
    }
    return viewer.Scene(**(values | changes))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pictures_are_bytes_in_colour_and_leave_the_state_alone(scenario):
    env = drift_control_v0.batched_env(2, scenario)
    env.reset(0)
    env.step(actions_of(env, 0))
    before = env.get_state()
    for index in range(2):
        picture = env.render(index)
        assert (picture.dtype, picture.shape) == (np.uint8, (460, 560, 3))
        np.testing.assert_array_equal(picture, env.render(index))
        assert len(env.render(index, "ansi").splitlines()) == 7 + env.config.distractors
    assert (env.render(0) != env.render(1)).any()
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(ValueError, match="mode: expected rgb_array or ansi, got 'svg'"):
        env.render(0, "svg")


def test_the_state_is_where_it_is_in_the_plane():
    whole, half = viewer.draw(scene_of(action=np.zeros(2))), viewer._MARGIN * 3.0
    picture = whole[HEAD:].astype(int)
    column, row = (
        int((part + half) / (2 * half) * viewer._PLANE) for part in (1.5, 1.5)
    )  # s1 points upwards
    assert picture[row, column, 2] > picture[row, column, 0] + 60
    np.testing.assert_array_equal(picture[viewer._PLANE - row, column], viewer._FLOOR)
    assert (viewer.draw(scene_of()) != whole).any()  # the action
    assert (viewer.draw(scene_of(step=9))[:HEAD] != whole[:HEAD]).any()
    shifted = viewer.draw(scene_of(action=np.zeros(2), components=np.array([9.0, -1e6, 0, 4])))
    assert shifted.shape == whole.shape


def test_hidden_components_are_grey_and_distractors_have_bars():
    plain = viewer.draw(scene_of())
    hidden = viewer.draw(scene_of(hidden=(0,)))
    changed = (plain[: HEAD + viewer._PLANE] != hidden[: HEAD + viewer._PLANE]).any(axis=2)
    assert (plain[-24:] != hidden[-24:]).any()  # the legend has one entry more
    assert changed[:, viewer._PLANE :].any()
    assert not changed[:, : viewer._PLANE].any()
    assert (viewer.draw(scene_of(distractors=np.ones(8))) != plain).any()


def test_text_shows_the_numbers():
    text = viewer.draw_text(scene_of(hidden=(1,), distractors=np.array([0.3])))
    lines = text.splitlines()
    assert lines[0] == "s0 [....................|##########..........] +1.500"
    assert lines[1] == "s1 [..........##########|....................] -1.500  hidden"
    assert lines[4] == "a0 [####################|....................] -1.000"
    assert lines[6] == "d0 [....................|##..................] +0.300"
    assert lines[7] == "step 3/10  score -1.25  distance 2.250 of 3"
