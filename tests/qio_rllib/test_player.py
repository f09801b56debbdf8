"""`Player`: one episode of one environment, by agent or alone; who comes back remembers nothing; errors."""

import dataclasses

import numpy as np
import pytest
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec

GRU = {"use_gru": True, "gru_cell_size": 6}


def policy_of(agents=("a", "b", "c"), actions=4, masked=False, agent_id=False, box=False, **network):
    torch.manual_seed(0)
    size = 2 + (len(agents) if agent_id else 0)
    kind = "gaussian" if box else "categorical"
    spec = PolicySpec(
        (size,), kind, actions, has_action_mask=masked, network={"fcnet_hiddens": [8], **network}
    )
    action = ActionSpec(None, (-3.0,) * actions, (3.0,) * actions, True) if box else ActionSpec(actions)
    net = PolicyNetwork(spec)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
    group = AgentGroup("shared", tuple(agents), np.arange(len(agents)), NetworkActor(net, action), agent_id)
    return Policy(Team([group]), {"shared": GroupSpaces((2,), actions if masked else None)}, "env", {})


def obs(*values):
    return np.array(values, np.float32)


def test_actions_are_by_agent_and_alone():
    many = policy_of()
    acted = many.player().act({"c": obs(1, 2), "a": obs(0, 1)})
    assert list(acted) == ["c", "a"]
    assert all(type(action) is int for action in acted.values())
    one = policy_of(agents=(None,))
    alone, named = one.player().act(obs(1, 2)), one.player().act({None: obs(1, 2)})
    assert type(alone) is int
    assert named == {None: alone}
    # other agents, and more of them, change nothing in what an agent does
    assert acted["c"] == alone
    masked = policy_of(agents=(None,), masked=True)
    mask = np.array([0, 0, 1, 0], np.int8)
    assert masked.player().act({"observation": obs(1, 2), "action_mask": mask}) == 2


def test_continuous_actions_are_scaled_to_the_bounds():
    policy = policy_of(agents=(None,), actions=2, box=True)
    action = policy.player().act(obs(50, 50))
    assert action.dtype == np.float32
    assert action.shape == (2,)
    network = policy.team.groups[0].actor.network
    with torch.no_grad():
        mean = network.outputs(network.features(torch.tensor([[50.0, 50.0]]), None)[0])[0, :2]
    np.testing.assert_allclose(action, 3 * mean.clamp(-1, 1), atol=1e-5)


def test_masks_are_kept_to_when_sampling_too():
    policy = policy_of(masked=True)
    for explore in (False, True):
        player = policy.player(explore, seed=1)
        for step in range(60):
            legal = np.zeros(4, np.int8)
            legal[[step % 4, (step + 1) % 4]] = 1
            acted = player.act({a: {"observation": obs(step, 1), "action_mask": legal} for a in "ab"})
            assert all(legal[action] for action in acted.values())


def test_seeds_repeat_and_differ():
    policy = policy_of()
    draws = {}
    for seed in (1, 1, 2, None, None):
        player = policy.player(explore=True, seed=seed)
        acted = tuple(player.act({"a": obs(0, 0)})["a"] for _ in range(40))
        draws.setdefault(seed, []).append(acted)
    assert draws[1][0] == draws[1][1]
    assert draws[1][0] != draws[2][0]
    assert draws[None][0] != draws[None][1]


def memory_of(player, agent):
    (state,) = player._states
    return state["policy"][0, "abc".index(agent)]


def test_memory_is_carried_on_and_players_share_none():
    policy = policy_of(**GRU)
    network = policy.team.groups[0].actor.network
    state = torch.zeros(1, 6)
    player, other = policy.player(), policy.player()
    for step in range(4):
        row = obs(step, -1)
        action = player.act({"b": row})["b"]
        with torch.no_grad():
            logits, state = network(torch.from_numpy(row)[None], None, state)
        assert action == int(logits.argmax())
        np.testing.assert_allclose(memory_of(player, "b"), state[0], atol=1e-6)
    assert np.abs(memory_of(player, "b")).max() > 0.1
    assert not memory_of(other, "b").any()


