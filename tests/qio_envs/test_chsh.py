import copy
import functools
import pickle
from math import cos, pi

import numpy as np
import pytest
from forest_oracle import philox
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs import chsh_v0
from qio_envs.api import ConfigError, InvalidActionError, ResetNeededError, episode_scores
from qio_envs.api.drawing import HEAD
from qio_envs.chsh import (
    CHSH,
    CLASSICAL_BOUND,
    QUANTUM_BOUND,
    CHSHConfig,
    ClassicalPolicy,
    EntangledPolicy,
    viewer,
)
from qio_envs.testing import CHECKS, check_parallel_env, table

NUM_ENVS, ROUNDS = 20_000, 10  # of the statistics: 200,000 rounds

block = functools.lru_cache(64)(philox)


def question(seed, episode, step):
    words = block((0, step, episode, 0), (seed & 0xFFFFFFFF, seed >> 32))
    return [word * 2 >> 32 for word in words[:2]]


@pytest.mark.parametrize("scenario", chsh_v0.scenarios())
def test_every_scenario_conforms(scenario):
    results = check_parallel_env(lambda **kwargs: chsh_v0.parallel_env(scenario, **kwargs), steps=30)
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.passed for result in results), table(results)
    assert [result.name for result in results if result.label == "skip"] == ["action masks"]


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2), st.integers(1, 12))
def test_rounds_are_as_the_rules_say(seed, episode, rounds):
    env = CHSH(CHSHConfig(rounds=rounds))
    env.reset([seed])
    for _ in range(episode):
        env.reset()
    generator, wins = np.random.default_rng(seed), 0
    for t in range(rounds):
        x, y = question(seed, episode, t)
        assert env.observe()[0].tolist() == [[1 - x, x], [1 - y, y]]
        assert env.state()[0].tolist() == [1 - x, x, 1 - y, y, pytest.approx(1 - t / rounds, abs=1e-6)]
        a, b = generator.integers(0, 2, 2)
        rewards, terminated, truncated = env.step([[a, b]])
        won = (a != b) == (x == y == 1)
        wins += won
        assert rewards.tolist() == [[0.5 * won] * 2]
        assert rewards.dtype == np.float32
        assert not terminated.any()
        assert truncated.tolist() == [[t == rounds - 1] * 2]
        info = {key: values[0] for key, values in env.info().items()}
        assert info == {"team_return": wins, "win_rate": pytest.approx(wins / (t + 1)), "rounds": t + 1}
    assert not env.running.any()
    with pytest.raises(ResetNeededError):
        env.step([[0, 0]])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**63), st.integers(1, 4))
def test_an_environment_of_a_batch_is_the_environment_of_its_seed_alone(seed, num_envs):
    batch, singles = chsh_v0.batched_env(num_envs), [chsh_v0.batched_env() for _ in range(num_envs)]
    batch.reset(seed)
    for index, single in enumerate(singles):
        single.reset(seed + index)
    for t in range(25):
        again = ~batch.running | (np.random.default_rng([seed, t]).integers(0, 8, num_envs) == 0)
        batch.reset(mask=again)
        for index in np.flatnonzero(again):
            singles[index].reset()
        actions = np.random.default_rng([seed, t]).integers(0, 2, (num_envs, 2))
        parts = [*batch.step(actions), batch.observe(), batch.state(), *batch.info().values()]
        for index, single in enumerate(singles):
            own = [*single.step(actions[index : index + 1]), single.observe(), single.state()]
            own += single.info().values()
            for whole, part in zip(parts, own, strict=True):
                np.testing.assert_array_equal(whole[index], part[0])
    for index, single in enumerate(singles):
        for name, array in single.get_state().items():
            np.testing.assert_array_equal(batch.get_state()[name][index], array[0], err_msg=name)


