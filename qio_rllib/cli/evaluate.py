"""``rllib evaluate``."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import (
    AllowImport,
    MaxSteps,
    OtherEnv,
    OtherEnvConfig,
    check_output_file,
    chosen_policies,
    evaluation_env,
    load_policy_of,
    modes_of,
    scripted_env,
    seeds_of,
)
from qio_rllib.cli.output import console, note, relative, say, seeds_text

if TYPE_CHECKING:
    from qio_rllib.acting.policy import Policy

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Scored:
    """What an evaluation has found of one policy.

    Attributes:
        name: Where it lies, or its name if it is scripted.
        env: The environment.
        changed: Settings of the environment that are not those of the training.
        seeds: Of the episodes.
        rows: One an episode, by the way of acting.
    """

    name: str
    env: str
    changed: Mapping[str, Any]
    seeds: Sequence[int]
    rows: Mapping[str, Rows]

    @property
    def where(self) -> str:
        """The environment, with what was changed of it."""
        settings = ", ".join(f"{key} {json.dumps(value)}" for key, value in self.changed.items())
        return f"{self.env} ({settings})" if settings else self.env

    @property
    def episodes(self) -> str:
        """The episodes in words."""
        return f"{len(self.seeds)} episodes, seeds {seeds_text(self.seeds)}"


def evaluate(
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Run directories, checkpoints or policy files; several are compared.",
        ),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="The newest run in runs/, or in the folder that is given.")
    ] = False,
    episodes: Annotated[int | None, typer.Option(min=1, help="Number of episodes.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of the episodes, such as 1,2,3.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Most probable actions only.")] = False,
    sampled: Annotated[bool, typer.Option("--sampled", help="Sampled actions only.")] = False,
    env: OtherEnv = None,
    env_config: OtherEnvConfig = None,
    max_steps: MaxSteps = None,
    render: Annotated[bool, typer.Option("--render", help="Show the episodes in a window.")] = False,
    scripted: Annotated[
        str | None, typer.Option(metavar="NAME", help="A scripted policy of --env in place of a checkpoint.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file for one row per episode.")] = None,
    allow_import: AllowImport = None,
) -> None:
    """Score policies on fixed seeds; without options, on those of each run's own final evaluation."""
    if episodes is not None and seeds is not None:
        raise ConfigError("--episodes: cannot go with --seeds, which says how many there are")
    check_output_file(out)
    modes = modes_of(greedy, sampled)
    chosen = seeds_of(seeds)
    if scripted is not None and latest:
        raise ConfigError("--scripted: cannot go with --latest, it takes the place of a run")
    if scripted is not None and (greedy or sampled):
        raise ConfigError(
            "--scripted: cannot go with --greedy or --sampled, a scripted policy has one way to act"
        )
    if render:
        from qio_rllib.artifacts.rendering import check_display

        check_display()
    settings: Mapping[str, Any]
    found: list[Scored] = []
    failed: list[ConfigError] = []
    if scripted is not None:
        env_id, settings = scripted_env(checkpoints or (), env, env_config)

        from qio_rllib.sampling.evaluation import evaluation_seeds

        own = _counted(evaluation_seeds(10) if chosen is None else chosen, episodes)
        rows = {scripted: _played(scripted, env_id, settings, own, False, max_steps, render)}
        found.append(Scored(scripted, env_id, settings, own, rows))
    else:
        for path in chosen_policies(checkpoints or (), latest):
            try:
                policy, own = load_policy_of(path, allow_import or ())
                env_id, settings = evaluation_env(policy, env, env_config)
                own = _counted(own if chosen is None else chosen, episodes)
                rows = {
                    mode: _played(policy, env_id, settings, own, mode == "sampled", max_steps, render)
                    for mode in modes
                }
            except ConfigError as error:  # the others may be sound
                failed.append(error)
                continue
            before = policy.env_config if env_id == policy.env else {}
            changed = {key: value for key, value in settings.items() if before.get(key) != value}
            found.append(Scored(relative(path), env_id, changed, own, rows))
    if not found:
        raise failed[0]
    is_one = len(found) + len(failed) == 1
    if out is not None:
        from qio_rllib.artifacts.files import write_csv

        write_csv(
            out,
            [
                {**({} if is_one else {"run": one.name}), "mode": mode, **row}
                for one in found
                for mode, each in one.rows.items()
                for row in each
            ],
        )
    if is_one:
        _print_scores(found[0])
    else:
        _print_runs(found)
    for one in found:
        _note_cut(one, is_one)
    if failed:
        raise ConfigError(f"{len(failed)} of {len(found) + len(failed)} cannot be evaluated: {failed[0]}")


