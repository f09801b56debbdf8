"""Games of OpenSpiel: exact NashConv of policies, and the games as PettingZoo environments of turns.

Lanctot et al., "OpenSpiel: a framework for reinforcement learning in games", 2019. Needs the extra ``games``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import AECEnv

from qio_envs.api.distribution import install_command
from qio_rllib.games.game import Array, GameError

PolicyFunction = Callable[[int, Array, Array], Array]
"""A policy of all players: of the player, what it knows (float32 ``[D]``) and which actions are legal (bool ``[A]``),
the probability of each action, ``[A]``."""


def tabular_nash_conv(name: str, policy: PolicyFunction) -> float:
    """Return the exact NashConv of a policy: what all players together gain by best responses. It is 0 in equilibrium.

    The policy is asked once for each information state. In Kuhn poker uniformly random play has 11/12.

    Args:
        name: A game of OpenSpiel in which players take turns, such as ``kuhn_poker``, ``leduc_poker`` or
            ``kuhn_poker(players=3)``; small enough to be enumerated.
        policy: What the players do.

    Raises:
        GameError: There is no such game, or the policy's probabilities do not fit; or OpenSpiel is not installed.
    """
    game = _loaded(name)
    exploitability = importlib.import_module("open_spiel.python.algorithms.exploitability")
    return float(exploitability.nash_conv(game, _tabular(game, policy)))


def tabular_mixture_nash_conv(
    name: str, policies: Sequence[PolicyFunction], weights: Sequence[float]
) -> float:
    """Return the exact NashConv of a mixture, of which each player draws a policy of its own before the game.

    Args:
        name: As for `tabular_nash_conv`.
        policies: What may be drawn.
        weights: Probability of each.

    Raises:
        GameError: As `tabular_nash_conv`.
    """
    game = _loaded(name)
    players = list(range(game.num_players()))
    tables = [_tabular(game, policy) for policy in policies]
    aggregator = importlib.import_module("open_spiel.python.algorithms.policy_aggregator")
    exploitability = importlib.import_module("open_spiel.python.algorithms.exploitability")
    # The policy in behaviour that plays like the mixture weights each one by how likely its own moves lead there.
    whole = aggregator.PolicyAggregator(game).aggregate(
        players, [tables for _ in players], [list(weights) for _ in players]
    )
    return float(exploitability.nash_conv(game, whole))


def tabular_values(name: str, policy: PolicyFunction) -> Array:
    """Return what each player expects to earn when all follow a policy, exactly, float64 ``[N]``.

    Args:
        name: As for `tabular_nash_conv`.
        policy: What the players do.

    Raises:
        GameError: As `tabular_nash_conv`.
    """
    game = _loaded(name)
    scores = importlib.import_module("open_spiel.python.algorithms.expected_game_score")
    table = _tabular(game, policy)
    return np.array(scores.policy_value(game.new_initial_state(), [table] * game.num_players()), np.float64)


class OpenSpielEnv(AECEnv):
    """A game of OpenSpiel in which players take turns, as a PettingZoo environment (AEC).

    Chance moves are drawn by the environment. `qio_envs.adapters.turns.TurnParallelEnv` makes it a parallel one, and so
    do the environments of `qio_rllib` by themselves: ``--env qio_rllib.games.openspiel:KuhnPoker`` trains in it.

    **Actions**: ``Discrete(A)``, OpenSpiel's; the mask says which are legal.

    **Observations**: a Dict of ``observation``, float32 ``[D]``, the player's information state tensor, and
    ``action_mask``, int8 ``[A]``, zeros for players whose turn it is not.

    **Rewards**: what OpenSpiel pays after each move; in poker the chips won or lost, at the end.

    **Ends**: termination of all at the end of the game.

    Args:
        name: As for `tabular_nash_conv`.
        render_mode: ``ansi`` or None.

    Raises:
        GameError: There is no such game, players do not take turns in it, or OpenSpiel is not installed.
    """

    def __init__(self, name: str, render_mode: str | None = None) -> None:
        super().__init__()
        self._game = _loaded(name)
        self.metadata = {"name": name, "render_modes": ["ansi"], "is_parallelizable": False}
        self.render_mode = render_mode
        self.possible_agents = [f"player_{player}" for player in range(self._game.num_players())]
        self.agents: list[str] = []
        size, self._actions = _sizes(self._game)
        spaces = gymnasium.spaces
        self.action_spaces: dict[str, gymnasium.spaces.Discrete] = {
            agent: spaces.Discrete(self._actions) for agent in self.possible_agents
        }
        self.observation_spaces = {
            agent: spaces.Dict(
                {
                    "observation": spaces.Box(-np.inf, np.inf, (size,), np.float32),
                    "action_mask": spaces.Box(0, 1, (self._actions,), np.int8),
                }
            )
            for agent in self.possible_agents
        }
        self._random = np.random.default_rng()
        self._state: Any = None

    def observation_space(self, agent: str) -> gymnasium.spaces.Dict:
        """Return the space of one agent's observations."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.spaces.Discrete:
        """Return the space of one agent's actions."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> None:
        """Deal anew; with a seed chance moves are its own from now on."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        self._state = self._game.new_initial_state()
        self._play_chance()
        self.agent_selection = self.possible_agents[self._state.current_player()]

    def step(self, action: int | None) -> None:
        """Make the move of the agent whose turn it is; None for one that has ended.

        Raises:
            ValueError: An illegal move; nothing has changed.
        """
        if self.terminations[self.agent_selection]:
            self._was_dead_step(action)
            return
        mover = self.agent_selection
        if action is None or action not in self._state.legal_actions():
            raise ValueError(
                f"action of {mover}: expected one of {self._state.legal_actions()}, got {action!r}"
            )
        self._cumulative_rewards[mover] = 0.0
        self._state.apply_action(int(action))
        self._play_chance()
        self.rewards = dict(zip(self.possible_agents, map(float, self._state.rewards()), strict=True))
        if self._state.is_terminal():
            self.terminations = dict.fromkeys(self.agents, True)
            self.agent_selection = self.agents[0]
        else:
            self.agent_selection = self.possible_agents[self._state.current_player()]
        self._accumulate_rewards()

    def observe(self, agent: str) -> dict[str, Array]:
        """Return what an agent knows, and its legal actions."""
        player = self.possible_agents.index(agent)
        known = np.array(self._state.information_state_tensor(player), np.float32)
        mask = np.zeros(self._actions, np.int8)
        if self._state.current_player() == player:
            mask[self._state.legal_actions()] = 1
        return {"observation": known, "action_mask": mask}

    def render(self) -> str | None:
        """Return OpenSpiel's text of the game with ``ansi``."""
        return str(self._state) if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _play_chance(self) -> None:
        while self._state.is_chance_node():
            outcomes, chances = zip(*self._state.chance_outcomes(), strict=True)
            self._state.apply_action(int(self._random.choice(outcomes, p=chances)))


