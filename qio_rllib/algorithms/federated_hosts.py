"""Hosts train the clients of a federation, one after the other in each process."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import pickle
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.utils.actor_manager import FaultAwareApply, FaultTolerantActorManager
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from qio_rllib.algorithms.base import OffPolicyAlgorithm
from qio_rllib.federated.clients import Client
from qio_rllib.federated.layout import ParameterLayout
from qio_rllib.federated.rounds import Update
from qio_rllib.learners.client_correction import ClientCorrection, CorrectionSettings
from qio_rllib.learners.common import as_module
from qio_rllib.models.target_networks import HasTargets
from qio_rllib.sampling.lying_env import lying
from qio_rllib.sampling.streams import generator
from qio_rllib.sampling.vector_env import InvalidSampleError

if TYPE_CHECKING:
    from qio_rllib.algorithms.federated import FederatedConfig


@dataclasses.dataclass(frozen=True)
class ClientRecord:
    """What a client keeps between rounds.

    Attributes:
        state: Its Algorithm's, pickled.
        personal: The parameters that it does not share, float32; empty where all are shared.
    """

    state: bytes
    personal: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
    """One client's part of a round.

    Attributes:
        client: Who.
        record: What it kept; None before its first round.
        attack: How its environments lie; None for the truth.
        variate: Its control variate, float32 ``[d]``; None without.
    """

    client: Client
    record: ClientRecord | None
    attack: str | None = None
    variate: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Order:
    """What all clients of a round are sent.

    Attributes:
        number: Of the round.
        weights: The server's, float32 ``[d]``.
        personal: What clients begin with where parameters are their own, float32; empty where all are shared.
        variate: The server's control variate, float32 ``[d]``; None without.
    """

    number: int
    weights: np.ndarray
    personal: np.ndarray
    variate: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came of a client's part.

    Attributes:
        client: Its index.
        update: For the server.
        record: What it keeps.
        metrics: Means over the last ``metrics_num_episodes_for_smoothing`` episodes that it finished, by RLlib's names.
    """

    client: int
    update: Update
    record: ClientRecord
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Failed:
    """A client whose environments or losses gave numbers that are not finite; it keeps what it had before.

    Attributes:
        client: Its index.
        reason: What they gave.
    """

    client: int
    reason: str


