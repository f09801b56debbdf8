"""``rllib video``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from qio_envs.api import ConfigError
from qio_rllib.cli.arguments import (
    AllowImport,
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
        typer.Argument(metavar="CHECKPOINT", help="Run directory, checkpoint or policy file."),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="The newest run in runs/, or in the folder that is given.")
    ] = False,
    out: Annotated[Path, typer.Option(help="GIF file to write.")] = Path("episode.gif"),
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the episode.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Most probable actions (default).")] = False,
    sampled: Annotated[bool, typer.Option("--sampled", help="Sampled actions.")] = False,
    env: Annotated[str | None, typer.Option(help="Another environment than that of the training.")] = None,
    env_config: Annotated[
        str | None,
        typer.Option(help="Its settings as a JSON object; of the training's environment, only what changes."),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Leave the episode after so many steps (default: 1,000 where the environment names no time limit).",
        ),
    ] = None,
    scripted: Annotated[
        str | None, typer.Option(metavar="NAME", help="A scripted policy of --env in place of a checkpoint.")
    ] = None,
    allow_import: AllowImport = None,
) -> None:
    """Record an episode of a trained or scripted policy as an animated GIF."""
    explore = modes_of(greedy, sampled) == ["sampled"]
    if out.suffix.lower() != ".gif":
        raise ConfigError(f"--out: expected a file that ends in .gif, got {out}")
    check_output_file(out)
    settings: Mapping[str, Any]
    given = checkpoints or []
    if len(given) > 1:
        raise ConfigError(
            f"a video shows one policy, got {len(given)} paths (--latest FOLDER takes the newest run of a folder)"
        )
    if scripted is not None:
        if latest:
            raise ConfigError("--scripted: cannot go with --latest, it takes the place of a run")
        if greedy or sampled:
            raise ConfigError(
                "--scripted: cannot go with --greedy or --sampled, a scripted policy has one way to act"
            )
        env_id, settings = scripted_env(given, env, env_config)

        from qio_rllib.sampling.evaluation import evaluation_seeds

        policy: Any = scripted
        own_seeds, how = evaluation_seeds(1), scripted
    else:
        (path,) = chosen_policies(given, latest)
        policy, own_seeds = load_policy_of(path, allow_import or ())
        env_id, settings = evaluation_env(policy, env, env_config)
        how = "sampled" if explore else "greedy"

    from qio_rllib.artifacts.video import save_video

    episode_seed = own_seeds[0] if seed is None else seed
    row = save_video(policy, out, env_id, settings, seed=episode_seed, explore=explore, max_steps=max_steps)
    cut = f", cut after {row['episode_length']:,} steps" if row.get("cut") else ""
    say(f"{out}: {how} episode of seed {episode_seed}, return {row['episode_return']:g}{cut}")
