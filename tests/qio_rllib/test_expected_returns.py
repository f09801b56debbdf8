"""Expected returns of policies in small games, against sums over all joint actions, and by whom they are asked for."""

import itertools

import numpy as np
import pytest
import torch
from toy_strategies import ENV, SETTINGS, policy_of

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.tabular import expected_returns
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.cli import main
from qio_rllib.experiments.tournament import Contestant, tournament
from qio_rllib.games.openspiel import tabular_values
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec
from qio_rllib.sampling.environments import make_env

KUHN = "qio_rllib.games.openspiel:KuhnPoker"


@pytest.mark.parametrize("together", [True, False])
def test_a_matrix_game_sums_over_all_joint_actions(together):
    """Two agents with mixed strategies of their own, five rounds."""
    settings = {"scenario": "chicken", "rounds": 5, "memory": 0}
    env = make_env(ENV, settings)
    row, column = np.array([0.3, 0.7]), np.array([0.9, 0.1])
    policies = [policy_of(chances, together, settings) for chances in (row, column)]
    payoffs = env.batch.config.payoff_table[0]
    expected = [5 * row @ payoffs[agent] @ column for agent in range(2)]
    np.testing.assert_allclose(expected_returns(env, policies), expected, rtol=1e-5)


def test_agents_with_different_numbers_of_actions():
    rng = np.random.default_rng(0)
    counts = (2, 3, 2)
    payoffs = rng.normal(size=(3, *counts))
    settings = {"game": "custom", "payoffs": payoffs.tolist(), "rounds": 2}
    env = make_env(ENV, settings)
    chances = [np.array([0.2, 0.5, 0.3]), np.array([0.1, 0.3, 0.6]), np.array([0.6, 0.3, 0.1])]
    found = expected_returns(env, [policy_of(own, settings=settings) for own in chances])
    own = [given[:count] / given[:count].sum() for given, count in zip(chances, counts, strict=True)]
    expected = np.zeros(3)
    for actions in itertools.product(*map(range, counts)):
        chance = np.prod([own[agent][action] for agent, action in enumerate(actions)])
        expected += 2 * chance * payoffs[(slice(None), *actions)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def kuhn_policy(seed):
    """Return a network with random weights that plays Kuhn poker."""
    env = make_env(KUHN)
    seen, actions = env.observation_space("player_0"), env.action_space("player_0")
    shape = seen["observation"].shape
    spec = PolicySpec(
        shape, "categorical", int(actions.n), has_action_mask=True, network={"fcnet_hiddens": [8]}
    )
    network = PolicyNetwork(spec)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    actor = NetworkActor(network, ActionSpec.of(actions, False))
    groups = [AgentGroup("shared", ("player_0", "player_1"), np.arange(2), actor)]
    return Policy(Team(groups), {"shared": GroupSpaces(shape, int(actions.n))}, KUHN, {})


def test_each_player_of_kuhn_poker_follows_its_own_policy():
    """The sums of both orders, deal by deal, are those of OpenSpiel's enumeration; sampled means lie around them."""
    env, policies = make_env(KUHN), [kuhn_policy(seed) for seed in (1, 2)]
    first, second = expected_returns(env, policies), expected_returns(env, policies[::-1])
    assert first.sum() == pytest.approx(0, abs=1e-9)
    assert abs(first[0] - second[0]) > 1e-3
    contestants = [Contestant(str(number), policy) for number, policy in enumerate(policies)]
    teams = [["player_0"], ["player_1"]]
    (sampled,) = (
        one
        for one in tournament(contestants, KUHN, {}, range(400), teams)
        if (one.policy, one.opponent, one.team) == (0, 1, 0)
    )
    assert sampled.own.mean() == pytest.approx(first[0], abs=4 * sampled.own.std() / 20)
    uniform = tabular_values("kuhn_poker", lambda player, known, legal: legal / legal.sum())
    assert abs(uniform[0] - first[0]) > 1e-3


def test_a_tournament_of_expected_returns():
    contestants = [
        Contestant("even", policy_of([1 / 3] * 3)),
        Contestant("rocky", policy_of([0.5, 0.25, 0.25])),
    ]
    contestants.append(Contestant("paper", policy_of(1)))
    found = {
        (one.policy, one.opponent, one.team): one for one in tournament(contestants, ENV, SETTINGS, None)
    }
    assert len(found) == 3 * 3 * 2
    for (one, other, _), pairing in found.items():
        gain = {(2, 1): 4 * 0.25, (1, 2): -4 * 0.25}.get((one, other), 0.0)
        np.testing.assert_allclose(pairing.own, [gain], atol=1e-5)
        np.testing.assert_allclose(pairing.others, [-gain], atol=1e-5)


def test_what_is_equal_but_for_rounding_is_a_draw():
    chances = ([0.123, 0.456, 0.421], [0.2, 0.7, 0.1], [0.31, 0.33, 0.36], [0.15, 0.15, 0.7])
    contestants = [Contestant(str(number), policy_of(given)) for number, given in enumerate(chances)]
    found = tournament(contestants, ENV, SETTINGS, None)
    assert {float(one.scores[0]) for one in found if one.policy == one.opponent} == {0.5}


def test_the_command_tells_of_expected_returns(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("rock", "paper")):
        save_policy(policy_of(number), f"{name}.pt")
    assert main(["tournament", "rock.pt", "paper.pt", "--exact"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("matrix_game_v0: expected returns of each pair and team\n")
    (row,) = (line.split() for line in out.splitlines() if line.lstrip().startswith("(2)  "))
    assert row[1:4] == ["1.00", "0.50", "2"]
    assert "interval" not in out
    assert main(["tournament", "rock.pt", "paper.pt", "--exact", "--greedy"]) == 2
    assert capsys.readouterr().err == (
        "rllib: --exact: expects what sampled actions earn; leave out --greedy\n"
    )


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("swarm_competitive_v0", {"scenario": "duel"}),
        (ENV, {**SETTINGS, "memory": 1}),
        (ENV, {"scenario": "two_step"}),
    ],
)
def test_games_that_are_not_small_are_refused(env, settings):
    with pytest.raises(ConfigError, match="exact payoffs: of games of OpenSpiel, and of matrix_game_v0"):
        expected_returns(make_env(env, settings), [policy_of(0)] * 2)
