import numpy as np
import pytest
from swarm_settings import SCENARIOS

from qio_envs import environment, swarm_competitive_v0, swarm_cooperative_v0, swarm_mixed_v0
from qio_envs.api import episode_scores, normalized_score, reference_scores
from qio_envs.swarm import ControllerPolicy, CooperativeSwarm, RandomPolicy, Swarm

# Mean scores over the 20 seeds from 1000 on: random, controller.
SCORES = {
    ("swarm_cooperative_v0", "default"): (-1029.6, -86.4),
    ("swarm_cooperative_v0", "discrete"): (-1087.4, -103.3),
    ("swarm_cooperative_v0", "crowd"): (-4875.7, -396.7),
    ("swarm_cooperative_v0", "nearsighted"): (-1029.6, -86.4),
    ("swarm_cooperative_v0", "hidden_target"): (-1298.2, -122.9),
    ("swarm_cooperative_v0", "remembered_target"): (-363.2, -166.7),
    ("swarm_cooperative_v0", "published"): (-1354.8, -120.6),
    ("swarm_cooperative_v0", "solo"): (-297.2, -24.3),
    ("swarm_competitive_v0", "default"): (61.9, 192.0),
    ("swarm_competitive_v0", "discrete"): (73.2, 190.9),
    ("swarm_competitive_v0", "duel"): (106.0, 194.2),
    ("swarm_competitive_v0", "crowd"): (21.7, 185.1),
    ("swarm_competitive_v0", "published"): (29.7, 187.9),
    ("swarm_mixed_v0", "default"): (-72.0, 34.1),
    ("swarm_mixed_v0", "discrete"): (-75.7, 31.5),
    ("swarm_mixed_v0", "three_a_side"): (-219.5, 52.6),
    ("swarm_mixed_v0", "outnumbered"): (-58.6, 57.3),
    ("swarm_mixed_v0", "crowd"): (-720.2, 115.2),
    ("swarm_mixed_v0", "published"): (-92.3, 25.2),
}


def test_every_scenario_has_its_scores():
    assert list(SCORES) == SCENARIOS


@pytest.mark.parametrize(("env_id", "scenario"), SCENARIOS)
def test_mean_scores(env_id, scenario):
    scores = reference_scores(environment(env_id).batched_env(20, scenario), seed=1000)
    assert list(scores) == ["random", "controller"]
    random, controller = SCORES[env_id, scenario]
    assert scores == pytest.approx({"random": random, "controller": controller}, rel=0.01, abs=0.5)


@pytest.mark.parametrize(("env_id", "scenario"), SCENARIOS)
def test_the_controller_beats_random_play_clearly(env_id, scenario):
    env = environment(env_id).batched_env(60, scenario)
    random, controller = (episode_scores(env, policy, 0) for policy in env.scripted_policies.values())
    gain = controller - random
    assert (gain >= 0).mean() > 0.95  # a random agent_0 may start nearest the origin and stay so
    assert gain.mean() > 8 * gain.std() / np.sqrt(60)
    assert normalized_score(random.mean() + 0.5 * gain.mean(), random.mean(), controller.mean()) == (
        pytest.approx(0.5)
    )


def played(env_id, policy, num_envs=20, scenario="default", seed=0, **settings):
    env = environment(env_id).batched_env(num_envs, scenario, **settings)
    env.reset(seed)
    player = policy(env)
    for _ in range(200):
        env.step(player.act())
    return env


def test_under_control_agents_gather_at_the_target():
    for scenario in ("default", "hidden_target", "discrete"):
        info = played("swarm_cooperative_v0", ControllerPolicy, scenario=scenario).info()
        assert info["mean_distance"].max() < 0.25
        assert (info["success"] == 1).all()
        assert (info["exits"] == 0).all()
        assert info["coordination"].max() < 0.1  # over the whole episode, the way there included


def test_under_control_the_first_team_wins():
    for env_id in ("swarm_competitive_v0", "swarm_mixed_v0"):
        info = played(env_id, ControllerPolicy).info()
        assert (info["success"] == 1).all()
        assert 0.2 < played(env_id, RandomPolicy, 200).info()["success"].mean() < 0.6


def test_the_competitive_sum_says_nothing_about_skill():
    for policy in (RandomPolicy, ControllerPolicy):
        env = played("swarm_competitive_v0", policy)
        np.testing.assert_allclose(env.info()["total_return"], 200 * (1 - 0.2), rtol=1e-6)


def test_the_controller_is_close_to_the_fastest_there_is():
    """One axis at a time: nothing beats full thrust, which covers 1.9 in these steps, by more than the braking."""
    env = swarm_cooperative_v0.batched_env(1, "solo", process_noise=0.0)
    env.reset(0)
    env.arrays.body[0, 0] = (1.5, -1.5, 0, 0)
    player, steps = ControllerPolicy(env), 0
    while env.info()["distance"][0, 0] > 0.02:
        env.step(player.act())
        steps += 1
    fastest, speed, way = 0, 0.0, 0.0
    while way < 1.5:
        speed = 0.9 * (speed + 0.1)
        way, fastest = way + 0.1 * speed, fastest + 1
    assert fastest < steps <= fastest + 6


