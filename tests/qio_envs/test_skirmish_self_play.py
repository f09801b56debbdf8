"""The skirmish whose enemies are agents too: one side is the other's mirror image, and the script is what it was."""

import hashlib

import numpy as np
import pytest
from batch_and_singles import check_batch_against_singles
from hypothesis import given, settings
from hypothesis import strategies as st
from skirmish_oracle import SkirmishOracle

from qio_envs import mpe_spread_v0, mpe_tag_v0, skirmish_v0, swarm_mixed_v0
from qio_envs.api import ConfigError, episode_scores
from qio_envs.skirmish import FocusPolicy, NearestPolicy, Skirmish, SkirmishConfig, viewer
from qio_envs.skirmish.config import FIRST_ATTACK, STARTS, STOP, UNITS
from qio_envs.testing import CHECKS, check_parallel_env, table

RIGHT, LEFT = 1, 3
MIRRORED = np.array([0, LEFT, 2, RIGHT])

# -- the script


@pytest.mark.parametrize(
    ("scenario", "more", "digest"),
    [
        ("5m_vs_6m", {}, "0e2f7521488b4dfe"),
        ("smacv2_5_units", {"shields": True}, "185b37c0a2c59df9"),
        ("3s_vs_5z", {"reward": "sparse"}, "e57df1ca4ab6a9fe"),
    ],
)
def test_against_the_script_every_bit_is_that_of_before_enemies_could_be_agents(scenario, more, digest):
    env = skirmish_v0.batched_env(8, scenario, **more)
    env.reset(11)
    found = hashlib.sha256()
    for t in range(60):
        legal = env.action_mask()
        last = legal.shape[2] - 1 - legal[..., ::-1].argmax(axis=2)
        actions = np.where(last > STOP, last, np.where((np.arange(8)[:, None] + t) % 5 == 0, t % 5, RIGHT))
        actions[~env.agents_alive()] = STOP
        transition = env.step(actions)
        info, state = env.info(), env.arrays._asdict()
        assert (state.pop("enemy_return") == 0).all()
        for array in (*transition, env.observe(), env.state(), env.action_mask(),
                      *(info[name] for name in sorted(info)), *(state[name] for name in sorted(state))):  # fmt: skip
            found.update(np.ascontiguousarray(array).tobytes())
        env.reset(mask=~env.running)
    assert found.hexdigest()[:16] == digest


def test_settings_without_the_new_one_have_the_content_hash_of_before():
    assert skirmish_v0.content_hash("5m_vs_6m") == "dc9be3bcf976"
    assert skirmish_v0.content_hash("5m_vs_6m", enemy="heuristic") == "dc9be3bcf976"
    assert skirmish_v0.content_hash("5m_vs_6m", enemy="agents") != "dc9be3bcf976"


def test_another_enemy_is_refused():
    with pytest.raises(
        ConfigError, match="enemy: expected one of heuristic, agents, got 'agent' .did you mean 'agents'"
    ):
        skirmish_v0.config(enemy="agent")


# -- who plays


@pytest.mark.parametrize(("scenario", "allies", "enemies"), [("2s3z", 5, 5), ("5m_vs_6m", 5, 6)])
def test_both_sides_are_agents_of_one_space(scenario, allies, enemies):
    env = skirmish_v0.batched_env(2, scenario, enemy="agents")
    teams = tuple(f"ally_{n}" for n in range(allies)), tuple(f"enemy_{n}" for n in range(enemies))
    assert env.teams == teams
    assert env.possible_agents == teams[0] + teams[1]
    assert env.lacks_opponents is None
    assert env.action_space.n == FIRST_ATTACK + max(allies, enemies)
    env.reset(0)
    assert env.observe().shape == (2, allies + enemies, env.config.observation_size)
    own, other = env.config.observation_layout, env.config.enemy_observation_layout
    assert own["own"] == other["own"]
    assert own["enemies"].start == other["allies"].stop + 13 * (allies - enemies)
    assert (env.action_mask()[:, :, FIRST_ATTACK + min(allies, enemies) :][:, allies:] == 0).all()
    scripted = skirmish_v0.batched_env(1, scenario)
    assert scripted.teams == teams[:1]
    assert scripted.lacks_opponents == "the enemy follows a script; set env_config.enemy to agents"
    assert scripted.action_space.n == FIRST_ATTACK + enemies


