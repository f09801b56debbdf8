"""`Episodes`: what really happened, from the first step on, for comparison with what a world model predicts."""

from __future__ import annotations

import dataclasses

import torch

from qio_rllib.world_models.model import WorldModel

_CONSTANT = 1e-6  # numbers that deviate by less than this share of their size do not vary


@dataclasses.dataclass(frozen=True)
class Episodes:
    """``B`` sequences of at most ``T`` steps, steps first, each from the start of an episode of one agent.

    Attributes:
        obs: float32 ``[T + 1, B, D]``; ``obs[t + 1]`` followed the action ``t``, the last one of an episode included.
        actions: As executed: in [-1, 1], or one-hot; float32 ``[T, B, A]``.
        rewards: float32 ``[T, B]``.
        terminated: Whether the task ended for the agent with this step, bool ``[T, B]``.
        present: Steps that the episode has, from the first one on without gaps, bool ``[T, B]``; the rest is filling.
        agents: Of how many agents ``M`` of one environment the sequences stand one after another, which models that see
            others need, ``B = E M``; an agent that was never there has no steps. 1 where sequences are each for itself.

    Raises:
        ValueError: A tensor of another shape or dtype, ``present`` with a gap, or ``agents`` that do not divide ``B``.
    """

    obs: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    terminated: torch.Tensor
    present: torch.Tensor
    agents: int = 1

    def __post_init__(self) -> None:
        if self.rewards.dim() != 2:
            raise ValueError(f"rewards: expected the shape [T, B], got {tuple(self.rewards.shape)}")
        length, count = self.rewards.shape
        for name, steps, dims, dtype in (
            ("obs", length + 1, 3, torch.float32),
            ("actions", length, 3, torch.float32),
            ("rewards", length, 2, torch.float32),
            ("terminated", length, 2, torch.bool),
            ("present", length, 2, torch.bool),
        ):
            value = getattr(self, name)
            if value.dim() != dims or value.shape[:2] != (steps, count) or value.dtype != dtype:
                more = ", ..." if dims == 3 else ""
                raise ValueError(
                    f"{name}: expected {dtype} of the shape [{steps}, {count}{more}], got {value.dtype} of "
                    f"{list(value.shape)}"
                )
        if self.agents < 1 or count % self.agents:
            raise ValueError(
                f"agents: {count} sequences are not those of {self.agents} agents an environment"
            )
        if (self.present[1:] & ~self.present[:-1]).any():
            raise ValueError("present: an episode goes on after a step that it does not have")

    def together(self, model: WorldModel) -> torch.Tensor | None:
        """Return `present` as a model that sees others takes it, bool ``[T, E, M]``; None for other models."""
        return self.present.unflatten(1, (-1, self.agents)) if model.sees_others else None

    @property
    def lengths(self) -> torch.Tensor:
        """Steps of each episode, int64 ``[B]``."""
        return self.present.sum(0)

    @property
    def seen(self) -> torch.Tensor:
        """Which observations are real, bool ``[T + 1, B]``."""
        return torch.cat([self.present[:1], self.present])

    @property
    def varies(self) -> torch.Tensor:
        """Components of the observation that are not constant in the data, bool ``[D]``."""
        return _varies(self.obs[self.seen])

    @property
    def rewards_vary(self) -> bool:
        """Whether the rewards are not all equal."""
        return bool(_varies(self.rewards[self.present].unsqueeze(-1)))

    @property
    def deviation(self) -> torch.Tensor:
        """Standard deviations of the components over all real observations, float32 ``[D]``; 1 for constant ones."""
        return _deviation(self.obs[self.seen])

    @property
    def reward_deviation(self) -> torch.Tensor:
        """Standard deviation of the rewards, a scalar; 1 where they are all equal."""
        return _deviation(self.rewards[self.present].unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def filtered_states(model: WorldModel, episodes: Episodes, last: int) -> torch.Tensor:
    """Return the states of a model that has seen each episode so far, by most probable latents.

    Args:
        model: The model.
        episodes: ``B`` sequences.
        last: The last step, from 0 to ``T``.

    Returns:
        ``[last + 1, B, S]``; entry ``t`` has seen the observations up to ``t`` and the actions before it.
    """
    count = episodes.rewards.shape[1]
    state = episodes.obs.new_zeros(count, model.state_size)
    action = torch.zeros_like(episodes.actions[0])
    together, others = episodes.together(model), None
    states = []
    for step in range(last + 1):
        state = model.observe(state, action, episodes.obs[step], others=others)
        states.append(state)
        if step < last:
            action = episodes.actions[step]
            if together is not None:
                others = model.attend(state, action, together[step])
    return torch.stack(states)


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = rows.double()
    return rows.mean(0), rows.std(0, correction=0)


def _varies(rows: torch.Tensor) -> torch.Tensor:
    mean, deviation = _moments(rows)
    return deviation > _CONSTANT * mean.abs().clamp_min(1.0)


def _deviation(rows: torch.Tensor) -> torch.Tensor:
    deviation = _moments(rows)[1]
    return torch.where(_varies(rows), deviation, torch.ones_like(deviation)).float()
