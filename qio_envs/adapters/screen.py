"""`Screen`: pictures of an environment in any of its modes, a window included."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from qio_envs.api.batched import Array, BatchedEnv
from qio_envs.api.distribution import install_command


def check_render_mode(batch: BatchedEnv, render_mode: str | None) -> None:
    """Refuse a render mode that the environment lacks.

    Raises:
        ValueError: The mode is not None and not among ``batch.render_modes``.
    """
    if render_mode is not None and render_mode not in batch.render_modes:
        raise ValueError(f"render_mode: expected one of {', '.join(batch.render_modes)}, got {render_mode!r}")


class Screen:
    """Renders one environment in a mode; a window is opened for ``human`` only, on the first frame."""

    def __init__(self, batch: BatchedEnv, render_mode: str | None) -> None:
        check_render_mode(batch, render_mode)
        self.batch = batch
        self.render_mode = render_mode
        self._window: Any = None

    def render(self) -> Array | str | None:
        """Return the frame of the mode; for ``human`` show it and return None."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() was called without a render_mode: pass render_mode='rgb_array'")
            return None
        if self.render_mode != "human":
            return self.batch.render(0, self.render_mode)
        frame = self.batch.render(0, "rgb_array")
        assert isinstance(frame, np.ndarray)
        self._show(frame)
        return None

    def show_if_human(self) -> None:
        """Show the present frame if the mode is ``human`` (called after each reset and step)."""
        if self.render_mode == "human":
            self.render()

    def close(self) -> None:
        """Close the window, if any."""
        if self._window is not None:
            import pygame

            pygame.display.quit()
            self._window = None

    def _show(self, frame: Array) -> None:
        try:
            import pygame
        except ImportError as error:
            raise ImportError(
                f"render_mode 'human' needs pygame: {install_command('human')} (rgb_array and ansi need nothing)"
            ) from error
        if self._window is None:
            pygame.init()
            self._window = pygame.display.set_mode(frame.shape[1::-1])
            pygame.display.set_caption(self.batch.id)
        pygame.event.pump()
        self._window.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()
        pygame.time.wait(1000 // self.batch.render_fps)

    def __getstate__(self) -> dict[str, Any]:
        """A copy or pickle has no window of its own until it renders."""
        return {**self.__dict__, "_window": None}
