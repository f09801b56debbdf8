"""Write docs/images: an episode of each environment's best scripted policy, and the one of the README.

python docs/environment_gifs.py [ID ...] [readme]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import qio_envs
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.artifacts.video import record_episode, save_gif

FOLDER = Path(__file__).with_name("images") / "environments"
README = Path(__file__).with_name("images") / "forest_uav_ppo.gif"
"""Of the pretrained policy of this name, sampled actions."""
MOST_BYTES, README_BYTES = 300_000, 500_000
SEED = 0
_ATTEMPTS = ((400, 200), (400, 120), (360, 80), (320, 60), (260, 40))
"""Longest side in pixels and most frames, from the best to the smallest."""


def write(environment: qio_envs.Environment, folder: Path = FOLDER) -> Path:
    """Write the GIF of one environment, as large as `MOST_BYTES` allow.

    Raises:
        ValueError: Even the smallest is larger.
    """
    policy = list(environment.batched_class.scripted_policies)[-1]
    frames, fps, _ = record_episode(policy, environment.id, {}, SEED)
    return save_small(frames, fps, folder / f"{environment.id}.gif", MOST_BYTES, _ATTEMPTS)


def write_readme() -> Path:
    """Write `README`.

    Raises:
        ValueError: Even the smallest is larger than `README_BYTES`.
    """
    policy = load_policy(f"policy:{README.stem}")
    frames, fps, _ = record_episode(policy, policy.env, policy.env_config, SEED, explore=True)
    return save_small(frames, fps, README, README_BYTES, ((800, 60), (800, 40), (800, 30)))


def save_small(
    frames: Sequence[np.ndarray],
    fps: float,
    path: Path,
    most_bytes: int,
    attempts: Sequence[tuple[int, int]],
) -> Path:
    """Write frames as a GIF as large as is allowed.

    Args:
        frames: uint8 ``[h, w, 3]``.
        fps: Frames per second.
        path: The file.
        most_bytes: What it may have.
        attempts: Longest side in pixels and most frames, from the best to the smallest.

    Raises:
        ValueError: Even the smallest is larger.
    """
    for longest_side, most in attempts:
        kept = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), most)).round().astype(int))
        pace = fps * len(kept) / len(frames)  # an episode takes as long, however many of its frames are shown
        save_gif([frames[index] for index in kept], path, pace, longest_side)
        if path.stat().st_size < most_bytes:
            return path
    raise ValueError(f"{path.name}: {path.stat().st_size:,} bytes, more than {most_bytes:,}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="environments, or readme; all of them when absent"
    )
    ids = parser.parse_args().ids or [*qio_envs.environments(), "readme"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ids:
        written = write_readme() if name == "readme" else write(qio_envs.environment(name))
        print(f"{written.name}: {written.stat().st_size:,} bytes")
