"""Thompson sampling by context: its posterior, what it learns in the greedy casino, and what it refuses."""

import numpy as np
import pytest

from qio_envs import greedy_casino_v0
from qio_envs.api import ConfigError
from qio_envs.greedy_casino import logged
from qio_rllib.causal.bandit import ThompsonBandit


def gambled(rounds, knows, seed=0, log=None):
    """Let 200 gamblers learn; return the bandit and the share of the last tenth of rounds that were paid."""
    env = greedy_casino_v0.batched_env(200, rounds=rounds)
    env.reset(seed * 1000)
    bandit = ThompsonBandit(200, 2 if knows else 1, 2, seed)
    if log is not None:
        bandit.learn_log(*log)
    paid = []
    for _ in range(rounds):
        contexts = env.arrays.intent.astype(int) * knows
        arms = bandit.act(contexts)
        rewards = env.step(arms[:, None]).rewards[:, 0]
        bandit.learn(contexts, arms, rewards)
        paid.append(rewards.mean())
    return bandit, np.mean(paid[-rounds // 10 :]), np.mean(paid)


def test_whoever_knows_the_intention_learns_to_act_against_it():
    bandit, late, _ = gambled(400, knows=True)
    assert (bandit.choices() == [1, 0]).all(axis=1).mean() > 0.97
    assert late > 0.43  # 0.45 at most; standard error 0.006
    _, late, _ = gambled(400, knows=False)
    assert late == pytest.approx(0.30, abs=0.025)


def test_records_of_whoever_followed_the_intention_save_rounds():
    log = logged(500, seed=9)
    records = tuple(log[name].astype(int) for name in ("intent", "machine", "reward"))
    told, untold = (gambled(30, knows=True, log=one)[2] for one in (records, None))
    assert told > untold + 0.03  # standard error 0.009


def test_the_posterior_counts_rewards_and_their_absence():
    bandit = ThompsonBandit(2, 2, 3)
    bandit.learn(np.array([0, 1]), np.array([2, 0]), np.array([1.0, 0.25]))
    expected = np.ones((2, 2, 3))
    expected[0, 0, 2], expected[1, 1, 0] = 2, 1.25
    np.testing.assert_array_equal(bandit.paid, expected)
    expected = np.ones((2, 2, 3))
    expected[1, 1, 0] = 1.75
    np.testing.assert_array_equal(bandit.missed, expected)
    bandit.learn_log(np.array([1, 1, 1]), np.array([0, 0, 1]), np.array([1, 0, 1]))
    np.testing.assert_array_equal(bandit.paid[:, 1], [[2, 2, 1], [2.25, 2, 1]])
    np.testing.assert_array_equal(bandit.choices(), [[2, 1], [0, 1]])


def test_arms_are_chosen_as_often_as_they_are_the_best_of_the_posterior():
    bandit = ThompsonBandit(20_000, 1, 2, seed=1)
    bandit.learn(
        np.zeros(20_000, int), np.zeros(20_000, int), np.ones(20_000)
    )  # Beta(2, 1) against Beta(1, 1)
    share = (bandit.act(np.zeros(20_000, int)) == 0).mean()
    assert share == pytest.approx(2 / 3, abs=0.015)  # the mean of Beta(2, 1) is P(x > u)
    same = [ThompsonBandit(50, 1, 2, seed=3).act(np.zeros(50, int)) for _ in range(2)]
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ThompsonBandit(0, 1, 2), "num_learners: expected at least 1, got 0"),
        (lambda: ThompsonBandit(1, 0, 2), "num_contexts: expected at least 1, got 0"),
        (lambda: ThompsonBandit(1, 1, 0), "num_arms: expected at least 1, got 0"),
        (
            lambda: ThompsonBandit(1, 1, 2).learn(np.zeros(1, int), np.zeros(1, int), np.array([2.0])),
            "rewards: expected numbers in [0, 1]",
        ),
        (
            lambda: ThompsonBandit(1, 1, 2).learn_log(np.zeros(1, int), np.zeros(1, int), np.array([np.nan])),
            "rewards: expected numbers in [0, 1]",
        ),
    ],
)
def test_what_is_wrong_is_refused(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)
