"""Federations of the cart-pole task: speed-up by more clients, what privacy costs, and what a round costs.

    python benchmarks/federated_cart_pole.py speedup
    python benchmarks/federated_cart_pole.py speedup_momentum
    python benchmarks/federated_cart_pole.py privacy
    python benchmarks/federated_cart_pole.py privacy_skellam
    python benchmarks/federated_cart_pole.py overhead --flower-python PYTHON    # see federated_flower.py
    python benchmarks/federated_cart_pole.py speedup --table                    # of what is there, no training

All clients train A2C with two hidden layers of 16 units: 755 weights with the value network. Returns are those of the
common policy in fixed evaluation episodes with the default pole, at most 500.

speedup: 1 to 16 equal clients, all of them in every round, one gradient step each. How many environment steps *each
client* takes until the sampled return in 20 episodes is at least 400, measured every second round; theory has it that
the steps fall as one over the number of clients (Fan et al., 2021; Zhang et al., 2024: FedSARSA), each number with a
step size of its own. So the learning rate of each number of clients is the best of at least three on other seeds, where
greater ones are tried as long as the greatest is the best. A learning rate of the server would be a second name for the
clients': with one gradient step a round they multiply each other.

speedup_momentum: the same with momentum 0.9 at the server, whose steps are ten times as long in the end.

privacy: 1,000 equal clients, each in a round with probability 0.1, four gradient steps each. Gaussian noise on the sum,
seeded, so that epsilon is that of a simulation; beside it the same federation without privacy. The clip is the better
of two on another seed.

privacy_skellam: after it, the same federation with integer noise under secure sums, which binds the server too and is
not amplified by sampling; so much that epsilon is that of a row of Gaussian noise.

overhead: 1,000 equal clients, 100 a round. CPU milliseconds a client and round of the whole trainer in one process, of
as many training steps of one Algorithm, and of Flower's simulation with clients that do nothing; and the memory of the
process that trains, without what it shares with others, after each round.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from federated_flower import SIMULATION, theirs
from scipy.optimize import brentq
from tables import append, read, write

import qio_envs
from qio_envs.api import reference_scores
from qio_rllib.algorithms import Federated, FederatedConfig
from qio_rllib.artifacts.plot_style import (
    DASHES,
    EMPHASIS,
    LABEL_SIZE,
    MODE_COLORS,
    MODE_LABELS,
    REFERENCE,
    label_ends,
    new_figure,
)
from qio_rllib.artifacts.run_description import cpu_model, run_description
from qio_rllib.evaluation.aggregate import LEAST_SEEDS_FOR_INTERVAL, Summary, interquartile_mean
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
    evaluate,
    evaluation_seeds,
    mean_scores,
    policy_from_modules,
)

OUT = Path("results/federated")
ENV = "cart_pole_v0"
LOCAL: dict[str, Any] = {
    "run": "A2C",
    "gamma": 0.99,
    "lambda_": 0.95,
    "entropy_coeff": 0.0,
    "model_config": {"fcnet_hiddens": [16, 16], "fcnet_activation": "tanh"},
}

SPEEDUP, MOMENTUM, OVERHEAD = "speedup", "speedup_momentum", "overhead"
PRIVACY, SKELLAM = "privacy", "privacy_skellam"
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

FEDERATION, SAMPLED = 1000, 100
PRIVACY_SAMPLING = {"num_envs_per_env_runner": 8, "rollout_fragment_length": 16}
PRIVACY_LR, LOCAL_ITERATIONS, DELTA, PRIVACY_EPISODES = 0.03, 4, 1e-5, 100
NOISE = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Noise multipliers; 0 stands for no privacy, without clipping."""
CLIPS, PRIVACY_TUNING_SEED, TUNING_NOISE = (1.0, 2.0), 100, 1.0
EQUAL_NOISE, FEWEST = 1.0, 60
"""The Gaussian noise multiplier whose epsilon Skellam noise has, and the clients whose noise is enough for it."""

FEW_STEPS = {"num_envs_per_env_runner": 4, "rollout_fragment_length": 4}
OVERHEAD_LR = 1e-3
DRIVER, HOST, ALONE, FLOWER = "in the driver", "on a host", "training alone", "Flower"


