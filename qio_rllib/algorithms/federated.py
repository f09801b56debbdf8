"""Federated learning: many clients, each with environments of its own, train one policy by sending weight updates."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import inspect
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import gymnasium
import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.actor_manager import FaultTolerantActorManager
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EVALUATION_RESULTS,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.tune.execution.placement_groups import PlacementGroupFactory

from qio_envs.api import ConfigError
from qio_rllib.acting.policy import Policy
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.algorithms.federated_host import (
    ClientHost,
    ClientRecord,
    Layouts,
    Order,
    Task,
    Trained,
)
from qio_rllib.algorithms.own_settings import checked_mapping
from qio_rllib.algorithms.search_spaces import holds_search_space
from qio_rllib.algorithms.setting_types import Range
from qio_rllib.algorithms.settings import Settings, apply_settings, refusals
from qio_rllib.federated.clients import Client, clients_of
from qio_rllib.federated.server import FederatedServer, RoundPlan, RoundReport, Update
from qio_rllib.federated.settings import ENVIRONMENT_ATTACKS, FederationSettings
from qio_rllib.learners.client_correction import CorrectionSettings
from qio_rllib.learners.common import as_module
from qio_rllib.mapping_settings import MappingSettings
from qio_rllib.models.values import NUM_AGENTS, STATE_SIZE
from qio_rllib.sampling.evaluation import (
    evaluate,
    evaluate_algorithm,
    evaluation_seeds,
    mean_scores,
    policy_from_modules,
)
from qio_rllib.sampling.streams import generator

FEDERATION = "federation"
"""Key of a round's numbers in results, and of the federation's part of a checkpoint."""

CLIENTS = "clients"
MAX_LABELS = 32
"""Numbers of single clients are reported where there are at most so many."""

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


logger = logging.getLogger(__name__)


class FederatedConfig(ExploringConfig):
    """Configuration of `Federated`.

    What one client does stands under ``local``, as for the algorithm alone; here stands what is between clients, and
    the environment in which the common policy is evaluated.
    """

    def __init__(self, algo_class: Any = None) -> None:
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
            secure: ``{"threshold": ..., ...}``: secure aggregation, see `SecureSettings`; ``{}`` for its defaults.
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
            custom_evaluation_function=evaluate_federation,
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
        wanted = getattr(local, "round_steps", None) or local.total_train_batch_size
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
            kind = f"{client.env} {sorted(client.env_config.items())}"
            if kind in seen:
                continue
            seen.add(kind)
            found = _form(self._local_config(client.env, client.env_config, None))
            if found != expected:
                raise ConfigError(
                    f"clients: '{client.label}' ({client.env}) has {found}, the experiment's environment has "
                    f"{expected}; expected the same"
                )

    def _check_stored(self) -> None:
        """Nothing: what a search has changed is checked in `validate`."""


class Federated(Algorithm):
    """Rounds of federated averaging over any algorithm of this package (McMahan et al., 2017; Jin et al., 2022: QAvg).

    A training step is a round: clients are drawn, take over the weights, train in their own environments, and send
    what changed. Its own policy is the common one, which evaluates, checkpoints, renders and exports like any other;
    ``config`` is the local algorithm's and ``federation`` the `FederatedConfig`.

    Clients are trained by hosts, which keep nothing: what a client keeps (environments, random numbers, optimizer,
    replay, personal parameters) lies with the driver and in checkpoints. So a host that is lost costs time alone, and
    a run that is resumed goes on exactly, whatever the number of hosts; except with a ``round_timeout_s``, without a
    seed, or with ``privacy.randomness: system``.

    Raises:
        ConfigError: Settings that do not go together.
    """

    federation: FederatedConfig
    _host: ClientHost | None = None
    _hosts: FaultTolerantActorManager | None = None
    _num_lost_hosts = 0

    @classmethod
    def get_default_config(cls) -> FederatedConfig:
        """Return the default configuration."""
        return FederatedConfig()

    @classmethod
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        """Return one bundle for the driver and one for each host."""
        config = cls.get_default_config().update_from_dict(config)
        driver = {"CPU": config.num_cpus_for_main_process}
        return PlacementGroupFactory(
            [driver, *[{"CPU": 1}] * config.num_hosts], strategy=config.placement_strategy
        )

    def setup(self, config: Any) -> None:
        """Build the common policy, the server, and the hosts."""
        if not isinstance(config, AlgorithmConfig):
            given = FederatedConfig().update_from_dict(config)
            given.env = self._env_id
            self.config = given
        self.federation = self.config.copy(copy_frozen=False)
        self.federation.validate()
        self.federation.freeze()
        self.config = self.federation.local_config()
        self.config.validate()
        self.config.freeze()
        super().setup(self.config)
        self.clients = self.federation.all_clients()
        self.layouts = Layouts.of(self.common_modules(), self.federation.personal)
        self.federated_server = FederatedServer(
            self.federation.federation_settings(),
            self.layouts.shared.read(self.common_modules()),
            self.layouts.shared.hash,
            self.federation.max_env_steps(),
            functools.partial(generator, self.federation.seed),
        )
        self.records: dict[int, ClientRecord] = {}
        if self.federation.num_hosts:
            host = ray.remote(num_cpus=1, max_restarts=-1)(ClientHost)
            actors = [host.remote(self.federation) for _ in range(self.federation.num_hosts)]
            self._hosts = FaultTolerantActorManager(actors, max_remote_requests_in_flight_per_actor=2)
        else:
            self._host = ClientHost(self.federation)

    def common_modules(self) -> torch.nn.ModuleDict:
        """Return the modules of the common policy by id."""
        return as_module(self.learner_group._learner.module)

    def client_policy(self, client: Client) -> Policy:
        """Return the policy of a client: the common one with its personal parameters, in its environment."""
        modules = dict(self.client_modules(client).items())
        return policy_from_modules(modules, self.federation.client_config(client))

    def client_modules(self, client: Client) -> torch.nn.ModuleDict:
        """Return copies of the common modules with a client's personal parameters, by id."""
        modules = copy.deepcopy(self.common_modules())
        record = self.records.get(client.index)
        if record is not None and self.layouts.personal is not None:
            self.layouts.personal.write(modules, record.personal)
        return modules

    def training_step(self) -> None:
        """Play a round."""
        server = self.federated_server
        plan = server.plan()
        attack = server.settings.attack
        malicious = frozenset[int]()
        if attack is not None and attack.type in ENVIRONMENT_ATTACKS:
            malicious = attack.malicious(len(self.clients))
        tasks = [
            Task(
                self.clients[index],
                self.records.get(index),
                attack.type if attack is not None and index in malicious else None,
                server.variate_of(index),
            )
            for index in plan.trains
        ]
        personal = self.layouts.read_personal(self.common_modules())
        order = Order(plan.number, server.weights, personal, server.variate)
        trained = self._train(tasks, order)
        for one in trained.values():
            self.records[one.client] = one.record
        updates: dict[int, Update] = {index: trained[index].update for index in sorted(trained)}
        report = server.finish(plan, updates)
        self._install(server.weights)
        for client, reason in report.refused.items():
            logger.warning(
                "round %d: '%s' is left out: %s", plan.number + 1, self.clients[client].label, reason
            )
        if report.failure is not None:
            logger.warning("round %d releases nothing: %s", plan.number + 1, report.failure)
        self._log(plan, trained, report)

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the state, with the server's and all clients'."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(FEDERATION, components, not_components):
            state[FEDERATION] = {
                "server": self.federated_server.get_state(),
                "clients": {
                    index: {"state": record.state, "personal": record.personal}
                    for index, record in self.records.items()
                },
            }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        super().set_state(state)
        if FEDERATION in state:
            self.federated_server.set_state(state[FEDERATION]["server"])
            clients = state[FEDERATION]["clients"]
            self.records = {int(index): ClientRecord(**record) for index, record in clients.items()}

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return what a checkpoint needs to build the Algorithm again."""
        return (self.federation.get_state(),), {}

    def cleanup(self) -> None:
        """Stop the hosts and all else."""
        super().cleanup()
        if self._host is not None:
            self._host.stop()
        if self._hosts is not None:
            self._hosts.clear()

    # -- one round ------------------------------------------------------------------------------------------------

    def _train(self, tasks: Sequence[Task], order: Order) -> dict[int, Trained]:
        """Return what came of each client's training; of those that did not answer in time nothing."""
        if self._host is not None:
            timeout = self.federation.round_timeout_s
            end = math.inf if timeout is None else time.monotonic() + timeout
            found = {}
            for task in tasks:
                if time.monotonic() >= end:
                    break
                found[task.client.index] = self._host.train([task], order)[0]
            return found
        return self._train_on_hosts(tasks, order)

    def _train_on_hosts(self, tasks: Sequence[Task], order: Order) -> dict[int, Trained]:
        hosts, timeout = self._hosts, self.federation.round_timeout_s
        assert hosts is not None
        end = math.inf if timeout is None else time.monotonic() + timeout
        tag, shared = f"round {order.number}", ray.put(order)
        size = max(1, math.ceil(len(tasks) / (4 * hosts.num_actors())))
        waiting = collections.deque(tasks[start : start + size] for start in range(0, len(tasks), size))
        running: dict[int, Sequence[Task]] = {}
        found: dict[int, Trained] = {}
        while waiting or running:
            for actor in hosts.healthy_actor_ids():
                if waiting and actor not in running:
                    part = waiting.popleft()
                    work = functools.partial(_work, tasks=part, order=shared)
                    if hosts.foreach_actor_async(work, tag=tag, remote_actor_ids=[actor]):
                        running[actor] = part
                    else:  # still at work on an earlier round
                        waiting.appendleft(part)
            left = end - time.monotonic()
            if left <= 0:
                break
            answers = list(hosts.fetch_ready_async_reqs(tags=[tag], timeout_seconds=min(left, 1.0)))
            for answer in answers:
                part = running.pop(answer.actor_id)
                if answer.ok:
                    found |= {one.client: one for one in answer.get()}
                else:
                    error = answer.get()
                    if not isinstance(error, ray.exceptions.RayActorError):
                        raise error  # the fault of the environment or the settings, not of the host
                    self._num_lost_hosts += 1
                    waiting.appendleft(part)
            if not answers and hosts.num_healthy_actors() < hosts.num_actors():
                hosts.probe_unhealthy_actors(timeout_seconds=min(left, 10.0), mark_healthy=True)
        return found

    def _install(self, weights: np.ndarray) -> None:
        """Give the common policy the server's weights."""
        learner = self.learner_group._learner
        self.layouts.shared.write(self.common_modules(), weights)
        self.env_runner.set_state({COMPONENT_RL_MODULE: learner.module.get_state(inference_only=True)})

    def _log(self, plan: RoundPlan, trained: Mapping[int, Trained], report: RoundReport) -> None:
        """Report a round; with privacy no number of a client, nor a mean of them."""
        server, log = self.federated_server, self.metrics.log_value
        steps = sum(one.update.env_steps for one in trained.values())
        log((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED), steps, reduce="sum")
        log((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), steps, reduce="lifetime_sum")
        numbers: dict[str, float] = {
            "round": plan.number + 1,
            "num_clients": len(plan.cohort),
            "num_contributors": len(report.contributors),
            "num_refused": len(report.refused),
            "num_stragglers": len(plan.trains) - len(trained),
            "num_lost_hosts_lifetime": self._num_lost_hosts,
            "num_failed_rounds_lifetime": server.num_failed,
            "bytes_up": report.bytes_up,
            "bytes_down": report.bytes_down,
            "update_norm": report.update_norm,
        }
        if server.settings.dropouts is not None:
            numbers |= {f"num_lost_{step.name.lower()}": count for step, count in report.lost.items()}
        if server.ledger is not None:
            kind = "epsilon_simulated" if server.ledger.simulated else "epsilon"
            numbers[kind] = server.ledger.epsilon
        else:
            self._log_clients(trained)
        self.metrics.log_dict(numbers, key=FEDERATION, window=1)

    def _log_clients(self, trained: Mapping[int, Trained]) -> None:
        by_name: dict[str, list[float]] = collections.defaultdict(list)
        for one in trained.values():
            for name, value in one.metrics.items():
                by_name[name].append(value)
        for name, values in by_name.items():
            self.metrics.log_value((ENV_RUNNER_RESULTS, name), float(np.mean(values)), window=1)
        score = next((name for name in ("team_return", "episode_return_mean") if name in by_name), None)
        if score is None:
            return
        scores = {one.client: one.metrics[score] for one in trained.values() if score in one.metrics}
        self.metrics.log_value((FEDERATION, f"worst_client_{score}"), min(scores.values()), window=1)
        if len(self.clients) <= MAX_LABELS:
            for index, value in scores.items():
                self.metrics.log_value(
                    (FEDERATION, CLIENTS, self.clients[index].label, score), value, window=1
                )


