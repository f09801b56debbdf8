"""`Ensemble`: probabilistic networks that predict the next observation, the reward and the end of an episode."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from qio_rllib.world_models.attention import AttentionOverOthers
from qio_rllib.world_models.batched import BatchedMLP
from qio_rllib.world_models.model import (
    Learned,
    Predicted,
    Sequences,
    ValueFunction,
    WorldModel,
    by_candidate,
    by_row,
    joint_candidates,
)
from qio_rllib.world_models.scales import RunningScale

_VARIANCE_BOUND_WEIGHT = 0.01  # of the learned bounds in the loss, as in PETS's published code


@dataclasses.dataclass(frozen=True)
class EnsembleSettings:
    """Sizes of an `Ensemble`.

    Attributes:
        members: Networks that learn from resamples of the data of their own, at least 1.
        hiddens: Sizes of the hidden layers.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
        beta: The likelihood of a number is weighted by its predicted variance to this power, in [0, 1] (Seitzer et al.,
            2022): 0 is the likelihood itself, in which numbers that are predicted almost exactly outweigh all others
            and the continuation; with 0.5 an error counts in standard deviations, with 1 as in least squares.
        attention_heads: Heads of the attention by which what is predicted of an agent depends on the observations and
            actions of the other agents of its module; 0 for none.
        attention_size: Numbers in the keys, queries and values of all heads, a multiple of `attention_heads`.
    """

    members: int = 5
    hiddens: tuple[int, ...] = (128, 128)
    activation: str = "silu"
    beta: float = 0.0
    attention_heads: int = 0
    attention_size: int = 64


class Ensemble(WorldModel):
    """Members that each predict Gaussian changes and rewards, and the probability that the episode goes on.

    See Chua et al., "Deep reinforcement learning in a handful of trials", 2018 (PETS).

    A state is the observation: the model is for environments that show all there is to know.

    With an input mask each target has a network of its own in every member, which sees its inputs alone: a masked input
    has no influence at all, and neither a gradient (the factored models of causal learning need that).

    With attention each member has one of its own, whose output is added to that of the member's first layer.

    Args:
        obs_size: Numbers ``D`` in an observation.
        num_actions: Numbers ``A`` in an action.
        settings: Sizes.
        input_mask: Which of the ``D + A`` inputs each of the ``D + 2`` targets (next observation, reward, continuation)
            may depend on, bool ``[D + 2, D + A]``; None for all, in one network a member.

    Raises:
        ValueError: A mask of another shape, or beside attention.
    """

    input_mask: torch.Tensor

    def __init__(
        self,
        obs_size: int,
        num_actions: int,
        settings: EnsembleSettings | None = None,
        input_mask: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        settings = settings or EnsembleSettings()
        self.settings = settings
        self.obs_size, self.num_actions = obs_size, num_actions
        self.state_size = self.feature_size = obs_size
        self.members, targets = settings.members, obs_size + 1  # Gaussian targets: changes and reward
        inputs = obs_size + num_actions
        self.is_factored = input_mask is not None
        if input_mask is not None:
            if settings.attention_heads:
                raise ValueError("input_mask: does not go with attention_heads; set one of the two to none")
            if input_mask.shape != (targets + 1, inputs):
                raise ValueError(
                    f"input_mask: expected the shape {(targets + 1, inputs)}, got {tuple(input_mask.shape)}"
                )
            self.register_buffer("input_mask", torch.empty(self.members * (targets + 1), 1, inputs))
            self.set_input_mask(input_mask)
            # Two outputs a target, mean and log variance; of the continuation the first is the logit.
            self.networks = BatchedMLP(
                self.members * (targets + 1), (inputs, *settings.hiddens, 2), settings.activation
            )
        else:
            self.networks = BatchedMLP(
                self.members, (inputs, *settings.hiddens, 2 * targets + 1), settings.activation
            )
        self.input_scale = RunningScale(inputs)
        self.target_scale = RunningScale(targets)
        self.max_log_variance = nn.Parameter(torch.full((targets,), 0.5))
        self.min_log_variance = nn.Parameter(torch.full((targets,), -10.0))
        self.others: AttentionOverOthers | None = None
        if settings.attention_heads:
            self.others = AttentionOverOthers(
                self.members,
                inputs,
                settings.attention_size,
                settings.attention_heads,
                settings.hiddens[0],
                settings.activation,
            )
        self.sees_others = self.others is not None

    def set_input_mask(self, input_mask: torch.Tensor) -> None:
        """Let targets depend on other inputs; for models that were built with a mask.

        Args:
            input_mask: Bool ``[D + 2, D + A]``.
        """
        self.input_mask.copy_(input_mask.float().repeat(self.members, 1).unsqueeze(1))

    def attend(self, state: torch.Tensor, action: torch.Tensor, present: torch.Tensor) -> torch.Tensor | None:
        """Return what every member takes from the others, ``[K, B, Z]``; see `WorldModel.attend`.

        States and actions can be the same for all members, ``[B, ...]``, or those of each, ``[K, B, ...]``; so can
        ``present``, ``[E, M]`` or ``[K, E, M]``.
        """
        if self.others is None:
            return None
        rows = self.input_scale(torch.cat([state, action], dim=-1))
        return self.others(rows.expand(self.members, -1, -1), present)

    def predictions(
        self, obs: torch.Tensor, actions: torch.Tensor, others: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return every member's predictions.

        Args:
            obs: ``[K, B, D]``, a batch a member.
            actions: ``[K, B, A]``.
            others: What `attend` gave; None for agents without others.

        Returns:
            Means and log variances of the scaled targets, ``[K, B, D + 1]`` (changes of the observation, reward), and
            logits of the continuation, ``[K, B]``.
        """
        rows = self.input_scale(torch.cat([obs, actions], dim=-1))
        targets = self.obs_size + 1
        if self.is_factored:
            found = self._by_target(rows)
            mean, raw = (part.transpose(1, 2) for part in found[:, :-1].unbind(-1))
            logits = found[:, -1, :, 0]
        else:
            mean, raw, last = self.networks(rows, others).split([targets, targets, 1], dim=-1)
            logits = last.squeeze(-1)
        # Bounds that move with the data, so that a deviation is neither 0 nor without limit where there was none.
        log_variance = self.max_log_variance - functional.softplus(self.max_log_variance - raw)
        log_variance = self.min_log_variance + functional.softplus(log_variance - self.min_log_variance)
        return mean, log_variance, logits

    def _by_target(self, rows: torch.Tensor, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Return both outputs of targets' own networks, ``[K, C, B, 2]``.

        Args:
            rows: Scaled inputs, ``[K, B, D + A]``.
            chosen: Places of ``C`` of the ``D + 2`` targets; None for all.
        """
        count = self.obs_size + 2 if chosen is None else len(chosen)
        if chosen is None:
            masked = rows.repeat_interleave(count, dim=0) * self.input_mask
            return self.networks(masked).unflatten(0, (self.members, count))
        first = torch.arange(self.members, device=rows.device).unsqueeze(1) * (self.obs_size + 2)
        networks = (first + chosen).flatten()
        masked = rows.repeat_interleave(count, dim=0) * self.input_mask[networks]
        return self.networks(masked, chosen=networks).unflatten(0, (self.members, count))

    def relevant_targets(self) -> torch.Tensor:
        """Return the places of the targets that rewards and ends depend on, now or later, increasing, int64 ``[C]``.

        The last two are the reward and the continuation. Of a model without a mask all.
        """
        size = self.obs_size
        relevant = torch.ones(size + 2, dtype=torch.bool)
        if self.is_factored:
            mask = self.input_mask[: size + 2, 0, :size].cpu() > 0
            relevant[:size] = False
            for _ in range(size):
                relevant[:size] |= mask[relevant].any(0)
        return relevant.nonzero()[:, 0].to(self.target_scale.mean.device)

    def observe(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        obs: torch.Tensor,
        generator: torch.Generator | None = None,
        others: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the observation."""
        return obs

    def features(self, state: torch.Tensor) -> torch.Tensor:
        """Return scaled observations."""
        size = self.obs_size
        return (state - self.input_scale.mean[:size]) / self.input_scale.deviation[:size]

    def decode(self, state: torch.Tensor) -> torch.Tensor:
        """Return the state, which is the observation."""
        return state

    def step(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        generator: torch.Generator | None = None,
        others: torch.Tensor | None = None,
    ) -> Predicted:
        """Predict one step: by a member and a draw of its Gaussian for each row, or the mean over the members."""
        members = self.members
        mean, log_variance, logits = self.predictions(
            state.expand(members, *state.shape), action.expand(members, *action.shape), others
        )
        if generator is None:
            scaled, goes_on = mean.mean(0), torch.sigmoid(logits).mean(0)
        else:
            chosen = torch.randint(members, (len(state),), generator=generator).to(state.device)
            rows = torch.arange(len(state), device=state.device)
            noise = torch.randn(mean.shape[1:], generator=generator).to(state.device)
            scaled = mean[chosen, rows] + (0.5 * log_variance[chosen, rows]).exp() * noise
            goes_on = torch.sigmoid(logits[chosen, rows])
        found = self.target_scale.inverse(scaled)
        return Predicted(state + found[..., :-1], found[..., -1], goes_on)

    def returns(
        self,
        state: torch.Tensor,
        actions: torch.Tensor,
        gamma: float,
        value: ValueFunction | None = None,
        present: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the mean over the members of what each expects by itself; see `WorldModel.returns`.

        Every member goes on from its own predictions through the whole sequence (PETS's TS-infinity, with means). With
        an input mask and without a value, components on which no reward and no end depends are not predicted.
        """
        candidates, horizon = actions.shape[1:3]
        members, agents = self.members, 1 if present is None else present.shape[1]
        now = by_candidate(state, candidates, agents).expand(members, -1, -1)
        flat = joint_candidates(actions, agents)
        here = None if present is None else present.repeat_interleave(candidates, dim=0)
        total = flat.new_zeros(members, len(flat))
        weight = torch.ones_like(total)
        relevant = self.relevant_targets() if self.is_factored and value is None else None
        for step in range(horizon):
            taken = flat[:, step].expand(members, -1, -1)
            if relevant is not None:
                now, rewards, logits = self._relevant_step(now, taken, relevant)
            else:
                others = None if here is None else self.attend(now, taken, here)
                mean, _, logits = self.predictions(now, taken, others)
                found = self.target_scale.inverse(mean)
                now, rewards = now + found[..., :-1], found[..., -1]
            total = total + weight * rewards
            weight = weight * torch.sigmoid(logits) * gamma
        if value is not None:
            total = total + weight * value(self.features(now))
        return by_row(total.mean(0), candidates, agents)

    def _relevant_step(
        self, now: torch.Tensor, taken: torch.Tensor, relevant: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return mean next states ``[K, B, D]``, rewards and logits of the continuation ``[K, B]``.

        Components that are not relevant stay as they are: what is predicted of the others does not depend on them.
        """
        rows = self.input_scale(torch.cat([now, taken], dim=-1))
        found = self._by_target(rows, relevant)[..., 0].transpose(1, 2)  # [K, B, C]
        scaled, gaussian = found[..., :-1], relevant[:-1]
        changes = scaled * self.target_scale.deviation[gaussian] + self.target_scale.mean[gaussian]
        now = now.index_add(-1, relevant[:-2], changes[..., :-1])
        return now, changes[..., -1], found[..., -1]

    def take_in(self, batch: Sequences) -> None:
        """Take in the scales of inputs and targets."""
        rows = batch.learned.flatten() > 0
        inputs = torch.cat([batch.obs, batch.actions], dim=-1).flatten(0, 1)
        self.input_scale.update(inputs[rows])
        self.target_scale.update(self._targets(batch)[rows])

    def learn(self, batch: Sequences, generator: torch.Generator) -> Learned:
        """Return the negative log-likelihood of a batch; each member learns from a resample of it.

        With attention whole environments' steps are drawn, so that agents keep their others.
        """
        rows, agents = batch.learned.numel(), 1 if batch.present is None else batch.present.shape[-1]
        drawn = torch.randint(rows // agents, (self.members, rows // agents), generator=generator)
        drawn = (drawn.unsqueeze(-1) * agents + torch.arange(agents)).flatten(1).to(batch.obs.device)
        counts = batch.learned.flatten()[drawn]
        targets = self.target_scale(self._targets(batch))[drawn]
        obs, actions = batch.obs.flatten(0, 1)[drawn], batch.actions.flatten(0, 1)[drawn]
        others = None
        if batch.present is not None:
            others = self.attend(obs, actions, batch.present.flatten()[drawn].unflatten(-1, (-1, agents)))
        mean, log_variance, logits = self.predictions(obs, actions, others)
        errors = (mean - targets) ** 2
        nll = self.negative_log_likelihood(mean, log_variance, targets).sum(-1)
        goes_on = 1.0 - batch.terminated.flatten()[drawn]
        ends = functional.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")
        total = counts.sum(-1).clamp_min(1.0)
        per_member = ((nll + ends) * counts).sum(-1) / total
        stats = {
            "model_error": ((errors.mean(-1) * counts).sum(-1) / total).mean().detach(),
            "continuation_loss": ((ends * counts).sum(-1) / total).mean().detach(),
        }
        loss = per_member.sum() + self.bounds_loss()
        return Learned(loss, stats, batch.obs.detach())

    def negative_log_likelihood(
        self, mean: torch.Tensor, log_variance: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return twice the negative log-likelihood of scaled targets, up to a constant, weighted as ``beta`` says.

        Args:
            mean: See `predictions`, ``[K, B, D + 1]``.
            log_variance: Likewise.
            targets: ``[K, B, D + 1]``.

        Returns:
            Of each number, ``[K, B, D + 1]``.
        """
        nll = (mean - targets) ** 2 * (-log_variance).exp() + log_variance
        return nll * (self.settings.beta * log_variance.detach()).exp()

    def bounds_loss(self) -> torch.Tensor:
        """Return what draws the learned bounds of the log variances together, a scalar."""
        return _VARIANCE_BOUND_WEIGHT * (self.max_log_variance - self.min_log_variance).sum()

    def _targets(self, batch: Sequences) -> torch.Tensor:
        """Return changes of the observation and rewards, ``[L B, D + 1]``."""
        change = (batch.next_obs - batch.obs).flatten(0, 1)
        return torch.cat([change, batch.rewards.reshape(-1, 1)], dim=-1)
