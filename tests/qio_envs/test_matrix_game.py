"""`matrix_game_v0`: rules against a plain Python player, settings, scripted policies, pictures."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs import matrix_game_v0
from qio_envs.api import ConfigError, InvalidActionError, ResetNeededError, episode_scores, reference_scores
from qio_envs.api.drawing import HEAD
from qio_envs.matrix_game import (
    END,
    NAMED_GAMES,
    MatrixGame,
    MatrixGameConfig,
    NashPolicy,
    OraclePolicy,
    viewer,
)
from qio_envs.testing import CHECKS, check_parallel_env, table

SYMMETRIC = ("prisoners_dilemma", "chicken", "stag_hunt", "rock_paper_scissors")
UNEVEN = np.arange(24, dtype=float).reshape(3, 2, 4, 1) - 7  # three agents with 2, 4 and 1 actions


def custom(payoffs, **settings_):
    return matrix_game_v0.batched_env(1, game="custom", payoffs=payoffs, **settings_)


@pytest.mark.parametrize("scenario", matrix_game_v0.scenarios())
def test_every_scenario_conforms(scenario):
    results = check_parallel_env(lambda **kwargs: matrix_game_v0.parallel_env(scenario, **kwargs), steps=30)
    assert [result.name for result in results] == list(CHECKS)
    others = {result.name: result.label for result in results if result.label != "ok"}
    # the two-step game is over after two rounds by its rules
    expected = {"action masks": "skip"} | ({"time limit": "warning"} if scenario == "two_step" else {})
    assert others == expected, table(results)


def test_games_with_masks_conform():
    results = check_parallel_env(
        lambda **kwargs: matrix_game_v0.parallel_env(
            game="custom", payoffs=UNEVEN, memory=2, rounds=9, **kwargs
        ),
        steps=30,
    )
    assert {result.label for result in results} == {"ok"}, table(results)


# -- rules


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_play_is_as_a_plain_player_of_the_tables_says(data):
    counts = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    stages, rounds, memory = (data.draw(st.integers(1, limit)) for limit in (3, 6, 3))
    memory -= 1
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    agents, most = len(counts), max(counts)
    payoffs = rng.integers(-9, 10, (stages, agents, *counts))
    following = rng.integers(END, stages, (stages, *counts))
    env = custom(payoffs.tolist(), next_stage=following.tolist(), rounds=rounds, memory=memory)
    env.reset(3)
    stage, played, returns = 0, [], np.zeros(agents)

    def one_hot(action):
        return [float(a == action) for a in range(most)]

    def seen_by(agent):
        order = [(agent + i) % agents for i in range(agents)]
        past = [played[-1 - k] if k < len(played) else (-1,) * agents for k in range(memory)]
        history = [x for joint in past for n in order for x in one_hot(joint[n])]
        return [float(s == stage) for s in range(stages)] + history

    while env.running.all():
        assert env.observe()[0].tolist() == [seen_by(n) for n in range(agents)]
        assert env.state()[0].tolist() == [*seen_by(0), pytest.approx(1 - len(played) / rounds, abs=1e-6)]
        joint = tuple(int(rng.integers(count)) for count in counts)
        rewards, terminated, truncated = env.step([joint])
        paid = [payoffs[(stage, n, *joint)] for n in range(agents)]
        assert rewards.dtype == np.float32
        assert rewards[0].tolist() == paid
        over = following[(stage, *joint)] == END
        stage = stage if over else int(following[(stage, *joint)])
        played.append(joint)
        returns += paid
        cut = not over and len(played) == rounds
        assert terminated.tolist() == [[over] * agents]
        assert truncated.tolist() == [[cut] * agents]
        assert env.running.tolist() == [not (over or cut)]
        info = {key: value[0].tolist() for key, value in env.info().items()}
        assert info == {
            "team_return": returns.sum(),
            "rounds": len(played),
            "agent_return": returns.tolist(),
        }
    assert env.observe()[0].tolist() == [seen_by(n) for n in range(agents)]
    with pytest.raises(ResetNeededError):
        env.step([[0] * agents])
    env.reset()
    stage, played = 0, []
    assert env.observe()[0].tolist() == [seen_by(n) for n in range(agents)]


def test_an_environment_of_a_batch_is_the_environment_of_its_seed_alone():
    batch = matrix_game_v0.batched_env(3, "repeated_rock_paper_scissors", rounds=7)
    singles = [matrix_game_v0.batched_env(1, "repeated_rock_paper_scissors", rounds=7) for _ in range(3)]
    batch.reset(40)
    for index, single in enumerate(singles):
        single.reset(40 + index)
    together, alone = NashPolicy(batch, 5), [NashPolicy(single, 5) for single in singles]
    for t in range(20):
        again = ~batch.running | (np.arange(3) == t % 5)
        batch.reset(mask=again)
        for index in np.flatnonzero(again):
            singles[index].reset()
        actions = together.act()
        np.testing.assert_array_equal(actions, together.act())
        parts = [*batch.step(actions), batch.observe(), batch.state(), *batch.info().values()]
        for index, single in enumerate(singles):
            own_actions = alone[index].act()
            np.testing.assert_array_equal(own_actions[0], actions[index])
            own = [*single.step(own_actions), single.observe(), single.state(), *single.info().values()]
            for whole, part in zip(parts, own, strict=True):
                np.testing.assert_array_equal(whole[index], part[0])


def test_a_symmetric_game_looks_the_same_to_both_agents():
    """One network can play both sides: whoever changes seats sees what the other one saw."""
    env = matrix_game_v0.batched_env(2, "repeated_prisoners_dilemma", memory=3)
    env.reset(0)
    for joint in ([0, 1], [1, 1], [0, 0], [1, 0]):
        env.step([joint, joint[::-1]])
    seen = env.observe()
    np.testing.assert_array_equal(seen[0], seen[1, ::-1])
    assert (seen[0, 0] != seen[0, 1]).any()


# -- named games


@pytest.mark.parametrize("name", NAMED_GAMES)
def test_the_equilibria_of_named_games_are_equilibria(name):
    """No agent gains by another action in any stage, where later stages are worth what the equilibrium earns there."""
    game = NAMED_GAMES[name]
    stages, agents, *counts = game.payoffs.shape
    assert agents == 2
    values = np.zeros((stages, agents))
    for _ in range(stages):  # enough for games that only go on to later stages
        for s in range(stages) if stages > 1 else [0]:
            first, second = game.equilibrium[s]
            assert first.sum() == pytest.approx(1)
            worth = game.payoffs[s].copy()
            for joint in itertools.product(*map(range, counts)):
                following = game.next_stage[(s, *joint)]
                if stages > 1 and following != END:
                    worth[(slice(None), *joint)] += values[following]
            values[s] = np.einsum("nab,a,b->n", worth, first, second)
    for s in range(stages):
        first, second = game.equilibrium[s]
        worth = game.payoffs[s].copy()
        for joint in itertools.product(*map(range, counts)):
            following = game.next_stage[(s, *joint)]
            if stages > 1 and following != END:
                worth[(slice(None), *joint)] += values[following]
        assert (worth[0] @ second).max() <= values[s, 0] + 1e-12
        assert (first @ worth[1]).max() <= values[s, 1] + 1e-12


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_games_are_symmetric(name):
    first, second = NAMED_GAMES[name].payoffs[0]
    np.testing.assert_array_equal(first, second.T)


def test_what_makes_the_named_games_what_they_are():
    def payoffs(name):
        return NAMED_GAMES[name].payoffs[0]

    (reward, sucker), (temptation, punishment) = payoffs("prisoners_dilemma")[0]
    assert temptation > reward > punishment > sucker
    assert 2 * reward > temptation + sucker
    (reward, sucker), (temptation, crash) = payoffs("chicken")[0]
    assert temptation > reward > sucker > crash
    (both, alone), (safe, hares) = payoffs("stag_hunt")[0]
    assert both > safe > hares > alone
    assert hares + safe > both + alone  # hunting hares is risk dominant
    for name in ("rock_paper_scissors", "matching_pennies"):
        assert not payoffs(name).sum(axis=0).any()
    for name in ("climbing", "penalty", "two_step"):
        np.testing.assert_array_equal(payoffs(name)[0], payoffs(name)[1])
    assert NAMED_GAMES["two_step"].payoffs[:, 0].tolist() == [
        [[0, 0], [0, 0]],
        [[7, 7], [7, 7]],
        [[0, 1], [1, 8]],
    ]


@pytest.mark.parametrize("scenario", matrix_game_v0.scenarios())
def test_a_named_game_given_by_its_payoffs_is_the_same_game(scenario):
    """The documentation's table and the custom game agree with the names, staged ones too."""
    config = matrix_game_v0.config(scenario)
    named = matrix_game_v0.batched_env(1, scenario)
    stages = {"next_stage": config.stage_table} if config.num_stages > 1 else {}
    table_ = config.payoff_table if stages else config.payoff_table[0]
    own = custom(table_, rounds=config.rounds, memory=config.memory, **stages)
    for env in (named, own):
        env.reset(1)
    while named.running.all():
        actions = named.scripted_policies["random"](named).act()
        for one, other in zip(named.step(actions), own.step(actions), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(named.state(), own.state())


# -- scripted policies


def test_what_scripted_policies_earn():
    env = matrix_game_v0.batched_env(2_000, "chicken")
    scores = reference_scores(env, seed=1)
    assert list(scores) == ["random", "nash", "oracle"]
    assert scores["random"] == pytest.approx(25 * 30 / 4, rel=0.01)
    assert scores["nash"] == pytest.approx(25 * 28 / 3, rel=0.01)  # either gets 14/3
    assert scores["oracle"] == 25 * 12
    for scenario, nash, oracle in (
        ("default", 550, 550),
        ("prisoners_dilemma", 50, 150),
        ("two_step", 16, 16),
    ):
        env = matrix_game_v0.batched_env(2, scenario)
        scores = reference_scores(env)
        assert (scores["nash"], scores["oracle"]) == (nash, oracle)


def test_the_equilibrium_is_played_with_its_probabilities_by_each_agent_independently():
    env = matrix_game_v0.batched_env(20_000, "chicken")
    env.reset(0)
    actions = NashPolicy(env).act()
    assert (actions.dtype, actions.shape) == (np.int64, (20_000, 2))
    share = np.array([[((actions == (a, b)).all(axis=1)).mean() for b in (0, 1)] for a in (0, 1)])
    np.testing.assert_allclose(share, np.outer([2 / 3, 1 / 3], [2 / 3, 1 / 3]), atol=0.015)
    assert (NashPolicy(env, 1).act() != actions).any()


def test_tit_for_tat_answers_what_the_other_did():
    env = matrix_game_v0.batched_env(1, "prisoners_dilemma")
    assert list(env.scripted_policies) == ["random", "tit_for_tat", "nash", "oracle"]
    env.reset(0)
    player = env.scripted_policies["tit_for_tat"](env)
    assert player.act().tolist() == [[0, 0]]
    for joint in ([0, 1], [1, 1], [1, 0]):
        env.step([joint])
        assert player.act().tolist() == [joint[::-1]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 3))