def test_questions_are_uniform_and_independent():
    env = chsh_v0.batched_env(NUM_ENVS)
    env.reset(0)
    counts = np.zeros((2, 2))
    for _ in range(ROUNDS):
        np.add.at(counts, tuple(env.arrays.question.T), 1)
        env.step(np.zeros((NUM_ENVS, 2), int))
    expected = NUM_ENVS * ROUNDS / 4
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi-squared, 3 degrees of freedom, p = 0.001


@pytest.mark.parametrize(
    ("policy", "rate"), [("random", 0.5), ("classical", 0.75), ("entangled", cos(pi / 8) ** 2)]
)
def test_what_the_scripted_policies_win(policy, rate):
    env = chsh_v0.batched_env(NUM_ENVS, rounds=ROUNDS)
    scores = episode_scores(env, env.scripted_policies[policy], seed=3)
    total = NUM_ENVS * ROUNDS
    assert abs(scores.sum() / total - rate) < 4 * np.sqrt(rate * (1 - rate) / total)


def test_the_bounds():
    assert CLASSICAL_BOUND == 0.75
    assert pytest.approx(0.853553, abs=1e-6) == QUANTUM_BOUND


def test_no_deterministic_strategy_beats_the_classical_bound():
    questions = [(x, y) for x in (0, 1) for y in (0, 1)]
    strategies = [(a0, a1, b0, b1) for a0 in (0, 1) for a1 in (0, 1) for b0 in (0, 1) for b1 in (0, 1)]
    won = [
        sum((s[x] ^ s[2 + y]) == (x & y) for x, y in questions) / 4 for s in strategies
    ]  # each question as often
    assert max(won) == CLASSICAL_BOUND
    env = chsh_v0.batched_env(4)
    env.reset(0)
    assert not ClassicalPolicy(env).act().any()


def entangled_answers():
    env = chsh_v0.batched_env(NUM_ENVS, rounds=ROUNDS)
    env.reset(11)
    player, rows = EntangledPolicy(env), []
    for _ in range(ROUNDS):
        rows.append((env.arrays.question.copy(), player.act()))
        env.step(rows[-1][1])
    return tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))


def test_entangled_answers_follow_the_measurement_of_a_bell_pair():
    questions, answers = entangled_answers()
    bell = np.array([1, 0, 0, 1]) / np.sqrt(2)

    def basis(angle):
        return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    for x, alice in enumerate((0, pi / 4)):
        for y, bob in enumerate((pi / 8, -pi / 8)):
            given_ = answers[(questions == (x, y)).all(axis=1)]
            for a in (0, 1):
                for b in (0, 1):
                    p = (np.kron(basis(alice)[a], basis(bob)[b]) @ bell) ** 2  # Born's rule
                    share = (given_ == (a, b)).all(axis=1).mean()
                    assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / len(given_))


def test_entangled_answers_tell_nothing_of_the_other_question():
    questions, answers = entangled_answers()
    for agent in (0, 1):
        for own in (0, 1):
            rates = []
            for other in (0, 1):
                chosen = (questions[:, agent] == own) & (questions[:, 1 - agent] == other)
                rates.append(answers[chosen, agent].mean())
            assert abs(rates[0] - rates[1]) < 4 * np.sqrt(2 * 0.25 / (len(answers) / 4))


@pytest.mark.parametrize("policy", CHSH.scripted_policies.values())
def test_policies_act_alike_in_a_batch_and_alone_and_change_nothing(policy):
    batch, singles = chsh_v0.batched_env(3), [chsh_v0.batched_env() for _ in range(3)]
    batch.reset(40)
    for index, single in enumerate(singles):
        single.reset(40 + index)
    together, alone = policy(batch), [policy(single) for single in singles]
    for _ in range(10):
        before = batch.get_state()
        actions = together.act()
        assert (actions.dtype, actions.shape) == (np.int64, (3, 2))
        np.testing.assert_array_equal(actions, together.act())
        for name, array in batch.get_state().items():
            np.testing.assert_array_equal(array, before[name])
        for index, player in enumerate(alone):
            own = player.act()
            np.testing.assert_array_equal(own[0], actions[index])
            singles[index].step(own)
        batch.step(actions)


