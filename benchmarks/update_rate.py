"""How near a gradient step of PPO comes to what torch's own matrix product reaches on this machine.

The part ``update`` of `training_throughput.py`. Actor and critic of two tanh layers of one width, 77 observations and 5
actions as in the forest, minibatches of one size, Adam and clipping; for each size three contestants take turns in one
run: this package's update by kernels, the same update with torch's operations, and plain torch (`bare_ppo.py`). A
step's matrix products are counted (not its activations, loss and optimizer), so that the share of the product's rate
says how much of the step is not products. The rate is that of ``torch.mm`` on one thread, float32, of the two products
of the network's forward pass with the minibatch's rows (``[rows, 77] @ [77, width]`` and ``[rows, width] @ [width,
width]``), measured in the same turns; the square product of 1,024 stands beside it.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import gymnasium
import numpy as np
import torch
from bare_ppo import ActorCritic, BarePPO, Batch

from qio_envs import forest_uav_v0
from qio_rllib.algorithms import PPOConfig
from qio_rllib.learners import common
from qio_rllib.learners.training_batch import TrainingBatch
from qio_rllib.models.actor_critic import ModuleInputs

Row = dict[str, object]
WIDTHS = (32, 64, 128, 256, 512)
MINIBATCHES = (256, 1600, 4096, 16384)
OBSERVATIONS, ACTIONS = 77, 5
KERNELS, EAGER, BARE = "kernels", "torch", "plain torch"
_SQUARE = 1024


def update(rounds: int, settings: dict[str, object], seconds: float = 0.05) -> list[Row]:
    """Compare the three for each width and minibatch size.

    Args:
        rounds: Turns of each.
        settings: Of PPO's training, the same as in the other parts.
        seconds: How long a turn takes, about.
    """
    rows = []
    for width, minibatch in itertools.product(WIDTHS, MINIBATCHES):
        steps, products = contestants(width, minibatch, settings)
        spent = turns({**steps, **products}, rounds, seconds)
        rate = product_flops(width, minibatch) / spent["product"]
        for name in steps:
            speed = step_flops(width, minibatch) / spent[name]
            rows.append(
                {
                    "contestant": name,
                    "width": width,
                    "minibatch": minibatch,
                    "step_ms": float(f"{spent[name] * 1e3:.4g}"),
                    "gflop_per_s": round(speed / 1e9, 1),
                    "product_gflop_per_s": round(rate / 1e9, 1),
                    "square_product_gflop_per_s": round(2 * _SQUARE**3 / spent["square"] / 1e9, 1),
                    "share": round(speed / rate, 2),
                    "ratio_to_bare": round(spent[BARE] / spent[name], 2),
                }
            )
    return rows


def contestants(
    width: int, minibatch: int, settings: dict[str, object]
) -> tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]]]:
    """Return what takes a gradient step, and the matrix products that it is compared with."""
    rng = torch.Generator().manual_seed(0)
    columns = {
        "obs": torch.randn(minibatch, OBSERVATIONS, generator=rng),
        "actions": torch.randint(ACTIONS, (minibatch,), generator=rng),
        "action_logp": torch.full((minibatch,), -float(np.log(ACTIONS))),
        "action_dist_inputs": torch.zeros(minibatch, ACTIONS),
        "advantages": torch.randn(minibatch, generator=rng),
        "value_targets": torch.randn(minibatch, generator=rng),
    }
    learner = learner_of(width, settings)
    batch = batch_of(columns)
    config = learner.config.get_config_for_module("shared")
    bare = BarePPO(
        forest_uav_v0.batched_env(), env_steps=1, entropy_coeff=float(str(settings["entropy_coeff"]))
    )
    bare.net = ActorCritic(OBSERVATIONS, ACTIONS, width)
    bare.optimizer = torch.optim.Adam(bare.net.parameters(), lr=3e-4, fused=True)
    bare.minibatch_size, bare.epochs = minibatch, 1
    names = ("obs", "actions", "action_logp", "advantages", "value_targets")
    rows = Batch(*(columns[name] for name in names))

    def step(kernels: bool) -> None:
        with learner_threads(kernels):
            order = torch.randperm(minibatch)
            learner._step("shared", config, batch.select(order))

    hidden, left = torch.randn(minibatch, width), torch.randn(OBSERVATIONS, width)
    right, out = torch.randn(width, width), torch.empty(minibatch, width)
    square = torch.randn(_SQUARE, _SQUARE)
    found = torch.empty(_SQUARE, _SQUARE)

    def product() -> None:
        torch.mm(columns["obs"], left, out=out)
        torch.mm(hidden, right, out=out)

    return (
        {KERNELS: lambda: step(True), EAGER: lambda: step(False), BARE: lambda: bare.learn(rows)},
        {"product": product, "square": lambda: torch.mm(square, square, out=found)},
    )


@contextlib.contextmanager
def learner_threads(kernels: bool) -> Iterator[None]:
    """Compute on one thread as Learners do, or without their kernels."""
    without = mock.patch.object(common, "fused_kernels", contextlib.nullcontext)
    with contextlib.nullcontext() if kernels else without, common.learner_threads(1):
        yield


def learner_of(width: int, settings: dict[str, object]) -> Any:
    """Return PPO's Learner of networks of a width."""
    spaces = (
        gymnasium.spaces.Box(-np.inf, np.inf, (OBSERVATIONS,), np.float32),
        gymnasium.spaces.Discrete(ACTIONS),
    )
    config = (
        PPOConfig()
        .environment("forest_uav_v0")
        .rl_module(
            model_config={
                "fcnet_hiddens": [width] * 2,
                "fcnet_activation": "tanh",
                "vf_share_layers": False,
            }
        )
        .training(**settings)
        .debugging(seed=0)
    )
    return config.build_learner(spaces={"shared": spaces})


