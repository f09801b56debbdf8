"""Branches, counterfactuals, interventions and causal graphs of environments: what all of them have in common."""

import numpy as np
import pytest
from toy_envs import Walk, WalkConfig

from qio_envs import (
    cart_pole_v0,
    causal_chain_v0,
    chsh_v0,
    confounded_control_v0,
    drift_control_v0,
    environment,
    environments,
    greedy_casino_v0,
    qubit_control_v0,
)
from qio_envs.api import (
    AFTER,
    InterventionError,
    InvalidActionError,
    ResetNeededError,
    UnsupportedError,
)
from qio_envs.api.policies import RandomPolicy
from qio_envs.testing.playing import equal

EXACT = [
    ("forest_uav_v0", {"comm_range": 8.0, "comm_loss": 0.3, "comm_budget": 1.0}),
    ("swarm_cooperative_v0", {"out_radius": 2.0, "process_noise": 0.2}),  # agents leave
    ("swarm_cooperative_v0", {"scenario": "published"}),  # noise in observations
    ("swarm_competitive_v0", {"actions": "discrete"}),
    ("swarm_mixed_v0", {}),
    ("qubit_control_v0", {"scenario": "haar"}),
    ("skirmish_v0", {"scenario": "smacv2_5_units"}),  # allies die
    ("drift_control_v0", {"scenario": "distractors"}),
    ("drift_control_v0", {"scenario": "sensor_shift", "actions": "discrete", "out_radius": 2.0}),
    ("cart_pole_v0", {"scenario": "short_pole"}),
    ("chsh_v0", {}),
    ("chsh_v0", {"as_team": True, "rounds": 3}),
    ("causal_chain_v0", {"rounds": 4}),
    ("greedy_casino_v0", {"rounds": 4}),
    ("confounded_control_v0", {"max_steps": 4}),
    ("matrix_game_v0", {"scenario": "repeated_prisoners_dilemma"}),
    ("matrix_game_v0", {"scenario": "two_step"}),
    ("mpe_spread_v0", {"scenario": "epymarl"}),
    ("mpe_speaker_listener_v0", {}),
    ("mpe_reference_v0", {}),
    ("mpe_tag_v0", {"continuous_actions": True}),
    ("mpe_world_comm_v0", {}),
    ("mpe_adversary_v0", {}),
    ("mpe_push_v0", {}),
    ("mpe_crypto_v0", {}),
]
WITH_GRAPH = {
    "drift": drift_control_v0.batched_env(2, "hidden", distractors=3),
    "cart": cart_pole_v0.batched_env(2),
    "chain": causal_chain_v0.batched_env(2),
    "casino": greedy_casino_v0.batched_env(2),
    "casino without intention": greedy_casino_v0.batched_env(2, "no_intent"),
    "confounded": confounded_control_v0.batched_env(2),
}


def rows(state, start, stop):
    return {name: array[start:stop] for name, array in state.items()}


def assert_equal(one, two):
    assert equal(one, two), (one, two)


# -- branches and counterfactuals


def test_every_environment_is_among_the_exact_ones():
    assert {env_id for env_id, _ in EXACT} == set(environments())


