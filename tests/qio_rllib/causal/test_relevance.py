"""What rewards depend on through time."""

import numpy as np

from qio_envs import drift_control_v0
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.relevance import relevant_components, reward_ancestors


def test_a_component_matters_through_later_steps_and_hidden_ones():
    edges = [
        ("z", "y'"), ("y", "x'"), ("x'", "reward"),  # z takes three steps to the reward
        ("x'", "seen'"), ("seen", "seen'"),  # follows the state and changes nothing
        ("a", "x'"),  # that a policy acts on something makes it no ancestor
    ]  # fmt: skip
    names = ["x", "y", "z", "seen", "a", "x'", "y'", "z'", "seen'", "reward"]
    assert reward_ancestors(CausalGraph(edges, names, hidden=["y"])) == {"y", "z"}
    assert reward_ancestors(CausalGraph([], ["x", "x'", "reward"])) == set()


def test_distractors_do_not_matter():
    described = drift_control_v0.batched_env(1, scenario="distractors").graph()
    graph = CausalGraph(described.edges, described.variables)
    assert reward_ancestors(graph) == {"s0", "s1", "s2", "s3"}


def test_a_mask_says_the_same():
    mask = np.zeros((6, 6), bool)  # 4 components, 2 actions; reward sees 1, which sees 3; 2 sees all
    mask[4, [1, 4]] = True
    mask[1, 3] = True
    mask[2] = True
    assert relevant_components(mask).tolist() == [False, True, False, True]
