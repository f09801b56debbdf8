"""Federated servers without an algorithm, and updates for them."""

import functools

import numpy as np

from qio_rllib.federated.federation_settings import FederationSettings
from qio_rllib.federated.rounds import Update
from qio_rllib.federated.server import FederatedServer
from qio_rllib.sampling.streams import generator

SIZE, MAX_STEPS = 40, 1000
SEEDED = {"randomness": "seeded"}


def server_of(num_clients=6, seed=0, weights=None, **settings):
    first = np.zeros(SIZE, np.float32) if weights is None else weights
    streams = functools.partial(generator, seed)
    return FederatedServer(
        FederationSettings(num_clients, seed=seed, **settings), first, b"layout", MAX_STEPS, streams
    )


def updates_of(clients, seed=0, scale=0.1):
    rng = np.random.default_rng(seed)
    table = scale * rng.normal(size=(64, SIZE)).astype(np.float32)
    return {client: Update(table[client], 100 + client) for client in clients}


def played(server, rounds=1, **kwargs):
    reports = []
    for _ in range(rounds):
        plan = server.plan()
        reports.append(server.finish(plan, updates_of(plan.trains, seed=plan.number, **kwargs)))
    return reports
