"""How near a gradient step of QMIX and MADDPG comes to what torch's own matrix product reaches on this machine.

The part ``off_policy`` of `training_throughput.py`: the Learners of two ready experiments take steps on one batch of
random play, by kernels and with torch's operations in turn. A step's matrix products are those that torch counts in
its own step. The rate is that of ``torch.mm`` on one thread, float32, of the two products of the forward pass of the
Q-network or critic, measured in the same turns. What it costs to draw the batch from the replay stands beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from update_rate import EAGER, KERNELS, Row, learner_threads, turns

from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.learners.transitions import transitions_of
from qio_rllib.sampling.replay import JointReplay
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.team_reward import with_team_reward

EXPERIMENTS = ("mpe_spread_qmix", "spread_maddpg")
_FOLDER = Path(__file__).parents[1] / "tune_configs"


def off_policy(rounds: int, seconds: float = 0.1) -> list[Row]:
    """Compare steps by kernels and by torch for each experiment.

    Args:
        rounds: Turns of each.
        seconds: How long a turn takes, about.
    """
    rows: list[Row] = []
    for name in EXPERIMENTS:
        steps, others, sizes = contestants(name)
        with learner_threads(kernels=False), FlopCounterMode(display=False) as counter:
            steps[EAGER]()
        spent = turns({**steps, **others}, rounds, seconds)
        count, before, width = sizes
        rate = 2 * count * (before * width + width * width) / spent["product"]
        for contestant in steps:
            speed = counter.get_total_flops() / spent[contestant]
            rows.append(
                {
                    "experiment": name,
                    "contestant": contestant,
                    "step_ms": float(f"{spent[contestant] * 1e3:.4g}"),
                    "draw_ms": float(f"{spent['draw'] * 1e3:.3g}"),
                    "gflop_per_s": round(speed / 1e9, 1),
                    "product_gflop_per_s": round(rate / 1e9, 1),
                    "share": round(speed / rate, 2),
                    "ratio_to_torch": round(spent[EAGER] / spent[contestant], 2),
                }
            )
    return rows


def contestants(
    name: str,
) -> tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]], tuple[int, int, int]]:
    """Return what takes a gradient step, what else is measured, and rows, inputs and width of the products."""
    config: Any = load_experiment(str(_FOLDER / f"{name}.yaml")).algorithm_config()
    runner = BatchedEnvRunner(config=config)
    spec = config.get_multi_rl_module_spec(spaces=runner.get_spaces())
    learner = config.learner_class(config=config, module_spec=spec)
    learner.build()
    team = config.learns_for_the_team
    replay = JointReplay(
        config.replay_capacity, 0, n_step=config.replay_n_step, gamma=config.gamma, team=team
    )
    count = config.train_batch_size_per_learner
    while replay.num_samples < count:
        for rollout in runner.sample(random_actions=True):
            replay.add(with_team_reward(rollout, config.team_reward) if team else rollout)
    runner.stop()
    batch = transitions_of(replay.sample(count), learner.joint, 0, "cpu")
    module = learner.modules()[0]
    if team:
        first = module.policy.encoder.layers[0]
        sizes = batch.obs[0].shape[:2].numel(), first.in_features, first.out_features
    else:
        critic = module.critic_networks()[0].critic
        inputs = critic.from_obs.in_features + critic.from_actions.in_features
        sizes = count, inputs, critic.from_obs.out_features

    def step(kernels: bool) -> None:
        with learner_threads(kernels):
            learner.gradient_step(batch)

    rows, before, width = sizes
    inputs, left = torch.randn(rows, before), torch.randn(before, width)
    hidden, right = torch.randn(rows, width), torch.randn(width, width)
    out = torch.empty(rows, width)

    def product() -> None:
        torch.mm(inputs, left, out=out)
        torch.mm(hidden, right, out=out)

    return (
        {KERNELS: lambda: step(True), EAGER: lambda: step(False)},
        {"product": product, "draw": lambda: replay.sample(count)},
        sizes,
    )


def show(rows: list[Row]) -> None:
    """Print the table."""
    print("\na gradient step: share of torch's matrix product rate, and ratio to torch's operations")
    print(f"{'':>18}{'product':>10}{'a draw':>10}" + "".join(f"{name:>24}" for name in (KERNELS, EAGER)))
    print(f"{'experiment':>18}{'GFLOP/s':>10}{'ms':>10}" + f"{'ms':>10}{'share':>7}{'ratio':>7}" * 2)
    for name, group in itertools.groupby(rows, lambda row: row["experiment"]):
        cells = [*group]
        line = f"{name:>18}{cells[0]['product_gflop_per_s']:>10.0f}{cells[0]['draw_ms']:>10.2f}"
        for row in cells:
            line += f"{row['step_ms']:>10.2f}{row['share']:>7.2f}{row['ratio_to_torch']:>7.2f}"
        print(line)