def test_no_sequence_of_joint_actions_beats_the_oracle(seed, rounds, stages):
    rng = np.random.default_rng(seed)
    payoffs = rng.integers(-5, 6, (stages, 2, 2, 2))
    following = rng.integers(END, stages, (stages, 2, 2))
    env = custom(payoffs, next_stage=following, rounds=rounds)
    (score,) = episode_scores(env, OraclePolicy)

    def best(stage, left):
        if left == 0 or stage == END:
            return 0
        joint = itertools.product((0, 1), repeat=2)
        return max(payoffs[stage, :, a, b].sum() + best(following[stage, a, b], left - 1) for a, b in joint)

    assert score == best(0, rounds)


def test_a_custom_game_has_no_known_equilibrium_but_a_best_joint_action():
    env = custom(UNEVEN, rounds=2)
    assert list(env.scripted_policies) == ["random", "oracle"]
    assert episode_scores(env, env.scripted_policies["oracle"]) == 2 * UNEVEN.sum(axis=0).max()
    assert env.possible_agents == ("agent_0", "agent_1", "agent_2")


# -- masks and settings


def test_agents_with_fewer_actions_have_masks():
    env = custom(UNEVEN)
    assert env.has_action_mask
    assert env.action_mask()[0].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    env.reset(0)
    rewards, *_ = env.step([[3, 2, 2]])  # agents 0 and 2 have no such actions
    assert rewards[0].tolist() == UNEVEN[:, 1, 2, 0].tolist()
    assert env.arrays.history[0, 0].tolist() == [1, 2, 0]
    with pytest.raises(InvalidActionError, match="agent_1 in env 0: expected an integer from 0 to 3, got 4"):
        env.step([[1, 4, 0]])
    assert not custom(np.zeros((2, 3, 3))).has_action_mask


