"""Killed for real: remote runners and the whole command, at random moments; the run goes on from its checkpoint."""

import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.long

SETTINGS = {
    "env_config": {"height": 8, "width": 8, "num_uavs": 4, "max_steps": 40, "reward": "local"},
    "num_envs_per_env_runner": 4,
    "num_cpus_per_env_runner": 0.5,
    "train_batch_size_per_learner": 640,
    "minibatch_size": 640,
    "num_epochs": 2,
    "amplification": {},
    "entropy_annealing": {"law": "quantum", "alpha_0": 0.02},
    "model_config": {"fcnet_hiddens": [16]},
    "seed": 4,
}
RECURRENT = {
    **SETTINGS,
    "env_config": {"scenario": "sprint"},
    "train_batch_size_per_learner": 320,
    "minibatch_size": 320,
    "model_config": {"fcnet_hiddens": [16], "use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 8},
}
REPLAYED = {
    "env_config": {"scenario": "sprint"},
    "num_envs_per_env_runner": 4,
    "train_batch_size_per_learner": 16,
    "num_steps_sampled_before_learning_starts": 640,
    "env_steps_per_update": 32,
    "min_sample_timesteps_per_iteration": 320,
    "burn_in": 4,
    "model_config": {"fcnet_hiddens": [16], "use_gru": True, "gru_cell_size": 8, "max_seq_len": 8},
    "seed": 4,
}
FEDERATED = {
    "env_config": SETTINGS["env_config"],
    "clients": [{"count": 3}, {"label": "wide", "env_config": {"width": 12}}],
    "participation": {"clients": 3},
    "personal": ["value"],
    "compression": {"type": "top_k", "keep": 0.1},
    "dropouts": {"probability": 0.2},
    "local": {
        "run": "PPO",
        **{
            key: value
            for key, value in SETTINGS.items()
            if key not in ("env_config", "seed", "num_cpus_per_env_runner")
        },
        "train_batch_size_per_learner": 160,
        "minibatch_size": 160,
    },
    "seed": 4,
}
RUNS = {
    "ppo": ("PPO", SETTINGS),
    "ppo_lstm": ("PPO", RECURRENT),
    "maddpg_gru": ("MADDPG", REPLAYED),
    "federated": ("Federated", FEDERATED),
}
NOT_TIMES = (
    "team_return",
    "total_loss",
    "alpha",
    "entropy",
    "gradient_norm",
    "lifetime",
    "update_norm",
    "bytes_up",
    "objective",
    "_loss",
    "q_mean",
)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "qio_rllib.cli", *arguments]


def start(out: Path, runners: int, iterations: int, run: str = "ppo") -> subprocess.Popen:
    algorithm, chosen = RUNS[run]
    processes = "num_hosts" if algorithm == "Federated" else "num_env_runners"
    return launch(out, algorithm, {**chosen, processes: runners}, iterations)


def launch(out: Path, algorithm: str, settings: dict, iterations: int, stderr=subprocess.DEVNULL):
    return subprocess.Popen(
        [
            *command("train", "--run", algorithm, "--env", "forest_uav_v0", "--config", json.dumps(settings)),
            *("--stop", json.dumps({"training_iteration": iterations}), "--out", str(out)),
        ],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
    )


def rows(out: Path) -> list[dict[str, str]]:
    found = list(out.glob("*/*/progress.csv"))
    if not found:
        return []
    with found[0].open(newline="") as file:
        return list(csv.DictReader(file))


