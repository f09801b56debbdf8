"""The causal model of a step: against structural models and exact counterfactuals, and what is refused."""

import io

import gymnasium
import numpy as np
import pytest
import torch

from qio_envs import causal_chain_v0, drift_control_v0
from qio_envs.api import ConfigError, InterventionError
from qio_rllib.causal.datasets import TransitionData, intervened_transitions, observed_transitions, true_mask
from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.model import CausalModel, Step
from qio_rllib.causal.moments import DataError
from qio_rllib.causal.scm import StructuralModel
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings

SMALL = EnsembleSettings(members=2, hiddens=(32,))
CHAIN = [("a0", "x2'"), ("x1", "x2'"), ("x1", "x3'"), ("x2'", "x3'"), ("x3'", "reward")]
SLOPES = {
    "x2'": {"x1": 0.7, "a0": 0.5},
    "x3'": {"x2'": 0.8, "x1": 0.3},
    "reward": {"x3'": 1.0},
}


def uniform(rng, count):
    return rng.uniform(-1.0, 1.0, count)


def structural_chain():
    """The chain as a linear Gaussian model of the same variables as `causal_chain_v0`."""
    names = ["x1", "x2", "x3", "a0", "a1", "x1'", "x2'", "x3'", "reward"]
    noise = dict.fromkeys(names, 0.5) | {"a0": uniform, "a1": uniform, "x2'": 0.3, "x3'": 0.4, "reward": 0.0}
    return StructuralModel.linear(CausalGraph(CHAIN, names), SLOPES, noise)


def rows_of(columns, replaced=()):
    inputs, targets = ("x1", "x2", "x3", "a0", "a1"), ("x1'", "x2'", "x3'", "reward")
    return TransitionData(
        np.stack([columns[name] for name in inputs], axis=1),
        np.stack([columns[name] for name in targets], axis=1),
        inputs,
        targets,
        frozenset(replaced),
    )


def step_of(data, size):
    return Step(data.inputs[:, :size], data.inputs[:, size:], data.targets[:, :-1], data.targets[:, -1])


@pytest.fixture(scope="module")
def chain():
    """A causal model of the chain from observations and from rows in which x2' was set."""
    truth, rng = structural_chain(), np.random.default_rng(0)
    done = truth.sample(1000, rng, {"x2'": rng.uniform(-2, 2, 1000)})
    torch.manual_seed(0)
    model = CausalModel.of_env(causal_chain_v0.batched_env(1), SMALL)
    return model.fit([rows_of(truth.sample(2000, rng)), rows_of(done, ["x2'"])], steps=800)


def test_counterfactuals_of_the_chain_are_those_of_its_equations(chain):
    truth = structural_chain()
    columns = truth.sample(300, np.random.default_rng(1))
    step = step_of(rows_of(columns), 3)
    other = np.random.default_rng(2).uniform(-1, 1, (300, 2))
    with torch.no_grad():
        found = chain.counterfactual(step, other)
        expected = truth.counterfactual(columns, {"a0": other[:, 0], "a1": other[:, 1]})
        np.testing.assert_allclose(found.next_state[:, 1], expected["x2'"], atol=0.1)
        np.testing.assert_allclose(found.next_state[:, 2], expected["x3'"], atol=0.1)
        closed = columns["x3'"] + 0.4 * (other[:, 0] - columns["a0"])
        np.testing.assert_allclose(found.reward, closed, atol=0.12)
        assert np.abs(found.reward.numpy() - closed).mean() < 0.03
        # do on a mechanism: x3' hears from x2' by 0.8, whatever x2' was.
        set_to = chain.counterfactual(step, do={"x2'": 0.5})
        expected = truth.counterfactual(columns, {"x2'": 0.5})
        assert (set_to.next_state[:, 1] == 0.5).all()
        assert np.abs(set_to.next_state[:, 2].numpy() - expected["x3'"]).mean() < 0.03
        residuals = chain.residuals(step)
        assert np.abs(residuals[:, 1].numpy() - truth.abduct(columns)["x2'"]).mean() < 0.03


def test_rows_in_which_a_target_was_set_do_not_teach_its_mechanism(chain):
    x1, a0 = torch.tensor([-0.5, 0.0, 0.5]), torch.tensor([1.0, -1.0, 0.5])
    state, action = torch.stack([x1, x1 * 0, x1 * 0], 1), torch.stack([a0, a0 * 0], 1)
    with torch.no_grad():
        found = chain.predict(state, action)
        assert (found.next_state[:, 1] - (0.7 * x1 + 0.5 * a0)).abs().max() < 0.07
        # and those rows widen what x3' was learned from: seen alone, x2' hardly leaves [-1, 1]
        done = chain.predict_intervention(state, action, {"x2'": -1.9})
        assert (done.next_state[:, 2] - (0.8 * -1.9 + 0.3 * x1)).abs().max() < 0.12


