"""Branches of an episode and explanations of decisions, beside closed forms and episodes that are played anew."""

import numpy as np
import pytest
import torch
from test_diagnose import RSSM, actor_of, drift_policy
from toy_policies import linear_policy, toy_policy

from qio_envs import environment
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.decisions import deciding_team, decisions
from qio_rllib.acting.policy import EpisodeStreams, GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, GroupInputs, Team
from qio_rllib.experiments.explanation import explain
from qio_rllib.models.policy_network import EPSILON_GREEDY, PolicyNetwork, PolicySpec
from qio_rllib.sampling.branches import ACTION, OBSERVATION, STATE, Branches, Change, Moment
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.stepper import EnvStepper

SEED = 11
LSTM = {"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": 4}
GAIN = np.array([[-0.4, 0.1, 0.0, 0.2], [0.3, -0.2, 0.1, 0.0]])
CHAIN_GAIN = np.array([[0.3, -0.1, 0.2], [0.1, 0.2, 0.0]])


def moments_of(policy, steps, explore=False):
    """The first moments of the episode."""
    env = make_vector_env(policy.env, dict(policy.env_config), 1)
    stepper, rng = EnvStepper(env, deciding_team(policy.team)), EpisodeStreams([SEED])
    stepper.reset(np.array([SEED], np.uint64))
    found = []
    for _ in range(steps):
        found.append(Moment.of(stepper, rng, with_env=True))
        step = stepper.step(rng, explore)
        stepper.advance(step)
    return found, env


def decided(policy, moment, steps, changes, env, explore=False):
    team = deciding_team(policy.team)
    acted, alive = Branches(team, env.env, explore).decide(moment, steps, changes)
    group = team.groups[0]
    return decisions(group, acted[0], explore)[:, 0], alive[:, 0]


def next_drift(s, a):
    """The mean of the next state for one state."""
    s0, s1, s2, s3 = np.moveaxis(np.asarray(s, float), -1, 0)
    a0, a1 = np.moveaxis(np.asarray(a, float), -1, 0)
    return np.stack(
        [s0 + 0.1 * a0 + 0.05 * np.sin(s1), s1 + 0.1 * a1 + 0.02 * s0 * s2, 0.9 * s2 + 0.1 * np.tanh(a0 + a1),
         0.95 * s3],
        axis=-1,
    )  # fmt: skip


@pytest.mark.parametrize("lag", [0, 1, 3])
@pytest.mark.parametrize("column", range(4))
def test_in_drift_control_decisions_of_a_linear_policy_are_those_of_the_equations(lag, column):
    """The noise is the difference between an episode and its mean step, and the same in every branch."""
    policy = linear_policy("drift_control_v0", GAIN)
    moments, env = moments_of(policy, 6)
    states = np.stack([moment.env["components"][0].astype(float) for moment in moments])
    values = np.array([-1.0, -0.2, 0.7], np.float32)
    found, _ = decided(policy, moments[5 - lag], lag, [Change(STATE, f"s{column}", values)], env)
    state = np.tile(states[5 - lag], (4, 1))
    state[1:, column] = values
    for step in range(5 - lag, 5):
        noise = states[step + 1] - next_drift(states[step], GAIN @ states[step])
        state = next_drift(state, state @ GAIN.T) + noise
    np.testing.assert_allclose(found, state @ GAIN.T, atol=2e-6)
    np.testing.assert_allclose(found[0], GAIN @ states[5], atol=2e-6)


def test_in_the_chain_decisions_of_a_linear_policy_are_those_of_the_equations():
    policy = linear_policy("causal_chain_v0", CHAIN_GAIN)
    moments, env = moments_of(policy, 5)
    here, before = (moments[k].env["values"][0].astype(float) for k in (4, 3))
    set_to = np.array([-0.5, 0.5], np.float32)
    changes = [
        Change(STATE, "x1", set_to),
        Change(STATE, "x2'", set_to),
        Change(STATE, "x3'", set_to),
        Change(ACTION, 0, set_to),
        Change(ACTION, 1, set_to),
    ]
    found, _ = decided(policy, moments[3], 1, changes, env)
    shifts = {}
    for k, name in enumerate(("x1", "x2", "x3", "a0", "a1")):
        shifts[name] = found[1 + 2 * k : 3 + 2 * k] - found[0]
    a0 = (CHAIN_GAIN @ before)[0]
    x1 = set_to - before[0]
    x2 = 0.7 * x1 + 0.5 * CHAIN_GAIN[0, 0] * x1  # by the world and by what the policy does
    expected = {
        "x1": np.outer(x2, CHAIN_GAIN[:, 1]) + np.outer(0.8 * x2 + 0.3 * x1, CHAIN_GAIN[:, 2]),
        "x2": np.outer(set_to - here[1], CHAIN_GAIN[:, 1] + 0.8 * CHAIN_GAIN[:, 2]),
        "x3": np.outer(set_to - here[2], CHAIN_GAIN[:, 2]),
        "a0": np.outer(set_to - a0, 0.5 * CHAIN_GAIN[:, 1] + 0.4 * CHAIN_GAIN[:, 2]),
        "a1": np.zeros((2, 2)),  # no ancestor
    }
    for name, shift in expected.items():
        np.testing.assert_allclose(shifts[name], shift, atol=2e-6, err_msg=name)