def test_other_environments_say_their_teams():
    assert swarm_mixed_v0.batched_env().teams == (("team_a_0", "team_a_1"), ("team_b_0", "team_b_1"))
    tag = mpe_tag_v0.batched_env()
    assert tag.teams == (("adversary_0", "adversary_1", "adversary_2"), ("agent_0",))
    assert mpe_spread_v0.batched_env().teams is None


@pytest.mark.parametrize("scenario", ["2s3z", "5m_vs_6m", "smacv2_5_units"])
def test_battles_of_agents_conform(scenario):
    results = check_parallel_env(
        lambda **kwargs: skirmish_v0.parallel_env(scenario, enemy="agents", **kwargs), steps=12
    )
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.passed and result.label == "ok" for result in results), table(results)


# -- one side is the other's mirror image


def swapped(env):
    """Return environments with the sides of others swapped and mirrored at the middle."""
    config = env.config
    allies, enemies = env.num_allies, env.num_enemies
    teams = {"allies": config.enemies, "enemies": config.allies}
    other = Skirmish(SkirmishConfig(**{**config.as_dict(), **teams}), env.num_envs)
    other.reset(0)
    order = np.r_[allies : allies + enemies, 0:allies]
    s, o = env.arrays, other.arrays
    for name in ("kind", "health", "shield", "alive", "cooldown", "unhurt", "action"):
        getattr(o, name)[:] = getattr(s, name)[:, order]
    moves = o.action < STOP
    o.action[moves] = MIRRORED[o.action[moves]]
    o.position[:, 0] = config.map_width - s.position[:, 0, order]
    o.position[:, 1] = s.position[:, 1, order]
    o.step[:] = s.step
    return other, order


