"""Interventional consistency of dense models: predictions shall not follow what is no cause of them."""

from __future__ import annotations

import torch
from torch.nn import functional

from qio_rllib.world_models.ensemble import Ensemble
from qio_rllib.world_models.model import Sequences


def interventional_divergence(
    model: Ensemble, batch: Sequences, causes: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return how much a model's predictions change with components that are no causes of them, in nats.

    ``sum over j not in De(i) of KL(p(x'_j | x, a) || p(x'_j | do(x_i = v), a))``: of a component i that is drawn for
    each row, to be set to a value v that another row of the batch holds, over the targets j that do not descend from
    it: Gaussians of changes and rewards, and the continuation. It is 0 for a model that is masked by the same causes.

    Args:
        model: Without attention.
        batch: Steps; those that do not count are left out.
        causes: Which inputs each target depends on, bool ``[D + 2, D + A]``.
        generator: Source of components and values.

    Returns:
        The sum over the members of means over rows, a scalar with gradients.
    """
    counted = batch.learned.flatten() > 0
    obs, actions = batch.obs.flatten(0, 1)[counted], batch.actions.flatten(0, 1)[counted]
    rows, size = obs.shape
    component = torch.randint(size, (rows,), generator=generator).to(obs.device)
    source = torch.randint(rows, (rows,), generator=generator).to(obs.device)
    place = component.unsqueeze(1)
    changed = obs.scatter(1, place, obs[source].gather(1, place))
    both = torch.cat([obs, changed]).expand(model.members, -1, -1)
    taken = torch.cat([actions, actions]).expand(model.members, -1, -1)
    mean, log_variance, logits = model.predictions(both, taken)
    (mean, other_mean), (log_variance, other) = mean.split(rows, dim=1), log_variance.split(rows, dim=1)
    shift = (mean - other_mean) ** 2 * (-other).exp()
    gaussian = 0.5 * (other - log_variance + (log_variance - other).exp() + shift - 1.0)
    logits, other_logits = logits.split(rows, dim=1)
    goes_on = torch.sigmoid(logits)
    ends = functional.binary_cross_entropy_with_logits(other_logits, goes_on, reduction="none")
    ends = ends - functional.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")
    divergence = torch.cat([gaussian, ends.unsqueeze(-1)], dim=-1)  # [K, B, D + 2]
    untouched = ~causes.T[component]  # [B, D + 2]
    return (divergence * untouched).sum(-1).mean(1).sum()
