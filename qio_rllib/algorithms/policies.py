"""Which policy acts for which agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.sampling.environments import EnvDescription

SHARED_MODULE = "shared"
INDEPENDENT = "independent"


class PolicyMapping:
    """Says which module acts for an agent.

    Args:
        modules: Module id by agent id; agents that are not in it go to ``shared``.
    """

    def __init__(self, modules: Mapping[Any, str] | None = None) -> None:
        self.modules = dict(modules or {})

    def __repr__(self) -> str:
        """Show the mapping, so that equal ones look the same."""
        return f"{type(self).__name__}({self.modules})"

    def __call__(self, agent_id: Any, episode: Any = None, **kwargs: Any) -> str:
        """Return the module id of an agent."""
        return self.modules.get(agent_id, SHARED_MODULE)


def policy_mapping(
    policies: str | Mapping[str, list], env: str, description: EnvDescription
) -> PolicyMapping:
    """Return which module acts for whom.

    Args:
        policies: ``"shared"``, ``"independent"`` or ``{module_id: [agent ids]}``.
        env: The environment's name, for messages.
        description: Its agents and spaces.

    Raises:
        ConfigError: Agents that do not exist or are left out, or a shared policy over different spaces.
    """
    if not description.multi_agent:
        raise ConfigError(f"policies: {env} has a single agent")
    agents = description.agents
    if policies == SHARED_MODULE:
        _check_same_spaces(SHARED_MODULE, list(agents), description)
        return PolicyMapping()
    if policies == INDEPENDENT:
        return PolicyMapping({agent: str(agent) for agent in agents})
    assert isinstance(policies, Mapping)
    mapping: dict[Any, str] = {}
    for module_id, members in policies.items():
        unknown = [agent for agent in members if agent not in agents]
        if unknown:
            hint = did_you_mean(unknown[0], [str(agent) for agent in agents])
            raise ConfigError(
                f"policies.{module_id}: unknown agent '{unknown[0]}'{hint}; "
                f"allowed: {', '.join(str(agent) for agent in agents)}"
            )
        _check_same_spaces(module_id, members, description)
        mapping |= dict.fromkeys(members, module_id)
    missing = [str(agent) for agent in agents if agent not in mapping]
    if missing:
        raise ConfigError(f"policies: no module for {', '.join(missing)}")
    return PolicyMapping(mapping)


def _check_same_spaces(module_id: str, agents: list, description: EnvDescription) -> None:
    for agent in agents[1:]:
        for kind in ("observation_spaces", "action_spaces"):
            spaces = getattr(description, kind)
            if spaces[agent] != spaces[agents[0]]:
                raise ConfigError(
                    f"policies.{module_id}: {agents[0]} and {agent} differ in their {kind[:-1].replace('_', ' ')} "
                    "and cannot share a policy; use independent or {module: [agents]}"
                )
