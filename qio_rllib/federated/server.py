"""`FederatedServer`: rounds of a federation, from who takes part to the next weights. No Ray, no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.federated import aggregation
from qio_rllib.federated.attacks import ATTACKS, poisoned
from qio_rllib.federated.federation_settings import MIN_GROUPS, FederationSettings
from qio_rllib.federated.privacy import GaussianMechanism, Ledger, SkellamMechanism, gaussian_mean
from qio_rllib.federated.secure.messages import Step
from qio_rllib.federated.secure.primitives import digest, identities
from qio_rllib.federated.secure.round import MIN_CLIENTS, Round, RoundFailedError
from qio_rllib.federated.secure.simulation import SecureSum, secure_sum
from qio_rllib.federated.server_optimizers import ServerOptimizer
from qio_rllib.federated.settings import LYING_COUNT
from qio_rllib.federated.uplink import Sent, Streams, Uplink


@dataclasses.dataclass(frozen=True)
class RoundPlan:
    """A round before its clients have trained.

    Attributes:
        number: Of the round, from 0.
        cohort: Indices of the clients that take part, sorted.
        drops: By client that is lost, the step whose message it does not send any more.
        groups: With ``secure.group_size`` the clients of each sum, sorted; none where too few take part for one.
    """

    number: int
    cohort: tuple[int, ...]
    drops: Mapping[int, Step]
    groups: tuple[tuple[int, ...], ...] = ()

    @property
    def trains(self) -> tuple[int, ...]:
        """Clients whose training can matter: they are not lost before the upload."""
        return tuple(one for one in self.cohort if self.drops.get(one, Step.CONFIRM) > Step.UPLOAD)


@dataclasses.dataclass(frozen=True)
class Update:
    """What came of a client's training.

    Attributes:
        vector: Weights after it less those before, float32 ``[d]``.
        env_steps: That the client says it learned from.
        variate: Its next control variate, float32 ``[d]``; None without.
    """

    vector: np.ndarray
    env_steps: int
    variate: np.ndarray | None = None


@dataclasses.dataclass
class RoundReport:
    """What came of a round.

    Attributes:
        contributors: Clients whose update is in the new weights, sorted.
        refused: Why updates were left out, by client.
        lost: Clients that were lost, by the first step whose message did not come.
        lost_groups: With ``secure.group_size``, groups whose sum was not released.
        failure: Why nothing was released; None where the weights moved.
        bytes_up: That clients sent.
        bytes_down: That they were sent.
        update_norm: Euclidean norm of the aggregated update.
    """

    contributors: tuple[int, ...] = ()
    refused: dict[int, str] = dataclasses.field(default_factory=dict)
    lost: dict[Step, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(Step, 0))
    lost_groups: int = 0
    failure: str | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    update_norm: float = 0.0


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
        self._layout = layout
        self._max_env_steps = max_env_steps
        self._streams = streams
        self._optimizer = ServerOptimizer(settings.server, weights.size)
        self._uplink = Uplink(settings, weights.size, streams)
        self._malicious = frozenset[int]()
        if settings.attack is not None:
            self._malicious = settings.attack.malicious(settings.num_clients)
        self.variate = np.zeros_like(self.weights) if settings.uses_variates else None
        self._variates: dict[int, np.ndarray] = {}
        self._keys: dict[int, Any] = {}
        self.ledger = self._new_ledger()
        count = settings.largest_cohort // (settings.group_size or 1)
        self._combine(np.zeros((count, 1), np.float32), None)

    def plan(self) -> RoundPlan:
        """Return who takes part in the next round, and who is lost on the way."""
        settings, number = self.settings, self.number
        rng = self._streams("participation", number)
        privacy = settings.privacy
        if privacy is not None and privacy.randomness == "system":
            rng = np.random.Generator(np.random.Philox())
        few, probability = settings.participation.clients, settings.participation.probability
        everybody = np.arange(settings.num_clients)
        if probability is not None:
            everybody = everybody[rng.random(settings.num_clients) < probability]
        elif few is not None:
            everybody = np.sort(rng.choice(settings.num_clients, few, replace=False))
        cohort = tuple(int(one) for one in everybody)
        drops: dict[int, Step] = {}
        if settings.dropouts is not None:
            rng = self._streams("dropouts", number)
            steps = list(Step) if settings.secure is not None else [Step.UPLOAD]
            for client in cohort:
                lost, step = rng.random() < settings.dropouts.probability, int(rng.integers(len(steps)))
                if lost:
                    drops[client] = steps[step]
        return RoundPlan(number, cohort, drops, self._groups(cohort))

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
            return self._uplink.expanded(self._combined_groups(plan, sent, report), plan.number)
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
                return self._combine(vectors, steps if by_steps else None)
            total = vectors.reshape(-1, self.weights.size).sum(0, dtype=np.float64)
        else:
            total = integers.decode(self._sum(plan, sent, report))
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

    def _sum(self, plan: RoundPlan, sent: Mapping[int, Sent], report: RoundReport) -> np.ndarray:
        """Return the sum of integers, int64 ``[k]``, masked on the way or not."""
        values = _integers_of(sent)
        if self.settings.secure is None:
            report.contributors = tuple(values)
            report.bytes_up += sum(one.num_bytes for one in sent.values())
            if not values:
                raise RoundFailedError("no client is left")
            return np.sum(list(values.values()), axis=0)
        found = self._secure_sum(plan, plan.cohort, values)
        report.contributors = found.contributors
        report.bytes_up += found.bytes_up
        report.bytes_down += found.bytes_down
        report.lost = {step: len(clients) for step, clients in found.lost.items()}
        return found.total

    def _combined_groups(self, plan: RoundPlan, sent: Mapping[int, Sent], report: RoundReport) -> np.ndarray:
        """Return what the rule makes of the means of groups, float32 ``[k]``; groups that fail are left out."""
        integers, rule = self.settings.integers, self.settings.aggregation.rule
        assert integers is not None
        if not plan.groups:
            raise RoundFailedError(
                f"{len(plan.cohort)} clients take part, expected {self.settings.group_size}"
            )
        values = _integers_of(sent)
        drops = _drops(plan, values)
        sums: list[SecureSum] = []
        report.lost = dict.fromkeys(Step, 0)
        for group in plan.groups:
            try:
                sums.append(self._secure_sum(plan, group, values))
            except RoundFailedError:
                report.lost_groups += 1
                lost: Mapping[Step, tuple[int, ...]] = {
                    step: tuple(one for one in group if drops.get(one) is step) for step in Step
                }
            else:
                report.bytes_up += sums[-1].bytes_up
                report.bytes_down += sums[-1].bytes_down
                lost = sums[-1].lost
            for step, clients in lost.items():
                report.lost[step] += len(clients)
        fewest = 1 if rule == "mean" else MIN_GROUPS
        if len(sums) < fewest:
            raise RoundFailedError(f"{rule} needs {fewest} groups, {len(sums)} are left")
        report.contributors = tuple(sorted(one for found in sums for one in found.contributors))
        counts = np.array([len(found.contributors) for found in sums])
        means = np.array([integers.decode(found.total) for found in sums]) / counts[:, None]
        return self._combine(means, counts if rule in ("mean", "geometric_median") else None)

    def _groups(self, cohort: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Divide the clients of a round at random into as many groups as ``secure.group_size`` allows."""
        size = self.settings.group_size
        if size is None or len(cohort) < size:
            return ()
        order = self._streams("groups", self.number).permutation(np.array(cohort))
        return tuple(tuple(sorted(map(int, group))) for group in np.array_split(order, len(cohort) // size))

    def _secure_sum(
        self, plan: RoundPlan, clients: tuple[int, ...], values: Mapping[int, np.ndarray]
    ) -> SecureSum:
        """Return the sum of some clients' integers.

        Raises:
            RoundFailedError: Too few of them are left.
        """
        secure = self.settings.secure
        assert secure is not None
        count = len(clients)
        if count < max(MIN_CLIENTS, secure.min_clients):
            raise RoundFailedError(f"{count} clients take part, expected {secure.min_clients}")
        others = count - 1
        neighbours = others if secure.neighbours is None else min(secure.neighbours, others)
        threshold = neighbours * 2 // 3 + 1 if secure.threshold is None else secure.threshold
        round_ = Round(
            run=f"seed {self.settings.seed}",
            number=plan.number,
            layout=self._layout,
            weights=digest(self.weights.tobytes()),
            size=self._uplink.size,
            cohort=clients,
            threshold=min(threshold, neighbours),
            neighbours=neighbours,
            min_clients=secure.min_clients,
        )
        missing = [client for client in clients if client not in self._keys]
        self._keys |= dict(zip(missing, identities(len(missing))[0], strict=True))
        keys = {client: self._keys[client] for client in clients}
        return secure_sum(round_, keys, values, _drops(plan, values))

    def _combine(self, vectors: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """Return one update of many by the rule, float32 ``[d]``; weights ``[n]`` are of some rules."""
        settings = self.settings.aggregation
        if settings.rule == "median":
            return aggregation.median(vectors)
        if settings.rule == "trimmed_mean":
            return aggregation.trimmed_mean(vectors, settings.trim)
        if settings.rule == "geometric_median":
            return aggregation.geometric_median(vectors, weights)
        if settings.rule == "multi_krum":
            # 0.29 of 100 comes to 28.999999999999996
            return aggregation.multi_krum(vectors, int(settings.byzantine * len(vectors) + 1e-9))
        if settings.rule == "distance_filter":
            return aggregation.distance_filter(vectors, settings.byzantine)[0]
        return aggregation.mean(vectors, weights)

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


def _drops(plan: RoundPlan, values: Mapping[int, np.ndarray]) -> dict[int, Step]:
    """Return by client the step whose message it does not send any more.

    Whose update did not arrive or is not finite falls silent at the upload.
    """
    return {**plan.drops, **{client: Step.UPLOAD for client in plan.trains if client not in values}}


def _integers_of(sent: Mapping[int, Sent]) -> dict[int, np.ndarray]:
    return {client: one.integers for client, one in sent.items() if one.integers is not None}
