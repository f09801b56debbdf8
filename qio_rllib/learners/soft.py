"""`SoftLearner`: what soft actor-critics share, which is the temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from qio_rllib.learners.off_policy import Objective, OffPolicyLearner
from qio_rllib.learners.transitions import Transitions, mean_over
from qio_rllib.models.policy_network import PolicyNetwork


class SoftLearner(OffPolicyLearner):
    """Learns policies that also maximise their entropy, weighed by a temperature (Haarnoja et al., 2018)."""

    def build(self) -> None:
        """Build the Learner, with temperatures at their start."""
        super().build()
        with torch.no_grad():
            for module in self.modules():
                module.log_alpha.fill_(math.log(self.config.initial_alpha))

    def temperature_objective(self, batch: Transitions, entropies: Sequence[torch.Tensor]) -> Objective:
        """Return the loss of the temperatures (Haarnoja et al., 2018, eq. 18).

        Args:
            batch: The transitions.
            entropies: Of the present policies, nats, ``[R, M]`` by group.
        """
        losses, stats = {}, {}
        for g, module_id in enumerate(batch.modules):
            module = self.modules()[g]
            excess = mean_over(entropies[g] - self.target_entropy(module.policy, batch, g), batch.learned[g])
            losses[module_id] = module.log_alpha * excess
            stats[module_id, "entropy"] = mean_over(entropies[g], batch.learned[g])
            stats[module_id, "alpha"] = module.log_alpha.detach().exp()
        return Objective("alpha", losses, stats)

    def log_probs(
        self, policy: PolicyNetwork, outputs: torch.Tensor, legal: torch.Tensor | None
    ) -> torch.Tensor:
        """Return finite log-probabilities of a discrete policy, ``[R, M, A]``."""
        found = torch.log_softmax(policy.distribution(outputs, legal), dim=-1)
        return found.clamp_min(torch.finfo(found.dtype).min)

    def drawn(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Return actions drawn from discrete policies, one-hot ``[R, M, A]``; an illegal one is never drawn."""
        uniform = torch.rand(log_probs.shape, generator=self.noise).to(log_probs.device)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        best = (log_probs + gumbel).argmax(dim=-1)
        return torch.nn.functional.one_hot(best, log_probs.shape[-1]).to(log_probs.dtype)

    def target_entropy(self, policy: PolicyNetwork, batch: Transitions, g: int) -> torch.Tensor | float:
        """Return the entropy that the temperature is moved towards, nats."""
        if self.config.target_entropy is not None:
            return self.config.target_entropy
        if not policy.spec.is_discrete:
            return -float(policy.spec.num_actions)
        share, legal = self.config.target_entropy_share, batch.legal[g]
        if legal is None:
            return share * math.log(policy.spec.num_actions)
        return share * legal.sum(-1).clamp_min(1).float().log()
