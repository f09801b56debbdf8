"""A league against self-play with the newest snapshot alone, at equal steps: who beats whom, who is exploited.

    python benchmarks/league_study.py train --seeds 5
    python benchmarks/league_study.py play                # cross-play of all final policies
    python benchmarks/league_study.py exploit             # rllib exploit --warm-start of each
    python benchmarks/league_study.py table

Games are ``duel`` of ``swarm_competitive_v0`` and ``mpe_tag_v0``. The league is that of ``benchmarks/leagues/``; its
policy is the main one of the last round. The other policy comes from one training with the same settings, as many
environment steps as all trainings of the league together, and ``self_play: {matchmaking: latest}``, a snapshot every
five iterations. Returns are those of one agent of a team in an episode.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import ray
from tables import append, has_row, read

from qio_rllib.artifacts.policy_file import load_policy
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.artifacts.run_directory import POLICY_FILE
from qio_rllib.evaluation.aggregate import describe
from qio_rllib.experiments import training
from qio_rllib.experiments.league import MAIN, League, Round
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.experiments.tournament import Contestant, tournament
from qio_rllib.sampling.evaluation import evaluation_seeds

ROOT = Path(__file__).resolve().parents[1]
LEAGUES = ROOT / "benchmarks" / "leagues"
RUNS, GAMES_PLAYED, EXPLOITED = (
    ROOT / "results" / f"league_study_{part}.csv" for part in ("runs", "games", "exploit")
)
GAMES = ("duel", "tag")
LEAGUE, NEWEST = "league", "latest"
EPISODES = 100


def train(game: str, seed: int, out: Path) -> None:
    """Train both, and note where they lie."""
    league = League.read(LEAGUES / f"{game}_league.yaml", seed)
    where = out / f"{game}_league" / f"seed_{seed}"
    steps = next(iter(league.experiment.stop.values()))

    def tell(found: Round) -> None:
        print(game, seed, "round", found.number, flush=True)

    found = league.play(where, training.train_or_go_on, tell)
    main = next(member for member in reversed(found.members) if member.role == MAIN)
    total = steps * len(found.members)
    config = {
        **league.experiment.config,
        "self_play": {"matchmaking": "latest", "snapshot_interval": 5},
        "evaluation_interval": None,
        "seed": seed,
    }
    newest = dataclasses.replace(
        league.experiment,
        name=f"{game}_latest",
        config=config,
        stop={next(iter(league.experiment.stop)): total},
    )
    result = training.train_or_go_on(newest, training.run_of(newest, out), out)
    rows = [
        {"game": game, "kind": kind, "seed": seed, "env_steps": int(total), "run": str(run.relative_to(out))}
        for kind, run in ((LEAGUE, main.run), (NEWEST, result.run_dir))
    ]
    append(RUNS, [{**row, "cpu": cpu_model()} for row in rows])


def play(game: str, out: Path) -> None:
    """Let all final policies of a game play against each other."""
    runs = [row for row in read(RUNS) if row["game"] == game]
    contestants = [
        Contestant(f"{row['kind']} {row['seed']}", load_policy(out / row["run"] / POLICY_FILE))
        for row in runs
    ]
    policy = contestants[0].policy
    rows = [
        {
            "game": game,
            "kind": runs[one.policy]["kind"],
            "seed": runs[one.policy]["seed"],
            "opponent_kind": runs[one.opponent]["kind"],
            "opponent_seed": runs[one.opponent]["seed"],
            "team": one.team,
            "return": round(float(one.own.mean()), 4),
            "return_of_others": round(float(one.others.mean()), 4),
            "score": round(float(one.scores.mean()), 4),
        }
        for one in tournament(contestants, policy.env, policy.env_config, evaluation_seeds(EPISODES))
    ]
    append(GAMES_PLAYED, rows)


def exploit(row: dict[str, str], steps: int, out: Path) -> None:
    """Let ``rllib exploit`` loose on a policy."""
    run = out / row["run"]
    folder = out / "exploit" / row["game"] / row["kind"] / row["seed"]
    command = [sys.executable, "-m", "qio_rllib.cli", "exploit", str(run), "--steps", str(steps)]
    command += ["--seeds", "0,1", "--episodes", "300", "--out", str(folder), "--quiet", "--warm-start"]
    subprocess.run(command, check=True)
    (path,) = folder.glob("*/responses.csv")
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    gains = {f"gain_of_team_{one['team']}": 0.0 for one in found}  # where no response gains
    gains |= {f"gain_of_team_{one['team']}": round(float(one["gain"]), 4) for one in found if one["gain"]}
    append(
        EXPLOITED,
        [
            {
                "game": row["game"],
                "kind": row["kind"],
                "seed": row["seed"],
                "response_steps": steps,
                "nash_conv": round(float(found[0]["nash_conv"]), 4),
                "half_width": round(float(found[0]["half_width"]), 4),
                **gains,
            }
        ],
    )


def table() -> None:
    """Print what came out."""
    for game in GAMES:
        played = [row for row in read(GAMES_PLAYED) if row["game"] == game]
        for kind, other in itertools.product((LEAGUE, NEWEST), repeat=2):
            for team in sorted({row["team"] for row in played}):
                returns: dict[str, list[float]] = {}
                for row in played:
                    between = (row["kind"], row["opponent_kind"], row["team"])
                    if between == (kind, other, team) and row["seed"] != row["opponent_seed"]:
                        returns.setdefault(row["seed"], []).append(float(row["return"]))
                means = [float(np.mean(values)) for values in returns.values()]
                print(f"{game}: {kind} in team {team} against {other}: {describe(means)}")
        for kind in (LEAGUE, NEWEST):
            found = [row for row in read(EXPLOITED) if (row["game"], row["kind"]) == (game, kind)]
            print(
                f"{game}: NashConv of {kind} at least {describe([float(row['nash_conv']) for row in found])}"
            )


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=("train", "play", "exploit", "table"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--games", nargs="+", choices=GAMES, default=list(GAMES))
    parser.add_argument("--response-steps", type=int, default=51_200)
    parser.add_argument("--out", type=Path, default=Path("runs/league_study"), help="where runs are kept")
    options = parser.parse_args()
    if options.part == "table":
        table()
        return
    with quiet_ray():
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    out = options.out.resolve()
    for game in options.games:
        if options.part == "play" and not has_row(GAMES_PLAYED, game=game):
            play(game, out)
        for seed in range(options.seeds):
            if options.part == "train" and not has_row(RUNS, game=game, seed=seed):
                train(game, seed, out)
    if options.part == "exploit":
        for row in read(RUNS):
            key = {name: row[name] for name in ("game", "kind", "seed")}
            if row["game"] in options.games and not has_row(EXPLOITED, **key):
                exploit(row, options.response_steps, out)


if __name__ == "__main__":
    main()
