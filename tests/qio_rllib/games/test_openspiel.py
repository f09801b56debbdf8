"""Kuhn and Leduc poker: known values, and the environment against OpenSpiel's own play."""

import importlib
import itertools
import warnings

import numpy as np
import pyspiel
import pytest
import torch
from pettingzoo.test import api_test, seed_test

from qio_envs.adapters.turns import TurnParallelEnv, as_parallel
from qio_envs.testing import check_parallel_env, table
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import NetworkActor
from qio_rllib.acting.policy import GroupSpaces, Policy
from qio_rllib.acting.tabular import policy_function
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.games.game import GameError
from qio_rllib.games.openspiel import (
    KuhnPoker,
    LeducPoker,
    OpenSpielEnv,
    tabular_mixture_nash_conv,
    tabular_nash_conv,
    tabular_values,
)
from qio_rllib.models.policy_network import PolicyNetwork, PolicySpec


def uniform(player, known, legal):
    return legal / legal.sum()


def kuhn_equilibrium(bluff):
    """Kuhn's equilibria, by the first player's chance to bet with a jack, 0 to 1/3; action 1 bets or calls."""

    def policy(player, known, legal):
        card, bets = int(known[2:5].argmax()), known[5:].reshape(3, 2)
        faces_bet = bool(bets[:, 1].any())
        if player == 0:
            bet = (0, bluff + 1 / 3, 1)[card] if faces_bet else (bluff, 0, 3 * bluff)[card]
        else:
            bet = (0, 1 / 3, 1)[card] if faces_bet else (1 / 3, 0, 1)[card]
        return np.array([1 - bet, bet])

    return policy


def test_uniform_play_has_the_known_nash_conv():
    assert tabular_nash_conv("kuhn_poker", uniform) == pytest.approx(11 / 12)
    np.testing.assert_allclose(tabular_values("kuhn_poker", uniform), [1 / 8, -1 / 8])
    assert tabular_nash_conv("leduc_poker", uniform) == pytest.approx(4.747222, abs=1e-6)


@pytest.mark.parametrize("bluff", [0.0, 0.2, 1 / 3])
def test_kuhns_equilibria_have_his_value_and_no_nash_conv(bluff):
    policy = kuhn_equilibrium(bluff)
    assert tabular_nash_conv("kuhn_poker", policy) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(tabular_values("kuhn_poker", policy), [-1 / 18, 1 / 18])

    def careless(player, known, legal):
        return 0.9 * policy(player, known, legal) + 0.1 * uniform(player, known, legal)

    assert tabular_nash_conv("kuhn_poker", careless) > 0.02