REFUSED = [
    ({"game": "chiken"}, "game: expected one of climbing, .*, custom, got 'chiken' .did you mean 'chicken'"),
    ({"rounds": 0}, "rounds: expected an integer from 1 to 100000, got 0"),
    ({"memory": -1}, "memory: expected an integer from 0 to 100, got -1"),
    ({"payoffs": [[1], [1]]}, "payoffs: the game climbing has its own; allowed: with game custom"),
    ({"game": "custom"}, "payoffs: expected those of the game custom, got null"),
    (
        {"game": "custom", "payoffs": [[[1, 2], [3, 4]]]},
        r"payoffs: expected shape \[N, A_1, ..., A_N\], an axis of actions for each of 1 to 20 agents, got \[1, 2, 2\]",
    ),
    ({"game": "custom", "payoffs": [1, 2]}, r"payoffs: expected shape .*, got \[2\]"),
    (
        {"game": "custom", "payoffs": [[[1, 2], [3, 4]], [[1, 2], [3]]]},
        r"payoffs\[1\]\[1\]: expected 2 entries as in its neighbours, got 1",
    ),
    (
        {"game": "custom", "payoffs": [[[1, 2], [3, float("nan")]]] * 2},
        r"payoffs\[0\]\[1\]\[1\]: expected nested lists of numbers from -1000000.0 to 1000000.0 or null, got nan",
    ),
    ({"game": "custom", "payoffs": [[1, 2], 3]}, r"payoffs\[1\]: expected nested lists .*, got 3"),
    ({"game": "custom", "payoffs": [[1, [2]]]}, r"payoffs\[0\]\[1\]: expected nested lists .*, got \[2\]"),
    ({"game": "custom", "payoffs": []}, r"payoffs: expected nested lists .*, got \[\]"),
    ({"game": "custom", "payoffs": 3}, "payoffs: expected nested lists .*, got 3"),
    ({"game": "custom", "payoffs": [["a"]]}, r"payoffs\[0\]\[0\]: expected nested lists .*, got 'a'"),
    ({"game": "custom", "payoffs": [[True]]}, r"payoffs\[0\]\[0\]: expected nested lists .*, got True"),
    ({"game": "custom", "payoffs": [[2e6]]}, r"payoffs\[0\]\[0\]: expected nested lists .*, got 2000000.0"),
    (
        {"game": "custom", "payoffs": [[[1, 2]]], "next_stage": [[0]]},
        r"next_stage: expected shape \[1, 2\], as payoffs have it, got \[1, 1\]",
    ),
    (
        {"game": "custom", "payoffs": [[[1, 2]]], "next_stage": [[0, 1]]},
        "next_stage: expected integers from -1 to 0, got 1",
    ),
    (
        {"game": "custom", "payoffs": [[[1, 2]]], "next_stage": [[0, -0.5]]},
        "next_stage: expected integers from -1 to 0, got -0.5",
    ),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_settings_that_are_no_game_are_refused_in_a_line(values, message):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        MatrixGameConfig(**values)
    assert "\n" not in str(caught.value)


def test_payoffs_come_as_lists_tuples_or_arrays_and_are_part_of_the_hash():
    lists = [[[1, 2], [3, 4]], [[5, 6], [7, 8.5]]]
    one = MatrixGameConfig(game="custom", payoffs=lists)
    assert (
        one == MatrixGameConfig(game="custom", payoffs=np.array(lists)) == MatrixGameConfig(**one.as_dict())
    )
    assert json.loads(json.dumps(one.as_dict()))["payoffs"] == lists
    assert hash(one) == hash(MatrixGameConfig(**one.as_dict()))
    lists[0][0][0] = 0
    assert MatrixGameConfig(game="custom", payoffs=lists).content_hash("x") != one.content_hash("x")


# -- pictures


def scene(**changes):
    values = {
        "game": "chicken",
        "payoffs": NAMED_GAMES["chicken"].payoffs[0],
        "names": ("swerve", "straight"),
        "stage": 0,
        "stages": 1,
        "actions": np.array([1, 0]),
        "returns": np.array([13.0, 8.0]),
        "played": 2,
        "rounds": 25,
    }
    return viewer.Scene(**(values | changes))


def frames_at(picture):
    """Return which of the four cells have a green frame: the colour of their upper edges."""
    canvas = picture[HEAD:].astype(int)
    edges = canvas[[viewer._TOP + 3, viewer._TOP + viewer._TABLE // 2 + 3]][:, [200, 400]]
    return (edges[..., 1] > edges[..., 0] + 40).tolist()


def test_the_picture_frames_the_last_joint_action():
    assert frames_at(viewer.draw(scene())) == [[False, False], [True, False]]
    assert frames_at(viewer.draw(scene(actions=np.array([0, 1])))) == [[False, True], [False, False]]
    start = viewer.draw(scene(actions=np.array([-1, -1]), played=0, returns=np.zeros(2)))
    assert frames_at(start) == [[False, False], [False, False]]
    assert (viewer.draw(scene(returns=np.array([14.0, 8.0]))) != viewer.draw(scene())).any()


@pytest.mark.parametrize(
    "payoffs",
    [
        np.zeros((1, 3)),
        UNEVEN,
        np.zeros((2, 40, 50)),
        np.zeros((6, *[2] * 6)),
        np.full((2, 2, 2), -123456.75),
    ],
)
def test_games_of_any_size_have_a_picture(payoffs):
    env = custom(payoffs)
    env.reset(0)
    before = env.render()
    env.step(env.scripted_policies["random"](env).act())
    after = env.render()
    assert before.shape == after.shape
    assert after.shape[1:] == (480, 3)
    assert (before != after).any()


def test_text_shows_the_last_round():
    assert viewer.draw_text(scene()).splitlines() == [
        "chicken",
        "agent_0  straight: 7  return 13",
        "agent_1  swerve: 2  return 8",
        "round 2/25",
    ]
    env = matrix_game_v0.batched_env(1, "two_step")
    env.reset(0)
    assert env.render(0, "ansi").splitlines()[0] == "two_step, stage 1 of 3"
    env.step([[1, 0]])
    env.step([[1, 1]])
    assert env.render(0, "ansi").splitlines()[:2] == ["two_step, stage 3 of 3", "agent_0  1: 8  return 8"]
    with pytest.raises(ValueError, match="mode: expected rgb_array or ansi, got 'svg'"):
        env.render(0, "svg")
    assert isinstance(env, MatrixGame)
