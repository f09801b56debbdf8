"""What several commands read from their options."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.cli.output import note, relative

if TYPE_CHECKING:
    from qio_rllib.acting.policy import Policy
    from qio_rllib.experiments.experiment import Experiment


OWN_RUNS = "runs"
"""Where ``rllib train`` keeps runs unless it is told otherwise, seen from the working directory."""

AllowImport = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        metavar="MODULE",
        help="Let environments that a file names import this module, whose code then runs. Repeatable.",
    ),
]


def experiment_of(
    config: str | None,
    run: str | None,
    env: str | None,
    stop: str | None,
    overrides: Sequence[str],
    seed: int | None,
    allow_import: Sequence[str] = (),
) -> Experiment:
    """Read the experiment from a file, or from the options that RLlib's old command had."""
    if seed is not None and sets_seed(overrides):
        raise ConfigError("--seed: cannot go with --set seed=...")
    is_json = config is not None and config.lstrip().startswith("{")
    if run is None:
        for option, value in {
            "--env": env,
            "--stop": stop,
            "--config with JSON": config if is_json else None,
        }.items():
            if value is not None:
                raise ConfigError(f"{option}: needs --run ALGORITHM")
        if config is None:
            raise ConfigError("--config: an experiment file is needed (or --run and --env, or --resume)")
        from qio_rllib.experiments.experiment import load_experiment

        return load_experiment(config, overrides, seed, allow_import)
    if config is not None and not is_json:
        raise ConfigError(
            "--run: cannot go with an experiment file, which names the algorithm (use --set run=...)"
        )
    if env is None:
        raise ConfigError("--env: --run needs an environment")
    entry: dict[str, Any] = {
        "run": run,
        "env": env,
        "stop": json_object("--stop", stop),
        "config": json_object("--config", config),
    }
    from qio_rllib.experiments.experiment import Experiment, apply_overrides

    name = f"{run}_{env}".replace("/", "_").replace(":", "_")
    return Experiment.from_mapping(apply_overrides(entry, overrides), name).with_seed(seed)


def sets_seed(overrides: Sequence[str]) -> bool:
    """Return whether ``--set`` changes the seed."""
    return any(text.partition("=")[0].strip() in ("seed", "config.seed") for text in overrides)


def json_object(option: str, text: str | None) -> dict[str, Any]:
    """Read an option's JSON object; empty without the option.

    Raises:
        ConfigError: It is none or too large, or a key stands there twice.
    """
    if text is None:
        return {}
    from qio_rllib.artifacts.yaml_files import check_size

    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _without_repeats(option, pairs))
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:  # an integer of too many digits is a ValueError too
        raise ConfigError(f"{option}: not valid JSON: {error}") from error
    check_size(value, option)
    if not isinstance(value, dict):
        raise ConfigError(f"{option}: expected a JSON object, got {text}")
    return value


