"""Self-play against pools of 1 and 16 opponents: environment steps per second of training, in turns.

    python benchmarks/self_play.py

PPO plays ``duel`` of ``swarm_competitive_v0`` in 64 environments; an iteration is 6,400 environment steps, with 5
epochs in minibatches of 1,600. Pools are filled with snapshots of the untrained policy first, and stay as they
are. Without a pool all agents learn, so that its update has more rows. Seconds are those of the process's CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import ray
from tables import append

from qio_rllib.algorithms import PPOConfig
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.experiments.resources import quiet_ray

ENVS, STEPS, EPOCHS = 64, 100, 5
POOLS = (0, 1, 16)
RESULTS = Path(__file__).parents[1] / "results" / "self_play_speed.csv"


def algorithm(pool: int, hiddens: tuple[int, ...]) -> Any:
    """Return PPO whose pool holds so many snapshots; 0 is PPO without a pool."""
    settings = None
    if pool:
        settings = {"pool_size": pool, "snapshot_interval": 1_000_000, "current_share": 0.2}
    config = (
        PPOConfig()
        .environment("swarm_competitive_v0", env_config={"scenario": "duel"})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVS, rollout_fragment_length=STEPS)
        .training(
            train_batch_size_per_learner=ENVS * STEPS,
            minibatch_size=1_600,
            num_epochs=EPOCHS,
            self_play=settings,
        )
        .rl_module(model_config={"fcnet_hiddens": list(hiddens)})
        .debugging(seed=0)
    )
    found = config.build_algo()
    if pool:
        opponents = found.opponents
        while len(opponents.pool.snapshots) < pool:
            opponents.pool.add(opponents.present())
        opponents.share()
    return found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="iterations of each that are timed")
    options = parser.parse_args()
    with quiet_ray():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    for hiddens in ((64, 64), (256, 256)):
        algorithms = {pool: algorithm(pool, hiddens) for pool in POOLS}
        seconds: dict[tuple[int, str], list[float]] = {}
        for turn in range(options.rounds + 2):
            for pool, one in algorithms.items():
                for what, call in (("sampling", one.env_runner.sample), ("iteration", one.train)):
                    start = time.process_time()
                    call()
                    if turn >= 2:
                        seconds.setdefault((pool, what), []).append(time.process_time() - start)
        for pool in POOLS:
            rates = {
                what: ENVS * STEPS / statistics.median(seconds[pool, what])
                for what in ("sampling", "iteration")
            }
            row = {
                "hiddens": "x".join(map(str, hiddens)),
                "pool": pool,
                "rounds": options.rounds,
                "sampling_env_steps_per_cpu_s": round(rates["sampling"]),
                "training_env_steps_per_cpu_s": round(rates["iteration"]),
                "cpu": cpu_model(),
            }
            print(row)
            append(RESULTS, [row])
        for one in algorithms.values():
            one.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