def played(policy, change, value, step, begin, explore=False):
    """The action of a step where one thing was set in another, by a player that carries its own memory."""
    env = environment(policy.env).batched_env(1, **policy.env_config)
    env.reset([SEED])
    player, agents = policy.player(explore, SEED), env.possible_agents
    for now in range(step + 1):
        if now == begin and change.kind == STATE:
            mask = np.array([[name == change.key for name in env.intervention_variables]])
            env.intervene(mask, np.full(mask.shape, value))
        obs = env.observe()[0]
        if now == begin and change.kind == OBSERVATION:
            obs[change.agent, change.key] = value
        actions = player.act(dict(zip(agents, obs, strict=True)))
        joint = np.stack([np.asarray(actions[agent]) for agent in agents])[None]
        if now == begin and change.kind == ACTION:
            joint[(0, change.agent, *(() if change.key is None else (change.key,)))] = value
        if now < step:
            env.step(joint)
    return joint[0, 0]


CASES = {
    "memory, state": ("drift_control_v0", LSTM, Change(STATE, "s0", np.float32([0.5, -1.0]))),
    "memory, action": ("drift_control_v0", LSTM, Change(ACTION, 1, np.float32([0.5, -1.0]))),
    "memory, observation": ("drift_control_v0", LSTM, Change(OBSERVATION, slice(0, 1), np.float32([[0.5], [-1.0]]))),
    "mechanism": ("confounded_control_v0", None, Change(STATE, "m'", np.float32([0.5, -1.0]))),
    "confounder": ("confounded_control_v0", LSTM, Change(STATE, "u", np.float32([0.5, -1.0]))),
    "another agent": ("swarm_cooperative_v0", LSTM, Change(ACTION, 0, np.float32([0.5, -1.0]), agent=2)),
}  # fmt: skip