def wait_for(condition, seconds: float = 3600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def runners_of(session: int) -> list[int]:
    """Return the processes of remote runners that a session started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes().decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "BatchedEnvRunner" in title and f"QIO_TEST_SESSION={session}" in environment:
            found.append(int(entry.name))
    return found


def kill(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_runner_comes_back_and_a_killed_run_is_resumed(tmp_path, monkeypatch):
    generator, session = random.Random(7), os.getpid()
    monkeypatch.setenv("QIO_TEST_SESSION", str(session))
    process = start(tmp_path, runners=1, iterations=60)
    wait_for(lambda: len(rows(tmp_path)) >= 12)
    time.sleep(generator.random())
    (runner,) = runners_of(session)
    os.kill(runner, signal.SIGKILL)
    before = len(rows(tmp_path))
    wait_for(lambda: len(rows(tmp_path)) >= before + 3)
    time.sleep(generator.random())
    assert process.poll() is None
    kill(process)
    reached = len(rows(tmp_path))
    (run,) = tmp_path.glob("*/*/")
    done = subprocess.run(
        command("train", "--resume", str(run), "--set", f"stop.training_iteration={reached + 6}"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    table = rows(tmp_path)
    assert [int(row["training_iteration"]) for row in table] == list(range(1, reached + 7))
    steps = [int(row["num_env_steps_sampled_lifetime"]) for row in table]
    assert steps == sorted(steps)


@pytest.fixture
def nodes():
    """Start Ray nodes on this machine, none at first."""
    cluster = Cluster()
    yield cluster
    cluster.shutdown()


def test_a_run_survives_the_loss_of_a_node(tmp_path, monkeypatch, nodes):
    session = os.getpid()
    monkeypatch.setenv("QIO_TEST_SESSION", str(session))
    # The run itself and one runner fit the first node, the other runner the second one.
    nodes.add_node(num_cpus=2, resources={"each": 1}, include_dashboard=False)
    second = nodes.add_node(num_cpus=1, resources={"each": 1})
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    each = {
        "num_env_runners": 2,
        "num_cpus_per_env_runner": 1,
        "custom_resources_per_env_runner": {"each": 1},
    }
    process = launch(tmp_path, "PPO", SETTINGS | each, 10_000)
    try:
        wait_for(lambda: len(rows(tmp_path)) >= 3)
        assert len(runners_of(session)) == 2
        nodes.remove_node(second, allow_graceful=False)
        before = len(rows(tmp_path))
        wait_for(lambda: len(rows(tmp_path)) >= before + 5)
        assert len(runners_of(session)) == 1
        nodes.add_node(num_cpus=1, resources={"each": 1})
        wait_for(lambda: len(runners_of(session)) == 2)
        before = len(rows(tmp_path))
        wait_for(lambda: len(rows(tmp_path)) >= before + 5)
        assert process.poll() is None
    finally:
        kill(process)
    table = rows(tmp_path)
    assert [int(row["training_iteration"]) for row in table] == list(range(1, len(table) + 1))
    steps = [int(row["num_env_steps_sampled_lifetime"]) for row in table]
    assert all(later - earlier >= 640 for earlier, later in itertools.pairwise(steps))


@pytest.mark.parametrize("run", list(RUNS))
def test_without_remote_runners_a_killed_run_ends_as_if_nothing_had_happened(tmp_path, run):
    whole = start(tmp_path / "whole", 0, 36, run)
    assert whole.wait() == 0
    process = start(tmp_path / "cut", 0, 36, run)
    wait_for(lambda: len(rows(tmp_path / "cut")) >= 13)
    time.sleep(random.Random(3).random() * 0.3)
    kill(process)
    (directory,) = (tmp_path / "cut").glob("*/*/")
    assert 13 <= len(rows(tmp_path / "cut")) < 36
    done = subprocess.run(command("train", "--resume", str(directory)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected, found = rows(tmp_path / "whole"), rows(tmp_path / "cut")
    assert len(expected) == len(found) == 36
    compared = [
        key for key in expected[-1] if any(word in key for word in NOT_TIMES) and "throughput" not in key
    ]
    assert {"env_runners/team_return", "num_env_steps_sampled_lifetime"} < set(compared)
    assert run == "federated" or any("loss" in key for key in compared)
    for ours, theirs in zip(found, expected, strict=True):
        for key, value in theirs.items():
            if key in compared:
                assert ours[key] == value, (ours["training_iteration"], key)


def processes(session: int) -> dict[int, str]:
    """Return the processes that a session started, with their titles."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            title = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        except OSError:
            continue
        if f"QIO_TEST_SESSION={session}" in environment and int(entry.name) != os.getpid():
            found[int(entry.name)] = title
    return found


def listening(pids) -> set[str]:
    """Return the addresses at which processes listen, as the kernel writes them: hexadecimal, bytes in its order."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    return {fields[1].partition(":")[0] for fields in lines if fields[3] == "0A" and fields[9] in inodes}


LOOPBACK = {
    "0100007F",  # 127.0.0.1
    "0000000000000000FFFF00000100007F",  # the same as an IPv6 address
    "00000000000000000000000001000000",  # ::1
}


def test_a_run_listens_to_its_own_machine_and_ends_with_a_checkpoint_at_sigterm(tmp_path, monkeypatch):
    session = os.getpid()
    monkeypatch.setenv("QIO_TEST_SESSION", str(session))
    process = launch(tmp_path, "PPO", SETTINGS | {"num_env_runners": 1}, 10_000, subprocess.PIPE)
    wait_for(lambda: len(rows(tmp_path)) >= 3)
    found = processes(session)
    assert any("gcs_server" in title for title in found.values())
    addresses = listening(found)
    assert addresses
    assert addresses <= LOOPBACK
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143
    assert errors.count("\n") == 1
    assert "resume it with: rllib train --resume" in errors
    (run,) = tmp_path.glob("*/*/")
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    kept = json.loads((run / "checkpoints.json").read_text())
    assert kept[-1]["metrics"]["training_iteration"] == int(rows(tmp_path)[-1]["training_iteration"])


def test_a_lost_gcs_ends_a_run_in_one_line(tmp_path, monkeypatch):
    session = os.getpid()
    monkeypatch.setenv("QIO_TEST_SESSION", str(session))
    process = launch(tmp_path, "PPO", SETTINGS | {"num_env_runners": 0}, 10_000, subprocess.PIPE)
    wait_for(lambda: len(rows(tmp_path)) >= 3)
    (gcs,) = (pid for pid, title in processes(session).items() if "gcs_server" in title)
    os.kill(gcs, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "Ray's process gcs_server has ended" in errors
    assert errors.count("\n") == 1
    (run,) = tmp_path.glob("*/*/")
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
