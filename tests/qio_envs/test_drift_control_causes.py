"""The causal graph of drift control against finite differences of its kernel."""

import numpy as np
import pytest

from qio_envs import drift_control_v0
from qio_envs.api import AFTER

NUM_ENVS = 64
SETTINGS = [
    {},
    {"distractors": 5},
    {"distractors": 3, "sensor_shift": True},
    {"hidden": [1, 2], "distractors": 2, "action_cost": 0.0},
    {"actions": "discrete", "distractors": 1},
]


def outcome(env, actions, graph):
    """Return what one step leads to, by the names of the graph, ``[E]`` each; the environment stays."""
    result = env.counterfactual(actions[None])
    s, count = result.env.arrays, env.config.distractors
    values = [*s.components.T, *s.distractors.T, result.rewards[0, :, 0]]
    names = [name for name in graph.variables if name.endswith(AFTER)] + ["reward"]
    assert len(names) == 5 + count
    return dict(zip(names, values, strict=True))


def descendants(graph, name):
    found, front = set(), {name}
    while front:
        front = {effect for cause, effect in graph.edges if cause in front} - found
        found |= front
    return found


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_input_has_influence_where_there_is_a_path_and_exactly_none_elsewhere(settings):
    env = drift_control_v0.batched_env(NUM_ENVS, **settings)
    env.reset(3)
    graph, generator = env.graph(), np.random.default_rng(0)
    names, columns = env.intervention_variables, len(env.intervention_variables)
    everything = np.ones((NUM_ENVS, columns), bool)
    start = generator.uniform(-1.5, 1.5, (NUM_ENVS, columns))
    env.intervene(everything, start)
    discrete = env.config.actions == "discrete"
    actions = (
        generator.integers(0, 8, (NUM_ENVS, 1))
        if discrete
        else generator.uniform(-0.7, 0.7, (NUM_ENVS, 1, 2)).astype(np.float32)
    )
    base = outcome(env, actions, graph)
    inputs = [name for name in graph.variables if not name.endswith(AFTER) and name != "reward"]
    for name in inputs:
        if name in names:
            moved = start.copy()
            moved[:, names.index(name)] += 0.25
            env.intervene(everything, moved)
            after = outcome(env, actions, graph)
            env.intervene(everything, start)
        else:
            other = actions.copy()
            if discrete:
                other += 1
            else:
                other[..., int(name[1:])] += 0.25
            after = outcome(env, other, graph)
        changed = {effect for effect, values in after.items() if (values != base[effect]).any()}
        assert changed == descendants(graph, name), name
        for effect in (effect for cause, effect in graph.edges if cause == name and effect != "reward"):
            if not discrete:
                assert (after[effect] != base[effect]).mean() > 0.9, (name, effect)


def test_edges_between_variables_after_the_step_are_the_equations_of_distractors_and_reward():
    env = drift_control_v0.batched_env(NUM_ENVS, distractors=4)
    env.reset(1)
    graph, names = env.graph(), env.intervention_variables
    later = [edge for edge in graph.edges if edge[0].endswith(AFTER)]
    assert sorted(later) == sorted(
        [("s0'", "d0'"), ("s1'", "d1'"), ("s0'", "d2'"), ("s1'", "d3'")]
        + [(f"s{k}'", "reward") for k in range(4)]
    )
    residuals = []
    for seed in range(3):  # other states and actions, the same noise
        generator = np.random.default_rng(seed)
        start = generator.uniform(-1.5, 1.5, (NUM_ENVS, len(names)))
        env.intervene(np.ones_like(start, bool), start)
        actions = generator.uniform(-1, 1, (NUM_ENVS, 1, 2)).astype(np.float32)
        after = outcome(env, actions, graph)
        parts = [
            after[f"d{k}'"] - 0.5 * start[:, names.index(f"d{k}")] - 0.5 * after[f"s{k % 2}'"]
            for k in range(4)
        ]
        parts.append(
            after["reward"]
            + sum(after[f"s{k}'"].astype(float) ** 2 for k in range(4))
            + 0.01 * np.square(actions[:, 0], dtype=float).sum(axis=1)
        )
        residuals.append(parts)
    np.testing.assert_allclose(residuals[1], residuals[0], rtol=0, atol=2e-6)
    np.testing.assert_allclose(residuals[2], residuals[0], rtol=0, atol=2e-6)
    np.testing.assert_allclose(np.array(residuals[0])[4], 0, atol=2e-6)


def test_settings_are_in_the_graph():
    graph = drift_control_v0.batched_env(1, "hidden", distractors=1).graph()
    assert graph.variables == (
        "s0", "s1", "s2", "s3", "d0", "a0", "a1", "s0'", "s1'", "s2'", "s3'", "d0'", "reward"
    )  # fmt: skip
    assert graph.hidden == ("s1", "s2", "s1'", "s2'")
    assert {("d0", "d0'"), ("s0'", "d0'"), ("s0", "s0'"), ("s0", "s1'"), ("a0", "reward")} <= set(graph.edges)
    shifted = drift_control_v0.batched_env(1, "sensor_shift").graph()
    assert not [edge for edge in shifted.edges if "d" in edge[0][0] + edge[1][0]]
    free = drift_control_v0.batched_env(1, action_cost=0.0, actions="discrete").graph()
    assert [edge for edge in free.edges if edge[0] == "a"] == [("a", "s0'"), ("a", "s1'"), ("a", "s2'")]
    assert free.hidden == ()


def test_components_that_are_set_stay_within_what_a_step_can_lead_out_of():
    env = drift_control_v0.batched_env(2, out_radius=3.0)
    env.reset(0)
    mask, values = np.zeros((2, 4), bool), np.full((2, 4), 2.0)
    mask[0] = True
    env.intervene(mask, values)
    assert env.arrays.components[0].tolist() == [2.0] * 4  # beyond the ball
    assert env.running.all()
    _, terminated, _ = env.step(np.zeros((2, 1, 2), np.float32))
    assert terminated[:, 0].tolist() == [True, False]
