"""Self-play and PSRO in games whose exploitability is known exactly: rock-paper-scissors and Kuhn poker.

    python benchmarks/small_games.py cycle --seeds 5     # self-play against the newest snapshot alone
    python benchmarks/small_games.py psro --seeds 5      # benchmarks/leagues/*_psro.yaml
    python benchmarks/small_games.py exploit --seeds 5   # what rllib exploit says of those, beside the exact value
    python benchmarks/small_games.py figure              # of what is there

``cycle`` trains PPO on one throw of rock, paper, scissors with ``matchmaking: latest`` and a snapshot an iteration; the
NashConv is that of the policy of each iteration and of the average of all policies so far. ``psro`` takes the NashConv
of the mixture after each round, with the weights that the league gives, and that of its newest policy; in Kuhn poker by
OpenSpiel. A NashConv is what both players together gain by best responses, in units of a throw's or a chip's payoff.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import ray
from tables import append, has_row, read

from qio_envs import matrix_game_v0
from qio_rllib.acting.policy import Policy
from qio_rllib.acting.tabular import policy_function
from qio_rllib.algorithms import PPOConfig
from qio_rllib.artifacts.plot_style import Series, plot_series
from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.artifacts.run_directory import POLICY_FILE
from qio_rllib.experiments import training
from qio_rllib.experiments.league import League, Round
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.games.game import Game
from qio_rllib.games.openspiel import tabular_mixture_nash_conv
from qio_rllib.games.regret import nash_conv
from qio_rllib.sampling.evaluation import policy_from_modules

ROOT = Path(__file__).resolve().parents[1]
LEAGUES = ROOT / "benchmarks" / "leagues"
RESULTS = ROOT / "results"
IMAGES = ROOT / "docs" / "images"
CYCLE, PSRO, EXPLOIT = (RESULTS / f"small_games_{part}.csv" for part in ("cycle", "psro", "exploit"))
THROW = {"scenario": "rock_paper_scissors", "rounds": 1}
_ENV = matrix_game_v0.batched_env(1, **THROW)
GAME = Game(_ENV.config.payoff_table[0])
_ENV.reset(0)
SEEN = _ENV.observe()[0, :1]  # what both see in each round, float32 [1, 1]
ITERATIONS = 150


def throws(policy: Policy) -> np.ndarray:
    """Return with which probabilities a policy throws rock, paper and scissors, ``[3]``."""
    return policy.probabilities("agent_0", SEEN)[0]


def conv_of_throws(policies: Sequence[Policy], weights: np.ndarray) -> float:
    """Return the NashConv of a mixture in rock, paper, scissors."""
    average = weights @ np.array([throws(policy) for policy in policies])
    return nash_conv(GAME, [average, average])


def conv_of_kuhn(policies: Sequence[Policy], weights: np.ndarray) -> float:
    """Return the NashConv of a mixture in Kuhn poker."""
    return tabular_mixture_nash_conv(
        "kuhn_poker", [policy_function(one) for one in policies], weights.tolist()
    )


GAMES: dict[str, Callable[[Sequence[Policy], np.ndarray], float]] = {
    "rock_paper_scissors": conv_of_throws,
    "kuhn": conv_of_kuhn,
}


def cycle(seed: int) -> None:
    """Train against the newest snapshot alone, and keep what is played."""
    config = (
        PPOConfig()
        .environment("matrix_game_v0", env_config=THROW)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=64)
        .training(
            self_play={"matchmaking": "latest", "snapshot_interval": 1, "current_share": 0.0},
            train_batch_size_per_learner=512,
            minibatch_size=256,
            num_epochs=10,
            lr=3e-3,
            entropy_coeff=0.1,
            use_kl_loss=False,
        )
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .debugging(seed=seed)
    )
    algorithm = config.build_algo()
    played, rows = [], []
    for iteration in range(ITERATIONS):
        algorithm.train()
        modules = dict(algorithm.env_runner.module.items())
        played.append(throws(policy_from_modules(modules, config)))
        average = np.mean(played, axis=0)
        names = ("rock", "paper", "scissors")
        rows.append(
            {
                "seed": seed,
                "iteration": iteration + 1,
                **{name: round(float(chance), 5) for name, chance in zip(names, played[-1], strict=True)},
                "nash_conv": round(nash_conv(GAME, [played[-1], played[-1]]), 5),
                "nash_conv_of_average": round(nash_conv(GAME, [average, average]), 5),
                "cpu": cpu_model(),
            }
        )
    algorithm.stop()
    append(CYCLE, rows)


def psro(game: str, seed: int, out: Path) -> None:
    """Train a league, and keep the NashConv after each round; go on with one that was interrupted."""
    league = League.read(LEAGUES / f"{game}_psro.yaml", seed)
    steps = next(iter(league.experiment.stop.values()))

    def tell(found: Round) -> None:
        if has_row(PSRO, game=game, seed=seed, round=found.number):
            return
        policies = [load_policy(member.run / POLICY_FILE) for member in found.members]
        newest = GAMES[game](policies[-1:], np.ones(1))
        row = {
            "game": game,
            "seed": seed,
            "round": found.number,
            "env_steps": int(found.number * steps),
            "nash_conv_of_mixture": round(GAMES[game](policies, found.weights), 5),
            "nash_conv_of_newest": round(newest, 5),
            "mixed": int((found.weights > 1e-3).sum()),
            "gain": round(found.gain, 5),
            "cpu": cpu_model(),
        }
        append(PSRO, [row])
        print(row, flush=True)

    league.play(out / game / f"{game}_psro" / f"seed_{seed}", training.train_or_go_on, tell)


def exploit(game: str, seed: int, out: Path) -> None:
    """Let ``rllib exploit`` loose on a league, and keep what it says beside the exact value."""
    folder = out / game / f"{game}_psro" / f"seed_{seed}"
    steps = {"rock_paper_scissors": 8_192, "kuhn": 49_152}[game]
    command = [sys.executable, "-m", "qio_rllib.cli", "exploit", str(folder), "--steps", str(steps)]
    command += ["--seeds", "0-2", "--episodes", "2000", "--out", str(folder), "--quiet"]
    subprocess.run(command, check=True)
    with (folder / f"{game}_psro_response" / "responses.csv").open(newline="") as file:
        (first, *_) = csv.DictReader(file)
    exact = [row for row in read(PSRO) if (row["game"], int(row["seed"])) == (game, seed)]
    league = League.read(LEAGUES / f"{game}_psro.yaml", seed)
    rounds = (league.experiment.config.get("env_config") or {}).get(
        "rounds", 1
    )  # returns are sums over these
    row = {
        "game": game,
        "seed": seed,
        "bound": round(float(first["nash_conv"]) / rounds, 5),
        "half_width": round(float(first["half_width"]) / rounds, 5),
        "exact": exact[-1]["nash_conv_of_mixture"],
        "cpu": cpu_model(),
    }
    append(EXPLOIT, [row])
    print(row, flush=True)


def figure() -> None:
    """Draw what is there."""
    series = []
    for game in GAMES:
        rows = [row for row in read(PSRO) if row["game"] == game]
        seeds = sorted({row["seed"] for row in rows})
        values = np.array(
            [[float(row["nash_conv_of_mixture"]) for row in rows if row["seed"] == seed] for seed in seeds]
        )
        series.append(
            Series(
                game.replace("_", " "),
                np.arange(1, values.shape[1] + 1),
                values.mean(axis=0),
                values.min(axis=0),
                values.max(axis=0),
                len(seeds),
                "mean, least to greatest",
                marked=True,
            )
        )
    plot_series(
        series,
        IMAGES / "small_games_psro.png",
        "NashConv of the mixture",
        title="PSRO in games that can be solved",
        xlabel="round",
    )
    rows = [row for row in read(CYCLE) if row["seed"] == "0"]
    steps = np.array([int(row["iteration"]) for row in rows])
    plot_series(
        [
            Series(name, steps, np.array([float(row[name]) for row in rows]))
            for name in ("rock", "paper", "scissors")
        ],
        IMAGES / "small_games_cycle.png",
        "probability",
        title="Self-play against the newest snapshot, seed 0",
        xlabel="iteration",
    )


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("cycle", "psro", "exploit", "figure"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--games", nargs="+", choices=list(GAMES), default=list(GAMES))
    parser.add_argument("--out", type=Path, default=Path("runs/small_games"), help="where leagues are kept")
    options = parser.parse_args()
    if options.part == "figure":
        figure()
        return
    with quiet_ray():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    for seed in range(options.seeds):
        if options.part == "cycle":
            if not has_row(CYCLE, seed=seed, iteration=ITERATIONS):
                cycle(seed)
            continue
        for game in options.games:
            rounds = League.read(LEAGUES / f"{game}_psro.yaml").rounds
            if options.part == "psro" and not has_row(PSRO, game=game, seed=seed, round=rounds):
                psro(game, seed, options.out)
            if options.part == "exploit" and not has_row(EXPLOIT, game=game, seed=seed):
                exploit(game, seed, options.out)


if __name__ == "__main__":
    main()
