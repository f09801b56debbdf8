"""Scripted policies of the skirmish, its interfaces and pictures."""

import numpy as np
import pytest

from qio_envs import skirmish_v0
from qio_envs.api import InvalidActionError, episode_scores, reference_scores
from qio_envs.api.drawing import HEAD
from qio_envs.skirmish import FocusPolicy, NearestPolicy, Skirmish, SkirmishConfig, viewer
from qio_envs.skirmish.config import FIRST_ATTACK, STOP
from qio_envs.testing import CHECKS, check_parallel_env, table

POLICIES = list(Skirmish.scripted_policies.values())


# -- policies


@pytest.mark.parametrize(
    ("scenario", "nearest", "focus"),
    [("3m", 0.3, 0.4), ("2s3z", 0.3, 0.6), ("3s_vs_5z", 0.0, 0.9), ("6h_vs_8z", 0.0, 0.7)],
)
def test_win_rates(scenario, nearest, focus):
    env = skirmish_v0.batched_env(60, scenario)
    rates = {}
    for name, policy in env.scripted_policies.items():
        env.reset(1000)
        player, won, over = policy(env), np.zeros(60), np.zeros(60, bool)
        while not over.all():
            env.step(player.act())
            won[~over] = env.info()["won"][~over]
            over |= ~env.running
            env.reset(mask=~env.running)
        rates[name] = won.mean()
    assert rates["random"] < 0.1
    assert rates["nearest"] >= nearest
    assert rates["focus"] >= focus


def test_scores_are_returns_and_random_play_is_the_worst():
    scores = reference_scores(skirmish_v0.batched_env(40), seed=0)
    assert list(scores) == ["random", "nearest", "focus"]
    assert 0 < scores["random"] < scores["nearest"] < scores["focus"] <= 2


def test_scores_by_another_metric_are_its_values_at_the_end():
    env = skirmish_v0.batched_env(40)
    won = episode_scores(env, env.scripted_policies["focus"], 0, "won")
    assert set(won) == {0.0, 1.0}
    assert reference_scores(env, 0, "won")["focus"] == won.mean()
    returns = episode_scores(env, env.scripted_policies["focus"], 0)
    assert returns[won == 1].min() > returns[won == 0].max()  # a win is rewarded


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_act_legally_and_alike_in_a_batch_and_alone_and_change_nothing(policy):
    batch = skirmish_v0.batched_env(3, "smacv2_5_units")
    singles = [skirmish_v0.batched_env(1, "smacv2_5_units") for _ in range(3)]
    batch.reset(40)
    for index, single in enumerate(singles):
        single.reset(40 + index)
    together, alone = policy(batch), [policy(single) for single in singles]
    for _ in range(25):
        before = batch.get_state()
        actions = together.act()
        assert np.take_along_axis(batch.action_mask(), actions[..., None], axis=2).all()
        for index, player in enumerate(alone):
            np.testing.assert_array_equal(player.act()[0], actions[index])
            singles[index].step(actions[index : index + 1])
        for name, array in batch.get_state().items():
            np.testing.assert_array_equal(array, before[name])
        batch.step(actions)
        again = ~batch.running
        batch.reset(mask=again)
        for index in np.flatnonzero(again):
            singles[index].reset()


def field(allies, enemies, *places, **arrays):
    env = Skirmish(SkirmishConfig(allies=allies, enemies=enemies))
    env.reset([0])
    env.arrays.position[0] = np.array(places, np.float32).T
    for name, values in arrays.items():
        getattr(env.arrays, name)[0] = values
    return env


def test_nearest_attacks_the_nearest_in_range_and_otherwise_goes_there():
    env = field("2 marine", "2 marine", (10, 10), (10, 20), (14, 10), (13, 10))
    assert NearestPolicy(env).act().tolist() == [[FIRST_ATTACK + 1, 2]]
    env.arrays.health[0, 3], env.arrays.alive[0, 3] = 0, False
    assert NearestPolicy(env).act().tolist() == [[FIRST_ATTACK, 2]]


def test_focus_attacks_the_weakest_with_no_more_shots_than_it_takes():
    places = (10, 10), (10, 11), (10, 12), (14, 11), (13, 11)
    env = field("3 marine", "2 marine", *places, health=[45, 45, 45, 14, 45])
    assert FocusPolicy(env).act().tolist() == [[FIRST_ATTACK, FIRST_ATTACK, FIRST_ATTACK + 1]]
    env.arrays.cooldown[0, 0] = 0.3  # who cannot shoot yet kills nobody
    assert FocusPolicy(env).act().tolist() == [[FIRST_ATTACK] * 3]
    env.arrays.health[0, 3:] = 1
    assert FocusPolicy(env).act().tolist() == [[FIRST_ATTACK, FIRST_ATTACK, FIRST_ATTACK + 1]]


def test_focus_keeps_away_from_shorter_ranges_while_it_cannot_shoot():
    env = field("1 stalker", "1 zealot", (16, 16), (18, 16), cooldown=[1.0, 0])
    assert FocusPolicy(env).act().tolist() == [[3]]
    env.arrays.position[0, 0] = [1.6, 3.6]  # not into the border
    assert FocusPolicy(env).act()[0, 0] in (0, 2)
    env.arrays.cooldown[0, 0] = 0.4  # a shot in the last tick
    assert FocusPolicy(env).act().tolist() == [[FIRST_ATTACK]]
    marine = field("1 stalker", "1 stalker", (16, 16), (18, 16), cooldown=[1.0, 0])
    assert FocusPolicy(marine).act().tolist() == [[FIRST_ATTACK]]


# -- interfaces


