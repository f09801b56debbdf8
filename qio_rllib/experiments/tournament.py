"""Policies against each other, every one in every team."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.acting.policy import Policy
from qio_rllib.acting.tabular import expected_returns
from qio_rllib.acting.team import Team
from qio_rllib.games.cross_play import Pairing
from qio_rllib.games.self_play import teams_of
from qio_rllib.sampling.environments import make_env, make_vector_env
from qio_rllib.sampling.evaluation import play_episodes


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Somebody who takes part.

    Attributes:
        name: For tables.
        policy: How it plays.
    """

    name: str
    policy: Policy


def tournament(
    contestants: Sequence[Contestant],
    env_id: str,
    env_config: Mapping[str, Any],
    seeds: Sequence[int] | None,
    teams: Sequence[Sequence[Hashable]] | None = None,
    explore: bool = True,
    max_steps: int | None = None,
    known: int = 0,
) -> list[Pairing]:
    """Play every contestant against every one, itself included, in each team against all other teams.

    Args:
        contestants: Two at least.
        env_id: The environment.
        env_config: Its settings.
        seeds: One per episode of each pairing; the same for all of them. None for expected returns in place of
            episodes, as a single one, where `expected_returns` has them.
        teams: Lists of agent ids; by default those of the environment, where it has any, otherwise the agents of each
            module of the first contestant, and where it has a single module, each agent.
        explore: Sample from the policies (True) or take their most probable actions (False).
        max_steps: As for `play_episodes`.
        known: The first so many have played against each other already, and do not do it again.

    Raises:
        ConfigError: Fewer than two contestants, one that talks, one that cannot act for the agents of a team, or teams
            that do not hold every agent once; or what `expected_returns` refuses.
    """
    if len(contestants) < 2:
        raise ConfigError(f"a tournament needs two policies at least, got {len(contestants)}")
    refuse_talk(contestants)
    env: Any = (
        make_env(env_id, env_config)
        if seeds is None
        else make_vector_env(env_id, dict(env_config), len(seeds))
    )
    try:
        agents = list(env.possible_agents if seeds is None else env.agents)
        sides = sides_of(contestants[0], agents, teams, None if seeds is None else env)
        place = {agent: index for index, agent in enumerate(agents)}
        found = []
        for first, one in enumerate(contestants):
            for second, other in enumerate(contestants):
                if first < known and second < known:
                    continue
                for number, side in enumerate(sides):
                    others = [agent for agent in agents if agent not in side]
                    team = mixed_team([(one, side), (other, others)], place)
                    if seeds is None:
                        acting = [one.policy if agent in side else other.policy for agent in agents]
                        returns = expected_returns(env, acting)[None]
                    else:
                        returns = returns_of(team, env, seeds, explore, max_steps)
                    mine = [place[agent] for agent in side]
                    theirs = [place[agent] for agent in others]
                    means = returns[:, mine].mean(axis=1), returns[:, theirs].mean(axis=1)
                    found.append(Pairing(first, second, number, *means))
        return found
    finally:
        env.close()


def refuse_talk(contestants: Sequence[Contestant]) -> None:
    """Refuse policies whose agents send each other messages.

    Raises:
        ConfigError: Naming the policy.
    """
    for one in contestants:
        if one.policy.team.communication is not None:
            raise ConfigError(f"{one.name}: its agents talk, and there are no messages between policies")


def sides_of(
    contestant: Contestant, agents: Sequence[Hashable], teams: Sequence[Sequence[Hashable]] | None, env: Any
) -> list[list[Hashable]]:
    """Return the agents of each team.

    Args:
        contestant: Whose modules are teams by default.
        agents: Of the environment.
        teams: As for `tournament`.
        env: As for `teams_of`.

    Raises:
        ConfigError: As `teams_of`.
    """
    modules: dict[str, list[Hashable]] = {}
    for agent in agents:
        modules.setdefault(contestant.policy.group_of(agent).module_id, []).append(agent)
    return teams_of(teams, modules, "teams", env)


def mixed_team(parts: Sequence[tuple[Contestant, Sequence[Hashable]]], place: Mapping[Hashable, int]) -> Team:
    """Return the team in which each contestant acts for some of the agents.

    Args:
        parts: Contestants with their agents, which together are all.
        place: Index of each agent in the environment.

    Raises:
        ConfigError: A contestant that cannot act for its agents.
    """
    groups = []
    for contestant, agents in parts:
        try:
            team = contestant.policy.team_for(agents)
        except ConfigError as error:
            raise ConfigError(f"{contestant.name}: {error}") from error
        for group in team.groups:
            index = np.array([place[agent] for agent in group.agents])
            groups.append(dataclasses.replace(group, index=index))
    return Team(groups)


def returns_of(
    team: Team, env: Any, seeds: Sequence[int], explore: bool, max_steps: int | None
) -> np.ndarray:
    """Return the sums of all agents' rewards in an episode for each seed, float64 ``[E, N]``.

    Args:
        team: Who acts.
        env: As many environments as seeds.
        seeds: As for `play_episodes`.
        explore: Likewise.
        max_steps: Likewise.
    """
    returns = np.zeros((len(seeds), len(env.agents)))

    def earn(rewards: np.ndarray) -> None:
        returns[:] += rewards

    play_episodes(team, env, seeds, explore, max_steps=max_steps, earn=earn)
    return returns
