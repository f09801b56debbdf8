"""``rllib tournament``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import (
    AllowImport,
    MaxSteps,
    OtherEnv,
    OtherEnvConfig,
    evaluation_env,
    load_policy_of,
)
from qio_rllib.cli.output import console, relative, say

if TYPE_CHECKING:
    from qio_rllib.games.cross_play import CrossPlay, Pairing

PAIRINGS, RANKING, FIGURE = "pairings.csv", "ranking.csv", "cross_play.png"
"""What ``--out`` gets."""


def tournament(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(metavar="CHECKPOINT...", help="Run directories, checkpoints or policy files."),
    ],
    episodes: Annotated[
        int, typer.Option(min=1, help="Episodes of each pair of policies in each team.")
    ] = 50,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Most probable actions (default: sampled ones).")
    ] = False,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Expected returns, no episodes (games of OpenSpiel, matrix games without memory)."
        ),
    ] = False,
    teams: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="Lists of agents (default: the agents of each module, or each agent)."
        ),
    ] = None,
    env: OtherEnv = None,
    env_config: OtherEnvConfig = None,
    max_steps: MaxSteps = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New directory for the figure and the tables.")
    ] = None,
    allow_import: AllowImport = None,
) -> None:
    """Let policies play against each other: scores with intervals, ratings, alpha-rank and equilibrium.

    Each policy plays each team against each policy in all other teams, on the same seeds. A score is 1 for an episode
    in which an agent of the team earns more on average than the others, 0.5 for as much, 0 for less; with --exact it is
    1 where more is expected.
    """
    if len(checkpoints) < 2:
        raise ConfigError(f"a tournament needs two policies at least, got {len(checkpoints)}")
    if out is not None and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise ConfigError(f"--out: {out} exists already")
    if exact and greedy:
        raise ConfigError("--exact: expects what sampled actions earn; leave out --greedy")
    sides = teams_given(teams)

    from qio_rllib.experiments.tournament import Contestant
    from qio_rllib.experiments.tournament import tournament as play
    from qio_rllib.games.cross_play import CrossPlay
    from qio_rllib.sampling.evaluation import evaluation_seeds

    contestants = []
    settings: Any = {}
    for number, path in enumerate(checkpoints):
        policy, _ = load_policy_of(path, allow_import or ())
        if number == 0:
            env_id, settings = evaluation_env(policy, env, env_config)
        else:
            try:
                evaluation_env(policy, str(env_id), json.dumps(dict(settings)))
            except ConfigError as error:
                raise ConfigError(
                    f"{relative(path)}: cannot play in the environment of {relative(checkpoints[0])}: {error}"
                ) from error
        contestants.append(Contestant(relative(path), policy))
    seeds = None if exact else evaluation_seeds(episodes)
    pairings = play(contestants, env_id, settings, seeds, sides, not greedy, max_steps)
    names = [one.name for one in contestants]
    found = CrossPlay.of(pairings, len(names))
    played = f"{episodes} episodes of each pair and team, {'most probable' if greedy else 'sampled'} actions"
    say(f"{env_id}: {'expected returns of each pair and team' if exact else played}")
    print_cross_play(names, found, exact)
    if out is not None:
        write_cross_play(out, names, found, pairings)
        say(f"written to {relative(out)}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def teams_given(text: str | None) -> list[list[Any]] | None:
    """Read ``--teams``; None without it."""
    if text is None:
        return None
    try:
        teams = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--teams: not valid JSON: {error}") from error
    if not isinstance(teams, list) or not all(isinstance(team, list) for team in teams):
        raise ConfigError(f'--teams: expected lists of agents, such as [["a", "b"], ["c"]], got {text}')
    return teams


def print_cross_play(names: Sequence[str], found: CrossPlay, exact: bool = False) -> None:
    """Print the policies, and a row for each: its scores against all, and where it stands.

    Up to three policies have the interval of each score beside it, unless there are expected returns in place of
    episodes (``exact``); up to six only scores; of more there is no room for those.
    """
    from rich import box
    from rich.table import Table

    for number, name in enumerate(names, 1):
        say(f"({number}) {name}")
    count = len(names)
    shown = count if count <= 6 else 0
    title = "mean score of the row's policy" if shown else "mean score against all"
    table = Table(box=box.SIMPLE, pad_edge=False, title=title, title_justify="left")
    for head in ("", *(f"({number})" for number in range(1, shown + 1)), *(("score",) if not shown else ())):
        table.add_column(head, justify="right", no_wrap=True)
    for head in ("payoff", "Elo", "alpha-rank", "Nash"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in range(count):
        scores = [
            f"{score:.2f}±{error:.2f}" if count <= 3 and not exact else f"{score:.2f}"
            for score, error in zip(found.scores[row, :shown], found.score_errors[row], strict=False)
        ]
        table.add_row(
            f"({row + 1})",
            *(scores if shown else [f"{found.scores[row].mean():.2f}"]),
            f"{found.payoffs[row].mean():.3g}",
            f"{found.elo[row]:.0f}",
            f"{found.alpha_rank[row]:.2f}",
            f"{found.nash[row]:.2f}",
        )
    console().print(table)
    intervals = "±: 95% interval over episodes; "
    if count > 3:
        intervals = f"95% intervals of scores over episodes: ±{found.score_errors.max():.2f} at most; "
    say(f"{'' if exact else intervals}payoff: an agent's mean return against all")
    say(f"effective diversity of the scores: {found.diversity:.2f} of {len(names)} policies")


def write_cross_play(out: Path, names: Sequence[str], found: CrossPlay, pairings: Sequence[Pairing]) -> None:
    """Write the tables and the figure into a directory."""
    from qio_rllib.artifacts.cross_play_plot import plot_cross_play
    from qio_rllib.artifacts.files import write_csv

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(
            out / PAIRINGS,
            [
                {
                    "policy": names[one.policy],
                    "opponent": names[one.opponent],
                    "team": one.team,
                    "episode": episode,
                    "return": own,
                    "return_of_others": other,
                }
                for one in pairings
                for episode, (own, other) in enumerate(zip(one.own, one.others, strict=True))
            ],
        )
        write_csv(
            out / RANKING,
            [
                {
                    "policy": name,
                    "payoff": found.payoffs[row].mean(),
                    "score": found.scores[row].mean(),
                    "elo": found.elo[row],
                    "alpha_rank": found.alpha_rank[row],
                    "nash": found.nash[row],
                }
                for row, name in enumerate(names)
            ],
        )
        plot_cross_play(names, found, out / FIGURE)
    except OSError as error:
        raise ConfigError(f"--out: cannot write to {out}: {error.strerror}") from error
