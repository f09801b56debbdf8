"""`RSSM`: a recurrent state-space model, whose state is a deterministic memory and a stochastic latent."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from qio_rllib.layers import mlp
from qio_rllib.world_models.attention import AttentionOverOthers
from qio_rllib.world_models.heads import ContinuationHead, TwoHotHead, symlog
from qio_rllib.world_models.latents import (
    CategoricalLatent,
    GaussianLatent,
    Latent,
    Statistics,
    balanced_divergence,
)
from qio_rllib.world_models.model import Learned, Predicted, Sequences, WorldModel
from qio_rllib.world_models.scales import RunningScale

GAUSSIAN, CATEGORICAL = "gaussian", "categorical"
SQUARED, LIKELIHOOD = "squared", "likelihood"

_LEAST_ERROR = 1e-6  # mean squared errors below this are not lowered further
_RESIDUAL_STEP = 0.02  # weight of a batch in the running mean of squared errors


@dataclasses.dataclass(frozen=True)
class RSSMSettings:
    """Sizes and weights of an `RSSM`.

    Attributes:
        deterministic: Numbers in the memory (GRU).
        latent: "gaussian" or "categorical".
        stochastic: Variables in the latent.
        classes: Values of each variable of a categorical latent.
        embedding: Numbers in an embedded observation.
        hiddens: Sizes of the hidden layers of the encoder; those of the decoder in reverse order.
        latent_hiddens: Those of the prior and the posterior; none makes them linear.
        reward_hiddens: Those of the reward head.
        reward_bins: Classes of the reward, odd and at least 3, at equal distances of its symlog from -10 to 10. Rewards
            that differ by much less than the distance, 20 / (reward_bins - 1), are told apart slowly.
        continuation_hiddens: Those of the continuation head.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
        dynamics_weight: Of the divergence that trains the prior.
        representation_weight: Of the divergence that trains the posterior.
        free_nats: Divergences below this are not lowered further.
        reward_weight: Of the reward's loss, beside the reconstruction's.
        reconstruction: Loss of decoded observations: "squared", their squared error, that is a Gaussian of deviation 1
            for each scaled component; or "likelihood", a Gaussian with the deviation that fits each component's errors
            in the batch best (O. Rybkin et al., 2021).
        attention_heads: Heads of the attention by which an agent's memory takes in the states and actions of the other
            agents of its module; 0 for none.
        attention_size: Numbers in the keys, queries and values of all heads, a multiple of `attention_heads`.
    """

    deterministic: int = 200
    latent: str = GAUSSIAN
    stochastic: int = 30
    classes: int = 16
    embedding: int = 200
    hiddens: tuple[int, ...] = (200,)
    latent_hiddens: tuple[int, ...] = (200,)
    reward_hiddens: tuple[int, ...] = (200,)
    reward_bins: int = 41
    continuation_hiddens: tuple[int, ...] = (200,)
    activation: str = "silu"
    dynamics_weight: float = 0.5
    representation_weight: float = 0.1
    free_nats: float = 1.0
    reward_weight: float = 1.0
    reconstruction: str = SQUARED
    attention_heads: int = 0
    attention_size: int = 64


class RSSM(WorldModel):
    """A recurrent state-space model (Hafner et al., 2019 and 2023).

    ``h_t = GRU([z_{t-1}, a_{t-1}], h_{t-1})``, prior ``p(z_t | h_t)``, posterior ``q(z_t | h_t, o_t)``; observation,
    reward and continuation are predicted from ``(h_t, z_t)``, in which the reward is that of the step into ``t``.

    A state is ``[h, z]``. At the start of an episode it is zeros, and so is the action: the first posterior comes from
    the first observation alone.

    With attention the input of the GRU also has what the agent takes from ``[h_{t-1}, z_{t-1}, a_{t-1}]`` of the other
    agents of its module, so that its prior, its posterior and what follows from them depend on what these have
    observed up to the step before. At the start of its episode an agent takes nothing.

    Args:
        obs_size: Numbers ``D`` in an observation.
        num_actions: Numbers ``A`` in an action.
        settings: Sizes.

    Attributes:
        residual: Buffer: running mean of the decoder's squared errors, in variances of the observations, ``[D]``.
    """

    residual: torch.Tensor

    def __init__(self, obs_size: int, num_actions: int, settings: RSSMSettings | None = None) -> None:
        super().__init__()
        settings = settings or RSSMSettings()
        self.settings = settings
        self.obs_size, self.num_actions = obs_size, num_actions
        self.latent: Latent = (
            GaussianLatent(settings.stochastic)
            if settings.latent == GAUSSIAN
            else CategoricalLatent(settings.stochastic, settings.classes)
        )
        memory, activation, hiddens = settings.deterministic, settings.activation, settings.latent_hiddens
        self.state_size = self.feature_size = memory + self.latent.size
        self.scale = RunningScale(obs_size)
        self.register_buffer("residual", torch.ones(obs_size))
        self.encoder = mlp((obs_size, *settings.hiddens, settings.embedding), activation, normalize=True)
        self.attended_size = settings.attention_size if settings.attention_heads else 0
        self.cell = nn.GRUCell(self.latent.size + num_actions + self.attended_size, memory)
        self.prior = mlp((memory, *hiddens, self.latent.num_outputs), activation, normalize=True)
        self.posterior = mlp(
            (memory + settings.embedding, *hiddens, self.latent.num_outputs), activation, normalize=True
        )
        self.decoder = mlp((self.state_size, *settings.hiddens[::-1], obs_size), activation, normalize=True)
        self.reward = TwoHotHead(
            self.state_size, settings.reward_hiddens, activation, num_bins=settings.reward_bins
        )
        self.continuation = ContinuationHead(self.state_size, settings.continuation_hiddens, activation)
        self.others: AttentionOverOthers | None = None
        if settings.attention_heads:
            self.others = AttentionOverOthers(
                1,
                self.state_size + num_actions,
                settings.attention_size,
                settings.attention_heads,
                settings.attention_size,
                activation,
            )
        self.sees_others = self.others is not None

    # -- one step -------------------------------------------------------------------------------------------------

    def attend(self, state: torch.Tensor, action: torch.Tensor, present: torch.Tensor) -> torch.Tensor | None:
        """Return what agents take from the others, ``[B, deterministic]``; see `WorldModel.attend`."""
        if self.others is None:
            return None
        return self.others(torch.cat([state, action], dim=-1).unsqueeze(0), present).squeeze(0)

    def observe(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        obs: torch.Tensor,
        generator: torch.Generator | None = None,
        others: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the state after an action and an observation; see `WorldModel.observe`."""
        memory = self._remember(state, action, others)
        statistics = self._posterior(memory, self.encode(obs))
        return torch.cat([memory, self._drawn(statistics, generator)], dim=-1)

    def step(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        generator: torch.Generator | None = None,
        others: torch.Tensor | None = None,
    ) -> Predicted:
        """Predict one step by the prior; see `WorldModel.step`."""
        memory = self._remember(state, action, others)
        statistics = self.latent.statistics(self.prior(memory))
        following = torch.cat([memory, self._drawn(statistics, generator)], dim=-1)
        return Predicted(following, self.reward.mean(following), self.continuation(following))

    def features(self, state: torch.Tensor) -> torch.Tensor:
        """Return the state."""
        return state

    def decode(self, state: torch.Tensor) -> torch.Tensor:
        """Return the observations of states."""
        return self.scale.inverse(self.decoder(state))

    def drawn_obs(self, state: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw observations of states: decoded, with Gaussian noise of the size of the decoder's errors."""
        decoded = self.decoder(state)
        noise = torch.randn(decoded.shape, generator=generator).to(decoded.device)
        return self.scale.inverse(decoded + self.residual.sqrt() * noise)

    def encode(self, obs: torch.Tensor) -> torch.Tensor:
        """Return embedded observations ``[..., embedding]``."""
        return self.encoder(symlog(self.scale(obs)))

    # -- sequences ------------------------------------------------------------------------------------------------

    def take_in(self, batch: Sequences) -> None:
        """Take in the scale of observations."""
        self.scale.update(batch.obs.flatten(0, 1)[batch.learned.flatten() > 0])

    def learn(self, batch: Sequences, generator: torch.Generator) -> Learned:
        """Return the loss ``-log p(o, r, c) + KL`` of sequences (DreamerV3, eq. 4 and 5).

        Every step gives a posterior from what followed it, the last observation of an episode included; steps that an
        episode begins with give one from their own observation besides.
        """
        length = len(batch.obs)
        fresh = batch.fresh.clone()
        fresh[0] = True
        first, first_posterior, first_prior = self._starts(batch.obs, generator)
        embedded = self.encode(batch.next_obs)
        state = first[0]
        states, following, posteriors, memories = [], [], [], []
        for step in range(length):
            state = torch.where(fresh[step].unsqueeze(-1), first[step], state)
            states.append(state)
            action, others = batch.actions[step], None
            if batch.present is not None:
                others = self.attend(state, action, batch.present[step])
            memory = self._remember(state, action, others)
            statistics = self._posterior(memory, embedded[step])
            state = torch.cat([memory, self.latent.sample(statistics, generator)], dim=-1)
            following.append(state)
            posteriors.append(statistics)
            memories.append(memory)
        after = torch.stack(following)
        posterior = Statistics(*(torch.stack(parts) for parts in zip(*posteriors, strict=True)))
        prior = self.latent.statistics(self.prior(torch.stack(memories)))
        counts, starts = batch.learned, batch.learned * fresh
        seen = self.scale(torch.cat([batch.next_obs, batch.obs]))
        rebuilt = self.decoder(torch.cat([after, first]))
        used = torch.cat([counts, starts])
        errors = _mean((rebuilt - seen) ** 2, used.unsqueeze(-1))  # [D]
        self._take_in_residuals(errors.detach())
        divergence = self._divergence(posterior, prior)
        losses = {
            "reconstruction": errors.sum(),
            "reward": _mean(self.reward.loss(after, batch.rewards), counts),
            "continuation": _mean(self.continuation.loss(after, 1.0 - batch.terminated), counts),
            "divergence": _mean(
                torch.cat([divergence, self._divergence(first_posterior, first_prior)]), used
            ),
        }
        # The negative log-likelihood is 0.5 (error / v + log v); the best v of a component is its mean error.
        likelihood = (errors + _LEAST_ERROR).log().sum()
        total = (
            0.5 * (likelihood if self.settings.reconstruction == LIKELIHOOD else losses["reconstruction"])
            + self.settings.reward_weight * losses["reward"]
            + losses["continuation"]
            + losses["divergence"]
        )
        stats = {f"{name}_loss": loss.detach() for name, loss in losses.items()}
        with torch.no_grad():
            stats["kl"] = _mean(self.latent.divergence(posterior, prior), counts)
        return Learned(total, stats, torch.stack(states).detach())

    @torch.no_grad()
    def _take_in_residuals(self, errors: torch.Tensor) -> None:
        self.residual.lerp_(errors, _RESIDUAL_STEP)

    def _starts(
        self, obs: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, Statistics, Statistics]:
        """Return the states that episodes would begin with at each step, their posteriors and priors."""
        zeros = obs.new_zeros(*obs.shape[:2], self.state_size).flatten(0, 1)
        memory = self._remember(zeros, obs.new_zeros(len(zeros), self.num_actions))
        statistics = self._posterior(memory, self.encode(obs.flatten(0, 1)))
        state = torch.cat([memory, self.latent.sample(statistics, generator)], dim=-1)
        prior = self.latent.statistics(self.prior(memory))

        def shaped(values: Statistics) -> Statistics:
            return Statistics(*(part.unflatten(0, obs.shape[:2]) for part in values))

        return state.unflatten(0, obs.shape[:2]), shaped(statistics), shaped(prior)

    def _divergence(self, posterior: Statistics, prior: Statistics) -> torch.Tensor:
        settings = self.settings
        return balanced_divergence(
            self.latent,
            posterior,
            prior,
            settings.dynamics_weight,
            settings.representation_weight,
            settings.free_nats,
        )

    def _remember(
        self, state: torch.Tensor, action: torch.Tensor, others: torch.Tensor | None = None
    ) -> torch.Tensor:
        memory, latent = state.split([self.settings.deterministic, self.latent.size], dim=-1)
        inputs = [latent, action]
        if self.attended_size:
            inputs.append(
                latent.new_zeros(*latent.shape[:-1], self.attended_size) if others is None else others
            )
        return self.cell(torch.cat(inputs, dim=-1), memory)

    def _posterior(self, memory: torch.Tensor, embedded: torch.Tensor) -> Statistics:
        return self.latent.statistics(self.posterior(torch.cat([memory, embedded], dim=-1)))

    def _drawn(self, statistics: Statistics, generator: torch.Generator | None) -> torch.Tensor:
        if generator is None:
            return self.latent.mode(statistics)
        return self.latent.sample(statistics, generator)


def _mean(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return means over steps and rows ``[L, B]``, of each number behind these."""
    return (values * counts).sum((0, 1)) / counts.sum((0, 1)).clamp_min(1.0)
