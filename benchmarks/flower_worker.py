"""Flower's part of `federated_flower.py`, which runs this with a Python that has flwr; prints a row as JSON."""

import json
import logging
import os
import sys
import time
from pathlib import Path

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client import ClientApp, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays, serde
from flwr.compat.common import recorddict_compat
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.server import LegacyContext, ServerApp, ServerAppComponents, ServerConfig, SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.simulation import run_simulation
from flwr.supercore.task_identity import TaskIdentity

BOUND, WEIGHT = 8.0, 1000


class Network:
    """A grid whose nodes are called in this process; some give no answer to the request for masked vectors."""

    def __init__(self, updates, lost):
        self.updates, self.lost = updates, lost
        self.contexts = {node: Context(0, node, {}, RecordDict(), {}) for node in updates}
        self.requests = dict.fromkeys(updates, 0)

    def send_and_receive(self, messages, *, timeout=None):
        """Return the answers of the nodes."""
        answers = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.requests[node] += 1
            if node in self.lost and self.requests[node] == 3:  # key setup and key shares come first
                continue
            answer = secaggplus_mod(received(message), self.contexts[node], self.train)
            answers.append(received(answer))
        return answers

    def train(self, message, context):
        """Return the update of a node as the result of its training."""
        parameters = ndarrays_to_parameters([self.updates[context.node_id]])
        found = FitRes(Status(Code.OK, ""), parameters, WEIGHT, {})
        return Message(recorddict_compat.fitres_to_recorddict(found, True), reply_to=message)


def received(message):
    """Return a message as it is after it has been sent as bytes."""
    sent = serde.message_to_proto(message).SerializeToString()
    return serde.message_from_proto(ProtoMessage.FromString(sent))


def secure_sum(clients, size, lost, threshold):
    """Run a round of SecAgg+ in which every client is every other's neighbour."""
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 0  # messages carry them
    rng = np.random.default_rng(0)
    nodes = range(1, clients + 1)
    updates = {node: rng.uniform(-1, 1, size).astype(np.float32) for node in nodes}
    network = Network(updates, set(range(1, lost + 1)))
    manager = SimpleClientManager()
    for node in nodes:
        manager.register(GridClientProxy(node, network, 0))
    strategy = FedAvg(fraction_fit=1.0, min_fit_clients=clients, min_available_clients=clients)
    context = LegacyContext(Context(0, 0, {}, RecordDict(), {}), ServerConfig(1), strategy, manager)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    start_weights = ndarrays_to_parameters([np.zeros(size, np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = recorddict_compat.parameters_to_arrayrecord(
        start_weights, True
    )
    workflow = SecAggPlusWorkflow(clients, threshold, max_weight=WEIGHT, clipping_range=BOUND)
    start = time.process_time()
    workflow(network, context)
    seconds = time.process_time() - start
    record = context.state.array_records[MAIN_PARAMS_RECORD]
    (found,) = parameters_to_ndarrays(recorddict_compat.arrayrecord_to_parameters(record, True))
    expected = np.mean([update for node, update in updates.items() if node not in network.lost], axis=0)
    return {"cpu_seconds": seconds, "error": float(np.abs(found - expected).max())}


def tree_seconds():
    """Return CPU seconds so far of this process and all that descend from it, by /proc."""
    parents, seconds = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        process = int(folder.name)
        parents[process] = int(fields[1])
        # Time of its own, and of those of its children that have ended.
        seconds[process] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    tree = {os.getpid()}
    while True:
        more = {process for process, parent in parents.items() if parent in tree} - tree
        if not more:
            return sum(seconds[process] for process in tree if process in seconds)
        tree |= more


class Idle(NumPyClient):
    """Sends back what it gets."""

    def fit(self, parameters, config):
        """Return the parameters."""
        return parameters, 1, {}


def client(context):
    """Return the client of a node."""
    return Idle().to_client()


class Measured(FedAvg):
    """FedAvg that notes CPU and wall seconds when a round begins."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.marks, self.answers = [], []

    def configure_fit(self, server_round, parameters, client_manager):
        """Note the time, and choose clients."""
        self.marks.append((tree_seconds(), time.perf_counter()))
        return super().configure_fit(server_round, parameters, client_manager)

    def aggregate_fit(self, server_round, results, failures):
        """Note how many clients answered, and average."""
        self.answers.append(len(results))
        return super().aggregate_fit(server_round, results, failures)


def simulation(nodes, sampled, size, rounds):
    """Run rounds with clients that do nothing; the first is left out, and so is the last, whose end is not noted."""
    strategy = Measured(
        fraction_fit=sampled / nodes,
        min_fit_clients=sampled,
        fraction_evaluate=0.0,
        min_available_clients=nodes,
        initial_parameters=ndarrays_to_parameters([np.zeros(size, np.float32)]),
    )

    def server(context):
        return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds + 2))

    run_simulation(
        ServerApp(server_fn=server),
        ClientApp(client_fn=client),
        num_supernodes=nodes,
        backend_config={
            "init_args": {"num_cpus": 1, "include_dashboard": False, "log_to_driver": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    cpu, wall = np.array(strategy.marks[1:]).T
    return {
        "cpu_seconds": float(np.diff(cpu).mean()),
        "wall_seconds": float(np.diff(wall).mean()),
        "answers": min(strategy.answers),
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    what, *numbers = sys.argv[1:]
    row = {"secure_sum": secure_sum, "simulation": simulation}[what](*map(int, numbers))
    print(json.dumps(row))
