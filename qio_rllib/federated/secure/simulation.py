"""A round of secure aggregation with all parties in one process, and with clients that are lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qio_rllib.federated.secure.client import SecureClient
from qio_rllib.federated.secure.messages import Step
from qio_rllib.federated.secure.round import AbortError, RefusedError, Round
from qio_rllib.federated.secure.server import SecureServer


class SecureSum(NamedTuple):
    """What a round gave."""

    total: np.ndarray  # int64 [d]
    contributors: tuple[int, ...]  # ids whose vectors are in it
    lost: Mapping[Step, tuple[int, ...]]  # ids whose message of a step did not come, by the first such step
    reasons: Mapping[int, str]  # why clients stopped or were refused, by id
    bytes_up: int  # that clients sent
    bytes_down: int  # that they were sent


def secure_sum(
    round_: Round,
    identities: Mapping[int, Ed25519PrivateKey],
    values: Mapping[int, np.ndarray],
    drops: Mapping[int, Step] | None = None,
    record: Callable[[bytes], None] | None = None,
) -> SecureSum:
    """Run a round.

    Args:
        round_: What was agreed on.
        identities: Private keys of all clients.
        values: Integers ``[d]`` by client; those of clients that are lost before the upload are not needed.
        drops: By client, the step whose message it does not send any more.
        record: Called with every message that reaches the server.

    Raises:
        RoundFailedError: Too few clients are left; nothing is released.
    """
    drops = drops or {}
    public = {client: key.public_key() for client, key in identities.items()}
    server = SecureServer(round_, public)
    clients = {client: SecureClient(client, identities[client], public, round_) for client in round_.cohort}
    lost: dict[Step, list[int]] = {step: [] for step in Step}
    reasons: dict[int, str] = {}
    inbox = dict.fromkeys(round_.cohort, b"")
    up = down = 0
    for step in Step:
        for client, sent in inbox.items():
            down += len(sent)
            if client in drops and drops[client] <= step:
                lost[step].append(client)
                continue
            try:
                message = _answer(clients[client], step, sent, values)
                up += len(message)
                if record is not None:
                    record(message)
                server.receive(message)
            except (AbortError, RefusedError) as error:
                lost[step].append(client)
                reasons[client] = str(error)
        if step is not Step.UNMASK:
            inbox = server.close_step()
    contributors = tuple(sorted(server.clients(Step.UPLOAD)))
    gone = {step: tuple(found) for step, found in lost.items()}
    return SecureSum(server.total(), contributors, gone, reasons, up, down)


def _answer(client: SecureClient, step: Step, sent: bytes, values: Mapping[int, np.ndarray]) -> bytes:
    if step is Step.ADVERTISE:
        return client.advertise()
    if step is Step.SHARE:
        return client.share(sent)
    if step is Step.UPLOAD:
        return client.upload(sent, values[client.client])
    return client.confirm(sent) if step is Step.CONFIRM else client.unmask(sent)


def complete_round(
    cohort: Sequence[int],
    size: int,
    run: str = "",
    number: int = 0,
    threshold: int | None = None,
    min_clients: int = 3,
) -> Round:
    """Return a round in which everybody is everybody's neighbour; the threshold is two thirds of the others.

    Raises:
        ConfigError: See `Round`.
    """
    others = len(cohort) - 1
    needed = max(others * 2 // 3 + 1, 1) if threshold is None else threshold
    return Round(run, number, b"", b"", size, tuple(cohort), min(needed, others), others, min_clients)
