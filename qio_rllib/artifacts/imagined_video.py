"""GIFs of real and imagined episodes side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qio_envs.api import BatchedEnv
from qio_rllib.artifacts.video_grid import caption
from qio_rllib.artifacts.world_model_plots import trajectory_figure
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.object_vector_env import ObjectVectorEnv, batch_behind
from qio_rllib.sampling.vector_env import VectorEnv

Array = np.ndarray

LONGEST_SIDE, NUM_COLORS = (
    800,
    128,
)  # pixels and colours of a GIF that has two pictures side by side, and text
_MAX_LINE_FRAMES = 100
_CAPTION, _GAP = 30, 8  # pixels
_BACKGROUND, _REAL, _IMAGINED = (24, 29, 33), (225, 229, 233), (240, 120, 130)


@dataclasses.dataclass(frozen=True)
class Imaginations:
    """An episode and what a model imagined of parts of it.

    Attributes:
        real: Observations, float32 ``[T + 1, D]``.
        starts: Steps after which imaginations begin, rising.
        imagined: Observations that each predicted for the steps after its start, float32 ``[h, D]``; ``h`` is at least
            1 and reaches at most to the next start.
    """

    real: Array
    starts: tuple[int, ...]
    imagined: tuple[Array, ...]

    @property
    def last(self) -> int:
        """The last step that is imagined."""
        return self.starts[-1] + len(self.imagined[-1])

    def at(self, step: int) -> tuple[Array, int, int]:
        """Return what is imagined at a step, how many steps after the start, and how many there are.

        Before an imagination begins, and at a start without one that ends there, that is the real observation, 0 and 0.
        """
        for start, predicted in zip(self.starts, self.imagined, strict=True):
            if start < step <= start + len(predicted):
                return predicted[step - start - 1], step - start, len(predicted)
        return self.real[step], 0, 0


class SceneRecorder:
    """Keeps the states of environments while episodes are played, so that they can be drawn later.

    Args:
        env: The environments; only those of `qio_envs` are kept.

    Attributes:
        batches: The batch of all environments, or one for each of them; empty where they are none of `qio_envs`.
        num_envs: Environments.
        kept: States of the batches, a list a step.
    """

    def __init__(self, env: VectorEnv) -> None:
        self.batches = _batches_of(env)
        self.num_envs = env.num_envs
        self.kept: list[list[dict[str, Array]]] = []

    def __call__(self) -> None:
        """Keep the present states."""
        self.kept.append([batch.get_state() for batch in self.batches])

    def scenes(self, env_index: int) -> Scenes | None:
        """Return what was kept of one environment; None where nothing is."""
        if not self.batches:
            return None
        alone = len(self.batches) == 1
        place, index = (0, env_index) if alone else (env_index, 0)
        return Scenes(self.batches[place], index, [states[place] for states in self.kept])


@dataclasses.dataclass(frozen=True)
class Scenes:
    """An episode of one environment of a batch.

    Attributes:
        batch: The batch.
        index: The environment's place in it.
        states: Of `BatchedEnv.get_state`, after the reset and after each step.
    """

    batch: BatchedEnv
    index: int
    states: Sequence[Mapping[str, Array]]

    def parts(self, real: Array) -> dict[str, slice] | None:
        """Return which slice of an observation is which array of the state.

        Args:
            real: What the agent saw, ``[T + 1, D]``.

        Returns:
            Slices by the arrays' names; None unless there is one agent whose observation consists of whole arrays of
            the state, which `states` and ``real`` bear out at every step.
        """
        layout = self.batch.config.observation_layout
        if self.batch.num_agents != 1 or not layout or len(self.states) < len(real):
            return None
        if sum(part.stop - part.start for part in layout.values()) != real.shape[1]:
            return None
        for seen, state in zip(real, self.states, strict=False):
            for name, part in layout.items():
                if name not in state or not np.array_equal(state[name][self.index], seen[part]):
                    return None
        return dict(layout)


def rendered_frames(scenes: Scenes, parts: Mapping[str, slice], shown: Imaginations) -> list[Array]:
    """Draw an episode by the environment's own viewer, the real state on the left and the imagined one on the right.

    Imagined numbers that the observation space does not hold are drawn as the nearest that it does, NaN as 0.

    Args:
        scenes: The episode; a copy of its environment is drawn.
        parts: Of `Scenes.parts`.
        shown: What was imagined of it.

    Returns:
        uint8 ``[h, w, 3]`` for each step up to the last that is imagined.
    """
    stage, index = scenes.batch.clone(), scenes.index
    space = stage.observation_space
    frames = []
    for step in range(shown.last + 1):
        stage.set_state(scenes.states[step])
        left = np.array(stage.render(index))
        obs, ahead, steps = shown.at(step)
        if ahead:
            obs = np.clip(np.nan_to_num(obs), space.low, space.high)
        for name, part in parts.items():  # not by set_state: what is imagined may be no state of play
            stage.arrays._asdict()[name][index] = obs[part]
        right = np.array(stage.render(index))
        words = (
            f"imagined, step {ahead} of {steps}"
            if ahead
            else f"imagined: observes up to step {shown.starts[0]}"
        )
        frames.append(_beside(_captioned(left, "real", _REAL), _captioned(right, words, _IMAGINED)))
    return frames


def line_frames(shown: Imaginations, names: Sequence[str], title: str = "") -> list[Array]:
    """Draw an episode as growing lines, real and imagined; for observations that are not an environment's whole state.

    Args:
        shown: What was imagined.
        names: Of the components.
        title: Heading.

    Returns:
        uint8 ``[h, w, 3]``, a picture a step, or fewer of a long episode.
    """
    figure, lines = trajectory_figure(
        shown.real[: shown.last + 1], shown.starts, shown.imagined, names, title
    )
    figure.set_dpi(LONGEST_SIDE // figure.get_figwidth())
    canvas: Any = figure.canvas
    canvas.draw()
    figure.set_layout_engine("none")  # the axes stay where they are
    steps = np.unique(np.linspace(0, shown.last, min(shown.last + 1, _MAX_LINE_FRAMES)).round().astype(int))
    frames = []
    for step in steps:
        for line, times, values in lines:
            line.set_data(times[times <= step], values[times <= step])
        canvas.draw()
        frames.append(np.array(canvas.buffer_rgba())[..., :3])
    return frames


def _batches_of(env: VectorEnv) -> list[BatchedEnv]:
    """Return the batch that is the whole of an environment, or one an instance; none if they are not of `qio_envs`."""
    if isinstance(env, BatchedVectorEnv):
        return [env.env]
    found = map(batch_behind, env.envs) if isinstance(env, ObjectVectorEnv) else ()
    batches = [batch for batch in found if batch is not None]
    return batches if len(batches) == env.num_envs else []


def _captioned(picture: Array, text: str, color: tuple[int, int, int]) -> Array:
    """Put a line of text above a picture."""
    strip = caption(text, picture.shape[1], color, _CAPTION)
    return np.concatenate([strip, picture.astype(np.uint8)])


def _beside(left: Array, right: Array) -> Array:
    gap = np.broadcast_to(np.array(_BACKGROUND, np.uint8), (len(left), _GAP, 3))
    return np.concatenate([left, gap, right], axis=1)
