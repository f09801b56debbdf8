"""The skirmish against a plain version of itself, and what always holds."""

import numpy as np
import pytest
from batch_and_singles import check_batch_against_singles
from hypothesis import given, settings
from hypothesis import strategies as st
from skirmish_oracle import SkirmishOracle

from qio_envs import skirmish_v0
from qio_envs.skirmish import Skirmish, SkirmishConfig
from qio_envs.skirmish.config import FIRST_ATTACK, STARTS, STOP, UNITS
from qio_envs.skirmish.kernels.outcome import advance
from qio_envs.skirmish.state import SkirmishRules

FULL = np.array([unit.health for unit in UNITS.values()], np.float32)
seeds = st.integers(0, 2**64 - 1)

# -- the plain version

RULES = {
    "2s3z": {"shields": True, "max_steps": 60},
    "3s_vs_5z": {"allies": "3 stalker", "enemies": "5 zealot", "shields": True, "reward": "sparse"},
    "smacv2": {"allies": "4 random", "enemies": "7 random", "start": "smacv2", "shields": True},
    "fewer": {"allies": "3 random, 2 marine", "enemies": "2 random", "start": "smacv2", "map_height": 20},
    "fixed": {"allies": "2 marine, 2 random", "enemies": "5 random", "win_bonus": 3.0, "map_width": 24},
    "no walls": {"allies": "6 random", "enemies": "6 random", "start": "smacv2", "walls_kill": False, "max_steps": 9},
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_starts_and_steps_are_those_of_the_plain_version(name):
    config = SkirmishConfig(**RULES[name])
    env = Skirmish(config)
    shielded = starts = 0
    for seed in range(4):
        env.reset([seed])
        oracle = SkirmishOracle(config, seed)
        assert_equal(env, oracle)
        starts += int(oracle.position[0, 0] * 100)
        rng = np.random.default_rng(seed)
        while env.running[0]:
            actions = rng.integers(0, env.action_space.n, env.num_agents)
            actions = np.where(
                rng.random(len(actions)) < 0.6, env.scripted_policies["focus"](env).act()[0], actions
            )
            before = env.arrays.shield[0].copy()
            transition = env.step(actions[None])
            reward, terminated, truncated = oracle.step(actions)
            np.testing.assert_allclose(transition.rewards[0], reward, atol=1e-5)
            np.testing.assert_array_equal(transition.terminated[0], terminated)
            np.testing.assert_array_equal(transition.truncated[0], truncated)
            assert env.info()["won"][0] == oracle.won
            assert env.running[0] == oracle.running
            assert_equal(env, oracle)
            shielded += int((env.arrays.shield[0] != before).any())
            oracle.position = env.arrays.position[0].T.astype(float)  # rounding errors would grow
            oracle.cooldown = env.arrays.cooldown[0].astype(float)
        np.testing.assert_allclose(env.info()["team_return"][0], oracle.score, rtol=1e-5)
    assert (shielded > 0) == config.shields


def duel(distance, **arrays):
    """One stalker and one marine with shields on, so far apart in the middle of the map, after a step of stopping."""
    env = Skirmish(SkirmishConfig(allies="1 stalker", enemies="1 marine", shields=True))
    env.reset([0])
    env.arrays.position[0] = [[16 - distance / 2, 16 + distance / 2], [16, 16]]
    for name, value in arrays.items():
        getattr(env.arrays, name)[0, 0] = value
    env.step(np.array([[STOP]]))
    return env


@pytest.mark.parametrize(("shield", "left"), [(80, (80, 71)), (9, (80, 0)), (4, (75, 0)), (0, (71, 0))])
def test_a_shield_takes_harm_before_health(shield, left):
    env = duel(4, shield=shield, unhurt=1000)  # a marine shoots once in a step
    s = env.arrays
    assert (s.health[0, 0], s.shield[0, 0]) == left
    assert s.unhurt[0, 0] == 7  # hit in the first of eight ticks
    np.testing.assert_allclose(env.observe()[0, 0, [13 + 1, -1]], [left[0] / 80, left[1] / 80])
    assert env.observe()[0, 0, 0] == 1  # the marine, which has no shield
    assert env.observe()[0, 0, 13] == 0


@pytest.mark.parametrize(
    ("unhurt", "shield", "left"),
    [(152, 40, 40), (153, 40, 40.125), (160, 40, 41), (1000, 79.5, 80), (1000, 0, 1)],
)
def test_a_shield_recovers_two_a_second_after_ten_seconds(unhurt, shield, left):
    s = duel(25, shield=shield, unhurt=unhurt).arrays
    assert (s.health[0, 0], s.shield[0, 0], s.unhurt[0, 0]) == (80, left, unhurt + 8)


def test_teams_that_die_in_one_tick_have_neither_won_nor_lost():
    env = Skirmish(SkirmishConfig(allies="1 marine", enemies="1 marine"))
    env.reset([0])
    env.arrays.position[0] = [[14, 18], [16, 16]]
    env.arrays.health[:] = 9
    transition = env.step(np.array([[FIRST_ATTACK]]))
    assert not env.arrays.alive.any()
    assert transition.terminated.all()
    assert not env.running[0]
    assert (env.info()["won"][0], env.info()["lost"][0]) == (0, 0)
    np.testing.assert_allclose(transition.rewards, 9 / 45)  # without the bonus


# -- what always holds


@pytest.mark.parametrize(
    ("scenario", "settings"),
    [
        ("2s3z", {}),
        ("5m_vs_6m", {"reward": "sparse", "win_bonus": 7.0}),
        ("smacv2_5_units", {"max_steps": 25}),
        ("3s5z", {}),
    ],
)
def test_what_holds_in_all_steps(scenario, settings):
    env = skirmish_v0.batched_env(40, scenario, **settings)
    players = [policy(env) for policy in env.scripted_policies.values()]
    env.reset(0)
    s, allies = env.arrays, env.num_agents
    ends = set()
    for t in range(120):
        before, alive = env.get_state(), env.agents_alive()
        actions = players[2 if t % 40 < 30 else 0].act()
        rewards, terminated, truncated = env.step(actions)
        dead = ~before["alive"]
        assert (s.health <= before["health"]).all()
        assert (s.alive == (s.health > 0)).all()
        assert (s.alive <= before["alive"]).all()
        moved = (s.position != before["position"]).any(axis=1)
        assert not (moved & dead).any()
        assert (s.action[dead] == STOP).all()
        won = s.alive[:, :allies].any(axis=1) & ~s.alive[:, allies:].any(axis=1)
        lost = ~s.alive[:, :allies].any(axis=1)
        info = env.info()
        np.testing.assert_array_equal(info["won"], won)
        np.testing.assert_array_equal(info["lost"], lost & s.alive[:, allies:].any(axis=1))
        np.testing.assert_array_equal(rewards, np.repeat(info["team_reward"][:, None], allies, axis=1))
        bonus = env.config.win_bonus * won
        share = (before["health"] - s.health)[:, allies:] / FULL[s.kind[:, allies:]]
        shaped = share.mean(axis=1) if env.config.reward == "shaped" else 0
        np.testing.assert_allclose(info["team_reward"], shaped + bonus, atol=1e-6)
        over = won | lost | (s.step >= env.config.max_steps)
        np.testing.assert_array_equal(env.running, ~over)
        np.testing.assert_array_equal(terminated, alive & (~s.alive[:, :allies] | (won | lost)[:, None]))
        np.testing.assert_array_equal(truncated, alive & ~terminated & over[:, None])
        ends |= {(bool(w), bool(x)) for w, x in zip(won[over], lost[over], strict=True)}
        env.reset(mask=over)
    assert {(True, False), (False, True)} <= ends


def test_the_state_is_what_all_units_are():
    env = skirmish_v0.batched_env(20, "2s3z", shields=True)
    env.reset(0)
    player = env.scripted_policies["nearest"](env)
    for _ in range(22):
        env.step(player.act())
        env.reset(mask=~env.running)
    s, whole = env.arrays, np.array([unit.shield for unit in UNITS.values()], np.float32)
    size, units = env.config.own_size, s.kind.shape[1]
    found = env.state()[:, : units * size].reshape(20, units, size)
    assert (~s.alive).any()
    assert (s.cooldown[s.alive] < 0).any()
    np.testing.assert_array_equal(found[~s.alive], 0)
    expected = np.zeros_like(found)
    expected[..., 0] = s.health / (FULL - whole)[s.kind]
    expected[..., 1:3] = s.position.swapaxes(1, 2)
    expected[..., 3] = s.cooldown
    expected[..., 4:10] = np.eye(6)[s.kind]
    expected[..., 10] = s.shield / whole[s.kind]
    np.testing.assert_allclose(found[s.alive], expected[s.alive], rtol=1e-6)


def test_an_episode_begins_with_nothing_of_the_one_before():
    used, fresh = (skirmish_v0.batched_env(4, "2s3z", shields=True) for _ in range(2))
    used.reset(0)
    player = used.scripted_policies["nearest"](used)
    for _ in range(14):
        used.step(player.act())
    used.reset(7)
    fresh.reset(7)
    for name, array in fresh.get_state().items():
        np.testing.assert_array_equal(used.get_state()[name], array, err_msg=name)


def test_spaces_hold_who_starts_outside_the_map_and_who_never_shoots():
    config = {"allies": "2 marine", "enemies": "2 marine", "start": "smacv2", "map_width": 8, "map_height": 8}
    env = Skirmish(SkirmishConfig(**config), 200)
    env.reset(0)
    s = env.arrays
    assert (s.position[:, :, :2] < -1).any()
    for _ in range(4):
        assert all(env.observation_space.contains(row) for row in env.observe().reshape(400, -1))
        assert all(env.state_space.contains(row) for row in env.state())
        env.step(np.full((200, 2), STOP))
        env.reset(mask=~env.running)
    late = Skirmish(SkirmishConfig(allies="1 marine", enemies="1 marine", max_steps=3))
    late.reset(0)
    late.arrays.position[0, 1] = [2, 30]
    for _ in range(3):
        late.step(np.array([[STOP]]))
    assert late.arrays.cooldown[0, 0] == -1.5
    assert late.state_space.contains(late.state()[0])


@pytest.mark.parametrize("scenario", ["2s3z", "smacv2_10_units"])
def test_a_mask_forbids_what_cannot_hit_and_nothing_else(scenario):
    env = skirmish_v0.batched_env(30, scenario)
    env.reset(0)
    player, allies = env.scripted_policies["nearest"](env), env.num_agents
    seen = set()
    for _ in range(14):
        env.step(player.act())
        env.reset(mask=~env.running)
        mask = env.action_mask()
        alive = env.agents_alive()
        np.testing.assert_array_equal(mask[..., :STOP], np.repeat(alive[..., None], STOP, axis=2))
        assert (mask[..., STOP] == 1).all()
        assert (mask.sum(axis=2)[~alive] == 1).all()
        n, k = (int(x) for x in np.random.default_rng(len(seen)).integers(0, [allies, env.num_enemies]))
        other = env.clone()
        other.arrays.cooldown[:] = 100
        other.arrays.cooldown[:, n] = 0
        actions = np.full((30, allies), STOP)
        actions[:, n] = FIRST_ATTACK + k
        before = other.get_state()
        orders = np.full((30, env.num_enemies), STOP)
        shape = (30, allies)
        outcome = np.empty(shape, np.float32), np.empty(shape, bool), np.empty(shape, bool)
        advance(actions, orders, other.arrays, SkirmishRules.of(env.config), *outcome)
        still = (other.arrays.position == before["position"]).all(axis=(1, 2))
        hurt = other.arrays.health < before["health"]
        expected = np.zeros_like(hurt)
        expected[:, allies + k] = mask[:, n, FIRST_ATTACK + k]
        np.testing.assert_array_equal(hurt[still], expected[still])
        seen |= set(mask[still, n, FIRST_ATTACK + k].tolist())
    assert seen == {0, 1}


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_batch_is_its_environments_alone(data):
    config = SkirmishConfig(
        allies=data.draw(st.sampled_from(["1 zergling", "2 marine, 1 random", "4 random"])),
        enemies=data.draw(st.sampled_from(["1 marauder", "3 random", "6 zergling"])),
        start=data.draw(st.sampled_from(STARTS)),
        max_steps=data.draw(st.integers(1, 12)),
        map_width=data.draw(st.sampled_from([8, 20])),
        shields=data.draw(st.booleans()),
    )

    def actions_of(env, t, num_envs):
        return np.random.default_rng(t).integers(0, env.action_space.n, (num_envs, env.num_agents))

    check_batch_against_singles(
        lambda num_envs: Skirmish(config, num_envs), actions_of, data.draw(seeds), data.draw(st.integers(1, 4)), data
    )  # fmt: skip


def assert_equal(env, oracle):
    s = env.arrays
    np.testing.assert_array_equal(s.kind[0], oracle.kind)
    np.testing.assert_array_equal(s.alive[0], oracle.alive)
    np.testing.assert_allclose(s.health[0], oracle.health, atol=1e-4)
    np.testing.assert_allclose(s.shield[0], oracle.shield, atol=1e-4)
    np.testing.assert_allclose(s.position[0].T, oracle.position, atol=1e-4)
    np.testing.assert_allclose(s.cooldown[0][oracle.alive], oracle.cooldown[oracle.alive], atol=1e-4)
    np.testing.assert_array_equal(
        s.target[0][oracle.alive[oracle.n :]], oracle.target[oracle.alive[oracle.n :]]
    )