def test_what_is_no_ancestor_changes_nothing_to_the_bit_and_has_no_gradient(chain):
    step = step_of(rows_of(structural_chain().sample(50, np.random.default_rng(3))), 3)
    plain = chain.predict(step.state, step.action)
    for do in ({"a1": -0.7}, {"x2": 2.0}, {2: -1.0}, {"a1": torch.linspace(-1, 1, 50)}):
        after = chain.predict_intervention(step.state, step.action, do)
        assert torch.equal(after.next_state, plain.next_state)
        assert torch.equal(after.reward, plain.reward)
    after = chain.predict_intervention(step.state, step.action, {"x2'": 1.0})
    assert torch.equal(after.next_state[:, 0], plain.next_state[:, 0])
    assert not torch.equal(after.next_state[:, 2], plain.next_state[:, 2])
    after = chain.predict_intervention(step.state, step.action, {"x3'": 1.0})
    assert torch.equal(after.next_state[:, :2], plain.next_state[:, :2])
    state = torch.tensor(step.state, dtype=torch.float32, requires_grad=True)
    action = torch.tensor(step.action, dtype=torch.float32, requires_grad=True)
    chain.predict(state, action).reward.sum().backward()
    assert (state.grad[:, 1:] == 0).all()
    assert (action.grad[:, 1] == 0).all()
    assert (action.grad[:, 0] != 0).all()  # through x2' and x3'


def test_a_counterfactual_without_a_change_is_what_was_recorded(chain):
    step = step_of(rows_of(structural_chain().sample(100, np.random.default_rng(4))), 3)
    with torch.no_grad():
        same = chain.counterfactual(step, step.action, {"a1": 1.0})
    assert torch.equal(same.next_state, torch.tensor(step.next_state, dtype=torch.float32))
    assert torch.equal(same.reward, torch.tensor(step.reward, dtype=torch.float32))


def test_drift_control_is_predicted_and_answers_as_the_environment_does():
    env = drift_control_v0.batched_env(20, distractors=2)
    torch.manual_seed(0)
    model = CausalModel.of_env(env, EnsembleSettings(members=2, hiddens=(64,)))
    # In the graph the reward follows from the components after the step, and these are what distractors follow.
    assert model.graph.parents("reward") == {"s0'", "s1'", "s2'", "s3'", "a0", "a1"}
    model.fit([observed_transitions(env, 1500, 0), intervened_transitions(env, 1500, 1)], steps=1500)
    env.reset(7)
    rng = np.random.default_rng(0)
    for _ in range(10):
        env.step(rng.uniform(-1, 1, (20, 1, 2)).astype(np.float32))
    values = np.tile(np.array([[0.8, -0.5, 1.0, 0.3, 0.0, 0.0]], np.float32), (20, 1))
    done = env.branch(1)
    mask = np.array([[False, True, True, False, True, False]]).repeat(20, 0)
    done.intervene(mask, values)
    state = env.observe()[:, 0].copy()
    taken, other = rng.uniform(-1, 1, (2, 20, 1, 2)).astype(np.float32)
    both = env.counterfactual(np.stack([taken, other]))
    rewards, _, _ = done.step(taken)
    next_state = both.observations[:, :, 0]
    step = Step(state, taken[:, 0], next_state[0], both.rewards[0, :, 0])
    with torch.no_grad():
        found = model.counterfactual(step, other[:, 0])
        assert np.abs(found.next_state.numpy() - next_state[1]).max() < 0.02
        assert np.abs(found.reward.numpy() - both.rewards[1, :, 0]).mean() < 0.01
        assert np.abs(both.rewards[1] - both.rewards[0]).mean() > 0.08  # the effect of the other actions
        do = {"s1": -0.5, "s2": 1.0, "d0": 0.0}
        answer = model.counterfactual(step, do=do)
        assert np.abs(answer.next_state.numpy() - done.observe()[:, 0]).max() < 0.05
        assert np.abs(answer.reward.numpy() - rewards[:, 0]).mean() < 0.08  # of 0.7
        # s3 has one cause, and no intervention elsewhere touches it.
        assert torch.equal(answer.next_state[:, 3], torch.from_numpy(next_state[0, :, 3]))


def test_the_ensemble_of_a_run_is_a_causal_model_as_it_is():
    env = drift_control_v0.batched_env(1)
    mask = torch.from_numpy(true_mask(env))
    torch.manual_seed(0)
    ensemble = Ensemble(4, 2, SMALL, torch.cat([mask, mask[-1:]]))
    model = CausalModel.of_ensemble(ensemble, ["s0", "s1", "s2", "s3"], ["a0", "a1"], env.intervention_spaces)
    assert model.graph.parents("s2'") == {"s2", "a0", "a1"}
    state, action = torch.randn(5, 4), torch.rand(5, 2)
    with torch.no_grad():
        found, expected = model.predict(state, action), ensemble.step(state, action)
        torch.testing.assert_close(found.next_state, expected.state)
        torch.testing.assert_close(found.reward, expected.rewards)
        moved = model.predict_intervention(state, action, {"s0": 1.0})
        assert torch.equal(moved.next_state[:, 2:], found.next_state[:, 2:])
    dense = CausalModel.of_ensemble(Ensemble(4, 2, SMALL), ["s0", "s1", "s2", "s3"], ["a0", "a1"])
    assert all(len(dense.graph.parents(name)) == 6 for name in ("s3'", "reward"))
    with pytest.raises(ConfigError, match="names: expected 4 of the state and 2 of actions, got 1 and 2"):
        CausalModel.of_ensemble(ensemble, ["s0"], ["a0", "a1"])


