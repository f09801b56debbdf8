"""What a policy experiences, as data: rows, names, whose they are; graphs and effects of it."""

import numpy as np
import pytest
from toy_lives import Lives
from toy_policies import linear_policy, toy_policy

import qio_envs
from qio_envs.api import ConfigError
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.causal.datasets import INTERVENED, POLICY, RANDOM, REMEMBERING, play_graph
from qio_rllib.cli import main
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.recorded_transitions import played_transitions

GAIN = np.array([[-0.4, 0.1, 0.0, 0.2], [0.3, -0.2, 0.1, 0.0]])
QUIET = {"process_noise": 0.0, "drive_noise": 0.0, "max_steps": 7}


def test_rows_are_steps_of_the_policy_in_its_environment():
    policy = linear_policy("drift_control_v0", GAIN, settings=QUIET)
    data = played_transitions(policy, 300, seed=3)
    assert data.input_names == ("s0", "s1", "s2", "s3", "a0", "a1")
    assert data.target_names == ("s0'", "s1'", "s2'", "s3'", "reward")
    assert len(data.inputs) == len(data.targets) == 300
    s0, s1, s2, s3, a0, a1 = data.inputs.T
    expected = [
        s0 + 0.1 * a0 + 0.05 * np.sin(s1),
        s1 + 0.1 * a1 + 0.02 * s0 * s2,
        0.9 * s2 + 0.1 * np.tanh(a0 + a1),
        0.95 * s3,
    ]
    np.testing.assert_allclose(data.targets[:, :4].T, expected, atol=1e-6)
    cost = (data.targets[:, :4] ** 2).sum(1) + 0.01 * (a0**2 + a1**2)
    np.testing.assert_allclose(data.targets[:, 4], -cost, atol=1e-5)
    # sampled actions of the policy, not random ones: means by its gain, deviation exp(-2)
    away = data.inputs[:, 4:] - data.inputs[:, :4] @ GAIN.T
    np.testing.assert_allclose(away.std(0), np.exp(-2.0), rtol=0.15)
    again, other = (played_transitions(policy, 300, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.inputs, data.inputs)
    assert not np.array_equal(other.inputs, data.inputs)


def test_agents_of_one_module_are_pooled_and_one_can_be_chosen():
    policy = toy_policy("swarm_cooperative_v0", {"max_steps": 5})
    agents = policy.team.num_agents
    pooled = played_transitions(policy, 16 * agents, seed=0)
    one = played_transitions(policy, 16, seed=0, agent="agent_1")
    by_agent = pooled.inputs.reshape(16, agents, -1)
    np.testing.assert_array_equal(by_agent[:, 1], one.inputs)
    assert not np.array_equal(by_agent[:, 0], one.inputs)
    assert one.input_names[-2:] == ("action[0]", "action[1]")
    several = toy_policy("swarm_cooperative_v0", {"max_steps": 5}, modules=2)
    assert len(played_transitions(several, 5, 0, "agent_0").inputs) == 5
    with pytest.raises(ConfigError, match="--agent: the modules m0, m1 act for different agents"):
        played_transitions(several, 5, 0)


def test_only_steps_of_agents_that_act_are_rows():
    """a: 2 steps; b: comes in step 2 for 3 steps; c: 5 steps; observations hold the step at [1]."""
    register_env("lives_of_transitions", lambda config: Lives())
    data = played_transitions(toy_policy("lives_of_transitions"), 10 * 16, seed=0)
    assert data.num_one_hot == 3
    np.testing.assert_array_equal(data.inputs[:, -3:].sum(1), 1.0)
    assert np.bincount(data.inputs[:, 1].astype(int)).tolist() == [32, 32, 32, 32, 32]
    np.testing.assert_array_equal(data.targets[:, 1], data.inputs[:, 1] + 1)


def test_an_unknown_agent_and_no_transitions_are_refused():
    policy = toy_policy("CartPole-v1")
    with pytest.raises(ConfigError, match="--agent: the environment has one agent without a name, got 'x'"):
        played_transitions(policy, 5, 0, "x")
    with pytest.raises(ConfigError, match="count: expected at least 1 transition, got 0"):
        played_transitions(policy, 0, 0)


def test_the_graph_of_play_knows_how_actions_came_about():
    env = qio_envs.environment("drift_control_v0").batched_env(1, "hidden")
    by_play = {play: play_graph(env, play) for play in (RANDOM, INTERVENED, POLICY, REMEMBERING)}
    assert by_play[RANDOM].parents("a0") == set()
    assert by_play[RANDOM].parents("s0") == {"past"}
    assert by_play[INTERVENED].parents("s0") == set()
    assert by_play[POLICY].parents("a0") == {"s0", "s3"}
    assert by_play[REMEMBERING].parents("a0") == {"s0", "s3", "past"}
    assert by_play[POLICY].hidden == {"s1", "s2", "s1'", "s2'", "past"}
    assert play_graph(qio_envs.environment("swarm_cooperative_v0").batched_env(1), POLICY) is None


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_graph_of_a_policys_experience_is_found(here, capsys):
    save_policy(linear_policy("drift_control_v0", GAIN, settings={"max_steps": 20}), "policy.pt")
    assert main(["causal", "discover", "policy.pt", "--samples", "2000", "--out", "found"]) == 0
    text = capsys.readouterr().out
    assert "policy.pt in drift_control_v0, 2,000 rows, 11 variables" in text
    assert "s0' <- s0, s1, a0\n" in text
    assert "s3' <- s3\n" in text
    assert (here / "found" / "graph.json").exists()


def test_effects_of_a_policys_experience_follow_from_the_environments_graph(here, capsys):
    save_policy(linear_policy("drift_control_v0", GAIN), "policy.pt")
    assert main(["causal", "effect", "policy.pt", "--treatment", "a1", "--outcome", "s1'"]) == 0
    text = capsys.readouterr().out
    assert "back-door, adjusting for s0, s1, s2" in text
    assert float(text.split(": ")[1].split(",")[0]) == pytest.approx(0.1, abs=0.02)
    # an action of two choices is one number; what a gambler intends is not among the variables and confounds
    save_policy(toy_policy("greedy_casino_v0"), "casino.pt")
    assert main(["causal", "effect", "casino.pt", "--treatment", "machine", "--outcome", "reward"]) == 2
    assert "the path machine <- intent <- drunk -> reward stays open" in capsys.readouterr().err
    save_policy(toy_policy("greedy_casino_v0", {"scenario": "no_intent"}), "blind.pt")
    arguments = ["causal", "effect", "blind.pt", "--treatment", "machine", "--outcome", "reward"]
    assert main([*arguments, "--samples", "4000"]) == 0
    text = capsys.readouterr().out
    assert float(text.split(": ")[1].split(",")[0]) == pytest.approx(0.0, abs=0.06)


def test_a_memory_that_may_confound_is_refused(here, capsys):
    network = {"fcnet_hiddens": [8], "use_lstm": True, "lstm_cell_size": 4}
    save_policy(toy_policy("drift_control_v0", {"scenario": "hidden"}, network), "policy.pt")
    assert main(["causal", "effect", "policy.pt", "--treatment", "a0", "--outcome", "s0'"]) == 2
    error = capsys.readouterr().err
    assert "a0 <- past -> s1 -> s0' stays open (past, s1 are hidden)" in error
    assert error.count("\n") == 1
