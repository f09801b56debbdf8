"""Going on from a checkpoint or a state, also from one that is older than what the Algorithm has learned."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm


class RestoringAlgorithm(Algorithm):
    """Takes over a checkpoint or a state whole.

    RLlib numbers the weights, and Learners and runners pass over those whose number is not above that of what they
    have. So an older checkpoint (population-based training) would leave newer weights where they are.
    """

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint or, with ``component``, from a part of one."""
        self._forget_numbers()
        super().restore_from_path(path, *args, **kwargs)

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._forget_numbers()
        super().set_state(state)

    def _forget_numbers(self) -> None:
        """Let weights with any number come after those in place."""
        self.learner_group.foreach_learner(_forget_number)
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                group.foreach_env_runner(_forget_number)


def _forget_number(worker: Any) -> None:
    worker._weights_seq_no = 0
