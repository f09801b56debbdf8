"""Sums of clients' integers: of all in the clear, or by secure aggregation of all or of groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qio_rllib.federated.federation_settings import MIN_GROUPS, FederationSettings
from qio_rllib.federated.rounds import RoundPlan, RoundReport
from qio_rllib.federated.secure.messages import Step
from qio_rllib.federated.secure.primitives import digest, identities
from qio_rllib.federated.secure.round import MIN_CLIENTS, Round, RoundFailedError
from qio_rllib.federated.secure.simulation import SecureSum, secure_sum
from qio_rllib.federated.uplink import Sent


class IntegerSums:
    """Sums what clients send; the keys of secure aggregation are made here, where they are first needed.

    Args:
        settings: Of the federation.
        layout: Hash of the weights' layout.
        size: Numbers ``k`` that a client sends.
    """

    def __init__(self, settings: FederationSettings, layout: bytes, size: int) -> None:
        self.settings = settings
        self._layout = layout
        self._size = size
        self._keys: dict[int, Any] = {}

    def total(
        self, plan: RoundPlan, sent: Mapping[int, Sent], weights: np.ndarray, report: RoundReport
    ) -> np.ndarray:
        """Return the sum of all clients' integers, int64 ``[k]``; say in the report who is in it.

        Args:
            plan: Of the round.
            sent: What clients sent, by index.
            weights: That the round began with, float32 ``[d]``.
            report: Of the round.

        Raises:
            RoundFailedError: Too few clients are left.
        """
        values = _integers_of(sent)
        if self.settings.secure is None:
            report.contributors = tuple(values)
            report.bytes_up += sum(one.num_bytes for one in sent.values())
            if not values:
                raise RoundFailedError("no client is left")
            return np.sum(list(values.values()), axis=0)
        found = self._secure(plan, plan.cohort, values, weights)
        report.contributors = found.contributors
        report.bytes_up += found.bytes_up
        report.bytes_down += found.bytes_down
        report.lost = {step: len(clients) for step, clients in found.lost.items()}
        return found.total

    def means_of_groups(
        self, plan: RoundPlan, sent: Mapping[int, Sent], weights: np.ndarray, report: RoundReport
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the means of groups, float64 ``[G, k]``, and clients in each, ``[G]``; as `total`.

        Groups that fail are left out.

        Raises:
            RoundFailedError: Too few groups are left for the rule.
        """
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
                sums.append(self._secure(plan, group, values, weights))
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
        return np.array([integers.decode(found.total) for found in sums]) / counts[:, None], counts

    def _secure(
        self, plan: RoundPlan, clients: tuple[int, ...], values: Mapping[int, np.ndarray], weights: np.ndarray
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
            weights=digest(weights.tobytes()),
            size=self._size,
            cohort=clients,
            threshold=min(threshold, neighbours),
            neighbours=neighbours,
            min_clients=secure.min_clients,
        )
        missing = [client for client in clients if client not in self._keys]
        self._keys |= dict(zip(missing, identities(len(missing))[0], strict=True))
        keys = {client: self._keys[client] for client in clients}
        return secure_sum(round_, keys, values, _drops(plan, values))


def _drops(plan: RoundPlan, values: Mapping[int, np.ndarray]) -> dict[int, Step]:
    """Return by client the step whose message it does not send any more.

    Whose update did not arrive or is not finite falls silent at the upload.
    """
    return {**plan.drops, **{client: Step.UPLOAD for client in plan.trains if client not in values}}


def _integers_of(sent: Mapping[int, Sent]) -> dict[int, np.ndarray]:
    return {client: one.integers for client, one in sent.items() if one.integers is not None}