def test_agents_that_vanish_and_come_back_have_forgotten():
    policy = policy_of(**GRU)
    player, fresh = policy.player(), policy.player()
    for _ in range(3):
        player.act({"a": obs(1, 2), "b": obs(1, 2)})
    player.act({"a": obs(1, 2)})  # b is gone
    both = {"a": obs(3, 1), "b": obs(3, 1)}
    player.act(both)
    fresh.act({"b": obs(3, 1)})
    np.testing.assert_allclose(memory_of(player, "b"), memory_of(fresh, "b"), atol=1e-6)
    assert np.abs(memory_of(player, "a") - memory_of(player, "b")).max() > 1e-3


def test_a_one_hot_index_tells_agents_apart():
    policy = policy_of(agent_id=True)
    network = policy.team.groups[0].actor.network
    acted = policy.player().act({agent: obs(1, 2) for agent in "abc"})
    rows = torch.cat([torch.tensor([[1.0, 2.0]]).expand(3, 2), torch.eye(3)], dim=1)
    with torch.no_grad():
        logits, _ = network(rows)
    assert list(acted.values()) == logits.argmax(-1).tolist()
    alone = policy.player().act({"c": obs(1, 2)})
    assert alone["c"] == acted["c"]


def test_teams_are_cut_to_the_agents_of_an_environment():
    policy = policy_of()
    team = policy.team_for(["c", "a"])
    (group,) = team.groups
    assert group.agents == ("a", "c")
    assert group.index.tolist() == [1, 0]
    with pytest.raises(ConfigError, match="agent_id: the policy was trained for the agents a, b, c"):
        policy_of(agent_id=True).team_for(["a", "c"])


def test_the_module_of_all_agents_acts_for_others_too():
    policy = policy_of()
    (group,) = policy.team_for(["d", "a", "b", "c", "e"]).groups
    assert group.agents == ("d", "a", "b", "c", "e")
    assert group.index.tolist() == [0, 1, 2, 3, 4]
    assert group.actor is policy.team.groups[0].actor
    with pytest.raises(ConfigError, match="agent_id: .* agents a, b, c, .*; 'd' has none"):
        policy_of(agent_id=True).team_for(["a", "b", "c", "d"])
    (whole,) = policy.team.groups
    parts = [
        dataclasses.replace(whole, module_id=str(i), agents=(agent,), index=np.array([i]))
        for i, agent in enumerate("abc")
    ]
    several = dataclasses.replace(policy, team=Team(parts))
    with pytest.raises(
        ConfigError, match=r"the policy knows no agent 'cc' \(did you mean 'c'\?\); allowed: a, b, c"
    ):
        several.team_for(["a", "cc"])


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        ({"d": obs(1, 2)}, "the policy knows no agent 'd'.*; allowed: a, b, c"),
        ({"a": obs(1, 2), "x": obs(1, 2)}, "the policy knows no agent 'x'"),
        ({"a": obs(1, 2, 3)}, r"observation of a: expected shape \(2,\), got \(3,\)"),
        ({"b": np.zeros((1, 2), np.float32)}, r"observation of b: expected shape \(2,\), got \(1, 2\)"),
        ({"c": 1.0}, r"observation of c: expected shape \(2,\), got \(\)"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(observations, message):
    with pytest.raises(ConfigError, match=message) as caught:
        policy_of().player().act(observations)
    assert "\n" not in str(caught.value)


def test_a_mask_of_the_wrong_length_is_named():
    for mask in (np.ones(3, np.int8), np.ones(1, np.int8)):
        with pytest.raises(ConfigError, match=r"observation of b: expected a mask of shape \(4,\), got"):
            policy_of(masked=True).player().act({"b": {"observation": obs(1, 2), "action_mask": mask}})


def test_a_single_observation_of_the_wrong_shape_is_named():
    with pytest.raises(ConfigError, match=r"expected shape \(2,\), got \(3,\)"):
        policy_of(agents=(None,)).player().act(obs(1, 2, 3))


@pytest.mark.parametrize("given", [obs(1, 2), {"a": obs(1, 2)}])
def test_an_observation_without_its_mask_is_named(given):
    single = not isinstance(given, dict)
    policy = policy_of(agents=(None,) if single else ("a", "b"), masked=True)
    with pytest.raises(
        ConfigError, match=r"observation.*: expected a mapping of observation and action_mask"
    ):
        policy.player().act(given)


@pytest.mark.parametrize("given", [obs(1, 2), 3, None])
def test_a_bare_observation_for_several_agents_is_refused(given):
    with pytest.raises(ConfigError, match="observations: expected a mapping from agents"):
        policy_of().player().act(given)
