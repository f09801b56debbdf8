"""Configuration of `Federated`: what one client does, who takes part, and what is between them."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import gymnasium
import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_envs.api import ConfigError
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.algorithms.federated_hosts import Layouts
from qio_rllib.algorithms.off_policy_config import OffPolicyConfig
from qio_rllib.algorithms.own_settings import checked_mapping
from qio_rllib.algorithms.search_spaces import holds_search_space
from qio_rllib.algorithms.setting_types import Range
from qio_rllib.algorithms.settings import Settings, apply_settings, refusals
from qio_rllib.federated.clients import Client, clients_of
from qio_rllib.federated.federation_settings import FederationSettings
from qio_rllib.learners.client_correction import CorrectionSettings
from qio_rllib.learners.common import as_module
from qio_rllib.mapping_settings import MappingSettings
from qio_rllib.models.values import NUM_AGENTS, STATE_SIZE
from qio_rllib.sampling.streams import generator

_OWN_SETTERS = (
    "environment",
    "training",
    "evaluation",
    "reporting",
    "checkpointing",
    "debugging",
    "callbacks",
)
_MIRRORED = ("_model_config", "_rl_module_spec", "policies", "policy_mapping_fn", "normalize_actions")


class FederatedConfig(ExploringConfig):
    """Configuration of `Federated`.

    What one client does stands under ``local``, as for the algorithm alone; here stands what is between clients, and
    the environment in which the common policy is evaluated.
    """

    def __init__(self, algo_class: Any = None) -> None:
        from qio_rllib.algorithms.federated import Federated  # which needs this class

        super().__init__(algo_class=algo_class or Federated)
        self.local: dict[str, Any] = {"run": "PPO"}
        self.clients: Any = None
        self.participation: dict[str, Any] | None = None
        self.local_iterations = 1
        self.num_hosts = 0
        self.round_timeout_s: float | None = None
        self.aggregation: dict[str, Any] | None = None
        self.server: dict[str, Any] | None = None
        self.correction: dict[str, Any] | None = None
        self.compression: dict[str, Any] | None = None
        self.quantization: dict[str, Any] | None = None
        self.secure: dict[str, Any] | None = None
        self.privacy: dict[str, Any] | None = None
        self.attack: dict[str, Any] | None = None
        self.dropouts: dict[str, Any] | None = None
        self.personal: list[str] = []
        self.optimizer_state = "keep"
        self.evaluation_clients = 10

    @classmethod
    def settings(cls) -> Settings:
        """Return the table of the settings that stand beside ``local``."""
        found = super().settings()
        own = inspect.signature(FederatedConfig.training).parameters
        known = {
            name: one
            for name, one in found.known.items()
            if one.setter in _OWN_SETTERS and (one.setter != "training" or name in own)
        }
        local = {
            name: [f"the local algorithm (config.local.{name})"]
            for name in (*found.known, *found.elsewhere)
            if name not in known
        }
        named = [name for name in found.own if name in known]
        return dataclasses.replace(found, known=known, own=named, elsewhere=local)

    def training(
        self,
        *,
        local: Mapping[str, Any] = NotProvided,
        clients: str | Mapping[str, Any] | list = NotProvided,
        participation: Mapping[str, Any] | None = NotProvided,
        local_iterations: Annotated[int, Range(1)] = NotProvided,
        num_hosts: Annotated[int, Range(0)] = NotProvided,
        round_timeout_s: Annotated[float | None, Range(0, low_open=True)] = NotProvided,
        aggregation: Mapping[str, Any] | None = NotProvided,
        server: Mapping[str, Any] | None = NotProvided,
        correction: Mapping[str, Any] | None = NotProvided,
        compression: Mapping[str, Any] | None = NotProvided,
        quantization: Mapping[str, Any] | None = NotProvided,
        secure: Mapping[str, Any] | None = NotProvided,
        privacy: Mapping[str, Any] | None = NotProvided,
        attack: Mapping[str, Any] | None = NotProvided,
        dropouts: Mapping[str, Any] | None = NotProvided,
        personal: list[str] = NotProvided,
        optimizer_state: Literal["keep", "reset"] = NotProvided,
        evaluation_clients: Annotated[int, Range(0)] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set what is between the clients.

        Args:
            local: ``{"run": "PPO", ...}``: what each client does, an algorithm of this package and its settings.
            clients: Who takes part: the name of a family of environments, ``{"family": name, "count": clients}``, or
                a list of ``{"env": id, "env_config": {...}, "count": 1, "label": name}``; see `clients_of`.
            participation: ``{"clients": 10}`` or ``{"probability": 0.1}`` a round, see `ParticipationSettings`; None
                for all clients.
            local_iterations: Iterations of the local algorithm in a round.
            num_hosts: Ray actors that train clients; 0 trains them in the driver's process.
            round_timeout_s: Seconds after which a round goes on without those that have not answered; None to wait.
                With it a run depends on the machine.
            aggregation: ``{"rule": "mean", "weights": "equal", ...}``, see `AggregationSettings`.
            server: ``{"type": "sgd", "lr": 1.0, "momentum": 0.0}`` or ``{"type": "adam", ...}``, see
                `ServerOptimizerSettings`.
            correction: ``{"type": "fedprox" | "fedkl", "coefficient": ...}`` or ``{"type": "scaffold"}``, see
                `CorrectionSettings`: what keeps clients from drifting apart.
            compression: ``{"type": "int8" | "top_k" | "random_k", ...}``, see `CompressionSettings`.
            quantization: ``{"bound": 4.0, "fraction_bits": 16}``: updates as integers, see `QuantizationSettings`.
            secure: ``{"group_size": ..., ...}``: secure aggregation, see `SecureSettings`; ``{}`` for its defaults.
            privacy: ``{"mechanism": "gaussian", "clip": 1.0, "noise_multiplier": 1.0, ...}``, see `PrivacySettings`. No
                number of a client is reported then.
            attack: ``{"type": "sign_flip", "share": 0.2, "scale": 3.0}``: malicious clients, see `AttackSettings`.
            dropouts: ``{"probability": 0.1}``: clients that are lost in a round, see `DropoutSettings`.
            personal: Beginnings of the names of parameters that stay with their client, such as ``["value"]`` or
                ``["policy.head"]``.
            optimizer_state: Whether a client keeps the state of its optimizer between rounds.
            evaluation_clients: In how many clients' environments an evaluation plays besides the experiment's own; of
                more clients so many at equal distances.
            **kwargs: Settings of the local algorithm, which are refused here.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        self._checked(**kwargs)
        self._take(
            local=local,
            clients=clients,
            participation=participation,
            local_iterations=local_iterations,
            num_hosts=num_hosts,
            round_timeout_s=round_timeout_s,
            aggregation=aggregation,
            server=server,
            compression=compression,
            quantization=quantization,
            secure=secure,
            privacy=privacy,
            attack=attack,
            dropouts=dropouts,
            personal=personal,
            optimizer_state=optimizer_state,
            evaluation_clients=evaluation_clients,
            correction=correction,
        )
        if not holds_search_space(self.local):
            self._local_algorithm()
        mappings: tuple[type[MappingSettings], ...] = (*FederationSettings.MAPPINGS, CorrectionSettings)
        for settings in mappings:
            checked_mapping(getattr(self, settings.key), settings.of)
        return self

    def validate(self) -> None:
        """Check the settings against each other, those of the local algorithm and all clients' environments.

        Raises:
            ConfigError: Naming the setting.
        """
        AlgorithmConfig.validate(self)
        if self.clients is None:
            raise ConfigError("clients: missing; expected the name of a family of environments, or a list")
        local = self.local_config()
        with self._inside_local():
            local.validate()
        self._check_local(local)
        self.federation_settings()
        self._check_hosts()
        self._check_spaces(local)
        if self.personal:
            spec = local.copy(copy_frozen=False).get_multi_rl_module_spec(spaces=local.module_spaces())
            Layouts.of(as_module(spec.build()), self.personal)
        # What evaluation and checkpoints read of the policy is the local algorithm's.
        for name in _MIRRORED:
            setattr(self, name, getattr(local, name))

    def local_config(self) -> ExploringConfig:
        """Return the configuration of the local algorithm in the experiment's environment, for the common policy."""
        config = self._local_config(self.env, self.env_config, self.seed)
        config.evaluation(
            evaluation_interval=self.evaluation_interval,
            evaluation_duration=self.evaluation_duration,
        )
        config.min_sample_timesteps_per_iteration = None
        return config

    def template(self) -> ExploringConfig:
        """Return the configuration of the algorithm that takes over the states of clients."""
        return self._local_config(self.env, self.env_config, self.seed)

    def client_config(self, client: Client) -> ExploringConfig:
        """Return the configuration of a client's algorithm: in its environment, with random numbers of its own."""
        return self._local_config(client.env, client.env_config, self.client_seed(client))

    def client_seed(self, client: Client) -> int | None:
        """Return the seed of a client's random numbers; None where the federation has none."""
        return (
            None if self.seed is None else int(generator(self.seed, "client", client.index).integers(2**31))
        )

    def all_clients(self) -> tuple[Client, ...]:
        """Return who takes part.

        Raises:
            ConfigError: The setting names nobody; the message says why.
        """
        return clients_of(self.clients, self.env, self.env_config)

    def federation_settings(self) -> FederationSettings:
        """Return what the server has to know.

        Raises:
            ConfigError: Settings that do not go together.
        """
        correction = CorrectionSettings.of(self.correction)
        given: dict[str, Any] = {
            settings.key: settings.of(getattr(self, settings.key)) for settings in FederationSettings.MAPPINGS
        }
        return FederationSettings(
            num_clients=len(self.all_clients()),
            uses_variates=correction is not None and correction.type == "scaffold",
            seed=self.seed,
            **{key: value for key, value in given.items() if value is not None},
        )

    def max_env_steps(self) -> int:
        """Return the environment steps that a client can learn from in a round."""
        local = self._local_config(self.env, self.env_config, None)
        at_once = local.get_rollout_fragment_length() * local.num_envs_per_env_runner
        wanted = local.round_steps if isinstance(local, OffPolicyConfig) else local.total_train_batch_size
        a_step = math.ceil(wanted / at_once) * at_once
        wanted = local.min_sample_timesteps_per_iteration or 1
        return self.local_iterations * a_step * math.ceil(wanted / a_step)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return that of the local algorithm."""
        return self.local_config().get_default_rl_module_spec()

    def get_multi_rl_module_spec(self, **kwargs: Any) -> Any:
        """Return that of the local algorithm."""
        return self.local_config().get_multi_rl_module_spec(**kwargs)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return that of the local algorithm."""
        return self.local_config().get_default_learner_class()

    @property
    def agent_id(self) -> bool:
        """Whether agents see their index within their module."""
        return bool(self.local.get("agent_id"))

    def _local_config(self, env: Any, env_config: Mapping[str, Any], seed: int | None) -> ExploringConfig:
        config, settings = self._local_algorithm()
        with self._inside_local():
            config.env_runners(num_env_runners=0)
            config.learners(num_learners=0)
            apply_settings(config, config.settings(), {"env_config": dict(env_config), **settings}, env)
        config.seed = seed
        config.log_level = self.log_level
        return config

    def _local_algorithm(self) -> tuple[ExploringConfig, dict[str, Any]]:
        """Return the default configuration of the local algorithm, and the settings that go on top, each checked."""
        from qio_rllib.algorithms import LOCAL_ALGORITHMS

        settings = dict(self.local)
        run = settings.pop("run", None)
        if run not in LOCAL_ALGORITHMS:
            raise ConfigError(f"config.local.run: expected one of {', '.join(LOCAL_ALGORITHMS)}, got {run!r}")
        config = LOCAL_ALGORITHMS[run]()
        known = config.settings()
        with self._inside_local():
            for key, value in settings.items():
                known.checked(key, value, in_python=True)
        for key in settings:
            if key in ("seed", "env_config") or known.find(key).setter == "evaluation":
                raise ConfigError(f"config.{key}: stands beside local, not in it")
        return config, settings

    @contextlib.contextmanager
    def _inside_local(self) -> Iterator[None]:
        """Say of what is refused that it stands under ``local``."""
        try:
            with refusals("config.local", self.local):
                yield
        except ConfigError as error:
            text = str(error)
            if text.startswith(("config.", "config:")) and not text.startswith("config.local"):
                text = "config.local" + text.removeprefix("config")
            raise ConfigError(text if text.startswith("config.local") else f"config.local.{text}") from error

    def _check_local(self, local: ExploringConfig) -> None:
        if not local.is_batched:
            raise ConfigError("config.local.env_runner_cls: clients are sampled by BatchedEnvRunner")
        for key in ("num_env_runners", "num_learners"):
            if local[key]:
                raise ConfigError(
                    f"config.local.{key}: a client is one process; set num_hosts for more, expected 0, got {local[key]}"
                )
        correction = CorrectionSettings.of(self.correction)
        if correction is not None:
            correction.check_learner(local.learner_class)
        if local.normalize_values and not any("value" in prefix for prefix in self.personal):
            raise ConfigError(
                "config.local.normalize_values: the scale of its values is a client's own; keep the value network so "
                'too (personal: ["value"])'
            )

        for key in ("normalize_observations", "normalize_rewards"):
            if getattr(local, key):
                raise ConfigError(
                    f"config.local.{key}: a federation merges no running moments; set it to false"
                )

    def _check_hosts(self) -> None:
        cpus = ray.cluster_resources().get("CPU", 0) if ray.is_initialized() else os.cpu_count() or 1
        if self.num_hosts > cpus:
            raise ConfigError(
                f"config.num_hosts: expected at most the {cpus:g} CPUs there are, got {self.num_hosts}"
            )

    def _check_spaces(self, local: ExploringConfig) -> None:
        """Refuse clients for which one policy cannot act; members of a family are alike, which the family checks."""
        expected = _form(local)
        clients = self.all_clients()
        seen: set[str] = set()
        for client in clients if isinstance(self.clients, list) else clients[:1]:
            if client.environment_key in seen:
                continue
            seen.add(client.environment_key)
            found = _form(self._local_config(client.env, client.env_config, None))
            if found != expected:
                raise ConfigError(
                    f"clients: '{client.label}' ({client.env}) has {found}, the experiment's environment has "
                    f"{expected}; expected the same"
                )

    def _check_stored(self) -> None:
        """Nothing: what a search has changed is checked in `validate`."""


def _form(config: ExploringConfig) -> str:
    """Return what networks depend on: by module, the shapes and types of observations, and the actions; states."""
    parts = [
        f"{module_id}: observations {_shape(observation)}, actions {actions}"
        for module_id, (observation, actions) in config.module_spaces().items()
    ]
    sizes = {key: config.model_config[key] for key in (STATE_SIZE, NUM_AGENTS) if key in config.model_config}
    return "; ".join([*parts, *(f"{key} {size}" for key, size in sizes.items())])


def _shape(space: gymnasium.Space) -> str:
    if isinstance(space, gymnasium.spaces.Dict):
        return ", ".join(f"{key} {_shape(inner)}" for key, inner in space.items())
    return f"{space.shape} {space.dtype}" if isinstance(space, gymnasium.spaces.Box) else str(space)