def _work(host: ClientHost, tasks: Sequence[Task], order: Any) -> list[Trained]:
    return host.train(tasks, ray.get(order))


def evaluate_federation(
    algorithm: Federated, eval_env_runner_group: Any = None
) -> tuple[dict[str, Any], int, int]:
    """Score the common policy in the experiment's environment, and the policies of clients in theirs.

    The first is `evaluate_algorithm`. A client's policy is the common one with the client's personal parameters. Under
    ``evaluation/clients`` lie the score of each (``team_return`` where there is one, else ``episode_return``), greedy
    and sampled, their mean, and the worst.
    """
    scores, steps, agents = evaluate_algorithm(algorithm, eval_env_runner_group)
    config = algorithm.federation
    count = min(config.evaluation_clients, len(algorithm.clients))
    if not count:
        return scores, steps, agents
    chosen = np.unique(np.linspace(0, len(algorithm.clients) - 1, count).round().astype(int))
    seeds = evaluation_seeds(config.evaluation_duration)
    found: dict[str, dict[str, float]] = {}
    for client in (algorithm.clients[index] for index in chosen):
        policy = algorithm.client_policy(client)
        for mode, explore in (("greedy", False), ("sampled", True)):
            rows = evaluate(policy, client.env, client.env_config, seeds, explore)
            means = mean_scores(rows)
            score = "team_return" if "team_return" in means else "episode_return"
            found.setdefault(f"{mode}_{score}", {})[client.label] = means[score]
            more = sum(row["episode_length"] for row in rows)
            steps, agents = steps + more, agents + more * policy.team.num_agents
    numbers = {
        name: {
            "mean": float(np.mean([*values.values()])),
            "worst": min(values.values()),
            **(values if len(values) <= MAX_LABELS else {}),
        }
        for name, values in found.items()
    }
    logger = MetricsLogger()
    logger.log_dict(numbers, key=CLIENTS, window=1)
    algorithm.metrics.aggregate([logger.reduce(compile=False)], key=EVALUATION_RESULTS)
    return {**scores, CLIENTS: numbers}, steps, agents


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