@pytest.mark.parametrize(("env_id", "settings"), EXACT)
def test_the_branch_under_the_actions_taken_is_the_future_bit_for_bit(env_id, settings):
    env = environment(env_id).batched_env(3, **settings)
    env.reset(7)
    player, other = RandomPolicy(env), RandomPolicy(env, seed=99)
    env.step(player.act())
    ahead = moved = None
    for _ in range(6):
        env.reset(mask=~env.running)
        taken = player.act()
        if ahead is not None:  # the branches of the first counterfactual go on, the second one as recorded
            ahead.reset(mask=~ahead.running)
            actions = RandomPolicy(ahead, seed=5).act()
            actions[3:6] = taken
            ahead.step(actions)
        before = env.get_state()
        result = env.counterfactual(np.stack([other.act(), taken, taken]))
        assert_equal(env.get_state(), before)
        transition = env.step(taken)
        for branched, whole in zip(result[:3], transition, strict=True):
            assert (branched.dtype, branched.shape) == (whole.dtype, (3, *whole.shape))
            np.testing.assert_array_equal(branched[1], whole)
            np.testing.assert_array_equal(branched[2], whole)
        np.testing.assert_array_equal(result.observations[1], env.observe())
        assert result.observations.shape == (3, *env.observe().shape)
        assert_equal(rows(result.env.get_state(), 3, 6), env.get_state())
        np.testing.assert_array_equal(result.env.state()[3:6], env.state())
        for name, values in env.info().items():
            np.testing.assert_array_equal(result.env.info()[name][3:6], values)
        ahead = ahead or result.env
        assert_equal(rows(ahead.get_state(), 3, 6), env.get_state())
        np.testing.assert_array_equal(ahead.observe()[3:6], env.observe())
        moved = moved or not equal(rows(ahead.get_state(), 0, 3), env.get_state())
    assert moved  # other actions lead elsewhere


def test_a_branch_is_the_present_state_several_times_and_apart():
    env = drift_control_v0.batched_env(2, "distractors")
    env.reset([5, 9])
    env.step(np.zeros((2, 1, 2), np.float32))
    before, branches = env.get_state(), env.branch(3)
    assert (branches.num_envs, env.num_envs) == (6, 2)
    assert branches.arrays.seed.tolist() == [5, 9] * 3
    assert branches.arrays.step.tolist() == [1] * 6
    for start in (0, 2, 4):
        assert_equal(rows(branches.get_state(), start, start + 2), before)
    branches.step(np.ones((6, 1, 2), np.float32))
    assert_equal(env.get_state(), before)
    assert env.branch(1).arrays.components is not env.arrays.components
    branches.reset(3)  # and is an environment like any other
    assert branches.arrays.seed.tolist() == list(range(3, 9))


def test_a_team_has_branches_of_its_own():
    env = chsh_v0.batched_env(2, as_team=True)
    env.reset(0)
    branches = env.branch(2)
    branches.step(np.zeros((4, 1), int))
    assert branches.arrays is branches.env.arrays
    assert branches.arrays.step.tolist() == [1] * 4
    assert env.arrays.step.tolist() == [0, 0]
    noisy = qubit_control_v0.batched_env(1, "noisy", as_team=True)
    noisy.reset(0)
    with pytest.raises(UnsupportedError, match="qubit_control_v0 has no exact counterfactuals"):
        noisy.counterfactual(np.zeros((1, 1, 1), int))


def test_where_draws_depend_on_actions_counterfactuals_are_refused():
    env = qubit_control_v0.batched_env(1, "noisy")
    env.reset(0)
    with pytest.raises(UnsupportedError) as caught:
        env.counterfactual(np.zeros((1, 1, 1), int))
    assert str(caught.value) == (
        "qubit_control_v0 has no exact counterfactuals with these settings: with gate_noise above 0 the gate decides "
        "which qubits its random numbers belong to"
    )
    assert qubit_control_v0.batched_env(1).action_dependent_draws is None


@pytest.mark.parametrize("count", [0, -1, 1.5, True, None])
def test_branches_are_counted(count):
    with pytest.raises(ValueError, match="count: expected an integer of at least 1, got"):
        Walk(WalkConfig()).branch(count)


