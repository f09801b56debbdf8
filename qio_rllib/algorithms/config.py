"""What the configurations of all algorithms here have in common: names for environments, the Q operator, annealing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import gymnasium
import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.utils.metrics import EVALUATION_RESULTS

import qio_envs
from qio_envs.api import ConfigError, check_keys, did_you_mean
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.settings import SETTERS, parameters_of
from qio_rllib.exploration import Amplification, make_annealing
from qio_rllib.models.circuits import CIRCUIT, CircuitSettings
from qio_rllib.models.coordination import COORDINATION, CoordinationSettings
from qio_rllib.models.memory import memory_kind
from qio_rllib.models.values import NUM_AGENTS, STATE_SIZE, STATE_SOURCE
from qio_rllib.sampling.environments import EnvDescription, describe_env, register_with_tune
from qio_rllib.sampling.episodes import EpisodeRecord
from qio_rllib.sampling.evaluation import evaluate_algorithm
from qio_rllib.sampling.global_state import OBSERVATIONS, STATE, StateSource
from qio_rllib.sampling.groups import AGENT_ID
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.vector_env import numbers_of

SHARED_MODULE = "shared"
OWN_MODEL_SETTINGS = (
    "amplification",
    "communication",
    CIRCUIT,
    COORDINATION,
    STATE_SOURCE,
    STATE_SIZE,
    NUM_AGENTS,
    AGENT_ID,
)
_OWN_SETTINGS = frozenset(
    {"agent_id", "amplification", "central_value", "communication", "entropy_annealing", "normalize_values"}
    | {CIRCUIT, COORDINATION, "model_config"}
)
"""Settings that live under another name in a configuration's attributes."""


class PolicyMapping:
    """Says which module acts for an agent.

    Args:
        modules: Module id by agent id; agents that are not in it go to ``shared``.
    """

    def __init__(self, modules: Mapping[Any, str] | None = None) -> None:
        self.modules = dict(modules or {})

    def __call__(self, agent_id: Any, episode: Any = None, **kwargs: Any) -> str:
        """Return the module id of an agent."""
        return self.modules.get(agent_id, SHARED_MODULE)


class EpisodeMetrics(RLlibCallback):
    """Logs what the environment itself says of an episode (numbers in the last ``info``) beside RLlib's return.

    A value of -1 for a key that begins with ``steps_to_`` means «not reached» and is left out of the mean.
    """

    def on_episode_end(
        self, *, episode: Any, env_runner: Any, metrics_logger: Any = None, **kwargs: Any
    ) -> None:
        """Log the numbers of the last info, averaged as RLlib averages returns."""
        if isinstance(episode, EpisodeRecord):
            return  # `BatchedEnvRunner` does so itself
        infos = episode.get_infos(-1)
        info = next(iter(infos.values()), {}) if hasattr(episode, "agent_episodes") else infos
        window = env_runner.config.metrics_num_episodes_for_smoothing
        for key, value in numbers_of(info).items():
            if not (key.startswith("steps_to_") and value < 0):
                metrics_logger.log_value(key, value, window=window)

    def on_train_result(self, *, algorithm: Any, result: dict[str, Any], **kwargs: Any) -> None:
        """Drop what RLlib repeats of an earlier evaluation in an iteration that had none."""
        interval = algorithm.config.evaluation_interval
        if not interval or algorithm.iteration % interval:
            result.pop(EVALUATION_RESULTS, None)


class RestoredWeights(RLlibCallback):
    """Waits until remote runners have the weights of a checkpoint; RLlib lets some sample with their first ones."""

    def on_checkpoint_loaded(self, *, algorithm: Any, **kwargs: Any) -> None:
        """Hand the Learner's weights to every remote runner."""
        group = algorithm.env_runner_group
        if group is not None and group.num_remote_env_runners():
            state = algorithm.learner_group.get_state(
                components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
            )[COMPONENT_LEARNER]
            reference = ray.put({COMPONENT_RL_MODULE: state[COMPONENT_RL_MODULE]})
            group.foreach_env_runner(
                "set_state", kwargs={"state": reference}, local_env_runner=False, timeout_seconds=60
            )


