"""What the configurations of all algorithms here have in common: names for environments, settings, capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_rllib.algorithms.callbacks import EpisodeMetrics, RestoredWeights
from qio_rllib.algorithms.capabilities import Capabilities, is_wanted
from qio_rllib.algorithms.checked_config import CheckedConfig, is_same
from qio_rllib.algorithms.initial_weights import weights_checkpoint
from qio_rllib.algorithms.own_settings import (
    AMPLIFICATION,
    ENTROPY_ANNEALING,
    MAPPINGS,
    NORMALIZE_VALUES,
    OWN_LEARNER_SETTINGS,
    OWN_MODEL_SETTINGS,
    as_dict,
    checked_mapping,
    in_learner,
    in_model,
)
from qio_rllib.algorithms.search_spaces import holds_search_space
from qio_rllib.algorithms.settings import algorithm_name, checked_model_config
from qio_rllib.algorithms.validation import (
    check_capabilities,
    check_central_value,
    check_communication,
    check_consistency,
    check_counterfactual_baseline,
    check_imagination,
    check_influence_reward,
    check_normalization,
    check_opponent_model,
    check_product_actions,
    check_runner,
    check_self_play,
    check_team,
    check_team_reward,
    check_window,
)
from qio_rllib.causal.baseline import COUNTERFACTUAL_BASELINE
from qio_rllib.causal.influence import INFLUENCE_REWARD
from qio_rllib.games.self_play import SELF_PLAY, with_absolute_paths
from qio_rllib.learners.policy_consistency import CONSISTENCY
from qio_rllib.models.actor_critic import PolicyModule
from qio_rllib.models.circuits import CIRCUIT
from qio_rllib.models.communication import COMMUNICATION
from qio_rllib.models.coordination import COORDINATION
from qio_rllib.models.imagination import IMAGINATION
from qio_rllib.models.normalization import NORMALIZE_OBSERVATIONS
from qio_rllib.models.opponent_model import OPPONENT_MODEL
from qio_rllib.models.values import STATE_SOURCE, TEAM_VALUE
from qio_rllib.sampling.discounted_returns import NORMALIZE_REWARDS
from qio_rllib.sampling.evaluation import evaluate_algorithm
from qio_rllib.sampling.groups import AGENT_ID
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.team_reward import TEAM_REWARD

_IN_MODEL = (
    AMPLIFICATION,
    CIRCUIT,
    COMMUNICATION,
    COORDINATION,
    IMAGINATION,
    AGENT_ID,
    NORMALIZE_OBSERVATIONS,
    OPPONENT_MODEL,
)
"""Settings of ``training`` that are kept in ``model_config`` as they are."""


class ExploringConfig(CheckedConfig):
    """Mixin for an `AlgorithmConfig`: it stands first among the bases.

    - ``environment`` and ``multi_agent`` take names, as `NamedEnvironments` says.
    - ``training(amplification=..., entropy_annealing=...)``: the Q operator in the policy and the law of the
      entropy coefficient.
    - ``training(central_value=...)``: a value network that sees the whole environment (MAPPO, for PPO).
    - ``update_from_dict`` takes every setting, as `CheckedConfig` says.

    Attributes:
        capabilities: What the algorithm supports; a setting that needs more is refused.
        has_team_value: Whether ``team_reward`` makes the central value that of the team.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()
    has_team_value: ClassVar[bool] = False
    learner_config_dict: dict[str, Any]

    amplification = in_model(AMPLIFICATION, "The Q operator's parameters.")
    circuit = in_model(CIRCUIT, "Settings of circuits that are networks.")
    communication = in_model(COMMUNICATION, "What agents may tell each other.")
    coordination = in_model(COORDINATION, "What a team shares.")
    imagination = in_model(IMAGINATION, "What policies imagine before they act.")
    entropy_annealing = in_learner(ENTROPY_ANNEALING, "The annealing law.")
    normalize_values = in_learner(NORMALIZE_VALUES, "Whether value targets are standardised.", False)
    normalize_observations = in_model(
        NORMALIZE_OBSERVATIONS, "Whether observations are normalised by their running moments.", False
    )
    normalize_rewards = in_learner(
        NORMALIZE_REWARDS, "Whether rewards are divided by the running deviation of returns.", False
    )
    counterfactual_baseline = in_learner(
        COUNTERFACTUAL_BASELINE, "How advantages are taken against other actions."
    )
    interventional_consistency = in_learner(CONSISTENCY, "What a policy shall not follow.")
    influence_reward = in_learner(INFLUENCE_REWARD, "How agents are paid for their influence.")
    team_reward = in_learner(TEAM_REWARD, "What all agents of a team learn from.")
    self_play = in_learner(SELF_PLAY, "Whom agents play against.")

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.log_sys_usage = False  # a thread for each Algorithm, which stop() waits for; no table shows it
        self.num_cpus_per_learner = 1  # RLlib's "auto" is a measurement here, see `LearnerThreads`
        self.bootstrap_at_time_limit = True
        self.initial_weights: str | None = None
        self.callbacks([EpisodeMetrics, RestoredWeights])
        self.evaluation(custom_evaluation_function=evaluate_algorithm)

    def training(
        self,
        *,
        agent_id: bool = NotProvided,
        amplification: Mapping[str, Any] | None = NotProvided,
        entropy_annealing: Mapping[str, Any] | None = NotProvided,
        central_value: Literal["state", "observations"] | None = NotProvided,
        normalize_values: bool = NotProvided,
        normalize_observations: bool = NotProvided,
        normalize_rewards: bool = NotProvided,
        circuit: Mapping[str, Any] | None = NotProvided,
        communication: Mapping[str, Any] | None = NotProvided,
        coordination: Mapping[str, Any] | None = NotProvided,
        imagination: Mapping[str, Any] | None = NotProvided,
        counterfactual_baseline: Mapping[str, Any] | None = NotProvided,
        interventional_consistency: Mapping[str, Any] | None = NotProvided,
        influence_reward: Mapping[str, Any] | None = NotProvided,
        team_reward: Literal["common", "sum", "mean"] | None = NotProvided,
        self_play: Mapping[str, Any] | None = NotProvided,
        opponent_model: Mapping[str, Any] | None = NotProvided,
        bootstrap_at_time_limit: bool = NotProvided,
        initial_weights: str | None = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in the algorithm's own ``training``.

        Args:
            agent_id: Whether each agent sees, beside its observation, its index among the agents of its module
                (one-hot), so that agents of one policy can behave differently.
            amplification: ``{"eta": 0.1, "h_min": 0.05, "tau": 1.0}``, missing keys take these defaults; None leaves
                the policy as it is.
            entropy_annealing: ``{"law": "quantum" | "exponential", "alpha_0": ..., "alpha_min": ..., "decay": ...}``;
                takes the place of ``entropy_coeff``. None leaves ``entropy_coeff`` in charge. With Box actions the
                exponential law alone, for the other one follows an entropy that has a greatest value.
            central_value: What each agent's value is estimated from besides its own observation and its place among
                the agents (Yu et al., 2022): ``"state"``, the environment's ``state()``, or ``"observations"``, those
                of all agents. Policies stay decentralised. None: from its own observation alone.
            normalize_values: Whether the value network learns targets that are standardised by their running mean and
                deviation (PopArt: van Hasselt et al., 2016), so that it need not first find their scale.
                ``vf_clip_param`` and the reported value losses are then in standard deviations.
            normalize_observations: Whether networks take observations (central values: states too) less their running
                mean, in running standard deviations, clipped to 10 of them. Each module has its own, over all that its
                agents observed in all runners. They move behind each update; acting and evaluation do not change them,
                and policy files hold them.
            normalize_rewards: Whether the Learner divides rewards by the running standard deviation of the discounted
                return so far, each module by its own. Value losses are then in these units; returns are reported
                without it.
            circuit: ``{"num_qubits": 4, "num_layers": 3, ...}``, see `CircuitSettings`: policy and value network (of
                DQN the Q-network) are quantum circuits, or with ``kind: classical`` MLPs of as many parameters. None:
                as ``model_config`` says.
            communication: ``{"bandwidth": 4, "drop": 0.0, "routing": "broadcast", ...}``, see `Communication`: learned
                messages between agents, in numbers or (``bits``) in bits. None, or a bandwidth of 0, for none.
            coordination: ``{"num_agents": 2, "resource": "entangled", ...}``, see `CoordinationSettings`: the policy
                of a team that shares a quantum state or a random number, for environments with ``as_team: true``.
            imagination: ``{"horizon": 5, "source": "learned", ...}``, see `ImaginationSettings`: policy and value
                network also see what a model, learned beside them, imagines to follow (Racanière et al., 2017).
            counterfactual_baseline: ``{"samples": 8, ...}``, see `CounterfactualBaselineSettings`: an action's
                advantage is taken against what the agent's other actions would have given under the same random
                numbers, in branches of the environment. For environments of the suite and policies without memory.
                None: against the value estimate.
            interventional_consistency: ``{"coefficient": 10.0, "components": "discovered", ...}``, see
                `ConsistencySettings`: the loss counts how the policy changes with numbers on which no reward depends.
                Flat observations, and no memory.
            influence_reward: ``{"coefficient": 0.1, ...}``, see `InfluenceSettings`: agents are paid for how much their
                actions change what the others do next (Jaques et al., 2019). For several agents with discrete actions
                in environments of the suite and policies without memory. Returns are reported without it.
            team_reward: What every agent learns from: ``"common"``, the reward that all acting agents earn alike (a run
                in which they do not is refused), or ``"sum"`` or ``"mean"`` of what all agents earned in the step, dead
                ones counted with 0. PPO and A2C then go on until the last agent has ended, so that who dies for its
                team is paid, and learn one value of the state alone (``central_value``). Returns are reported without
                it. None: each agent from its own rewards, until it ends.
            self_play: ``{"matchmaking": "uniform", "pool_size": 16, ...}``, see `SelfPlaySettings`: teams learn against
                snapshots of earlier policies. For several agents that no reward joins (``team_reward``). Evaluations
                are between the present policies. None: all agents learn at once, against each other's present ones.
            opponent_model: ``{"coefficient": 0.5, "feed": true, ...}``, see `OpponentModelSettings`: policies predict
                what the other agents do in the same step, and act on it (He et al., 2016; Hernandez-Leal et al., 2019).
                For several agents, all with discrete actions or all with rows of as many real numbers. None: they
                predict nothing.
            bootstrap_at_time_limit: Whether a return goes on with the value of what was seen last where a time limit
                has cut an episode (partial-episode bootstrapping: Pardo et al., 2018). Where observations or states
                hold the time left, take false: what is seen at the limit is never acted in, so that its value is not
                learned; values are then too high or too low, and off-policy targets can grow without end.
            initial_weights: A run directory (its last checkpoint) or a checkpoint of the same networks, with whose
                weights, those of critics included, the training begins; optimizers and pools begin anew. Checkpoints
                are pickles: name only your own. None: random ones.
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key, a value outside its range, something that the algorithm does not support, or
                ``"state"`` of an environment without one.
        """
        kwargs = self._checked(**kwargs)
        if isinstance(self_play, Mapping):
            self_play = with_absolute_paths(self_play)
        own = self._checked(
            agent_id=agent_id,
            central_value=central_value,
            normalize_values=normalize_values,
            normalize_observations=normalize_observations,
            normalize_rewards=normalize_rewards,
            amplification=amplification,
            entropy_annealing=entropy_annealing,
            circuit=circuit,
            communication=communication,
            coordination=coordination,
            imagination=imagination,
            counterfactual_baseline=counterfactual_baseline,
            interventional_consistency=interventional_consistency,
            influence_reward=influence_reward,
            team_reward=team_reward,
            self_play=self_play,
            opponent_model=opponent_model,
        )
        for key, value in own.items():
            if is_wanted(value):
                self.capabilities.refuse(key, algorithm_name(type(self)), key)
        if bootstrap_at_time_limit is False:
            name = algorithm_name(type(self))
            self.capabilities.refuse("time_limits_as_ends", name, "bootstrap_at_time_limit")
        super().training(**kwargs)
        if isinstance(initial_weights, str):
            initial_weights = str(
                Path(initial_weights).absolute()
            )  # Tune's processes work in other directories
        self._take(bootstrap_at_time_limit=bootstrap_at_time_limit, initial_weights=initial_weights)
        if central_value is not NotProvided:
            description = None if holds_search_space(central_value) else self.describe_env()
            if central_value is not None and description is not None:
                self._measure_states(central_value, description)
            else:
                self._set_states(None if central_value is None else {STATE_SOURCE: central_value})
        for key in _IN_MODEL:
            if key in own:
                self._set_model(**{key: checked_mapping(own[key], MAPPINGS.get(key))})
        if OPPONENT_MODEL in own:
            known = opponent_model is not None and not holds_search_space(self.env_config)
            self._note_other_agents(self.describe_env() if known else None)
        if TEAM_REWARD in own and self.has_team_value:
            self._set_model(**{TEAM_VALUE: team_reward is not None})
        for key in OWN_LEARNER_SETTINGS:
            if key in own:
                value = checked_mapping(own[key], MAPPINGS.get(key))
                self.learner_config_dict = {**self.learner_config_dict, key: value}
        return self

    def rl_module(self, *, model_config: Any = NotProvided, **kwargs: Any) -> Self:
        """Set the network; arguments as in `AlgorithmConfig.rl_module`.

        ``agent_id``, ``amplification``, ``central_value``, ``circuit``, ``communication``, ``coordination``,
        ``imagination``, ``normalize_observations`` and ``opponent_model`` stay as they were set.

        Raises:
            ConfigError: A key of ``model_config`` that this package's modules do not know, or a value that they do not
                take; modules of your own get what you give.
        """
        super().rl_module(**kwargs)
        if model_config is not NotProvided:
            present = as_dict(self._model_config)
            kept = {key: value for key, value in present.items() if key in OWN_MODEL_SETTINGS}
            if self.has_own_modules and not isinstance(model_config, Mapping):
                checked_model_config(model_config)
            elif self.has_own_modules:
                changed = {
                    key: value
                    for key, value in model_config.items()
                    if not (key in kept and is_same(kept[key], value))
                }
                checked_mapping(changed, checked_model_config)
            given = {} if model_config is None else as_dict(model_config)
            super().rl_module(model_config=kept | given)
        return self

    def validate(self) -> None:
        """Check the settings against each other and against what the algorithm supports.

        Raises:
            ConfigError: Naming the setting.
        """
        check_capabilities(self)
        check_product_actions(self)
        super().validate()
        check_team(self)
        check_runner(self)
        if self.communication is not None:
            check_communication(self)
        if self.imagination is not None:
            check_imagination(self)
        if self.interventional_consistency is not None and not self.in_evaluation:
            check_consistency(self)
        if self.is_batched and not self.in_evaluation:  # RLlib gives evaluation a fragment length of its own
            self.check_window()
        if self.central_value is not None:
            check_central_value(self)
        if self.counterfactual_baseline is not None:
            check_counterfactual_baseline(self)
        if self.influence_reward is not None:
            check_influence_reward(self)
        if self.team_reward is not None:
            check_team_reward(self)
        if self.self_play is not None:
            check_self_play(self)
        if self.initial_weights is not None:
            weights_checkpoint(self.initial_weights)
        if self.opponent_model is not None:
            check_opponent_model(self)
        check_normalization(self)

    def check_window(self) -> None:
        """Refuse windows of a module with memory that no rollout can hold."""
        check_window(self)

    @property
    def is_batched(self) -> bool:
        """Whether the environments are sampled by `BatchedEnvRunner`."""
        runner = self.env_runner_cls
        return isinstance(runner, type) and issubclass(runner, BatchedEnvRunner)

    def build_learner_connector(self, *args: Any, **kwargs: Any) -> Any:
        """Return RLlib's pipeline from episodes to batches, or None where Learners take rollouts and need none."""
        return None if self.is_batched else super().build_learner_connector(*args, **kwargs)

    @property
    def has_own_modules(self) -> bool:
        """Whether the modules are of this package."""
        spec = self._rl_module_spec
        module = spec.module_class if isinstance(spec, RLModuleSpec) else None
        return isinstance(module, type) and issubclass(module, PolicyModule)

    def _set_model(self, **values: Any) -> None:
        self._model_config = {**as_dict(self._model_config), **values}
