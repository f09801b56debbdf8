"""`FederatedServer`: the rounds of a federation, from what clients send to the next weights. No Ray, no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.federated.attacks import ATTACKS, poisoned
from qio_rllib.federated.federation_settings import FederationSettings
from qio_rllib.federated.privacy import GaussianMechanism, Ledger, SkellamMechanism, gaussian_mean
from qio_rllib.federated.rounds import RoundPlan, RoundReport, Update, planned_round
from qio_rllib.federated.secure.round import RoundFailedError
from qio_rllib.federated.server_optimizers import ServerOptimizer
from qio_rllib.federated.settings import LYING_COUNT
from qio_rllib.federated.sums import IntegerSums
from qio_rllib.federated.uplink import Sent, Streams, Uplink


class FederatedServer:
    """Draws clients, combines what they send, and moves the weights.

    Everything random is a function of the seed, a purpose, the round and the client, so that a server which is restored
    goes on as if nothing had happened; except with ``privacy.randomness: system``, and the keys of secure aggregation,
    which are made anew by each object and stand in no state.

    Args:
        settings: Of the federation.
        weights: The first ones, float32 ``[d]``.
        layout: Hash of their layout.
        max_env_steps: That a client can have learned from in a round; a greater count is refused.
        streams: Random numbers of the run by purpose.

    Attributes:
        weights: The present ones, float32 ``[d]``.
        number: Of the next round.
        variate: The server's control variate, float32 ``[d]``; None without.
        ledger: What privacy has been spent; None without.
        num_failed: Rounds that released nothing.

    Raises:
        ConfigError: Settings that do not go together.
    """

    def __init__(
        self,
        settings: FederationSettings,
        weights: np.ndarray,
        layout: bytes,
        max_env_steps: int,
        streams: Streams,
    ) -> None:
        self.settings = settings
        self.weights = weights.astype(np.float32)
        self.number = 0
        self.num_failed = 0
        self._max_env_steps = max_env_steps
        self._streams = streams
        self._optimizer = ServerOptimizer(settings.server, weights.size)
        self._uplink = Uplink(settings, weights.size, streams)
        self._sums = IntegerSums(settings, layout, self._uplink.size)
        self._malicious = frozenset[int]()
        if settings.attack is not None:
            self._malicious = settings.attack.malicious(settings.num_clients)
        self.variate = np.zeros_like(self.weights) if settings.uses_variates else None
        self._variates: dict[int, np.ndarray] = {}
        self.ledger = self._new_ledger()
        count = settings.largest_cohort // (settings.group_size or 1)
        settings.aggregation.combined(np.zeros((count, 1), np.float32), None)

    def plan(self) -> RoundPlan:
        """Return who takes part in the next round, and who is lost on the way."""
        return planned_round(self.settings, self._streams, self.number)

    def variate_of(self, client: int) -> np.ndarray | None:
        """Return a client's control variate, float32 ``[d]``; None without."""
        if self.variate is None:
            return None
        return self._variates.get(client, np.zeros_like(self.weights))

    def finish(self, plan: RoundPlan, updates: Mapping[int, Update]) -> RoundReport:
        """Combine the updates of a round, and move the weights.

        Args:
            plan: Of the round.
            updates: By client; those of clients that are missing did not arrive in time.
        """
        report = RoundReport()
        lost_early = [client for client in plan.cohort if client not in plan.trains]
        for client in lost_early:
            report.lost[plan.drops[client]] += 1
        report.bytes_down = 4 * self.weights.size * len(plan.cohort) * (1 if self.variate is None else 2)
        arrived = {client: updates[client] for client in plan.trains if client in updates}
        arrived = self._attacked(plan, arrived)
        good: dict[int, Update] = {}
        for client, update in arrived.items():
            reason = self._fault(update)
            if reason is None:
                good[client] = update
            else:
                report.refused[client] = reason
        sent = {
            client: self._uplink.send(client, update.vector, plan.number) for client, update in good.items()
        }
        try:
            change = self._change(plan, good, sent, report)
        except (RoundFailedError, ConfigError) as error:
            report.failure, report.contributors = str(error), ()
            self._uplink.arrived(())
            self.num_failed += 1
        else:
            self._uplink.arrived(report.contributors)
            self._move_variates(good, report)
            self.weights = self._optimizer.apply(self.weights, change.astype(np.float32))
            report.update_norm = float(np.linalg.norm(change))
            if self.ledger is not None:
                self.ledger.charge()
        self.number += 1
        return report

    def get_state(self) -> dict[str, Any]:
        """Return all that the next round depends on, but for keys and randomness of the operating system."""
        return {
            "number": self.number,
            "num_failed": self.num_failed,
            "weights": self.weights.copy(),
            "optimizer": self._optimizer.get_state(),
            "uplink": self._uplink.get_state(),
            "variate": None if self.variate is None else self.variate.copy(),
            "variates": {client: variate.copy() for client, variate in self._variates.items()},
            "ledger": None if self.ledger is None else self.ledger.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ConfigError: Of another size.
        """
        if state["weights"].shape != self.weights.shape:
            raise ConfigError(
                f"checkpoint: {state['weights'].size} weights, the federation has {self.weights.size}"
            )
        self.number, self.num_failed = int(state["number"]), int(state["num_failed"])
        self.weights = state["weights"].copy()
        self._optimizer.set_state(state["optimizer"])
        self._uplink.set_state(state["uplink"])
        self.variate = None if state["variate"] is None else state["variate"].copy()
        self._variates = {int(client): variate.copy() for client, variate in state["variates"].items()}
        if self.ledger is not None:
            self.ledger.set_state(state["ledger"])

    # -- one round ------------------------------------------------------------------------------------------------

    def _attacked(self, plan: RoundPlan, arrived: dict[int, Update]) -> dict[int, Update]:
        """Return updates with what malicious clients make of theirs."""
        attack = self.settings.attack
        liars = [client for client in arrived if client in self._malicious]
        if attack is None or not liars:
            return arrived
        changed = dict(arrived)
        if attack.type == LYING_COUNT:
            for client in liars:
                steps = round(arrived[client].env_steps * attack.scale)
                changed[client] = dataclasses.replace(arrived[client], env_steps=steps)
        elif attack.type in ATTACKS:
            vectors = np.stack([update.vector for update in arrived.values()])
            mask = np.array([client in self._malicious for client in arrived])
            rng = self._streams("attack", plan.number)
            found = poisoned(attack.type, vectors, mask, attack.scale, rng)
            for row, client in enumerate(arrived):
                changed[client] = dataclasses.replace(arrived[client], vector=found[row])
        return changed

    def _fault(self, update: Update) -> str | None:
        """Return why an update cannot be used; None where it can."""
        vector, longest = update.vector, self.settings.aggregation.max_norm
        if vector.shape != self.weights.shape or not np.isfinite(vector).all():
            return f"expected {self.weights.size} finite numbers"
        if not 1 <= update.env_steps <= self._max_env_steps:
            return f"expected 1 to {self._max_env_steps} environment steps, it says {update.env_steps}"
        if longest is not None and np.linalg.norm(vector) > longest:
            return f"longer than {longest}"
        return None

    def _change(
        self, plan: RoundPlan, good: Mapping[int, Update], sent: Mapping[int, Sent], report: RoundReport
    ) -> np.ndarray:
        """Return the aggregated update, float64 or float32 ``[d]``; say in the report who is in it."""
        settings = self.settings
        privacy, integers = settings.privacy, settings.integers
        if settings.group_size is not None:
            means, counts = self._sums.means_of_groups(plan, sent, self.weights, report)
            by_counts = settings.aggregation.rule in ("mean", "geometric_median")
            combined = settings.aggregation.combined(means, counts if by_counts else None)
            return self._uplink.expanded(combined, plan.number)
        if integers is None:
            clients = tuple(sent)
            report.contributors = clients
            report.bytes_up += sum(one.num_bytes for one in sent.values())
            if self.variate is not None:
                report.bytes_up += 4 * self.weights.size * len(clients)
            vectors = np.array([one.vector for one in sent.values()], np.float32)
            if privacy is None:
                if not clients:
                    raise RoundFailedError("no client is left")
                by_steps = settings.aggregation.weights == "env_steps"
                steps = np.array([good[client].env_steps for client in clients], np.float64)
                return settings.aggregation.combined(vectors, steps if by_steps else None)
            total = vectors.reshape(-1, self.weights.size).sum(0, dtype=np.float64)
        else:
            total = integers.decode(self._sums.total(plan, sent, self.weights, report))
        if privacy is None:
            return self._uplink.expanded(total / len(report.contributors), plan.number)
        expected = settings.participation.expected(settings.num_clients)
        if privacy.mechanism == "skellam":
            return self._uplink.expanded(total / expected, plan.number)
        rng = self._streams("privacy noise", plan.number)
        if privacy.randomness == "system":
            rng = np.random.Generator(np.random.Philox())
        noised = gaussian_mean(total, self._uplink.sensitivity, privacy.noise_multiplier, expected, rng)
        return self._uplink.expanded(noised, plan.number) if integers is not None else noised

    def _move_variates(self, good: Mapping[int, Update], report: RoundReport) -> None:
        """Take over the contributors' control variates (Karimireddy et al., 2020, algorithm 1, lines 13 to 17)."""
        if self.variate is None:
            return
        change = np.zeros(self.weights.size)
        for client in report.contributors:
            variate, before = good[client].variate, self.variate_of(client)
            assert variate is not None
            assert before is not None
            change += variate.astype(np.float64) - before
            self._variates[client] = variate.astype(np.float32)
        self.variate = (self.variate + change / self.settings.num_clients).astype(np.float32)

    def _new_ledger(self) -> Ledger | None:
        privacy = self.settings.privacy
        if privacy is None:
            return None
        simulated = privacy.randomness == "seeded"
        if privacy.mechanism == "gaussian":
            sampling = self.settings.participation.probability or 1.0
            return Ledger(GaussianMechanism(sampling, privacy.noise_multiplier), privacy.delta, simulated)
        integers = self.settings.integers
        assert integers is not None
        norm = self._uplink.sensitivity * integers.scale
        mechanism = SkellamMechanism((privacy.noise_multiplier * norm) ** 2, norm, self._uplink.size)
        return Ledger(mechanism, privacy.delta, simulated)