def batch_of(columns: dict[str, torch.Tensor]) -> TrainingBatch:
    """Return rows as a Learner takes them."""
    rest = {name: column for name, column in columns.items() if name != "obs"}
    return TrainingBatch(ModuleInputs(columns["obs"]), rest, None, True, (), (OBSERVATIONS,))


def turns(contestants: dict[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, float]:
    """Return the median over rounds of what a call takes, in seconds of this thread's CPU time."""
    calls: dict[str, int] = {}
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for name, call in contestants.items():
        call()
        start = time.thread_time()
        call()
        calls[name] = max(1, round(seconds / max(time.thread_time() - start, 1e-6)))
    for _ in range(rounds):
        for name, call in contestants.items():
            start = time.thread_time()
            for _ in range(calls[name]):
                call()
            spent[name].append((time.thread_time() - start) / calls[name])
    return {name: statistics.median(found) for name, found in spent.items()}


def step_flops(width: int, minibatch: int) -> int:
    """Return the floating-point operations of a step's matrix products: forward, by weights, and by inputs."""
    products = 0
    for outputs in (ACTIONS, 1):
        first, rest = OBSERVATIONS * width, width * width + width * outputs
        products += 2 * first + 3 * rest  # nobody asks for the gradient of observations
    return 2 * minibatch * products


def product_flops(width: int, minibatch: int) -> int:
    """Return the floating-point operations of the two products that are measured."""
    return 2 * minibatch * (OBSERVATIONS * width + width * width)


def show(rows: list[Row]) -> None:
    """Print the table."""
    print("\na gradient step: share of torch's matrix product rate, and ratio to plain torch")
    print(f"{'':>8}{'':>11}{'product':>10}" + "".join(f"{name:>24}" for name in (KERNELS, EAGER, BARE)))
    print(f"{'width':>8}{'minibatch':>11}{'GFLOP/s':>10}" + f"{'ms':>10}{'share':>7}{'ratio':>7}" * 3)
    for key, group in itertools.groupby(rows, lambda row: (row["width"], row["minibatch"])):
        cells = [*group]
        line = f"{key[0]:>8}{key[1]:>11,}{cells[0]['product_gflop_per_s']:>10.0f}"
        for row in cells:
            line += f"{row['step_ms']:>10.2f}{row['share']:>7.2f}{row['ratio_to_bare']:>7.2f}"
        print(line)