def scattered(env, rng):
    """Put the units of environments anywhere near the middle, on a grid on which mirror images are exact."""
    s, (envs, units) = env.arrays, env.arrays.kind.shape
    size = np.array([env.config.map_width, env.config.map_height])
    spread = rng.choice([2.0, 6.0, 14.0], (envs, 1, 1))
    places = size[:, None] / 2 + rng.uniform(-1, 1, (envs, 2, units)) * spread
    s.position[:] = np.clip(np.round(places * 1024) / 1024, 0, size[:, None])
    kinds = rng.integers(0, len(UNITS), (envs, units))
    s.kind[:] = np.where(env._rules.types < len(UNITS), env._rules.types, kinds)
    s.health[:] = np.ceil(env._rules.health[s.kind] * rng.uniform(0, 1, (envs, units)))
    s.shield[:] = np.floor(env._rules.shield[s.kind] * rng.uniform(0, 1, (envs, units)))
    s.alive[:] = rng.random((envs, units)) < 0.8
    s.alive[:, [0, env.num_allies]] = True
    s.health[~s.alive], s.shield[~s.alive] = 0, 0
    s.cooldown[:] = np.round(rng.uniform(-1, 1, (envs, units)) * 64) / 64
    legal = rng.integers(0, FIRST_ATTACK + min(env.num_allies, env.num_enemies), (envs, units))
    s.action[:] = np.where(s.alive, legal, STOP)
    s.step[:] = rng.integers(0, env.config.max_steps, envs)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_swapped_sides_see_may_do_and_earn_what_the_others_did(data):
    """From every state; one step, after which cooldowns differ, whose random part is each unit's own."""
    team = st.sampled_from(["1 marine", "2 stalker, 3 zealot", "4 random", "6 zergling, 1 hydralisk"])
    config = SkirmishConfig(
        allies=data.draw(team),
        enemies=data.draw(team),
        enemy="agents",
        max_steps=20,
        shields=data.draw(st.booleans()),
        walls_kill=data.draw(st.booleans()),
        see_enemy_actions=data.draw(st.booleans()),
        reward=data.draw(st.sampled_from(["shaped", "sparse"])),
        win_bonus=3.0,
        map_height=16,
    )
    env, rng = Skirmish(config, 12), np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    env.reset(0)
    scattered(env, rng)
    other, order = swapped(env)
    np.testing.assert_array_equal(other.observe(), env.observe()[:, order])
    np.testing.assert_array_equal(other.action_mask(), env.action_mask()[:, order])
    for policy in (NearestPolicy, FocusPolicy):
        np.testing.assert_array_equal(policy(other).act(), policy(env).act()[:, order])
    legal = env.action_mask() * rng.random(env.action_mask().shape)
    actions = np.where(
        rng.random((12, len(order))) < 0.8,
        legal.argmax(axis=2),
        rng.integers(0, env.action_space.n, (12, len(order))),
    )
    before = env.arrays.cooldown.copy()
    first, second = env.step(actions), other.step(actions[:, order])
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_allclose(theirs, mine[:, order], atol=1e-5)
    s, o = env.arrays, other.arrays
    np.testing.assert_array_equal(o.alive, s.alive[:, order])
    np.testing.assert_allclose(o.health, s.health[:, order], atol=1e-4)
    np.testing.assert_allclose(o.shield, s.shield[:, order], atol=1e-4)
    np.testing.assert_allclose(o.position[:, 1], s.position[:, 1, order], atol=1e-3)
    np.testing.assert_allclose(o.position[:, 0], 32 - s.position[:, 0, order], atol=1e-3)
    quiet = s.cooldown <= before
    np.testing.assert_array_equal(quiet[:, order], o.cooldown <= before[:, order])
    np.testing.assert_allclose(o.cooldown[quiet[:, order]], s.cooldown[:, order][quiet[:, order]], atol=1e-5)
    np.testing.assert_array_equal(other.running, env.running)
    one, two = env.info(), other.info()
    for mine, theirs in (("won", "lost"), ("team_return", "enemy_return"), ("allies_left", "enemies_left")):
        np.testing.assert_allclose(two[theirs], one[mine], atol=1e-5)
        np.testing.assert_allclose(two[mine], one[theirs], atol=1e-5)
    np.testing.assert_array_equal(two["agent_won"], one["agent_won"][:, order])


# -- against the plain version


