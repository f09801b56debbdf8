"""What Q-learning algorithms have in common: settings, Q-values of transitions, targets over several steps."""

from __future__ import annotations

from typing import Annotated, Any, Self

import torch
from ray.rllib.algorithms.algorithm_config import NotProvided

from qio_rllib.algorithms.off_policy_config import OffPolicyConfig
from qio_rllib.algorithms.setting_types import Range, Schedule
from qio_rllib.fused.q_values import best_value, value_of
from qio_rllib.learners.off_policy import OffPolicyLearner
from qio_rllib.learners.transitions import Transitions, following_outputs, n_step_targets, outputs_of
from qio_rllib.models.circuits import CIRCUIT
from qio_rllib.models.joint_module import QModule

REFUSALS = {
    "central_value": " learns values and has no critic; set it to null",
    "normalize_values": " learns values as they are; set it to false",
    "amplification": " learns values and has no policy of its own; set it to null",
    "entropy_annealing": " learns values and has no entropy; set exploration instead",
    "coordination": " learns values and has no policy of its own; set it to null",
}
"""Why capabilities are missing, for `Capabilities.instead`."""


class QLearningConfig(OffPolicyConfig):
    """Base of the configurations of algorithms that learn Q-values of each agent's actions."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.lr = 5e-4
        self.tau = 1.0
        self.target_network_update_freq = 500
        self.exploration: float | list = [[0, 1.0], [10_000, 0.05]]
        self.double_q = True
        self.dueling = True
        self.reward_scale = 1.0
        self.grad_clip = 10.0

    def training(
        self,
        *,
        exploration: Annotated[float | list, Schedule(high=1)] = NotProvided,
        double_q: bool = NotProvided,
        dueling: bool = NotProvided,
        n_step: Annotated[int, Range(1)] = NotProvided,
        reward_scale: Annotated[float, Range(0, low_open=True)] = NotProvided,
        target_network_update_freq: Annotated[int | None, Range(1)] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `OffPolicyConfig.training`.

        Args:
            exploration: Share of uniformly random actions among the sampled ones (epsilon); a number, or a schedule
                over environment steps.
            double_q: Whether the present network chooses the action that the target network values (van Hasselt et
                al., 2016).
            dueling: Whether Q-values are a state value plus advantages (Wang et al., 2016); off for circuits.
            n_step: Steps over which rewards are summed before a value is taken, at least 1; with memory fewer at the
                end of a sequence.
            reward_scale: Factor of the rewards that Q-values are learned from, above 0. A step of the optimiser moves
                values by about the learning rate, whatever their size: values of hundreds are learned faster and more
                exactly when they are scaled to tens. Returns are reported without it, ``q_mean`` and losses with it.
            target_network_update_freq: Gradient steps between two moves of the target network by the share ``tau``;
                None for one after each.
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        super().training(**kwargs)
        self._take(
            exploration=exploration,
            double_q=double_q,
            dueling=dueling,
            n_step=n_step,
            reward_scale=reward_scale,
            target_network_update_freq=target_network_update_freq,
        )
        if kwargs.get(CIRCUIT) is not None and dueling is NotProvided:
            self.dueling = False
        return self

    def module_settings(self) -> dict[str, Any]:
        """Return what a module is told beside ``model_config``."""
        return {"dueling": self.dueling}


class QLearner(OffPolicyLearner):
    """Base of the Learners of Q-values."""

    def optimizer_parameters(
        self, module: Any, config: Any
    ) -> dict[str, tuple[list[torch.nn.Parameter], float | list]]:
        """Return the parameters of the Q-network."""
        return {"q": ([*module.policy.parameters()], config.lr)}

    def values(self, batch: Transitions, g: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the Q-values of a group's actions, and the target network's of its best actions in what follows.

        Those of agents that did not act are 0, and so is what follows where there is nothing.

        Args:
            batch: The transitions.
            g: Which group.

        Returns:
            ``[R, M]`` each; gradients pass through the first one.
        """
        module: QModule = self.modules()[g]
        ahead = batch.next_obs if self.config.double_q else None
        present, following = outputs_of(module.policy, batch, g, self.burn_in, ahead)
        taken = value_of(present, batch.actions[g], batch.acted[g])
        if taken is None:
            taken = (present * batch.actions[g]).sum(-1) * batch.acted[g]
        with torch.no_grad():
            by_target = following_outputs(module.target_policy, batch, g, burn_in=self.burn_in)
            chooser = by_target if following is None else following
            legal = batch.next_legal[g]
            best = best_value(by_target, chooser, legal, batch.present_next[g])
            if best is None:
                if legal is not None:
                    chooser = chooser.masked_fill(~legal, -torch.inf)
                best = by_target.gather(-1, chooser.argmax(dim=-1, keepdim=True)).squeeze(-1)
                best = best * batch.present_next[g]
        return taken, best

    def targets(
        self, batch: Transitions, rewards: torch.Tensor, ahead: torch.Tensor, fresh: torch.Tensor | None
    ) -> torch.Tensor:
        """Return what values regress on, ``[R, ...]``.

        Args:
            batch: The transitions.
            rewards: As earned, ``[R, ...]``.
            ahead: Discounted values of what follows each step, 0 where nothing does, ``[R, ...]``.
            fresh: Where a step begins an episode, bool ``[R, ...]``; of single transitions nobody asks for it.
        """
        rewards = rewards * self.config.reward_scale
        if batch.length == 1:
            return rewards + ahead  # the replay has summed the rewards of several steps
        assert fresh is not None
        length = batch.length
        return n_step_targets(
            rewards.unflatten(0, (length, -1)),
            ahead.unflatten(0, (length, -1)),
            fresh.unflatten(0, (length, -1)),
            self.config.gamma,
            self.config.n_step,
        ).flatten(0, 1)
