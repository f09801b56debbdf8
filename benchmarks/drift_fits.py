"""Models of drift control that learn once, outside of a run, for `planning_parts.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qio_rllib.models.world_model_policy import WorldModelPolicy, WorldModelSpec
from qio_rllib.world_models.model import Sequences, WorldModel

LAST = 0.1  # what the learning rate falls to over the last third of the gradient steps


def drawn_sequences(
    data: Sequences, count: int, length: int, rng: np.random.Generator, around: bool = False
) -> Sequences:
    """Return sequences that begin anywhere, steps first; ``around``: also where they go on at the first step."""
    steps, episodes = data.rewards.shape
    first = rng.integers(steps if around else steps - length + 1, size=count)
    rows, columns = (first + np.arange(length)[:, None]) % steps, rng.integers(episodes, size=count)
    return Sequences(
        data.obs[rows, columns],
        data.next_obs[rows, columns],
        data.actions[rows, columns],
        data.rewards[rows, columns],
        data.terminated[rows, columns],
        data.learned[rows, columns],
        data.fresh[rows, columns],
    )


def fitted_model(
    data: Sequences, config: dict[str, Any], updates: int, seed: int, around: bool = False
) -> WorldModel:
    """Return a model of the sizes and losses of an experiment that has learned from data.

    Args:
        data: What was played.
        config: Of the experiment.
        updates: Gradient steps, at least 1.
        seed: Of weights, draws and latents.
        around: Whether sequences go round, see `drawn_sequences`.
    """
    torch.manual_seed(seed)
    rng, latents = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    sizes = data.obs.shape[-1], data.actions.shape[-1]
    found = WorldModelPolicy(
        WorldModelSpec(*sizes, is_discrete=False, world_model=config["world_model"])
    ).model
    optimizer = torch.optim.Adam(found.parameters(), config["model_lr"][0][1], fused=True)
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: LAST ** max(0.0, 3 * update / updates - 2)
    )
    for _ in range(updates):
        batch = drawn_sequences(
            data, config["train_batch_size_per_learner"], config["model_sequence_length"], rng, around
        )
        found.take_in(batch)
        optimizer.zero_grad()
        found.learn(batch, latents).loss.backward()
        torch.nn.utils.clip_grad_norm_(found.parameters(), config.get("grad_clip", 100.0))
        optimizer.step()
        falling.step()
    return found