class ClientHost(FaultAwareApply):
    """Trains clients with one Algorithm, which takes over the state of each in turn.

    What comes of a client depends on its task and the order alone, not on who was trained before, nor where: so a
    host that is lost can be replaced, and any number of hosts gives the same.

    Args:
        config: Of the federation, validated.
    """

    def __init__(self, config: FederatedConfig) -> None:
        self._config = config
        self._algorithm = config.template().build_algo()
        self._first = pickle.dumps(self._algorithm.get_state(), protocol=5)
        self._present: tuple[str, dict[str, Any]] | None = None  # the environments that the runner holds

    def train(self, tasks: Sequence[Task], order: Order) -> list[Trained | Failed]:
        """Train clients, each from the server's weights; one whose numbers are not finite has failed.

        Other errors are those of the environments and the local algorithm.
        """
        found: list[Trained | Failed] = []
        for task in tasks:
            try:
                found.append(self._train(task, order))
            except (InvalidSampleError, FloatingPointError) as error:
                found.append(Failed(task.client.index, str(error)))
        return found

    def stop(self) -> None:
        """Release the environments."""
        self._algorithm.stop()

    def _train(self, task: Task, order: Order) -> Trained:
        config, algorithm = self._config, self._algorithm
        self._take_up(task)
        learner = algorithm.learner_group._learner
        modules = as_module(learner.module)
        layouts = Layouts.of(modules, config.personal)
        layouts.shared.write(modules, order.weights)
        if task.record is None:
            if layouts.personal is not None:
                layouts.personal.write(modules, order.personal)
            _start_targets(learner.module)
        algorithm.env_runner.set_state({COMPONENT_RL_MODULE: learner.module.get_state(inference_only=True)})
        correction, asked = None, CorrectionSettings.of(config.correction)
        if asked is not None:
            correction = ClientCorrection(asked, learner)
            correction.begin(layouts.shared, order.weights, order.variate, task.variate)
        learner.correction = correction  # until the next client begins
        rng = generator(config.seed, "lying environment", order.number, task.client.index)
        before = _env_steps(algorithm)
        with lying(algorithm.env_runner.env, task.attack, rng):
            for _ in range(config.local_iterations):
                self._iterate(algorithm)
        update = Update(
            layouts.shared.read(modules) - order.weights,
            int(_env_steps(algorithm) - before),
            correction.mean_gradient() if correction is not None and order.variate is not None else None,
        )
        metrics = _means(algorithm.metrics.peek(ENV_RUNNER_RESULTS, default={}))
        # As at the end of a reported iteration: what is not reduced would be in the record of every later round.
        algorithm.metrics.reduce()
        if config.optimizer_state == "reset":
            for module_id in modules:
                for _, optimizer in learner.get_optimizers_for_module(module_id):
                    optimizer.state.clear()
        state = pickle.dumps(algorithm.get_state(), protocol=5)
        record = ClientRecord(state, layouts.read_personal(modules))
        return Trained(task.client.index, update, record, metrics)

    def _take_up(self, task: Task) -> None:
        """Bring the Algorithm to where the client left it, or to the beginning with the client's random numbers."""
        algorithm, client = self._algorithm, task.client
        place = (client.env, dict(client.env_config))
        if self._present != place:
            algorithm.env_runner.change_env(*place)
            self._present = place
        learner = algorithm.learner_group._learner
        # A Learner takes over modules that are newer than its own alone; those of another client are neither.
        learner._weights_seq_no = 0
        algorithm.set_state(pickle.loads(self._first if task.record is None else task.record.state))
        if task.record is None:
            streams: list[Any] = [algorithm.env_runner, learner]
            if isinstance(algorithm, OffPolicyAlgorithm):
                streams.append(algorithm.replay)
            for part in streams:
                part.seed_streams(self._config.client_seed(client))

    def _iterate(self, algorithm: Algorithm) -> None:
        """Take training steps until ``min_sample_timesteps_per_iteration`` environment steps are sampled."""
        start = _env_steps(algorithm)
        while True:
            algorithm.training_step()
            wanted = algorithm.config.min_sample_timesteps_per_iteration or 0
            if _env_steps(algorithm) - start >= wanted:
                return