def local_of(sampling: dict[str, int], lr: float) -> dict[str, Any]:
    """Return the local algorithm: one gradient step from a fragment of each environment."""
    steps = sampling["num_envs_per_env_runner"] * sampling["rollout_fragment_length"]
    batch = {"train_batch_size_per_learner": steps, "min_sample_timesteps_per_iteration": steps}
    return {**LOCAL, **sampling, **batch, "lr": lr}


def config_of(seed: int, count: int, local: dict[str, Any], **settings: Any) -> FederatedConfig:
    """Return a federation of equal clients."""
    config = FederatedConfig().environment(ENV).debugging(seed=seed)
    return config.training(local=local, clients=[{"count": count}], evaluation_clients=0, **settings)


def score(algorithm: Federated, episodes: int, explore: bool) -> float:
    """Return the mean return of the common policy."""
    policy = policy_from_modules(dict(algorithm.common_modules().items()), algorithm.config)
    return mean_scores(evaluate(policy, ENV, {}, evaluation_seeds(episodes), explore))["team_return"]


def is_there(rows: Sequence[dict[str, str]], **where: Any) -> bool:
    """Return whether a row has these values."""
    return any(all(row[key] == str(value) for key, value in where.items()) for row in rows)


def append_shown(out: Path, row: dict[str, Any]) -> None:
    """Add a row to a table at once, and print it."""
    append(out, [row])
    print(row, flush=True)


# -- speed-up --------------------------------------------------------------------------------------------------------


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


# -- privacy ---------------------------------------------------------------------------------------------------------


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


# -- overhead --------------------------------------------------------------------------------------------------------


def own_mib(_: Any = None) -> float:
    """Return the resident memory of this process, MiB, without what it shares: libraries and Ray's object store."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("RssAnon")]
    return int(line.split()[1]) / 2**10


def overhead_row(who: str, number: int, cpu_ms: float, **memory: float) -> dict[str, Any]:
    """Return a row; ``number`` is the round, or how many there were where all are one row."""
    columns = ("trainer_mib", "driver_mib", "records_mib")
    values = {name: round(memory[name], 3) if name in memory else "" for name in columns}
    return {
        "who": who,
        "round": number,
        "clients": SAMPLED,
        "cpu_ms": "" if np.isnan(cpu_ms) else round(cpu_ms, 3),
        **values,
        "cpu": cpu_model(),
    }


def rounds_of(hosts: int, rounds: int, sampling: dict[str, int]) -> list[dict[str, Any]]:
    """Return a row for each round of a federation; CPU milliseconds are those of the driver's process."""
    settings = {"participation": {"clients": SAMPLED}, "num_hosts": hosts}
    algorithm = config_of(0, FEDERATION, local_of(sampling, OVERHEAD_LR), **settings).build_algo()
    rows = []
    for number in range(1, rounds + 1):
        started = time.process_time()
        algorithm.train()
        cpu_ms = 1e3 * (time.process_time() - started) / SAMPLED
        kept = (
            sum(len(record.state) + record.personal.nbytes for record in algorithm.records.values()) / 2**20
        )
        driver = own_mib()
        trainer = driver
        if algorithm.hosts._actors is not None:
            (answer,) = algorithm.hosts._actors.foreach_actor(own_mib)
            trainer, cpu_ms = answer.get(), np.nan
        memory = {"trainer_mib": trainer, "driver_mib": driver, "records_mib": kept}
        rows.append(overhead_row(HOST if hosts else DRIVER, number, cpu_ms, **memory))
    algorithm.stop()
    return rows


def training_alone(rounds: int, sampling: dict[str, int]) -> dict[str, Any]:
    """Return the row of one client's Algorithm that takes as many training steps as all clients of some rounds."""
    config = config_of(0, FEDERATION, local_of(sampling, OVERHEAD_LR))
    algorithm = config.client_config(config.all_clients()[0]).build_algo()
    for _ in range(SAMPLED):
        algorithm.training_step()
    started = time.process_time()
    for _ in range(rounds * SAMPLED):
        algorithm.training_step()
        algorithm.metrics.reduce()
    seconds = time.process_time() - started
    algorithm.stop()
    return overhead_row(ALONE, rounds, 1e3 * seconds / (rounds * SAMPLED))


