"""What a step of sampling takes, by kernels and by torch, and how much of it the policy.

The part ``acting`` of `training_throughput.py`: runners of PPO with two tanh layers of 64 play in turn, all that a step
does included: observations, the forward pass, draws, the environments and the record.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from unittest import mock

from update_rate import EAGER, KERNELS, Row, turns

from qio_rllib.algorithms import PPOConfig
from qio_rllib.sampling import runner as runner_module
from qio_rllib.sampling.runner import BatchedEnvRunner

TASKS = (("forest_uav_v0", 8), ("forest_uav_v0", 64), ("mpe_spread_v0", 64))
_STEPS = 50


def acting(rounds: int, seconds: float = 0.1) -> list[Row]:
    """Compare steps by kernels and by torch for each environment and number of copies.

    Args:
        rounds: Turns of each.
        seconds: How long a turn takes, about.
    """
    rows: list[Row] = []
    for env, num_envs in TASKS:
        runners = {name: _runner(env, num_envs) for name in (KERNELS, EAGER)}

        def play(name: str, runners: dict[str, BatchedEnvRunner] = runners) -> Callable[[], object]:
            def call() -> None:
                without = mock.patch.object(runner_module, "acting_kernels", contextlib.nullcontext)
                with contextlib.nullcontext() if name == KERNELS else without:
                    runners[name].sample()

            return call

        spent = turns({name: play(name) for name in runners}, rounds, seconds)
        for name, runner in runners.items():
            runner.stop()
            rows.append(
                {
                    "env": env,
                    "num_envs": num_envs,
                    "contestant": name,
                    "step_us": round(spent[name] / _STEPS * 1e6, 1),
                    "ratio_to_torch": round(spent[EAGER] / spent[name], 2),
                }
            )
    return rows


def _runner(env: str, num_envs: int) -> BatchedEnvRunner:
    config = (
        PPOConfig()
        .environment(env)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs, rollout_fragment_length=_STEPS)
        .training(train_batch_size_per_learner=num_envs * _STEPS, minibatch_size=num_envs)
        .rl_module(
            model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh", "vf_share_layers": False}
        )
        .debugging(seed=0)
    )
    return BatchedEnvRunner(config=config)


def show(rows: list[Row]) -> None:
    """Print the table."""
    print("\na step of sampling, all environments together")
    print(f"{'':>18}{'copies':>8}" + "".join(f"{name:>12}" for name in (KERNELS, EAGER)) + f"{'ratio':>8}")
    for (env, num_envs), group in itertools.groupby(rows, lambda row: (row["env"], row["num_envs"])):
        one, other = group
        print(
            f"{env:>18}{num_envs:>8}{one['step_us']:>9.0f} us{other['step_us']:>9.0f} us"
            f"{one['ratio_to_torch']:>8.2f}"
        )