class Hosts:
    """Trains the clients of a round: in this process, or on Ray actors that share the work.

    Args:
        config: Of the federation, validated; ``num_hosts`` says how many actors.

    Attributes:
        num_lost: Actors that were lost in the middle of their work and replaced.
    """

    def __init__(self, config: FederatedConfig) -> None:
        self._timeout_s = config.round_timeout_s
        self.num_lost = 0
        self._here: ClientHost | None = None
        self._actors: FaultTolerantActorManager | None = None
        if config.num_hosts:
            host = ray.remote(num_cpus=1, max_restarts=-1)(ClientHost)
            actors = [host.remote(config) for _ in range(config.num_hosts)]
            self._actors = FaultTolerantActorManager(actors, max_remote_requests_in_flight_per_actor=2)
        else:
            self._here = ClientHost(config)

    def train(self, tasks: Sequence[Task], order: Order) -> dict[int, Trained | Failed]:
        """Return by client what came of its training; of those that did not answer in time nothing."""
        end = math.inf if self._timeout_s is None else time.monotonic() + self._timeout_s
        if self._actors is not None:
            return self._train_on_actors(self._actors, tasks, order, end)
        assert self._here is not None
        found: dict[int, Trained | Failed] = {}
        for task in tasks:
            if time.monotonic() >= end:
                break
            found[task.client.index] = self._here.train([task], order)[0]
        return found

    def stop(self) -> None:
        """Release all that the hosts hold."""
        if self._here is not None:
            self._here.stop()
        if self._actors is not None:
            self._actors.clear()

    def _train_on_actors(
        self, actors: FaultTolerantActorManager, tasks: Sequence[Task], order: Order, end: float
    ) -> dict[int, Trained | Failed]:
        actors.fetch_ready_async_reqs()  # what came too late for its round is dropped
        tag, shared = f"round {order.number}", ray.put(order)
        size = max(1, math.ceil(len(tasks) / (4 * actors.num_actors())))
        waiting = collections.deque(tasks[start : start + size] for start in range(0, len(tasks), size))
        running: dict[int, Sequence[Task]] = {}
        found: dict[int, Trained | Failed] = {}
        while waiting or running:
            for actor in actors.healthy_actor_ids():
                if waiting and actor not in running:
                    part = waiting.popleft()
                    work = functools.partial(_work, tasks=part, order=shared)
                    if actors.foreach_actor_async(work, tag=tag, remote_actor_ids=[actor]):
                        running[actor] = part
                    else:
                        waiting.appendleft(part)
            left = end - time.monotonic()
            if left <= 0:
                break
            answers = list(actors.fetch_ready_async_reqs(tags=[tag], timeout_seconds=min(left, 1.0)))
            for answer in answers:
                part = running.pop(answer.actor_id)
                if answer.ok:
                    found |= {one.client: one for one in answer.get()}
                else:
                    error = answer.get()
                    if not isinstance(error, ray.exceptions.RayActorError):
                        raise error  # the fault of the environment or the settings, not of the host
                    self.num_lost += 1
                    waiting.appendleft(part)
            if not answers and actors.num_healthy_actors() < actors.num_actors():
                actors.probe_unhealthy_actors(timeout_seconds=min(left, 10.0), mark_healthy=True)
        return found


def _work(host: ClientHost, tasks: Sequence[Task], order: Any) -> list[Trained | Failed]:
    return host.train(tasks, ray.get(order))


@dataclasses.dataclass(frozen=True)
class Layouts:
    """Which parameters are shared, and which are a client's own.

    Attributes:
        shared: Of those that are averaged.
        personal: Of those that are not; None where all are shared.
    """

    shared: ParameterLayout
    personal: ParameterLayout | None

    @classmethod
    def of(cls, modules: torch.nn.ModuleDict, personal: Iterable[str]) -> Layouts:
        """Return the layouts of the modules of a Learner.

        Args:
            modules: By module id.
            personal: Beginnings of the names of parameters, with their module's id or without.

        Raises:
            ConfigError: A beginning that no parameter has, or nothing is shared.
        """
        names = [name for name, one in modules.named_parameters() if one.requires_grad]
        prefixes = []
        for given in personal:
            full = [f"{module_id}.{given}" for module_id in modules]
            found = [one for one in full if any(name.startswith(one) for name in names)]
            prefixes += found or [given]
        shared = ParameterLayout.of(modules, prefixes)
        whole = ParameterLayout.of(modules)
        kept = {name for name, _ in shared.shapes}
        own = tuple((name, shape) for name, shape in whole.shapes if name not in kept)
        return cls(shared, ParameterLayout(own) if own else None)

    def read_personal(self, modules: torch.nn.ModuleDict) -> np.ndarray:
        """Return what a client keeps to itself, float32; empty where all is shared."""
        return np.zeros(0, np.float32) if self.personal is None else self.personal.read(modules)


def _env_steps(algorithm: Algorithm) -> int:
    """Return the environment steps that an Algorithm has sampled so far."""
    return int(algorithm.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))


def _start_targets(module: Any) -> None:
    """Let target networks begin as the present ones."""
    for _, one in module.items():
        networks = one.unwrapped()
        if isinstance(networks, HasTargets):
            for target, present in networks.targets():
                target.load_state_dict(present.state_dict())


def _means(results: Any) -> dict[str, float]:
    """Return the finite means among a runner's results; counters and timers are left out."""
    found = {}
    for key, value in results.items():
        if isinstance(value, int | float) and math.isfinite(value) and not key.startswith("num_"):
            found[key] = float(value)
    return found
