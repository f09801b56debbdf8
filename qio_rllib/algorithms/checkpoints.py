"""What an Algorithm writes of itself, and how it goes on from that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_rllib.algorithms.initial_weights import take_initial_weights
from qio_rllib.algorithms.opposition import Opposition
from qio_rllib.algorithms.phases import EVALUATING, PhaseSignal
from qio_rllib.games.self_play import SELF_PLAY
from qio_rllib.sampling.manifest import MANIFEST, remove_manifest, verify, write_manifest


class CheckpointedAlgorithm(Algorithm):
    """An Algorithm whose checkpoints have a manifest, are compared with it when loaded, and are taken over whole.

    RLlib numbers the weights, and Learners and runners pass over those whose number is not above that of what they
    have. So an older checkpoint (population-based training) would leave newer weights where they are.

    Attributes:
        phase: Tells whoever watches the trial what it does.
    """

    phase: PhaseSignal

    def setup(self, config: AlgorithmConfig) -> None:
        """Build the algorithm, and let its phases be watched."""
        storage = getattr(self, "_storage", None)  # of a trial of Tune
        self.phase = PhaseSignal(None if storage is None else storage.trial_fs_path)
        super().setup(config)
        self.phase.follow(self.metrics)
        if config.initial_weights is not None:
            self._forget_numbers()
            take_initial_weights(self, config.initial_weights)
        self.opponents = Opposition.of(self)

    def step(self) -> dict[str, Any]:
        """Return an iteration's result; with self-play, also what its games gave, under `SELF_PLAY`."""
        result = super().step()
        return result if self.opponents is None else {**result, SELF_PLAY: self.opponents.advance()}

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Return the results of an evaluation; arguments as in `Algorithm.evaluate`."""
        self.phase.enter(EVALUATING)
        return super().evaluate(*args, **kwargs)

    def save_to_path(self, path: Any = None, *, filesystem: Any = None, **kwargs: Any) -> str:
        """Write a checkpoint; arguments as in `Algorithm.save_to_path`."""
        if path is not None:
            remove_manifest(str(path), filesystem)
        written = super().save_to_path(path, filesystem=filesystem, **kwargs)
        write_manifest(written if path is None else str(path), filesystem)
        return written

    def get_metadata(self) -> dict[str, Any]:
        """Return RLlib's description, which also says that there is a manifest."""
        return {**super().get_metadata(), "manifest": MANIFEST}

    @classmethod
    def from_checkpoint(cls, path: Any, filesystem: Any = None, **kwargs: Any) -> Any:
        """Return the Algorithm of a checkpoint; arguments as in `Algorithm.from_checkpoint`.

        Raises:
            ConfigError: The checkpoint is damaged.
        """
        if isinstance(path, str | Path):
            verify(str(path), filesystem=filesystem)
        return super().from_checkpoint(path, filesystem, **kwargs)

    def restore_from_path(self, path: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint; arguments as in `Algorithm.restore_from_path`.

        Raises:
            ConfigError: The checkpoint is damaged; with ``component``, that part of it.
        """
        component, filesystem = kwargs.get("component"), kwargs.get("filesystem")
        if component is None:
            verify(str(path), filesystem=filesystem)
        elif str(path).endswith(f"/{component}"):
            verify(str(path).removesuffix(f"/{component}"), component, filesystem=filesystem)
        self._forget_numbers()
        super().restore_from_path(path, **kwargs)
        if component is None and self.opponents is not None:
            self.opponents.share()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._forget_numbers()
        super().set_state(state)
        if self.opponents is not None and SELF_PLAY in state:
            self.opponents.set_state(state[SELF_PLAY])
            self.opponents.share()

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the state, the pool of opponents included."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self.opponents is not None and self._check_component(SELF_PLAY, components, not_components):
            state[SELF_PLAY] = self.opponents.get_state()
        return state

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return the parts that have checkpoints of their own."""
        parts = super().get_checkpointable_components()
        return parts if self.opponents is None else [*parts, (SELF_PLAY, self.opponents)]

    def _forget_numbers(self) -> None:
        """Let weights with any number come after those in place."""
        self.learner_group.foreach_learner(_forget_number)
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                group.foreach_env_runner(_forget_number)


def _forget_number(worker: Any) -> None:
    worker._weights_seq_no = 0
