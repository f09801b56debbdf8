"""What a run asks of the machine: the check before it starts, and Ray as it is started for it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import ray_constants
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_envs.api import ConfigError

_RESOURCE_KEYS = {
    "GPU": ("num_gpus_per_learner", "num_gpus_per_env_runner"),
    "CPU": (
        "num_env_runners",
        "num_learners",
        "evaluation_num_env_runners",
        "num_hosts",
    ),
    "other": (
        "custom_resources_per_env_runner",
        "custom_resources_per_learner",
        "custom_resources_for_main_process",
    ),
}


def resources(config: AlgorithmConfig) -> dict[str, float]:
    """Return what a run of the algorithm asks Ray for, by kind (``CPU``, ``GPU``)."""
    return config.algo_class.default_resource_request(config.copy(copy_frozen=False)).required_resources


def start_ray(num_cpus: int, silent: bool = True) -> Any:
    """Join the cluster that ``RAY_ADDRESS`` names, or start a Ray of one's own; return its context.

    Without that variable other clusters on the machine, which Ray would look for, are left alone, and nothing on
    another machine can reach the one that is started.

    Args:
        num_cpus: Of a Ray of one's own.
        silent: Whether its log, and what its workers print, is dropped.

    Raises:
        ConfigError: Nobody answers at ``RAY_ADDRESS``.
    """
    quiet = {"log_to_driver": not silent, "logging_level": logging.CRITICAL if silent else logging.INFO}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_address(address)
        return ray.init(**quiet)
    with _loopback_only():
        return ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, **quiet)


def _check_address(address: str) -> None:
    """Refuse ``host:port`` where nobody answers: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(f"RAY_ADDRESS: no Ray answers at {address} ({error})") from None


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Let the Ray that is started meanwhile listen on the loopback interface alone.

    The environment variable ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0`` does the same, before Ray is imported; Ray replaces
    a loopback ``_node_ip_address`` by another one.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def check_resources(config: AlgorithmConfig) -> None:
    """Refuse more than the machine, or the Ray that is running, has.

    The main process needs no CPU of its own beside runners, learners and hosts: it waits while they work.

    Raises:
        ConfigError: Naming the setting, what was asked and what there is.
    """
    request = config.algo_class.default_resource_request(config.copy(copy_frozen=False))
    wanted = dict(request.required_resources)
    if ray.is_initialized():
        present, owner = ray.cluster_resources(), "the running Ray"
    elif os.environ.get("RAY_ADDRESS"):
        return
    else:
        import torch

        main = request.head_cpus
        wanted["CPU"] = max(main, wanted.get("CPU", 0) - main)
        present = {"GPU": torch.cuda.device_count(), "CPU": os.cpu_count() or 1}
        owner = "this machine"
    for kind, amount in wanted.items():
        if amount > present.get(kind, 0):
            keys = _RESOURCE_KEYS.get(kind, _RESOURCE_KEYS["other"])
            key = next((key for key in keys if config.get(key)), keys[0])
            if kind == "CPU" and not config.get(key):  # the main process alone
                per_learner = config.num_cpus_per_learner
                learns = isinstance(per_learner, int | float) and per_learner >= amount
                key = "num_cpus_per_learner" if learns else "num_cpus_for_main_process"
            raise ConfigError(
                f"config.{key}: {amount:g} {kind}s are needed in all, {owner} has {present.get(kind, 0):g}"
            )


@contextlib.contextmanager
def quiet_ray(level: int = logging.CRITICAL) -> Iterator[None]:
    """Keep Tune from printing and writing files of its own, and Ray's log to a level, by default none of it."""
    settings = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
        "TUNE_STATE_REFRESH_PERIOD": "3600",  # s; each time the loop waits for Ray's GCS, for a minute if that is gone
    }
    own = {key: value for key, value in settings.items() if key not in os.environ}
    os.environ.update(own)
    loggers = [logging.getLogger(name) for name in ("ray", "ray.rllib", "ray.tune")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for key in own:  # a tune.run of the user's own keeps its files
            os.environ.pop(key, None)
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