def overhead(out: Path, rounds: int, flower_python: str) -> None:
    """Measure all parts one after the other, and write them together: they are to be compared in one run."""
    sampling = FEW_STEPS
    rows = [training_alone(max(1, rounds // 10), sampling)]
    rows += rounds_of(0, rounds, sampling)
    size = 755
    found = theirs(flower_python, SIMULATION, FEDERATION, SAMPLED, size, max(1, rounds // 20))
    rows.append(overhead_row(FLOWER, max(1, rounds // 20), 1e3 * found["cpu_seconds"] / SAMPLED))
    rows.append(training_alone(max(1, rounds // 10), sampling))
    rows += rounds_of(1, rounds, sampling)
    write(out, rows)


def overheads(rows: Sequence[dict[str, str]]) -> dict[str, float]:
    """Return the numbers of the table: CPU milliseconds a client and round, and MiB of memory."""
    by_who = {who: [row for row in rows if row["who"] == who] for who in (DRIVER, HOST, ALONE, FLOWER)}
    # The first round compiles; the median leaves out what else the machine did.
    whole = float(np.median([float(row["cpu_ms"]) for row in by_who[DRIVER][1:]]))
    alone = float(np.mean([float(row["cpu_ms"]) for row in by_who[ALONE]]))
    found = {
        "whole": whole,
        "alone": alone,
        "difference": whole - alone,
        "flower": float(np.mean([float(row["cpu_ms"]) for row in by_who[FLOWER]])),
    }
    for name, who in (("driver", DRIVER), ("host", HOST)):
        mine = by_who[who]
        half = mine[len(mine) // 2]
        found |= {
            f"{name}_half": float(half["trainer_mib"]),
            f"{name}_end": float(mine[-1]["trainer_mib"]),
            f"{name}_records_half": float(half["records_mib"]),
            f"{name}_records_end": float(mine[-1]["records_mib"]),
        }
    return found


def overhead_table(out: Path) -> None:
    """Print what a client and round costs, and the memory half-way and at the end."""
    rows = read(out)
    found = overheads(rows)
    print(
        f"CPU milliseconds a client and round: {found['whole']:.1f}, of which training {found['alone']:.1f}; the "
        f"rest {found['difference']:.1f}; Flower's simulation without training {found['flower']:.1f}"
    )
    print(f"{'':15}{'round':>6}{'process, MiB':>14}{'records, MiB':>14}")
    for who in (DRIVER, HOST):
        mine = [row for row in rows if row["who"] == who]
        for place in sorted({0, len(mine) // 4, len(mine) // 2, 3 * len(mine) // 4, len(mine) - 1}):
            row = mine[place]
            print(f"{who:15}{row['round']:>6}{row['trainer_mib']:>14}{row['records_mib']:>14}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=[*SERVERS, PRIVACY, SKELLAM, OVERHEAD])
    parser.add_argument("--seeds", type=int, help="number of seeds, from 0 (speedup 10, privacy 3)")
    parser.add_argument("--rounds", type=int, help="of a run (privacy 12, overhead 50)")
    parser.add_argument("--flower-python", help="of overhead: Python of an environment that holds flwr")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write")
    parser.add_argument("--table", action="store_true", help="of what is there, no training")
    given = parser.parse_args(arguments)
    out = given.out / f"{given.study}.csv"
    command = ["python", "benchmarks/federated_cart_pole.py", given.study]
    if given.study == OVERHEAD and not given.table and given.flower_python is None:
        parser.error("overhead: --flower-python is missing")
    if not given.table:
        info = run_description(command)
        if given.study in SERVERS:
            speedup(given.study, range(given.seeds or 10), out)
        elif given.study == PRIVACY:
            privacy(range(given.seeds or 3), out, given.rounds or 12)
        elif given.study == SKELLAM:
            skellam(range(given.seeds or 3), out, given.rounds or 12)
        else:
            overhead(out, given.rounds or 50, given.flower_python)
        out.with_suffix(".json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    tables = {PRIVACY: privacy_table, SKELLAM: print_privacy, OVERHEAD: overhead_table}
    tables.get(given.study, speedup_table)(out)


if __name__ == "__main__":
    main()
