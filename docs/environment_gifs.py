"""Write docs/images/environments/<id>.gif: an episode of each environment's best scripted policy.

python docs/environment_gifs.py [ID ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import qio_envs
from qio_rllib.artifacts.video import record_episode, save_gif

FOLDER = Path(__file__).with_name("images") / "environments"
MOST_BYTES = 300_000
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
    path = folder / f"{environment.id}.gif"
    for longest_side, most in _ATTEMPTS:
        kept = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), most)).round().astype(int))
        pace = fps * len(kept) / len(frames)  # an episode takes as long, however many of its frames are shown
        save_gif([frames[index] for index in kept], path, pace, longest_side)
        if path.stat().st_size < MOST_BYTES:
            return path
    raise ValueError(f"{path.name}: {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="environments; all of them when absent")
    ids = parser.parse_args().ids or list(qio_envs.environments())
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ids:
        written = write(qio_envs.environment(name))
        print(f"{written.name}: {written.stat().st_size:,} bytes")
