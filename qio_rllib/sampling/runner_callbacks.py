"""`RunnerCallbacks`: RLlib's callbacks of a runner, called where a configuration has some."""

from __future__ import annotations

from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback

from qio_rllib.sampling.episodes import EpisodeRecord

_NAMES = (
    "on_environment_created", "on_episode_start", "on_episode_step", "on_episode_end", "on_sample_end",
)  # fmt: skip


class RunnerCallbacks:
    """The callbacks of a runner's configuration: objects of its classes, and its functions.

    Args:
        runner: The runner; its ``config``, ``env``, ``module`` and ``metrics`` are what callbacks are given.

    Attributes:
        listeners: The objects.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        classes = runner.config.callbacks_class
        self.listeners = [cls() for cls in (classes if isinstance(classes, list | tuple) else [classes])]
        self._heard = {name for name in _NAMES if self._functions(name) or self._overridden(name)}

    def has(self, callback: str) -> bool:
        """Return whether anything is called of that name."""
        return callback in self._heard

    def call(self, callback: str, **arguments: Any) -> None:
        """Call the callbacks of a name with these arguments, the runner and its metrics."""
        if callback in self._heard:
            make_callback(
                callback,
                callbacks_objects=self.listeners,
                callbacks_functions=self._functions(callback),
                kwargs={
                    "env_runner": self._runner,
                    "metrics_logger": self._runner.metrics,
                    **arguments,
                },
            )

    def call_episode(self, callback: str, episode: EpisodeRecord) -> None:
        """Call the callbacks of a name with an episode, its environments and the modules that act in them."""
        runner = self._runner
        self.call(
            callback,
            episode=episode,
            env=runner.env,
            rl_module=runner.module,
            env_index=episode.env_index,
        )

    def _functions(self, callback: str) -> Any:
        return getattr(self._runner.config, f"callbacks_{callback}", None)

    def _overridden(self, callback: str) -> bool:
        return any(
            getattr(type(listener), callback) is not getattr(RLlibCallback, callback)
            for listener in self.listeners
        )
