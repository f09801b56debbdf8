"""The studies ``privacy`` and ``privacy_skellam`` of `federated_cart_pole.py`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cart_pole_federations import (
    ENV,
    FEDERATION,
    SAMPLED,
    append_shown,
    config_of,
    is_there,
    local_of,
    score,
)
from scipy.optimize import brentq
from tables import read

import qio_envs
from qio_envs.api import reference_scores
from qio_rllib.algorithms import FederatedConfig
from qio_rllib.artifacts.plot_style import (
    DASHES,
    LABEL_SIZE,
    MODE_COLORS,
    MODE_LABELS,
    label_ends,
    new_figure,
)
from qio_rllib.evaluation.aggregate import Summary
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED

PRIVACY, SKELLAM = "privacy", "privacy_skellam"
PRIVACY_SAMPLING = {"num_envs_per_env_runner": 8, "rollout_fragment_length": 16}
PRIVACY_LR, LOCAL_ITERATIONS, DELTA, PRIVACY_EPISODES = 0.03, 4, 1e-5, 100
NOISE = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Noise multipliers; 0 stands for no privacy, without clipping."""
CLIPS, PRIVACY_TUNING_SEED, TUNING_NOISE = (1.0, 2.0), 100, 1.0
EQUAL_NOISE, FEWEST = 1.0, 60
"""The Gaussian noise multiplier whose epsilon Skellam noise has, and the clients whose noise is enough for it."""


def private_config(seed: int, noise: float, clip: float, mechanism: str) -> FederatedConfig:
    """Return a federation with a noise multiplier; without privacy where it is 0."""
    settings: dict[str, Any] = {
        "participation": {"probability": SAMPLED / FEDERATION},
        "local_iterations": LOCAL_ITERATIONS,
    }
    if noise:
        settings["privacy"] = {
            "mechanism": mechanism,
            "clip": clip,
            "noise_multiplier": noise,
            "delta": DELTA,
            "randomness": "seeded",
        }
    if mechanism == "skellam":
        settings["secure"] = {"min_clients": FEWEST}
    return config_of(seed, FEDERATION, local_of(PRIVACY_SAMPLING, PRIVACY_LR), **settings)