@pytest.mark.parametrize("scenario", skirmish_v0.scenarios())
def test_every_scenario_conforms(scenario):
    results = check_parallel_env(lambda **kwargs: skirmish_v0.parallel_env(scenario, **kwargs), steps=12)
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.passed and result.label == "ok" for result in results), table(results)


def test_the_dead_are_absent_and_the_others_go_on():
    env = skirmish_v0.parallel_env("2s3z", max_steps=40)
    sizes = set()
    for seed in range(3):
        observations, _ = env.reset(seed=seed)
        while env.agents:
            sizes.add(len(env.agents))
            actions = {a: int(np.flatnonzero(observations[a]["action_mask"])[-1]) for a in env.agents}
            acted = set(env.agents)
            observations, rewards, terminated, truncated, _ = env.step(actions)
            assert set(rewards) == acted
            assert len(set(rewards.values())) == 1
            assert set(env.agents) == {a for a in acted if not (terminated[a] or truncated[a])}
    assert len(sizes) > 2


def test_wrong_actions_are_refused():
    env = skirmish_v0.batched_env(1, "3m")
    env.reset(0)
    with pytest.raises(
        InvalidActionError, match="action of ally_1 in env 0: expected an integer from 0 to 7, got 8"
    ):
        env.step(np.array([[0, 8, 0]]))
    env.arrays.health[0, 1], env.arrays.alive[0, 1] = 0, False
    env.step(np.array([[0, 8, 0]]))  # of a dead ally
    assert env.arrays.action[0, 1] == STOP


def test_enemy_actions_can_be_hidden():
    shown, hidden = (skirmish_v0.batched_env(20, "3m", see_enemy_actions=see) for see in (True, False))
    apart = np.zeros(shown.config.observation_size, bool)
    for env in (shown, hidden):
        env.reset(0)
    player = NearestPolicy(shown)
    for _ in range(14):
        actions = player.act()
        shown.step(actions)
        hidden.step(actions)
        apart |= (shown.observe() != hidden.observe()).any(axis=(0, 1))
        enemies = hidden.observe()[..., hidden.config.observation_layout["enemies"]].reshape(20, 3, 3, 13)
        assert (enemies[..., 3:6] == 0).all()
        for env in (shown, hidden):
            env.reset(mask=~env.running)
    others = apart[: 5 * 13].reshape(5, 13)
    assert not others[:2].any()  # allies
    assert others[2:].any(axis=0).tolist() == [False] * 3 + [True] * 3 + [False] * 7
    assert not apart[5 * 13 :].any()


# -- pictures


def scene_of(**changes):
    values = {
        "position": np.array([[8.0, 16.0], [24.0, 24.0], [4.0, 4.0]]),
        "kind": np.array([2, 3, 0]),
        "alive": np.array([True, True, False]),
        "health": np.array([1.0, 0.1, 0.0]),
        "action": np.array([FIRST_ATTACK, STOP, STOP]),
        "num_allies": 1,
        "size": (32, 32),
        "score": 0.5,
        "step": 3,
        "max_steps": 10,
    }
    return viewer.Scene(**(values | changes))


def pixel(picture, x, y):
    return picture[HEAD + round(640 - y * 20), round(x * 20)].astype(int)


def test_a_picture_shows_teams_health_shots_and_the_fallen():
    picture = viewer.draw(scene_of())
    assert (picture.dtype, picture.shape) == (np.uint8, (HEAD + 640 + 42, 640, 3))
    ally, enemy = pixel(picture, 8 - 0.4, 16), pixel(picture, 24 - 0.2, 24 + 0.2)
    assert ally[2] > ally[0] + 60
    assert enemy[0] > enemy[2] + 60
    shot = pixel(picture, 16, 20)
    assert shot[2] > shot[0] + 40
    calm = viewer.draw(scene_of(action=np.full(3, STOP)))
    np.testing.assert_array_equal(pixel(calm, 16.1, 20.2), viewer._FLOOR)
    full, empty = pixel(picture, 8, 16 + 0.625 + 0.2), pixel(picture, 24.3, 24 + 0.5 + 0.2)
    assert full[1] > full[0] + 40
    assert empty.max() < 60
    assert (pixel(picture, 4, 4) != viewer._FLOOR).any()
    np.testing.assert_array_equal(pixel(picture, 28.1, 2.1), viewer._FLOOR)
    later = viewer.draw(scene_of(step=9))
    assert (later[:HEAD] != picture[:HEAD]).any()
    np.testing.assert_array_equal(later[HEAD:], picture[HEAD:])


def test_a_map_that_is_not_square_keeps_its_proportions():
    assert viewer.draw(scene_of(size=(32, 16))).shape[1] == 640
    assert viewer.draw(scene_of(size=(16, 32))).shape[1] == 320
    assert len(viewer.draw_text(scene_of(size=(32, 16))).splitlines()) == 13


def test_text_shows_units_by_letter():
    lines = viewer.draw_text(scene_of()).splitlines()
    assert lines[-1] == "step 3/10  score 0.50  allies 1 of 1  enemies 1 of 2"
    assert lines[12].split()[6] == "s"
    assert lines[6].replace(" .", "..").index("Z'") == 36
    assert lines[21].split()[3] == "x"


def test_environments_draw_themselves_and_refuse_other_modes():
    env = skirmish_v0.batched_env(2)
    env.reset(0)
    before = env.get_state()
    assert (env.render(0) != env.render(1)).any()
    assert "allies 5 of 5" in env.render(1, "ansi")
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(ValueError, match="mode: expected rgb_array or ansi, got 'svg'"):
        env.render(0, "svg")
