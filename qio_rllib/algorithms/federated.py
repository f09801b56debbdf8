"""Federated learning: many clients, each with environments of its own, train one policy by sending weight updates."""

from __future__ import annotations

import collections
import copy
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EVALUATION_RESULTS,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.tune.execution.placement_groups import PlacementGroupFactory

from qio_rllib.acting.policy import Policy
from qio_rllib.algorithms.checkpoints import CheckpointedAlgorithm
from qio_rllib.algorithms.federated_config import FederatedConfig
from qio_rllib.algorithms.federated_hosts import ClientRecord, Failed, Hosts, Layouts, Order, Task, Trained
from qio_rllib.algorithms.federated_scores import ScoreScales
from qio_rllib.algorithms.phases import LEARNING
from qio_rllib.federated.clients import Client
from qio_rllib.federated.rounds import RoundPlan, RoundReport
from qio_rllib.federated.server import FederatedServer
from qio_rllib.federated.settings import ENVIRONMENT_ATTACKS
from qio_rllib.learners.common import as_module
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

logger = logging.getLogger(__name__)


class Federated(CheckpointedAlgorithm):
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
    hosts: Hosts

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
        self.config.evaluation(custom_evaluation_function=evaluate_federation)
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
        self.score_scales = ScoreScales(self.clients, self.federation.evaluation_duration)
        self.records: dict[int, ClientRecord] = {}
        self.hosts = Hosts(self.federation)

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
        self.phase.enter(LEARNING)  # clients sample in it too
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
        answers = self.hosts.train(tasks, order)
        trained = {index: one for index, one in sorted(answers.items()) if isinstance(one, Trained)}
        for one in trained.values():
            self.records[one.client] = one.record
        report = server.finish(plan, {index: one.update for index, one in trained.items()})
        report.refused |= {one.client: one.reason for one in answers.values() if isinstance(one, Failed)}
        self._install(server.weights)
        for client, reason in report.refused.items():
            logger.warning(
                "round %d: '%s' is left out: %s", plan.number + 1, self.clients[client].label, reason
            )
        if report.failure is not None:
            logger.warning("round %d releases nothing: %s", plan.number + 1, report.failure)
        self._log(plan, trained, report, len(plan.trains) - len(answers))

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
        if hasattr(self, "hosts"):  # not where setup was refused
            self.hosts.stop()

    # -- one round ------------------------------------------------------------------------------------------------

    def _install(self, weights: np.ndarray) -> None:
        """Give the common policy the server's weights."""
        learner = self.learner_group._learner
        self.layouts.shared.write(self.common_modules(), weights)
        self.env_runner.set_state({COMPONENT_RL_MODULE: learner.module.get_state(inference_only=True)})

    def _log(
        self, plan: RoundPlan, trained: Mapping[int, Trained], report: RoundReport, stragglers: int
    ) -> None:
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
            "num_stragglers": stragglers,
            "num_lost_hosts_lifetime": self.hosts.num_lost,
            "num_failed_rounds_lifetime": server.num_failed,
            "bytes_up": report.bytes_up,
            "bytes_down": report.bytes_down,
            "update_norm": report.update_norm,
        }
        if server.settings.dropouts is not None:
            numbers |= {f"num_lost_{step.name.lower()}": count for step, count in report.lost.items()}
        if server.settings.group_size is not None:
            numbers |= {"num_groups": len(plan.groups), "num_lost_groups": report.lost_groups}
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
        normalized = self.score_scales.normalized(scores) if score == "team_return" else {}
        if normalized:
            worst = min(normalized.values())
            self.metrics.log_value((FEDERATION, "worst_client_normalized"), worst, window=1)
        if len(self.clients) <= MAX_LABELS:
            for index, value in scores.items():
                self.metrics.log_value(
                    (FEDERATION, CLIENTS, self.clients[index].label, score), value, window=1
                )


def evaluate_federation(
    algorithm: Federated, eval_env_runner_group: Any = None
) -> tuple[dict[str, Any], int, int]:
    """Score the common policy in the experiment's environment, and the policies of clients in theirs.

    The first is `evaluate_algorithm`. A client's policy is the common one with the client's personal parameters. Under
    ``evaluation/clients`` lie the score of each (``team_return`` where there is one, else ``episode_return``), greedy
    and sampled, and their mean; and what team returns come to between random play and the best scripted policy, with
    the worst, where `ScoreScales` has them.
    """
    scores, steps, agents = evaluate_algorithm(algorithm, eval_env_runner_group)
    config = algorithm.federation
    count = min(config.evaluation_clients, len(algorithm.clients))
    if not count:
        return scores, steps, agents
    chosen = np.unique(np.linspace(0, len(algorithm.clients) - 1, count).round().astype(int))
    seeds = evaluation_seeds(config.evaluation_duration)
    found: dict[str, dict[int, float]] = {}
    for client in (algorithm.clients[index] for index in chosen):
        policy = algorithm.client_policy(client)
        for mode, explore in (("greedy", False), ("sampled", True)):
            rows = evaluate(policy, client.env, client.env_config, seeds, explore)
            means = mean_scores(rows)
            score = "team_return" if "team_return" in means else "episode_return"
            found.setdefault(f"{mode}_{score}", {})[client.index] = means[score]
            more = sum(row["episode_length"] for row in rows)
            steps, agents = steps + more, agents + more * policy.team.num_agents
    numbers: dict[str, dict[str, float]] = {}
    for name, values in found.items():
        numbers[name] = _by_label(algorithm.clients, values)
        mode, _, score = name.partition("_")
        normalized = algorithm.score_scales.normalized(values) if score == "team_return" else {}
        if normalized:
            worst = {"worst": min(normalized.values())}
            numbers[f"{mode}_normalized"] = worst | _by_label(algorithm.clients, normalized)
    logger = MetricsLogger()
    logger.log_dict(numbers, key=CLIENTS, window=1)
    algorithm.metrics.aggregate([logger.reduce(compile=False)], key=EVALUATION_RESULTS)
    return {**scores, CLIENTS: numbers}, steps, agents


def _by_label(clients: Sequence[Client], values: Mapping[int, float]) -> dict[str, float]:
    """Return the mean of clients' numbers, which come by index, and each by label where they are few."""
    labelled = {clients[index].label: value for index, value in values.items()}
    return {"mean": float(np.mean([*values.values()])), **(labelled if len(values) <= MAX_LABELS else {})}
