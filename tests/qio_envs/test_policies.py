import numpy as np
import pytest
from toy_envs import Walk

from qio_envs import environment, forest_uav_v0
from qio_envs.api import episode_scores, normalized_score, reference_scores
from qio_envs.forest_uav import ForestConfig, ForestUAV, GreedyPolicy, LawnmowerPolicy, RandomPolicy

# Mean scores over the 20 seeds from 1000 on. Policies and environment are deterministic: a change of any of these
# numbers is a change of behaviour.
SCORES = {
    "default": {"random": 306.675, "greedy": 373.6, "lawnmower": 400.0},
    "sprint": {"random": 176.6375, "greedy": 368.675, "lawnmower": 400.0},
    "silent": {"random": 306.675, "greedy": 369.125, "lawnmower": 400.0},
    "wide": {"random": 1727.325, "greedy": 2270.4625, "lawnmower": 2498.475},
    "wooded": {"random": 239.6125, "greedy": 293.1375, "lawnmower": 319.175},
    "solo": {"random": 38.75, "greedy": 100.0, "lawnmower": 100.0},
}


def test_every_scenario_has_its_scores():
    assert set(SCORES) == set(forest_uav_v0.scenarios())


@pytest.mark.parametrize("scenario", SCORES)
def test_mean_scores(scenario):
    scores = reference_scores(forest_uav_v0.batched_env(20, scenario), seed=1000)
    assert scores == pytest.approx(SCORES[scenario], abs=1e-6)
    assert list(scores) == ["random", "greedy", "lawnmower"]
    assert scores["random"] < scores["greedy"] <= scores["lawnmower"]
    assert scores["greedy"] < scores["lawnmower"] or scenario == "solo"


def test_policies_are_found_through_the_registry():
    policies = environment("forest_uav_v0").batched_class.scripted_policies
    assert policies == {"random": RandomPolicy, "greedy": GreedyPolicy, "lawnmower": LawnmowerPolicy}


@pytest.mark.parametrize("policy", ForestUAV.scripted_policies.values())
@pytest.mark.parametrize("scenario", ["wooded", "wide"])
def test_policies_act_legally_and_alike_in_a_batch_and_alone(policy, scenario):
    settings = {"mask_blocked_moves": True, "num_uavs": 8}
    batch = forest_uav_v0.batched_env(3, scenario, **settings)
    singles = [forest_uav_v0.batched_env(1, scenario, **settings) for _ in range(3)]
    batch.reset(40)
    for index, single in enumerate(singles):
        single.reset(40 + index)
    together, alone = policy(batch), [policy(single) for single in singles]
    for _ in range(40):
        actions = together.act()
        assert np.take_along_axis(batch.action_mask(), actions[..., None], axis=2).all()
        for index, player in enumerate(alone):
            own = player.act()
            np.testing.assert_array_equal(own[0], actions[index])
            singles[index].step(own)
        batch.step(actions)


def test_a_policy_changes_nothing_of_the_environment():
    for policy in ForestUAV.scripted_policies.values():
        env = forest_uav_v0.batched_env(2, "wooded")
        env.reset(0)
        before = env.get_state()
        policy(env).act()
        for name, array in env.get_state().items():
            np.testing.assert_array_equal(array, before[name])


def test_random_play_depends_on_its_seed_and_is_uniform_over_legal_actions():
    env = forest_uav_v0.batched_env(300, "wooded")
    env.reset(0)
    first, again, other = RandomPolicy(env, 1), RandomPolicy(env, 1), RandomPolicy(env, 2)
    actions = first.act()
    np.testing.assert_array_equal(actions, again.act())
    assert (actions != other.act()).any()
    free = env.action_mask().sum(axis=2) == 5
    counts = np.bincount(actions[free], minlength=5)
    expected = counts.sum() / 5
    assert ((counts - expected) ** 2 / expected).sum() < 18.5  # chi-squared, 4 degrees of freedom, p = 0.001
    env.step(np.zeros_like(actions))
    assert (first.act() != actions).any()


def forest_of(position, unmonitored, height=5, width=7):
    """A forest with the UAVs where they are told, all of whom believe the same."""
    config = ForestConfig(
        height=height, width=width, num_uavs=len(position), sensing_radius=2, comm_budget=0.0
    )
    env = ForestUAV(config)
    env.reset(0)
    s = env.arrays
    s.occupancy[:] = 0
    for n, (row, column) in enumerate(position):
        s.position[0, n] = row, column
        s.occupancy[0, row + 2, column + 2] += 1
    set_cells(env, s.belief, unmonitored)
    return env


