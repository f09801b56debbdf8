"""What the configurations of soft actor-critics have in common: the temperature."""

from __future__ import annotations

from typing import Annotated, Any, Self

from ray.rllib.algorithms.algorithm_config import NotProvided

from qio_rllib.algorithms.off_policy_config import JointCriticConfig
from qio_rllib.algorithms.setting_types import Range, Schedule


class SoftConfig(JointCriticConfig):
    """Base of the configurations of algorithms whose policies also maximise their entropy."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class)
        self.alpha_lr: float | list = 3e-4
        self.initial_alpha = 1.0
        self.target_entropy: float | None = None
        self.target_entropy_share = 0.5

    def training(
        self,
        *,
        alpha_lr: Annotated[float | list, Schedule()] = NotProvided,
        initial_alpha: Annotated[float, Range(0, low_open=True)] = NotProvided,
        target_entropy: float | None = NotProvided,
        target_entropy_share: Annotated[float, Range(0, 1)] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set the training parameters; the rest as in `JointCriticConfig.training`.

        Args:
            alpha_lr: Learning rate of the temperature, or a schedule; 0 keeps it at ``initial_alpha``.
            initial_alpha: Temperature at the start, above 0.
            target_entropy: Entropy of a policy that the temperature is moved towards, nats; None for minus the number
                of an action's components (continuous; Haarnoja et al., 2018), or ``target_entropy_share`` of the
                largest entropy (discrete).
            target_entropy_share: Of the logarithm of the number of legal actions, in [0, 1].
            **kwargs: The other arguments.

        Raises:
            ConfigError: An unknown key or a value outside its range.
        """
        super().training(**kwargs)
        self._take(
            alpha_lr=alpha_lr,
            initial_alpha=initial_alpha,
            target_entropy=target_entropy,
            target_entropy_share=target_entropy_share,
        )
        return self