@pytest.mark.parametrize("policy", Swarm.scripted_policies.values())
@pytest.mark.parametrize(("env_id", "scenario"), SCENARIOS)
def test_policies_act_in_the_space_and_alike_in_a_batch_and_alone(env_id, scenario, policy):
    wide = 3.1 if scenario == "remembered_target" else 2.2  # agents leave
    settings = {"out_radius": wide, "spawn_radius": environment(env_id).config(scenario).spawn_radius / 1.5}
    batch = environment(env_id).batched_env(3, scenario, **settings)
    singles = [environment(env_id).batched_env(1, scenario, **settings) for _ in range(3)]
    batch.reset(40)
    for index, single in enumerate(singles):
        single.reset(40 + index)
    together, alone = policy(batch), [policy(single) for single in singles]
    for _ in range(30):
        actions = together.act()
        assert actions.dtype == batch.action_space.dtype
        assert all(batch.action_space.contains(action) for row in actions for action in row)
        for index, player in enumerate(alone):
            own = player.act()
            np.testing.assert_array_equal(own[0], actions[index])
            singles[index].step(own)
        batch.step(actions)
        for env in (batch, *singles):
            env.reset(mask=~env.running)


@pytest.mark.parametrize("scenario", ["default", "discrete"])
def test_everybody_but_the_first_team_plays_at_random(scenario):
    for env_id, first in (("swarm_competitive_v0", 1), ("swarm_mixed_v0", 2), ("swarm_cooperative_v0", 3)):
        env = environment(env_id).batched_env(4, scenario)
        env.reset(0)
        random, controlled = RandomPolicy(env, 7).act(), ControllerPolicy(env, 7).act()
        np.testing.assert_array_equal(controlled[:, first:], random[:, first:])
        assert (controlled[:, :first] != random[:, :first]).any()


def test_a_policy_changes_nothing_of_the_environment():
    for environment_ in (swarm_cooperative_v0, swarm_competitive_v0, swarm_mixed_v0):
        env = environment_.batched_env(2)
        env.reset(0)
        before = env.get_state()
        for policy in env.scripted_policies.values():
            policy(env).act()
        for name, array in env.get_state().items():
            np.testing.assert_array_equal(array, before[name])


def test_random_play_is_uniform_over_the_box_and_a_function_of_its_seeds():
    env = swarm_cooperative_v0.batched_env(2000)
    env.reset(0)
    actions = RandomPolicy(env, 1).act()
    np.testing.assert_array_equal(actions, RandomPolicy(env, 1).act())
    assert (actions != RandomPolicy(env, 2).act()).any()
    assert actions.dtype == np.float32
    counts = np.histogram(actions, bins=20, range=(-1, 1))[0]
    expected = counts.sum() / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(actions[..., 0].ravel(), actions[..., 1].ravel())[0, 1]) < 4 / np.sqrt(6000)
    env.step(actions)
    assert (RandomPolicy(env, 1).act() != actions).mean() > 0.99


@pytest.mark.parametrize(
    ("place", "expected"),
    [((1, 0.2), 2), ((-1, 0.2), 1), ((0.2, 1), 4), ((0.2, -1), 3), ((0.001, -0.001), 0)],
)
def test_of_the_five_actions_the_controller_takes_the_nearest(place, expected):
    env = swarm_cooperative_v0.batched_env(1, "solo", actions="discrete")
    env.reset(0)
    env.arrays.body[0, 0] = (*place, 0, 0)
    assert ControllerPolicy(env).act().tolist() == [[expected]]


def mixed_goal(team_a, team_b, alive=None):
    env = swarm_mixed_v0.batched_env(1, team_a=len(team_a), team_b=len(team_b))
    env.reset(0)
    env.arrays.body[0, :, :2] = [*team_a, *team_b]
    if alive is not None:
        env.arrays.alive[0] = alive
    return ControllerPolicy(env)._meeting_point()[0, 0].tolist()


def test_the_meeting_point_of_the_mixed_task():
    near_two = mixed_goal([(0, 0), (1, 0)], [(-3, 0), (2.5, 0), (3.5, 0)])
    assert near_two == pytest.approx([2.5, 0])  # two opponents are worth more than one
    assert mixed_goal([(0, 0), (1, 0)], [(-3, 0), (2.5, 0)]) == pytest.approx([2.5, 0])  # the nearer one
    gone = mixed_goal([(0, 0), (1, 0)], [(-3, 0), (2.5, 0)], [True, True, True, False])
    assert gone == pytest.approx([-3, 0])
    nobody = mixed_goal([(0, 0), (1, 0)], [(-3, 0), (2.5, 0)], [True, True, False, False])
    assert nobody == pytest.approx([0.5, 0])
    edge = mixed_goal([(0, 0)], [(0, 4.9)])
    assert edge == pytest.approx([0, 4])  # not out after an opponent


def test_policies_are_found_through_the_registry():
    assert CooperativeSwarm.scripted_policies == {"random": RandomPolicy, "controller": ControllerPolicy}
