"""MASAC: soft actor-critic for any number of agents, discrete and continuous actions, with joint or own critics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_rllib.acting.distributions import log_tanh_slope
from qio_rllib.algorithms.base import OffPolicyAlgorithm
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.soft_config import SoftConfig
from qio_rllib.learners.off_policy import Objective
from qio_rllib.learners.soft import SoftLearner
from qio_rllib.learners.transitions import (
    Transitions,
    following_outputs,
    mean_error,
    mean_over,
    outputs_of,
)
from qio_rllib.models.joint_critics import CriticNetwork, JointView
from qio_rllib.models.joint_module import SACModule

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class MASACConfig(SoftConfig):
    """Configuration of `MASAC`. Continuous policies are squashed Gaussians in [-1, 1], scaled to the bounds."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        amplification=True,
        circuit=True,
        instead={
            "central_value": "'s critics are central as they are; see critic_state",
            "normalize_values": "'s critics learn values as they are; scale the rewards instead",
            "entropy_annealing": "'s temperature is learned; set target_entropy or alpha_lr instead",
            "coordination": "'s actors act each by itself; PPO and A2C take it",
        },
    )

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or MASAC)
        self.grad_clip = None
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=SACModule))
        self.learners(learner_class=MASACLearner)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of a module."""
        return RLModuleSpec(module_class=SACModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return MASACLearner


class MASAC(OffPolicyAlgorithm):
    """Soft actor-critic (Haarnoja et al., 2018; discrete: Christodoulou, 2019) with the critics of MADDPG.

    Each agent maximises its own return and its policy's entropy. Critics are joint (all observations, actions and the
    global state) or, with ``critic: {type: own}``, the agent's own, which is independent SAC.
    """

    @classmethod
    def get_default_config(cls) -> MASACConfig:
        """Return the default configuration."""
        return MASACConfig()


class MASACLearner(SoftLearner):
    """Two critics regress on the lesser of their targets; policies and temperatures follow."""

    def optimizer_parameters(
        self, module: Any, config: Any
    ) -> dict[str, tuple[list[torch.nn.Parameter], float | list]]:
        """Return the parameters of policy, critics and temperature."""
        return {
            "actor": ([*module.policy.parameters()], config.actor_lr),
            "critic": ([*module.critics.parameters()], config.critic_lr),
            "alpha": ([module.log_alpha], config.alpha_lr),
        }

    def losses(self, batch: Transitions) -> Iterator[Objective]:
        """Yield the losses of critics, policies and temperatures (Haarnoja et al., 2018, eq. 5, 7 and 18)."""
        modules = self.modules()
        fresh = batch.fresh_environments
        targets = self.targets(modules, batch)
        losses, stats = {}, {}
        for g, module_id in enumerate(batch.modules):
            errors = []
            for network in modules[g].critic_networks():
                view, _ = network.remembering(batch.view(), batch.length, fresh, burn_in=self.burn_in)
                q_values = network.critic(view, batch.actions)
                errors.append(mean_error(q_values, targets[g], batch.learned[g]))
            losses[module_id] = torch.stack(errors).sum()
            stats[module_id, "q_mean"] = mean_over(q_values.detach(), batch.learned[g])
        yield Objective("critic", losses, stats)

        losses, entropies = {}, []
        critics = self.parameters_of("critic")
        for parameter in critics:
            parameter.requires_grad_(False)
        for g, module_id in enumerate(batch.modules):
            policy = modules[g].policy
            outputs, _ = outputs_of(policy, batch, g, self.burn_in)
            alpha = modules[g].log_alpha.detach().exp()
            views = [
                (network, network.remembering(batch.view(), batch.length, fresh, burn_in=self.burn_in)[0])
                for network in modules[g].critic_networks()
            ]
            if policy.spec.is_discrete:
                log_probs = self.log_probs(policy, outputs, batch.legal[g])
                probs = log_probs.exp()
                with torch.no_grad():
                    q_values = self.all_actions(views, batch.actions, g)
                entropy = -(probs * log_probs).sum(-1)
                gain = (probs * q_values).sum(-1) + alpha * entropy
            else:
                own, logp = self.reparametrized(outputs)
                q_values = torch.stack(
                    [network.critic.of_own(view, batch.actions, own) for network, view in views]
                ).amin(0)
                gain, entropy = q_values - alpha * logp, -logp
            losses[module_id] = -mean_over(gain, batch.learned[g])
            entropies.append(entropy.detach())
        yield Objective("actor", losses)
        for parameter in critics:
            parameter.requires_grad_(True)

        yield self.temperature_objective(batch, entropies)

    def targets(self, modules: list[SACModule], batch: Transitions) -> list[torch.Tensor]:
        """Return the soft targets of each agent's action, ``[R, M]`` by group (eq. 3 and 6)."""
        with torch.no_grad():
            actions, extras = [], []
            for g, module in enumerate(modules):
                outputs = following_outputs(module.policy, batch, g, burn_in=self.burn_in)
                if module.policy.spec.is_discrete:
                    log_probs = self.log_probs(module.policy, outputs, batch.next_legal[g])
                    actions.append(self.drawn(log_probs))
                    extras.append(log_probs)
                else:
                    own, logp = self.reparametrized(outputs)
                    actions.append(own)
                    extras.append(logp)
            found = []
            for g, module in enumerate(modules):
                views = []
                for network in module.critic_networks(target=True):
                    _, following = network.remembering(
                        batch.view(), batch.length, batch.fresh_environments, batch.next_view(None)
                    )
                    assert following is not None
                    views.append((network, following))
                alpha = module.log_alpha.exp()
                if module.policy.spec.is_discrete:
                    probs = extras[g].exp()
                    q_values = self.all_actions(views, actions, g)
                    # Alpha times the log-probability of an illegal action, the least number there is, may be infinite.
                    ahead = (probs * q_values).sum(-1) - alpha * (probs * extras[g]).sum(-1)
                else:
                    q_values = torch.stack([network.critic(view, actions) for network, view in views]).amin(0)
                    ahead = q_values - alpha * extras[g]
                found.append(batch.rewards[g] + batch.discounts[g] * batch.present_next[g] * ahead)
            return found

    def all_actions(
        self, views: list[tuple[CriticNetwork, JointView]], actions: list[torch.Tensor], g: int
    ) -> torch.Tensor:
        """Return the lesser critic's value of each action that an agent could take, others as given, ``[R, M, A]``."""
        count = actions[g].shape[-1]
        found = []
        for network, view in views:
            values = []
            for action in range(count):
                own = torch.zeros_like(actions[g])
                own[..., action] = 1.0
                values.append(network.critic.of_own(view, actions, own))
            found.append(torch.stack(values, dim=-1))
        return torch.stack(found).amin(0)

    def reparametrized(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return actions in [-1, 1] with gradients, ``[R, M, D]``, and their log-probabilities ``[R, M]``."""
        mean, log_std = outputs.chunk(2, dim=-1)
        log_std = log_std.clamp(-20.0, 2.0)
        noise = torch.randn(mean.shape, generator=self.noise).to(mean.device)
        raw = mean + log_std.exp() * noise
        logp = (-0.5 * noise * noise - log_std - _HALF_LOG_TWO_PI - log_tanh_slope(raw)).sum(-1)
        return torch.tanh(raw), logp
