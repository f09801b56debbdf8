"""MADDPG (multi-agent deep deterministic policy gradient), which RLlib dropped: decentralised actors, joint critics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

import torch
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_rllib.algorithms.base import OffPolicyAlgorithm
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.off_policy_config import JointCriticConfig
from qio_rllib.algorithms.setting_types import Range, Schedule
from qio_rllib.learners.conversation import Answers, Talk, converse, converse_next
from qio_rllib.learners.off_policy import Objective, OffPolicyLearner
from qio_rllib.learners.transitions import (
    Transitions,
    following_outputs,
    mean_error,
    mean_over,
    mean_square,
    outputs_of,
)
from qio_rllib.models.communication import COMMUNICATION, Communication
from qio_rllib.models.joint_module import MADDPGModule, sampled_one_hot
from qio_rllib.models.messages import by_agent
from qio_rllib.models.policy_network import PolicyNetwork


class MADDPGConfig(JointCriticConfig):
    """Configuration of `MADDPG`. Actors act in [-1, 1], scaled to the action space's bounds, or in Discrete spaces."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        amplification=True,
        circuit=True,
        communication=True,
        self_play=True,
        instead={
            "central_value": "'s critics are central as they are; see critic_state",
            "normalize_values": "'s critics learn values as they are; scale the rewards instead",
            "entropy_annealing": "'s loss has no entropy; set exploration instead",
            "coordination": "'s actors act each by itself; PPO and A2C take it",
        },
    )

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or MADDPG)
        self.gamma = 0.95
        self.tau = 0.01
        self.exploration: float | list = 0.1
        self.gumbel_temperature = 1.0
        self.action_regularization = 1e-3
        self.grad_clip = 0.5
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=MADDPGModule))
        self.learners(learner_class=MADDPGLearner)

    def training(
        self,
        *,
        exploration: Annotated[float | list, Schedule()] = NotProvided,
        gumbel_temperature: Annotated[float, Range(0, low_open=True)] = NotProvided,
        action_regularization: Annotated[float, Range(0)] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `JointCriticConfig.training`.

        Args:
            exploration: Standard deviation of the noise on continuous actions (whose range is [-1, 1]), or the share
                of uniformly random discrete ones; a number, or a schedule over environment steps.
            gumbel_temperature: Of the relaxation through which discrete actors learn, above 0.
            action_regularization: Weight of the mean squared output of the actors before tanh or softmax, which keeps
                them off the flat ends.
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        super().training(**kwargs)
        self._take(
            exploration=exploration,
            gumbel_temperature=gumbel_temperature,
            action_regularization=action_regularization,
        )
        return self

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of a module."""
        return RLModuleSpec(module_class=MADDPGModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return MADDPGLearner


class MADDPG(OffPolicyAlgorithm):
    """Multi-agent deep deterministic policy gradient (Lowe et al., 2017).

    Critics see all observations, actions, messages and the environment's state; actors see their own observation
    and what they hear.
    """

    @classmethod
    def get_default_config(cls) -> MADDPGConfig:
        """Return the default configuration."""
        return MADDPGConfig()


class MADDPGLearner(OffPolicyLearner):
    """Critics regress on joint targets, actors climb their own values, targets follow."""

    def build(self) -> None:
        """Build the Learner."""
        super().build()
        self.communication = Communication.of(self.config.model_config.get(COMMUNICATION))
        if self.communication is not None:
            self.links = torch.from_numpy(self.communication.links(self.joint["agents"])).to(self._device)

    def optimizer_parameters(
        self, module: Any, config: Any
    ) -> dict[str, tuple[list[torch.nn.Parameter], float | list]]:
        """Return the parameters of actor (what it says included) and critic."""
        return {
            "actor": ([*module.policy.parameters()], config.actor_lr),
            "critic": ([*module.critics.parameters()], config.critic_lr),
        }

    def losses(self, batch: Transitions) -> Iterator[Objective]:
        """Yield the critics' squared errors, then the actors' negative values (Lowe et al., 2017, eq. 6 and 5)."""
        modules = self.modules()
        targets = self.targets(modules, batch)
        losses, stats = {}, {}
        for g, module_id in enumerate(batch.modules):
            network = modules[g].critic_networks()[0]
            view, _ = network.remembering(
                batch.view(), batch.length, batch.fresh_environments, burn_in=self.burn_in
            )
            q_values = network.critic(view, batch.actions)
            losses[module_id] = mean_error(q_values, targets[g], batch.learned[g])
            stats[module_id, "q_mean"] = mean_over(q_values.detach(), batch.learned[g])
        yield Objective("critic", losses, stats)

        outputs, openness = self.present_outputs(modules, batch)
        losses = {}
        critics = self.parameters_of("critic")
        for parameter in critics:
            parameter.requires_grad_(False)
        for g, module_id in enumerate(batch.modules):
            policy, network = modules[g].policy, modules[g].critic_networks()[0]
            own = self.actions_of(policy, outputs[g], batch.legal[g])
            # Others' actions and all messages are those that were executed; only its own action is the actor's.
            view, _ = network.remembering(
                batch.view(), batch.length, batch.fresh_environments, burn_in=self.burn_in
            )
            gain = mean_over(network.critic.of_own(view, batch.actions, own), batch.learned[g])
            flat = mean_square(outputs[g], batch.learned[g])
            losses[module_id] = -gain + self.config.action_regularization * flat
            if openness:
                assert self.communication is not None
                spoken = mean_over(openness[g], batch.learned[g])
                losses[module_id] = losses[module_id] + self.communication.cost * spoken
        yield Objective("actor", losses)
        for parameter in critics:
            parameter.requires_grad_(True)

    def targets(self, modules: list[MADDPGModule], batch: Transitions) -> list[torch.Tensor]:
        """Return what each agent's action was worth by the target networks, ``[R, M]`` by group."""
        targets = [module.target_policy for module in modules]
        with torch.no_grad():
            inboxes = None
            if self.communication is None:
                outputs = [
                    following_outputs(network, batch, g, self.burn_in) for g, network in enumerate(targets)
                ]
            else:
                states: list[torch.Tensor | None] = [None for _ in targets]
                if self.burn_in or any(network.memory is not None for network in targets):
                    states = converse(targets, self.talk(batch), self.joint["indices"]).states
                delivered = [self.by_step(links, batch) for links in self.next_delivered(batch.present_next)]
                following = [self.by_step(rows, batch) for rows in batch.next_obs]
                heard = converse_next(targets, following, delivered, states, self.joint["indices"])
                inboxes = [inbox.flatten(0, 1) for inbox in heard.inboxes]
                outputs = self.outputs(targets, heard)
            actions = [
                self.actions_of(network, found, legal)
                for network, found, legal in zip(targets, outputs, batch.next_legal, strict=True)
            ]
            found = []
            for g, module in enumerate(modules):
                network = module.critic_networks(target=True)[0]
                _, view = network.remembering(
                    batch.view(), batch.length, batch.fresh_environments, batch.next_view(inboxes)
                )
                assert view is not None
                ahead = batch.discounts[g] * batch.present_next[g]
                found.append(batch.rewards[g] + ahead * network.critic(view, actions))
            return found

    def present_outputs(
        self, modules: list[MADDPGModule], batch: Transitions
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the actors' outputs ``[R, M, K]`` and the probabilities that gates open ``[R, M]``, by group.

        What agents hear is what they would say to each other now, over the links that worked and with the noise that
        was drawn; gradients pass to whoever speaks. Without gates there are no probabilities.
        """
        policies = [module.policy for module in modules]
        if self.communication is None:
            return [outputs_of(policy, batch, g, self.burn_in)[0] for g, policy in enumerate(policies)], []
        found = converse(policies, self.talk(batch), self.joint["indices"], self.burn_in)
        return self.outputs(policies, found), [openness.flatten(0, 1) for openness in found.openness]

    def talk(self, batch: Transitions) -> Talk:
        """Return the steps of a batch as `converse` takes them."""
        assert batch.delivered is not None
        noise = batch.message_noise
        return Talk(
            [self.by_step(rows, batch) for rows in batch.obs],
            [self.by_step(links, batch) for links in batch.delivered],
            None if noise is None else [self.by_step(rows, batch) for rows in noise],
            batch.memory,
            [self.by_step(fresh, batch) for fresh in batch.fresh],
        )

    @staticmethod
    def by_step(rows: torch.Tensor, batch: Transitions) -> torch.Tensor:
        """Return rows ``[R, ...]`` as ``[L, B, ...]``."""
        return rows.unflatten(0, (batch.length, -1))

    @staticmethod
    def outputs(networks: list[PolicyNetwork], answers: Answers) -> list[torch.Tensor]:
        """Return the heads' outputs for what came of a talk, ``[R, M, K]``, by group."""
        return [
            network.outputs(features).flatten(0, 1)
            for network, features in zip(networks, answers.features, strict=True)
        ]

    def next_delivered(self, present: list[torch.Tensor]) -> list[torch.Tensor]:
        """Draw which of the next step's messages arrive, as runners do; bool ``[R, M, N]`` by group."""
        assert self.communication is not None
        alive = by_agent(present, self.joint["indices"]) > 0
        delivered = alive[:, :, None] & alive[:, None, :] & self.links
        if self.communication.drop > 0.0:
            draws = torch.rand(delivered.shape, generator=self.noise).to(alive.device)
            delivered &= draws >= self.communication.drop
        return [delivered[:, members] for members in self.joint["indices"]]

    def actions_of(
        self, policy: PolicyNetwork, outputs: torch.Tensor, legal: torch.Tensor | None
    ) -> torch.Tensor:
        """Return actions as critics take them, with gradients: without noise, or one-hot samples."""
        if not policy.spec.is_discrete:
            return torch.tanh(outputs)
        logits = policy.operated(outputs, legal)
        return sampled_one_hot(logits, self.config.gumbel_temperature, self.noise)