@pytest.mark.parametrize(
    "chosen",
    [
        {"shields": True, "map_width": 20},
        {"allies": "4 random", "enemies": "6 random", "start": "smacv2", "reward": "sparse", "win_bonus": 2.0},
        {"allies": "3 stalker", "enemies": "2 zealot", "map_width": 24, "max_steps": 36},
    ],
)  # fmt: skip
def test_steps_are_those_of_the_plain_version_told_what_enemies_do(chosen):
    config = SkirmishConfig(**chosen, enemy="agents")
    env, wins = Skirmish(config), set()
    n, m = env.num_allies, env.num_enemies
    for seed in range(5):
        env.reset([seed])
        oracle, rng, scores = SkirmishOracle(config, seed), np.random.default_rng(seed), np.zeros(2)
        focus = FocusPolicy(env)
        while env.running[0]:
            actions = np.where(
                rng.random(n + m) < 0.85, focus.act()[0], rng.integers(0, env.action_space.n, n + m)
            )
            stood, before = oracle.alive, oracle.health + oracle.shield
            mine = np.where(actions[:n] >= FIRST_ATTACK + m, STOP, actions[:n])
            theirs = np.where(actions[n:] >= FIRST_ATTACK + n, STOP, actions[n:])
            # the plain version counts allies from the last on, and has one direction for all
            orders = np.where(theirs > STOP, FIRST_ATTACK + n - 1 - (theirs - FIRST_ATTACK), theirs)
            orders = np.where(theirs < STOP, MIRRORED[np.minimum(theirs, 3)], orders)
            oracle.orders = lambda orders=orders: orders
            transition = env.step(actions[None])
            reward, terminated, truncated = oracle.step(mine)
            s, living = env.arrays, oracle.alive
            np.testing.assert_array_equal(s.alive[0], living)
            np.testing.assert_allclose(s.position[0].T, oracle.position, atol=1e-4)
            np.testing.assert_allclose(s.health[0], oracle.health, atol=1e-4)
            lost = bool(living[n:].any() and not living[:n].any())
            loss = np.maximum(before - oracle.health - oracle.shield, 0) / oracle.figure("health")
            other = (loss[:n].mean() if config.reward == "shaped" else 0) + config.win_bonus * lost
            np.testing.assert_allclose(transition.rewards[0], np.repeat([reward, other], [n, m]), atol=1e-5)
            over = oracle.won or lost or not living.any()
            np.testing.assert_array_equal(transition.terminated[0, :n], terminated)
            np.testing.assert_array_equal(transition.truncated[0, :n], truncated)
            np.testing.assert_array_equal(transition.terminated[0, n:], stood[n:] & (~living[n:] | over))
            late = env.arrays.step[0] >= config.max_steps
            np.testing.assert_array_equal(
                transition.truncated[0, n:], stood[n:] & living[n:] & late & (not over)
            )
            assert env.running[0] == oracle.running
            scores += reward, other
            oracle.position = s.position[0].T.astype(float)
            oracle.cooldown = s.cooldown[0].astype(float)
        info = env.info()
        np.testing.assert_allclose([info["team_return"][0], info["enemy_return"][0]], scores, rtol=1e-5)
        np.testing.assert_array_equal(
            info["agent_won"][0], np.repeat([info["won"][0], info["lost"][0]], [n, m])
        )
        wins.add((info["won"][0], info["lost"][0]))
    assert len(wins) > 1


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_a_batch_of_battles_of_agents_is_its_environments_alone(data):
    config = SkirmishConfig(
        allies=data.draw(st.sampled_from(["1 zergling", "4 random"])),
        enemies=data.draw(st.sampled_from(["3 random", "6 zergling"])),
        start=data.draw(st.sampled_from(STARTS)),
        max_steps=data.draw(st.integers(1, 12)),
        enemy="agents",
    )

    def actions_of(env, t, num_envs):
        return np.random.default_rng(t).integers(0, env.action_space.n, (num_envs, env.num_agents))

    check_batch_against_singles(
        lambda num_envs: Skirmish(config, num_envs), actions_of, data.draw(st.integers(0, 2**64 - 1)),
        data.draw(st.integers(1, 4)), data,
    )  # fmt: skip


# -- what an enemy's actions do


def field(allies, enemies, *places):
    env = Skirmish(SkirmishConfig(allies=allies, enemies=enemies, enemy="agents"))
    env.reset([0])
    env.arrays.position[0] = np.array(places, np.float32).T
    return env


def test_an_enemy_goes_and_shoots_where_its_action_says():
    env = field("3 marine", "2 marine", (14, 8), (14, 16), (14, 24), (18, 8), (24, 16))
    env.step(np.array([[STOP, STOP, STOP, FIRST_ATTACK, RIGHT]]))
    s = env.arrays
    assert s.position[0, 0, 4] < 24
    assert (s.position[0, 1, 4], s.position[0, 0, 3]) == (16, 18)
    assert s.health[0].tolist() == [36, 45, 45, 45, 45]
    seen = env.observe()[0]
    layout = env.config.observation_layout["enemies"]
    assert seen[0, layout].reshape(2, 13)[0, 3:6].tolist() == [0, 0, np.float32(5) / np.float32(7)]
    env.arrays.position[0, 0, 4] = 20  # where ally 1 sees it go to the left, and its mate ahead
    seen = env.observe()[0]
    assert seen[1, layout].reshape(2, 13)[1, 3:6].tolist() == [-1, 0, 0]
    assert seen[3, env.config.enemy_observation_layout["allies"]][3:6].tolist() == [1, 0, 0]
    own = env.config.observation_layout["own"]
    np.testing.assert_allclose(seen[4, own][1:3], [(32 - 20) / 32, 0.5])


