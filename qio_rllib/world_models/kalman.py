"""`KalmanModel`: a learned state-space model whose memory is its extended Kalman filter."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import nn

from qio_rllib.world_models.heads import ContinuationHead, GaussianHead
from qio_rllib.world_models.model import Learned, Predicted, Sequences, WorldModel
from qio_rllib.world_models.scales import RunningScale

_INITIAL_WEIGHT = 0.02  # deviation of the weights of the dynamics: at first a state stays as it is
_INITIAL_MOTION, _INITIAL_SENSOR = 0.05, 0.02  # deviations of the noises, in deviations of the observations
_LEAST_DEVIATION = 1e-3  # of all noises


LARGEST = 100.0
"""Of means, and of the mean variance, which could grow without end where nothing observed shows them."""


class Moves(NamedTuple):
    """How beliefs move: ``f(s, a) = s + A [s, a] + b + W tanh(V [s, a] + c)`` with noise."""

    weight: torch.Tensor  # A, [n, n + A]
    bias: torch.Tensor  # b, [n]
    first: torch.Tensor  # V, [U, n + A]
    offset: torch.Tensor  # c, [U]
    last: torch.Tensor  # W, [n, U]
    motion: torch.Tensor  # variances of the motion's noise, [n]
    sensor: torch.Tensor  # variances of the sensors' noise, [D]


@dataclasses.dataclass(frozen=True)
class KalmanSettings:
    """Sizes and weights of a `KalmanModel`.

    Attributes:
        unobserved: Numbers in the state beside those that are observed.
        dynamics_size: Units of the hidden layer of the dynamics.
        reward_hiddens: Sizes of the hidden layers of the reward head.
        continuation_hiddens: Those of the continuation head.
        activation: Of both heads, a key of `qio_rllib.layers.ACTIVATIONS`.
        reward_weight: Of the reward's loss, beside the likelihood of the observations.
    """

    unobserved: int = 4
    dynamics_size: int = 32
    reward_hiddens: tuple[int, ...] = (64,)
    continuation_hiddens: tuple[int, ...] = (32,)
    activation: str = "silu"
    reward_weight: float = 1.0


class Belief(NamedTuple):
    """A normal distribution of the state."""

    mean: torch.Tensor  # [..., n]
    covariance: torch.Tensor  # [..., n, n]


class _Dynamics(NamedTuple):
    """What `KalmanModel` moves beliefs by, and that does not depend on them."""

    slope: torch.Tensor  # the Jacobian's constant part, [n, n]
    by_unit: torch.Tensor  # what the slope of each hidden unit adds to it, [units, n n]
    noise: torch.Tensor  # covariance, [n, n]


class _Conditioned(NamedTuple):
    """A belief after an observation, and how far off it was."""

    belief: Belief
    errors: torch.Tensor  # of each component, given those before it, [..., D]
    variances: torch.Tensor  # that were expected of them, [..., D]


class KalmanModel(WorldModel):
    """A nonlinear state-space model, learned by the likelihood that its extended Kalman filter gives observations.

    The state of ``n = D + U`` numbers holds what is observed, in deviations of the data, and ``U`` numbers that are
    not. It starts and moves as

    ``s_0 ~ N(m, diag v^2)``, ``s_{t+1} = f(s_t, a_t) + N(0, diag q^2)``, ``o_t = s_t[:D] + N(0, diag r^2)``,
    ``f(s, a) = s + A [s, a] + b + W tanh(V [s, a] + c)``.

    What is remembered of an episode is the filter's belief ``N(mean, P)``. A step moves it to ``N(f(mean, a), J P J' +
    diag q^2)`` with the Jacobian ``J`` of ``f`` at the mean, and an observation conditions it, one component after
    another, since their noises are independent. No latent is drawn on that way. All parameters learn from the
    likelihood of each observation given those before it (F. C. Schweppe, 1965; with an extended Kalman filter L. Ljung,
    1979), and from the rewards and ends that the mean after the step predicts.

    A sequence that begins inside an episode has a prior of its own: there the state is not where episodes start.

    A state as `WorldModel` has it is ``[mean, P, 1]``; zeros at the start of an episode. Predicted states are points,
    means or draws: their covariance is 0.

    Args:
        obs_size: Numbers ``D`` in an observation.
        num_actions: Numbers ``A`` in an action.
        settings: Sizes.
    """

    def __init__(self, obs_size: int, num_actions: int, settings: KalmanSettings | None = None) -> None:
        super().__init__()
        settings = settings or KalmanSettings()
        self.settings = settings
        self.obs_size, self.num_actions = obs_size, num_actions
        size = self.feature_size = obs_size + settings.unobserved
        self.state_size = size + size * size + 1
        self.scale = RunningScale(obs_size)
        self.linear = nn.Linear(size + num_actions, size)
        self.first = nn.Linear(size + num_actions, settings.dynamics_size)
        self.last = nn.Linear(settings.dynamics_size, size, bias=False)
        for layer in (self.linear, self.last):
            nn.init.normal_(layer.weight, std=_INITIAL_WEIGHT)
        nn.init.zeros_(self.linear.bias)
        self.motion = nn.Parameter(torch.full((size,), _INITIAL_MOTION).log())  # logarithms of q
        self.sensor = nn.Parameter(torch.full((obs_size,), _INITIAL_SENSOR).log())  # and of r
        self.prior_mean = nn.Parameter(torch.zeros(2, size))  # at the start of an episode, and inside one
        self.prior_deviation = nn.Parameter(torch.zeros(2, size))  # its logarithm
        heads = size + num_actions
        self.reward = GaussianHead(heads, settings.reward_hiddens, settings.activation)
        self.continuation = ContinuationHead(heads, settings.continuation_hiddens, settings.activation)

    # -- one step -------------------------------------------------------------------------------------------------

    def observe(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        obs: torch.Tensor,
        generator: torch.Generator | None = None,
        others: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the state after an action and an observation, without draws; see `WorldModel.observe`."""
        begun = state[..., -1:] > 0
        moved = self._moved(self._belief(state), action, self._dynamics())
        start = self._prior(state.new_ones(state.shape[:-1]))
        before = Belief(
            torch.where(begun, moved.mean, start.mean),
            torch.where(begun.unsqueeze(-1), moved.covariance, start.covariance),
        )
        return _state(self._conditioned(before, self.scale(obs)).belief)

    def step(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        generator: torch.Generator | None = None,
        others: torch.Tensor | None = None,
    ) -> Predicted:
        """Predict one step, by the mean or a draw of the state; see `WorldModel.step`."""
        belief = self._belief(state)
        if generator is None:
            reached = self._following(belief.mean, action)[0]
        else:
            reached = _drawn(self._moved(belief, action, self._dynamics()), generator)
        inputs = torch.cat([reached, action], dim=-1)
        certain = reached.new_zeros(*reached.shape, self.feature_size)
        return Predicted(
            _state(Belief(reached, certain)), self.reward.mean(inputs), self.continuation(inputs)
        )

    def features(self, state: torch.Tensor) -> torch.Tensor:
        """Return the mean."""
        return state[..., : self.feature_size]

    def decode(self, state: torch.Tensor) -> torch.Tensor:
        """Return the observations of states."""
        return self.scale.inverse(state[..., : self.obs_size])

    def drawn_obs(self, state: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw observations of states, with the sensor's noise."""
        noise = torch.randn(state[..., : self.obs_size].shape, generator=generator).to(state.device)
        return self.scale.inverse(state[..., : self.obs_size] + _deviation(self.sensor) * noise)

    # -- sequences ------------------------------------------------------------------------------------------------

    def take_in(self, batch: Sequences) -> None:
        """Take in the scales of observations and rewards."""
        counts = batch.learned.flatten() > 0
        self.scale.update(batch.obs.flatten(0, 1)[counts])
        self.reward.scale.update(batch.rewards.flatten()[counts].unsqueeze(-1))

    def learn(self, batch: Sequences, generator: torch.Generator) -> Learned:
        """Return ``-log p(o, r, c)`` of sequences by the filter's beliefs; nothing is drawn.

        The last observation of an episode is learned from too.
        """
        from qio_rllib.world_models.extended_kalman import filtered  # numba, which acting does without

        following = self.scale(batch.next_obs)
        fresh = batch.fresh.clone()
        fresh[0] = True
        start = self._conditioned(self._prior(batch.fresh), self.scale(batch.obs))
        found = filtered(
            self._moves(), start.belief.mean, start.belief.covariance, fresh, batch.actions, following
        )
        counts, begun = batch.learned, batch.learned * fresh
        errors = torch.cat([found.errors, start.errors])
        variances = torch.cat([found.variances, start.variances])
        surprise = 0.5 * (errors**2 / variances + variances.log()).sum(-1)
        inputs = torch.cat([found.means, batch.actions], dim=-1)
        parts = {
            "observation": _mean(surprise, torch.cat([counts, begun])),
            "reward": _mean(self.reward.loss(inputs, batch.rewards), counts),
            "continuation": _mean(self.continuation.loss(inputs, 1.0 - batch.terminated), counts),
        }
        total = parts["observation"] + self.settings.reward_weight * parts["reward"] + parts["continuation"]
        states = _state(Belief(found.means_before, found.covariances_before))
        return Learned(
            total, {f"{name}_loss": loss.detach() for name, loss in parts.items()}, states.detach()
        )

    # -- the filter -----------------------------------------------------------------------------------------------

    def _belief(self, state: torch.Tensor) -> Belief:
        size = self.feature_size
        return Belief(state[..., :size], state[..., size:-1].unflatten(-1, (size, size)))

    def _prior(self, fresh: torch.Tensor) -> Belief:
        """Return what is believed before the first observation of an episode (``[...]``, above 0), or inside one."""
        place = torch.where(fresh > 0, 0, 1)
        return Belief(self.prior_mean[place], torch.diag_embed(_deviation(self.prior_deviation[place]) ** 2))

    def _following(self, mean: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``f(mean, action)`` and the units of its hidden layer."""
        inputs = torch.cat([mean, action], dim=-1)
        units = torch.tanh(self.first(inputs))
        return (mean + self.linear(inputs) + self.last(units)).clamp(-LARGEST, LARGEST), units

    def _moves(self) -> Moves:
        """Return the parameters of the filter over sequences."""
        return Moves(
            self.linear.weight, self.linear.bias, self.first.weight, self.first.bias, self.last.weight,
            _deviation(self.motion) ** 2, _deviation(self.sensor) ** 2,
        )  # fmt: skip

    def _dynamics(self) -> _Dynamics:
        size = self.feature_size
        by_unit = self.last.weight.T.unsqueeze(-1) * self.first.weight[:, :size].unsqueeze(1)
        slope = torch.eye(size).to(by_unit) + self.linear.weight[:, :size]
        return _Dynamics(slope, by_unit.flatten(1), torch.diag(_deviation(self.motion) ** 2))

    def _moved(self, belief: Belief, action: torch.Tensor, dynamics: _Dynamics) -> Belief:
        """Return what is believed after a step that was not observed."""
        mean, units = self._following(belief.mean, action)
        jacobian = dynamics.slope + ((1.0 - units**2) @ dynamics.by_unit).view_as(belief.covariance)
        covariance = jacobian @ belief.covariance @ jacobian.transpose(-1, -2) + dynamics.noise
        variance = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        covariance = covariance * (LARGEST / variance).clamp(max=1.0)
        return Belief(mean, 0.5 * (covariance + covariance.transpose(-1, -2)))

    def _conditioned(self, belief: Belief, obs: torch.Tensor) -> _Conditioned:
        """Return what is believed after scaled observations ``[..., D]``."""
        mean, covariance = belief
        noise, errors, variances = _deviation(self.sensor) ** 2, [], []
        for component in range(self.obs_size):
            row = covariance[..., component, :]
            variances.append(row[..., component, None].clamp_min(0.0) + noise[component])
            errors.append(obs[..., component, None] - mean[..., component, None])
            gain = row / variances[-1]
            mean = mean + gain * errors[-1]
            covariance = covariance - gain.unsqueeze(-1) * row.unsqueeze(-2)
        return _Conditioned(Belief(mean, covariance), torch.cat(errors, -1), torch.cat(variances, -1))


def _drawn(belief: Belief, generator: torch.Generator) -> torch.Tensor:
    """Draw states ``[..., n]``, one number after another, each given those before it."""
    mean, covariance = belief
    noise = torch.randn(mean.shape, generator=generator).to(mean.device)
    for place in range(mean.shape[-1]):
        row = covariance[..., place, :]
        variance = row[..., place, None].clamp_min(_LEAST_DEVIATION**2)
        gain = row / variance
        mean = mean + gain * variance.sqrt() * noise[..., place, None]
        covariance = covariance - gain.unsqueeze(-1) * row.unsqueeze(-2)
    return mean


def _deviation(logarithm: torch.Tensor) -> torch.Tensor:
    return logarithm.exp().clamp_min(_LEAST_DEVIATION)


def _state(belief: Belief) -> torch.Tensor:
    """Return ``[mean, P, 1]``."""
    return torch.cat(
        [belief.mean, belief.covariance.flatten(-2), torch.ones_like(belief.mean[..., :1])], dim=-1
    )


def _mean(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the mean over steps and rows ``[L, B]`` that count."""
    return (values * counts).sum() / counts.sum().clamp_min(1.0)
