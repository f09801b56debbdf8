"""MAAC: multi-actor-attention-critic, soft policy gradients with an attention critic, for discrete actions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import torch
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_envs.api import ConfigError
from qio_rllib.algorithms.base import OffPolicyAlgorithm
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.own_settings import checked_mapping
from qio_rllib.algorithms.setting_types import Range
from qio_rllib.algorithms.soft_config import SoftConfig
from qio_rllib.learners.off_policy import Objective
from qio_rllib.learners.soft import SoftLearner
from qio_rllib.learners.transitions import Transitions, following_outputs, mean_over, outputs_of
from qio_rllib.models.actor_attention import ActorAttentionNetwork, AttendedValues
from qio_rllib.models.joint_critics import CriticSettings
from qio_rllib.models.joint_module import CRITIC, MAACModule

_ATTENTION = "attention"


class MAACConfig(SoftConfig):
    """Configuration of `MAAC`. The temperature stays at ``initial_alpha`` unless ``alpha_lr`` is above 0."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        continuous_actions=False,
        amplification=True,
        circuit=True,
        instead={
            "central_value": "'s critic is central as it is; see critic_state",
            "normalize_values": "'s critic learns values as they are; scale the rewards instead",
            "entropy_annealing": "'s entropy is weighed by a temperature; set initial_alpha or alpha_lr instead",
            "coordination": "'s actors act each by itself; PPO and A2C take it",
        },
    )

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or MAAC)
        self.alpha_lr = 0.0
        self.initial_alpha = 0.01
        self.attention_regularization = 1e-3
        self.action_regularization = 1e-3
        self.grad_clip = 10.0
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=MAACModule))
        self.learners(learner_class=MAACLearner)

    def training(
        self,
        *,
        critic: Mapping[str, Any] | None = NotProvided,
        attention_regularization: Annotated[float, Range(0)] = NotProvided,
        action_regularization: Annotated[float, Range(0)] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `SoftConfig.training`.

        Args:
            critic: ``{"hiddens": [128, 128], "activation": "relu", "heads": 4}``, see `CriticSettings`; missing keys
                take these defaults.
            attention_regularization: Weight of the critic's mean squared attention score before the softmax.
            action_regularization: Weight of the mean squared output of the actors before softmax, which keeps them off
                the flat ends.
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        for value in self._checked(critic=critic).values():
            kwargs["critic"] = checked_mapping(value, _critic)
        super().training(**kwargs)
        self._take(
            attention_regularization=attention_regularization,
            action_regularization=action_regularization,
        )
        return self

    def module_settings(self) -> dict[str, Any]:
        """Return what a module is told beside ``model_config``: its critic."""
        return {CRITIC: {"type": _ATTENTION, **(self.critic or {})}}

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of a module."""
        return RLModuleSpec(module_class=MAACModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return MAACLearner


def _critic(settings: Mapping[str, Any]) -> dict[str, Any]:
    attending = {"type": _ATTENTION, **settings}
    kind = CriticSettings.of(attending).type
    if kind != _ATTENTION:
        raise ConfigError(
            f"critic: MAAC's critic attends to the other agents, expected {_ATTENTION}, got {kind}"
        )
    return attending


class MAAC(OffPolicyAlgorithm):
    """Multi-actor-attention-critic (Iqbal and Sha, 2019).

    One critic for all agents values all of an agent's actions given what the others observe and do, to which it
    attends. Policies follow the score function of actions that all agents draw anew, with the values' mean under the
    agent's own policy as the baseline (the multi-agent advantage) and a bonus for entropy.
    """

    @classmethod
    def get_default_config(cls) -> MAACConfig:
        """Return the default configuration."""
        return MAACConfig()


class MAACLearner(SoftLearner):
    """The critic regresses on soft targets; policies, temperatures and target networks follow."""

    def optimizer_parameters(
        self, module: Any, config: Any
    ) -> dict[str, tuple[list[torch.nn.Parameter], float | list]]:
        """Return the parameters of policy and temperature, and in the first module of the critic."""
        parts = {
            "actor": ([*module.policy.parameters()], config.actor_lr),
            "alpha": ([module.log_alpha], config.alpha_lr),
        }
        if len(module.critics):
            parts["critic"] = ([*module.critics.parameters()], config.critic_lr)
        return parts

    def losses(self, batch: Transitions) -> Iterator[Objective]:
        """Yield the losses of critic, policies and temperatures (Iqbal and Sha, 2019, eq. 7 to 9)."""
        modules = self.modules()
        network = modules[0].attention()
        targets = self.targets(modules, batch)
        found = self.attended(network, batch, batch.actions)
        errors, stats = [], {}
        for g, module_id in enumerate(batch.modules):
            taken = (found.values[g] * batch.actions[g]).sum(-1)
            # As published a sum over agents, which the shared weights' gradients are divided by the number of.
            errors.append(mean_over((taken - targets[g]) ** 2, batch.learned[g]) * taken.shape[1])
            stats[module_id, "q_mean"] = mean_over(taken.detach(), batch.learned[g])
        loss = torch.stack(errors).sum() + self.config.attention_regularization * found.magnitude
        yield Objective("critic", {batch.modules[0]: loss}, stats)

        outputs = [outputs_of(module.policy, batch, g, self.burn_in)[0] for g, module in enumerate(modules)]
        log_probs = [
            self.log_probs(module.policy, part, batch.legal[g])
            for g, (module, part) in enumerate(zip(modules, outputs, strict=True))
        ]
        with torch.no_grad():
            actions = [self.drawn(part) for part in log_probs]
            values = self.attended(network, batch, actions).values
        losses, entropies = {}, []
        for g, module_id in enumerate(batch.modules):
            alpha = modules[g].log_alpha.detach().exp()
            gain = self.policy_gain(log_probs[g], actions[g], values[g], alpha)
            flat = mean_over((outputs[g] ** 2).mean(-1), batch.learned[g])
            losses[module_id] = -mean_over(gain, batch.learned[g]) + self.config.action_regularization * flat
            entropies.append(-(log_probs[g].exp() * log_probs[g]).sum(-1).detach())
        yield Objective("actor", losses)
        yield self.temperature_objective(batch, entropies)

    def policy_gain(
        self, log_probs: torch.Tensor, actions: torch.Tensor, values: torch.Tensor, alpha: torch.Tensor
    ) -> torch.Tensor:
        """Return what has the gradient of a policy's soft value, ``[R, M]`` (equations 8 and 9).

        It is ``log pi(u) (Q(u) - sum_a pi(a) Q(a) - alpha log pi(u))`` with gradients of the first factor alone.

        Args:
            log_probs: Of the present policy, ``[R, M, A]``.
            actions: Drawn from it, one-hot ``[R, M, A]``.
            values: Of all actions, given what the others drew, ``[R, M, A]``.
            alpha: Temperature.
        """
        logp = (log_probs * actions).sum(-1)
        with torch.no_grad():
            advantage = (values * actions).sum(-1) - (values * log_probs.exp()).sum(-1)
            weight = advantage - alpha * logp
        return logp * weight

    def targets(self, modules: list[MAACModule], batch: Transitions) -> list[torch.Tensor]:
        """Return the soft targets of the values of what agents did, ``[R, M]`` by group (equation 7)."""
        with torch.no_grad():
            log_probs = [
                self.log_probs(
                    module.target_policy,
                    following_outputs(module.target_policy, batch, g, burn_in=self.burn_in),
                    batch.next_legal[g],
                )
                for g, module in enumerate(modules)
            ]
            actions = [self.drawn(part) for part in log_probs]
            network = modules[0].attention(target=True)
            _, following = network.remembering(
                batch.view(), batch.length, batch.fresh_environments, batch.next_view(None)
            )
            assert following is not None
            values = network.critic(following, actions).values
            found = []
            for g, module in enumerate(modules):
                drawn = (values[g] * actions[g]).sum(-1)
                soft = drawn - module.log_alpha.exp() * (log_probs[g] * actions[g]).sum(-1)
                found.append(batch.rewards[g] + batch.discounts[g] * batch.present_next[g] * soft)
            return found

    def attended(
        self, network: ActorAttentionNetwork, batch: Transitions, actions: list[torch.Tensor]
    ) -> AttendedValues:
        """Return the critic's values of all actions of all agents while the others do these actions."""
        fresh = batch.fresh_environments
        view, _ = network.remembering(batch.view(), batch.length, fresh, burn_in=self.burn_in)
        return network.critic(view, actions)