def set_cells(env, bits, cells):
    """Set these cells, and no others, in every one of the bit maps."""
    plain = np.zeros(env.arrays.occupancy.shape[1:], np.uint8)
    for row, column in cells:
        plain[row + 2, column + 2] = 1
    packed = np.packbits(plain, bitorder="little")
    bits[...] = 0
    bits[..., : packed.size] = packed


def test_greedy_goes_to_the_nearest_cell_that_it_believes_unmonitored():
    env = forest_of([(2, 3)], [(2, 6), (0, 3)])
    assert GreedyPolicy(env).act().tolist() == [[1]]
    assert GreedyPolicy(forest_of([(2, 3)], [(2, 6)])).act().tolist() == [[4]]
    assert GreedyPolicy(forest_of([(2, 3)], [(2, 3)])).act().tolist() == [[0]]


def test_greedy_takes_what_it_believes_for_true():
    env = forest_of([(2, 3)], [(4, 3)])
    set_cells(env, env.arrays.monitored, [(4, 3)])  # true, and unknown to the UAV
    assert GreedyPolicy(env).act().tolist() == [[2]]


def test_greedy_walks_around_uavs_that_it_senses_and_leaves_their_cells():
    env = forest_of([(2, 2), (2, 3)], [(2, 6)])
    first, second = GreedyPolicy(env).act()[0]
    assert first in (1, 2)  # not into the cell of the other
    assert second == 4
    env = forest_of([(2, 2), (2, 4)], [(2, 4)])
    assert GreedyPolicy(env).act().tolist() == [[0, 0]]


def test_idle_uavs_that_share_a_cell_part():
    actions = GreedyPolicy(forest_of([(2, 2), (2, 2), (2, 2)], [])).act()[0].tolist()
    assert actions[0] == 0
    assert 0 not in actions[1:]
    assert actions[1] != actions[2]


def test_greedy_knows_nothing_beyond_its_crop():
    near, far = forest_of([(2, 0), (2, 6)], [(2, 3)]), forest_of([(2, 0), (0, 6)], [(2, 3)])
    assert GreedyPolicy(near).act()[0, 0] == GreedyPolicy(far).act()[0, 0] == 4


def test_the_lawnmower_wastes_no_step_on_a_free_map():
    env = forest_uav_v0.batched_env(1, height=5, width=8, num_uavs=2, max_steps=60)
    env.reset(3)
    player = LawnmowerPolicy(env)
    while env.running.all():
        env.step(player.act())
    assert env.info()["team_return"][0] == 40
    assert env.info()["steps_to_95"][0] < 35


def test_the_lawnmower_may_begin_in_mid_episode_and_plans_anew_for_each():
    env = forest_uav_v0.batched_env(2)
    env.reset(3)
    for _ in range(20):
        env.step(np.ones((2, 10), int))
    player = LawnmowerPolicy(env)
    for _ in range(2):
        while env.running.all():
            env.step(player.act())
        assert (env.info()["coverage"] == 1).all()
        env.reset()


def test_scores_are_of_one_episode_each_however_long():
    class Stubborn:
        def __init__(self, env):
            self.env = env

        def act(self):  # environments end at different steps
            return np.full((3, 3, 1), 0.3) * np.arange(1, 4)[:, None, None]

    env = Walk(num_envs=3)
    scores = episode_scores(env, Stubborn, seed=5)
    for index in range(3):
        single = Walk()
        single.reset(5 + index)
        while single.running.all():
            single.step(np.full((1, 3, 1), 0.3) * (index + 1))
        assert scores[index] == single.info()["team_return"][0]
    assert reference_scores(env) == {}


def test_normalized_scores():
    assert normalized_score(300.0, 300.0, 400.0) == 0
    assert normalized_score(400.0, 300.0, 400.0) == 1
    assert normalized_score(275.0, 300.0, 400.0) == -0.25
    with pytest.raises(
        ValueError, match="random and oracle: the reference scores are both 3, there is no scale"
    ):
        normalized_score(1.0, 3.0, 3.0)
