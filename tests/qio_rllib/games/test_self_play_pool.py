"""The pool of opponents: settings, ratings, matchmaking and games."""

import numpy as np
import pytest

from qio_envs.api import ConfigError
from qio_rllib.games.elo import expected_score
from qio_rllib.games.self_play import (
    Games,
    Matchmaker,
    OpponentPool,
    Opponents,
    SelfPlaySettings,
    teams_of,
)


def pool_of(count=4, **settings):
    """Return a pool with so many snapshots, each of which holds its number."""
    pool = OpponentPool(SelfPlaySettings(**settings))
    for number in range(count):
        pool.add({"shared": {"bias": np.array([float(number)])}})
    return pool


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pool": 3}, "self_play: unknown key 'pool'"),
        (
            {"matchmaking": "eol"},
            "self_play.matchmaking: expected one of uniform, latest, prioritized, elo, got 'eol'",
        ),
        (
            {"pool_size": 0},
            r"self_play.pool_size: expected a whole number of at least 1 \(an empty pool has no opp",
        ),
        ({"pool_size": True}, "self_play.pool_size: "),
        (
            {"snapshot_interval": 1.5},
            "self_play.snapshot_interval: expected a whole number of at least 1, or null, got 1.5",
        ),
        ({"current_share": -0.1}, "self_play.current_share: expected a number from 0 to 1, got -0.1"),
        ({"current_share": float("nan")}, "self_play.current_share: "),
        ({"teams": "ab"}, "self_play.teams: expected lists of agent ids, got 'ab'"),
        ({"teams": ["a", "b"]}, "self_play.teams: expected lists"),
    ],
)
def test_settings_out_of_range_are_named(given, message):
    with pytest.raises(ConfigError, match=message):
        SelfPlaySettings.of(given)


def test_teams_are_modules_agents_or_what_is_given():
    assert teams_of(None, {"shared": ["a", "b", "c"]}) == [["a"], ["b"], ["c"]]
    assert teams_of(None, {"hunters": ["a", "b"], "prey": ["c"]}) == [["a", "b"], ["c"]]
    assert teams_of([["a", "c"], ["b"], []], {"shared": ["a", "b", "c"]}) == [["a", "c"], ["b"]]


@pytest.mark.parametrize(
    ("given", "modules", "message"),
    [
        ([["a"], ["d"]], {"x": ["a", "b"]}, "self_play.teams: there is no agent 'd'; allowed: a, b"),
        ([["a", "b"], ["b"]], {"x": ["a", "b"]}, "self_play.teams: 'b' stands there twice"),
        ([["a"], ["b"]], {"x": ["a", "b", "c"]}, "self_play.teams: c in no team"),
        (
            [["a", "b"]],
            {"x": ["a", "b"]},
            "self_play.teams: expected at least two teams, got 1; there is no opponent",
        ),
        (None, {"x": ["a"]}, "expected at least two teams, got 1"),
    ],
)
def test_teams_that_do_not_partition_the_agents_are_named(given, modules, message):
    with pytest.raises(ConfigError, match=message):
        teams_of(given, modules)


def test_the_oldest_snapshot_gives_way_and_numbers_are_never_used_again():
    pool = pool_of(5, pool_size=3)
    assert list(pool.snapshots) == [2, 3, 4]
    assert set(pool.scores) == set(pool.ratings) == {2, 3, 4}
    assert pool.add({}) == 5
    pool.record([Games(0, 10, 10.0), Games(5, 10, 10.0)])  # 0 is gone
    assert set(pool.scores) == {3, 4, 5}


def test_a_mean_score_moves_by_its_rate_a_game():
    pool = pool_of(2)
    pool.record([Games(0, 3, 3.0)])
    expected = 0.5
    for _ in range(3):
        expected += 0.05 * (1.0 - expected)
    assert pool.scores == {0: pytest.approx(expected), 1: 0.5}
    pool.record([Games(0, 0, 0.0)])
    assert pool.scores[0] == pytest.approx(expected)


def test_ratings_are_those_at_which_scores_are_expected():
    pool = pool_of(1)
    for _ in range(100):
        pool.record([Games(0, 50, 0.75 * 50)])
    assert pool.rating == pytest.approx(400 * np.log10(3), abs=0.1)  # odds of 3 to 1
    pool.add({})
    assert pool.ratings == {0: 0.0, 1: pool.rating}
    # Against an equal of its own it scores a half, and so its rating stays.
    pool.record([Games(1, 50, 25.0)])
    assert pool.rating == pytest.approx(pool.ratings[1], abs=0.1)
    ratings = np.array(list(pool.ratings.values()))
    assert expected_score(pool.rating, ratings).sum() == pytest.approx(sum(pool.scores.values()), abs=1e-6)


def test_who_always_wins_has_a_rating_all_the_same():
    pool = pool_of(1)
    for _ in range(100):
        pool.record([Games(0, 100, 100.0)])
    assert 600 < pool.rating < 700


