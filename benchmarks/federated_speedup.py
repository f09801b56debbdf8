"""The studies ``speedup`` and ``speedup_momentum`` of `federated_cart_pole.py`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cart_pole_federations import append_shown, config_of, is_there, local_of, score
from tables import read, write

from qio_rllib.artifacts.plot_style import DASHES, EMPHASIS, LABEL_SIZE, REFERENCE, label_ends, new_figure
from qio_rllib.evaluation.aggregate import LEAST_SEEDS_FOR_INTERVAL, Summary, interquartile_mean

SPEEDUP, MOMENTUM = "speedup", "speedup_momentum"
NUM_CLIENTS = (1, 2, 4, 8, 16)
SPEEDUP_SAMPLING = {"num_envs_per_env_runner": 4, "rollout_fragment_length": 16}
LEARNING_RATES = {
    SPEEDUP: (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    MOMENTUM: (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
}
FEWEST_RATES = 3
SERVERS: dict[str, dict[str, float]] = {SPEEDUP: {}, MOMENTUM: {"momentum": 0.9}}
TUNING_SEEDS = (100, 101)
THRESHOLD, EPISODES, EVERY = 400, 20, 2
TUNING_ROUNDS, MOST_ROUNDS = 150, 400


def until_threshold(
    seed: int, clients: int, lr: float, most: int, server: dict[str, float]
) -> dict[str, Any]:
    """Return the row of a federation that trains until its policy is good, or for ``most`` rounds."""
    started = time.process_time()
    local = local_of(SPEEDUP_SAMPLING, lr)
    algorithm = config_of(seed, clients, local, server=server).build_algo()
    rounds, found = 0, 0.0
    while found < THRESHOLD and rounds < most:
        for _ in range(EVERY):
            algorithm.training_step()
        rounds += EVERY
        found = score(algorithm, EPISODES, explore=True)
    algorithm.stop()
    return {
        "seed": seed,
        "clients": clients,
        "lr": lr,
        "reached": found >= THRESHOLD,
        "rounds": rounds,
        "steps_per_client": rounds * local["train_batch_size_per_learner"],
        "sampled_return": round(found, 1),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def speedup(study: str, seeds: range, out: Path) -> None:
    """Find each number of clients a learning rate, then train the reported seeds with it."""
    server, rates = SERVERS[study], LEARNING_RATES[study]
    for clients in NUM_CLIENTS:
        for place, lr in enumerate(rates):
            tried = [row for row in read(out) if float(row["lr"]) in rates[:place]]
            if place >= FEWEST_RATES and tuned(tried, clients) != str(rates[place - 1]):
                break
            for seed in TUNING_SEEDS:
                if not is_there(read(out), seed=seed, clients=clients, lr=lr):
                    append_shown(out, until_threshold(seed, clients, lr, TUNING_ROUNDS, server))
    for seed in seeds:
        for clients in NUM_CLIENTS:
            lr = tuned(read(out), clients)
            if not is_there(read(out), seed=seed, clients=clients, lr=lr):
                append_shown(out, until_threshold(seed, clients, float(lr), MOST_ROUNDS, server))


def tuned(rows: Sequence[dict[str, str]], clients: int) -> str:
    """Return the learning rate with the fewest rounds on the tuning seeds; who does not get there counts the most."""
    rounds: dict[str, list[float]] = {}
    for row in rows:
        if int(row["seed"]) in TUNING_SEEDS and row["clients"] == str(clients):
            rounds.setdefault(row["lr"], []).append(float(row["rounds"]))
    return min(rounds, key=lambda lr: np.mean(rounds[lr]))


def speedups(rows: Sequence[dict[str, str]], resamples: int = 5000) -> list[dict[str, Any]]:
    """Return by number of clients the steps of each, and how many times fewer they are than those of one client.

    Seeds count that were trained with the best learning rate. The speed-up is the ratio of interquartile means (means
    below 10 seeds); from 10 seeds on with the 95% percentile interval of a bootstrap that draws the seeds of both
    numbers of clients on their own.
    """
    reported = [row for row in rows if int(row["seed"]) not in TUNING_SEEDS]
    rng = np.random.default_rng(0)
    found, base = [], np.zeros(0)
    for clients in NUM_CLIENTS:
        lr = tuned(rows, clients)
        mine = [row for row in reported if (row["clients"], row["lr"]) == (str(clients), lr)]
        steps = np.array([float(row["steps_per_client"]) for row in mine])
        if clients == NUM_CLIENTS[0]:
            base = steps
        summary = Summary.of(steps)
        enough = min(len(steps), len(base)) >= LEAST_SEEDS_FOR_INTERVAL
        middle = interquartile_mean if enough else np.mean
        low, high = np.nan, np.nan
        if enough and clients > NUM_CLIENTS[0]:
            ratios = [
                interquartile_mean(rng.choice(base, len(base)))
                / interquartile_mean(rng.choice(steps, len(steps)))
                for _ in range(resamples)
            ]
            low, high = np.quantile(ratios, [0.025, 0.975])
        found.append(
            {
                "clients": clients,
                "lr": lr,
                "reached": sum(row["reached"] == "True" for row in mine),
                **summary.columns(),
                "text": summary.text(0),
                "speedup": middle(base) / middle(steps),
                "speedup_low": low,
                "speedup_high": high,
            }
        )
    return found


def speedup_table(out: Path) -> None:
    """Print and write the steps a client needs, and draw them."""
    rows = speedups(read(out))
    write(out.with_name(f"{out.stem}_summary.csv"), rows)
    print(f"{'clients':>7} {'lr':>6} {'reached':>7}  {'steps of each client':55} speed-up")
    for row in rows:
        interval = ""
        if np.isfinite(row["speedup_low"]):
            interval = f" ({row['speedup_low']:.1f} to {row['speedup_high']:.1f})"
        print(
            f"{row['clients']:>7} {row['lr']:>6} {row['reached']:>4}/{row['seeds']:<2}  "
            f"{row['text']:55} {row['speedup']:.1f}{interval}"
        )
    draw_speedup(rows, out.with_suffix(".png"))


def draw_speedup(rows: Sequence[dict[str, Any]], path: Path) -> None:
    title = f"Federated A2C on cart_pole_v0 until return {THRESHOLD}\n{rows[0]['seeds']} seeds ({rows[0]['statistic']})"
    figure, (axes,) = new_figure(size=(6.4, 4.2), title=title)
    clients = np.array([row["clients"] for row in rows])
    middle, low, high = (np.array([row[name] for row in rows]) for name in ("score", "low", "high"))
    axes.plot(clients, middle[0] / clients, color=REFERENCE, linestyle=DASHES, linewidth=1)
    axes.errorbar(
        clients, middle, yerr=[middle - low, high - middle], color=EMPHASIS, marker="o", linewidth=2, capsize=4,
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(clients, [str(count) for count in clients])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("clients", fontsize=LABEL_SIZE)
    axes.set_ylabel(f"environment steps of each client until return {THRESHOLD}", fontsize=LABEL_SIZE)
    ends = (
        (float(middle[-1]), "measured", EMPHASIS),
        (middle[0] / clients[-1], "linear speed-up", REFERENCE),
    )
    label_ends(axes, ends)
    figure.savefig(path)