def test_a_state_dictionary_brings_the_model_back_and_knows_its_graph(chain):
    buffer = io.BytesIO()
    torch.save(chain.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    again = CausalModel.of_env(causal_chain_v0.batched_env(1), SMALL)
    again.load_state_dict(state)
    rows, actions = torch.randn(5, 3), torch.rand(5, 2)
    assert torch.equal(again.predict(rows, actions).reward, chain.predict(rows, actions).reward)
    other = CausalModel.of_env(causal_chain_v0.batched_env(1), SMALL, CHAIN[1:])
    with pytest.raises(ConfigError, match="state_dict: belongs to a causal model with other edges"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("do", "error", "message"),
    [
        ({"x4": 1.0}, ConfigError, "do: there is no variable 'x4'"),
        ({9: 1.0}, ConfigError, "do: there is no variable 9; there are x1, x2"),
        ({"a0": 0.0, 3: 0.0}, ConfigError, "do: a0 is set twice"),
        ({"a0": 1.5}, InterventionError, "outside the space: a0: expected numbers from -1 to 1, got 1.5"),
        ({"x1": float("nan")}, InterventionError, "outside the space: x1: expected numbers from"),
        ({"x2": float("inf")}, InterventionError, "outside the space: x2: expected finite numbers, got inf"),
        ({"a0": np.zeros(3)}, InterventionError, r"expected one number or 2 for a0, got the shape \(3,\)"),
    ],
)
def test_interventions_that_make_no_sense_are_refused(chain, do, error, message):
    with pytest.raises(error, match=message):
        chain.predict_intervention(np.zeros((2, 3)), np.zeros((2, 2)), do)


def test_discrete_variables_take_their_values_alone():
    spaces = {"lamp": gymnasium.spaces.Discrete(2)}
    model = CausalModel(CausalGraph([("lamp", "lamp'")]), ["lamp"], ["push"], SMALL, spaces)
    model.predict_intervention(np.zeros((1, 1)), np.zeros((1, 1)), {"lamp": 1})
    with pytest.raises(InterventionError, match="lamp: expected integers from 0 to 1, got 0.5"):
        model.predict_intervention(np.zeros((1, 1)), np.zeros((1, 1)), {"lamp": 0.5})


def chain_data(**changes):
    columns = structural_chain().sample(20, np.random.default_rng(0))
    return rows_of(columns | changes)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda chain: chain.predict(np.full((2, 3), np.nan), np.zeros((2, 2))),
            DataError,
            "state: holds numbers that are not finite",
        ),
        (
            lambda chain: chain.predict(np.zeros((2, 3)), np.zeros((2, 1))),
            DataError,
            r"action: expected the shape \(2, 2\), got \(2, 1\)",
        ),
        (
            lambda chain: chain.fit(chain_data(x1=np.full(20, np.inf))),
            DataError,
            "x1: holds numbers that are not finite",
        ),
        (
            lambda chain: chain.fit(rows_of(structural_chain().sample(5, np.random.default_rng(0)), ["x3'"])),
            DataError,
            "x3': was set in all data",
        ),
        (
            lambda chain: chain.fit(observed_transitions(drift_control_v0.batched_env(1), 5, 0)),
            DataError,
            "data: expected the variables x1, x2, x3",
        ),
        (
            lambda chain: CausalModel(CausalGraph([("u", "x'")], hidden=["u"]), ["x"], ["a"]),
            GraphError,
            "graph: u hidden",
        ),
        (
            lambda chain: CausalModel(CausalGraph([("b", "x'")]), ["x"], ["a"]),
            GraphError,
            "graph: 'b' is no variable of the step",
        ),
        (
            lambda chain: CausalModel(CausalGraph([("reward", "x'")]), ["x"], ["a"]),
            GraphError,
            "graph: reward -> x'; a reward has no effects within its step",
        ),
        (lambda chain: CausalModel(CausalGraph(), ["x"], ["x"]), ConfigError, "names: x is given twice"),
        (
            lambda chain: CausalModel(CausalGraph(), ["x"], ["a"], EnsembleSettings(attention_heads=1)),
            ConfigError,
            "attention_heads does not go with a causal graph",
        ),
    ],
)
def test_what_does_not_fit_is_refused(chain, make, error, message):
    with pytest.raises(error, match=message):
        make(chain)