@pytest.mark.parametrize(
    ("actions", "error", "message"),
    [
        (
            np.zeros((2, 1, 2)),
            InvalidActionError,
            "actions: expected shape (C, 2, 1, 2) with at least one branch, got (2, 1, 2)",
        ),
        (
            np.zeros((0, 2, 1, 2)),
            InvalidActionError,
            "actions: expected shape (C, 2, 1, 2) with at least one branch, got (0, 2, 1, 2)",
        ),
        (
            np.array([[[[0, 0]], [[0, 0]]], [[[0, 0]], [[np.nan, 0]]]]),
            InvalidActionError,
            "action of agent_0 in env 3: expected finite numbers, got [nan  0.]",
        ),
    ],
)
def test_actions_that_do_not_fit_are_refused(actions, error, message):
    env = drift_control_v0.batched_env(2)
    env.reset(0)
    with pytest.raises(error) as caught:
        env.counterfactual(actions)
    assert str(caught.value) == message


def test_a_counterfactual_needs_an_episode():
    env = drift_control_v0.batched_env(1)
    with pytest.raises(ResetNeededError, match="env 0 of drift_control_v0 has ended or was never reset"):
        env.counterfactual(np.zeros((2, 1, 1, 2)))


# -- graphs


@pytest.mark.parametrize("env", WITH_GRAPH.values(), ids=WITH_GRAPH)
def test_graphs_are_acyclic_and_name_what_can_be_set(env):
    graph = env.graph()
    assert len(set(graph.variables)) == len(graph.variables)
    assert len(set(graph.edges)) == len(graph.edges)
    assert {name for edge in graph.edges for name in edge} | set(graph.hidden) <= set(graph.variables)
    assert set(env.intervention_variables) < set(graph.variables)
    later = {name for name in graph.variables if name.endswith(AFTER)}
    assert {name.removesuffix(AFTER) for name in later} < set(graph.variables)
    assert not [edge for edge in graph.edges if edge[0] in later and edge[1] not in {*later, "reward"}]
    left, edges = set(graph.variables), set(graph.edges)
    while left:  # take away what has no cause left
        free = left - {effect for _, effect in edges}
        assert free, edges
        left -= free
        edges = {edge for edge in edges if edge[0] in left}


@pytest.mark.parametrize("env", WITH_GRAPH.values(), ids=WITH_GRAPH)
def test_variables_are_the_components_of_the_graph_as_they_are_now(env):
    names = [name for name in env.graph().variables if name + AFTER in env.graph().variables]
    for index, name in enumerate(env.intervention_variables):
        env.reset(3)
        space = env.intervention_spaces[name]
        value = 1.0 if hasattr(space, "n") else 0.5 * space.high.item()
        mask = np.tile(np.arange(len(env.intervention_variables)) == index, (2, 1))
        before = env.variables()
        env.intervene(mask, np.full(mask.shape, value))
        if name.endswith(AFTER):  # as the step makes it
            env.step(RandomPolicy(env).act())
        found = env.variables()
        assert list(found) == names
        assert all(one.dtype == np.float32 and one.shape == (2,) for one in found.values())
        np.testing.assert_array_equal(found[name.removesuffix(AFTER)], np.float32(value))
        if not name.endswith(AFTER):  # it alone, and what was read before stays as it was
            assert [other for other in names if (found[other] != before[other]).any()] in ([], [name])
            found[name][:] = 7
            np.testing.assert_array_equal(env.variables()[name], np.float32(value))


def test_environments_without_a_graph_or_variables_say_so():
    env = Walk(WalkConfig())
    with pytest.raises(UnsupportedError, match="walk_v0 has no names for the components of its state"):
        env.variables()
    with pytest.raises(UnsupportedError, match="walk_v0 has no description of its causal graph"):
        env.graph()
    assert env.intervention_variables == ()
    env.reset(0)
    with pytest.raises(UnsupportedError, match="walk_v0 has no variables to intervene on"):
        env.intervene(np.zeros((1, 0), bool), np.zeros((1, 0)))


# -- interventions


