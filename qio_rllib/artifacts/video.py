"""An episode of a policy as an animated GIF."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.artifacts.rendering import message_viewer, rendered_env

if TYPE_CHECKING:
    from qio_rllib.acting.policy import Policy

MAX_FRAMES = 140
MAX_STEPS = 1_000
"""Steps after which a recording leaves an episode of an environment that is not known to end."""

_DEFAULT_FPS = 20
_LONGEST_SIDE = 800  # pixels; text in the pictures of qio_envs stays readable
_COLORS = 64
_COMMON = 0.01  # share of the pixels of a colour that is kept as it is


def record_episode(
    policy: Policy | str,
    env_id: str,
    env_config: Mapping[str, Any],
    seed: int,
    explore: bool = False,
    max_steps: int | None = None,
) -> tuple[list[np.ndarray], float, dict[str, Any]]:
    """Play an episode and keep its frames.

    Args:
        policy: What acts; a name is that of a scripted policy of the environment, which is one of ``qio_envs``.
        env_id: The environment.
        env_config: Its arguments.
        seed: Seeds the environment and the sampling.
        explore: Sample from the policy (True) or take its most probable actions (False).
        max_steps: Steps after which the episode is left; by default `MAX_STEPS` in environments that are not known to
            end.

    Returns:
        Frames (uint8 ``[h, w, 3]``), frames per second, and the episode's row, as
        `qio_rllib.sampling.evaluation.play_episodes` gives it.

    Raises:
        ConfigError: The environment cannot be rendered, or is none that the policy can act in.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame looks for a display even where none is needed

    from qio_rllib.sampling.evaluation import play_episodes, step_cap

    frames: list[np.ndarray] = []
    with rendered_env(policy, env_id, env_config, "rgb_array") as (shown, env, team):
        max_steps = step_cap(env, max_steps, MAX_STEPS)
        (row,) = play_episodes(
            team,
            env,
            [seed],
            explore,
            lambda: frames.append(_frame(shown, env_id)),
            max_steps,
            message_viewer(shown),
        )
        return frames, float(shown.metadata.get("render_fps") or _DEFAULT_FPS), row


def save_gif(
    frames: Sequence[np.ndarray],
    path: str | Path,
    fps: float = _DEFAULT_FPS,
    longest_side: int = _LONGEST_SIDE,
    num_colors: int = _COLORS,
) -> Path:
    """Write frames as a GIF that repeats for ever.

    More than `MAX_FRAMES` frames are thinned evenly (the first and the last stay), large ones are shrunk.

    Args:
        frames: uint8 ``[h, w, 3]``, one at least.
        path: The file to write.
        fps: Frames per second of the episode.
        longest_side: Pixels to which larger frames are shrunk, at least 1.
        num_colors: Colours of the palette, from 2 to 256.

    Returns:
        The path.
    """
    from PIL import Image

    kept = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES)).round().astype(int))
    images = [Image.fromarray(frames[index]) for index in kept]
    scale = longest_side / max(images[0].size)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in images[0].size)
        images = [image.resize(size, Image.Resampling.BOX) for image in images]  # type: ignore[arg-type]
    # One palette for all frames: no flicker, and a small file. Common colours stay as they are, in half of it at most;
    # the rest is made from the other colours that occur, each counted once, so that a small disc keeps its colour too.
    chosen = {round(index) for index in np.linspace(0, len(images) - 1, 12)}
    sample = np.stack([np.asarray(images[index]) for index in sorted(chosen)]).reshape(-1, 3)
    packed, counts = np.unique(
        sample.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32), return_counts=True
    )
    packed = packed[np.argsort(-counts, kind="stable")]
    exact = min(int((counts >= _COMMON * counts.sum()).sum()), num_colors // 2)
    colors = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
    common, rest = colors[:exact], colors[exact:]
    if len(rest):
        others = Image.fromarray(rest[None]).quantize(
            num_colors - len(common), method=Image.Quantize.MAXCOVERAGE
        )
        common = np.unique(np.concatenate([common, np.asarray(others.convert("RGB"))[0]]), axis=0)
    palette = Image.new("P", (1, 1))
    palette.putpalette(common.tobytes())
    shrunk = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    duration = max(20, round(1000 / fps / 10) * 10)  # GIF counts in hundredths of a second
    durations = [duration] * (len(shrunk) - 1) + [max(duration, 1500)]
    partial = Path(path).with_name(f".{Path(path).name}.partial")
    shrunk[0].save(
        partial,
        format="GIF",
        save_all=True,
        append_images=shrunk[1:],
        duration=durations,
        loop=0,
        optimize=True,
    )
    partial.replace(path)
    return Path(path)


def save_video(
    policy: Policy | str,
    path: str | Path,
    env_id: str | None = None,
    env_config: Mapping[str, Any] | None = None,
    seed: int = 0,
    explore: bool = False,
    max_steps: int | None = None,
) -> dict[str, Any]:
    """Record an episode of a policy as a GIF.

    Args:
        policy: What acts, as for `record_episode`.
        path: The file to write.
        env_id: The environment; by default the one that the policy was trained in, a scripted policy has no default.
        env_config: Its arguments; by default, likewise.
        seed: Seeds the environment and the sampling.
        explore: Sample from the policy (True) or take its most probable actions (False).
        max_steps: As for `record_episode`.

    Returns:
        The episode's row, as of `record_episode`.

    Raises:
        ConfigError: As `record_episode`.
    """
    if isinstance(policy, str):
        if env_id is None:
            raise ConfigError("env: a scripted policy needs an environment")
        frames, fps, row = record_episode(policy, env_id, env_config or {}, seed, explore, max_steps)
    else:
        if env_config is None:
            env_config = policy.env_config if env_id in (None, policy.env) else {}
        frames, fps, row = record_episode(policy, env_id or policy.env, env_config, seed, explore, max_steps)
    save_gif(frames, path, fps)
    return row


def _frame(env: Any, env_id: str) -> np.ndarray:
    try:
        frame = env.render()
    except Exception as error:  # such as a rendering library that is not installed
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"env: {env_id} cannot be rendered ({reason})") from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise ConfigError(f"env: {env_id} cannot be rendered as rgb_array")
    return np.array(frame[..., :3], np.uint8)
