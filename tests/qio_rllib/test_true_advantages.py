"""Branches of decisions and true advantages, beside closed forms."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import toy_game
from toy_policies import linear_policy

import qio_envs
from qio_rllib.evaluation.advantages import TrueAdvantages
from qio_rllib.experiments.credit import Credit, Plan, Subject, measure
from qio_rllib.sampling.continuations import Continuation, Continuations
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.sampled_decisions import sampled_decisions

GAMMA = 0.9
GAIN = np.random.default_rng(3).normal(size=(2, 5))
SURE = 1e4 * GAIN
"""Logits of policies: one that mixes, one that always does the same in a place."""


@pytest.fixture(autouse=True, scope="module")
def game():
    with toy_game.registered():
        yield


def found_in_game(states, branches, gain=GAIN, settings=None, **plan):
    subject = Subject.of_policy(linear_policy("toy_game_v0", gain, settings=settings), GAMMA)
    return measure(subject, Plan(states=states, branches=branches, **plan))


def exact(found, gain=GAIN, chance=0.3):
    """The advantages of the decisions in closed form, [D, 2]."""
    logits = np.stack([np.concatenate([np.eye(3), np.repeat([one], 3, 0)], 1) @ gain.T for one in np.eye(2)])
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    policy = weights / weights.sum(axis=-1, keepdims=True)
    values = []
    for one in found.decisions:
        place = int(one.moment.env["place"][0])
        other = int(one.actions[0][0, 1 - one.agent]) if found.plan.given_others else None
        np.testing.assert_allclose(one.probabilities, policy[one.agent, place], atol=1e-6)
        values.append(toy_game.advantages(policy, GAMMA, place, 3 - one.step, one.agent, other, chance))
    return np.array(values)


@pytest.mark.parametrize("given_others", [False, True], ids=["over others", "given others"])
def test_advantages_are_the_closed_form_within_their_errors(given_others):
    found = found_in_game(24, 60, given_others=given_others)
    assert np.bincount([one.step for one in found.decisions]).tolist() == [8, 8, 8]  # spread evenly
    assert {one.agent for one in found.decisions} == {0, 1}
    wrong, errors = found.truth.advantages - exact(found), found.truth.errors
    assert (np.abs(wrong) < 4.5 * errors + 1e-5).all()
    random = errors[:, 0] > 1e-5  # given the other's action, only chance to come is: rewards' noise is common
    assert random.sum() >= 12
    assert 0.5 < np.square(wrong[random, 0] / errors[random, 0]).mean() < 2.0


def test_the_two_kinds_of_advantage_differ():
    found = found_in_game(12, 2)
    given = dataclasses.replace(found, plan=dataclasses.replace(found.plan, given_others=True))
    assert np.abs(exact(found) - exact(given)).max() > 0.3


def test_the_error_falls_with_the_root_of_the_branches():
    few, many = (found_in_game(30, branches) for branches in (4, 64))
    errors = [np.sqrt(np.square(one.truth.advantages - exact(one)).mean()) for one in (few, many)]
    assert 2.5 < errors[0] / errors[1] < 6.5
    reported = [np.sqrt(np.nanmean(np.square(one.truth.errors))) for one in (few, many)]
    assert 3.3 < reported[0] / reported[1] < 4.8


def test_without_randomness_one_branch_is_exact():
    found = found_in_game(8, 1, SURE, {"noise": 0.0, "chance": 0.0})
    np.testing.assert_allclose(found.truth.advantages, exact(found, SURE, chance=0.0), atol=1e-5)
    two = found_in_game(8, 2, SURE, {"noise": 0.0, "chance": 0.0})
    np.testing.assert_allclose(two.truth.errors, 0, atol=1e-6)
    assert np.abs(found.truth.advantages).max() > 0.3


def test_the_horizon_cuts_the_return():
    """With one step the advantage is that of the rewards, which do not depend on what is to come."""
    found = found_in_game(6, 1, SURE, {"noise": 0.0, "chance": 0.0}, horizon=1)
    for d, one in enumerate(found.decisions):
        place, other = int(one.moment.env["place"][0]), int(one.actions[0][0, 1 - one.agent])
        pay = toy_game.PAY[one.agent, place]
        expected = (pay if one.agent == 0 else pay.T)[:, other]
        np.testing.assert_allclose(found.truth.values[d], expected, atol=1e-6)
    assert found.env_steps == 6 * 2 * 2


def players(paired, settings=None, states=12, seed=0):
    """Returns of decisions of one agent with 40 branches, [D, A, B]."""
    policy = linear_policy("toy_game_v0", GAIN, settings=settings)
    subject = Subject.of_policy(policy, GAMMA)
    env = make_vector_env(policy.env, dict(policy.env_config), 1)
    seeds = range(seed, seed + states)
    found, longest = sampled_decisions(env.env, subject.team, None, seeds, [0] * states, seed)
    player = Continuations(env.env, subject.team, None, seed, paired=paired, longest=longest)
    returns = np.zeros((states, 2, 41))
    for part in player.play([*enumerate(found)], 40):
        returns[part.decision, :, part.branch] = part.returns(GAMMA)
    return found, returns[..., 1:]


def test_what_the_episode_itself_gave_is_not_among_the_branches():
    _, returns = players(True, seed=5)
    name = make_vector_env("toy_game_v0", {}, 1).agents[0]
    measured = found_in_game(12, 40, agent=name, seed=5)
    np.testing.assert_allclose(measured.truth.returns, returns)


def test_what_the_others_earn_after_an_agents_end_is_not_its_return():
    acted, rewards = np.ones((3, 2, 1), bool), np.ones((3, 2, 1), np.float32)
    acted[1:, 0] = False
    part = SimpleNamespace(acted=acted, rewards=rewards)
    found = Continuation(
        np.zeros(1), np.zeros(1), np.full((1, 2), 0.5), 0, 0, [], np.ones((2, 1)), [], {}, part
    )
    np.testing.assert_allclose(found.returns(0.5), [[1.0, 1.75]])


def test_the_summary_and_the_rows_by_numbers():
    """Two decisions, of two actions and of one; two branches each, after what the episode gave."""
    nothing = [np.nan, np.nan]
    returns = np.array([[[1.0, 3.0], [0.0, 1.0]], [[4.0, 4.0], nothing]])
    truth = TrueAdvantages.of(returns, [[0.5, 0.5], [1.0, 0.0]])
    legal = np.array([[True, True], [True, False]])
    decisions = tuple(
        SimpleNamespace(
            seed=d, step=d, agent=0, action=0, probabilities=truth.probabilities[d], legal=legal[d]
        )
        for d in range(2)
    )
    estimates = np.array([[[9.0, 1.0, 2.0], [0.0, 5.0, 7.0]], [[8.0, 3.0, 5.0], [np.nan, *nothing]]])
    credit = Credit(None, Plan(2, 2), ("a",), decisions, truth, {"mine": estimates}, (), 12)
    found = credit.summary()
    # Advantages 0.5 and 1, and 0; their error is 0.25, and unpaired the root of (1^2 + 0.5^2) / 4.
    assert found["spread"] == pytest.approx(np.sqrt((0.75**2 - 0.25**2) / 2))
    assert found["mean_error"] == pytest.approx(0.125)
    assert found["distinguishable"] == 0.5
    assert found["pairing"] == pytest.approx(np.sqrt(1.25) / 2 / 0.25)
    rows = credit.rows()
    assert [(row["action"], row["taken"], row["mine, mean"]) for row in rows] == [
        (0, 1, 1.5),
        (1, 0, 6.0),
        (0, 1, 4.0),
    ]
    assert [row.get("mine, single") for row in rows] == [9.0, None, 8.0]


def test_common_random_numbers_make_the_error_smaller():
    found, paired = players(True)
    _, apart = players(False)
    probabilities = np.stack([one.probabilities for one in found])
    one, other = (TrueAdvantages.of(returns, probabilities) for returns in (paired, apart))
    assert other.errors.mean() > 1.3 * one.errors.mean()
    # What the paired measurement says that unpaired ones would have is what they have.
    assert other.errors.mean() == pytest.approx(one.unpaired_errors().mean(), rel=0.12)
    assert np.abs((one.advantages - other.advantages) / other.errors).max() < 4.5


def test_the_same_seed_gives_the_same_however_many_are_played_at_once(monkeypatch):
    one = found_in_game(6, 5)
    monkeypatch.setattr("qio_rllib.sampling.continuations._MOST_ROWS", 6)
    np.testing.assert_allclose(found_in_game(6, 5).truth.returns, one.truth.returns, atol=1e-6)
    assert np.abs(found_in_game(6, 5, seed=1).truth.returns - one.truth.returns).max() > 0.1


@pytest.mark.parametrize("name", [name for name in qio_envs.environments() if name != "toy_game_v0"])
def test_another_key_changes_nothing_but_what_is_to_come(name):
    """Branches rest on it: what an episode began with lies in its state and is not drawn again.

    The noise of the swarm's observations is drawn when they are made: a decision keeps what was seen before it.
    """
    settings = {"observation_noise": 0.0} if name.startswith("swarm") else {}
    env = qio_envs.environment(name).batched_env(3, **settings)
    env.reset(5)
    for _ in range(2):
        env.step(env.scripted_policies["random"](env).act())
    state, seen, known = env.get_state(), env.observe(), env.state()
    env.set_state({**state, "seed": state["seed"] + np.uint64(1000)})
    np.testing.assert_array_equal(env.observe(), seen)
    np.testing.assert_array_equal(env.state(), known)