@pytest.mark.parametrize("explore", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("case", CASES)
def test_a_branch_is_the_episode_played_anew_with_one_thing_set(case, explore):
    env_id, network, change = CASES[case]
    policy = toy_policy(env_id, network=network, scale=1.5)
    moments, env = moments_of(policy, 5, explore)
    team = deciding_team(policy.team)
    acted, alive = Branches(team, env.env, explore).decide(moments[1], 3, [change])
    assert alive.all()
    actions = team.groups[0].actor.action.to_env(acted[0].actions)[:, 0]
    for row, value in enumerate(change.values, start=1):
        expected = played(policy, change, value, step=4, begin=1, explore=explore)
        np.testing.assert_allclose(actions[row], expected, atol=2e-6)
    assert np.abs(actions[1:] - actions[0]).max() > 5e-6
    np.testing.assert_allclose(
        actions[0], played(policy, change, None, step=4, begin=-1, explore=explore), atol=2e-6
    )


def test_what_is_no_ancestor_changes_nothing_in_the_world_either():
    policy = toy_policy("drift_control_v0", {"scenario": "hidden"})
    moments, env = moments_of(policy, 6)
    still = [Change(STATE, "s2", np.float32([1.5, -1.5])), Change(ACTION, 1, np.float32([1.0, -1.0]))]
    found, _ = decided(policy, moments[4], 1, still, env)
    np.testing.assert_allclose(found[1:], np.tile(found[0], (4, 1)), atol=1e-6)
    found, _ = decided(policy, moments[3], 2, still, env)  # a step more, and they are ancestors
    assert (np.abs(found[1:] - found[0]).max(axis=1) > 1e-6).all()


def test_who_remembers_its_actions_remembers_those_that_were_set(monkeypatch):
    policy = drift_policy(RSSM)
    moments, env = moments_of(policy, 2)
    branches = Branches(deciding_team(policy.team), env.env, False)
    remembered = []
    act = branches.team.act

    def spy(inputs, alive, states, *rest):
        remembered.append(states[0]["previous_action"].copy())
        return act(inputs, alive, states, *rest)

    monkeypatch.setattr(branches.team, "act", spy)
    branches.decide(moments[0], 1, [Change(ACTION, 0, np.float32([0.25, -0.5]))])
    assert remembered[1][1:, 0, 0].tolist() == [0.25, -0.5]
    assert (remembered[1][1:, 0, 1] == remembered[1][0, 0, 1]).all()


def test_a_branch_whose_episode_ends_has_no_decision():
    policy = linear_policy(
        "drift_control_v0", np.zeros((2, 4)), torch.tensor([1.0, 0.0]), {"out_radius": 2.0}
    )
    moments, env = moments_of(policy, 2)
    limit = env.env.intervention_spaces["s0"].high.item()
    change = Change(STATE, "s0", np.float32([limit, -0.9]))
    found, alive = decided(policy, moments[0], 6, [change], env)
    assert alive.tolist() == [True, False, True]
    assert np.isfinite(found).all()


# -- explanations


def test_an_explanation_finds_what_a_linear_policy_looks_at():
    """a0 = 0.1 s3, and no action reaches s3: its shift fades by 0.95 a step, and nothing else moves the decision."""
    gain = np.zeros((2, 4))
    gain[0, 3] = 0.1
    found = explain(linear_policy("drift_control_v0", gain), SEED, step=10, lags=3, draws=1)
    by_name = {(one.variable, one.lag): one for one in found.influences}
    assert set(by_name) == {(f"s{i}", lag) for i in range(4) for lag in range(4)} | {
        (f"a{i}", lag) for i in range(2) for lag in range(1, 4)
    }
    now = by_name["s3", 0]
    assert now.shift > 0
    assert found.action["a0"] == pytest.approx(0.1 * now.value, abs=1e-6)
    fits = []
    for value in (now.value + 10 * now.shift, now.value - 10 * now.shift):  # the same value at every lag
        expected = [0.1 * 0.95**lag * abs(value - by_name["s3", lag].value) for lag in range(4)]
        fits.append(np.allclose([by_name["s3", lag].shift for lag in range(4)], expected, atol=1e-5))
    assert any(fits)
    assert all(one.shift == 0 for one in found.influences if one.variable != "s3")
    assert [one.variable for one in found.strongest] == ["s3"]
    assert found.strongest[0].changes == pytest.approx((found.strongest[0].shift, 0.0))


def test_reference_values_are_those_of_the_policys_own_episodes():
    """x1 is normal with deviation 0.5 in play: the mean distance from what it was follows."""
    policy = linear_policy("causal_chain_v0", [[0.1, 0, 0], [0, 0, 0]])
    found = explain(policy, SEED, step=3, lags=1, draws=4000, episodes=100)
    one = next(one for one in found.influences if (one.variable, one.lag) == ("x1", 0))
    drawn = np.random.default_rng(0).normal(0, 0.5, 100_000)
    assert one.shift == pytest.approx(0.1 * np.abs(drawn - one.value).mean(), rel=0.05)
    assert one.standard_error == pytest.approx(0.1 * np.abs(drawn - one.value).std() / np.sqrt(4000), rel=0.1)


def test_what_is_no_ancestor_is_not_played(monkeypatch):
    tried = set()
    decide = Branches.decide

    def spy(self, moment, steps=0, changes=()):
        tried.update((change.kind, change.key, steps) for change in changes)
        return decide(self, moment, steps, changes)

    monkeypatch.setattr(Branches, "decide", spy)
    found = explain(toy_policy("causal_chain_v0"), SEED, step=4, lags=2, draws=2)
    assert tried == {
        (STATE, "x1", 0), (STATE, "x1", 1), (STATE, "x1", 2), (STATE, "x2'", 1), (STATE, "x2'", 2),
        (STATE, "x3'", 1), (STATE, "x3'", 2), (ACTION, 0, 1), (ACTION, 0, 2),
    }  # fmt: skip
    still = [one for one in found.influences if not one.is_ancestor]
    assert [(one.variable, one.lag, one.shift) for one in still] == [("a1", 1, 0.0), ("a1", 2, 0.0)]


def test_draws_of_actions_are_legal(monkeypatch):
    settings = {"height": 5, "width": 5, "num_uavs": 2, "max_steps": 12, "mask_blocked_moves": True}
    policy = toy_policy("forest_uav_v0", settings)
    checked = []
    decide = Branches.decide

    def spy(self, moment, steps=0, changes=()):
        for change in changes:
            if change.kind == ACTION:
                checked.append(moment.masks[0][0, change.agent][change.values].all())
        return decide(self, moment, steps, changes)

    monkeypatch.setattr(Branches, "decide", spy)
    found = explain(policy, SEED, step=5, agent="uav_1", lags=4, draws=8, explore=True)
    assert len(checked) == 8
    assert all(checked)
    names = {one.variable for one in found.influences}
    assert {"uav_0.action", "uav_1.action", "obs.position", "obs.time_left"} <= names
    assert found.agent == "uav_1"
    assert "obs was set in what the agent sees, not in the world" in found.notes


def test_without_a_graph_everything_is_a_candidate():
    team = toy_policy("drift_control_v0", {"actions": "discrete", "as_team": True})
    found = explain(team, SEED, step=4, lags=1, draws=2)
    one = explain(toy_policy("drift_control_v0", {"actions": "discrete"}), SEED, step=4, lags=1, draws=2)
    assert all(influence.is_ancestor for influence in found.influences)
    assert [(i.variable, i.lag, i.shift) for i in found.influences if i.kind == STATE] == [
        (i.variable, i.lag, i.shift) for i in one.influences if i.kind == STATE
    ]
    assert {i.variable for i in found.influences if i.kind == ACTION} == {"action"}


def test_outside_the_suite_the_present_observation_is_set():
    gain = np.array([[0.0, 0, 0, 0], [0.5, 0, 0, 2.0]])
    policy = linear_policy("CartPole-v1", gain)
    found = explain(policy, SEED, step=4, draws=1)
    assert [(one.variable, one.lag) for one in found.influences] == [(f"obs[{i}]", 0) for i in range(4)]
    assert [one.shift > 0 for one in found.influences] == [True, False, False, True]
    obs = [one.value for one in found.influences]
    logit = gain[1] @ obs
    assert found.decision == pytest.approx((1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))), abs=1e-5)
    assert any("cannot be branched" in note for note in found.notes)