@pytest.mark.parametrize("make", [KuhnPoker, LeducPoker])
def test_the_environment_conforms(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of observations that are dictionaries
        api_test(make(), num_cycles=60)
        seed_test(make, num_cycles=30)
    results = check_parallel_env(
        lambda render_mode=None: TurnParallelEnv(make(render_mode=render_mode)), steps=40
    )
    # PettingZoo's test of seeds for parallel environments plays without regard to masks; three hands of Kuhn poker may
    # be as long as each other
    failed = [result.name for result in results if not result.passed and result.name != "time limit"]
    assert failed == ["pettingzoo seed"], table(results)


def test_the_environment_plays_openspiels_game():
    env, rng = LeducPoker(render_mode="ansi"), np.random.default_rng(0)
    game = pyspiel.load_game("leduc_poker")
    for seed in range(20):
        env.reset(seed=seed)
        total = np.zeros(2)
        while not all(env.terminations.values()):
            state = game.deserialize_state(env._state.serialize())
            mover = env.possible_agents.index(env.agent_selection)
            assert mover == state.current_player()
            for player, agent in enumerate(env.possible_agents):
                seen = env.observe(agent)
                assert seen["observation"].tolist() == state.information_state_tensor(player)
                legal = state.legal_actions() if player == mover else []
                assert np.flatnonzero(seen["action_mask"]).tolist() == legal
            assert env.render() == str(state)
            env.step(int(rng.choice(state.legal_actions())))
            total += list(env.rewards.values())
        assert env._state.is_terminal()
        assert total.tolist() == env._state.returns()
        assert [env._cumulative_rewards[agent] for agent in env.possible_agents] == total.tolist()


def test_cards_are_dealt_evenly_by_the_seed():
    env, deals = KuhnPoker(), []
    for seed in range(1200):
        env.reset(seed=seed)
        deals.append(
            tuple(int(env.observe(agent)["observation"][2:5].argmax()) for agent in env.possible_agents)
        )
    counts = [deals.count((a, b)) for a in range(3) for b in range(3) if a != b]
    assert sum(counts) == 1200
    assert ((np.array(counts) - 200) ** 2 / 200).sum() < 20.5  # chi-squared, 5 degrees of freedom, p = 0.001
    env.reset(seed=7)
    assert deals[7] == tuple(int(env.observe(a)["observation"][2:5].argmax()) for a in env.possible_agents)


def test_simulated_returns_of_the_environment_are_the_exact_values():
    """Through the adapter of turns, as learners see it: uniform play of Kuhn poker earns the first player 1/8."""
    env, rng, total, episodes = as_parallel(KuhnPoker()), np.random.default_rng(1), 0.0, 3_000
    env.reset(seed=0)
    for _ in range(episodes):
        observations, _ = env.reset()
        while env.agents:
            actions = {
                agent: int(rng.choice(np.flatnonzero(seen["action_mask"])))
                for agent, seen in observations.items()
            }
            observations, rewards, *_ = env.step(actions)
            total += rewards["player_0"]
    assert total / episodes == pytest.approx(1 / 8, abs=4 * 1.5 / np.sqrt(episodes))


def test_what_does_not_fit_is_refused(monkeypatch):
    with pytest.raises(GameError, match="game: OpenSpiel has no 'kuhn_pokr'") as caught:
        tabular_nash_conv("kuhn_pokr", uniform)
    assert "\n" not in str(caught.value)
    with pytest.raises(GameError, match="'matrix_rps' is none in which players take turns"):
        OpenSpielEnv("matrix_rps")
    with pytest.raises(
        GameError, match=r"expected 2 probabilities with the sum 1 over legal actions \[0, 1\]"
    ):
        tabular_nash_conv("kuhn_poker", lambda player, known, legal: np.ones(2))
    env = LeducPoker()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action of player_0: expected one of \[1, 2\], got 0"):
        env.step(0)

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(GameError, match="kuhn_poker: needs the package open_spiel; pip install"):
        KuhnPoker()


def behaviour(seed):
    """Return a policy with random probabilities in each information state."""

    def policy(player, known, legal):
        rng = np.random.default_rng([seed, player, *np.flatnonzero(known)])
        return np.array([1 - (chance := rng.random()), chance])

    return policy


def test_a_mixtures_nash_conv_is_that_of_best_pure_strategies_against_its_members():
    """Whoever draws a policy before the game is no policy of averaged probabilities."""
    members, weights = [behaviour(1), behaviour(2)], np.array([0.3, 0.7])

    def value(player, own, other):
        """Return what a player earns with a policy where the other one follows another."""
        return tabular_values("kuhn_poker", lambda who, *seen: (own if who == player else other)(who, *seen))[
            player
        ]

    def pure_strategies(player):
        states = []

        def note(who, known, legal):
            if who == player:
                states.append(known.tobytes())
            return uniform(who, known, legal)

        tabular_values("kuhn_poker", note)
        places = {state: place for place, state in enumerate(dict.fromkeys(states))}
        assert len(places) == 6
        for moves in itertools.product((0, 1), repeat=6):
            yield lambda who, known, legal, moves=moves: np.eye(2)[moves[places[known.tobytes()]]]

    expected = 0.0
    for player in (0, 1):
        best = max(
            sum(w * value(player, pure, other) for w, other in zip(weights, members, strict=True))
            for pure in pure_strategies(player)
        )
        expected += best - sum(
            w * v * value(player, own, other)
            for w, own in zip(weights, members, strict=True)
            for v, other in zip(weights, members, strict=True)
        )
    assert tabular_mixture_nash_conv("kuhn_poker", members, weights) == pytest.approx(expected, abs=1e-9)
    averaged = lambda *seen: weights @ [member(*seen) for member in members]  # noqa: E731
    assert abs(tabular_nash_conv("kuhn_poker", averaged) - expected) > 1e-3


def test_a_trained_policy_is_asked_for_each_information_state():
    """With the wait action of turns; illegal actions have no probability."""
    env = as_parallel(KuhnPoker())
    seen, actions = env.observation_space("player_0"), env.action_space("player_0")
    torch.manual_seed(0)
    shape = seen["observation"].shape
    spec = PolicySpec(
        shape, "categorical", int(actions.n), has_action_mask=True, network={"fcnet_hiddens": [8]}
    )
    network = PolicyNetwork(spec)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    actor = NetworkActor(network, ActionSpec.of(actions, False))
    agents = ("player_0", "player_1")
    policy = Policy(
        Team([AgentGroup("shared", agents, np.arange(2), actor)]),
        {"shared": GroupSpaces(shape, int(actions.n))},
        "kuhn",
        {},
    )
    function = policy_function(policy)
    asked = []

    def noted(player, known, legal):
        found = function(player, known, legal)
        rows = torch.from_numpy(known[None])
        mask = torch.zeros(1, int(actions.n), dtype=torch.bool)
        mask[0, :2] = torch.from_numpy(legal)
        with torch.no_grad():
            logits = network.distribution(network.outputs(network.features(rows, None)[0]), mask, True)[0]
        np.testing.assert_allclose(found, torch.softmax(logits, -1)[:2].numpy(), atol=1e-6)
        asked.append(player)
        return found

    assert 0 < tabular_nash_conv("kuhn_poker", noted) < 2
    assert set(asked) == {0, 1}
    assert len(asked) >= 12
