"""``rllib video``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import (
    AllowImport,
    OtherEnv,
    OtherEnvConfig,
    check_output_file,
    chosen_policies,
    evaluation_env,
    load_policy_of,
    modes_of,
    scripted_env,
)
from qio_rllib.cli.output import say


def video(
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CHECKPOINT", help="Run directories, checkpoints or policy files."),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="The newest run in runs/, or in the folder that is given.")
    ] = False,
    out: Annotated[Path, typer.Option(help="GIF file to write.")] = Path("episode.gif"),
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the episode.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Most probable actions (default).")] = False,
    sampled: Annotated[bool, typer.Option("--sampled", help="Sampled actions.")] = False,
    env: OtherEnv = None,
    env_config: OtherEnvConfig = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Leave the episode after so many steps (default: 1,000 where the environment names no time limit).",
        ),
    ] = None,
    scripted: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A scripted policy of --env in place of a checkpoint; with --layout grid beside them. Repeatable.",
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(metavar="LAYOUT", help="single, or grid: all policies side by side, on the same seed."),
    ] = "single",
    allow_import: AllowImport = None,
) -> None:
    """Record an episode of a trained or scripted policy as an animated GIF, or of several side by side."""
    explore = modes_of(greedy, sampled) == ["sampled"]
    if out.suffix.lower() != ".gif":
        raise ConfigError(f"--out: expected a file that ends in .gif, got {out}")
    check_output_file(out)
    paths, names = checkpoints or [], scripted or []
    if layout == "grid":
        if latest:
            raise ConfigError("--layout: a grid shows several policies, --latest is one run")
        _grid(paths, names, out, seed, explore, env, env_config, max_steps, allow_import or ())
        return
    if layout != "single":
        raise ConfigError(f"--layout: expected single or grid, got {layout}")
    if len(paths) > 1 or len(names) > 1:
        raise ConfigError(
            f"one video shows one policy, got {len(paths) + len(names)} (side by side: --layout grid; the newest run "
            "of a folder: --latest FOLDER)"
        )
    settings: Mapping[str, Any]
    if names:
        if latest:
            raise ConfigError("--scripted: cannot go with --latest, it takes the place of a run")
        if greedy or sampled:
            raise ConfigError(
                "--scripted: cannot go with --greedy or --sampled, a scripted policy has one way to act"
            )
        env_id, settings = scripted_env(paths, env, env_config)

        from qio_rllib.sampling.evaluation import evaluation_seeds

        policy: Any = names[0]
        own_seeds, how = evaluation_seeds(1), names[0]
    else:
        (path,) = chosen_policies(paths, latest)
        policy, own_seeds = load_policy_of(path, allow_import or ())
        env_id, settings = evaluation_env(policy, env, env_config)
        how = "sampled" if explore else "greedy"

    from qio_rllib.artifacts.video import save_video

    episode_seed = own_seeds[0] if seed is None else seed
    row = save_video(policy, out, env_id, settings, seed=episode_seed, explore=explore, max_steps=max_steps)
    cut = f", cut after {row['episode_length']:,} steps" if row.get("cut") else ""
    say(f"{out}: {how} episode of seed {episode_seed}, return {row['episode_return']:g}{cut}")


def _grid(
    paths: Sequence[Path],
    names: Sequence[str],
    out: Path,
    seed: int | None,
    explore: bool,
    env: str | None,
    env_config: str | None,
    max_steps: int | None,
    allow_import: Sequence[str],
) -> None:
    """Record an episode of each policy on the same seed and write them side by side."""
    from qio_rllib.artifacts.video import record_episode, save_gif
    from qio_rllib.artifacts.video_grid import LONGEST_SIDE, MAX_PANELS, NUM_COLORS, Panel, grid_frames

    count = len(paths) + len(names)
    if not 2 <= count <= MAX_PANELS:
        raise ConfigError(f"--layout: a grid has 2 to {MAX_PANELS} policies, got {count}")
    how = "sampled actions" if explore else "without exploration"
    jobs: list[tuple[str, Any, str, Mapping[str, Any]]] = []
    seeds: list[int] = []
    for path, label in zip(paths, _labels(paths), strict=True):
        policy, seeds = load_policy_of(path, allow_import)
        jobs.append((label, policy, *evaluation_env(policy, env, env_config)))
    for name in names:
        if env is None and jobs:  # beside trained policies: where the first of them acts
            jobs.append((f"scripted: {name}", name, *jobs[0][2:]))
        else:
            jobs.append((f"scripted: {name}", name, *scripted_env([], env, env_config)))
    if not seeds:
        from qio_rllib.sampling.evaluation import evaluation_seeds

        seeds = evaluation_seeds(1)
    episode_seed = seeds[0] if seed is None else seed
    panels, fps = [], 0.0
    for label, policy, env_id, settings in jobs:
        frames, fps, row = record_episode(policy, env_id, settings, episode_seed, explore, max_steps)
        text = label if isinstance(policy, str) else f"{label}, {how}"
        panels.append(Panel(f"{text}: return {row['episode_return']:.1f}", frames))
    save_gif(grid_frames(panels), out, fps, LONGEST_SIDE, NUM_COLORS)
    say(f"{out}: {count} episodes of seed {episode_seed}")
    for panel in panels:
        say(f"  {panel.label}")


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the last names of folders that tell paths apart, at most three of each."""
    folders = [(path.parent if path.is_file() else path).resolve().parts for path in paths]
    for length in (1, 2, 3):
        labels = ["/".join(parts[-length:]) for parts in folders]
        if len(set(labels)) == len(labels):
            break
    return labels
