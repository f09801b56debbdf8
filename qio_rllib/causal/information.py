"""Causes of what follows a step by conditional mutual information, estimated with networks that are trained masked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import ndtr
from torch.nn import functional

from qio_rllib.causal.moments import DataError, standardised
from qio_rllib.causal.transitions import TransitionGraph, checked_steps
from qio_rllib.world_models.batched import BatchedMLP

LEAST_SAMPLES = 100
LEAST_INFORMATION = 0.002  # nats, that of a partial correlation of 0.06
_FOLDS = 4
_VALIDATION_SHARE, _UPDATES_BETWEEN_VALIDATIONS = 0.15, 50
_FULL_WEIGHT = 2.0  # how often training shows all inputs, where it hides each of them once
_LOG_VARIANCE_RANGE = (-12.0, 3.0)  # of standardised targets
_WEIGHT_DECAY = 1e-4


@dataclasses.dataclass(frozen=True)
class InformationSettings:
    """Networks and training of `information_graph`.

    Attributes:
        hiddens: Sizes of the hidden layers of each target's network.
        updates: Of the optimizer (AdamW).
        batch_size: Rows of an update, at most.
        lr: Learning rate at first; it falls to 0 along a cosine.
    """

    hiddens: tuple[int, ...] = (64, 64)
    updates: int = 1500
    batch_size: int = 256
    lr: float = 3e-3


def information_graph(
    inputs: np.ndarray,
    targets: np.ndarray,
    input_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
    *,
    alpha: float = 0.001,
    num_one_hot: int = 0,
    seed: int = 0,
    settings: InformationSettings | None = None,
) -> TransitionGraph:
    """Find the causes of every target by conditional mutual information, whatever the shape of the dependence.

    Wang et al., "Causal dynamics learning for task-independent state abstraction", ICML 2022: one network a target
    predicts a Gaussian from inputs of which some are masked, so that it knows ``p(y_j | all inputs)`` and
    ``p(y_j | all but x_i)`` for every i, and

        I(x_i; y_j | the others) = E[log p(y_j | all inputs) - log p(y_j | all but x_i)].

    The mean is taken over rows that a network has not seen (4 folds). In place of a fixed threshold an input is a cause
    if the mean exceeds 0.002 nats significantly: the differences of one row are paired, their standard error is the
    greater of that over rows and that over folds, whose networks begin differently and so show what training leaves to
    chance. As in `transition_graph` components of one time are taken not to cause each other.

    Networks cost seconds where regressions cost hundredths, and need more rows; they find what no polynomial of low
    degree shows (thresholds, magnitudes, oscillations) and influences on the spread alone.

    Args:
        inputs: ``[n, I]``.
        targets: ``[n, T]``.
        input_names: "x0", "x1", ... when absent.
        target_names: "y0", "y1", ... when absent.
        alpha: Level of a single test, in (0, 1).
        num_one_hot: How many of the last inputs are one discrete action, one-hot; it is tested as a whole.
        seed: Of folds, weights and batches; torch's own generator is left as it is.
        settings: Sizes and training.

    Raises:
        ConfigError: A level out of range.
        DataError: Constant or collinear inputs, a constant target, fewer than 100 samples, numbers that are not finite.
    """
    rows, names, wanted, goals = checked_steps(inputs, targets, input_names, target_names, alpha)
    if len(rows) < LEAST_SAMPLES:
        raise DataError(
            f"samples: {len(rows)}; networks need at least {LEAST_SAMPLES}, regressions make do with fewer"
        )
    last = len(names) - num_one_hot
    groups = [min(place, last) for place in range(len(names))]
    rows, wanted = standardised(rows, names), standardised(wanted, goals)
    free = rows[:, :-1] if num_one_hot else rows  # the last of a one-hot follows from the others
    if np.linalg.matrix_rank(free, tol=1e-6 * math.sqrt(len(rows))) < free.shape[1]:
        raise DataError(
            "inputs: they are collinear, so that none tells anything beside the others; leave some out"
        )
    differences = _differences(rows, wanted, groups, seed, settings or InformationSettings())
    information = differences.mean((0, 3))
    spread = np.maximum(
        differences.transpose(1, 2, 0, 3).reshape(*information.shape, -1).std(-1)
        / math.sqrt(differences.shape[0] * differences.shape[3]),
        differences.mean(3).std(0, ddof=1) / math.sqrt(differences.shape[0]),
    )
    p_values = ndtr((LEAST_INFORMATION - information) / np.maximum(spread, 1e-12))
    return TransitionGraph(names, goals, p_values[:, groups], alpha, information[:, groups])


def _differences(
    rows: np.ndarray, wanted: np.ndarray, groups: Sequence[int], seed: int, settings: InformationSettings
) -> np.ndarray:
    """Return ``log p(y | all) - log p(y | all but a group)`` of rows not trained on, ``[folds, T, G, n / folds]``."""
    count = len(rows)
    generator = torch.Generator().manual_seed(seed)
    folds = torch.randperm(count, generator=generator)[: count - count % _FOLDS].reshape(_FOLDS, -1)
    others = torch.stack([folds[torch.arange(_FOLDS) != fold].flatten() for fold in range(_FOLDS)])
    others = others.gather(1, torch.rand(others.shape, generator=generator).argsort(1))
    size = int(_VALIDATION_SHARE * others.shape[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _MaskedPredictor(wanted.shape[1], groups, settings)
    x, y = torch.from_numpy(rows).float(), torch.from_numpy(wanted).float()
    model.fit(x, y, others[:, size:], others[:, :size], generator, settings)
    found = model.losses_of_masks(x[folds], y[folds])  # [1 + G, folds, T, n / folds]
    return (found[1:] - found[0]).permute(1, 2, 0, 3).double().numpy()


class _MaskedPredictor:
    """A network for each fold and target, as one batched product: a Gaussian from the inputs that a mask leaves."""

    def __init__(self, num_targets: int, groups: Sequence[int], settings: InformationSettings) -> None:
        self.num_targets, self.num_groups = num_targets, groups[-1] + 1
        group = torch.tensor(groups)
        shown = group != torch.arange(self.num_groups)[:, None]
        self.masks = torch.cat([torch.ones(1, len(groups)), shown.float()])  # all, then all but each group
        sizes = (2 * len(groups), *settings.hiddens, 2)
        self.network = BatchedMLP(_FOLDS * num_targets, sizes, "silu")

    def losses(self, x: torch.Tensor, masks: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return negative log-likelihoods ``[folds, T, B]``; x and masks are ``[folds, B, I]``, y ``[folds, B, T]``."""
        rows = torch.cat([x * masks, masks - 1.0], dim=-1)  # what is masked, and that it is
        rows = rows.repeat_interleave(self.num_targets, dim=0)
        mean, raw = self.network(rows).unflatten(0, (_FOLDS, self.num_targets)).unbind(-1)
        low, high = _LOG_VARIANCE_RANGE
        log_variance = high - functional.softplus(high - low - functional.softplus(raw - low))
        errors = (y.transpose(1, 2) - mean) ** 2
        return 0.5 * (errors * (-log_variance).exp() + log_variance + math.log(2 * math.pi))

    @torch.no_grad()
    def losses_of_masks(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the losses under each mask, ``[1 + G, folds, T, B]``."""
        return torch.stack([self.losses(x, mask.expand_as(x), y) for mask in self.masks])

    def fit(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        training: torch.Tensor,
        validation: torch.Tensor,
        generator: torch.Generator,
        settings: InformationSettings,
    ) -> None:
        """Learn; every network keeps the weights with which it did best on its validation rows.

        Args:
            x: ``[n, I]``.
            y: ``[n, T]``.
            training: Places of each fold's rows, ``[folds, .]``.
            validation: Likewise.
            generator: Of batches and masks.
            settings: Of the training.
        """
        weights = list(self.network.parameters())
        optimizer = torch.optim.AdamW(weights, lr=settings.lr, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.updates)
        shares = torch.tensor([_FULL_WEIGHT, *[1.0] * self.num_groups])
        shares /= shares.sum()
        best = torch.full((_FOLDS * self.num_targets,), math.inf)
        kept = [weight.detach().clone() for weight in weights]
        shape = (_FOLDS, min(settings.batch_size, training.shape[1]))
        for update in range(1, settings.updates + 1):
            chosen = training.gather(1, torch.randint(training.shape[1], shape, generator=generator))
            masked = torch.multinomial(shares, shape[0] * shape[1], replacement=True, generator=generator)
            loss = self.losses(x[chosen], self.masks[masked.reshape(shape)], y[chosen]).mean(-1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if update % _UPDATES_BETWEEN_VALIDATIONS == 0 or update == settings.updates:
                found = self.losses_of_masks(x[validation], y[validation]).mean(-1)
                found = (shares[:, None, None] * found).sum(0).flatten()
                better = found < best
                best = torch.where(better, found, best)
                for weight, keep in zip(weights, kept, strict=True):
                    keep[better] = weight.detach()[better]
        with torch.no_grad():
            for weight, keep in zip(weights, kept, strict=True):
                weight.copy_(keep)
