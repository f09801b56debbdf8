"""`NamedEnvironments`: configurations that take environments and policies by name, and know their spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.algorithms.own_settings import as_dict, in_model
from qio_rllib.algorithms.policies import INDEPENDENT, SHARED_MODULE, policy_mapping
from qio_rllib.algorithms.search_spaces import holds_search_space
from qio_rllib.models.opponent_model import OPPONENT_MODEL, OTHER_AGENTS, OtherAgents
from qio_rllib.models.values import NUM_AGENTS, STATE_SIZE, STATE_SOURCE
from qio_rllib.sampling.environments import (
    EnvDescription,
    describe_env,
    known_to_tune_only,
    register_with_tune,
)
from qio_rllib.sampling.global_state import StateSource
from qio_rllib.sampling.groups import AGENT_ID, with_agent_id_space


class NamedEnvironments(AlgorithmConfig):
    """Mixin for an `AlgorithmConfig`: it stands first among the bases.

    - ``environment("forest_uav_v0")`` takes any name of `qio_rllib.sampling.environments.make_env`, registers it with
      Ray, and sets up the policies of a multi-agent environment: one shared policy if all agents have the same
      spaces, one for each agent otherwise.
    - ``multi_agent(policies=...)`` also takes ``"shared"``, ``"independent"`` and ``{module_id: [agent ids]}``.
    """

    _model_config: Any

    agent_id = in_model(AGENT_ID, "Whether agents see their index within their module.", False)
    central_value = in_model(STATE_SOURCE, "What the value network sees besides the agent's own observation.")
    opponent_model = in_model(OPPONENT_MODEL, "How policies predict the other agents.")

    def environment(self, env: Any = NotProvided, *, env_config: Any = NotProvided, **kwargs: Any) -> Self:
        """Set the environment; arguments as in `AlgorithmConfig.environment`.

        Raises:
            ConfigError: Nothing goes by that name, or it refuses ``env_config``.
        """
        super().environment(
            env,
            **({} if env_config is NotProvided else {"env_config": dict(env_config or {})}),
            **kwargs,
        )
        if env is NotProvided and env_config is NotProvided:
            return self
        if (
            isinstance(self.env, str)
            and not known_to_tune_only(self.env)
            and not holds_search_space(self.env_config)
        ):
            register_with_tune(self.env)
            description = describe_env(self.env, self.env_config)
            if description.multi_agent and not self.is_multi_agent:
                self.multi_agent(policies=SHARED_MODULE if description.homogeneous else INDEPENDENT)
            if isinstance(self.central_value, str):
                self._measure_states(self.central_value, description)
            if self.opponent_model is not None:
                self._note_other_agents(description)
        return self

    def multi_agent(self, *, policies: Any = NotProvided, **kwargs: Any) -> Self:
        """Set the policies; arguments as in `AlgorithmConfig.multi_agent`.

        Args:
            policies: ``"shared"`` (one policy), ``"independent"`` (one per agent), ``{module_id: [agent ids]}``, or
                what RLlib takes.
            **kwargs: The other arguments.

        Raises:
            ConfigError: Agents that do not exist or are left out, or a shared policy over different spaces.
        """
        names_agents = isinstance(policies, Mapping) and all(isinstance(v, list) for v in policies.values())
        if policies in (SHARED_MODULE, INDEPENDENT) or (names_agents and policies):
            if not isinstance(self.env, str):
                raise ConfigError("policies: set the environment first, by name")
            mapping = policy_mapping(policies, self.env, describe_env(self.env, self.env_config))
            kwargs["policy_mapping_fn"] = mapping
            # In the order of the agents: modules draw their first weights in it, and that of a set differs by process.
            policies = [*dict.fromkeys(mapping.modules.values())] or [SHARED_MODULE]
        elif isinstance(policies, str):
            raise ConfigError(
                f"policies: expected shared, independent or {{module: [agents]}}, got '{policies}'"
            )
        super().multi_agent(policies=policies, **kwargs)
        return self

    def describe_env(self) -> EnvDescription | None:
        """Build the environment once to see its agents and spaces; None if it was not set by a name of ours."""
        if not isinstance(self.env, str) or known_to_tune_only(self.env):
            return None
        return describe_env(self.env, self.env_config)

    def module_spaces(self) -> dict[str, tuple[Any, Any]]:
        """Return (observation space, action space) by module id, in an environment that was set by a name of ours."""
        description = self.describe_env()
        assert description is not None
        members_of: dict[str, list[Any]] = {}
        for agent in description.agents:
            module_id = self.policy_mapping_fn(agent, None) if description.multi_agent else "default_policy"
            members_of.setdefault(module_id, []).append(agent)
        spaces: dict[str, Any] = {}
        for module_id, agents in members_of.items():
            space = description.observation_spaces[agents[0]]
            if self.agent_id:
                space = with_agent_id_space(space, len(agents))
            spaces[module_id] = (space, description.action_spaces[agents[0]])
        return spaces

    def _measure_states(self, kind: str, description: EnvDescription) -> None:
        """Note what a central value sees, and how large it is in the environment."""
        try:
            source = StateSource.of(kind, self.env, description.observation_spaces, description.state_size)
        except ConfigError as error:
            raise ConfigError(f"central_value: {error}") from error
        assert source is not None
        self._set_states({STATE_SOURCE: kind, STATE_SIZE: source.size, NUM_AGENTS: len(description.agents)})

    def _set_states(self, settings: dict[str, Any] | None) -> None:
        others = {
            key: value
            for key, value in as_dict(self._model_config).items()
            if key not in (STATE_SOURCE, STATE_SIZE, NUM_AGENTS)
        }
        self._model_config = others | (settings or {})

    def _note_other_agents(self, description: EnvDescription | None) -> None:
        """Note whose actions an opponent model predicts; nothing where the environment is not known."""
        others = None if description is None else _other_agents(self.env, description)
        kept = {key: value for key, value in as_dict(self._model_config).items() if key != OTHER_AGENTS}
        self._model_config = kept | ({} if others is None else {OTHER_AGENTS: others.as_dict()})


def _other_agents(env: Any, description: EnvDescription) -> OtherAgents:
    """Return what an opponent model predicts in an environment.

    Raises:
        ConfigError: It has a single agent, or agents whose actions are not all of one kind.
    """
    if not description.multi_agent or len(description.agents) < 2:
        raise ConfigError(f"{OPPONENT_MODEL}: {env} has a single agent; set it to null")
    found = {}
    for agent, space in description.action_spaces.items():
        spec = ActionSpec.of(space, rescaled=False)
        if spec.parts is not None:
            raise ConfigError(
                f"{OPPONENT_MODEL}: predicts a discrete number from 0 or a row of real numbers, {agent} has {space}; "
                "set it to null"
            )
        found[agent] = (spec.count is not None, len(spec.low) if spec.count is None else spec.count)
    kinds = set(found.values())
    is_discrete, most = max(kinds)
    if len({kind for kind, _ in kinds}) > 1 or (not is_discrete and len(kinds) > 1):
        spaces = ", ".join(sorted({str(space) for space in description.action_spaces.values()}))
        raise ConfigError(
            f"{OPPONENT_MODEL}: needs agents that all have discrete actions, or rows of as many real numbers; "
            f"{env} has {spaces}; set it to null"
        )
    return OtherAgents(len(found) - 1, most, is_discrete)