def _played(
    policy: Policy | str,
    env_id: str,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    explore: bool,
    max_steps: int | None,
    render: bool,
) -> Rows:
    """Play one episode per seed, in a window if that is asked for."""
    if render:
        from qio_rllib.artifacts.rendering import show_episodes

        return show_episodes(policy, env_id, settings, seeds, explore, max_steps)
    if isinstance(policy, str):
        from qio_rllib.experiments.scripted import evaluate_scripted

        return evaluate_scripted(policy, env_id, settings, seeds, max_steps)
    from qio_rllib.sampling.evaluation import evaluate as play

    return play(policy, env_id, settings, seeds, explore, max_steps)


def _counted(seeds: list[int], episodes: int | None) -> list[int]:
    """Return as many seeds as episodes: the first ones, then those that count on from the largest."""
    if episodes is None:
        return seeds
    return [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + episodes)][:episodes]


def _print_scores(scored: Scored) -> None:
    """Print mean and standard deviation of every metric, one column per way of acting."""
    from rich import box
    from rich.table import Table

    from qio_rllib.sampling.evaluation import mean_scores

    say(f"{scored.where}, {scored.episodes}")
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("mean ± deviation")
    for mode in scored.rows:
        table.add_column(mode, justify="right")
    means = {mode: mean_scores(rows) for mode, rows in scored.rows.items()}
    for name in dict.fromkeys(key for values in means.values() for key in values):
        table.add_row(
            name,
            *(_cell(rows, name) if name in means[mode] else "" for mode, rows in scored.rows.items()),
        )
    console().print(table)


def _print_runs(found: Sequence[Scored]) -> None:
    """Print mean and standard deviation of the score, one row per policy."""
    from rich import box
    from rich.table import Table

    from qio_rllib.artifacts.metrics import score_name

    places = {one.where for one in found}
    counts = {one.episodes for one in found}
    scores = {score_name(rows[0]) for one in found for rows in one.rows.values()}
    heading = [
        "mean ± deviation of " + " or ".join(sorted(name.replace("_", " ") for name in scores if name))
    ]
    heading += [*places] if len(places) == 1 else []
    heading += [*counts] if len(counts) == 1 else []
    say(", ".join(heading))
    table = Table(box=box.SIMPLE, pad_edge=False)
    folder = _common_folder([one.name for one in found])
    table.add_column(f"policy in {folder}" if folder else "policy", overflow="fold")
    if len(places) > 1:
        table.add_column("environment", overflow="fold")
    if len(counts) > 1:
        table.add_column("episodes", overflow="fold")
    modes = list(dict.fromkeys(mode for one in found for mode in one.rows))
    for mode in modes:
        table.add_column(mode, justify="right", no_wrap=True)
    for one in found:
        cells = [os.path.relpath(one.name, folder) if folder else one.name]
        cells += [one.where] if len(places) > 1 else []
        cells += [one.episodes] if len(counts) > 1 else []
        for mode in modes:
            name = score_name(one.rows[mode][0])
            cells.append("" if name is None else _cell(one.rows[mode], name))
        table.add_row(*cells)
    console().print(table)


def _common_folder(names: Sequence[str]) -> str:
    """Return the folder that all lie in, so that a table need not repeat it; empty where there is none."""
    folders = {os.path.dirname(name) for name in names}
    if len({os.path.isabs(folder) for folder in folders}) > 1:
        return ""
    return os.path.commonpath(folders)


def _cell(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return mean and standard deviation of a metric over the episodes."""
    from qio_rllib.sampling.evaluation import mean_scores

    values, mean = [row[name] for row in rows if name in row], mean_scores(rows)[name]
    if len(values) < 2:
        return f"{mean:.6g}"
    deviation = statistics.stdev(values)
    if deviation < 1e-6 * abs(
        mean
    ):  # what rounding leaves of equal values: none of it is in the mean's digits
        deviation = 0.0
    return f"{mean:.6g} ± {deviation:.4g}"


def _note_cut(scored: Scored, is_one: bool) -> None:
    """Say so where episodes were left before their end."""
    from qio_rllib.sampling.evaluation import cut_text

    for mode, rows in scored.rows.items():
        cut = cut_text(rows)
        if cut is not None:
            whose = mode if is_one else f"{scored.name}, {mode}"
            note(f"{whose}: {cut} (--max-steps)")