def private(seed: int, noise: float, clip: float, rounds: int, mechanism: str = "gaussian") -> dict[str, Any]:
    """Return the row of a federation with a noise multiplier."""
    started = time.process_time()
    algorithm = private_config(seed, noise, clip, mechanism).build_algo()
    for _ in range(rounds):
        algorithm.training_step()
    ledger = algorithm.federated_server.ledger
    sampled, greedy = (score(algorithm, PRIVACY_EPISODES, explore) for explore in (True, False))
    algorithm.stop()
    return {
        "seed": seed,
        "noise_multiplier": noise,
        "clip": clip if noise else "",
        "rounds": rounds,
        "epsilon_simulated": "" if ledger is None else round(ledger.epsilon, 4),
        "sampled_return": round(sampled, 2),
        "greedy_return": round(greedy, 2),
        "sampled_normalized": round(normalized(sampled), 4),
        "greedy_normalized": round(normalized(greedy), 4),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def normalized(found: float) -> float:
    """Return a return between random play (0) and the time limit (1), which the scripted controller reaches."""
    env = qio_envs.environment(ENV).batched_env(PRIVACY_EPISODES)
    scores = reference_scores(env, seed=FIRST_EVALUATION_SEED)
    return (found - scores["random"]) / (env.config.max_steps - scores["random"])


def privacy(seeds: range, out: Path, rounds: int) -> None:
    """Find a clip, then train each noise multiplier with it."""
    for clip in CLIPS:
        if not is_there(read(out), seed=PRIVACY_TUNING_SEED, clip=clip):
            append_shown(out, private(PRIVACY_TUNING_SEED, TUNING_NOISE, clip, rounds))
    clip = best_clip(read(out))
    for seed in seeds:
        for noise in NOISE:
            if not is_there(read(out), seed=seed, noise_multiplier=noise):
                append_shown(out, private(seed, noise, clip, rounds))


def skellam(seeds: range, out: Path, rounds: int) -> None:
    """Train with integer noise of the epsilon that a row of Gaussian noise has, and with its clip."""
    gaussian = read(out.with_name(f"{PRIVACY}.csv"))
    rows = [row for row in gaussian if float(row["noise_multiplier"]) == EQUAL_NOISE]
    clip = best_clip(gaussian)
    noise = skellam_noise(float(rows[0]["epsilon_simulated"]), clip, rounds)
    for seed in seeds:
        if not is_there(read(out), seed=seed):
            append_shown(out, private(seed, noise, clip, rounds, "skellam"))


def skellam_noise(epsilon: float, clip: float, rounds: int) -> float:
    """Return the noise multiplier that spends an epsilon in some rounds."""
    algorithm = private_config(0, 1.0, clip, "skellam").build_algo()
    mechanism = algorithm.federated_server.ledger.mechanism
    algorithm.stop()

    def excess(noise: float) -> float:
        return replace(mechanism, variance=(noise * mechanism.norm) ** 2).epsilon(rounds, DELTA) - epsilon

    return round(float(brentq(excess, 0.1, 1000.0)), 4)


def best_clip(rows: Sequence[dict[str, str]]) -> float:
    """Return the clip with the greatest sampled return on the tuning seed."""
    tried = [row for row in rows if row["seed"] == str(PRIVACY_TUNING_SEED)]
    return float(max(tried, key=lambda row: float(row["sampled_return"]))["clip"])


def privacy_groups(rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return by noise multiplier the epsilon and the returns over seeds."""
    found = []
    rows = [row for row in rows if row["seed"] != str(PRIVACY_TUNING_SEED)]
    for noise in sorted({row["noise_multiplier"] for row in rows}, key=float):
        mine = [row for row in rows if row["noise_multiplier"] == noise]
        columns = ("sampled_return", "greedy_return", "sampled_normalized", "greedy_normalized")
        summaries = {name: Summary.of(float(row[name]) for row in mine) for name in columns}
        epsilon = mine[0]["epsilon_simulated"]
        found.append({"noise": float(noise), "epsilon": float(epsilon) if epsilon else np.inf, **summaries})
    return found


def privacy_table(out: Path) -> None:
    """Print returns by epsilon, and draw them."""
    print_privacy(out)
    draw_privacy(privacy_groups(read(out)), out.with_suffix(".png"))


def print_privacy(out: Path) -> None:
    """Print returns by epsilon."""
    rows = privacy_groups(read(out))
    print(f"{'noise':>5} {'epsilon':>8}  {'sampled return':40} {'greedy return':40} sampled, normalised")
    for row in rows:
        print(
            f"{row['noise']:>5g} {row['epsilon']:>8.2f}  {row['sampled_return'].text():40} "
            f"{row['greedy_return'].text():40} {row['sampled_normalized'].text(3)}"
        )


def draw_privacy(rows: Sequence[dict[str, Any]], path: Path) -> None:
    one = rows[0]["sampled_return"]
    title = f"Private federated A2C on cart_pole_v0\n{one.seeds} seeds ({one.statistic})"
    figure, (axes,) = new_figure(size=(6.8, 4.2), title=title)
    labels = []
    noised = [row for row in rows if np.isfinite(row["epsilon"])]
    epsilon = np.array([row["epsilon"] for row in noised])
    for mode, color in MODE_COLORS.items():
        parts = [row[f"{mode}_return"] for row in noised]
        middle, low, high = (
            np.array([getattr(one, name) for one in parts]) for name in ("score", "low", "high")
        )
        axes.errorbar(
            epsilon, middle, yerr=[middle - low, high - middle], color=color, marker="o", linewidth=2, capsize=4,
        )  # fmt: skip
        labels.append((float(middle[epsilon.argmax()]), MODE_LABELS[mode], color))
        for row in rows:
            if not np.isfinite(row["epsilon"]):
                without = row[f"{mode}_return"].score
                axes.axhline(without, color=color, linewidth=1, linestyle=DASHES)
                labels.append((without, f"{MODE_LABELS[mode]}, no privacy", color))
    axes.set_xscale("log")
    axes.set_xticks(epsilon, [f"{one:.2g}" for one in epsilon])
    axes.minorticks_off()
    axes.set_ylim(0, 510)
    axes.set_xlabel(f"epsilon of the simulated run, delta {DELTA:g}", fontsize=LABEL_SIZE)
    axes.set_ylabel("return of the common policy", fontsize=LABEL_SIZE)
    label_ends(axes, labels)
    figure.savefig(path)
