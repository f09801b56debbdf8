"""Fitting what a policy imagines with to what its agents experienced."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qio_rllib.acting.actor import DIST_INPUTS
from qio_rllib.learners.common import as_tensor, descend
from qio_rllib.models.actor_critic import ActorCritic
from qio_rllib.models.imagination import Experience, Imagination
from qio_rllib.sampling.rollout import Array, ModuleRollout

MODEL = "model"
"""Name of the optimizer of model and rollout policy."""


def imagination_of(module: Any) -> Imagination | None:
    """Return what an unwrapped module imagines with, if there is anything in it to fit; else None."""
    if not isinstance(module, ActorCritic):
        return None
    imagination = module.policy.imagination
    return imagination if imagination is not None and imagination.trained_parameters() else None


def experience_of(
    imagination: Imagination, parts: Sequence[ModuleRollout], device: torch.device | str | None
) -> Experience:
    """Return the steps in which agents acted, of all rollouts.

    What followed a step is the next observation, or where the episode ended for the agent, terminated or truncated,
    what it saw last.
    """
    found = [_experience(imagination, part) for part in parts]
    return Experience(*(torch.cat(pieces).to(device) for pieces in zip(*found, strict=True)))


def fit(
    imagination: Imagination,
    optimizer: torch.optim.Optimizer,
    batch: Experience,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Take gradient steps on model and rollout policy; return means of what is to be reported.

    Args:
        imagination: Its scales take in the batch first.
        optimizer: Of `Imagination.trained_parameters`.
        batch: At least one step; it is gone through ``model_epochs`` times in pieces of about ``model_batch_size``.
        generator: Source of the order and of the members' resamples.
    """
    settings, rows = imagination.settings, len(batch.rewards)
    imagination.take_in(batch)
    pieces = max(1, round(rows / settings.model_batch_size))
    bounds = [rows * piece // pieces for piece in range(pieces + 1)]
    totals: dict[str, torch.Tensor] = {}
    parameters = imagination.trained_parameters()
    for parameter in parameters:
        parameter.requires_grad_(True)
    for _ in range(settings.model_epochs):
        order = torch.randperm(rows, generator=generator).to(batch.rewards.device)
        for start, stop in itertools.pairwise(bounds):
            loss, stats = imagination.learn(batch.select(order[start:stop]), generator)
            descend([optimizer], loss, None, "norm")
            for name, value in stats.items():
                totals[name] = totals[name] + value if name in totals else value
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
    return {name: total / (pieces * settings.model_epochs) for name, total in totals.items()}


def _experience(imagination: Imagination, part: ModuleRollout) -> Experience:
    steps, acted = part.num_steps, part.acted
    observations = part.observations.reshape(*part.observations.shape[:3], -1)
    following = part.next_observations().reshape(*observations[1:].shape)
    said = torch.from_numpy(part.columns[DIST_INPUTS][acted])
    if imagination.is_discrete:
        targets = torch.softmax(said, dim=-1)
        actions = torch.nn.functional.one_hot(torch.from_numpy(part.actions[acted]), imagination.num_actions)
    else:
        targets = said[:, : imagination.num_actions].clamp(-1.0, 1.0)
        actions = torch.from_numpy(part.actions[acted]).clamp(-1.0, 1.0)

    def rows(array: Array) -> torch.Tensor:
        return as_tensor(array[acted].astype(np.float32, copy=False))

    return Experience(
        rows(observations[:steps]),
        actions.float(),
        rows(part.rewards),
        rows(following),
        rows(part.terminated),
        targets,
    )