class KuhnPoker(OpenSpielEnv):
    """Kuhn poker (Kuhn, 1950): three cards, a bet of one chip; 12 information states, value -1/18.

    Args:
        render_mode: As for `OpenSpielEnv`.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__("kuhn_poker", render_mode)


class LeducPoker(OpenSpielEnv):
    """Leduc poker (Southey et al., UAI 2005): six cards, two rounds of bets; 936 information states.

    Args:
        render_mode: As for `OpenSpielEnv`.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__("leduc_poker", render_mode)


def _loaded(name: str) -> Any:
    try:
        pyspiel = importlib.import_module("pyspiel")
    except ImportError:
        raise GameError(f"{name}: needs the package open_spiel; {install_command('games')}") from None
    try:
        game = pyspiel.load_game(name)
    except pyspiel.SpielError as error:
        raise GameError(f"game: OpenSpiel has no '{name}': {str(error).splitlines()[0]}") from None
    kind = game.get_type()
    if kind.dynamics != pyspiel.GameType.Dynamics.SEQUENTIAL or not kind.provides_information_state_tensor:
        raise GameError(
            f"game: '{name}' is none in which players take turns and have information states as numbers"
        )
    return game


def _sizes(game: Any) -> tuple[int, int]:
    """Return how many numbers an information state has, and how many actions there are."""
    return int(np.prod(game.information_state_tensor_shape())), game.num_distinct_actions()


def _tabular(game: Any, policy: PolicyFunction) -> Any:
    """Return a policy as OpenSpiel's table of all information states."""
    _, actions = _sizes(game)

    def chances(state: Any) -> dict[int, float]:
        player, legal = state.current_player(), np.zeros(actions, bool)
        legal[state.legal_actions()] = True
        given = policy(player, np.array(state.information_state_tensor(player), np.float32), legal)
        found = np.asarray(given, np.float64)
        if found.shape != (actions,) or not (found >= 0).all() or abs(found[legal].sum() - 1) > 1e-6:
            raise GameError(
                f"policy: expected {actions} probabilities with the sum 1 over legal actions "
                f"{np.flatnonzero(legal).tolist()}, got {found.tolist()}"
            )
        return {int(action): float(found[action]) for action in np.flatnonzero(legal)}

    tables = importlib.import_module("open_spiel.python.policy")
    return tables.tabular_policy_from_callable(game, chances)
