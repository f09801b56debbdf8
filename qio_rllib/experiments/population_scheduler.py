"""Tune's scheduler of population-based training, which can go on from an earlier comparison."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from qio_rllib.artifacts.metrics import ITERATION
from qio_rllib.experiments.population_settings import PopulationSettings
from qio_rllib.experiments.population_state import PopulationState


class Exploit(NamedTuple):
    """A trial that goes on from another one."""

    trial: Any
    donor: Any
    iteration: int
    score: float
    score_from: float


class Restored(NamedTuple):
    """How a trial takes part that does not begin anew.

    Attributes:
        metrics: Row of ``progress.csv`` of the checkpoint that it goes on from; {} where it begins anew.
        compared: As in `RunStart`.
        waits: Whether it has come to the next comparison, and waits for the others.
    """

    metrics: Mapping[str, float]
    compared: int
    waits: bool


class PopulationScheduler(PopulationBasedTraining):
    """Tune's scheduler with random numbers of its own, values within their ranges, and word of what it does.

    Args:
        settings: Of the section ``scheduler``.
        seed: Of the population.
        exploited: Called when a trial goes on from another one.
        compared: Called after each comparison.
        state: What it goes on from; None for a population that begins.
        restored: Gives how a trial takes part, with ``state``.
    """

    def __init__(
        self,
        settings: PopulationSettings,
        seed: int,
        exploited: Callable[[Exploit], None] = lambda exploit: None,
        compared: Callable[[], None] = lambda: None,
        state: PopulationState | None = None,
        restored: Callable[[Any], Restored] | None = None,
    ) -> None:
        self._drawn_anew = np.random.default_rng(seed)
        super().__init__(
            time_attr=ITERATION,
            metric=settings.metric,
            mode=settings.mode,
            perturbation_interval=settings.perturbation_interval,
            hyperparam_mutations=settings.mutations(self._drawn_anew),
            quantile_fraction=settings.quantile_fraction,
            resample_probability=settings.resample_probability,
            custom_explore_fn=settings.within,
            log_config=False,
            require_attrs=False,
            synch=True,  # so that a run's iterations count up, and what it draws does not depend on who is faster
        )
        self._exploited, self._compared, self._restored = exploited, compared, restored
        self._numbers = random.Random(seed).getstate()
        if state is not None:
            self._next_perturbation_sync = state.next_comparison
            self._numbers = state.python_random
            self._drawn_anew.bit_generator.state = dict(state.numpy_random)

    @property
    def next_comparison(self) -> int:
        """The iteration at which runs are compared next."""
        return int(self._next_perturbation_sync)

    @property
    def random_states(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """States of the random numbers that are drawn next, as in `PopulationState`."""
        return self._numbers, self._drawn_anew.bit_generator.state

    @property
    def trials(self) -> list[Any]:
        """All trials that it knows."""
        return list(self._trial_state)

    def times_of(self, trial: Any) -> tuple[int, int]:
        """Return the iteration that a trial goes on from after a comparison, and that it counts the interval from."""
        state = self._trial_state[trial]
        return int(state.last_train_time), int(state.last_perturbation_time)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take a trial in, where there is a state as it was."""
        super().on_trial_add(tune_controller, trial)
        if self._restored is None:
            return
        restored, state = self._restored(trial), self._trial_state[trial]
        state.last_perturbation_time = restored.compared
        if not restored.metrics:
            return
        # Tune knows the directory of the checkpoint only; counters go on from these.
        trial.latest_checkpoint_result.metrics.update(restored.metrics)
        state.last_train_time = int(restored.metrics[ITERATION])
        if restored.waits:
            self._save_trial_state(state, state.last_train_time, dict(restored.metrics), trial)
            trial.set_status(Trial.PAUSED)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Compare runs where all have come to the end of an interval."""
        before = self._next_perturbation_sync
        with self._own_numbers():
            decision = super().on_trial_result(tune_controller, trial, result)
        if self._next_perturbation_sync != before:
            self._compared()
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Compare runs also where the one that the others have waited for does not come: it has reached its end."""
        live = tune_controller.get_live_trials()
        waiting = [
            trial
            for trial in tune_controller.get_trials()
            if trial in live
            and trial.status == Trial.PAUSED
            and self._trial_state[trial].last_train_time >= self._next_perturbation_sync
        ]
        if waiting and len(waiting) == len(live):
            last = max(waiting, key=lambda trial: self._trial_state[trial].last_train_time)
            self.on_trial_result(tune_controller, last, dict(self._trial_state[last].last_result))
        return super().choose_trial_to_run(tune_controller)

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        before, of_donor = self._trial_state[trial], self._trial_state[trial_to_clone]
        scores = [float(self._metric_op * state.last_score) for state in (before, of_donor)]
        super()._exploit(tune_controller, trial, trial_to_clone)
        self._exploited(Exploit(trial, trial_to_clone, int(of_donor.last_train_time), *scores))

    @contextlib.contextmanager
    def _own_numbers(self) -> Iterator[None]:
        """Let Python's global random numbers, which Tune draws from, be those of the seed."""
        before = random.getstate()
        random.setstate(self._numbers)
        try:
            yield
        finally:
            self._numbers = random.getstate()
            random.setstate(before)
