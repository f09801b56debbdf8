"""What tests share: one small Ray runtime, one torch thread, no time limits of examples."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("qio", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qio")


def pytest_configure() -> None:
    """Take the signals again that ``nohup`` and shells ignore in the background: runs leave such ones ignored."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Import the tests without looking for garbage, and never look at what they have loaded: it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def folder_of_stable_baselines3(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let Stable-Baselines3, in other processes too, log into a folder of the tests, not each time into a new one."""
    os.environ["SB3_LOGDIR"] = str(tmp_path_factory.mktemp("stable_baselines3"))


@pytest.fixture
def computing_on_one_thread() -> Iterator[None]:
    """Let torch have one thread, on which kernels compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ray_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start Ray once for all tests that need it."""
    import ray
    import torch
    from ray.tune.trainable import trainable

    # RLlib makes a directory for every algorithm that is built, in the home directory unless told otherwise.
    trainable.DEFAULT_STORAGE_PATH = str(tmp_path_factory.mktemp("ray_results"))
    torch.set_num_threads(1)
    folders = [str(Path(__file__).parent / "qio_rllib"), os.environ.get("PYTHONPATH", "")]
    ray.init(
        "local",  # not a cluster that somebody has started on this machine
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        # Workers import the classes that tests define; they end before there is any garbage worth looking for.
        runtime_env={
            "env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, folders))},
            "worker_process_setup_hook": "gc.disable",
        },
    )
    yield
    ray.shutdown()