class ExploringConfig(AlgorithmConfig):
    """Mixin for an `AlgorithmConfig`: it stands first among the bases.

    - ``environment("forest_uav_v0")`` takes any name of `qio_rllib.sampling.environments.make_env`, registers it with
      Ray, and sets up the policies of a multi-agent environment: one shared policy if all agents have the same
      spaces, one for each agent otherwise.
    - ``multi_agent(policies=...)`` also takes ``"shared"``, ``"independent"`` and ``{module_id: [agent ids]}``.
    - ``training(amplification=..., entropy_annealing=...)``: the Q operator in the policy and the law of the
      entropy coefficient.
    - ``training(central_value=...)``: a value network that sees the whole environment (MAPPO, for PPO).

    Tune hands a config to its workers as a plain dictionary, of which RLlib's own algorithm class makes a plain
    config again; so all of this is kept in settings that RLlib knows, and nothing in overridden getters.
    """

    capabilities: ClassVar[Capabilities]

    _model_config: Any
    learner_config_dict: dict[str, Any]

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.callbacks([EpisodeMetrics, RestoredWeights])
        self.evaluation(custom_evaluation_function=evaluate_algorithm)

    @property
    def amplification(self) -> dict[str, Any] | None:
        """The Q operator's parameters; they live in ``model_config``."""
        return self.model_config.get("amplification")

    @property
    def entropy_annealing(self) -> dict[str, Any] | None:
        """The annealing law; it lives in ``learner_config_dict``, where a stock config has room for it too."""
        return self.learner_config_dict.get("entropy_annealing")

    @property
    def central_value(self) -> str | None:
        """What the value network sees besides the agent's own observation; it lives in ``model_config``."""
        return self.model_config.get(STATE_SOURCE)

    @property
    def normalize_values(self) -> bool:
        """Whether value targets are standardised; it lives in ``learner_config_dict``."""
        return bool(self.learner_config_dict.get("normalize_values"))

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
        if isinstance(self.env, str) and (env is not NotProvided or env_config is not NotProvided):
            register_with_tune(self.env)
            description = describe_env(self.env, self.env_config)
            if description.multi_agent and not self.is_multi_agent:
                self.multi_agent(policies=SHARED_MODULE if description.homogeneous else "independent")
            if self.central_value is not None:
                self._measure_states(self.central_value, description)
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
        if policies in (SHARED_MODULE, "independent") or (names_agents and policies):
            mapping = self._policy_mapping(policies)
            kwargs["policy_mapping_fn"] = mapping
            policies = set(mapping.modules.values()) or {SHARED_MODULE}
        elif isinstance(policies, str):
            raise ConfigError(
                f"policies: expected shared, independent or {{module: [agents]}}, got '{policies}'"
            )
        super().multi_agent(policies=policies, **kwargs)
        return self

    def training(
        self,
        *,
        amplification: Mapping[str, Any] | None = NotProvided,
        entropy_annealing: Mapping[str, Any] | None = NotProvided,
        central_value: Literal["state", "observations"] | None = NotProvided,
        normalize_values: bool = NotProvided,
        circuit: Mapping[str, Any] | None = NotProvided,
        coordination: Mapping[str, Any] | None = NotProvided,
        agent_id: bool = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in the algorithm's own ``training``.

        Args:
            amplification: ``{"eta": 0.1, "h_min": 0.05, "tau": 1.0}``, missing keys take these defaults; None leaves
                the policy as it is.
            entropy_annealing: ``{"law": "quantum" | "exponential", "alpha_0": ..., "alpha_min": ..., "decay": ...}``;
                takes the place of ``entropy_coeff``. None leaves ``entropy_coeff`` in charge.
            central_value: What each agent's value is estimated from besides its own observation and its place among
                the agents (Yu et al., 2022): ``"state"``, the environment's ``state()``, or ``"observations"``, those
                of all agents. Policies stay decentralised. None: from its own observation alone.
            normalize_values: Whether the value network learns targets that are standardised by their running mean and
                deviation (PopArt: van Hasselt et al., 2016), so that it need not first find their scale.
                ``vf_clip_param`` and the reported value losses are then in standard deviations.
            circuit: ``{"num_qubits": 4, "num_layers": 3, ...}``, see `CircuitSettings`: policy and value network (of
                DQN the Q-network) are quantum circuits, or with ``kind: classical`` MLPs of as many parameters. None:
                as ``model_config`` says.
            coordination: ``{"num_agents": 2, "resource": "entangled", ...}``, see `CoordinationSettings`: the policy
                of a team that shares a quantum state or a random number, for environments with ``as_team: true``.
            agent_id: Whether a one-hot of an agent's place among those of its module stands behind each observation,
                for policy and critics: agents that share a network can then do different things where they observe
                the same.
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key, a value outside its range, or ``"state"`` of an environment without one.
        """
        super().training(**kwargs)
        if agent_id is not NotProvided:
            self._model_config = {**_as_dict(self._model_config), AGENT_ID: bool(agent_id)}
        if central_value is not NotProvided:
            if central_value not in (None, STATE, OBSERVATIONS):
                raise ConfigError(
                    f"central_value: expected {STATE}, {OBSERVATIONS} or None, got {central_value!r}"
                    f"{did_you_mean(str(central_value), [STATE, OBSERVATIONS])}"
                )
            if central_value is not None and isinstance(self.env, str):
                self._measure_states(central_value, describe_env(self.env, self.env_config))
            else:
                self._set_states(None if central_value is None else {STATE_SOURCE: central_value})
        if amplification is not NotProvided:
            parameters = None if amplification is None else _amplification(amplification)
            self._model_config = {**_as_dict(self._model_config), "amplification": parameters}
        if normalize_values is not NotProvided:
            self.learner_config_dict = {
                **self.learner_config_dict,
                "normalize_values": bool(normalize_values),
            }
        for key, given, settings in (
            (CIRCUIT, circuit, CircuitSettings),
            (COORDINATION, coordination, CoordinationSettings),
        ):
            if given is not NotProvided:
                settings.of(given)
                self._model_config = {
                    **_as_dict(self._model_config),
                    key: None if given is None else dict(given),
                }
        if entropy_annealing is not NotProvided:
            try:
                make_annealing(entropy_annealing)
            except (ValueError, TypeError) as error:
                raise ConfigError(f"entropy_annealing: {error}") from error
            self.learner_config_dict = {
                **self.learner_config_dict,
                "entropy_annealing": None if entropy_annealing is None else dict(entropy_annealing),
            }
        return self

    def rl_module(self, *, model_config: Any = NotProvided, **kwargs: Any) -> Self:
        """Set the network; arguments as in `AlgorithmConfig.rl_module`.

        ``amplification``, ``central_value``, ``circuit`` and ``coordination`` stay as they were set.
        """
        if model_config is not NotProvided:
            kept = {
                key: value for key, value in _as_dict(self._model_config).items() if key in OWN_MODEL_SETTINGS
            }
            kwargs["model_config"] = kept | _as_dict(model_config)
        super().rl_module(**kwargs)
        return self

    def update_from_dict(self, config_dict: Mapping[str, Any]) -> Self:
        """Take settings by name, as ``tune.run(name, config={...})`` gives them.

        Every key goes to the method that takes it, checked as in an experiment file. What `to_dict` gave is taken as
        it is.

        Raises:
            ConfigError: An unknown key, one of another algorithm, or a value that is not allowed.
        """
        given = {key: value for key, value in config_dict.items() if not key.startswith("__")}  # Tune's own
        parameters = parameters_of(type(self))
        if any(key.startswith("_") for key in given):  # a whole configuration, attributes by name
            attributes = {key: value for key, value in given.items() if not self._is_own(key)}
            super().update_from_dict(attributes)
            given = {key: value for key, value in given.items() if self._is_own(key)}
        env = given.pop("env", None)
        calls = parameters.check(given, "config")
        if env is not None:
            calls.setdefault("environment", {})["env"] = env
        for setter in SETTERS:
            if setter in calls:
                getattr(self, setter)(**calls[setter])
        return self

    def _is_own(self, key: str) -> bool:
        """Whether a key is a setting that no attribute of its name keeps."""
        return not key.startswith("_") and key in _OWN_SETTINGS

    def validate(self) -> None:
        """Check the settings against each other and against what the algorithm supports.

        Raises:
            ConfigError: A value out of its range; a setting, an action space or a runner that the algorithm does not
                support; ``central_value`` or ``normalize_values`` with RLlib's own runner; a central value with layers
                shared with the policy, without a critic, or for an environment that is not set by name; a recurrent
                module whose window is longer than a rollout; ``agent_id`` where agents have no fixed places.
        """
        for parameter in parameters_of(type(self)).known.values():
            if parameter.range is not None and parameter.name in vars(self):
                parameter.range.check(parameter.name, vars(self)[parameter.name])
        self._check_capabilities()
        super().validate()
        self._check_team()
        self._check_windows()
        runner = self.env_runner_cls
        batched = isinstance(runner, type) and issubclass(runner, BatchedEnvRunner)
        if self.normalize_values and not batched:
            raise ConfigError(f"env_runner_cls: normalize_values needs BatchedEnvRunner, got {runner}")
        if self.central_value is None:
            return
        if not batched:
            raise ConfigError(
                f"env_runner_cls: central_value needs BatchedEnvRunner, which records states, got {runner}"
            )
        if self.model_config.get("vf_share_layers"):
            raise ConfigError(
                "vf_share_layers: a central value has a network of its own; set it to false, or central_value to null"
            )
        if not getattr(self, "use_critic", True):
            raise ConfigError("use_critic: false leaves nothing to learn a central value with")
        if not self.model_config.get(STATE_SIZE):
            raise ConfigError(
                "central_value: set the environment by name, so that its states can be measured"
            )

    def _check_capabilities(self) -> None:
        """Refuse what the algorithm does not support."""
        able, name = self.capabilities, _algorithm_name(self)
        settings = {
            "amplification": self.amplification,
            "entropy_annealing": self.entropy_annealing,
            "central_value": self.central_value if able.central_value or not able.joint_critics else None,
            "normalize_values": self.normalize_values or None,
            **{key: self.model_config.get(key) for key in (CIRCUIT, COORDINATION, "communication")},
        }
        for key, value in settings.items():
            if value is not None and not getattr(able, key):
                raise ConfigError(f"{key}: {name} {able.refusal(key)}")
        runner = self.env_runner_cls
        if not able.rllib_runner and not (isinstance(runner, type) and issubclass(runner, BatchedEnvRunner)):
            raise ConfigError(f"env_runner_cls: {name} needs BatchedEnvRunner, got {runner}")
        if self.num_learners > 1 and not able.several_learners:
            raise ConfigError(
                f"num_learners: {name} learns in one Learner, got {self.num_learners}; num_env_runners can be more"
            )
        kind = memory_kind(self.model_config)
        if kind is not None and not able.recurrent:
            raise ConfigError(f"use_{kind}: {name} has no memory")
        if isinstance(self.env, str):
            self._check_spaces(describe_env(self.env, self.env_config))

    def _check_spaces(self, description: EnvDescription) -> None:
        able, name = self.capabilities, _algorithm_name(self)
        if self.model_config.get(AGENT_ID) and not description.multi_agent:
            raise ConfigError(f"agent_id: {self.env} has a single agent, or none with a fixed place")
        for agent, space in description.action_spaces.items():
            owner = self.env if agent is None else f"{agent} of {self.env}"
            discrete = isinstance(space, gymnasium.spaces.Discrete)
            if discrete and not able.discrete:
                raise ConfigError(f"env: {name} needs Box actions, those of {owner} are {space}")
            if not discrete and not able.continuous:
                raise ConfigError(f"env: {name} needs Discrete actions, those of {owner} are {space}")
            if not discrete and self.amplification is not None:
                raise ConfigError(f"amplification: needs a Discrete action space, got {space}")
            law = (self.entropy_annealing or {}).get("law")
            if not discrete and law == "quantum":
                raise ConfigError(
                    f"entropy_annealing.law: quantum needs the normalised entropy of Discrete actions, those of "
                    f"{owner} are {space}; the exponential law needs none"
                )

    def _check_windows(self) -> None:
        """Refuse windows of a recurrent module that are longer than what an on-policy update has of an environment."""
        if self.capabilities.replays or memory_kind(self.model_config) is None or self.in_evaluation:
            return
        if not (isinstance(self.env_runner_cls, type) and issubclass(self.env_runner_cls, BatchedEnvRunner)):
            return
        steps, window = self.get_rollout_fragment_length(), int(self.model_config.get("max_seq_len", 20))
        if window > steps:
            raise ConfigError(
                f"model_config.max_seq_len: a window of {window} steps is longer than a rollout of {steps} steps "
                "of each environment; lower it, or raise rollout_fragment_length or train_batch_size_per_learner"
            )

    def _check_team(self) -> None:
        """Refuse a coordinated policy for other agents than those of the environment."""
        settings = CoordinationSettings.of(self.model_config.get(COORDINATION))
        if settings is None or self.env not in qio_envs.environments():
            return
        if not self.env_config.get("as_team"):
            raise ConfigError(
                f"coordination: acts for a whole team; set env_config.as_team of {self.env} to true"
            )
        apart = {key: value for key, value in self.env_config.items() if key != "as_team"}
        agents = qio_envs.environment(self.env).batched_env(1, **apart).num_agents
        if settings.num_agents != agents:
            raise ConfigError(
                f"coordination.num_agents: {self.env} has {agents} agents, got {settings.num_agents}"
            )

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
            for key, value in _as_dict(self._model_config).items()
            if key not in (STATE_SOURCE, STATE_SIZE, NUM_AGENTS)
        }
        self._model_config = others | (settings or {})

    def _policy_mapping(self, policies: str | Mapping[str, list]) -> PolicyMapping:
        if not isinstance(self.env, str):
            raise ConfigError("policies: set the environment first, by name")
        description = describe_env(self.env, self.env_config)
        if not description.multi_agent:
            raise ConfigError(f"policies: {self.env} has a single agent")
        agents = description.agents
        if policies == SHARED_MODULE:
            _check_same_spaces(SHARED_MODULE, list(agents), description)
            return PolicyMapping()
        if policies == "independent":
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


def _as_dict(model_config: Any) -> dict[str, Any]:
    return dict(model_config) if isinstance(model_config, Mapping) else dataclasses.asdict(model_config)


def _check_same_spaces(module_id: str, agents: list, description: EnvDescription) -> None:
    for agent in agents[1:]:
        for kind in ("observation_spaces", "action_spaces"):
            spaces = getattr(description, kind)
            if spaces[agent] != spaces[agents[0]]:
                raise ConfigError(
                    f"policies.{module_id}: {agents[0]} and {agent} differ in their {kind[:-1].replace('_', ' ')} "
                    "and cannot share a policy; use independent or {module: [agents]}"
                )


def _algorithm_name(config: AlgorithmConfig) -> str:
    return type(config).__name__.removesuffix("Config")


def _amplification(settings: Mapping[str, Any]) -> dict[str, Any]:
    check_keys("amplification", settings, [field.name for field in dataclasses.fields(Amplification)])
    try:
        return dataclasses.asdict(Amplification(**settings))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"amplification: {error}") from error
