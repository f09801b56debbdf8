"""Policies against each other, every one in every team."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.acting.mixed_team import MixedTeam
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

    Agents that talk hear the agents of their own team, in whatever way their policy's ``communication`` has it, and
    nobody else.

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
        ConfigError: Fewer than two contestants, one that cannot act for the agents of a team or whose agents hear those
            of another, or teams that do not hold every agent once; or what `expected_returns` refuses.
    """
    if len(contestants) < 2:
        raise ConfigError(f"a tournament needs two policies at least, got {len(contestants)}")
    env: Any = (
        make_env(env_id, env_config)
        if seeds is None
        else make_vector_env(env_id, dict(env_config), len(seeds))
    )
    try:
        agents = list(env.possible_agents if seeds is None else env.agents)
        sides = sides_of(contestants[0], agents, teams, None if seeds is None else env)
        place = {agent: index for index, agent in enumerate(agents)}
        for one in contestants:  # before anything is played
            mixed_team([(one, side) for side in sides], place)
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


def mixed_team(
    parts: Sequence[tuple[Contestant, Sequence[Hashable]]], place: Mapping[Hashable, int]
) -> MixedTeam:
    """Return the team in which each contestant acts for some of the agents; messages do not leave a part.

    Args:
        parts: Contestants with their agents, which together are all.
        place: Index of each agent in the environment.

    Raises:
        ConfigError: A contestant that cannot act for its agents, or whose policy lets them hear others than those.
    """
    everyone = sorted(place, key=lambda agent: place[agent])
    found = []
    for contestant, agents in parts:
        index = np.array([place[agent] for agent in agents], np.int64)
        try:
            groups = contestant.policy.groups_for(agents)
            communication = contestant.policy.team.communication
            links = None
            if communication is not None:
                links = _links_within(communication.links(everyone), index, everyone)
        except ConfigError as error:
            raise ConfigError(f"{contestant.name}: {error}") from error
        found.append((Team(groups, communication, links), index))
    return MixedTeam(found)


def _links_within(links: np.ndarray, index: np.ndarray, agents: Sequence[Hashable]) -> np.ndarray:
    """Return who of some agents can hear whom of them, bool ``[M, M]``.

    Args:
        links: Who of all can hear whom, bool ``[N, N]``: receiver, sender.
        index: Of those agents, int64 ``[M]``.
        agents: Ids of all.

    Raises:
        ConfigError: One of them can hear another agent, or is heard by one.
    """
    outside = np.ones(len(agents), bool)
    outside[index] = False
    inside = ~outside
    across = np.argwhere(links & (inside[:, None] & outside | outside[:, None] & inside))
    if len(across):
        hears, speaks = (agents[place] for place in across[0])
        raise ConfigError(
            f"communication: {hears} hears {speaks}, which is of another team here, and messages stay within a team; "
            "choose teams that do not hear each other, or train with communication.teams"
        )
    return links[np.ix_(index, index)]


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
