"""DQN: Q-learning on the batched runner; with several agents, independent Q-learning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

import torch
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_envs.api import ConfigError
from qio_rllib.algorithms.base import OffPolicyAlgorithm
from qio_rllib.algorithms.capabilities import Capabilities
from qio_rllib.algorithms.off_policy_config import OffPolicyConfig
from qio_rllib.algorithms.setting_types import Range, Schedule
from qio_rllib.learners.off_policy import Objective, OffPolicyLearner
from qio_rllib.learners.transitions import Transitions, following_outputs, mean_over, outputs_of
from qio_rllib.models.circuits import CIRCUIT
from qio_rllib.models.joint_module import QModule


class DQNConfig(OffPolicyConfig):
    """Configuration of `DQN`."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        continuous_actions=False,
        circuit=True,
        instead={
            "central_value": " learns values and has no critic; set it to null",
            "normalize_values": " learns values as they are; set it to false",
            "amplification": " learns values and has no policy of its own; set it to null",
            "entropy_annealing": " learns values and has no entropy; set exploration instead",
            "coordination": " learns values and has no policy of its own; set it to null",
        },
    )

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or DQN)
        self.lr = 5e-4
        self.tau = 1.0
        self.target_network_update_freq: int | None = 500
        self.exploration: float | list = [[0, 1.0], [10_000, 0.05]]
        self.double_q = True
        self.dueling = True
        self.grad_clip = 10.0
        self.rl_module(rl_module_spec=RLModuleSpec(module_class=QModule))
        self.learners(learner_class=DQNLearner)

    def training(
        self,
        *,
        exploration: Annotated[float | list, Schedule(high=1)] = NotProvided,
        double_q: bool = NotProvided,
        dueling: bool = NotProvided,
        n_step: Annotated[int, Range(1)] = NotProvided,
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
            n_step: Steps over which rewards are summed before a value is taken, at least 1; 1 with memory.
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
            target_network_update_freq=target_network_update_freq,
        )
        if kwargs.get(CIRCUIT) is not None and dueling is NotProvided:
            self.dueling = False
        return self

    def validate(self) -> None:
        """Check the settings against each other.

        Raises:
            ConfigError: A value that does not fit another.
        """
        super().validate()
        if self.n_step > 1 and self.sequence_length > 1:
            raise ConfigError("n_step: a Q-network with memory learns from single steps; set it to 1")

    def module_settings(self) -> dict[str, Any]:
        """Return what a module is told beside ``model_config``."""
        return {"dueling": self.dueling}

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """Return the specification of a module."""
        return RLModuleSpec(module_class=QModule)

    def get_default_learner_class(self) -> type[TorchLearner]:
        """Return the class of the Learner."""
        return DQNLearner


class DQN(OffPolicyAlgorithm):
    """Deep Q-learning (Mnih et al., 2015) with double and dueling networks and n-step returns.

    With several agents each learns from its own observation, action and reward, as if the others were part of the
    environment: independent Q-learning (Tan, 1993). Agents of one module share its network. A Q-network can be a
    quantum circuit (A. Skolik et al., "Quantum agents in the Gym", Quantum 6, 720, 2022).
    """

    @classmethod
    def get_default_config(cls) -> DQNConfig:
        """Return the default configuration."""
        return DQNConfig()


class DQNLearner(OffPolicyLearner):
    """Q-values regress on one-step or n-step targets, by the Huber loss."""

    def build(self) -> None:
        """Build the Learner."""
        super().build()
        self._steps_taken = 0

    def optimizer_parameters(
        self, module: Any, config: Any
    ) -> dict[str, tuple[list[torch.nn.Parameter], float | list]]:
        """Return the parameters of the Q-network."""
        return {"q": ([*module.policy.parameters()], config.lr)}

    def losses(self, batch: Transitions) -> Iterator[Objective]:
        """Yield the Huber loss of the temporal-difference errors."""
        losses, stats = {}, {}
        for g, module_id in enumerate(batch.modules):
            module: QModule = self.modules()[g]
            present, following = outputs_of(module.policy, batch, g, None, self.burn_in, batch.next_obs)
            assert following is not None
            q_values = (present * batch.actions[g]).sum(-1)
            with torch.no_grad():
                by_target = following_outputs(module.target_policy, batch, g, burn_in=self.burn_in)
                chooser = following if self.config.double_q else by_target
                legal = batch.next_legal[g]
                if legal is not None:
                    chooser = chooser.masked_fill(~legal, -torch.inf)
                best = by_target.gather(-1, chooser.argmax(dim=-1, keepdim=True)).squeeze(-1)
                target = batch.rewards[g] + batch.discounts[g] * batch.present_next[g] * best
            errors = torch.nn.functional.smooth_l1_loss(q_values, target, reduction="none")
            losses[module_id] = mean_over(errors, batch.learned[g])
            stats[module_id, "q_mean"] = mean_over(q_values.detach(), batch.learned[g])
        yield Objective("q", losses, stats)

    def follow(self) -> None:
        """Move the target networks every ``target_network_update_freq`` gradient steps."""
        self._steps_taken += 1
        every = self.config.target_network_update_freq
        if every is None or self._steps_taken % every == 0:
            super().follow()

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the Learner's state with the number of its gradient steps."""
        state = super().get_state(*args, **kwargs)
        if not kwargs.get("inference_only"):
            state["steps_taken"] = self._steps_taken
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the Learner."""
        super().set_state(state)
        self._steps_taken = state.get("steps_taken", self._steps_taken)