def _without_repeats(option: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ConfigError(f"{option}: the key '{key}' stands there twice")
        values[key] = value
    return values


def modes_of(greedy: bool, sampled: bool) -> list[str]:
    """Return how actions are chosen, of ``greedy`` and ``sampled``; without options, both ways."""
    if greedy and sampled:
        raise ConfigError("--greedy: cannot go with --sampled")
    return ["greedy"] if greedy else ["sampled"] if sampled else ["greedy", "sampled"]


def seeds_of(text: str | None) -> list[int] | None:
    """Read ``--seeds``, such as ``0-4`` or ``1,3,7-9``; None without the option."""
    if text is None:
        return None
    from qio_rllib.experiments.seeds import parse_seeds

    return parse_seeds(text, "--seeds")


def load_policy_of(path: Path, allow_import: Sequence[str] = ()) -> tuple[Policy, list[int]]:
    """Return the policy of a checkpoint, run directory or policy file, and its evaluation seeds.

    Args:
        path: Where it lies.
        allow_import: Modules that the environment which a policy file names may import.
    """
    from qio_rllib.artifacts.policy_file import load_policy
    from qio_rllib.sampling.evaluation import (
        checkpoint_experiment,
        evaluation_seeds,
        load_policy_from_checkpoint,
    )

    if path.is_file():
        return load_policy(path, allow_import), evaluation_seeds(10)
    path = checkpoint_of(path)
    return load_policy_from_checkpoint(path), checkpoint_experiment(path)["evaluation_seeds"]


def checkpoint_of(path: Path) -> Path:
    """Return a checkpoint as it is, of a run directory the last one; say so of one that is not the user's own."""
    note_foreign_code(path)
    if not (path / "run.json").is_file():
        return path
    from qio_rllib.experiments.finished_run import final_checkpoint

    return final_checkpoint(path)


def is_own_run(path: Path) -> bool:
    """Return whether a run or a checkpoint lies in the folder ``runs`` of the working directory, and not by a link."""
    return path.resolve().is_relative_to(Path.cwd().resolve() / OWN_RUNS)


def note_foreign_code(path: Path) -> None:
    """Say that checkpoints are code, where one is about to be loaded that is not the user's own."""
    is_any = any((path / name).is_file() for name in ("run.json", "rllib_checkpoint.json"))
    if is_any and not is_own_run(path):
        note(
            f"{relative(path)} is not in {OWN_RUNS}/: Ray's checkpoints are pickles, and loading one runs what is in it"
        )


def evaluation_env(policy: Policy, env: str | None, env_config: str | None) -> tuple[str, Mapping[str, Any]]:
    """Return the environment in which a policy is to act and its settings, by default those of the training.

    Raises:
        ConfigError: It has an agent that the policy does not know, observations of another shape, or other actions.
    """
    from qio_rllib.acting.actions import ActionSpec
    from qio_rllib.acting.policy import GroupSpaces
    from qio_rllib.sampling.environments import describe_env

    env_id = policy.env if env is None else env
    if env_config is not None:
        settings: Mapping[str, Any] = json_object("--env-config", env_config)
    else:
        settings = policy.env_config if env_id == policy.env else {}
    present = describe_env(env_id, settings)
    groups = {agent: group for group in policy.team.groups for agent in group.agents}
    for agent in present.agents:
        if agent not in groups:
            raise ConfigError(f"--env: {env_id} has the agent '{agent}', for which there is no policy")
        observations, actions = present.observation_spaces[agent], present.action_spaces[agent]
        trained = groups[agent].actor.action
        same = {
            "observation": GroupSpaces.of(observations, actions) == policy.spaces[groups[agent].module_id],
            "action": ActionSpec.of(actions, trained.rescaled) == trained,
        }
        for kind, is_same in same.items():
            if not is_same:
                raise ConfigError(f"--env: the {kind} space of {env_id} is not the one of the training")
    return env_id, settings


def scripted_env(
    checkpoint: Path | None, env: str | None, env_config: str | None
) -> tuple[str, dict[str, Any]]:
    """Return the environment in which a scripted policy is to act and its settings.

    Raises:
        ConfigError: A checkpoint is given too, or no environment of ``qio_envs``.
    """
    import qio_envs

    if checkpoint is not None:
        raise ConfigError("--scripted: cannot go with a checkpoint, it takes its place")
    if env is None:
        raise ConfigError("--scripted: needs --env")
    known = qio_envs.environments()
    if env not in known:
        raise ConfigError(
            f"--env: '{env}' has no scripted policies{did_you_mean(env, known)}; allowed: {', '.join(known)}"
        )
    return env, json_object("--env-config", env_config)


def needed_checkpoint(checkpoint: Path | None) -> Path:
    """Return the checkpoint.

    Raises:
        ConfigError: There is none.
    """
    if checkpoint is None:
        raise ConfigError("Missing argument 'CHECKPOINT' (or --scripted NAME with --env)")
    return checkpoint


def check_output_file(out: Path | None) -> None:
    """Refuse to write where something is already, or where no directory is.

    Raises:
        ConfigError: Either.
    """
    if out is not None and (out.exists() or not out.parent.is_dir()):
        raise ConfigError(
            f"--out: {out} {'exists already' if out.exists() else 'is in no directory that exists'}"
        )
