"""Model predictive planning: search for the sequence of actions with the best predicted return, take its first action.

Methods and their sources are those of `PlanningSettings.method`. A planner knows nothing of models: it is given a
function from action sequences to returns, for all decisions of a batch at once. What a decision leaves for the next one
is a row of numbers, which the caller carries and puts back to zeros where an episode ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from qio_envs.api import ConfigError
from qio_rllib.random_numbers import RandomNumbers
from qio_rllib.world_models.candidates import (
    ContinuousSequences,
    DiscreteSequences,
    RowDraws,
    Sequences,
    later,
)
from qio_rllib.world_models.planning_settings import PlanningSettings

Returns = Callable[[Tensor], Tensor]
"""Predicted returns ``[B, N]`` of action sequences ``[B, N, H, A]``, float32.

Continuous actions are in [-1, 1], discrete ones one-hot. It is called with various numbers ``N``.
"""


class Plan(NamedTuple):
    """What a planner decided for ``B`` rows.

    Attributes:
        actions: To take now: float32 ``[B, A]`` in [-1, 1], or int64 ``[B]``; with exploration noise if asked for.
        memory: Of the next decision, float32 ``[B, S]``.
        value: Predicted return of ``sequence``, float32 ``[B]``.
        sequence: The plan, without exploration noise: float32 ``[B, H, A]``, or int64 ``[B, H]``.
    """

    actions: Tensor
    memory: Tensor
    value: Tensor
    sequence: Tensor


class _Kept(NamedTuple):
    """Sequences that are candidates again."""

    sequences: Tensor  # [B, K, H, A], best first
    valid: Tensor  # bool [B, K]; others are no candidates


class Planner:
    """Plans by the cross-entropy method, iCEM or MPPI, for a batch of decisions; has no state of its own.

    The plan is the mean of the last iteration's elites (cem), of its candidates weighted by their returns (mppi), or
    the better by the model of the elites' mean and the best elite (icem); for discrete actions the "mean" is the
    most probable action of each step. It is never a random draw. Where the model has no finite return for a mean, the
    best candidate is the plan.

    A row of memory is one number that is 0 where nothing has been planned, else 1 more than the number of kept
    elites that count; the centre ``[H, A]`` that the next decision starts from (means of continuous actions,
    probabilities of discrete ones); and kept elites ``[K, H, A]`` (icem). All of it is moved on by one step already.

    Args:
        settings: How to search.
        num_actions: Numbers in an action ``A``, at least 1: components, or discrete actions.
        is_discrete: Which of them.

    Attributes:
        memory_size: Numbers in a row of memory ``S``; 0 without warm start.

    Raises:
        ConfigError: ``exploration`` above 1 for discrete actions, where it is a probability.
        ValueError: Less than one action.
    """

    def __init__(self, settings: PlanningSettings, num_actions: int, is_discrete: bool) -> None:
        if num_actions < 1:
            raise ValueError(f"num_actions must be at least 1, got {num_actions}")
        if is_discrete and settings.exploration > 1:
            raise ConfigError(
                "planner.exploration: expected a probability of at most 1 for discrete actions, got"
                f" {settings.exploration}"
            )
        self.settings, self.num_actions, self.is_discrete = settings, num_actions, is_discrete
        self._kind: Sequences = (DiscreteSequences if is_discrete else ContinuousSequences)(
            settings, num_actions
        )
        numbers = settings.horizon * num_actions
        self.memory_size = 1 + (1 + settings.kept_elites) * numbers if settings.warm_start else 0

    @torch.no_grad()
    def plan(
        self,
        returns: Returns,
        memory: Tensor,
        rng: RandomNumbers,
        explore: bool,
        legal: Tensor | None = None,
        num_envs: int | None = None,
    ) -> Plan:
        """Return the best plan found for each row.

        A row's plan depends on its own returns, memory and draws only, bit for bit, whatever the other rows are.

        Args:
            returns: The model. A NaN or infinite return counts as the worst.
            memory: Of the previous decision, float32 ``[B, S]``; zeros where there was none.
            rng: Source of the draws, each of shape ``[E, B / E, ...]``.
            explore: Whether to add exploration noise to ``actions``.
            legal: Discrete actions that may be taken now, bool ``[B, A]``; None for all. In a row without any, all
                are taken as legal. Later steps of a plan may hold any action.
            num_envs: Environments ``E``, whose agents are successive rows; None for one row each.

        Raises:
            ValueError: Arguments, or returns of the model, of the wrong shape or type.
            FloatingPointError: A row all of whose candidates have NaN or infinite returns.
        """
        rows = self._check(memory, legal, num_envs)
        draws = RowDraws(rng, rows if num_envs is None else num_envs, rows, memory.device)
        parameters, kept = self._recall(memory, legal)
        for iteration, count in enumerate(self.settings.candidate_counts):
            candidates = self._kind.draw(parameters, count, draws, legal)
            valid = torch.ones(candidates.shape[:2], dtype=torch.bool, device=memory.device)
            if self.settings.method == "icem" and iteration == self.settings.iterations - 1:
                mean = self._kind.central(parameters[0], legal)
                candidates, valid = _joined(candidates, valid, _Kept(mean[:, None], valid[:, :1]))
            if kept is not None:
                candidates, valid = _joined(candidates, valid, kept)
            scores = _scores(returns, candidates, valid)
            self._check_scores(scores, iteration)
            ranked, order = scores.sort(dim=1, descending=True, stable=True)
            fitted = self._kind.fit(candidates, self._weights(scores, ranked, order))
            best, kept = self._best(candidates, ranked, order)
            parameters = self.settings.momentum * parameters + (1.0 - self.settings.momentum) * fitted
        mean, highest = self._kind.central(fitted[0], legal), ranked[:, 0]
        value = _scores(returns, mean[:, None], None)[:, 0]
        take_mean = value >= highest if self.settings.method == "icem" else value.isfinite()
        sequence = torch.where(take_mean[:, None, None], mean, best)
        actions = self._kind.taken(sequence, draws if explore else None, legal)
        return Plan(
            actions,
            self._remember(fitted[0], kept),
            torch.where(take_mean, value, highest),
            self._kind.readable(sequence),
        )

    def _recall(self, memory: Tensor, legal: Tensor | None) -> tuple[Tensor, _Kept | None]:
        """Return the parameters of the first iteration and the elites of the previous decision."""
        shape = (len(memory), -1, self.settings.horizon, self.num_actions)
        if not self.settings.warm_start:
            center = memory.new_zeros(len(memory), *shape[2:])
            return self._kind.start(center, memory.new_zeros(len(memory), dtype=torch.bool)), None
        flag, sequences = memory[:, 0], memory[:, 1:].reshape(shape).clone()
        parameters = self._kind.start(sequences[:, 0], flag > 0)
        if not self.settings.kept_elites:
            return parameters, None
        elites = sequences[:, 1:]
        valid = torch.arange(self.settings.kept_elites, device=memory.device) < flag[:, None] - 1
        if legal is not None:
            allowed = legal | ~legal.any(-1, keepdim=True)
            valid &= (elites[:, :, 0] * allowed[:, None]).sum(-1) > 0
        return parameters, _Kept(elites, valid)

    def _remember(self, center: Tensor, kept: _Kept | None) -> Tensor:
        """Return the memory of the next decision."""
        if not self.settings.warm_start:
            return center.new_zeros(len(center), 0)
        flag, parts = center.new_ones(len(center), 1), [self._kind.shifted(center).flatten(1)]
        if kept is not None:
            flag = flag + kept.valid.sum(1, keepdim=True)
            parts.append(later(kept.sequences * kept.valid[:, :, None, None], dim=2).flatten(1))
        return torch.cat([flag, *parts], dim=1)

    def _weights(self, scores: Tensor, ranked: Tensor, order: Tensor) -> Tensor:
        """Return the weights of candidates ``[B, N]`` in the fit; they add up to 1, and worst ones have none.

        Args:
            scores: Returns, ``[B, N]``.
            ranked: They in descending order.
            order: Indices of the candidates in that order.
        """
        if self.settings.method == "mppi":
            wide, middle = ranked.double(), ranked.isfinite().sum(1, keepdim=True) // 2
            scale = self.settings.temperature * (wide[:, :1] - wide.gather(1, middle))
            # Where half of the candidates share the best return they alone have weight.
            logits = (scores.double() - wide[:, :1]) / scale.clamp_min(torch.finfo(torch.float64).tiny)
            return torch.softmax(logits, dim=1).to(scores.dtype)
        elites = self.settings.elites
        chosen = ranked[:, :elites].isfinite().to(scores.dtype)
        weights = torch.zeros_like(scores).scatter(1, order[:, :elites], chosen)
        return weights / chosen.sum(1, keepdim=True)

    def _best(self, candidates: Tensor, ranked: Tensor, order: Tensor) -> tuple[Tensor, _Kept | None]:
        """Return the best candidate ``[B, H, A]``, and the elites to keep."""
        count = self.settings.kept_elites
        top = order[:, : max(count, 1), None, None].expand(-1, -1, *candidates.shape[2:])
        found = candidates.gather(1, top)
        return found[:, 0], _Kept(found, ranked[:, :count].isfinite()) if count else None

    def _check(self, memory: Tensor, legal: Tensor | None, num_envs: int | None) -> int:
        """Refuse arguments of the wrong shape or type; return the number of rows."""
        if memory.ndim != 2 or memory.shape[1] != self.memory_size or memory.dtype != torch.float32:
            raise ValueError(
                f"memory: expected float32 [B, {self.memory_size}], got {_described(memory)}; zeros start an episode"
            )
        rows = len(memory)
        if legal is not None:
            if not self.is_discrete:
                raise ValueError("legal: continuous actions have no mask")
            if legal.shape != (rows, self.num_actions) or legal.dtype != torch.bool:
                raise ValueError(
                    f"legal: expected bool [{rows}, {self.num_actions}], got {_described(legal)}"
                )
        if num_envs is not None and (num_envs < 1 or rows % num_envs):
            raise ValueError(f"num_envs: {rows} rows are not those of {num_envs} environments")
        return rows

    def _check_scores(self, scores: Tensor, iteration: int) -> None:
        """Refuse rows without any finite return."""
        lost = ~scores.isfinite().any(1)
        if bool(lost.any()):
            raise FloatingPointError(
                f"planner: all {scores.shape[1]} candidates of row {int(lost.nonzero()[0, 0])} have NaN or infinite"
                f" returns in iteration {iteration + 1} of {self.settings.iterations}; the model predicts no finite"
                " return there"
            )


def _joined(candidates: Tensor, valid: Tensor, more: _Kept) -> tuple[Tensor, Tensor]:
    return torch.cat([candidates, more.sequences], dim=1), torch.cat([valid, more.valid], dim=1)


def _scores(returns: Returns, candidates: Tensor, valid: Tensor | None) -> Tensor:
    """Return returns ``[B, N]``, -inf for those that are not finite or not valid."""
    found = returns(candidates)
    if found.shape != candidates.shape[:2]:
        raise ValueError(
            f"returns: expected [{candidates.shape[0]}, {candidates.shape[1]}] for actions of shape"
            f" {list(candidates.shape)}, got {list(found.shape)}"
        )
    found = found.to(torch.float32)
    counts = found.isfinite() if valid is None else found.isfinite() & valid
    return torch.where(counts, found, -torch.inf)


def _described(given: Tensor) -> str:
    return f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
