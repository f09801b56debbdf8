"""Which environments of others train by one command? One iteration of PPO in each of them, in a process of its own.

The settings are those of a user who names an environment and no more, but for a small batch: 128 environment steps in
two environments, one epoch, layers of 64 (large pictures and many agents: 16 steps). A row says whether the
command ended well, or why not in the last line that it wrote, how long it took, and the versions of the packages that
hold environments.

    python benchmarks/foreign_environments.py                          # all, about ten minutes on two idle cores
    python benchmarks/foreign_environments.py --only CartPole-v1       # some
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from qio_rllib.artifacts.files import read_csv, write_csv

RESULTS = Path(__file__).resolve().parents[1] / "results" / "foreign_environments.csv"
PACKAGES = (
    "gymnasium",
    "pettingzoo",
    "mpe2",
    "lbforaging",
    "rware",
    "magent2",
    "Box2D",
    "mujoco",
    "pymunk",
    "pygame-ce",
    "rlcard",
    "chess",
)
ENVIRONMENTS: dict[str, dict[str, Any]] = {  # name: env_config
    "mpe2.simple_spread_v3": {},
    "mpe2.simple_tag_v3": {},
    "mpe2.simple_adversary_v3": {},
    "mpe2.simple_crypto_v3": {},
    "mpe2.simple_push_v3": {},
    "mpe2.simple_reference_v3": {},
    "mpe2.simple_speaker_listener_v4": {},
    "mpe2.simple_world_comm_v3": {},
    "pettingzoo.butterfly.cooperative_pong_v6": {},
    "pettingzoo.butterfly.knights_archers_zombies_v11": {},
    "pettingzoo.butterfly.pistonball_v6": {"n_pistons": 4},
    "pettingzoo.sisl.multiwalker_v9": {},
    "pettingzoo.sisl.pursuit_v5": {},
    "pettingzoo.classic.tictactoe_v3": {},
    "pettingzoo.classic.connect_four_v3": {},
    "pettingzoo.classic.rps_v2": {},
    "pettingzoo.classic.leduc_holdem_v4": {},
    "pettingzoo.classic.texas_holdem_v4": {},
    "pettingzoo.classic.chess_v6": {},
    "lbforaging:Foraging-8x8-2p-3f-v3": {},
    "lbforaging:Foraging-10x10-3p-3f-v3": {},
    "lbforaging:Foraging-2s-8x8-2p-2f-coop-v3": {},
    "rware:rware-tiny-2ag-v2": {},
    "rware:rware-small-4ag-v2": {},
    "magent2.environments.battle_v4": {"map_size": 16},
    "magent2.environments.adversarial_pursuit_v4": {"map_size": 16},
    "Blackjack-v1": {},
    "Taxi-v3": {},
    "FrozenLake-v1": {},
    "CliffWalking-v1": {},
    "CartPole-v1": {},
    "Acrobot-v1": {},
    "MountainCar-v0": {},
    "MountainCarContinuous-v0": {},
    "Pendulum-v1": {},
    "LunarLander-v3": {},
    "BipedalWalker-v3": {},
    "CarRacing-v3": {},
    "HalfCheetah-v5": {},
    "Ant-v5": {},
}
LARGE = (
    "pettingzoo.butterfly.cooperative_pong_v6",
    "pettingzoo.butterfly.pistonball_v6",
    "magent2.environments.battle_v4",
    "magent2.environments.adversarial_pursuit_v4",
    "CarRacing-v3",
)


COLUMNS = ("env", "env_config", "steps", "trained", "reason", "seconds", "versions")


def steps_in(env: str) -> int:
    """Return the environment steps of an iteration."""
    return 16 if env in LARGE else 128


def command(env: str, out: str) -> list[str]:
    """Return the command that trains an iteration."""
    steps = steps_in(env)
    config = {
        "env_config": ENVIRONMENTS[env],
        "num_env_runners": 0,
        "num_envs_per_env_runner": 2,
        "train_batch_size_per_learner": steps,
        "minibatch_size": steps,
        "num_epochs": 1,
        "model_config": {"fcnet_hiddens": [64, 64]},
        "evaluation_interval": None,
    }
    return [
        sys.executable,
        "-m",
        "qio_rllib.cli",
        *("train", "--run", "PPO", "--env", env, "--config", json.dumps(config)),
        *("--stop", json.dumps({"training_iteration": 1}), "--out", out),
    ]


def trained(env: str, timeout: float) -> dict[str, Any]:
    """Train an iteration in an environment; return the row."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        try:
            done = subprocess.run(
                command(env, out), capture_output=True, text=True, timeout=timeout, cwd=out, check=False
            )
            lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            is_trained, last = done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}"
            errors = [line for line in lines if "rror: " in line]
            last = errors[-1] if errors else last
        except subprocess.TimeoutExpired:
            is_trained, last = False, f"took more than {timeout:.0f} s"
    return {
        "env": env,
        "env_config": json.dumps(ENVIRONMENTS[env]),
        "steps": steps_in(env),
        "trained": "yes" if is_trained else "no",
        "reason": "" if is_trained else last[:300],
        "seconds": round(time.monotonic() - start, 1),
        "versions": versions(),
    }


def versions() -> str:
    """Return the versions of the packages that hold environments."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    """Train in each environment, and keep a row of each; those of a run before are replaced."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", choices=list(ENVIRONMENTS), default=list(ENVIRONMENTS), metavar="ENV"
    )
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one environment")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = {row["env"]: row for row in read_csv(arguments.out)} if arguments.out.exists() else {}
    for env in arguments.only:
        rows[env] = trained(env, arguments.timeout)
        shown = rows[env]
        print(f"{env}: {shown['trained']} {shown['reason']} ({shown['seconds']} s)", flush=True)
        kept = [rows[name] for name in ENVIRONMENTS if name in rows]
        write_csv(arguments.out, [{key: row.get(key, "") for key in COLUMNS} for row in kept])
    count = sum(row["trained"] == "yes" for row in rows.values())
    print(f"{count} of {len(rows)} environments trained")


if __name__ == "__main__":
    main()