def test_an_attack_on_somebody_whom_the_other_side_does_not_have_is_a_stop():
    for agent, last in ((0, FIRST_ATTACK + 2), (3, FIRST_ATTACK + 2)):
        sides = ("3 marine", "2 marine") if agent == 0 else ("2 marine", "3 marine")
        places = [(14, 8 + 2 * n) for n in range(3 if agent == 0 else 2)]
        places += [(17, 8 + 2 * n) for n in range(5 - len(places))]
        env, calm = field(*sides, *places), field(*sides, *places)
        assert env.action_space.n == FIRST_ATTACK + 3
        assert env.action_mask()[0, agent, last] == 0
        actions = np.full((1, 5), STOP)
        calm.step(actions)
        actions[0, agent] = last
        env.step(actions)
        for name, array in calm.arrays._asdict().items():
            np.testing.assert_array_equal(getattr(env.arrays, name), array, err_msg=name)


def test_sides_that_die_in_one_tick_have_both_not_won():
    env = field("1 marine", "1 marine", (14, 16), (18, 16))
    env.arrays.health[:] = 9
    transition = env.step(np.array([[FIRST_ATTACK, FIRST_ATTACK]]))
    assert not env.running[0]
    np.testing.assert_allclose(transition.rewards, 9 / 45)
    assert (env.info()["agent_won"] == 0).all()


# -- scripted policies and pictures


def test_scripted_policies_play_either_side():
    rates = {}
    for sides in (("3 stalker", "5 zealot"), ("5 zealot", "3 stalker")):
        env = skirmish_v0.batched_env(40, allies=sides[0], enemies=sides[1], enemy="agents")
        rates[sides] = [
            episode_scores(env, env.scripted_policies["focus"], 0, name).mean() for name in ("won", "lost")
        ]
    assert rates["3 stalker", "5 zealot"][0] > 0.8
    assert rates["5 zealot", "3 stalker"][1] > 0.8


def test_one_side_of_a_script_plays_against_one_of_another():
    env = skirmish_v0.batched_env(40, "3s_vs_5z", enemy="agents")
    env.reset(0)
    focus, nearest = FocusPolicy(env), NearestPolicy(env)
    won, over = np.zeros(40), np.zeros(40, bool)
    while not over.all():
        env.step(np.concatenate([nearest.act()[:, :3], focus.act()[:, 3:]], axis=1))
        won[~over] = env.info()["won"][~over]
        over |= ~env.running
        env.reset(mask=~env.running)
    assert won.mean() < 0.1  # stalkers that do not keep away lose


def test_pictures_show_what_both_sides_have_earned_and_whom_enemies_attack():
    env = field("2 marine", "1 marine", (14, 8), (14, 24), (18, 8))
    env.step(np.array([[FIRST_ATTACK, STOP, FIRST_ATTACK]]))
    assert "step 1/101  0.20 to 0.10  allies 2 of 2  enemies 1 of 1" in env.render(0, "ansi")
    shown = env.render(0).astype(int)
    env.arrays.action[0, 2] = STOP
    calm = env.render(0).astype(int)
    rows = np.flatnonzero((shown != calm).any(axis=(1, 2)))
    assert len(rows)
    assert rows.min() > 450  # ally 0 stands below, ally 1 above the middle
    scene = {"num_allies": 2, "alive": np.ones(3, bool), "action": np.array([STOP, STOP, FIRST_ATTACK])}
    others = dict.fromkeys(["position", "kind", "health", "size", "score", "step", "max_steps"])
    assert viewer.Scene(**scene, **others, enemy_agents=True).target(2) == 0
    assert viewer.Scene(**scene, **others).target(2) == 1