@pytest.mark.parametrize("env", WITH_GRAPH.values(), ids=WITH_GRAPH)
def test_every_bound_of_an_intervention_leads_into_the_spaces(env):
    spaces = env.intervention_spaces
    for side in ("low", "high"):
        ends = {
            "low": [0 if hasattr(space, "n") else space.low for space in spaces.values()],
            "high": [space.n - 1 if hasattr(space, "n") else space.high for space in spaces.values()],
        }
        for which in range(len(spaces) + 1):  # one variable, or all of them
            env.reset(which)
            mask = np.tile(np.arange(len(spaces)) == which, (2, 1)) | (which == len(spaces))
            env.intervene(mask, np.tile(np.array(ends[side], float), (2, 1)))
            for _ in range(2):
                for index in range(2):
                    assert env.observation_space.contains(env.observe()[index, 0])
                    assert env.state_space.contains(env.state()[index])
                if env.running.all():
                    env.step(RandomPolicy(env).act())


@pytest.mark.parametrize("env", WITH_GRAPH.values(), ids=WITH_GRAPH)
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30, 1e300])
def test_values_outside_the_space_are_refused_and_change_nothing(env, value):
    env.reset(0)
    before, names = env.get_state(), env.intervention_variables
    mask, values = np.zeros((2, len(names)), bool), np.zeros((2, len(names)))
    mask[:, 0] = True
    mask[1, -1], values[1, -1] = True, value
    with pytest.raises(InterventionError) as caught:
        env.intervene(mask, values)
    message = str(caught.value)
    assert message.startswith(f"an intervention outside the space: {names[-1]} in env 1: expected a")
    assert message.endswith(f"got {value}")
    assert "\n" not in message
    assert_equal(env.get_state(), before)


@pytest.mark.parametrize(
    ("mask", "values", "message"),
    [
        (
            np.zeros((2, 2), bool),
            np.zeros((2, 3)),
            "mask: expected bool of shape (2, 3) for the variables x1, x2', x3', got bool of shape (2, 2)",
        ),
        (
            np.zeros((2, 3)),
            np.zeros((2, 3)),
            "mask: expected bool of shape (2, 3) for the variables x1, x2', x3', got float64 of shape (2, 3)",
        ),
        (
            np.zeros((2, 3), bool),
            np.zeros(3),
            "values: expected numbers of shape (2, 3) for the variables x1, x2', x3', got float64 of shape (3,)",
        ),
        (
            np.zeros((2, 3), bool),
            np.full((2, 3), "1"),
            "values: expected numbers of shape (2, 3) for the variables x1, x2', x3', got <U1 of shape (2, 3)",
        ),
    ],
)
def test_interventions_of_the_wrong_shape_or_type_are_refused(mask, values, message):
    env = causal_chain_v0.batched_env(2)
    env.reset(0)
    with pytest.raises(InterventionError) as caught:
        env.intervene(mask, values)
    assert str(caught.value) == message


def test_values_outside_the_mask_do_not_matter_and_ended_environments_are_left_alone():
    env = causal_chain_v0.batched_env(2, rounds=1)
    env.reset(0)
    before = env.get_state()
    env.intervene(np.zeros((2, 3), bool), np.full((2, 3), np.nan))
    assert_equal(env.get_state(), before)
    env.step(np.zeros((2, 1, 2)))
    env.reset(mask=np.array([True, False]))
    before = env.get_state()
    mask = np.array([[True, False, False], [False, False, False]])
    env.intervene(mask, np.ones((2, 3)))
    assert env.arrays.values[0, 0] == 1
    np.testing.assert_array_equal(env.arrays.values[1], before["values"][1])
    with pytest.raises(ResetNeededError, match="env 1 of causal_chain_v0 has ended or was never reset"):
        env.intervene(np.ones((2, 3), bool), np.zeros((2, 3)))
    assert env.arrays.values[0, 0] == 1


def test_the_interventions_of_a_team_are_those_of_its_environment():
    env = greedy_casino_v0.batched_env(1, as_team=True)
    env.reset(0)
    value = 1 - env.arrays.intent[0]
    env.intervene(np.array([[False, False, True]]), np.full((1, 3), value))
    assert env.env.arrays.intent.tolist() == [value]