def test_the_entangled_policy_is_a_function_of_its_seed():
    env = chsh_v0.batched_env(200)
    env.reset(0)
    first = EntangledPolicy(env, 1).act()
    np.testing.assert_array_equal(first, EntangledPolicy(env, 1).act())
    assert (first != EntangledPolicy(env, 2).act()).any()


def test_spaces_and_names():
    env = chsh_v0.batched_env()
    assert env.possible_agents == ("alice", "bob")
    assert env.observation_space.shape == (2,)
    assert env.action_space.n == 2
    assert env.state_space.shape == (5,)
    assert chsh_v0.config("single").rounds == 1
    env.reset(0)
    assert env.info()["win_rate"].tolist() == [0]


def test_observing_into_an_array():
    env = chsh_v0.batched_env(3)
    env.reset(0)
    out = np.full((3, 2, 2), 7, np.float32)
    assert env.observe(out) is out
    assert (out.sum(axis=2) == 1).all()


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="rounds: expected an integer from 1 to 1000000, got 0"):
        CHSHConfig(rounds=0)
    with pytest.raises(ConfigError, match=r"unknown scenario 'singel' \(did you mean 'single'\?\)"):
        chsh_v0.batched_env(1, "singel")
    env = chsh_v0.batched_env()
    env.reset(0)
    with pytest.raises(
        InvalidActionError, match="action of bob in env 0: expected an integer from 0 to 1, got 2"
    ):
        env.step([[0, 2]])
    with pytest.raises(ValueError, match="mode: expected rgb_array or ansi, got 'svg'"):
        env.render(0, "svg")


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_is_exact_and_apart(copier):
    env = chsh_v0.batched_env(3)
    env.reset(1)
    env.step(np.ones((3, 2), int))
    duplicate = copier(env)
    for _ in range(3):
        env.step(np.zeros((3, 2), int))
        duplicate.step(np.zeros((3, 2), int))
    np.testing.assert_array_equal(env.state(), duplicate.state())
    assert duplicate.arrays.question is not env.arrays.question


# -- pictures


def scene_of(**changes):
    values = {
        "question": np.array([1, 0]),
        "asked": np.array([1, 1]),
        "answer": np.array([0, 1]),
        "wins": 3,
        "played": 4,
        "rounds": 10,
    }
    return viewer.Scene(**(values | changes))


def test_pictures_show_the_last_round():
    won, lost = viewer.draw(scene_of()), viewer.draw(scene_of(answer=np.array([1, 1])))
    assert (won.dtype, won.shape) == (np.uint8, (438, 480, 3))
    won, lost = won[HEAD:], lost[HEAD:]
    frame = won[8, 240].astype(int)
    assert frame[1] > frame[0] + 40  # green
    frame = lost[8, 240].astype(int)
    assert frame[0] > frame[1] + 40  # red
    alice = (won != lost).any(axis=2)[160:250, 150:250]
    assert alice.any()  # her answer differs, Bob's does not
    assert not (won != lost).any(axis=2)[20:250, 290:460].any()
    first = viewer.draw(scene_of(played=0, wins=0, asked=np.full(2, -1), answer=np.full(2, -1)))[HEAD:]
    assert np.ptp(first[8, 240].astype(int)) < 30
    assert (viewer.draw(scene_of(wins=2))[-82:] != won[-82:]).any()


def test_text_shows_the_last_round():
    assert viewer.draw_text(scene_of()).splitlines() == [
        "alice x=1 a=0  bob y=1 b=1",
        "a XOR b = 1, x AND y = 1: won",
        "round 4/10  won 3",
    ]
    start = scene_of(played=0, wins=0, asked=np.full(2, -1), answer=np.full(2, -1))
    assert viewer.draw_text(start).splitlines() == ["alice x=1  bob y=0", "round 0/10  won 0"]
    env = chsh_v0.parallel_env(render_mode="ansi")
    env.reset(seed=0)
    assert env.render().splitlines()[-1] == "round 0/10  won 0"