def test_matchmaking_draws_whom_it_says():
    pool = pool_of(3, matchmaking="uniform")
    assert list(pool.probabilities().values()) == pytest.approx([1 / 3] * 3)
    pool = pool_of(3, matchmaking="latest")
    assert list(pool.probabilities().values()) == [0.0, 0.0, 1.0]
    pool = pool_of(3, matchmaking="prioritized")
    pool.scores = {0: 0.9, 1: 0.5, 2: 0.1}
    weights = np.array([0.01, 0.25, 0.81])
    expected = 0.95 * weights / weights.sum() + 0.05 / 3
    assert list(pool.probabilities().values()) == pytest.approx(expected.tolist())
    pool.scores = dict.fromkeys(pool.scores, 1.0)  # nobody is hard
    assert list(pool.probabilities().values()) == pytest.approx([1 / 3] * 3)
    pool = pool_of(3, matchmaking="elo")
    pool.rating, pool.ratings = 400.0, {0: -400.0, 1: 0.0, 2: 400.0}
    drawn = list(pool.probabilities().values())
    assert drawn[2] > 2 * drawn[1] > 4 * drawn[0] > 0


def test_a_pool_goes_on_from_its_state_and_keeps_the_newest_where_there_is_less_room():
    pool = pool_of(4, matchmaking="prioritized")
    pool.record([Games(1, 5, 1.0), Games(3, 5, 5.0)])
    again = OpponentPool(SelfPlaySettings(matchmaking="prioritized"))
    again.set_state(pool.get_state())
    assert again.probabilities() == pool.probabilities()
    assert again.add({}) == 4
    small = OpponentPool(SelfPlaySettings(pool_size=2))
    small.set_state(pool.get_state())
    assert list(small.snapshots) == [2, 3]
    assert small.rating == pool.rating


TEAMS = [[0, 2], [1], [3]]


def matched(share=0.0, envs=4000, probabilities=None):
    matchmaker = Matchmaker(TEAMS, envs)
    opponents = Opponents({}, probabilities or {3: 0.25, 7: 0.75}, share)
    matchmaker.draw(np.arange(envs), opponents, np.random.default_rng(0))
    return matchmaker


def test_one_team_learns_and_each_other_one_has_its_own_snapshot():
    matchmaker = matched()
    learns = matchmaker.snapshots == -1
    assert (learns.sum(axis=1) == 1).all()
    assert (learns.argmax(axis=1) == matchmaker.learner).all()
    np.testing.assert_allclose(np.bincount(matchmaker.learner) / 4000, 1 / 3, atol=0.03)
    drawn = matchmaker.snapshots[~learns]
    assert set(drawn.tolist()) == {3, 7}
    assert (drawn == 7).mean() == pytest.approx(0.75, abs=0.02)
    others = matchmaker.snapshots[matchmaker.learner == 0][:, 1:]
    assert 0.3 < (others[:, 0] != others[:, 1]).mean() < 0.45  # 2 x 0.25 x 0.75
    agents = matchmaker.of_agents()
    np.testing.assert_array_equal(agents[:, 0], agents[:, 2])
    np.testing.assert_array_equal(agents[:, [0, 1, 3]], matchmaker.snapshots)


def test_a_share_of_the_episodes_is_without_snapshots():
    everybody = (matched(share=0.3).snapshots == -1).all(axis=1)
    assert everybody.mean() == pytest.approx(0.3, abs=0.03)
    assert (matched(share=1.0).snapshots == -1).all()


def test_only_the_environments_that_begin_are_matched_anew():
    matchmaker = matched(envs=6)
    before = matchmaker.get_state()
    matchmaker.draw(np.array([1, 4]), Opponents({}, {9: 1.0}, 0.0), np.random.default_rng(1))
    kept = [0, 2, 3, 5]
    np.testing.assert_array_equal(matchmaker.snapshots[kept], before["snapshots"][kept])
    assert set(matchmaker.snapshots[[1, 4]].reshape(-1).tolist()) == {-1, 9}
    matchmaker.set_state(before)
    np.testing.assert_array_equal(matchmaker.snapshots, before["snapshots"])


def test_a_game_is_won_by_the_greater_mean_of_an_agents_return():
    matchmaker = Matchmaker(TEAMS, 2)
    matchmaker.learner[:] = 0
    matchmaker.snapshots[0] = [-1, 4, 6]
    returns = np.array([1.0, 1.5, 3.0, 2.0])  # teams: 2, 1.5, 2
    assert matchmaker.games(0, returns) == [Games(4, 1, 1.0), Games(6, 1, 0.5)]
    returns[1] = 2.5
    assert matchmaker.games(0, returns)[0] == Games(4, 1, 0.0)
    assert matchmaker.games(1, returns) == []  # all play with the present policies
