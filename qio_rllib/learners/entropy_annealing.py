"""Entropy coefficients of a Learner: fixed, by a schedule, or annealed by the policy's entropy."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from ray.rllib.utils.lambda_defaultdict import LambdaDefaultDict
from ray.rllib.utils.schedules.scheduler import Scheduler

from qio_rllib.exploration import Annealing, make_annealing
from qio_rllib.learners.common import reduce_over_learners


class EntropyCoefficients:
    """One entropy coefficient a module, and the policy's mean normalised entropy over an update.

    An update is one call of ``Learner.update`` (all epochs and minibatches of one batch). With Box actions there is no
    normalised entropy (a differential entropy has no bounds): nothing is recorded, and a law that does not look at the
    entropy moves all the same.

    Args:
        annealing: ``entropy_annealing`` of the configuration; None for none.
        schedule: Returns ``entropy_coeff`` of a module, a number or a schedule over environment steps.
        device: Of the Learner.

    Attributes:
        schedulers: By module id, in the shape of RLlib's ``entropy_coeff_schedulers_per_module``.
    """

    def __init__(
        self, annealing: Mapping[str, Any] | None, schedule: Callable[[str], Any], device: Any
    ) -> None:
        self.is_annealed = annealing is not None
        self._timestep = 0
        # Per module: sum of normalised entropies, number of rows.
        self._sums: dict[str, list[Any]] = defaultdict(lambda: [0.0, 0.0])

        def scheduler(module_id: str) -> Any:
            if annealing is not None:
                return _AnnealedCoefficient(dict(annealing))
            found = Scheduler(fixed_value_or_schedule=schedule(module_id), framework="torch", device=device)
            found.update(timestep=self._timestep)
            return found

        self.schedulers: dict[str, Any] = LambdaDefaultDict(scheduler)

    def current(self, module_id: str) -> float:
        """Return a module's coefficient for this update."""
        return self.schedulers[module_id].get_current_value()

    def record(self, module_id: str, entropy: torch.Tensor, num_actions: int | torch.Tensor) -> None:
        """Take in the entropies of a minibatch of discrete policies.

        Args:
            module_id: Whose they are.
            entropy: In nats, ``[B]``.
            num_actions: Number of legal actions, one for all or ``[B]``.
        """
        with torch.no_grad():
            if isinstance(num_actions, int):
                scaled = entropy / math.log(max(num_actions, 2))
            else:
                scaled = entropy / num_actions.clamp_min(2).to(entropy).log()
            sums = self._sums[module_id]
            sums[0] = sums[0] + scaled.sum(dtype=torch.float64)
            sums[1] += scaled.numel()

    def record_mean(self, module_id: str, entropy: float, rows: int, num_actions: int) -> None:
        """Take in the mean entropy of a minibatch of discrete policies, in nats, where all actions are legal."""
        sums = self._sums[module_id]
        sums[0] = sums[0] + entropy * rows / math.log(max(num_actions, 2))
        sums[1] += rows

    def updated(self, module_id: str) -> None:
        """Note that a module took part in this update, recorded entropies or not."""
        self._sums[module_id][1] += 0.0

    def advance(self, timestep: int) -> dict[tuple[str, str], float]:
        """End an update: move schedules and laws; return what to report, by (module, metric)."""
        found: dict[tuple[str, str], float] = {}
        self._timestep = timestep
        for module_id, sums in self._sums.items():
            total, rows = reduce_over_learners(
                torch.tensor([float(sums[0]), float(sums[1])], dtype=torch.float64)
            ).tolist()
            entropy = total / rows if rows else None
            if entropy is not None:
                found[module_id, "normalized_entropy"] = entropy
            scheduler = self.schedulers[module_id]
            if isinstance(scheduler, _AnnealedCoefficient):
                scheduler.law.update(1.0 if entropy is None else entropy)
                found[module_id, "alpha"] = scheduler.law.alpha
            else:
                found[module_id, "curr_entropy_coeff"] = float(scheduler.update(timestep=timestep))
        self._sums.clear()
        return found

    def get_state(self) -> dict[str, Any]:
        """Return where schedules are (``timestep``), and the state of the annealing laws by module (``laws``)."""
        laws = {
            module_id: scheduler.law.get_state()
            for module_id, scheduler in self.schedulers.items()
            if isinstance(scheduler, _AnnealedCoefficient)
        }
        return {"timestep": self._timestep, "laws": laws}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; modules that it does not name begin anew."""
        self._timestep = state["timestep"]
        self.schedulers.clear()
        for module_id, law in state["laws"].items():
            scheduler = self.schedulers[module_id]
            if isinstance(scheduler, _AnnealedCoefficient):
                scheduler.law.set_state(law)


class _AnnealedCoefficient:
    """An annealing law in the shape of RLlib's ``Scheduler``."""

    def __init__(self, settings: dict[str, Any]) -> None:
        law = make_annealing(settings)
        assert law is not None
        self.law: Annealing = law

    def get_current_value(self) -> float:
        return self.law.alpha

    def update(self, timestep: int) -> float:
        """Return the coefficient; `EntropyCoefficients.advance` moves the law."""
        return self.law.alpha