def test_where_draws_depend_on_actions_only_the_present_is_set():
    found = explain(toy_policy("qubit_control_v0", {"scenario": "noisy"}), SEED, step=3, draws=2)
    assert found.lags == 0
    assert {one.kind for one in found.influences} == {OBSERVATION}
    assert any("no exact counterfactuals" in note for note in found.notes)


def test_the_middle_of_the_episode_is_explained_by_itself():
    policy = toy_policy("drift_control_v0", {"max_steps": 7})
    found = explain(policy, SEED, draws=2, episodes=2)
    assert (found.step, found.lags) == (3, 3)
    assert found.rows() == explain(policy, SEED, 3, "agent_0", 3, draws=2, episodes=2).rows()


def test_who_acts_by_a_world_model_decides_on_what_it_does():
    policy = drift_policy(RSSM)
    found = explain(policy, SEED, step=4, lags=2, draws=3, episodes=2)
    moments, env = moments_of(policy, 5)
    team = deciding_team(policy.team)
    acted, _ = Branches(team, env.env, False).decide(moments[4])
    np.testing.assert_allclose(found.decision, team.groups[0].actor.action.to_env(acted[0].actions)[0, 0])
    assert {one.variable for one in found.influences if one.shift > 0} >= {"s0", "a0"}
    assert all(one.is_ancestor for one in found.influences)  # what it did stays in its memory


def test_actions_that_agents_remember_of_each_other_are_not_set():
    env = make_vector_env("swarm_cooperative_v0", {}, 1)
    space, action = env.observation_spaces["agent_0"], ActionSpec.of(env.action_spaces["agent_0"], True)
    actor = actor_of(space.shape[0], action, {**RSSM, "attention_heads": 1, "attention_size": 4})
    group = AgentGroup("shared", env.agents, np.arange(len(env.agents)), actor)
    policy = Policy(
        Team([group]), {"shared": GroupSpaces(space.shape)}, "swarm_cooperative_v0", {"max_steps": 6}
    )
    found = explain(policy, SEED, step=3, lags=1, draws=2, episodes=2)
    assert {one.kind for one in found.influences} == {OBSERVATION}
    assert "actions of shared were not set: its agents remember each other's" in found.notes


@pytest.mark.parametrize("explore", [False, True])
def test_an_epsilon_greedy_policy_decides_on_its_best_action(explore):
    network = PolicyNetwork(PolicySpec((1,), EPSILON_GREEDY, 2, network={"fcnet_hiddens": []})).eval()
    layer = network.head.layers[0]
    with torch.no_grad():
        layer.weight[:] = torch.tensor([[1.0], [-1.0]])
        layer.bias.zero_()
        network.exploration.fill_(0.5)
    group = AgentGroup("m", ("a",), np.arange(1), NetworkActor(network, ActionSpec(2)))
    team = deciding_team(Team([group]))
    obs = np.float32([[[0.1]], [[-3.0]]])
    acted = team.act([GroupInputs(obs, None)], np.ones((2, 1), bool), [{}], np.random.default_rng(0), explore)
    best, other = (0.75, 0.25) if explore else (1.0, 0.0)
    expected = [[[best, other]], [[other, best]]]
    np.testing.assert_allclose(decisions(team.groups[0], acted[0], explore), expected, atol=1e-6)
